"""What supervisord did: what crashes comes back, and what is stopped does not take the rest with it."""

from __future__ import annotations

import pytest
from conftest import APP, Site, live_release, main_pid
from testinfra.host import Host

HOSTS = pytest.mark.parametrize("name", ["debian12", "debian13"])


@HOSTS
@pytest.mark.parametrize("layer", ["nginx", "uwsgi"])
def test_a_killed_master_comes_back(hosts: dict[str, Host], sites: dict[str, Site], name: str, layer: str) -> None:
    """After kill -9 of its master the unit is up again with another process, and the site answers."""
    unit = "nginx.service" if layer == "nginx" else f"{APP}@{live_release(hosts[name])}.service"
    before = main_pid(hosts[name], unit)
    hosts[name].check_output(f"kill -9 {before}")
    assert sites[name].until("/hello", lambda answer: answer.status == 200).json()["message"] == "hello"
    assert main_pid(hosts[name], unit) not in (0, before)


@HOSTS
def test_a_killed_worker_comes_back(hosts: dict[str, Host], sites: dict[str, Site], name: str) -> None:
    """uWSGI's master replaces a worker."""
    chain = sites[name].get("/chain").json()["app_server"]
    hosts[name].check_output(f"kill -9 {chain['pid']}")
    again = sites[name].until("/chain", lambda answer: answer.json()["app_server"]["worker"] == chain["worker"])
    assert again.json()["app_server"]["pid"] != chain["pid"]


@HOSTS
def test_static_files_need_no_app(hosts: dict[str, Host], sites: dict[str, Site], name: str) -> None:
    """With uWSGI stopped the app is gone, and static files are still served: nginx reads them from disk."""
    units = f"{APP}@{live_release(hosts[name])}.socket {APP}@{live_release(hosts[name])}.service"
    hosts[name].check_output(f"systemctl stop {units}")
    try:
        assert sites[name].get("/hello").status == 502
        assert sites[name].get("/static/style.css").status == 200
    finally:
        hosts[name].check_output(f"systemctl start {units}")
    assert sites[name].get("/hello").status == 200


@HOSTS
def test_nginx_stops_gracefully(hosts: dict[str, Host], name: str) -> None:
    """Systemd stops nginx by QUIT, which lets requests end, and gives it as long as a request may take."""
    shown = hosts[name].check_output("systemctl show --property KillSignal,Restart,TimeoutStopUSec nginx.service")
    settings = dict(line.split("=", 1) for line in shown.splitlines())
    assert settings["KillSignal"] == "3", "SIGQUIT"
    assert settings["Restart"] == "always"
