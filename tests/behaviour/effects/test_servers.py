"""One input changes the server: a deploy like any other, and a way back like any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import client
import pytest
from conftest import ROOT, Run, Site, WebServer, live_release
from testinfra.host import Host
from traffic import faults, traffic

pytestmark = pytest.mark.usefixtures("anything")
RATE = 40.0  # requests per second and host
LOADED = {"release_source": f"{ROOT}/tests/apps/slow", "release_requirements": [], "app_static": {}, "app_workers": 3}


def test_from_server_to_server_and_back(
    web: WebServer, hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run], tmp_path: Path
) -> None:
    """No request is lost, each release is served by its own server, and the web server is told nothing."""
    # How each names itself to the app; uWSGI leaves the word to the web server.
    names = {"uwsgi": web.title, "gunicorn": "gunicorn/"}
    # What the web server has, and since when its first process has it.
    told = f"{web.digests}; systemctl show --property MainPID {web.unit}"

    def go(name: str, server: str, **inputs: object) -> dict[str, str]:
        run = playbook(f"playbooks/{name}.yml", **inputs)
        assert run.code == 0, run.output
        for site in sites.values():
            assert site.get("/").json()["server"].startswith(names[server])
        return {host: live_release(one) for host, one in hosts.items()}

    first = go("deploy", "uwsgi", **LOADED, app_server="uwsgi")
    before = {name: host.check_output(told) for name, host in hosts.items()}
    with traffic({name: site.port for name, site in sites.items()}, tmp_path, RATE) as files:
        second = go("deploy", "gunicorn", **LOADED, app_server="gunicorn")
        assert go("rollback", "uwsgi") == first
    for name, host in hosts.items():
        records = client.read(files[name])
        assert faults(records) == []
        assert {first[name], second[name]} == {record.release for record in records}
        assert host.check_output(told) == before[name]
