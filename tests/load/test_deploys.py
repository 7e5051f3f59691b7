"""Releases go live and back under load: no request is lost, no old release answers, none is slower than otherwise."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import client
import picture
import pytest
from conftest import APP, COMBINATIONS, ROOT, Run, Site, copy_without, live_release
from testinfra.host import Host
from traffic import faults, table, traffic

HOSTS = pytest.mark.parametrize("name", ["debian12", "debian13"])
RATE = 80.0  # requests per second and host; client, Ansible and both hosts share the machine's cores
REQUESTS = 10_000  # at least so many per host, before the control
QUIET = 15.0  # seconds of load before the first deploy
CONTROL = 5.0  # seconds of load after the restart
BEFORE, AFTER = 0.5, 2.5  # seconds around the rename that count as the switch: the old release is stopped in them
# A link's time of change is as exact as the kernel's tick.
TICK = 0.01  # seconds
SLOWDOWN = 1.5  # p99 in a switch, in steady p99
WARM = 100.0  # milliseconds in which a release that was kept warm is live
# What is done in turn, half of it deploys: with a new release, back to the one before, forward to it again by its name.
TURN = ("deploy", "rollback", "forward", "deploy")


@dataclass(frozen=True)
class Step:
    """One run of a playbook under load.

    Attributes:
        kind: "deploy", "rollback" or "forward".
        warm: whether the release that it went to was up already.
        begin: when the run began, seconds since the epoch.
        end: when it had ended.
        switches: {host: (when the link was renamed, seconds since the epoch; the release that it leads to since)}.
        milliseconds: {host: how long it took there until the release was live}.
    """

    kind: str
    warm: bool
    begin: float
    end: float
    switches: dict[str, tuple[float, str]]
    milliseconds: dict[str, float]

    @property
    def release(self) -> str:
        """The release that it went to, the same on all hosts."""
        (name,) = {release for _, release in self.switches.values()}
        return name


@dataclass(frozen=True)
class Course:
    """What happened on one host.

    Attributes:
        name: of the host.
        everything: what the client noted.
        first: when the first release had gone live, before the load, and its name.
        steps: what was done.
        control: when the positive control began, seconds since the epoch.
    """

    name: str
    everything: list[client.Record]
    first: tuple[float, str]
    steps: list[Step]
    control: float

    @property
    def records(self) -> list[client.Record]:
        """The requests of all time before the control."""
        return [record for record in self.everything if record.scheduled < self.control]

    @property
    def switches(self) -> list[tuple[float, str]]:
        """When which release went live, the one before the first step too."""
        return [self.first, *(step.switches[self.name] for step in self.steps)]

    @property
    def windows(self) -> list[tuple[float, float]]:
        """Begin and end of each switch."""
        return client.windows([at for at, _ in self.switches[1:]], BEFORE, AFTER)

    @property
    def steady(self) -> float:
        """The p99 (seconds) while a playbook is at work, but without a switch: the median of windows as long as one."""
        runs = [(step.begin, step.end) for step in self.steps]
        return self.p99(client.tiles(runs, BEFORE + AFTER, self.windows))

    @property
    def quiet(self) -> float:
        """The p99 (seconds) before the first run: the median of windows as long as a switch."""
        begin = self.records[0].scheduled
        return self.p99(client.tiles([(begin, begin + QUIET)], BEFORE + AFTER, []))

    @property
    def switching(self) -> float:
        """The p99 (seconds) in a switch: the median of all switches."""
        return self.p99(self.windows)

    def p99(self, windows: Sequence[tuple[float, float]]) -> float:
        """Return the median of the p99 (seconds) of these windows."""
        return statistics.median(client.summary(client.during(self.records, *window)).p99 for window in windows)

    @property
    def lost_by_restart(self) -> client.Summary:
        """The requests of the control."""
        return client.summary([record for record in self.everything if record.scheduled >= self.control])


def switched(host: Host) -> tuple[float, str]:
    """Return when the live release went live, seconds since the epoch, and its name."""
    return float(host.check_output(f"stat --format=%.9Z /srv/{APP}/live")), live_release(host)


@dataclass
class Operator:
    """Who deploys under load: does one step after the other, each another one of TURN, every second turn warm."""

    hosts: dict[str, Host]
    playbook: Callable[..., Run]
    source: Path
    steps: list[Step] = field(default_factory=list)

    def step(self, number: int) -> None:
        """Do the step of this number, from 0."""
        turn, place = divmod(number, len(TURN))
        kind, keeps = TURN[place], turn % 2 == 1
        inputs: dict[str, object] = {"release_source": str(self.source), "release_warm": keeps}
        if kind == "deploy":
            (self.source / "byte").write_text(str(number))
        if kind == "forward":
            inputs["release_to"] = next(s for s in reversed(self.steps) if s.kind == "deploy").release
        begin = time.time()
        run = self.playbook("playbooks/deploy.yml" if kind == "deploy" else "playbooks/rollback.yml", "-v", **inputs)
        end = time.time()
        assert run.code == 0, run.output
        shown = re.findall(r"^changed: \[(\w+)\] => *(?:\n .*)*?\n +milliseconds: ([\d.]+)$", run.output, re.MULTILINE)
        switches = {name: switched(host) for name, host in self.hosts.items()}
        # The step before kept what it left, if that was of the same turn.
        warm = kind != "deploy" and keeps
        self.steps.append(Step(kind, warm, begin, end, switches, {name: float(value) for name, value in shown}))


@pytest.fixture(scope="module")
def courses(
    hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run], pytestconfig: pytest.Config,
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Course]:  # fmt: skip
    """Deploy and go back again and again under load; then restart, as the control."""
    state, deploys = pytestconfig.getoption("--state"), pytestconfig.getoption("--deploys")
    source = tmp_path_factory.mktemp("source") / "slow"
    shutil.copytree(ROOT / "tests" / "apps" / "slow", source)
    first = {name: switched(host) for name, host in hosts.items()}
    operator, control = Operator(hosts, playbook, source), {}
    with traffic({name: site.port for name, site in sites.items()}, state, RATE) as files:
        begin = time.monotonic()
        time.sleep(QUIET)
        for number in range(2 * deploys):
            operator.step(number)
        time.sleep(max(AFTER, begin + REQUESTS / RATE + 1 - time.monotonic()))
        for name, host in hosts.items():
            control[name] = time.time()
            time.sleep(2 * client.SLOW_SECONDS)  # what was sent before it has been answered
            unit = f"{APP}@{live_release(host)}"
            host.check_output(f"systemctl restart {unit}.socket {unit}.service")
        time.sleep(CONTROL)
    found = {name: Course(name, client.read(files[name]), first[name], operator.steps, control[name]) for name in hosts}
    for name, course in found.items():
        title = f"{name}: {deploys} deploys, {deploys} rollbacks, {RATE:.0f} requests/s; slow ones show if they failed"
        at = [at for at, _ in course.switches[1:]]
        (state / f"{name}.svg").write_text(picture.draw(title, course.everything, at, course.control))
    (state / "figures.md").write_text(figures(found) + times(found))
    return found


def figures(courses: dict[str, Course]) -> str:
    """Return what visitors met, as the table of docs/measurements.md."""
    columns = ["host", "switches", "failed / requests", "p99 quiet", "p99 steady", "p99 in switches", "ratio"]
    rows = []
    for name, course in courses.items():
        whole, control = client.summary(course.records), course.lost_by_restart
        latencies = [f"{seconds * 1e3:.0f} ms" for seconds in (course.quiet, course.steady, course.switching)]
        ratio = f"{course.switching / course.steady:.2f}"
        lost = f"{control.failed} / {control.requests}"
        rows.append([name, str(len(course.windows)), f"{whole.failed} / {whole.requests}", *latencies, ratio, lost])
    return table("Deploys and rollbacks under load", [*columns, "lost by a restart"], rows)


def times(courses: dict[str, Course]) -> str:
    """Return how long each step took, as a table."""
    names = list(courses)
    rows = [
        [str(number), step.kind, "warm" if step.warm else "", f"{step.end - step.begin:.1f}"]
        + [f"{step.milliseconds[name]:.1f}" for name in names]
        for number, step in enumerate(next(iter(courses.values())).steps, 1)
    ]
    columns = ["", "run", "", "seconds in all", *(f"{name}: live after ms" for name in names)]
    return table("Times of each of them, both hosts at once", columns, rows)


@HOSTS
def test_a_plain_restart_loses_requests(courses: dict[str, Course], name: str) -> None:
    """The positive control: without it the client might not see a loss, and the other tests would count for nothing."""
    assert courses[name].lost_by_restart.failed > 0


@HOSTS
def test_no_switch_loses_a_request(courses: dict[str, Course], name: str, pytestconfig: pytest.Config) -> None:
    """Each run has switched, half of them deploys, and not one of all requests failed."""
    course, deploys = courses[name], pytestconfig.getoption("--deploys")
    assert [step.kind for step in course.steps].count("deploy") == deploys
    assert len(course.steps) == 2 * deploys
    assert all(one[0] < two[0] and one[1] != two[1] for one, two in itertools.pairwise(course.switches))
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
    """The p99 in a switch, the median of all, is no more than half above that of the time while Ansible works."""
    assert courses[name].switching <= SLOWDOWN * courses[name].steady


@HOSTS
def test_a_warm_release_is_live_at_once(courses: dict[str, Course], name: str) -> None:
    """Going back to a release that was kept warm, and forward again, is a rename."""
    warm = [step.milliseconds[name] for step in courses[name].steps if step.warm]
    assert warm
    assert max(warm) < WARM


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


def waited(
    hosts: dict[str, Host], sites: dict[str, Site], deploy: Callable[[], Run], directory: Path
) -> dict[str, list[client.Record]]:
    """Deploy while all workers are busy and most requests wait in the socket's queue; return what became of them."""
    before = {name: live_release(host) for name, host in hosts.items()}
    clients = {name: burst(site, WAITING, directory / name, "--slow") for name, site in sites.items()}
    run = deploy()
    assert run.code == 0, run.output
    assert {name: process.wait(timeout=120) for name, process in clients.items()} == dict.fromkeys(hosts, 0)
    noted = {name: client.read(directory / name) for name in hosts}
    for name, records in noted.items():
        at, release = switched(hosts[name])
        assert {record.release for record in records if not record.fault} == {before[name]} != {release}
        late = [record for record in records if record.scheduled + record.latency > at]
        assert len(late) > 8, "more waited at the switch than were being answered"
    return noted


@pytest.fixture
def another(tmp_path: Path) -> dict[str, object]:
    """Give the inputs of a release that there never was."""
    source = tmp_path / "slow"
    shutil.copytree(ROOT / "tests" / "apps" / "slow", source)
    (source / "byte").write_text(json.dumps(time.time()))
    return {"release_source": str(source)}


def test_what_waits_for_the_old_release_is_served(
    hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run], tmp_path: Path,
    another: dict[str, object],
) -> None:  # fmt: skip
    """The old release serves all that had come to it, before it is stopped."""
    noted = waited(hosts, sites, lambda: playbook("playbooks/deploy.yml", **another), tmp_path)
    assert {name: faults(records) for name, records in noted.items()} == {name: [] for name in hosts}


# -- the proof of the proof: without a mechanism the tests above find what it is there for -----------------------------

# What a deploy is without it: a file, a text that is in it once, and what stands there instead.
DRAIN = ("plugins/module_utils/host.py", "            self.drain(name)\n", "            pass\n")
RENAME = (
    "plugins/module_utils/host.py",
    "        self.lead(self.link, name)\n",
    """        self.run("systemctl", "stop", *self.units(self.live()), *self.units(name))
        self.lead(self.link, name)
        self.run("systemctl", "start", *self.units(name))
""",
)


def deploy_without(mechanism: tuple[str, str, str], pytestconfig: pytest.Config, inputs: dict[str, object]) -> Run:
    """Deploy by a copy of the project from which a mechanism was taken out."""
    inventory = Path(pytestconfig.getoption("--scenario-inventory")).absolute()
    inputs = COMBINATIONS[pytestconfig.getoption("--combination")] | inputs
    with tempfile.TemporaryDirectory() as directory:
        copy = copy_without(Path(directory), *mechanism)
        done = subprocess.run(
            ["ansible-playbook", "-i", inventory, "playbooks/deploy.yml", "-e", json.dumps(inputs)],
            cwd=copy, env={**os.environ, "ANSIBLE_CONFIG": str(copy / "ansible.cfg")}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    return Run(done.returncode, done.stdout + done.stderr, {})


def test_without_the_drain_what_waits_is_lost(
    hosts: dict[str, Host], sites: dict[str, Site], pytestconfig: pytest.Config, tmp_path: Path,
    another: dict[str, object],
) -> None:  # fmt: skip
    """The old release is stopped at once, and those who wait for it are cut off."""
    noted = waited(hosts, sites, lambda: deploy_without(DRAIN, pytestconfig, another), tmp_path)
    assert [name for name, records in noted.items() if not faults(records)] == []


def test_without_the_rename_requests_are_lost(
    hosts: dict[str, Host], sites: dict[str, Site], pytestconfig: pytest.Config, tmp_path: Path,
    another: dict[str, object],
) -> None:  # fmt: skip
    """The old release is stopped, then the new one is started, as a restart does."""
    with traffic({name: site.port for name, site in sites.items()}, tmp_path, RATE) as files:
        run = deploy_without(RENAME, pytestconfig, another)
    assert run.code == 0, run.output
    assert [name for name in hosts if not faults(client.read(files[name]))] == []
