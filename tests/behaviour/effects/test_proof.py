"""The proof of the proof: with a mechanism taken out of a copy of the project, the test that is about it turns red."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT


@dataclass
class Without:
    """A project without one of its mechanisms.

    Attributes:
        file: where the mechanism is.
        line: the text that is it.
        instead: the text in its place.
        test: the test that has to turn red, as pytest names it below tests/behaviour/effects.
    """

    file: str
    line: str
    instead: str
    test: str


# The drain is taken out by tests/load, as it takes more requests than workers to miss it; the lock by tests/unit.
WITHOUT = {
    "gate": Without(
        "plugins/modules/release.py",
        'probe.workers(host.socket(name), probe.Health(**plan["health"]), plan["workers"])',
        "pass",
        "test_gate.py::test_a_broken_release_meets_no_visitor[answers 500]",
    ),
    "rename": Without(
        "plugins/modules/release.py",
        "        host.switch(name)\n",
        "        host.stop(previous, visited=False)\n        host.switch(name)\n",
        "test_gate.py::test_a_good_release_goes_live_straight_after",
    ),
    "undo": Without(
        "plugins/module_utils/host.py",
        '        if not name:\n            return ""\n',
        '        return ""\n',
        "test_gate.py::test_a_broken_release_meets_no_visitor[fails after it went live]",
    ),
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a copy of the project as it stands, with what the inventories of its hosts need."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    archive = ["tar", "--create", "--null", "--files-from=-", "--ignore-failed-read"]
    packed = subprocess.run(archive, cwd=ROOT, input=listed, capture_output=True, check=True).stdout
    project = tmp_path / "project"
    project.mkdir()
    subprocess.run(["tar", "--extract"], cwd=project, input=packed, check=True)
    (project / ".slipway").mkdir()
    return project


@pytest.mark.usefixtures("lesson")
@pytest.mark.parametrize("without", WITHOUT.values(), ids=WITHOUT)
def test_without_a_mechanism_its_test_is_red(pytestconfig: pytest.Config, copy: Path, without: Without) -> None:
    """The test is run against the same hosts, by the copy's own playbooks, and fails by an assertion."""
    file = copy / without.file
    text = file.read_text()
    assert text.count(without.line) == 1
    file.write_text(text.replace(without.line, without.instead))
    options = [
        f"--{name}={Path(value).absolute() if name != 'hosts' else value}"
        for name in ("hosts", "ssh-config", "state", "scenario-inventory")
        for value in [pytestconfig.getoption(f"--{name}")]
    ]
    test = f"tests/behaviour/effects/{without.test}"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "--quiet", "--no-header", "--sudo", *options, test],
        cwd=copy, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == pytest.ExitCode.TESTS_FAILED, run.stdout
    assert f"FAILED {test}" in run.stdout, run.stdout
