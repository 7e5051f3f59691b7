"""A PEP 3333 callable that does what the standard allows, with a judge between it and the server.

The header X-Judge says which: ``validate`` is wsgiref's, ``lint`` is werkzeug's. The app notes when a request begins
and when its answer is closed, and what the judge finds or the app raises. ``GET /notes`` hands the notes over,
``DELETE`` forgets them; neither is judged.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from wsgiref.validate import validator

from werkzeug.middleware.lint import LintMiddleware

NOTES = Path(os.environ.get("STATE_DIRECTORY", "/tmp")) / "notes"
TEXT = [("Content-Type", "text/plain")]
PIECES = 1000

Environ = dict[str, Any]
App = Callable[[Environ, Callable[..., Any]], Iterable[bytes]]


def note(kind: str, what: str, **more: object) -> None:
    """Keep a line; several processes may write at once."""
    with NOTES.open("ab", buffering=0) as kept:
        kept.write(json.dumps({"kind": kind, "what": what, **more}).encode() + b"\n")


class Answer:
    """The app's pieces of an answer, with the `close` that the server owes it, whatever comes in between."""

    def __init__(self, name: str, pieces: Iterable[bytes]) -> None:
        """Take the name of the request and the pieces."""
        self.name, self.whole, self.pieces, self.made = name, pieces, iter(pieces), 0

    def __iter__(self) -> Iterator[bytes]:
        """Be an iterator, as generators are."""
        return self

    def __next__(self) -> bytes:
        """Return the next piece."""
        piece = next(self.pieces)
        self.made += 1
        return piece

    def close(self) -> None:
        """Close what has the pieces, if it can be closed, and note that the server has done with it."""
        getattr(self.whole, "close", lambda: None)()
        note("closed", self.name, made=self.made)


def told(environ: Environ, pieces: Iterable[bytes]) -> bytes:
    """Return what the request was, as JSON, with the length and digest of its body, read from ``pieces``."""
    length, digest = 0, hashlib.sha256()
    for piece in pieces:
        length += len(piece)
        digest.update(piece)
    names = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "wsgi.url_scheme")
    return json.dumps({name: environ[name] for name in names} | {"read": length, "sha256": digest.hexdigest()}).encode()


def whole(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer what was asked; how the body is read, or that it is not, is in the path."""
    source = environ["wsgi.input"]
    ways: dict[str, Iterable[bytes]] = {"/unread": [], "/iterate": source}
    answer = told(environ, ways.get(environ["PATH_INFO"], iter(lambda: source.read(8000), b"")))
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))])
    return [answer]


def stream(_: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Answer piece by piece, without a length; a piece may be empty."""
    start_response("200 OK", [*TEXT])
    for number in range(100):
        yield b""
        yield b"%d\n" % number


def write(_: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer by the callable that start_response returns, then by pieces."""
    send = start_response("200 OK", [*TEXT])
    send(b"written, ")
    return [b"returned"]


def file(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer a file by the server's own way, if it has one."""
    opened = Path(__file__).open("rb")  # noqa: SIM115  (the server closes it)
    wrapper = environ.get("wsgi.file_wrapper", lambda it, size: iter(lambda: it.read(size), b""))
    start_response("200 OK", [*TEXT])
    pieces: Iterable[bytes] = wrapper(opened, 4096)
    return pieces


def nothing(_: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer without a body."""
    start_response("304 Not Modified", [])
    return []


def replace(_: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Take back what was begun: no byte of it has been sent."""
    start_response("200 OK", [*TEXT])
    try:
        raise RuntimeError("told to raise before the first byte")
    except RuntimeError:
        start_response("418 Replaced", [*TEXT], sys.exc_info())
    return [b"replaced"]


def fail(environ: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Raise after the first piece of an answer that says how long it is, or does not."""
    length = [("Content-Length", "100")] if environ["PATH_INFO"] == "/fail/length" else []
    start_response("200 OK", TEXT + length)
    yield b"the first piece\n"
    raise RuntimeError("told to raise after the first byte")


def replace_late(_: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Try to take back what the visitor may have met already: start_response has to raise what it was told of."""
    start_response("200 OK", [*TEXT])
    yield b"the first piece\n"
    try:
        raise RuntimeError("told to raise after the first byte")
    except RuntimeError:
        start_response("418 Replaced", [*TEXT], sys.exc_info())
    yield b"one piece too many\n"


def slow(_: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Answer slowly, and much more than fits anywhere between the app and its visitor."""
    start_response("200 OK", [*TEXT])
    for _number in range(PIECES):
        threading.Event().wait(0.02)
        yield b"x" * 65536


def late(_: Environ, start_response: Callable[..., Any]) -> Iterator[bytes]:
    """Begin to answer when the visitor may have gone."""
    threading.Event().wait(0.5)
    start_response("200 OK", [*TEXT])
    yield b"late"


def wrong(_: Environ, start_response: Callable[..., Any]) -> Iterable[Any]:
    """Do what no judge lets pass: a status that is none."""
    start_response("fine", [*TEXT])
    return [b""]


PATHS: dict[str, Callable[..., Iterable[bytes]]] = {
    "/stream": stream, "/write": write, "/file": file, "/nothing": nothing, "/replace": replace, "/fail": fail,
    "/fail/length": fail, "/replace/late": replace_late, "/slow": slow, "/late": late, "/wrong": wrong,
}  # fmt: skip


def app(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer by the path."""
    name = environ["PATH_INFO"] + "?" + environ["QUERY_STRING"]
    note("begun", name)
    way: App = PATHS.get(environ["PATH_INFO"], whole)
    return Answer(name, way(environ, start_response))


class Witnessed:
    """What the judge hands to the server; who raises is noted, and raises on."""

    def __init__(self, answer: Iterable[bytes]) -> None:
        """Take the judge's answer."""
        self.answer, self.pieces = answer, iter(answer)

    def __iter__(self) -> Iterator[bytes]:
        """Be an iterator, as the judge's answers are."""
        return self

    def __next__(self) -> bytes:
        """Return the next piece."""
        try:
            return next(self.pieces)
        except StopIteration:
            raise
        except Exception as error:
            note("found", repr(error))
            raise

    def close(self) -> None:
        """Close the judge's answer."""
        try:
            self.answer.close()  # type: ignore[attr-defined]  # both judges' answers have it
        except Exception as error:
            note("found", repr(error))
            raise


JUDGES: dict[str, App] = {"validate": validator(app), "lint": LintMiddleware(app)}
# Werkzeug's judge warns where wsgiref's raises; and what is found when an answer is forgotten can be neither.
warnings.simplefilter("always")
warnings.showwarning = lambda message, *_: note("found", repr(message))
sys.unraisablehook = lambda raised: note("found", repr(raised.exc_value))


def application(environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Hand over the notes, or let the judge see the request, for ``/spoiled`` as if the server had left a key out."""
    if environ["PATH_INFO"] == "/notes":
        if environ["REQUEST_METHOD"] == "DELETE":
            NOTES.unlink(missing_ok=True)
        lines = NOTES.read_text().splitlines() if NOTES.exists() else []
        start_response("200 OK", [("Content-Type", "application/json")])
        return [f"[{','.join(lines)}]".encode()]
    if environ["PATH_INFO"] == "/spoiled":
        del environ["wsgi.run_once"]
    try:
        return Witnessed(JUDGES[environ.get("HTTP_X_JUDGE", "validate")](environ, start_response))
    except Exception as error:
        note("found", repr(error))
        raise
