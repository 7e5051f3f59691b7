"""A PEP 3333 callable that tells what it was asked, judged by wsgiref.validate: what that finds is an error 500.

It keeps a list of all requests, those too whose answer nobody waited for: ``/seen`` hands it over and begins anew.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

SEEN = Path(os.environ.get("STATE_DIRECTORY", "/tmp")) / "seen"

# Orders to nginx that an answer could carry: each is to be without effect and never to reach the visitor.
ORDERS = [
    ("X-Accel-Redirect", "/static/robots.txt"),
    ("X-Accel-Buffering", "no"),
    ("X-Accel-Charset", "koi8-r"),
    ("X-Accel-Expires", "3600"),
    ("X-Accel-Limit-Rate", "1"),
]


def tell(environ: dict[str, Any]) -> bytes:
    """Return what the request was, as JSON; the body is read, unless the path says that it is not."""
    read, digest = 0, hashlib.sha256()
    while environ["PATH_INFO"] != "/unread" and (chunk := environ["wsgi.input"].read(65536)):
        read += len(chunk)
        digest.update(chunk)
    told = {
        "environ": {name: value for name, value in environ.items() if isinstance(value, str)},
        "scheme": environ["wsgi.url_scheme"],
        "read": read,
        "sha256": digest.hexdigest(),
    }
    return json.dumps(told).encode()


def seen() -> bytes:
    """Return the list of all requests since the last time, and which process returns it, as JSON."""
    try:
        taken = SEEN.rename(SEEN.with_name("taken")).read_text().splitlines()
    except FileNotFoundError:
        taken = []
    told = {"seen": [json.loads(line) for line in taken], "worker": os.getpid(), "master": os.getppid()}
    return json.dumps(told).encode()


def echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer what was asked."""
    path = environ["PATH_INFO"]
    if path == "/seen":
        body = seen()
    elif path == "/big":
        body = b'"' + b"a" * 100_000 + b'"'
    else:
        body = tell(environ)
        with SEEN.open("ab") as kept:
            kept.write(body + b"\n")
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers + (ORDERS if path == "/orders" else []))
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]


application = validator(echo)
