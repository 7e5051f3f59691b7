"""What a host serves, seen from outside and from inside. Nothing in here changes a host."""

from __future__ import annotations

import pytest
from conftest import APP, Site, WebServer
from testinfra.host import Host

CONNECT = "import socket; socket.socket(socket.AF_UNIX).connect('/run/uwsgi.sock')"


def test_the_lesson_answers(site: Site) -> None:
    """The two routes of the lesson answer JSON."""
    assert site.get("/hello").json() == {"message": "hello", "name": "world"}
    assert site.get("/hello/you").json() == {"message": "hello", "name": "you"}
    assert site.get("/healthz").status == 200


def test_the_live_release_answers(host: Host, site: Site, live: str) -> None:
    """The answer comes from the release that the link names: its directory, its environment, its socket."""
    chain = site.get("/chain").json()
    directory = f"/srv/{APP}/releases/{live}"
    assert chain["release"]["name"] == live
    assert chain["framework"]["prefix"] == f"{directory}/venv"
    assert host.check_output("readlink -f /run/uwsgi.sock") == f"/run/{APP}/{live}.sock"


def test_the_page_shows_socket_and_workers(site: Site, live: str) -> None:
    """As uWSGI tells the app that it runs."""
    chain = site.get("/chain").json()
    assert chain["socket"]["path"] == f"/run/{APP}/{live}.sock"
    assert chain["app_server"]["workers"] == 3


def test_the_hosts_own_python_serves(host: Host, site: Site) -> None:
    """The environment was made with the host's python3."""
    assert site.get("/chain").json()["framework"]["python"] == host.check_output("python3 -V").removeprefix("Python ")


def test_as_many_workers_as_asked_for(host: Host) -> None:
    """app_workers is 3 in this inventory."""
    assert int(host.check_output(f"pgrep --count --euid {APP}")) == 3 + 1, "the workers and their master"


@pytest.mark.parametrize(("user", "admitted"), [("www-data", True), ("nobody", False), ("admin", False)])
def test_the_socket_is_open_to_the_web_server_only(host: Host, user: str, admitted: bool) -> None:
    """The web server's user can connect to the socket, other users of the host cannot."""
    result = host.run(f'runuser -u {user} -- python3 -c "{CONNECT}"')
    assert (result.rc == 0) == admitted
    assert admitted or "PermissionError" in result.stderr


def test_the_app_runs_as_its_own_user_and_cannot_write_its_code(host: Host, live: str) -> None:
    """Neither code nor environment nor configuration belongs to the app's user."""
    owner = host.check_output(f"systemctl show --value --property User {APP}@{live}.service")
    assert owner == APP
    assert host.user(APP).shell == "/usr/sbin/nologin"
    assert host.check_output(f"find /srv/{APP} -not -user root -o -perm /022 -not -type l") == ""


def test_the_web_server_serves_static_files(web: WebServer, site: Site) -> None:
    """Files below /static/ are served with their type."""
    answer = site.get("/static/style.css")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/css")
    assert answer.headers["server"] == web.title


def test_everything_starts_at_boot_and_writes_to_the_journal(web: WebServer, host: Host, live: str) -> None:
    """What supervisord did."""
    for unit in (f"{web.unit}.service", f"{APP}@{live}.socket", f"{APP}@{live}.service"):
        assert host.service(unit).is_enabled
        assert host.service(unit).is_running
        assert host.check_output(f"journalctl --no-pager --quiet --lines 1 --unit {unit}")
    assert host.check_output("systemctl is-system-running") == "running"


def test_one_release_is_up(host: Host, live: str) -> None:
    """Only the live release runs."""
    listed = host.check_output(f"systemctl list-units --plain --no-legend --state=active '{APP}@*.service'")
    assert [line.split()[0] for line in listed.splitlines()] == [f"{APP}@{live}.service"]
