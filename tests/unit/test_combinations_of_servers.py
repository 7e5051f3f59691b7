"""What a combination of servers cannot do is said of tests that there are."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import docs

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "tests/combinations").glob("*.yml"))
EXCEPTIONS = [
    (path.stem, test, reason)
    for path in FILES
    for test, reason in yaml.safe_load(path.read_text()).get("test_exceptions", {}).items()
]


def test_the_default_combination_can_do_everything() -> None:
    """It is what `make test` runs, by Slipway's own defaults."""
    assert yaml.safe_load((ROOT / "tests/combinations/uwsgi-nginx.yml").read_text()) == {}


@pytest.mark.parametrize(("combination", "test", "reason"), EXCEPTIONS)
def test_an_exception_is_a_test_with_a_reason_in_the_documentation(combination: str, test: str, reason: str) -> None:
    """One that is misspelt would be expected of nobody."""
    file, _, name = test.partition("[")[0].partition("::")
    (path,) = (ROOT / "tests/behaviour").glob(f"*/{file}")
    assert f"\ndef {name}(" in path.read_text()
    assert f"| {combination.replace('-', ', ')} | {name[5:].replace('_', ' ')}" in docs.exceptions(ROOT)
    assert f" | {reason} |" in docs.exceptions(ROOT)
