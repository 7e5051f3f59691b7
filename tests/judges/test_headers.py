"""The headers that OWASP's Secure Headers Project says to add and to remove.

The lists are those of https://owasp.org/www-project-secure-headers/ci/headers_add.json and headers_remove.json, as of
2024-07-19.
"""

from __future__ import annotations

import http.client
import io

import pytest
from conftest import Site
from testinfra.host import Host

from judges.conftest import NAME, Authority, Verdicts

ADD = {
    "content-security-policy", "cross-origin-embedder-policy", "cross-origin-opener-policy",
    "cross-origin-resource-policy", "permissions-policy", "referrer-policy", "strict-transport-security",
    "x-content-type-options", "x-frame-options", "x-permitted-cross-domain-policies",
}  # fmt: skip
# On the list as well, but nobody's to say except the app's: what is cached, and who is logged out by an answer.
THE_APPS = {"cache-control", "clear-site-data"}
REMOVE = {
    "$wsep", "host-header", "k-proxy-request", "liferay-portal", "oraclecommercecloud-version", "pega-host",
    "powered-by", "product", "sourcemap", "x-aspnet-version", "x-aspnetmvc-version", "x-atmosphere-error",
    "x-atmosphere-first-request", "x-atmosphere-tracking-id", "x-b3-parentspanid", "x-b3-sampled", "x-b3-spanid",
    "x-b3-traceid", "x-beserver", "x-cf-powered-by", "x-cms", "x-calculatedbetarget", "x-cocoon-version",
    "x-content-encoded-by", "x-diaginfo", "x-envoy-attempt-count", "x-envoy-external-address", "x-envoy-internal",
    "x-envoy-original-dst-host", "x-envoy-upstream-service-time", "x-feserver", "x-framework", "x-generated-by",
    "x-generator", "x-jitsi-release", "x-kubernetes-pf-flowschema-ui", "x-kubernetes-pf-prioritylevel-uid",
    "x-litespeed-cache", "x-litespeed-purge", "x-litespeed-tag", "x-litespeed-vary", "x-litespeed-cache-control",
    "x-mod-pagespeed", "x-nextjs-cache", "x-nextjs-matched-path", "x-nextjs-page", "x-nextjs-redirect",
    "x-owa-version", "x-old-content-length", "x-oneagent-js-injection", "x-page-speed", "x-php-version",
    "x-powered-by", "x-powered-by-plesk", "x-powered-cms", "x-redirect-by", "x-server-powered-by", "x-sourcefiles",
    "x-sourcemap", "x-turbo-charged-by", "x-umbraco-version", "x-varnish-backend", "x-varnish-server", "x-dtagentid",
    "x-dthealthcheck", "x-dtinjectedservlet", "x-ruxit-js-agent",
}  # fmt: skip
# "Server" is on the list too. nginx has no setting that leaves it out: it may name the program, and no version.
SERVER = "nginx"

STOCK = """events {} pid /tmp/stock.pid; error_log stderr;
http { access_log off; server { listen 127.0.0.1:8082; root /usr/share/nginx/html; } }"""
ASK = (
    "import http.client as c; k = c.HTTPConnection('127.0.0.1', 8082); k.request('GET', '/');"
    " a = k.getresponse(); print(a.status); print(a.msg.as_string())"
)


def faults(headers: list[tuple[str, str]]) -> list[str]:
    """Return what OWASP would have otherwise."""
    names = [name.lower() for name, _ in headers]
    servers = {value for name, value in headers if name.lower() == "server"}
    return [
        *(f"no {name}" for name in sorted(ADD - set(names))),
        *(f"{name} more than once" for name in sorted(ADD | THE_APPS) if names.count(name) > 1),
        *(f"{name} is there" for name in sorted(REMOVE & set(names))),
        *(f"Server: {value}" for value in sorted(servers - {SERVER})),
    ]


def headers_of(site: Site, request: str) -> tuple[int, list[tuple[str, str]]]:
    """Return the status and all headers of an answer by HTTPS, those too that come twice."""
    with site.connect(True, NAME) as connection:
        connection.sendall(f"{request} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    line, _, rest = received.partition(b"\r\n")
    return int(line.split()[1]), http.client.parse_headers(io.BytesIO(rest)).items()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [("GET /x", 200), ("GET /static/robots.txt", 200), ("GET /static/none", 404), ("TRACE /x", 405), ("GET /%00", 400)],
)
def test_headers_to_add_and_to_remove(
    host: Host, site: Site, authority: Authority, verdicts: Verdicts, request_line: str, status: int
) -> None:
    """On every status, from the app as from the disk, once each; nginx as it comes lacks them all."""
    got, headers = headers_of(site, request_line)
    assert got == status
    found = faults(headers)
    host.check_output(f"cat > /tmp/stock.conf <<'END'\n{STOCK}\nEND\nnginx -c /tmp/stock.conf > /dev/null 2>&1")
    try:
        answer = host.check_output(f'python3 -c "{ASK}"')
    finally:
        host.check_output("nginx -q -c /tmp/stock.conf -s stop")
    code, _, lines = answer.partition("\n")
    assert code == "200"
    stock = faults(http.client.parse_headers(io.BytesIO(lines.encode())).items())
    verdicts.add(
        f"OWASP's headers, {request_line}", "2024-07-19", host.backend.get_hostname(), "; ".join(found) or "as listed",
        f"nginx as it comes: {len(stock)} faults",
    )  # fmt: skip
    assert len(stock) == len(ADD) + 1
    assert not found
