"""The firewall without a host: which ports are ssh's, and that rules nobody came through are taken back."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.module_utils.testing import patch_module_args
from ansible.plugins.action import ActionBase
from ansible_collections.slipway.wsgi.plugins.action import firewall as action
from ansible_collections.slipway.wsgi.plugins.module_utils import firewall
from ansible_collections.slipway.wsgi.plugins.modules import firewall as module

LISTENING = """\
LISTEN 0 128    0.0.0.0:2222  0.0.0.0:* users:(("sshd",pid=96,fd=3))
LISTEN 0 128       [::]:2222     [::]:* users:(("sshd",pid=96,fd=4))
LISTEN 0 128  127.0.0.1:6010  0.0.0.0:* users:(("sshd",pid=99,fd=9))
LISTEN 0 128      [::1]:6011     [::]:* users:(("sshd",pid=99,fd=8))
LISTEN 0 511    0.0.0.0:80    0.0.0.0:* users:(("nginx",pid=1947,fd=4))
"""
OLD, NEW, UNIT = "table old\n", "table new { SSH_PORTS }\n", "[Unit]\n"
FILLED = "table new { 2222 }\n"


@pytest.mark.parametrize(
    ("listening", "connection", "ports"),
    [
        (LISTENING, "198.51.100.7 50000 192.0.2.1 22", [22, 2222]),
        (LISTENING, "", [2222]),
        ("", "2001:db8::7 50000 2001:db8::1 2022", [2022]),
        ("", "", [22]),
    ],
)
def test_ports_of_ssh(listening: str, connection: str, ports: list[int]) -> None:
    """Where sshd listens for others, and where the present connection came in; forwarded X11 is the host's own."""
    assert firewall.ssh_ports(listening, connection) == ports


def test_the_connection_is_found_behind_sudo(tmp_path: Path) -> None:
    """Sudo takes the variable away; the shell above it has it."""
    for process, parent, environment in ((30, 20, "SUDO_UID=1000\0"), (20, 10, "A=1\0SSH_CONNECTION=a 1 b 2\0")):
        (tmp_path / str(process)).mkdir()
        (tmp_path / str(process) / "environ").write_text(environment)
        (tmp_path / str(process) / "status").write_text(f"Name:\tx\nPPid:\t{parent}\n")
    assert firewall.ssh_connection(30, str(tmp_path)) == "a 1 b 2"
    assert firewall.ssh_connection(10, str(tmp_path)) == ""


def test_another_firewall_is_named() -> None:
    """One that drops what it does not know; chains that let everything in, or stand elsewhere, are none."""

    def chain(table: str, hook: str, policy: str, family: str = "inet") -> dict[str, Any]:
        return {"chain": {"family": family, "table": table, "name": "INPUT", "hook": hook, "policy": policy}}

    chains = [
        {"metainfo": {}},
        chain("slipway", "input", "drop"),
        chain("f2b", "input", "accept"),
        chain("filter", "forward", "drop", "ip"),
        chain("filter", "input", "drop", "ip"),
        {"chain": {"family": "ip", "table": "filter", "name": "DOCKER"}},
    ]
    assert firewall.other_firewalls(json.dumps({"nftables": chains})) == ["table ip filter, chain INPUT"]


@dataclass
class Machine:
    """What nft, systemd and ss do on a host: rules in force, a timer, a unit.

    Attributes:
        live: the rules in force.
        timer: the file that is put in force when the time is up, None where no timer runs.
        units: the verbs that systemctl was given for the unit.
        fails: the words of commands that fail.
    """

    live: str = ""
    timer: str | None = None
    units: set[str] = field(default_factory=set)
    fails: tuple[str, ...] = ()

    def run(self, command: list[str], stdin: str) -> tuple[int, str, str]:
        words = " ".join(command)
        if any(fault in words for fault in self.fails):
            return 1, "", "no"
        answers: dict[str, Callable[[], tuple[int, str]]] = {
            f"{firewall.NFT} --stateless list": lambda: (0 if self.live else 1, self.live),
            f"{firewall.NFT} --json": lambda: (0, '{"nftables": []}'),
            f"{firewall.NFT} --file": lambda: self.put(stdin if command[-1] == "-" else Path(command[-1]).read_text()),
            "unshare": lambda: (0, stdin),
            "ss": lambda: (0, LISTENING),
            "systemd-run": lambda: self.start(command[-1]),
            "systemctl stop": self.stop,
            "systemctl is-": lambda: (0 if "enable" in self.units else 1, ""),
            "systemctl": lambda: self.systemctl(command[1]),
        }
        code, output = next(answer for start, answer in answers.items() if words.startswith(start))()
        return code, output, ""

    def systemctl(self, verb: str) -> tuple[int, str]:
        self.units.add(verb)
        return 0, ""

    def put(self, rules: str) -> tuple[int, str]:
        self.live = rules.removeprefix(firewall.CLEARED)
        return 0, ""

    def start(self, file: str) -> tuple[int, str]:
        self.timer = file
        return 0, ""

    def stop(self) -> tuple[int, str]:
        self.timer = None
        return 0, ""

    def time_is_up(self) -> None:
        assert self.timer
        self.put(Path(self.timer).read_text())
        self.timer = None


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Give a host with the old rules in force and on disk."""
    for name in ("file", "unit", "trial", "undo"):
        monkeypatch.setattr(firewall.Firewall, name, str(tmp_path / name))
    monkeypatch.setattr(firewall, "ssh_connection", lambda _: "")
    machine = Machine(OLD)
    (tmp_path / "file").write_text(OLD)
    return machine


def test_what_was_confirmed_is_in_force_and_on_disk(machine: Machine, tmp_path: Path) -> None:
    """Until then it is not on disk, and there is a timer."""
    wall = firewall.Firewall(machine.run)
    wall.try_out(FILLED, UNIT, 30)
    assert (machine.live, (tmp_path / "file").read_text()) == (FILLED, OLD)
    assert machine.timer
    wall.confirm()
    assert (machine.live, (tmp_path / "file").read_text()) == (FILLED, FILLED)
    assert (tmp_path / "unit").read_text() == UNIT
    assert machine.timer is None
    assert wall.settled(FILLED, UNIT)
    assert {file.name for file in tmp_path.iterdir()} == {"file", "unit"}


def test_what_nobody_confirms_is_taken_back(machine: Machine, tmp_path: Path) -> None:
    """By the host alone; a confirmation that comes later is refused and changes nothing."""
    wall = firewall.Firewall(machine.run)
    wall.try_out(FILLED, UNIT, 30)
    machine.time_is_up()
    assert machine.live == OLD
    with pytest.raises(firewall.FirewallError, match="taken back before they were confirmed"):
        wall.confirm()
    wall.revert()
    assert (machine.live, (tmp_path / "file").read_text()) == (OLD, OLD)
    assert not (tmp_path / "unit").exists()


def test_a_host_without_rules_has_none_again(machine: Machine) -> None:
    """The first rules of all can lock out as well."""
    machine.live = ""
    wall = firewall.Firewall(machine.run)
    wall.try_out(FILLED, UNIT, 30)
    machine.time_is_up()
    assert machine.live == ""


def test_a_trial_that_was_cut_off_does_not_become_the_old_rules(machine: Machine) -> None:
    """The next run begins by taking back what the run before has left on trial."""
    wall = firewall.Firewall(machine.run)
    wall.try_out("table locked out\n", UNIT, 30)
    wall.try_out(FILLED, UNIT, 30)
    machine.time_is_up()
    assert machine.live == OLD


@pytest.mark.parametrize("fault", ["systemd-run", f"{firewall.NFT} --file -"])
def test_rules_are_not_tried_without_a_way_back(machine: Machine, fault: str) -> None:
    """Without a timer nothing is put in force; rules that cannot be put in force leave no timer."""
    machine.fails = (fault,)
    with pytest.raises(firewall.FirewallError, match="failed: no"):
        firewall.Firewall(machine.run).try_out(FILLED, UNIT, 30)
    assert (machine.live, machine.timer) == (OLD, None)


def told(machine: Machine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    """Run the module."""
    monkeypatch.setattr(module, "Firewall", lambda _: firewall.Firewall(machine.run))
    monkeypatch.setattr(module, "NFT", "/bin/sh")  # is there
    with patch_module_args({"rules": NEW, "unit": UNIT, **options}), pytest.raises(SystemExit):
        module.main()
    return json.loads(capsys.readouterr().out)


def test_the_module_does_nothing_a_second_time(
    machine: Machine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dry run changes nothing and shows what would change; what is in force and on disk is not tried again."""
    dry = told(machine, capsys, monkeypatch, _ansible_check_mode=True)
    assert (dry["changed"], dry["diff"]) == (True, {"before": OLD, "after": FILLED})
    assert (machine.live, machine.timer, machine.units) == (OLD, None, set())
    assert told(machine, capsys, monkeypatch)["unconfirmed"]
    assert told(machine, capsys, monkeypatch, state="confirmed")["changed"]
    assert not told(machine, capsys, monkeypatch)["changed"]


def test_the_module_removes_what_it_has_put_there(
    machine: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table, file and unit, and nothing a second time."""
    told(machine, capsys, monkeypatch)
    told(machine, capsys, monkeypatch, state="confirmed")
    assert told(machine, capsys, monkeypatch, state="absent", _ansible_check_mode=True)["changed"]
    assert (tmp_path / "file").exists()
    assert told(machine, capsys, monkeypatch, state="absent")["changed"]
    assert machine.live == ""
    assert list(tmp_path.iterdir()) == []
    assert not told(machine, capsys, monkeypatch, state="absent")["changed"]


@dataclass
class Connection:
    """A connection of Ansible's: `lets_in` says for each new one whether it comes through."""

    lets_in: list[bool]
    transport: str = "ssh"
    through: bool = True

    def reset(self) -> None:
        self.through = self.lets_in.pop(0)


def controller(monkeypatch: pytest.MonkeyPatch, connection: Connection) -> tuple[action.ActionModule, list[str]]:
    """Give the controller's side, and the states that it asks the host for."""
    asked: list[str] = []
    task = SimpleNamespace(args={"rules": NEW}, async_val=0)
    plugin = action.ActionModule(task, connection, SimpleNamespace(check_mode=False), None, None, None)

    def execute(module_args: dict[str, str] | None = None, **_: Any) -> dict[str, Any]:
        if not connection.through:
            raise AnsibleConnectionFailure("timed out")
        asked.append((module_args or {"state": "applied"})["state"])
        return {"changed": True, "unconfirmed": True} if not module_args else {"changed": True}

    monkeypatch.setattr(plugin, "_execute_module", execute)
    monkeypatch.setattr(ActionBase, "run", lambda *_: {})
    monkeypatch.setattr(action, "RETRY_SECONDS", 0)
    return plugin, asked


def test_the_controller_comes_back_by_a_new_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin, asked = controller(monkeypatch, Connection([True]))
    assert plugin.run() == {"changed": True}
    assert asked == ["applied", "confirmed"]


def test_a_controller_that_is_locked_out_waits_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin, asked = controller(monkeypatch, Connection([False, False, False, True]))
    with pytest.raises(AnsibleActionFail, match=r"put the old ones back.*reached again.*ssh said: timed out"):
        plugin.run()
    assert asked == ["applied", "reverted"]


def test_a_host_that_does_not_come_back_is_not_said_to_be_well(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin, _ = controller(monkeypatch, Connection([False] * 5))
    clock = iter(range(0, 1000, 20))
    monkeypatch.setattr(action, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with pytest.raises(AnsibleActionFail, match="not reached again within 60 s: use its console"):
        plugin.run()
