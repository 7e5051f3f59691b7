"""The ways in which uWSGI runs an app: how many workers there are, how long each lives, a process for each request."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import client
import pytest
from conftest import APP, ROOT, SWITCHABLE, Play, Run, Site, await_that, live_release, main_pid
from testinfra.host import Host
from traffic import faults, traffic

pytestmark = pytest.mark.usefixtures("anything")
RATE = 40.0  # requests per second and host
CGI_RATE = 2.0  # a process for each
LOADED: dict[str, Any] = {
    "release_source": f"{ROOT}/tests/apps/slow", "release_requirements": [], "app_static": {},
    "app_server": "uwsgi", "app_workers": 4,
}  # fmt: skip
LIMIT = 5  # seconds that a request may take
WAYS: dict[str, dict[str, Any]] = {
    "spare": {"uwsgi_cheaper": 1, "uwsgi_cheaper_initial": 2, "uwsgi_cheaper_step": 2},
    "busyness": {
        "uwsgi_cheaper": 1, "uwsgi_cheaper_algo": "busyness",
        # Sooner than is good for anybody but a test.
        "uwsgi_options": {
            "cheaper-overload": 1, "cheaper-busyness-multiplier": 2, "cheaper-busyness-min": 40,
        },
    },
    "max requests": {"uwsgi_max_requests": 30, "uwsgi_options": {"min-worker-lifetime": 1}},
    "max worker lifetime": {"uwsgi_max_worker_lifetime": 11, "uwsgi_max_worker_lifetime_delta": 1, "app_threads": 2},
    "reload on rss": {"uwsgi_reload_on_rss": 100, "uwsgi_options": {"min-worker-lifetime": 1}},
    "cgi": {"uwsgi_cgi": True, "app_timeout": LIMIT},
}  # fmt: skip


def unit(host: Host) -> str:
    """Return the service of the live release."""
    return f"{APP}@{live_release(host)}.service"


def workers(host: Host) -> set[int]:
    """Return the workers of the live release."""
    return {int(process) for process in host.check_output(f"pgrep -P {main_pid(host, unit(host))}").split()}


def said(host: Host) -> str:
    """Return what the live release has written to the journal."""
    return str(host.check_output(f"journalctl --sync && journalctl --output=cat --unit={unit(host)}"))


@pytest.fixture
def deploy(playbook: Callable[..., Run], hosts: dict[str, Host]) -> Callable[[str], None]:
    """Put the app for load live in a way, as a release that has just begun."""

    def go(way: str) -> None:
        run = playbook("playbooks/deploy.yml", **LOADED, **WAYS[way], release_environment={"WAY": way})
        assert run.code == 0, run.output

    return go


@contextlib.contextmanager
def lossless(sites: dict[str, Site], directory: Path, rate: float = RATE) -> Iterator[None]:
    """Have visitors while the block runs, and lose the request of none of them."""
    with traffic({name: site.port for name, site in sites.items()}, directory, rate) as files:
        yield
    for name in sites:
        records = client.read(files[name])
        assert len(records) > rate
        assert faults(records) == []


@contextlib.contextmanager
def busy(sites: dict[str, Site], number: int) -> Iterator[None]:
    """Keep so many workers of each site busy while the block runs."""
    over = threading.Event()

    def ask(site: Site) -> None:
        while not over.is_set():
            assert site.get("/?sleep=0.5").status == 200

    with ThreadPoolExecutor(len(sites) * number) as threads:
        asking = [threads.submit(ask, site) for site in sites.values() for _ in range(number)]
        try:
            yield
        finally:
            over.set()
    for one in asking:
        one.result()


@pytest.mark.long
@pytest.mark.parametrize("way", ["spare", "busyness"])
def test_there_are_as_many_workers_as_there_is_to_do(
    hosts: dict[str, Host], sites: dict[str, Site], deploy: Callable[[str], None], tmp_path: Path, way: str
) -> None:
    """More of them come when all are busy, and go again, without a lost request; the gate has asked those before."""

    def there_are(*numbers: int) -> bool:
        return all(len(workers(host)) in numbers for host in hosts.values())

    deploy(way)
    with lossless(sites, tmp_path):
        with busy(sites, 8):
            await_that(lambda: there_are(4))
        # The visitors that there are keep some of them busy.
        await_that(lambda: there_are(1, 2, 3))
    await_that(lambda: there_are(1))


@pytest.mark.parametrize(
    "way",
    ["max requests", *(pytest.param(way, marks=pytest.mark.long) for way in ("max worker lifetime", "reload on rss"))],
)
def test_workers_are_replaced_without_a_lost_request(
    hosts: dict[str, Host], sites: dict[str, Site], deploy: Callable[[str], None], tmp_path: Path, way: str
) -> None:
    """Each of them, by others that do the same; one that is not asked for more than it may stays."""
    deploy(way)
    before = {name: workers(host) for name, host in hosts.items()}
    with lossless(sites, tmp_path):

        def replaced() -> bool:
            if way == "reload on rss":
                for site in sites.values():
                    assert site.get("/?keep=100").status == 200
            return not any(before[name] & workers(host) for name, host in hosts.items())

        await_that(replaced)
    for host in hosts.values():
        await_that(lambda host=host: len(workers(host)) == 4)  # type: ignore[misc]
        assert "killed by signal" not in said(host)


def test_as_cgi_each_request_has_a_process(
    hosts: dict[str, Host],
    sites: dict[str, Site],
    deploy: Callable[[str], None],
    playbook: Callable[..., Run],
    tmp_path: Path,
) -> None:
    """It goes live and back as any release does; who takes too long is ended, and no worker with it."""
    deploy("max requests")
    first = {name: live_release(host) for name, host in hosts.items()}
    with lossless(sites, tmp_path, CGI_RATE):
        deploy("cgi")
        cgi = live_release(next(iter(hosts.values())))
        for site in sites.values():
            told = [site.get("/").json() for _ in range(8)]
            assert {one["cgi"] for one in told} == {"CGI/1.1"}
            assert len({one["process"] for one in told}) == 8
        assert playbook("playbooks/rollback.yml").code == 0
        assert {name: live_release(host) for name, host in hosts.items()} == first
        assert playbook("playbooks/rollback.yml", release_to=cgi).code == 0
    for name, host in hosts.items():
        before = workers(host)
        assert sites[name].get("/?sleep=600").status == 500
        assert workers(host) == before
        assert f"Timeout (0:00:0{LIMIT})!" in said(host)
        await_that(lambda host=host: host.run("pgrep --full '[c]gi_script.py'").rc != 0)  # type: ignore[misc]


@pytest.mark.long
def test_cgi_passes_the_same_gate(hosts: dict[str, Host], sites: dict[str, Site], play: Callable[..., Play]) -> None:
    """What cannot be imported is refused by the check, and what does not answer as it has to by the probe."""
    before = {name: live_release(host) for name, host in hosts.items()}
    broken = {"raise": "RuntimeError: told to raise at import", "500": "answered 500 (told to answer 500)"}
    more = {"release_health_attempts": 1, "app_server": "uwsgi", "uwsgi_cgi": True}
    for fault, words in broken.items():
        run = play("playbooks/deploy.yml", **SWITCHABLE, **more, release_environment={"FAULT": fault}).wait()
        assert run.code != 0
        assert words in run.end
        assert {name: live_release(host) for name, host in hosts.items()} == before
