"""The controller's side of the lock, over a local connection: it lives and ends with ansible-playbook."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.slipway.wsgi.plugins.plugin_utils import hold
from conftest import await_that, ended

PASSWORD = "a canary"


# Seconds after which what has not come counts as missing, on a machine that has much else to do.
PATIENCE = 15.0


class Become:
    """A become plugin that asks as sudo does, and takes one password only."""

    prompt, require_tty, asks = "password for root:", False, True

    def get_option(self, name: str, playcontext: object = None) -> str:
        return {"become_user": "root", "become_pass": PASSWORD}[name]

    def build_become_command(self, command: str, _: object) -> str:
        answered = f'printf "{self.prompt}" >&2; read -r answer; test "$answer" = "{PASSWORD}"'
        return f"{answered} && {command}" if self.asks else command

    def expect_prompt(self) -> bool:
        return self.asks

    def check_password_prompt(self, said: bytes) -> bool:
        return self.prompt.encode() in said


def connection(transport: str = "local", become: object = None) -> Any:
    """Give what keep_alive() needs of a connection plugin."""

    def get_option(name: str) -> str:
        raise KeyError(name)

    return SimpleNamespace(
        transport=transport, become=become, default_user="me", get_option=get_option, _shell=None, _play_context=None
    )


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """Give a FIFO in a directory whose name has to be quoted."""
    directory = tmp_path / "it's here"
    directory.mkdir()
    os.mkfifo(directory / "shop.fifo")
    return directory / "shop.fifo"


@pytest.fixture
def heard(fifo: Path) -> Iterator[Callable[[float], bytes]]:
    """Listen at the FIFO: heard(seconds) gives what comes next, b"" when it is closed, and fails when nothing comes."""
    descriptor = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)

    def read(seconds: float) -> bytes:
        assert poll.poll(seconds * 1000), f"nothing within {seconds} s"
        return os.read(descriptor, 4096)

    yield read
    os.close(descriptor)


class Playbook:
    """A process that does what ansible-playbook does: it forks one for a task, and goes on after it."""

    def __init__(self, task: Callable[[], None]) -> None:
        heard, said = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            with contextlib.suppress(BaseException):
                worker = multiprocessing.get_context("fork").Process(target=task)
                worker.start()
                worker.join()
                if worker.exitcode == 0:
                    os.write(said, b".")
                    signal.pause()
            os._exit(0)
        os.close(said)
        with open(heard, "rb", buffering=0) as pipe:
            assert pipe.read(1) == b"."

    def kill(self, look: bool = False) -> None:
        """Kill it, and leave it a zombie, unless its parent is to look."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitid(os.P_PID, self.pid, os.WEXITED | (0 if look else os.WNOWAIT))
            self.pid = 0 if look else self.pid


@pytest.fixture
def playbook() -> Iterator[Callable[[Callable[[], None]], Playbook]]:
    """Start a process like ansible-playbook with one task: playbook(task)."""
    started: list[Playbook] = []

    def start(task: Callable[[], None]) -> Playbook:
        started.append(Playbook(task))
        return started[-1]

    yield start
    for each in started:
        each.kill(look=True)


Start = Callable[[Callable[[], None]], Playbook]
Heard = Callable[[float], bytes]


def test_beats_come_after_the_task_has_ended_and_end_with_ansible_playbook(
    fifo: Path, heard: Heard, playbook: Start
) -> None:
    running = playbook(lambda: hold.keep_alive(connection(), str(fifo)))
    said = b""
    while len(said) < 3:  # two at once, and one that is due after the task has ended
        said += heard(PATIENCE)
    running.kill()
    while more := heard(PATIENCE):
        said += more
    assert set(said[:-1]) == set(hold.BEAT)
    assert said[-1:] == hold.END


def test_without_pidfd_the_end_is_seen_by_looking(
    fifo: Path, heard: Heard, playbook: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "pidfd_open")
    running = playbook(lambda: hold.keep_alive(connection(), str(fifo)))
    running.kill(look=True)
    deadline = time.monotonic() + PATIENCE
    while heard(PATIENCE):
        assert time.monotonic() < deadline


def test_the_password_is_said_when_asked_for_and_does_not_get_to_the_fifo(
    fifo: Path, heard: Heard, playbook: Start
) -> None:
    def task() -> None:
        hold.keep_alive(connection(become=Become()), str(fifo))

    playbook(task)
    assert set(heard(PATIENCE)) == set(hold.BEAT)


def test_a_wrong_password_is_an_error_without_the_password(fifo: Path) -> None:
    class Wrong(Become):
        def build_become_command(self, command: str, _: object) -> str:
            return 'printf "password for root:"; read -r answer; echo "$answer is wrong"; exit 1'

    with pytest.raises(hold.HoldError) as refused:
        hold.keep_alive(connection(become=Wrong()), str(fifo))
    assert "******** is wrong" in str(refused.value)
    assert PASSWORD not in str(refused.value)


def test_it_is_an_error_if_nobody_listens(fifo: Path, tmp_path: Path) -> None:
    with pytest.raises(hold.HoldError, match=r"The connection that keeps the lock ended\. It said: "):
        hold.keep_alive(connection(), str(fifo))
    with pytest.raises(hold.HoldError, match="ended"):
        hold.keep_alive(connection(), str(tmp_path / "missing"))
    assert not (tmp_path / "missing").exists()


def test_a_way_that_hangs_is_an_error_in_time_and_leaves_no_process(fifo: Path, tmp_path: Path) -> None:
    class Hanging(Become):
        asks = False

        def build_become_command(self, command: str, _: object) -> str:
            return f"echo $$ > {tmp_path}/pid; echo what it said; exec sleep 60"

    with pytest.raises(hold.HoldError, match=r"did not get there within 1 s\. It said: what it said\."):
        hold.keep_alive(connection(become=Hanging()), str(fifo), seconds=1)
    hanging = int((tmp_path / "pid").read_text())
    await_that(lambda: ended(hanging))  # it was killed; the kernel may still be at it


def test_another_kind_of_connection_is_refused_in_words(fifo: Path) -> None:
    with pytest.raises(hold.HoldError, match=r"ansible_connection: docker is not supported\..*use ssh, or local"):
        hold.keep_alive(connection("docker"), str(fifo))


def test_a_task_that_outlived_ansible_playbook_is_refused(fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getppid", lambda: 1)
    monkeypatch.setattr(hold, "main_process", lambda: os.getpid())
    with pytest.raises(hold.HoldError, match="ansible-playbook has ended"):
        hold.keep_alive(connection(), str(fifo))
