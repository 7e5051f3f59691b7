"""What the inputs of the edge do: all that can be said at once, deployed once; and what is refused."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import resource
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest
from conftest import APP, ROOT, Answer, Run, Site, WebServer, await_that, live_release, on_host, pids
from testinfra.host import Host
from wire import exchange, fields, heard, http2, message, status, websocket

NAME = "www.example.org"
GATEWAY = "10.0.0.0/8"  # podman's own network: the tests come from there, and may say who they are
VISITOR = "203.0.113.9"
# Kinds of messages by websocket.
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
WORKERS = 4  # the default
LIMIT = 3  # seconds that a request may take
RICH: dict[str, Any] = {
    "release_source": str(ROOT / "tests" / "apps" / "edge"),
    "release_requirements": [],
    "release_health_path": "/x",
    "app_static": {"/static/": "static"},
    "app_prefix": "/shop",
    "web_server_names": [NAME],
    "web_certificate": "self_signed",
    "web_tls_public_port": 8443,
    "web_tls_profile": "modern",
    "web_hsts_max_age": 300,
    "web_headers": {"X-Frame-Options": "DENY", "Permissions-Policy": "", "X-Quoted": 'a "b" ; }'},
    "web_trusted_proxies": [GATEWAY],
    "web_deny": ["198.51.100.0/24"],
    "web_allow": {"/shop/admin/": [f"{VISITOR}/32", "2001:db8::/32"]},
    # "correct horse"
    "web_users": {
        "you": "$6$saltsalt$hRM5XZ86KXEw9UOmjigeVqFgULtFB2sgpC9lXQDfMib3Zgw7mEiUvBJI2EplzfAqxL5Vvwp2scFtv/uamSo5z0"
    },
    "web_users_prefixes": ["/shop/private/"],
    "web_users_except": ["/shop/private/open"],
    "web_redirects": {"/old": "/shop/new", "/shop/far": "https://example.net/", "old.example.org": f"https://{NAME}"},
    "app_streams": ["/stream/"],
    "app_timeout": LIMIT,
    "app_threads": 2,
    "web_client_max_body_size": "1m",
}


# What one of them has alone, or in words of its own. The page that is gone is so by its raw directives.
OWN: dict[str, dict[str, Any]] = {
    "nginx": {
        "nginx_acme_webroot": "/var/lib/slipway-acme/webroot",
        "web_rate_limit": 50,
        "web_rate_burst": 40,
        "web_connection_limit": 20,
        "nginx_extra": {
            "http": "map $uri $mine { default mine; }",
            "server": "location = /gone {\n  return 410;\n}",
        },
    },
    "apache": {
        "apache_acme_webroot": "/var/lib/slipway-acme/webroot",
        "apache_extra": {"http": "Define MINE", "server": "RewriteRule ^/gone$ - [R=410,L]"},
    },
}


@pytest.fixture(scope="module")
def rich(web: WebServer, playbook: Callable[..., Run]) -> dict[str, Any]:
    """Serve with all of it, and give it. It stays so: what comes next, test_raw.py, brings a site of its own."""
    inputs = RICH | OWN[web.name]
    run = playbook("site.yml", **inputs)
    assert run.code == 0, run.output
    return inputs


@pytest.fixture
def edge(site: Site, rich: dict[str, Any]) -> Site:
    """The site that has all of it."""
    return site


def ask(site: Site, path: str, method: str = "GET", body: Any = None, **headers: str) -> Answer:
    """Ask by HTTPS for the site's name; a header's underscores stand for dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return site.get(path, method, body, named, tls=True, name=NAME)


def test_the_app_is_below_its_prefix(web: WebServer, edge: Site) -> None:
    """Its SCRIPT_NAME is the prefix, its path the rest, whatever is in that; static files are below it too."""
    for asked, path in (("/shop/", "/"), ("/shop/x", "/x"), ("/shop/a%0ab", "/a\nb"), ("/shop/shop/%2e", "/shop/")):
        told = ask(edge, asked).json()
        assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("/shop", path)
    assert ask(edge, "/shop?a=b").headers["location"] == web.either("", f"https://{NAME}") + "/shop/?a=b"
    assert ask(edge, "/shop/static/style.css").headers["content-type"].startswith("text/css")
    for other in ("/", "/x", "/shopping", "/static/style.css"):
        assert ask(edge, other).status == 404


def test_the_redirect_leads_to_the_port_that_visitors_use(edge: Site) -> None:
    """It is forwarded from another one here."""
    assert edge.get("/shop/x?y", name=NAME).headers["location"] == f"https://{NAME}:8443/shop/x?y"


def test_the_port_that_was_typed_is_the_apps(web: WebServer, edge: Site) -> None:
    """If it is one."""
    for typed, host in (
        (":8443", ":8443"),
        (":65535", ":65535"),
        (":65536", web.either("", None)),
        (":0", web.either("", None)),
        (":99999999", web.either("", None)),
        ("", ""),
    ):
        sent = f"GET /shop/x HTTP/1.1\r\nHost: {NAME}{typed}\r\nConnection: close\r\n\r\n".encode()
        received = exchange(edge, sent, name=NAME)
        if host is None:
            assert status(received) == 400
        else:
            assert f'"HTTP_HOST": "{NAME}{host}"'.encode() in received, received


def test_hsts_and_the_inputs_own_headers(edge: Site) -> None:
    """One is changed, one left out, one added; what the app sets itself stays, and stays once."""
    for path in ("/shop/x", "/shop/static/style.css", "/shop/broken", "/nowhere"):
        headers = ask(edge, path).headers
        assert headers["strict-transport-security"] == "max-age=300"
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-quoted"] == 'a "b" ; }'
        assert "permissions-policy" not in headers
        assert "x-powered-by" not in headers
    sent = f"GET /shop/own HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode()
    found = fields(exchange(edge, sent, name=NAME))
    own = [pair for pair in found if pair[0] in ("x-frame-options", "strict-transport-security")]
    assert sorted(own) == [("strict-transport-security", "max-age=1"), ("x-frame-options", "SAMEORIGIN")]
    assert "strict-transport-security" not in edge.get("/shop/x", name=NAME).headers, "by HTTP it means nothing"


def test_an_error_of_the_apps_own_is_passed_on(edge: Site) -> None:
    """Only the web server's own are made the visitor's."""
    answer = ask(edge, "/shop/broken")
    assert (answer.status, answer.json()["PATH_INFO"]) == (500, "/broken")


def test_modern_is_tls_1_3_only(edge: Site) -> None:
    """By one input."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for version, there in (("TLSv1_2", False), ("TLSv1_3", True)):
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
        with socket.create_connection(("127.0.0.1", edge.tls_port), timeout=20) as plain:
            expected = contextlib.nullcontext() if there else pytest.raises((ssl.SSLError, ConnectionError))
            with expected, context.wrap_socket(plain, server_hostname=NAME) as connection:
                assert connection.version() == "TLSv1.3"


@pytest.mark.parametrize("name", ["other.example.org", "a.www.example.org", "localhost", "127.0.0.1"])
def test_other_names_are_refused(web: WebServer, edge: Site, name: str) -> None:
    """In TLS before a certificate is shown, by HTTP without an answer, or without one of the app's."""
    with pytest.raises((ssl.SSLError, ConnectionError)):
        edge.connect(True, name).close()
    received = exchange(edge, f"GET /shop/x HTTP/1.1\r\nHost: {name}\r\n\r\n".encode(), tls=False)
    assert status(received) == web.either(0, 421)


def test_other_names_are_refused_on_ipv6(web: WebServer, host: Host, edge: Site) -> None:
    """As on IPv4."""
    script = (
        "import socket, ssl\n"
        "c = ssl._create_unverified_context()\n"
        "for n in ('other.example.org', 'www.example.org'):\n"
        "    try: print(c.wrap_socket(socket.create_connection(('::1', 443)), server_hostname=n).version())\n"
        "    except (ssl.SSLError, ConnectionError): print('refused')\n"
        "    s = socket.create_connection(('::1', 80)); s.sendall(b'GET / HTTP/1.0\\r\\nHost: '\n"
        "        + n.encode() + b'\\r\\n\\r\\n')\n"
        "    try: print(s.recv(12))\n"
        "    except ConnectionError: print('closed')"
    )
    assert on_host(host, script).splitlines() == [
        "refused",
        web.either("closed", "b'HTTP/1.1 421'"),
        "TLSv1.3",
        "b'HTTP/1.1 308'",
    ]


def test_the_right_name_in_tls_and_another_in_http_is_misdirected(web: WebServer, edge: Site) -> None:
    """By HTTP/1.1 and HTTP/2, and none in HTTP/1.0 is another too."""
    for other in ("other.example.org", "localhost", "old.example.org.", "127.0.0.1"):
        sent = f"GET /shop/x HTTP/1.1\r\nHost: {other}\r\nConnection: close\r\n\r\n".encode()
        assert status(exchange(edge, sent, name=NAME)) == (308 if "old" in other else 421)
    assert http2(edge, "/shop/x", [], NAME, "other.example.org") == 421
    assert http2(edge, "/shop/x", [], NAME) == 200
    assert status(exchange(edge, b"GET /shop/x HTTP/1.0\r\n\r\n", name=NAME)) == web.either(421, 400)


def test_only_the_authoritys_questions_are_answered_by_http(web: WebServer, host: Host, edge: Site) -> None:
    """By any name, and without following a link."""
    root = "/var/lib/slipway-acme/webroot/.well-known/acme-challenge"
    host.check_output(f"mkdir -p {root} && echo answer > {root}/token && ln -sf /etc/passwd {root}/link")
    try:
        for name in (NAME, "old.example.org", "other.example.org", "127.0.0.1"):
            answer = edge.get("/.well-known/acme-challenge/token", name=name)
            assert (answer.status, answer.body) == (200, b"answer\n")
        for path, code in (("link", web.either(404, 403)), ("none", 404), ("", 404), ("%2e%2e/%2e%2e/shop/x", 308)):
            assert edge.get(f"/.well-known/acme-challenge/{path}", name=NAME).status == code
    finally:
        host.check_output(f"rm {root}/token {root}/link")


def test_a_trusted_proxy_says_who_the_visitor_is(web: WebServer, edge: Site) -> None:
    """The last address that is no trusted proxy's; the scheme, if it is one. Nothing else reaches the app."""
    for said, address in (
        (VISITOR, VISITOR),
        (f"1.2.3.4, {VISITOR}, 10.1.2.3", VISITOR),
        ("2001:db8::7", "2001:db8::7"),
    ):
        told = ask(
            edge, "/shop/x", X_Forwarded_For=said, X_Forwarded_Host="evil", X_Forwarded_Port="1", Forwarded="for=9"
        )
        told = told.json()
        assert (told["REMOTE_ADDR"], told["HTTP_X_FORWARDED_FOR"], told["HTTP_X_REAL_IP"]) == (address,) * 3
        assert not {"HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PORT", "HTTP_FORWARDED"} & set(told)
    for said, scheme in (("http", "http"), ("https", "https"), ("javascript", "https"), ("http, https", "https")):
        told = ask(edge, "/shop/x", X_Forwarded_Proto=said, X_Forwarded_Ssl="on").json()
        assert told["HTTP_X_FORWARDED_PROTO"] == told["wsgi.url_scheme"] == scheme
        assert told["REQUEST_SCHEME"] == web.either(scheme, "https")
        assert told.get("HTTPS") == web.either("on" if scheme == "https" else None, "on")


def test_nobody_else_does(host: Host, edge: Site) -> None:
    """The host itself is no trusted proxy."""
    script = (
        "import http.client as c, ssl, socket\n"
        "k = c.HTTPConnection('www.example.org')\n"
        "k.sock = ssl._create_unverified_context().wrap_socket(\n"
        "    socket.create_connection(('127.0.0.1', 443)), server_hostname='www.example.org')\n"
        "k.request('GET', '/shop/x', headers={'X-Forwarded-For': '203.0.113.9', 'X-Forwarded-Proto': 'http'})\n"
        "print(k.getresponse().read().decode())"
    )
    told = json.loads(on_host(host, script))
    assert (told["REMOTE_ADDR"], told["HTTP_X_FORWARDED_FOR"], told["REQUEST_SCHEME"]) == (
        "127.0.0.1",
        "127.0.0.1",
        "https",
    )


def test_networks_are_refused_and_admitted(edge: Site) -> None:
    """The whole site to some, a part of it to all but some, by address of the visitor and not of the proxy."""
    for path, address, code in (
        ("/shop/x", "198.51.100.7", 403),
        ("/shop/x", "198.51.101.7", 200),
        ("/shop/admin/x", VISITOR, 200),
        ("/shop/admin/x", "2001:db8::1", 200),
        ("/shop/admin/x", "203.0.113.10", 403),
        ("/shop/./x/../admin//x", "203.0.113.10", 403),
        ("/shop/%61dmin/x", "203.0.113.10", 403),
    ):
        assert ask(edge, path, X_Forwarded_For=address).status == code, (path, address)
    assert ask(edge, "/shop/admin/x").status == 403, "the proxy itself"


def test_a_part_of_the_site_is_for_users(web: WebServer, host: Host, edge: Site) -> None:
    """The app is told who it is; nobody but nginx can read the hashes."""
    right = "Basic " + base64.b64encode(b"you:correct horse").decode()
    wrong = "Basic " + base64.b64encode(b"you:wrong").decode()
    refused = ask(edge, "/shop/private/x")
    assert (refused.status, refused.headers["www-authenticate"]) == (401, f'Basic realm="{APP}"')
    assert ask(edge, "/shop/private/x", Authorization=wrong).status == 401
    assert ask(edge, "/shop/%70rivate/x").status == 401
    assert ask(edge, "/shop/private/x", Authorization=right).json()["REMOTE_USER"] == "you"
    assert ask(edge, "/shop/private/open").status == 200
    assert ask(edge, "/shop/x").status == 200
    file = host.file(f"{web.directory}/slipway/{APP}/users")
    assert (file.user, file.group, file.mode) == ("root", "www-data", 0o640)


def test_moved_pages_and_names(web: WebServer, edge: Site) -> None:
    """By 308, with the query."""
    for path, location in (
        ("/old?a=b", web.either("", f"https://{NAME}") + "/shop/new?a=b"),
        ("/shop/far", "https://example.net/"),
    ):
        answer = ask(edge, path, "POST", b"x")
        assert (answer.status, answer.headers["location"]) == (308, location)
    for tls in (False, True):
        answer = edge.get("/a?b", tls=tls, name="old.example.org")
        assert (answer.status, answer.headers["location"]) == (308, f"https://{NAME}/a?b")


def test_raw_directives_are_in_force(edge: Site) -> None:
    """In the server, with the security headers."""
    answer = ask(edge, "/gone")
    assert (answer.status, answer.headers["x-frame-options"]) == (410, "DENY")


def test_a_body_that_is_too_big_is_refused(web: WebServer, edge: Site) -> None:
    """By one input; with a length and without one."""
    assert ask(edge, "/shop/x", "POST", b"x" * 1_000_000).status == 200
    assert ask(edge, "/shop/x", "POST", iter([b"x" * 100_000] * 10)).status == web.either(200, 411)
    for sent in (
        b"Content-Length: 2000000\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n" + b"186a0\r\n" + b"x" * 100_000,
    ):
        head = f"POST /shop/x HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n".encode()
        received = exchange(edge, head + sent + (b"\r\n186a0\r\n" + b"x" * 100_000) * 11, name=NAME)
        assert status(received) == web.either(413, 411 if b"chunked" in sent else 413)


def has_limits(web: WebServer, hosts: dict[str, Host], playbook: Callable[..., Run]) -> bool:
    """Say whether the web server can limit what one address does; one that cannot has to say so, before it does."""
    if web.name == "nginx":
        return True
    run = playbook("site.yml", web_rate_limit=50, web_connection_limit=20)
    assert run.code != 0
    assert run.changed == dict.fromkeys(hosts, 0)
    for name, value, what in (("rate_limit", 50, "requests"), ("connection_limit", 20, "one address's connections")):
        said = f"apache_{name} is {value} (web_{name}); accepted is 0: Apache has no limit of {what}."
        assert said in run.words
    return False


@pytest.fixture(scope="module")
def limited(web: WebServer, hosts: dict[str, Host], rich: dict[str, Any], playbook: Callable[..., Run]) -> bool:
    """Whether the web server has the limits that the inputs say."""
    return has_limits(web, hosts, playbook)


def test_who_asks_too_often_is_told(edge: Site, limited: bool) -> None:
    """Each address for itself, by 429: 50 a second and 40 at once."""
    if not limited:
        return
    connection = http.client.HTTPConnection(NAME, timeout=20)
    connection.sock = edge.connect(True, NAME)
    met = []
    for _ in range(150):
        connection.request("GET", "/shop/x", headers={"X-Forwarded-For": "192.0.2.50"})
        answer = connection.getresponse()
        answer.read()
        met.append(answer.status)
    connection.close()
    assert set(met) == {200, 429}
    assert set(met[:40]) == {200}
    assert ask(edge, "/shop/x", X_Forwarded_For="192.0.2.51").status == 200


def test_who_has_too_many_requests_at_a_time_is_told(edge: Site, limited: bool) -> None:
    """20 of them, which wait for the rest of their bodies."""
    if not limited:
        return
    head = (
        f"POST /shop/x HTTP/1.1\r\nHost: {NAME}\r\nX-Forwarded-For: 192.0.2.60\r\nContent-Length: 1\r\n"
        "Connection: close\r\n\r\n"
    ).encode()
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(edge.connect(True, NAME)).sendall(head)
        await_that(lambda: ask(edge, "/shop/x", X_Forwarded_For="192.0.2.60").status == 429, 5)
        assert ask(edge, "/shop/x", X_Forwarded_For="192.0.2.61").status == 200
    await_that(lambda: ask(edge, "/shop/x", X_Forwarded_For="192.0.2.60").status == 200, 5)


def question(path: str) -> bytes:
    """Return a request as bytes."""
    return f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode()


def pieces(site: Site, path: str) -> list[float]:
    """Return when the first and the last byte of an answer's body came, in seconds from the question."""
    with site.connect(True, NAME) as connection:
        started = time.monotonic()
        connection.sendall(question(path))
        received, first = b"", 0.0
        while chunk := connection.recv(65536):
            received += chunk
            if not first and b'"PATH_INFO"' in received:
                first = time.monotonic() - started
    return [first, time.monotonic() - started]


def test_what_streams_comes_piece_by_piece(web: WebServer, edge: Site) -> None:
    """Elsewhere nginx waits until it has enough, and Apache does not."""
    first, last = pieces(edge, "/shop/stream/x")
    assert last - first > 0.8
    first, last = pieces(edge, "/shop/slow/x")
    assert (last - first < 0.5) == web.either(True, False)


def test_a_stream_may_take_any_time(edge: Site) -> None:
    """Longer than a request may, which is ended."""
    _, last = pieces(edge, f"/shop/stream/{LIMIT + 3}")
    assert last > LIMIT + 3
    started = time.monotonic()
    received = exchange(edge, question(f"/shop/slow/{LIMIT + 30}"), name=NAME)
    assert b'"PATH_INFO"' in received, "it had begun"
    assert time.monotonic() - started < LIMIT + 10


def echo(site: Site, times: int) -> None:
    """Use so many websockets one after the other, the last one for longer than a request may take."""
    for _ in range(times):
        with websocket(site, "/shop/stream/socket", NAME, Origin=f"https://{NAME}") as connection:
            connection.sendall(message(TEXT, b"first") + message(TEXT, b"second"))
            assert [heard(connection), heard(connection)] == [(TEXT, b"first"), (TEXT, b"second")]
            connection.sendall(message(PING, b""))
            assert heard(connection) == (PONG, b"")
    with websocket(site, "/shop/stream/socket", NAME) as connection:
        connection.settimeout(LIMIT + 3)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        connection.settimeout(20)
        connection.sendall(message(TEXT, b"still there"))
        assert heard(connection) == (TEXT, b"still there")
        connection.sendall(message(CLOSE, b""))
        assert heard(connection)[0] == CLOSE
        assert connection.recv(1) == b""


def test_a_websocket(edge: Site) -> None:
    """What is sent comes back; and the worker is free when it is closed."""
    echo(edge, 4 * WORKERS)


@pytest.mark.parametrize("wanted", ["websocket", "h2c"])
def test_who_asks_an_app_for_what_it_is_not_is_answered(edge: Site, wanted: str) -> None:
    """By the page, as if it had not been asked: no app has agreed to anything, and nothing hangs."""
    upgrade = f"Upgrade: {wanted}\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    for path in ("/shop/x", "/shop/static/style.css"):
        sent = question(path).replace(b"Connection: close", f"{upgrade}Connection: Upgrade, close".encode())
        received = exchange(edge, sent, name=NAME)
        assert status(received) == 200


def test_a_stop_waits_until_an_answer_is_taken(edge: Site, host: Host) -> None:
    """Whoever takes it slowly gets all of it, though the worker is told to end in the middle of writing."""
    unit = f"{APP}@{live_release(host)}.service"
    with edge.connect(True, NAME) as connection:
        connection.sendall(question("/shop/stream/much"))
        received = len(connection.recv(65536).partition(b"\r\n\r\n")[2])
        host.check_output(f"systemctl stop --no-block {unit}")
        await_that(lambda: "deactivating" in host.run(f"systemctl is-active {unit}").stdout)
        while chunk := connection.recv(65536):
            received += len(chunk)
    host.check_output(f"systemctl start {unit}")
    assert received == 30_000_000


FINGERPRINT = "find {0} -printf '%p %m %u %g %s %l\\n' | sort; find {0} -type f | sort | xargs sha256sum"
# How each names what it does not know.
UNKNOWN = {
    "nginx": 'unknown directive "frobnicate" in /etc/nginx/slipway/{}/server.conf:1',
    "apache": "Syntax error on line 1 of /etc/apache2/slipway/{}/server.conf: Invalid command 'frobnicate'",
}


def test_a_bad_snippet_changes_nothing(
    web: WebServer, hosts: dict[str, Host], sites: dict[str, Site], rich: dict[str, Any], playbook: Callable[..., Run]
) -> None:
    """The play ends red with the web server's own words; what was there is in force, and what a restart would serve."""
    fingerprint = FINGERPRINT.format(web.directory)
    before = {name: (host.check_output(fingerprint), pids(host)) for name, host in hosts.items()}
    raw = {f"{web.name}_extra": {"server": "frobnicate on;"}}
    run = playbook("site.yml", **{**rich, **raw, "web_read_timeout": 99})
    assert run.code != 0
    assert UNKNOWN[web.name].format(APP) in run.words
    assert "What was there before is back." in run.words
    for name, host in hosts.items():
        assert (host.check_output(fingerprint), pids(host)) == before[name]
        assert ask(sites[name], "/gone").status == 410
        host.check_output(web.test)


def test_after_a_refusal_a_restart_serves(
    web: WebServer, hosts: dict[str, Host], sites: dict[str, Site], rich: dict[str, Any]
) -> None:
    """Last, as the processes are others then."""
    for name, host in hosts.items():
        host.check_output(f"systemctl restart {web.unit}")
        assert ask(sites[name], "/shop/x").status == 200


# By the inputs' names without the role's, which stands in {}.
BAD: dict[str, tuple[Any, str]] = {
    "tls_port": (99999, "{}_tls_port is 99999; accepted is a whole number from 1 to 65535."),
    "tls_profile": ("old", "{}_tls_profile is 'old'; accepted is one of intermediate, modern."),
    "tls": ("yes", "{}_tls is 'yes'; accepted is true or false."),
    "certificate_directory": (
        "/etc/x; }",
        "{}_certificate_directory is '/etc/x; }'; accepted is an absolute path",
    ),
    "hsts_max_age": (-1, "{}_hsts_max_age is -1; accepted is a whole number from 0 to 315360000."),
    "headers": (
        {"X-A": "a\nadd_header X-B b", "X B": "b", "Strict-Transport-Security": "max-age=1"},
        "{}_headers['X-A'] is 'a\\nadd_header X-B b'; accepted is one line of printable ASCII without a dollar sign",
    ),
    "security_headers": ({"X-A": "$host"}, "{}_security_headers['X-A'] is '$host'; accepted is one line"),
    "hidden_headers": (["A;"], "{}_hidden_headers[0] is 'A;'; accepted is the name of a header"),
    "trusted_proxies": (
        ["10.0.0.1/8"],
        "{}_trusted_proxies[0] is '10.0.0.1/8'; accepted is an IP address",
    ),
    "real_ip_header": ("X_Forwarded", "{}_real_ip_header is 'X_Forwarded'; accepted is the name of a header"),
    "deny": (["example.org"], "{}_deny[0] is 'example.org'; accepted is an IP address"),
    "allow": (
        {"/admin": ["::1"]},
        "{}_allow['/admin'] has a key that is refused; accepted is a URL path with a slash",
    ),
    "users": ({"you": "password"}, "{}_users['you'] is (hidden); accepted is the hash of a password"),
    "users_prefixes": (
        ["/a b/"],
        "{}_users_prefixes[0] is '/a b/'; accepted is a URL path with a slash at both ends",
    ),
    "users_except": (["/a/../b"], "{}_users_except[0] is '/a/../b'; accepted is an absolute path"),
    "rate_limit": ("many", "{}_rate_limit is 'many'; accepted is a whole number from 0 to 100000."),
    "redirects": ({"/a": "/b;"}, "{}_redirects['/a'] is '/b;'; accepted is a path or a URL, without a query"),
    "prefix": ("/shop/", "{}_prefix is '/shop/'; accepted is an absolute path"),
    "streams": (["/{"], "{}_streams[0] is '/{'; accepted is a URL path with a slash at both ends"),
    "client_header_timeout": (0, "{}_client_header_timeout is 0; accepted is a whole number from 1 to 3600."),
    "extra": ({"severs": "a"}, "{}_extra['severs'] is no key of {}_extra: did you mean server?"),
}
TOGETHER: dict[str, Any] = {
    "web_tls_port": 80,
    "web_certificate": "self_signed",
    "web_hsts_preload": True,
    "web_server_names": ["A.example.org"],
    "web_redirects": {"a.example.org": "https://b.example.org", "c.example.org": "/b"},
}


@pytest.fixture(scope="module")
def refused(web: WebServer, hosts: dict[str, Host], playbook: Callable[..., Run]) -> str:
    """What is said of all of them at once, for one host in at most five seconds of work, nothing having changed."""
    host = next(iter(hosts))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = playbook("site.yml", "--limit", host, **{f"{web.name}_{name}": value for name, (value, _) in BAD.items()})
    assert run.code != 0
    assert run.changed == {host: 0}
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # What this machine does besides is not the play's.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5
    return run.words


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_variable_value_and_what_is_accepted(web: WebServer, refused: str, name: str) -> None:
    """Before the first change."""
    assert BAD[name][1].replace("{}", web.name) in refused


def test_inputs_that_cannot_work_together_are_refused(
    web: WebServer, hosts: dict[str, Host], playbook: Callable[..., Run]
) -> None:
    """Each of them alone would be good."""
    run = playbook("site.yml", **TOGETHER)
    assert run.code != 0
    assert run.changed == dict.fromkeys(hosts, 0)
    for said in (
        "{}_port and {}_tls_port are both 80; accepted are two ports.",
        "{}_hsts_preload is true; accepted is that with {}_hsts_include_subdomains true",
        "{}_redirects has the host a.example.org, and so has {}_server_names; accepted is a host in one of them.",
        "accepted for a host name is a URL, for a path would lead to itself.",
    ):
        assert said.replace("{}", web.name) in run.words


@pytest.mark.long
def test_a_websocket_by_flask_sock_and_gunicorn(site: Site, rich: dict[str, Any], playbook: Callable[..., Run]) -> None:
    """It takes the connection from the server, which gunicorn gives to it."""
    app = {"release_source": str(ROOT / "tests" / "apps" / "sock"), "release_requirements": ["requirements.txt"]}
    gunicorn = {**rich, **app, "app_server": "gunicorn", "app_static": {}}
    run = playbook("site.yml", **gunicorn)
    assert run.code == 0, run.output
    echo(site, 4 * WORKERS)
    # It may be the last one.
    assert playbook("site.yml").code == 0
