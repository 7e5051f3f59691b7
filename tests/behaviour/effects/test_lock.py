"""One deploy of an app at a time, and nobody has to clean up after one that was killed."""

from __future__ import annotations

import getpass
import re
import socket
import time
from collections.abc import Callable

import pytest
from conftest import SWITCHABLE, Gate, Play, Run, Site, footprints, visited
from testinfra.host import Host

AT_ONCE = 120  # seconds for both refusals, on a machine that has much else to do; the lock is held until then


@pytest.mark.usefixtures("anything")
def test_the_second_is_refused_and_a_killed_one_is_in_nobodys_way(
    hosts: dict[str, Host], sites: dict[str, Site], play: Callable[..., Play], playbook: Callable[..., Run]
) -> None:
    """The second is told at once who is at it since when; after kill -9 of the first, a third goes through."""
    gate = Gate(hosts)
    before = footprints(hosts)
    with visited(sites) as visitors:
        began = time.gmtime()
        first = play(
            "playbooks/deploy.yml",
            **SWITCHABLE,
            release_hooks={"before_live": [gate.hook]},
            release_command_timeout=600,
        )
        gate.await_hooks()

        asked = time.monotonic()
        for verb in ("deploy", "rollback"):
            second = playbook(f"playbooks/{verb}.yml")
            assert second.code != 0
            told = re.search(r"step lock: hello is being deployed by (\S+) since (.*? UTC)\. Deploy again", second.end)
            assert told, second.output
            assert told[1] == f"{getpass.getuser()}@{socket.gethostname()}"
            since = time.strptime(told[2], "%Y-%m-%d %H:%M:%S UTC")
            assert began <= since <= time.gmtime()
            assert second.changed == dict.fromkeys(hosts, 0)
        assert time.monotonic() - asked < AT_ONCE

        first.process.kill()
        gate.open()
        first.process.wait()
        assert footprints(hosts) == before, "nothing of it is left: no process, no unit, no lock"
        third = playbook("playbooks/deploy.yml", **SWITCHABLE)
    assert third.code == 0, third.output
    assert visitors.failed() == {name: [] for name in hosts}
