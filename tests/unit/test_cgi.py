"""A release's app as a CGI script: what the uwsgi role puts between the server and the app, without the server."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator

import pytest
from rendering import ROLES, render

# Tells what it was asked, or does what the path says; its judge is wsgiref's.
APP = """
import json, os, signal, subprocess, sys, time
from wsgiref.validate import validator

print("printed at import")
BLOCKED = len(signal.pthread_sigmask(signal.SIG_BLOCK, []))

class Pieces:
    def __init__(self, gate):
        self.gate, self.number = gate, 0
    def __iter__(self):
        return self
    def __next__(self):
        self.number += 1
        if self.number == 2:
            open(self.gate).close()
        return b"%d" % self.number
    def close(self):
        open(self.gate + ".closed", "w").close()

def answer(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise RuntimeError("told to raise")
    if path == "/exit":
        os._exit(3)
    if path == "/hang":
        time.sleep(600)
    print("printed")
    subprocess.run(["echo", "printed by another"], check=True)
    start_response("201 Made", [("Content-Type", "text/plain"), ("X-Own", "1"), ("X-Own", "2")])
    if path == "/pieces":
        return Pieces(environ["QUERY_STRING"])
    told = {name: value for name, value in environ.items() if isinstance(value, str)}
    told["body"] = environ["wsgi.input"].read(10**6).decode()
    return [json.dumps({**told, "pid": os.getpid(), "path": sys.path, "blocked": BLOCKED}).encode()]

application = validator(answer)
"""


def laid_out(directory: Path, app: str, **inputs: object) -> Callable[[], ModuleType]:
    """Lay out what a script needs of a release; return what imports the server's side of it."""
    for part in ("app", "etc", "venv/bin"):
        (directory / part).mkdir(parents=True)
    (directory / "venv/bin/python").symlink_to(sys.executable)
    (directory / "app/wsgi.py").write_text(app)
    (directory / "etc/entry.py").write_text(render("release", "entry.py.j2"), encoding="utf-8")
    (directory / "etc/cgi_script.py").write_text(render("uwsgi", "cgi_script.py.j2", **inputs), encoding="utf-8")
    shutil.copy(ROLES / "uwsgi/files/as_cgi.py", directory / "etc")

    def load() -> ModuleType:
        module = ModuleType("as_cgi")
        module.__file__ = str(directory / "etc/as_cgi.py")
        exec(compile(Path(module.__file__).read_text(), module.__file__, "exec"), vars(module))
        return module

    return load


class Answer:
    """What the server would get: status, headers, and the pieces of the body as they come."""

    def __init__(self, script: ModuleType, path: str = "/", body: bytes = b"", **more: str) -> None:
        """Ask, and take what comes until the first piece; the judge is wsgiref's."""
        given = {"SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", "wsgi.input": io.BytesIO(body), **more}
        environ: dict[str, Any] = {**given, "REQUEST_METHOD": "POST", "CONTENT_LENGTH": str(len(body))}
        setup_testing_defaults(environ)
        self.status, self.headers = "", [("", "")]

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            self.status, self.headers = status, headers

        self.whole: Any = validator(script.application)(environ, start_response)
        self.pieces = iter(self.whole)
        self.first: bytes = next(self.pieces)

    def body(self) -> bytes:
        """Return the whole body."""
        try:
            return b"".join([self.first, *self.pieces])
        finally:
            self.whole.close()


@pytest.fixture
def script(tmp_path: Path) -> ModuleType:
    """The app as a script, which may take as long as a test."""
    os.mkfifo(tmp_path / "gate")
    return laid_out(tmp_path, APP)()


def test_the_app_is_asked_and_answers(script: ModuleType) -> None:
    """Method, path, visitor's headers and body reach it; status, headers and body come back, and nothing it prints."""
    body = b"b" * 100_000
    answer = Answer(script, "/a \u00fc", body, QUERY_STRING="b=c", HTTP_X_ONE="\u00e4", SCRIPT_NAME="/shop")
    told = json.loads(answer.body())
    assert (answer.status, answer.headers.count(("X-Own", "1"))) == ("201 Made", 1)
    assert ("X-Own", "2") in answer.headers
    expected = {"PATH_INFO": "/a \u00fc", "QUERY_STRING": "b=c", "HTTP_X_ONE": "\u00e4", "SCRIPT_NAME": "/shop"}
    assert {name: told[name] for name in expected} == expected
    assert (told["REQUEST_METHOD"], told["body"], told["GATEWAY_INTERFACE"]) == ("POST", body.decode(), "CGI/1.1")
    assert not [place for place in told["path"] if place.endswith("/etc")]


def test_each_request_has_a_process(script: ModuleType) -> None:
    """And its end is waited for."""
    first, second = (json.loads(Answer(script).body())["pid"] for _ in range(2))
    assert len({first, second, os.getpid()}) == 3
    assert not [process for process in (first, second) if Path(f"/proc/{process}").exists()]


def test_a_visitor_names_no_proxy(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs take HTTP_PROXY for the proxy that they are to use."""
    assert "HTTP_PROXY" not in json.loads(Answer(script, HTTP_PROXY="http://bad.example.org").body())
    monkeypatch.setenv("HTTP_PROXY", "http://good.example.org")
    told = json.loads(Answer(script, HTTP_PROXY="http://bad.example.org").body())
    assert told["HTTP_PROXY"] == "http://good.example.org"


def test_an_app_that_raises(script: ModuleType, capfd: pytest.CaptureFixture[str]) -> None:
    """The visitor is told of an error, and the journal of the cause; what is printed is there as well."""
    answer = Answer(script, "/raise")
    assert (answer.status, b"told to" in answer.body()) == ("500 Internal Server Error", False)
    said = capfd.readouterr().err
    assert "RuntimeError: told to raise" in said
    assert "printed at import" in said


def test_a_script_that_ends_without_an_answer(script: ModuleType) -> None:
    """It is an error that the server goes on after."""
    answer = Answer(script, "/exit")
    assert (answer.status, answer.body()) == ("500 Internal Server Error", script.ENDED)
    assert Answer(script).body()


def test_each_piece_comes_when_it_is_sent(script: ModuleType, tmp_path: Path) -> None:
    """And who leaves ends the script, which closes its answer first."""
    answer = Answer(script, "/pieces", QUERY_STRING=str(tmp_path / "gate"))
    assert answer.first == b"1"
    with (tmp_path / "gate").open("w"):
        assert next(answer.pieces).startswith(b"2")
    answer.whole.close()
    assert (tmp_path / "gate.closed").exists()


def test_a_script_that_takes_too_long_ends(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The visitor is told of an error, and the journal where it was."""
    answer = Answer(laid_out(tmp_path, APP, uwsgi_harakiri=1)(), "/hang")
    assert answer.status == "500 Internal Server Error"
    said = capfd.readouterr().err
    assert "Timeout (0:00:01)!" in said
    assert f'wsgi.py", line {APP.splitlines().index("        time.sleep(600)") + 1} in answer' in said
    answer.whole.close()


def test_what_is_blocked_where_it_is_started_is_not_blocked_in_the_script(script: ModuleType) -> None:
    """uWSGI's threads block all signals."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    try:
        assert json.loads(Answer(script).body())["blocked"] == 0
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])


def test_an_app_that_cannot_be_imported_is_no_start(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The server ends, and the reason is in what it says."""
    load = laid_out(tmp_path, "import a_module_that_nobody_has\n")
    with pytest.raises(SystemExit):
        load()
    said = capfd.readouterr().err
    assert said.rstrip().endswith("ModuleNotFoundError: No module named 'a_module_that_nobody_has'")
