"""How long a deploy and a rollback take, and how often they go to the host for it."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import APP, ROOT, Run
from testinfra.host import Host
from traffic import publish

HOSTS = pytest.mark.parametrize("name", ["debian12", "debian13"])
COLUMNS = ("host", "run", "seconds", "at most", "tasks", "round trips", "at most")
NOTHING_NEW, NEVER_HAD, ROLLBACK = 15.0, 30.0, 6.0  # seconds, at most
# Commands and files that go over ssh: a task more is a round trip more, 0.35 s on a quiet machine.
TRIPS, TRIPS_BACK = 20, 5

# What else the machine does only adds to a time: a rollback that takes too long is repeated, so often at most.
ATTEMPTS = 3

Measure = Callable[[str, str, str, float, int], tuple[Run, float]]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a copy of the lesson's app, to be changed."""
    path = tmp_path_factory.mktemp("source") / "app"
    shutil.copytree(ROOT / "app", path, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    return path


@pytest.fixture(scope="module")
def measure(lesson: dict[str, str], source: Path, playbook: Callable[..., Run]) -> Iterator[Measure]:
    """Run a playbook for one host, and note what it took; all of it is published at the end."""
    assert lesson
    rows: list[tuple[str, ...]] = []

    def run(host: str, title: str, name: str, seconds: float, trips: int) -> tuple[Run, float]:
        began = time.monotonic()
        done = playbook(name, "--limit", host, "-vvv", release_source=str(source))
        took = time.monotonic() - began
        made = len(re.findall(rf"^<{host}> (?:SSH: EXEC|PUT) ", done.output, re.MULTILINE))
        tasks = re.findall(rf"^{host} +: ok=(\d+)", done.output, re.MULTILINE)
        rows.append((host, title, f"{took:.1f}", f"{seconds:.0f}", *tasks, str(made), str(trips)))
        assert done.code == 0, done.output[-4000:]
        assert made, "none was counted"
        assert made <= trips
        return done, took

    yield run
    publish("Deploys and rollbacks of one host", COLUMNS, rows)


@HOSTS
def test_a_deploy_and_a_rollback(source: Path, measure: Measure, name: str) -> None:
    """The lesson's app with a changed file, and nothing new to install; back; and a deploy of what is live."""
    (source / "changed.txt").write_text(f"for {name}")
    deploy = "playbooks/deploy.yml"
    run, deployed = measure(name, "deploy, nothing new to install", deploy, NOTHING_NEW, TRIPS)
    assert run.changed[name] > 0
    assert deployed <= NOTHING_NEW
    for _ in range(ATTEMPTS):
        run, back = measure(name, "rollback", "playbooks/rollback.yml", ROLLBACK, TRIPS_BACK)
        assert run.changed[name] > 0
        run, again = measure(name, "deploy, release is there", deploy, NOTHING_NEW, TRIPS)
        assert run.changed[name] > 0
        assert again <= NOTHING_NEW
        if back <= ROLLBACK:
            break
    assert back <= ROLLBACK
    run, _ = measure(name, "deploy, release is live", deploy, NOTHING_NEW, TRIPS)
    assert run.changed[name] == 0


@HOSTS
def test_a_host_that_never_had_the_dependencies(
    hosts: dict[str, Host], source: Path, measure: Measure, name: str
) -> None:
    """The release's dependencies are fetched from the index, and uv as well."""
    (source / "changed.txt").write_text(f"for {name}, without dependencies")
    hosts[name].check_output(f"rm -r /var/cache/slipway/{APP} /opt/slipway/uv-*")
    run, took = measure(name, "deploy, dependencies and uv are new", "playbooks/deploy.yml", NEVER_HAD, TRIPS)
    assert run.changed[name] > 0
    assert took <= NEVER_HAD
