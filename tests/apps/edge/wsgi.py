"""A PEP 3333 callable that tells what the web server told it, sets headers of its own, and answers piece by piece."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Answer what is in the environ; below /stream/ a second later the end of it."""
    path = environ["PATH_INFO"]
    headers = [("Content-Type", "application/json"), ("X-Powered-By", "bytes")]
    if path == "/own":
        headers += [("X-Frame-Options", "SAMEORIGIN"), ("Strict-Transport-Security", "max-age=1")]
    start_response("500 BROKEN" if path == "/broken" else "200 OK", headers)
    told = json.dumps({name: value for name, value in environ.items() if isinstance(value, str)}).encode()
    yield told[:-1]
    if path.startswith(("/stream/", "/slow/")):
        time.sleep(1)
    yield told[-1:]
