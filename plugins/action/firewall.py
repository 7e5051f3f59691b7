"""The controller's side of slipway.wsgi.firewall: comes back by a new connection, or says that it could not."""

from __future__ import annotations

import select
import time
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

# How long the host may take, once it has put the old rules back, until it is reached again.
BACK_SECONDS = 30
RETRY_SECONDS = 1.0


class ActionModule(ActionBase):
    """See the documentation of the module of the same name."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Put the rules in force, and confirm them by a new connection.

        Raises:
            AnsibleActionFail: no new connection came through the rules, so the host took them back.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        result |= self._execute_module(task_vars=task_vars)
        if not result.pop("unconfirmed", False):
            return result
        try:
            confirmed = self._anew("confirmed", task_vars)
        except AnsibleConnectionFailure as error:
            raise AnsibleActionFail(
                "No new ssh connection came through the new rules of the firewall. "
                f"{self._see_it_back(task_vars)} "
                f"Does host_firewall_ssh_sources let this machine in? ssh said: {error}"
            ) from error
        return result if not confirmed.get("failed") else result | confirmed

    def _anew(self, state: str, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """Run a step of the module by a connection that is not there yet.

        Raises:
            AnsibleConnectionFailure: none can be made.
        """
        if self._connection.transport != "local":
            self._connection.reset()  # ends the kept connection, through which a rule for new ones would not be seen
        answer: dict[str, Any] = self._execute_module(module_args={"state": state}, task_vars=task_vars)
        return answer

    def _see_it_back(self, task_vars: dict[str, Any] | None) -> str:
        """Wait until the host is reached again, and return a sentence about how it is."""
        seconds = int(self._task.args.get("seconds") or 30) + BACK_SECONDS
        started = time.monotonic()
        while time.monotonic() < started + seconds:
            try:
                answer = self._anew("reverted", task_vars)
            except AnsibleConnectionFailure:
                select.select([], [], [], RETRY_SECONDS)  # nothing tells when a firewall opens
                continue
            if answer.get("failed"):
                return f"The host is reached again, but could not put the old ones back: {answer['msg']}"
            waited = f"it was reached again after {time.monotonic() - started:.0f} s"
            return f"The host has put the old ones back, which are in force and on disk; {waited}."
        return f"The host was to put the old ones back, but was not reached again within {seconds} s: use its console."
