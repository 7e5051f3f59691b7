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


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer the release, the server, the query and the body's length and digest, after `?sleep=` seconds."""
    query = environ["QUERY_STRING"]
    time.sleep(float(urllib.parse.parse_qs(query).get("sleep", ["0"])[0]))
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    told = {"release": RELEASE, "query": query, "length": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    # gunicorn names itself; uWSGI leaves the word to the web server.
    told["server"] = environ.get("SERVER_SOFTWARE", "")
    answer = json.dumps(told).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]
