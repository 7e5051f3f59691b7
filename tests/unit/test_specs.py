"""Defaults, specs, rules and documentation of every role in roles/ say the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible_collections.slipway.wsgi.plugins.module_utils import rules

import docs

ROOT = Path(__file__).resolve().parents[2]
ROLES = sorted(path for path in (ROOT / "roles").glob("*") if path.is_dir())
ALL = pytest.mark.parametrize("role", ROLES, ids=lambda path: path.name)


def inner(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give all options of a spec by their place, those of dictionaries too."""
    found = {}
    for name, option in options.items():
        found[prefix + name] = option
        found |= inner(option.get("options") or {}, f"{prefix}{name}.")
    return found


def loose(place: str, option: dict[str, Any], rule: dict[str, Any]) -> list[str]:
    """Name the places of an input that take any text whatever, against which no template can be safe."""
    if option.get("choices"):
        return []
    if option.get("options"):
        inside = rule.get("each", {}) if option.get("type") == "list" else rule
        each = inside.get("options") or {}
        return [
            found
            for key, inner in option["options"].items()
            for found in loose(f"{place}.{key}", inner, each.get(key, {}))
        ]
    kind = option.get("type", "str")
    if kind == "list":
        return loose(f"{place}[]", {"type": option.get("elements", "raw")}, rule.get("each", {}))
    if kind == "dict":
        return [] if {"keys", "values"} <= set(rule) else [place]
    return (
        [place] if kind in ("str", "path", "raw") and not {"format", "min", "max", "keys", "values"} & set(rule) else []
    )


def default_differences(role: docs.Role) -> list[str]:
    """Say where defaults/main.yml and the spec differ, in names or in values."""
    problems = [
        f"{name} is in defaults/main.yml and not in the spec" for name in role.defaults if name not in role.options
    ]
    for name, option in role.options.items():
        if "default" not in option:
            if name in role.defaults:
                problems.append(f"{name} has a default in defaults/main.yml and none in the spec")
            elif not option.get("required"):
                problems.append(f"{name} is neither required nor has it a default")
        elif name not in role.defaults:
            problems.append(f"{name} has a default in the spec and none in defaults/main.yml")
        elif json.dumps(option["default"]) != json.dumps(role.defaults[name]):  # 1, true and "1" are three
            problems.append(f"{name}: default {role.defaults[name]!r} is {option['default']!r} in the spec")
    return problems


def spec_problems(path: Path) -> list[str]:
    """Say what is wrong with a role's spec, defaults and rules."""
    role = docs.read(path)
    problems = [] if role.options else [f"{path.name}: meta/argument_specs.yml has no options under main"]
    problems += default_differences(role)
    problems += [
        f"{name} does not begin with {path.name}_"
        for name in sorted({*role.defaults, *role.options})
        if not name.startswith(f"{path.name}_")
    ]
    for name, option in role.options.items():
        problems += [
            f"{place} takes any text: give it a format in __{path.name}_rules, or choices"
            for place in loose(name, option, role.rules.get(name, {}))
        ]
    for place, option in inner(dict(role.options)).items():
        if option.get("type") not in rules.TYPES:
            problems.append(f"{place} has no type of {', '.join(rules.TYPES)}")
        if not option.get("description"):
            problems.append(f"{place} has no description")
    return problems + rules.audit(role.rules, role.options)


def default_problems(path: Path) -> list[str]:
    """Fill in a role's defaults by Ansible's own engine, no inventory, and judge them as the plugin does."""
    role = docs.read(path)
    templar, variables = docs.template(path)
    problems = []
    for name in role.defaults:
        try:
            value = templar.template(variables[name])
        except AnsibleError as error:
            problems.append(f"{name} cannot be worked out without an inventory: {error}")
        else:
            problems += [
                str(fault)
                for fault in rules.judge(name, value, role.options.get(name, {"type": "raw"}), role.rules.get(name))
            ]
    return problems


def validation_problems(path: Path) -> list[str]:
    """Say whether a role's validate phase calls the plugin with the role's rules."""
    file = path / "tasks" / "validate.yml"
    tasks = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else None
    rules_of = [(task.get("slipway.wsgi.inputs") or {}).get("rules") for task in tasks or []]
    if f"{{{{ __{path.name}_rules }}}}" in rules_of:
        return []
    return [f"{path.name}: tasks/validate.yml does not call slipway.wsgi.inputs with __{path.name}_rules"]


@ALL
def test_spec_defaults_and_rules_agree(role: Path) -> None:
    assert spec_problems(role) == []


@ALL
def test_defaults_pass_the_rules(role: Path) -> None:
    assert default_problems(role) == []


@ALL
def test_the_validate_phase_calls_the_plugin(role: Path) -> None:
    assert validation_problems(role) == []


def test_documentation_is_up_to_date() -> None:
    assert docs.stale(ROOT) == []


# --- the checks themselves can fail, each for its own reason ------------------------------------------------

SPEC: dict[str, Any] = {
    "edge_app": {
        "type": "str",
        "default": "{{ app_name | default('app') }}",
        "description": "Name of the <app>.",
    },
    "edge_port": {"type": "int", "default": 80, "description": ["Port.", "Of C(TCP)."]},
    "edge_sites": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "description": "Sites.",
        "options": {"name": {"type": "str", "required": True, "description": "Name | title."}},
    },
}
RULES: dict[str, Any] = {
    "edge_app": {"format": "name", "refuse": "{{ __edge_refused }}"},
    "edge_port": {"min": 1, "max": 65535},
    "edge_sites": {"optional": True, "each": {"options": {"name": {"format": "hostname"}}}},
}
VALIDATE = [{"name": "validate | Refuse", "slipway.wsgi.inputs": {"rules": "{{ __edge_rules }}"}}]


@pytest.fixture
def edge(tmp_path: Path) -> Path:
    """Give a role without a fault, in a project of its own."""
    role = tmp_path / "roles" / "edge"
    files: dict[str, Any] = {
        "meta/argument_specs.yml": {
            "argument_specs": {"main": {"short_description": "The edge", "description": "It serves.", "options": SPEC}}
        },
        "defaults/main.yml": {name: option["default"] for name, option in SPEC.items()},
        "vars/main.yml": {"__edge_refused": {"edge": "the role has it"}, "__edge_rules": RULES},
        "tasks/validate.yml": VALIDATE,
    }
    for name, content in files.items():
        (role / name).parent.mkdir(parents=True, exist_ok=True)
        (role / name).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return role


def change(file: Path, edit: Callable[[Any], Any]) -> None:
    """Change the content of a YAML file in place."""
    content = yaml.safe_load(file.read_text(encoding="utf-8"))
    edit(content)
    file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def options(content: Any) -> Any:
    """Give the options of a spec's content."""
    return content["argument_specs"]["main"]["options"]


def test_a_role_without_a_fault_has_no_problem(edge: Path) -> None:
    assert spec_problems(edge) + default_problems(edge) + validation_problems(edge) == []


@pytest.mark.parametrize(
    ("file", "edit", "problem"),
    [
        (
            "defaults/main.yml",
            lambda content: content.update(edge_port=81),
            "edge_port: default 81 is 80 in the spec",
        ),
        (
            "defaults/main.yml",
            lambda content: content.update(edge_port="80"),
            "edge_port: default '80' is 80 in the spec",
        ),
        (
            "defaults/main.yml",
            lambda content: content.update(edge_x=1),
            "edge_x is in defaults/main.yml and not in the spec",
        ),
        (
            "defaults/main.yml",
            lambda content: content.pop("edge_port"),
            "edge_port has a default in the spec and none in",
        ),
        ("defaults/main.yml", lambda content: content.update(port=1), "port does not begin with edge_"),
        (
            "meta/argument_specs.yml",
            lambda content: options(content)["edge_port"].pop("default"),
            "edge_port has a default in defaults/main.yml and none",
        ),
        (
            "meta/argument_specs.yml",
            lambda content: options(content).update(edge_x={"type": "int", "description": "X."}),
            "edge_x is neither required nor has it a default",
        ),
        (
            "meta/argument_specs.yml",
            lambda content: options(content)["edge_port"].pop("type"),
            "edge_port has no type of",
        ),
        (
            "meta/argument_specs.yml",
            lambda content: options(content)["edge_sites"]["options"]["name"].pop("description"),
            "edge_sites.name has no desc",
        ),
        ("vars/main.yml", lambda content: content["__edge_rules"].pop("edge_app"), "edge_app takes any text"),
        (
            "vars/main.yml",
            lambda content: content["__edge_rules"].pop("edge_sites"),
            "edge_sites.name takes any text",
        ),
        (
            "vars/main.yml",
            lambda content: content["__edge_rules"].update(edge_x={}),
            "edge_x: there is no such option",
        ),
        (
            "vars/main.yml",
            lambda content: content["__edge_rules"]["edge_port"].update(max=79),
            "edge_port is 80; accepted is a whole number",
        ),
        (
            "defaults/main.yml",
            lambda content: content.update(edge_app="{{ app_name }}"),
            "edge_app cannot be worked out without an inventory",
        ),
        (
            "tasks/validate.yml",
            lambda content: content[0].update({"slipway.wsgi.inputs": None}),
            "edge: tasks/validate.yml does not call",
        ),
    ],
)
def test_a_fault_of_a_role_is_found(edge: Path, file: str, edit: Callable[[Any], Any], problem: str) -> None:
    change(edge / file, edit)
    found = spec_problems(edge) + default_problems(edge) + validation_problems(edge)
    assert any(line.startswith(problem) for line in found), found


def test_documentation_is_written_once_and_goes_stale_with_the_role(
    edge: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = edge.parents[1]
    assert docs.main(["--check"], project) == 1
    assert capsys.readouterr().err.splitlines() == [
        "docs/reference/inputs.md is stale: run python tools/docs.py",
        "roles/edge/README.md is stale: run python tools/docs.py",
    ]
    assert docs.main([], project) == 0
    assert "wrote roles/edge/README.md" in capsys.readouterr().out
    assert docs.main(["--check"], project) == 0
    readme = (edge / "README.md").read_text(encoding="utf-8")
    assert readme.startswith("# edge\n\nThe edge. It serves.\n")
    assert "| `edge_port` | int | `80` | a whole number from 1 to 65535 | Port. Of `TCP`. |" in readme
    assert (
        "| `edge_sites[].name` | str | required | a host name (example.org), a wildcard (\\*.example.org) or"
        " an IP address | Name \\| title. |" in readme
    )
    page = (project / "docs/reference/inputs.md").read_text(encoding="utf-8")
    assert "| `app_name` | edge | `edge_app` | `{{ app_name \\| default('app') }}` |" in page
    change(edge / "vars/main.yml", lambda content: content["__edge_rules"]["edge_port"].update(min=2))
    assert docs.main(["--check"], project) == 1


def test_what_is_handwritten_stays_and_lost_markers_are_named(edge: Path, capsys: pytest.CaptureFixture[str]) -> None:
    project = edge.parents[1]
    file = edge / "README.md"
    file.write_text(f"# Mine\n\nBefore.\n\n{docs.BEGIN}\nold\n{docs.END}\n\nAfter.\n", encoding="utf-8")
    assert docs.main([], project) == 0
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# Mine\n\nBefore.\n")
    assert text.endswith(f"{docs.END}\n\nAfter.\n")
    assert "old" not in text
    file.write_text("# Mine\n", encoding="utf-8")
    assert docs.main([], project) == 1
    assert "roles/edge/README.md lacks the markers" in capsys.readouterr().err
    assert file.read_text(encoding="utf-8") == "# Mine\n"
