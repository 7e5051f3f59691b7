"""What the apache role writes on a host: by its defaults, by other inputs, and judged by Apache itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, cast

import pytest
from rendering import ROLES, is_managed, lines, render, section
from test_nginx_templates import SANDBOX
from test_nginx_templates import TLS as NGINX_TLS

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATES = ("apache2.conf.j2", "site.conf.j2", "headers.j2", "tls.j2", "slipway.conf.j2")
# What these include; no file of their own on a host.
PARTS = ("macros.j2", "main.j2", "static.j2", "static_directories.j2")
OTHER: dict[str, object] = {
    "apache_app": "shop",
    "apache_app_root": "/srv/shop",
    "apache_link": "/run/shop.sock",
    "apache_user": "nobody",
    "apache_group": "nogroup",
    "apache_connections": 100,
    "apache_error_log_level": "error",
    "apache_log_format": '%a it\'s "%r" \\ } ; #',
    "apache_keepalive_timeout": 0,
    "apache_server_names": ["Shop.example.org", "*.shop.example.org", "::1", "192.0.2.7", "shop.example.org"],
    "apache_port": 8080,
    "apache_ipv6": False,
    "apache_client_max_body_size": "2g",
    "apache_read_timeout": 30,
    "apache_static": {"/static/": "static", "/media/pub/": "shop/assets/pub", "/up/": "uploads/x"},
    "apache_shared": ["uploads"],
    "apache_static_immutable": ["/a+b@c-d/"],
    "apache_client_header_timeout": 5,
    "apache_client_body_timeout": 6,
    "apache_send_timeout": 7,
}
# HTTPS with all that can be asked for: what the test of nginx asks for, but for what Apache has not got.
TLS: dict[str, object] = {
    re.sub("^nginx_", "apache_", name): value
    for name, value in NGINX_TLS.items()
    if name not in ("nginx_rate_limit", "nginx_connection_limit", "nginx_extra")
} | {"apache_extra": {"server": "RewriteRule ^/teapot$ - [R=410,L]", "http": "Define MINE"}, "apache_compress": "all"}
APACHE = shutil.which("apache2", path="/usr/sbin:/usr/bin:/sbin:/bin")
needs_apache = pytest.mark.skipif(APACHE is None, reason="Apache is not installed")


def site(template: str = "site.conf.j2", /, **overrides: object) -> str:
    """Render a template for a host with Debian 13's OpenSSL."""
    return render("apache", template, **{"__apache_openssl": {"stdout": "OpenSSL 3.5.7 9 Jun 2026"}, **overrides})


def written(directory: Path, **overrides: object) -> Path:
    """Write a configuration as the role would, below a directory of the test's; return the path of apache2.conf."""
    app = str(overrides.get("apache_app", overrides.get("app_name", "app")))
    certificates = directory / f"etc/slipway/certificates/{app}/live"
    for name in (f"etc/apache2/slipway/{app}", "etc/apache2/sites-enabled", "run/apache2", "var/log/apache2", "srv"):
        (directory / name).mkdir(parents=True)
    certificates.mkdir(parents=True)
    for name in ("fullchain.pem", "privkey.pem"):
        (certificates / name).write_text("there is one\n")
    files = {"apache2.conf.j2": "apache2.conf"} | {
        template: f"slipway/{app}/{template.removesuffix('.j2')}"
        for template in ("site.conf.j2", "headers.j2", "tls.j2")
    }
    for template, name in files.items():
        text = site(template, **overrides)
        text = re.sub(r'(?<=[ :="^])/(?=(etc|run|srv|var/log|var/lib/slipway)\b)', f"{directory}/", text)
        (directory / "etc/apache2" / name).write_text(text.replace(f"{directory}/etc/mime.types", "/etc/mime.types"))
    for where, text in cast(dict[str, str], overrides.get("apache_extra", {})).items():
        (directory / f"etc/apache2/slipway/{app}/{where}.conf").write_text(text)
    return directory / "etc/apache2/apache2.conf"


def judged(configuration: Path) -> subprocess.CompletedProcess[str]:
    """Let Apache test a configuration; what it says is in stderr."""
    command = [str(APACHE), "-t", "-f", str(configuration)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def hosts(text: str) -> list[list[str]]:
    """Give the lines of each virtual host."""
    return [lines(part.split("</VirtualHost>")[0]) for part in text.split("<VirtualHost ")[1:]]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("inputs", [{}, OTHER, TLS], ids=["defaults", "other", "tls"])
def test_every_file_says_who_manages_it(template: str, inputs: dict[str, object]) -> None:
    assert is_managed(site(template, **inputs))


def test_every_template_is_tested() -> None:
    assert {path.name for path in (ROLES / "apache/templates").iterdir()} == {*TEMPLATES, *PARTS}


@needs_apache
@pytest.mark.parametrize("inputs", [{}, OTHER, TLS], ids=["defaults", "other", "tls"])
def test_apache_accepts_it_without_a_warning(tmp_path: Path, inputs: dict[str, object]) -> None:
    result = judged(written(tmp_path, **inputs))
    assert (result.returncode, result.stderr) == (0, "Syntax OK\n")


@needs_apache
def test_apache_is_asked_and_can_refuse(tmp_path: Path) -> None:
    result = judged(written(tmp_path, apache_extra={"server": "Frobnicate on"}))
    assert result.returncode != 0
    assert "Invalid command 'Frobnicate'" in result.stderr


def test_each_request_meets_the_link_anew() -> None:
    """No connection of the release before is kept, and who is refused once is asked again at once."""
    (passed,) = [line for line in lines(site()) if line.startswith("ProxyPass")]
    assert passed == 'ProxyPass "/" "unix:/run/uwsgi.sock|uwsgi://app/" retry=0 disablereuse=on timeout=75'


def test_the_app_below_a_prefix() -> None:
    found = lines(site(app_prefix="/shop", app_streams=["/events/"]))
    assert [line.split()[1:3] for line in found if line.startswith("ProxyPass")] == [
        ['"/shop/events/"', '"unix:/run/uwsgi.sock|uwsgi://app/events/"'],
        ['"/shop/"', '"unix:/run/uwsgi.sock|uwsgi://app/"'],
        ['"/shop"', '"unix:/run/uwsgi.sock|uwsgi://app/"'],
    ]


def test_who_asks_for_another_name_meets_the_first_virtual_host() -> None:
    """By HTTP and by HTTPS; there without a version of TLS that anybody speaks."""
    inputs = {"web_certificate": "files", "web_server_names": ["shop.example.org"]}
    plain, tls, redirect, main = hosts(site(**inputs))
    for one, port in ((plain, 80), (tls, 443)):
        assert one[0] == f"*:{port}>"
        assert "ServerName unknown.invalid" in one
        assert one[-1] == "RewriteRule ^ - [R=421,L]"
    assert tls.index("SSLProtocol -all +TLSv1.1") > tls.index("Include /etc/apache2/slipway/app/tls")
    assert redirect[-1] == 'RewriteRule ^ "https://%{SERVER_NAME}%1" [R=308,NE,UnsafeAllow3F,L]'
    assert "ServerName shop.example.org" in main
    # Who comes by address names nobody in TLS.
    by_address = site(**{**inputs, "web_server_names": ["shop.example.org", "192.0.2.7"]})
    assert "TLSv1.1" not in by_address


def test_the_site_answers_to_any_name_if_none_is_given() -> None:
    (main,) = hosts(site())
    assert not [line for line in main if line.startswith(("ServerName", "ServerAlias"))]


def test_names() -> None:
    main = hosts(site(**OTHER))[-1]
    assert "ServerName shop.example.org" in main
    assert "ServerAlias shop.example.org *.shop.example.org [::1] 192.0.2.7" in main


@pytest.mark.parametrize(("size", "limit"), [("10m", 10485760), ("2g", 2147483648), ("5k", 5120), ("77", 77), ("0", 0)])
def test_the_limit_of_a_body_is_in_bytes(size: str, limit: int) -> None:
    assert f"LimitRequestBody {limit}" in lines(site(web_client_max_body_size=size))


@pytest.mark.parametrize(("connections", "processes"), [(64, 1), (65, 2), (1024, 16), (1000, 16)])
def test_threads_come_in_whole_processes(connections: int, processes: int) -> None:
    found = lines(site("apache2.conf.j2", apache_connections=connections))
    assert f"ServerLimit {processes}" in found
    assert f"MaxRequestWorkers {processes * 64}" in found


def test_headers() -> None:
    """Each once, unless the app sets it; a value is text, whatever it looks like."""
    found = lines(
        site("headers.j2", web_headers={"X-A": 'a "b" \\ 5% %{x}e', "X-B": "expr=%{HTTPS}", "X-Frame-Options": ""})
    )
    assert r'Header always set X-A "a \"b\" \\ 5%% %%{x}e" "expr=-z resp(' + "'X-A')\"" in found
    assert 'Header always set X-B " expr=%%{HTTPS}" "expr=-z resp(' + "'X-B')\"" in found
    assert not [line for line in found if "X-Frame-Options" in line or "Strict-Transport" in line]
    (hsts,) = [line for line in lines(site("headers.j2", **TLS)) if "Strict-Transport" in line]
    assert "reqenv('slipway_scheme') == 'https'" in hsts


def test_nothing_of_a_visitors_word_is_believed() -> None:
    """But of trusted proxies, if there are any."""
    found = lines(site())
    for name in ("Ssl", "Host", "Port", "Prefix", "Server"):
        assert f"RequestHeader unset X-Forwarded-{name}" in found
    for name in ("Forwarded", "Proxy"):
        assert f"RequestHeader unset {name}" in found
    assert 'RequestHeader set X-Forwarded-For "expr=%{REMOTE_ADDR}"' in found
    assert not [line for line in found if line.startswith("RemoteIP")]
    trusting = lines(site(web_trusted_proxies=["192.0.2.0/24"]))
    assert "RemoteIPInternalProxy 192.0.2.0/24" in trusting
    assert "RemoteIPInternalProxy 0.0.0.0/1 128.0.0.0/1" in lines(site(web_trusted_proxies=["0.0.0.0/0"]))
    assert "CONN_REMOTE_ADDR} -ipmatch '192.0.2.0/24'" in "".join(trusting)


def test_redirects_are_text() -> None:
    """A sign of mod_rewrite's in a target stands for itself."""
    found = lines(site(web_redirects={"/a.b": "https://example.net/%7Ex$1"}))
    assert r'RewriteRule "^/a\.b$" "https://example.net/\%7Ex\$1" [R=308,NE,UnsafeAllow3F,L]' in found


def test_modules_are_those_that_are_needed() -> None:
    def loaded(**inputs: object) -> set[str]:
        return {line.split()[1] for line in lines(site("apache2.conf.j2", **inputs)) if line.startswith("LoadModule")}

    some, all_of_them = loaded(web_compress="none"), loaded(**TLS)
    assert some < all_of_them
    assert all_of_them - some == {
        f"{name}_module" for name in ("auth_basic", "authn_file", "authz_user", "brotli", "deflate", "filter", "http2",
                                      "remoteip", "socache_shmcb", "ssl")
    }  # fmt: skip
    assert not {"status_module", "cgi_module", "userdir_module", "info_module"} & all_of_them


@pytest.mark.parametrize(("version", "curves"), [("3.5.7", "?X25519MLKEM768:X25519"), ("3.0.22", "X25519")])
def test_curves(version: str, curves: str) -> None:
    found = lines(site("tls.j2", __apache_openssl={"stdout": f"OpenSSL {version} 1 Jan 2026"}))
    assert f"SSLOpenSSLConfCmd Curves {curves}:prime256v1:secp384r1" in found


def test_the_sandbox_is_nginxs() -> None:
    """But for the one directory that it writes to."""
    service = section(site("slipway.conf.j2"), "Service")
    wanted = [line.replace("/var/log/nginx /var/lib/nginx", "/var/log/apache2") for line in SANDBOX]
    assert [line for line in service if line in wanted] == wanted
    assert "KillSignal=SIGWINCH" in service
    assert "CapabilityBoundingSet=CAP_NET_BIND_SERVICE" in service
