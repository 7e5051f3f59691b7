"""One deploy of an app at a time on this host, for as long as ansible-playbook lives on the controller.

A process of its own, the holder, has the lock. It listens at a FIFO, and the controller's side (plugin_utils/hold.py)
sends a byte every other second, for as long as ansible-playbook is there. When the FIFO is closed or silent, the
holder undoes what was not confirmed and ends. flock(2) alone decides who has what: a file that stays blocks nobody,
what is written in it is only for messages and to tell one run from another.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import syslog
import time
from collections.abc import Callable, Iterator
from typing import Any

DIRECTORY = "/run/slipway"
# So long the holder waits for the controller to be heard for the first time, in seconds.
FIRST_SECONDS = 10.0
# flock(2) knows no time limit: the lock is tried again after so many seconds.
RETRY_SECONDS = 0.05


class Held(Exception):  # noqa: N818 - it is a state that others are told of
    """Somebody else has the lock.

    Attributes:
        who: who has it.
        since: since when, "2026-11-24 02:30:11 UTC".
    """

    def __init__(self, words: str, who: str, since: str) -> None:
        """Say in words what is the case and what to do."""
        super().__init__(words)
        self.who, self.since = who, since


class Lost(Exception):  # noqa: N818 - it is a state that others are told of
    """This run has not got the lock any more."""


def hold(
    app: str,
    who: str,
    run: str,
    lost: Callable[[], None],
    patience: float = 3.0,
    silence: float = 20.0,
    directory: str = DIRECTORY,
) -> str:
    """Have a process hold the lock of an app until this run of ansible-playbook is over.

    Args:
        app: name of the app.
        who: who deploys, for messages.
        run: identifies the run of ansible-playbook; a run that has the lock already is let in.
        lost: what the holder calls when the FIFO is closed or silent, before the lock is free. All that it needs has
            to be imported: the module's files are gone by then.
        patience: how long to wait for a lock that is just being freed, in seconds.
        silence: after so many seconds without a byte the controller counts as lost.
        directory: where the lock is; made if it is not there.

    Returns:
        The path of the FIFO to be written to, first within FIRST_SECONDS; without a first byte the holder ends.

    Raises:
        Held: another run has the lock.
        OSError: the lock or the FIFO could not be made.
    """
    fifo = os.path.join(directory, f"{app}.fifo")
    lock = _open(app, "lock", directory)
    try:
        deadline = time.monotonic() + patience
        while not _take(lock):
            if _is_of(lock, run):
                return fifo
            if time.monotonic() >= deadline:
                raise _held(app, _note(lock))
            select.select([], [], [], RETRY_SECONDS)
        # A new one each time: who still writes to that of an earlier run is not heard.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fifo)
        os.mkfifo(fifo, 0o600)
        listen = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            _detached(
                lambda: _begin(lock, app, who, run),
                lambda: _wait(lock, listen, fifo, silence, lost),
                keep=(lock, listen),
            )
        finally:
            os.close(listen)
    finally:
        os.close(lock)
    return fifo


def check(app: str, run: str, directory: str = DIRECTORY) -> None:
    """Make sure that this run has the lock. Only within busy() does that stay so until the step is done.

    Args:
        app: name of the app.
        run: identifies the run of ansible-playbook.
        directory: where the lock is.

    Raises:
        Held: another run has the lock.
        Lost: this run has lost it, or never had it.
    """
    lock = _open(app, "lock", directory)
    try:
        if not _take(lock, fcntl.LOCK_SH):
            if _is_of(lock, run):
                return
            note = _note(lock)
            if note.get("run"):
                raise _held(app, note)
    finally:
        os.close(lock)
    raise Lost(
        f"the connection that kept the lock of {app} was lost, or nothing came through it for too long. Nothing more "
        "is done; what had gone live and was not confirmed is undone by the host itself. Deploy again."
    )


@contextlib.contextmanager
def busy(app: str, wait: bool = False, directory: str = DIRECTORY) -> Iterator[None]:
    """Keep what changes an app on this host apart from a step that outlived the connection to its controller.

    Args:
        app: name of the app.
        wait: wait for such a step to end, instead of being refused. For what the holder does when all is lost.
        directory: where the lock is; made if it is not there.

    Raises:
        Held: such a step is still running.
    """
    lock = _open(app, "busy", directory)
    try:
        if wait:
            fcntl.flock(lock, fcntl.LOCK_EX)
        elif not _take(lock):
            note = _note(lock)
            who, since = f"process {note.get('pid', '(just started)')}", note.get("since", "a moment ago")
            raise Held(
                f"a step of an interrupted deploy of {app} is still running on this host, {who} since {since}. "
                "Wait until it has ended, or end it, and deploy again.",
                who,
                since,
            )
        _write(lock, {"pid": os.getpid(), "since": _now()})
        yield
    finally:
        os.close(lock)


def _open(app: str, kind: str, directory: str) -> int:
    """Open the lock file of an app, and make it and its directory if they are not there."""
    os.makedirs(directory, mode=0o755, exist_ok=True)
    return os.open(os.path.join(directory, f"{app}.{kind}"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _take(lock: int, how: int = fcntl.LOCK_EX) -> bool:
    """Take a lock, if that is possible at once, and return whether it was."""
    try:
        fcntl.flock(lock, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(lock: int, note: dict[str, Any]) -> None:
    os.ftruncate(lock, 0)
    os.pwrite(lock, json.dumps(note).encode(), 0)


def _note(lock: int) -> dict[str, Any]:
    """Return what is written in a lock file, {} while it is being written."""
    try:
        note: dict[str, Any] = json.loads(os.pread(lock, 65536, 0))
    except ValueError:
        return {}
    return note


def _is_of(lock: int, run: str) -> bool:
    """Return whether a lock that is taken was taken for this run, by a process that is still there.

    After a holder was killed its note stays, until the next one has written its own.
    """
    note = _note(lock)
    return note.get("run") == run and os.path.exists(f"/proc/{note.get('pid')}")


def _held(app: str, note: dict[str, Any]) -> Held:
    who, since = note.get("who", "somebody"), note.get("since", "a moment ago")
    if note.get("run"):
        words = f"{app} is being deployed by {who} since {since}. Deploy again when that has ended"
    else:
        words = f"the deploy of {app} by {who} of {since} was cut off, and is being undone. Deploy again in a moment"
    return Held(f"{words}; the lock frees itself.", who, since)


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())


# -- the holder -------------------------------------------------------------------------------------------------------


def _detached(start: Callable[[], None], work: Callable[[], None], keep: tuple[int, ...]) -> None:
    """Run `start` and then `work` in a process that outlives this one and the session, and return after `start`.

    Args:
        start: what the caller waits for.
        work: what follows.
        keep: file descriptors that the process keeps; all others are closed there, or a pipe of ssh's would stay open,
            and a lock of the caller's would stay taken.

    Raises:
        OSError: `start` failed.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        # Whatever happens, the program that was forked must not go on here a second time.
        try:
            os.setsid()
            if not os.fork():
                _shed((*keep, writer))
                start()
                os.write(writer, b".")
                os.close(writer)
                work()
        except BaseException as error:
            syslog.syslog(syslog.LOG_ERR, f"the process that holds a lock failed: {error!r}")
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as ready:
        os.waitpid(child, 0)
        if not ready.read():
            raise OSError("the process that should hold the lock ended at once; `journalctl -t slipway` says why")


def _shed(keep: tuple[int, ...]) -> None:
    """Let go of what belongs to the session that started this process."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(null, standard)
    syslog.closelog()
    syslog.openlog("slipway")
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor not in keep:
            with contextlib.suppress(OSError):  # the one that the directory was read with is closed already
                os.close(descriptor)


def _begin(lock: int, app: str, who: str, run: str) -> None:
    """Note who has the lock, and leave the session's control group, with which logind may kill this process."""
    _write(lock, {"who": who, "since": _now(), "run": run, "pid": os.getpid()})
    if os.path.isdir("/run/systemd/system") and os.geteuid() == 0:
        # Without a bus it fails, and there is no logind.
        manager = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"]
        scope = ["ssa(sv)a(sa(sv))", f"slipway-{app}-{os.getpid()}.scope", "fail"]
        properties = ["1", "PIDs", "au", "1", str(os.getpid()), "0"]
        call = ["busctl", "call", "--quiet", *manager, "StartTransientUnit", *scope, *properties]
        subprocess.run(call, check=False)


def _wait(lock: int, listen: int, fifo: str, silence: float, lost: Callable[[], None]) -> None:
    """Wait until the controller is gone, and undo. The lock is free when this process ends."""
    heard = _listen(listen, silence)
    # From here on check() refuses this run: no step of it may begin behind the undo's back.
    _write(lock, {**_note(lock), "run": ""})
    os.unlink(fifo)
    if heard:
        lost()


def _listen(listen: int, silence: float) -> bool:
    """Return when the FIFO is closed, or silent for so many seconds; and whether anything was heard before."""
    poll, heard, seconds = select.poll(), False, FIRST_SECONDS
    poll.register(listen, select.POLLIN)
    while poll.poll(seconds * 1000) and os.read(listen, 4096):
        heard, seconds = True, silence
    return heard
