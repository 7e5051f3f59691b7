"""Renders the templates of a role as a run of the role would, by Ansible's own engine and without a host."""

from __future__ import annotations

from pathlib import Path

from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, generate_ansible_template_vars, trust_as_template

ROLES = Path(__file__).resolve().parents[2] / "roles"


def role_variables(role: str) -> dict[str, object]:
    """Give the role's own defaults and internal variables, as Ansible reads them and not yet templated.

    role: name of a directory in roles/.
    """
    variables: dict[str, object] = {}
    for part in ("defaults", "vars"):
        path = ROLES / role / part / "main.yml"
        if path.exists():
            variables.update(DataLoader().load_from_file(str(path), trusted_as_template=True) or {})
    return variables


def lines(text: str, comment: str = "#") -> list[str]:
    """Give the lines that a program reads: without indentation, comments and empty ones.

    text: a file. comment: what its comments begin with.
    """
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith(comment)]


def render(role: str, template: str, **overrides: object) -> str:
    """Render one template with the role's real defaults.

    role: name of a directory in roles/. template: file in the role's templates/, for example `nginx.conf.j2`.
    overrides: what an inventory would say; text is taken as it is, not as a template.

    Returns the text that would be written on the host. Raises AnsibleError when a variable is undefined or
    the template has a fault.
    """
    path = ROLES / role / "templates" / template
    # The settings are those of ansible.builtin.template: blocks are trimmed, the rest stays as written.
    variables = {
        "ansible_check_mode": False,
        "inventory_hostname": "host",
        **generate_ansible_template_vars(path=template, fullpath=str(path)),
        **role_variables(role),
        **overrides,
    }
    # Where a template looks for what it includes.
    templar = Templar(loader=DataLoader(), variables=variables).copy_with_new_env(searchpath=[str(path.parent)])
    text = templar.template(
        trust_as_template(path.read_text(encoding="utf-8")),
        escape_backslashes=False,
        overrides={"trim_blocks": True, "lstrip_blocks": False, "newline_sequence": "\n"},
    )
    return str(text)


def is_managed(text: str) -> bool:
    """Say whether a file opens with the managed header, in comments of `#`, and holds no template syntax."""
    return text.startswith("#\n# Ansible managed\n#\n") and "{{" not in text and "{%" not in text


def section(text: str, name: str) -> list[str]:
    """Give the lines of the one section of a unit or an ini file that is called so.

    Raises ValueError when there is not exactly one.
    """
    (found,) = [part for part in "\n".join(lines(text)).split("\n[") if part.lstrip("[").startswith(f"{name}]")]
    return found.splitlines()[1:]
