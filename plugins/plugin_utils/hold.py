"""The controller's side of the lock: lets a host know, beat by beat, that ansible-playbook is still there.

keep_alive() starts this file as a program of its own. That program has ssh as its child, whose other end writes what it
is given to the FIFO of the lock's holder (module_utils/lock.py), and it ends with ansible-playbook, however that ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

# Seconds from beat to beat. Each is a line: a terminal on the way (ssh -tt) passes on whole lines only.
BEAT_SECONDS = 2.0
BEAT = b"\n"
# To a terminal on the way this is the end; to the holder it is a byte like any other.
END = b"\x04"
# How often to look for ansible-playbook where the system cannot tell when it ends, in seconds.
LOOK_SECONDS = 0.5
# So long ssh may take to end, in seconds.
END_SECONDS = 3.0
# The host has this said when the holder can hear it.
READY = "slipway-heard"


class HoldError(Exception):
    """The lock on the host cannot be tied to the life of ansible-playbook."""


class Way(NamedTuple):
    """How a command gets to the host.

    Attributes:
        command: program and arguments.
        environment: what they are run with, None for that of this process.
        descriptors: file descriptors that they need.
    """

    command: Sequence[str | bytes]
    environment: dict[str, str] | None
    descriptors: list[int]


def keep_alive(connection: Any, fifo: str, seconds: float = 10.0) -> None:
    """Let the holder of a lock hear from here for as long as ansible-playbook lives. For the process of a task.

    Args:
        connection: the task's connection, with its become plugin: ssh or local.
        fifo: path on the host that lock.hold() returned.
        seconds: how long it may take until the holder can hear, at most what it waits for.

    Raises:
        HoldError: the holder cannot be reached; with what ssh, sudo or the host said.
    """
    main = main_process()
    descriptor = _descriptor(main)
    try:
        # After the descriptor was opened: so it cannot be that of another process with the same number.
        if os.getppid() != main:
            raise HoldError("ansible-playbook has ended; nothing more is done.")
        with _way(connection, _become(connection, _listener(fifo))) as way:
            process = subprocess.Popen(
                [sys.executable, "-I", __file__, str(main), str(descriptor), *way.command],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0,
                env=way.environment, pass_fds=[*way.descriptors, *([descriptor] if descriptor >= 0 else [])],
                start_new_session=True,  # Ctrl-C and the end of this task are not for it
            )  # fmt: skip
            try:
                _until_ready(process, connection, seconds)
            except HoldError:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                raise
            finally:
                for pipe in (process.stdin, process.stdout):
                    if pipe:
                        pipe.close()
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def main_process() -> int:
    """Return the process id of ansible-playbook, for a process that it forked for a task."""
    parent = multiprocessing.parent_process()
    return parent.pid if parent and parent.pid else os.getppid()


def _descriptor(process: int) -> int:
    """Return a descriptor that is readable when a process has ended, -1 where the system has none."""
    try:
        return os.pidfd_open(process)
    except (AttributeError, OSError):
        return -1


def _listener(fifo: str) -> str:
    """Return the shell command that runs on the host: what it reads goes into the FIFO.

    Opened for reading too at first, since it would wait for the holder otherwise, for ever if that is gone; then the
    first byte ends it.
    """
    path = shlex.quote(fifo)
    return f"test -p {path} && exec 4<>{path} 3>{path} 4<&- && echo >&3 && echo {READY} && exec cat >&3 3>&-"


def _become(connection: Any, command: str) -> str:
    """Return a shell command as the user that the task is run as; the same decision as that of Ansible's own."""
    become = connection.become
    if become:
        try:
            login = connection.get_option("remote_user")
        except KeyError:
            login = getattr(connection, "default_user", None)
        user = become.get_option("become_user")
        if user != login or not user:
            command = become.build_become_command(command, connection._shell)
    return f"/bin/sh -c {shlex.quote(command)}"


@contextlib.contextmanager
def _way(connection: Any, command: str) -> Iterator[Way]:
    """Give the way to the host that the user's settings say, as the connection plugin itself goes it.

    The plugin can only run commands to their end, so what it is made of is used here.

    Raises:
        HoldError: the kind of connection is not supported.
    """
    if connection.transport == "local":
        yield Way(["/bin/sh", "-c", command], None, [])
        return
    if connection.transport != "ssh":
        raise HoldError(
            f"ansible_connection: {connection.transport} is not supported. The lock lives by a process on the other "
            "end of a connection that stays open: use ssh, or local."
        )
    connection.host = connection.get_option("host") or connection._play_context.remote_addr
    terminal = ["-tt"] if connection.become and connection.become.require_tty else []
    ssh = connection.get_option("ssh_executable")
    argv = connection._build_command(ssh, "ssh", *terminal, connection.host, command)
    environment, pipe = connection._init_shm().get("env"), connection.sshpass_pipe
    try:
        if pipe:
            os.write(pipe[1], f"{connection.get_option('password') or connection._play_context.password}\n".encode())
            os.close(pipe[1])
        yield Way(argv, environment, [pipe[0]] if pipe else [])
    finally:
        if pipe:
            os.close(pipe[0])
            connection.sshpass_pipe = None
        if connection.shm:
            connection.shm.close()
            connection.shm.unlink()
            connection.shm = None


def _until_ready(process: subprocess.Popen[bytes], connection: Any, seconds: float) -> None:
    """Return when the host says that the holder can hear; answer the question for become's password.

    Raises:
        HoldError: it does not say so in time, or the way to it ended.
    """
    become, password, said, asked = connection.become, "", b"", False
    deadline = time.monotonic() + seconds
    assert process.stdin
    assert process.stdout
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        # At the end of a line: with ssh -v the command that says it is shown as well.
        while not any(line.strip().endswith(READY.encode()) for line in said.splitlines()):
            chunk = b""
            if selector.select(max(0.0, deadline - time.monotonic())):
                chunk = os.read(process.stdout.fileno(), 65536)
            if not chunk:
                how = "ended" if time.monotonic() < deadline else f"did not get there within {seconds:g} s"
                words = said.decode(errors="replace")
                words = words.replace(password, "********") if password else words
                lines = [line for line in words.splitlines() if line.strip() and not line.startswith("BECOME-SUCCESS")]
                raise HoldError(
                    f"The connection that keeps the lock {how}. It said: {' / '.join(lines[-5:]) or 'nothing'}. "
                    "It is a second ssh session beside that of the task: see whether the host allows two."
                )
            said += chunk
            if become and not asked and become.expect_prompt() and become.check_password_prompt(said):
                password = str(become.get_option("become_pass", playcontext=connection._play_context))
                process.stdin.write(f"{password}\n".encode())
                asked = True


# -- the program ------------------------------------------------------------------------------------------------------


def main(process: int, descriptor: int, command: Sequence[str]) -> None:
    """Pass on what the task says and hears; when it says no more, send beats until ansible-playbook or ssh ends.

    Args:
        process: the process id of ansible-playbook.
        descriptor: readable when that has ended, or -1.
        command: takes the beats at its standard input.
    """
    if descriptor >= 0:
        os.set_inheritable(descriptor, False)
    # What the task passed on beside that is for ssh.
    way = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0, close_fds=False
    )
    assert way.stdin
    assert way.stdout
    with contextlib.suppress(BrokenPipeError):
        if _relay(way.stdin.fileno(), way.stdout.fileno()):
            _beat(way.stdin.fileno(), way.stdout.fileno(), process, descriptor)
            os.write(way.stdin.fileno(), END)
    way.stdin.close()
    try:
        way.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        way.kill()


def _relay(into: int, out: int) -> bool:
    """Pass on what the task says, and to it what it hears; return whether it was the task that ended that."""
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(out, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                data = os.read(key.fd, 65536)
                if not data:
                    return key.fd == 0
                with contextlib.suppress(BrokenPipeError):  # one of the two has just ended: that is read next
                    os.write(into if key.fd == 0 else 1, data)


def _beat(into: int, out: int, process: int, descriptor: int) -> None:
    """Send a beat every so often, and return when ansible-playbook or the way to the host has ended."""
    seconds = LOOK_SECONDS if descriptor < 0 else BEAT_SECONDS
    due = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for source in (out, descriptor):
            if source >= 0:
                selector.register(source, selectors.EVENT_READ)
        while True:
            if time.monotonic() >= due:
                os.write(into, BEAT)
                due = time.monotonic() + seconds
            ready = [key.fd for key, _ in selector.select(max(0.0, due - time.monotonic()))]
            ended = descriptor in ready if descriptor >= 0 else not _is_there(process)
            # What ssh says by now, nobody needs; but it would wait at a full pipe.
            if ended or (out in ready and not os.read(out, 65536)):
                return


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
