"""Action plugin slipway.wsgi.inputs; its documentation is in plugins/modules/inputs.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError, AnsibleUndefinedVariable
from ansible.module_utils.common.yaml import yaml_load
from ansible.parsing.vault import VaultHelper
from ansible.plugins.action import ActionBase
from ansible_collections.slipway.wsgi.plugins.module_utils import rules as slipway


class ActionModule(ActionBase):
    """Check a role's inputs on the controller and refuse all that cannot work, at once."""

    _requires_connection = False
    _supports_check_mode = True
    _supports_async = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Check the inputs.

        Args:
            tmp: unused.
            task_vars: all variables of the host.

        Returns:
            The result of the task: never changed, failed when an input is refused, all faults in ``msg``.

        Raises:
            AnsibleActionFail: the task is not in a role, or the role's own rules are wrong.
        """
        variables = task_vars or {}
        result: dict[str, Any] = super().run(tmp, variables)
        _, arguments = self.validate_argument_spec(argument_spec={"rules": {"type": "dict", "default": {}}})
        rules: Mapping[str, Any] = arguments["rules"]
        if "role_path" not in variables:
            raise AnsibleActionFail("slipway.wsgi.inputs checks the inputs of a role: call it from a task of one")
        role = Path(variables["role_path"])
        options = self._options(role)
        if wrong := slipway.audit(rules, options):
            raise AnsibleActionFail(f"the rules of role {role.name} are wrong: {'; '.join(wrong)}")

        faults = self._undefined(role, options, variables)
        for name, option in options.items():
            faults += self._judge(name, option, rules.get(name, {}), variables)
        faults += [slipway.misspelling(*pair) for pair in slipway.misspelt(variables, self._known(role))]

        if faults:
            count = "1 input is" if len(faults) == 1 else f"{len(faults)} inputs are"
            lines = [f"{count} refused, and role {role.name} changes nothing:", *map(str, faults)]
            return result | {"failed": True, "changed": False, "msg": "\n".join(lines)}
        return result | {"changed": False, "msg": f"Role {role.name}: all {len(options)} inputs are accepted"}

    def _judge(
        self, name: str, option: slipway.Option, rule: slipway.Rule, variables: Mapping[str, Any]
    ) -> list[slipway.Fault]:
        """Fill in one input's templates and check it; what cannot be filled in is a fault too."""
        names = [alias for alias in (name, *option.get("aliases", [])) if alias in variables]
        if not names:
            return [slipway.missing(name, option, rule)] if option.get("required") else []
        raw = variables[names[0]]
        try:
            value = self._templar.template(raw)
        except AnsibleUndefinedVariable as error:
            return [_unresolved(names[0], error, option, rule, "Set what is undefined in the inventory.")]
        except AnsibleError as error:
            faults = [_unresolved(names[0], error, option, rule)]
        else:
            faults = slipway.judge(names[0], value, option, rule, secret=_vaulted(value))
        if faults and (origins := slipway.origins(raw, variables)):
            hint = f"It comes from {' and '.join(sorted(origins))}."
            faults = [replace(fault, reason=f"{fault.reason} {hint}".strip()) for fault in faults]
        return faults

    def _undefined(self, role: Path, options: Mapping[str, Any], variables: Mapping[str, Any]) -> list[slipway.Fault]:
        """Find shared names that are set to something undefined.

        A default such as ``app_name | default('app')`` takes them for not set at all and says nothing.
        """
        faults = []
        for name in sorted(slipway.shared(self._read(role / "defaults" / "main.yml"), options)):
            try:
                self._templar.template(variables.get(name))
            except AnsibleUndefinedVariable as error:
                faults.append(_unresolved(name, error, {"type": "raw"}, {}, "Set what is undefined in the inventory."))
            except AnsibleError:
                continue  # the input that reads it says so
        return faults

    def _options(self, role: Path) -> dict[str, dict[str, Any]]:
        """Read the options of a role's entry point main; of a neighbour without a spec there are none."""
        spec = self._read(role / "meta" / "argument_specs.yml").get("argument_specs", {})
        return dict(spec.get("main", {}).get("options") or {})

    def _read(self, path: Path) -> dict[str, Any]:
        """Read a YAML file of a role; one that is not there holds nothing.

        Not by Ansible's loader, which tags every word with its place: of all roles, for each of them, that takes long.
        """
        content = yaml_load(path.read_text()) if path.is_file() else None
        return dict(content) if isinstance(content, Mapping) else {}

    def _known(self, role: Path) -> set[str]:
        """Name the inputs of all roles beside this one, and what they share."""
        options: set[str] = set()
        defaults: dict[str, Any] = {}
        for neighbour in sorted(role.parent.iterdir()):
            found = self._options(neighbour)
            options.update(found, *(option.get("aliases", []) for option in found.values()))
            if found:
                defaults |= self._read(neighbour / "defaults" / "main.yml")
        return options | set(defaults) | set(slipway.shared(defaults, options))


def _unresolved(
    name: str, error: AnsibleError, option: slipway.Option, rule: slipway.Rule, remedy: str = ""
) -> slipway.Fault:
    """Give the fault of an input whose template cannot be filled in."""
    # The error may quote the secret.
    cause = "" if option.get("no_log") else f": {' '.join(str(error).split())}"
    words = slipway.accepted(rule, option)
    return slipway.Fault(
        name,
        accepted="" if words == "any value" else words,
        reason=remedy,
        problem=f"{name} cannot be worked out{cause}".rstrip("."),
    )


def _vaulted(value: Any) -> bool:
    """Say whether a value, or anything inside of it, came out of a vault."""
    if isinstance(value, Mapping):
        return any(_vaulted(inner) for inner in value.values())
    if isinstance(value, (list, tuple)):
        return any(_vaulted(inner) for inner in value)
    return VaultHelper.get_ciphertext(value, with_tags=False) is not None
