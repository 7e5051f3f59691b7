"""The controller's side of slipway.wsgi.release: reads the source, and sends it only to a host that has not got it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.slipway.wsgi.plugins.module_utils import releases, source


class ActionModule(ActionBase):
    """See the documentation of the module of the same name."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do what `state` asks for; see the module's documentation for arguments and results.

        Raises:
            AnsibleActionFail: the source is not there, lacks a file that is needed, or cannot be released.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        try:
            if arguments.get("state") == "checked":
                self._files(arguments)
                return result
            if arguments.get("state") == "built":
                return {**result, **self._build(arguments, task_vars)}
        except source.SourceError as error:
            raise AnsibleActionFail(str(error)) from error
        return {**result, **self._execute_module(module_args=arguments, task_vars=task_vars)}

    def _files(self, arguments: Mapping[str, Any]) -> list[Path]:
        """List the files of the source; refuse one that lacks a file that is needed."""
        directory = Path(arguments["source"])
        names = source.files(directory)
        requirements = arguments.get("requirements") or []
        for needed in [*requirements, *(arguments.get("needs") or [])]:
            if not any(name.is_relative_to(needed) for name in names):
                there = (directory / needed).exists()
                why = "is ignored by git, so it is no part of the source" if there else "is not there"
                raise source.SourceError(f"{directory / needed} {why}, but the release needs it.")
        for lock in requirements:
            source.check_lock(directory / lock)
        return names

    def _build(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Ask the host for the release that the source and inputs amount to; bring the source if it has none."""
        directory = Path(arguments["source"])
        names = self._files(arguments)
        arguments["name"] = releases.release_name(
            source.digest(directory, names),
            arguments.get("files") or {},
            arguments.get("requirements") or [],
            arguments["python"],
        )
        arguments["origin"] = source.describe(directory)
        asked: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        if not asked.pop("needs_archive", False):
            return asked
        # Without pipelining there is one already.
        remote = self._connection._shell.tmpdir or self._make_tmp_path()
        try:
            with tempfile.NamedTemporaryFile(prefix="slipway-", suffix=".tar.gz") as archive:
                source.pack(directory, names, Path(archive.name))
                arguments["archive"] = self._transfer_file(
                    archive.name, self._connection._shell.join_path(remote, "source.tar.gz")
                )
            built: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
            return built
        finally:
            self._remove_tmp_path(remote)
