"""The controller's side of slipway.wsgi.release: brings the source here once, and to hosts that have not got it."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.slipway.wsgi.plugins.module_utils import dependencies, releases, source
from ansible_collections.slipway.wsgi.plugins.plugin_utils import hold

# What a release's name follows from, beside its source and its secrets.
OF_THE_NAME = ("files", "environment", "plan", "requirements", "shared", "python")


class ActionModule(ActionBase):
    """See the documentation of the module of the same name."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do what `state` asks for; see the module's documentation for arguments and results.

        Raises:
            AnsibleActionFail: the source is not there, lacks a file that is needed, or cannot be released.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        arguments["who"] = f"{getpass.getuser()}@{socket.gethostname()}"
        run = Path(constants.DEFAULT_LOCAL_TMP).name  # every run has one of its own
        arguments["run"] = f"{arguments['who']}, process {hold.main_process()}, {run}"
        steps = {"checked": self._check, "fetched": self._fetch, "built": self._build, "locked": self._lock}
        try:
            step = steps.get(str(arguments.get("state")), self._module)
            return {**result, **step(arguments, task_vars)}
        except (source.SourceError, dependencies.DependencyError, hold.HoldError) as error:
            raise AnsibleActionFail(str(error)) from error

    def _module(self, arguments: Mapping[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run the module on the host."""
        result: dict[str, Any] = self._execute_module(module_args=dict(arguments), task_vars=task_vars)
        return result

    def _lock(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Take the lock on the host, and tie it to the life of ansible-playbook."""
        result = self._module(arguments, task_vars)
        if "fifo" in result:
            hold.keep_alive(self._connection, result["fifo"])
        return result

    def _wanted(self, arguments: Mapping[str, Any]) -> source.Wanted:
        """Return what the arguments say about the source."""
        fields = ("source", "ref", "checksum", "subdirectory", "deploy_key", "token")
        return source.Wanted(**{field: str(arguments.get(field) or "") for field in fields})

    def _check(self, arguments: Mapping[str, Any], _: dict[str, Any] | None) -> dict[str, Any]:
        """Refuse what cannot be a source; a directory is looked into as well: nothing has to be fetched for it."""
        wanted = self._wanted(arguments)
        source.check(wanted)
        if not wanted.ref and not wanted.checksum:
            self._look(source.fetch(wanted, Path(constants.DEFAULT_LOCAL_TMP)), arguments)
        return {}

    def _look(self, fetched: source.Fetched, arguments: Mapping[str, Any]) -> None:
        """Refuse a source that lacks a file that is needed, or whose locks are none."""
        source.keep_apart(fetched.names, arguments.get("shared") or [])
        requirements: list[str] = arguments.get("requirements") or []
        beside = [needed for file in requirements for needed in dependencies.needs(file)]
        for needed in [*requirements, *beside, *(arguments.get("needs") or [])]:
            if not any(name.is_relative_to(needed) for name in fetched.names):
                there = (fetched.directory / needed).exists()
                why = "is ignored by git, so it is no part of the source" if there else "is not there"
                raise source.SourceError(f"{fetched.directory / needed} {why}, but the release needs it.")
        for file in requirements:
            dependencies.check(fetched.directory / file)

    def _fetch(self, arguments: Mapping[str, Any], _: dict[str, Any] | None) -> dict[str, Any]:
        """Bring the source to the controller and pack it: what is read here is what all hosts get."""
        workspace = Path(constants.DEFAULT_LOCAL_TMP)  # Ansible removes it when it ends
        fetched = source.fetch(self._wanted(arguments), workspace)
        self._look(fetched, arguments)
        archive = workspace / f"{fetched.digest}.tar.gz"
        source.pack(fetched.directory, fetched.names, archive)
        loose = [file for file in arguments.get("requirements") or [] if not dependencies.locked(file)]
        return {
            "archive": str(archive), "digest": fetched.digest, "origin": fetched.origin, "commit": fetched.commit,
            "warnings": [f"{file} is no lock: what it installs may differ from host to host." for file in loose],
        }  # fmt: skip

    def _build(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Ask the host for the release that the source and inputs amount to; bring the source if it has none."""
        for kind in ("environment", "secrets"):
            arguments[kind] = {name: text(value) for name, value in (arguments.get(kind) or {}).items()}
        fetched = arguments["fetched"]
        plan = {key: arguments.get(key) for key in OF_THE_NAME}
        arguments["name"] = releases.release_name(fetched["digest"], plan, arguments["secrets"])
        asked = self._module(arguments, task_vars)
        if not asked.pop("needs_archive", False):
            return asked
        # Without pipelining there is one already.
        remote = self._connection._shell.tmpdir or self._make_tmp_path()
        try:
            target = self._connection._shell.join_path(remote, "source.tar.gz")
            arguments["archive"] = self._transfer_file(fetched["archive"], target)
            return self._module(arguments, task_vars)
        finally:
            self._remove_tmp_path(remote)


def text(value: Any) -> str:
    """Return the text that an environment variable has for a value of YAML."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
