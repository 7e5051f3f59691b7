"""The proof of the proof: with a mechanism taken out of a copy of the project, the test that is about it turns red."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import copy_without


@dataclass
class Without:
    """A project without one of its mechanisms.

    Attributes:
        file: where the mechanism is.
        line: the text that is it.
        instead: the text in its place.
        test: the test that has to turn red, as pytest names it below tests/behaviour/effects.
        red: the assertion that has to fail in it, so that it is not red for another reason.
    """

    file: str
    line: str
    instead: str
    test: str
    red: str


# The drain is taken out by tests/load, as it takes more requests than workers to miss it; the lock by tests/unit.
WITHOUT = {
    "gate": Without(
        "plugins/modules/release.py",
        'probe.workers(host.socket(name), probe.Health(**plan["health"]), plan["workers"])',
        "pass",
        "test_gate.py::test_a_broken_release_meets_no_visitor[answers 500, answers 404]",
        # It is undone when the web server is asked, but visitors have met it by then.
        "assert visitors.failed() == {name: [] for name in hosts}",
    ),
    "rename": Without(
        "plugins/modules/release.py",
        "        host.switch(name)\n",
        "        host.stop(previous, visited=False)\n        host.switch(name)\n",
        "test_gate.py::test_a_good_release_goes_live_straight_after",
        "assert visitors.failed() == {name: [] for name in hosts}",
    ),
    "undo": Without(
        "plugins/module_utils/host.py",
        '        if not name:\n            return ""\n',
        '        return ""\n',
        "test_gate.py::test_a_broken_release_meets_no_visitor"
        "[fails after it went live, is not to be had from the web server]",
        "assert footprints(hosts) == before",
    ),
}


@pytest.mark.long
@pytest.mark.usefixtures("anything")
@pytest.mark.parametrize("without", WITHOUT.values(), ids=WITHOUT)
def test_without_a_mechanism_its_test_is_red(pytestconfig: pytest.Config, tmp_path: Path, without: Without) -> None:
    """The test is run against the same hosts, by the copy's own playbooks, and fails by an assertion."""
    copy = copy_without(tmp_path, without.file, without.line, without.instead)
    options = [
        f"--{name}={Path(value).absolute() if name not in ('hosts', 'combination') else value}"
        for name in ("hosts", "ssh-config", "state", "scenario-inventory", "combination")
        for value in [pytestconfig.getoption(f"--{name}")]
    ]
    test = f"tests/behaviour/effects/{without.test}"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", "--no-header", "--sudo", *options, test],
        cwd=copy, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout
    assert f"FAILED {test}" in run.stdout, run.stdout
    assert f">       {without.red}" in run.stdout, run.stdout
