"""A second run and a dry run on deployed hosts: neither does anything. The second is the installed collection's."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, Run, pids
from testinfra.host import Host

# All that a deploy writes to, with sizes, times, owners and modes; without what a mere look leaves behind.
FILES = (
    "find /etc /opt /srv /usr /var/lib /var/cache -xdev -not -path '/var/lib/systemd/*' -not -path '/var/cache/apt*'"
    " -not -name '*.pyc' -not -name __pycache__ -printf '%p %y %m %u %g %s %T@ %l\\n' | sort"
)


@pytest.fixture
def second_run_by_the_collection(pytestconfig: pytest.Config, tmp_path: Path) -> Callable[[], Run]:
    """Install the project as a collection somewhere else, and run it by its full name from there."""
    environment = {
        **os.environ, "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections"),
        "ANSIBLE_HOME": str(tmp_path / "home"), "ANSIBLE_HOST_KEY_CHECKING": "1", "ANSIBLE_PIPELINING": "1",
    }  # fmt: skip
    environment.pop("ANSIBLE_CONFIG", None)
    inventory = str(Path(pytestconfig.getoption("--scenario-inventory")).absolute())

    def run(*command: str) -> Run:
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        recap = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", done.stdout, re.MULTILINE)
        return Run(0, done.stdout, {host: int(count) for host, count in recap if host != "localhost"})

    run("ansible-galaxy", "collection", "build", str(ROOT), "--output-path", str(tmp_path))
    archive = str(next(tmp_path.glob("slipway-wsgi-*.tar.gz")))
    run("ansible-galaxy", "collection", "install", archive, "-p", str(tmp_path / "collections"), "--offline")
    servers = f"@{ROOT}/tests/combinations/{pytestconfig.getoption('--combination')}.yml"
    return lambda: run("ansible-playbook", "-i", inventory, "-e", servers, "slipway.wsgi.site")


@pytest.fixture
def dry_run(playbook: Callable[..., Run]) -> Callable[[], Run]:
    """See what site.yml would do."""
    return lambda: playbook("site.yml", "--check", "--diff")


@pytest.mark.usefixtures("lesson")
@pytest.mark.parametrize("way", ["second_run_by_the_collection", "dry_run"])
def test_nothing_to_do_means_nothing_done(hosts: dict[str, Host], request: pytest.FixtureRequest, way: str) -> None:
    """The run ends green and reports changed=0; every file and every process is the same as before."""
    before = {name: (host.check_output(FILES).splitlines(), pids(host)) for name, host in hosts.items()}
    run = request.getfixturevalue(way)()
    assert run.code == 0, run.output
    assert run.changed == dict.fromkeys(hosts, 0), run.output
    for name, host in hosts.items():
        assert pids(host) == before[name][1]
        assert host.check_output(FILES).splitlines() == before[name][0]
