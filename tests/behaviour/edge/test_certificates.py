"""Certificates on hosts: issued in the first run by a real ACME server, renewed at their share, and what goes wrong.

The tests follow each other: what one leaves is where the next one begins.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import client
import pytest
from ansible_collections.slipway.wsgi.plugins.module_utils.certificates import SHARE_LEFT, self_signed
from authority import DAY, Authority
from conftest import APP, ROOT, Run, Site, WebServer, await_that, visited
from cryptography import x509
from testinfra.host import Host
from traffic import faults, traffic

UNIT = f"{APP}-certificate"
DIRECTORY = f"/etc/slipway/certificates/{APP}"
STATE = f"/var/lib/slipway-acme/{APP}"
NAME = "{}.example.org"  # {} is the name of the host
# Long enough for a renewal to be seen before and after it is due, and short enough to be waited for.
SHORT = 45
RATE = 40.0  # requests per second to each host
RENEWALS = 10

Playbook = Callable[..., Run]
Hosts = dict[str, Host]
Sites = dict[str, Site]

# The hook of dns-01: tells the DNS server of the test.
HOOK = """#!/usr/bin/python3
import json, os, sys, urllib.request
order, name, value = sys.argv[1:]
content = {"host": name, "value": value} if order == "present" else {"host": name}
url = os.environ["DNS_CONTROL"] + ("/set-txt" if order == "present" else "/clear-txt")
urllib.request.urlopen(url, data=json.dumps(content).encode(), timeout=10)
"""


@dataclass
class Acme:
    """The authority, and the inputs by which the hosts get their certificate from it."""

    authority: Authority
    inputs: dict[str, Any]


@pytest.fixture(scope="module")
def acme(hosts: Hosts, playbook: Playbook, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acme]:
    """An authority on this machine that finds the hosts by their names; at the end all is as the scenario has it."""
    first = next(iter(hosts.values()))
    authority = Authority(tmp_path_factory.mktemp("authority"), first.check_output("ip route show default").split()[2])
    try:
        authority.start()
        for name, host in hosts.items():
            authority.resolve(NAME.format(name), host.check_output("hostname -I").split()[0])
        yield Acme(
            authority,
            {
                "web_certificate": "acme",
                "certificate_names": [NAME.format("{{ inventory_hostname }}")],
                "certificate_acme_directory": authority.url,
                "certificate_acme_ca": str(authority.known_by),
                "certificate_acme_email": "you@example.org",
                "certificate_proxy_url": "",
            },
        )
    finally:
        authority.end()
        run = playbook("site.yml")
        assert run.code == 0, run.output


def served(host: str, site: Site, root: str = "", name: str = NAME) -> x509.Certificate:
    """Return the certificate that a site is served with by a name; with an authority's root, refuse any other's."""
    with site.connect(tls=True, name=name.format(host), root=root) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")


def serials(sites: Sites) -> dict[str, int]:
    """Return the number of the certificate of each site: another one has another number."""
    return {name: served(name, site).serial_number for name, site in sites.items()}


def attempt(hosts: Hosts) -> dict[str, bool]:
    """Let the unit run as its timer does, and return where it succeeded."""
    return {name: host.run(f"systemctl start {UNIT}.service").rc == 0 for name, host in hosts.items()}


def await_others(sites: Sites, before: dict[str, int], seconds: float = 20) -> None:
    """Return when each site is served with another certificate than before: a reload takes a moment."""
    await_that(lambda: all(serial != before[name] for name, serial in serials(sites).items()), seconds)


def everywhere(hosts: Hosts, value: object) -> dict[str, Any]:
    """Return what is the same on all hosts."""
    return dict.fromkeys(hosts, value)


def said(host: Host) -> str:
    """Return what the last run of the unit wrote to the journal."""
    invocation = host.check_output(f"systemctl show --value --property InvocationID {UNIT}.service")
    return str(host.check_output(f"journalctl --sync; journalctl --output cat _SYSTEMD_INVOCATION_ID={invocation}"))


def read(hosts: Hosts) -> dict[str, str]:
    """Return when the web server of each host last read its configuration, and with it the certificate."""
    return {name: host.check_output("stat --format '%n %y' /run/*.loaded") for name, host in hosts.items()}


def ask_anew(hosts: Hosts) -> None:
    """Let the pair in use be one that nobody knows the origin of, so that another is wanted at once."""
    for host in hosts.values():
        host.check_output(f"rm -f {DIRECTORY}/live/origin")


def test_one_run_on_a_bare_host_ends_with_a_valid_chain(
    web: WebServer, acme: Acme, hosts: Hosts, sites: Sites, playbook: Playbook
) -> None:
    """The web server has nothing to start with, and at the end a certificate that the authority's root proves."""
    for host in hosts.values():
        host.check_output(f"systemctl stop {web.unit}; rm -rf {DIRECTORY} /var/lib/slipway-acme")
    run = playbook("site.yml", **acme.inputs)
    assert run.code == 0, run.output
    root = acme.authority.root()
    for name, site in sites.items():
        assert served(name, site, root).not_valid_after_utc > datetime.now(UTC) + timedelta(days=89)
        with pytest.raises(ssl.SSLCertVerificationError):
            served(name, site, self_signed("other", [NAME.format(name)])[0])


def test_a_second_run_changes_nothing(acme: Acme, hosts: Hosts, sites: Sites, playbook: Playbook) -> None:
    """The certificate, the account and the web server stay as they are."""
    before = serials(sites), read(hosts)
    run = playbook("playbooks/certificate.yml", **acme.inputs)
    assert (run.code, run.changed) == (0, everywhere(hosts, 0)), run.output
    assert (serials(sites), read(hosts)) == before


def test_the_key_is_private(acme: Acme, host: Host) -> None:
    """The web server's group reads it, the app and all others do not; nor what the authority is told."""
    live = host.file(f"{DIRECTORY}/live")
    assert live.is_symlink
    key = host.file(f"{DIRECTORY}/live/privkey.pem")
    assert (oct(key.mode), key.user, key.group) == ("0o640", "slipway-acme", "www-data")
    for path in (f"{DIRECTORY}/live/privkey.pem", f"/etc/slipway/acme/{APP}.json", f"{STATE}/lego"):
        assert host.run(f"runuser -u {APP} -- head -c 1 {path} || runuser -u {APP} -- ls {path}").rc != 0
    assert host.run(f"runuser -u www-data -- head -c 1 {DIRECTORY}/live/privkey.pem").rc == 0


def test_the_unit_runs_in_a_sandbox_by_a_timer(acme: Acme, host: Host) -> None:
    """A user of its own, hardly exposed, every hour, also for what was missed."""
    assert host.run(f"systemd-analyze security --threshold=15 --no-pager {UNIT}.service").rc == 0
    assert host.check_output(f"systemctl show --value --property User {UNIT}.service") == "slipway-acme"
    assert host.service(f"{UNIT}.timer").is_enabled
    assert host.service(f"{UNIT}.timer").is_running
    shown = host.check_output(f"systemctl show --property Persistent --property RandomizedDelayUSec {UNIT}.timer")
    assert set(shown.splitlines()) == {"Persistent=yes", "RandomizedDelayUSec=1h"}


def test_nothing_is_done_before_it_is_due(acme: Acme, hosts: Hosts, sites: Sites) -> None:
    """The authority is not asked, the web server not reloaded."""
    before = serials(sites), read(hosts), acme.authority.log()
    assert attempt(hosts) == everywhere(hosts, True)
    assert (serials(sites), read(hosts), acme.authority.log()) == before
    assert all("Nothing to do: the certificate is valid until" in said(host) for host in hosts.values())


def test_an_account_that_the_authority_forgot_is_made_anew(acme: Acme, hosts: Hosts, sites: Sites) -> None:
    """The first attempt fails and is seen to have, the certificate stays; the next one succeeds."""
    before, old = serials(sites), read(hosts)
    acme.authority.start(lifetime=SHORT)
    ask_anew(hosts)
    assert attempt(hosts) == everywhere(hosts, False)
    for host in hosts.values():
        assert "does not know the account. The next attempt makes another one. The certificate in use" in said(host)
        assert f"{UNIT}.service" in host.check_output("systemctl --failed --plain --no-legend")
    assert (serials(sites), read(hosts)) == (before, old)
    with visited(sites, pause=0.02, tls=True, name=NAME) as visitors:
        assert attempt(hosts) == everywhere(hosts, True)
        await_others(sites, before)
    assert visitors.failed() == everywhere(hosts, [])
    assert all(served(name, site, acme.authority.root()) for name, site in sites.items())
    assert all(host.run(f"systemctl is-failed {UNIT}.service").rc != 0 for host in hosts.values())


def test_renewed_when_a_third_of_the_lifetime_is_left_and_no_visitor_notices(
    acme: Acme, hosts: Hosts, sites: Sites
) -> None:
    """Then once, with a reload, and every request that came meanwhile was answered."""
    found = [served(name, site) for name, site in sites.items()]
    (lifetime,) = {(one.not_valid_after_utc - one.not_valid_before_utc).total_seconds() for one in found}
    assert round(lifetime) == pytest.approx(SHORT, abs=1)
    due = max(one.not_valid_after_utc.timestamp() for one in found) - lifetime * SHARE_LEFT
    before, old = serials(sites), read(hosts)
    with visited(sites, pause=0.02, tls=True, name=NAME) as visitors:
        await_that(lambda: time.time() > due, SHORT)
        assert attempt(hosts) == everywhere(hosts, True)
        await_others(sites, before)
        assert all(served(name, site, acme.authority.root()) for name, site in sites.items())
        assert all(read(hosts)[name] != old[name] for name in hosts)
    assert visitors.failed() == everywhere(hosts, [])
    renewed = serials(sites)
    assert attempt(hosts) == everywhere(hosts, True)
    assert serials(sites) == renewed


@pytest.mark.long
def test_issue_and_renewals_lose_no_request_under_load(
    web: WebServer, acme: Acme, hosts: Hosts, sites: Sites, playbook: Playbook, tmp_path: Path
) -> None:
    """Visitors by HTTP while the first certificate is issued, by HTTPS while it is renewed again and again."""
    slow = {"release_source": str(ROOT / "tests" / "apps" / "slow"), "release_requirements": [], "app_static": {}}
    plain = playbook("site.yml", **slow, web_certificate="none")
    assert plain.code == 0, plain.output
    for host in hosts.values():
        host.check_output(f"rm -rf {DIRECTORY} {STATE}")
    ports, tls_ports = ({name: getattr(site, which) for name, site in sites.items()} for which in ("port", "tls_port"))

    def met(files: dict[str, Path]) -> dict[str, list[str]]:
        records = {name: client.read(file) for name, file in files.items()}
        assert all(len(noted) > RATE for noted in records.values())
        return {name: faults(noted) for name, noted in records.items()}

    with traffic(ports, tmp_path, RATE, "--reopen") as files:
        run = playbook("site.yml", **slow, **acme.inputs, web_redirect=False)
        assert run.code == 0, run.output
    assert all(served(name, site, acme.authority.root()) for name, site in sites.items())
    assert met(files) == everywhere(hosts, [])
    with traffic(tls_ports, tmp_path, RATE, "--reopen", scheme="https") as files:
        for _ in range(RENEWALS):
            before = serials(sites)
            ask_anew(hosts)
            assert attempt(hosts) == everywhere(hosts, True)
            await_others(sites, before)
    assert met(files) == everywhere(hosts, [])
    # The positive control: without it the client might not see a loss.
    with traffic(tls_ports, tmp_path, RATE, "--reopen", scheme="https") as files:
        await_that(lambda: all(site.get("/", tls=True).status == 200 for site in sites.values()), 10)
        for host in hosts.values():
            host.check_output(f"systemctl restart {web.unit}")
    assert all(met(files).values())


def test_an_authority_that_is_down_is_asked_again_by_itself(acme: Acme, hosts: Hosts, sites: Sites) -> None:
    """The certificate stays, the unit fails; once the authority is back, the timer alone mends it."""
    before, old = serials(sites), read(hosts)
    acme.authority.stop()
    ask_anew(hosts)
    assert attempt(hosts) == everywhere(hosts, False)
    for host in hosts.values():
        assert "connection refused" in said(host)
        assert f"{UNIT}.service" in host.check_output("systemctl --failed --plain --no-legend")
    assert (serials(sites), read(hosts)) == (before, old)
    acme.authority.start(lifetime=90 * DAY)
    drop_in = f"/run/systemd/system/{UNIT}.timer.d"
    for host in hosts.values():  # an hour of the timer's in three seconds
        host.check_output(
            f"mkdir -p {drop_in}; printf '[Timer]\\nOnCalendar=\\nOnCalendar=*:*:0/3\\nRandomizedDelaySec=0\\n"
            f"AccuracySec=100ms\\n' > {drop_in}/often.conf; systemctl daemon-reload; systemctl restart {UNIT}.timer"
        )
    try:
        root = acme.authority.root()
        await_others(sites, before, 60)
        assert all(served(name, site, root) for name, site in sites.items())
        await_that(lambda: all(host.run(f"systemctl is-failed {UNIT}.service").rc != 0 for host in hosts.values()))
    finally:
        for host in hosts.values():
            host.check_output(f"rm -r {drop_in}; systemctl daemon-reload; systemctl restart {UNIT}.timer")


def test_a_reload_that_failed_is_made_up_for(web: WebServer, acme: Acme, hosts: Hosts, sites: Sites) -> None:
    """Whoever broke the configuration sees the unit fail; when it is mended, the new pair comes into force."""
    before = serials(sites)
    broken = f"{web.directory}/{web.either('conf.d', 'sites-enabled')}/zz-broken.conf"
    ask_anew(hosts)
    try:
        for host in hosts.values():
            host.check_output(f"echo 'broken' > {broken}")
        assert attempt(hosts) == everywhere(hosts, False)
        assert serials(sites) == before
    finally:
        for host in hosts.values():
            host.check_output(f"rm {broken}")
    assert attempt(hosts) == everywhere(hosts, True)
    assert all("Nothing to do" in said(host) for host in hosts.values())
    await_others(sites, before)


def test_other_names_are_proved_by_dns_with_an_account_of_a_customer(
    acme: Acme, hosts: Hosts, sites: Sites, playbook: Playbook, tmp_path: Path
) -> None:
    """A wildcard, by the user's hook; the authority ties the account to a key, which nobody gets to see."""
    hmac = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
    acme.authority.start(keys={"kid-1": hmac})
    for host in hosts.values():
        host.check_output(f"rm -rf {STATE}/lego/accounts")
    (tmp_path / "hook").write_text(HOOK)
    before = serials(sites)
    inputs = {
        "certificate_names": [NAME.format("{{ inventory_hostname }}"), NAME.format("*.{{ inventory_hostname }}")],
        "certificate_acme_dns": "exec",
        "certificate_acme_dns_hook": str(tmp_path / "hook"),
        "certificate_acme_dns_resolvers": [acme.authority.resolver],
        "certificate_acme_dns_wait": False,  # the DNS server of the test knows no zones, which are asked for then
        # lego waits a minute between two names otherwise.
        "certificate_acme_environment": {"DNS_CONTROL": acme.authority.control, "EXEC_SEQUENCE_INTERVAL": "1"},
        "certificate_acme_eab_key_id": "kid-1",
        "certificate_acme_eab_hmac": hmac,
    }
    run = playbook("playbooks/certificate.yml", "-vvv", "--diff", **acme.inputs | inputs)
    assert run.code == 0, run.output
    assert hmac not in run.output
    root = acme.authority.root()
    await_others(sites, before)
    for name, host in hosts.items():
        assert served(name, sites[name], root)
        assert hmac not in host.check_output("journalctl --output cat")
        names = served(name, sites[name]).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert set(names.get_values_for_type(x509.DNSName)) == {NAME.format(name), NAME.format(f"*.{name}")}


def test_files_take_the_place_of_the_authority(hosts: Hosts, sites: Sites, playbook: Playbook, tmp_path: Path) -> None:
    """The user's pair is served, the unit is gone; what does not fit is refused and nothing changes."""
    names = [NAME.format(name) for name in hosts]
    for number in (1, 2):
        for suffix, text in zip(("pem", "key"), self_signed(f"user {number}", names), strict=True):
            (tmp_path / f"{number}.{suffix}").write_text(text)
    inputs = {
        "web_certificate": "files",
        "certificate_names": [NAME.format("{{ inventory_hostname }}")],
        "certificate_fullchain": str(tmp_path / "1.pem"),
        "certificate_key": str(tmp_path / "1.key"),
    }
    before = serials(sites)
    run = playbook("playbooks/certificate.yml", **inputs)
    assert run.code == 0, run.output
    await_others(sites, before)
    before = serials(sites)
    for name, host in hosts.items():
        assert served(name, sites[name], (tmp_path / "1.pem").read_text())
        assert host.run(f"systemctl cat {UNIT}.timer").rc != 0
    old = read(hosts)
    run = playbook("playbooks/certificate.yml", **inputs)
    assert (run.code, run.changed) == (0, everywhere(hosts, 0)), run.output
    run = playbook("playbooks/certificate.yml", **inputs | {"certificate_key": str(tmp_path / "2.key")})
    assert run.code != 0
    assert "certificate_key is not the key of the first certificate" in run.words
    assert run.changed == everywhere(hosts, 0)
    assert (serials(sites), read(hosts)) == (before, old)


def test_self_signed_follows_the_names(hosts: Hosts, sites: Sites, playbook: Playbook) -> None:
    """Made anew when they change, and only then."""
    for names in (["one.example.org", "192.0.2.1"], ["one.example.org", "two.example.org"]):
        inputs = {"web_certificate": "self_signed", "certificate_names": names}
        before = serials(sites)
        assert playbook("playbooks/certificate.yml", **inputs).code == 0
        await_others(sites, before)
        for name, host in hosts.items():
            text = host.check_output(f"cat {DIRECTORY}/live/fullchain.pem")
            one = x509.load_pem_x509_certificate(text.encode())
            entries = one.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert {str(entry.value) for entry in entries} == set(names)
            assert served(name, sites[name]).serial_number == one.serial_number
    run = playbook("playbooks/certificate.yml", **inputs)
    assert (run.code, run.changed) == (0, everywhere(hosts, 0)), run.output
