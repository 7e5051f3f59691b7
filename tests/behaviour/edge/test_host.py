"""The host role's inputs on hosts: whoever would be locked out is not, what is switched off is gone."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from conftest import Run, Site, WebServer, main_pid, visited
from reach import address, reached
from testinfra.host import Host

ROLE = "tests/behaviour/edge/host.yml"
OFF = {"host_firewall": False, "host_updates": False, "host_journal": False, "host_sysctl": False}
# Nobody listens on them: closed when they are open to somebody, hidden when they are not.
OPEN, SOME, ALL = 8001, 8002, 8003
# Where a second sshd listens; no input says so.
SSH = 2222
# Rules of somebody else's, as docker or fail2ban have theirs.
OTHERS = "table inet others { chain input { type filter hook input priority -1; tcp dport 4 drop; }; }"
LIST_OTHERS = "nft list table inet others"
# All that the role writes. Not what apt and dpkg keep of packages.
FILES = "find /etc -xdev -not -path '/etc/*-' -printf '%p %y %m %u %g %s %l\\n' | sort"


def firewall(host: Host) -> tuple[str, str]:
    """Return the rules in force and those on disk."""
    return (
        host.check_output("nft --stateless list table inet slipway"),
        host.check_output("cat /etc/slipway/firewall.nft"),
    )


@pytest.fixture(scope="module")
def restored(hosts: dict[str, Host], playbook: Callable[..., Run]) -> Iterator[dict[str, list[str]]]:
    """End with what the inventory says: every file, and the firewall, as before. Give the files of each host.

    The rules of somebody else's stay as they are, whatever the tests do in between.
    """
    for host in hosts.values():
        host.check_output(f"nft '{OTHERS}'")
    before = {name: host.check_output(FILES).splitlines() for name, host in hosts.items()}
    walls = {name: firewall(host) for name, host in hosts.items()}
    others = {name: host.check_output(LIST_OTHERS) for name, host in hosts.items()}
    yield before
    run = playbook(ROLE)
    assert run.code == 0, run.output
    assert {name: firewall(host) for name, host in hosts.items()} == walls
    assert {name: host.check_output(FILES).splitlines() for name, host in hosts.items()} == before
    assert {name: host.check_output(LIST_OTHERS) for name, host in hosts.items()} == others
    for host in hosts.values():
        host.check_output("nft delete table inet others")


def test_only_security_updates_are_installed(host: Host) -> None:
    """The program itself says from where it takes packages, and that it works; systemd starts it daily."""
    said = host.check_output("unattended-upgrade --dry-run --verbose 2>&1")
    origins = re.search(r"Allowed origins are: (.*)", said)
    assert origins
    assert re.findall(r"origin=Debian,[^ ]*", origins[1].replace(", ", " ")) == [
        f"origin=Debian,codename={host.system_info.codename}-security,label=Debian-Security"
    ]
    assert 'Unattended-Upgrade::Automatic-Reboot "false";' in host.check_output("apt-config dump")
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        assert host.service(timer).is_enabled


def test_an_update_of_the_web_server(web: WebServer, hosts: dict[str, Host], sites: dict[str, Site]) -> None:
    """nginx hands its sockets from the old program to the new one. Apache is restarted: some find it closed."""
    with visited(sites, pause=0.01, tls=True) as visitors:
        for host in hosts.values():
            before = main_pid(host, web.unit)
            host.check_output(f"DEBIAN_FRONTEND=noninteractive apt-get install --reinstall --quiet --yes {web.unit}")
            assert main_pid(host, web.unit) != before
    met = [one for failed in visitors.failed().values() for one in failed]
    assert web.either(met, [one for one in met if isinstance(one, int)]) == [], met


@pytest.mark.usefixtures("restored")
def test_nobody_is_locked_out(hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run]) -> None:
    """Rules that let no new connection in are taken back by the host, in force and on disk; the run ends red."""
    before = {name: firewall(host) for name, host in hosts.items()}
    with visited(sites, tls=True) as visitors:
        run = playbook(ROLE, host_firewall_ssh_sources=["192.0.2.0/24"])
    assert run.code != 0
    assert "No new ssh connection came through the new rules of the firewall" in run.words
    assert "The host has put the old ones back, which are in force and on disk" in run.words
    assert "host_firewall_ssh_sources" in run.words
    assert run.changed == dict.fromkeys(hosts, 0)
    assert {name: firewall(host) for name, host in hosts.items()} == before
    for host in hosts.values():
        assert host.check_output("systemctl list-units --all --no-legend 'slipway-firewall-undo*'") == ""
        assert host.check_output("systemctl is-system-running") == "running"
    assert not any(visitors.failed().values()), "the web stays open"


@pytest.mark.usefixtures("restored")
def test_inputs_are_put_in_force(hosts: dict[str, Host], playbook: Callable[..., Run]) -> None:
    """Ports for all, for some and of a second sshd, a journal that cannot grow, a longer queue, a time to restart."""
    (first, one), (second, other) = hosts.items()
    other.check_output(f"systemd-run --quiet --unit=second-sshd /usr/sbin/sshd -D -p {SSH} -o PidFile=none")
    run = playbook(
        ROLE,
        host_firewall_ports=[80, OPEN],
        host_firewall_sources=[
            {"source": address(one), "ports": [SOME]},
            {"source": address(one, 6).partition("%")[0]},
        ],
        host_journal_size="16m",
        host_journal_burst=0,
        app_backlog=8192,
        host_updates_reboot="04:30",
    )
    assert run.code == 0, run.output
    assert reached(address(other), 22, SSH, 80, source=one) == {22: "open", SSH: "open", 80: "open"}
    other.check_output("systemctl stop second-sshd")
    assert reached(address(other), OPEN, SOME, source=one) == {OPEN: "closed", SOME: "closed"}
    assert reached(address(other), ALL, 443, source=one) == {ALL: "hidden", 443: "hidden"}
    assert reached(address(other, 6), ALL, source=one) == {ALL: "closed"}, f"{first} may use every port of {second}"
    assert reached(address(one), OPEN, SOME, source=other) == {OPEN: "closed", SOME: "hidden"}
    assert reached(address(one, 6), ALL, source=other) == {ALL: "hidden"}
    for host in hosts.values():
        assert host.check_output("cat /proc/sys/net/core/somaxconn") == "8192"
        assert 'Automatic-Reboot-Time "04:30";' in host.check_output("apt-config dump")
        host.check_output("base64 --wrap=1000 /dev/urandom | head --bytes=30M | systemd-cat --identifier=flood")
        host.check_output("journalctl --sync")
        told = re.search(r"take up ([0-9.]+)M ", host.check_output("journalctl --disk-usage"))
        assert told
        assert float(told[1]) <= 24, "16 MB, and what is being written"


def test_what_is_switched_off_is_gone(
    hosts: dict[str, Host], playbook: Callable[..., Run], restored: dict[str, list[str]]
) -> None:
    """No file of the four is left, and every port is open."""
    run = playbook(ROLE, **OFF)
    assert run.code == 0, run.output
    assert all(run.changed.values())
    for name, host in hosts.items():
        gone = {line.split()[0] for line in restored[name]} - set(host.check_output("find /etc -xdev").splitlines())
        assert gone == {
            "/etc/needrestart/conf.d/slipway.conf",
            "/etc/slipway/firewall.nft",
            "/etc/sysctl.d/90-slipway.conf",
            "/etc/systemd/journald.conf.d/slipway.conf",
            "/etc/systemd/system/slipway-firewall.service",
            "/etc/systemd/system/sysinit.target.wants/slipway-firewall.service",
        }
        assert "Unattended-Upgrade" not in host.check_output("cat /etc/apt/apt.conf.d/90slipway")
        assert host.check_output("nft list tables") == "table inet others"
        assert reached(address(host), OPEN) == {OPEN: "closed"}
