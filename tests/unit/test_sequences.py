"""Random sequences of deploys, rollbacks, failures, kills and reboots, against a model of what Slipway promises.

The module's own code runs on a host of the test's own. The model knows nothing of how it does it: it is a list of
releases, a place in it, and a few sets. Where a run is killed the model cannot know how far it came, so it goes on with
each state that is allowed, and what is seen of the host afterwards decides which of them it is.
"""

from __future__ import annotations

import copy
import gc
import os
import random
import shutil
import signal
import sys
import syslog
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.slipway.wsgi.plugins.module_utils import probe
from ansible_collections.slipway.wsgi.plugins.module_utils.history import History, NoTargetError
from ansible_collections.slipway.wsgi.plugins.module_utils.host import Host, StepError
from ansible_collections.slipway.wsgi.plugins.modules import release, release_info
from machine import APP, PLAN, Answer, Machine, service

SEEDS = 200
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
# Where a run can fail, in order; "" for nowhere.
FAILURES = ("check", "migrate", "start", "probe", "before_live", "verify", "after_live")
DEPLOY = ("locked", "built", "migrated", "started", "live", "retired")
ROLLBACK = ("locked", "chosen", "started", "live", "retired")
FILES = {
    "release.json", "uwsgi.sock", "app/wsgi.py", "app/part/more.py", "venv/bin/uwsgi", "etc/environment", "etc/secrets",
    "etc/plan.json", "etc/service", "etc/socket",
}  # fmt: skip
# What changes something on the disk, as Python tells of it before it does it.
CHANGES = {"os.remove", "os.rename", "os.symlink", "os.mkdir", "os.rmdir", "os.chmod"}


@dataclass
class Run:
    """One run of a playbook: deploys `name`, or goes `back` to it ("" for the one before)."""

    name: str
    back: bool = False
    fails: str = ""
    keep: int = 3
    warm: bool = False
    # The state in which it is killed, and at which change in it; after the last one if there are fewer.
    kill: tuple[str, int] | None = None
    # What follows a kill: the holder of the lock undoes, the host starts again, or the one is cut off by the other.
    then: str = "holder"


# -- the model --------------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """What has to be the case: `line[at]` is live, and what is before it is where rollbacks go."""

    line: list[str] = field(default_factory=list)
    at: int = -1
    there: set[str] = field(default_factory=set)
    bad: set[str] = field(default_factory=set)
    warm: str = ""
    # Where visitors came from at the last switch.
    left: str = ""
    age: dict[str, int] = field(default_factory=dict)

    @property
    def live(self) -> str:
        """The live release."""
        return self.line[self.at] if self.at >= 0 else ""

    @property
    def previous(self) -> str:
        """Where a rollback without a name goes."""
        return next((name for name in reversed(self.line[: max(self.at, 0)]) if name in self.there), "")

    def seen(self) -> dict[str, object]:
        """Return what can be seen from outside."""
        return {
            "live": self.live, "previous": self.previous, "warm": self.warm, "there": sorted(self.there),
            "bad": sorted(self.bad & self.there), "left": self.left,
        }  # fmt: skip

    def drop(self, name: str) -> None:
        """Take a release that is not live out of the line."""
        live = self.live
        self.line = [one for one in self.line if one != name]
        self.at = self.line.index(live) if live else -1

    def went_live(self, name: str, back: bool, when: int) -> None:
        """Let a release be live."""
        self.left = self.live
        if back and name in self.line:
            self.at = self.line.index(name)
        else:
            self.line = [one for one in self.line[: self.at + 1] if one != name] + [name]
            self.at = len(self.line) - 1
        self.bad.discard(name)
        self.age[name] = when

    def undone(self, name: str) -> None:
        """Let a release be found to be bad."""
        self.left = name if self.live else ""
        self.bad.add(name)
        self.drop(name)
        self.stopped(name)

    def stopped(self, name: str) -> None:
        """Let a release be down."""
        self.warm = "" if self.warm == name else self.warm

    def superfluous(self, keep: int) -> list[str]:
        """Return what is pruned: bad ones first, then the ones not used for longest; never what is needed."""
        needed = {self.live, self.previous, self.warm, self.left}
        others = sorted(self.there - needed, key=lambda name: (name not in self.bad, self.age[name]))
        return others[: max(len(self.there) - keep, 0)]

    def prune(self, keep: int) -> None:
        """Remove what is superfluous."""
        for name in self.superfluous(keep):
            self.there.remove(name)
            self.bad.discard(name)
            self.drop(name)


def worlds(model: Model, run: Run, up: set[str], when: int) -> list[tuple[str, Model]]:
    """Return what a run that is not killed may come to: the step that refuses it, or "", and the model after it.

    Args:
        model: what is the case before.
        run: what is done.
        up: the releases that are up before.
        when: the time.
    """
    after = copy.deepcopy(model)
    name = run.name
    if run.back:
        name = name or after.previous
        if name not in after.there or name == after.live:
            return [("choose", after)]
    elif name not in after.there:
        if run.fails == "check":
            return [("check", after)]
        after.there.add(name)
        after.age[name] = when
    before = after.live
    if name == before:
        # Either all is as it should be, or what a killed run left is mended; both are fine.
        mended = copy.deepcopy(after)
        mended.warm = mended.warm if run.warm and mended.warm in up else ""
        mended.prune(run.keep)
        return [("", after), ("migrate", after) if run.fails == "migrate" else ("", mended)]
    if run.fails == "migrate" and not run.back:
        return [("migrate", after)]
    if run.fails in {"probe", "before_live"} or (run.fails == "start" and name not in up):
        after.stopped(name)
        return [(run.fails, after)]
    if run.fails in {"verify", "after_live"}:
        after.undone(name)
        return [(run.fails, after)]
    after.went_live(name, run.back, when)
    after.warm = before if run.warm else ""
    after.prune(run.keep)
    return [("", after)]


def worlds_after_a_kill(model: Model, run: Run, phase: str, there: set[str], when: int) -> list[Model]:
    """Return what a run that was killed may come to, once the holder or the next run has settled it.

    Args:
        model: what is the case before.
        run: what was done.
        phase: the state in which it was killed.
        there: the releases that are there now.
        when: the time.
    """
    start = copy.deepcopy(model)
    name = run.name or start.previous
    if not run.back and name in there and name not in start.there:
        start.there.add(name)
        start.age[name] = when
    assert there <= start.there
    untouched, undone, lives = [start], copy.deepcopy(start), copy.deepcopy(start)
    if start.warm == name:
        down = copy.deepcopy(start)
        down.stopped(name)
        untouched.append(down)
    if phase not in {"live", "retired"} or name == start.live:
        # Nothing but the releases that nobody needs may have changed.
        found = untouched
    else:
        undone.undone(name)
        lives.went_live(name, run.back, when)
        confirmed = replace(copy.deepcopy(lives), warm=start.live if run.warm else "")
        down = copy.deepcopy(lives)
        down.stopped(down.live)
        found = {
            ("live", "holder"): [*untouched, undone],
            ("retired", "holder"): [undone, confirmed],
            # Nobody was there to undo it: what is live by then stays.
            ("live", "reboot"): [*untouched, undone, lives, down],
            ("retired", "reboot"): [lives, down, confirmed],
            ("live", "both"): [*untouched, undone, lives, down],
            ("retired", "both"): [undone, lives, down, confirmed],
        }[phase, run.then]
    # Before live, the link to what was live before is changed: it may have come to the one and not to the other.
    found = [replace(copy.deepcopy(world), left=left) for world in found for left in {start.left, start.live, name}]
    result = []
    for world in found:
        gone = world.there - there
        if gone and (phase != "retired" or not gone <= set(world.superfluous(run.keep))):
            continue
        # It may have come to forget them, or not.
        remembers = replace(copy.deepcopy(world), there=set(there))
        forgets = copy.deepcopy(remembers)
        for one in gone:
            forgets.bad.discard(one)
            forgets.drop(one)
        result += [remembers, forgets] if gone else [remembers]
    return result


# -- the host ---------------------------------------------------------------------------------------------------------


@dataclass
class Scripted(Machine):
    """A host on which every command is a script of the test's."""

    real: bool = False
    when: int = 0
    fails_at: str = ""
    name: str = ""
    # The step that is being done; in a file as well, for who comes after a kill.
    phase: str = ""

    def _answer(self, command: list[str]) -> Answer:
        """Do what tar and uv do, as far as it matters here, and fail where the run is to fail."""
        if command[0] == "tar":
            app = Path(command[-1])
            (app / "part").mkdir()
            (app / "wsgi.py").write_text(app.parent.name)
            (app / "part" / "more.py").write_text(app.parent.name)
        if "venv" in command:
            (Path(command[-1]) / "bin").mkdir()
            (Path(command[-1]) / "bin" / "uwsgi").touch()
        fails = {
            "check": "--check-it",
            "start": f"{APP}@{self.name}.service" if command[:2] == ["systemctl", "start"] else "-",
            **{point: f"the {point} command" for point in ("migrate", "before_live", "after_live")},
        }
        if fails.get(self.fails_at, "-") in command:
            return 1, "", "broken\n"
        return super()._answer(command)

    def become_the_host(self, patch: pytest.MonkeyPatch) -> None:
        """Let the time and the probes be the test's as well."""
        super().become_the_host(patch)
        patch.setattr(release, "now", lambda: f"2026-11-24T10:00:00.{self.when:06}Z")
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(shutil, "rmtree", remove)
        patch.setattr(syslog, "syslog", lambda *_: None)
        for function, point in (("workers", "probe"), ("website", "verify")):
            patch.setattr(probe, function, self._asker(point))

    def _asker(self, point: str) -> Callable[..., None]:
        def ask(*_: object) -> None:
            if self.fails_at == point:
                raise probe.Unhealthy("it answers 500")

        return ask

    def files(self, name: str) -> set[str]:
        """Return what there is of a release."""
        top = f"{self.root}/releases/{name}"
        return {f"{where}/{file}"[len(top) + 1 :] for where, _, files in os.walk(top) for file in files}

    def module(self, state: str, run: Run, name: str) -> release.Deploy:
        """Return the module with the arguments that the roles give it."""
        hooks = {point: [f"the {point} command"] for point in ("before_live", "after_live")}
        plan = PLAN | {
            "check": ["uwsgi", "--check-it"],
            "check_exit_code": 0,
            "hooks": hooks,
            "migrate": "the migrate command",
        }
        params = {
            "state": state, "app": APP, "root": str(self.root), "name": name, "user": os.geteuid(), "link": None,
            "group": "web", "shared": [], "archive": "/archive",
            "files": {"socket": "[Socket]\n", "service": service(self)}, "environment": {},
            "secrets": {}, "requirements": [], "python": "python3", "uv": "uv", "build_environment": {}, "plan": plan,
            "fetched": {"origin": "/source", "commit": ""}, "to": run.name, "forward": not run.back,
            "url": "http://127.0.0.1", "host": "localhost", "keep": run.keep, "warm": run.warm, "who": "you",
            "run": "this", "boot": "",
        }  # fmt: skip
        return release.Deploy(SimpleNamespace(params=params, check_mode=False, warn=lambda _: None))

    def do(self, state: str, run: Run, name: str) -> dict[str, Any]:
        """Do one step; raises what it raises, with the step that was being done as `at`."""
        self.phase = state
        (self.base / "phase").write_text(state)
        deploy = self.module(state, run, name)
        try:
            return release.guarded(deploy, getattr(deploy, state), state)
        except (StepError, NoTargetError) as error:
            error.at = deploy.host.step  # type: ignore[union-attr]
            raise

    def play(self, run: Run, between: Callable[[], object] = bool) -> str:
        """Do what the playbook does, and return the step that refused it, or ""."""
        name, settled, self.fails_at = run.name, False, run.fails
        self.name = name
        try:
            for state in ROLLBACK if run.back else DEPLOY:
                if state in {"migrated", "started", "live", "retired"} and settled:
                    continue
                told = self.do(state, run, name)
                if state == "chosen":
                    if told["live"] == run.name:
                        return "choose"
                    told["name"] = told["targets"][0]
                name, settled = self.name, settled = told.get("name", name), told.get("settled", settled)
                between()
        except (StepError, NoTargetError) as error:
            return str(error.at)  # type: ignore[union-attr]
        finally:
            self.fails_at = ""
        return ""

    def killed(self, action: Callable[[Callable[[], None]], object], phase: str, number: int) -> bool:
        """Do something in a process that is killed at a change, and return whether it was.

        Args:
            action: what to do; it is given what it has to call after each phase.
            phase: the changes are counted while this step is being done.
            number: which change it is killed at, or after the last one of the phase, if there are fewer.
        """
        child = os.fork()
        if not child:
            # Nothing of pytest's may happen here, whatever fails. To look for garbage would copy all of its memory.
            gc.disable()
            code = 1
            try:
                action(self._countdown(phase, number))
                code = 0
            finally:
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "it was to be killed, and failed by itself"
        return os.WIFSIGNALED(status)

    def _countdown(self, phase: str, number: int) -> Callable[[], None]:
        left, note = number, str(self.base / "phase")

        def end() -> None:
            if self.phase == phase:
                os.kill(os.getpid(), signal.SIGKILL)

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if self.phase == phase and (event in CHANGES or writes) and str(arguments[0]) != note:
                left -= 1
                if not left:
                    if event == "open" and arguments[2] & os.O_TRUNC and os.path.exists(arguments[0]):
                        os.truncate(arguments[0], 0)  # it had come so far
                    end()

        sys.addaudithook(count)
        return end


# -- what has to hold -------------------------------------------------------------------------------------------------


def remove(path: str, ignore_errors: bool = False) -> None:
    """Remove a directory as shutil.rmtree() does, whose order is the file system's, in the worst order."""
    assert ignore_errors or os.path.isdir(path)
    for where, directories, files in os.walk(path, topdown=False):
        for file in files:
            os.unlink(os.path.join(where, file))
        for directory in directories:
            os.rmdir(os.path.join(where, directory))
    if os.path.isdir(path):
        os.rmdir(path)


@dataclass
class Sequence:
    """A host, the states that the model allows, and what was done, for messages."""

    machine: Scripted
    models: list[Model] = field(default_factory=lambda: [Model()])
    done: list[str] = field(default_factory=list)

    def holds(self, is_so: bool, what: str, *more: object) -> None:
        """Fail with all that was done, unless it is so."""
        assert is_so, "\n".join([*self.done, f"{what}:", *map(str, more)])

    def seen(self) -> dict[str, object]:
        """Return what release_info tells, in the words of the model."""
        host = Host(APP, str(self.machine.root))
        rows = release_info.releases(host)

        def one(state: str) -> str:
            return next((row["name"] for row in rows if state in row["state"].split(", ")), "")

        return {
            "live": host.live(), "previous": one("previous"), "warm": one("warm"),
            "there": sorted(row["name"] for row in rows), "bad": sorted(row["name"] for row in rows if row["why"]),
            "left": host.led_to(host.previous),
        }  # fmt: skip

    def is_whole(self) -> None:
        """See that the link leads to a release that is up, that each release is whole, and that it can be undone."""
        machine, live, stored = self.machine, self.machine.live(), self.machine.stored()
        needed = [live] if live else []
        if live and stored.get("pending", {}).get("release") == live:
            # As long as it is not confirmed the way back is a rename.
            needed += [name for name in [stored["pending"]["previous"]] if name]
        for name in needed:
            units = set(machine.unit_names(name))
            self.holds((machine.path(name) / "release.json").exists(), "it is gone", name)
            self.holds(units <= machine.marked("active"), "it is down", name)
            self.holds(units <= machine.marked("enabled"), "it would not come up again", name)
        for name in machine.names():
            files = machine.files(name)
            self.holds("release.json" not in files or files == FILES, "it counts as whole, and is not", name, files)

    def agree(self, models: list[Model]) -> None:
        """Go on with the models that agree with what is seen; there has to be one."""
        seen = self.seen()
        self.models = [model for number, model in enumerate(models) if model not in models[:number]]
        self.models = [model for model in self.models if model.seen() == seen]
        self.holds(bool(self.models), "this is not what was promised", seen, "but", *(one.seen() for one in models))

    def is_clean(self) -> None:
        """See that nothing is left of what was."""
        machine, model = self.machine, self.models[0]
        wanted = set(machine.unit_names(*filter(None, [model.live, model.warm])))
        self.holds(machine.up() == wanted, "these are up", machine.up(), "and not", wanted)
        self.holds(machine.names() == sorted(model.there), "these are there", machine.names())
        kept = {"live", "previous", "earlier", "releases", "state.json"}
        left = {path.name for path in machine.root.iterdir()} - kept
        self.holds(not left, "this is left", left)

    def is_gone(self, name: str, refused: str) -> None:
        """See that a release that was refused is down, and that one which was not built is not there."""
        machine = self.machine
        if refused == "check":
            self.holds(name not in machine.names(), "it was not built, and is there", name)
        elif refused != "migrate":
            units = set(machine.unit_names(name))
            there = units & {*os.listdir(machine.units), *machine.marked("active"), *machine.marked("enabled")}
            self.holds(not there, "it was refused, and is there", *there)

    def step(self, run: Run) -> None:
        """Do one run, and see that all that is promised holds."""
        machine = self.machine
        machine.when += 1
        self.done.append(str(run))
        live = machine.live()
        up = {unit.partition("@")[2].rpartition(".")[0] for unit in machine.marked("active")}
        up = {name for name in up if set(machine.unit_names(name)) <= machine.marked("active")}
        if run.kill and machine.killed(lambda end: machine.play(run, end), *run.kill):
            self.killed(run)
            return
        refused = machine.play(run) if not run.kill else None
        expected = [world for model in self.models for world in worlds(model, run, up, machine.when)]
        if refused is not None:
            self.holds(refused in {step for step, _ in expected}, f"it was refused by {refused!r}", *expected)
            expected = [(step, model) for step, model in expected if step == refused]
        # ansible-playbook has ended.
        release.undo_unconfirmed(APP, str(machine.root))
        self.is_whole()
        self.agree([model for _, model in expected])
        if refused in FAILURES:
            self.is_gone(machine.name, refused)
        if not refused and machine.live() != live:
            self.is_clean()

    def killed(self, run: Run) -> None:
        """Let happen what happens after a kill, and see that what is live is whole at each moment."""
        machine = self.machine
        phase = (machine.base / "phase").read_text()
        self.done.append(f"  killed in {phase}, then {run.then}")
        self.is_whole()
        if run.then == "holder":
            release.undo_unconfirmed(APP, str(machine.root))
        elif run.then == "both":
            assert run.kill is not None
            machine.phase = phase
            machine.killed(lambda _: release.undo_unconfirmed(APP, str(machine.root)), phase, run.kill[1])
        if run.then != "holder":
            machine.reboot()
        self.is_whole()
        # The first thing that the next run does.
        machine.do("locked", run, run.name)
        self.is_whole()
        bad = set[str]().union(*(model.bad for model in self.models))
        there = {path.parent.name for path in (machine.root / "releases").glob("*/release.json")}
        every = [
            world for model in self.models for world in worlds_after_a_kill(model, run, phase, there, machine.when)
        ]
        self.agree(every)
        if run.then == "holder" and not run.fails and all(run.name in model.bad - bad for model in self.models):
            # The holder was not killed, so it went on to the end.
            self.is_gone(run.name, "after_live")


def randomly(seed: int, base: Path, patch: pytest.MonkeyPatch) -> None:
    """Do a sequence of 15 to 30 runs."""
    chance = random.Random(seed)
    machine = Scripted(base)
    machine.become_the_host(patch)
    sequence, known, run = Sequence(machine), ["0" * 12], Run("0" * 12)
    for number in range(chance.randint(15, 30)):
        kind = chance.choices(["new", "known", "back", "to", "reboot"], [5, 3, 4, 3, 1])[0]
        if run.kill and chance.random() < 0.5:
            # What people do when a run was cut off.
            run = replace(run, kill=None)
            sequence.step(run)
            continue
        if kind == "reboot":
            sequence.done.append("reboot")
            machine.reboot()
            sequence.is_whole()
            continue
        if kind == "new":
            known.append(f"{number + 1:012x}")
        run = Run(
            name={"new": known[-1], "back": ""}.get(kind) or ("" if kind == "back" else chance.choice(known)),
            back=kind in {"back", "to"},
            fails=chance.choice(FAILURES) if chance.random() < 0.3 else "",
            keep=chance.randint(2, 5),
            warm=chance.random() < 0.5,
        )
        if chance.random() < 0.18:
            phases = ROLLBACK if run.back else DEPLOY
            phase = chance.choice([*phases, "live", "retired"])
            run.kill = phase, chance.randint(1, 7 if phase == "live" else 25)
            run.then = chance.choice(["holder", "holder", "reboot", "both"])
        sequence.step(run)


@pytest.fixture
def base() -> Iterator[Path]:
    """Give a path for a host, in memory where there is such a place: a sequence writes thousands of small files."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as directory:
        yield Path(directory) / "host"


@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_a_whole_release_is_live(seed: int, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deploys, rollbacks, failures, kills and reboots in any order come to what the model says."""
    randomly(seed, base, monkeypatch)


# -- the proof of the proof -------------------------------------------------------------------------------------------


def no_note_before_the_rename(patch: pytest.MonkeyPatch) -> None:
    """Let a switch be noted only after it was made: who is killed in between leaves one that nobody undoes."""
    remember, switch = Host.remember, Host.switch
    held_back: list[History] = []

    def later(host: Host, history: History) -> None:
        if history.pending.get("release", host.live()) == host.live():
            remember(host, history)
        else:
            held_back.append(history)

    def switched(host: Host, name: str) -> None:
        switch(host, name)
        while held_back:
            remember(host, held_back.pop())

    patch.setattr(Host, "remember", later)
    patch.setattr(Host, "switch", switched)


def stops_before_it_confirms(patch: pytest.MonkeyPatch) -> None:
    """Let the release before be stopped while the new one may still be undone."""
    retired = release.Deploy.retired

    def early(deploy: release.Deploy) -> dict[str, Any]:
        previous = deploy.host.history().pending.get("previous")
        if previous and not deploy.params["warm"]:
            deploy.host.stop(previous)
        return retired(deploy)

    patch.setattr(release.Deploy, "retired", early)


def prunes_the_previous(patch: pytest.MonkeyPatch) -> None:
    """Let the release that a rollback goes to be removed as any other."""
    prunable = History.prunable

    def careless(history: History, *arguments: Any) -> list[str]:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(History, "before", lambda *_: "")
            return prunable(history, *arguments)

    patch.setattr(History, "prunable", careless)


def prunes_what_visitors_came_from(patch: pytest.MonkeyPatch) -> None:
    """Let the release whose static files are still asked for be removed as any other."""
    prunable = History.prunable
    patch.setattr(History, "prunable", lambda history, live, built, keep, _left: prunable(history, live, built, keep))


def undo_does_not_restore(patch: pytest.MonkeyPatch) -> None:
    """Let an undo only take note that the release is bad."""

    def undo(host: Host, why: str) -> str:
        history = host.history()
        name = str(history.pending.get("release", ""))
        history.undo(why)
        host.remember(history)
        return name

    patch.setattr(Host, "undo", undo)


@pytest.mark.parametrize(
    "mutation",
    [
        no_note_before_the_rename,
        stops_before_it_confirms,
        prunes_the_previous,
        prunes_what_visitors_came_from,
        undo_does_not_restore,
    ],
    ids=lambda mutation: mutation.__name__,
)
def test_the_sequences_see_what_is_broken(mutation: Callable[[pytest.MonkeyPatch], None]) -> None:
    """Each of the means by which nothing can go wrong is needed: without it some sequence fails."""
    for seed in range(SEEDS):
        with tempfile.TemporaryDirectory(dir=MEMORY) as base, pytest.MonkeyPatch.context() as patch:
            mutation(patch)
            try:
                randomly(seed, Path(base) / "host", patch)
            except AssertionError:
                return
    pytest.fail("all sequences came to what the model says")
