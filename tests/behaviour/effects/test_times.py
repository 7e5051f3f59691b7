"""How long a deploy and a rollback take, and how often they go to the host for it.

The seconds in which something on this machine had to wait for a processor do not count: two cores may have more to do
than a deploy, and on a quiet machine there are hardly any.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import APP, ROOT, Run, live_release
from testinfra.host import Host
from traffic import publish

LONG = pytest.mark.long
COLUMNS = ("host", "run", "seconds", "of them waiting", "at most", "tasks", "round trips", "at most")
NOTHING_NEW, NEVER_HAD, ROLLBACK = 15.0, 30.0, 6.0  # seconds, at most, without those of waiting
# Commands and files that go over ssh: a task more is a round trip more, 0.35 s on a quiet machine.
TRIPS, TRIPS_BACK = 20, 5
# A rollback that takes too long is repeated, forward to the release by its name and back again.
ATTEMPTS = (False, True, False)

Measure = Callable[..., tuple[Run, float]]


def waited() -> float:
    """Return for how many seconds since the machine started a task of it, or all of it, has waited for a processor."""
    pressure = Path("/proc/pressure/cpu")
    some = re.search(r"^some .* total=(\d+)$", pressure.read_text(), re.MULTILINE) if pressure.exists() else None
    stolen = int(Path("/proc/stat").read_text().split()[8]) / os.sysconf("SC_CLK_TCK") / (os.cpu_count() or 1)
    return stolen + (int(some[1]) / 1e6 if some else 0.0)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a copy of the lesson's app, to be changed."""
    path = tmp_path_factory.mktemp("source") / "app"
    shutil.copytree(ROOT / "app", path, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    return path


@pytest.fixture(scope="module")
def measure(
    anything: dict[str, str], source: Path, playbook: Callable[..., Run], pytestconfig: pytest.Config
) -> Iterator[Measure]:
    """Run a playbook for one host, and note and return what it took; all of it is published at the end.

    Half of it is returned in `make test`, which has the other scenario's hosts at work on the same processors: the
    bounds are those of a machine that has nothing else to do.
    """
    share = 1.0 if pytestconfig.getoption("--long") else 0.5
    assert anything
    rows: list[tuple[str, ...]] = []

    def run(host: str, title: str, name: str, seconds: float, trips: int, **inputs: str) -> tuple[Run, float]:
        began, before = time.monotonic(), waited()
        lesson = {"release_source": str(source), "release_requirements": ["requirements.txt"]}
        done = playbook(name, "--limit", host, "-vvv", **lesson, **inputs)
        took, waiting = time.monotonic() - began, waited() - before
        made = len(re.findall(rf"^<{host}> (?:SSH: EXEC|PUT) ", done.output, re.MULTILINE))
        tasks = re.findall(rf"^{host} +: ok=(\d+)", done.output, re.MULTILINE)
        rows.append((host, title, f"{took:.1f}", f"{waiting:.1f}", f"{seconds:.0f}", *tasks, str(made), str(trips)))
        assert done.code == 0, done.output[-4000:]
        assert made, "none was counted"
        assert made <= trips
        return done, (took - waiting) * share

    yield run
    publish("Deploys and rollbacks of one host", COLUMNS, rows)


@pytest.mark.parametrize("name", [pytest.param("debian12", marks=LONG), "debian13"])
def test_a_deploy_and_a_rollback(hosts: dict[str, Host], source: Path, measure: Measure, name: str) -> None:
    """The lesson's app with a changed file, and nothing new to install; a deploy of what is live; and back."""
    (source / "changed.txt").write_text(f"{time.time_ns()} for {name}")
    deploy = "playbooks/deploy.yml"
    run, took = measure(name, "deploy, nothing new to install", deploy, NOTHING_NEW, TRIPS)
    assert run.changed[name] > 0
    assert took <= NOTHING_NEW
    run, took = measure(name, "deploy, release is live", deploy, NOTHING_NEW, TRIPS)
    assert run.changed[name] == 0
    assert took <= NOTHING_NEW
    new = live_release(hosts[name])
    for forward in ATTEMPTS:
        to = new if forward else ""
        run, took = measure(name, "rollback", "playbooks/rollback.yml", ROLLBACK, TRIPS_BACK, release_to=to)
        assert run.changed[name] > 0
        if took <= ROLLBACK:
            break
    assert took <= ROLLBACK


@LONG
@pytest.mark.parametrize("name", ["debian12", "debian13"])
def test_a_host_that_never_had_the_dependencies(
    hosts: dict[str, Host], source: Path, measure: Measure, name: str
) -> None:
    """The release's dependencies are fetched from the index, and uv as well."""
    (source / "changed.txt").write_text(f"{time.time_ns()} for {name}, without dependencies")
    hosts[name].check_output(f"rm -r /var/cache/slipway/{APP} /opt/slipway/uv-*")
    run, took = measure(name, "deploy, dependencies and uv are new", "playbooks/deploy.yml", NEVER_HAD, TRIPS)
    assert run.changed[name] > 0
    assert took <= NEVER_HAD
