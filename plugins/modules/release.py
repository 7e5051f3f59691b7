#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Takes a release through the steps of a deploy. The action plugin of this name does the controller's part."""

from __future__ import annotations

import contextlib
import filecmp
import functools
import json
import os
import pwd
import shutil
import syslog
import time
from collections.abc import Callable
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.wsgi.plugins.module_utils import dependencies, lock, probe
from ansible_collections.slipway.wsgi.plugins.module_utils.history import NoTargetError
from ansible_collections.slipway.wsgi.plugins.module_utils.host import STATES, Host, StepError, now, read, write
from ansible_collections.slipway.wsgi.plugins.module_utils.releases import SECRET_LENGTH, quoted
from ansible_collections.slipway.wsgi.plugins.module_utils.transaction import File

DOCUMENTATION = r"""
module: release
short_description: Take a release of a WSGI app through the steps of a deploy
description:
  - A release is a directory below C(<root>/releases) that never changes, with the source, a virtual environment of its
    own, its configuration, and a systemd socket and service of its own.
  - The name of a release follows from its content, so the same source with the same inputs is the same release.
  - What is live is decided by one symbolic link, C(<root>/live). Going live and rolling back are one rename(2) of it.
  - The steps of a deploy are the states V(locked), V(fetched), V(built), V(migrated), V(started), V(live), V(retired),
    in this order. Those of a rollback are V(locked), V(chosen), V(started), V(live), V(retired).
options:
  state:
    description:
      - V(checked) only looks at what the source is said to be, on the controller.
      - V(locked) takes the lock of the app on this host for as long as ansible-playbook runs. If it ends before
        V(retired), what it put live is undone. It says whether the host has all that a deploy works with.
      - V(fetched) brings the source to the controller. To be run once for all hosts.
      - V(built) makes the release, if it is not there, and imports the app in a process of its own.
      - V(chosen) finds the releases that a rollback may go to.
      - V(migrated) runs the app's migration command. To be run once for all hosts.
      - V(started) starts the socket and service of the release, and asks each worker for the health path.
      - V(live) puts the release live and asks for the health path through the web server. If that fails it undoes it.
      - V(retired) confirms what is live, stops the other releases gracefully, and removes the oldest.
    type: str
    choices: [checked, locked, fetched, built, chosen, migrated, started, live, retired]
    required: true
  app:
    description: Name of the app.
    type: str
  root:
    description: Directory of the app on the host.
    type: path
  name:
    description: Name of the release. The action plugin derives it for O(state=built).
    type: str
  source:
    description: Directory, git URL or archive, for V(checked) and V(fetched).
    type: str
  ref:
    description: Branch, tag or commit of a git URL.
    type: str
    default: ""
  checksum:
    description: Checksum of an archive.
    type: str
    default: ""
  subdirectory:
    description: Part of the git repository or archive that is the source.
    type: str
    default: ""
  deploy_key:
    description: Private key for a git URL by ssh, its text or its path on the controller.
    type: str
    default: ""
  token:
    description: Token for a git URL or an archive by https.
    type: str
    default: ""
  needs:
    description: Files that have to be in the source, relative to it.
    type: list
    elements: str
    default: []
  requirements:
    description: Files in the source that say what has to be installed, relative to it.
    type: list
    elements: str
    default: []
  shared:
    description:
      - Directories of the source that the app writes to, relative to it. They are C(<root>/shared/<name>), outlive
        every release, and belong to the app and to O(group). The units in O(files) bring them into the release.
      - The source must have nothing in them but what keeps them in git.
    type: list
    elements: str
    default: []
  group:
    description: The web server's group. Nobody else may enter O(root), or read what the app writes to O(shared).
    type: str
    default: root
  fetched:
    description: What O(state=fetched) returned, for V(built).
    type: dict
  archive:
    description: Archive of the source on the host. Filled in by the action plugin.
    type: path
  files:
    description:
      - Files that are added to the release, by name. They end up in its directory C(etc).
      - V(service) and V(socket) are its systemd units.
      - V(requirements.txt) is what the app server needs in the environment.
    type: dict
    default: {}
  environment:
    description: Environment variables of the app.
    type: dict
    default: {}
  secrets:
    description: Environment variables of the app that are not shown anywhere.
    type: dict
    default: {}
  plan:
    description: How the release is judged, and the commands that are run for it. It becomes part of the release.
    type: dict
    default: {}
  user:
    description: The user that the app runs as and that its environment is built by.
    type: str
  link:
    description: The path of the socket that the web server knows. It must not be another app's.
    type: path
  boot:
    description:
      - For V(locked), the settings by which O(link) is made at each boot, C(/etc/tmpfiles.d/slipway-<app>.conf).
    type: str
  python:
    description: The interpreter that the environment is made with.
    type: path
  uv:
    description: Path of uv on the host.
    type: path
  build_environment:
    description: Environment variables for uv, such as an index or a proxy. They may hold secrets and are not shown.
    type: dict
    default: {}
  to:
    description: For V(chosen), the release to go to; empty for the last good one before the live one.
    type: str
    default: ""
  forward:
    description: For V(live), whether this is a deploy; V(false) for a rollback.
    type: bool
    default: true
  url:
    description: For V(live), where the web server is, such as V(http://127.0.0.1); empty to leave asking it out.
    type: str
    default: ""
  host:
    description: The host name to ask for at O(url), one that the site answers to now; a release may be older than that.
    type: str
    default: localhost
  keep:
    description: How many releases stay on the host after V(retired).
    type: int
    default: 5
  warm:
    description: Whether the release that was live before stays up without traffic after V(retired).
    type: bool
    default: false
  who:
    description: Who deploys. Filled in by the action plugin.
    type: str
    default: ""
  run:
    description: Which run of ansible-playbook this is. Filled in by the action plugin.
    type: str
    default: ""
attributes:
  check_mode:
    description: Says what would be done, and changes nothing.
    support: full
  diff_mode:
    description: Shows how the files of a new release differ from those of the live one.
    support: full
author: Slipway maintainers (@slipway)
"""

EXAMPLES = r"""
- name: Bring the source to the controller
  slipway.wsgi.release:
    state: fetched
    source: "{{ playbook_dir }}/../app"
    requirements: [requirements.txt]
  register: fetched
  run_once: true

- name: Build a release
  slipway.wsgi.release:
    state: built
    app: hello
    root: /srv/hello
    user: hello
    fetched: "{{ fetched }}"
    files: "{{ __app_server_files }}"
    requirements: [requirements.txt]
    plan: "{{ plan }}"
    python: /usr/bin/python3
    uv: /opt/slipway/uv/bin/uv
  register: release

- name: Put it live
  slipway.wsgi.release:
    state: live
    app: hello
    root: /srv/hello
    name: "{{ release.name }}"
    url: http://127.0.0.1
"""

RETURN = r"""
name:
  description: Name of the release.
  returned: O(state=built) and later states
  type: str
  sample: 3f2a9c1b7d10
path:
  description: Its directory.
  returned: O(state=built) and O(state=live)
  type: str
prepared:
  description: Whether user, uv, C(ss) and O(boot) are there, so that nothing has to be installed or written.
  returned: O(state=locked)
  type: bool
settled:
  description: Whether the release is live and nothing is left to do.
  returned: O(state=built)
  type: bool
back:
  description: Whether this is a rollback.
  returned: O(state=built)
  type: bool
targets:
  description: The releases that a rollback may go to, the best first.
  returned: O(state=chosen)
  type: list
  elements: str
good:
  description: The releases that are there and were not undone.
  returned: O(state=chosen)
  type: list
  elements: str
live:
  description: The live release, empty if there is none.
  returned: O(state=chosen)
  type: str
digest:
  description: Digest of the source.
  returned: O(state=fetched)
  type: str
commit:
  description: The commit of the source, empty if there is none.
  returned: O(state=fetched)
  type: str
previous:
  description: The release that was live before, empty if there was none.
  returned: O(state=live)
  type: str
milliseconds:
  description: How long it took on the host from the start of the step until visitors met the release.
  returned: O(state=live)
  type: float
pruned:
  description: Releases that were removed.
  returned: O(state=retired)
  type: list
  elements: str
"""

Result = dict[str, Any]

TMPFILES = "/etc/tmpfiles.d"
OWNER = (0, 0)


class Deploy:
    """The steps, on one host: each method of a state's name does it and returns what to tell."""

    def __init__(self, module: AnsibleModule) -> None:
        """Take the arguments of the module."""
        self.module = module
        self.params: dict[str, Any] = module.params
        self.name: str = self.params["name"] or ""
        self.host = Host(self.params["app"], self.params["root"], module.warn)

    def told(self, **more: Any) -> Result:
        """Return what every state tells, and more."""
        return {"changed": False, "name": self.name, "path": self.host.path(self.name), **more}

    # -- locked -------------------------------------------------------------------------------------------------------

    def locked(self) -> Result:
        """Take the lock, and settle what a run that was killed with its host left."""
        host = self.host
        # Before the role writes the link.
        self.claim_link()
        host.step = "lock"
        told = {"changed": False, "prepared": self.prepared()}
        if self.module.check_mode:
            return told
        lost = functools.partial(undo_unconfirmed, host.app, host.root)
        fifo = lock.hold(host.app, self.params["who"], self.params["run"], lost)
        with lock.busy(host.app):
            history = host.history()
            if history.pending and history.pending["release"] == host.live():
                # Nobody was left to undo it, and visitors have been served by it since.
                self.module.warn(f"Release {host.live()} went live and was not confirmed. It is taken as good.")
                history.confirm(now(), self.params["who"])
                host.remember(history)
            elif history.pending:
                history.undo("its deploy was cut off before it went live")
                host.remember(history)
        return {**told, "fifo": fifo}

    def prepared(self) -> bool:
        """Say whether the host has all that a deploy works with: tasks that see to each cost a round trip each."""
        boot = File(os.path.join(TMPFILES, f"slipway-{self.host.app}.conf"), self.params["boot"], 0o644, *OWNER)
        programs = bool(shutil.which("ss")) and os.access(self.params["uv"], os.X_OK)
        with contextlib.suppress(KeyError):
            return programs and File.at(boot.path).same(boot) and bool(pwd.getpwnam(self.params["user"]))
        return False

    # -- built --------------------------------------------------------------------------------------------------------

    def built(self) -> Result:
        """Make the release, if it is not there."""
        host, name = self.host, self.name
        os.umask(0o022)
        if host.whole(name):
            return self.told(changed=self.share(), settled=host.settled(name), back=False)
        result = self.told(changed=True, settled=False, back=False, diff=self.difference())
        if self.module.check_mode:
            return result
        if not self.params["archive"]:
            # Only now is it known that the source is wanted here: the action plugin brings it and calls again.
            return {**result, "needs_archive": True}
        self.claim_user()
        # What a killed build left; nothing ever ran from it.
        shutil.rmtree(host.path(name), ignore_errors=True)
        try:
            self.unpack()
            self.share()
            self.make_environment()
            self.check()
            self.seal()
        except BaseException:
            shutil.rmtree(host.path(name), ignore_errors=True)
            raise
        return result

    def claim_link(self) -> None:
        """Refuse a link for the web server that leads to another app: its visitors would be served by this one."""
        self.host.step = "check"
        link, target = self.params["link"], os.path.join(self.host.link, "uwsgi.sock")
        if link and os.path.lexists(link) and (not os.path.islink(link) or os.readlink(link) != target):
            owner = os.readlink(link) if os.path.islink(link) else "something that Slipway did not make"
            raise StepError(f"{link} belongs to another app ({owner}). Give this one an app_link of its own.")

    def claim_user(self) -> None:
        """Refuse a user that another app runs as: each could read what the other has."""
        self.host.step = "check"
        user, states = self.params["user"], STATES
        others = [entry for entry in os.scandir(states) if entry.name != self.host.app] if os.path.isdir(states) else []
        for entry in others:
            if entry.stat(follow_symlinks=False).st_uid == pwd.getpwnam(user).pw_uid:
                raise StepError(f"the user {user} is that of the app {entry.name} (it owns {entry.path}). "
                                "Give this one an app_user of its own.")  # fmt: skip

    def unpack(self) -> None:
        """Lay out the release: the source, the files that Slipway adds, and where its socket will be."""
        host, name, params = self.host, self.name, self.params
        host.step = "fetch"
        os.makedirs(host.path(name, "app"))
        os.makedirs(host.path(name, "etc"))
        # Neither other users of the host nor other apps enter; this one is led into its release by its unit.
        os.chmod(host.root, 0o750)
        host.run("chown", f"root:{params['group']}", host.root)
        host.run("tar", "-xzf", params["archive"], "--no-same-owner", "-C", host.path(name, "app"))
        for directory in params["shared"]:
            # Empty: the unit puts the shared directory in its place.
            os.makedirs(host.path(name, "app", directory), exist_ok=True)
        for file, text in self.files().items():
            write(host.path(name, "etc", file), text)
        # Only root reads these: systemd gives them to the app, and to the build.
        os.umask(0o077)
        for file, kind in (("environment", "environment"), ("secrets", "secrets"), ("build", "build_environment")):
            write(host.path(name, "etc", file), quoted(params[kind]))
        os.umask(0o022)
        os.symlink(host.socket(name), host.path(name, "uwsgi.sock"))

    def share(self) -> bool:
        """Make the shared directories that are not there; return whether there were any, or would be in check mode."""
        places = [os.path.join(self.host.root, "shared", directory) for directory in self.params["shared"]]
        missing = [place for place in places if not os.path.isdir(place)]
        for place in missing if not self.module.check_mode else []:
            os.makedirs(place)
            self.host.run("chown", f"{self.params['user']}:{self.params['group']}", place)
            # After the owner, whose change may take it away: the bit by which what is made there gets the group.
            os.chmod(place, 0o2750)
        return bool(missing)

    def files(self) -> dict[str, str]:
        """Return {name: text} of the files that everybody may read."""
        return {**self.params["files"], "plan.json": json.dumps(self.params["plan"], indent=2, sort_keys=True) + "\n"}

    def make_environment(self) -> None:
        """Make the environment as the app's user, run the hooks after it, then take all from that user again."""
        host, name, params = self.host, self.name, self.params
        host.step = "build"
        uv, venv, app = params["uv"], host.path(name, "venv"), host.path(name, "app")
        # Nothing else is the user's: who may write beside it could swap the units, which systemd runs as root.
        os.mkdir(venv)
        shutil.chown(venv, params["user"])
        make = [uv, "venv", "--quiet", "--python", params["python"], venv]
        self.as_user(*make, reason=f"uv could not make an environment with {params['python']}")
        # A call for each file: each is a lock of its own.
        for file in params["requirements"]:
            command = dependencies.install(uv, venv, os.path.join(app, file))
            self.as_user(*command, reason=f"uv could not install {file}")
        if "requirements.txt" in params["files"]:
            command = dependencies.install(uv, venv, host.path(name, "etc", "requirements.txt"))
            self.as_user(*command, reason="uv could not install the app server")
        os.unlink(host.path(name, "etc", "build"))
        if params["plan"]["hooks"].get("after_build"):
            host.step = "after_build"
            host.run("chown", "-R", "-h", f"{params['user']}:", app)
            host.hooks("after_build", name, writable=app)
        host.step = "build"
        host.run("chown", "-R", "-h", "root:root", host.path(name))
        host.run("chmod", "-R", "go-w", host.path(name))  # uv's lock file is open to everybody
        self.keep_times()
        # Imports are three times as fast with it. A file that does not compile is no fault until something imports it.
        # This runs as root, so not by the environment's python: it would run what packages hooked into its start.
        host.succeeds(params["python"], "-I", "-m", "compileall", "-q", app)

    def keep_times(self) -> None:
        """Give what is as in the live release the time that it has there: by it browsers learn that it has not changed.

        A clone of git's and what is made by a hook have the time of the deploy, whether they have changed or not.
        """
        new, live = (self.host.path(name, "app") for name in (self.name, self.host.live()))
        for where, _, files in os.walk(new):
            for file in files:
                path = os.path.join(where, file)
                twin = os.path.join(live, os.path.relpath(path, new))
                if os.path.isfile(twin) and not os.path.islink(path) and filecmp.cmp(path, twin, shallow=False):
                    found = os.stat(twin)
                    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))

    def as_user(self, *command: str, reason: str) -> None:
        """Run a command of the build as the app's user, who may write to nothing but its environment.

        Building runs code of the packages being built, so it gets no more rights than the app that will import them.
        """
        host, cache, params = self.host, f"slipway/{self.host.app}", self.params
        properties = {
            "User": params["user"],
            "ProtectSystem": "strict",
            "ProtectHome": "yes",
            "PrivateTmp": "yes",
            "NoNewPrivileges": "yes",
            "UMask": "0022",
            "PrivateUsers": "yes",
            "TemporaryFileSystem": f"{host.root}:ro",
            "BindReadOnlyPaths": host.path(self.name),
            "BindPaths": host.path(self.name, "venv"),
            "CacheDirectory": cache,
            "WorkingDirectory": host.path(self.name, "app"),
            # Only systemd reads it. A command line, and the environment that a unit is said to have, are for everybody.
            "EnvironmentFile": host.path(self.name, "etc", "build"),
        }
        variables = {"UV_CACHE_DIR": f"/var/cache/{cache}", "UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never"}
        variables |= dependencies.variables(host.path(self.name, "venv"))
        call = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect"]
        call += [f"--property={key}={value}" for key, value in properties.items()]
        call += [f"--setenv={key}={value}" for key, value in variables.items()]
        host.run(*call, *command, reason=f"{reason}.")

    def check(self) -> None:
        """Import the app in a process of its own, as its user and in its sandbox."""
        self.host.step = "check"
        plan = self.params["plan"]
        program, *arguments = plan["check"]
        command = [self.host.path(self.name, "venv", "bin", program), *arguments]
        self.host.run_in(
            self.name, command, plan["start_timeout"], "importing the app", expected=plan["check_exit_code"]
        )

    def seal(self) -> None:
        """Write release.json, in one piece: from now on the release is whole."""
        fetched = self.params["fetched"]
        facts = {
            "name": self.name, "source": fetched["origin"], "commit": fetched["commit"], "built": now(),
            "by": self.params["who"],
        }  # fmt: skip
        write(self.host.path(self.name, "release.json"), json.dumps(facts, indent=2) + "\n")

    def difference(self) -> list[dict[str, str]]:
        """Return how the files of the new release differ from those of the live one, as Ansible's diffs."""
        host, live = self.host, self.host.live()
        diffs: list[dict[str, str]] = []
        for file, after in sorted({**self.files(), "environment": quoted(self.params["environment"])}.items()):
            before = read(host.path(live, "etc", file))
            if live and before != after:
                headers = {f"{side}_header": f"{file} ({which} release)" for side, which in SIDES.items()}
                diffs.append({"before": before, "after": after, **headers})
        return diffs

    # -- chosen, migrated, started ------------------------------------------------------------------------------------

    def chosen(self) -> Result:
        """Find the releases that a rollback may go to."""
        host = self.host
        host.step = "choose"
        history, live, there = host.history(), host.live(), host.all()
        targets = history.targets(live, there, self.params["to"])
        return {"changed": False, "targets": targets, "live": live, "good": sorted(set(there) - set(history.bad))}

    def migrated(self) -> Result:
        """Run the app's migration command, if it has one."""
        host = self.host
        host.step = "migrate"
        if self.module.check_mode and not host.whole(self.name):
            return self.told(changed=True)
        command = host.plan(self.name)["migrate"]
        if command and not self.module.check_mode:
            host.shell(self.name, "migration", command)
        return self.told(changed=bool(command))

    def started(self) -> Result:
        """Start the release, if it is not up, ask each of its workers for the health path, and run the hooks before."""
        host, name = self.host, self.name
        host.step = "start"
        up = host.ready(name)
        if self.module.check_mode or (up and name == host.live()):
            return self.told(changed=not up)
        if not up:
            host.start(name)
        try:
            host.step = "probe"
            plan = host.plan(name)
            probe.workers(host.socket(name), probe.Health(**plan["health"]), plan["workers"])
            host.step = "before_live"
            host.hooks("before_live", name)
        except (StepError, probe.Unhealthy, OSError) as error:
            told = self.with_journal(error)
            if name != host.live():
                host.stop(name, visited=False)
            raise told from error
        return self.told(changed=not up)

    def with_journal(self, error: Exception) -> StepError:
        """Return the error with the last lines of the service, which tell why it answered as it did."""
        if isinstance(error, StepError):
            return error
        # It came up, so without a traceback only what it said last is of interest.
        log = self.host.journal(self.name)
        log = log if "Traceback" in log else "\n".join(log.splitlines()[-5:])
        return StepError(f"{error} The last lines of its journal:", log)

    # -- live ---------------------------------------------------------------------------------------------------------

    def live(self) -> Result:
        """Put the release live, see that the web server hands it visitors; take it back if anything goes wrong."""
        began = time.monotonic()
        host, name, previous = self.host, self.name, self.host.live()
        host.step = "go live"
        if name == previous:
            return self.told(previous=previous)
        result = self.told(changed=True, previous=previous)
        result["diff"] = {"before": f"live: {previous}\n", "after": f"live: {name}\n"}
        if self.module.check_mode:
            return result
        history = host.history()
        history.begin(name, previous, self.params["forward"])
        host.remember(history)
        host.switch(name)
        result["milliseconds"] = round((time.monotonic() - began) * 1000, 1)
        try:
            host.step = "verify"
            if self.params["url"]:
                health = probe.Health(**host.plan(name)["health"] | {"host": self.params["host"]})
                probe.website(self.params["url"] + health.path, health)
            host.step = "after_live"
            host.hooks("after_live", name)
        except (StepError, probe.Unhealthy, OSError) as error:
            told = self.with_journal(error)
            try:
                host.undo(f"step {host.step}: {error}")
            except (StepError, OSError) as second:
                raise StepError(f"{told} It could not be undone: {second}", told.log) from error
            raise told from error
        return result

    # -- retired ------------------------------------------------------------------------------------------------------

    def retired(self) -> Result:
        """Confirm what is live, stop what is neither live nor to be kept warm, and remove the oldest releases."""
        host, params = self.host, self.params
        host.step = "retire"
        result = self.told(pruned=[])
        if self.module.check_mode:
            return result
        if self.name != host.live():
            raise StepError("it is not live any more, so nothing is retired.")
        history = host.history()
        before = history.stored()
        previous = history.pending.get("previous", history.warm)
        history.confirm(now(), params["who"])
        history.warm = previous if params["warm"] and previous and host.ready(previous) else ""
        host.remember(history)
        over = host.stop_all_but(self.name, history.warm)
        built = {name: facts["built"] for name, facts in host.all().items()}
        # Left from a run that was killed: none is running, this holds the lock.
        unfinished = host.unfinished()
        result["pruned"] = history.prunable(self.name, built, params["keep"], host.led_to(host.previous))
        for release in result["pruned"]:
            # First of all, or what is left when this is killed counts as whole.
            os.unlink(host.path(release, "release.json"))
        for path in [*unfinished, *map(host.path, result["pruned"])]:
            shutil.rmtree(path)
        for release in result["pruned"]:
            history.forget(release)
        host.remember(history)
        result["changed"] = bool(over or unfinished or result["pruned"]) or before != history.stored()
        return result


SIDES = {"before": "live", "after": "new"}


def undo_unconfirmed(app: str, root: str) -> None:
    """Undo a switch that nobody will confirm any more, because ansible-playbook has ended or cannot be heard."""
    host = Host(app, root, lambda words: syslog.syslog(syslog.LOG_WARNING, words))
    with lock.busy(app, wait=True):
        undone = host.undo("ansible-playbook ended, or its connection was lost, before this release was confirmed")
        host.stop_all_but(host.live(), host.history().warm)  # one that was started and did not go live
    if undone:
        host.warn(f"Release {undone} of {app} was undone: nobody confirmed it. {host.live() or 'None'} is live.")


def main() -> None:
    """Read the arguments, do what the state asks for, and say what happened."""
    states = ["checked", "locked", "fetched", "built", "chosen", "migrated", "started", "live", "retired"]
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": states, "required": True},
            "app": {"type": "str"},
            "root": {"type": "path"},
            "name": {"type": "str"},
            "source": {"type": "str"},
            "ref": {"type": "str", "default": ""},
            "checksum": {"type": "str", "default": ""},
            "subdirectory": {"type": "str", "default": ""},
            "deploy_key": {"type": "str", "default": "", "no_log": True},
            "token": {"type": "str", "default": "", "no_log": True},
            "needs": {"type": "list", "elements": "str", "default": []},
            "requirements": {"type": "list", "elements": "str", "default": []},
            "shared": {"type": "list", "elements": "str", "default": []},
            "group": {"type": "str", "default": "root"},
            "fetched": {"type": "dict"},
            "archive": {"type": "path"},
            "files": {"type": "dict", "default": {}},
            "environment": {"type": "dict", "default": {}},
            "secrets": {"type": "dict", "default": {}, "no_log": True},
            "plan": {"type": "dict", "default": {}},
            "user": {"type": "str"},
            "link": {"type": "path"},
            "boot": {"type": "str"},
            "python": {"type": "path"},
            "uv": {"type": "path"},
            "build_environment": {"type": "dict", "default": {}, "no_log": True},
            "to": {"type": "str", "default": ""},
            "forward": {"type": "bool", "default": True},
            "url": {"type": "str", "default": ""},
            "host": {"type": "str", "default": "localhost"},
            "keep": {"type": "int", "default": 5},
            "warm": {"type": "bool", "default": False},
            "who": {"type": "str", "default": ""},
            "run": {"type": "str", "default": ""},
        },
        required_if=[
            ("state", "locked", ("app", "root", "user", "uv", "boot")),
            ("state", "built", ("app", "root", "user", "fetched", "python", "uv", "name")),
            ("state", "chosen", ("app", "root")),
            *(("state", state, ("app", "root", "name")) for state in ("migrated", "started", "live", "retired")),
        ],
        supports_check_mode=True,
    )
    deploy = Deploy(module)
    host, state = deploy.host, module.params["state"]
    try:
        module.exit_json(**guarded(deploy, getattr(deploy, state), state))
    except (StepError, NoTargetError, lock.Held, lock.Lost, OSError) as error:
        # Line by line, as a journal has no longer texts; and as it looks where an error shows it as a literal.
        secret = [*host.secrets(deploy.name), *map(str, module.params["secrets"].values())]
        secret += [literal(text)[1:-1] for text in secret for literal in (repr, json.dumps)]
        module.no_log_values.update(line for text in secret for line in text.splitlines() if len(line) >= SECRET_LENGTH)
        live = host.live()
        stays = f"{live} is live." if live else "No release is live."
        release = f"Release {deploy.name} of {host.app}" if deploy.name else host.app
        log = error.log if isinstance(error, StepError) else ""
        text = "\n".join(filter(None, [f"{release}, step {host.step}: {error}", log, stays]))
        module.fail_json(msg=text, name=deploy.name, step=host.step)


def guarded(deploy: Deploy, step: Callable[[], Result], state: str) -> Result:
    """Do a step while this run has the lock, and while no step of another run is still at work on this host."""
    if deploy.module.check_mode or state in ("locked", "chosen"):
        return step()
    with lock.busy(deploy.host.app):
        lock.check(deploy.host.app, deploy.params["run"])
        return step()


if __name__ == "__main__":
    main()
