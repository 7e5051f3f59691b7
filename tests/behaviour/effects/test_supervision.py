"""What is stopped does not take the rest with it. What crashes is in test_faults.py."""

from __future__ import annotations

import pytest
from conftest import APP, Site, WebServer, live_release
from testinfra.host import Host

HOSTS = pytest.mark.parametrize("name", ["debian12", "debian13"])

pytestmark = pytest.mark.usefixtures("lesson")


@HOSTS
def test_static_files_need_no_app(web: WebServer, hosts: dict[str, Host], sites: dict[str, Site], name: str) -> None:
    """With its server stopped the app is gone, and static files still come: the web server reads them from disk."""
    units = f"{APP}@{live_release(hosts[name])}.socket {APP}@{live_release(hosts[name])}.service"
    hosts[name].check_output(f"systemctl stop {units}")
    try:
        assert sites[name].get("/hello").status == web.either(502, 503)
        assert sites[name].get("/static/style.css").status == 200
    finally:
        hosts[name].check_output(f"systemctl start {units}")
    assert sites[name].get("/hello").status == 200


@HOSTS
def test_the_web_server_stops_gracefully(web: WebServer, hosts: dict[str, Host], name: str) -> None:
    """By QUIT or WINCH, which let requests end, and it is given as long as a request may take."""
    shown = hosts[name].check_output(f"systemctl show --property KillSignal,Restart,TimeoutStopUSec {web.unit}")
    settings = dict(line.split("=", 1) for line in shown.splitlines())
    assert settings["KillSignal"] == web.either("3", "28"), "SIGQUIT, SIGWINCH"
    assert settings["Restart"] == "always"
