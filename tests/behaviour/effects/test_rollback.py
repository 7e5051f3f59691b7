"""The way back: by itself when a release proves bad, by hand to any good one. The tests tell one story."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from conftest import APP, SWITCHABLE, Run, Site, footprints, live_release, main_pid, visited
from testinfra.host import Host

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("lesson")]
AT_ONCE = 100.0  # milliseconds until a release that was kept warm is live
CLOSED = "http://127.0.0.1:9"  # nobody listens there: no release is to be had from this web server


@pytest.fixture(scope="module")
def releases(lesson: dict[str, str]) -> dict[str, str]:
    """The releases that the tests have made, {what they are called here: name}, and the one that was live."""
    (name,) = set(lesson.values())
    return {"first": name}


@pytest.fixture
def deploy(hosts: dict[str, Host], playbook: Callable[..., Run], releases: dict[str, str]) -> Callable[..., Run]:
    """Deploy the same source with another environment: deploy("red")."""

    def run(shade: str, **inputs: Any) -> Run:
        done = playbook("playbooks/deploy.yml", **SWITCHABLE, release_environment={"SHADE": shade}, **inputs)
        assert done.code == 0, done.output
        releases[shade] = live(hosts)
        return done

    return run


def live(hosts: dict[str, Host]) -> str:
    """Return the release that is live on all hosts."""
    (name,) = {live_release(host) for host in hosts.values()}
    return name


def status(playbook: Callable[..., Run]) -> list[list[dict[str, str]]]:
    """Return what each host says of its releases."""
    run = playbook("playbooks/status.yml", status_format="json")
    assert run.code == 0, run.output
    lists = re.findall(r"^ +msg: \|-\n( +\[\n.*?^ +\])$", run.output, re.MULTILINE | re.DOTALL)
    return [json.loads(text) for text in lists]


def states(playbook: Callable[..., Run]) -> dict[str, str]:
    """Return {release: state} of what all hosts have; it is the same on all. Other tests leave other releases."""
    one, two = ({release["name"]: release["state"] for release in releases} for releases in status(playbook))
    assert {name: one[name] for name in one if name in two} == {name: two[name] for name in two if name in one}
    return {name: state for name, state in one.items() if name in two}


def test_a_changed_environment_is_a_release_and_an_unchanged_one_is_none(
    hosts: dict[str, Host], sites: dict[str, Site], deploy: Callable[..., Run], releases: dict[str, str]
) -> None:
    """Inputs alone go live like code does; the same again does nothing at all."""
    deploy("red")
    deploy("green")
    assert len(set(releases.values())) == 3
    before = footprints(hosts)
    assert deploy("green").changed == dict.fromkeys(hosts, 0)
    assert footprints(hosts) == before
    for site in sites.values():
        assert site.get("/").json()["release"] == releases["green"]


def test_twice_is_two_back_and_forward_goes_by_name(
    hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run], releases: dict[str, str]
) -> None:
    """No visitor notices any of it, and nothing is up that is not live, also where systemd was told to start it."""
    for host in hosts.values():
        host.check_output("systemctl daemon-reload")  # from now on it knows what is up, also when that is retired
    with visited(sites) as visitors:
        for options, wanted in (({}, "red"), ({}, "first"), ({"release_to": releases["green"]}, "green")):
            run = playbook("playbooks/rollback.yml", **options)
            assert run.code == 0, run.output
            assert live(hosts) == releases[wanted]
    assert visitors.failed() == {name: [] for name in hosts}
    for host in hosts.values():
        host.check_output(f"systemctl start {APP}@{releases['first']}.socket {APP}@{releases['first']}.service")
        units = host.check_output(f"systemctl list-units --plain --no-legend '{APP}@*' | cut -d ' ' -f 1").split()
        assert units == [f"{APP}@{releases['green']}.service", f"{APP}@{releases['green']}.socket"]


def test_what_does_not_last_is_undone_and_skipped_from_then_on(
    hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run], releases: dict[str, str]
) -> None:
    """A rollback is judged as a deploy is: undone by itself, its release is bad, and the next one goes further back."""
    before = footprints(hosts)
    with visited(sites) as visitors:
        run = playbook("playbooks/rollback.yml", release_url=CLOSED)
        assert run.code != 0
        assert f"Release {releases['red']} of {APP}, step verify: GET {CLOSED}/ for the host localhost" in run.end
        assert f"{releases['green']} is live." in run.end
        assert footprints(hosts) == before
        wanted = {releases["green"]: "live", releases["red"]: "bad", releases["first"]: "previous"}
        assert states(playbook).items() >= wanted.items()
        run = playbook("playbooks/rollback.yml")
    assert run.code == 0, run.output
    assert live(hosts) == releases["first"]
    assert visitors.failed() == {name: [] for name in hosts}


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("first", "is live already. Good releases on this host: "),
        ("0123456789ab", "Release 0123456789ab is not on this host. Releases to go to: "),
    ],
    ids=["live", "missing"],
)
def test_no_way_is_said_in_words(
    hosts: dict[str, Host], playbook: Callable[..., Run], releases: dict[str, str], to: str, said: str
) -> None:
    """Nothing is changed by it."""
    before = footprints(hosts)
    run = playbook("playbooks/rollback.yml", release_to=releases.get(to, to))
    assert run.code != 0
    assert said in run.end
    assert releases["green"] in run.end, "where one can go to"
    assert run.changed == dict.fromkeys(hosts, 0)
    assert footprints(hosts) == before


def test_the_one_before_is_kept_warm(
    hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run],
    deploy: Callable[..., Run], releases: dict[str, str],
) -> None:  # fmt: skip
    """It stays up without traffic; going back to it is a rename, within 100 ms and by the same processes."""
    run = playbook("playbooks/rollback.yml", release_to=releases["green"])
    assert run.code == 0, run.output
    unit = f"{APP}@{releases['green']}.service"
    before = {name: main_pid(host, unit) for name, host in hosts.items()}
    with visited(sites) as visitors:
        deploy("blue", release_warm=True, release_keep=2)
        told = states(playbook)
        assert told == {releases["blue"]: "live", releases["green"]: "previous, warm"}, "and the rest is pruned"
        took: list[float] = []
        # Once more forth and back if it took longer: on a machine that has much else to do, any step may.
        for to in ("", releases["blue"], ""):
            run = playbook("playbooks/rollback.yml", "-v", release_warm=True, release_keep=2, release_to=to)
            assert run.code == 0, run.output
            milliseconds = [float(number) for number in re.findall(r"milliseconds: ([\d.]+)", run.output)]
            assert len(milliseconds) == len(hosts)
            took.append(max(milliseconds))
            if not to and min(took) < AT_ONCE:
                break
    assert min(took) < AT_ONCE
    assert visitors.failed() == {name: [] for name in hosts}
    assert live(hosts) == releases["green"]
    assert {name: main_pid(host, unit) for name, host in hosts.items()} == before
    assert states(playbook)[releases["blue"]] == "warm"


def test_status_tells_where_from_when_and_by_whom(playbook: Callable[..., Run], releases: dict[str, str]) -> None:
    """As JSON for programs, and as a table for people."""
    for host in status(playbook):
        by_name = {release["name"]: release for release in host}
        assert list(by_name) == [releases["green"], releases["blue"]], "what went live last comes first"
        for release in host:
            assert release["source"].startswith(SWITCHABLE["release_source"])  # and where git is, at which commit
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", release["live_at"])
            assert release["built"] <= release["live_at"]
            assert re.fullmatch(r"\w+@\S+", release["by"])
            assert release["live_by"] == release["by"]
    run = playbook("playbooks/status.yml")
    assert re.search(rf"{releases['green']} +live +\S+Z +\S+@\S+ +.*{SWITCHABLE['release_source']}", run.output)
    assert re.search(rf"{releases['blue']} +warm ", run.output)
