"""A PEP 3333 callable without any framework, judged by wsgiref.validate: what it finds is an error of the chain."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.validate import validator


def echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer what was asked: the method, the path, the scheme and how long the body was."""
    length = 0
    while chunk := environ["wsgi.input"].read(65536):
        length += len(chunk)
    told = {
        "method": environ["REQUEST_METHOD"],
        "path": environ["PATH_INFO"],
        "query": environ["QUERY_STRING"],
        "scheme": environ["wsgi.url_scheme"],
        "read": length,
    }
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(told).encode()]


application = validator(echo)
