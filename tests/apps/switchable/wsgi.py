"""A PEP 3333 callable that fails in the way that its environment names; without one it is in order."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

FAULT = os.environ.get("FAULT", "")
BUILT = Path(__file__).with_name("built")  # what an after_build hook may have left
STATUS = {"500": "500 Internal Server Error", "404": "404 Not Found", "worker": "503 Service Unavailable"}


def wait(seconds: float | None = None) -> None:
    """Wait for what does not come, for ever if no time is given."""
    threading.Event().wait(seconds)


def worker() -> int:
    """Return which of the server's workers this is, 1 for the first."""
    master = os.getppid()
    return Path(f"/proc/{master}/task/{master}/children").read_text().split().index(str(os.getpid())) + 1


if FAULT == "raise":
    raise RuntimeError("told to raise at import")
if FAULT == "tell":
    raise RuntimeError(f"told to raise at import, with {dict(os.environ)}")
if FAULT == "hang":
    wait()


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer which release this is, and its environment as a digest for each variable."""
    if FAULT == "late":
        wait(3)
    # A worker is a worker only once it is asked: at import they are all the master.
    sick = FAULT in STATUS and (FAULT != "worker" or worker() == 2)
    digests = {name: hashlib.sha256(os.fsencode(value)).hexdigest() for name, value in os.environ.items()}
    told = {
        "release": os.environ["SLIPWAY_RELEASE"],
        "sha256": digests,
        "built": BUILT.read_text(encoding="utf-8") if BUILT.exists() else "",
    }
    start_response(STATUS[FAULT] if sick else "200 OK", [("Content-Type", "application/json")])
    return [f"told to answer {FAULT}\n".encode() if sick else json.dumps(told).encode()]
