"""Static files and uploads: who gets what, how it is kept and compressed, what of the release before is in reach."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import Answer, Run, Site, WebServer, visited
from testinfra.host import Host

APP = """
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html"), ("X-App", "yes")])
    environ["wsgi.input"].read()
    return [environ["PATH_INFO"].encode("latin-1"), b"x" * 5000]
"""
CSS = "body { color: black; }\n" * 200
INSIDE = "what no visitor may see\n"
HASHED = "site.3f2a9c1b.css"
YEAR = "max-age=31536000, immutable"
ASK = "max-age=0, must-revalidate"
LIVE = "/srv/hello/live/app"
UPLOADS = "/srv/hello/shared/uploads"
INPUTS = {
    "web_certificate": "none",
    "release_requirements": [],
    "release_health_path": "/up",
    "app_static": {"/static/": "static", "/media/pub/": "shop/assets", "/uploads/": "uploads/pub"},
    "app_shared": ["uploads"],
    "web_static_immutable": ["/static/dist/"],
}
# Names, and how long each is kept. In doubt it is not for ever.
NAMES = {
    "site.css": ASK,
    HASHED: YEAR,
    "vendor~main.0a1b2c3d4e5f.chunk.js": YEAR,
    "logo_0a1b2c3d4e5f6071.svg": YEAR,
    "style-BX12ab9_.js": YEAR,
    "chunk-2QJXKWLP.js": YEAR,
    "5d41402abc4b2a76b9719d911017c592.png": YEAR,
    "dist/index-DzKqTfgW.js": YEAR,
    "report-20240101.txt": ASK,
    "logo-original.png": ASK,
    "hero-Section1.png": ASK,
    "trip-DSC01234.jpg": ASK,
    "jquery-3.6.0.min.js": ASK,
    "main-HomePage.js": ASK,
    "style.deadbeef.css": ASK,
}
TYPES = {
    "site.css": "text/css; charset=utf-8",
    "app.js": "application/javascript; charset=utf-8",
    "module.mjs": "text/javascript; charset=utf-8",
    "page.html": "text/html; charset=utf-8",
    "font.woff2": "font/woff2",
    "font.ttf": "font/ttf",
    "picture.webp": "image/webp",
    "picture.avif": "image/avif",
    "drawing.svg": "image/svg+xml",
    "code.wasm": "application/wasm",
    "site.webmanifest": "application/manifest+json",
    "app.js.map": "application/json",
    "table.csv": "text/csv; charset=utf-8",
    "words.vtt": "text/vtt; charset=utf-8",
    "unknown.xyz": "application/octet-stream",
}
# Debian's own list, which Apache uses, has another word for scripts, and one for .xyz.
APACHES_TYPES = {
    "app.js": "text/javascript; charset=utf-8",
    "app.js.map": "application/json; charset=utf-8",
    "unknown.xyz": "chemical/x-xyz",
}
HIDDEN = (".env", ".git/config", "site.css~", "site.css.bak", "SITE.BAK", ".site.css.swp", "site.orig", "site.old",
          "#site.css#")  # fmt: skip


def lay_out(source: Path, more: dict[str, str], without: tuple[str, ...] = ()) -> None:
    """Write a source: the app, files of every kind, and `more`; what is there keeps what it is, but not its time."""
    files = {
        "wsgi.py": APP,
        "static_private/secret.txt": INSIDE,
        "shop/secret.txt": INSIDE,
        "shop/assets/print.css": CSS,
        "static/pages/index.html": "<h1>pages</h1>",
        "static/empty/deep/file.txt": "deep\n",
        "static/.well-known/security.txt": "Contact: mailto:security@example.org\n",
        "static/tiny.css": "b{}",
        "static/ready.js": "let ready = 1;\n" * 100,
        "static/ready.js.gz": "gzipped beforehand",
        "static/ready.js.br": "brotli beforehand",
        **{f"static/{name}": CSS for name in (*NAMES, *TYPES)},
        **{f"static/{name}": INSIDE for name in HIDDEN},
        **more,
    }
    for name, text in files.items():
        if name not in without:
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(text)
    for name in without:
        (source / name).unlink(missing_ok=True)
    if not (source / "static/inside.css").is_symlink():
        (source / "static/inside.css").symlink_to("../wsgi.py")


@dataclass
class Shop:
    """The source of an app and what deploys it."""

    source: Path
    playbook: Callable[..., Run]

    def deploy(self, playbook: str = "playbooks/deploy.yml") -> None:
        """Deploy the source as it is now."""
        run = self.playbook(playbook, release_source=str(self.source), **INPUTS)
        assert run.code == 0, run.end


@pytest.fixture(scope="module")
def shop(
    hosts: dict[str, Host], playbook: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """Deploy the app, put files among its uploads, and end with the scenario's own app."""
    one = Shop(tmp_path_factory.mktemp("shop"), playbook)
    lay_out(one.source, {"static/only-first.css": CSS, "shop/assets/only-first.css": CSS})
    one.deploy("site.yml")
    for host in hosts.values():
        host.check_output(f"mkdir -p {UPLOADS}/pub && cd {UPLOADS}/pub && rm -rf ./* && mkdir dir")
        for name in ("a.png", "a.txt", "a.html", "a.svg", "a.js", "a.xml", "a.pdf", "a.php", "a", "a.png.gz", ".env"):
            host.check_output(f"echo '<script>alert(1)</script>' > {UPLOADS}/pub/{name}")
        host.check_output(f"ln -s /etc/passwd {UPLOADS}/pub/out.txt; ln -s {LIVE}/wsgi.py {UPLOADS}/pub/code.txt")
        host.check_output(f"echo hidden > {UPLOADS}/secret.txt; ln -sfn /etc {LIVE}/static/out")
        host.check_output(f"chmod -R a+rX {UPLOADS}; chmod a+x /srv/hello /srv/hello/shared")
    yield one
    for host in hosts.values():
        host.check_output(f"chmod 2750 {UPLOADS}")
    run = playbook("site.yml")
    assert run.code == 0, run.end


@pytest.fixture
def served(shop: Shop, site: Site) -> Site:
    """Give the site of the host that the test runs for, with the app deployed."""
    assert shop
    return site


def raw(site: Site, target: str, method: str = "GET") -> tuple[int, bytes]:
    """Send a request line as it is; give status and all that came back."""
    with site.connect() as connection:
        connection.sendall(
            f"{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode("latin-1")
        )
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(answer.split()[1]), answer


# -- paths ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    [
        "/static/../wsgi.py", "/static/%2e%2e/wsgi.py", "/static/..%2fwsgi.py", "/static/%2e%2e%2fwsgi.py",
        "/static/..\\wsgi.py", "/static/..%5cwsgi.py", "/static/....//wsgi.py", "/static//../wsgi.py",
        "/static/%252e%252e/wsgi.py", "/static/%c0%ae%c0%ae/wsgi.py", "/static/./.././wsgi.py", "/static/..;/wsgi.py",
        "/static/%00../wsgi.py", "/static/site.css%00.html", "/static/site.css%0d%0aX-Bad:%201", "/static../wsgi.py",
        "/static..%2fwsgi.py", "/static_private/secret.txt", "/static/../static_private/secret.txt",
        "/static%2f..%2fstatic_private/secret.txt", "/media/pub/../secret.txt", "/media/pub/..%2fsecret.txt",
        "/media/pub../secret.txt", "/media/secret.txt", "/uploads/../secret.txt", "/uploads/..%2fsecret.txt",
        "/uploads../secret.txt", "/static/../../etc/environment", "/static/inside.css", "/static/out/passwd",
        "/static/out/", "/uploads/out.txt", "/uploads/code.txt", "/static/../../../../../../etc/passwd",
    ],
)  # fmt: skip
def test_nothing_leads_out_of_a_directory(served: Site, target: str) -> None:
    """No dots, however they are written, no sibling, no link: who asks for it gets an error, or the app as any page."""
    status, answer = raw(served, target)
    from_app = b"X-App: yes" in answer
    assert status in ({200} if from_app else {400, 403, 404})
    for secret in (INSIDE.strip().encode(), b"def application", b"root:", b"hidden"):
        assert secret not in answer
    assert b"\nX-Bad" not in answer


@pytest.mark.parametrize(
    "target",
    [
        "//static//site.css",
        "/static/./site.css",
        "/static/empty/../site.css",
        "/static/%73ite.css",
        "/x/../static/site.css",
    ],
)
def test_a_file_has_more_than_one_name(served: Site, target: str) -> None:
    """What is the same path once it is read is the same file."""
    status, answer = raw(served, target)
    assert (status, answer.endswith(CSS.encode())) == (200, True)


@pytest.mark.parametrize("name", HIDDEN)
def test_dotfiles_and_backups_are_not_there(served: Site, name: str) -> None:
    """Nor what begins like one in another writing; .well-known is there to be read."""
    quoted = name.replace("#", "%23")
    for target in (f"/static/{quoted}", f"/static/{quoted.replace('.', '%2e')}"):
        status, answer = raw(served, target)
        assert (status, b"X-App" in answer, INSIDE.encode() in answer) == (404, False, False)
    assert served.get("/static/.well-known/security.txt").body.startswith(b"Contact")


def test_no_listing(web: WebServer, served: Site) -> None:
    """A directory shows its index.html, if it has one, and else nothing."""
    assert served.get("/static/pages/").body == b"<h1>pages</h1>"
    for path in ("/static/", "/static/empty/", "/static/empty/deep/", "/uploads/", "/uploads/dir/"):
        answer = served.get(path)
        assert (answer.status, b"deep" in answer.body, b"a.png" in answer.body) == (403, False, False)
    answer = served.get("/static/empty")
    there = web.either("", "http://localhost") + "/static/empty/"
    assert (answer.status, answer.headers["location"]) == (301, there)


@pytest.mark.parametrize("path", ["/static/none.css", "/static/none/", "/static/site.css/none", "/media/pub/none",
                                  "/uploads/none", "/static/none.3f2a9c1b.css"])  # fmt: skip
def test_what_is_missing_is_not_asked_of_the_app(served: Site, path: str) -> None:
    """The answer is nginx's own, and nobody keeps it."""
    answer = served.get(path)
    assert (answer.status, answer.headers.get("x-app"), answer.headers.get("cache-control")) == (404, None, None)
    assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/static/site.css", "/static/none.css", "/static/", "/static/.env", "/uploads/a.png"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"])
def test_static_files_are_only_read(web: WebServer, served: Site, path: str, method: str) -> None:
    """Any other method is not allowed, with a body or without, and the answer says which are."""
    answer = served.get(path, method, body=None if method == "TRACE" else b"x" * 20000)
    assert answer.status == 405
    if method != "TRACE":
        # Apache adds a line that is empty.
        assert raw(served, path, method)[1].count(b"\r\nAllow: GET, HEAD\r\n") == 1
    assert served.get(path, "HEAD").status == served.get(path).status


# -- what is kept -----------------------------------------------------------------------------------------------------


def test_what_has_not_changed_is_not_sent_again(served: Site) -> None:
    """By ETag and by time; a condition that does not hold is told."""
    first = served.get("/static/site.css")
    tag, modified = first.headers["etag"], first.headers["last-modified"]
    for headers in ({"If-None-Match": tag}, {"If-None-Match": f'"other", W/{tag}'}, {"If-Modified-Since": modified}):
        answer = served.get("/static/site.css", headers=headers)
        assert (answer.status, answer.body, answer.headers["etag"]) == (304, b"", tag)
        assert answer.headers["cache-control"] == f"public, {ASK}"
    for headers in ({"If-None-Match": '"other"'}, {"If-Modified-Since": "Mon, 01 Jan 2001 00:00:00 GMT"}):
        assert served.get("/static/site.css", headers=headers).body == CSS.encode()
    assert served.get("/static/site.css", headers={"If-Match": '"other"'}).status == 412
    packed = served.get("/static/site.css", headers={"Accept-Encoding": "gzip"}).headers["etag"]
    again = served.get("/static/site.css", headers={"Accept-Encoding": "gzip", "If-None-Match": packed})
    assert again.status == 304


def test_parts_of_files(web: WebServer, served: Site) -> None:
    """For films, and for downloads that broke off."""

    def part(span: str, **more: str) -> Answer:
        return served.get("/static/site.css", headers={"Range": f"bytes={span}", **more})

    whole, size = CSS.encode(), len(CSS)
    first = part("0-99")
    assert (first.status, first.body, first.headers["content-range"]) == (206, whole[:100], f"bytes 0-99/{size}")
    assert part("-10").body == whole[-10:]
    assert part(f"{size - 10}-").body == whole[-10:]
    assert part("0-1,10-11").headers["content-type"].startswith("multipart/byteranges")
    past = part(f"{size}-")
    assert (past.status, past.headers.get("content-range")) == (416, web.either(f"bytes */{size}", None))
    assert part("0-99", **{"If-Range": first.headers["etag"]}).status == 206
    assert part("0-99", **{"If-Range": '"other"'}).body == whole
    # None of the compressed one, which has no size of its own; and who has a part of that gets the whole.
    gzip = {"Accept-Encoding": "gzip"}
    answer = part("0-99", **gzip)
    assert (answer.status, answer.headers.get("content-encoding")) == web.either((200, "gzip"), (206, None))
    packed = served.get("/static/site.css", headers=gzip).headers["etag"]
    assert packed == f"W/{first.headers['etag']}"
    assert part("0-99", **gzip, **{"If-Range": packed}).status == 200


@pytest.mark.parametrize("name", NAMES)
def test_only_a_name_with_a_digest_is_kept_for_ever(served: Site, name: str) -> None:
    """And what is below web_static_immutable; everything else is asked for each time."""
    assert served.get(f"/static/{name}").headers["cache-control"] == f"public, {NAMES[name]}"


def test_what_a_password_opened_is_not_shared(served: Site) -> None:
    """A cache between visitors may not give it to others."""
    answer = served.get(f"/static/{HASHED}", headers={"Authorization": "Basic eDp4"})
    assert answer.headers["cache-control"] == f"private, {YEAR}"


@pytest.mark.parametrize("name", TYPES)
def test_types(web: WebServer, served: Site, name: str) -> None:
    """What Debian's list of types lacks is there too, and text is said to be UTF-8."""
    answer = served.get(f"/static/{name}")
    assert answer.headers["content-type"] == web.either({}, APACHES_TYPES).get(name, TYPES[name])
    assert answer.headers["x-content-type-options"] == "nosniff"


# -- compression ------------------------------------------------------------------------------------------------------

DECODE = """
import ctypes, sys
data = bytes.fromhex(sys.argv[1])
size, text = ctypes.c_size_t(1 << 20), ctypes.create_string_buffer(1 << 20)
decoder = ctypes.CDLL('libbrotlidec.so.1')
assert decoder.BrotliDecoderDecompress(ctypes.c_size_t(len(data)), data, ctypes.byref(size), text) == 1
print(text.raw[: size.value].decode(), end='')
"""


def test_compression(served: Site, host: Host) -> None:
    """By what the browser takes, Brotli first; whoever stands between is told that it depends on that."""
    plain = served.get("/static/site.css")
    assert (plain.body, plain.headers.get("content-encoding")) == (CSS.encode(), None)
    packed = served.get("/static/site.css", headers={"Accept-Encoding": "gzip, deflate"})
    assert (packed.headers["content-encoding"], gzip.decompress(packed.body)) == ("gzip", CSS.encode())
    better = served.get("/static/site.css", headers={"Accept-Encoding": "gzip, deflate, br"})
    assert better.headers["content-encoding"] == "br"
    assert decode(host, better.body) == CSS
    for answer in (plain, packed, better):
        assert answer.headers["vary"] == "Accept-Encoding"


def decode(host: Host, data: bytes) -> str:
    """Decompress Brotli by the library that the host's nginx has."""
    done = host.run(f'python3 -c "{DECODE}" {data.hex()}')
    assert done.rc == 0, done.stderr
    return str(done.stdout)


def test_what_was_compressed_beforehand_is_served(web: WebServer, served: Site) -> None:
    """A .gz or .br beside the file, as often as it is asked for; Apache compresses what it needs itself."""
    if web.either(False, True):
        for accepted in ("gzip", "gzip, br"):
            answer = served.get("/static/ready.js", headers={"Accept-Encoding": accepted})
            assert answer.headers["content-encoding"] == accepted.split()[-1]
            assert b"beforehand" not in answer.body
        return
    for accepted, text in (("", "let ready"), ("gzip", "gzipped"), ("gzip, br", "brotli"), ("br;q=0, gzip", "gzipped")):
        for number in range(20):
            headers = {"Accept-Encoding": accepted, "Cookie": "/" * number}
            answer = served.get("/static/ready.js", headers=headers)
            assert answer.body.startswith(text.encode())
            assert answer.headers["vary"] == "Accept-Encoding"
            assert answer.headers["content-type"] == "application/javascript; charset=utf-8"


def test_what_is_not_compressed(served: Site) -> None:
    """What is small or compressed already, and the app's own answers: their length would give secrets away."""
    for path in ("/static/tiny.css", "/static/picture.webp", "/static/font.woff2", "/uploads/a.txt", "/page"):
        assert "content-encoding" not in served.get(path, headers={"Accept-Encoding": "gzip, br"}).headers


# -- uploads ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", "image/png"), ("a.txt", "text/plain; charset=utf-8"), ("a.html", ""), ("a.svg", ""), ("a.js", ""),
        ("a.xml", ""), ("a.pdf", ""), ("a.php", ""), ("a", ""),
    ],
)  # fmt: skip
def test_uploads_are_never_run(served: Site, name: str, kind: str) -> None:
    """What is no picture, sound, film or plain text is saved; nothing may do anything in the site's name."""
    answer = served.get(f"/uploads/{name}", headers={"Accept-Encoding": "gzip"})
    assert (answer.status, answer.body) == (200, b"<script>alert(1)</script>\n")
    assert answer.headers["content-type"] == (kind or "application/octet-stream")
    assert answer.headers.get("content-disposition") == (None if kind else "attachment")
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == f"public, {ASK}"
    assert served.get("/uploads/.env").status == 404


# -- the release before -----------------------------------------------------------------------------------------------


def test_a_page_that_is_open_finds_its_files(
    web: WebServer, shop: Shop, sites: dict[str, Site], hosts: dict[str, Host], playbook: Callable[..., Run]
) -> None:
    """Across a deploy, the next one and a rollback, at every moment; with its headers, its type, and its ETag."""

    def every(path: str, **headers: str) -> dict[str, Answer]:
        return {name: site.get(path, headers=headers) for name, site in sites.items()}

    def statuses(path: str) -> set[int]:
        return {answer.status for answer in every(path).values()}

    first = every("/static/only-first.css")
    unchanged = every("/static/site.css")
    gone = ("static/only-first.css", "shop/assets/only-first.css", f"static/{HASHED}", "static/ready.js",
            "static/ready.js.gz", "static/ready.js.br", "static/.env", "static/dist/index-DzKqTfgW.js")  # fmt: skip
    lay_out(shop.source, {"static/only-second.css": CSS}, without=gone)
    with visited(sites, "/static/only-first.css") as visitors:
        shop.deploy()
    assert not any(visitors.failed().values())
    for name in hosts:
        answer = every("/static/only-first.css")[name]
        assert (answer.status, answer.headers["etag"]) == (200, first[name].headers["etag"])
        assert every("/static/site.css")[name].headers["etag"] == unchanged[name].headers["etag"], "its time was kept"
    assert statuses("/static/only-second.css") == statuses("/media/pub/only-first.css") == {200}
    for path in (f"/static/{HASHED}", "/static/dist/index-DzKqTfgW.js"):
        assert {answer.headers["cache-control"] for answer in every(path).values()} == {f"public, {YEAR}"}
    tag = next(iter(first.values())).headers["etag"]
    for headers, status in (({"If-None-Match": tag}, 304), ({"Range": "bytes=0-9"}, 206)):
        assert {answer.status for answer in every("/static/only-first.css", **headers).values()} == {status}
    answers = every("/static/ready.js", **{"Accept-Encoding": "gzip, br"}).values()
    assert {answer.headers["content-encoding"] for answer in answers} == {"br"}
    assert {answer.body == b"brotli beforehand" for answer in answers} == {web.either(True, False)}
    for path in ("/static/.env", "/static/..%2fwsgi.py", "/static/none.css", "/static/out/passwd"):
        for site in sites.values():
            status, whole = raw(site, path)
            assert b"def application" not in whole
            assert status in (403, 404) or b"X-App" in whole

    lay_out(shop.source, {"static/only-third.css": CSS}, without=(*gone, "static/only-second.css"))
    shop.deploy()
    for path in (
        "/static/only-second.css",
        "/static/only-third.css",
        "/static/only-first.css",
        "/media/pub/only-first.css",
    ):
        assert statuses(path) == {200}
    assert {answer.body for answer in every("/uploads/a.png").values()} == {b"<script>alert(1)</script>\n"}

    with (
        visited(sites, "/static/only-third.css", 0.01) as third,
        visited(sites, "/static/only-second.css", 0.01) as second,
    ):
        assert playbook("playbooks/rollback.yml", **INPUTS).code == 0
    assert not any([*third.failed().values(), *second.failed().values()])
    assert statuses("/static/only-third.css") == {200}
    assert statuses("/static/only-first.css") == {404}, "its time is over"
    for host in hosts.values():
        leads = host.check_output("cd /srv/hello && readlink live previous earlier").split()
        assert leads[0] == leads[2] != leads[1]
        assert all(host.file(os.path.join("/srv/hello", one, "release.json")).exists for one in leads)
