"""A PEP 3333 callable for load: tells which release answered and proves that it saw this very request."""

from __future__ import annotations

import hashlib
import json
import os
import time
import urllib.parse
from collections.abc import Callable, Iterable
from typing import Any

RELEASE = os.environ.get("SLIPWAY_RELEASE", "")
KEPT: list[bytes] = []


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer which release, process and server this is, the query, and the body's length and digest.

    That is `?sleep=` seconds later, and `?keep=` megabytes of memory are kept for ever.
    """
    query = environ["QUERY_STRING"]
    asked = urllib.parse.parse_qs(query)
    time.sleep(float(asked.get("sleep", ["0"])[0]))
    KEPT.extend(b"k" * (int(size) << 20) for size in asked.get("keep", []))
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    told = {"release": RELEASE, "query": query, "length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    told["process"], told["cgi"] = os.getpid(), environ.get("GATEWAY_INTERFACE", "")
    # gunicorn names itself; uWSGI leaves the word to the web server.
    told["server"] = environ.get("SERVER_SOFTWARE", "")
    answer = json.dumps(told).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]
