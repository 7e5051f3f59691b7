"""What an app has no business doing: a function for each, which raises if it is kept from it."""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)


def call(name: str, *arguments: object) -> int:
    """Call a function of the C library that returns -1 when it fails.

    Raises:
        OSError: it failed.
    """
    result: int = getattr(LIBC, name)(*arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def read(path: str) -> int:
    """Read a file, or list a directory that has something in it."""
    if not os.path.isdir(path):
        return len(Path(path).read_bytes())
    found = os.listdir(path)
    if not found:
        raise FileNotFoundError(f"{path} is empty")
    return len(found)


def write(path: str) -> int:
    """Append nothing to a file, or make one in a directory for a moment."""
    if os.path.isdir(path):
        with tempfile.NamedTemporaryFile(dir=path):
            return 1
    os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
    return 1


def execute(directory: str) -> str:
    """Write a program into a directory and run it."""
    with tempfile.TemporaryDirectory(dir=directory) as own:
        program = Path(own, "program")
        program.write_text("#!/bin/sh\necho run\n")
        program.chmod(0o755)
        return subprocess.run([program], check=True, capture_output=True, text=True).stdout


def other_processes() -> list[str]:
    """Name the processes of which it can read the environment, or the root directory, and is not one itself."""
    own = Path("/proc/self/cgroup").read_text()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cgroup").read_text() == own:
                continue
            for look in (lambda one: (one / "environ").read_bytes(), lambda one: os.listdir(one / "root/")):
                look(process)
            found.append(process.name)
        except OSError:
            continue
    if not found:
        raise PermissionError("none can be looked into")
    return found


def code_in_memory() -> int:
    """Ask for memory that can be written and run."""
    mapped = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    mapped.close()
    return 4096


def connect(path: str) -> str:
    """Connect to a unix socket."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
    return path


def call_out(host: str, port: int) -> str:
    """Connect by TCP."""
    with socket.create_connection((host, port), timeout=5):
        return host


def kind_of_socket(family: str) -> int:
    """Open a socket of another kind."""
    with socket.socket(getattr(socket, family), socket.SOCK_RAW) as opened:
        return opened.fileno()


def set_user_id() -> int:
    """Make a program of its own that others run as this user."""
    with tempfile.NamedTemporaryFile() as program:
        os.chmod(program.name, 0o4755)
    return 0o4755


ATTEMPTS: dict[str, Callable[..., object]] = {
    "read": read,
    "write": write,
    "execute": execute,
    "other_processes": other_processes,
    "code_in_memory": code_in_memory,
    "connect": connect,
    "call_out": call_out,
    "kind_of_socket": kind_of_socket,
    "namespace": lambda: call("unshare", 0x10000000),  # CLONE_NEWUSER
    "mount": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "become_root": lambda: os.setuid(0),
    "set_user_id": set_user_id,
    "trace": lambda: call("ptrace", 0x4206, os.getppid(), None, None),  # PTRACE_SEIZE, which stops nobody
    "priority": lambda: os.setpriority(os.PRIO_PROCESS, 0, 1),
    "give_away": lambda path: os.chown(path, 0, 0),
    "host_name": lambda: socket.sethostname("taken"),
    "load": lambda: Path("/proc/loadavg").read_text(),
    "status": lambda: Path("/proc/self/status").read_text(),
}

if __name__ == "__main__":
    # The proof that each can succeed: done by root, without a sandbox.
    for name, *arguments in json.loads(sys.argv[1]):
        print(f"{name} {arguments}: did {ATTEMPTS[name](*arguments)}")
