"""PEP 3333 between server and app, judged by wsgiref.validate and by werkzeug's lint, whichever servers there are.

Each test begins without notes, and ends when all answers are closed: each once, and the judge has found nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import APP, ROOT, Run, Site, await_that
from testinfra.host import Host
from wire import exchange, status

JUDGED: dict[str, Any] = {
    "release_source": str(ROOT / "tests" / "apps" / "judged"),
    "release_health_path": "/healthz",
    "app_static": {},
}
HOST = b"Host: localhost\r\nConnection: close\r\n"
# What fits in no buffer on the way, and in which nothing is by chance the same twice.
BODY = b"".join(b"%d\n" % number for number in range(40_000))
# The same in chunks of odd sizes, with an extension and a trailer.
CUTS = [0, 1, 8000, 8001, 100_000, len(BODY)]
CHUNKS = b"".join(b"%X;a=b\r\n%s\r\n" % (end - start, BODY[start:end]) for start, end in itertools.pairwise(CUTS))
CHUNKED = CHUNKS + b"0\r\nX-Trailer: t\r\n\r\n"

Notes = list[dict[str, Any]]


def notes(site: Site) -> Notes:
    """Return what the app has noted."""
    told: Notes = site.get("/notes").json()
    return told


def names(noted: Notes, kind: str) -> list[str]:
    """Return of one kind of notes what they are about."""
    return sorted(note["what"] for note in noted if note["kind"] == kind)


def closed(site: Site, count: int = 1) -> Notes:
    """Wait until all requests that the app has begun are closed, at least ``count``, and return the notes."""
    await_that(lambda: len(names(noted := notes(site), "closed")) >= max(count, len(names(noted, "begun"))))
    noted = notes(site)
    assert names(noted, "closed") == names(noted, "begun"), "each answer is closed once"
    return noted


def processes(host: Host) -> list[str]:
    """Return the ids of the app's processes."""
    return sorted(host.check_output(f"pgrep --euid {APP}").split())


def asked(judge: str, line: str, headers: bytes = b"", body: bytes = b"") -> bytes:
    """Return a request as bytes."""
    return f"{line} HTTP/1.1\r\nX-Judge: {judge}\r\n".encode() + HOST + headers + b"\r\n" + body


@pytest.fixture(scope="module", params=["uwsgi", "gunicorn", pytest.param("cgi", marks=pytest.mark.long)])
def deployed(request: pytest.FixtureRequest, anything: dict[str, str], playbook: Callable[..., Run]) -> None:
    """Deploy the app with the judges around it, to be run by each server, and as a script."""
    assert anything
    server = {"app_server": "uwsgi", "uwsgi_cgi": True} if request.param == "cgi" else {"app_server": request.param}
    run = playbook("playbooks/deploy.yml", **JUDGED, **server)
    assert run.code == 0, run.output


@pytest.fixture(params=["validate", "lint"])
def judge(request: pytest.FixtureRequest) -> str:
    """Which judge sees what is asked."""
    return str(request.param)


@pytest.fixture
def judged(deployed: None, sites: dict[str, Site]) -> Iterator[list[Site]]:
    """The sites; at the end the judge has found nothing."""
    for site in sites.values():
        site.get("/notes", "DELETE")
    yield [*sites.values()]
    for site in sites.values():
        assert names(notes(site), "found") == []


@pytest.mark.parametrize(
    ("line", "headers", "body", "read"),
    [
        ("GET /a%20b?c=d", b"", b"", b""),
        ("GET /a%20b?c=d", b"X-Forwarded-Proto: javascript\r\nProxy: http://example.org\r\nX_Odd: 1\r\n", b"", b""),
        ("GET /a%20b?c=d", b"Content-Type: text/plain\r\nContent-Length: 3\r\n", b"get", b"get"),
        ("OPTIONS /a%20b?c=d", b"", b"", b""),
        ("PUT /a%20b?c=d", b"Content-Length: %d\r\n" % len(BODY), BODY, BODY),
        ("POST /a%20b?c=d", b"Content-Type: text/plain\r\nContent-Length: %d\r\n" % len(BODY), BODY, BODY),
        ("POST /iterate?c=d", b"Content-Length: %d\r\n" % len(BODY), BODY, BODY),
        ("POST /a%20b?c=d", b"Content-Length: 0\r\n", b"", b""),
        ("POST /a%20b?c=d", b"", b"", b""),
        ("POST /a%20b?c=d", b"Transfer-Encoding: chunked\r\n", CHUNKED, BODY),
        ("POST /iterate?c=d", b"Transfer-Encoding: chunked\r\n", CHUNKED, BODY),
        ("POST /a%20b?c=d", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b""),
        ("POST /unread?c=d", b"Content-Length: %d\r\n" % len(BODY), BODY, b""),
        ("POST /unread?c=d", b"Transfer-Encoding: chunked\r\n", CHUNKED, b""),
    ],
    ids=[
        "get", "hostile headers", "get with a body", "options", "put", "post", "post, iterated", "empty post",
        "post without a length", "chunked", "chunked, iterated", "empty chunked", "unread", "unread chunked",
    ],
)  # fmt: skip
def test_the_app_is_told_what_was_asked(
    judge: str, judged: list[Site], line: str, headers: bytes, body: bytes, read: bytes
) -> None:
    """Method, path, query and the whole body reach it; who sends a body that nobody reads is answered."""
    method, _, url = line.partition(" ")
    for site in judged:
        received = exchange(site, asked(judge, line, headers, body), tls=False)
        assert status(received) == 200
        assert json.loads(received.partition(b"\r\n\r\n")[2]) == {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": url.partition("?")[0].replace("%20", " "),
            "QUERY_STRING": "c=d",
            "wsgi.url_scheme": "http",
            "read": len(read),
            "sha256": hashlib.sha256(read).hexdigest(),
        }
        closed(site)


def test_head_is_get_without_a_body(judge: str, judged: list[Site]) -> None:
    """The app answers both with a body; the visitor gets the length of it, and no byte."""
    for site in judged:
        received = exchange(site, asked(judge, "HEAD /a?b"), tls=False)
        head, _, rest = received.partition(b"\r\n\r\n")
        assert status(received) == 200
        assert b"content-length: " in head.lower()
        assert rest == b""
        closed(site)


@pytest.mark.parametrize(
    ("path", "code", "body"),
    [
        ("/stream", 200, b"".join(b"%d\n" % number for number in range(100))),
        ("/write", 200, b"written, returned"),
        ("/file", 200, (ROOT / "tests" / "apps" / "judged" / "wsgi.py").read_bytes()),
        ("/nothing", 304, b""),
        ("/replace", 418, b"replaced"),
    ],
)
def test_what_the_standard_allows_reaches_the_visitor(
    judge: str, judged: list[Site], path: str, code: int, body: bytes
) -> None:
    """Pieces, some of them empty, without a length; `write`; a file; no body; another status before the first byte."""
    for site in judged:
        answer = site.get(path, headers={"X-Judge": judge})
        assert (answer.status, answer.body) == (code, body)
        closed(site)


def test_who_raises_after_the_first_byte_ends_one_answer_only(
    judge: str, judged: list[Site], hosts: dict[str, Host]
) -> None:
    """The visitor can tell that it is not whole where its length was said; and the same processes go on."""
    before = {name: processes(host) for name, host in hosts.items()}
    for site in judged:
        received = exchange(site, asked(judge, "GET /fail/length"), tls=False)
        head, _, body = received.partition(b"\r\n\r\n")
        assert status(received) == 200
        assert b"content-length: 100" in head.lower()
        assert len(body) < 100
        for path in ("/fail", "/replace/late"):
            received = exchange(site, asked(judge, f"GET {path}"), tls=False)
            assert (status(received), b"too many" in received) == (200, False)
        noted = closed(site, 3)
        assert sum("told to raise" in what for what in names(noted, "found")) == 3
        found = [what for what in names(noted, "found") if "told to raise" not in what]
        # To werkzeug's judge the answer is too short, as it is.
        assert (len(found), "do not match" in " ".join(found)) == ((1, True) if judge == "lint" else (0, False))
        site.get("/notes", "DELETE")
    assert {name: processes(host) for name, host in hosts.items()} == before


def test_an_answer_is_closed_when_its_visitor_leaves(judge: str, judged: list[Site]) -> None:
    """In the middle of it, before it begins, and before the whole request was sent."""
    for site in judged:
        with site.connect() as connection:
            connection.sendall(asked(judge, "GET /slow"))
            assert connection.recv(1000)
        with site.connect() as connection:
            connection.sendall(asked(judge, "GET /late"))
            await_that(lambda site=site: "/late?" in names(notes(site), "begun"))  # type: ignore[misc]
        with site.connect() as connection:
            connection.sendall(asked(judge, "POST /a", b"Content-Length: 100\r\n", b"half"))
        noted = closed(site, 2)
        made = {note["what"]: note["made"] for note in noted if note["kind"] == "closed"}
        assert made["/slow?"] < 1000, "nobody waits for the rest"
        assert site.get("/a", headers={"X-Judge": judge}).status == 200


@pytest.mark.parametrize("path", ["/wrong", "/spoiled"])
def test_the_judge_sees_what_app_and_server_do_wrong(judge: str, judged: list[Site], path: str) -> None:
    """The judge is where it should be: a status that is none is found, and a key that is missing in the environ."""
    for site in judged:
        site.get(path, headers={"X-Judge": judge})
        found = names(notes(site), "found")
        assert any(("wsgi.run_once" if path == "/spoiled" else "tatus") in what for what in found), found
        site.get("/notes", "DELETE")
