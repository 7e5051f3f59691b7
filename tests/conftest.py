"""What tests on hosts share: the hosts over ssh (testinfra), their sites over HTTP, and the project's own playbooks."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

ROOT = Path(__file__).resolve().parents[1]
APP = "hello"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take where the scenario's hosts and inventory are."""
    parser.addoption("--state", help="directory that tools/hosts.py wrote to", type=Path)
    parser.addoption("--scenario-inventory", help="inventory of the hosts", type=Path)
    parser.addoption("--deploys", help="how many deploys the load test makes", type=int, default=20)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what failed for `make molecule`, which shows it last: molecule's own report ends with its steps."""
    if report.failed and (ROOT / ".slipway").is_dir():
        with (ROOT / ".slipway" / "failures.log").open("a") as log:
            log.write(f"\n{report.nodeid} ({report.when})\n{report.longreprtext[-4000:]}\n")


@dataclass(frozen=True)
class Answer:
    """An answer of the site: status code, headers with lower-case names, and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Site:
    """The web server of one host, as a visitor reaches it."""

    port: int

    def get(self, path: str, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Send one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def until(self, path: str, wanted: Callable[[Answer], bool], seconds: float = 15) -> Answer:
        """Ask until an answer is as wanted, and return it; fail when that takes longer than ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                answer = self.get(path)
                if wanted(answer):
                    return answer
            except OSError as error:
                answer = Answer(0, {}, str(error).encode())
            assert time.monotonic() < deadline, f"{path} after {seconds} s: {answer}"


@dataclass(frozen=True)
class Run:
    """A playbook that was run: exit code, whole output, and the tasks that changed something on each host."""

    code: int
    output: str
    changed: dict[str, int]


@pytest.fixture(scope="session")
def playbook(pytestconfig: pytest.Config) -> Callable[..., Run]:
    """Run a playbook of the project on all hosts of the scenario: playbook("site.yml", "--check")."""

    def run(name: str, *options: str) -> Run:
        inventory = str(pytestconfig.getoption("--scenario-inventory"))
        result = subprocess.run(
            ["ansible-playbook", "-i", inventory, name, *options],
            cwd=ROOT, env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        recap = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", result.stdout, re.MULTILINE)
        return Run(result.returncode, result.stdout, {host: int(count) for host, count in recap if host != "localhost"})

    return run


@pytest.fixture(scope="session")
def sites(pytestconfig: pytest.Config) -> dict[str, Site]:
    """The sites of all hosts, by the name of the host."""
    reachable = json.loads((pytestconfig.getoption("--state") / "hosts.json").read_text())
    return {name: Site(urllib.parse.urlsplit(entry["url"]).port or 80) for name, entry in reachable.items()}


@pytest.fixture(scope="session")
def hosts(pytestconfig: pytest.Config) -> dict[str, Host]:
    """All hosts of the scenario by name, for tests of what a playbook does to all of them."""
    found = testinfra.get_hosts(
        pytestconfig.getoption("--hosts").split(","), ssh_config=pytestconfig.getoption("--ssh-config"), sudo=True
    )
    return {host.backend.get_hostname(): host for host in found}


@pytest.fixture
def site(host: Host, sites: dict[str, Site]) -> Site:
    """The site of the host that the test runs for."""
    return sites[host.backend.get_hostname()]


@pytest.fixture
def live(host: Host) -> str:
    """The name of the live release, as the link on the host says."""
    return live_release(host)


def live_release(host: Host) -> str:
    """Return the name of the live release, as the link on the host says."""
    return Path(host.check_output(f"readlink /srv/{APP}/live")).name


def main_pid(host: Host, unit: str) -> int:
    """Return the process id of a unit's main process."""
    return int(host.check_output(f"systemctl show --value --property MainPID {unit}"))


def pids(host: Host) -> list[str]:
    """Return the processes of nginx and of the app, masters and workers, with their ids."""
    return sorted(host.check_output(f"pgrep --list-full '^nginx$'; pgrep --list-full --euid {APP}").splitlines())
