"""What the nginx role writes on a host: by its defaults, by other inputs, and judged by nginx itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from ansible.errors import AnsibleError
from ansible.template import trust_as_template
from rendering import ROLES, lines, render

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATES = ("nginx.conf.j2", "site.conf.j2", "uwsgi_params.j2", "slipway.conf.j2")
# What these include; no file of their own on a host.
PARTS = ("static.j2",)
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
}
LESSON = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent'
    ' "$http_referer" "$http_user_agent" "$http_x_forwarded_for"'
)
NGINX = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/bin")
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


def written(directory: Path, **overrides: object) -> Path:
    """Write a configuration as the role would, below a directory of the test's.

    directory: where; every path of the host is rewritten to lie in it. overrides: what an inventory would say.

    Returns the path of nginx.conf.
    """
    app = str(overrides.get("nginx_app", "app"))
    for name in ("etc/nginx/conf.d", "etc/nginx/slipway", "etc/nginx/sites-enabled", "run", "var/log/nginx"):
        (directory / name).mkdir(parents=True, exist_ok=True)
    shutil.copy("/etc/nginx/mime.types", directory / "etc/nginx/mime.types")
    targets = {
        "nginx.conf.j2": "etc/nginx/nginx.conf",
        "uwsgi_params.j2": "etc/nginx/slipway/uwsgi_params",
        "site.conf.j2": f"etc/nginx/conf.d/{app}.conf",
    }
    for template, target in targets.items():
        text = re.sub(r"(?<=[ :=])/(?=(etc|run|var|srv)/)", f"{directory}/", render("nginx", template, **overrides))
        (directory / target).write_text(text, encoding="utf-8")
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
@pytest.mark.parametrize("inputs", [{}, OTHER], ids=["defaults", "other"])
def test_every_file_says_who_manages_it(template: str, inputs: dict[str, object]) -> None:
    """Every file opens with the managed header and holds no template syntax."""
    text = render("nginx", template, **inputs)
    assert text.startswith("#\n# Ansible managed\n#\n")
    assert "{{" not in text
    assert "{%" not in text


def test_every_template_is_tested() -> None:
    """A template that is added is added here too."""
    assert sorted(path.name for path in (ROLES / "nginx" / "templates").iterdir()) == sorted(TEMPLATES + PARTS)


@pytest.mark.parametrize(
    ("template", "variable"),
    [
        ("nginx.conf.j2", "nginx_user"),
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
        "user www-data www-data;",
        "worker_processes auto;",
        "worker_rlimit_nofile 4096;",
        "pid /run/nginx.pid;",
        "error_log stderr warn;",
        "include /etc/nginx/modules-enabled/*.conf;",
    ):
        assert line in found
    assert block(text, "events") == ["worker_connections 2048;"]
    http = block(text, "http")
    for line in (
        "server_tokens off;",
        "underscores_in_headers off;",
        f"log_format main escape=default '{LESSON}';",
        "access_log /var/log/nginx/access.log main;",
        "sendfile on;",
        "keepalive_timeout 65s;",
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
        "user nobody nogroup;",
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


def test_site_without_names_answers_to_any() -> None:
    """Without names there is one server, and it is the default."""
    text = render("nginx", "site.conf.j2")
    assert server(text, "$hostname")[:3] == [
        "listen 80 default_server;",
        "listen [::]:80 default_server;",
        "server_name $hostname;",
    ]
    assert block(text, "location /") == [
        "include /etc/nginx/slipway/uwsgi_params;",
        "uwsgi_pass unix:/run/uwsgi.sock;",
        "uwsgi_read_timeout 75s;",
    ]
    assert "client_max_body_size 10m;" in lines(text)
    assert "absolute_redirect off;" in lines(text)
    assert lines(text).count("server {") == 1
    assert "444" not in text
    assert "alias" not in "".join(lines(text))


def test_site_with_names_refuses_others() -> None:
    """With names a default server closes the connection of whoever asks for another."""
    text = render("nginx", "site.conf.j2", **OTHER)
    assert server(text, '""') == ["listen 8080 default_server;", 'server_name "";', "return 444;", "}"]
    site = server(text, "shop.example.org *.shop.example.org [::1] 192.0.2.7")
    assert "listen 8080;" in site
    assert "client_max_body_size 2g;" in site
    assert "[::]" not in text
    assert [line for line in lines(text) if "default_server" in line] == ["listen 8080 default_server;"]
    assert block(text, "location /") == [
        "include /etc/nginx/slipway/uwsgi_params;",
        "uwsgi_pass unix:/run/shop.sock;",
        "uwsgi_read_timeout 30s;",
    ]


def test_both_servers_listen_on_ipv6() -> None:
    """The refusal holds on IPv6 as on IPv4."""
    text = render("nginx", "site.conf.j2", nginx_server_names=["example.org"])
    assert "listen [::]:80 default_server;" in server(text, '""')
    assert "listen [::]:80;" in server(text, "example.org")


@pytest.mark.parametrize(("prefix", "directory"), [("/static/", "static"), ("/media/pub/", "shop/assets/pub")])
def test_static_files_stay_inside(prefix: str, directory: str) -> None:
    """A prefix serves its directory: no sibling, no listing, no link, no dotfile."""
    text = render("nginx", "site.conf.j2", **OTHER)
    assert prefix.endswith("/")
    assert block(text, f"location ^~ {prefix}") == [
        f"alias /srv/shop/live/app/{directory}/;",
        "autoindex off;",
        "disable_symlinks on from=/srv/shop/live/app;",
    ]
    dotfiles = ["location ~ /\\. {", "return 404;", "}"]
    start = lines(text).index(f"location ^~ {prefix} {{")
    assert lines(text)[start + 4 : start + 7] == dotfiles


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
        "HTTP_HOST": "$host$slipway_port",
        "HTTP_X_FORWARDED_PROTO": "$scheme",
        "HTTP_X_FORWARDED_SSL": '"" if_not_empty',
        "HTTP_TRANSFER_ENCODING": '"" if_not_empty',
        "HTTP_PROXY": '"" if_not_empty',
        "HTTP_CONTENT_TYPE": '"" if_not_empty',
        "HTTP_CONTENT_LENGTH": '"" if_not_empty',
    }
    (other,) = [line for line in found if not line.startswith("uwsgi_param ")]
    ignored = "X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate X-Accel-Buffering X-Accel-Charset"
    assert other == f"uwsgi_ignore_headers {ignored};"


def test_drop_in_of_the_unit() -> None:
    """After a crash nginx comes back, a stop is by QUIT and is given the time for it."""
    assert lines(render("nginx", "slipway.conf.j2")) == [
        "[Unit]",
        "StartLimitIntervalSec=10s",
        "StartLimitBurst=10",
        "[Service]",
        "Restart=always",
        "RestartSec=200ms",
        "ExecStartPost=/usr/bin/touch /run/nginx.loaded",
        "ExecReload=/usr/bin/touch /run/nginx.loaded",
        "ExecStop=",
        "KillMode=mixed",
        "KillSignal=SIGQUIT",
        "TimeoutStopSec=90s",
    ]
    assert "TimeoutStopSec=45s" in lines(render("nginx", "slipway.conf.j2", **OTHER))


@needs_nginx
@pytest.mark.parametrize(
    "inputs",
    [
        {},
        OTHER,
        {"nginx_access_log": "off", "nginx_keepalive_timeout": 3600, "nginx_client_max_body_size": "0"},
        {"nginx_server_names": [".".join(["a" * 62] * 4)], "nginx_ipv6": True},
        {"nginx_server_names": [f"tenant-{number}.example.org" for number in range(2000)]},
        {"nginx_log_format": "escape=none"},
    ],
    ids=["defaults", "other", "off", "longest name", "many names", "text of the format"],
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
    ],
)
def test_nginx_refuses_what_only_it_can_judge(tmp_path: Path, inputs: dict[str, object], words: str) -> None:
    """What the rules of the inputs cannot say is refused by the validation of the file."""
    result = judged(written(tmp_path, **inputs))
    assert result.returncode != 0
    assert words in result.stderr
