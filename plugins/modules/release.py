#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Builds a release on a host and lets it go live. The action plugin of this name reads the source on the controller."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.wsgi.plugins.module_utils.releases import prunable, timespan

DOCUMENTATION = r"""
module: release
short_description: Build a release of a WSGI app and let it go live
description:
  - A release is a directory below C(<root>/releases) that never changes, with the source, a virtual environment of its
    own, its configuration, and a systemd socket and service of its own.
  - The name of a release follows from its content, so the same source with the same inputs is the same release.
  - What is live is decided by one symbolic link, C(<root>/live). Going live is one rename(2) of it.
options:
  state:
    description:
      - V(checked) only looks at the source on the controller.
      - V(built) makes the release, if it is not there.
      - V(live) starts its socket and service and puts it live, if it is not.
    type: str
    choices: [checked, built, live]
    required: true
  app:
    description: Name of the app.
    type: str
  root:
    description: Directory of the app on the host.
    type: path
  user:
    description: The user that the app runs as and that its environment is built by.
    type: str
  source:
    description: Directory of the source on the controller.
    type: path
  needs:
    description: Files that have to be in the source, relative to it.
    type: list
    elements: str
    default: []
  files:
    description:
      - Files that are added to the release, by name. They end up in its directory C(etc).
      - V(service) and V(socket) are its systemd units.
      - V(requirements.txt) is what the app server needs in the environment.
    type: dict
    default: {}
  requirements:
    description: Requirements files in the source, relative to it, with hashes.
    type: list
    elements: str
    default: []
  link:
    description: The path of the socket that the web server knows. It must not be another app's.
    type: path
  python:
    description: The interpreter that the environment is made with.
    type: path
  uv:
    description: Path of uv on the host.
    type: path
  environment:
    description: Environment variables for uv, such as an index or a proxy. They may hold secrets and are not shown.
    type: dict
    default: {}
  name:
    description: Name of the release. The action plugin derives it for O(state=built).
    type: str
  archive:
    description: Archive of the source on the host. Filled in by the action plugin.
    type: path
  origin:
    description: Where the source comes from, in words. Filled in by the action plugin.
    type: str
    default: ""
  keep:
    description: How many releases stay on the host after O(state=live).
    type: int
    default: 5
attributes:
  check_mode:
    description: Says whether a release would be built or go live, and changes nothing.
    support: full
  diff_mode:
    description: Shows how the files of a new release differ from those of the live one.
    support: full
author: Slipway maintainers (@slipway)
"""

EXAMPLES = r"""
- name: Build a release
  slipway.wsgi.release:
    state: built
    app: hello
    root: /srv/hello
    user: hello
    source: "{{ playbook_dir }}/../app"
    files: "{{ app_server_files }}"
    requirements: [requirements.txt]
    python: /usr/bin/python3
    uv: /opt/slipway/uv/bin/uv
  register: release

- name: Let it go live
  slipway.wsgi.release:
    state: live
    app: hello
    root: /srv/hello
    name: "{{ release.name }}"
"""

RETURN = r"""
name:
  description: Name of the release.
  returned: O(state=built) and O(state=live)
  type: str
  sample: 3f2a9c1b7d10
path:
  description: Its directory.
  returned: O(state=built) and O(state=live)
  type: str
previous:
  description: The release that was live before, empty if there was none.
  returned: O(state=live)
  type: str
pruned:
  description: Releases that were removed.
  returned: O(state=live)
  type: list
  elements: str
"""

UNITS = "/etc/systemd/system"
KINDS = ("socket", "service")
# A release counts as drained when so many looks in a row find its queue empty, so many seconds apart.
LOOKS = 3
LOOK_SECONDS = 0.1
Result = dict[str, Any]


class StepError(Exception):
    """A step of a release failed: why, and the last lines of what the failing process said."""

    def __init__(self, reason: str, log: str = "") -> None:
        """Take the reason as one sentence, and the log as text of any length."""
        super().__init__(reason)
        self.log = tail(log, 25)


def tail(text: str, lines: int) -> str:
    """Return the last lines of a text."""
    return "\n".join(text.strip().splitlines()[-lines:])


def cause(log: str) -> str:
    """Return the part of a log that tells the cause: from the last traceback on, if there is one."""
    start = log.rfind("Traceback (most recent call last):")
    return log[max(start, 0) :]


def read(path: str) -> str:
    """Return the text of a file, empty if there is none."""
    try:
        with open(path, encoding="utf-8") as source:
            return source.read()
    except FileNotFoundError:
        return ""


class Host:
    """The releases of one app on this host; `step` is the one that is being done, for messages."""

    def __init__(self, module: AnsibleModule) -> None:
        """Take the arguments of the module."""
        self.module = module
        self.app: str = module.params["app"]
        self.root: str = module.params["root"]
        self.releases = os.path.join(self.root, "releases")
        self.link = os.path.join(self.root, "live")
        self.step = ""

    def path(self, name: str, *parts: str) -> str:
        """Return the directory of a release, or a path in it."""
        return os.path.join(self.releases, name, *parts)

    def whole(self, name: str) -> bool:
        """Return whether a release has been built to its end."""
        return os.path.exists(self.path(name, "release.json"))

    def socket(self, name: str) -> str:
        """Return the path of a release's socket."""
        return f"/run/{self.app}/{name}.sock"

    def live(self) -> str:
        """Return the name of the live release, or an empty text."""
        return os.path.basename(os.readlink(self.link)) if os.path.islink(self.link) else ""

    def units(self, name: str) -> list[str]:
        """Return the units of a release, in the order of KINDS."""
        return [f"{self.app}@{name}.{kind}" for kind in KINDS]

    def run(self, *command: str, environment: Mapping[str, str] | None = None, reason: str = "") -> str:
        """Run a command and return its output; raise StepError with its last lines if it fails."""
        code, out, err = self.module.run_command(list(command), environ_update=dict(environment or {}))
        if code:
            raise StepError(reason or f"`{' '.join(command[:3])}` ended with exit code {code}.", err or out)
        return str(out)

    def succeeds(self, *command: str) -> bool:
        """Return whether a command ends without an error."""
        return bool(self.module.run_command(list(command))[0] == 0)

    def up(self, name: str) -> bool:
        """Return whether both units of a release are up."""
        return self.each("is-active", name)

    def enabled(self, name: str) -> bool:
        """Return whether both units of a release come up at boot."""
        return self.each("is-enabled", name)

    def each(self, question: str, name: str) -> bool:
        """Return whether systemctl says yes for both units; asked for two at once, it says yes if one is."""
        return all(self.succeeds("systemctl", question, "--quiet", unit) for unit in self.units(name))

    def as_user(self, name: str, *command: str) -> list[str]:
        """Return the command that runs ``command`` as the app's user, who may write to nothing but its environment.

        Building runs code of the packages being built, so it gets no more rights than the app that will import them.
        """
        cache = f"slipway/{self.app}"
        properties = {
            "User": self.module.params["user"],
            "ProtectSystem": "strict",
            "ProtectHome": "yes",
            "PrivateTmp": "yes",
            "NoNewPrivileges": "yes",
            "UMask": "0022",
            "ReadWritePaths": self.path(name, "venv"),
            "CacheDirectory": cache,
            "WorkingDirectory": self.path(name, "app"),
        }
        environment = [f"UV_CACHE_DIR=/var/cache/{cache}", "UV_NO_CONFIG=1", "UV_PYTHON_DOWNLOADS=never"]
        # Named without a value, systemd-run takes it from its own environment: a command line can be read by everybody.
        environment += self.module.params["environment"]
        call = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect"]
        call += [f"--property={key}={value}" for key, value in properties.items()]
        return [*call, *(f"--setenv={variable}" for variable in environment), *command]


# -- built ------------------------------------------------------------------------------------------------------------


def built(host: Host) -> Result:
    """Make the release, if it is not there; return what to tell."""
    module = host.module
    name, archive = module.params["name"], module.params["archive"]
    result = {"changed": False, "name": name, "path": host.path(name)}
    claim_link(host)
    if host.whole(name):
        return result
    result.update(changed=True, diff=difference(host))
    if module.check_mode:
        return result
    if not archive:
        # Only now is it known that the source is wanted here: the action plugin brings it and calls again.
        return {**result, "needs_archive": True}
    os.umask(0o022)
    # What a killed build left; nothing ever ran from it.
    shutil.rmtree(host.path(name), ignore_errors=True)
    try:
        unpack(host, name, archive)
        make_environment(host, name)
        seal(host, name)
    except BaseException:
        shutil.rmtree(host.path(name), ignore_errors=True)
        raise
    return result


def claim_link(host: Host) -> None:
    """Refuse a link for the web server that leads to another app: its visitors would be served by this one."""
    host.step = "check"
    link, target = host.module.params["link"], os.path.join(host.link, "uwsgi.sock")
    if link and os.path.lexists(link) and (not os.path.islink(link) or os.readlink(link) != target):
        owner = os.readlink(link) if os.path.islink(link) else "something that Slipway did not make"
        raise StepError(f"{link} belongs to another app ({owner}). Give this one an app_link of its own.")


def unpack(host: Host, name: str, archive: str) -> None:
    """Lay out the release: the source, the files that Slipway adds, and where its socket will be."""
    host.step = "fetch"
    os.makedirs(host.path(name, "app"))
    os.makedirs(host.path(name, "etc"))
    host.run("tar", "-xzf", archive, "--no-same-owner", "-C", host.path(name, "app"))
    for file, text in host.module.params["files"].items():
        with open(host.path(name, "etc", file), "w", encoding="utf-8") as target:
            target.write(text)
    os.symlink(host.socket(name), host.path(name, "uwsgi.sock"))


def make_environment(host: Host, name: str) -> None:
    """Make the virtual environment from locked requirements as the app's user, then take it from that user again."""
    host.step = "build"
    params = host.module.params
    uv, venv, environment = params["uv"], host.path(name, "venv"), params["environment"]
    locks = [host.path(name, "app", file) for file in params["requirements"]]
    if "requirements.txt" in params["files"]:
        locks.append(host.path(name, "etc", "requirements.txt"))
    # Nothing else is the user's: who may write beside it could swap the units, which systemd runs as root.
    os.mkdir(venv)
    shutil.chown(venv, params["user"])
    make = host.as_user(name, uv, "venv", "--quiet", "--python", params["python"], venv)
    host.run(*make, environment=environment, reason=f"uv could not make an environment with {params['python']}.")
    # A call for each file: each is a lock of its own.
    for lock in locks:
        options = ["--quiet", "--python", venv, "--require-hashes", "--compile-bytecode"]
        install = host.as_user(name, uv, "pip", "install", *options, "--requirement", lock)
        reason = f"uv could not install {os.path.relpath(lock, host.path(name))}, which has to be locked with hashes."
        host.run(*install, environment=environment, reason=reason)
    host.run("chown", "-R", "-h", "root:root", host.path(name))
    host.run("chmod", "-R", "go-w", host.path(name))  # uv's lock file is open to everybody
    # Imports are three times as fast with it. A file that does not compile is no fault until something imports it.
    # This runs as root, so not by the environment's python: it would run what packages hooked into its start.
    host.succeeds(params["python"], "-I", "-m", "compileall", "-q", host.path(name, "app"))


def seal(host: Host, name: str) -> None:
    """Write release.json, in one piece: from now on the release is whole."""
    built_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    facts = {"name": name, "source": host.module.params["origin"], "built": built_at}
    unfinished = host.path(name, ".release.json")
    with open(unfinished, "w", encoding="utf-8") as target:
        json.dump(facts, target, indent=2)
        target.write("\n")
        target.flush()
        os.fsync(target.fileno())
    os.rename(unfinished, host.path(name, "release.json"))


def difference(host: Host) -> list[dict[str, str]]:
    """Return how the files of the new release differ from those of the live one, as Ansible's diffs."""
    live = host.live()
    diffs: list[dict[str, str]] = []
    if not live:
        return diffs
    for file, after in sorted(host.module.params["files"].items()):
        before = read(host.path(live, "etc", file))
        if before != after:
            headers = {
                f"{side}_header": f"{file} ({which} release)" for side, which in (("before", "live"), ("after", "new"))
            }
            diffs.append({"before": before, "after": after, **headers})
    return diffs


# -- live -------------------------------------------------------------------------------------------------------------


def live(host: Host) -> Result:
    """Start the release and put it live, if it is not; return what to tell."""
    name, previous = host.module.params["name"], host.live()
    result = {"changed": False, "name": name, "path": host.path(name), "previous": previous, "pruned": []}
    if name == previous and host.up(name) and host.enabled(name):
        return result
    result.update(changed=True, diff={"before": f"live: {previous}\n", "after": f"live: {name}\n"})
    if host.module.check_mode:
        return result
    start(host, name)
    switch(host, name)
    result["pruned"] = retire(host, name, previous)
    return result


def start(host: Host, name: str) -> None:
    """Install, start and enable the units of a release; on failure leave nothing of it running or enabled."""
    host.step = "start"
    if not host.whole(name):
        raise StepError(f"{host.path(name)} is missing, or was not built to its end.")
    units = host.units(name)
    try:
        for kind, unit in zip(KINDS, units, strict=True):
            shutil.copyfile(host.path(name, "etc", kind), os.path.join(UNITS, unit))
        host.run("systemctl", "daemon-reload")
        if not host.succeeds("systemctl", "start", *units) or not host.up(name):
            # Everything that the process wrote has to be in the journal before it is read.
            host.run("journalctl", "--sync")
            log = host.run("journalctl", "--no-pager", "--output=cat", "--lines=60", f"--unit={units[1]}")
            raise StepError("its service did not start. The last lines of its journal:", cause(log))
        host.run("systemctl", "enable", "--quiet", *units)
    except (StepError, OSError):
        if name != host.live():
            stop(host, name)
        raise


def switch(host: Host, name: str) -> None:
    """Put the release live: one rename(2), so that at every moment exactly one release is live."""
    host.step = "go live"
    os.utime(host.path(name))  # when it last went live; retire() keeps the most recent ones
    new = f"{host.link}.new"
    if os.path.lexists(new):
        os.unlink(new)
    os.symlink(os.path.join("releases", name), new)
    os.rename(new, host.link)


def retire(host: Host, name: str, previous: str) -> list[str]:
    """Stop all other releases and remove the oldest, never the one before; return the names of the removed ones."""
    host.step = "retire"
    others = [entry.name for entry in os.scandir(host.releases) if entry.is_dir() and entry.name != name]
    for other in others:
        stop(host, other)
    last_live = {release: os.stat(host.path(release)).st_mtime for release in [name, *others]}
    # Releases that were built and did not start are younger than the one before; they do not push it out.
    gone = prunable(last_live, host.module.params["keep"], [name, previous])
    for release in gone:
        shutil.rmtree(host.path(release))
    return gone


def installed(host: Host, name: str) -> list[str]:
    """Return the units of a release that are installed: one of the two, where a start was cut off."""
    return [unit for unit in host.units(name) if os.path.exists(os.path.join(UNITS, unit))]


def waiting(host: Host, name: str) -> int:
    """Return how many connections wait in the queue of a release's socket for a worker to accept them."""
    # State, Recv-Q and the rest, for the one socket of this path; no line when it does not listen.
    line = host.run("ss", "--unix", "--listening", "--numeric", "--no-header", "src", host.socket(name)).split()
    return int(line[2]) if line else 0


def drain(host: Host, name: str) -> None:
    """Stop the service of a release that is no longer live once nothing waits for it; its socket goes on listening.

    Since the rename every connection is made to the live release, but two kinds still come to this one: those in its
    queue, and that of a web server's process which had resolved the link and was not yet through connect(2). The first
    are waited for. The second end up in the queue too, since the socket still listens; they are caught by a look after
    the service has stopped, which finishes what it accepted. Only a process that is kept off the CPU between the two
    halves of one system call for the whole time, three looks and a graceful stop, would come too late.

    It takes no longer than systemd would wait for the service to stop: after that nobody waits for an answer.
    """
    service = host.units(name)[KINDS.index("service")]
    patience = timespan(host.run("systemctl", "show", "--value", "--property=TimeoutStopUSec", service))
    deadline, empty = time.monotonic() + patience, 0
    while time.monotonic() < deadline and host.succeeds("systemctl", "is-active", "--quiet", service):
        empty = 0 if waiting(host, name) else empty + 1
        if empty < LOOKS:
            time.sleep(LOOK_SECONDS)
            continue
        host.run("systemctl", "stop", service)
        if waiting(host, name):
            # systemd starts it for them by itself, as the socket is its trigger; this waits until it is up.
            host.succeeds("systemctl", "start", service)
            empty = 0
    left = waiting(host, name)
    if left:
        host.module.warn(f"Release {name} is stopped with {left} connections waiting for it: it did not answer them.")


def stop(host: Host, name: str) -> None:
    """Stop a release gracefully, and forget those of its units that are installed."""
    units = installed(host, name)
    if not units:
        return
    host.run("systemctl", "disable", "--quiet", *units)
    drain(host, name)
    host.run("systemctl", "stop", *units)
    # There is nothing to reset where nothing had failed, which is an error to systemctl.
    host.succeeds("systemctl", "reset-failed", *units)
    for unit in units:
        os.unlink(os.path.join(UNITS, unit))
    host.run("systemctl", "daemon-reload")


def main() -> None:
    """Read the arguments, do what the state asks for, and say what happened."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["checked", "built", "live"], "required": True},
            "app": {"type": "str"},
            "root": {"type": "path"},
            "user": {"type": "str"},
            "source": {"type": "path"},
            "needs": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "dict", "default": {}},
            "requirements": {"type": "list", "elements": "str", "default": []},
            "link": {"type": "path"},
            "python": {"type": "path"},
            "uv": {"type": "path"},
            "environment": {"type": "dict", "default": {}, "no_log": True},
            "name": {"type": "str"},
            "archive": {"type": "path"},
            "origin": {"type": "str", "default": ""},
            "keep": {"type": "int", "default": 5},
        },
        required_if=[
            ("state", "built", ("app", "root", "user", "source", "python", "uv", "name")),
            ("state", "live", ("app", "root", "name")),
        ],
        supports_check_mode=True,
    )
    host = Host(module)
    try:
        module.exit_json(**{"built": built, "live": live}[module.params["state"]](host))
    except (StepError, OSError) as error:
        name, now = module.params["name"], host.live()
        stays = f"{now} stays live." if now and now != name else "No other release is live."
        text = f"Release {name} of {host.app}, step {host.step}: {error}"
        log = error.log if isinstance(error, StepError) else ""
        module.fail_json(msg="\n".join(filter(None, [text, log, stays])), name=name, step=host.step)


if __name__ == "__main__":
    main()
