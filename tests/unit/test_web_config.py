"""The module slipway.wsgi.web_config, with web servers and a systemd that do as the test says."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.slipway.wsgi.plugins.modules import web_config


@dataclass
class Machine:
    """A host with web servers.

    root: its files. states: of the units. enabled: the units that start with the host. takes: whether a running server
    takes what it is given; None if it ends of it. fails: the commands that fail. called: what was called.
    workers: of the server that runs. listens: other programs, and their port.
    """

    root: Path
    states: dict[str, str] = field(default_factory=lambda: {"nginx": "active", "apache2": "inactive"})
    enabled: set[str] = field(default_factory=lambda: {"nginx"})
    takes: bool | None = True
    fails: tuple[str, ...] = ()
    called: list[str] = field(default_factory=list)
    workers: set[str] = field(default_factory=lambda: {"10", "11"})
    listens: dict[str, int] = field(default_factory=dict)

    def call(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Do what a command does."""
        line, unit = " ".join(command), command[-1]
        if command[:2] == ("systemctl", "show"):
            values = {
                "ActiveState": self.states[unit],
                "MainPID": "9" if self.states[unit] == "active" else "0",
                "UnitFileState": "enabled" if unit in self.enabled else "disabled",
            }
            return subprocess.CompletedProcess(command, 0, values[command[3]] + "\n", "")
        if command[0] == "journalctl":
            return subprocess.CompletedProcess(command, 0, "bind() failed\n", "")
        if command[0] == "ss":
            holds = {one: 80 for one, state in self.states.items() if state == "active"} | self.listens
            lines = [f'LISTEN 0 511 *:{port} *:* users:(("{one}",pid=9,fd=6))\n' for one, port in holds.items()]
            return subprocess.CompletedProcess(command, 0, "".join(lines), "")
        self.called.append(line)
        failed = any(line.startswith(one) for one in self.fails)
        if not failed:
            self.do(command[:-1], unit)
        return subprocess.CompletedProcess(command, int(failed), "", f"{command[0]} says no\n" if failed else "")

    def do(self, words: tuple[str, ...], unit: str) -> None:
        """Do what a command does that changes something."""
        if words[1:2] == ("reload",):
            self.workers = {str(int(one) + 2) for one in self.workers} if self.takes else self.workers
            self.states[unit] = self.states[unit] if self.takes is not None else "activating"
        if words[1:2] == ("start",):
            self.states[unit] = "active"
        if words[1:2] == ("stop",):
            self.states[unit] = "inactive"
        if words[1:2] == ("enable",):
            self.enabled.add(unit)
        if words[1:2] == ("disable",):
            self.enabled.discard(unit)
        if words[1:2] in (("reload",), ("start",)):
            (self.root / "run" / f"{unit}.loaded").touch()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Give a host whose nginx runs with what is on disk."""
    host = Machine(tmp_path)
    for name in ("etc/nginx", "etc/apache2", "run"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "etc/nginx/nginx.conf").write_text("old\n")
    (tmp_path / "run/nginx.loaded").touch()
    monkeypatch.setattr(web_config, "ROOT", str(tmp_path))
    monkeypatch.setattr(web_config, "TAKEN_SECONDS", 0.1)
    monkeypatch.setattr(web_config, "call", host.call)
    monkeypatch.setattr(web_config, "children", lambda _: host.workers)
    monkeypatch.setattr("ansible_collections.slipway.wsgi.plugins.module_utils.transaction.os.fchown", lambda *_: None)
    return host


def run(
    machine: Machine, capsys: pytest.CaptureFixture[str], content: str = "new\n", check: bool = False,
    to: str = "nginx", **more: object,
) -> dict[str, Any]:  # fmt: skip
    """Run the module for the web server `to`."""
    arguments = {
        "server": to,
        "files": [{"path": str(machine.root / "etc" / to / f"{to}.conf"), "content": content}],
        "_ansible_check_mode": check,
        "_ansible_diff": True,
        **more,
    }
    with patch_module_args(arguments), pytest.raises(SystemExit):
        web_config.main()
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def text(machine: Machine) -> str:
    """Give nginx's configuration that is on disk."""
    return (machine.root / "etc/nginx/nginx.conf").read_text()


def test_a_change_is_tested_and_read(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(machine, capsys)
    assert told["changed"] is True
    assert told["done"] == [f"wrote {machine.root}/etc/nginx/nginx.conf", "reloaded nginx"]
    assert machine.called == ["nginx -t -q", "systemctl daemon-reload", "systemctl reload nginx"]
    assert text(machine) == "new\n"
    assert run(machine, capsys)["changed"] is False


def test_nothing_to_do_is_nothing_done(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    (machine.root / "etc/nginx/nginx.conf").chmod(0o644)
    told = run(machine, capsys, "old\n")
    assert (told["changed"], told["done"], told["diff"]) == (False, [], [])
    assert machine.called == ["systemctl daemon-reload"]


def test_check_mode_does_nothing(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    told = run(machine, capsys, check=True)
    assert told["changed"] is True
    assert told["diff"][0]["after"].endswith("new\n")
    assert machine.called == []
    assert text(machine) == "old\n"


@pytest.mark.parametrize(
    ("fails", "takes", "said"),
    [
        (("nginx -t",), True, "`nginx -t` refuses it:\nnginx says no"),
        (("systemctl reload",), True, "It could not be reloaded:\nsystemctl says no\nbind() failed"),
        ((), False, "It goes on with the configuration that it had:\nbind() failed"),
        ((), None, "It has ended:\nbind() failed"),
    ],
    ids=["test", "reload", "taken", "ended"],
)
def test_what_a_web_server_refuses_is_taken_back(
    machine: Machine, capsys: pytest.CaptureFixture[str], fails: tuple[str, ...], takes: bool | None, said: str
) -> None:
    """One that ended of it, as Apache does, is up again."""
    machine.fails, machine.takes = fails, takes
    told = run(machine, capsys)
    assert told["failed"] is True
    assert said in told["msg"]
    assert told["msg"].endswith("What was there before is back.")
    assert text(machine) == "old\n"
    assert "systemctl stop nginx" not in machine.called
    assert machine.states["nginx"] == "active"


def test_one_that_does_not_run_is_started(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    machine.states["nginx"], machine.enabled = "inactive", set()
    assert run(machine, capsys)["done"][1:] == ["enabled nginx", "started nginx"]
    assert machine.called[-2:] == ["systemctl enable nginx", "systemctl start nginx"]


def test_one_that_cannot_start_does_not_come_up_later_with_what_was_there(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a new host that would be the stock page. One that was to run is left to systemd."""
    machine.states["nginx"], machine.fails = "inactive", ("systemctl start",)
    assert "It does not start:\nsystemctl says no\nbind() failed" in run(machine, capsys)["msg"]
    assert machine.called[-1] == "systemctl stop nginx"
    assert text(machine) == "old\n"
    machine.states["nginx"] = "activating"
    assert run(machine, capsys)["failed"] is True
    assert machine.called[-2:] == ["systemctl start nginx", "systemctl daemon-reload"]


def test_systemd_reads_its_files_again_when_they_are_taken_back(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    """Or the next start would be by what was refused."""
    machine.takes = False
    assert run(machine, capsys)["failed"] is True
    assert machine.called[-2:] == ["systemctl reload nginx", "systemctl daemon-reload"]


def test_a_directory_is_made_and_put_right(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """Before the test, as the web server takes it to be there."""
    path = machine.root / "run" / "nginx"
    owner, group = pwd.getpwuid(os.getuid()).pw_name, grp.getgrgid(os.getgid()).gr_name
    wanted = [{"path": str(path), "owner": owner, "group": group, "mode": "0751"}]
    run(machine, capsys)
    assert run(machine, capsys, check=True, directories=wanted)["done"] == [f"made {path}"]
    assert not path.exists()
    assert run(machine, capsys, directories=wanted)["done"] == [f"made {path}"]
    assert path.stat().st_mode == stat.S_IFDIR | 0o751
    assert run(machine, capsys, directories=wanted)["changed"] is False
    path.chmod(0o700)
    assert run(machine, capsys, directories=wanted)["done"] == [f"made {path}"]
    told = run(machine, capsys, directories=[{**wanted[0], "owner": "no-such-user"}])
    assert "no-such-user" in told["msg"]


def test_a_port_that_somebody_else_has(machine: Machine, capsys: pytest.CaptureFixture[str], ours: Path) -> None:
    """It is not tried. The other web server's is not somebody else's."""
    machine.listens = {"python3": 443}
    for to in ("nginx", "apache2"):
        machine.called.clear()
        told = run(machine, capsys, to=to, ports=[80, 443])
        assert 'Port 443 is taken:\nusers:(("python3",pid=9,fd=6))\nWhat was there before is back.' in told["msg"]
        tried = {f"systemctl reload {to}", f"systemctl start {to}", "systemctl stop --no-block nginx"}
        assert not tried & set(machine.called)
        assert machine.states == {"nginx": "active", "apache2": "inactive"}
        assert ours.exists()
    assert "failed" not in run(machine, capsys, to="apache2", ports=[80])


def test_a_run_that_was_cut_short_is_made_up_for(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    """What is newer on disk than what nginx has read is read."""
    run(machine, capsys)
    assert run(machine, capsys)["changed"] is False
    (machine.root / "etc/nginx/other.conf").touch()
    os.utime(machine.root / "run/nginx.loaded", (0, 0))  # longer ago than the clock's resolution
    assert run(machine, capsys)["done"] == ["reloaded nginx"]
    (machine.root / "run/nginx.loaded").unlink()
    assert run(machine, capsys)["done"] == ["reloaded nginx"]


# -- from one web server to the other ------------------------------------------------------------------------------


@pytest.fixture
def ours(machine: Machine) -> Path:
    """Let the nginx that runs be one that this collection has set up; give what shows it."""
    drop_in = machine.root / "etc/systemd/system/nginx.service.d/slipway.conf"
    drop_in.parent.mkdir(parents=True)
    drop_in.touch()
    return drop_in


def test_the_other_one_hands_over(machine: Machine, capsys: pytest.CaptureFixture[str], ours: Path) -> None:
    """All that takes time comes before the ports are free; then the other one is the package's again."""
    told = run(machine, capsys, to="apache2")
    assert told["done"][1:] == ["enabled apache2", "stopped nginx", "started apache2", "disabled nginx"]
    assert machine.called == [
        "apache2 -t", "systemctl daemon-reload", "systemctl enable apache2", "systemctl stop --no-block nginx",
        "systemctl start apache2", "systemctl disable nginx",
    ]  # fmt: skip
    assert not ours.exists()
    assert text(machine) == "old\n", "its files stay"
    assert run(machine, capsys, to="apache2")["changed"] is False


def test_somebody_elses_is_left_alone(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(machine, capsys, to="apache2")["done"][1:] == ["enabled apache2", "started apache2"]
    assert machine.states["nginx"] == "active"


@pytest.mark.parametrize(
    ("fails", "stopped"), [("apache2 -t", False), ("systemctl start apache2", True)], ids=["test", "start"]
)
def test_the_other_one_goes_on_if_this_one_does_not_run(
    machine: Machine, capsys: pytest.CaptureFixture[str], ours: Path, fails: str, stopped: bool
) -> None:
    machine.fails = (fails,)
    drop_in = machine.root / "etc/systemd/system/apache2.service.d/slipway.conf"
    drop_in.parent.mkdir()
    drop_in.touch()  # the role has written it by now
    machine.enabled.add("apache2")  # as its package does
    assert run(machine, capsys, to="apache2")["failed"] is True
    assert not drop_in.exists()
    assert machine.states == {"nginx": "active", "apache2": "inactive"}
    assert machine.enabled == {"nginx"}
    assert ("systemctl stop --no-block nginx" in machine.called) == stopped
    assert ours.exists()
    assert not (machine.root / "etc/apache2/apache2.conf").exists()


def test_one_that_keeps_its_ports_is_named(machine: Machine, capsys: pytest.CaptureFixture[str], ours: Path) -> None:
    machine.fails = ("systemctl stop --no-block",)
    assert ours.exists()
    assert "nginx does not let its ports go:" in run(machine, capsys, to="apache2")["msg"]
    assert machine.states == {"nginx": "active", "apache2": "inactive"}
