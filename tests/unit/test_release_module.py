"""The module and action plugin slipway.wsgi.release, run for real up to what needs root and a running systemd."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "collections"))
from ansible_collections.slipway.wsgi.plugins.action import release as action
from ansible_collections.slipway.wsgi.plugins.modules import release

APP = "shop"
OLD, NEW = "0" * 12, "1" * 12
UV = Path(sys.executable).with_name("uv")
USER = pwd.getpwuid(os.geteuid()).pw_name
SECRET = "s3cret-of-the-index"  # what must not be shown
Answer = tuple[int, str, str]


@dataclass
class Machine:
    """A host of the test's own: directories for what a host has, and the part of systemd that the module speaks to.

    What needs no rights (tar, chmod, uv, python) is run for real; uv by its own command line, without systemd-run.
    """

    base: Path
    module: AnsibleModule | None = None
    active: set[str] = field(default_factory=set)
    enabled: set[str] = field(default_factory=set)
    calls: list[list[str]] = field(default_factory=list)
    # {words of a command: its answer}, for what fails.
    fails: dict[tuple[str, ...], Answer] = field(default_factory=dict)
    # What `ss` answers, look by look; nothing once it is used up.
    queue: list[str] = field(default_factory=list)
    # Called with each command before it is run.
    watch: Callable[[list[str]], object] = len

    @property
    def root(self) -> Path:
        """The app's directory."""
        return self.base / "srv" / APP

    @property
    def units(self) -> Path:
        """What /etc/systemd/system is on a host."""
        return self.base / "units"

    def command(self, command: list[str], environment: dict[str, str]) -> Answer:
        """Answer a command of the module."""
        self.calls.append(command)
        self.watch(command)
        for words, answer in self.fails.items():
            if set(words) <= set(command):
                return answer
        if command[0] == "systemctl":
            return self.systemctl(command[1], [word for word in command[2:] if not word.startswith("-")])
        if command[0] in {"chown", "journalctl"}:
            return 0, "", ""
        if command[0] == "ss":
            return 0, self.queue.pop(0) if self.queue else "", ""
        if command[0] == "systemd-run":
            sets = [word.partition("=")[2] for word in command if word.startswith("--setenv=")]
            environment = {key: value or environment[key] for key, _, value in (word.partition("=") for word in sets)}
            environment["UV_CACHE_DIR"] = str(self.base / "cache")
            while command[0] == "systemd-run" or command[0].startswith("--"):
                command = command[1:]
        done = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=60
        )
        return done.returncode, done.stdout, done.stderr

    def systemctl(self, verb: str, units: list[str]) -> Answer:
        """Do what systemctl does with units whose files are there, and refuse the others as it does."""
        if verb == "daemon-reload":
            return 0, "", ""
        if verb == "show":
            return 0, "1min 10s\n", ""
        if not units:
            return 1, "", "Too few arguments."
        if verb in {"is-active", "is-enabled"}:
            found = self.active if verb == "is-active" else self.enabled
            return (0 if found & set(units) else 3), "", ""  # one of them is enough, systemctl(1)
        missing = [unit for unit in units if not (self.units / unit).exists()]
        if missing and verb != "reset-failed":
            return 5, "", f"Unit {missing[0]} not found."
        changes: dict[str, Callable[[list[str]], object]] = {
            "start": self.active.update,
            "stop": self.active.difference_update,
            "enable": self.enabled.update,
            "disable": self.enabled.difference_update,
            "reset-failed": set,
        }
        changes[verb](units)
        return 0, "", ""

    def verbs(self) -> list[str]:
        """Give what systemctl was asked to change, in order."""
        return [call[1] for call in self.calls if call[0] == "systemctl" and not call[1].startswith(("is-", "show"))]

    def run(self, capsys: pytest.CaptureFixture[str], check: bool = False, **arguments: Any) -> dict[str, Any]:
        """Run the module; its result has `failed` when it failed."""
        capsys.readouterr()
        everything = {"app": APP, "root": str(self.root), **arguments, "_ansible_check_mode": check}
        with patch_module_args(everything), pytest.raises(SystemExit):
            release.main()
        told: dict[str, Any] = json.loads(capsys.readouterr().out)
        return told

    def whole(self, name: str, age: int = 0, **files: str) -> Path:
        """Put a release there that was built to its end, `age` seconds ago."""
        path = self.root / "releases" / name
        (path / "etc").mkdir(parents=True)
        for file, text in {"socket": f"socket of {name}\n", "service": f"service of {name}\n", **files}.items():
            (path / "etc" / file).write_text(text)
        (path / "release.json").write_text("{}\n")
        os.utime(path, (1_000_000_000 - age, 1_000_000_000 - age))
        return path

    def put_live(self, name: str) -> None:
        """Let a release be live and up."""
        units = self.unit_names(name)
        for unit in units:
            (self.units / unit).write_text("")
        self.active.update(units)
        self.enabled.update(units)
        link = self.root / "live"
        link.unlink(missing_ok=True)
        link.symlink_to(f"releases/{name}")

    def unit_names(self, name: str) -> set[str]:
        """Give the units of a release."""
        return {f"{APP}@{name}.socket", f"{APP}@{name}.service"}

    def state(self) -> list[tuple[str, int, str]]:
        """Give all that is on the disk: paths, times of change, and what links lead to or files hold."""
        return [
            (str(path), path.lstat().st_mtime_ns, os.readlink(path) if path.is_symlink() else path.read_text())
            for path in sorted(self.base.rglob("*"))
            if path.is_symlink() or path.is_file()
        ]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Give a host without a release."""
    made = Machine(tmp_path / "host")
    (made.root / "releases").mkdir(parents=True)
    made.units.mkdir()

    def command(module: AnsibleModule, args: list[str], environ_update: dict[str, str] | None = None) -> Answer:
        made.module = module
        return made.command(args, environ_update or {})

    monkeypatch.setattr(AnsibleModule, "run_command", command)
    monkeypatch.setattr(release, "UNITS", str(made.units))
    mask = os.umask(0o022)
    yield made
    os.umask(mask)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Give an archive of a source, as the action plugin brings it."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "wsgi.py").write_text("application = print\n")
    (source / "requirements.txt").write_text("# nothing\n")
    path = tmp_path / "source.tar.gz"
    subprocess.run(["tar", "-czf", str(path), "-C", str(source), "."], check=True, timeout=30)
    return path


def build(**changes: Any) -> dict[str, Any]:
    """Give the arguments of a build."""
    return {
        "state": "built",
        "name": NEW,
        "user": USER,
        "source": "/nowhere",
        "files": {"socket": "[Socket]\n", "service": "[Service]\n", "requirements.txt": "# nothing\n"},
        "requirements": ["requirements.txt"],
        "python": sys.executable,
        "uv": str(UV),
        "environment": {"UV_DEFAULT_INDEX": f"https://user:{SECRET}@index.example.org/simple"},
        "origin": "/source at abc",
        **changes,
    }


# --- built ----------------------------------------------------------------------------------------------------


def test_a_whole_release_is_not_built_again(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """What is whole is left alone, archive or not."""
    path = machine.whole(NEW)
    before = machine.state()
    told = machine.run(capsys, **build(archive="/nowhere"))
    assert (told["changed"], told["name"], told["path"]) == (False, NEW, str(path))
    assert "needs_archive" not in told
    assert machine.state() == before
    assert machine.calls == []


def test_check_mode_says_that_it_would_build(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run says so, asks for no archive, and leaves even what a killed build left."""
    (machine.root / "releases" / NEW).mkdir()
    (machine.root / "releases" / NEW / "rest").touch()
    before = machine.state()
    told = machine.run(capsys, check=True, **build(archive="/nowhere"))
    assert told["changed"] is True
    assert "needs_archive" not in told
    assert machine.state() == before
    assert machine.calls == []


def test_the_source_is_asked_for_only_where_it_is_wanted(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """Without an archive nothing is built, and the action plugin is told to bring it."""
    told = machine.run(capsys, **build())
    assert (told["changed"], told["needs_archive"]) == (True, True)
    assert machine.state() == []
    assert machine.calls == []


def test_a_release_is_built(machine: Machine, archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It has the source, the files, an environment and the place of its socket; release.json comes last."""
    path = machine.root / "releases" / NEW
    early: list[list[str]] = []
    machine.watch = lambda command: early.append(command) if (path / "release.json").exists() else None
    (path / "app").mkdir(parents=True)
    (path / "app" / "left_by_a_killed_build.py").touch()
    told = machine.run(capsys, **build(archive=str(archive)))
    assert (told["changed"], told.get("failed")) == (True, None), told
    assert sorted(os.listdir(path)) == ["app", "etc", "release.json", "uwsgi.sock", "venv"]
    assert sorted(os.listdir(path / "app")) == ["__pycache__", "requirements.txt", "wsgi.py"]
    assert (path / "etc/service").read_text() == "[Service]\n"
    assert sorted(os.listdir(path / "etc")) == ["requirements.txt", "service", "socket"]
    assert os.readlink(path / "uwsgi.sock") == f"/run/{APP}/{NEW}.sock"
    facts = json.loads((path / "release.json").read_text())
    assert (facts["name"], facts["source"]) == (NEW, "/source at abc")
    assert early == []
    prefix = [str(path / "venv/bin/python"), "-c", "import sys; print(sys.prefix)"]
    assert subprocess.run(prefix, capture_output=True, text=True, check=True).stdout.strip() == str(path / "venv")
    assert machine.run(capsys, **build())["changed"] is False


def test_what_a_release_has_is_open_to_read_and_closed_to_write(
    machine: Machine, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the umask of who deploys: everybody may read, nobody but the owner may write, and root gets it."""
    os.umask(0o077)
    told = machine.run(capsys, **build(archive=str(archive)))
    assert "failed" not in told, told
    path = machine.root / "releases" / NEW
    for one in [path, *path.rglob("*")]:
        if not one.is_symlink():
            assert one.stat().st_mode & 0o022 == 0, one
            assert one.stat().st_mode & 0o004, one
    assert ["chown", "-R", "-h", "root:root", str(path)] in machine.calls


def test_code_of_packages_is_run_with_no_rights(
    machine: Machine, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the app's user, who may write to the environment only: the units beside it are run by root."""
    path = machine.root / "releases" / NEW
    owned: list[str] = []

    def chown(where: str, user: str) -> None:
        assert user == USER
        owned.append(where)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "chown", chown)
        assert "failed" not in machine.run(capsys, **build(archive=str(archive)))
    assert owned == [str(path / "venv")]
    calls = [call for call in machine.calls if str(UV) in call]
    assert [call[call.index(str(UV)) + 1] for call in calls] == ["venv", "pip", "pip"]
    for call in calls:
        for expected in (
            f"--property=User={USER}",
            "--property=ProtectSystem=strict",
            "--property=NoNewPrivileges=yes",
            f"--property=ReadWritePaths={path}/venv",
        ):
            assert expected in call
    assert not [call for call in machine.calls if call[0].startswith(f"{path}/venv")]


def test_locks_are_installed_one_by_one_and_only_with_hashes(
    machine: Machine, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """First the app's, then the app server's; without files there is no call."""
    machine.run(capsys, **build(archive=str(archive)))
    path = machine.root / "releases" / NEW
    calls = [call for call in machine.calls if "pip" in call]
    assert [call[-1] for call in calls] == [f"{path}/app/requirements.txt", f"{path}/etc/requirements.txt"]
    assert all("--require-hashes" in call for call in calls)
    machine.calls.clear()
    machine.run(capsys, **build(name=OLD, archive=str(archive), requirements=[], files={}))
    assert not [call for call in machine.calls if "pip" in call]
    assert (machine.root / "releases" / OLD / "release.json").exists()


def test_secrets_are_not_shown(machine: Machine, archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The index's password is in no command line, which everybody on the host can read, and in no message."""
    index = f"https://user:{SECRET}@index.example.org/simple"
    machine.fails["pip",] = (2, "", f"error: could not reach {index}/flask\n")
    told = machine.run(capsys, **build(archive=str(archive)))
    assert told["failed"]
    assert SECRET not in json.dumps(told)
    assert "could not reach" in told["msg"]
    assert "--setenv=UV_DEFAULT_INDEX" in machine.calls[-1]
    assert SECRET not in str(machine.calls)


@pytest.mark.parametrize(
    ("fails", "step", "reason"),
    [
        (("tar",), "fetch", "`tar -xzf {archive}` ended with exit code 2."),
        (("venv", "--quiet"), "build", f"uv could not make an environment with {sys.executable}."),
        (("pip", "{app}"), "build", "uv could not install app/requirements.txt, which has to be locked with hashes."),
        (("pip", "{etc}"), "build", "uv could not install etc/requirements.txt, which has to be locked with hashes."),
        (("chown",), "build", "`chown -R -h` ended with exit code 2."),
    ],
    ids=["fetch", "environment", "app", "server", "owner"],
)
def test_a_failed_build_leaves_nothing(
    machine: Machine,
    archive: Path,
    capsys: pytest.CaptureFixture[str],
    fails: tuple[str, ...],
    step: str,
    reason: str,
) -> None:
    """The directory is gone, and the message names release, app, step, reason, what the process said and what stays."""
    machine.whole(OLD)
    machine.put_live(OLD)
    path = machine.root / "releases" / NEW
    words = tuple(word.format(app=path / "app/requirements.txt", etc=path / "etc/requirements.txt") for word in fails)
    machine.fails[words] = (2, "", "".join(f"line {number}\n" for number in range(1, 31)))
    told = machine.run(capsys, **build(archive=str(archive)))
    assert told["failed"]
    assert (told["name"], told["step"]) == (NEW, step)
    assert told["msg"].splitlines() == [
        f"Release {NEW} of {APP}, step {step}: {reason.format(archive=archive)}",
        *(f"line {number}" for number in range(6, 31)),
        f"{OLD} stays live.",
    ]
    assert os.listdir(machine.root / "releases") == [OLD]


def test_a_source_that_does_not_compile_is_built(
    machine: Machine, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that nothing imports may be written for another Python."""
    machine.fails["compileall",] = (1, "SyntaxError", "")
    told = machine.run(capsys, **build(archive=str(archive)))
    assert ["compileall" in call for call in machine.calls][-1]
    assert "failed" not in told


def test_a_new_release_shows_how_its_files_differ(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """Against those of the live release: changed and new ones, not those that are the same."""
    machine.whole(OLD, service="[Service]\nold\n", socket="[Socket]\n")
    machine.put_live(OLD)
    files = {"service": "[Service]\nnew\n", "socket": "[Socket]\n", "uwsgi.ini": "[uwsgi]\n"}
    told = machine.run(capsys, check=True, **build(files=files))
    assert [(one["before_header"], one["before"], one["after"]) for one in told["diff"]] == [
        ("service (live release)", "[Service]\nold\n", "[Service]\nnew\n"),
        ("uwsgi.ini (live release)", "", "[uwsgi]\n"),
    ]


# --- live -----------------------------------------------------------------------------------------------------


def test_what_is_live_and_up_is_left_alone(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is asked of systemd but how things are."""
    machine.whole(NEW)
    machine.put_live(NEW)
    before = machine.state()
    told = machine.run(capsys, state="live", name=NEW)
    assert (told["changed"], told["previous"], told["pruned"]) == (False, NEW, [])
    assert machine.verbs() == []
    assert machine.state() == before


@pytest.mark.parametrize("kind", ["socket", "service"])
@pytest.mark.parametrize("what", ["active", "enabled"])
def test_what_is_live_and_not_up_is_mended(
    machine: Machine, capsys: pytest.CaptureFixture[str], what: str, kind: str
) -> None:
    """Each of the two units has to be up and has to come up at boot."""
    machine.whole(NEW)
    machine.put_live(NEW)
    getattr(machine, what).discard(f"{APP}@{NEW}.{kind}")
    assert machine.run(capsys, state="live", name=NEW)["changed"] is True
    assert machine.active == machine.enabled == machine.unit_names(NEW)
    assert machine.run(capsys, state="live", name=NEW)["changed"] is False


def test_check_mode_says_what_would_go_live(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run says so and changes nothing, on the disk and in systemd, even where the release is not built yet."""
    machine.whole(OLD)
    machine.put_live(OLD)
    before = machine.state()
    told = machine.run(capsys, check=True, state="live", name=NEW)
    assert told["changed"] is True
    assert told["diff"] == {"before": f"live: {OLD}\n", "after": f"live: {NEW}\n"}
    assert machine.state() == before
    assert machine.verbs() == []


def test_a_release_goes_live(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """Its units are installed, started and enabled before the link leads to it; then the old one is stopped."""
    machine.whole(OLD)
    machine.put_live(OLD)
    path = machine.whole(NEW)
    link, seen = machine.root / "live", []
    machine.watch = lambda command: seen.append((command[1], os.readlink(link)[-12:]))
    told = machine.run(capsys, state="live", name=NEW)
    assert (told["changed"], told["previous"], told["path"]) == (True, OLD, str(path))
    assert [(verb, where) for verb, where in seen if verb in {"start", "enable", "disable", "stop"}] == [
        ("start", OLD),
        ("enable", OLD),
        ("disable", NEW),
        ("stop", NEW),  # its service, once nothing waits for it
        ("stop", NEW),  # and its socket
    ]
    assert os.readlink(link) == f"releases/{NEW}"
    assert machine.active == machine.enabled == {unit.name for unit in machine.units.iterdir()}
    assert machine.active == machine.unit_names(NEW)
    assert (machine.units / f"{APP}@{NEW}.service").read_text() == f"service of {NEW}\n"
    assert (machine.units / f"{APP}@{NEW}.socket").read_text() == f"socket of {NEW}\n"


def test_units_are_read_before_they_are_started(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """systemd is told of new files before it is to start them, and of gone ones after they are stopped."""
    machine.whole(OLD)
    machine.put_live(OLD)
    machine.whole(NEW)
    machine.run(capsys, state="live", name=NEW)
    before, after = ["daemon-reload", "start", "enable"], ["disable", "stop", "stop", "reset-failed", "daemon-reload"]
    assert machine.verbs() == [*before, *after]


WAITS = "u_str LISTEN 3 4096 /run/shop/0.sock 4711 * 0\n"
EMPTY = "u_str LISTEN 0 4096 /run/shop/0.sock 4711 * 0\n"
STOP = ["systemctl", "stop", f"{APP}@{OLD}.service"]


def drained(
    machine: Machine, capsys: pytest.CaptureFixture[str], *looks: str
) -> tuple[list[list[str]], dict[str, Any]]:
    """Let a release go live while `ss` sees this in the old one's queue; give the calls from the first look on."""
    machine.whole(OLD)
    machine.put_live(OLD)
    machine.whole(NEW)
    machine.queue.extend(looks)
    told = machine.run(capsys, state="live", name=NEW)
    first = next(index for index, call in enumerate(machine.calls) if call[0] == "ss")
    return [call for call in machine.calls[first:] if call[0] == "ss" or call[1] in {"start", "stop"}], told


def test_the_old_release_is_not_stopped_while_requests_wait(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its service is stopped after three looks in a row at an empty queue, and its socket only after one more."""
    calls, _ = drained(machine, capsys, WAITS, EMPTY, WAITS, EMPTY, EMPTY, EMPTY, EMPTY)
    looks = [call[0] == "ss" for call in calls]
    assert calls.index(STOP) == 6
    assert looks[:9] == [*[True] * 6, False, True, True]
    assert calls[9] == ["systemctl", "stop", f"{APP}@{OLD}.socket", f"{APP}@{OLD}.service"]


def test_who_comes_while_the_old_service_stops_is_served(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """It is started again for them, and stopped when they have been served."""
    calls, _ = drained(machine, capsys, EMPTY, EMPTY, EMPTY, WAITS, WAITS, EMPTY, EMPTY, EMPTY)
    changes = [call[1] for call in calls if call[0] == "systemctl"]
    assert changes == ["stop", "start", "stop", "stop"]


def test_a_release_that_serves_nobody_is_stopped_in_the_end(
    machine: Machine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its queue is waited for no longer than its service may take to stop; then a warning says how many were lost."""
    monkeypatch.setattr(release, "timespan", lambda text: 0.3 if text == "1min 10s\n" else 0)
    warnings: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _, text: warnings.append(text))
    calls, told = drained(machine, capsys, *[WAITS] * 100)
    assert [call[1] for call in calls if call[0] == "systemctl"] == ["stop"]
    assert [text for text in warnings if "3 connections waiting" in text]
    assert told["changed"] is True


def test_a_release_that_is_not_up_is_not_waited_for(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody would take what waits for a service that is down."""
    machine.fails[("is-active", f"{APP}@{OLD}.service")] = (3, "", "")
    calls, _ = drained(machine, capsys, EMPTY)
    assert [call[0] for call in calls] == ["ss", "systemctl"]


@pytest.mark.parametrize("first", [True, False])
def test_going_live_is_one_step(machine: Machine, first: bool) -> None:
    """Whatever the switch does, after each of its system calls the link is there and leads to a release."""
    machine.whole(NEW)
    (machine.root / "live.new").symlink_to("what a killed switch left")
    if not first:
        machine.whole(OLD)
        machine.put_live(OLD)
    host = release.Host(SimpleNamespace(params={"app": APP, "root": str(machine.root)}))
    seen: list[str] = []

    def look(_frame: object, event: str, _argument: object) -> None:
        if event == "c_return":
            seen.append(os.readlink(host.link) if os.path.lexists(host.link) else "")

    sys.setprofile(look)
    try:
        release.switch(host, NEW)
    finally:
        sys.setprofile(None)
    assert len(seen) > 3
    assert seen == sorted(seen)
    assert set(seen) == {"" if first else f"releases/{OLD}", f"releases/{NEW}"}
    assert not os.path.lexists(machine.root / "live.new")


@pytest.mark.parametrize("fails", ["start", "is-active"])
def test_a_release_that_does_not_start_is_refused(
    machine: Machine, capsys: pytest.CaptureFixture[str], fails: str
) -> None:
    """The message has release, step, reason, log and what stays live; nothing of the release runs on or stays."""
    machine.whole(OLD)
    machine.put_live(OLD)
    machine.whole(NEW)
    units = machine.unit_names(NEW)
    if fails == "start":
        machine.fails["start", *units] = (1, "", "Job failed.\n")
    else:
        machine.fails["is-active", f"{APP}@{NEW}.service"] = (3, "", "")
    machine.fails["journalctl", f"--unit={APP}@{NEW}.service"] = (0, "Traceback\nImportError: no shop\n", "")
    told = machine.run(capsys, state="live", name=NEW)
    assert told["msg"].splitlines() == [
        f"Release {NEW} of {APP}, step start: its service did not start. The last lines of its journal:",
        "Traceback",
        "ImportError: no shop",
        f"{OLD} stays live.",
    ]
    assert (told["failed"], told["name"], told["step"]) == (True, NEW, "start")
    assert os.readlink(machine.root / "live") == f"releases/{OLD}"
    assert machine.active == machine.enabled == {unit.name for unit in machine.units.iterdir()}
    assert machine.active == machine.unit_names(OLD)
    journal = [call for call in machine.calls if call[0] == "journalctl"]
    assert journal[0] == ["journalctl", "--sync"]
    assert ["systemctl", "reset-failed", *sorted(units, reverse=True)] in machine.calls


@pytest.mark.parametrize("fails", ["enable", "copy"])
def test_a_start_that_breaks_off_leaves_nothing(
    machine: Machine, capsys: pytest.CaptureFixture[str], fails: str
) -> None:
    """Whatever fails between the first file and the last command, nothing of the release stays."""
    machine.whole(OLD)
    machine.put_live(OLD)
    path = machine.whole(NEW)
    if fails == "enable":
        machine.fails["enable",] = (1, "", "Failed to enable unit.\n")
    else:
        (path / "etc/service").unlink()
    told = machine.run(capsys, state="live", name=NEW)
    assert told["msg"].startswith(f"Release {NEW} of {APP}, step start: ")
    assert told["msg"].endswith(f"{OLD} stays live.")
    assert machine.active == machine.enabled == {unit.name for unit in machine.units.iterdir()}
    assert machine.active == machine.unit_names(OLD)


def test_the_first_release_has_nothing_to_fall_back_on(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """Where nothing is live the message does not promise it."""
    machine.whole(NEW)
    machine.fails["start",] = (1, "", "")
    told = machine.run(capsys, state="live", name=NEW)
    assert told["msg"].splitlines()[-1] == "No other release is live."
    assert not os.path.lexists(machine.root / "live")


def test_a_live_release_that_does_not_start_again_keeps_its_units(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    """systemd goes on trying to mend what is live; to take its units away would end that."""
    machine.whole(NEW)
    machine.put_live(NEW)
    machine.active.clear()
    machine.fails["start",] = (1, "", "")
    told = machine.run(capsys, state="live", name=NEW)
    assert told["msg"].splitlines()[-1] == "No other release is live."
    assert {unit.name for unit in machine.units.iterdir()} == machine.enabled == machine.unit_names(NEW)


@pytest.mark.parametrize("there", [True, False])
def test_what_is_not_whole_does_not_go_live(machine: Machine, capsys: pytest.CaptureFixture[str], there: bool) -> None:
    """A release that was never built, or not to its end, is refused before systemd hears of it."""
    if there:
        (machine.whole(NEW) / "release.json").unlink()
    told = machine.run(capsys, state="live", name=NEW)
    path = machine.root / "releases" / NEW
    assert told["msg"].splitlines() == [
        f"Release {NEW} of {APP}, step start: {path} is missing, or was not built to its end.",
        "No other release is live.",
    ]
    assert machine.verbs() == []


def test_a_link_that_is_no_link_is_no_traceback(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """A directory in the link's place ends the switch with a message that names it."""
    machine.whole(NEW)
    (machine.root / "live").mkdir()
    told = machine.run(capsys, state="live", name=NEW)
    assert told["msg"].startswith(f"Release {NEW} of {APP}, step go live: ")
    assert str(machine.root / "live") in told["msg"]


def names(machine: Machine) -> list[str]:
    """Give the releases that are on the host."""
    return sorted(os.listdir(machine.root / "releases"))


def test_the_most_recent_releases_stay(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """Going live makes a release the most recent, also one that is old: the oldest of the others go."""
    for age, name in enumerate("abcdef"):
        machine.whole(name * 12, age=age)
    machine.put_live("a" * 12)
    told = machine.run(capsys, state="live", name="f" * 12, keep=3)
    assert told["pruned"] == ["e" * 12, "d" * 12, "c" * 12]
    assert names(machine) == ["a" * 12, "b" * 12, "f" * 12]


def test_a_clock_that_was_wrong_costs_no_live_release(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """Releases of a time to come are more recent than the one that goes live now, which stays all the same."""
    for name in "bc":
        machine.whole(name * 12, age=-5_000_000_000)
    machine.whole(NEW)
    machine.run(capsys, state="live", name=NEW, keep=2)
    assert NEW in names(machine)


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_live_release_and_the_one_before_always_stay(
    machine: Machine, capsys: pytest.CaptureFixture[str], keep: int
) -> None:
    """Releases that were built later and did not start do not push out the one that is known to work."""
    machine.whole(OLD, age=100)
    machine.put_live(OLD)
    for age, name in enumerate("bcde"):
        machine.whole(name * 12, age=age)
    machine.whole(NEW, age=50)
    machine.run(capsys, state="live", name=NEW, keep=keep)
    assert {OLD, NEW} <= set(names(machine))
    assert len(names(machine)) <= max(keep, 2) + 1


def test_others_are_stopped_also_after_a_cut_off_start(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """A release of which only one unit is installed is no obstacle to the next one."""
    machine.whole(OLD)
    (machine.units / f"{APP}@{OLD}.socket").touch()
    machine.whole(NEW)
    told = machine.run(capsys, state="live", name=NEW)
    assert "failed" not in told, told
    assert {unit.name for unit in machine.units.iterdir()} == machine.unit_names(NEW)


# --- the controller's side ------------------------------------------------------------------------------------


@dataclass
class Controller:
    """The action plugin, with a connection that copies files on this machine."""

    machine: Machine
    capsys: pytest.CaptureFixture[str]
    base: Path
    executed: list[dict[str, Any]] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    check: bool = False

    def run(self, **arguments: Any) -> dict[str, Any]:
        """Run the action plugin with these arguments."""
        task = SimpleNamespace(
            action="slipway.wsgi.release",
            args=arguments,
            async_val=0,
            check_mode=self.check,
            diff=False,
            delegate_to=None,
            timeout=0,
        )
        shell = SimpleNamespace(join_path=os.path.join, tmpdir=None)
        connection = SimpleNamespace(_shell=shell)
        plugin = action.ActionModule(task, connection, SimpleNamespace(), None, None, None)

        def make() -> str:
            shell.tmpdir = tempfile.mkdtemp(prefix="remote-", dir=self.base)
            return str(shell.tmpdir)

        def remove(path: str) -> None:
            shutil.rmtree(path)
            shell.tmpdir = None

        def execute(module_args: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
            self.executed.append(dict(module_args))
            return self.machine.run(self.capsys, check=self.check, **module_args)

        def transfer(local: str, there: str) -> str:
            self.sent.append(local)
            return str(shutil.copy(local, there))

        plugin._execute_module = execute
        plugin._make_tmp_path = make
        plugin._transfer_file = transfer
        plugin._remove_tmp_path = remove
        told: dict[str, Any] = plugin.run(None, {})
        return told

    def left(self) -> list[Path]:
        """Give the archives that are still somewhere."""
        return [*self.base.glob("remote-*"), *(Path(path) for path in self.sent if os.path.exists(path))]


@pytest.fixture
def controller(machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Controller:
    """Give a controller with a source."""
    source = tmp_path / "controller"
    source.mkdir()
    (source / "wsgi.py").write_text("application = print\n")
    (source / "requirements.txt").write_text("")
    return Controller(machine, capsys, tmp_path)


def wanted(controller: Controller, **changes: Any) -> dict[str, Any]:
    """Give the arguments of a build, as the role gives them."""
    arguments = build(source=str(controller.base / "controller"), **changes)
    return {name: value for name, value in arguments.items() if name not in {"name", "origin"}}


def test_the_source_is_sent_once(controller: Controller) -> None:
    """Only a host that has not got the release is sent the source, and nothing of the sending stays."""
    first = controller.run(**wanted(controller))
    assert first["changed"] is True, first
    assert "needs_archive" not in first
    assert len(controller.sent) == 1
    assert controller.left() == []
    path = Path(first["path"])
    assert path.name == first["name"]
    assert (path / "app/wsgi.py").read_text() == "application = print\n"
    assert json.loads((path / "release.json").read_text())["source"] == str(controller.base / "controller")
    second = controller.run(**wanted(controller))
    assert (second["changed"], second["name"]) == (False, first["name"])
    assert len(controller.sent) == 1


def test_a_dry_run_sends_nothing(controller: Controller) -> None:
    """It says that a release would be built, and which."""
    controller.check = True
    told = controller.run(**wanted(controller))
    assert told["changed"] is True
    assert len(told["name"]) == 12
    assert controller.sent == []
    assert controller.machine.state() == []


@pytest.mark.parametrize(
    "change", [{"files": {"service": "[Service]\n#\n"}}, {"requirements": []}, {"python": "/usr/bin/python3"}], ids=str
)
def test_each_input_makes_another_release(controller: Controller, change: dict[str, Any]) -> None:
    """What a release is made of is in its name; how its packages are fetched is not."""
    controller.check = True
    name = controller.run(**wanted(controller))["name"]
    assert controller.run(**wanted(controller, **change))["name"] != name
    assert controller.run(**wanted(controller, environment={}, uv="/elsewhere/uv"))["name"] == name
    (controller.base / "controller/wsgi.py").write_text("application = repr\n")
    assert controller.run(**wanted(controller))["name"] != name


def test_a_failed_build_leaves_no_archive(controller: Controller) -> None:
    """Neither here nor there, whether the host says so or the connection breaks."""
    controller.machine.fails["tar",] = (2, "", "broken\n")
    assert controller.run(**wanted(controller))["failed"]
    assert len(controller.sent) == 1
    assert controller.left() == []

    def broken(command: list[str]) -> None:
        raise AnsibleConnectionFailure("broken")

    controller.machine.watch = broken
    with pytest.raises(AnsibleConnectionFailure):
        controller.run(**wanted(controller))
    assert len(controller.sent) == 2
    assert controller.left() == []


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (["requirements.txt", "more.txt"], "{source}/more.txt is not there, but the release needs it."),
        (["secret.txt"], "{source}/secret.txt is ignored by git, so it is no part of the source, but the release"),
    ],
)
def test_a_source_that_lacks_what_is_needed_is_refused(
    controller: Controller, monkeypatch: pytest.MonkeyPatch, needs: list[str], said: str
) -> None:
    """Before the host is asked for anything, with the reason."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    source = controller.base / "controller"
    (source / "secret.txt").touch()
    (source / ".gitignore").write_text("secret.txt\n")
    subprocess.run(["git", "init", "-q", str(source)], check=True, timeout=30)
    with pytest.raises(AnsibleActionFail) as failure:
        controller.run(state="checked", source=str(source), needs=needs)
    assert said.format(source=source) in str(failure.value)
    with pytest.raises(AnsibleActionFail):
        controller.run(**wanted(controller, needs=needs))
    assert controller.executed == []


def test_a_source_that_is_fine_is_not_sent(controller: Controller) -> None:
    """`checked` looks at the source and leaves the host alone."""
    told = controller.run(state="checked", source=str(controller.base / "controller"), needs=["requirements.txt"])
    assert not told.get("changed")
    assert controller.executed == []
    assert controller.left() == []  # not even a temporary directory was asked for


def test_going_live_is_left_to_the_host(controller: Controller) -> None:
    """The plugin passes on what it is given, and the host's answer back."""
    controller.machine.whole(NEW)
    told = controller.run(state="live", app=APP, root=str(controller.machine.root), name=NEW)
    assert (told["changed"], told["name"], told["previous"]) == (True, NEW, "")
    assert len(controller.executed) == 1


# --- arguments ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"state": "built"}, "state is built but all of the following are missing"),
        ({"state": "live"}, "state is live but all of the following are missing: name"),
        ({"state": "gone"}, "value of state must be one of: checked, built, live"),
    ],
)
def test_arguments_that_are_missing_are_named(
    machine: Machine, capsys: pytest.CaptureFixture[str], arguments: dict[str, Any], said: str
) -> None:
    """Ansible's own check says so before anything is done."""
    told = machine.run(capsys, **arguments)
    assert told["failed"]
    assert said in told["msg"]
    assert machine.calls == []
