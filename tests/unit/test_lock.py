"""The lock on the host: who gets it, and what the process that holds it does when it hears nothing any more."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.slipway.wsgi.plugins.module_utils import lock
from conftest import await_that, ended

RUN, OTHER = "alice@laptop, process 1", "bob@laptop, process 2"


class Deploy:
    """One app's lock in a directory of the test, and a note of what was undone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.undone = directory / "undone"
        self.writers: list[int] = []
        self.holders: set[int] = set()

    def lost(self) -> None:
        """What the holder calls; runs in the holder."""
        self.undone.write_text(str(os.getpid()))

    def hold(self, run: str = RUN, lost: Callable[[], None] | None = None, **options: float) -> str:
        who = run.partition(",")[0]
        fifo = lock.hold("shop", who, run, lost or self.lost, directory=str(self.directory), **options)
        self.holders.add(self.note()["pid"])
        return fifo

    def connect(self, fifo: str) -> int:
        """Be heard at a FIFO, and stay connected."""
        writer = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        os.write(writer, b"\n")
        self.writers.append(writer)
        return writer

    def disconnect(self) -> None:
        while self.writers:
            os.close(self.writers.pop())

    def check(self, run: str = RUN) -> None:
        lock.check("shop", run, directory=str(self.directory))

    def note(self) -> dict[str, Any]:
        """What is written in the lock file; waits while it is being written."""
        while not (text := (self.directory / "shop.lock").read_text()):
            pass
        note: dict[str, Any] = json.loads(text)
        return note


@pytest.fixture
def deploy(tmp_path: Path) -> Iterator[Deploy]:
    """Give a lock that nobody has, and end every holder afterwards."""
    deploy = Deploy(tmp_path)
    yield deploy
    deploy.disconnect()
    await_that(lambda: all(map(ended, deploy.holders)))


def test_a_second_run_is_refused_in_words(deploy: Deploy) -> None:
    deploy.connect(deploy.hold())
    began = time.monotonic()
    with pytest.raises(lock.Held) as refused:
        deploy.hold(OTHER, patience=0.2)
    assert time.monotonic() - began < 1
    assert refused.value.who == "alice@laptop"
    assert f"shop is being deployed by alice@laptop since {refused.value.since}. Deploy again" in str(refused.value)
    assert refused.value.since.endswith(" UTC")


def test_the_same_run_is_let_in_by_the_same_holder(deploy: Deploy) -> None:
    fifo = deploy.hold()
    deploy.connect(fifo)
    holder = deploy.note()["pid"]
    assert deploy.hold() == fifo
    assert deploy.note()["pid"] == holder


def test_another_app_has_a_lock_of_its_own(deploy: Deploy) -> None:
    deploy.connect(deploy.hold())
    deploy.connect(lock.hold("blog", "bob", OTHER, deploy.lost, directory=str(deploy.directory)))
    lock.check("blog", OTHER, directory=str(deploy.directory))
    deploy.check()


def test_the_holder_is_apart_from_the_session_that_started_it(deploy: Deploy) -> None:
    leaked, _ = os.pipe()
    deploy.connect(deploy.hold())
    holder = deploy.note()["pid"]
    assert os.getsid(holder) not in (os.getsid(0), 0)
    ignored = next(line for line in Path(f"/proc/{holder}/status").read_text().splitlines() if "SigIgn" in line)
    assert int(ignored.split()[1], 16) & 1 << (signal.SIGHUP - 1)
    opened = {os.readlink(entry) for entry in Path(f"/proc/{holder}/fd").iterdir()}
    assert opened == {os.devnull, str(deploy.directory / "shop.lock"), str(deploy.directory / "shop.fifo")}
    os.close(leaked)


def test_when_all_writers_are_gone_it_undoes_and_frees_the_lock(deploy: Deploy) -> None:
    fifo = deploy.hold()
    deploy.connect(fifo)
    deploy.connect(fifo)
    holder = str(deploy.note()["pid"])
    os.close(deploy.writers.pop())
    deploy.check()
    deploy.disconnect()
    await_that(deploy.undone.exists)
    deploy.connect(deploy.hold(OTHER))
    assert deploy.undone.read_text() == holder


def test_silence_undoes_though_the_writer_is_there(deploy: Deploy) -> None:
    deploy.connect(deploy.hold(silence=0.2))
    await_that(deploy.undone.exists)


def test_beats_keep_the_lock(deploy: Deploy) -> None:
    writer = deploy.connect(deploy.hold(silence=0.3))
    for _ in range(5):
        threading.Event().wait(0.15)
        os.write(writer, b"\n")
    deploy.check()
    assert not deploy.undone.exists()


def test_without_a_first_writer_it_ends_and_has_nothing_to_undo(
    deploy: Deploy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "FIRST_SECONDS", 0.1)
    fifo = deploy.hold()
    await_that(lambda: not os.path.exists(fifo))
    deploy.connect(deploy.hold(OTHER))
    assert not deploy.undone.exists()


def test_a_killed_holder_frees_the_lock(deploy: Deploy) -> None:
    deploy.connect(deploy.hold())
    os.kill(deploy.note()["pid"], signal.SIGKILL)
    await_that(lambda: ended(deploy.note()["pid"]))
    with pytest.raises(lock.Lost):
        deploy.check()
    deploy.connect(deploy.hold(OTHER, patience=0))
    with pytest.raises(lock.Held):
        deploy.check()


def test_an_undo_that_fails_frees_the_lock(deploy: Deploy) -> None:
    def fail() -> None:
        raise SystemExit(3)

    deploy.connect(deploy.hold(lost=fail))
    deploy.disconnect()
    deploy.connect(deploy.hold(OTHER))
    deploy.check(OTHER)


def test_a_lock_that_is_just_being_freed_is_waited_for(deploy: Deploy) -> None:
    deploy.connect(deploy.hold())
    end = threading.Timer(0.3, deploy.disconnect)
    end.start()
    fifo = deploy.hold(OTHER)
    end.join()
    deploy.connect(fifo)
    deploy.check(OTHER)


def test_while_it_undoes_nobody_has_the_lock(deploy: Deploy) -> None:
    go = deploy.directory / "go"
    os.mkfifo(go)

    def wait() -> None:
        go.read_text()

    deploy.connect(deploy.hold(lost=wait))
    deploy.disconnect()
    await_that(lambda: not deploy.note()["run"])
    with pytest.raises(lock.Lost):
        deploy.check()
    for run in (RUN, OTHER):
        with pytest.raises(lock.Held, match=r"of shop by alice@laptop of .* was cut off, and is being undone"):
            deploy.hold(run, patience=0.1)
    go.write_text("go")
    deploy.connect(deploy.hold(OTHER))


def test_the_writer_of_an_earlier_run_is_not_heard(deploy: Deploy) -> None:
    old = deploy.connect(deploy.hold(silence=0.1))
    await_that(deploy.undone.exists)
    deploy.connect(deploy.hold(OTHER))
    with pytest.raises(BrokenPipeError):
        os.write(old, b"\n")


def test_check_refuses_a_run_that_has_not_got_the_lock(deploy: Deploy) -> None:
    with pytest.raises(lock.Lost, match="Deploy again"):
        deploy.check()
    deploy.connect(deploy.hold())
    deploy.check()
    with pytest.raises(lock.Held, match="shop is being deployed by alice@laptop since"):
        deploy.check(OTHER)


def test_files_that_stay_block_nobody(deploy: Deploy) -> None:
    (deploy.directory / "shop.lock").write_text('{"run": "an old one", "pid": 1, "who": "eve", "since": "then"}')
    (deploy.directory / "shop.fifo").write_text("not even a FIFO")
    (deploy.directory / "shop.busy").write_text("{")
    deploy.connect(deploy.hold(patience=0))
    with lock.busy("shop", directory=str(deploy.directory)):
        deploy.check()


def test_files_are_for_their_owner_only(deploy: Deploy) -> None:
    deploy.connect(deploy.hold())
    with lock.busy("shop", directory=str(deploy.directory)):
        modes = {path.name: path.stat().st_mode & 0o777 for path in deploy.directory.iterdir()}
    assert modes == {"shop.lock": 0o600, "shop.fifo": 0o600, "shop.busy": 0o600}


def test_a_step_beside_another_is_refused_in_words(deploy: Deploy) -> None:
    directory = str(deploy.directory)
    words = rf"still running on this host, process {os.getpid()} since .* UTC\. Wait until it has ended"
    with lock.busy("shop", directory=directory):
        with pytest.raises(lock.Held, match=words), lock.busy("shop", directory=directory):
            raise AssertionError
        with lock.busy("blog", directory=directory):
            pass
    with lock.busy("shop", directory=directory):
        pass


def test_the_undo_waits_for_the_step_that_is_still_running(deploy: Deploy) -> None:
    directory = str(deploy.directory)

    def undo() -> None:
        with lock.busy("shop", wait=True, directory=directory):
            deploy.lost()

    with lock.busy("shop", directory=directory):
        # The holder is forked while the step's lock is taken, and must not have inherited it.
        deploy.connect(deploy.hold(lost=undo))
        deploy.disconnect()
        await_that(lambda: not deploy.note()["run"])
        with pytest.raises(lock.Held):
            deploy.hold(OTHER, patience=0.2)
        assert not deploy.undone.exists()
    await_that(deploy.undone.exists)


def test_a_holder_that_cannot_start_is_an_error(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(lock, "_begin", fail)
    with pytest.raises(OSError, match="journalctl -t slipway"):
        deploy.hold()
    monkeypatch.undo()
    deploy.connect(deploy.hold(patience=0))


def test_without_flock_the_test_of_the_second_run_is_red(deploy: Deploy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proof of the proof: with the lock taken out the second run is let in, and the test says so."""
    monkeypatch.setattr(lock, "_take", lambda *_: True)
    monkeypatch.setattr(lock, "FIRST_SECONDS", 0.1)  # nobody speaks to the second holder
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        test_a_second_run_is_refused_in_words(deploy)
