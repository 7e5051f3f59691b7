"""Raw bytes that no client library would send, to an app that tells what reached it.

Each case says which answers come back, and what the app saw. An answer more than expected is a smuggled request, one of
5xx is a fault that a visitor can provoke, and a process that is another one afterwards did not survive.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import itertools
import re
import socket
import ssl
import string
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
from conftest import APP, ROOT, Answer, Run, Site, WebServer, await_that, live_release, pids
from testinfra.host import Host
from wire import frame, hpack, status_of

NAME = "www.example.org"
HOST = b"Host: www.example.org\r\n"
CLOSE = b"Connection: close\r\n"
GET = b"GET /x HTTP/1.1\r\n" + HOST
POST = b"POST /x HTTP/1.1\r\n" + HOST
# A whole request, where a body or nothing is expected: answered, it was smuggled.
HIDDEN = b"GET /hidden HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
CHUNKED = POST + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n"

# Never the visitor's word: what programs take their proxy from, and what is the server's to say.
NEVER = (
    "HTTP_PROXY", "HTTP_TRANSFER_ENCODING", "HTTP_CONTENT_LENGTH", "HTTP_CONTENT_TYPE", "HTTP_X_FORWARDED_SSL",
)  # fmt: skip

ECHO: dict[str, Any] = {
    "release_source": str(ROOT / "tests" / "apps" / "echo"),
    "release_requirements": [],
    "release_health_path": "/x",
    "app_static": {"/static/": "static"},
    "web_server_names": [NAME],
    # Both ports lead to the app, or half of the cases would end at the redirect.
    "web_redirect": False,
    # After so long nginx ends what says nothing, or nothing that makes sense.
    "web_client_header_timeout": 4,
}


# What Apache answers where nginx answers something else, by test and case, "" for all. Why is said in
# docs/how-to/web-servers.md.
CHUNKED_IS_REFUSED = (411,)
STRICTER = (400,)
APACHE: dict[str, dict[str, tuple[int, ...]]] = {
    "test_an_ambiguous_end_is_refused": dict.fromkeys(
        ("cl_te", "te_cl", "te_folded", "te_in_http_1_0", "chunk_size_no_number", "chunk_size_negative",
         "chunk_size_plus", "chunk_size_0x", "chunk_size_empty", "chunk_size_beyond_64_bits", "chunk_size_largest",
         "chunk_size_all_ones", "chunk_shorter_than_its_data"),
        CHUNKED_IS_REFUSED,
    ),
    "test_no_other_transfer_coding_is_guessed": {"after_a_tab": CHUNKED_IS_REFUSED},
    "test_a_chunked_body_arrives_whole": {"": CHUNKED_IS_REFUSED},
    "test_chunked_in_any_letters": {"": CHUNKED_IS_REFUSED},
    "test_a_body_that_the_app_does_not_read": {"chunked": CHUNKED_IS_REFUSED},
    "test_a_malformed_request_is_refused": {
        "folded": (200,), "folded_by_tab": (200,), "asterisk_of_options": (200,), "connect": (400, 421),
    },
    "test_methods_that_nobody_needs": {"connect": (400,)},
    "test_what_is_odd_but_clear_is_served": dict.fromkeys(
        ("lf_only", "line_without_colon", "spaces_between", "bytes_above_127", "control_characters", "odd_name"),
        STRICTER,
    ),
    "test_big_headers_reach_the_app": {"many_short": STRICTER, "the_most": STRICTER},
    "test_another_host_is_not_answered": {"absolute": (200, 421), "": (421, 400)},
    "test_the_app_knows_one_host": dict.fromkeys(
        ("absolute_with_another_host", "absolute_of_no_scheme_known", "port_and_more", "no_port", "port_0",
         "port_65536", "two_ports"), (200, 400, 421),
    ),
    "test_a_path_that_is_none": {
        "/%00": (404,), "/a%00b": (404,), "/static/robots.txt%00": (404,), "/static/robots.txt%00.jpg": (404,),
        "/..%2f..%2fetc%2fpasswd": (200,), "/static/..%2f..%2fetc/passwd": (200,),
    },
    "test_the_path_that_the_app_sees": {"/a#b": STRICTER},
    "test_no_way_out_of_a_static_directory": {"path7": (403,)},
}  # fmt: skip


class Deployed(NamedTuple):
    """When the echo app was up on a host, in seconds since 1970, and the processes of nginx and of the app."""

    since: str
    processes: list[str]


class Lasting(io.BytesIO):
    """Bytes that were received, as http.client wants to read them: a socket whose file outlives an answer."""

    def makefile(self, _mode: str) -> Lasting:
        """Return the file of this socket."""
        return self

    def close(self) -> None:
        """Stay open: there may be another answer."""


def answers(received: bytes, method: str = "GET") -> list[Answer]:
    """Return all answers in what was received; anything else in there is an error."""
    file, found = Lasting(received), []
    while file.tell() < len(received):
        answer = http.client.HTTPResponse(file, method=method)  # type: ignore[arg-type]
        answer.begin()
        found.append(Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()))
    assert len(re.findall(rb"HTTP/1\.[01] [2-9]\d\d ", received)) == len(found), "an answer is hidden in another"
    return found


def exchange(site: Site, sent: bytes, tls: bool = False, ended: bool = False) -> bytes:
    """Send bytes, say that they are ``ended`` (no TLS), and return all that comes until the server closes."""
    received = b""
    with site.connect(tls, NAME) as connection, contextlib.suppress(ConnectionError, ssl.SSLError):
        # Who is refused before all was sent can still read why.
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            connection.sendall(sent)
            if ended:
                connection.shutdown(socket.SHUT_WR)
        while chunk := connection.recv(65536):
            received += chunk
    return received


def seen(site: Site) -> dict[str, Any]:
    """Return what the app saw since the last time, and which of its processes says so."""
    answer = site.get("/seen", name=NAME)
    assert answer.status == 200, answer
    told: dict[str, Any] = answer.json()
    return told


@pytest.fixture(scope="module")
def deployed(hosts: dict[str, Host], playbook: Callable[..., Run]) -> Iterator[dict[str, Deployed]]:
    """Serve the echo app by one name; at the end the scenario's own app by its own inputs."""
    run = playbook("site.yml", **ECHO)
    assert run.code == 0, run.output
    yield {name: Deployed(host.check_output("date +%s"), pids(host)) for name, host in hosts.items()}
    run = playbook("site.yml")
    assert run.code == 0, run.output


@dataclass(frozen=True)
class Echo(Site):
    """The echo app's site, and what is answered where it is not what the test says; see ``APACHE``."""

    instead: tuple[int, ...] = ()


@pytest.fixture
def echo(
    request: pytest.FixtureRequest, web: WebServer, site: Site, host: Host, deployed: dict[str, Deployed]
) -> Iterator[Echo]:
    """The echo app's site: it answers before and after each case, by the same processes."""
    processes = {int(line.split()[0]) for line in deployed[host.backend.get_hostname()].processes}
    seen(site)
    known = web.either({}, APACHE).get(request.node.originalname, {})
    case = [name for name in known if name in request.node.callspec.id.split("-")]
    yield Echo(site.port, site.tls_port, known[case[0]] if case else known.get("", ()))
    told = seen(site)
    assert not told["seen"], "the app saw more than the test looked at"
    assert {told["worker"], told["master"]} <= processes


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
def tls(request: pytest.FixtureRequest) -> bool:
    """Whether the bytes go by TLS."""
    return bool(request.param)


def check(site: Echo, sent: bytes, tls: bool, statuses: tuple[int, ...], *expected: dict[str, Any]) -> list[Answer]:
    """Send bytes; there are as many answers as statuses, and the app saw as many requests as are expected."""
    method = sent.split(b" ", 1)[0].decode("latin-1")
    got = answers(exchange(site, sent, tls), method)
    told = seen(site)["seen"]
    if site.instead:
        # What is refused is nothing for the app; then the connection ends, or the next request is the next one.
        assert got[0].status in site.instead, got
        assert len(told) <= sum(answer.status == 200 for answer in got)
        assert {one["environ"]["HTTP_HOST"] for one in told} <= {NAME}
        return got
    assert tuple(answer.status for answer in got) == statuses, got
    assert len(told) == len(expected), told
    for request, wanted in zip(told, expected, strict=True):
        environ = request["environ"]
        scheme = "https" if tls else "http"
        wanted = {"HTTP_HOST": NAME, "HTTP_X_FORWARDED_PROTO": scheme} | wanted
        assert request["scheme"] == scheme
        assert not set(NEVER) & set(environ), environ
        assert request["read"] == wanted.pop("read", 0)
        assert {name: environ.get(name) for name in wanted} == wanted
    return got


def cases(**sent: bytes) -> pytest.MarkDecorator:
    """Parametrize a test by named cases."""
    return pytest.mark.parametrize("case", [pytest.param(case, id=name) for name, case in sent.items()])


X = {"REQUEST_METHOD": "GET", "PATH_INFO": "/x"}
READ = {"REQUEST_METHOD": "POST", "PATH_INFO": "/x", "CONTENT_LENGTH": "3", "read": 3}


# --- Where a request ends: the two ways of saying so, together or garbled.


@cases(
    cl_te=POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    te_cl=POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n" + HIDDEN,
    te_space_before_colon=POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    te_twice=POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    te_and_identity=POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n" + HIDDEN,
    te_nul=POST + b"Transfer-Encoding: chunked\0\r\n\r\n0\r\n\r\n" + HIDDEN,
    te_folded=POST + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    te_in_http_1_0=b"POST /x HTTP/1.0\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
    cl_twice=POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc" + HIDDEN,
    cl_twice_differing=POST + b"Content-Length: 3\r\nContent-Length: 0\r\n\r\nabc" + HIDDEN,
    cl_list=POST + b"Content-Length: 3, 3\r\n\r\nabc" + HIDDEN,
    cl_negative=POST + b"Content-Length: -1\r\n\r\nabc" + HIDDEN,
    cl_plus=POST + b"Content-Length: +3\r\n\r\nabc" + HIDDEN,
    cl_hexadecimal=POST + b"Content-Length: 0x3\r\n\r\nabc" + HIDDEN,
    cl_two_numbers=POST + b"Content-Length: 3 3\r\n\r\nabc" + HIDDEN,
    cl_fraction=POST + b"Content-Length: 3.0\r\n\r\nabc" + HIDDEN,
    cl_empty=POST + b"Content-Length:\r\n\r\nabc" + HIDDEN,
    cl_beyond_64_bits=POST + b"Content-Length: 18446744073709551619\r\n\r\nabc" + HIDDEN,
    chunk_size_no_number=CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n" + HIDDEN,
    chunk_size_negative=CHUNKED + b"-1\r\nabc\r\n0\r\n\r\n" + HIDDEN,
    chunk_size_plus=CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n" + HIDDEN,
    chunk_size_0x=CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n" + HIDDEN,
    chunk_size_empty=CHUNKED + b"\r\nabc\r\n0\r\n\r\n" + HIDDEN,
    chunk_size_beyond_64_bits=CHUNKED + b"10000000000000003\r\nabc\r\n0\r\n\r\n" + HIDDEN,
    chunk_size_largest=CHUNKED + b"7FFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n" + HIDDEN,
    chunk_size_all_ones=CHUNKED + b"FFFFFFFFFFFFFFFF\r\nabc\r\n0\r\n\r\n" + HIDDEN,
    chunk_shorter_than_its_data=CHUNKED + b"2\r\nabc\r\n0\r\n\r\n" + HIDDEN,
    static_file_with_a_bad_chunk=b"GET /static/robots.txt HTTP/1.1\r\n" + HOST
    + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + HIDDEN,
)  # fmt: skip
def test_an_ambiguous_end_is_refused(echo: Echo, case: bytes, tls: bool) -> None:
    """Nobody guesses where a request ends: 400, and what follows is no request."""
    check(echo, case, tls, (400,))


@cases(
    unknown=b"xchunked", list=b"gzip, chunked", after_a_tab=b"\tchunked", vertical_tab=b"\x0bchunked",
    identity=b"identity", quoted=b'"chunked"', comma=b"chunked,", semicolon=b"chunked;a=b", empty=b"",
)  # fmt: skip
def test_no_other_transfer_coding_is_guessed(echo: Echo, case: bytes, tls: bool) -> None:
    """Only chunked is a coding that is understood."""
    check(echo, POST + b"Transfer-Encoding: " + case + b"\r\n\r\n0\r\n\r\n" + HIDDEN, tls, (400,))


@cases(
    plain=b"3\r\nabc\r\n0\r\n\r\n",
    leading_zeros=b"0000003\r\nabc\r\n0\r\n\r\n",
    extension=b"3;a=b\r\nabc\r\n0\r\n\r\n",
    quoted_extension=b'3;a="b;c"\r\nabc\r\n0\r\n\r\n',
    long_extension=b"3;" + b"a" * 8000 + b"\r\nabc\r\n0\r\n\r\n",
    trailer=b"3\r\nabc\r\n0\r\nX-Trailer: 1\r\nContent-Length: 99\r\n\r\n",
    three=b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n0\r\n\r\n",
)
def test_a_chunked_body_arrives_whole(echo: Echo, case: bytes, tls: bool) -> None:
    """The app reads three bytes and is told so; a trailer is no header."""
    (answer,) = check(echo, CHUNKED + case, tls, (200,), READ)
    if answer.status == 411:
        return
    assert answer.json()["sha256"] == hashlib.sha256(b"abc").hexdigest()
    assert "HTTP_X_TRAILER" not in answer.json()["environ"]


@cases(
    lower=b"transfer-encoding: chunked",
    upper=b"TRANSFER-ENCODING: CHUNKED",
    space_after=b"Transfer-Encoding: chunked ",
    no_space=b"Transfer-Encoding:chunked",
)
def test_chunked_in_any_letters(echo: Echo, case: bytes, tls: bool) -> None:
    """How it is written is the same to everybody: the body is three bytes, and the next request is a request."""
    sent = POST + case + b"\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + HIDDEN
    check(echo, sent, tls, (200, 200), READ, {"PATH_INFO": "/hidden"})


@cases(get=b"GET", head=b"HEAD", delete=b"DELETE", options=b"OPTIONS", unknown=b"BREW")
def test_a_body_belongs_to_any_method(echo: Echo, case: bytes) -> None:
    """A body where none is usual is read as the body that it is, and not as the next request."""
    sent = case + b" /x HTTP/1.1\r\n" + HOST + CLOSE + b"Content-Length: %d\r\n\r\n" % len(HIDDEN) + HIDDEN
    check(echo, sent, False, (200,), {"REQUEST_METHOD": case.decode(), "read": len(HIDDEN)})


@cases(
    length=b"Content-Length: 2000000\r\n\r\n" + b"a" * 2000000,
    chunked=b"Transfer-Encoding: chunked\r\n\r\n100000\r\n" + b"a" * 0x100000 + b"\r\n0\r\n\r\n",
)
def test_a_body_that_the_app_does_not_read(echo: Echo, case: bytes, tls: bool) -> None:
    """The next request on the connection is the next one, and nothing out of the body."""
    sent = b"POST /unread HTTP/1.1\r\n" + HOST + case + HIDDEN
    check(echo, sent, tls, (200, 200), {"PATH_INFO": "/unread"}, {"PATH_INFO": "/hidden"})


def test_a_body_to_a_static_file_is_no_request(echo: Echo, tls: bool) -> None:
    """A file is sent, or not, whatever the body is; the app sees the request after the body only."""
    for method, status in (("GET", 200), ("POST", 405)):
        sent = f"{method} /static/robots.txt HTTP/1.1\r\nContent-Length: {len(HIDDEN)}\r\n".encode() + HOST + b"\r\n"
        check(echo, sent + HIDDEN + GET + CLOSE + b"\r\n", tls, (status, 200), X)


@cases(
    length=b"Content-Length: 99999999\r\n\r\n" + b"a" * 1000,
    largest_length=b"Content-Length: 9223372036854775807\r\n\r\n" + b"a" * 1000,
    expected=b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n",
    chunked=b"Transfer-Encoding: chunked\r\n\r\n" + (b"100000\r\n" + b"a" * 0x100000 + b"\r\n") * 11 + b"0\r\n\r\n",
)
def test_a_body_above_the_limit(web: WebServer, echo: Echo, case: bytes) -> None:
    """413, before the app hears of it; nginx would wait for the rest of the body for some seconds."""
    (answer,) = answers(exchange(echo, POST + case + HIDDEN, ended=True))
    assert answer.status == web.either(413, 411 if b"chunked" in case else 413)
    assert not seen(echo)["seen"]


# --- Lines and headers.


@cases(
    cr_alone=b"GET /x HTTP/1.1\rHost: www.example.org\r\r",
    cr_in_a_value=GET + b"X-A: a\rX-B: b\r\n\r\n",
    folded=GET + b"X-A: a\r\n b\r\n\r\n",
    folded_by_tab=GET + b"X-A: a\r\n\tb\r\n\r\n",
    folded_first=b"GET /x HTTP/1.1\r\n " + HOST + b"\r\n",
    space_before_colon=GET + b"X-A : a\r\n\r\n",
    space_before_colon_of_host=b"GET /x HTTP/1.1\r\nHost : www.example.org\r\n\r\n",
    tab_in_a_name=GET + b"X\tA: a\r\n\r\n",
    no_name=GET + b": a\r\n\r\n",
    nul_in_a_name=GET + b"X-\0A: a\r\n\r\n",
    nul_in_a_value=GET + b"X-A: a\0b\r\n\r\n",
    nul_in_the_target=b"GET /x\0y HTTP/1.1\r\n" + HOST + b"\r\n",
    nul_in_the_method=b"GE\0T /x HTTP/1.1\r\n" + HOST + b"\r\n",
    space_in_the_target=b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n",
    space_first=b" " + GET + b"\r\n",
    no_method=b" /x HTTP/1.1\r\n" + HOST + b"\r\n",
    method_in_small_letters=b"get /x HTTP/1.1\r\n" + HOST + b"\r\n",
    no_target=b"GET  HTTP/1.1\r\n" + HOST + b"\r\n",
    relative_target=b"GET x HTTP/1.1\r\n" + HOST + b"\r\n",
    backslash_as_target=b"GET \\x HTTP/1.1\r\n" + HOST + b"\r\n",
    asterisk=b"GET * HTTP/1.1\r\n" + HOST + b"\r\n",
    asterisk_of_options=b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",
    junk=bytes(range(256)) + b"\r\n\r\n",
    version_in_small_letters=b"GET /x http/1.1\r\n" + HOST + b"\r\n",
    version_without_minor=b"GET /x HTTP/1.\r\n" + HOST + b"\r\n",
    version_without_dot=b"GET /x HTTP/1\r\n" + HOST + b"\r\n",
    version_and_more=b"GET /x HTTP/1.1x\r\n" + HOST + b"\r\n",
    version_0_9=b"GET /x HTTP/0.9\r\n" + HOST + b"\r\n",
    proxy_protocol=b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + GET + b"\r\n",
    connect=b"CONNECT example.org:443 HTTP/1.1\r\n" + HOST + b"\r\n",
    connect_to_itself=b"CONNECT www.example.org:80 HTTP/1.1\r\n" + HOST + b"\r\n",
)
def test_a_malformed_request_is_refused(echo: Echo, case: bytes, tls: bool) -> None:
    """400, and what follows is no request."""
    check(echo, case + HIDDEN, tls, (400,))


@cases(trace=b"TRACE", connect=b"CONNECT")
def test_methods_that_nobody_needs(echo: Echo, case: bytes, tls: bool) -> None:
    """A TRACE would hand a script the visitor's cookies; nothing is connected to."""
    check(echo, case + b" /x HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", tls, (405,))


@pytest.mark.parametrize("method", ["TRACK", "DEBUG", "BREW", "M-SEARCH", "PROPFIND", "A" * 4000])
def test_what_a_method_means_is_the_apps_business(echo: Echo, method: str) -> None:
    """A method that nginx does not know reaches the app as it is."""
    sent = method.encode() + b" /x HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
    check(echo, sent, False, (200,), {"REQUEST_METHOD": method})


@cases(**{version: f"GET /x HTTP/{version}\r\n".encode() for version in ("2.0", "3.0", "9.9", "11.1")})
def test_another_version_of_http(echo: Echo, case: bytes, tls: bool) -> None:
    """A major version that is none here is the visitor's mistake, and no 5xx."""
    check(echo, case + HOST + b"\r\n" + HIDDEN, tls, (400,))


def test_the_preface_of_http_2_by_plain_http(echo: Echo) -> None:
    """It is meant to be refused by a server that speaks HTTP/1.1."""
    check(echo, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", False, (400,))


def test_http_0_9(echo: Echo, tls: bool) -> None:
    """A request without a host is for nobody, and one without a version may only be GET: nothing of the app's."""
    for sent in (b"GET /x\r\n", b"POST /x\r\n"):
        received = exchange(echo, sent, tls)
        assert b"environ" not in received
        assert b" 200 " not in received
        assert not seen(echo)["seen"]


@cases(
    lf_only=GET.replace(b"\r\n", b"\n") + b"Connection: close\n\n",
    empty_lines_first=b"\r\n\r\n" + GET + CLOSE + b"\r\n",
    line_without_colon=GET + CLOSE + b"X-A\r\n\r\n",
    version_1_0=b"GET /x HTTP/1.0\r\n" + HOST + b"\r\n",
    version_1_2=b"GET /x HTTP/1.2\r\n" + HOST + CLOSE + b"\r\n",
    spaces_between=b"GET  /x  HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n",
    bytes_above_127=GET + CLOSE + b"X-A: \xc3\xa9\xff\r\nX-\xc3\xa9: a\r\n\r\n",
    control_characters=GET + CLOSE + b"X-A: \x01\x7f\r\n\r\n",
    odd_name=GET + CLOSE + b"X(A)@B: a\r\n\r\n",
    host_in_capitals=b"GET /x HTTP/1.1\r\nHost: WWW.EXAMPLE.ORG\r\n" + CLOSE + b"\r\n",
    host_with_a_dot=b"GET /x HTTP/1.1\r\nHost: www.example.org.\r\n" + CLOSE + b"\r\n",
)
def test_what_is_odd_but_clear_is_served(echo: Echo, case: bytes, tls: bool) -> None:
    """There is one way to read it, so that the app sees what was meant."""
    check(echo, case, tls, (200,), X)


# --- Sizes.

NAMES = ["".join(one) for length in (1, 2, 3) for one in itertools.product(string.ascii_lowercase, repeat=length)]
# No longer than what nginx takes at all, so that what it takes is shown to fit into what the app server takes.
SHORTEST = b"".join(f"{name}:\n".encode() for name in NAMES[:900])


@pytest.mark.parametrize("kilobytes", [8, 16, 64, 1024])
@pytest.mark.parametrize(("before", "after", "status"), [
    pytest.param(b"GET /", b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, id="path"),
    pytest.param(b"GET /x?", b" HTTP/1.1\r\n" + HOST + b"\r\n", 414, id="query"),
    pytest.param(b"", b" /x HTTP/1.1\r\n" + HOST + b"\r\n", 414, id="method"),
    pytest.param(GET + b"X-A: ", b"\r\n\r\n", 400, id="value"),
    pytest.param(GET, b": a\r\n\r\n", 400, id="name"),
    pytest.param(b"GET /x HTTP/1.1\r\nHost: ", b"\r\n\r\n", 400, id="host"),
])  # fmt: skip
def test_what_is_too_long_is_refused(echo: Echo, before: bytes, after: bytes, status: int, kilobytes: int) -> None:
    """The right 4xx, at any size."""
    check(echo, before + b"A" * (kilobytes * 1024) + after + HIDDEN, False, (status,))


@cases(
    long_query=b"GET /x?" + b"a" * 7000 + b" HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n",
    big_cookies=GET + CLOSE + b"Cookie: " + b"a" * 8000 + b"\r\n\r\n",
    four_long=GET + CLOSE + b"".join(b"X-%d: " % i + b"a" * 7000 + b"\r\n" for i in range(4)) + b"\r\n",
    many=GET + CLOSE + b"".join(b"X-%d: a\r\n" % i for i in range(900)) + b"\r\n",
    many_short=GET + CLOSE + SHORTEST + b"\r\n",
    many_alike=GET + CLOSE + b"X-A: a\r\n" * 900 + b"\r\n",
    the_most=b"GET /x?" + b"a" * 7000 + b" HTTP/1.1\r\n" + HOST + CLOSE
    + b"X-A: " + b"a" * 7900 + b"\r\nX-B: " + b"a" * 7900 + b"\r\n" + SHORTEST + b"\r\n",
)  # fmt: skip
def test_big_headers_reach_the_app(echo: Echo, case: bytes, tls: bool) -> None:
    """What nginx takes, the app server takes: its own limits would be a 502."""
    check(echo, case, tls, (200,), X)


@pytest.mark.parametrize("number", [1100, 2000, 5000, 50000])
@pytest.mark.parametrize("line", [b"X-A: a\r\n", b"a:\n", b"X-%d: a\r\n"], ids=["alike", "short", "different"])
def test_too_many_headers_are_refused(echo: Echo, line: bytes, number: int) -> None:
    """400, at any number."""
    lines = b"".join(line % i if b"%" in line else line for i in range(number))
    check(echo, GET + lines + b"\r\n" + HIDDEN, False, (400,))


# --- Who is asked.


@cases(
    twice=HOST + HOST,
    twice_differing=HOST + b"Host: evil.example\r\n",
    none=b"",
    empty=b"Host:\r\n",
    slash=b"Host: www.example.org/x\r\n",
    space=b"Host: www.example.org evil.example\r\n",
    empty_label=b"Host: www..example.org\r\n",
)
def test_a_host_that_is_no_host(echo: Echo, case: bytes, tls: bool) -> None:
    """One Host, and a name: else 400."""
    check(echo, b"GET /x HTTP/1.1\r\n" + case + b"\r\n" + HIDDEN, tls, (400,))


@cases(
    other=b"GET /x HTTP/1.1\r\nHost: evil.example\r\n",
    beginning_alike=b"GET /x HTTP/1.1\r\nHost: www.example.org.evil.example\r\n",
    list=b"GET /x HTTP/1.1\r\nHost: www.example.org,evil.example\r\n",
    markup=b'GET /x HTTP/1.1\r\nHost: "><script>\r\n',
    address=b"GET /x HTTP/1.1\r\nHost: 127.0.0.1\r\n",
    none_in_http_1_0=b"GET /x HTTP/1.0\r\n",
    absolute=b"GET http://evil.example/x HTTP/1.1\r\n" + HOST,
)
def test_another_host_is_not_answered(echo: Echo, case: bytes, tls: bool) -> None:
    """The connection is closed, or the request called misdirected where TLS was asked for the right name.

    The target's host counts, and not the header, where they differ.
    """
    check(echo, case + CLOSE + b"\r\n" + HIDDEN, tls, (421,) if tls else ())


@cases(
    absolute=b"GET http://www.example.org/x HTTP/1.1\r\n" + HOST,
    absolute_with_another_host=b"GET http://www.example.org/x HTTP/1.1\r\nHost: evil.example\r\n",
    absolute_https=b"GET https://www.example.org/x HTTP/1.1\r\n" + HOST,
    absolute_of_no_scheme_known=b"GET javascript://www.example.org/x HTTP/1.1\r\n" + HOST,
    port_and_more=b"GET /x HTTP/1.1\r\nHost: www.example.org:80@evil.example\r\n",
    no_port=b"GET /x HTTP/1.1\r\nHost: www.example.org:\r\n",
    port_0=b"GET /x HTTP/1.1\r\nHost: www.example.org:0\r\n",
    port_65536=b"GET /x HTTP/1.1\r\nHost: www.example.org:65536\r\n",
    two_ports=b"GET /x HTTP/1.1\r\nHost: www.example.org:80:90\r\n",
)
def test_the_app_knows_one_host(echo: Echo, case: bytes, tls: bool) -> None:
    """What the app is told is the name that nginx chose the site by, whatever else was sent."""
    check(echo, case + CLOSE + b"\r\n", tls, (200,), X)


def test_the_port_that_was_typed(echo: Echo, tls: bool) -> None:
    """It is part of the address that the app uses in its links."""
    sent = b"GET /x HTTP/1.1\r\nHost: www.example.org:65535\r\n" + CLOSE + b"\r\n"
    check(echo, sent, tls, (200,), X | {"HTTP_HOST": f"{NAME}:65535"})


# --- What a visitor may tell the app.


FORGED = (
    b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Ssl", b"X-Forwarded-Host", b"X-Forwarded-Port",
    b"X-Forwarded-Prefix", b"X-Forwarded-Server", b"X-Real-IP", b"Forwarded", b"Proxy",
)  # fmt: skip


@pytest.mark.parametrize("header", [name.decode() for name in FORGED])
def test_scheme_host_and_address_cannot_be_forged(echo: Echo, header: str, tls: bool) -> None:
    """What proxies say is believed of nobody: no value of the visitor's reaches the app, even sent twice."""
    sent = GET + CLOSE + f"{header}: forged\r\n{header.lower()}: forged, again\r\n\r\n".encode()
    (answer,) = check(echo, sent, tls, (200,), X)
    environ = answer.json()["environ"]
    assert not [name for name, value in environ.items() if "forged" in value]
    assert environ["REMOTE_ADDR"] == echo.get("/x", name=NAME).json()["environ"]["REMOTE_ADDR"]
    assert len(seen(echo)["seen"]) == 1


def test_no_header_becomes_a_variable_of_the_servers(echo: Echo, tls: bool) -> None:
    """A header of a variable's name is HTTP_<name> to the app, and the variable is nginx's."""
    names = ("Script-Name", "Path-Info", "Remote-User", "Remote-Addr", "Request-Method", "Https", "Server-Name",
             "Query-String", "Auth-Type", "Uwsgi-File", "Uwsgi-Scheme", "Request-Scheme", "Uwsgi-Appid")  # fmt: skip
    plain = check(echo, GET + CLOSE + b"\r\n", tls, (200,), X)[0].json()["environ"]
    sent = GET + CLOSE + "".join(f"{name}: forged\r\n" for name in names).encode() + b"\r\n"
    environ = check(echo, sent, tls, (200,), X)[0].json()["environ"]
    forged = {name for name, value in environ.items() if "forged" in value}
    assert forged <= {"HTTP_" + name.upper().replace("-", "_") for name in names}
    differing = {name for name in plain if plain[name] != environ[name]}
    assert differing <= {"REMOTE_PORT"}


@pytest.mark.parametrize(("forged", "right"), [
    pytest.param(b"X_User: evil\r\n", b"", id="alone"),
    pytest.param(b"X_User: evil\r\n", b"X-User: good\r\n", id="before"),
    pytest.param(b"X.User: evil\r\n", b"X-User: good\r\n", id="dot"),
    pytest.param(b"Content_Length: 0\r\n", b"X-User: good\r\n", id="length"),
    pytest.param(b"Transfer_Encoding: chunked\r\n", b"X-User: good\r\n", id="coding"),
])  # fmt: skip
def test_headers_with_an_underscore_are_dropped(echo: Echo, forged: bytes, right: bytes) -> None:
    """X_User would be the same variable as X-User."""
    for both in (forged + right, right + forged):
        sent = POST + CLOSE + both + b"Content-Length: 3\r\n\r\nabc"
        check(echo, sent, False, (200,), READ | {"HTTP_X_USER": "good" if right else None})


def test_an_answer_gives_nginx_no_orders(echo: Echo, tls: bool) -> None:
    """X-Accel-Redirect and its like are the app's words: without effect, and nothing of the file comes."""
    (answer,) = check(echo, b"GET /orders HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n", tls, (200,), {"PATH_INFO": "/orders"})
    assert answer.json()["environ"]["PATH_INFO"] == "/orders"
    assert answer.headers["content-type"] == "application/json"


@cases(
    h2c=b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
    websocket=b"Connection: Upgrade, close\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    tls=b"Connection: Upgrade, close\r\nUpgrade: TLS/1.3\r\n",
)
def test_nothing_is_upgraded(echo: Echo, case: bytes, tls: bool) -> None:
    """A tunnel past nginx's rules is not to be had: the request is answered as it is."""
    check(echo, GET + case + b"\r\n", tls, (200,), X)


def test_expectations(web: WebServer, echo: Echo, tls: bool) -> None:
    """100 comes before the answer where it is expected in HTTP/1.1; another one changes nothing, or is refused."""
    for head, expected, informed in (
        (POST, b"100-continue", True),
        (POST, b"200-ok", False),
        (POST.replace(b"/1.1", b"/1.0"), b"100-continue", False),
    ):
        sent = head + CLOSE + b"Expect: " + expected + b"\r\nContent-Length: 3\r\n\r\nabc"
        received = exchange(echo, sent, tls)
        assert received.startswith(b"HTTP/1.1 100 ") == informed
        refused = web.either(False, expected == b"200-ok")
        assert [answer.status for answer in answers(received)] == [417 if refused else 200]
        assert [told["read"] for told in seen(echo)["seen"]] == ([] if refused else [3])


# --- Which path it is.


@pytest.mark.parametrize("path", [
    "/%00", "/a%00b", "/..", "/../etc/passwd", "/a/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd",
    "/..%2f..%2fetc%2fpasswd", "/.%2e/etc/passwd", "/static/../../etc/passwd", "/static/..%2f..%2fetc/passwd",
    "/static/robots.txt%00", "/static/robots.txt%00.jpg", "/%", "/%2", "/%zz", "/%u002e",
])  # fmt: skip
def test_a_path_that_is_none(echo: Echo, path: str, tls: bool) -> None:
    """Nothing above the root, no NUL, no half of an encoding: 400."""
    check(echo, f"GET {path} HTTP/1.1\r\n".encode() + HOST + b"\r\n" + HIDDEN, tls, (400,))


@pytest.mark.parametrize(("target", "path", "query"), [
    ("/a/../b", "/b", ""),
    ("/a/..", "/", ""),
    ("/a/./b", "/a/b", ""),
    ("//evil.example//x", "/evil.example/x", ""),
    ("/a%2fb", "/a/b", ""),
    ("/%2561", "/%61", ""),
    ("/%e9\xe9", "/\xe9\xe9", ""),
    ("/%c0%ae%c0%ae/", "/\xc0\xae\xc0\xae/", ""),
    ("/a\\..\\b", "/a\\..\\b", ""),
    ("/a;b=c", "/a;b=c", ""),
    ("/a#b", "/a", ""),
    ("/%0d%0aX-Forged:%201", "/\r\nX-Forged: 1", ""),
    ("/x%3fa", "/x?a", ""),
    ("/x?a?b&c=%00%0d%0a", "/x", "a?b&c=%00%0d%0a"),
    ('/x?"<script>|{}^`', "/x", '"<script>|{}^`'),
    ("/static/../x", "/x", ""),
    ("/static%2f..%2fwsgi.py", "/wsgi.py", ""),
    ("/static../wsgi.py", "/static../wsgi.py", ""),
    ("/static", "/static", ""),
    ("/Static/robots.txt", "/Static/robots.txt", ""),
])  # fmt: skip
def test_the_path_that_the_app_sees(echo: Echo, target: str, path: str, query: str, tls: bool) -> None:
    """Decoded once and without dots, as nginx chose by it; the target as it was sent is there as well."""
    sent = f"GET {target} HTTP/1.1\r\n".encode("latin-1") + HOST + CLOSE + b"\r\n"
    (answer, *_) = check(
        echo, sent, tls, (200,), {"PATH_INFO": path, "QUERY_STRING": query, "REQUEST_URI": target, "SCRIPT_NAME": ""}
    )
    assert "x-forged" not in answer.headers


@pytest.mark.parametrize("path", [
    "/static/..\\wsgi.py", "/static/..;/wsgi.py", "/static/robots.txt/", "/static/robots.txt%20", "/static/%0d%0a",
    "/static/.git/config", "/static/%2egit/config", "/static/" + "a" * 300, "/static/" + "a/" * 2100,
])  # fmt: skip
def test_no_way_out_of_a_static_directory(echo: Echo, path: str) -> None:
    """404, and the app does not hear of it."""
    check(echo, f"GET {path} HTTP/1.1\r\n".encode() + HOST + CLOSE + b"\r\n", False, (404,))


# --- Connections.


def test_pipelined_requests(web: WebServer, echo: Echo, tls: bool) -> None:
    """Each is answered in its turn; after a bad one nothing is."""
    check(echo, GET + b"\r\n" + HIDDEN, tls, (200, 200), X, {"PATH_INFO": "/hidden"})
    check(echo, GET + b"\r\nGARBAGE\r\n\r\n" + HIDDEN, tls, (200, 400), X)
    check(echo, GET + b"\r\n" + CHUNKED + b"zz\r\n" + HIDDEN, tls, (200, web.either(400, 411)), X)
    check(echo, b"GET /static/none HTTP/1.1\r\n" + HOST + b"\r\n" + HIDDEN, tls, (404, 200), {"PATH_INFO": "/hidden"})
    check(echo, GET + CLOSE + b"\r\n" + HIDDEN, tls, (200,), X)


def test_a_request_in_single_bytes(echo: Echo, tls: bool) -> None:
    """However it is cut into packets, it is the same request."""
    sent, received = POST + CLOSE + b"Content-Length: 3\r\n\r\nabc", b""
    with echo.connect(tls, NAME) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in sent:
            connection.sendall(bytes([byte]))
        while chunk := connection.recv(65536):
            received += chunk
    assert [answer.status for answer in answers(received)] == [200]
    (told,) = seen(echo)["seen"]
    assert told["read"] == 3


@cases(
    nothing=b"",
    half_a_line=b"GET /x HT",
    half_the_headers=POST,
    half_a_body=POST + b"Content-Length: 1000\r\n\r\nabc",
    half_a_big_body=POST + b"Content-Length: 1000000\r\n\r\n" + b"a" * 500000,
    half_a_chunk=CHUNKED + b"100\r\nabc",
)
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_visitor_who_leaves_early(echo: Echo, case: bytes, reset: bool, tls: bool) -> None:
    """What is no whole request never reaches the app."""
    connection = echo.connect(tls, NAME)
    connection.sendall(case)
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    assert not seen(echo)["seen"]


def test_a_visitor_who_closes_one_half(web: WebServer, echo: Echo) -> None:
    """Half a request and the end of all that is to come: there is nothing to wait for, and nothing to serve."""
    with echo.connect() as connection:
        connection.sendall(POST + b"Content-Length: 1000\r\n\r\nabc")
        connection.shutdown(socket.SHUT_WR)
        found = [answer.status for answer in answers(connection.recv(65536))]
    assert found == web.either([], [500])


def test_a_visitor_who_does_not_wait(echo: Echo) -> None:
    """A whole request whose sender has gone is served, or given up; the app survives both."""
    for _ in range(20):
        connection = echo.connect()
        connection.sendall(GET + b"\r\n")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    check_in = b"GET /last HTTP/1.1\r\n" + HOST + CLOSE + b"\r\n"
    assert [answer.status for answer in answers(exchange(echo, check_in))] == [200]
    looks: list[list[str]] = []

    def all_seen() -> bool:
        """Whether there is nothing new for a while: who has gone may be served later than who came last."""
        looks.append([one["environ"]["PATH_INFO"] for one in seen(echo)["seen"]])
        return "/last" in itertools.chain(*looks) and not any(looks[-20:])

    await_that(all_seen)
    assert sum(map(len, looks)) <= 21


# --- TLS.


def test_tls_to_the_plain_port(echo: Echo) -> None:
    """A handshake is no request: 400."""
    sent = ssl.MemoryBIO()
    handshake = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname=NAME)
    with contextlib.suppress(ssl.SSLWantReadError):
        handshake.do_handshake()
    check(echo, sent.read(), False, (400,))


def test_plain_http_to_the_tls_port(echo: Echo) -> None:
    """400 in plain text; nothing is served."""
    with socket.create_connection(("127.0.0.1", echo.tls_port), timeout=20) as connection:
        connection.sendall(GET + b"\r\n" + HIDDEN)
        received = b""
        with contextlib.suppress(ConnectionError):
            while chunk := connection.recv(65536):
                received += chunk
    assert [answer.status for answer in answers(received)] == [400]


def test_another_name_in_the_handshake(web: WebServer, echo: Echo) -> None:
    """A name that is not served gets no certificate of another's."""
    with pytest.raises(ssl.SSLError, match=web.either(r"(?i)unrecognized.name", r"(?i)alert.protocol.version")):
        echo.connect(True, "evil.example")


@cases(
    zeros=b"\0" * 1000,
    unfinished=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 100,
    too_long=b"\x16\x03\x01\xff\xff" + b"a" * 70000,
)
def test_no_handshake_at_all(echo: Echo, case: bytes) -> None:
    """Rubbish on the TLS port ends the connection."""
    connection = socket.create_connection(("127.0.0.1", echo.tls_port), timeout=20)
    with connection, contextlib.suppress(ConnectionError):
        connection.sendall(case)
        with contextlib.suppress(OSError):  # it may have been ended already
            connection.shutdown(socket.SHUT_WR)
        while chunk := connection.recv(65536):
            assert b"200 OK" not in chunk


# --- HTTP/2: its frames can carry what a line cannot, and nginx hands all on as if it had been lines.


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")


def two(method: str = "GET", path: str = "/x", authority: str = NAME, scheme: str = "https") -> list[tuple[str, str]]:
    """Return the four headers that an HTTP/2 request begins with."""
    return [(":method", method), (":scheme", scheme), (":path", path), (":authority", authority)]


def request(headers: list[tuple[str, str]], body: bytes | None = None, stream: int = 1) -> bytes:
    """Return the frames of a request: HEADERS and, with a body, DATA."""
    block = b"".join(hpack(name, value) for name, value in headers)
    sent = frame(1, 4 | (body is None), stream, block)
    return sent if body is None else sent + frame(0, 1, stream, body)


def speak(site: Site, sent: bytes, streams: int = 1) -> list[int]:
    """Send frames after the preface; return the status of each answer, and nothing for a stream that was given up."""
    statuses: list[int] = []
    faults = (ConnectionError, ssl.SSLError, TimeoutError)
    with site.connect(True, NAME, ["h2"]) as connection, contextlib.suppress(*faults):
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            connection.sendall(PREFACE + sent)
        with connection.makefile("rb") as received:
            while streams and len(head := received.read(9)) == 9:
                kind, flags = head[3], head[4]
                payload = received.read(int.from_bytes(head[:3], "big"))
                if kind == 1:
                    statuses.append(status_of(payload))
                if kind == 3 or (kind in (0, 1) and flags & 1):
                    streams -= 1
                if kind == 7:
                    break
    return statuses


@pytest.mark.parametrize("headers", [
    pytest.param([*two(), ("X-A", "a")], id="capitals"),
    pytest.param([*two(), ("x-a", "a\r\nx-b: b")], id="line_break_in_a_value"),
    pytest.param([*two(), ("x-a", "a\nx-b: b")], id="lf_in_a_value"),
    pytest.param([*two(), ("x-a", "a\0b")], id="nul_in_a_value"),
    pytest.param([*two(), ("x-a: a\r\nx-b", "b")], id="line_break_in_a_name"),
    pytest.param([*two(), ("x-a:b", "c")], id="colon_in_a_name"),
    pytest.param([*two(), ("x a", "b")], id="space_in_a_name"),
    pytest.param([*two(), ("", "b")], id="no_name"),
    pytest.param([*two(), (":path", "/y")], id="two_paths"),
    pytest.param([*two(), (":method", "POST")], id="two_methods"),
    pytest.param([*two(), (":scheme", "http")], id="two_schemes"),
    pytest.param([*two(), (":status", "200")], id="status"),
    pytest.param([*two(), (":x", "y")], id="unknown_pseudo_header"),
    pytest.param(two()[1:], id="no_method"),
    pytest.param([two()[0], *two()[2:]], id="no_scheme"),
    pytest.param([*two()[:2], two()[3]], id="no_path"),
    pytest.param(two()[:3], id="nobody_asked"),
    pytest.param(two(method=""), id="empty_method"),
    pytest.param(two(method="GET /y HTTP/1.1\r\nx:"), id="line_in_the_method"),
    pytest.param(two(path=""), id="empty_path"),
    pytest.param(two(path="x"), id="relative_path"),
    pytest.param(two(path="*"), id="asterisk"),
    pytest.param(two(path="http://www.example.org/x"), id="absolute_path"),
    pytest.param(two(path="/x HTTP/1.1\r\nHost: evil.example\r\n\r\nGET /hidden"), id="request_in_the_path"),
    pytest.param(two(path="/x\0"), id="nul_in_the_path"),
    pytest.param(two(path="/../x"), id="above_the_root"),
    pytest.param(two(authority=""), id="empty_authority"),
    pytest.param(two(authority="www.example.org/x"), id="authority_with_a_path"),
    pytest.param(two(scheme="java\r\nscript"), id="line_break_in_the_scheme"),
    pytest.param([*two(), ("host", "evil.example")], id="two_hosts"),
    pytest.param([*two(), ("content-length", "3"), ("content-length", "3")], id="two_lengths"),
    pytest.param([*two(), ("content-length", "-1")], id="negative_length"),
])  # fmt: skip
def test_malformed_in_http_2(web: WebServer, echo: Echo, headers: list[tuple[str, str]]) -> None:
    """Refused by 400 or by an error of the stream, and the app does not hear of it."""
    got, told = speak(echo, request(headers)), seen(echo)["seen"]
    if web.either(False, ("host", "evil.example") in headers):  # Apache does not look at it where there is an authority
        assert [got, *(one["environ"]["HTTP_HOST"] for one in told)] == [[200], NAME]
        return
    assert got in ([], [400])
    assert not told


@pytest.mark.parametrize(("headers", "body"), [
    pytest.param([("content-length", "10")], b"abc", id="body_too_short"),
    pytest.param([("content-length", "1")], b"abc", id="body_too_long"),
    pytest.param([("content-length", "0")], HIDDEN, id="no_body_announced"),
    pytest.param([("transfer-encoding", "xchunked")], b"0\r\n\r\n" + HIDDEN, id="unknown_coding"),
])  # fmt: skip
def test_the_end_of_a_body_in_http_2(echo: Echo, headers: list[tuple[str, str]], body: bytes) -> None:
    """The frames say where a body ends; who says something else by a header is refused."""
    assert speak(echo, request([*two("POST"), *headers], body)) in ([], [400])
    assert not seen(echo)["seen"]


def test_what_reaches_the_app_by_http_2(echo: Echo) -> None:
    """The same as by lines: body, cookies in one, the visitor's scheme, and nothing forged."""
    headers = [
        ("cookie", "a=1"), ("cookie", "b=2"), ("x_user", "evil"), ("proxy", "forged"), ("x-forwarded-for", "forged"),
        ("x-forwarded-proto", "forged"), ("x-forwarded-host", "forged"), ("te", "trailers"), ("content-length", "3"),
    ]  # fmt: skip
    assert speak(echo, request([*two("POST", scheme="http"), *headers], b"abc")) == [200]
    (told,) = seen(echo)["seen"]
    assert (told["read"], told["scheme"]) == (3, "https")
    assert told["environ"]["HTTP_COOKIE"] == "a=1; b=2"
    assert told["environ"]["HTTP_HOST"] == NAME
    assert "HTTP_X_USER" not in told["environ"]
    assert not set(NEVER) & set(told["environ"])
    assert "forged" not in str(told["environ"])


def test_another_host_by_http_2(echo: Echo) -> None:
    """Misdirected, on a connection on which the right one is served."""
    sent = request(two(authority="evil.example")) + request(two(), stream=3)
    assert sorted(speak(echo, sent, 2)) == [200, 421]
    assert len(seen(echo)["seen"]) == 1


@cases(
    no_frames=b"\0" * 1000,
    no_end_of_headers=frame(1, 0, 1, hpack(":method", "GET")) + frame(9, 0, 1, hpack("x-a", "a" * 100)) * 2000,
    endless_table=frame(1, 4, 1, b"\xff" * 100),
    frame_too_long=b"\xff\xff\xff\x01\x04\0\0\0\x01" + b"a" * 100000,
    window_of_nothing=frame(8, 0, 0, b"\0\0\0\0"),
    settings_without_end=frame(4, 0, 0, b"\0\x04\x7f\xff\xff\xff") * 5000,
    pings_without_end=frame(6, 0, 0, b"a" * 8) * 5000,
    data_before_headers=frame(0, 1, 1, b"abc"),
    even_stream=request(two(), stream=2),
)
def test_frames_that_make_no_sense(echo: Echo, case: bytes) -> None:
    """The connection ends, without an answer, and nothing else does."""
    assert speak(echo, case + frame(7, 0, 0, b"\0" * 8)) in ([], [400])
    assert not seen(echo)["seen"]


def test_streams_that_are_reset_at_once(echo: Echo) -> None:
    """A thousand requests that nobody waits for hold up nobody else."""
    resets = b"".join(request(two(), stream=n) + frame(3, 0, n, b"\0\0\0\x08") for n in range(1, 2001, 2))
    speak(echo, resets, 1)
    assert [answer.status for answer in answers(exchange(echo, GET + CLOSE + b"\r\n", True))] == [200]
    await_that(lambda: not seen(echo)["seen"])


# --- At the end.


def test_a_body_without_a_length_in_http_2(web: WebServer, echo: Echo) -> None:
    """nginx counts it; Apache asks for its length."""
    assert speak(echo, request(two("POST"), b"abc")) == [web.either(200, 411)]
    assert [told["read"] for told in seen(echo)["seen"]] == web.either([3], [])


def test_chunks_mean_nothing_in_http_2(web: WebServer, echo: Echo) -> None:
    """nginx takes the frames for the body, and the app hears of no coding: nothing is hidden in it."""
    body = b"0\r\n\r\n" + HIDDEN
    got = speak(echo, request([*two("POST"), ("transfer-encoding", "chunked")], body))
    assert got == web.either([200], [])
    if not got:  # Apache gives the stream up
        return
    (told,) = seen(echo)["seen"]
    assert told["read"] == len(body)
    assert not told["environ"].get("HTTP_TRANSFER_ENCODING")


def test_all_processes_survived(web: WebServer, host: Host, deployed: dict[str, Deployed]) -> None:
    """Nothing of the above ended a process of nginx or of the app, or made either write of a fault of its own."""
    before = deployed[host.backend.get_hostname()]
    assert pids(host) == before.processes
    units = f"--unit {web.unit} --unit {APP}@{live_release(host)}"
    journal = host.check_output(f"journalctl --no-pager --output cat --since @{before.since} {units}")
    assert web.either(NAME, "invalid URI path") in journal, "the web server wrote nothing of all this"
    # A handshake that is none is "crit" to nginx, and the visitor's fault.
    wrote = [line for line in journal.splitlines() if "SSL_do_handshake() failed" not in line]
    assert not [line for line in wrote if re.search(r"\[(crit|alert|emerg)\]|Traceback|SIGSEGV|SIGABRT", line)]
