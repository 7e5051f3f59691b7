"""What the nginx role writes on a host: by its defaults, by other inputs, and judged by nginx itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING, cast

import pytest
from ansible.errors import AnsibleError
from ansible.template import trust_as_template
from rendering import ROLES, is_managed, lines, render

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATES = ("nginx.conf.j2", "site.conf.j2", "uwsgi_params.j2", "headers.j2", "tls.j2", "slipway.conf.j2")
# What these include; no file of their own on a host.
PARTS = ("macros.j2", "maps.j2", "static.j2", "static_maps.j2")
OTHER: dict[str, object] = {
    "nginx_app": "shop",
    "nginx_app_root": "/srv/shop",
    "nginx_link": "/run/shop.sock",
    "nginx_user": "nobody",
    "nginx_group": "nogroup",
    "nginx_worker_processes": 3,
    "nginx_worker_connections": 512,
    "nginx_error_log_level": "error",
    "nginx_log_format": '$remote_addr it\'s "$request" \\ } ; #',
    "nginx_access_log": "journal",
    "nginx_sendfile": False,
    "nginx_keepalive_timeout": 0,
    "nginx_server_names": ["Shop.example.org", "*.shop.example.org", "::1", "192.0.2.7", "shop.example.org"],
    "nginx_port": 8080,
    "nginx_ipv6": False,
    "nginx_client_max_body_size": "2g",
    "nginx_read_timeout": 30,
    "nginx_static": {"/static/": "static", "/media/pub/": "shop/assets/pub"},
    "nginx_client_header_timeout": 5,
    "nginx_client_body_timeout": 6,
    "nginx_send_timeout": 7,
}
# HTTPS with all that can be asked for.
TLS: dict[str, object] = {
    "app_name": "web-shop",
    "web_certificate": "acme",
    "web_server_names": ["example.org", "*.example.org"],
    "web_tls_public_port": 8443,
    "nginx_hsts_include_subdomains": True,
    "nginx_hsts_preload": True,
    "nginx_headers": {"X-Frame-Options": "", "X-Quoted": 'a "b" \\ {c}; #d'},
    "nginx_trusted_proxies": ["192.0.2.0/24", "2001:db8::/32"],
    "nginx_deny": ["198.51.100.7"],
    "nginx_allow": {"/admin/": ["203.0.113.0/24", "::1"], "/": ["0.0.0.0/0"]},
    "nginx_users": {"you": "$6$salt$abcdefgh"},
    "nginx_users_except": ["/healthz"],
    "nginx_rate_limit": 10,
    "nginx_connection_limit": 20,
    "nginx_redirects": {"/old": "/new", "/%7Ea": "https://example.net/", "www.example.net": "https://example.org/"},
    "nginx_prefix": "/shop",
    "nginx_static": {"/static/": "static"},
    "nginx_streams": ["/shop/events/"],
    "nginx_extra": {"server": "location = /teapot { return 418; }", "http": "map $uri $mine { default 1; }"},
}
V22 = "nginx version: nginx/1.22.1\nbuilt with OpenSSL 3.0.22 25 Aug 2026\nconfigure arguments: --with-http_v2_module"
V26 = (
    "nginx version: nginx/1.26.3\nbuilt with OpenSSL 3.5.7 9 Jun 2026 (running with OpenSSL 3.5.9 29 Sep 2026)\n"
    "configure arguments: --with-http_v2_module --with-http_v3_module"
)
SANDBOX = [
    "UMask=0027",
    "ProtectSystem=strict",
    "ReadWritePaths=/var/log/nginx /var/lib/nginx",
    "ProtectHome=tmpfs",
    "PrivateTmp=true",
    "NoExecPaths=/",
    "ExecPaths=/usr/sbin /usr/lib -/usr/lib64",
    "MemoryDenyWriteExecute=true",
    "NoNewPrivileges=true",
    "PrivateDevices=true",
    "PrivateIPC=true",
    "RemoveIPC=true",
    "KeyringMode=private",
    "ProtectProc=invisible",
    "ProcSubset=pid",
    "ProtectClock=true",
    "ProtectControlGroups=true",
    "ProtectHostname=true",
    "ProtectKernelLogs=true",
    "ProtectKernelModules=true",
    "ProtectKernelTunables=true",
    "LockPersonality=true",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    "RestrictNamespaces=true",
    "RestrictRealtime=true",
    "RestrictSUIDSGID=true",
    "SystemCallArchitectures=native",
    "SystemCallErrorNumber=EPERM",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
]
LESSON = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent'
    ' "$http_referer" "$http_user_agent" "$http_x_forwarded_for"'
)
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
BUILD = subprocess.run([NGINX, "-V"], capture_output=True, text=True, check=True).stderr if NGINX else V22
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


def block(text: str, opening: str) -> list[str]:
    """Give the lines of the one block that opens so, without those of the blocks inside it.

    Raises AssertionError when there is not exactly one.
    """
    found = lines(text)
    assert found.count(f"{opening} {{") == 1, f"{found.count(f'{opening} {{')} of {opening}"
    depth, inside = 1, []
    for line in found[found.index(f"{opening} {{") + 1 :]:
        depth += line.endswith("{")
        depth -= line == "}"
        if depth == 0:
            break
        if depth == 1 and line != "}":
            inside.append(line)
    return inside


def server(text: str, name: str) -> list[str]:
    """Give the lines of the server that has the line `server_name <name>;`, whatever blocks are in it."""
    found = [lines(part) for part in re.split(r"^server \{$", text, flags=re.MULTILINE)[1:]]
    (one,) = [part for part in found if f"server_name {name};" in part]
    return one


def site(version: str = V26, template: str = "site.conf.j2", /, **overrides: object) -> str:
    """Render a template for an nginx that says this of itself."""
    return render("nginx", template, __nginx_asked={"stderr": version}, **overrides)


def written(directory: Path, **overrides: object) -> Path:
    """Write a configuration as the role would, below a directory of the test's.

    directory: where; every path of the host is rewritten to lie in it. overrides: what an inventory would say.

    Returns the path of nginx.conf.
    """
    app = str(overrides.get("nginx_app", overrides.get("app_name", "app")))
    certificates = f"etc/slipway/certificates/{app}/live"
    for name in (
        f"etc/nginx/slipway/{app}",
        "etc/nginx/conf.d",
        "etc/nginx/sites-enabled",
        "run/nginx",
        "var/log/nginx",
    ):
        (directory / name).mkdir(parents=True, exist_ok=True)
    (directory / certificates).mkdir(parents=True)
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-subj", "/CN=test", "-keyout", "privkey.pem", "-out", "fullchain.pem"),
        ],
        cwd=directory / certificates,
        check=True,
        capture_output=True,
    )
    shutil.copy("/etc/nginx/mime.types", directory / "etc/nginx/mime.types")
    targets = {
        "nginx.conf.j2": "etc/nginx/nginx.conf",
        "uwsgi_params.j2": f"etc/nginx/slipway/{app}/uwsgi_params",
        "headers.j2": f"etc/nginx/slipway/{app}/headers",
        "tls.j2": f"etc/nginx/slipway/{app}/tls",
        "site.conf.j2": f"etc/nginx/conf.d/{app}.conf",
    }
    for template, target in targets.items():
        # The modules for Brotli are on hosts only.
        text = site(BUILD, template, **{"nginx_brotli": False, **overrides})
        text = re.sub(r"(?<=[ :=])/(?=(etc|run|var|srv)/)", f"{directory}/", text)
        (directory / target).write_text(text, encoding="utf-8")
    for where, text in cast(dict[str, str], overrides.get("nginx_extra", {})).items():
        (directory / f"etc/nginx/slipway/{app}/{where}.conf").write_text(text)
    return directory / "etc/nginx/nginx.conf"


def judged(configuration: Path) -> subprocess.CompletedProcess[str]:
    """Let nginx test a configuration; what it says is in stderr."""
    return subprocess.run(
        [str(NGINX), "-t", "-e", "stderr", "-c", str(configuration)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("inputs", [{}, OTHER, TLS], ids=["defaults", "other", "tls"])
def test_every_file_says_who_manages_it(template: str, inputs: dict[str, object]) -> None:
    """Every file opens with the managed header and holds no template syntax."""
    text = render("nginx", template, **inputs)
    assert is_managed(text)


def test_every_template_is_tested() -> None:
    """A template that is added is added here too."""
    assert sorted(path.name for path in (ROLES / "nginx" / "templates").iterdir()) == sorted(TEMPLATES + PARTS)


@pytest.mark.parametrize(
    ("template", "variable"),
    [
        ("nginx.conf.j2", "nginx_worker_connections"),
        ("site.conf.j2", "nginx_link"),
        ("slipway.conf.j2", "nginx_read_timeout"),
    ],
)
def test_an_undefined_variable_is_an_error(template: str, variable: str) -> None:
    """Nothing is rendered as an empty word."""
    with pytest.raises(AnsibleError, match="no_such_variable"):
        render("nginx", template, **{variable: trust_as_template("{{ no_such_variable }}")})


def test_nginx_conf_by_defaults() -> None:
    """The defaults are those of the lesson, errors go to the journal, sites of the user stay."""
    text = render("nginx", "nginx.conf.j2")
    found = lines(text)
    for line in (
        "include /etc/nginx/slipway/root/*.conf;",
        "worker_processes auto;",
        "worker_rlimit_nofile 16384;",
        "pid /run/nginx/nginx.pid;",
        "error_log stderr warn;",
        "include /etc/nginx/modules-enabled/*.conf;",
    ):
        assert line in found
    assert block(text, "events") == ["worker_connections 8192;"]
    http = block(text, "http")
    for line in (
        "server_tokens off;",
        "underscores_in_headers off;",
        f"log_format main escape=default '{LESSON}';",
        "access_log /var/log/nginx/access.log main;",
        "sendfile on;",
        "keepalive_timeout 65s;",
        "client_header_timeout 15s;",
        "client_body_timeout 30s;",
        "send_timeout 30s;",
    ):
        assert line in http
    assert http[-2:] == ["include /etc/nginx/conf.d/*.conf;", "include /etc/nginx/sites-enabled/*;"]
    assert not [line for line in found if line.startswith("include") and not line.startswith("include /")]
    assert not [line for line in found if line.startswith(("daemon", "master_process"))]  # the unit's business


def test_nginx_conf_by_other_inputs() -> None:
    """Each input reaches its directive, and the text of the log format stays text."""
    text = render("nginx", "nginx.conf.j2", **OTHER)
    found = lines(text)
    for line in (
        "worker_processes 3;",
        "worker_rlimit_nofile 1024;",
        "error_log stderr error;",
    ):
        assert line in found
    assert block(text, "events") == ["worker_connections 512;"]
    http = block(text, "http")
    for line in (
        "log_format main escape=default '$remote_addr it\\'s \"$request\" \\\\ } ; #';",
        "access_log syslog:server=unix:/dev/log,tag=nginx,severity=info,nohostname main;",
        "sendfile off;",
        "keepalive_timeout 0s;",
        "client_header_timeout 5s;",
        "client_body_timeout 6s;",
        "send_timeout 7s;",
    ):
        assert line in http
    assert "/var/log/nginx" not in text


def test_access_log_off() -> None:
    """No log is written when it is switched off."""
    text = render("nginx", "nginx.conf.j2", nginx_access_log="off")
    assert [line for line in lines(text) if line.startswith("access_log")] == ["access_log off;"]


def test_numbers_of_the_command_line_are_numbers() -> None:
    """An input given by -e is text and is reckoned with all the same."""
    assert "worker_rlimit_nofile 2000;" in lines(render("nginx", "nginx.conf.j2", nginx_worker_connections="1000"))
    assert "TimeoutStopSec=45s" in lines(render("nginx", "slipway.conf.j2", nginx_read_timeout="30"))
    assert "uwsgi_read_timeout 105s;" in lines(render("nginx", "site.conf.j2", app_timeout="90"))


PASSED = [
    "include /etc/nginx/slipway/{app}/uwsgi_params;",
    "uwsgi_pass unix:{link};",
    "uwsgi_read_timeout {seconds}s;",
    *(f"uwsgi_hide_header {name};" for name in ("Powered-By", "Product", "X-Framework", "X-Generator", "X-Powered-By")),
    "error_page 500 = @slipway_{app}_too_large;",
]
MALFORMED = [
    "error_page 501 505 = /.slipway-malformed;",
    "location = /.slipway-malformed {",
    "internal;",
    "return 400;",
    "}",
]


def passed(app: str, link: str, seconds: int) -> list[str]:
    """Give the lines by which a location hands requests to the app."""
    return [line.format(app=app, link=link, seconds=seconds) for line in PASSED]


def test_site_without_names_answers_to_any() -> None:
    """Without names there is one server, and it is the default."""
    text = site()
    assert server(text, "$hostname")[:3] == [
        "listen 80 default_server;",
        "listen [::]:80 default_server;",
        "server_name $hostname;",
    ]
    assert block(text, "location /") == passed("app", "/run/uwsgi.sock", 75)
    assert "client_max_body_size 10m;" in lines(text)
    assert "absolute_redirect off;" in lines(text)
    assert lines(text).count("server {") == 1
    assert "444" not in text
    assert "alias" not in "".join(lines(text))
    assert "ssl" not in text
    assert "quic" not in text


def test_site_with_names_refuses_others() -> None:
    """With names a default server closes the connection of whoever asks for another."""
    text = site(**OTHER)
    assert server(text, '""') == [
        "listen 8080 default_server;",
        'server_name "";',
        "include /etc/nginx/slipway/shop/headers;",
        *MALFORMED,
        *("location / {", "return 444;", "}", "}"),
    ]
    named = server(text, "shop.example.org *.shop.example.org [::1] 192.0.2.7")
    assert "listen 8080;" in named
    assert "client_max_body_size 2g;" in named
    assert "[::]" not in text
    assert [line for line in lines(text) if "default_server" in line] == ["listen 8080 default_server;"]
    start = named.index("location / {")
    assert named[start + 1 : start + 1 + len(PASSED)] == passed("shop", "/run/shop.sock", 30)


def test_both_servers_listen_on_ipv6() -> None:
    """The refusal holds on IPv6 as on IPv4."""
    text = site(nginx_server_names=["example.org"])
    assert "listen [::]:80 default_server;" in server(text, '""')
    assert "listen [::]:80;" in server(text, "example.org")


def listens(text: str) -> list[str]:
    """Give what is listened on, the default servers and the IPv4 half."""
    return [line[len("listen ") : -1] for line in lines(text) if line.startswith("listen ") and "[::]" not in line]


@pytest.mark.parametrize(
    ("version", "wanted", "directive"),
    [(V22, ["80 default_server", "443 ssl http2 default_server", "80", "443 ssl http2"], False),
     (V26, ["80 default_server", "443 ssl default_server", "443 quic reuseport default_server", "80", "443 ssl",
            "443 quic"], True)],
)  # fmt: skip
def test_http2_and_http3_in_the_syntax_of_the_nginx_at_hand(version: str, wanted: list[str], directive: bool) -> None:
    """Before 1.25.1 HTTP/2 is a word of listen, from then on a directive; HTTP/3 is there where nginx says so."""
    inputs: dict[str, object] = {"web_certificate": "files", "web_server_names": ["example.org"]}
    assert listens(site(version, **inputs)) == wanted
    assert ("http2 on;" in site(version, "tls.j2", **inputs)) == directive
    assert ("Alt-Svc" in site(version, "headers.j2", **inputs)) == directive
    assert not [one for one in listens(site(version, nginx_http3=False, **inputs)) if "quic" in one]


def test_http_leads_to_https() -> None:
    """By the port that the visitor uses; the app is served by HTTPS only, the authority's questions by HTTP only."""
    text = site(**TLS)
    found = [lines(part) for part in re.split(r"^server \{$", text, flags=re.MULTILINE)[1:]]
    http = [one for one in found if "listen 80;" in one and "server_name example.org *.example.org;" in one]
    assert len(http) == 1
    assert "return 308 https://$host:8443$request_uri;" in http[0]
    assert [("location ^~ /.well-known/acme-challenge/ {" in one) for one in found] == [True, False, True, True, False]
    assert "listen 80;" not in found[-1]
    assert "uwsgi_pass unix:/run/uwsgi.sock;" in found[-1]
    plain = site(**{**TLS, "nginx_redirect": False, "nginx_redirects": {}})
    assert [line for line in lines(plain) if line.startswith("return 308 https")] == []
    assert listens(plain)[-3:] == ["80", "443 ssl", "443 quic"]


def test_who_comes_by_address_gets_a_certificate_where_the_address_is_a_name() -> None:
    """By address there is no name in TLS to refuse."""
    inputs: dict[str, object] = {"web_certificate": "files"}
    assert "ssl_reject_handshake on;" in site(web_server_names=["a1.example.org"], **inputs)
    assert "ssl_reject_handshake" not in site(web_server_names=["example.org", "2001:db8::1"], **inputs)
    assert "ssl_reject_handshake" not in site(web_server_names=["192.0.2.1"], **inputs)


@pytest.mark.parametrize(("version", "curves"), [(V22, ""), (V26, "?X25519MLKEM768:")])
def test_tls_is_mozillas_profile(version: str, curves: str) -> None:
    """Version 6.0 of its guidelines; the hybrid key exchange where OpenSSL has it."""
    intermediate = lines(site(version, "tls.j2"))
    assert "ssl_protocols TLSv1.2 TLSv1.3;" in intermediate
    assert f"ssl_ecdh_curve {curves}X25519:prime256v1:secp384r1;" in intermediate
    (ciphers,) = [line.split()[1].rstrip(";").split(":") for line in intermediate if line.startswith("ssl_ciphers ")]
    assert len(ciphers) == 6
    assert all(one.startswith("ECDHE-") and one.endswith(("GCM-SHA256", "GCM-SHA384", "POLY1305")) for one in ciphers)
    for line in ("ssl_prefer_server_ciphers off;", "ssl_session_tickets off;", "ssl_session_timeout 1d;"):
        assert line in intermediate
    modern = site(version, "tls.j2", nginx_tls_profile="modern")
    assert "ssl_protocols TLSv1.3;" in lines(modern)
    assert "ssl_ciphers" not in modern


def test_hsts_is_off_where_the_certificate_is_nobodys() -> None:
    """A browser that was told once would not come back."""
    header = "add_header Strict-Transport-Security $slipway_app_hsts always;"
    for certificate, there in (("none", False), ("self_signed", False), ("files", True), ("acme", True)):
        assert (header in lines(site(V26, "headers.j2", web_certificate=certificate))) == there
    assert 'on "max-age=63072000";' in lines(site(web_certificate="files"))
    assert 'on "max-age=63072000; includeSubDomains; preload";' in lines(site(**TLS))


def test_headers_go_with_every_answer_once() -> None:
    """Each is added whatever the status, unless the app has set it; a value is text, an empty one leaves it out."""
    text, headers = site(**TLS), lines(site(V26, "headers.j2", **TLS))
    assert all(line.startswith("add_header ") and line.endswith(" always;") for line in headers)
    names = [line.split()[1] for line in headers]
    assert "X-Content-Type-Options" in names
    assert "X-Frame-Options" not in names
    number = names.index("X-Quoted") + 1
    assert f"add_header X-Quoted $slipway_web_shop_header_{number} always;" in headers
    opening = f"map $upstream_http_x_quoted $slipway_web_shop_header_{number}"
    assert block(text, opening) == ['default "";', '"" "a \\"b\\" \\\\ {c}; #d";']
    assert text.count("\n    include /etc/nginx/slipway/web-shop/headers;") == text.count("\nserver {")


def test_only_a_trusted_proxy_speaks_for_a_visitor() -> None:
    """Without one nobody does; with one its word for scheme and address is taken."""
    assert "real_ip" not in site()
    assert "$http_x_forwarded_proto" not in site()
    text, params = lines(site(**TLS)), lines(site(V26, "uwsgi_params.j2", **TLS))
    for line in (
        "set_real_ip_from 192.0.2.0/24;",
        "set_real_ip_from 2001:db8::/32;",
        "real_ip_header X-Forwarded-For;",
        "real_ip_recursive on;",
        "2001:db8::/32 trusted;",
    ):
        assert line in text
    for line in (
        "uwsgi_param REQUEST_SCHEME $slipway_web_shop_scheme;",
        "uwsgi_param HTTPS $slipway_web_shop_https if_not_empty;",
        "uwsgi_param HTTP_X_FORWARDED_PROTO $slipway_web_shop_scheme;",
        "uwsgi_param REMOTE_ADDR $remote_addr;",
        "uwsgi_param SCRIPT_NAME /shop;",
        "uwsgi_param PATH_INFO $slipway_web_shop_path;",
        "uwsgi_param REMOTE_USER $remote_user if_not_empty;",
    ):
        assert line in params


def test_what_is_handed_to_the_app() -> None:
    """The parameters are exactly these; each one that is missing is a fault that visitors can use."""
    found = lines(render("nginx", "uwsgi_params.j2"))
    params = {
        line.split()[1]: line.rstrip(";").split(maxsplit=2)[2] for line in found if line.startswith("uwsgi_param ")
    }
    assert params == {
        "QUERY_STRING": "$query_string",
        "REQUEST_METHOD": "$request_method",
        "CONTENT_TYPE": "$content_type",
        "CONTENT_LENGTH": "$content_length",
        "REQUEST_URI": "$request_uri",
        "SCRIPT_NAME": '""',
        "PATH_INFO": "$document_uri",
        "DOCUMENT_ROOT": "$document_root",
        "SERVER_PROTOCOL": "$server_protocol",
        "REQUEST_SCHEME": "$scheme",
        "HTTPS": "$https if_not_empty",
        "REMOTE_ADDR": "$remote_addr",
        "REMOTE_PORT": "$remote_port",
        "SERVER_PORT": "$server_port",
        "SERVER_NAME": "$server_name",
        "SERVER_SOFTWARE": "nginx/$nginx_version",
        "HTTP_HOST": "$host$slipway_app_port",
        "HTTP_X_FORWARDED_PROTO": "$scheme",
        "HTTP_X_FORWARDED_SSL": '"" if_not_empty',
        "HTTP_X_FORWARDED_FOR": "$remote_addr",
        "HTTP_X_REAL_IP": "$remote_addr",
        "HTTP_X_FORWARDED_HOST": '"" if_not_empty',
        "HTTP_X_FORWARDED_PORT": '"" if_not_empty',
        "HTTP_X_FORWARDED_PREFIX": '"" if_not_empty',
        "HTTP_X_FORWARDED_SERVER": '"" if_not_empty',
        "HTTP_FORWARDED": '"" if_not_empty',
        "HTTP_TRANSFER_ENCODING": '"" if_not_empty',
        "HTTP_PROXY": '"" if_not_empty',
        "HTTP_CONTENT_TYPE": '"" if_not_empty',
        "HTTP_CONTENT_LENGTH": '"" if_not_empty',
    }
    (other,) = [line for line in found if not line.startswith("uwsgi_param ")]
    ignored = "X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate X-Accel-Buffering X-Accel-Charset"
    assert other == f"uwsgi_ignore_headers {ignored};"


def test_drop_in_of_the_unit() -> None:
    """After a crash nginx comes back, a stop is by QUIT and is given the time for it; of root's it has ports."""
    found = lines(render("nginx", "slipway.conf.j2"))
    own = "/usr/bin/find /run/nginx /var/log/nginx -maxdepth 1 -type f -exec chown -h www-data {} +"
    assert found[: found.index("UMask=0027")] == [
        "[Unit]",
        "StartLimitIntervalSec=10s",
        "StartLimitBurst=10",
        "[Service]",
        "Restart=always",
        "RestartSec=200ms",
        "User=www-data",
        "Group=www-data",
        "AmbientCapabilities=CAP_NET_BIND_SERVICE",
        "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
        "RuntimeDirectory=nginx",
        "RuntimeDirectoryPreserve=true",
        "PIDFile=/run/nginx/nginx.pid",
        "ExecStartPre=",
        "ExecStartPre=+/usr/bin/touch -a /var/log/nginx/access.log",
        f"ExecStartPre=+{own}",
        "ExecStartPre=/usr/sbin/nginx -t -q -g 'daemon on; master_process on;'",
        "ExecStartPost=+/usr/bin/touch /run/nginx.loaded",
        "ExecReload=",
        f"ExecReload=+{own}",
        "ExecReload=/usr/sbin/nginx -t -q",
        "ExecReload=+/bin/sh -c 'kill -HUP $MAINPID'",
        "ExecReload=+/usr/bin/touch /run/nginx.loaded",
        "ExecStop=",
        "KillMode=mixed",
        "KillSignal=SIGQUIT",
        "TimeoutStopSec=90s",
        "LimitNOFILE=16384",
    ]
    assert found[found.index("UMask=0027") :] == SANDBOX


def test_drop_in_by_other_inputs() -> None:
    """Another user, longer requests, no log of its own."""
    found = lines(render("nginx", "slipway.conf.j2", **OTHER))
    for line in ("User=nobody", "Group=nogroup", "TimeoutStopSec=45s", "LimitNOFILE=1024"):
        assert line in found
    assert not [line for line in found if "access.log" in line]


def test_each_relaxation_of_nginx_changes_its_own_lines() -> None:
    """For sites and modules of the user's own."""
    relaxed: dict[str, object] = {"readable": ["/home/me"], "writable": ["/var/cache/x"], "write_execute": True}
    after = lines(render("nginx", "slipway.conf.j2", nginx_sandbox=relaxed))
    before = lines(render("nginx", "slipway.conf.j2"))
    assert sorted(set(after) - set(before)) == ["BindPaths=/var/cache/x", "BindReadOnlyPaths=/home/me"]
    assert set(before) - set(after) == {"MemoryDenyWriteExecute=true"}


@needs_nginx
@pytest.mark.parametrize(
    "inputs",
    [
        {},
        OTHER,
        TLS,
        {"web_certificate": "self_signed", "nginx_tls_profile": "modern"},
        {"nginx_access_log": "off", "nginx_keepalive_timeout": 3600, "nginx_client_max_body_size": "0"},
        {"nginx_server_names": [".".join(["a" * 62] * 4)], "nginx_ipv6": True},
        {"nginx_server_names": [f"tenant-{number}.example.org" for number in range(2000)]},
        {"nginx_log_format": "escape=none"},
    ],
    ids=["defaults", "other", "tls", "modern", "off", "longest name", "many names", "text of the format"],
)
def test_nginx_accepts_it_without_a_warning(tmp_path: Path, inputs: dict[str, object]) -> None:
    """What is written leaves nginx nothing to say."""
    configuration = written(tmp_path, **{"nginx_user": "root", "nginx_group": "root", **inputs})
    result = judged(configuration)
    said = [line for line in result.stderr.splitlines() if '"user" directive makes sense only' not in line]
    assert said == [
        f"nginx: the configuration file {configuration} syntax is ok",
        f"nginx: configuration file {configuration} test is successful",
    ], result.stderr
    assert result.returncode == 0


@needs_nginx
@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"nginx_log_format": "$no_such"}, 'unknown "no_such" variable'),
        ({"nginx_worker_processes": "many"}, "invalid value"),
        ({"nginx_extra": {"server": "frobnicate on;"}}, "app/server.conf:1"),
        ({"nginx_extra": {"server": "}\nserver {"}}, 'unexpected "}" in'),
        ({"nginx_extra": {"http": "map $uri $mine {"}}, "app/http.conf:1"),
    ],
)
def test_nginx_refuses_what_only_it_can_judge(tmp_path: Path, inputs: dict[str, object], words: str) -> None:
    """What the rules of the inputs cannot say is refused by the validation of the file."""
    result = judged(written(tmp_path, **inputs))
    assert result.returncode != 0
    assert words in result.stderr
