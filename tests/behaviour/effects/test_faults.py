"""What crashes comes back by itself, and takes no more requests with it than it had in its hands.

Each fault happens on all hosts at once.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import client
import pytest
from conftest import APP, ROOT, Run, Site, WebServer, live_release, main_pid
from testinfra.host import Host
from traffic import publish, traffic

RATE = 80.0  # requests per second and host
ATTEMPTS = 3  # at what is to happen within a time: what else the machine does only adds to it
AROUND = 1.5  # seconds of load before a fault, and after all is well again
WORKERS = 3
HARAKIRI = 2  # seconds that a request may take
COLUMNS = ("host", "fault", "lost / requests", "seconds from the fault to the last loss")
INPUTS = {
    "release_source": f"{ROOT}/tests/apps/slow", "release_requirements": [], "app_static": {},
    "app_workers": WORKERS, "app_timeout": HARAKIRI,
}  # fmt: skip


@dataclass
class Victim:
    """A host, and what its visitors met; `row` is its row in the table of all faults."""

    name: str
    host: Host
    site: Site
    directory: Path
    at: float = 0.0
    lost: list[client.Record] = field(default_factory=list)
    row: tuple[str, ...] = ()

    @property
    def unit(self) -> str:
        """The service of the live release."""
        return f"{APP}@{live_release(self.host)}.service"

    def kill(self, process: str) -> None:
        """Kill the process whose id a shell command prints, and note when."""
        self.at = float(self.host.check_output(f"process=$({process}) && date +%s.%N && kill -9 $process"))

    def kill_busiest(self, unit: str) -> None:
        """Kill that worker of a unit which has most files open, connections among them."""
        workers = (
            f"for worker in $(pgrep -P {main_pid(self.host, unit)}); do echo $(ls /proc/$worker/fd | wc -l) $worker"
        )
        self.kill(f"{workers}; done | sort -n | tail -n 1 | cut -d ' ' -f 2")

    def suffer(self, fault: str, cause: Callable[[], None], rate: float = RATE) -> None:
        """Cause a fault under load, and note which requests were lost by it."""
        with traffic({self.name: self.site.port}, self.directory, rate) as files:
            time.sleep(AROUND)
            cause()
            self.site.until("/", lambda answer: answer.status == 200)
            time.sleep(AROUND)
        records = client.read(files[self.name])
        self.lost = [record for record in records if record.fault]
        last = max((record.scheduled + record.latency - self.at for record in self.lost), default=0.0)
        self.row = (self.name, fault, f"{len(self.lost)} / {len(records)}", f"{last:.2f}")
        assert len(records) > rate * 2 * AROUND * 0.9
        assert [record for record in self.lost if record.sent < self.at - client.SLOW_SECONDS - AROUND] == []


Each = Callable[[Callable[[Victim], None]], None]


@pytest.fixture(scope="module")
def rows(anything: dict[str, str], playbook: Callable[..., Run]) -> Iterator[list[tuple[str, ...]]]:
    """Put the app for load on all hosts; publish the table when all faults are over."""
    assert anything
    run = playbook("playbooks/deploy.yml", **INPUTS)
    assert run.code == 0, run.output
    table: list[tuple[str, ...]] = []
    yield table
    publish(f"Faults, at {RATE:.0f} requests/s to {WORKERS} workers", COLUMNS, table)


@pytest.fixture
def each(rows: list[tuple[str, ...]], hosts: dict[str, Host], sites: dict[str, Site], tmp_path: Path) -> Each:
    """Let a fault happen on all hosts at once, and judge each of them."""

    def happen(to: Callable[[Victim], None]) -> None:
        victims = [Victim(name, host, sites[name], tmp_path) for name, host in hosts.items()]
        with ThreadPoolExecutor() as threads:
            happening = [threads.submit(to, victim) for victim in victims]
        rows.extend(victim.row for victim in victims if victim.row)
        for one in happening:
            one.result()

    return happen


def children(host: Host, unit: str) -> list[int]:
    """Return the workers of a unit's main process."""
    return [int(process) for process in host.check_output(f"pgrep -P {main_pid(host, unit)}").split()]


@pytest.mark.long
def test_a_worker_of_the_app_server(each: Each) -> None:
    """Nothing is lost but the one request that it was answering; the master puts another in its place."""

    def to(victim: Victim) -> None:
        before = children(victim.host, victim.unit)
        victim.suffer("kill -9 of the busiest worker of the app server", lambda: victim.kill_busiest(victim.unit))
        after = children(victim.host, victim.unit)
        assert len(after) == WORKERS
        assert len(set(after) & set(before)) == WORKERS - 1
        assert len(victim.lost) <= 1

    each(to)


def test_the_master_of_the_app_server(each: Each) -> None:
    """Nothing is lost but what its workers were answering: what waits in the socket's queue is served by the next."""

    def to(victim: Victim) -> None:
        before = main_pid(victim.host, victim.unit)
        victim.suffer("kill -9 of the master of the app server", lambda: victim.kill(f"echo {before}"))
        assert main_pid(victim.host, victim.unit) not in (0, before)
        assert len(victim.lost) <= WORKERS

    each(to)


@pytest.mark.long
def test_a_worker_of_the_web_server(web: WebServer, each: Each) -> None:
    """Nothing is lost but what it had: idle connections of clients, and requests in flight."""

    def to(victim: Victim) -> None:
        before = children(victim.host, web.unit)
        victim.suffer(f"kill -9 of the busiest worker of {web.title}", lambda: victim.kill_busiest(web.unit))
        after = children(victim.host, web.unit)
        # Apache has as many as there is to do.
        assert web.either(len(after) == len(before), len(after) > 0)
        assert len(set(after) & set(before)) == len(before) - 1
        assert len(victim.lost) <= client.POOL + WORKERS

    each(to)


def test_the_master_of_the_web_server(web: WebServer, each: Each) -> None:
    """It is back within two seconds, once in three on a machine that has much else to do."""

    def to(victim: Victim) -> None:
        for _ in range(ATTEMPTS):
            before = main_pid(victim.host, web.unit)
            victim.suffer(f"kill -9 of the master of {web.title}", partial(victim.kill, f"echo {before}"))
            assert main_pid(victim.host, web.unit) not in (0, before)
            late = [record for record in victim.lost if record.sent > victim.at + 2]
            if not late:
                break
        assert late == []

    each(to)


@pytest.mark.long
def test_a_stuck_worker(web: WebServer, each: Each) -> None:
    """The app server ends a request that does not end, after a while; until then the other workers serve all others."""

    def to(victim: Victim) -> None:
        answers: list[int] = []
        stuck = threading.Thread(target=lambda: answers.append(victim.site.get("/?sleep=600").status))

        def cause() -> None:
            victim.at = time.time()
            stuck.start()
            stuck.join()

        victim.suffer(f"a request that does not end, ended after {HARAKIRI} s", cause)
        assert answers == [web.either(502, 500)]
        assert victim.lost == []

    each(to)


@pytest.mark.long
def test_a_restart_of_the_host(each: Each, pytestconfig: pytest.Config) -> None:
    """All is back without Ansible: the same release, and nothing is lost once systemd says that it is up."""
    state = pytestconfig.getoption("--state")

    def to(victim: Victim) -> None:
        before = live_release(victim.host)
        up: list[float] = []

        def cause() -> None:
            victim.at = time.time()
            command = [sys.executable, str(ROOT / "tools" / "hosts.py"), "restart", "--state", str(state), victim.name]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            up.append(time.time())

        # At the full rate it is the client that would be tested: each request waits for seconds.
        victim.suffer("restart of the host", cause, rate=20)
        assert live_release(victim.host) == before
        assert victim.site.get("/").json()["release"] == before
        assert victim.lost, "the host was not away"
        assert [record for record in victim.lost if record.sent > up[0]] == []

    each(to)
