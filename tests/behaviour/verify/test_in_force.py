"""What the host role keeps in force, after a restart as well: who is let in, and limits."""

from __future__ import annotations

import re

from reach import address, reached
from testinfra.host import Host

# Nobody listens there.
UNUSED = 8001


def test_ssh_and_the_web_are_open_and_nothing_else(host: Host) -> None:
    """Seen from this machine; 443 is not hidden even if nobody listens there."""
    found = reached(address(host), 22, 80, 443, UNUSED)
    assert found.pop(443) in ("open", "closed")
    assert found == {22: "open", 80: "open", UNUSED: "hidden"}


def test_the_same_holds_for_ipv6(host: Host, hosts: dict[str, Host]) -> None:
    """Seen from the other host, which has to find this one first: its neighbours are forgotten."""
    other = next(one for name, one in hosts.items() if name != host.backend.get_hostname())
    other.check_output("ip -6 neighbour flush all")
    found = reached(address(host, 6), 22, 80, UNUSED, source=other)
    assert found == {22: "open", 80: "open", UNUSED: "hidden"}


def test_the_host_reaches_itself(host: Host) -> None:
    """Programs on it talk to each other by any port."""
    assert reached("127.0.0.1", UNUSED, source=host) == {UNUSED: "closed"}


def test_the_firewall_is_there_at_boot(host: Host) -> None:
    """Its unit is up and comes up again, and what is on disk is what is in force."""
    assert host.service("slipway-firewall").is_enabled
    assert host.service("slipway-firewall").is_running
    listed = "nft --stateless list table inet slipway"
    on_disk = host.check_output(f"unshare --net sh -c 'nft --file /etc/slipway/firewall.nft && {listed}'")
    assert host.check_output(listed) == on_disk


def test_the_journal_has_a_limit(host: Host) -> None:
    """Journald says so itself when it starts: it is in force, and not on disk only."""
    said = host.check_output("journalctl --unit systemd-journald --output cat --no-pager --grep 'System Journal'")
    assert re.search(r", max 1(\.0)?G,", said.splitlines()[-1]), said


def test_the_kernel_allows_the_queue_of_the_app(host: Host) -> None:
    """The app's socket listens with all that its unit asks for."""
    queues = host.check_output("ss --no-header --listening --unix --numeric 'src = /run/hello/*.sock'").splitlines()
    assert queues
    assert {line.split()[3] for line in queues} == {"4096"}
    assert int(host.check_output("cat /proc/sys/net/core/somaxconn")) >= 4096
