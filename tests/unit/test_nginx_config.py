"""The module slipway.wsgi.nginx_config, with an nginx and a systemd that do as the test says."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.slipway.wsgi.plugins.modules import nginx_config


@dataclass
class Nginx:
    """A host with nginx.

    directory: its files. state: of the unit. takes: whether a running nginx takes what it is given. fails: the commands
    that fail. called: what was called.
    """

    directory: Path
    state: str = "active"
    enabled: str = "enabled"
    takes: bool = True
    fails: tuple[str, ...] = ()
    called: list[str] = field(default_factory=list)
    workers: set[str] = field(default_factory=lambda: {"10", "11"})

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Do what a command does."""
        line = " ".join(command)
        if command[:2] == ("systemctl", "show"):
            values = {"ActiveState": self.state, "MainPID": "9", "UnitFileState": self.enabled}
            return subprocess.CompletedProcess(command, 0, values[command[3]] + "\n", "")
        if command[0] == "journalctl":
            return subprocess.CompletedProcess(command, 0, "bind() failed\n", "")
        self.called.append(line)
        failed = any(line.startswith(one) for one in self.fails)
        if line == "systemctl reload nginx" and self.takes and not failed:
            self.workers = {str(int(one) + 2) for one in self.workers}
        if line in ("systemctl reload nginx", "systemctl start nginx") and not failed:
            (self.directory / "loaded").touch()
        return subprocess.CompletedProcess(command, int(failed), "", f"{command[0]} says no\n" if failed else "")


@pytest.fixture
def nginx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nginx:
    """Give a host whose nginx runs with what is on disk."""
    host = Nginx(tmp_path)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "nginx.conf").write_text("old\n")
    (tmp_path / "loaded").touch()
    monkeypatch.setattr(nginx_config, "STAMP", str(tmp_path / "loaded"))
    monkeypatch.setattr(nginx_config, "DIRECTORY", str(tmp_path / "etc"))
    monkeypatch.setattr(nginx_config, "TAKEN_SECONDS", 0.1)
    monkeypatch.setattr(nginx_config, "call", host.call)
    monkeypatch.setattr(nginx_config, "children", lambda _: host.workers)
    monkeypatch.setattr("ansible_collections.slipway.wsgi.plugins.module_utils.transaction.os.fchown", lambda *_: None)
    return host


def run(
    nginx: Nginx, capsys: pytest.CaptureFixture[str], content: str = "new\n", check: bool = False
) -> dict[str, Any]:
    """Run the module."""
    arguments = {
        "files": [{"path": str(nginx.directory / "etc" / "nginx.conf"), "content": content}],
        "_ansible_check_mode": check,
        "_ansible_diff": True,
    }
    with patch_module_args(arguments), pytest.raises(SystemExit):
        nginx_config.main()
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def text(nginx: Nginx) -> str:
    """Give the configuration that is on disk."""
    return (nginx.directory / "etc" / "nginx.conf").read_text()


def test_a_change_is_tested_and_read(nginx: Nginx, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(nginx, capsys)
    assert told["changed"] is True
    assert told["done"] == [f"wrote {nginx.directory}/etc/nginx.conf", "reloaded nginx"]
    assert nginx.called == ["nginx -t -q", "systemctl daemon-reload", "systemctl reload nginx"]
    assert text(nginx) == "new\n"
    assert run(nginx, capsys)["changed"] is False


def test_nothing_to_do_is_nothing_done(nginx: Nginx, capsys: pytest.CaptureFixture[str]) -> None:
    (nginx.directory / "etc" / "nginx.conf").chmod(0o644)
    told = run(nginx, capsys, "old\n")
    assert (told["changed"], told["done"], told["diff"]) == (False, [], [])
    assert nginx.called == ["systemctl daemon-reload"]


def test_check_mode_does_nothing(nginx: Nginx, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(nginx, capsys, check=True)
    assert told["changed"] is True
    assert told["diff"][0]["after"].endswith("new\n")
    assert nginx.called == []
    assert text(nginx) == "old\n"


@pytest.mark.parametrize(
    ("fails", "takes", "said"),
    [
        (("nginx -t",), True, "`nginx -t` refuses it:\nnginx says no"),
        (("systemctl reload",), True, "It could not be reloaded:\nsystemctl says no\nbind() failed"),
        ((), False, "It goes on with the configuration that it had:\nbind() failed"),
    ],
    ids=["test", "reload", "taken"],
)
def test_what_nginx_refuses_is_taken_back(
    nginx: Nginx, capsys: pytest.CaptureFixture[str], fails: tuple[str, ...], takes: bool, said: str
) -> None:
    nginx.fails, nginx.takes = fails, takes
    told = run(nginx, capsys)
    assert told["failed"] is True
    assert said in told["msg"]
    assert told["msg"].endswith("What was there before is back.")
    assert text(nginx) == "old\n"
    assert "systemctl stop nginx" not in nginx.called


def test_an_nginx_that_does_not_run_is_started(nginx: Nginx, capsys: pytest.CaptureFixture[str]) -> None:
    nginx.state, nginx.enabled = "inactive", "disabled"
    assert run(nginx, capsys)["done"][1:] == ["enabled nginx", "started nginx"]
    assert nginx.called[-2:] == ["systemctl enable nginx", "systemctl start nginx"]


def test_an_nginx_that_cannot_start_does_not_come_up_later_with_what_was_there(
    nginx: Nginx, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a new host that would be the stock page. One that was to run is left to systemd."""
    nginx.state, nginx.fails = "inactive", ("systemctl start",)
    assert "It does not start:\nsystemctl says no\nbind() failed" in run(nginx, capsys)["msg"]
    assert nginx.called[-1] == "systemctl stop nginx"
    assert text(nginx) == "old\n"
    nginx.state = "activating"
    assert run(nginx, capsys)["failed"] is True
    assert nginx.called[-1] == "systemctl start nginx"


def test_a_run_that_was_cut_short_is_made_up_for(nginx: Nginx, capsys: pytest.CaptureFixture[str]) -> None:
    """What is newer on disk than what nginx has read is read."""
    run(nginx, capsys)
    assert run(nginx, capsys)["changed"] is False
    (nginx.directory / "etc" / "other.conf").touch()
    os.utime(nginx.directory / "loaded", (0, 0))  # longer ago than the clock's resolution
    assert run(nginx, capsys)["done"] == ["reloaded nginx"]
    (nginx.directory / "loaded").unlink()
    assert run(nginx, capsys)["done"] == ["reloaded nginx"]
