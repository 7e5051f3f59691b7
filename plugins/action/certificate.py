"""The controller's side of slipway.wsgi.certificate: reads the user's files, and refuses what could not be served."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.slipway.wsgi.plugins.plugin_utils import pair
from cryptography import x509


class ActionModule(ActionBase):
    """See the documentation of the module of the same name."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Do what `state` asks for; see the module's documentation for arguments and results.

        Raises:
            AnsibleActionFail: the certificate could not be served, or not be issued.
        """
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if arguments.get("state") == "checked":
            verdict = self._judge(arguments)
            if verdict.faults:
                lines = ["The certificate is refused, and nothing changes:", *verdict.faults]
                raise AnsibleActionFail("\n".join(lines))
            return {**result, "changed": False, "warnings": verdict.warnings}
        if arguments.get("source") == "files":
            arguments["fullchain"] = self._text(arguments, "fullchain").decode()
            arguments["key"] = self._text(arguments, "key").decode()
        answer: dict[str, Any] = self._execute_module(module_args=arguments, task_vars=task_vars)
        return {**result, **answer}

    def _judge(self, arguments: Mapping[str, Any]) -> pair.Verdict:
        """Judge the user's files, or what an authority is asked for."""
        if arguments["source"] == "files":
            fullchain, key = (self._text(arguments, name) for name in ("fullchain", "key"))
            return pair.judge(fullchain, key, arguments["names"], datetime.now(UTC))
        if arguments["source"] != "acme":
            return pair.Verdict()
        acme: dict[str, Any] = arguments["acme"]
        faults = pair.acme_faults({**acme, "names": arguments["names"]})
        if acme["dns_hook"]:
            self._content("certificate_acme_dns_hook", acme["dns_hook"])
        if acme["ca"]:
            try:
                x509.load_pem_x509_certificates(self._content("certificate_acme_ca", acme["ca"]))
            except ValueError:
                faults.append(f"certificate_acme_ca is '{acme['ca']}', which holds no certificate in PEM.")
        return pair.Verdict(faults)

    def _text(self, arguments: Mapping[str, Any], name: str) -> bytes:
        """Return the user's file that an argument names."""
        return self._content(f"certificate_{name}", str(arguments.get(name) or ""))

    def _content(self, variable: str, path: str) -> bytes:
        """Return what a file on the controller holds, decrypted if ansible-vault has encrypted it.

        Raises:
            AnsibleActionFail: there is none, or it cannot be read.
        """
        if not path.startswith("/"):
            raise AnsibleActionFail(
                f"{variable} is '{path}'; accepted is the absolute path of a file on the controller."
            )
        try:
            return Path(self._loader.get_real_file(path)).read_bytes()
        except (AnsibleError, OSError) as error:
            raise AnsibleActionFail(f"{variable} is '{path}', which cannot be read here: {error}") from error
