"""The firewall of a host: one table of nftables, put in force so that nobody is locked out.

What is decided is pure: ssh_ports, filled, other_firewalls. Firewall is the edge: nft, systemd and three files.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable
from typing import Any

from ansible_collections.slipway.wsgi.plugins.module_utils.host import read, write

TABLE = ("inet", "slipway")
# Its full path: the PATH of who comes by ssh may lack it.
NFT = "/usr/sbin/nft"
# Stands in the role's template for the ports of ssh, which only the host knows.
SSH_PORTS = "SSH_PORTS"
# Clears the table whether it is there or not; nft takes a file as a whole or not at all.
CLEARED = "table {0} {1}\ndelete table {0} {1}\n".format(*TABLE)

# Arguments of a command and its standard input; its exit code, output and error output.
Run = Callable[[list[str], str], tuple[int, str, str]]


class FirewallError(Exception):
    """The rules cannot be put in force, or could not stay."""


def ssh_ports(listening: str, connection: str) -> list[int]:
    """Return the ports by which the host is reached by ssh.

    Args:
        listening: what `ss` says about listening TCP sockets, with processes and without a header.
        connection: the variable SSH_CONNECTION of the present connection; empty where there is none.

    Returns:
        The ports of sshd, but for those of the host itself only, and that of the connection; port 22 where there are
        none of these.
    """
    ports = {int(connection.split()[-1])} if connection else set()
    for line in listening.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        if '"sshd"' in line and not address.startswith(("127.", "[::1]")):
            ports.add(int(port))
    return sorted(ports or {22})


def filled(rules: str, ports: Iterable[int]) -> str:
    """Return the rules with the ports of ssh filled in."""
    return rules.replace(SSH_PORTS, ", ".join(map(str, ports)))


def other_firewalls(chains: str) -> list[str]:
    """Return the chains of others that drop what no rule of theirs lets in, whatever this firewall says.

    Args:
        chains: what `nft --json list chains` says.
    """
    found = []
    for entry in json.loads(chains)["nftables"]:
        chain = entry.get("chain", {})
        if chain.get("hook") == "input" and chain.get("policy") == "drop":
            table = (chain["family"], chain["table"])
            found += [f"table {' '.join(table)}, chain {chain['name']}"] if table != TABLE else []
    return found


def ssh_connection(process: int, proc: str = "/proc") -> str:
    """Return the variable SSH_CONNECTION of a process, or of the next one above that has it: sudo takes it away."""
    while process > 1:
        for variable in read(f"{proc}/{process}/environ").split("\0"):
            if variable.startswith("SSH_CONNECTION="):
                return variable.partition("=")[2]
        parent = re.search(r"^PPid:\s*(\d+)", read(f"{proc}/{process}/status"), re.MULTILINE)
        process = int(parent[1]) if parent else 0
    return ""


class Firewall:
    """The table, on this host.

    New rules are on trial first: a timer of systemd's puts the old ones back unless confirm() comes in time. Only then
    are they written to disk: neither the end of the controller nor a restart makes rules permanent that lock out.
    """

    file = "/etc/slipway/firewall.nft"
    unit = "/etc/systemd/system/slipway-firewall.service"
    trial = "/run/slipway/firewall.json"
    undo = "/run/slipway/firewall.undo.nft"
    timer = "slipway-firewall-undo"

    def __init__(self, run: Run) -> None:
        """Take what runs a command."""
        self._run = run

    def _done(self, *command: str, stdin: str = "") -> str:
        """Return the output of a command that has to succeed.

        Raises:
            FirewallError: it did not.
        """
        code, output, errors = self._run(list(command), stdin)
        if code:
            raise FirewallError(f"`{' '.join(command)}` failed: {(errors or output).strip()}")
        return output

    def live(self) -> str:
        """Return the rules in force as nft writes them, empty if there is no table."""
        code, output, _ = self._run([NFT, "--stateless", "list", "table", *TABLE], "")
        return "" if code else output

    def canonical(self, rules: str) -> str:
        """Return rules as nft would list them once they are in force, from a network of their own that goes at once.

        Raises:
            FirewallError: the kernel does not take them.
        """
        listed = f"{NFT} --file - && {NFT} --stateless list table {' '.join(TABLE)}"
        return self._done("unshare", "--net", "sh", "-c", listed, stdin=rules)

    def ports(self) -> list[int]:
        """Return the ports by which this host is reached by ssh."""
        listening = self._done("ss", "--no-header", "--listening", "--tcp", "--numeric", "--processes")
        return ssh_ports(listening, ssh_connection(os.getpid()))

    def others(self) -> list[str]:
        """Return the chains of others that drop what is let in here."""
        return other_firewalls(self._done(NFT, "--json", "list", "chains"))

    def settled(self, rules: str, unit: str) -> bool:
        """Return whether rules and unit are on disk, and the unit is up and comes up at boot."""
        name = os.path.basename(self.unit)
        on_disk = (read(self.file), read(self.unit)) == (rules, unit)
        return on_disk and not any(self._run(["systemctl", verb, name], "")[0] for verb in ("is-enabled", "is-active"))

    def try_out(self, rules: str, unit: str, seconds: int) -> None:
        """Put rules in force for so many seconds.

        Raises:
            FirewallError: they cannot be put in force, or not be taken back later.
        """
        self.revert()
        os.makedirs(os.path.dirname(self.trial), exist_ok=True)
        write(self.undo, CLEARED + self.live())
        write(self.trial, json.dumps({"rules": rules, "unit": unit}))
        self._done(
            *("systemd-run", "--quiet", "--collect", f"--unit={self.timer}"),
            *(f"--on-active={seconds}", "--timer-property=AccuracySec=100ms"),
            *(NFT, "--file", self.undo),
        )
        try:
            self._done(NFT, "--file", "-", stdin=rules)
        except FirewallError:
            self.revert()
            raise

    def confirm(self) -> None:
        """Keep the rules that are on trial: the time for them has not run out, and they are written to disk.

        Raises:
            FirewallError: there are none, or they were taken back already.
        """
        self._stop_the_clock()
        trial: dict[str, Any] = json.loads(read(self.trial) or "{}")
        if not trial or self.live() != self.canonical(trial["rules"]):
            raise FirewallError("The new rules were taken back before they were confirmed.")
        for path, text in ((self.file, trial["rules"]), (self.unit, trial["unit"])):
            os.makedirs(os.path.dirname(path), exist_ok=True)
            write(path, text)
        self._done("systemctl", "daemon-reload")
        self._done("systemctl", "enable", "--quiet", "--now", os.path.basename(self.unit))
        self._forget()

    def revert(self) -> None:
        """Take rules back that are on trial and were not confirmed, if there are any.

        Raises:
            FirewallError: the old rules cannot be put back.
        """
        self._stop_the_clock()
        if os.path.exists(self.undo):
            self._done(NFT, "--file", self.undo)
        self._forget()

    def leftovers(self) -> list[str]:
        """Return what there is of the firewall: files, and the table."""
        there = [path for path in (self.file, self.unit) if os.path.exists(path)]
        return there + (["table " + " ".join(TABLE)] if self.live() else [])

    def remove(self) -> None:
        """Remove the table, the file and the unit.

        Raises:
            FirewallError: it cannot be done.
        """
        self._stop_the_clock()
        self._forget()
        if os.path.exists(self.unit):
            self._done("systemctl", "disable", "--quiet", "--now", os.path.basename(self.unit))
        if self.live():
            self._done(NFT, "--file", "-", stdin=CLEARED)
        for path in (self.file, self.unit):
            if os.path.exists(path):
                os.unlink(path)
        self._done("systemctl", "daemon-reload")

    def _stop_the_clock(self) -> None:
        """Stop the timer, and wait for what it has just started; neither needs to be there."""
        self._run(["systemctl", "stop", f"{self.timer}.timer", f"{self.timer}.service"], "")

    def _forget(self) -> None:
        """Remove what was kept for the trial."""
        for path in (self.trial, self.undo):
            if os.path.exists(path):
                os.unlink(path)
