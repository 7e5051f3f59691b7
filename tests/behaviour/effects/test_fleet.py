"""Several hosts are one fleet: one release, one migration, and all of them switch or none does."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from conftest import (
    APP,
    STATE,
    SWITCHABLE,
    Gate,
    Play,
    Run,
    Site,
    await_that,
    footprint,
    footprints,
    live_release,
    visited,
)
from testinfra.host import Host

pytestmark = pytest.mark.usefixtures("anything")
# A host is bad if it has this file, so that the tests can choose one of them.
ONLY_WHERE_GOOD = 'test ! -e "$STATE_DIRECTORY/bad"'


@pytest.fixture
def bad(hosts: dict[str, Host]) -> Any:
    """Let a host be one where hooks fail."""

    def make(name: str) -> None:
        hosts[name].check_output(f"touch {STATE}/bad")

    yield make
    for host in hosts.values():
        host.check_output(f"rm -f {STATE}/bad")


def live(hosts: dict[str, Host]) -> dict[str, str]:
    """Return the live release of each host."""
    return {name: live_release(host) for name, host in hosts.items()}


def test_one_release_and_one_migration_before_it_is_up(
    hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run]
) -> None:
    """The migration runs on one host, as the app runs; batches of one host go live one after the other."""
    before = live(hosts)
    migration = (
        f'exec >> "$STATE_DIRECTORY/migrated" 2>&1; id -un; echo $SHADE $HIDDEN; pwd; touch {STATE}/../x;'
        f" ls /srv/{APP}/releases; date +%s.%N"
    )
    with visited(sites) as visitors:
        run = playbook(
            "playbooks/deploy.yml", **SWITCHABLE, deploy_serial=1, release_migrate=migration,
            release_environment={"SHADE": "red"}, release_secrets={"HIDDEN": "hidden-colour"},
        )  # fmt: skip
    assert run.code == 0, run.output
    assert visitors.failed() == {name: [] for name in hosts}
    (release,) = set(live(hosts).values())
    assert release not in before.values()
    wrote = {name: host.run(f"cat {STATE}/migrated && rm {STATE}/migrated").stdout for name, host in hosts.items()}
    (lines,) = [text.splitlines() for text in wrote.values() if text]
    assert lines[:2] == [APP, "red hidden-colour"]
    assert lines[2] == f"/srv/{APP}/releases/{release}/app"
    assert "Read-only file system" in lines[3]
    assert lines[4:-1] == [release]
    migrated, at = float(lines[-1]), []
    for host in hosts.values():
        started = host.check_output(f"stat --format %.6Y /run/{APP}/{release}.sock")
        went_live = host.check_output(f"stat --format %.6Y /srv/{APP}/live")
        assert migrated < float(started) < float(went_live)
        at.append((float(started), float(went_live)))
    (_, first), (second, _) = sorted(at)
    assert first < second, "the second batch began when the first was live"


@pytest.mark.parametrize("serial", ["100%", 1])
def test_a_host_that_fails_before_the_switch_stops_all(
    hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run], bad: Callable[[str], None],
    serial: str | int,
) -> None:  # fmt: skip
    """No host switches: neither those of its batch nor those after it. What was started for it does not stay up."""
    bad("debian13" if serial == "100%" else "debian12")
    before = footprints(hosts)
    hooks = {"before_live": [ONLY_WHERE_GOOD]}
    with visited(sites) as visitors:
        run = playbook("playbooks/deploy.yml", **SWITCHABLE, release_hooks=hooks, deploy_serial=serial)
    assert run.code != 0
    assert f"step before_live: the before_live hook `{ONLY_WHERE_GOOD}` ended with exit code 1." in run.end
    assert visitors.failed() == {name: [] for name in hosts}
    assert footprints(hosts) == before


def test_a_host_that_fails_after_the_switch_takes_its_batch_back(
    hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run], bad: Callable[[str], None]
) -> None:
    """The bad host goes back by its own step, the good one by itself when it hears that the deploy has ended."""
    bad("debian13")
    before = footprints(hosts)
    record = 'echo $SLIPWAY_RELEASE > "$STATE_DIRECTORY/switched"'
    with visited(sites) as visitors:
        run = playbook("playbooks/deploy.yml", **SWITCHABLE, release_hooks={"after_live": [record, ONLY_WHERE_GOOD]})
        assert run.code != 0
        await_that(lambda: {name: footprint(host) for name, host in hosts.items()} == before)
    assert visitors.failed() == {name: [] for name in hosts}
    (undone,) = {host.check_output(f"cat {STATE}/switched") for host in hosts.values()}
    for host in hosts.values():
        history = json.loads(host.check_output(f"cat /srv/{APP}/state.json"))
        assert undone in history["bad"]
        assert history["line"][-1] == live_release(host) != undone


def test_hosts_that_do_not_agree_are_refused(hosts: dict[str, Host], playbook: Callable[..., Run]) -> None:
    """An input that differs would mean two releases; it is told how to find which."""
    before = footprints(hosts)
    one_more = "{{ 2 if inventory_hostname == 'debian12' else 3 }}"
    run = playbook("playbooks/deploy.yml", **SWITCHABLE, app_workers=one_more)
    assert run.code != 0
    assert "The hosts would not run the same release: {'debian12': '" in run.end
    assert "`ansible-inventory --host NAME` shows them" in run.end
    assert footprints(hosts) == before


# All but the listener; in a unit of its own, as the connection that it is sent by is one of them.
SESSIONS = "pgrep sshd | grep -vx $(systemctl show --value --property MainPID ssh)"


def test_a_lost_connection_takes_the_switch_back(
    hosts: dict[str, Host], sites: dict[str, Site], play: Callable[..., Play]
) -> None:
    """Visitors meet the new release already when a host can no longer be reached: both hosts go back by themselves."""
    gate = Gate(hosts)
    before = footprints(hosts)
    with visited(sites) as visitors:
        running = play(
            "playbooks/deploy.yml", **SWITCHABLE, release_hooks={"after_live": [gate.hook]}, release_command_timeout=600
        )
        gate.await_hooks()
        assert all(host.check_output(f"readlink /srv/{APP}/live") != before[name][0] for name, host in hosts.items())
        with contextlib.suppress(RuntimeError):  # that connection is cut as well
            hosts["debian13"].run(f"systemd-run --quiet --collect sh -c '{SESSIONS} | xargs kill -9'")
        gate.open()
        run = running.wait()
        assert run.code != 0
        assert "UNREACHABLE!" in run.output
        await_that(lambda: {name: footprint(host) for name, host in hosts.items()} == before)
    assert visitors.failed() == {name: [] for name in hosts}
