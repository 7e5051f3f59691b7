"""The questions that a release is judged by: its health path, asked of each of its workers, and through the web server.

A worker cannot be addressed, all of them accept at one socket. What can be done is to keep each of them busy: of as
many requests as there are workers all but the last byte is sent. Who has accepted one waits for the rest of it and
accepts no other, so when nothing waits in the socket's queue any more each worker has exactly one. Then the last bytes
are sent. This is so for workers that do one thing at a time, processes and threads. Where an event loop accepts as much
as it can (gevent), one may answer several times, another never. Workers that come later (cheaper) are not asked: they
are copies of the process that those were copied from.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import resource
import selectors
import socket
import ssl
import struct
import subprocess
import time
import urllib.parse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

# How long all workers together may take to accept. It has to be well below the 4 s (socket-timeout) after which uWSGI
# closes the connection of a request that does not go on.
ACCEPT_SECONDS = 1.0
# The queue of a socket can be looked at, not waited for: it is looked at so often.
LOOK_SECONDS = 0.02
# The pause before the second attempt; each further one is twice as long, up to the longest.
PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0
# So much of an answer is kept to be judged: where one is longer, nobody looks whether it was cut off.
KEPT_BYTES = 1 << 20
# So much of what was answered is shown, and so many kinds of failure.
SHOWN_CHARACTERS = 200
SHOWN_KINDS = 3
# What nginx and Apache write into the page of a redirect of their own.
PAGES = (b"<center>nginx", b"-//IETF//DTD HTML 2.0//EN")
# Further files than those for connections that this process may have open.
OTHER_FILES = 100
INPUTS = "release_health_path, release_health_status, release_health_timeout, release_health_attempts"
AGENT = "slipway (health check)"


class Unhealthy(Exception):  # noqa: N818 - it is a state that others are told of
    """A release did not answer as it has to: what was asked, what came, what is accepted and which inputs say so."""


@dataclass(frozen=True)
class Health:
    """What is asked, and what is accepted as an answer.

    Attributes:
        path: path of a URL, escaped, with a query or without.
        status: the status codes that are accepted.
        attempts: how often it is asked in all, at least 1.
        timeout: within how many seconds an answer has to be there in full.
        host: the host that is asked for, a name or an IP address.
    """

    path: str
    status: list[int]
    attempts: int
    timeout: float
    host: str


def workers(socket_path: str, health: Health, count: int) -> None:
    """Ask each worker for the health path, all of them at the same time, by the uwsgi protocol.

    It takes no longer than `attempts` times (`timeout` + ACCEPT_SECONDS) and the pauses between.

    Args:
        socket_path: the unix socket, by the path that it is bound to (a link to it will not do).
        health: what to ask and what to accept.
        count: how many requests are worked on at once, processes times threads.

    Raises:
        Unhealthy: in each attempt some worker did not answer in time, or with another status.
        OSError: the socket's queue cannot be looked at, or too few files may be open for so many connections.
    """
    _allow_files(count + OTHER_FILES)
    asked: list[_Answer] = []

    def ask() -> list[str]:
        # A worker that hangs since the last attempt is waited for, and not asked anew: the others would answer for it.
        _read(asked, health.timeout)
        if all(answer.ended for answer in asked):
            asked.clear()
            _ask_all(socket_path, health, count, asked)
            _read(asked, health.timeout)
        failures = Counter(failure for answer in asked if (failure := answer.failure(health)))
        return [f"{number} of {count} workers {failure}" for failure, number in failures.most_common(SHOWN_KINDS)]

    try:
        _insist(ask, f"GET {health.path} of each worker", health)
    finally:
        for answer in asked:
            answer.end()


def website(url: str, health: Health) -> None:
    """Ask the web server for a URL. Redirects are not followed, a proxy is not used.

    Args:
        url: the URL, http or https, with the health path. The certificate has to be that of `health.host`, issued by
            an authority that this host trusts; of a loopback address any certificate is taken.
        health: the host to ask for and what to accept; its path is not used.

    Raises:
        Unhealthy: in each attempt there was no answer in time, or another status.
    """

    def ask() -> list[str]:
        failure = _ask_website(url, health)
        return [f"the web server {failure}"] if failure else []

    where = f"release_url (or web_port), release_health_host (or web_server_names), {INPUTS}"
    _insist(ask, f"GET {url} for the host {health.host}", health, where)


def _insist(ask: Callable[[], list[str]], question: str, health: Health, inputs: str = INPUTS) -> None:
    """Ask until nothing fails, `health.attempts` times at most, with growing pauses.

    Raises:
        Unhealthy: something failed each time; with what failed last.
    """
    failures: list[str] = []
    for attempt in range(health.attempts):
        if attempt:
            time.sleep(min(PAUSE_SECONDS * 2 ** (attempt - 1), LONGEST_PAUSE_SECONDS))
        failures = ask()
        if not failures:
            return
    accepted = ", ".join(map(str, health.status))
    raise Unhealthy(
        f"{question}, attempt {health.attempts} of {health.attempts}: {'; '.join(failures)}. "
        f"Accepted is {accepted} within {health.timeout:g} s. If that is not what the app should answer, set {inputs}."
    )


class _Answer:
    """What comes on one connection."""

    def __init__(self, connection: socket.socket) -> None:
        """Take the connection; it is closed when the answer has ended."""
        self.connection = connection
        self.ended = False
        self.error = ""
        self._kept = b""
        self._size = 0
        self._asked = time.monotonic()

    def send(self, data: bytes) -> None:
        """Send a part of the question. If nobody takes it, that will be seen from the answer."""
        self._asked = time.monotonic()
        with contextlib.suppress(OSError):
            self.connection.sendall(data)

    def take(self) -> None:
        """Receive what is there, or the end.

        Raises:
            TimeoutError: nothing came in the time that is set for the connection.
        """
        try:
            data = self.connection.recv(65536)
        except TimeoutError:
            raise
        except OSError:
            data = b""
        self._kept += data[: KEPT_BYTES - len(self._kept)]
        self._size += len(data)
        if not data:
            self.end()

    def end(self, error: str = "") -> None:
        """Close the connection; with an error if there was none."""
        self.error = error
        self.ended = True
        self.connection.close()

    def failure(self, health: Health) -> str:
        """Return in words what is wrong with the answer, as it goes on after "the worker"; "" if it is accepted."""
        if self.error:
            return self.error
        waited = f"within {round(time.monotonic() - self._asked, 1):g} s"
        if not self._size:
            return "closed the connection without an answer" if self.ended else f"gave no answer {waited}"
        response = http.client.HTTPResponse(cast(socket.socket, _Replay(self._kept)))
        try:
            response.begin()
        except http.client.HTTPException:
            return f"answered what is not HTTP: {_shown(self._kept)}"
        body, cut = _body(response)
        to = f" to {_shown(location.encode())}" if (location := response.getheader("Location")) else ""
        said = f"answered {response.status}{to} ({_shown(body) or 'an empty body'})"
        if response.status not in health.status:
            return said
        if not self.ended:
            return f"{said} and did not end that {waited}"
        return f"{said} and closed the connection in the middle of that" if cut and self._size <= KEPT_BYTES else ""

    def led_to_https(self) -> str:
        """Return in words that a web server, known by the page it sends along, led to HTTPS by itself; "" otherwise."""
        response = http.client.HTTPResponse(cast(socket.socket, _Replay(self._kept)))
        response.begin()
        location, page = response.getheader("Location", ""), _body(response)[0]
        if not location.startswith("https:") or not any(mark in page for mark in PAGES):
            return ""
        return (
            f"led to {_shown(location.encode())} by itself, which says nothing of the app: "
            "set release_url to where it serves HTTPS"
        )


class _Replay:
    """Has of a socket what HTTPResponse needs."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> io.BytesIO:
        """Return what was received."""
        return io.BytesIO(self._data)


def _body(response: http.client.HTTPResponse) -> tuple[bytes, bool]:
    """Return what there is of the body, and whether that is less than was announced."""
    try:
        return response.read(), False
    except http.client.IncompleteRead as error:
        return error.partial, True


def _shown(data: bytes) -> str:
    """Return the beginning of what was received, fit for a line of a terminal."""
    text = data[: 10 * SHOWN_CHARACTERS].decode("utf-8", "replace")
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:SHOWN_CHARACTERS]


def _ask_all(socket_path: str, health: Health, count: int, asked: list[_Answer]) -> None:
    """Make `count` connections, wait until each is accepted, then ask on all; they are appended to `asked`."""
    packet = _packet(health)
    deadline = time.monotonic() + ACCEPT_SECONDS
    for _ in range(count):
        answer = _Answer(socket.socket(socket.AF_UNIX))
        asked.append(answer)
        # While the queue is full connect(2) blocks, and a Python timeout would make it fail at once instead.
        seconds, fraction = divmod(max(deadline - time.monotonic(), 0.001), 1)
        limit = struct.pack("@ll", int(seconds), int(fraction * 1e6))
        answer.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        try:
            answer.connection.connect(socket_path)
        except OSError as error:
            answer.end(f"could not be reached at {socket_path} ({error.strerror})")
            continue
        answer.send(packet[:-1])
    while waiting(socket_path) and time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
    for answer in asked:
        if not answer.ended:
            answer.send(packet[-1:])


def _read(asked: list[_Answer], seconds: float) -> None:
    """Receive what comes on all connections until all answers have ended, or the time is over."""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        for answer in asked:
            if not answer.ended:
                selector.register(answer.connection, selectors.EVENT_READ, answer)
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                key.data.take()
                if key.data.ended:
                    selector.unregister(key.fileobj)


def _allow_files(number: int) -> None:
    """Let this process have so many files open, or as many as it may; 1024 are the default."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    limits = [limit for limit in (number, most) if limit != resource.RLIM_INFINITY]
    if resource.RLIM_INFINITY != now < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits), most))


def waiting(socket_path: str) -> int:
    """Return how many connections to a listening unix socket nobody has accepted yet; 0 if it does not listen.

    Args:
        socket_path: the path that it is bound to.

    Raises:
        OSError: that cannot be seen.
    """
    command = ["ss", "--unix", "--listening", "--numeric", "--no-header", "src", socket_path]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"`{' '.join(command)}` ended with exit code {done.returncode}: {done.stderr.strip()}")
    # Type, state, Recv-Q and the rest.
    line = done.stdout.split()
    return int(line[2]) if line else 0


def _packet(health: Health) -> bytes:
    """Return the question in the uwsgi protocol: the variables that nginx sends for it.

    A header of 4 bytes (kind, 0 for WSGI; size of the rest, 16 bits little endian; variant, 0), then name and value of
    each variable, each with its size (16 bits little endian) before it.
    """
    path, _, query = health.path.partition("?")
    variables: dict[str, str | bytes] = {
        "QUERY_STRING": query,
        "REQUEST_METHOD": "GET",
        "CONTENT_TYPE": "",
        "CONTENT_LENGTH": "",
        "REQUEST_URI": health.path,
        "SCRIPT_NAME": "",
        "PATH_INFO": urllib.parse.unquote_to_bytes(path),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REQUEST_SCHEME": "http",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_PORT": "0",
        "SERVER_PORT": "80",
        "SERVER_NAME": health.host,
        "HTTP_HOST": _host_header(health),
        "HTTP_USER_AGENT": AGENT,
        "HTTP_X_FORWARDED_PROTO": "http",
    }
    block = b""
    for name, value in variables.items():
        for data in (name.encode(), value if isinstance(value, bytes) else value.encode()):
            block += struct.pack("<H", len(data)) + data
    return struct.pack("<BHB", 0, len(block), 0) + block


def _host_header(health: Health) -> str:
    """Return the value of the Host header."""
    return f"[{health.host}]" if ":" in health.host else health.host


def _ask_website(url: str, health: Health) -> str:
    """Ask the web server once, and return what is wrong with the answer, "" if it is accepted."""
    parts = urllib.parse.urlsplit(url)
    host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]
    request = (
        f"GET {parts.path or '/'}{'?' if parts.query else ''}{parts.query} HTTP/1.1\r\n"
        f"Host: {_host_header(health)}\r\nUser-Agent: {AGENT}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )
    deadline = time.monotonic() + health.timeout
    try:
        connection = socket.create_connection((host, port), health.timeout)
        if parts.scheme == "https":
            connection = _context(host).wrap_socket(connection, server_hostname=health.host)
    except OSError as error:
        return f"could not be reached ({error.strerror or error})"
    answer = _Answer(connection)
    answer.send(request.encode())
    with connection, contextlib.suppress(TimeoutError):  # what has come until then tells
        while not answer.ended and (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            answer.take()
    return answer.failure(health) or ("" if parts.scheme == "https" else answer.led_to_https())


def _context(host: str) -> ssl.SSLContext:
    """Return how a certificate is verified: not at all where the connection does not leave this host."""
    context = ssl.create_default_context()
    if host == "localhost" or _is_loopback(host):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
