"""What is decided about releases: their names, their environment, and what their commands are run with."""

from __future__ import annotations

import hashlib
import shlex
from typing import Any

import pytest
from ansible_collections.slipway.wsgi.plugins.module_utils import releases
from rendering import render

PLAN: dict[str, Any] = {
    "files": {"uwsgi.ini": "[uwsgi]\n", "entry.py": "ü\n"},
    "environment": {"COLOUR": "blue", "TITLE": "a b"},
    "requirements": ["requirements.txt", "more.txt"],
    "python": "/usr/bin/python3",
    "plan": {"health": {"path": "/", "status": [200]}, "hooks": {"after_build": ["make"]}},
}
PARTS: dict[str, Any] = {"source": "5e0ce", "plan": PLAN, "secrets": {}}
SECRETS = {"KEY": "s3cret-of-the-app", "OTHER": "s3cret-of-another"}
GOLDEN, GOLDEN_WITH_SECRETS = "ccbe3ed7932f", "f6b6cbcadbfa"


def test_a_name_is_the_same_for_ever() -> None:
    """The name of the same release is the same in every version of Slipway, unless LAYOUT says otherwise."""
    assert releases.LAYOUT == 2
    assert releases.release_name(**PARTS) == GOLDEN
    assert releases.release_name(**PARTS | {"secrets": SECRETS}) == GOLDEN_WITH_SECRETS


def reordered(value: Any) -> Any:
    """Return the same with each dictionary turned round."""
    return {key: reordered(value[key]) for key in reversed(value)} if isinstance(value, dict) else value


def test_the_order_of_a_dictionary_does_not_count() -> None:
    """It has no order that means anything, at no depth."""
    assert list(reordered(PLAN)) != list(PLAN)
    assert releases.release_name("5e0ce", reordered(PLAN), {}) == GOLDEN
    assert releases.release_name("5e0ce", PLAN, reordered(SECRETS)) == GOLDEN_WITH_SECRETS


@pytest.mark.parametrize(
    "change",
    [
        {"source": "5e0cf"},
        {"plan": PLAN | {"files": {}}},
        {"plan": PLAN | {"files": PLAN["files"] | {"entry.py": "u\n"}}},
        {"plan": PLAN | {"files": {"uwsgi.ini": "[uwsgi]\n", "entry2.py": "ü\n"}}},
        {"plan": PLAN | {"environment": {"COLOUR": "red", "TITLE": "a b"}}},
        {"plan": PLAN | {"requirements": []}},
        {"plan": PLAN | {"requirements": ["more.txt", "requirements.txt"]}},
        {"plan": PLAN | {"python": "/usr/bin/python3.13"}},
        {"plan": PLAN | {"plan": {"health": {"path": "/up", "status": [200]}, "hooks": {"after_build": ["make"]}}}},
        {"plan": PLAN | {"plan": {"health": {"path": "/", "status": [200]}, "hooks": {}}}},
        {"secrets": {"KEY": ""}},
        {"secrets": {"KEY": "s3cret-of-the-apq", "OTHER": "s3cret-of-another"}},
        {"secrets": {"KEY": "s3cret-of-another", "OTHER": "s3cret-of-the-app"}},
        {"secrets": {"KEY2": "s3cret-of-the-app", "OTHER": "s3cret-of-another"}},
    ],
    ids=str,
)
def test_each_part_makes_another_release(change: dict[str, Any]) -> None:
    """Nothing that a release is made of can change without its name; the name stays 12 hexadecimal digits."""
    name = releases.release_name(**PARTS | change)
    assert name not in {GOLDEN, GOLDEN_WITH_SECRETS}
    assert len(name) == 12
    assert set(name) <= set("0123456789abcdef")


def test_another_layout_makes_another_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that is laid out differently is never taken for this one."""
    monkeypatch.setattr(releases, "LAYOUT", 3)
    assert releases.release_name(**PARTS) != GOLDEN


def test_a_secret_is_expensive_to_guess_from_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets go through scrypt with 16 MiB of memory for each guess, salted by all else that makes the name."""
    asked: list[dict[str, Any]] = []

    def scrypt(hidden: bytes, **how: Any) -> bytes:
        asked.append({"hidden": hidden, **how})
        return b"key"

    monkeypatch.setattr(hashlib, "scrypt", scrypt)
    names = {releases.release_name(source, PLAN, {"KEY": value}) for source in ("a", "b") for value in ("x", "y")}
    assert len(names) == 2, "a secret goes in by nothing but scrypt"
    assert all(128 * how["n"] * how["r"] >= 16 * 2**20 for how in asked)
    assert len({how["salt"] for how in asked}) == 2
    assert len({how["hidden"] for how in asked}) == 2


# -- the environment --------------------------------------------------------------------------------------------------

VALUES = {
    "plain": "blue",
    "empty": "",
    "spaces": "  a  b ",
    "double": 'say "hello"',
    "single": "it's",
    "backslash": r"C:\new\table",
    "backslash_at_the_end": "a\\",
    "backslash_before_a_quote": 'a\\"b',
    "dollar": "$HOME ${HOME} $$",
    "backtick": "`id`",
    "hash": "# no comment",
    "equals": "a=b",
    "lines": 'first\nSECOND="x"\n',
    "pem": "-----BEGIN KEY-----\nMIIE+/=\n-----END KEY-----\n",
    "unicode": "Grüße €",
    "percent": "100 % %i %%",
}


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_value_is_read_back_as_it_was(value: str) -> None:
    """By what Slipway reads back, to keep it out of messages, and by the rules of a shell's double quotes.

    systemd reads them by the same rules, see systemd.exec(5), except that it expands nothing.
    """
    text = releases.quoted({"NAME": value, "OTHER": "x"})
    assert releases.unquoted(text) == [value, "x"]
    # shlex knows only two of the four characters that are escaped between double quotes.
    known = text.replace("\\$", "$").replace("\\`", "`")
    assert shlex.split(known) == [f"NAME={value}", "OTHER=x"]


def test_an_environment_file_is_the_same_for_the_same_variables() -> None:
    """By name, a line each, and nothing for none."""
    assert releases.quoted({"B": "2", "A": "1"}) == 'A="1"\nB="2"\n'
    assert releases.quoted({}) == ""
    assert releases.unquoted("") == []


# -- the sandbox ------------------------------------------------------------------------------------------------------

NAME = "0123456789ab"
INPUTS: dict[str, object] = {
    "release_app": "shop",
    "release_root": "/srv/shop",
    "release_user": "keeper",
    "__app_server_plan": {"start": ["uwsgi"], "stop_timeout": 70, "tasks": 4},
}


def test_a_command_is_run_as_the_service_is() -> None:
    """As its user, in its sandbox, with its environment; not as a service that is supervised."""
    found = releases.sandbox(render("release", "service.j2", **INPUTS), NAME)
    for expected in (
        "User=keeper",
        "Group=keeper",
        f"WorkingDirectory=/srv/shop/releases/{NAME}/app",
        f"EnvironmentFile=/srv/shop/releases/{NAME}/etc/environment",
        f"EnvironmentFile=/srv/shop/releases/{NAME}/etc/secrets",
        "ProtectSystem=strict",
        "NoNewPrivileges=true",
        "CapabilityBoundingSet=",
        "TemporaryFileSystem=/srv/shop:ro",
        f"BindReadOnlyPaths=/srv/shop/releases/{NAME}",
        "StateDirectory=slipway/shop",
        "SystemCallFilter=@system-service",
        "UMask=0027",
    ):
        assert expected in found
    assert [line for line in found if "%i" in line] == []
    about_the_service = ("Type", "Exec", "Restart", "Timeout", "Kill", "Sockets")
    assert [line for line in found if line.startswith(about_the_service)] == []
    assert [line for line in found if line.partition("=")[0] in {"Description", "Requires", "WantedBy"}] == []


def test_every_line_of_the_sandbox_counts() -> None:
    """All of [Service] is either about how the service itself is run, or handed on."""
    text = render("release", "service.j2", **INPUTS)
    section = text.partition("[Service]\n")[2].partition("\n[Install]")[0]
    lines = {line for line in section.replace("%i", NAME).splitlines() if line and not line.startswith("#")}
    left = {line.partition("=")[0] for line in lines - set(releases.sandbox(text, NAME))}
    assert left == {
        "Type", "ExecStart", "Restart", "RestartSec", "TimeoutStartSec", "TimeoutStartFailureMode", "TimeoutStopSec",
        "KillMode", "KillSignal",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1min 10s", 70), ("90s\n", 90), ("1h 500ms", 3600.5), ("1d 10s", 86410), ("infinity\n", float("inf")), ("", 0)],
)
def test_spans_of_time_as_systemd_shows_them(text: str, seconds: float) -> None:
    """They are sums of words with units."""
    assert releases.timespan(text) == pytest.approx(seconds)
