"""What tests on hosts share: the hosts over ssh (testinfra), their sites over HTTP, and the project's own playbooks."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import testinfra
import yaml
from testinfra.host import Host

import steps

ROOT = Path(__file__).resolve().parents[1]
APP = "hello"
Value = TypeVar("Value")
# What the app itself may write to.
STATE = f"/var/lib/slipway/{APP}"
# Which servers there are, by name, the default ones first: the inventory's variables for them.
DEFAULT = "uwsgi-nginx"
COMBINATIONS: dict[str, dict[str, Any]] = {
    name: yaml.safe_load((ROOT / "tests" / "combinations" / f"{name}.yml").read_text())
    for name in [DEFAULT, *sorted({path.stem for path in (ROOT / "tests" / "combinations").glob("*.yml")} - {DEFAULT})]
}
# Of each host in hosts.json, in the order of the fields of Site.
URLS = ("url", "tls_url")


@dataclass(frozen=True)
class WebServer:
    """What tests have to know of a web server.

    Attributes:
        name: of its role, and what its inputs begin with.
        unit: its unit and its program.
        title: what it calls itself in its answers.
        test: the command that has its configuration tested.
    """

    name: str
    unit: str
    title: str
    test: str

    def either(self, nginx: Value, apache: Value) -> Value:
        """Return what holds for this one, where the two differ: docs/how-to/web-servers.md says why they do."""
        return nginx if self.name == "nginx" else apache

    @property
    def directory(self) -> str:
        """Where its configuration is."""
        return f"/etc/{self.unit}"

    @property
    def digests(self) -> str:
        """The command that tells what is in each of its files."""
        return f"find {self.directory} -type f -exec sha256sum {{}} + | sort"

    @property
    def logs(self) -> str:
        """Where its logs are."""
        return f"/var/log/{self.unit}"


WEB_SERVERS = {
    "nginx": WebServer("nginx", "nginx", "nginx", "nginx -t -q"),
    "apache": WebServer("apache", "apache2", "Apache", "apache2 -t"),
}


# Whatever the environment says: the tests read what Ansible prints.
os.environ.update(steps.PLAIN)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take where the scenario's hosts and inventory are."""
    parser.addoption("--state", help="directory that tools/hosts.py wrote to", type=Path)
    parser.addoption("--scenario-inventory", help="inventory of the hosts", type=Path)
    parser.addoption("--deploys", help="how many deploys the load test makes", type=int, default=20)
    parser.addoption("--combination", help="of servers", choices=[*COMBINATIONS], default=DEFAULT)
    parser.addoption("--long", help="run the tests that are for `make test-load` too", action="store_true")


def pytest_configure(config: pytest.Config) -> None:
    """Say what the marker means."""
    config.addinivalue_line("markers", "long: takes long, so it is run by `make test-load` and not by `make test`")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long tests out, unless they are asked for; expect to fail what a combination of servers cannot do."""
    exceptions = COMBINATIONS[config.getoption("--combination")].get("test_exceptions", {})
    for item in items:
        for excepted, reason in exceptions.items():
            # file.py::test, all cases of it or, with [words], those that have these words in their name.
            test, _, words = excepted.rstrip("]").partition("[")
            if test == f"{item.path.name}::{getattr(item, 'originalname', item.name)}" and words in item.name:
                item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
    if config.getoption("--long"):
        return
    left_out = [item for item in items if item.get_closest_marker("long")]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what failed for `make molecule`, which shows it last: molecule's own report ends with its steps."""
    if report.failed and (ROOT / ".slipway").is_dir():
        with (ROOT / ".slipway" / "failures.log").open("a") as log:
            log.write(f"\n{report.nodeid} ({report.when})\n{report.longreprtext[-4000:]}\n")


def copy_without(directory: Path, file: str, text: str, instead: str) -> Path:
    """Return a copy of the project from which a mechanism was taken out, for the proof that its test misses it.

    Args:
        directory: where the copy is made.
        file: where the mechanism is, relative to the project.
        text: what is the mechanism, in there once.
        instead: what stands in its place.
    """
    project = directory / "project"
    shutil.copytree(ROOT, project, symlinks=True, ignore=shutil.ignore_patterns(".*", "__pycache__"))
    (project / ".slipway").mkdir()
    whole = (project / file).read_text()
    assert whole.count(text) == 1
    (project / file).write_text(whole.replace(text, instead))
    return project


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
    """The web server of one host, as a visitor reaches it: the ports on 127.0.0.1 that lead to its 80 and its 443."""

    port: int
    tls_port: int = 0

    def connect(
        self, tls: bool = False, name: str = "localhost", alpn: Sequence[str] = (), root: str = ""
    ) -> socket.socket:
        """Open a connection, for what no client library would send.

        Args:
            tls: by TLS.
            name: the host name that TLS asks for (SNI).
            alpn: the protocols that TLS offers.
            root: the authority that has to have certified the host for that name, in PEM; empty: anybody.
        """
        connection = socket.create_connection(("127.0.0.1", self.tls_port if tls else self.port), timeout=20)
        if not tls:
            return connection
        context = ssl.create_default_context(cadata=root or None)
        if not root:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if alpn:
            context.set_alpn_protocols([*alpn])
        return context.wrap_socket(connection, server_hostname=name)

    def get(
        self, path: str, method: str = "GET", body: Any = None, headers: dict[str, str] | None = None,
        *, tls: bool = False, name: str = "localhost",
    ) -> Answer:  # fmt: skip
        """Send one request on a connection of its own; see ``connect``. The site is asked for by ``name``."""
        connection = http.client.HTTPConnection(name, timeout=20)
        connection.sock = self.connect(tls, name)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def until(self, path: str, wanted: Callable[[Answer], bool], seconds: float = 60) -> Answer:
        """Ask until an answer is as wanted, and return it; fail when that takes longer than ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                answer = self.get(path)
                if wanted(answer):
                    return answer
            except (OSError, http.client.HTTPException) as error:
                answer = Answer(0, {}, repr(error).encode())
            assert time.monotonic() < deadline, f"{path} after {seconds} s: {answer}"
            time.sleep(0.02)  # what is refused is refused at once, and the processor is for what is to come up


@dataclass(frozen=True)
class Run:
    """A playbook that was run: exit code, whole output, and the tasks that changed something on each host."""

    code: int
    output: str
    changed: dict[str, int]

    @property
    def words(self) -> str:
        """The output with single spaces: Ansible breaks long lines."""
        return " ".join(self.output.split())

    @property
    def end(self) -> str:
        """The last 40 lines, which is what somebody sees who has just run it, with single spaces."""
        return " ".join(" ".join(self.output.splitlines()[-40:]).split())


@dataclass
class Play:
    """A playbook that is running."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait(self) -> Run:
        """Wait for its end; ten minutes are an error."""
        code = self.process.wait(timeout=600)
        output = self.log.read_text()
        recap = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", output, re.MULTILINE)
        return Run(code, output, {host: int(count) for host, count in recap if host != "localhost"})


@pytest.fixture(scope="session")
def play(pytestconfig: pytest.Config) -> Iterator[Callable[..., Play]]:
    """Start a playbook of the project on all hosts of the scenario: play("site.yml", "--check", release_keep=3)."""
    inventory = str(pytestconfig.getoption("--scenario-inventory"))
    chosen = COMBINATIONS[pytestconfig.getoption("--combination")]
    running: list[Play] = []
    with tempfile.TemporaryDirectory() as directory:

        def start(name: str, *options: str, **inputs: object) -> Play:
            log = Path(directory) / f"{len(running)}.log"
            inputs = {**chosen, **inputs}
            more = ["-e", json.dumps(inputs)] if inputs else []
            with log.open("wb") as output:
                process = subprocess.Popen(
                    ["ansible-playbook", "-i", inventory, name, *options, *more],
                    cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                    env={**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
                )  # fmt: skip
            running.append(Play(process, log))
            return running[-1]

        yield start
        for one in running:
            one.process.kill()
            one.process.wait()


@pytest.fixture(scope="session")
def playbook(play: Callable[..., Play]) -> Callable[..., Run]:
    """Run a playbook to its end: playbook("site.yml", "--check", release_keep=3)."""

    def run(name: str, *options: str, **inputs: object) -> Run:
        return play(name, *options, **inputs).wait()

    return run


@pytest.fixture(scope="session")
def web(pytestconfig: pytest.Config) -> WebServer:
    """The web server that serves."""
    return WEB_SERVERS[COMBINATIONS[pytestconfig.getoption("--combination")].get("web_server", "nginx")]


@pytest.fixture(scope="session")
def sites(pytestconfig: pytest.Config) -> dict[str, Site]:
    """The sites of all hosts, by the name of the host."""
    reachable = json.loads((pytestconfig.getoption("--state") / "hosts.json").read_text())
    ports = {name: [urllib.parse.urlsplit(entry[url]).port or 0 for url in URLS] for name, entry in reachable.items()}
    return {name: Site(*both) for name, both in ports.items()}


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


def on_host(host: Host, script: str) -> str:
    """Run Python on the host, for what has to come from there, and return what it prints."""
    return str(host.check_output(f"python3 - <<'END'\n{script}\nEND"))


def main_pid(host: Host, unit: str) -> int:
    """Return the process id of a unit's main process."""
    return int(host.check_output(f"systemctl show --value --property MainPID {unit}"))


def pids(host: Host) -> list[str]:
    """Return the processes of the web server and of the app, masters and workers, with their ids."""
    return sorted(host.check_output(f"{OF_THE_WEB_SERVER}; pgrep --list-full --euid {APP}").splitlines())


# Of Apache the first one: it starts as many others as there is to do.
OF_THE_WEB_SERVER = "pgrep --list-full '^nginx$'; pgrep --list-full --oldest '^apache2$'"

# All that a deploy may leave on a host: what is live, processes, units, sockets, and releases that are not whole.
FOOTPRINT = f"""
readlink /srv/{APP}/live
{OF_THE_WEB_SERVER}
pgrep --list-full --euid {APP}
systemctl list-units --all --plain --no-legend '{APP}@*' 'run-*' 'slipway-{APP}-*' | awk '{{print $1, $3, $4}}'
find /etc/systemd/system -name '{APP}@*' | sort
ls /run/{APP}
ls /run/slipway | grep -vx '{APP}.lock' | grep -vx '{APP}.busy'
for release in /srv/{APP}/releases/*; do test -e $release/release.json || echo "$release is not whole"; done
systemctl is-system-running
"""


def footprint(host: Host) -> list[str]:
    """Return what is live on a host and all that runs for it, the host's own word for how it is at the end."""
    return str(host.run(FOOTPRINT).stdout).splitlines()


def footprints(hosts: dict[str, Host]) -> dict[str, list[str]]:
    """Return the footprint of each host; no deploy may be running."""
    await_that(lambda: not any(f"slipway-{APP}-" in line for host in hosts.values() for line in footprint(host)))
    return {name: footprint(host) for name, host in hosts.items()}


def await_that(wanted: Callable[[], bool], seconds: float = 60) -> None:
    """Ask until it is so; fail when that takes longer than ``seconds``. To ask a host takes a while by itself.

    The time is for machines that have much else to do: what is so is found to be so at once.
    """
    deadline = time.monotonic() + seconds
    while not wanted():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"


def ended(process: int) -> bool:
    """Return whether a process of this machine has ended, though nobody may have looked yet."""
    try:
        return "Z (zombie)" in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


@dataclass
class Visitors:
    """What visitors met: an answer's status, or the fault, for each request of each host."""

    met: dict[str, list[int | str]] = field(default_factory=dict)

    def failed(self) -> dict[str, list[int | str]]:
        """Return what was no success, by host; a host that was hardly asked counts as failed."""
        return {
            name: [one for one in met if one != 200] or ["hardly asked"] * (len(met) < 20)
            for name, met in self.met.items()
        }


@contextlib.contextmanager
def visited(
    sites: dict[str, Site], path: str = "/hello", pause: float = 0.05, *, tls: bool = False, name: str = "localhost"
) -> Iterator[Visitors]:
    """Let visitors come while the block runs: to each site one request after the other, ``pause`` seconds between.

    Args:
        sites: the sites, by the name of the host.
        path: what they ask for.
        pause: seconds between the end of a request and the next one.
        tls: whether they come by HTTPS.
        name: by which name they ask; {} in it is the name of the host.
    """
    visitors, over = Visitors({name: [] for name in sites}), threading.Event()

    def visit(host: str, site: Site) -> None:
        while not over.wait(pause):
            try:
                visitors.met[host].append(site.get(path, tls=tls, name=name.format(host)).status)
            except (OSError, http.client.HTTPException) as error:
                visitors.met[host].append(repr(error))

    threads = [threading.Thread(target=visit, args=one) for one in sites.items()]
    for thread in threads:
        thread.start()
    try:
        yield visitors
    finally:
        over.set()
        for thread in threads:
            thread.join()


# An app that needs nothing installed, and fails in the way that the variable FAULT names.
SWITCHABLE: dict[str, Any] = {
    "release_source": str(ROOT / "tests" / "apps" / "switchable"),
    "release_requirements": [],
    "app_static": {},
}


@pytest.fixture(scope="session")
def lesson_again(hosts: dict[str, Host], playbook: Callable[..., Run]) -> Iterator[Callable[[], dict[str, str]]]:
    """Have the inventory's app live again when it is called, {host: its release}, as before and after all tests."""
    names: dict[str, str] = {}

    def have() -> dict[str, str]:
        live = {name: live_release(host) for name, host in hosts.items()}
        if live != names:
            run = playbook("playbooks/deploy.yml")
            assert run.code == 0, run.output
            names.update({name: live_release(host) for name, host in hosts.items()})
        return names

    have()
    yield have
    have()


@pytest.fixture(scope="module")
def lesson(lesson_again: Callable[[], dict[str, str]]) -> Iterator[dict[str, str]]:
    """Begin with the lesson's app live, {host: its release}, and end with it, whatever the tests deploy in between."""
    yield lesson_again()
    lesson_again()


@pytest.fixture(scope="module")
def anything(request: pytest.FixtureRequest, hosts: dict[str, Host]) -> dict[str, str]:
    """Begin with whatever is live, {host: its release}: these tests bring apps of their own, and leave one of them.

    It saves the deploy of the lesson's app that `lesson` makes between tests that do not need it.
    """
    request.getfixturevalue("lesson_again")
    return {name: live_release(host) for name, host in hosts.items()}


@dataclass
class Gate:
    """Where the hooks of a deploy wait on each host until a test lets them go: FIFOs, so that nobody has to look."""

    hosts: dict[str, Host]
    hook = 'touch "$STATE_DIRECTORY/waiting"; read -r word < "$STATE_DIRECTORY/gate"; test "$word" = good'

    def __post_init__(self) -> None:
        """Make them; only the app may open them."""
        for host in self.hosts.values():
            host.check_output(f"cd {STATE} && rm -f gate waiting && mkfifo -m 600 gate && chown {APP} gate")

    def await_hooks(self) -> None:
        """Wait until a hook waits on each host."""
        await_that(lambda: all(host.run(f"test -e {STATE}/waiting").rc == 0 for host in self.hosts.values()), 60)

    def open(self, **words: str) -> None:
        """Let the hooks end: well, or badly on a host for which there is another word than "good"."""
        for name, host in self.hosts.items():
            host.check_output(
                f"timeout 30 sh -c 'echo {words.get(name, 'good')} > {STATE}/gate'; rm -f {STATE}/gate {STATE}/waiting"
            )
