"""A host of the test's own: directories for what a host has, and the part of systemd that Slipway speaks to.

What there is and what is up is in files, so that a process that is killed leaves what a killed process leaves.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.slipway.wsgi.plugins.module_utils import host, lock, probe

APP = "shop"
KINDS = ("socket", "service")
# Exit code, output, error output.
Answer = tuple[int, str, str]
# Imports the app, and ends with a code that an app which ends the process does not have.
CHECK = "import sys, wsgi; sys.exit(99)"
PLAN: dict[str, Any] = {
    "check": ["python", "-c", CHECK],
    "check_exit_code": 99,
    "workers": 2,
    "health": {"path": "/up", "status": [200], "attempts": 1, "timeout": 2, "host": "localhost"},
    "start_timeout": 30,
    "command_timeout": 20,
    "hooks": {},
    "migrate": "",
}


@dataclass
class Machine:
    """A host; with `real`, what needs no rights is run for real: tar, uv, python, hooks.

    Attributes:
        base: an empty directory.
        real: whether commands that are not systemd's are run; without, they succeed and do nothing.
        calls: the commands that were run, also those that failed.
        fails: {words of a command: its answer}, for what fails.
        queue: what `ss` answers, look by look; nothing once it is used up.
        watch: called with each command before it is run.
    """

    base: Path
    real: bool = True
    calls: list[list[str]] = field(default_factory=list)
    fails: dict[tuple[str, ...], Answer] = field(default_factory=dict)
    queue: list[str] = field(default_factory=list)
    watch: Callable[[list[str]], object] = len

    def __post_init__(self) -> None:
        """Make the directories of a host without a release."""
        for directory in (self.root / "releases", self.units, self.base / "active", self.base / "enabled"):
            directory.mkdir(parents=True)

    def become_the_host(self, patch: pytest.MonkeyPatch) -> None:
        """Let the code under test run on this host and not on the one that runs the test; nobody has the lock."""
        patch.setattr(host, "UNITS", str(self.units))
        patch.setattr(host.Host, "_call", staticmethod(self.call))
        patch.setattr(host, "LOOK_SECONDS", 0.0)
        for name in ("check", "hold", "busy"):
            patch.setattr(lock, name, getattr(Unlocked, name))
        for name in ("workers", "website"):
            patch.setattr(probe, name, lambda *_: None)
        patch.setattr(probe, "waiting", self._waiting)

    @property
    def root(self) -> Path:
        """The app's directory."""
        return self.base / "srv" / APP

    @property
    def units(self) -> Path:
        """What /etc/systemd/system is on a host."""
        return self.base / "units"

    @property
    def link(self) -> Path:
        """What decides which release is live."""
        return self.root / "live"

    def path(self, name: str) -> Path:
        """Return the directory of a release."""
        return self.root / "releases" / name

    def names(self) -> list[str]:
        """Return what there is beside the releases, and the releases."""
        return sorted(os.listdir(self.root / "releases"))

    def stored(self) -> dict[str, Any]:
        """Return what state.json says, {} if there is none."""
        path = self.root / "state.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return found

    # -- systemd ------------------------------------------------------------------------------------------------------

    def marked(self, what: str) -> set[str]:
        """Return the units that are "active" or "enabled"."""
        return set(os.listdir(self.base / what))

    def mark(self, what: str, units: Sequence[str], on: bool = True) -> None:
        """Let units be "active" or "enabled", or not."""
        for unit in units:
            path = self.base / what / unit
            path.touch() if on else path.unlink(missing_ok=True)

    def up(self) -> set[str]:
        """Return the units that are up; fails unless these are installed and enabled as well, and no others are."""
        installed = set(os.listdir(self.units))
        assert installed == self.marked("active") == self.marked("enabled")
        return installed

    def reboot(self) -> None:
        """Let the host start again: the units that are enabled are up, and no others."""
        self.mark("active", sorted(self.marked("active")), on=False)
        self.mark("active", sorted(self.marked("enabled") & set(os.listdir(self.units))))

    def call(self, command: Sequence[str]) -> Any:
        """Answer a command, as Host._call does."""
        self.calls.append(list(command))
        self.watch(list(command))
        code, output, error = self._answer(list(command))
        return subprocess.CompletedProcess(command, code, output, error)

    def _waiting(self, socket_path: str) -> int:
        """Answer as probe.waiting does."""
        line = self.call(["ss", socket_path]).stdout.split()
        return int(line[2]) if line else 0

    def _answer(self, command: list[str]) -> Answer:
        for words, answer in self.fails.items():
            if set(words) <= set(command):
                return answer
        if command[0] == "systemctl":
            return self._systemctl(command)
        if command[0] == "ss":
            return 0, self.queue.pop(0) if self.queue else "", ""
        if command[0] in {"chown", "journalctl"} or not self.real:
            return 0, "", ""
        where, environment = None, {}
        if command[0] == "systemd-run":
            sets = [word.partition("=")[2] for word in command if word.startswith("--setenv=")]
            environment = {key: value for key, _, value in (word.partition("=") for word in sets)}
            environment["UV_CACHE_DIR"] = str(self.base / "cache")
            where = next(word.rpartition("=")[2] for word in command if word.startswith("--property=WorkingDirectory="))
            while command[0] == "systemd-run" or command[0].startswith("--"):
                command = command[1:]
            command = [word.replace("$$", "$") for word in command]
        done = subprocess.run(
            command, env={**os.environ, **environment}, cwd=where, capture_output=True, text=True, check=False,
            timeout=60,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def _systemctl(self, command: list[str]) -> Answer:
        """Do what systemctl does with units whose files are there, and refuse the others as it does."""
        verb, units = command[1], [word for word in command[2:] if not word.startswith("-")]
        if verb == "daemon-reload":
            return 0, "", ""
        if verb == "show" and "--property=LoadState" in command:
            states = ["loaded" if (self.units / unit).exists() else "not-found" for unit in units]
            return 0, "\n\n".join(states) + "\n", ""
        if verb == "show":
            return 0, "1min 10s\n", ""
        if not units:
            return 1, "", "Too few arguments."
        if verb in {"is-active", "is-enabled"}:
            found = self.marked("active" if verb == "is-active" else "enabled")
            return (0 if found & set(units) else 3), "", ""  # one of them is enough, systemctl(1)
        missing = [unit for unit in units if not (self.units / unit).exists()]
        if missing and verb != "reset-failed":
            return 5, "", f"Unit {missing[0]} not found."
        if verb in {"start", "stop"}:
            self.mark("active", units, on=verb == "start")
        if verb in {"enable", "disable"}:
            self.mark("enabled", units, on=verb == "enable")
        return 0, "", ""

    def verbs(self) -> list[str]:
        """Return what systemctl was asked to change, in order."""
        return [call[1] for call in self.calls if call[0] == "systemctl" and not call[1].startswith(("is-", "show"))]

    # -- releases -----------------------------------------------------------------------------------------------------

    def whole(self, name: str, built: str = "2026-11-24T10:00:00Z", **files: str) -> Path:
        """Put a release there that was built to its end.

        Args:
            name: the release.
            built: when, UTC in ISO 8601.
            files: what is in etc beside the defaults; `_` stands for a dot in a name.
        """
        path = self.path(name)
        (path / "etc").mkdir(parents=True)
        (path / "app").mkdir()
        texts = {"socket": f"socket of {name}\n", "service": service(self), "environment": "", "secrets": ""}
        texts |= {
            "plan.json": json.dumps(PLAN, indent=2, sort_keys=True) + "\n",
            **{file.replace("_", "."): text for file, text in files.items()},
        }
        for file, text in texts.items():
            (path / "etc" / file).write_text(text)
        facts = {"name": name, "source": "/source", "commit": "", "built": built, "by": "you@laptop"}
        (path / "release.json").write_text(json.dumps(facts))
        return path

    def put_up(self, name: str) -> None:
        """Let a release that is whole be up."""
        for kind, unit in zip(KINDS, self.unit_names(name), strict=True):
            (self.units / unit).write_text((self.path(name) / "etc" / kind).read_text())
        self.mark("active", self.unit_names(name))
        self.mark("enabled", self.unit_names(name))

    def put_live(self, name: str, *before: str, **memory: Any) -> None:
        """Let a release be live and up, with those that were live before it, and what else is remembered."""
        self.put_up(name)
        self.link.unlink(missing_ok=True)
        self.link.symlink_to(f"releases/{name}")
        (self.root / "state.json").write_text(json.dumps({"line": [*before, name], **memory}))

    def live(self) -> str:
        """Return the name of the release that the link leads to, "" if there is no link."""
        return os.path.basename(os.readlink(self.link)) if self.link.is_symlink() else ""

    def unit_names(self, *names: str) -> list[str]:
        """Return the units of releases, the socket before the service."""
        return [f"{APP}@{name}.{kind}" for name in names for kind in KINDS]

    def state(self) -> list[tuple[str, int, str]]:
        """Return all that is on the disk: paths, times of change, and what links lead to or files hold."""
        return [
            (str(path), path.lstat().st_mtime_ns, os.readlink(path) if path.is_symlink() else path.read_text())
            for path in sorted(self.base.rglob("*"))
            if path.is_symlink() or path.is_file()
        ]


class Unlocked:
    """Stands for the lock where a test is not about it: nobody else is there."""

    @staticmethod
    def check(*_: object) -> None:
        """Let this run through."""

    @staticmethod
    def hold(app: str, *_: object) -> str:
        """Return a FIFO that nobody reads from."""
        return f"/run/slipway/{app}.fifo"

    class busy:  # noqa: N801 - it stands for a function
        """Keep nobody out."""

        def __init__(self, *_: object, **__: object) -> None:
            """Take what the lock takes."""

        def __enter__(self) -> None:
            """Begin."""

        def __exit__(self, *_: object) -> None:
            """End."""


def service(machine: Machine) -> str:
    """Return the unit of a service, with a line of each kind that matters to how its commands are run."""
    release_path = f"{machine.root}/releases/%i"
    return "\n".join(
        [
            "[Unit]", "Description=release %i", "[Service]", "Type=notify", f"User={APP}",
            f"WorkingDirectory={release_path}/app", "ProtectSystem=strict",
            f"EnvironmentFile={release_path}/etc/environment", f"EnvironmentFile={release_path}/etc/secrets",
            f"ExecStart={release_path}/venv/bin/uwsgi", "[Install]", "WantedBy=multi-user.target", "",
        ]
    )  # fmt: skip
