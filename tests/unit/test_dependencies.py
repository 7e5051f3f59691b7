"""Which files say what to install, and how uv is asked to."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.slipway.wsgi.plugins.module_utils import dependencies
from ansible_collections.slipway.wsgi.plugins.module_utils.dependencies import DependencyError

UV = str(Path(sys.executable).with_name("uv"))
LOCKED = """
[project]
name = "shop"
version = "1"
requires-python = ">=3.10"
dependencies = []
"""


@pytest.mark.parametrize(
    ("file", "kind"),
    [
        ("requirements.txt", "requirements"),
        ("requirements/prod.txt", "requirements"),
        ("uv.lock", "uv.lock"),
        ("pylock.toml", "pylock"),
        ("locks/pylock.prod.toml", "pylock"),
        ("pyproject.toml", "pyproject"),
    ],
)
def test_the_name_tells_the_kind(file: str, kind: str) -> None:
    """As packaging's own specifications have it."""
    assert dependencies.kind(file) == kind


@pytest.mark.parametrize("file", ["requirements.in", "Pipfile.lock", "poetry.lock", "pylock.a.b.toml", "setup.py"])
def test_another_kind_is_refused(file: str) -> None:
    """The message says what is accepted."""
    with pytest.raises(DependencyError, match=r"uv\.lock, pylock\.toml and pyproject\.toml"):
        dependencies.kind(file)


def test_a_lock_of_uv_needs_its_project() -> None:
    """They have to agree."""
    assert dependencies.needs("backend/uv.lock") == ["backend/pyproject.toml"]
    assert dependencies.needs("requirements.txt") == []


def test_requirements_without_hashes_are_refused(tmp_path: Path) -> None:
    """Without hashes it is no lock; a file that names nothing needs none."""
    file = tmp_path / "requirements.txt"
    file.write_text("# nothing\n")
    dependencies.check(file)
    file.write_text("flask==3.1.3\n")
    with pytest.raises(DependencyError, match="has no hashes, so it is no lock"):
        dependencies.check(file)
    file.write_text("flask==3.1.3 --hash=sha256:00\n")
    dependencies.check(file)


def uv(*command: str, venv: Path) -> subprocess.CompletedProcess[str]:
    """Run uv as a build does, without the network."""
    environment = {**os.environ, **dependencies.variables(str(venv)), "UV_OFFLINE": "1", "UV_NO_CONFIG": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_lock_is_obeyed_and_an_outdated_one_refused(tmp_path: Path) -> None:
    """For real: what is not in the lock is not installed, and neither file is written."""
    project, venv = tmp_path / "project", tmp_path / "venv"
    project.mkdir()
    (project / "pyproject.toml").write_text(LOCKED)
    assert uv(UV, "lock", "--project", str(project), venv=venv).returncode == 0
    assert uv(UV, "venv", "--python", sys.executable, str(venv), venv=venv).returncode == 0
    command = dependencies.install(UV, str(venv), str(project / "uv.lock"))
    done = uv(*command, venv=venv)
    assert done.returncode == 0, done.stderr
    lock = (project / "uv.lock").read_bytes()
    (project / "pyproject.toml").write_text(LOCKED.replace("[]", '["flask"]'))
    assert uv(*command, venv=venv).returncode != 0
    assert (project / "uv.lock").read_bytes() == lock


@pytest.mark.parametrize(
    ("file", "hashes"), [("requirements.txt", True), ("pylock.toml", True), ("pyproject.toml", False)]
)
def test_hashes_are_required_where_there_are_some(file: str, hashes: bool) -> None:
    """pyproject.toml alone is no lock: what it says is what is installed."""
    command = dependencies.install("uv", "/venv", f"/app/{file}")
    assert command[-2:] == ["--requirement", f"/app/{file}"]
    assert ("--require-hashes" in command) == hashes
