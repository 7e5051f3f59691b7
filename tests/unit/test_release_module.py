"""The module and action plugin slipway.wsgi.release, run for real up to what needs root and a running systemd."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import subprocess
import sys
import syslog
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible import constants
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.testing import patch_module_args
from ansible_collections.slipway.wsgi.plugins.action import release as action
from ansible_collections.slipway.wsgi.plugins.module_utils import host as host_module
from ansible_collections.slipway.wsgi.plugins.module_utils import lock, probe
from ansible_collections.slipway.wsgi.plugins.module_utils.host import Host
from ansible_collections.slipway.wsgi.plugins.modules import release
from ansible_collections.slipway.wsgi.plugins.plugin_utils import hold
from machine import APP, CHECK, PLAN, Machine, service

OLD, NEW, OTHER = "0" * 12, "1" * 12, "2" * 12
UV = Path(sys.executable).with_name("uv")
USER = pwd.getpwuid(os.geteuid()).pw_name
SECRET = "s3cret-of-the-index"  # what must not be shown
TIME = "2026-11-24T12:00:00Z"


@dataclass
class Shop(Machine):
    """A host, and the module on it."""

    capsys: Any = None

    def run(self, state: str, check: bool = False, **arguments: Any) -> dict[str, Any]:
        """Run the module; its result has `failed` when it failed."""
        self.capsys.readouterr()
        everything = {
            "app": APP, "root": str(self.root), "who": "you@laptop", "run": "this", "state": state,
            "user": APP, "uv": "/none/uv", "boot": "",
        }  # fmt: skip
        with patch_module_args({**everything, **arguments, "_ansible_check_mode": check}), pytest.raises(SystemExit):
            release.main()
        told: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return told

    def go_live(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Do the steps of a deploy from the start of a release on; give what the last one told."""
        for state in ("started", "live"):
            told = self.run(state, name=name, **arguments)
            if told.get("failed"):
                return told
        return self.run("retired", name=name, **arguments)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Shop]:
    """Give a host without a release."""
    made = Shop(tmp_path / "host", capsys=capsys)
    made.become_the_host(monkeypatch)
    monkeypatch.setattr(release, "now", lambda: TIME)
    mask = os.umask(0o022)
    yield made
    os.umask(mask)


@pytest.fixture
def deployed(machine: Shop) -> Shop:
    """Give a host on which OLD is live, and NEW is built."""
    machine.whole(OLD)
    machine.put_live(OLD)
    machine.whole(NEW)
    return machine


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Give an archive of a source, as the action plugin brings it."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "wsgi.py").write_text("application = print\n")
    (source / "requirements.txt").write_text("# nothing\n")
    return packed(source)


def packed(source: Path) -> Path:
    """Pack a directory."""
    path = source.with_suffix(".tar.gz")
    subprocess.run(["tar", "-czf", str(path), "-C", str(source), "."], check=True, timeout=30)
    return path


def build(machine: Machine, **changes: Any) -> dict[str, Any]:
    """Give the arguments of a build; `plan` is what differs from the usual one."""
    return {
        "name": NEW,
        "user": USER,
        "group": "web",
        "fetched": {"origin": "/source at main", "commit": "abc", "digest": "5e0ce", "archive": "/nowhere"},
        "files": {"socket": "[Socket]\n", "service": service(machine), "requirements.txt": "# nothing\n"},
        "requirements": ["requirements.txt"],
        "python": sys.executable,
        "uv": str(UV),
        "build_environment": {"UV_DEFAULT_INDEX": f"https://user:{SECRET}@index.example.org/simple"},
        **changes,
        "plan": PLAN | changes.get("plan", {}),
    }


def healthy(point: str, monkeypatch: pytest.MonkeyPatch, *, is_so: bool = True) -> list[tuple[Any, ...]]:
    """Let the probe of "workers" or of the "website" say so, or that it is not; give what it was asked."""
    asked: list[tuple[Any, ...]] = []

    def ask(*what: Any) -> None:
        asked.append(what)
        if not is_so:
            raise probe.Unhealthy("GET /up was answered by 500.")

    monkeypatch.setattr(probe, point, ask)
    return asked


def message(told: dict[str, Any]) -> list[str]:
    """Give the lines of the message of a failure."""
    assert told["failed"]
    return str(told["msg"]).splitlines()


# -- built ------------------------------------------------------------------------------------------------------------


def test_a_whole_release_is_not_built_again(machine: Shop) -> None:
    """What is whole is left alone, archive or not; as it is not live it is not settled."""
    path = machine.whole(NEW)
    before = machine.state()
    told = machine.run("built", **build(machine, archive="/nowhere"))
    assert (told["changed"], told["name"], told["path"]) == (False, NEW, str(path))
    assert (told["settled"], told["back"]) == (False, False)
    assert "needs_archive" not in told
    assert machine.state() == before
    assert machine.verbs() == []


@pytest.mark.parametrize(
    ("undo", "settled"),
    [
        (lambda _: None, True),
        (lambda machine: machine.mark("active", machine.unit_names(NEW)[:1], on=False), False),
        (lambda machine: machine.mark("active", machine.unit_names(NEW)[1:], on=False), False),
        (lambda machine: machine.mark("enabled", machine.unit_names(NEW)[:1], on=False), False),
        (lambda machine: machine.mark("enabled", machine.unit_names(NEW)[1:], on=False), False),
        (lambda machine: machine.put_up(OLD), False),
        (lambda machine: machine.put_live(NEW, OLD, warm=OLD), False),
        (lambda machine: (machine.put_up(OLD), machine.put_live(NEW, OLD, warm=OLD)), True),
        (lambda machine: machine.put_live(NEW, pending={"release": NEW, "previous": OLD, "forward": True}), False),
        (lambda machine: machine.put_live(OLD, NEW), False),
    ],
    ids=["settled", "socket", "service", "boot-socket", "boot-service", "left", "cold", "warm", "pending", "other"],
)
def test_nothing_to_do_is_nothing_done(machine: Shop, undo: Callable[[Machine], object], settled: bool) -> None:
    """Settled is what is live, up now and after a boot, confirmed, and with nothing beside it but a warm one."""
    machine.whole(OLD)
    machine.whole(NEW)
    machine.put_live(NEW, OLD)
    undo(machine)
    before = machine.state()
    assert machine.run("built", **build(machine))["settled"] is settled
    assert machine.state() == before


def test_check_mode_says_that_it_would_build(machine: Shop) -> None:
    """A dry run says so, asks for no archive, and leaves even what a killed build left."""
    machine.path(NEW).mkdir()
    (machine.path(NEW) / "rest").touch()
    before = machine.state()
    told = machine.run("built", check=True, **build(machine, archive="/nowhere"))
    assert told["changed"] is True
    assert "needs_archive" not in told
    assert machine.state() == before
    assert machine.calls == []


def test_the_source_is_asked_for_only_where_it_is_wanted(machine: Shop) -> None:
    """Without an archive nothing is built, and the action plugin is told to bring it."""
    told = machine.run("built", **build(machine))
    assert (told["changed"], told["needs_archive"]) == (True, True)
    assert machine.state() == []
    assert machine.calls == []


def test_a_release_is_built(machine: Shop, archive: Path) -> None:
    """It has the source, the files, an environment and the place of its socket; release.json comes last."""
    path = machine.path(NEW)
    early: list[list[str]] = []
    machine.watch = lambda command: early.append(command) if (path / "release.json").exists() else None
    (path / "app").mkdir(parents=True)
    (path / "app" / "left_by_a_killed_build.py").touch()
    told = machine.run("built", **build(machine, archive=str(archive)))
    assert (told["changed"], told.get("failed")) == (True, None), told
    assert sorted(os.listdir(path)) == ["app", "etc", "release.json", "uwsgi.sock", "venv"]
    assert sorted(os.listdir(path / "app")) == ["__pycache__", "requirements.txt", "wsgi.py"]
    wanted = ["environment", "plan.json", "requirements.txt", "secrets", "service", "socket"]
    assert sorted(os.listdir(path / "etc")) == wanted
    assert (path / "etc/service").read_text() == service(machine)
    assert json.loads((path / "etc/plan.json").read_text()) == PLAN
    assert os.readlink(path / "uwsgi.sock") == f"/run/{APP}/{NEW}.sock"
    facts = json.loads((path / "release.json").read_text())
    by = {"name": NEW, "source": "/source at main", "commit": "abc", "built": TIME, "by": "you@laptop"}
    assert facts == by
    assert early == []
    prefix = [str(path / "venv/bin/python"), "-c", "import sys; print(sys.prefix)"]
    assert subprocess.run(prefix, capture_output=True, text=True, check=True).stdout.strip() == str(path / "venv")
    assert machine.run("built", **build(machine))["changed"] is False


def test_what_has_not_changed_keeps_its_time(machine: Shop, archive: Path) -> None:
    """Whatever a hook did to it; what has changed, in size or not, and what is a link has a time of its own."""
    source, time = archive.with_suffix("").with_suffix(""), 1_000_000_000
    for name in ("same.css", "other.css", "new.css"):
        (source / name).write_text("body {}\n")
    (source / "link.css").symlink_to("same.css")
    live = machine.whole(OLD) / "app"
    machine.put_live(OLD)
    for name, text in (("same.css", "body {}\n"), ("other.css", "b0dy {}\n"), ("link.css", "body {}\n")):
        (live / name).write_text(text)
        os.utime(live / name, (time, time))
    plan = {"hooks": {"after_build": ["touch same.css"]}}
    assert "failed" not in machine.run("built", **build(machine, archive=str(packed(source)), plan=plan))
    app = machine.path(NEW) / "app"
    assert {path.name for path in app.glob("*.css") if path.lstat().st_mtime == time} == {"same.css"}


def test_what_a_release_has_is_open_to_read_and_closed_to_write(machine: Shop, archive: Path) -> None:
    """Whatever the umask of who deploys: everybody may read but the environment, nobody but root may write."""
    os.umask(0o077)
    told = machine.run("built", **build(machine, archive=str(archive)))
    assert "failed" not in told, told
    path = machine.path(NEW)
    for one in [path, *path.rglob("*")]:
        if one.name in {"environment", "secrets"}:
            assert one.stat().st_mode & 0o777 == 0o600, one
        elif not one.is_symlink():
            assert one.stat().st_mode & 0o022 == 0, one
            assert one.stat().st_mode & 0o004, one
    assert ["chown", "-R", "-h", "root:root", str(path)] in machine.calls


def test_an_environment_is_never_open(machine: Shop, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even between its making and its end: nobody could have opened it."""
    rename, seen = os.rename, dict[str, int]()

    def look(old: str, new: str) -> None:
        seen[os.path.basename(new)] = os.stat(old).st_mode & 0o777
        rename(old, new)

    monkeypatch.setattr(os, "rename", look)
    machine.run("built", **build(machine, archive=str(archive), environment={"A": "1"}, secrets={"B": "a-secret-of-2"}))
    assert (seen["environment"], seen["secrets"]) == (0o600, 0o600)
    assert seen["plan.json"] == 0o644
    assert (machine.path(NEW) / "etc/environment").read_text() == 'A="1"\n'
    assert (machine.path(NEW) / "etc/secrets").read_text() == 'B="a-secret-of-2"\n'


def test_code_of_packages_is_run_with_no_rights(machine: Shop, archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the app's user, who may write to the environment only: the units beside it are run by root."""
    path = machine.path(NEW)
    owned: list[str] = []

    def chown(where: str, user: str) -> None:
        assert user == USER
        owned.append(where)

    monkeypatch.setattr(shutil, "chown", chown)
    assert "failed" not in machine.run("built", **build(machine, archive=str(archive)))
    assert owned == [str(path / "venv")]
    calls = [call for call in machine.calls if str(UV) in call]
    assert [call[call.index(str(UV)) + 1] for call in calls] == ["venv", "pip", "pip"]
    for call in calls:
        for expected in (
            f"--property=User={USER}",
            "--property=ProtectSystem=strict",
            "--property=NoNewPrivileges=yes",
            f"--property=TemporaryFileSystem={machine.root}:ro",
            f"--property=BindReadOnlyPaths={path}",
            f"--property=BindPaths={path}/venv",
            "--setenv=UV_NO_CONFIG=1",
        ):
            assert expected in call
    # Nothing of the environment is run but by systemd-run.
    assert not [call for call in machine.calls if call[0].startswith(f"{path}/venv")]


def test_locks_are_installed_one_by_one_and_only_with_hashes(machine: Shop, archive: Path) -> None:
    """First the app's, then the app server's; without files there is no call."""
    machine.run("built", **build(machine, archive=str(archive)))
    path = machine.path(NEW)
    calls = [call for call in machine.calls if "pip" in call]
    files = [word for call in calls for word in call if word.endswith(".txt")]
    assert files == [f"{path}/app/requirements.txt", f"{path}/etc/requirements.txt"]
    assert all("--require-hashes" in call for call in calls)
    machine.calls.clear()
    units = {"socket": "[Socket]\n", "service": service(machine)}
    machine.run("built", **build(machine, name=OLD, archive=str(archive), requirements=[], files=units))
    assert not [call for call in machine.calls if "pip" in call]
    assert (machine.path(OLD) / "release.json").exists()


def test_secrets_of_a_build_are_not_shown(machine: Shop, archive: Path) -> None:
    """The index's password is in no command line, no property of a unit, which all on the host can read, no message."""
    read: list[str] = []
    given = f"--property=EnvironmentFile={machine.path(NEW)}/etc/build"

    def watch(call: list[str]) -> None:
        if given in call:
            read.append(given.partition("=")[2].partition("=")[2])
            assert Path(read[-1]).stat().st_mode & 0o777 == 0o600
            assert SECRET in Path(read[-1]).read_text()

    machine.watch = watch
    machine.fails["pip",] = (2, "", f"error: could not reach https://user:{SECRET}@index.example.org/simple/flask\n")
    told = machine.run("built", **build(machine, archive=str(archive)))
    assert told["failed"]
    assert SECRET not in json.dumps(told)
    assert "could not reach" in told["msg"]
    assert read
    assert SECRET not in str(machine.calls)
    machine.fails.clear()
    assert "failed" not in machine.run("built", **build(machine, archive=str(archive)))
    assert not Path(read[-1]).exists(), "a release does not keep it"


@pytest.mark.parametrize(
    ("fails", "step", "reason"),
    [
        (("tar",), "fetch", "`tar -xzf {archive}` ended with exit code 2."),
        (("venv", "--quiet"), "build", f"uv could not make an environment with {sys.executable}."),
        (("pip", "{app}"), "build", "uv could not install requirements.txt."),
        (("pip", "{etc}"), "build", "uv could not install the app server."),
        (("the hook",), "after_build", "the after_build hook `the hook` ended with exit code 2."),
        (("chown", "-R"), "after_build", "`chown -R -h` ended with exit code 2."),
        (("chmod",), "build", "`chmod -R go-w` ended with exit code 2."),
        ((CHECK,), "check", "importing the app ended with exit code 2."),
    ],
    ids=["fetch", "environment", "app", "server", "hook", "owner", "rights", "check"],
)
def test_a_failed_build_leaves_nothing(
    deployed: Shop, archive: Path, fails: tuple[str, ...], step: str, reason: str
) -> None:
    """The directory is gone, and the message names release, app, step, reason, what the process said and what stays."""
    shutil.rmtree(deployed.path(NEW))
    path = deployed.path(NEW)
    words = tuple(word.format(app=path / "app/requirements.txt", etc=path / "etc/requirements.txt") for word in fails)
    deployed.fails[words] = (2, "", "".join(f"line {number}\n" for number in range(1, 31)))
    plan = {"hooks": {"after_build": ["the hook"]}} if step == "after_build" else {}
    told = deployed.run("built", **build(deployed, archive=str(archive), plan=plan))
    assert (told["name"], told["step"]) == (NEW, step)
    assert message(told) == [
        f"Release {NEW} of {APP}, step {step}: {reason.format(archive=archive)}",
        *(f"line {number}" for number in range(6, 31)),
        f"{OLD} is live.",
    ]
    assert deployed.names() == [OLD]
    assert deployed.up() == set(deployed.unit_names(OLD))


def test_a_build_that_is_interrupted_leaves_nothing(machine: Shop, archive: Path) -> None:
    """Whatever the exception: nothing that is not whole stays."""

    def interrupt(command: list[str]) -> None:
        if "pip" in command:
            raise KeyboardInterrupt

    machine.watch = interrupt
    with pytest.raises(KeyboardInterrupt):
        machine.run("built", **build(machine, archive=str(archive)))
    assert machine.names() == []


def test_an_app_that_cannot_be_imported_is_refused(machine: Shop, tmp_path: Path) -> None:
    """With the traceback, and in the end with what is live; it was imported as the service would import it."""
    source = tmp_path / "broken"
    source.mkdir()
    (source / "wsgi.py").write_text("import shop_of_nobody\n")
    told = machine.run("built", **build(machine, archive=str(packed(source)), requirements=[]))
    first, *log, last = message(told)
    assert first == f"Release {NEW} of {APP}, step check: importing the app ended with exit code 1."
    assert log[0] == "Traceback (most recent call last):"
    assert log[-1] == "ModuleNotFoundError: No module named 'shop_of_nobody'"
    assert last == "No release is live."
    assert machine.names() == []
    call = machine.calls[-1]
    path = machine.path(NEW)
    for expected in (f"User={APP}", "ProtectSystem=strict", f"EnvironmentFile={path}/etc/secrets", "RuntimeMaxSec=30"):
        assert f"--property={expected}" in call
    assert not [word for word in call if word.startswith("--property=ReadWritePaths")]


@pytest.mark.parametrize("code", [0, 1])
def test_an_app_that_ends_the_process_is_refused(machine: Shop, tmp_path: Path, code: int) -> None:
    """Also with an exit code that would be called success: the check is over when it says so."""
    source = tmp_path / "broken"
    source.mkdir()
    (source / "wsgi.py").write_text(f"import sys\nsys.exit({code})\n")
    told = machine.run("built", **build(machine, archive=str(packed(source)), requirements=[]))
    first = f"Release {NEW} of {APP}, step check: importing the app ended with exit code {code}."
    assert message(told) == [first, "No release is live."]
    assert machine.names() == []


def test_an_app_that_hangs_is_refused(machine: Shop, archive: Path) -> None:
    """The message says how long it was waited for, and shows where it hung."""
    report = "Fatal Python error: Aborted\n\nCurrent thread 0x1 (most recent call first):\n  File wsgi.py, line 3\n"
    machine.fails[CHECK,] = (1, "", report)
    plan = {"start_timeout": 0}
    told = machine.run("built", **build(machine, archive=str(archive), plan=plan))
    first, *log, _ = message(told)
    assert first == f"Release {NEW} of {APP}, step check: importing the app did not end within 0 s."
    assert (log[0], log[-1]) == ("Fatal Python error: Aborted", "  File wsgi.py, line 3")


def test_a_hook_may_write_to_the_source(machine: Shop, archive: Path) -> None:
    """What it makes becomes part of the release, before all of it is root's and before the app is imported."""
    plan = {"hooks": {"after_build": ["echo made > made.txt", "cat made.txt >> twice.txt"]}}
    told = machine.run("built", **build(machine, archive=str(archive), plan=plan))
    assert "failed" not in told, told
    path = machine.path(NEW)
    assert (path / "app/twice.txt").read_text() == "made\n"
    words = ["echo made > made.txt", "cat made.txt >> twice.txt", "root:root", CHECK]
    order = [next(number for number, call in enumerate(machine.calls) if word in call) for word in words]
    assert order == sorted(order)
    hook = machine.calls[order[0]]
    assert f"--property=ReadWritePaths={path}/app" in hook
    assert f"--property=User={APP}" in hook
    assert f"--property=RuntimeMaxSec={PLAN['command_timeout']}" in hook


def test_a_source_that_does_not_compile_is_built(machine: Shop, archive: Path) -> None:
    """A file that nothing imports may be written for another Python."""
    machine.fails["compileall",] = (1, "SyntaxError", "")
    told = machine.run("built", **build(machine, archive=str(archive)))
    assert [call for call in machine.calls if "compileall" in call]
    assert "failed" not in told


def test_a_new_release_shows_how_its_files_differ(machine: Shop) -> None:
    """Against those of the live release: changed and new ones, not those that are the same, and no secrets."""
    machine.whole(OLD, service="[Service]\nold\n", socket="[Socket]\n", environment='A="1"\n', secrets='S="old"\n')
    machine.put_live(OLD)
    files = {"service": "[Service]\nnew\n", "socket": "[Socket]\n", "uwsgi.ini": "[uwsgi]\n"}
    inputs = build(machine, files=files, environment={"A": "2"}, secrets={"S": "new-secret"})
    told = machine.run("built", check=True, **inputs)
    assert [(one["before_header"], one["before"], one["after"]) for one in told["diff"]] == [
        ("environment (live release)", 'A="1"\n', 'A="2"\n'),
        ("service (live release)", "[Service]\nold\n", "[Service]\nnew\n"),
        ("uwsgi.ini (live release)", "", "[uwsgi]\n"),
    ]


@pytest.mark.parametrize("kind", ["other app", "file", "own", "none"])
def test_the_link_of_another_app_is_left_alone(machine: Shop, tmp_path: Path, kind: str) -> None:
    """Its visitors would be served by this app: that is refused, before anything is changed."""
    link = tmp_path / "uwsgi.sock"
    if kind == "other app":
        link.symlink_to("/srv/other/live/uwsgi.sock")
    elif kind == "file":
        link.touch()
    elif kind == "own":
        link.symlink_to(machine.link / "uwsgi.sock")
    told = machine.run("locked", link=str(link))
    if kind in {"own", "none"}:
        assert told["fifo"]
        return
    owner = "/srv/other/live/uwsgi.sock" if kind == "other app" else "something that Slipway did not make"
    reason = f"{link} belongs to another app ({owner}). Give this one an app_link of its own."
    assert message(told)[0] == f"{APP}, step check: {reason}"


def test_the_lock_says_whether_the_host_is_prepared(
    machine: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only if all is there as it is to be."""
    monkeypatch.setattr(release, "TMPFILES", str(tmp_path))
    monkeypatch.setattr(release, "OWNER", (os.getuid(), os.getgid()))
    uv, boot = tmp_path / "uv", tmp_path / f"slipway-{APP}.conf"
    wanted = {"user": pwd.getpwuid(os.getuid()).pw_name, "uv": str(uv), "boot": "L+ link\n"}
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")

    def prepared(**more: str) -> bool:
        told = [machine.run("locked", check=check, **wanted | more)["prepared"] for check in (True, False)]
        assert told[0] == told[1]
        return bool(told[0])

    assert not prepared()
    uv.touch(0o755)
    assert not prepared()
    boot.write_text("L+ link\n")
    boot.chmod(0o644)
    assert prepared()
    assert not prepared(boot="L+ another\n")
    assert not prepared(user="nobody-of-this-name")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert not prepared()


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the directory in which each app has one that belongs to its user, and another app in it."""
    path = tmp_path / "states"
    (path / "other").mkdir(parents=True)
    monkeypatch.setattr(release, "STATES", str(path))
    return path


def test_a_user_that_another_app_has_is_refused(machine: Shop, archive: Path, states: Path) -> None:
    """Each could read what the other has; nothing is built."""
    told = machine.run("built", **build(machine, archive=str(archive)))
    reason = f"the user {USER} is that of the app other (it owns {states}/other). Give this one an app_user of its own."
    assert message(told)[0] == f"Release {NEW} of {APP}, step check: {reason}"
    assert machine.names() == []


def test_the_own_user_is_not(machine: Shop, archive: Path, states: Path) -> None:
    """An app that was deployed before has a directory too."""
    (states / "other").rename(states / APP)
    assert "failed" not in machine.run("built", **build(machine, archive=str(archive)))


def test_nobody_but_the_web_server_enters(machine: Shop, archive: Path) -> None:
    """Other users and other apps do not even see which releases there are."""
    machine.run("built", **build(machine, archive=str(archive)))
    assert machine.root.stat().st_mode & 0o777 == 0o750
    assert ["chown", "root:web", str(machine.root)] in machine.calls


def test_shared_directories_are_made_once(machine: Shop, archive: Path) -> None:
    """They are the app's, for the web server to read, whatever the umask; in the release there is a place for each."""
    os.umask(0o077)
    shared = ["uploads", "data/media"]
    told = machine.run("built", **build(machine, archive=str(archive), shared=shared))
    assert "failed" not in told, told
    for directory in shared:
        place = machine.root / "shared" / directory
        assert place.stat().st_mode & 0o7777 == 0o2750
        assert place.parent.stat().st_mode & 0o777 == 0o755
        assert machine.calls.count(["chown", f"{USER}:web", str(place)]) == 1
        assert list((machine.path(NEW) / "app" / directory).iterdir()) == []
    (machine.root / "shared/uploads/picture").touch()
    again = build(machine, name=OLD, archive=str(archive), shared=shared)
    machine.run("built", **again)
    assert (machine.root / "shared/uploads/picture").exists()
    assert len([call for call in machine.calls if f"{machine.root}/shared" in call[-1]]) == len(shared)


def test_a_shared_directory_that_was_removed_is_made_again(machine: Shop) -> None:
    """Without it no release would start; a dry run only says so."""
    machine.whole(NEW)
    machine.put_live(NEW)
    again = build(machine, shared=["uploads"])
    for check, changed in ((True, True), (False, True), (False, False)):
        assert machine.run("built", check=check, **again)["changed"] is changed
        assert (machine.root / "shared/uploads").exists() is not check


def test_what_is_shared_outlives_every_release(switched: Shop) -> None:
    """Neither going live nor pruning touches it."""
    picture = switched.root / "shared/uploads/picture"
    picture.parent.mkdir(parents=True)
    picture.write_text("a picture")
    switched.go_live(OTHER, keep=2)
    assert picture.read_text() == "a picture"


# -- chosen, migrated -------------------------------------------------------------------------------------------------


def test_a_rollback_goes_to_the_one_before(machine: Shop) -> None:
    """Or to the one that was named; each host tells where it could go, the best first. Nothing is changed yet."""
    for name in (OTHER, OLD, NEW):
        machine.whole(name)
    machine.put_live(NEW, OTHER, OLD)
    before = machine.state()
    told = machine.run("chosen")
    assert (told["targets"], told["live"], told["good"], told["changed"]) == (
        [OLD, OTHER],
        NEW,
        [OLD, NEW, OTHER],
        False,
    )
    assert machine.run("chosen", to=OTHER)["targets"] == [OTHER]
    assert machine.run("chosen", check=True)["targets"] == [OLD, OTHER]
    assert machine.state() == before


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("", f"There is no good release before the live one ({OLD}). Other releases on this host: {NEW}. Name one"),
        (OTHER, f"Release {OTHER} is not on this host. Releases to go to: {NEW}."),
    ],
    ids=["none before", "missing"],
)
def test_a_rollback_that_leads_nowhere_is_refused(deployed: Shop, to: str, said: str) -> None:
    """In words that name what there is."""
    first, last = message(deployed.run("chosen", to=to))
    assert first.startswith(f"{APP}, step choose: {said}")
    assert last == f"{OLD} is live."


def with_plan(machine: Machine, name: str, **changes: Any) -> None:
    """Give a release another plan."""
    (machine.path(name) / "etc/plan.json").write_text(json.dumps(PLAN | changes))


def test_a_migration_is_run_as_the_app(deployed: Shop) -> None:
    """By the release's own command, with its user, sandbox and environment; in check mode it is only told."""
    with_plan(deployed, NEW, migrate="echo $PWD > ../../../../migrated")
    assert deployed.run("migrated", check=True, name=NEW)["changed"] is True
    assert deployed.calls == []
    assert deployed.run("migrated", name=NEW)["changed"] is True
    assert (deployed.base / "srv/migrated").read_text().strip() == str(deployed.path(NEW) / "app")
    assert f"--property=EnvironmentFile={deployed.path(NEW)}/etc/environment" in deployed.calls[-1]
    assert f"--property=RuntimeMaxSec={PLAN['command_timeout']}" in deployed.calls[-1]


def test_a_migration_that_fails_ends_the_deploy(deployed: Shop) -> None:
    """With what it said."""
    with_plan(deployed, NEW, migrate="echo no such table; exit 3")
    assert message(deployed.run("migrated", name=NEW)) == [
        f"Release {NEW} of {APP}, step migrate: the migration `echo no such table; exit 3` ended with exit code 3.",
        "no such table",
        f"{OLD} is live.",
    ]


def test_without_a_migration_nothing_is_run(deployed: Shop) -> None:
    """Nor is it called a change."""
    assert deployed.run("migrated", name=NEW)["changed"] is False
    assert deployed.calls == []


def test_check_mode_migrates_what_is_not_there(machine: Shop) -> None:
    """A dry run has built nothing: there is no plan to be read."""
    assert machine.run("migrated", check=True, name=NEW)["changed"] is True


# -- started ----------------------------------------------------------------------------------------------------------


def test_a_release_is_started_and_probed(deployed: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its units are installed, started and enabled, each worker is asked, the hooks are run; what is live stays."""
    asked = healthy("workers", monkeypatch)
    with_plan(deployed, NEW, hooks={"before_live": ["touch ../hooked"]})
    told = deployed.run("started", name=NEW)
    assert told["changed"] is True
    assert deployed.verbs() == ["start", "enable"]
    assert deployed.up() == set(deployed.unit_names(OLD, NEW))
    assert (deployed.units / f"{APP}@{NEW}.service").read_text() == service(deployed)
    assert (deployed.units / f"{APP}@{NEW}.socket").read_text() == f"socket of {NEW}\n"
    assert asked == [(f"/run/{APP}/{NEW}.sock", probe.Health(**PLAN["health"]), 2)]
    assert (deployed.path(NEW) / "hooked").exists()
    assert deployed.live() == OLD


def test_units_of_a_start_that_was_cut_off_are_read_again(deployed: Shop) -> None:
    """It may have left a part of one, and systemd may have read that."""
    (deployed.units / f"{APP}@{NEW}.service").write_text("[Uni")
    deployed.run("started", name=NEW)
    assert deployed.verbs() == ["daemon-reload", "start", "enable"]
    assert (deployed.units / f"{APP}@{NEW}.service").read_text() == service(deployed)


def test_units_that_systemd_knows_are_read_again(deployed: Shop) -> None:
    """A stop leaves what systemd does not forget by itself; the files are gone."""
    deployed.fails["show", "--property=LoadState"] = (0, "not-found\n\nloaded\n", "")
    deployed.run("started", name=NEW)
    assert deployed.verbs() == ["daemon-reload", "start", "enable"]


def test_check_mode_says_what_would_be_started(deployed: Shop) -> None:
    """A dry run says so and changes nothing, even where the release is not built yet."""
    before = deployed.state()
    assert deployed.run("started", check=True, name=NEW)["changed"] is True
    assert deployed.run("started", check=True, name=OTHER)["changed"] is True
    assert deployed.run("started", check=True, name=OLD)["changed"] is False
    assert deployed.state() == before
    assert deployed.verbs() == []


def test_a_warm_release_is_probed_and_not_started(deployed: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is up; whether it is healthy has to be asked."""
    deployed.put_up(NEW)
    asked = healthy("workers", monkeypatch)
    assert deployed.run("started", name=NEW)["changed"] is False
    assert deployed.verbs() == []
    assert len(asked) == 1


def test_what_is_live_and_up_is_left_alone(deployed: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is asked of systemd but how things are, and nothing of its workers."""
    asked, before = healthy("workers", monkeypatch, is_so=False), deployed.state()
    assert deployed.run("started", name=OLD)["changed"] is False
    assert (deployed.verbs(), asked, deployed.state()) == ([], [], before)


@pytest.mark.parametrize("live", [True, False])
@pytest.mark.parametrize("number", [0, 1], ids=["socket", "service"])
@pytest.mark.parametrize("what", ["active", "enabled"])
def test_what_is_not_wholly_up_is_mended(deployed: Shop, what: str, number: int, live: bool) -> None:
    """Each of the two units has to be up and has to come up at boot; a start or stop may have been cut off."""
    name = OLD if live else NEW
    deployed.put_up(name)
    deployed.mark(what, [deployed.unit_names(name)[number]], on=False)
    assert deployed.run("started", name=name)["changed"] is True
    assert deployed.up() == set(deployed.unit_names(*{OLD, name}))


@pytest.mark.parametrize("fails", ["start", "is-active"])
def test_a_release_that_does_not_start_is_refused(deployed: Shop, fails: str) -> None:
    """The message has release, step, reason, log and what stays live; nothing of the release runs on or stays."""
    units = deployed.unit_names(NEW)
    if fails == "start":
        deployed.fails["start", *units] = (1, "", "Job failed.\n")
    else:
        deployed.fails["is-active", f"{APP}@{NEW}.service"] = (3, "", "")
    deployed.fails["journalctl", f"--unit={APP}@{NEW}.service"] = (0, "Traceback\nImportError: no shop\n", "")
    told = deployed.run("started", name=NEW)
    assert message(told) == [
        f"Release {NEW} of {APP}, step start: its service did not start. The last lines of its journal:",
        "Traceback",
        "ImportError: no shop",
        f"{OLD} is live.",
    ]
    assert (told["name"], told["step"]) == (NEW, "start")
    assert deployed.live() == OLD
    assert deployed.up() == set(deployed.unit_names(OLD))
    journal = [call for call in deployed.calls if call[0] == "journalctl"]
    assert journal[0] == ["journalctl", "--sync"]
    assert ["systemctl", "reset-failed", *sorted(units)] in deployed.calls


@pytest.mark.parametrize("fails", ["enable", "copy"])
def test_a_start_that_breaks_off_leaves_nothing(deployed: Shop, fails: str) -> None:
    """Whatever fails between the first file and the last command, nothing of the release stays."""
    if fails == "enable":
        deployed.fails["enable",] = (1, "", "Failed to enable unit.\n")
    else:
        (deployed.path(NEW) / "etc/service").unlink()
    first, *_, last = message(deployed.run("started", name=NEW))
    assert first.startswith(f"Release {NEW} of {APP}, step start: ")
    assert last == f"{OLD} is live."
    assert deployed.up() == set(deployed.unit_names(OLD))


@pytest.mark.parametrize("there", [True, False])
def test_what_is_not_whole_is_not_started(machine: Shop, there: bool) -> None:
    """A release that was never built, or not to its end, is refused before systemd hears of it."""
    if there:
        (machine.whole(NEW) / "release.json").unlink()
    assert message(machine.run("started", name=NEW)) == [
        f"Release {NEW} of {APP}, step start: {machine.path(NEW)} is missing, or was not built to its end.",
        "No release is live.",
    ]
    assert machine.verbs() == []


def test_a_live_release_that_does_not_start_again_keeps_its_units(machine: Shop) -> None:
    """systemd goes on trying to mend what is live; to take its units away would end that."""
    machine.whole(NEW)
    machine.put_live(NEW)
    machine.mark("active", machine.unit_names(NEW), on=False)
    machine.fails["start",] = (1, "", "")
    assert message(machine.run("started", name=NEW))[-1] == f"{NEW} is live."
    assert set(os.listdir(machine.units)) == machine.marked("enabled") == set(machine.unit_names(NEW))


@pytest.mark.parametrize("warm", [True, False])
def test_a_release_whose_workers_are_ill_is_refused(
    deployed: Shop, monkeypatch: pytest.MonkeyPatch, warm: bool
) -> None:
    """With what the worker answered and the journal that tells why; it is stopped, and no longer warm if it was."""
    if warm:
        deployed.put_up(NEW)
        deployed.put_live(OLD, NEW, warm=NEW)
    healthy("workers", monkeypatch, is_so=False)
    deployed.fails["journalctl", f"--unit={APP}@{NEW}.service"] = (0, "KeyError: 'DATABASE'\n", "")
    told = deployed.run("started", name=NEW)
    assert message(told) == [
        f"Release {NEW} of {APP}, step probe: GET /up was answered by 500. The last lines of its journal:",
        "KeyError: 'DATABASE'",
        f"{OLD} is live.",
    ]
    assert deployed.up() == set(deployed.unit_names(OLD))
    assert not deployed.stored().get("warm")
    assert not deployed.stored().get("bad"), "it was never live"


def test_a_failing_hook_before_it_goes_live_refuses_the_release(deployed: Shop) -> None:
    """The ones after it are not run; the release is stopped."""
    with_plan(deployed, NEW, hooks={"before_live": ["echo no; exit 4", "touch ../second"]})
    assert message(deployed.run("started", name=NEW)) == [
        f"Release {NEW} of {APP}, step before_live: the before_live hook `echo no; exit 4` ended with exit code 4.",
        "no",
        f"{OLD} is live.",
    ]
    assert deployed.up() == set(deployed.unit_names(OLD))
    assert not (deployed.path(NEW) / "second").exists()


def test_secrets_are_kept_out_of_what_a_release_says(deployed: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """An app that writes its environment to the journal gives nothing away by it."""
    (deployed.path(NEW) / "etc/secrets").write_text('KEY="tell\\"nobody"\n')
    healthy("workers", monkeypatch, is_so=False)
    deployed.fails["journalctl", f"--unit={APP}@{NEW}.service"] = (0, 'KeyError: tell"nobody is no key\n', "")
    told = deployed.run("started", name=NEW)
    assert "is no key" in told["msg"]
    assert "nobody" not in json.dumps(told)


# -- live -------------------------------------------------------------------------------------------------------------


def test_a_release_goes_live(deployed: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The switch is noted, made, verified through the web server, and stays to be confirmed; the old one stays up."""
    deployed.put_up(NEW)
    asked = healthy("website", monkeypatch)
    with_plan(deployed, NEW, hooks={"after_live": ["readlink ../../../live > ../hooked"]})
    told = deployed.run("live", name=NEW, url="http://127.0.0.1", host="new.example.org")
    assert (told["changed"], told["previous"], told["path"]) == (True, OLD, str(deployed.path(NEW)))
    assert told["diff"] == {"before": f"live: {OLD}\n", "after": f"live: {NEW}\n"}
    assert 0 <= told["milliseconds"] < 10_000
    assert os.readlink(deployed.link) == f"releases/{NEW}"
    now = PLAN["health"] | {"host": "new.example.org"}  # whatever the site was called when the release was built
    assert asked == [("http://127.0.0.1/up", probe.Health(**now))]
    assert (deployed.path(NEW) / "hooked").read_text().strip() == f"releases/{NEW}"
    assert deployed.stored()["pending"] == {"release": NEW, "previous": OLD, "forward": True}
    assert deployed.up() == set(deployed.unit_names(OLD, NEW))
    assert deployed.verbs() == []


def test_without_an_address_nothing_is_asked(deployed: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no web server of Slipway's, the workers were asked."""
    deployed.put_up(NEW)
    asked = healthy("website", monkeypatch, is_so=False)
    assert "failed" not in deployed.run("live", name=NEW)
    assert asked == []


def test_what_is_live_does_not_go_live_again(deployed: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is done, and nothing asked."""
    asked, before = healthy("website", monkeypatch, is_so=False), deployed.state()
    told = deployed.run("live", name=OLD, url="http://127.0.0.1")
    assert (told["changed"], told["previous"]) == (False, OLD)
    assert (deployed.state(), asked) == (before, [])


def test_check_mode_says_what_would_go_live(deployed: Shop) -> None:
    """A dry run says so and changes nothing, on the disk and in systemd, even where the release is not built yet."""
    before = deployed.state()
    told = deployed.run("live", check=True, name=OTHER)
    assert told["changed"] is True
    assert told["diff"] == {"before": f"live: {OLD}\n", "after": f"live: {OTHER}\n"}
    assert deployed.state() == before
    assert deployed.calls == []


def test_a_switch_is_noted_before_it_is_made(deployed: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or nobody would know that there is something to undo."""
    noted: list[dict[str, Any]] = []
    monkeypatch.setattr(Host, "switch", lambda *_: noted.append(deployed.stored()["pending"]))
    deployed.run("live", name=NEW, forward=False)
    assert noted == [{"release": NEW, "previous": OLD, "forward": False}]
    assert deployed.live() == OLD


@pytest.mark.parametrize("old_is_up", [True, False])
@pytest.mark.parametrize("step", ["verify", "after_live"])
def test_what_goes_wrong_after_it_went_live_is_undone(
    deployed: Shop, monkeypatch: pytest.MonkeyPatch, step: str, old_is_up: bool
) -> None:
    """The previous release is live again, up whatever happened to it; this one is bad, and stopped."""
    deployed.put_up(NEW)
    if not old_is_up:
        deployed.mark("active", deployed.unit_names(OLD), on=False)
    healthy("website", monkeypatch, is_so=step != "verify")
    with_plan(deployed, NEW, hooks={"after_live": ["exit 5"]})
    deployed.fails["journalctl", f"--unit={APP}@{NEW}.service"] = (0, "KeyError: 'DATABASE'\n", "")
    told = deployed.run("live", name=NEW, url="http://127.0.0.1")
    reason = {
        "verify": "GET /up was answered by 500.",
        "after_live": "the after_live hook `exit 5` ended with exit code 5.",
    }
    first, *log, last = message(told)
    assert first.startswith(f"Release {NEW} of {APP}, step {step}: {reason[step]}")
    assert log == (["KeyError: 'DATABASE'"] if step == "verify" else [])
    assert last == f"{OLD} is live."
    assert deployed.live() == OLD
    assert deployed.up() == set(deployed.unit_names(OLD))
    stored = deployed.stored()
    assert stored["bad"] == {NEW: f"step {step}: {reason[step]}"}
    assert (stored["line"], stored["pending"]) == ([OLD], {})


def test_the_first_release_has_nothing_to_go_back_to(machine: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then none is live, and the message does not promise it."""
    machine.whole(NEW)
    machine.put_up(NEW)
    healthy("website", monkeypatch, is_so=False)
    told = machine.run("live", name=NEW, url="http://127.0.0.1")
    assert message(told)[-1] == "No release is live."
    assert not os.path.lexists(machine.link)
    assert machine.up() == set()
    assert list(machine.stored()["bad"]) == [NEW]


def watched(host: Host, name: str) -> list[tuple[str, ...]]:
    """Switch to a release; give where live, previous and earlier lead to after each of its system calls."""
    seen: list[tuple[str, ...]] = []

    def look(_frame: object, event: str, _argument: object) -> None:
        if event == "c_return":
            links = (host.link, host.previous, host.earlier)
            seen.append(tuple(os.path.basename(os.readlink(link)) if os.path.lexists(link) else "" for link in links))

    sys.setprofile(look)
    try:
        host.switch(name)
    finally:
        sys.setprofile(None)
    assert len(seen) > 3
    return seen


@pytest.mark.parametrize("first", [True, False])
def test_going_live_is_one_step(machine: Shop, first: bool) -> None:
    """Whatever the switch does, after each of its system calls the link is there and leads to a release."""
    machine.whole(NEW)
    for link in ("live", "previous"):
        (machine.root / f"{link}.new").symlink_to("what a killed switch left")
    if not first:
        machine.whole(OLD)
        machine.put_live(OLD)
    seen = [live for live, _, _ in watched(Host(APP, str(machine.root)), NEW)]
    assert seen == sorted(seen)
    assert set(seen) == {"" if first else OLD, NEW}
    assert not os.path.lexists(machine.root / "live.new")


def test_what_visitors_came_from_stays_in_reach(machine: Shop) -> None:
    """Deployed, gone back, deployed again: after each system call the three links lead to both releases."""
    for name in (OLD, NEW, OTHER):
        machine.whole(name)
    host = Host(APP, str(machine.root))
    assert set(watched(host, OLD)) == {("", "", ""), (OLD, "", "")}, "there was none before"
    for before, after in ((OLD, NEW), (NEW, OLD), (OLD, NEW), (NEW, OTHER), (OTHER, OLD)):
        seen = watched(host, after)
        missing = [links for links in seen if not {before, *({after} & set(seen[0][:2]))} <= set(links)]
        assert missing == [], f"from {before} to {after}"
        assert seen[-1][:2] == (after, before)


def test_a_link_that_is_no_link_is_no_traceback(machine: Shop) -> None:
    """A directory in the link's place ends the switch with a message that names it."""
    machine.whole(NEW)
    machine.link.mkdir()
    told = machine.run("live", name=NEW)
    assert message(told)[0].startswith(f"Release {NEW} of {APP}, step go live: ")
    assert str(machine.link) in told["msg"]


# -- retired ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def switched(deployed: Shop) -> Shop:
    """Give a host on which NEW went live after OLD, and is not confirmed."""
    deployed.put_up(NEW)
    deployed.run("live", name=NEW)
    deployed.calls.clear()
    return deployed


def test_what_is_live_is_confirmed(switched: Shop) -> None:
    """Before anything is stopped: what cannot be undone any more has to be for good."""
    pending: list[dict[str, Any]] = []
    switched.watch = lambda command: pending.append(switched.stored()["pending"]) if "stop" in command else None
    told = switched.run("retired", name=NEW)
    assert (told["changed"], told["pruned"]) == (True, [])
    assert pending == [{}, {}]
    stored = switched.stored()
    assert (stored["line"], stored["pending"], stored["warm"]) == ([OLD, NEW], {}, "")
    assert stored["lived"][NEW] == {"at": TIME, "by": "you@laptop"}
    assert switched.up() == set(switched.unit_names(NEW))
    assert switched.verbs() == ["disable", "stop", "stop", "reset-failed"]
    assert switched.run("retired", name=NEW)["changed"] is False


def test_the_release_before_may_stay_warm(switched: Shop) -> None:
    """It stays up, until it is not wanted any more."""
    assert switched.run("retired", name=NEW, warm=True)["changed"] is True
    assert switched.stored()["warm"] == OLD
    assert switched.up() == set(switched.unit_names(OLD, NEW))
    assert switched.verbs() == []
    assert switched.run("retired", name=NEW, warm=True)["changed"] is False
    assert switched.run("retired", name=NEW, warm=False)["changed"] is True
    assert switched.stored()["warm"] == ""
    assert switched.up() == set(switched.unit_names(NEW))


def test_only_one_release_is_warm(switched: Shop) -> None:
    """The one that was live before; one that was warm until now is stopped, and what is down is not warm."""
    switched.run("retired", name=NEW, warm=True)
    switched.whole(OTHER)
    assert "failed" not in switched.go_live(OTHER, warm=True)
    assert switched.up() == set(switched.unit_names(NEW, OTHER))
    assert switched.stored()["warm"] == NEW
    switched.mark("active", switched.unit_names(NEW), on=False)
    switched.run("retired", name=OTHER, warm=True)
    assert switched.stored()["warm"] == ""
    assert switched.up() == set(switched.unit_names(OTHER))


def test_only_what_is_live_retires_others(deployed: Shop) -> None:
    """If another release is live by now, nothing is stopped."""
    before = deployed.state()
    told = deployed.run("retired", name=NEW)
    expected = f"Release {NEW} of {APP}, step retire: it is not live any more, so nothing is retired."
    assert message(told) == [expected, f"{OLD} is live."]
    assert deployed.state() == before


def test_check_mode_retires_nothing(switched: Shop) -> None:
    """A dry run has put nothing live."""
    before = switched.state()
    assert switched.run("retired", check=True, name=OTHER)["changed"] is False
    assert switched.state() == before


def test_the_most_recent_releases_stay(machine: Shop) -> None:
    """Going live makes a release the most recent, also one that is old: the oldest of the others go."""
    for number, name in enumerate("abcdef"):
        machine.whole(name * 12, built=f"2026-11-24T10:0{number}:00Z")
    machine.put_live("f" * 12, "a" * 12)
    told = machine.go_live("a" * 12, keep=3)
    assert told["pruned"] == ["b" * 12, "c" * 12, "d" * 12]
    assert machine.names() == ["a" * 12, "e" * 12, "f" * 12]


def test_a_clock_that_was_wrong_costs_no_live_release(machine: Shop) -> None:
    """Releases of a time to come are more recent than the one that goes live now, which stays all the same."""
    for name in "bc":
        machine.whole(name * 12, built="2126-11-24T10:00:00Z")
    machine.whole(NEW)
    machine.go_live(NEW, keep=2)
    assert NEW in machine.names()


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_the_live_release_and_the_one_before_always_stay(machine: Shop, keep: int) -> None:
    """Releases that were built later and did not start do not push out the one that is known to work."""
    machine.whole(OLD, built="2026-11-24T01:00:00Z")
    machine.put_live(OLD)
    for number, name in enumerate("bcde"):
        machine.whole(name * 12, built=f"2026-11-24T10:0{number}:00Z")
    machine.whole(NEW, built="2026-11-24T02:00:00Z")
    machine.go_live(NEW, keep=keep)
    assert {OLD, NEW} <= set(machine.names())
    assert len(machine.names()) == max(keep, 2)


def test_what_was_pruned_is_forgotten(machine: Shop) -> None:
    """It can be built again and is judged anew."""
    for name in ("a" * 12, "b" * 12, OLD, NEW):
        machine.whole(name)
    machine.put_live(OLD, "a" * 12, bad={"b" * 12: "step verify: 500"}, lived={"a" * 12: {"at": TIME, "by": "you"}})
    machine.go_live(NEW, keep=2)
    stored = machine.stored()
    assert (stored["line"], stored["bad"], list(stored["lived"])) == ([OLD, NEW], {}, [NEW])


def test_what_was_not_built_to_its_end_goes(switched: Shop) -> None:
    """A build that was killed leaves a directory; nothing ever runs from it."""
    (switched.path(OTHER) / "app").mkdir(parents=True)
    (switched.path(OTHER) / "app" / "wsgi.py").touch()
    told = switched.run("retired", name=NEW)
    assert (told["changed"], told["pruned"]) == (True, [])
    assert switched.names() == [OLD, NEW]


def test_a_release_that_is_being_removed_is_not_whole(switched: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """If that is cut off, nobody may take the rest of it for a release."""
    switched.whole(OTHER, built="2026-11-24T01:00:00Z")
    whole: list[bool] = []
    remove = shutil.rmtree

    def look(path: str) -> None:
        whole.append(os.path.exists(os.path.join(path, "release.json")))
        remove(path)

    monkeypatch.setattr(shutil, "rmtree", look)
    assert switched.run("retired", name=NEW, keep=2)["pruned"] == [OTHER]
    assert whole == [False]


def test_others_are_stopped_also_after_a_cut_off_start(switched: Shop) -> None:
    """A release of which only one unit is installed is no obstacle."""
    switched.whole(OTHER)
    (switched.units / f"{APP}@{OTHER}.socket").touch()
    told = switched.run("retired", name=NEW)
    assert "failed" not in told, told
    assert switched.up() == set(switched.unit_names(NEW))


def test_units_of_other_apps_are_left_alone(switched: Shop) -> None:
    """Also where the name of the app is a part of theirs."""
    others = [f"{APP}-admin@{OLD}.service", f"my{APP}@{OLD}.service", f"{APP}@.service.d", f"{APP}.service"]
    for unit in others:
        (switched.units / unit).touch()
    switched.run("retired", name=NEW)
    assert set(os.listdir(switched.units)) == {*others, *switched.unit_names(NEW)}


WAITS = "u_str LISTEN 3 4096 /run/shop/0.sock 4711 * 0\n"
EMPTY = "u_str LISTEN 0 4096 /run/shop/0.sock 4711 * 0\n"
STOP = ["systemctl", "stop", f"{APP}@{OLD}.service"]


def drained(machine: Shop, *looks: str) -> tuple[list[list[str]], dict[str, Any]]:
    """Retire OLD while `ss` sees this in its queue; give the calls from the first look on, and what was told."""
    machine.queue.extend(looks)
    told = machine.run("retired", name=NEW)
    first = next(index for index, call in enumerate(machine.calls) if call[0] == "ss")
    return [call for call in machine.calls[first:] if call[0] == "ss" or call[1] in {"start", "stop"}], told


def test_the_old_release_is_not_stopped_while_requests_wait(switched: Shop) -> None:
    """Its service is stopped after three looks in a row at an empty queue, and its socket only after one more."""
    calls, _ = drained(switched, WAITS, EMPTY, WAITS, EMPTY, EMPTY, EMPTY, EMPTY)
    looks = [call[0] == "ss" for call in calls]
    assert calls.index(STOP) == 6
    assert looks[:9] == [*[True] * 6, False, True, True]
    assert calls[9] == ["systemctl", "stop", f"{APP}@{OLD}.service", f"{APP}@{OLD}.socket"]


def test_who_comes_while_the_old_service_stops_is_served(switched: Shop) -> None:
    """It is started again for them, and stopped when they have been served."""
    calls, _ = drained(switched, EMPTY, EMPTY, EMPTY, WAITS, WAITS, EMPTY, EMPTY, EMPTY)
    changes = [call[1] for call in calls if call[0] == "systemctl"]
    assert changes == ["stop", "start", "stop", "stop"]


def test_a_release_that_serves_nobody_is_stopped_in_the_end(switched: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its queue is waited for no longer than its service may take to stop; then a warning says how many were lost."""
    monkeypatch.setattr(host_module, "timespan", lambda text: 0.1 if text == "1min 10s\n" else 0)
    monkeypatch.setattr(host_module, "LOOK_SECONDS", 0.01)
    warnings: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _, text: warnings.append(text))
    calls, told = drained(switched, *[WAITS] * 1000)
    assert [call[1] for call in calls if call[0] == "systemctl"] == ["stop"]
    assert [text for text in warnings if "3 connections waiting" in text]
    assert told["changed"] is True


def test_a_release_that_is_not_up_is_not_waited_for(switched: Shop) -> None:
    """Nobody would take what waits for a service that is down."""
    switched.fails["is-active", f"{APP}@{OLD}.service"] = (3, "", "")
    calls, _ = drained(switched, EMPTY)
    assert [call[0] for call in calls] == ["ss", "systemctl"]


# -- locked, and what is left of a run that ended ---------------------------------------------------------------------


def test_the_lock_is_taken(machine: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """For this app and run, with what is to be done if it ends too soon; check mode takes none."""
    held: list[tuple[Any, ...]] = []

    def hold_it(*what: Any) -> str:
        held.append(what)
        return "/run/slipway/shop.fifo"

    monkeypatch.setattr(lock, "hold", hold_it)
    assert "fifo" not in machine.run("locked", check=True)
    assert held == []
    assert machine.run("locked")["fifo"] == "/run/slipway/shop.fifo"
    assert [what[:3] for what in held] == [(APP, "you@laptop", "this")]
    machine.whole(OLD)
    machine.whole(NEW)
    machine.put_up(OLD)
    machine.put_live(NEW, OLD, pending={"release": NEW, "previous": OLD, "forward": True})
    held[0][3]()
    assert machine.live() == OLD


@pytest.mark.parametrize("error", [lock.Held("another deploys it", "x", "y"), lock.Lost("it is lost")])
@pytest.mark.parametrize("state", ["built", "migrated", "started", "live", "retired"])
def test_without_the_lock_nothing_is_done(
    deployed: Shop, monkeypatch: pytest.MonkeyPatch, state: str, error: Exception
) -> None:
    """No step that changes something begins; a dry run needs no lock."""

    def check(*_: object) -> None:
        raise error

    monkeypatch.setattr(lock, "check", check)
    arguments = build(deployed) if state == "built" else {"name": NEW}
    before = deployed.state()
    first, last = message(deployed.run(state, **arguments))
    assert first.startswith(f"Release {NEW} of {APP}")
    assert first.endswith(str(error))
    assert last == f"{OLD} is live."
    assert (deployed.calls, deployed.state()) == ([], before)
    assert "failed" not in deployed.run(state, check=True, **arguments)


def test_a_switch_that_nobody_undid_is_taken_as_good(switched: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the host went down with it, visitors have been served by it since; a warning says so."""
    warnings: list[str] = []
    monkeypatch.setattr(AnsibleModule, "warn", lambda _, text: warnings.append(text))
    before = switched.state()
    switched.run("locked", check=True)
    assert switched.state() == before
    switched.run("locked")
    assert warnings == [f"Release {NEW} went live and was not confirmed. It is taken as good."]
    stored = switched.stored()
    assert (stored["line"], stored["pending"]) == ([OLD, NEW], {})
    assert switched.live() == NEW
    assert switched.up() == set(switched.unit_names(OLD, NEW)), "to stop the old one is left to a whole deploy"


def test_a_switch_that_was_not_made_is_given_up(deployed: Shop) -> None:
    """It was noted and no more: the release is not gone back to, what is live stays."""
    deployed.put_live(OLD, pending={"release": NEW, "previous": OLD, "forward": True})
    deployed.run("locked")
    stored = deployed.stored()
    assert (stored["line"], stored["pending"]) == ([OLD], {})
    assert stored["bad"] == {NEW: "its deploy was cut off before it went live"}
    assert deployed.live() == OLD


def test_an_unconfirmed_switch_is_undone(switched: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """When ansible-playbook has ended, what nobody confirmed goes back; the host's log tells of it. Twice is once."""
    told: list[str] = []
    monkeypatch.setattr(syslog, "syslog", lambda _, words: told.append(words))
    release.undo_unconfirmed(APP, str(switched.root))
    release.undo_unconfirmed(APP, str(switched.root))
    assert told == [f"Release {NEW} of {APP} was undone: nobody confirmed it. {OLD} is live."]
    assert switched.live() == OLD
    assert switched.up() == set(switched.unit_names(OLD))
    assert "ansible-playbook ended" in switched.stored()["bad"][NEW]


def test_what_is_confirmed_is_not_undone(switched: Shop) -> None:
    """The end of ansible-playbook after a whole deploy changes nothing."""
    switched.run("retired", name=NEW)
    before = switched.state()
    release.undo_unconfirmed(APP, str(switched.root))
    assert switched.state() == before


def test_the_first_release_is_undone_too(machine: Shop) -> None:
    """Then none is live."""
    machine.whole(NEW)
    machine.put_up(NEW)
    machine.run("live", name=NEW)
    release.undo_unconfirmed(APP, str(machine.root))
    assert machine.live() == ""
    assert machine.up() == set()


# -- the controller's side --------------------------------------------------------------------------------------------


@dataclass
class Controller:
    """The action plugin, with a connection that copies files on this machine."""

    machine: Shop
    base: Path
    executed: list[dict[str, Any]] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    check: bool = False

    @property
    def source(self) -> Path:
        """The directory that is deployed."""
        return self.base / "controller"

    def run(self, state: str, **arguments: Any) -> dict[str, Any]:
        """Run the action plugin with these arguments."""
        task = SimpleNamespace(
            action="slipway.wsgi.release",
            args={"state": state, **arguments},
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
            return self.machine.run(check=self.check, **module_args)

        def transfer(local: str, there: str) -> str:
            self.sent.append(local)
            return str(shutil.copy(local, there))

        plugin._execute_module = execute
        plugin._make_tmp_path = make
        plugin._transfer_file = transfer
        plugin._remove_tmp_path = remove
        told: dict[str, Any] = plugin.run(None, {})
        return told

    def deploy(self, **changes: Any) -> dict[str, Any]:
        """Fetch the source and build it, as the role does."""
        fetched = self.run("fetched", source=str(self.source), requirements=changes.get("requirements"))
        given = build(self.machine, app=APP, root=str(self.machine.root), **changes)
        given = {name: value for name, value in given.items() if name != "name"}
        return self.run("built", **given | {"fetched": fetched})

    def left(self) -> list[Path]:
        """Give what is still on the host of what was sent."""
        return list(self.base.glob("remote-*"))


@pytest.fixture
def controller(machine: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Controller:
    """Give a controller with a source."""
    made = Controller(machine, tmp_path)
    made.source.mkdir()
    (made.source / "wsgi.py").write_text("application = print\n")
    (made.source / "requirements.txt").write_text("")
    (tmp_path / "workspace").mkdir()
    monkeypatch.setattr(constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "workspace"))
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    return made


def test_the_source_is_sent_once(controller: Controller) -> None:
    """Only a host that has not got the release is sent the source, and nothing of the sending stays there."""
    first = controller.deploy()
    assert first["changed"] is True, first
    assert "needs_archive" not in first
    assert len(controller.sent) == 1
    assert controller.left() == []
    path = Path(first["path"])
    assert path.name == first["name"]
    assert (path / "app/wsgi.py").read_text() == "application = print\n"
    facts = json.loads((path / "release.json").read_text())
    assert facts["source"] == str(controller.source)
    assert facts["by"] == controller.executed[-1]["who"]
    second = controller.deploy()
    assert (second["changed"], second["name"]) == (False, first["name"])
    assert len(controller.sent) == 1


def test_a_dry_run_sends_nothing(controller: Controller) -> None:
    """It says that a release would be built, and which."""
    controller.check = True
    told = controller.deploy()
    assert told["changed"] is True
    assert len(told["name"]) == 12
    assert controller.sent == []
    assert controller.machine.state() == []


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"service": "[Service]\n#\n"}},
        {"requirements": []},
        {"python": "/usr/bin/python3"},
        {"environment": {"COLOUR": "blue"}},
        {"secrets": {"KEY": "s3cret-of-the-app"}},
        {"plan": {"migrate": "flask db upgrade"}},
    ],
    ids=str,
)
def test_each_input_makes_another_release(controller: Controller, change: dict[str, Any]) -> None:
    """What a release is made of is in its name; how its packages are fetched is not."""
    controller.check = True
    name = controller.deploy()["name"]
    assert controller.deploy(**change)["name"] != name
    assert controller.deploy(build_environment={}, uv="/elsewhere/uv", link="/run/other.sock")["name"] == name
    (controller.source / "wsgi.py").write_text("application = repr\n")
    assert controller.deploy()["name"] != name


def test_variables_are_texts(controller: Controller) -> None:
    """Numbers and truths of YAML reach the app as people write them."""
    controller.deploy(environment={"A": 1, "B": True, "C": None, "D": "x", "E": 1.5}, secrets={"S": 12345678})
    assert controller.executed[-1]["environment"] == {"A": "1", "B": "true", "C": "", "D": "x", "E": "1.5"}
    assert controller.executed[-1]["secrets"] == {"S": "12345678"}


def test_a_failed_build_leaves_no_archive(controller: Controller) -> None:
    """Not on the host, whether it says so or the connection breaks."""
    controller.machine.fails["tar",] = (2, "", "broken\n")
    assert controller.deploy()["failed"]
    assert len(controller.sent) == 1
    assert controller.left() == []

    def broken(command: list[str]) -> None:
        raise AnsibleConnectionFailure("broken")

    controller.machine.watch = broken
    with pytest.raises(AnsibleConnectionFailure):
        controller.deploy()
    assert len(controller.sent) == 2
    assert controller.left() == []


@pytest.mark.parametrize(
    ("needs", "said"),
    [
        (["requirements.txt", "more.txt"], "{source}/more.txt is not there, but the release needs it."),
        (["secret.txt"], "{source}/secret.txt is ignored by git, so it is no part of the source, but the release"),
    ],
)
@pytest.mark.parametrize("state", ["checked", "fetched"])
def test_a_source_that_lacks_what_is_needed_is_refused(
    controller: Controller, state: str, needs: list[str], said: str
) -> None:
    """Before the host is asked for anything, with the reason."""
    (controller.source / "secret.txt").touch()
    (controller.source / ".gitignore").write_text("secret.txt\n")
    subprocess.run(["git", "init", "-q", str(controller.source)], check=True, timeout=30)
    with pytest.raises(AnsibleActionFail) as failure:
        controller.run(state, source=str(controller.source), needs=needs)
    assert said.format(source=controller.source) in str(failure.value)
    assert controller.executed == []


@pytest.mark.parametrize("state", ["checked", "fetched"])
def test_a_source_that_would_be_hidden_is_refused(controller: Controller, state: str) -> None:
    """A file at the place of a shared directory: the host is not asked for anything."""
    with pytest.raises(AnsibleActionFail, match=r"The source has wsgi\.py, and wsgi\.py is a shared directory"):
        controller.run(state, source=str(controller.source), shared=["wsgi.py"])
    assert controller.executed == []


def test_a_source_that_is_fine_is_not_sent(controller: Controller) -> None:
    """`checked` looks at the source and leaves the host alone."""
    told = controller.run("checked", source=str(controller.source), needs=["requirements.txt"])
    assert not told.get("changed")
    assert (controller.executed, controller.sent, controller.left()) == ([], [], [])


def test_going_live_is_left_to_the_host(controller: Controller) -> None:
    """The plugin passes on what it is given, who deploys and which run it is, and the host's answer back."""
    controller.machine.whole(NEW)
    controller.machine.put_up(NEW)
    where = {"app": APP, "root": str(controller.machine.root), "name": NEW}
    told = controller.run("live", **where)
    assert (told["changed"], told["name"], told["previous"]) == (True, NEW, "")
    assert controller.run("retired", **where)["changed"] is True
    first, second = controller.executed
    assert first["who"].startswith(f"{USER}@")
    assert first["run"] == second["run"]
    assert str(os.getppid()) in first["run"]


@pytest.mark.parametrize("check", [True, False])
def test_the_lock_is_tied_to_the_run(controller: Controller, monkeypatch: pytest.MonkeyPatch, check: bool) -> None:
    """By what the host said it listens at; in check mode there is no lock."""
    tied: list[tuple[Any, ...]] = []
    monkeypatch.setattr(hold, "keep_alive", lambda *what: tied.append(what))
    controller.check = check
    controller.run("locked", app=APP, root=str(controller.machine.root))
    assert [what[-1] for what in tied] == ([] if check else ["/run/slipway/shop.fifo"])


# -- arguments --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("built", "state is built but all of the following are missing: fetched, "),
        ("migrated", "state is migrated but all of the following are missing: name"),
        ("started", "state is started but all of the following are missing: name"),
        ("live", "state is live but all of the following are missing: name"),
        ("retired", "state is retired but all of the following are missing: name"),
        ("gone", "value of state must be one of: checked, locked, fetched, built, chosen, migrated, started, live, "),
    ],
)
def test_arguments_that_are_missing_are_named(machine: Shop, state: str, said: str) -> None:
    """Ansible's own check says so before anything is done."""
    told = machine.run(state)
    assert told["failed"]
    assert said in told["msg"]
    assert machine.calls == []
