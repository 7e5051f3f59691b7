"""Stops a module on a host at a point of its work. On the host it is the `sitecustomize` of the interpreter.

The file `point` beside it says where and how: {"where": regular expression, "how": "die" or "wait"}. What is compared
with it is each change that the process is about to make: the functions that lead there, the event and its arguments.
A process that waits writes its id to the FIFO `reached`, and goes on when something is written to the FIFO `go`.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
# What changes something or asks for it, as Python tells of it before it does it (sys.audit).
CHANGES = {"os.fork", "os.remove", "os.rename", "os.symlink", "shutil.rmtree", "socket.connect", "subprocess.Popen"}


def die(*_: Any, **__: Any) -> Any:
    """End this process, as the kernel does when it is out of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def stop(event: str, arguments: tuple[Any, ...]) -> None:
    """Die or wait, if this is the point; only once, so that the next step of the same run goes on."""
    if event not in CHANGES or not (HERE / "point").exists():
        return
    functions: list[str] = []
    frame = sys._getframe(1)
    while frame.f_back:
        functions.insert(0, frame.f_code.co_name)
        frame = frame.f_back
    # Of a command its words: its environment tells nothing and holds much.
    told = arguments[1] if event == "subprocess.Popen" else arguments
    point = json.loads((HERE / "point").read_text())
    if not re.search(point["where"], f"{' '.join(functions)} {event} {told}"):
        return
    (HERE / "point").unlink()
    if point["how"] == "wait":
        (HERE / "reached").write_text(str(os.getpid()))
        (HERE / "go").read_text()
    elif event == "subprocess.Popen":
        subprocess.Popen.communicate = die  # type: ignore[method-assign]  # it dies with the command under way
    else:
        die()


sys.addaudithook(stop)
