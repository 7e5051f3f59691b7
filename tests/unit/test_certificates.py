"""Certificates: judged on the controller, swapped on the host, renewed at their share; read by real openssl."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.slipway.wsgi.plugins.module_utils import certificates
from ansible_collections.slipway.wsgi.plugins.plugin_utils import pair
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID
from rendering import ROLES, lines, render

ROOT = Path(__file__).resolve().parents[2]
NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = timedelta(days=1)
SITE = ["www.example.org", "example.org"]
AUTHORITY = "https://acme.example.org/directory"
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="this is no machine with systemd")


# -- certificates to judge ---------------------------------------------------------------------------------------------


class Issuer:
    """Who signs certificates: an authority, or another in between."""

    def __init__(self, name: str, above: Issuer | None = None, end: datetime = NOW + 3650 * DAY) -> None:
        """Make its key and its certificate, signed by the one above or by itself."""
        self.name, self.key = name, ec.generate_private_key(ec.SECP256R1())
        self.certificate = (above or self).sign(self.name, self.key, [], NOW - 365 * DAY, end, authority=True)

    def sign(
        self, name: str, key: ec.EllipticCurvePrivateKey, names: list[str], begin: datetime, end: datetime,
        *, authority: bool = False,
    ) -> x509.Certificate:  # fmt: skip
        """Sign a certificate for somebody's key."""
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(end)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(one) for one in names]), False)
        return builder.sign(self.key, hashes.SHA256())


ROOT_CA = Issuer("Root")
BETWEEN = Issuer("Between", ROOT_CA)
KEY = ec.generate_private_key(ec.SECP256R1())


def pem(*what: x509.Certificate) -> bytes:
    """Return certificates as a file holds them."""
    return b"".join(one.public_bytes(Encoding.PEM) for one in what)


def key_pem(key: ec.EllipticCurvePrivateKey, phrase: bytes = b"") -> bytes:
    """Return a key as a file holds it."""
    locked = BestAvailableEncryption(phrase) if phrase else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked)


def leaf(names: list[str] = SITE, begin: datetime = NOW - 30 * DAY, end: datetime = NOW + 60 * DAY) -> x509.Certificate:
    """Return a site's certificate."""
    return BETWEEN.sign("site", KEY, names, begin, end)


def judged(fullchain: bytes, key: bytes = b"", names: list[str] = SITE) -> pair.Verdict:
    """Judge a pair as of NOW."""
    return pair.judge(fullchain, key or key_pem(KEY), names, NOW)


def test_a_good_pair_is_accepted() -> None:
    """Certificate first, its issuer after it, its key, all names, in time: nothing to say."""
    assert judged(pem(leaf(), BETWEEN.certificate)) == pair.Verdict()
    assert judged(pem(leaf(), BETWEEN.certificate, ROOT_CA.certificate)) == pair.Verdict()
    assert judged(pem(leaf(["*.example.org"]), BETWEEN.certificate), names=["a.example.org"]) == pair.Verdict()
    assert judged(pem(leaf(), BETWEEN.certificate), names=[]) == pair.Verdict()


@pytest.mark.parametrize(
    ("fullchain", "key", "said"),
    [
        (b"", key_pem(KEY), "certificate_fullchain holds no certificate in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", key_pem(KEY), "or one that cannot be read"),
        (pem(leaf(), BETWEEN.certificate), b"no key", "certificate_key holds no private key in PEM"),
        (pem(leaf(), BETWEEN.certificate), pem(leaf()), "certificate_key holds no private key in PEM"),
        (pem(leaf(), BETWEEN.certificate), key_pem(KEY, b"phrase"), "certificate_key is locked by a pass phrase"),
        (pem(leaf(), BETWEEN.certificate), key_pem(BETWEEN.key), "certificate_key is not the key of the first"),
        (pem(leaf(), ROOT_CA.certificate), key_pem(KEY), "CN=Root follows CN=site, which was issued by CN=Between"),
        (pem(leaf(end=NOW - DAY), BETWEEN.certificate), key_pem(KEY), "ended at 2026-11-23 12:00 UTC"),
        (pem(leaf(begin=NOW + DAY), BETWEEN.certificate), key_pem(KEY), "begins at 2026-11-25 12:00 UTC only"),
        (
            pem(leaf(["example.org"]), BETWEEN.certificate),
            key_pem(KEY),
            "is for example.org, and not for www.example.org",
        ),
        (pem(leaf([]), BETWEEN.certificate), key_pem(KEY), "is for no name, and not for www.example.org, example.org"),
    ],
)
def test_what_could_not_be_served_is_refused(fullchain: bytes, key: bytes, said: str) -> None:
    """Each kind of mistake, in words that name it, and nothing else is said of it."""
    faults = judged(fullchain, key).faults
    assert [said in fault for fault in faults] == [True], faults


def test_the_site_comes_first() -> None:
    """In the other order no browser finds the site's certificate: the one mistake that is seen in three ways."""
    first, second, third = judged(pem(BETWEEN.certificate, leaf())).faults
    assert "The site's own certificate comes first" in first
    assert "Each one is followed by that of its issuer" in second
    assert "is for no name" in third


def test_an_issuer_that_has_ended_is_refused() -> None:
    """Browsers judge the whole chain."""
    old = Issuer("Old", ROOT_CA, end=NOW - DAY)
    chain = pem(old.sign("site", KEY, SITE, NOW - DAY, NOW + 60 * DAY), old.certificate)
    assert judged(chain).faults == ["CN=Old ended at 2026-11-23 12:00 UTC."]


def test_what_may_be_a_mistake_is_said() -> None:
    """A certificate without its issuer, and one that ends soon, may be meant: they pass with a warning."""
    alone = judged(pem(leaf()))
    assert alone.faults == []
    assert ["CN=Between" in warning for warning in alone.warnings] == [True]
    soon = judged(pem(leaf(end=NOW + 20 * DAY), BETWEEN.certificate))
    assert soon == pair.Verdict([], ["The certificate ends at 2026-12-14 12:00 UTC. Renew it."])


@pytest.mark.parametrize(
    ("entry", "name", "covered"),
    [
        ("a.org", "a.org", True),
        ("*.a.org", "b.a.org", True),
        ("*.a.org", "*.a.org", True),
        ("*.a.org", "a.org", False),
        ("*.a.org", "c.b.a.org", False),
        ("*.b.a.org", "*.a.org", False),
        ("a.org", "*.a.org", False),
    ],
)
def test_a_wildcard_stands_for_one_label(entry: str, name: str, covered: bool) -> None:
    """As browsers take it."""
    assert pair.covers(entry, name) is covered


ACME: dict[str, Any] = {
    "names": ["a.example.org"],
    "email": "you@example.org",
    "dns": "",
    "dns_hook": "",
    "eab_key_id": "",
    "eab_hmac": False,
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"dns": "exec", "dns_hook": "/hook", "names": ["*.example.org"]}, ""),
        ({"dns": "rfc2136", "eab_key_id": "a", "eab_hmac": True}, ""),
        ({"names": []}, "certificate_names is empty"),
        ({"email": ""}, "certificate_acme_email is empty"),
        ({"names": ["192.0.2.1"]}, "certificate_names has 192.0.2.1, an IP address"),
        ({"names": ["*.example.org"]}, "A wildcard is proved by DNS only"),
        ({"names": ["localhost"]}, "No authority certifies a name without a domain"),
        ({"dns": "exec"}, "set both or neither. They are 'exec' and ''"),
        ({"dns_hook": "/hook"}, "set both or neither. They are '' and '/hook'"),
        ({"eab_key_id": "a"}, "belong together"),
        ({"eab_hmac": True}, "belong together"),
    ],
)
def test_what_no_authority_could_issue_is_refused(changes: dict[str, Any], said: str) -> None:
    """Before an authority is asked in vain."""
    faults = pair.acme_faults(ACME | changes)
    assert (len(faults) == 1 and said in faults[0]) if said else faults == []


# -- the role refuses before the first change --------------------------------------------------------------------------


def validate(directory: Path, **inputs: object) -> str:
    """Run the role's validate phase on this machine; return what it said, on one line, once it has refused."""
    playbook = directory / "play.yml"
    tasks = "[{ansible.builtin.include_role: {name: certificate, tasks_from: validate}}]"
    playbook.write_text(f"- {{hosts: localhost, connection: local, gather_facts: false, tasks: {tasks}}}\n")
    words = [f"{name}={value}" for name, value in inputs.items()]
    done = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", str(playbook), *(part for word in words for part in ("-e", word))],
        cwd=ROOT, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}, text=True, capture_output=True,
        check=False,
    )  # fmt: skip
    assert done.returncode != 0, done.stdout
    return " ".join(done.stdout.split())


def test_files_are_judged_on_the_controller(tmp_path: Path) -> None:
    """A key of another certificate is refused by the role itself, and not shown."""
    (tmp_path / "fullchain.pem").write_bytes(pem(leaf(end=datetime.now(UTC) + 99 * DAY), BETWEEN.certificate))
    (tmp_path / "key.pem").write_bytes(key_pem(BETWEEN.key))
    files = {"certificate_fullchain": tmp_path / "fullchain.pem", "certificate_key": tmp_path / "key.pem"}
    said = validate(tmp_path, web_certificate="files", **files)
    assert "nothing changes: certificate_key is not the key of the first certificate" in said
    assert key_pem(BETWEEN.key).split(b"\n")[1].decode() not in said
    said = validate(tmp_path, web_certificate="files", **files | {"certificate_key": tmp_path / "none.pem"})
    assert "certificate_key is" in said
    assert "which cannot be read here" in said


def test_inputs_are_judged_on_the_controller(tmp_path: Path) -> None:
    """The same for what an authority is asked for, and a source that is none."""
    assert "certificate_names is empty" in validate(tmp_path, web_certificate="acme", certificate_acme_email="a@a.org")
    assert "accepted is one of none, self_signed, files, acme" in validate(tmp_path, web_certificate="letsencrypt")


# -- pairs on a host ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("days", "left"), [(90, 30), (64, 64 / 3), (45, 15), (6, 2), (0.5, 1 / 6)])
def test_a_certificate_is_due_when_a_third_of_its_lifetime_is_left(days: float, left: float) -> None:
    """Whatever its lifetime is."""
    found = certificates.Certificate(frozenset(), 0, days * 86400)
    assert found.end - found.due == pytest.approx(left * 86400)


@pytest.fixture
def store(tmp_path: Path) -> certificates.Store:
    """An empty directory of pairs that belongs to whoever runs the test."""
    empty = certificates.Store(str(tmp_path / "etc" / "pairs"))
    assert empty.own(os.getuid(), os.getgid())
    assert not empty.own(os.getuid(), os.getgid())
    return empty


def fresh(names: Mapping[str, object] | list[str] = SITE) -> tuple[str, str]:
    """Make a pair."""
    return certificates.self_signed("shop", names)


def test_self_signed_is_for_the_names_and_for_a_server(store: certificates.Store) -> None:
    """Read back by openssl and by cryptography: names and addresses, 825 days, no authority, its own key."""
    names = ["example.org", "*.example.org", "192.0.2.1", "2001:db8::1"]
    store.put(fresh(names), "self_signed")
    found = store.certificate()
    assert found.names == frozenset(names)
    assert round((found.end - found.begin) / 86400) == 825
    one = x509.load_pem_x509_certificate(store.text("fullchain.pem").encode())
    assert one.subject.rfc4514_string() == "CN=shop"
    assert one.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert judged(store.text("fullchain.pem").encode(), store.text("privkey.pem").encode(), names).faults == [
        f"The site's certificate begins at {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only."
    ] * (one.not_valid_before_utc > NOW)


def test_a_site_that_answers_to_any_name_is_certified_by_those_of_the_host() -> None:
    """Such a site is asked by them."""
    assert {"localhost", "127.0.0.1", "::1"} < certificates.wanted_names([])
    assert certificates.wanted_names(["A.org"]) == {"a.org"}


def test_reasons_for_another_pair(store: certificates.Store) -> None:
    """None yet, another origin, other names, a key that does not fit, due; and none when it is as wanted."""
    assert store.reason("self_signed", SITE, 0) == "there is none yet"
    store.put(fresh(), "self_signed")
    found = store.certificate()
    assert store.reason("self_signed", SITE, found.due - 1) == ""
    assert "was to be renewed from" in store.reason("self_signed", SITE, found.due)
    assert "comes from self_signed, and https" in store.reason(AUTHORITY, SITE, 0)
    assert "and not for a.org" in store.reason("self_signed", ["a.org"], 0)
    Path(store.live, "privkey.pem").write_text(fresh()[1])
    assert store.reason("self_signed", SITE, 0) == "the key does not fit the certificate in use"
    Path(store.live, "fullchain.pem").write_text("")
    assert "cannot be read" in store.reason("self_signed", SITE, 0)


def test_a_pair_takes_the_place_of_another_by_the_link(store: certificates.Store) -> None:
    """The one before stays, older ones go, and nobody but owner and group reads any of it."""
    for number in range(3):
        store.put(fresh(), f"origin {number}")
    assert store.text("origin") == "origin 2\n"
    assert os.path.islink(store.live)
    pairs = [path for path in Path(store.path).iterdir() if not path.is_symlink()]
    assert sorted((path / "origin").read_text() for path in pairs) == ["origin 1\n", "origin 2\n"]
    assert stat.S_IMODE(os.stat(store.path).st_mode) == 0o2750
    assert {stat.S_IMODE(path.stat().st_mode) for one in pairs for path in one.iterdir()} == {0o640}


def test_a_pair_that_does_not_fit_never_gets_there(store: certificates.Store) -> None:
    """What is in use stays, and nothing is left of it."""
    store.put(fresh(), "good")
    with pytest.raises(certificates.CertificateError, match="does not fit"):
        store.put((fresh()[0], fresh()[1]), "bad")
    assert store.text("origin") == "good\n"
    assert len(os.listdir(store.path)) == 2


def configuration(store: certificates.Store, **changes: object) -> dict[str, Any]:
    """Return what the role writes for an app."""
    given: dict[str, Any] = {
        "names": SITE, "store": store.path, "state": f"{store.path}/..", "renewed": f"{store.path}/../renewed",
        "webroot": "/webroot", "directory": AUTHORITY, "email": "you@example.org", "dns": "", "dns_hook": "",
        "dns_resolvers": [], "dns_wait": True, "environment": {}, "eab_key_id": "", "eab_hmac": "",
        "ca": "", "proxy_url": "", "proxy_exceptions": [],
    }  # fmt: skip
    return {**given, **changes}


def test_renewed_only_when_it_is_wanted(store: certificates.Store) -> None:
    """In place of a placeholder; not before it is due; and then once, which the file tells that a reload waits for."""
    asked = []

    def issue(_: Mapping[str, Any]) -> tuple[str, str]:
        asked.append("asked")
        return fresh()

    wanted = configuration(store)
    store.put(fresh(), "placeholder")
    assert "is in place: valid until" in certificates.renew(wanted, issue, 0)
    os.unlink(wanted["renewed"])
    due = store.certificate().due
    assert certificates.renew(wanted, issue, due - 1).startswith("Nothing to do: the certificate is valid until")
    assert len(asked) == 1
    assert not os.path.exists(wanted["renewed"])
    certificates.renew(wanted, issue, due)
    assert len(asked) == 2
    assert os.path.exists(wanted["renewed"])


def test_the_pair_in_use_stays_when_none_is_issued(store: certificates.Store) -> None:
    """Whether the authority is down, or gives what does not fit."""

    def down(_: Mapping[str, Any]) -> tuple[str, str]:
        raise certificates.CertificateError("It is down.")

    store.put(fresh(), AUTHORITY)
    before, due = store.text("fullchain.pem"), store.certificate().due
    for issue in (down, lambda _: (fresh()[0], fresh()[1])):
        with pytest.raises(certificates.CertificateError, match=r"The certificate in use stays\.$"):
            certificates.renew(configuration(store), issue, due)
        assert store.text("fullchain.pem") == before


# What stands for lego: it says what it was called with, and issues the pair beside it.
LEGO = """#!/bin/sh
case "$1" in --help) echo "$KNOWN"; exit;; esac
echo "$@" >> "$HOME/calls"
echo "$LEGO_EAB_HMAC $EXEC_PATH $HTTPS_PROXY $TOKEN" >> "$HOME/calls"
echo "$SAID"
test -z "$FAILS" || exit 1
mkdir -p "$HOME/lego/certificates"
cp "$HOME/fullchain.pem" "$HOME/lego/certificates/_.example.org.crt"
cp "$HOME/fullchain.pem" "$HOME/lego/certificates/_.example.org.issuer.crt"
cp "$HOME/privkey.pem" "$HOME/lego/certificates/_.example.org.key"
"""


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of the unit's, with an account in it, and lego that does as it is told by the environment."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "lego").write_text(LEGO)
    (tmp_path / "bin" / "lego").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    (tmp_path / "lego" / "accounts").mkdir(parents=True)
    for name, text in zip(("fullchain.pem", "privkey.pem"), fresh(), strict=True):
        (tmp_path / name).write_text(text)
    return tmp_path


def test_lego_is_told_what_it_needs_and_no_secret_on_its_command_line(
    store: certificates.Store, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By HTTP and by DNS; where lego cannot be told the authority's key otherwise, it is told there."""
    told = {"state": str(state), "eab_key_id": "kid", "eab_hmac": "hmac", "environment": {"TOKEN": "t"}}
    assert certificates.issued(configuration(store, **told))[0] == (state / "fullchain.pem").read_text()
    monkeypatch.setenv("KNOWN", "[$LEGO_EAB_HMAC]")
    by_dns = {
        "dns": "exec",
        "dns_hook": "/hook",
        "dns_resolvers": ["192.0.2.1:53"],
        "dns_wait": False,
        "proxy_url": "http://proxy:3128",
    }
    certificates.issued(configuration(store, **told, **by_dns))
    common = f"--accept-tos --path {state}/lego --key-type ec256 --server {AUTHORITY} --email you@example.org"
    ending = "--domains www.example.org --domains example.org run"
    assert (state / "calls").read_text().splitlines() == [
        f"{common} --http --http.webroot /webroot --eab --kid=kid --hmac=hmac {ending}",
        "hmac   t",
        f"{common} --dns exec --dns.resolvers 192.0.2.1:53 --dns.disable-cp --eab --kid=kid {ending}",
        "hmac /hook http://proxy:3128 t",
    ]


@pytest.mark.parametrize(
    ("said", "forgotten"),
    [
        ("acme: error: 400 :: urn:ietf:params:acme:error:accountDoesNotExist :: unable to find existing account", True),
        ('acme: error: 403 :: Account is not valid, has status "deactivated"', True),
        ("acme: error: 403 :: account has been deactivated", True),
        ("dial tcp 192.0.2.1:443: connect: connection refused", False),
        (
            "acme: error: 429 :: urn:ietf:params:acme:error:rateLimited :: too many orders of this account",
            False,
        ),
    ],
)
def test_an_account_that_is_forgotten_is_made_anew_by_the_next_attempt(
    store: certificates.Store, state: Path, monkeypatch: pytest.MonkeyPatch, said: str, forgotten: bool
) -> None:
    """And only then: any other failure is not the account's."""
    monkeypatch.setenv("SAID", said)
    monkeypatch.setenv("FAILS", "yes")
    with pytest.raises(certificates.CertificateError, match="does not know the account" if forgotten else "says why"):
        certificates.issued(configuration(store, state=str(state)))
    assert (state / "lego" / "accounts").exists() is not forgotten


def test_the_program_says_why_it_failed(tmp_path: Path) -> None:
    """Run as the unit runs it: by its exit status, and one sentence in the journal instead of a traceback."""
    (tmp_path / "configuration.json").write_text('{"names": ["a.org"], "store": "/nonexistent", "directory": "x"}')
    program = ROOT / "plugins" / "module_utils" / "certificates.py"
    environment = {"PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-I", str(program), str(tmp_path / "configuration.json")],
        env=environment, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "A new certificate is wanted: there is none yet." in done.stdout


# -- units -------------------------------------------------------------------------------------------------------------


def unit(directory: Path, **inputs: object) -> Path:
    """Write the units as the role would,; return the service."""
    for kind in ("service", "timer"):
        text = render("certificate", f"{kind}.j2", certificate_app="shop", **inputs)
        (directory / f"shop-certificate.{kind}").write_text(text)
    return directory / "shop-certificate.service"


def test_every_template_is_tested() -> None:
    """A template that is added is added here too."""
    assert sorted(path.name for path in (ROLES / "certificate" / "templates").iterdir()) == ["service.j2", "timer.j2"]


def test_the_web_server_is_reloaded_only_for_a_new_pair() -> None:
    """By the one command that has rights; the file goes when that has succeeded, and not before."""
    found = lines(render("certificate", "service.j2", certificate_app="shop"))
    assert [line for line in found if line.startswith("Exec")] == [
        "ExecStart=/usr/bin/python3 -I /usr/local/lib/slipway/certificates.py /etc/slipway/acme/shop.json",
        "ExecStartPost=+/bin/sh -c 'test ! -e /var/lib/slipway-acme/shop/renewed"
        " || systemctl try-reload-or-restart nginx'",
        "ExecStartPost=/bin/rm -f /var/lib/slipway-acme/shop/renewed",
    ]


def test_the_timer_makes_up_for_what_was_missed() -> None:
    """Every hour, at a minute of the host's own."""
    found = lines(render("certificate", "timer.j2", certificate_app="shop"))
    assert {"OnCalendar=hourly", "RandomizedDelaySec=1h", "FixedRandomDelay=true", "Persistent=true"} < set(found)


@needs_systemd
def test_systemd_understands_the_units(tmp_path: Path) -> None:
    """Without a word about any line."""
    service = unit(tmp_path)
    text = service.read_text().replace("/usr/local/lib/slipway/certificates.py", "/etc/hostname")
    service.write_text(text)
    done = subprocess.run(
        [str(ANALYZE), "verify", str(service), str(service.with_suffix(".timer"))],
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_the_sandbox_is_tight(tmp_path: Path) -> None:
    """As systemd itself counts; 10 is none at all."""
    done = subprocess.run(
        [str(ANALYZE), "security", "--offline=true", "--no-pager", "--threshold=15", str(unit(tmp_path))],
        text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "Overall exposure level" in done.stdout
