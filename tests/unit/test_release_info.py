"""The module slipway.wsgi.release_info: what it tells about the releases of a host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.slipway.wsgi.plugins.modules import release_info
from machine import APP, Machine

COMMIT = "8c1f0d3e5b7a9c2d4e6f8091a2b3c4d5e6f70819"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """Give a host without a release."""
    return Machine(tmp_path / "host")


def run(machine: Machine, capsys: pytest.CaptureFixture[str], check: bool = False) -> dict[str, Any]:
    """Run the module."""
    arguments = {"app": APP, "root": str(machine.root), "_ansible_check_mode": check}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        release_info.main()
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def several(machine: Machine) -> None:
    """Put releases of every kind there: `a` to `d` went live in this order, `e` was undone, `f` never went live."""
    for number, name in enumerate("abcdef"):
        machine.whole(name * 12, built=f"2026-11-24T10:0{number}:00Z")
    facts = machine.path("d" * 12) / "release.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "commit": COMMIT, "source": "/shop at main"}))
    (machine.root / "releases" / "unfinished" / "app").mkdir(parents=True)
    lived = {name * 12: {"at": f"2026-11-24T11:0{number}:00Z", "by": "me@desk"} for number, name in enumerate("abcd")}
    before = [name * 12 for name in "abc"]
    machine.put_live("d" * 12, *before, bad={"e" * 12: "step verify: it answers 500"}, warm="b" * 12, lived=lived)


def test_what_is_told_about_a_release(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """Where it comes from, when and by whom it was built and went live, and what it is."""
    several(machine)
    told = run(machine, capsys)
    assert told["changed"] is False
    assert told["releases"][0] == {
        "name": "d" * 12, "state": "live", "source": "/shop at main", "commit": COMMIT,
        "built": "2026-11-24T10:03:00Z", "by": "you@laptop", "live_at": "2026-11-24T11:03:00Z", "live_by": "me@desk",
        "why": "",
    }  # fmt: skip


def test_the_releases_and_what_they_are(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """The one that was live most recently first, then those that never were; one that is not whole is none."""
    several(machine)
    states = [(row["name"][0], row["state"]) for row in run(machine, capsys)["releases"]]
    assert states == [("d", "live"), ("c", "previous"), ("b", "warm"), ("a", ""), ("f", ""), ("e", "bad")]


def test_the_release_before_may_be_warm(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """It is told as both."""
    machine.whole("a" * 12)
    machine.whole("b" * 12)
    machine.put_live("b" * 12, "a" * 12, warm="a" * 12)
    states = {row["name"][0]: row["state"] for row in run(machine, capsys)["releases"]}
    assert states == {"a": "previous, warm", "b": "live"}


def test_the_table(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each release under a line of headings, the columns aligned, and why a bad one is bad."""
    several(machine)
    text = run(machine, capsys)["text"]
    heading, first, *_, last, why = text
    assert heading.split() == ["name", "state", "live_at", "live_by", "commit", "source"]
    assert first.split() == ["d" * 12, "live", "2026-11-24T11:03:00Z", "me@desk", COMMIT[:12], "/shop", "at", "main"]
    assert first.index("/shop") == heading.index("source") == last.index("/source")
    assert last.split() == ["e" * 12, "bad", "/source"]
    assert why == "    bad: step verify: it answers 500"
    assert len(text) == 1 + 6 + 1
    assert [line for line in text if line != line.rstrip()] == []


@pytest.mark.parametrize("there", [True, False])
def test_a_host_without_releases(machine: Machine, capsys: pytest.CaptureFixture[str], there: bool) -> None:
    """Also where nothing was ever deployed there is something to tell: the headings."""
    if not there:
        (machine.root / "releases").rmdir()
    told = run(machine, capsys)
    assert told["releases"] == []
    assert len(told["text"]) == 1


def test_it_only_looks(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing on the disk is changed, and check mode tells the same."""
    several(machine)
    before = machine.state()
    assert run(machine, capsys)["releases"] == run(machine, capsys, check=True)["releases"]
    assert machine.state() == before
    assert machine.calls == []
