"""What the load test's client decides without a server, and how it judges answers of one that misbehaves."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple, replace
from pathlib import Path

import client
import picture
import pytest
from ansible_collections.slipway.wsgi.plugins.module_utils.certificates import self_signed

GOOD = client.Record("new", 100.0, 100.0, 0.01, 200, "a", "")


def test_requests_are_due_at_a_fixed_rate() -> None:
    """The n-th one is due n intervals after the start, whatever happened to those before."""
    assert [client.due(number, 80) for number in (0, 1, 80, 4000)] == [0, 0.0125, 1, 50]


def test_the_mix_has_all_kinds_and_slow_ones_evenly() -> None:
    """Of 80 requests a second two are slow, half a second apart, and half of the rest are on kept connections."""
    kinds = [client.kind_of(number, 80) for number in range(800)]
    assert set(kinds) == {*client.MIX, "slow"}
    assert [number for number, kind in enumerate(kinds) if kind == "slow"] == list(range(39, 800, 40))
    assert Counter(kinds)["keep-alive"] == 400


@pytest.mark.parametrize(
    ("share", "value"), [(0.01, 1), (0.5, 50), (0.99, 99), (0.991, 100), (1, 100)], ids=["1", "50", "99", "99.1", "100"]
)
def test_percentiles(share: float, value: float) -> None:
    """It is one of the values, in whatever order they come."""
    assert client.percentile(range(100, 0, -1), share) == value


def test_a_percentile_of_nothing_is_an_error() -> None:
    """Nothing measured is not a good figure."""
    with pytest.raises(ValueError, match="no values"):
        client.percentile([], 0.99)


def test_a_summary_counts_every_fault_and_leaves_out_slow_latencies() -> None:
    """A slow request that fails counts as failed; its latency says nothing."""
    slow = replace(GOOD, kind="slow", latency=0.5, fault="status 502")
    assert client.summary([GOOD, slow]) == client.Summary(2, 1, 0.01, 0.01, 0.01)
    assert math.isnan(client.summary([slow]).p99)


def test_windows_and_what_is_in_them() -> None:
    """The begin belongs to a window, the end does not."""
    spans = client.windows([100, 110], 1, 2)
    assert spans == [(99, 102), (109, 112)]
    records = [replace(GOOD, scheduled=at) for at in (98.9, 99, 101.9, 102, 105, 109, 112)]
    inside = [record.scheduled for span in spans for record in client.during(records, *span)]
    assert inside == [99, 101.9, 109]


@pytest.mark.parametrize(
    ("spans", "apart", "found"),
    [
        ([(0, 10)], [], [(0, 3), (3, 6), (6, 9)]),
        ([(0, 10)], [(4, 7)], [(0, 3), (7, 10)]),
        ([(0, 10)], [(3, 6), (5, 7)], [(0, 3), (7, 10)]),
        ([(0, 10)], [(2, 8)], []),
        ([(0, 2), (20, 23)], [], [(20, 23)]),
        ([(5, 9)], [(0, 5), (8, 20)], [(5, 8)]),
    ],
    ids=["alone", "around a switch", "two at once", "no room", "a short one", "between"],
)
def test_windows_without_a_switch(
    spans: list[tuple[float, float]], apart: list[tuple[float, float]], found: list[tuple[float, float]]
) -> None:
    """They are as long as a switch, and share no time with one."""
    assert client.tiles(spans, 3, apart) == found


@pytest.mark.parametrize(
    ("sent", "release", "found"),
    [
        (104.9, "a", False),
        (105.05, "a", False),
        (105.2, "a", True),
        (105.2, "b", False),
        (109.99, "c", False),
        (111, "b", True),
        (111, "a", True),
        (111, "stranger", True),
        (111, "", False),
    ],
    ids=["before", "in the tolerance", "after", "new", "overtaken", "b after c", "a after c", "a stranger", "a fault"],
)  # fmt: skip
def test_outdated_answers(sent: float, release: str, found: bool) -> None:
    """After a switch, and the tolerance of its time, only the live release may answer, or one that goes live later."""
    record = replace(GOOD, sent=sent, release=release)
    switches = [(0.0, "a"), (105.0, "b"), (110.0, "c")]
    assert client.outdated([record], switches, 0.1) == ([record] if found else [])


def test_what_is_written_is_read_in_the_order_of_the_schedule(tmp_path: Path) -> None:
    """Requests end in another order than they were due in."""
    late = replace(GOOD, scheduled=101.0)
    (tmp_path / "out").write_text("".join(json.dumps(astuple(record)) + "\n" for record in (late, GOOD)))
    assert client.read(tmp_path / "out") == [GOOD, late]


def answer(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    """Give the bytes of an answer; its length may be said wrong."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


# In an answer after which the server reads one more request, and closes the connection without an answer to it.
KEPT = b"X-Kept: yes"


def good(query: str) -> bytes:
    """Give the body of a right answer to a GET."""
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    return json.dumps({"release": "a", "query": query, "length": 0, "sha256": empty}).encode()


def ask(
    serve: Callable[[int], bytes | None], kinds: list[str], *, tls: ssl.SSLContext | None = None, reopen: bool = False
) -> list[tuple[int, str, str]]:
    """Send requests one after the other to a server that answers the n-th by ``serve(n)``; None resets.

    Returns status, release and fault of each. After each answer the server closes the connection.
    """

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        answered = serve(int(request.partition(b"n=")[2].split()[0]))
        if answered and KEPT in answered:
            # The next request on this connection crosses its close.
            writer.write(answered)
            await reader.readuntil(b"\r\n\r\n")
            answered = None
        if answered is None:
            writer.transport.abort()
        else:
            writer.write(answered)
            writer.close()

    async def main() -> list[tuple[int, str, str]]:
        server = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
        scheme = "https" if tls else "http"
        one = client.Client(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}", reopen=reopen)
        told = []
        for number, kind in enumerate(kinds):
            told.append(await one.ask(kind, number))
            await asyncio.sleep(0.05)  # the server's close arrives
        server.close()
        return told

    return asyncio.run(asyncio.wait_for(main(), 20))


@pytest.mark.parametrize(
    ("served", "status", "fault"),
    [
        (answer(b"bad", "502 Bad Gateway"), 502, "status 502"),
        (answer(b"short", length=100), 0, "short body: 5 of 100 bytes"),
        (answer(good("n=7")), 200, "wrong body"),
        (answer(b"no json"), 200, "wrong body"),
        (b"HTTP/1.1 200 OK\r\n\r\n", 0, "no length"),
        (b"HTTP/1.1 200", 0, "closed in the headers"),
        (b"", 0, "closed without an answer"),
        (answer(good("n=0")), 200, ""),
    ],
    ids=["502", "short", "of another request", "no json", "no length", "half", "nothing", "good"],
)
def test_answers_are_judged(served: bytes, status: int, fault: str) -> None:
    """Anything but a whole and right answer is a fault, and it has a name."""
    assert ask(lambda _: served, ["new"]) == [(status, "" if fault else "a", fault)]


def test_an_idle_connection_that_was_closed_is_a_fault_and_not_opened_again() -> None:
    """The request on it is not sent anew; the next one has a new connection."""
    told = ask(lambda number: answer(good(f"n={number}")), ["keep-alive"] * 3)
    assert [fault for _, _, fault in told] == ["", "closed while idle", ""]


def test_a_web_server_that_is_reloaded_may_close_an_idle_connection() -> None:
    """Then the request goes by a new one: nothing was sent on the old one."""
    told = ask(lambda number: answer(good(f"n={number}")), ["keep-alive"] * 3, reopen=True)
    assert [fault for _, _, fault in told] == ["", "", ""]


@pytest.mark.parametrize("reopen", [True, False])
def test_what_crosses_the_close_of_an_idle_connection_is_sent_again_only_then(reopen: bool) -> None:
    """By a new connection, and once: on that one it would be a fault."""

    def serve(number: int) -> bytes:
        answered = answer(good(f"n={number}"))
        return answered if number else answered.replace(b"\r\n", b"\r\n" + KEPT + b"\r\n", 1)

    told = ask(serve, ["keep-alive"] * 2, reopen=reopen)
    assert [bool(fault) for _, _, fault in told] == [False, not reopen]


def test_by_https_any_certificate_will_do(tmp_path: Path) -> None:
    """The certificate is not what is tested."""
    chain, key = self_signed("other", ["other"])
    (tmp_path / "pair").write_text(key + chain)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "pair")
    assert ask(lambda number: answer(good(f"n={number}")), ["new"], tls=context) == [(200, "a", "")]


def test_a_refused_connection_is_a_fault() -> None:
    """Nobody listens on the discard port."""
    assert asyncio.run(client.Client("http://127.0.0.1:9").ask("new", 0)) == (0, "", "ConnectionRefusedError")


def test_the_picture_has_a_line_for_each_switch_and_a_mark_for_each_fault() -> None:
    """It is drawn of good, slow and failed requests."""
    records = [replace(GOOD, scheduled=100 + at / 10) for at in range(100)]
    records.append(replace(GOOD, scheduled=110.5, fault="status 502"))
    drawn = picture.draw("title", records, [103, 106], 110)
    assert drawn.count('class="switch"') == 2
    assert drawn.count('class="failed"') == 1
