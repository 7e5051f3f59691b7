"""An open-loop HTTP client: requests leave at a fixed rate whatever the answers do, and none is sent again.

    python tests/load/client.py http://127.0.0.1:8180 --rate 80 --out FILE    until its standard input is closed
    python tests/load/client.py http://127.0.0.1:8180 --burst 512 --out FILE  that many connections at once

By https:// it takes any certificate. --reopen is for a web server that is reloaded: it closes the connections that wait
for their next request. Then visitors open others, and send again what crossed the close: RFC 9112, 9.3.1.

Latency counts from the moment a request was scheduled for, so a client that falls behind shows it. The app that answers
is tests/apps/slow, which tells its release and repeats what it was sent: an answer to another request is noticed.
FILE takes one JSON list for each request, in the order of Record's fields. Standard library only.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import hashlib
import json
import math
import ssl
import sys
import time
import urllib.parse
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, replace
from pathlib import Path

# Which kind of request follows which. SLOW_RATE of them are slow ones instead, evenly, so that at any moment about one
# is being answered, and a switch meets one.
MIX = ("keep-alive", "post", "keep-alive", "new")
SLOW_RATE = 2.0  # requests per second
SLOW_SECONDS = 0.5
BODY = bytes(range(256)) * 32  # 8 KiB of a POST
POOL = 8  # idle connections that are kept
TIMEOUT = 60.0  # seconds, from the moment a request is sent
LONGEST = 3600.0  # seconds after which the client ends in any case


@dataclass(frozen=True)
class Record:
    """One request and what became of it.

    Attributes:
        kind: one of MIX, or "slow".
        scheduled: when it was due, seconds since the epoch.
        sent: when the client began with it, seconds since the epoch.
        latency: seconds from ``scheduled`` to the end of its answer, or to its fault.
        status: of the answer; 0 without one.
        release: that answered; empty without one.
        fault: what went wrong, in a few words; empty for a good answer.
    """

    kind: str
    scheduled: float
    sent: float
    latency: float
    status: int
    release: str
    fault: str


@dataclass(frozen=True)
class Summary:
    """How a set of requests went: how many, how many failed, and the latencies (seconds) of those that are not slow."""

    requests: int
    failed: int
    p50: float
    p99: float
    longest: float


class FaultError(Exception):
    """A request that failed, and how."""


class UnansweredError(FaultError):
    """A request that failed without a byte of an answer."""


# -- pure -------------------------------------------------------------------------------------------------------------


def due(number: int, rate: float) -> float:
    """Return when request ``number`` (from 0) is due: seconds after the start, at ``rate`` requests per second."""
    return number / rate


def kind_of(number: int, rate: float) -> str:
    """Return which kind request ``number`` is, at ``rate`` requests per second: SLOW_RATE of them are slow."""
    slow_every = max(1, round(rate / SLOW_RATE))
    return "slow" if number % slow_every == slow_every - 1 else MIX[number % len(MIX)]


def percentile(values: Iterable[float], share: float) -> float:
    """Return the smallest value that at least ``share`` (above 0, up to 1) of the values do not exceed.

    Raises:
        ValueError: there are no values.
    """
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    return ordered[math.ceil(share * len(ordered)) - 1]


def summary(records: Sequence[Record]) -> Summary:
    """Return how these requests went; without a latency to speak of, the latencies are nan."""
    # A slow request takes as long as it was asked to: it would hide what the others meet.
    latencies = [record.latency for record in records if record.kind != "slow"] or [math.nan]
    failed = sum(1 for record in records if record.fault)
    return Summary(
        len(records), failed, percentile(latencies, 0.5), percentile(latencies, 0.99), percentile(latencies, 1)
    )


def during(records: Iterable[Record], begin: float, end: float) -> list[Record]:
    """Return the requests that were due from ``begin`` on and before ``end``, seconds since the epoch."""
    return [record for record in records if begin <= record.scheduled < end]


def windows(switches: Iterable[float], before: float, after: float) -> list[tuple[float, float]]:
    """Return begin and end of the time around each switch, from ``before`` to ``after`` it; all in seconds."""
    return [(switch - before, switch + after) for switch in switches]


def tiles(
    spans: Iterable[tuple[float, float]], length: float, apart: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    """Return windows of one length, one after the other in each span, that share no time with the spans ``apart``.

    Args:
        spans: begin and end, seconds since the epoch.
        length: of a window, seconds.
        apart: begin and end of what the windows are to be compared with, seconds since the epoch.
    """
    found = []
    for begin, end in spans:
        at = begin
        while at + length <= end:
            met = [stop for start, stop in apart if start < at + length and at < stop]
            if not met:
                found.append((at, at + length))
            at = max(met, default=at + length)
    return found


def outdated(records: Iterable[Record], switches: Sequence[tuple[float, str]], tolerance: float) -> list[Record]:
    """Return the answers of a release other than the one that was live when their request was sent.

    Args:
        records: what the client noted.
        switches: when each release went live, seconds since the epoch, and its name; in the order of time.
        tolerance: seconds after a switch in which both releases may answer: how exactly ``switches`` was measured.
    """
    found = []
    for record in records:
        live = [name for at, name in switches if at + tolerance <= record.sent]
        later = {name for at, name in switches if record.sent < at + tolerance}
        # The switch may come between sending and answering, so a release that goes live later is no fault.
        if live and record.release and record.release != live[-1] and record.release not in later:
            found.append(record)
    return found


def read(path: Path) -> list[Record]:
    """Return what a client wrote, in the order in which requests were due."""
    records = [Record(*json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted(records, key=lambda record: record.scheduled)


# -- the wire ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Connection:
    """One connection to the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used: bool = False

    def close(self) -> None:
        """Close it at once."""
        self.writer.transport.abort()

    async def exchange(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send a request; return status, headers with lower-case names, and body.

        Raises:
            FaultError: the answer is not a whole one.
            OSError: the connection broke.
        """
        self.writer.write(request)
        await self.writer.drain()
        try:
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        except asyncio.IncompleteReadError as error:
            if error.partial:
                raise FaultError("closed in the headers") from None
            raise UnansweredError("closed without an answer") from None
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:-2])}
        if "content-length" not in headers:
            raise FaultError("no length")
        try:
            body = await self.reader.readexactly(int(headers["content-length"]))
        except asyncio.IncompleteReadError as error:
            raise FaultError(f"short body: {len(error.partial)} of {headers['content-length']} bytes") from None
        return int(head[0].split()[1]), headers, body


class Client:
    """Sends requests to one server and notes what becomes of each; ``records`` is what it noted."""

    def __init__(self, url: str, *, reopen: bool = False) -> None:
        """Take the server's address, http://host:port or https://host:port, and whether it may close what is idle."""
        parts = urllib.parse.urlsplit(url)
        self.host, self.port, self.reopen = parts.hostname or "", parts.port or 80, reopen
        self.tls = None
        if parts.scheme == "https":
            self.port, self.tls = parts.port or 443, ssl.create_default_context()
            self.tls.check_hostname, self.tls.verify_mode = False, ssl.CERT_NONE
        self.idle: collections.deque[Connection] = collections.deque()
        self.records: list[Record] = []
        # Latencies by the clock that never jumps, times of day by the one that the hosts share.
        self.epoch = time.time() - time.monotonic()

    async def connect(self) -> Connection:
        """Open a connection.

        Raises:
            OSError: it was refused or reset, or TLS failed.
        """
        return Connection(*await asyncio.open_connection(self.host, self.port, ssl=self.tls))

    async def connection(self, kind: str) -> Connection:
        """Return the connection for a request: for "keep-alive" one that is idle, if there is one.

        Raises:
            FaultError: the server has closed the idle one, and may not.
            OSError: a new one was refused or reset.
        """
        if kind != "keep-alive" or not self.idle:
            return await self.connect()
        # The one that was idle longest: in turn, all of them are used, and a closed one is noticed.
        kept = self.idle.popleft()
        if kept.reader.at_eof() or kept.writer.transport.is_closing():
            kept.close()
            if not self.reopen:
                raise FaultError("closed while idle")
            return await self.connection(kind)
        return kept

    def message(self, kind: str, number: int) -> tuple[bytes, str, bytes]:
        """Return the bytes of a request, its query and its body; the number makes each query another."""
        query = f"n={number}" + (f"&sleep={SLOW_SECONDS}" if kind == "slow" else "")
        body = BODY if kind == "post" else b""
        lines = [f"{'POST' if body else 'GET'} /?{query} HTTP/1.1", f"Host: {self.host}:{self.port}"]
        lines += [f"Content-Length: {len(body)}", "Content-Type: application/octet-stream"] if body else []
        lines += [] if kind == "keep-alive" else ["Connection: close"]
        return "\r\n".join([*lines, "", ""]).encode() + body, query, body

    async def ask(self, kind: str, number: int) -> tuple[int, str, str]:
        """Send one request and judge its answer; return status, release and fault."""
        status, connection = 0, None
        try:
            request, query, body = self.message(kind, number)
            connection = await self.connection(kind)
            try:
                status, headers, answer = await connection.exchange(request)
            except (UnansweredError, ConnectionResetError):
                if not (self.reopen and connection.used):
                    raise
                connection.close()
                connection = await self.connect()
                status, headers, answer = await connection.exchange(request)
            if status != 200:
                raise FaultError(f"status {status}")
            told = json.loads(answer)
            if (told["query"], told["length"], told["sha256"]) != (query, len(body), hashlib.sha256(body).hexdigest()):
                raise FaultError("wrong body")
            if kind == "keep-alive" and headers.get("connection") != "close" and len(self.idle) < POOL:
                self.idle.append(replace(connection, used=True))
                connection = None
            return status, told["release"], ""
        except FaultError as error:
            return status, "", str(error)
        except OSError as error:
            return status, "", type(error).__name__
        except (ValueError, KeyError, TypeError, IndexError):
            return status, "", "wrong body"
        finally:
            if connection is not None:
                connection.close()

    async def request(self, kind: str, number: int, scheduled: float) -> None:
        """Send one request and note it; ``scheduled`` is when it was due, on the monotonic clock."""
        sent = time.monotonic()
        try:
            async with asyncio.timeout(TIMEOUT):
                status, release, fault = await self.ask(kind, number)
        except TimeoutError:
            status, release, fault = 0, "", f"no answer in {TIMEOUT:.0f} s"
        latency = time.monotonic() - scheduled
        self.records.append(Record(kind, self.epoch + scheduled, self.epoch + sent, latency, status, release, fault))

    async def steady(self, rate: float, stop: asyncio.Event) -> None:
        """Send ``rate`` requests per second until told to stop, and wait for the last answers."""
        begin, number = time.monotonic(), 0
        async with asyncio.TaskGroup() as requests:
            while not stop.is_set() and time.monotonic() < begin + LONGEST:
                scheduled = begin + due(number, rate)
                await asyncio.sleep(max(0.0, scheduled - time.monotonic()))
                requests.create_task(self.request(kind_of(number, rate), number, scheduled))
                number += 1
        while self.idle:
            self.idle.pop().close()

    async def burst(self, size: int, kind: str) -> None:
        """Send ``size`` requests of one kind at once, each on a connection of its own."""
        now = time.monotonic()
        async with asyncio.TaskGroup() as requests:
            for number in range(size):
                requests.create_task(self.request(kind, number, now))


async def until_closed(stop: asyncio.Event) -> None:
    """Set ``stop`` when standard input is closed: by whoever started the client, or by the end of that."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()
    stop.set()


async def run(client: Client, rate: float, burst: int, slow: bool) -> list[Record]:
    """Send a burst of that size or, with none, ``rate`` requests per second; return what was noted."""
    if burst:
        await client.burst(burst, "slow" if slow else "new")
        return client.records
    stop = asyncio.Event()
    watch = asyncio.create_task(until_closed(stop))
    await client.steady(rate, stop)
    watch.cancel()
    with suppress(asyncio.CancelledError):
        await watch
    return client.records


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, default=80, help="requests per second")
    parser.add_argument("--burst", type=int, default=0, help="so many connections at once, instead of a rate")
    parser.add_argument("--slow", action="store_true", help="slow requests in the burst")
    parser.add_argument("--reopen", action="store_true", help="no fault: a connection that was closed while idle")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    client = Client(arguments.url, reopen=arguments.reopen)
    records = asyncio.run(run(client, arguments.rate, arguments.burst, arguments.slow))
    arguments.out.write_text("".join(json.dumps(astuple(record)) + "\n" for record in records), encoding="utf-8")


if __name__ == "__main__":
    main()
