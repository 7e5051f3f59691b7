"""What the host role writes on a host: by its defaults, by other inputs, and judged by apt itself."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from ansible.errors import AnsibleError
from ansible.template import trust_as_template
from rendering import ROLES, lines, render

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATES = ("apt.conf.j2", "slipway.list.j2")
MIRROR = "https://user:p%40ss@mirror.example.org/debian"
OTHER: dict[str, object] = {
    "host_apt_sources": [
        {"uri": MIRROR, "suite": "trixie"},
        {"uri": "http://mirror.example.org/security", "suite": "trixie-security", "components": ["main", "contrib"]},
    ],
    "host_proxy_url": "http://user:p%40ss@proxy.example.org:3128/",
    "host_proxy_exceptions": ["mirror.example.org", "192.0.2.7"],
}
APT_CONFIG = shutil.which("apt-config")
needs_apt = pytest.mark.skipif(APT_CONFIG is None, reason="this is no machine with apt")


def dumped(tmp_path: Path, text: str) -> list[str]:
    """Give apt's settings as apt itself reads them from a text.

    Raises CalledProcessError when apt cannot read it.
    """
    path = tmp_path / "apt.conf"
    path.write_text(text, encoding="utf-8")
    command = [str(APT_CONFIG), "-c", str(path), "dump"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.splitlines()


def test_every_template_is_tested() -> None:
    """A template that is added is added here too."""
    assert sorted(path.name for path in (ROLES / "host" / "templates").iterdir()) == sorted(TEMPLATES)


@pytest.mark.parametrize("inputs", [{}, OTHER], ids=["defaults", "other"])
@pytest.mark.parametrize(("template", "mark"), [("apt.conf.j2", "//"), ("slipway.list.j2", "#")])
def test_every_file_says_who_manages_it(template: str, mark: str, inputs: dict[str, object]) -> None:
    """Every file opens with the managed header, in the file's own comments, and holds no template syntax."""
    text = render("host", template, **inputs)
    header = text.splitlines()[:3]
    assert [line.rstrip() for line in header] == [mark, f"{mark} Ansible managed", mark]
    assert "{{" not in text
    assert "{%" not in text


@pytest.mark.parametrize(
    ("template", "variable"), [("apt.conf.j2", "host_proxy_url"), ("slipway.list.j2", "host_apt_sources")]
)
def test_an_undefined_variable_is_an_error(template: str, variable: str) -> None:
    """Nothing is rendered as an empty word."""
    with pytest.raises(AnsibleError, match="no_such_variable"):
        render("host", template, **{variable: trust_as_template("{{ no_such_variable }}")})


def test_by_default_the_host_goes_its_own_way() -> None:
    """No proxy and no source of ours: nothing is said to apt."""
    assert lines(render("host", "apt.conf.j2"), comment="//") == []
    assert lines(render("host", "slipway.list.j2")) == []


def test_apt_is_told_the_proxy_and_its_exceptions() -> None:
    """Both protocols go through the proxy, the exceptions do not; the host's own sources are out of the way."""
    assert lines(render("host", "apt.conf.j2", **OTHER), comment="//") == [
        'Acquire::http::Proxy "http://user:p%40ss@proxy.example.org:3128/";',
        'Acquire::https::Proxy "http://user:p%40ss@proxy.example.org:3128/";',
        'Acquire::http::Proxy::mirror.example.org "DIRECT";',
        'Acquire::https::Proxy::mirror.example.org "DIRECT";',
        'Acquire::http::Proxy::192.0.2.7 "DIRECT";',
        'Acquire::https::Proxy::192.0.2.7 "DIRECT";',
        'Dir::Etc::sourcelist "/etc/apt/slipway.list";',
        'Dir::Etc::sourceparts "-";',
    ]


def test_each_half_of_the_settings_stands_alone() -> None:
    """A proxy leaves the host's sources, sources bring no proxy, and exceptions mean nothing without a proxy."""
    proxy = render("host", "apt.conf.j2", host_proxy_url="http://proxy.example.org:3128")
    assert "Acquire::http::Proxy " in proxy
    assert "Dir::" not in proxy
    assert "DIRECT" not in proxy
    sources = render("host", "apt.conf.j2", **(OTHER | {"host_proxy_url": ""}))
    assert "Dir::Etc::sourcelist" in sources
    assert "Proxy" not in sources


def test_the_names_of_the_lesson_reach_the_role() -> None:
    """What the inventory says for all roles is what this role takes by default."""
    text = render(
        "host", "apt.conf.j2", proxy_url="http://shared.example.org:3128", proxy_exceptions=["direct.example.org"]
    )
    assert 'Acquire::https::Proxy "http://shared.example.org:3128";' in text
    assert 'Acquire::https::Proxy::direct.example.org "DIRECT";' in text


def test_sources_are_lines_of_sources_list() -> None:
    """One line a source: type, place, suite, components; `main` where none is named (sources.list(5))."""
    assert lines(render("host", "slipway.list.j2", **OTHER)) == [
        f"deb {MIRROR} trixie main",
        "deb http://mirror.example.org/security trixie-security main contrib",
    ]


@needs_apt
def test_apt_reads_what_is_meant(tmp_path: Path) -> None:
    """Apt finds the values, those of the addresses too."""
    found = dumped(tmp_path, render("host", "apt.conf.j2", **OTHER))
    for line in lines(render("host", "apt.conf.j2", **OTHER), comment="//"):
        assert line in found
    assert 'Dir::Etc::sourceparts "-";' in found


@needs_apt
def test_apt_reads_the_file_of_the_defaults(tmp_path: Path) -> None:
    """The header alone is a file that apt can read, and brings neither sources nor a proxy of ours."""
    found = dumped(tmp_path, render("host", "apt.conf.j2"))
    assert not [line for line in found if "slipway" in line or line == 'Dir::Etc::sourceparts "-";']


@needs_apt
def test_apt_would_say_what_it_cannot_read(tmp_path: Path) -> None:
    """The judge judges: a quote that is left open is refused."""
    with pytest.raises(subprocess.CalledProcessError):
        dumped(tmp_path, render("host", "apt.conf.j2", **OTHER) + 'Acquire::Retries "3;\n')


@needs_apt
def test_apt_can_fetch_by_these_lines(tmp_path: Path) -> None:
    """Apt itself takes the list for well-formed: `apt-get indextargets` names each index of it."""
    path = tmp_path / "slipway.list"
    path.write_text(render("host", "slipway.list.j2", **OTHER), encoding="utf-8")
    settings = [f"Dir::Etc::sourcelist={path}", "Dir::Etc::sourceparts=-", "APT::Architecture=amd64"]
    command = ["apt-get", *(f"-o{setting}" for setting in settings), "indextargets", "--no-release-info"]
    command += ["--format", "$(SITE)|$(RELEASE)|$(COMPONENT)", "Identifier: Packages"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert result.stderr == ""
    found = {line for line in result.stdout.splitlines() if line}
    assert found == {
        "https://mirror.example.org/debian|trixie|main",
        "http://mirror.example.org/security|trixie-security|main",
        "http://mirror.example.org/security|trixie-security|contrib",
    }
