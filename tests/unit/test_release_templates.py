"""What the release role writes on a host besides releases: by its defaults, by other inputs, judged by systemd."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from ansible.errors import AnsibleError
from ansible.template import trust_as_template
from ansible_collections.slipway.wsgi.plugins.module_utils import rules
from rendering import ROLES, is_managed, lines, render, role_variables

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATES = ("entry.py.j2", "service.j2", "socket.j2", "tmpfiles.conf.j2")
OTHER: dict[str, object] = {
    "release_app": "shop",
    "release_root": "/opt/shop",
    "release_link": "/run/shop/web.sock",
    "release_module": "shop.web:create()",
}
PLAN = {"start": ["uwsgi"], "stop_timeout": 70, "tasks": 4}
TMPFILES = shutil.which("systemd-tmpfiles")
needs_tmpfiles = pytest.mark.skipif(TMPFILES is None, reason="this is no machine with systemd")


def made(root: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Let systemd-tmpfiles make, below a directory of the test's, what a text says."""
    root.mkdir(exist_ok=True)
    path = root.parent / "tmpfiles.conf"
    path.write_text(text, encoding="utf-8")
    command = [str(TMPFILES), "--create", f"--root={root}", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)


def test_every_template_is_tested() -> None:
    """A template that is added is added here too, and to test_entry.py or test_units.py."""
    assert sorted(path.name for path in (ROLES / "release" / "templates").iterdir()) == sorted(TEMPLATES)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("inputs", [{}, OTHER], ids=["defaults", "other"])
def test_every_file_says_who_manages_it(template: str, inputs: dict[str, object]) -> None:
    """Every file opens with the managed header and holds no template syntax."""
    text = render("release", template, __app_server_plan=PLAN, **inputs)
    assert is_managed(text)


@pytest.mark.parametrize(
    ("template", "variable"),
    [
        ("tmpfiles.conf.j2", "release_link"),
        ("entry.py.j2", "release_module"),
        ("service.j2", "release_user"),
        ("socket.j2", "release_web_group"),
    ],
)
def test_an_undefined_variable_is_an_error(template: str, variable: str) -> None:
    """Nothing is rendered as an empty word."""
    with pytest.raises(AnsibleError, match="no_such_variable"):
        render("release", template, __app_server_plan=PLAN, **{variable: trust_as_template("{{ no_such_variable }}")})


@pytest.mark.parametrize(
    ("inputs", "line"),
    [
        ({}, "L+ /run/uwsgi.sock - - - - /srv/app/live/uwsgi.sock"),
        ({"app_name": "hello"}, "L+ /run/uwsgi.sock - - - - /srv/hello/live/uwsgi.sock"),
        (OTHER, "L+ /run/shop/web.sock - - - - /opt/shop/live/uwsgi.sock"),
    ],
    ids=["defaults", "shared name", "other"],
)
def test_the_link_leads_to_what_is_live(inputs: dict[str, object], line: str) -> None:
    """The one line: a link, made anew if something else is there, to the socket of the live release."""
    assert lines(render("release", "tmpfiles.conf.j2", **inputs)) == [line]


@needs_tmpfiles
@pytest.mark.parametrize(
    ("inputs", "link", "target"),
    [
        ({}, "run/uwsgi.sock", "/srv/app/live/uwsgi.sock"),
        (OTHER, "run/shop/web.sock", "/opt/shop/live/uwsgi.sock"),
    ],
    ids=["defaults", "other"],
)
def test_systemd_makes_the_link(tmp_path: Path, inputs: dict[str, object], link: str, target: str) -> None:
    """The file is accepted without a word and makes the link, with its directory and in the place of what is there."""
    root = tmp_path / "root"
    for _ in range(2):
        result = made(root, render("release", "tmpfiles.conf.j2", **inputs))
        assert (result.returncode, result.stderr) == (0, "")
        assert os.readlink(root / link) == target
        (root / link).unlink()
        (root / link).write_text("what somebody left here")


@needs_tmpfiles
def test_systemd_would_say_what_it_cannot_read(tmp_path: Path) -> None:
    """The judge judges: a line of a type that there is not is refused."""
    result = made(tmp_path / "root", render("release", "tmpfiles.conf.j2").replace("L+ ", "Y+ "))
    assert result.returncode != 0
    assert "Unknown command type 'Y'" in result.stderr


@pytest.mark.parametrize("variable", ["release_environment", "release_secrets"])
@pytest.mark.parametrize("name", ["GUNICORN_CMD_ARGS", "UWSGI_LAZY_APPS", "LISTEN_FDS", "NOTIFY_SOCKET", "SLIPWAY_APP"])
def test_the_environment_is_the_apps_alone(variable: str, name: str) -> None:
    """What a server or systemd would take for its own is refused."""
    defined = role_variables("release")["__release_rules"]
    assert isinstance(defined, dict)
    assert rules.check(variable, {"DATABASE": "postgresql", "MY_" + name: "12345678"}, defined[variable]) == []
    (fault,) = rules.check(variable, {name: "12345678"}, defined[variable])
    assert str(fault).startswith(f"{variable}['{name}'] has a key that is refused")
