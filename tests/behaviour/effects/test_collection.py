"""The project, installed as a collection somewhere else."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT
from testinfra.host import Host


def test_the_collection_deploys_the_same(hosts: dict[str, Host], pytestconfig: pytest.Config, tmp_path: Path) -> None:
    """Built, installed and run by its full name from another directory, it finds that everything is as it makes it."""
    environment = {
        **os.environ, "ANSIBLE_COLLECTIONS_PATH": str(tmp_path / "collections"),
        "ANSIBLE_HOME": str(tmp_path / "home"), "ANSIBLE_HOST_KEY_CHECKING": "1",
    }  # fmt: skip
    environment.pop("ANSIBLE_CONFIG", None)

    def run(*command: str) -> str:
        return subprocess.run(
            command, cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, text=True, check=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ).stdout  # fmt: skip

    run("ansible-galaxy", "collection", "build", str(ROOT), "--output-path", str(tmp_path))
    archive = str(next(tmp_path.glob("slipway-wsgi-*.tar.gz")))
    run("ansible-galaxy", "collection", "install", archive, "-p", str(tmp_path / "collections"), "--offline")
    inventory = str(Path(pytestconfig.getoption("--scenario-inventory")).absolute())
    output = run("ansible-playbook", "-i", inventory, "slipway.wsgi.site")
    recap = re.findall(r"^(\S+)\s+: ok=\d+\s+changed=(\d+)", output, re.MULTILINE)
    assert dict(recap) == {"localhost": "0", **dict.fromkeys(hosts, "0")}, output
