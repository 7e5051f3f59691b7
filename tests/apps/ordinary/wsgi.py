"""An ordinary app: GET /ordinary does what apps do, POST /try does one thing that an app has no business doing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

import attempts
import ordinary

# Who imports an app reads it while it can: a migration and a hook write here too.
with open("uploads/by-the-app", "a", encoding="utf-8") as uploads:
    uploads.write(os.environ["SLIPWAY_RELEASE"] + "\n")


def done(what: Callable[..., object], *arguments: Any) -> str:
    """Do something, and return what came of it as a text that begins with "did" or with "refused"."""
    try:
        return f"did: {what(*arguments)}"
    except Exception as error:
        return f"refused: {type(error).__name__}: {error}"


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with what came of each thing, by its name."""
    told: object = "ordinary"
    if environ["PATH_INFO"] == "/ordinary":
        told = {name: done(what) for name, what in ordinary.THINGS.items()}
    elif environ["PATH_INFO"] == "/try":
        wanted = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        told = [done(attempts.ATTEMPTS[name], *arguments) for name, *arguments in wanted]
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(told).encode()]
