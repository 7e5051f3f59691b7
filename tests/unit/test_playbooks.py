"""What playbooks and roles decide before they reach a host."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def play(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ansible-playbook in the project."""
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    return subprocess.run(
        ["ansible-playbook", *arguments], cwd=ROOT, env=environment, text=True, capture_output=True, check=False
    )


@pytest.mark.parametrize(
    ("distribution", "version", "refused", "said"),
    [
        ("Debian", "13", False, "Say that this operating system is untested"),
        ("Ubuntu", "24.04", False, "runs Ubuntu 24.04: Slipway lets it through, but is untested on it."),
        ("Fedora", "43", True, "runs Fedora 43. Accepted: Debian 12, Debian 13 (tested) and Ubuntu 24.04 (untested)."),
        ("Debian", "11", True, "runs Debian 11. Accepted:"),
    ],
)
def test_operating_systems(tmp_path: Path, distribution: str, version: str, refused: bool, said: str) -> None:
    """The tested ones pass, Ubuntu 24.04 passes with a word, anything else is refused by name in the first task."""
    playbook = tmp_path / "play.yml"
    playbook.write_text(f"""
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    ansible_facts: {{distribution: {distribution}, distribution_major_version: "{version.split(".")[0]}",
      distribution_version: "{version}"}}
  tasks:
    - ansible.builtin.include_role: {{name: host, tasks_from: validate}}
""")
    result = play("-i", "localhost,", str(playbook))
    assert (result.returncode != 0) == refused, result.stdout
    assert said in " ".join(result.stdout.split())
    assert result.stdout.count("TASK [host :") == (1 if refused else 4)


@pytest.mark.parametrize("inventory", ["inventory/example", "inventory/local", "molecule/default/inventory"])
def test_inventories_name_hosts_of_the_playbooks(inventory: str) -> None:
    """Each inventory of the project has hosts for every play of site.yml."""
    result = play("-i", inventory, "site.yml", "--list-hosts")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("play #") == 6
    assert "hosts (0)" not in result.stdout


@pytest.mark.parametrize("playbook", ["site.yml", "playbooks/deploy.yml"])
def test_a_server_that_there_is_not(playbook: str) -> None:
    """It is refused before any role is asked, with what is accepted: the same as the role that reads it says."""
    result = play("-i", "inventory/example", playbook, "-e", "app_server=apache")
    assert result.returncode != 0
    spec = yaml.safe_load((ROOT / "roles/release/meta/argument_specs.yml").read_text())
    choices = spec["argument_specs"]["main"]["options"]["release_server"]["choices"]
    assert f"app_server is apache; accepted is one of {', '.join(choices)}." in result.stdout
    assert result.stdout.count("TASK [") == 2
    assert all((ROOT / "roles" / name / "tasks/configure.yml").is_file() for name in choices)


def test_a_web_server_that_there_is_not() -> None:
    """The same; each that is accepted is a role."""
    result = play("-i", "inventory/example", "site.yml", "-e", "web_server=caddy")
    assert result.returncode != 0
    assert "web_server is caddy; accepted is one of nginx, apache." in result.stdout
    assert result.stdout.count("TASK [") == 2
    assert all((ROOT / "roles" / name / "tasks/service.yml").is_file() for name in ("nginx", "apache"))


@pytest.mark.parametrize(("web_server", "name"), [("apache", "nginx_deny"), ("nginx", "apache_users")])
def test_what_is_said_to_a_web_server_that_is_not_there(web_server: str, name: str) -> None:
    """It is refused, for some hosts as for all: who is to be kept out would come in by the other one."""
    result = play(
        "-i", "inventory/example", "site.yml", "--limit", "slipway", "-e", f"web_server={web_server} {name}=x"
    )
    assert result.returncode != 0
    assert f"has the web server {web_server}, which does not read it" in " ".join(result.stdout.split())
    assert f"{name}: " in result.stdout
    assert result.stdout.count("TASK [") == 2


@pytest.mark.parametrize("playbook", ["verify", "side_effect"])
def test_a_scenario_without_hosts_is_red(playbook: str) -> None:
    """An inventory that was not read leaves nothing to test, which is no success."""
    result = play("-i", "localhost,", f"molecule/shared/{playbook}.yml")
    assert result.returncode != 0
    assert "nothing was tested" in result.stdout


@pytest.mark.parametrize(
    "playbook",
    ["site.yml", "playbooks/deploy.yml", "playbooks/rollback.yml", "playbooks/status.yml", "playbooks/certificate.yml"],
)
def test_an_inventory_without_hosts_is_red(playbook: str) -> None:
    """What Ansible says in a warning only is an error here: nothing would have been deployed."""
    result = play("-i", "localhost,", playbook)
    assert result.returncode != 0
    assert "the inventory has no group `slipway` with a host in it" in " ".join(result.stdout.split())
