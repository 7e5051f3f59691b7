"""The gate: a release that is not in order is refused before a visitor meets it, and the output says why."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import APP, ROOT, SWITCHABLE, Play, Run, Site, footprint, footprints, live_release, visited
from testinfra.host import Host

# Refused at the first look: what these tests are about is not patience.
STRICT = {"app_workers": 3, "release_health_attempts": 1, "release_health_timeout": 1, "release_start_timeout": 3}
NOWHERE = "ssh://git@127.0.0.1:9/app.git"
HANGS = (ROOT / "tests/apps/switchable/wsgi.py").read_text().splitlines().index("    wait()") + 1
# A version that the index has not got; the hash is of nothing.
NO_SUCH_VERSION = f"bottle==0.0.0 --hash=sha256:{'0' * 64}\n"


@dataclass
class Broken:
    """A kind of broken release.

    Attributes:
        step: the step that refuses it; "" if its source is not to be had, so that there is no release yet.
        said: what the output says after that, in this order.
        fault: how the app fails, see tests/apps/switchable.
        files: the source instead, {name: text}; a git repository with one commit if there is a `release_ref`.
        inputs: more that is not as in the inventory.
    """

    step: str
    said: tuple[str, ...]
    fault: str = ""
    files: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)

    def deploy(self, directory: Path) -> dict[str, Any]:
        """Return the inputs of its deploy; a source of its own is written to a new directory in that one."""
        directory = Path(tempfile.mkdtemp(dir=directory))
        for name, text in self.files.items():
            (directory / name).write_text(text)
        if self.files and "release_ref" in self.inputs:
            for command in ("init --quiet", "add .", "-c user.name=a -c user.email=a@example.org commit --quiet -m a"):
                subprocess.run(["git", *command.split()], cwd=directory, check=True)
        source = {"release_source": str(directory)} if self.files else {}
        return {**SWITCHABLE, **STRICT, **source, "release_environment": {"FAULT": self.fault}, **self.inputs}

    def told(self, source: str) -> tuple[str, ...]:
        """Return what the end of the output has to say, in order."""
        if not self.step:
            return ("Bring the source to the controller", source, *self.said)
        return ("Release ", f" of {APP}, step {self.step}: ", *self.said, " is live.")


def hook(point: str) -> Broken:
    """Return a release whose hook fails at a point of the deploy."""
    said = (f"the {point} hook `echo to no avail; false` ended with exit code 1.", "to no avail")
    return Broken(point, said, inputs={"release_hooks": {point: ["true", "echo to no avail; false", "echo not me"]}})


BROKEN = {
    "raises at import": Broken(
        "check", ("importing the app ended with exit code", "RuntimeError: told to raise at import"), "raise"
    ),
    "lacks a dependency": Broken(
        "check",
        ("importing the app ended with", "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
        files={"wsgi.py": "import a_module_that_nobody_has\n"},
    ),
    "has a syntax error": Broken("check", ('wsgi.py", line 1', "SyntaxError"), files={"wsgi.py": "def app(:\n"}),
    "has no callable": Broken(
        "check", ("importing the app ended with", "application"), files={"wsgi.py": "setting = 1\n"}
    ),
    "hangs at import": Broken(
        "check", ("importing the app did not end within 3 s.", f'wsgi.py", line {HANGS} in <module>'), "hang"
    ),
    "requires what is not there": Broken(
        "build",
        ("uv could not install requirements.txt.", "bottle"),
        files={"wsgi.py": "", "requirements.txt": NO_SUCH_VERSION},
        inputs={"release_requirements": ["requirements.txt"]},
    ),
    "answers 500": Broken("probe", ("GET / of each worker", "3 of 3 workers answered 500 (told to answer 500)"), "500"),
    "answers 404": Broken("probe", ("3 of 3 workers answered 404", "set release_health_path"), "404"),
    "answers too late": Broken("probe", ("3 of 3 workers gave no answer within 1 s", "last lines"), "late"),
    "has one bad worker": Broken("probe", ("1 of 3 workers answered 503", "last lines", "503"), "worker"),
    "does not migrate": Broken(
        "migrate",
        ("the migration `echo halfway; exit 3` ended with exit code 3.", "halfway"),
        inputs={"release_migrate": "echo halfway; exit 3"},
    ),
    "fails after it was built": hook("after_build"),
    "has an unreachable source": Broken(
        "", ("127.0.0.1 port 9: Connection refused",), inputs={"release_source": NOWHERE, "release_ref": "main"}
    ),
    "has an unknown reference": Broken(
        "",
        ("has no commit no-such-branch: release_ref has to be a branch or a tag",),
        files={"wsgi.py": ""},
        inputs={"release_ref": "no-such-branch"},
    ),
    # A hook before it goes live fails in test_fleet.py.
    "fails after it went live": hook("after_live"),
    "is not to be had from the web server": Broken(
        "verify",
        ("GET http://127.0.0.1:9/", "the web server could not be reached"),
        inputs={"release_url": "http://127.0.0.1:9"},
    ),
}
# Two at a time, one on each host; and for `make test-load` the other way round.
TURNS = [
    pytest.param(pair, id=", ".join(pair), marks=marks)
    for step, marks in ((1, ()), (-1, pytest.mark.long))
    for pair in [[*BROKEN][number : number + 2][::step] for number in range(0, len(BROKEN), 2)]
]


def spread(kinds: list[str], hosts: dict[str, Host]) -> Iterator[dict[str, str]]:
    """Give each host one of the kinds, {host: kind}, until all have been had."""
    for at in range(0, len(kinds), len(hosts)):
        yield dict(zip(hosts, kinds[at : at + len(hosts)], strict=False))


def refused(
    hosts: dict[str, Host], sites: dict[str, Site], play: Callable[..., Play], inputs: dict[str, dict[str, Any]]
) -> dict[str, Run]:
    """Deploy what has to be refused, {host: inputs}, with visitors there: none is failed, and nothing is left of it."""
    before = footprints(hosts)
    assert {lines[-1] for lines in before.values()} == {"running"}
    with visited(sites) as visitors:
        plays = {name: play("playbooks/deploy.yml", "--limit", name, **more) for name, more in inputs.items()}
        runs = {name: one.wait() for name, one in plays.items()}
    assert [run.output for run in runs.values() if run.code == 0] == []
    assert visitors.failed() == {name: [] for name in hosts}
    assert footprints(hosts) == before
    return runs


def in_order(text: str, *parts: str) -> None:
    """Fail unless a text has these parts, one after the other."""
    at = 0
    for part in parts:
        assert part in text[at:], f"{part!r} is missing, or not after what comes before it, in: {text}"
        at = text.index(part, at) + len(part)


@pytest.mark.usefixtures("anything")
@pytest.mark.parametrize("kinds", TURNS)
def test_a_broken_release_meets_no_visitor(
    hosts: dict[str, Host], sites: dict[str, Site], play: Callable[..., Play], tmp_path: Path, kinds: list[str]
) -> None:
    """The play ends red; what is live and its processes are as before; the end of the output says where and why."""
    for kind in spread(kinds, hosts):
        inputs = {name: BROKEN[one].deploy(tmp_path) for name, one in kind.items()}
        for name, run in refused(hosts, sites, play, inputs).items():
            in_order(run.end, *BROKEN[kind[name]].told(inputs[name]["release_source"]))
            assert "not me" not in run.output


@pytest.mark.usefixtures("anything")
def test_gunicorn_passes_the_same_gate(
    hosts: dict[str, Host], sites: dict[str, Site], play: Callable[..., Play], tmp_path: Path
) -> None:
    """A broken release that gunicorn would serve is refused in the same step, with the same words."""
    # One that the import finds, one that only a request to each worker does.
    for kind in spread(["hangs at import", "has one bad worker"], hosts):
        inputs = {name: BROKEN[one].deploy(tmp_path) | {"app_server": "gunicorn"} for name, one in kind.items()}
        for name, run in refused(hosts, sites, play, inputs).items():
            in_order(run.end, *BROKEN[kind[name]].told(inputs[name]["release_source"]))


@pytest.fixture
def full(hosts: dict[str, Host]) -> Any:
    """Put the releases of each host on a file system that has room for the live one, and not for any server."""
    releases = f"/srv/{APP}/releases"
    for host in hosts.values():
        host.check_output(
            f"mkdir /mnt/full && mount -t tmpfs -o mode=0755 full /mnt/full &&"
            f" cp -a {releases}/{live_release(host)} /mnt/full && mount --bind /mnt/full {releases} &&"
            f" mount -o remount,size=$(($(df --output=used --block-size=1K /mnt/full | tail -n 1) + 256))k /mnt/full"
        )
    yield
    for host in hosts.values():
        host.check_output(f"umount {releases} && umount /mnt/full && rmdir /mnt/full")


@pytest.mark.usefixtures("anything", "full")
def test_a_full_disk(hosts: dict[str, Host], sites: dict[str, Site], play: Callable[..., Play]) -> None:
    """What was built until then does not stay, or the disk would stay full."""
    inputs = {**SWITCHABLE, "release_environment": {"FULL": "1"}}
    for run in refused(hosts, sites, play, dict.fromkeys(hosts, inputs)).values():
        in_order(run.end, "Release ", f" of {APP}, step build: ", "No space left on device", " is live.")


@pytest.mark.usefixtures("anything")
def test_a_good_release_goes_live_straight_after(
    hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run]
) -> None:
    """Nobody has to clean up. Its hooks run as the app runs, and what one builds is part of the release."""
    before, shade = {name: live_release(host) for name, host in hosts.items()}, str(time.time_ns())
    where = "{ id -un; echo $SHADE '${SHADE}'; pwd; touch /etc/x 2>&1; ls /srv/hello/releases | wc -l; }"
    hooks = {
        "after_build": [f"{where} > built"],
        "before_live": ["! touch built", "echo $SLIPWAY_RELEASE > $STATE_DIRECTORY/before"],
        "after_live": ["echo $SLIPWAY_RELEASE > $STATE_DIRECTORY/after"],
    }
    with visited(sites) as visitors:
        run = playbook(
            "playbooks/deploy.yml", **SWITCHABLE, release_environment={"SHADE": f"a  {shade}"}, release_hooks=hooks
        )
    assert run.code == 0, run.output
    assert visitors.failed() == {name: [] for name in hosts}
    for name, host in hosts.items():
        release = live_release(host)
        assert release != before[name]
        told = sites[name].get("/").json()
        assert told["release"] == release
        directory = f"/srv/{APP}/releases/{release}/app"
        refusal = "touch: cannot touch '/etc/x': Read-only file system"
        assert told["built"].splitlines() == [APP, f"a {shade} ${{SHADE}}", directory, refusal, "1"]
        state = f"/var/lib/slipway/{APP}"
        assert host.check_output(f"cat {state}/before {state}/after") == f"{release}\n{release}"
        assert footprint(host)[-1] == "running"
