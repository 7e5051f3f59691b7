#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Puts a configuration of nginx in force, or leaves the one that was."""

from __future__ import annotations

import contextlib
import grp
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.wsgi.plugins.module_utils.transaction import Change, File

DOCUMENTATION = r"""
module: nginx_config
short_description: Put a configuration of nginx in force, or leave the one that was
description:
  - Writes all files of a configuration, has nginx test it, and has a running nginx read it, or starts one that does not
    run. nginx is never restarted.
  - If nginx refuses it, at the test or when it reads it, all files are put back as they were, so that a restart of the
    host serves as well.
  - A run that was cut short is made up for. What is newer on disk than what nginx has read is read.
options:
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
attributes:
  check_mode:
    description: It compares the files, and does not ask nginx.
    support: full
  diff_mode:
    description: It shows how the files differ, but for secret ones.
    support: full
author: Slipway maintainers (@slipway)
"""

EXAMPLES = r"""
- name: Put the site in force
  slipway.wsgi.nginx_config:
    files:
      - path: /etc/nginx/conf.d/shop.conf
        content: "{{ lookup('ansible.builtin.template', 'shop.conf.j2') }}"
      - path: /etc/nginx/sites-enabled/default
"""

RETURN = r"""
done:
  description: What was done, in this order.
  returned: success
  type: list
  elements: str
  sample: [wrote /etc/nginx/conf.d/shop.conf, reloaded nginx]
"""

# When nginx last read its configuration: its unit touches it then (slipway.conf of the role nginx).
STAMP = "/run/nginx.loaded"
DIRECTORY = "/etc/nginx"
# nginx tries for 2.5 s to get a port, and reads a configuration with thousands of names in about one.
TAKEN_SECONDS = 15.0
LOOK_SECONDS = 0.02
LINES = 20


class Refused(Exception):  # noqa: N818 - it is a state that others are told of
    """nginx does not run with a configuration: what was done, and nginx's own words."""

    def __init__(self, what: str, words: str) -> None:
        """Take both as text."""
        super().__init__(f"{what}\n{words}".rstrip())


def call(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, whatever that is."""
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)


def unit(name: str) -> str:
    """Return a property of nginx's unit."""
    return call("systemctl", "show", "--property", name, "--value", "nginx").stdout.strip()


def children(pid: str) -> set[str]:
    """Return the processes that a process has started; none if it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as listed:
        return set(listed.read().split())
    return set()


def journal(since: float) -> str:
    """Return what nginx and systemd have said of it since then."""
    call("journalctl", "--sync")
    options = ("--unit", "nginx", "--since", f"@{since:.0f}", "--lines", str(LINES), "--output", "cat", "--no-pager")
    return call("journalctl", *options).stdout.strip()


def newer() -> bool:
    """Say whether a file of the configuration is newer than what nginx has read."""
    try:
        read = os.stat(STAMP).st_mtime_ns
    except FileNotFoundError:
        return True
    return any(
        os.lstat(os.path.join(directory, name)).st_mtime_ns > read
        for directory, inside, names in os.walk(DIRECTORY)
        for name in [".", *inside, *names]
    )


def test() -> None:
    """Have nginx test its configuration.

    Raises:
        Refused: it refuses it.
    """
    done = call("nginx", "-t", "-q")
    if done.returncode:
        raise Refused("`nginx -t` refuses it:", done.stderr)


def reload() -> None:
    """Have the running nginx read its configuration, and see that it did: a reload that it refuses is green to systemd.

    Raises:
        Refused: it goes on with the one that it had.
    """
    started, master = time.time(), unit("MainPID")
    before = children(master)
    done = call("systemctl", "reload", "nginx")
    if done.returncode:
        raise Refused("It could not be reloaded:", f"{done.stderr}{journal(started)}")
    deadline = time.monotonic() + TAKEN_SECONDS
    # With a new configuration it starts new workers, and with none it starts none.
    while not children(master) - before:
        if time.monotonic() > deadline:
            raise Refused("It goes on with the configuration that it had:", journal(started))
        time.sleep(LOOK_SECONDS)


def start() -> None:
    """Start nginx.

    Raises:
        Refused: it does not run.
    """
    started = time.time()
    done = call("systemctl", "start", "nginx")
    if done.returncode:
        raise Refused("It does not start:", f"{done.stderr}{journal(started)}")


@contextlib.contextmanager
def undone(change: Change) -> Iterator[None]:
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
        raise Refused(f"nginx does not run as asked. {error}", back) from error


def act(change: Change, act_on_it: bool) -> list[str]:
    """Do what is to be done; in check mode (`act_on_it` is false) only say what.

    Raises:
        Refused: nginx does not run with it. All is as it was.
    """
    done = [f"{'removed' if after.content is None else 'wrote'} {after.path}" for _, after in change.files]
    state = unit("ActiveState")
    running = state in ("active", "reloading")
    steps: list[tuple[str, Callable[[], object]]] = []
    if change.files or (running and newer()):
        steps.append(("", test))
    # systemd says that it need not only because it has not looked: a new drop-in in a new directory escapes it.
    steps.append(("", lambda: call("systemctl", "daemon-reload")))
    if unit("UnitFileState") != "enabled":
        steps.append(("enabled nginx", lambda: call("systemctl", "enable", "nginx")))
    if not running:
        steps.append(("started nginx", start))
    elif steps[0][1] is test:
        steps.append(("reloaded nginx", reload))
    if act_on_it:
        try:
            with undone(change):
                change.make()
                for _, step in steps:
                    step()
        except Refused:
            # It would come up with what was there before, as soon as it can: on a new host that is the stock page.
            if state == "inactive":
                call("systemctl", "stop", "nginx")
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
            "files": {"type": "list", "elements": "dict", "required": True},
            "secret_files": {"type": "list", "elements": "dict", "default": [], "no_log": True},
        },
        supports_check_mode=True,
    )
    try:
        change = Change(wanted(module.params["files"], 0o644) + wanted(module.params["secret_files"], 0o640))
        done = act(change, not module.check_mode)
    except (Refused, OSError, KeyError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(done), done=done, diff=change.diff())


if __name__ == "__main__":
    main()
