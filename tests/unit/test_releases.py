"""What is decided about releases: their names, and which may be removed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "collections"))
from ansible_collections.slipway.wsgi.plugins.module_utils import releases

PARTS: dict[str, Any] = {
    "source": "5e0ce",
    "files": {"uwsgi.ini": "[uwsgi]\n", "entry.py": "ü\n"},
    "requirements": ["requirements.txt", "more.txt"],
    "python": "/usr/bin/python3",
}
GOLDEN = "befc974bd4cb"


def test_a_name_is_the_same_for_ever() -> None:
    """The name of the same release is the same in every version of Slipway, unless LAYOUT says otherwise."""
    assert releases.LAYOUT == 1
    assert releases.release_name(**PARTS) == GOLDEN


def test_the_order_of_the_files_does_not_count() -> None:
    """A dictionary has no order that means anything."""
    assert releases.release_name(**PARTS | {"files": dict(reversed(PARTS["files"].items()))}) == GOLDEN


@pytest.mark.parametrize(
    "change",
    [
        {"source": "5e0cf"},
        {"files": {}},
        {"files": PARTS["files"] | {"entry.py": "u\n"}},
        {"files": {"uwsgi.ini": "[uwsgi]\n", "entry2.py": "ü\n"}},
        {"requirements": []},
        {"requirements": ["more.txt", "requirements.txt"]},
        {"python": "/usr/bin/python3.13"},
    ],
    ids=str,
)
def test_each_part_makes_another_release(change: dict[str, Any]) -> None:
    """Nothing that a release is made of can change without its name; the name stays 12 hexadecimal digits."""
    name = releases.release_name(**PARTS | change)
    assert name != GOLDEN
    assert len(name) == 12
    assert set(name) <= set("0123456789abcdef")


def test_another_layout_makes_another_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that is laid out differently is never taken for this one."""
    monkeypatch.setattr(releases, "LAYOUT", 2)
    assert releases.release_name(**PARTS) != GOLDEN


@pytest.mark.parametrize(
    ("keep", "untouchable", "gone"),
    [
        (5, [], []),
        (4, [], []),
        (2, [], ["oldest", "older"]),
        (2, ["oldest"], ["older"]),
        (2, ["newest"], ["oldest", "older"]),
        (1, ["older", "oldest"], ["newer"]),
        (2, [""], ["oldest", "older"]),
    ],
)
def test_the_most_recent_and_the_untouchable_stay(keep: int, untouchable: list[str], gone: list[str]) -> None:
    """What goes is what is older than the ones to keep, oldest first, and never what may not be touched."""
    lived = {"older": 2.0, "newest": 4.0, "oldest": 1.0, "newer": 3.0}
    assert releases.prunable(lived, keep, untouchable) == gone


def test_where_nothing_is_nothing_goes() -> None:
    """No release, nothing to remove."""
    assert releases.prunable({}, 2, ["live"]) == []


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1min 10s", 70), ("90s\n", 90), ("1h 500ms", 3600.5), ("1d 10s", 86410), ("infinity\n", float("inf")), ("", 0)],
)
def test_spans_of_time_as_systemd_shows_them(text: str, seconds: float) -> None:
    """They are sums of words with units."""
    assert releases.timespan(text) == pytest.approx(seconds)
