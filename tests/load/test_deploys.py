"""Releases go live under load: no request is lost, no old release answers, and none takes longer than otherwise."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import client
import picture
import pytest
from conftest import APP, ROOT, Run, Site, live_release
from testinfra.host import Host

HOSTS = pytest.mark.parametrize("name", ["debian12", "debian13"])
RATE = 80.0  # requests per second and host; client, Ansible and both hosts share the machine's cores
REQUESTS = 10_000  # at least so many per host, before the control
QUIET = 15.0  # seconds of load before the first deploy
BEFORE, AFTER = 0.5, 2.5  # seconds around the rename that count as the switch: the old release is stopped in them
# A link's time of change is as exact as the kernel's tick.
TICK = 0.01  # seconds
SLOWDOWN = 1.5  # p99 in a switch, in steady p99


@dataclass(frozen=True)
class Course:
    """A run on one host: what the client noted, and when which release went live (seconds since the epoch, name).

    The first of ``switches`` is the release before the first deploy; ``control`` is when the positive control began.
    """

    everything: list[client.Record]
    switches: list[tuple[float, str]]
    control: float

    @property
    def records(self) -> list[client.Record]:
        """The requests of the deploys, without those of the control."""
        return [record for record in self.everything if record.scheduled < self.control]

    @property
    def windows(self) -> list[tuple[float, float]]:
        """Begin and end of each switch."""
        return client.windows([at for at, _ in self.switches[1:]], BEFORE, AFTER)

    @property
    def steady(self) -> client.Summary:
        """All requests outside of switches; Ansible builds the next release meanwhile."""
        return client.summary(client.outside(self.records, self.windows))

    @property
    def quiet(self) -> client.Summary:
        """The requests before the first deploy."""
        return client.summary(client.during(self.records, 0, self.records[0].scheduled + QUIET))

    @property
    def in_switches(self) -> list[client.Summary]:
        """The requests of each switch."""
        return [client.summary(client.during(self.records, *window)) for window in self.windows]

    @property
    def lost_by_restart(self) -> client.Summary:
        """The requests of the control."""
        return client.summary([record for record in self.everything if record.scheduled >= self.control])


@contextmanager
def load(sites: dict[str, Site], state: Path) -> Iterator[None]:
    """Keep all hosts under load; a client of its own for each writes STATE/<host>.jsonl at the end."""
    clients = {
        name: subprocess.Popen(
            [sys.executable, client.__file__, f"http://127.0.0.1:{site.port}", "--rate", str(RATE),
             "--out", str(state / f"{name}.jsonl")], stdin=subprocess.PIPE,
        )
        for name, site in sites.items()
    }  # fmt: skip
    try:
        yield
    finally:
        for process in clients.values():
            process.communicate(timeout=2 * client.TIMEOUT)
    assert {name: process.returncode for name, process in clients.items()} == dict.fromkeys(clients, 0)


def switched(host: Host) -> tuple[float, str]:
    """Return when the live release went live, seconds since the epoch, and its name."""
    return float(host.check_output(f"stat --format=%.9Z /srv/{APP}/live")), live_release(host)


@pytest.fixture(scope="module")
def courses(
    hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run], pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Course]:  # fmt: skip
    """Deploy again and again under load, one byte of the source changed each time; then restart, as the control."""
    state, deploys = pytestconfig.getoption("--state"), pytestconfig.getoption("--deploys")
    source = tmp_path_factory.mktemp("source") / "slow"
    shutil.copytree(ROOT / "tests" / "apps" / "slow", source)
    switches = {name: [switched(host)] for name, host in hosts.items()}
    control = {}
    with load(sites, state):
        begin = time.monotonic()
        time.sleep(QUIET)
        for number in range(deploys):
            (source / "byte").write_bytes(bytes([number % 256]))
            run = playbook("playbooks/deploy.yml", "-e", f"release_source={source}")
            assert run.code == 0, run.output
            for name, host in hosts.items():
                switches[name].append(switched(host))
        time.sleep(max(AFTER, begin + REQUESTS / RATE + 1 - time.monotonic()))
        for name, host in hosts.items():
            control[name] = time.time()
            time.sleep(2 * client.SLOW_SECONDS)  # what was sent before it has been answered
            unit = f"{APP}@{live_release(host)}"
            host.check_output(f"systemctl restart {unit}.socket {unit}.service")
        time.sleep(5)
    found = {name: Course(client.read(state / f"{name}.jsonl"), switches[name], control[name]) for name in hosts}
    for name, course in found.items():
        title = f"{name}: {deploys} deploys at {RATE:.0f} requests/s; slow requests are shown only where they failed"
        at = [at for at, _ in course.switches[1:]]
        (state / f"{name}.svg").write_text(picture.draw(title, course.everything, at, course.control))
    (state / "figures.md").write_text(figures(found))
    return found


def figures(courses: dict[str, Course]) -> str:
    """Return what was measured, as the table of docs/measurements.md."""
    lines = [
        "| host | deploys | failed / requests | p99 quiet | p99 steady | p99 in switches | ratio | lost by a restart |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, course in courses.items():
        whole, control = client.summary(course.records), course.lost_by_restart
        switch, steady = statistics.median(one.p99 for one in course.in_switches), course.steady.p99
        lines.append(
            f"| {name} | {len(course.windows)} | {whole.failed} / {whole.requests} | {course.quiet.p99 * 1e3:.0f} ms"
            f" | {steady * 1e3:.0f} ms | {switch * 1e3:.0f} ms | {switch / steady:.2f}"
            f" | {control.failed} / {control.requests} |"
        )
    return "\n".join([*lines, ""])


@HOSTS
def test_a_plain_restart_loses_requests(courses: dict[str, Course], name: str) -> None:
    """The positive control: without it the client might not see a loss, and the other tests would count for nothing."""
    assert courses[name].lost_by_restart.failed > 0


@HOSTS
def test_no_deploy_loses_a_request(courses: dict[str, Course], name: str, pytestconfig: pytest.Config) -> None:
    """Each deploy has gone live, and not one of all requests failed."""
    course = courses[name]
    assert len({release for _, release in course.switches}) == pytestconfig.getoption("--deploys") + 1
    assert len(course.records) >= REQUESTS
    assert [record for record in course.records if record.fault] == []


@HOSTS
def test_each_release_answers_from_its_switch_on(courses: dict[str, Course], name: str) -> None:
    """Each release was met, and none answered once the next one was live."""
    course = courses[name]
    assert {record.release for record in course.records} == {release for _, release in course.switches}
    assert client.outdated(course.records, course.switches, TICK) == []


@HOSTS
def test_a_slow_request_is_in_flight_in_the_switches(courses: dict[str, Course], name: str) -> None:
    """The old release was answering when the link was renamed, and finished what it had begun."""
    course = courses[name]
    slow = [record for record in course.records if record.kind == "slow"]
    crossed = [
        at for at, _ in course.switches[1:] if any(one.sent < at < one.scheduled + one.latency for one in slow)
    ]  # fmt: skip
    assert len(crossed) >= len(course.windows) / 2


@HOSTS
def test_a_switch_is_as_fast_as_any_time(courses: dict[str, Course], name: str) -> None:
    """The p99 in a switch, the median of all switches, is no more than half above the p99 of the rest of the run."""
    course = courses[name]
    assert statistics.median(one.p99 for one in course.in_switches) <= SLOWDOWN * course.steady.p99


def burst(site: Site, size: int, out: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start a client that opens so many connections at once."""
    command = [sys.executable, client.__file__, f"http://127.0.0.1:{site.port}", "--burst", str(size)]
    return subprocess.Popen([*command, "--out", str(out), *options])


@HOSTS
@pytest.mark.parametrize("size", [256, 512])
def test_a_burst_waits_for_its_turn(sites: dict[str, Site], tmp_path: Path, name: str, size: int) -> None:
    """So many connections at once, against the defaults: every one is answered."""
    assert burst(sites[name], size, tmp_path / "out").wait(timeout=120) == 0
    records = client.read(tmp_path / "out")
    assert len(records) == size
    assert [record for record in records if record.fault] == []


WAITING = 240  # slow requests: 30 s of work for the four workers of the defaults


def test_what_waits_for_the_old_release_is_served(
    hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run], tmp_path: Path
) -> None:
    """All workers are busy at the switch, and most requests wait in the socket's queue: the old release serves them."""
    source = tmp_path / "slow"
    shutil.copytree(ROOT / "tests" / "apps" / "slow", source)
    (source / "byte").write_bytes(json.dumps(time.time()).encode())
    before = {name: live_release(host) for name, host in hosts.items()}
    clients = {name: burst(site, WAITING, tmp_path / name, "--slow") for name, site in sites.items()}
    run = playbook("playbooks/deploy.yml", "-e", f"release_source={source}")
    assert run.code == 0, run.output
    assert {name: process.wait(timeout=120) for name, process in clients.items()} == dict.fromkeys(hosts, 0)
    for name, host in hosts.items():
        at, release = switched(host)
        records = client.read(tmp_path / name)
        assert [record for record in records if record.fault] == []
        assert {record.release for record in records} == {before[name]} != {release}
        waited = [record for record in records if record.scheduled + record.latency > at + 2 * client.SLOW_SECONDS]
        assert len(waited) > 8, "more waited at the switch than were being answered"
