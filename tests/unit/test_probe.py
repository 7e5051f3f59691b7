"""The gate's probes, against workers and web servers that answer as told."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.slipway.wsgi.plugins.module_utils import probe
from ansible_collections.slipway.wsgi.plugins.module_utils.probe import Health, Unhealthy, website, workers

HEALTH = Health(path="/health", status=[200, 204], attempts=1, timeout=5, host="shop.example.org")
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nfine"
INPUTS = "release_health_path, release_health_status, release_health_timeout, release_health_attempts"

# What a server answers to the n-th (from 0) question that its worker so-and-so (from 0) was asked; None for nothing.
Answers = Callable[[int, int], bytes | None]


class Server:
    """Threads that accept at one socket, read what is asked, and answer as told, each one request at a time."""

    def __init__(self, listener: socket.socket, count: int, answers: Answers) -> None:
        """Start `count` threads."""
        self.asked: list[tuple[int, bytes]] = []
        self.closing = threading.Event()
        self.hang_after = False
        self.awake = threading.Event()
        self.listener, self.answers = listener, answers
        self.threads = [threading.Thread(target=self.work, args=[number]) for number in range(count)]
        for thread in self.threads:
            thread.start()

    def work(self, number: int) -> None:
        """Be a worker; the first begins at once, the others when they are awake."""
        if number:
            self.awake.wait()
        turn = 0
        while not self.closing.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                question = self.read(connection)
                if not question:
                    continue
                self.asked.append((number, question))
                answer = self.answers(number, turn)
                turn += 1
                with contextlib.suppress(ConnectionError):  # who asked does not wait any more
                    connection.sendall(answer or b"")
                if answer is None or self.hang_after:
                    self.closing.wait()

    def read(self, connection: socket.socket) -> bytes:
        """Return a whole packet of the uwsgi protocol, or a whole question of HTTP; nothing if it was cut off."""
        data = b""
        while not (complete(data) or data.endswith(b"\r\n\r\n")):
            more = connection.recv(65536)
            if not more:
                return b""
            data += more
        return data

    def close(self) -> None:
        """End all threads."""
        self.closing.set()
        self.awake.set()
        with contextlib.suppress(OSError):  # it may be closed already
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(10)


def complete(data: bytes) -> bool:
    """Whether this is a whole packet of the uwsgi protocol."""
    return len(data) >= 4 and data[0] == 0 and len(data) == 4 + int(struct.unpack("<H", data[1:3])[0])


def variables(packet: bytes) -> dict[str, str]:
    """What is in a packet of the uwsgi protocol."""
    texts, at = [], 4
    while at < len(packet):
        (size,) = struct.unpack_from("<H", packet, at)
        texts.append(packet[at + 2 : at + 2 + size].decode())
        at += 2 + size
    return dict(zip(texts[::2], texts[1::2], strict=True))


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where the workers' socket is."""
    return str(tmp_path / "app.sock")


@pytest.fixture
def serve(path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Server]]:
    """Start workers that answer as told; each may be given by one answer for all."""
    monkeypatch.setattr(probe, "PAUSE_SECONDS", 0.01)
    servers: list[Server] = []

    def start(count: int, answers: Answers | bytes | None = OK, awake: bool = True) -> Server:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen(64)
        servers.append(Server(listener, count, answers if callable(answers) else lambda _number, _turn: answers))
        if awake:
            servers[0].awake.set()
        return servers[0]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def serve_web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[Server, int]]]:
    """Start a web server that answers as told, and return it with its port."""
    monkeypatch.setattr(probe, "PAUSE_SECONDS", 0.01)
    servers: list[Server] = []

    def start(answers: Answers | bytes | None = OK, context: ssl.SSLContext | None = None) -> tuple[Server, int]:
        listener = socket.create_server(("127.0.0.1", 0))
        port = listener.getsockname()[1]
        listener = context.wrap_socket(listener, server_side=True) if context else listener
        servers.append(Server(listener, 1, answers if callable(answers) else lambda _number, _turn: answers))
        return servers[0], port

    yield start
    for server in servers:
        server.close()


def test_each_worker_is_asked_exactly_once(path: str, serve: Callable[..., Server]) -> None:
    server = serve(8)
    for _ in range(5):
        server.asked.clear()
        workers(path, HEALTH, 8)
        assert sorted(number for number, _ in server.asked) == list(range(8))


def test_a_worker_that_accepts_late_is_waited_for(
    path: str, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(2, awake=False)
    waiting = probe.waiting

    def wake(socket_path: str) -> int:
        number = waiting(socket_path)
        if number == 1:
            server.awake.set()
        return number

    monkeypatch.setattr(probe, "waiting", wake)
    workers(path, HEALTH, 2)
    assert sorted(number for number, _ in server.asked) == [0, 1]


def test_a_worker_is_asked_as_the_web_server_would_ask(path: str, serve: Callable[..., Server]) -> None:
    server = serve(1)
    workers(path, replace(HEALTH, path="/a%20b/?x=1&y=%2F"), 1)
    asked = variables(server.asked[0][1])
    assert asked.pop("HTTP_USER_AGENT").startswith("slipway")
    assert asked == {
        "REQUEST_METHOD": "GET", "REQUEST_URI": "/a%20b/?x=1&y=%2F", "SCRIPT_NAME": "", "PATH_INFO": "/a b/",
        "QUERY_STRING": "x=1&y=%2F", "CONTENT_TYPE": "", "CONTENT_LENGTH": "", "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_SCHEME": "http", "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "0", "SERVER_PORT": "80",
        "SERVER_NAME": "shop.example.org", "HTTP_HOST": "shop.example.org", "HTTP_X_FORWARDED_PROTO": "http",
    }  # fmt: skip


def test_one_bad_worker_of_three_is_found_and_told(path: str, serve: Callable[..., Server]) -> None:
    body = b"no \x1b[31mdatabase\x00\r\n" + b"x" * 500
    bad = b"HTTP/1.1 503 Busy\r\n\r\n" + body
    serve(3, lambda number, _turn: bad if number == 1 else OK)
    with pytest.raises(Unhealthy) as caught:
        workers(path, replace(HEALTH, attempts=2), 3)
    shown = ("no  [31mdatabase " + "x" * 500).replace("  ", " ")[:200]
    assert str(caught.value) == (
        f"GET /health of each worker, attempt 2 of 2: 1 of 3 workers answered 503 ({shown}). "
        f"Accepted is 200, 204 within 5 s. If that is not what the app should answer, set {INPUTS}."
    )


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "2 of 2 workers gave no answer within 0.2 s"),
        (b"", "2 of 2 workers closed the connection without an answer"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "2 of 2 workers answered 404 (an empty body)"),
        (b"HTTP/1.1 301 Moved\r\nLocation: /x\r\n\r\n", "2 of 2 workers answered 301 to /x (an empty body)"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "(half) and closed the connection in the middle of that"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nhalf", "in the middle of that"),
        (b"oh no\n", "2 of 2 workers answered what is not HTTP: oh no"),
    ],
)  # fmt: skip
def test_a_bad_answer_is_refused_and_told(
    path: str, serve: Callable[..., Server], answer: bytes | None, told: str
) -> None:
    serve(2, answer)
    with pytest.raises(Unhealthy, match=re.escape(told)):
        workers(path, replace(HEALTH, timeout=5 if answer is not None else 0.2), 2)


@pytest.mark.parametrize(
    "answer",
    [
        OK,
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfull",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfull\r\n0\r\n\r\n",
        # More than the socket holds: it has to be read while other workers are still thinking.
        b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + b"x" * 3_000_000,
    ],
)
def test_a_good_answer_is_accepted(path: str, serve: Callable[..., Server], answer: bytes) -> None:
    serve(2, answer)
    workers(path, HEALTH, 2)


def test_an_answer_that_does_not_end_is_refused(path: str, serve: Callable[..., Server]) -> None:
    server = serve(1, OK)
    server.hang_after = True
    with pytest.raises(Unhealthy, match=re.escape("answered 200 (fine) and did not end that within 0.2 s")):
        workers(path, replace(HEALTH, timeout=0.2), 1)


def test_each_attempt_asks_all_again(path: str, serve: Callable[..., Server]) -> None:
    bad = b"HTTP/1.1 500 Oops\r\n\r\n"
    server = serve(3, lambda number, turn: bad if number == turn else OK)
    workers(path, replace(HEALTH, attempts=4), 3)
    assert sorted(number for number, _ in server.asked) == [0] * 4 + [1] * 4 + [2] * 4


def test_a_worker_that_hangs_is_not_hidden_by_another_that_answers_for_it(
    path: str, serve: Callable[..., Server]
) -> None:
    server = serve(3, lambda number, _turn: None if number == 0 else OK)
    with pytest.raises(Unhealthy, match=r"attempt 3 of 3: 1 of 3 workers gave no answer within 0\.\d s"):
        workers(path, replace(HEALTH, attempts=3, timeout=0.2), 3)
    assert sorted(number for number, _ in server.asked) == [0, 1, 2]


def test_after_a_late_answer_all_are_asked_again(path: str, serve: Callable[..., Server]) -> None:
    def answers(_number: int, turn: int) -> bytes:
        if turn == 0:
            server.closing.wait(0.65)
        return OK

    server = serve(2, answers)
    workers(path, replace(HEALTH, attempts=2, timeout=0.4), 2)
    assert sorted(number for number, _ in server.asked) == [0, 0, 1, 1]


def test_fewer_workers_than_there_may_be_answer_for_all(
    path: str, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "ACCEPT_SECONDS", 0.1)
    server = serve(1)
    workers(path, HEALTH, 4)
    assert len(server.asked) == 4


def test_nobody_at_the_socket_is_told(path: str) -> None:
    with pytest.raises(Unhealthy, match=re.escape(f"could not be reached at {path} (No such file or directory)")):
        workers(path, HEALTH, 2)


def test_the_website_is_asked_as_the_host(serve_web: Callable[..., tuple[Server, int]]) -> None:
    server, port = serve_web()
    website(f"http://127.0.0.1:{port}/health?full=1", HEALTH)
    lines = server.asked[0][1].decode().split("\r\n")
    assert lines[0] == "GET /health?full=1 HTTP/1.1"
    assert "Host: shop.example.org" in lines


def test_the_website_is_asked_again(serve_web: Callable[..., tuple[Server, int]]) -> None:
    server, port = serve_web(lambda _number, turn: OK if turn == 1 else b"HTTP/1.1 502 Bad Gateway\r\n\r\nnginx")
    website(f"http://127.0.0.1:{port}/health", replace(HEALTH, attempts=3))
    assert len(server.asked) == 2
    with pytest.raises(Unhealthy, match=re.escape("the web server answered 502 (nginx). Accepted is 200, 204")):
        website(f"http://127.0.0.1:{port}/health", replace(HEALTH, attempts=2))
    assert len(server.asked) == 4


def test_a_website_that_is_silent_or_away_is_told(serve_web: Callable[..., tuple[Server, int]]) -> None:
    server, port = serve_web(None)
    began = time.monotonic()
    with pytest.raises(Unhealthy, match=re.escape("the web server gave no answer within 0.2 s")):
        website(f"http://127.0.0.1:{port}/", replace(HEALTH, timeout=0.2))
    assert time.monotonic() - began < 2
    server.close()
    with pytest.raises(Unhealthy, match=re.escape("the web server could not be reached (Connection refused)")):
        website(f"http://127.0.0.1:{port}/", HEALTH)


def test_a_redirect_of_the_web_servers_own_is_no_word_of_the_app(serve_web: Callable[..., tuple[Server, int]]) -> None:
    head = (
        b"HTTP/1.1 308 Permanent Redirect\r\nLocation: https://shop.example.org/health\r\nContent-Length: %d\r\n\r\n%s"
    )
    page = b"<html><body><center><h1>308 Permanent Redirect</h1></center><hr><center>nginx</center></body></html>"
    health = replace(HEALTH, status=[200, 308])
    _, port = serve_web(lambda _number, _turn: head % (len(page), page))
    with pytest.raises(Unhealthy, match=re.escape("led to https://shop.example.org/health by itself")):
        website(f"http://127.0.0.1:{port}/health", health)
    _, port = serve_web(lambda _number, _turn: head % (3, b"app"))
    website(f"http://127.0.0.1:{port}/health", health)


def test_a_certificate_is_verified_unless_the_connection_stays_on_the_host(
    serve_web: Callable[..., tuple[Server, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=shop.example.org", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    _, port = serve_web(context=context)
    website(f"https://127.0.0.1:{port}/", HEALTH)
    assert names == ["shop.example.org"]
    create = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda address, timeout: create(("127.0.0.1", port), timeout))
    with pytest.raises(Unhealthy, match=r"could not be reached .*certificate verify failed"):
        website("https://shop.example.org/", HEALTH)
