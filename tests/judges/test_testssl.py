"""testssl.sh of Debian 13, from one host to the other and to itself."""

from __future__ import annotations

import json
import ssl
from hashlib import sha256

import pytest
from testinfra.host import Host

from judges.conftest import NAME, WEAK, WEAK_KEY, Authority, Verdicts

# A private authority says nothing of how its certificates are revoked, and has no name in the public DNS.
EXCUSED = {"cert_revocation"}
CALL = "cd /tmp && rm -f report.json && testssl --quiet --color 0 --warnings off --add-ca ca.pem --jsonfile report.json"


def judge(host: Host, address: str, url: str) -> dict[str, dict[str, str]]:
    """Return all that it finds, by the name of the finding."""
    host.run(f"{CALL} --ip {address} {url} > words.txt 2>&1")
    said = json.loads(host.check_output("cat /tmp/report.json"))
    return {one["id"]: one for one in said}


@pytest.mark.parametrize("name", ["debian12", "debian13"])
def test_the_grade_is_a_plus(
    name: str, hosts: dict[str, Host], addresses: dict[str, str], authority: Authority, verdicts: Verdicts
) -> None:
    """A+, nothing of high severity, and the certificate is the one that was deployed."""
    bench = hosts["debian13"]
    bench.check_output(f"cat > /tmp/ca.pem <<'END'\n{authority.ca.read_text()}END")
    found = judge(bench, addresses[name], f"https://{NAME}:443")
    assert found["cert_fingerprintSHA256"]["finding"].lower() == sha256(
        ssl.PEM_cert_to_DER_cert(authority.pem())
    ).hexdigest()  # fmt: skip
    grade = found["overall_grade"]["finding"]
    severe = {one["id"] for one in found.values() if one["severity"] in ("HIGH", "CRITICAL")}
    verdicts.add("testssl.sh", version(bench), name, f"{grade}, {len(found)} findings looked at", "see below")
    assert grade == "A+", [one for one in found.values() if one["id"].startswith("grade_cap")]
    assert severe <= EXCUSED


def test_a_weak_server_gets_another_grade(
    hosts: dict[str, Host], addresses: dict[str, str], authority: Authority, verdicts: Verdicts
) -> None:
    """The same judge on what OpenSSL serves with an old cipher, no TLS 1.3 and a certificate of its own."""
    bench = hosts["debian13"]
    make = " ".join(f"'{word}'" for word in ("openssl", *WEAK_KEY))
    serve = " ".join(f"'{word}'" for word in WEAK).replace("'0'", "8444")
    bench.check_output(f"cd /tmp && {make} 2>&1 && systemd-run --unit judges-weak --working-directory /tmp -- {serve}")
    try:
        found = judge(bench, "127.0.0.1", f"https://{NAME}:8444")
    finally:
        bench.check_output("systemctl stop judges-weak")
    grade = found["overall_grade"]["finding"]
    verdicts.add("testssl.sh, a weak server", version(bench), "debian13", "", grade)
    assert grade in ("T", "F", "M")


def version(host: Host) -> str:
    """Return the version of the package."""
    return str(host.package("testssl.sh").version)
