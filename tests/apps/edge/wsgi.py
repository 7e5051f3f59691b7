"""A PEP 3333 callable that tells what the web server told it, sets headers of its own, and answers piece by piece."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

MUCH = 30_000_000  # bytes, more than fits into any buffer on the way


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Answer what is in the environ, the end of it a second later below /stream/, or so many as the path says."""
    path = environ["PATH_INFO"]
    if path == "/stream/socket":
        yield from socket(environ, start_response)
        return
    if path == "/stream/much":
        start_response("200 OK", [("Content-Length", str(MUCH))])
        yield bytes(MUCH)
        return
    headers = [("Content-Type", "application/json"), ("X-Powered-By", "bytes")]
    if path == "/own":
        headers += [("X-Frame-Options", "SAMEORIGIN"), ("Strict-Transport-Security", "max-age=1")]
    start_response("500 BROKEN" if path == "/broken" else "200 OK", headers)
    told = json.dumps({name: value for name, value in environ.items() if isinstance(value, str)}).encode()
    yield told[:-1]
    if path.startswith(("/stream/", "/slow/")):
        seconds = path.rpartition("/")[2]
        time.sleep(float(seconds) if seconds.isdigit() else 1)
    yield told[-1:]


def socket(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Send back each message of a websocket until the visitor closes it."""
    import uwsgi  # there is none where the app is only looked at

    key = environ["HTTP_SEC_WEBSOCKET_KEY"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    accepted = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    agreed = [("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accepted)]
    start_response("101 Switching Protocols", agreed)
    yield b""
    with contextlib.suppress(OSError):  # it is closed
        while True:
            uwsgi.websocket_send(uwsgi.websocket_recv())
