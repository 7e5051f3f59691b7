"""The site by HTTPS, as the scenario's own inventory has it: self-signed, under any name."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import struct
from typing import Any

import pytest
from conftest import Site, WebServer, on_host
from testinfra.host import Host
from wire import exchange, fields, http2, status

HEADERS = {
    "content-security-policy", "cross-origin-embedder-policy", "cross-origin-opener-policy",
    "cross-origin-resource-policy", "permissions-policy", "referrer-policy", "x-content-type-options",
    "x-frame-options", "x-permitted-cross-domain-policies",
}  # fmt: skip


def test_http_leads_to_https_with_method_and_path(site: Site) -> None:
    """By 308, which keeps the method, to the same path."""
    for method in ("GET", "POST", "PUT"):
        answer = site.get("/hello/you?a=%20b&c", method)
        assert answer.status == 308
        assert answer.headers["location"] == "https://localhost/hello/you?a=%20b&c"
    assert site.get("/hello", tls=True).json() == {"message": "hello", "name": "world"}
    assert "strict-transport-security" not in site.get("/hello", tls=True).headers, "the certificate is nobody's"


def test_the_app_knows_that_it_is_https(site: Site) -> None:
    """Its links will be right."""
    web_server = site.get("/chain", tls=True).json()["web_server"]
    assert (web_server["scheme"], web_server["port"]) == ("https", 443)


def test_both_halves_are_served_on_ipv6(host: Host, site: Site) -> None:
    """As on IPv4."""
    script = (
        "import http.client as c, ssl\n"
        "k = c.HTTPConnection('::1', 80); k.request('GET', '/hello'); print(k.getresponse().status)\n"
        "k = c.HTTPSConnection('::1', 443, context=ssl._create_unverified_context()); k.request('GET', '/hello')\n"
        "print(k.getresponse().status)"
    )
    assert on_host(host, script).split() == ["308", "200"]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("GET /hello", 200),
        ("GET /nowhere", 404),
        ("POST /hello", 405),
        ("GET /static/style.css", 200),
        ("GET /static/nowhere", 404),
        ("TRACE /", 405),
        ("GET /%00", 400),
        ("GET /" + "a" * 9000, 414),
    ],
    ids=lambda value: str(value)[:25],
)
def test_security_headers_are_there_once_on_every_status(web: WebServer, site: Site, line: str, code: int) -> None:
    """From the app, from the disk and from the web server itself."""
    received = exchange(site, f"{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert status(received) == (web.either(400, 404) if line == "GET /%00" else code)
    names = [name for name, _ in fields(received)]
    assert {name: names.count(name) for name in HEADERS} == dict.fromkeys(HEADERS, 1)
    assert ("server", web.title) in fields(received)
    assert not re.search(web.title.encode() + rb"/[0-9]", received), "no version"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/2.0\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/7.3\r\nHost: localhost\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: identity\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda sent: sent.split(b"\r\n")[0].decode() + str(sent.count(b"gzip")),
)
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_what_a_web_server_does_not_know_is_the_visitors_fault(site: Site, sent: bytes, tls: bool) -> None:
    """nginx would say 501 and 505, as if something was wrong with the server."""
    assert status(exchange(site, sent, tls)) in (400, 405)


def test_http_on_the_port_of_https_is_refused(site: Site) -> None:
    """With an answer that the visitor can read."""
    with socket.create_connection(("127.0.0.1", site.tls_port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert status(connection.recv(4096)) == 400


@pytest.mark.parametrize("count", [120, 400, 990, 5000])
def test_many_headers_work_or_are_refused(site: Site, count: int) -> None:
    """Up to the 64 KB of the uwsgi protocol; what does not fit is the visitor's fault."""
    lines = "".join(f"X-{number}: a\r\n" for number in range(count))
    received = exchange(site, f"GET /hello HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{lines}\r\n".encode())
    assert status(received) == (200 if count < 1000 else 400)


def test_http2_is_spoken(site: Site) -> None:
    """On both Debians."""
    assert http2(site, "/hello", []) == 200
    assert http2(site, "/nowhere", []) == 404


@pytest.mark.parametrize(("length", "count"), [(0, 900), (30, 900), (0, 9000), (3000, 10), (9000, 1)])
def test_no_headers_of_http2_make_a_5xx(site: Site, length: int, count: int) -> None:
    """There they take a byte each, and ten in the uwsgi protocol."""
    assert http2(site, "/hello?" + "q" * 7000, [(f"x{number}", "v" * length) for number in range(count)]) in (
        0, 200, 400, 414, 431,
    )  # fmt: skip


def test_http3_is_spoken_where_nginx_has_it(web: WebServer, host: Host, site: Site) -> None:
    """Asked by QUIC in a version that nobody has, a server says which ones it has: 1 is that of HTTP/3."""
    has_it = web.either("http_v3_module" in host.run("nginx -V").stderr, False)
    assert has_it == web.either(host.system_info.release.split(".")[0] != "12", False), "Debian 13's nginx has it"
    advertised = site.get("/hello", tls=True).headers.get("alt-svc")
    assert advertised == ('h3=":443"; ma=86400' if has_it else None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        asked.settimeout(5 if has_it else 0.5)
        asked.connect(("127.0.0.1", site.tls_port))
        packet = b"\xc0\x1a\x2a\x3a\x4a" + b"\x08" + b"D" * 8 + b"\x08" + b"S" * 8
        with contextlib.suppress(TimeoutError, ConnectionError):
            asked.send(packet.ljust(1200, b"\0"))
            answer = asked.recv(2000)
            assert has_it
            assert struct.pack(">I", 1) in answer[23:]
            return
        assert not has_it


# --- TLS ------------------------------------------------------------------------------------------------------------


def handshake(site: Site, **settings: Any) -> tuple[str, str] | None:
    """Return version and cipher that TLS agrees on with a client that is so set, None if it does not."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers(settings.pop("ciphers", "ALL:@SECLEVEL=0"))
    for name, value in settings.items():
        setattr(context, name, value)
    with socket.create_connection(("127.0.0.1", site.tls_port), timeout=20) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as connection:
                cipher = connection.cipher()
                assert cipher is not None
                return connection.version() or "", cipher[0]
        except (ssl.SSLError, ConnectionError):
            return None


@pytest.mark.parametrize(
    ("ciphers", "good"),
    [
        ("ECDHE+AESGCM", True),
        ("ECDHE+CHACHA20", True),
        ("ECDHE+AES:!AESGCM:!AESCCM:@SECLEVEL=0", False),
        ("AESGCM:!kECDHE:!kDHE:@SECLEVEL=0", False),
        ("DHE+AESGCM:!kECDHE:@SECLEVEL=0", False),
    ],
)
def test_ciphers_are_mozillas(site: Site, ciphers: str, good: bool) -> None:
    """Those of the intermediate profile, and no others."""
    two = ssl.TLSVersion.TLSv1_2
    agreed = handshake(site, maximum_version=two, ciphers=ciphers)
    assert (agreed is not None) == good


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_versions_of_tls(site: Site) -> None:
    """1.2 and 1.3, nothing older."""
    for version, there in (("TLSv1", False), ("TLSv1_1", False), ("TLSv1_2", True), ("TLSv1_3", True)):
        only = ssl.TLSVersion[version]
        assert (handshake(site, minimum_version=only, maximum_version=only) is not None) == there, version
