"""What the gunicorn role hands to a release: by its defaults, by other inputs, and what gunicorn itself makes of it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.template import trust_as_template
from gunicorn.config import KNOWN_SETTINGS
from rendering import ROLES, is_managed, lines, render

OTHER: dict[str, object] = {
    "gunicorn_workers": "2",
    "gunicorn_threads": 3,
    "gunicorn_timeout": 30,
    "gunicorn_log_requests": True,
    "gunicorn_options": {
        "max_requests": 1000,
        "proc_name": 'ä "b" \\ {c}',
        "sendfile": False,
        "strip_header_spaces": True,
        "logger_class": "gunicorn.glogging.Logger",
    },
}
GUNICORN = Path(sys.executable).with_name("gunicorn")
# Hands on a file descriptor, and becomes the program that is to have it.
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.execve(sys.argv[2], sys.argv[2:], {**os.environ, "LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"})
"""
# Tells its environ, does what the path says, and is watched by wsgiref.validate.
APP = """
import json, os, sys, time
from wsgiref.validate import validator

def answer(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/hang":
        time.sleep(600)
    if path == "/raise":
        raise RuntimeError("told to raise")
    told = {name: value for name, value in environ.items() if isinstance(value, str)}
    told["body"] = len(environ["wsgi.input"].read(10**8)) if path == "/read" else None
    told["pid"], told["notify"] = os.getpid(), os.environ.get("NOTIFY_SOCKET")
    told["hints"] = "wsgi.early_hints" in environ
    start_response("200 OK", [("Content-Type", "application/json"), ("X-Own", "1")])
    return [json.dumps(told).encode()]

application = validator(answer)
"""
GIVEN = {
    "QUERY_STRING": "a=b%20c",
    "REQUEST_METHOD": "GET",
    "CONTENT_TYPE": "",
    "CONTENT_LENGTH": "",
    "REQUEST_URI": "/shop/100%2525?a=b%20c",
    "SCRIPT_NAME": "/shop",
    "PATH_INFO": "/100%25",
    "SERVER_PROTOCOL": "HTTP/2.0",
    "HTTPS": "on",
    "REMOTE_ADDR": "192.0.2.7",
    "REMOTE_PORT": "4711",
    "REMOTE_USER": "ada",
    "SERVER_PORT": "443",
    "SERVER_NAME": "shop.example.org",
    "SERVER_SOFTWARE": "nginx/1.26",
    "HTTP_HOST": "shop.example.org:8443",
}


def release(directory: Path, app: str, **inputs: object) -> Path:
    """Lay out what gunicorn needs of a release, and return the directory of its source."""
    for part in ("app", "etc"):
        (directory / part).mkdir()
    (directory / "app/wsgi.py").write_text(app)
    (directory / "etc/entry.py").write_text(render("release", "entry.py.j2"), encoding="utf-8")
    (directory / "etc/gunicorn.conf.py").write_text(render("gunicorn", "gunicorn.conf.py.j2", **inputs), "utf-8")
    return directory / "app"


def plan(part: str) -> list[str]:
    """Return a command line that the role hands on, `start` or `check`."""
    (task,) = yaml.safe_load((ROLES / "gunicorn/tasks/configure.yml").read_text())
    program, *arguments = task["ansible.builtin.set_fact"]["__app_server_plan"][part]
    assert program == "gunicorn"
    return [str(GUNICORN), *arguments]


def checked(directory: Path, app: str, **inputs: object) -> subprocess.CompletedProcess[str]:
    """Check a release as the gate does."""
    return subprocess.run(
        plan("check"), cwd=release(directory, app, **inputs), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=30,
    )  # fmt: skip


class Server:
    """A release that gunicorn serves as its unit would have it: a socket that listens, and a word when it is up."""

    def __init__(self, path: Path, word: socket.socket, process: subprocess.Popen[bytes], log: Path) -> None:
        """Take the path of the socket, where the word comes, the master, and what it writes."""
        self.path, self.word, self.process, self.log = path, word, process, log

    def connect(self) -> socket.socket:
        """Open a connection."""
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        connection.connect(str(self.path))
        return connection

    def send(self, path: str = "/", body: bytes = b"", *, size: int | None = None, **more: str) -> socket.socket:
        """Send a request, and leave the connection open."""
        size = len(body) if size is None else size
        given = {**GIVEN, "PATH_INFO": path, **more, "CONTENT_LENGTH": str(size) if size else ""}
        connection = self.connect()
        connection.sendall(packet(given) + body)
        return connection

    def get(self, path: str = "/", body: bytes = b"", **more: Any) -> tuple[list[str], bytes]:
        """Return the lines of the answer's head, and its body; no lines if the connection is closed without one."""
        with self.send(path, body, **more) as connection:
            return received(connection)

    def told(self, path: str = "/", body: bytes = b"", **more: Any) -> dict[str, Any]:
        """Return what the app tells."""
        found: dict[str, Any] = json.loads(self.get(path, body, **more)[1])
        return found

    def children(self) -> list[int]:
        """Return the workers."""
        master = self.process.pid
        return [int(word) for word in Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def packet(given: Mapping[str, str]) -> bytes:
    """Return a packet of the uwsgi protocol."""
    block = b""
    for name, value in given.items():
        for data in (name.encode(), value.encode("latin-1")):
            block += struct.pack("<H", len(data)) + data
    return struct.pack("<BHB", 0, len(block), 0) + block


def received(connection: socket.socket) -> tuple[list[str], bytes]:
    """Receive an answer to its end."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65536):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return head.decode().splitlines(), body


@contextmanager
def serving(directory: Path, app: str = APP, **inputs: object) -> Iterator[Server]:
    """Serve a release."""
    source, path, log = release(directory, app, **inputs), directory / "s", directory / "log"
    listening, word = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(path))
    listening.listen(100)
    word.bind(str(directory / "notify"))
    word.settimeout(20)
    number = listening.fileno()
    process = subprocess.Popen(
        [sys.executable, "-c", AS_SYSTEMD, str(number), *plan("start")], cwd=source,
        env={**os.environ, "NOTIFY_SOCKET": str(directory / "notify"), "PYTHONFAULTHANDLER": "1"}, pass_fds=[number],
        stdin=subprocess.DEVNULL, stdout=log.open("wb"), stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        assert word.recv(100) == b"READY=1", log.read_text()
        yield Server(path, word, process, log)
    finally:
        process.kill()
        process.wait()
        listening.close()
        word.close()


@pytest.mark.parametrize("inputs", [{}, OTHER], ids=["defaults", "other"])
def test_the_file_says_who_manages_it(inputs: dict[str, object]) -> None:
    """It opens with the managed header and holds no template syntax."""
    assert [path.name for path in (ROLES / "gunicorn" / "templates").iterdir()] == ["gunicorn.conf.py.j2"]
    text = render("gunicorn", "gunicorn.conf.py.j2", **inputs)
    assert is_managed(text)
    assert text.endswith("\n")


def test_an_undefined_variable_is_an_error() -> None:
    """Nothing is rendered as an empty word."""
    with pytest.raises(AnsibleError, match="no_such_variable"):
        render("gunicorn", "gunicorn.conf.py.j2", gunicorn_timeout=trust_as_template("{{ no_such_variable }}"))


def test_the_shared_names_reach_the_role() -> None:
    """What the inventory says for any server is what this role takes by default, text of the command line too."""
    text = lines(render("gunicorn", "gunicorn.conf.py.j2", app_timeout="20", app_workers="7", app_threads="2"))
    assert {"timeout = 22", "workers = 7", "threads = 2"} <= set(text)


@pytest.mark.parametrize(("inputs", "expected"), [
    ({}, ["workers = 4", "threads = 1", "timeout = 62", "graceful_timeout = timeout", "OPTIONS = {"]),
    (OTHER, ["workers = 2", "threads = 3", "timeout = 32", 'accesslog = "-"', '"max_requests": 1000,',
             '"sendfile": False,', '"proc_name": "ä \\"b\\" \\\\ {c}",', '"strip_header_spaces": True,']),
], ids=["defaults", "other"])  # fmt: skip
def test_each_input_reaches_its_line(inputs: dict[str, object], expected: list[str]) -> None:
    """And what keeps the promises of a release is there whatever the inputs are."""
    found = lines(render("gunicorn", "gunicorn.conf.py.j2", **inputs))
    for line in (
        'protocol = "uwsgi"', "preload_app = True", "worker_connections = threads", "keepalive = 0",
        'worker_tmp_dir = "/dev/shm"', "control_socket_disable = True", *expected,
    ):  # fmt: skip
        assert line in found


def test_what_is_refused_is_there_to_be_refused() -> None:
    """Each setting that is not to be had is one of gunicorn's."""
    refused = yaml.safe_load((ROLES / "gunicorn/vars/main.yml").read_text())["__gunicorn_refused"]
    assert set(refused) - {setting.name for setting in KNOWN_SETTINGS} == set()


@pytest.mark.parametrize("inputs", [{}, OTHER], ids=["defaults", "other"])
def test_the_gate_passes_an_app_that_is_in_order(tmp_path: Path, inputs: dict[str, object]) -> None:
    """With the code that the plan expects, and no other."""
    assert checked(tmp_path, APP, **inputs).returncode == 99


@pytest.mark.parametrize(("app", "inputs", "said"), [
    ("raise RuntimeError('told to raise')", {}, "RuntimeError: told to raise"),
    ("import sys\nsys.exit(0)", {}, ""),
    ("setting = 1", {}, "NoCallable: wsgi has neither a callable `application` nor `app`"),
    (APP, {"gunicorn_options": {"max_request": 5}}, "gunicorn has no setting max_request: see gunicorn_options."),
    (APP, {"gunicorn_options": {"max_requests": "many"}}, "Invalid value for max_requests: many"),
])  # fmt: skip
def test_the_gate_refuses(tmp_path: Path, app: str, inputs: dict[str, object], said: str) -> None:
    """What gunicorn would not serve, what ends the process without an error, and settings that it does not know."""
    done = checked(tmp_path, app, **inputs)
    assert done.returncode != 99
    assert said in done.stdout


def test_gunicorn_would_take_settings_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would win over its file: that is why `release_environment` refuses them."""
    monkeypatch.setenv("GUNICORN_CMD_ARGS", "--no-such-setting")
    done = checked(tmp_path, APP)
    assert done.returncode != 99
    assert "unrecognized arguments: --no-such-setting" in done.stdout


def test_the_app_is_told_what_the_web_server_says(tmp_path: Path) -> None:
    """All of it and as it is, as by uWSGI; validated by wsgiref. gunicorn would have its own words for much of it."""
    with serving(tmp_path) as server:
        told = server.told("/100%25")
        assert {name: told.get(name) for name in GIVEN} == {
            **GIVEN, "PATH_INFO": "/100%25", "SERVER_SOFTWARE": told["SERVER_SOFTWARE"]
        }  # fmt: skip
        assert told["SERVER_SOFTWARE"].startswith("gunicorn/")
        assert told["wsgi.url_scheme"] == "https"
        assert not told["hints"]
        assert told["notify"] is None
        head, _ = server.get(REQUEST_METHOD="HEAD")
        assert head[0] == "HTTP/1.1 200 OK"
        assert "X-Own: 1" in head
        assert [line for line in head if line.lower().startswith("server:")] == []
        assert "Traceback" not in server.log.read_text()


def test_bodies(tmp_path: Path) -> None:
    """Read or not, large or not, they are taken in whole; the app never sees a part of one."""
    with serving(tmp_path) as server:
        large = b"x" * 5_000_000
        assert server.told("/read", large, REQUEST_METHOD="POST")["body"] == len(large)
        assert server.told("/unread", large, REQUEST_METHOD="POST")["body"] is None
        assert server.told("/read", b"abc", REQUEST_METHOD="POST")["body"] == 3
        with server.send("/read", b"abc", size=10, REQUEST_METHOD="POST") as connection:
            connection.shutdown(socket.SHUT_WR)
            assert received(connection) == ([], b"")
        assert server.told()["REMOTE_ADDR"] == "192.0.2.7"


def test_as_many_headers_as_fit(tmp_path: Path) -> None:
    """Of gunicorn's own limit the visitor would get a 500."""
    with serving(tmp_path) as server:
        many: dict[str, Any] = {f"HTTP_H{number}": "" for number in range(3000)}
        assert len(set(server.told(**many)) & set(many)) == len(many)


def test_ready_means_that_every_worker_is_there(tmp_path: Path) -> None:
    """Or all but the last, which is being made; gunicorn itself says it before there is one."""
    with serving(tmp_path, gunicorn_workers=5) as server:
        assert len(server.children()) in (4, 5)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_worker_takes_in_what_it_can_answer(tmp_path: Path, threads: int) -> None:
    """As many connections as threads, so that the others wait where all workers, the gate and a stop see them."""
    with serving(tmp_path, gunicorn_workers=2, gunicorn_threads=threads) as server:
        busy = [server.connect() for _ in range(2 * threads + 1)]
        for connection in busy:
            connection.sendall(packet(GIVEN)[:-1])
        for connection in busy[:-1]:
            connection.sendall(packet(GIVEN)[-1:])
        pids = [json.loads(received(connection)[1])["pid"] for connection in busy[:-1]]
        assert sorted(map(pids.count, set(pids))) == [threads, threads]
        for connection in busy:
            connection.close()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_request_that_does_not_end_is_ended(tmp_path: Path, threads: int) -> None:
    """Within seconds, with the place where it was; requests of other workers, before it and after it, are answered."""
    with serving(tmp_path, gunicorn_workers=2, gunicorn_threads=threads, gunicorn_timeout=1) as server:
        with server.send("/hang") as stuck:
            assert server.told()["PATH_INFO"] == "/"
            assert received(stuck) == ([], b"")
        told = server.log.read_text()
        assert "A request takes longer than 1 s" in told
        assert 'app/wsgi.py", line 8 in answer' in told
        assert server.told()["PATH_INFO"] == "/"


def test_a_stream_may_take_any_time(tmp_path: Path) -> None:
    """Below its path, longer than a request may, while a request elsewhere is ended."""
    app = APP.replace('if path == "/hang"', 'if path == "/events/":\n        time.sleep(4)\n    if path == "/hang"')
    inputs = {"gunicorn_timeout": 1, "gunicorn_threads": 2, "gunicorn_streams": ["/events/"]}
    with serving(tmp_path, app, gunicorn_workers=2, **inputs) as server, server.send("/events/") as stream:
        assert b'"/events/"' in received(stream)[1]
        assert server.get("/hang") == ([], b"")


def test_a_stop_ends_what_was_begun(tmp_path: Path) -> None:
    """SIGTERM to the master alone, as the unit sends it: a request in flight is answered, and gunicorn ends with 0."""
    app = APP.replace("time.sleep(600)", "time.sleep(1)")
    with serving(tmp_path, app) as server, server.send("/hang") as slow:
        assert server.told()["PATH_INFO"] == "/"
        server.process.send_signal(signal.SIGTERM)
        assert received(slow)[0][0] == "HTTP/1.1 200 OK"
        assert server.process.wait(timeout=60) == 0


def test_an_error_is_told_to_the_journal(tmp_path: Path) -> None:
    """With its place; the visitor is told nothing but the status."""
    with serving(tmp_path) as server:
        head, body = server.get("/raise")
        assert head[0] == "HTTP/1.1 500 Internal Server Error"
        assert b"told to raise" not in body
        assert "RuntimeError: told to raise" in server.log.read_text()
