"""The releases of one app on this host: directories, the link that says which is live, and their systemd units."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

from ansible_collections.slipway.wsgi.plugins.module_utils import probe
from ansible_collections.slipway.wsgi.plugins.module_utils.history import History
from ansible_collections.slipway.wsgi.plugins.module_utils.releases import sandbox, timespan, unquoted

UNITS = "/etc/systemd/system"
# Here each app has a directory of its own, which nobody else can read.
STATES = "/var/lib/slipway"
KINDS = ("socket", "service")
# A release counts as drained when so many looks in a row find its queue empty, so many seconds apart.
LOOKS = 3
LOOK_SECONDS = 0.1


class StepError(Exception):
    """A step of a release failed: why, and the last lines of what the failing process said."""

    def __init__(self, reason: str, log: str = "") -> None:
        """Take the reason as one sentence, and the log as text of any length."""
        super().__init__(reason)
        self.log = cause(log)


def cause(log: str, lines: int = 25) -> str:
    """Return the part of a log that tells the cause.

    Args:
        log: text of any length.
        lines: how many lines to return at most.

    Returns:
        The end of it, from the last traceback on if there is one. Where Python was aborted because it hung, the
        beginning of its report: that begins with the line on which it hung. Without the frames of the import system.
    """
    raised, hung = log.rfind("Traceback (most recent call last):"), log.rfind("Fatal Python error:")
    told = log[max(raised, hung, 0) :].strip().splitlines()
    told = [line for line in told if 'File "<frozen importlib' not in line]
    return "\n".join(told[:lines] if hung > raised else told[-lines:])


def now() -> str:
    """Return the time, UTC, in ISO 8601: such texts sort by age."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def read(path: str) -> str:
    """Return the text of a file, empty if there is none."""
    try:
        with open(path, encoding="utf-8") as source:
            return source.read()
    except FileNotFoundError:
        return ""


def write(path: str, text: str) -> None:
    """Write a file in one piece: whoever reads it finds the old text or the new one, after a crash as well."""
    unfinished = f"{path}.new"
    with open(unfinished, "w", encoding="utf-8") as target:
        target.write(text)
        target.flush()
        os.fsync(target.fileno())
    os.rename(unfinished, path)


class Host:
    """The releases of one app on this host; `step` is the one that is being done, for messages."""

    def __init__(self, app: str, root: str, warn: Callable[[str], object] = print) -> None:
        """Take the app and where it is.

        Args:
            app: name of the app.
            root: its directory.
            warn: is called with a sentence about what went wrong without being an error.
        """
        self.app = app
        self.root = root
        self.warn = warn
        self.releases = os.path.join(root, "releases")
        self.link = os.path.join(root, "live")
        # What was live before, and before that: the web server looks there for static files that the live one lacks.
        self.previous, self.earlier = os.path.join(root, "previous"), os.path.join(root, "earlier")
        self.step = ""

    # -- what there is ------------------------------------------------------------------------------------------------

    def path(self, name: str, *parts: str) -> str:
        """Return the directory of a release, or a path in it."""
        return os.path.join(self.releases, name, *parts)

    def whole(self, name: str) -> bool:
        """Return whether a release has been built to its end."""
        return bool(name) and os.path.exists(self.path(name, "release.json"))

    def all(self) -> dict[str, dict[str, Any]]:
        """Return {release: what release.json says} of all releases that are whole."""
        entries = os.listdir(self.releases) if os.path.isdir(self.releases) else []
        names = sorted(filter(self.whole, entries))
        return {name: json.loads(read(self.path(name, "release.json"))) for name in names}

    def unfinished(self) -> list[str]:
        """Return the directories of releases that were not built, or not removed, to their end."""
        return [entry.path for entry in os.scandir(self.releases) if entry.is_dir() and not self.whole(entry.name)]

    def plan(self, name: str) -> dict[str, Any]:
        """Return how a release is judged and what is run for it, as it was given when it was built."""
        text = read(self.path(name, "etc", "plan.json"))
        if not text:
            raise StepError("it has no plan.json: another version of Slipway built it. Deploy its source again.")
        plan: dict[str, Any] = json.loads(text)
        return plan

    def socket(self, name: str) -> str:
        """Return the path of a release's socket."""
        return f"/run/{self.app}/{name}.sock"

    def live(self) -> str:
        """Return the name of the live release, or an empty text."""
        return self.led_to(self.link)

    @staticmethod
    def led_to(link: str) -> str:
        """Return the name of the release that a link leads to, or an empty text."""
        return os.path.basename(os.readlink(link)) if os.path.islink(link) else ""

    @staticmethod
    def lead(link: str, name: str) -> None:
        """Let a link lead to a release, by one rename(2)."""
        new = f"{link}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(new)
        os.symlink(os.path.join("releases", name), new)
        os.rename(new, link)

    def history(self) -> History:
        """Return what is remembered, made to agree with the link."""
        return History.read(json.loads(read(os.path.join(self.root, "state.json")) or "{}"), self.live())

    def remember(self, history: History) -> None:
        """Write what is remembered."""
        write(os.path.join(self.root, "state.json"), json.dumps(history.stored(), indent=2) + "\n")

    def units(self, name: str) -> list[str]:
        """Return the units of a release, in the order of KINDS."""
        return [f"{self.app}@{name}.{kind}" for kind in KINDS]

    def installed(self, name: str = "*") -> list[str]:
        """Return the units of a release that are installed (one of the two, where a start was cut off), or of all."""
        prefix, suffixes = f"{self.app}@", tuple(f".{kind}" for kind in KINDS)
        found = [unit for unit in os.listdir(UNITS) if unit.startswith(prefix) and unit.endswith(suffixes)]
        return sorted(unit for unit in found if name in ("*", self.release_of(unit)))

    def release_of(self, unit: str) -> str:
        """Return the release that a unit belongs to."""
        return unit.removeprefix(f"{self.app}@").rpartition(".")[0]

    def settled(self, name: str) -> bool:
        """Return whether there is nothing to do to have this release live: it is, and nothing is left half done."""
        history = self.history()
        wanted = {name, history.warm} - {""}
        return (
            name == self.live()
            and not history.pending
            and {self.release_of(unit) for unit in self.installed()} == wanted
            and self.ready(name)
            and not self.unfinished()
        )

    # -- commands -----------------------------------------------------------------------------------------------------

    def run(self, *command: str, reason: str = "") -> str:
        """Run a command and return its output.

        Raises:
            StepError: it failed; with the last lines of what it said.
        """
        done = self._call(command)
        if done.returncode:
            said = f"`{' '.join(command[:3])}` ended with exit code {done.returncode}."
            raise StepError(reason or said, done.stderr or done.stdout)
        return done.stdout

    def succeeds(self, *command: str) -> bool:
        """Return whether a command ends without an error."""
        return self._call(command).returncode == 0

    @staticmethod
    def _call(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command, env={**os.environ, "LC_ALL": "C"}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", check=False,
        )  # fmt: skip

    def each(self, question: str, name: str) -> bool:
        """Return whether systemctl says yes for both units; asked for two at once, it says yes if one is."""
        return all(self.succeeds("systemctl", question, "--quiet", unit) for unit in self.units(name))

    def up(self, name: str) -> bool:
        """Return whether both units of a release are up."""
        return self.each("is-active", name)

    def ready(self, name: str) -> bool:
        """Return whether a release is up, and comes up when the host starts: a start or stop may have been cut off."""
        return self.up(name) and self.each("is-enabled", name)

    def secrets(self, name: str) -> list[str]:
        """Return the values that a release was given in secret, to keep them out of messages."""
        return unquoted(read(self.path(name, "etc", "secrets")))

    def run_in(
        self, name: str, command: Sequence[str], seconds: int, reason: str, writable: str = "", expected: int = 0
    ) -> str:
        """Run a command as the app would be run: as its user, in its sandbox, with its environment; return its output.

        Args:
            name: the release.
            command: program and arguments; the working directory is the release's source.
            seconds: after so many it is ended.
            reason: the first words of the error, such as "the migration `flask db upgrade`".
            writable: a directory of the release that it may write to, "" for none.
            expected: the exit code that means success.

        Raises:
            StepError: it failed, or took too long; with its last lines.
        """
        properties = sandbox(read(self.path(name, "etc", "service")), name)
        # A traceback shows where it hung: Python writes one when it is aborted.
        properties += [f"RuntimeMaxSec={seconds}", "KillSignal=SIGABRT", "TimeoutStopSec=5"]
        # What is written there is read by the app, which does not own it in the end, and by the web server.
        properties += [f"BindPaths={writable}", f"ReadWritePaths={writable}", "UMask=0022"] if writable else []
        path = f"{self.path(name, 'venv', 'bin')}:/usr/local/bin:/usr/bin:/bin"
        call = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", f"--setenv=PATH={path}"]
        call += ["--setenv=PYTHONFAULTHANDLER=1", *(f"--property={line}" for line in properties)]
        began = time.monotonic()
        # systemd would put the value of ${X} on the command line, where everybody can read it; $$ is a $ to it.
        done = self._call([*call, *(word.replace("$", "$$") for word in command)])
        if done.returncode != expected and time.monotonic() - began >= seconds:
            raise StepError(f"{reason} did not end within {seconds} s.", done.stdout + done.stderr)
        if done.returncode != expected:
            raise StepError(f"{reason} ended with exit code {done.returncode}.", done.stdout + done.stderr)
        return done.stdout

    def shell(self, name: str, what: str, command: str, writable: str = "") -> None:
        """Run a command line of the user's as the app would be run.

        Args:
            name: the release.
            what: what it is, such as "migration", for the error.
            command: as a shell reads it.
            writable: a directory of the release that it may write to, "" for none.

        Raises:
            StepError: it failed, or took too long.
        """
        seconds = self.plan(name)["command_timeout"]
        self.run_in(name, ["/bin/sh", "-c", command], seconds, f"the {what} `{command}`", writable)

    def hooks(self, point: str, name: str, writable: str = "") -> None:
        """Run the user's commands for a point of the deploy, one after the other.

        Raises:
            StepError: one of them failed.
        """
        for command in self.plan(name)["hooks"].get(point, []):
            self.shell(name, f"{point} hook", command, writable)

    # -- up and down --------------------------------------------------------------------------------------------------

    def start(self, name: str) -> None:
        """Install, start and enable the units of a release.

        Raises:
            StepError: it is not whole, or did not come up; then nothing of it is running or enabled, unless it is live.
        """
        if not self.whole(name):
            raise StepError(f"{self.path(name)} is missing, or was not built to its end.")
        units = self.units(name)
        try:
            states = set(self.run("systemctl", "show", "--value", "--property=LoadState", *units).split())
            for kind, unit in zip(KINDS, units, strict=True):
                shutil.copyfile(self.path(name, "etc", kind), os.path.join(UNITS, unit))
            if states != {"not-found"}:
                # Left by a start that was cut off, or by a stop; units that are new to it systemd reads by itself.
                self.run("systemctl", "daemon-reload")
            if not self.succeeds("systemctl", "start", *units) or not self.up(name):
                raise StepError("its service did not start. The last lines of its journal:", self.journal(name))
            self.run("systemctl", "enable", "--quiet", "--no-reload", *units)
        except (StepError, OSError):
            if name != self.live():
                self.stop(name, visited=False)
            raise

    def journal(self, name: str) -> str:
        """Return the last lines that the service of a release wrote."""
        self.run("journalctl", "--sync")  # what the process wrote has to be in the journal before it is read
        service = self.units(name)[KINDS.index("service")]
        return self.run("journalctl", "--no-pager", "--output=cat", "--lines=60", f"--unit={service}")

    def switch(self, name: str) -> None:
        """Put a release live, or none: one rename(2), so that at every moment exactly one release is live.

        Pages of the release before are still open, and ask for its static files. So it is kept in reach, and before the
        rename: live, previous and earlier lead to both releases at every moment. There are two, or going back to what
        `previous` leads to would for a moment leave one of the two out.
        """
        if not name:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.link)
            return
        live, previous = self.live(), self.led_to(self.previous)
        if previous:
            self.lead(self.earlier, previous)
        if live:
            self.lead(self.previous, live)
        self.lead(self.link, name)

    def undo(self, why: str) -> str:
        """Take a switch back that is not confirmed: the previous release is live again, and the other one is bad.

        Returns:
            The release that was undone, "" if there was nothing to undo.
        """
        history = self.history()
        name, previous = history.pending.get("release", ""), history.pending.get("previous", "")
        if not name:
            return ""
        if self.live() == name and previous and not self.up(previous):
            self.start(previous)
        if self.live() == name:
            self.switch(previous)
        history.undo(why)
        self.remember(history)
        self.stop(name)
        return str(name)

    def drain(self, name: str) -> None:
        """Stop the service of a release that is no longer live once nothing waits for it; its socket goes on listening.

        Since the rename every connection is made to the live release, but two kinds still come to this one: those in
        its queue, and that of a web server's process which had resolved the link and was not yet through connect(2).
        The first are waited for. The second end up in the queue too, since the socket still listens; they are caught by
        a look after the service has stopped, which finishes what it accepted. Only a process that is kept off the CPU
        between the two halves of one system call for the whole time, three looks and a graceful stop, would come too
        late.

        It takes no longer than systemd would wait for the service to stop: after that nobody waits for an answer.
        """
        service = self.units(name)[KINDS.index("service")]
        patience = timespan(self.run("systemctl", "show", "--value", "--property=TimeoutStopUSec", service))
        deadline, empty = time.monotonic() + patience, 0
        while time.monotonic() < deadline and self.succeeds("systemctl", "is-active", "--quiet", service):
            empty = 0 if probe.waiting(self.socket(name)) else empty + 1
            if empty < LOOKS:
                time.sleep(LOOK_SECONDS)
                continue
            self.run("systemctl", "stop", service)
            if probe.waiting(self.socket(name)):
                # systemd starts it for them by itself, as the socket is its trigger; this waits until it is up.
                self.succeeds("systemctl", "start", service)
                empty = 0
        left = probe.waiting(self.socket(name))
        if left:
            self.warn(f"Release {name} is stopped with {left} connections waiting for it: it did not answer them.")

    def stop(self, name: str, visited: bool = True) -> None:
        """Stop a release, and forget those of its units that are installed.

        Args:
            name: the release.
            visited: whether it may have visitors, who get their answers first. Else nothing that hangs is waited for.
        """
        history = self.history()
        if history.warm == name:
            history.warm = ""
            self.remember(history)
        units = self.installed(name)
        if not units:
            return
        self.run("systemctl", "disable", "--quiet", "--no-reload", *units)
        if visited:
            self.drain(name)
        else:
            self.run("systemctl", "stop", "--no-block", *units)
            self.succeeds("systemctl", "kill", "--signal=SIGKILL", *units)
        self.run("systemctl", "stop", *units)
        # There is nothing to reset where nothing had failed, which is an error to systemctl.
        self.succeeds("systemctl", "reset-failed", *units)
        for unit in units:
            os.unlink(os.path.join(UNITS, unit))
        # No daemon-reload, which reads the files of all units while visitors wait: systemd forgets what is stopped by
        # itself, or with the next reload, if there was one since the start.

    def stop_all_but(self, *names: str) -> list[str]:
        """Stop all releases but these, and return those that were stopped."""
        over = sorted({self.release_of(unit) for unit in self.installed()} - set(names))
        for name in over:
            self.stop(name)
        return over
