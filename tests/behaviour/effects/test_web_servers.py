"""From nginx to Apache and back: what visitors notice, what is left of the other one, and whether deploys lose nothing.

The tests follow each other: what one leaves is where the next one begins.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from conftest import APP, ROOT, WEB_SERVERS, Run, Site, live_release, main_pid, visited
from testinfra.host import Host
from traffic import publish

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("begun")]
# Seconds for which new connections may be refused: the stop and the start of a program, on a busy machine.
LONGEST = 3.0
INPUTS: dict[str, Any] = {
    "release_source": f"{ROOT}/app", "release_requirements": ["requirements.txt"], "app_static": {"/static/": "static"},
}  # fmt: skip
COLUMNS = ("host", "to", "no new connection for", "refused", "of all that was asked")

Hosts = dict[str, Host]
Sites = dict[str, Site]
Playbook = Callable[..., Run]


@dataclass
class Watch:
    """What came of asking again and again: when each answer came, and each fault, in the order of time."""

    answered: list[float] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)
    faults: list[float] = field(default_factory=list)

    def outage(self) -> float:
        """Return the seconds between the last answer before all faults and the first one after them."""
        if not self.faults:
            return 0.0
        before = max(when for when in self.answered if when < self.faults[0])
        return min(when for when in self.answered if when > self.faults[-1]) - before


@contextlib.contextmanager
def watched(sites: Sites) -> Iterator[dict[str, Watch]]:
    """Ask each site all the time while the block runs, on a new connection each time."""
    watches, over = {name: Watch() for name in sites}, threading.Event()

    def watch(one: Watch, site: Site) -> None:
        while not over.wait(0.002):
            try:
                one.statuses.add(site.get("/healthz").status)
                one.answered.append(time.monotonic())
            except (OSError, http.client.HTTPException):
                one.faults.append(time.monotonic())

    threads = [threading.Thread(target=watch, args=(watches[name], site)) for name, site in sites.items()]
    for thread in threads:
        thread.start()
    try:
        yield watches
    finally:
        over.set()
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def begun(anything: dict[str, str], playbook: Playbook) -> None:
    """Have the lesson's app served by nginx."""
    assert anything
    run = playbook("site.yml", **INPUTS, web_server="nginx")
    assert run.code == 0, run.end


def serves(host: Host, site: Site, web_server: str) -> None:
    """See that one web server serves, and that nothing but files is left of the other one."""
    web, other = WEB_SERVERS[web_server], next(one for name, one in WEB_SERVERS.items() if name != web_server)
    assert site.get("/healthz").headers["server"] == web.title
    assert site.get("/static/style.css").headers["server"] == web.title
    assert host.service(web.unit).is_running
    assert host.service(web.unit).is_enabled
    assert not host.service(other.unit).is_running
    assert not host.service(other.unit).is_enabled
    assert not host.file(f"/etc/systemd/system/{other.unit}.service.d/slipway.conf").exists
    assert host.check_output("systemctl is-system-running") == "running"


def change(hosts: Hosts, sites: Sites, playbook: Playbook, to: str) -> None:
    """Change the web server; the app notices nothing of it, visitors for a moment."""
    before = {name: (live_release(host), main_pid(host, f"{APP}@{live_release(host)}")) for name, host in hosts.items()}
    with watched(sites) as watches:
        run = playbook("site.yml", **INPUTS, web_server=to)
    assert run.code == 0, run.end
    rows = [
        (name, to, f"{one.outage() * 1000:.0f} ms", str(len(one.faults)), str(len(one.faults) + len(one.answered)))
        for name, one in watches.items()
    ]
    publish("From one web server to the other", COLUMNS, rows)
    for name, host in hosts.items():
        assert watches[name].statuses == {200}, "nobody gets an error"
        assert 0 < watches[name].outage() < LONGEST
        serves(host, sites[name], to)
        assert (live_release(host), main_pid(host, f"{APP}@{live_release(host)}")) == before[name]


def test_a_web_server_that_does_not_run_takes_nothing_over(hosts: Hosts, sites: Sites, playbook: Playbook) -> None:
    """Its configuration is tested while the other one serves."""
    with watched(sites) as watches:
        run = playbook("site.yml", **INPUTS, web_server="apache", apache_extra={"server": "Frobnicate on"})
    assert run.code != 0
    assert "Invalid command 'Frobnicate'" in run.words
    for name, host in hosts.items():
        assert (watches[name].statuses, watches[name].faults) == ({200}, [])
        serves(host, sites[name], "nginx")


def test_what_is_said_to_the_other_one_is_refused(hosts: Hosts, playbook: Playbook) -> None:
    """A list of networks that are refused must not be lost by another word elsewhere."""
    for to, said in (("apache", "nginx_deny"), ("nginx", "apache_deny")):
        run = playbook("site.yml", **INPUTS, web_server=to, **{said: ["192.0.2.1"]})
        assert run.code != 0
        assert f"{said}: {next(iter(hosts))} has the web server {to}, which does not read it." in run.words
        assert not any(run.changed.values())


def test_to_apache(hosts: Hosts, sites: Sites, playbook: Playbook) -> None:
    """The ports move over; a second run has nothing to do, and a dry one nothing to say."""
    change(hosts, sites, playbook, "apache")
    for options in ((), ("--check", "--diff")):
        run = playbook("site.yml", *options, **INPUTS, web_server="apache")
        assert (run.code, run.changed) == (0, dict.fromkeys(hosts, 0)), run.end


def test_a_deploy_behind_apache_loses_nothing(hosts: Hosts, sites: Sites, playbook: Playbook) -> None:
    """Nor does a rollback, and once one is over nobody meets the release before."""
    first = {name: live_release(host) for name, host in hosts.items()}
    master = {name: main_pid(host, "apache2") for name, host in hosts.items()}
    for playbook_of, inputs in (("deploy", {"release_environment": {"COLOUR": "blue"}}), ("rollback", {})):
        with visited(sites, "/chain", 0.01) as visitors:
            run = playbook(f"playbooks/{playbook_of}.yml", **INPUTS, web_server="apache", **inputs)
            assert run.code == 0, run.end
            for name, site in sites.items():
                served = {site.get("/chain").json()["release"]["name"] for _ in range(50)}
                assert served == {live_release(hosts[name])}
                assert (served == {first[name]}) == (playbook_of == "rollback")
        assert not any(visitors.failed().values()), visitors.failed()
    assert {name: main_pid(host, "apache2") for name, host in hosts.items()} == master


def test_and_back_to_nginx(hosts: Hosts, sites: Sites, playbook: Playbook) -> None:
    """The same the other way."""
    change(hosts, sites, playbook, "nginx")
