#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Puts a configuration of a web server in force, or leaves the one that was."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.wsgi.plugins.module_utils.transaction import Change, File

DOCUMENTATION = r"""
module: web_config
short_description: Put a configuration of a web server in force, or leave the one that was
description:
  - Writes all files of a configuration, has the web server test it, and has a running one read it, or starts one that
    does not run. A web server is never restarted.
  - If it refuses it, at the test or when it reads it, all files are put back as they were, so that a restart of the
    host serves as well.
  - A run that was cut short is made up for. What is newer on disk than what the web server has read is read.
  - Where the other web server was set up here before, it hands over the ports. It ends the requests that it has begun,
    and does not start any more. If this one does not start, the other one does again.
options:
  server:
    description: The web server, by the name of its unit.
    type: str
    choices: [nginx, apache2]
    required: true
  files:
    description:
      - The files, with C(path) and C(content). They belong to root and everybody can read them, or whom C(group) and
        C(mode) say.
      - Without content, or with an empty one, there must be none.
    type: list
    elements: dict
    required: true
  secret_files:
    description: The same for files that nobody but root and the group can read, and that are never shown.
    type: list
    elements: dict
    default: []
  directories:
    description:
      - Directories that the web server takes to be there when it tests its configuration, with C(path), C(owner),
        C(group) and C(mode). They stay, whatever it says of it.
    type: list
    elements: dict
    default: []
  ports:
    description:
      - The TCP ports that the web server is to have. Where another program listens on one of them it is told so and not
        tried. Apache would end of it.
    type: list
    elements: int
    default: []
attributes:
  check_mode:
    description: It compares the files, and does not ask the web server.
    support: full
  diff_mode:
    description: It shows how the files differ, but for secret ones.
    support: full
author: Slipway maintainers (@slipway)
"""

EXAMPLES = r"""
- name: Put the site in force
  slipway.wsgi.web_config:
    server: nginx
    files:
      - path: /etc/nginx/conf.d/shop.conf
        content: "{{ lookup('ansible.builtin.template', 'shop.conf.j2') }}"
      - path: /etc/nginx/sites-enabled/default
    directories:
      - {path: /run/nginx, owner: www-data, group: www-data, mode: "0755"}
    ports: [80, 443]
"""

RETURN = r"""
done:
  description: What was done, in this order.
  returned: success
  type: list
  elements: str
  sample: [wrote /etc/nginx/conf.d/shop.conf, reloaded nginx]
"""

# Where the files of this host are.
ROOT = "/"
# nginx tries for 2.5 s to get a port, and reads a configuration with thousands of names in about one.
TAKEN_SECONDS = 15.0
LOOK_SECONDS = 0.02
LINES = 20


@dataclass(frozen=True)
class Server:
    """A web server.

    unit: its unit, which is the name of its program too. directory: where its configuration is. test: has it tested.
    """

    unit: str
    directory: str
    test: tuple[str, ...]

    @property
    def stamp(self) -> str:
        """When it last read its configuration: its unit touches it then (slipway.conf of its role)."""
        return os.path.join(ROOT, "run", f"{self.unit}.loaded")

    @property
    def drop_in(self) -> str:
        """What makes the unit Slipway's: the server of somebody else is left alone."""
        return os.path.join(ROOT, "etc/systemd/system", f"{self.unit}.service.d", "slipway.conf")


SERVERS = {
    "nginx": Server("nginx", "etc/nginx", ("nginx", "-t", "-q")),
    "apache2": Server("apache2", "etc/apache2", ("apache2", "-t")),
}


class Refused(Exception):  # noqa: N818 - it is a state that others are told of
    """A web server does not run with a configuration: what was done, and its own words."""

    def __init__(self, what: str, words: str) -> None:
        """Take both as text."""
        super().__init__(f"{what}\n{words}".rstrip())


def call(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever that is."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def unit(server: Server, name: str) -> str:
    """Return a property of a web server's unit."""
    return call("systemctl", "show", "--property", name, "--value", server.unit).stdout.strip()


def running(server: Server) -> bool:
    """Say whether a web server is up."""
    return unit(server, "ActiveState") in ("active", "reloading")


def children(pid: str) -> set[str]:
    """Return the processes that a process has started; none if it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as listed:
        return set(listed.read().split())
    return set()


def journal(server: Server, since: float) -> str:
    """Return what a web server and systemd have said of it since then."""
    call("journalctl", "--sync")
    options = ("--unit", server.unit, "--since", f"@{since:.0f}", "--lines", str(LINES), "--output", "cat")
    return call("journalctl", *options, "--no-pager").stdout.strip()


def newer(server: Server) -> bool:
    """Say whether a file of the configuration is newer than what the web server has read."""
    try:
        read = os.stat(server.stamp).st_mtime_ns
    except FileNotFoundError:
        return True
    return any(
        os.lstat(os.path.join(directory, name)).st_mtime_ns > read
        for directory, inside, names in os.walk(os.path.join(ROOT, server.directory))
        for name in [".", *inside, *names]
    )


def test(server: Server) -> None:
    """Have a web server test its configuration.

    Raises:
        Refused: it refuses it.
    """
    done = call(*server.test)
    if done.returncode:
        raise Refused(f"`{' '.join(server.test[:2])}` refuses it:", done.stderr)


def listening() -> list[tuple[int, str]]:
    """Return who listens on TCP, in the words of ss(8): pairs of a port and `users:(("nginx",pid=9,fd=6))`."""
    table = call("ss", "--no-header", "--listening", "--tcp", "--numeric", "--processes").stdout
    return [(int(line.split()[3].rpartition(":")[2]), line.split(maxsplit=5)[-1]) for line in table.splitlines()]


def holds(server: Server, users: str) -> bool:
    """Say whether a web server is among those who hold a socket, in the words of ss(8)."""
    return f'"{server.unit}",' in users


def have_ports(found: Found) -> None:
    """See that the web server gets its ports: they are free, its own, or those of the other one that hands them over.

    Raises:
        Refused: another program has one of them.
    """
    for port, users in listening():
        others = found.other_up and holds(found.other, users)
        if port in found.ports and not others and not holds(found.server, users):
            raise Refused(f"Port {port} is taken:", users)


def reload(server: Server) -> None:
    """Have a running web server read its configuration, and see that it did: what it refuses then is green to systemd.

    Raises:
        Refused: it goes on with the one that it had, or has ended.
    """
    started, master = time.time(), unit(server, "MainPID")
    before = children(master)
    done = call("systemctl", "reload", server.unit)
    if done.returncode:
        raise Refused("It could not be reloaded:", f"{done.stderr}{journal(server, started)}")
    deadline = time.monotonic() + TAKEN_SECONDS
    # With a new configuration it starts new workers, and with none it starts none.
    while not children(master) - before:
        # Apache's first process ends when it cannot do what the test found no fault in.
        if unit(server, "MainPID") != master:
            raise Refused("It has ended:", journal(server, started))
        if time.monotonic() > deadline:
            raise Refused("It goes on with the configuration that it had:", journal(server, started))
        time.sleep(LOOK_SECONDS)


def start(server: Server) -> None:
    """Start a web server.

    Raises:
        Refused: it does not run.
    """
    started = time.time()
    done = call("systemctl", "start", server.unit)
    if done.returncode:
        raise Refused("It does not start:", f"{done.stderr}{journal(server, started)}")


def hand_over(server: Server) -> None:
    """Have a web server let its ports go. It ends by itself when it has answered the requests that it has begun.

    Raises:
        Refused: it keeps them.
    """
    call("systemctl", "stop", "--no-block", server.unit)
    deadline = time.monotonic() + TAKEN_SECONDS
    while any(holds(server, users) for _, users in listening()):
        if time.monotonic() > deadline:
            raise Refused(f"{server.unit} does not let its ports go:", "")
        time.sleep(LOOK_SECONDS)


def give_up(server: Server) -> None:
    """Leave a web server to whoever wants it: it does not start with the host, and its unit is the package's again."""
    call("systemctl", "disable", server.unit)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(server.drop_in)


@contextlib.contextmanager
def undone(server: Server, change: Change) -> Iterator[None]:
    """Undo a change if what is done with it fails, or is interrupted.

    Raises:
        Refused: it was undone; why.
    """

    def interrupted(number: int, _: Any) -> None:
        raise InterruptedError(f"it was ended by {signal.Signals(number).name}")

    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, interrupted)
    try:
        yield
    except (Refused, OSError) as error:
        change.undo()
        back = "What was there before is back." if change.files else "Nothing was changed."
        raise Refused(f"{server.unit} does not run as asked. {error}", back) from error


@dataclass(frozen=True)
class Directory:
    """A directory that is to be there.

    path: where. uid, gid: whose it is. mode: its permissions.
    """

    path: str
    uid: int
    gid: int
    mode: int

    @classmethod
    def of(cls, entry: dict[str, str]) -> Directory:
        """Return what an entry of the parameter says.

        Raises:
            KeyError: its owner or its group is not there.
        """
        uid, gid = pwd.getpwnam(entry["owner"]).pw_uid, grp.getgrnam(entry["group"]).gr_gid
        return cls(entry["path"], uid, gid, int(entry["mode"], 8))

    @property
    def is_right(self) -> bool:
        """Whether it is there as it is to be."""
        with contextlib.suppress(FileNotFoundError):
            found = os.lstat(self.path)
            wanted = (self.uid, self.gid, stat.S_IFDIR | self.mode)
            return (found.st_uid, found.st_gid, found.st_mode) == wanted
        return False

    def make(self) -> None:
        """Make it, or make it right.

        Raises:
            OSError: it cannot be done.
        """
        os.makedirs(self.path, exist_ok=True)
        os.chown(self.path, self.uid, self.gid)
        os.chmod(self.path, self.mode)


@dataclass(frozen=True)
class Found:
    """What a run has found.

    server: the web server that is to run. state: of its unit. up: whether it runs.
    other: the one that may have run before. theirs: whether it was set up here. other_up: whether it has the ports.
    ports: those that the server is to have.
    """

    server: Server
    state: str
    up: bool
    other: Server
    theirs: bool
    other_up: bool
    ports: list[int]

    @classmethod
    def of(cls, server: Server, other: Server, ports: list[int]) -> Found:
        """Look at a host."""
        theirs = os.path.exists(other.drop_in)
        other_up = theirs and running(other)
        return cls(server, unit(server, "ActiveState"), running(server), other, theirs, other_up, ports)

    def steps(self, changed: bool) -> list[tuple[str, Callable[[], object]]]:
        """Return what is to be done, and in which words; `changed`: there are files that are to be written."""
        server, other = self.server, self.other
        stale = changed or (self.up and newer(server))
        steps: list[tuple[str, Callable[[], object]]] = []
        if stale or self.other_up:
            steps.append(("", lambda: test(server)))
        if stale or not self.up:
            steps.append(("", lambda: have_ports(self)))
        # systemd says that it need not only because it has not looked: a new drop-in in a new directory escapes it.
        steps.append(("", lambda: call("systemctl", "daemon-reload")))
        if unit(server, "UnitFileState") != "enabled":
            steps.append((f"enabled {server.unit}", lambda: call("systemctl", "enable", server.unit)))
        # From here to the start nobody has the ports.
        if self.other_up:
            steps.append((f"stopped {other.unit}", lambda: hand_over(other)))
        if not self.up:
            steps.append((f"started {server.unit}", lambda: start(server)))
        elif stale:
            steps.append((f"reloaded {server.unit}", lambda: reload(server)))
        if self.theirs:
            steps.append((f"disabled {other.unit}", lambda: give_up(other)))
        return steps

    def again(self) -> None:
        """Let those run that ran before; the files are as they were, those of systemd among them."""
        call("systemctl", "daemon-reload")
        # On a new host it would come up with the stock page, as soon as it can.
        if self.state == "inactive":
            call("systemctl", "stop", self.server.unit)
        # One that has ended since does not wait for systemd.
        elif self.up and not running(self.server):
            call("systemctl", "start", self.server.unit)
        if self.other_up:
            # Its package has enabled it: at the next start of the host both would want the ports.
            give_up(self.server)
            call("systemctl", "start", self.other.unit)


def act(found: Found, change: Change, directories: list[Directory], act_on_it: bool) -> list[str]:
    """Do what is to be done; in check mode (`act_on_it` is false) only say what. The directories are those not right.

    Raises:
        Refused: the server does not run with it. All is as it was.
    """
    done = [f"made {directory.path}" for directory in directories]
    done += [f"{'removed' if after.content is None else 'wrote'} {after.path}" for _, after in change.files]
    steps = found.steps(bool(change.files))
    if act_on_it:
        try:
            with undone(found.server, change):
                for directory in directories:
                    directory.make()
                change.make()
                for _, step in steps:
                    step()
        except Refused:
            found.again()
            raise
    return done + [word for word, _ in steps if word]


def wanted(entries: list[dict[str, str]], mode: int) -> list[File]:
    """Return the files of a parameter.

    Raises:
        KeyError: a group is not there.
    """
    return [
        File(
            entry["path"],
            entry.get("content") or None,
            int(entry["mode"], 8) if "mode" in entry else mode,
            0,
            grp.getgrnam(entry["group"]).gr_gid if "group" in entry else 0,
            secret=mode & 0o007 == 0,
        )
        for entry in entries
    ]


def main() -> None:
    """Run as a module of Ansible."""
    module = AnsibleModule(
        {
            "server": {"type": "str", "choices": [*SERVERS], "required": True},
            "files": {"type": "list", "elements": "dict", "required": True},
            "secret_files": {"type": "list", "elements": "dict", "default": [], "no_log": True},
            "directories": {"type": "list", "elements": "dict", "default": []},
            "ports": {"type": "list", "elements": "int", "default": []},
        },
        supports_check_mode=True,
    )
    server = SERVERS[module.params["server"]]
    (other,) = (one for one in SERVERS.values() if one is not server)
    try:
        change = Change(wanted(module.params["files"], 0o644) + wanted(module.params["secret_files"], 0o640))
        directories = [one for one in map(Directory.of, module.params["directories"]) if not one.is_right]
        done = act(Found.of(server, other, module.params["ports"]), change, directories, not module.check_mode)
    except (Refused, OSError, KeyError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(done), done=done, diff=change.diff())


if __name__ == "__main__":
    main()
