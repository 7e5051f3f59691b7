"""The application: a greeting, a health check, and a page that shows the chain a request came through.

Run it anywhere with ``flask --app routes run``; a WSGI server finds the callable as ``routes:app``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import socket
import sys
from pathlib import Path
from time import perf_counter
from typing import Any, Final, TypedDict

from flask import Flask, Response, g, render_template, request

app = Flask(__name__)

# What a plain /hello greets.
WORLD: Final = "world"

# Asked for once: it reads the installed package's files.
FLASK_VERSION: Final = importlib.metadata.version("flask")

# Stands where no release is: the app runs from somebody's source tree.
DEVELOPMENT: Final = "development"


class Client(TypedDict):
    """Who asked: the address the web server saw, and the protocol spoken to it."""

    address: str | None
    port: int | None
    protocol: str | None


class WebServer(TypedDict):
    """Who took the connection, in its own words; `software` is None where none told."""

    software: str | None
    name: str | None
    port: int | None
    scheme: str


class Socket(TypedDict):
    """Where web server and app server meet: the name the former knows, the path the latter listens on."""

    link: str | None
    path: str | None


class AppServer(TypedDict):
    """Who runs this code; `worker` and `workers` are None unless it is uWSGI."""

    name: str
    version: str | None
    worker: int | None
    workers: int | None
    pid: int


class Release(TypedDict):
    """Which state of the code this is, and the directory it lies in."""

    app: str
    name: str
    directory: str


class Framework(TypedDict):
    """What answers: Flask, the Python under it, and the time spent since the request reached it."""

    name: str
    version: str
    python: str
    prefix: str
    endpoint: str | None
    milliseconds: float


class Chain(TypedDict):
    """The links of the chain, in the order in which a request meets them."""

    client: Client
    web_server: WebServer
    socket: Socket
    app_server: AppServer
    release: Release
    framework: Framework


def _text(key: str) -> str | None:
    """Return the text under `key` of the request's WSGI environ; None where it is missing or empty."""
    value = request.environ.get(key)
    return str(value) if value not in (None, "") else None


def _port(key: str) -> int | None:
    """Return the port number under `key` of the request's WSGI environ; None where there is none."""
    text = _text(key)
    return int(text) if text is not None and text.isdecimal() else None


def _uwsgi() -> Any:
    """Return the module `uwsgi`, which exists only inside a uWSGI worker; None under any other server."""
    try:
        return importlib.import_module("uwsgi")
    except ImportError:
        return None


def _bound_to(descriptor: int) -> str | None:
    """Return what a listening socket is bound to: its path, or "address:port".

    Arguments:
        descriptor: the file descriptor of the socket; it stays open, a duplicate is looked at.

    Returns:
        None where the descriptor is no socket: uWSGI puts /dev/null in the place of a socket
        that is mapped to another worker.
    """
    duplicate = os.dup(descriptor)
    try:
        listening = socket.socket(fileno=duplicate)
    except OSError:
        os.close(duplicate)
        return None
    with listening:
        name = listening.getsockname()
    if isinstance(name, bytes):  # Linux's abstract sockets; "@" stands for their leading null byte.
        return "@" + os.fsdecode(name[1:])
    if isinstance(name, str):
        return name or None
    return f"{name[0]}:{name[1]}"


def _sockets(uwsgi: Any) -> str | None:
    """Return what uWSGI's sockets are bound to, comma-separated; None where nothing is known."""
    if uwsgi is None:
        return None
    return ", ".join(bound for bound in map(_bound_to, uwsgi.sockets) if bound is not None) or None


def _web_server(uwsgi: Any) -> WebServer:
    """Return who took the connection: under uWSGI SERVER_SOFTWARE is the web server's own word."""
    return {
        "software": _text("SERVER_SOFTWARE") if uwsgi is not None else None,
        "name": _text("SERVER_NAME"),
        "port": _port("SERVER_PORT"),
        "scheme": request.scheme,
    }


def _app_server(uwsgi: Any) -> AppServer:
    """Return who runs this code; a server that is not uWSGI is named by its SERVER_SOFTWARE."""
    if uwsgi is None:
        name, _, version = (_text("SERVER_SOFTWARE") or "unknown").partition("/")
        return {"name": name, "version": version or None, "worker": None, "workers": None, "pid": os.getpid()}
    return {
        "name": "uWSGI",
        "version": uwsgi.version.decode(),
        "worker": uwsgi.worker_id(),
        "workers": uwsgi.numproc,
        "pid": os.getpid(),
    }


def chain_of_request() -> Chain:
    """Return the live values of every link that the present request has come through."""
    uwsgi = _uwsgi()
    return {
        "client": {
            "address": _text("REMOTE_ADDR"),
            "port": _port("REMOTE_PORT"),
            "protocol": _text("SERVER_PROTOCOL"),
        },
        "web_server": _web_server(uwsgi),
        "socket": {"link": os.environ.get("SLIPWAY_LINK") or None, "path": _sockets(uwsgi)},
        "app_server": _app_server(uwsgi),
        "release": {
            "app": os.environ.get("SLIPWAY_APP") or DEVELOPMENT,
            "name": os.environ.get("SLIPWAY_RELEASE") or DEVELOPMENT,
            "directory": str(Path(app.root_path).resolve()),
        },
        "framework": {
            "name": "Flask",
            "version": FLASK_VERSION,
            "python": platform.python_version(),
            "prefix": sys.prefix,
            "endpoint": request.endpoint,
            "milliseconds": round((perf_counter() - g.started) * 1000, 2),
        },
    }


@app.before_request
def start_clock() -> None:
    """Remember when the request reached Flask."""
    g.started = perf_counter()


@app.after_request
def keep_live(response: Response) -> Response:
    """Forbid caches to keep what is true for one request only; static files may be kept."""
    if request.endpoint != "static":
        response.headers["Cache-Control"] = "no-store"
    return response


@app.get("/")
def index() -> str:
    """Show the chain as a page."""
    return render_template("index.html", chain=chain_of_request())


@app.get("/chain")
def chain() -> Chain:
    """Give the values of the page as JSON."""
    return chain_of_request()


@app.get("/hello")
@app.get("/hello/<username>")
def hello(username: str = WORLD) -> dict[str, str]:
    """Greet `username`, or the world."""
    return {"message": "hello", "name": username}


@app.get("/healthz")
def healthz() -> dict[str, str]:
    """Say that the app can answer."""
    return {"status": "ok"}
