"""The plugin slipway.wsgi.inputs, run for real by ansible-playbook on roles of this file's own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
REFUSED = 2  # exit status of ansible-playbook when a task has failed
PLAYBOOK = str(Path(sys.executable).with_name("ansible-playbook"))

SPEC: dict[str, Any] = {
    "edge_app": {"type": "str", "description": "App.", "default": "{{ app_name | default('app') }}"},
    "edge_port": {"type": "int", "description": "Port.", "default": 80},
    "edge_workers": {"type": "int", "description": "Workers.", "default": 2},
    "edge_names": {"type": "list", "elements": "str", "description": "Domains.", "default": []},
    "edge_body": {"type": "str", "description": "Largest body.", "default": "10m"},
    "edge_level": {
        "type": "str",
        "description": "Log level.",
        "choices": ["warn", "error"],
        "default": "warn",
    },
    "edge_ipv6": {"type": "bool", "description": "IPv6.", "default": True},
    "edge_title": {"type": "str", "description": "Title.", "default": "A title; {quoted}"},
    "edge_mode": {"type": "str", "description": "Mode.", "default": "0660"},
    "edge_token": {"type": "str", "description": "Secret.", "no_log": True, "default": "none"},
    "edge_static": {"type": "dict", "description": "Static files.", "default": {}},
    "edge_sites": {
        "type": "list",
        "elements": "dict",
        "description": "Sites.",
        "default": [],
        "options": {
            "name": {"type": "str", "description": "Name.", "required": True},
            "port": {"type": "int", "description": "Port."},
        },
    },
    "edge_timeout": {
        "type": "int",
        "description": "Seconds.",
        "default": "{{ app_timeout | default(60) + 15 }}",
    },
    "edge_contact": {"type": "str", "description": "Contact.", "required": True},
    "edge_retry": {"type": "int", "description": "Seconds.", "default": 1},
}
RULES: dict[str, Any] = {
    "edge_app": {"format": "name"},
    "edge_port": {"min": 1, "max": 65535},
    "edge_workers": {"min": 1},
    "edge_names": {"optional": True, "each": {"format": "hostname"}},
    "edge_body": {"format": "size"},
    "edge_title": {"format": "one_line"},
    "edge_mode": {"format": "mode"},
    "edge_token": {"format": "identifier"},
    "edge_static": {
        "keys": {"format": "url_prefix", "refuse": {"/admin/": "the app answers there"}},
        "values": {"format": "relative_path"},
    },
}
GOOD: dict[str, Any] = {
    "edge_contact": "someone",
    "edge_names": ["example.org", "*.example.org", "2001:db8::1"],
    "edge_static": {"/static/": "app/static"},
    "edge_sites": [{"name": "one", "port": 8080}],
    "edge_mine": "resembles no input: a variable of the user's own",
}
BAD: dict[str, tuple[Any, str]] = {
    "app_name": (
        "../x",
        "edge_app is '../x'; accepted is 1 to 31 lower-case letters, digits and dashes, a letter first,",
    ),
    "edge_port": (99999, "edge_port is 99999; accepted is a whole number from 1 to 65535."),
    "edge_workers": (0, "edge_workers is 0; accepted is a whole number of 1 or more."),
    "edge_names": (
        ["example.org", "a b;}"],
        "edge_names[1] is 'a b;}'; accepted is a host name (example.org), a wildcard",
    ),
    "edge_body": (
        "1q",
        "edge_body is '1q'; accepted is a size: a whole number with k, m, g or nothing after it",
    ),
    "edge_level": ("warm", "edge_level is 'warm'; accepted is one of warn, error. Did you mean warn?"),
    "edge_ipv6": (
        "false",
        "edge_ipv6 is 'false'; accepted is true or false. Write true or false without quotes;",
    ),
    "edge_title": (
        "one\nlisten 1;",
        r"edge_title is 'one\nlisten 1;'; accepted is one line of printable text",
    ),
    "edge_mode": (432, 'edge_mode is 432; accepted is four octal digits in quotes, such as "0660".'),
    "edge_token": (
        "hunter2;",
        "edge_token is (hidden); accepted is letters, digits and underscores, no digit first.",
    ),
    "edge_static": (
        {"/a": "app/static", "/b}/": "../etc", "/admin/": "app/x"},
        "edge_static['/a'] has a key that is refused; accepted is a URL path with a slash at both ends",
    ),
    "edge_sites": (
        [{"nmae": "one"}, "two"],
        "edge_sites[0]['nmae'] is no key of edge_sites[0]: did you mean name?",
    ),
    "app_timeout": (
        "{{ app_time }}",
        "app_timeout cannot be worked out: 'app_time' is undefined. Set what is undefined in the inventory.",
    ),
    "edge_wokers": (1, "edge_wokers is no input of Slipway: did you mean edge_workers?"),
    "edge_retry": (
        "{{ app_retry }}",
        "edge_retry cannot be worked out: 'app_retry' is undefined; accepted is a whole number.",
    ),
    "app_nmae": ("x", "app_nmae is no input of Slipway: did you mean app_name?"),
}
FURTHER = (  # further lines that the faults above give
    "edge_static['/b}/'] has a key that is refused; accepted is a URL path",
    "edge_static['/b}/'] is '../etc'; accepted is a relative path",
    "without .. in it, except /admin/. The reason: the app answers there.",
    "edge_sites[0]['name'] is required and not set; accepted is text.",
    "and no name of the system. It comes from app_name.",
    "edge_sites[1] is 'two'; accepted is a dictionary (keys: name, port).",
    "edge_contact is required and not set; accepted is text.",
)


def write(path: Path, content: Any) -> None:
    """Write a YAML file and the directories above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")


def roles(directory: Path) -> None:
    """Make a role edge with inputs of every kind, as the project's roles are laid out."""
    role = directory / "edge"
    write(
        role / "meta" / "argument_specs.yml",
        {"argument_specs": {"main": {"short_description": "Edge.", "options": SPEC}}},
    )
    write(
        role / "defaults" / "main.yml",
        {name: option["default"] for name, option in SPEC.items() if "default" in option},
    )
    write(role / "vars" / "main.yml", {"__edge_rules": RULES})
    write(role / "tasks" / "main.yml", [{"name": "Validate", "ansible.builtin.import_tasks": "validate.yml"}])
    write(
        role / "tasks" / "validate.yml",
        [{"name": "validate | Refuse", "slipway.wsgi.inputs": {"rules": "{{ __edge_rules }}"}}],
    )


def play(directory: Path, variables: dict[str, Any], tasks: list[dict[str, Any]], collections: Path) -> tuple[int, str]:
    """Run tasks on a host that nothing answers for; give the exit status and the output."""
    write(directory / "playbooks" / "play.yml", [{"hosts": "all", "gather_facts": False, "tasks": tasks}])
    # The connection is one that fails at once: what is checked on the controller alone never notices.
    host = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_connection": "ansible.builtin.ssh"}
    write(directory / "inventory.yml", {"all": {"hosts": {"nowhere": host}, "vars": variables}})
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")} | {
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_ROLES_PATH": str(directory / "roles"),
        "ANSIBLE_HOME": str(directory / "home"),
        "COLUMNS": "1000",
    }
    done = subprocess.run(
        [PLAYBOOK, "-i", "inventory.yml", "playbooks/play.yml", "--check", "--diff"],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Give the output of one run in which every input is bad, the role's tasks included from validate.yml."""
    directory = tmp_path_factory.mktemp("bad")
    roles(directory / "roles")
    variables = {name: value for name, (value, _) in BAD.items()}
    include = {"ansible.builtin.include_role": {"name": "edge", "tasks_from": "validate"}}
    code, output = play(directory, variables, [include], ROOT / "collections")
    assert code == REFUSED, output
    return output


@pytest.mark.parametrize("name", BAD)
def test_a_bad_input_is_refused_with_variable_value_and_what_is_accepted(refused: str, name: str) -> None:
    assert BAD[name][1] in refused


@pytest.mark.parametrize("line", FURTHER)
def test_every_fault_inside_of_an_input_is_reported(refused: str, line: str) -> None:
    assert line in refused


def test_all_faults_come_at_once_one_a_line_headed_by_their_number(refused: str) -> None:
    head = next(line for line in refused.splitlines() if "role edge changes nothing:" in line)
    count = len(BAD) + len(FURTHER) - 1  # one of those further ones is the end of another line
    assert f"{count} inputs are refused, and role edge changes nothing:" in head
    lines = refused.split(head, 1)[1].lstrip("\n").splitlines()[:count]
    assert all(line.split()[0].split("[")[0] in {*SPEC, *BAD} for line in lines), lines


def test_a_secret_is_not_shown(refused: str) -> None:
    assert "hunter2" not in refused


def test_no_traceback_and_no_connection(refused: str) -> None:
    assert "Traceback" not in refused
    assert "unreachable=0" in refused


def test_good_inputs_pass_in_a_clone(tmp_path: Path) -> None:
    roles(tmp_path / "roles")
    (tmp_path / "playbooks").mkdir()
    (tmp_path / "playbooks" / "roles").symlink_to("../roles")
    tasks = [{"ansible.builtin.import_role": {"name": "edge"}}]
    code, output = play(tmp_path, GOOD, tasks, ROOT / "collections")
    assert code == 0, output
    assert "changed=0" in output
    assert "WARNING" not in output


def test_a_role_of_an_installed_collection_is_checked(tmp_path: Path) -> None:
    collection = tmp_path / "installed" / "ansible_collections" / "slipway" / "wsgi"
    roles(collection / "roles")
    (collection / "plugins").symlink_to(ROOT / "plugins")
    tasks = [{"ansible.builtin.include_role": {"name": "slipway.wsgi.edge"}}]
    code, output = play(tmp_path, GOOD | {"edge_prot": 80}, tasks, tmp_path / "installed")
    assert code == REFUSED, output
    assert "1 input is refused, and role edge changes nothing:" in output
    assert "edge_prot is no input of Slipway: did you mean edge_port?" in output
