"""Deploys that are killed at every step: what is live is whole, visitors notice nothing, and the next run converges.

All of it is for `make test-load`.
"""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import client
import pytest
from conftest import APP, ROOT, Play, Run, Site
from testinfra.host import Host
from traffic import faults, traffic

RATE = 20.0  # requests per second to each host
STOPPER = "/opt/stopper"
# The points at which a run is stopped, in order: what the module is doing there, see stopper.py.
POINTS = {
    "lock": "locked hold _detached os.fork",
    "fetch": "built unpack os.symlink",
    "build": r"built make_environment .*Popen .*/etc/requirements.txt",
    "check": "built check .*Popen",
    "migrate": "migrated .*Popen",
    "start": "started start .*Popen .*'start'",
    "probe": "started workers .*socket.connect",
    "before_live": "started hooks .*Popen",
    "go live": "live switch .*os.rename .*/live'",
    "verify": "live website .*socket.connect",
    "after_live": "live hooks .*Popen",
    "retire": "retired remember .*os.rename",
    "stop": "retired .*stop drain .*Popen .*'stop'",
    "prune": "retired .*shutil.rmtree",
}
# After these there is no run of its own: the next one is that which is killed at the next point.
EARLY = ("lock", "fetch", "build", "migrate", "start", "probe")
# From here on a switch is confirmed: the new release stays live, whoever dies.
CONFIRMED = ("stop", "prune")
COMMANDS = {"release_migrate": "true", "release_hooks": {"before_live": ["true"], "after_live": ["true"]}}
# Prints each thing that is no part of the live release being up: all that an interrupted run could leave.
LEFT = f"""
live=$(basename $(readlink /srv/{APP}/live))
ls /etc/systemd/system | grep '^{APP}@' | grep -v "@$live[.]"
ls /run/{APP} | grep -v "^$live.sock$"
ls -d /run/slipway/{APP}.fifo 2> /dev/null
find /srv/{APP} -maxdepth 4 -name '*.new'
for release in /srv/{APP}/releases/*; do test -e $release/release.json || echo $release; done
for unit in {APP}@$live.socket {APP}@$live.service; do
  systemctl is-active --quiet $unit || echo "$unit is down"
  systemctl is-enabled --quiet $unit || echo "$unit will be down after a restart"
done
systemctl list-units --all --plain --no-legend 'run-*.service' 'slipway-{APP}-*'
systemctl --failed --plain --no-legend
grep -q '"pending": {{}}' /srv/{APP}/state.json || echo "a switch is pending"
"""
# The holder of the lock ends when all is undone, a step on the host when it has done its work.
SETTLED = f"flock /run/slipway/{APP}.lock flock /run/slipway/{APP}.busy true"


@dataclass
class Source:
    """A copy of the app for load that can be made into another one."""

    path: Path
    # None that was deployed before, or there would be nothing to do.
    number: int = field(default_factory=time.time_ns)
    deployed: bool = True

    def change(self) -> None:
        """Change it, so that it amounts to another release."""
        self.number += 1
        self.deployed = False
        (self.path / "number").write_text(str(self.number))

    @property
    def inputs(self) -> dict[str, object]:
        """The inputs of its deploy: one that has something to do at every point."""
        return {
            "release_source": str(self.path), "release_requirements": [], "app_static": {}, "release_keep": 2,
            **COMMANDS,
        }  # fmt: skip


@dataclass
class Target:
    """One host on which deploys are interrupted."""

    name: str
    host: Host
    site: Site
    play: Callable[..., Play]

    def live(self) -> str:
        """Return the live release, after having seen that it is whole, runs, and is what visitors get."""
        name = Path(self.host.check_output(f"readlink -e /srv/{APP}/live")).name
        units = f"{APP}@{name}.socket {APP}@{name}.service"
        assert self.host.check_output(f"cat /srv/{APP}/releases/{name}/release.json; systemctl is-active {units}")
        assert self.site.get("/").json()["release"] == name
        return name

    def left(self) -> list[str]:
        """Return what is left of interrupted runs, in words."""
        return str(self.host.run(LEFT).stdout).splitlines()

    def run(self, playbook: str, **inputs: object) -> Run:
        """Run a playbook for this host to its end."""
        return self.play(playbook, "--limit", self.name, **inputs).wait()

    def interrupted(self, point: str, how: str, **inputs: object) -> None:
        """Deploy, kill that at a point, and return when all is over on the host.

        Args:
            point: one of POINTS.
            how: "wait" to kill ansible-playbook while the module is there, and then let it go on; "die" to kill the
                module.
            **inputs: of the deploy.
        """
        stop = json.dumps({"where": POINTS[point], "how": how})
        self.host.check_output("printf %%s %s > %s", stop, f"{STOPPER}/point")
        play = self.play(
            "playbooks/deploy.yml", "--limit", self.name, ansible_python_interpreter=f"{STOPPER}/python", **inputs
        )
        if how == "wait":
            while self.host.run(f"timeout 5 cat {STOPPER}/reached").rc:
                assert play.process.poll() is None, f"{point} was not reached: {play.log.read_text()}"
            play.process.kill()
            play.process.wait()
            self.host.check_output(f"timeout 90 sh -c 'echo go > {STOPPER}/go'")
        else:
            run = play.wait()
            assert run.code != 0, run.output
            assert not self.host.file(f"{STOPPER}/point").exists, f"{point} was not reached: {run.output}"
        self.host.check_output(f"timeout 300 {SETTLED}")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Give a source of the tests' own."""
    path = tmp_path_factory.mktemp("source") / "slow"
    shutil.copytree(ROOT / "tests" / "apps" / "slow", path)
    return Source(path)


@pytest.fixture(scope="module")
def targets(
    anything: dict[str, str], hosts: dict[str, Host], sites: dict[str, Site], play: Callable[..., Play], source: Source
) -> Iterator[list[Target]]:
    """Put the app for load on all hosts, and an interpreter that can be stopped."""
    assert set(anything) == set(hosts)
    source.change()
    run = play("playbooks/deploy.yml", **source.inputs).wait()
    assert run.code == 0, run.output
    source.deployed = True
    python = f'#!/bin/sh\nPYTHONPATH={STOPPER} exec /usr/bin/python3 "$@"\n'
    code = Path(__file__).with_name("stopper.py").read_text()
    for host in hosts.values():
        host.check_output(f"rm -rf {STOPPER} && mkdir {STOPPER} && mkfifo {STOPPER}/reached {STOPPER}/go")
        host.check_output("printf %%s %s > %s", code, f"{STOPPER}/sitecustomize.py")
        host.check_output("printf %%s %s > %s && chmod +x %s", python, *[f"{STOPPER}/python"] * 2)
    yield [Target(name, host, sites[name], play) for name, host in hosts.items()]
    for host in hosts.values():
        host.check_output(f"rm -r {STOPPER}")


@pytest.fixture(scope="module")
def visitors(
    targets: list[Target], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], list[client.Record]]]:
    """Keep the hosts under load until the function that this gives is called: it returns what was noted."""
    with contextlib.ExitStack() as load:
        ports = {target.name: target.site.port for target in targets}
        files = load.enter_context(traffic(ports, tmp_path_factory.mktemp("traffic"), RATE))

        def end() -> list[client.Record]:
            load.close()
            return [record for file in files.values() for record in client.read(file)]

        yield end


@pytest.mark.usefixtures("visitors")
@pytest.mark.long
@pytest.mark.parametrize("point", POINTS)
def test_a_killed_run_leaves_what_is_whole(
    targets: list[Target], play: Callable[..., Play], source: Source, point: str
) -> None:
    """At the same point ansible-playbook is killed on one host, and the module on the other; then all is as before.

    Only a switch that was confirmed stays. The next run converges, whatever it finds, and leaves nothing behind.
    """
    # In turn: each host meets both.
    hows = ["wait", "die"] if list(POINTS).index(point) % 2 else ["die", "wait"]
    # A build goes on to its end where only ansible-playbook was killed: the next one has to be of another release.
    if source.deployed or point in ("build", "check"):
        source.change()
    before = [target.live() for target in targets]

    def interrupt(target: Target, how: str) -> None:
        target.interrupted(point, how, **source.inputs)

    with ThreadPoolExecutor() as threads:
        list(threads.map(interrupt, targets, hows))
    for target, how, old in zip(targets, hows, before, strict=True):
        # Where ansible-playbook is killed in the step that confirms, the step itself goes on to its end.
        stays = point in CONFIRMED or (point == "retire" and how == "wait")
        assert (target.live() != old) == stays, f"{target.name}, {how} at {point}"
    if point in EARLY:
        return
    run = play("playbooks/deploy.yml", **source.inputs).wait()
    assert run.code == 0, run.output
    source.deployed = True
    after = {target.live() for target in targets}
    assert len(after) == 1
    assert after.isdisjoint(before)
    assert {target.name: target.left() for target in targets} == {target.name: [] for target in targets}


@pytest.mark.usefixtures("visitors")
def test_then_there_is_nothing_to_do(targets: list[Target], play: Callable[..., Play], source: Source) -> None:
    """After all that, a run finds everything as it makes it."""
    assert play("playbooks/deploy.yml", **source.inputs).wait().changed == {target.name: 0 for target in targets}


def test_no_visitor_noticed(visitors: Callable[[], list[client.Record]]) -> None:
    """From the first kill to the last no request failed."""
    records = visitors()
    assert len(records) > RATE
    assert faults(records) == []


@dataclass
class Model:
    """What has to be the case: `line[at]` is live, rollbacks go along the line, and a deploy cuts it off behind."""

    line: list[str]
    at: int = 0

    def deployed(self, name: str) -> None:
        """Let a release be new and live."""
        self.line = [*self.line[: self.at + 1], name]
        self.at += 1


# Each at least once, then as it comes.
STEPS = ["deploy", "deploy", "rollback", "forward", "kill", "reboot", "prune", "rollback"]
RANDOM = 1
SEED = 3


@pytest.mark.long
def test_a_random_sequence(targets: list[Target], source: Source, pytestconfig: pytest.Config) -> None:
    """Whatever is done in whatever order, the link leads to a release that runs, and to the one that it should."""
    assert source.deployed, "the hosts have the app"
    state = str(pytestconfig.getoption("--state"))
    with ThreadPoolExecutor() as threads:
        list(threads.map(lambda target: sequence(target, source, state), targets))


def sequence(target: Target, source: Source, state: str) -> None:
    """Do random steps on one host, and look at it after each."""
    chance = random.Random(f"{SEED} {target.name}")
    steps = STEPS + chance.choices(STEPS, k=RANDOM)
    chance.shuffle(steps)
    own = Source(source.path.with_name(target.name))
    shutil.copytree(source.path, own.path)
    (own.path / "host").write_text(target.name)
    inputs = {**own.inputs, "release_keep": 20}
    model = Model([target.live()])
    done: list[str] = []
    # What is kept of earlier releases then is known.
    for step in ["prune", *steps]:
        done.append(step)
        own.change()
        if step in ("deploy", "prune"):
            run = target.run("playbooks/deploy.yml", **{**inputs, "release_keep": 2 if step == "prune" else 20})
            assert run.code == 0, f"{done}: {run.output}"
            assert target.live() not in model.line, done
            model.deployed(target.live())
        if step == "prune":
            model = Model(model.line[-2:], 1)
            there = target.host.check_output(f"ls /srv/{APP}/releases").split()
            assert sorted(there) == sorted(model.line), done
        if step in ("rollback", "forward"):
            to = model.at + (1 if step == "forward" else -1)
            possible = 0 <= to < len(model.line)
            # A name that no release has, where there is none.
            name = {"release_to": model.line[to] if possible else "0" * 12} if step == "forward" else {}
            run = target.run("playbooks/rollback.yml", **{**inputs, **name})
            assert (run.code == 0) == possible, f"{done}: {run.output}"
            model.at = to if possible else model.at
        if step == "kill":
            # There is nothing to prune, as all are kept.
            point, how = chance.choice(list(POINTS)[:-1]), chance.choice(["wait", "die"])
            done[-1] = f"kill: {how} at {point}"
            target.interrupted(point, how, **inputs)
            if point in CONFIRMED or (point == "retire" and how == "wait"):
                model.deployed(target.live())
        if step == "reboot":
            command = [sys.executable, str(ROOT / "tools" / "hosts.py"), "restart", "--state", state, target.name]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            target.site.until("/", lambda answer: answer.status == 200)
        assert target.live() == model.line[model.at], done
