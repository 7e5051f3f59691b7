"""The module slipway.wsgi.files: what it writes and removes, and that a second run finds nothing to do."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.slipway.wsgi.plugins.modules import files


@pytest.fixture(autouse=True)
def owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whoever runs the tests own the files."""
    assert files.OWNER == (0, 0)
    monkeypatch.setattr(files, "OWNER", (os.getuid(), os.getgid()))


def run(
    capsys: pytest.CaptureFixture[str], wanted: dict[Path, str], check: bool = False, kind: str = "files"
) -> dict[str, Any]:
    """Run the module, for `files` or `secret_files`."""
    named = {str(path): text for path, text in wanted.items()}
    arguments = {"files": {}, kind: named, "_ansible_check_mode": check, "_ansible_diff": True}
    with patch_module_args(arguments), pytest.raises(SystemExit):
        files.main()
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def test_files_are_written_with_their_directories_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One that is to be empty is not there; each that changes is shown; a second run changes nothing."""
    new, old, never = tmp_path / "new.conf.d" / "slipway.conf", tmp_path / "old", tmp_path / "never"
    old.write_text("a\n")
    wanted = {new: "b\n", old: "", never: ""}
    for check in (True, False):
        told = run(capsys, wanted, check)
        assert (told["changed"], told["paths"]) == (True, [str(new), str(old)])
        shown = [(diff["before"].splitlines()[1:], diff["after"].splitlines()[1:]) for diff in told["diff"]]
        assert shown == [([], ["b"]), (["a"], [])]
        assert (new.exists(), old.exists()) == (not check, check)
    assert new.read_text() == "b\n"
    assert not never.exists()
    assert not run(capsys, wanted)["changed"]


def test_what_others_did_to_a_file_is_put_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its text, and who may write to it."""
    path = tmp_path / "slipway.conf"
    run(capsys, {path: "a\n"})
    path.chmod(0o666)
    assert run(capsys, {path: "a\n"})["changed"]
    assert path.stat().st_mode & 0o777 == 0o644
    path.write_text("b\n")
    assert run(capsys, {path: "a\n"})["changed"]
    assert path.read_text() == "a\n"


def test_a_secret_is_roots_and_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither what it was nor what it is."""
    path = tmp_path / "90slipway"
    for text in ("first canary\n", "second canary\n"):
        told = run(capsys, {path: text}, kind="secret_files")
        assert told["paths"] == [str(path)]
        assert "canary" not in json.dumps(told)
        assert path.read_text() == text
        assert path.stat().st_mode & 0o777 == 0o600
    assert not run(capsys, {path: "second canary\n"}, kind="secret_files")["changed"]


def test_what_cannot_be_written_is_an_error_and_nothing_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    told = run(capsys, {tmp_path / "new.d" / "first": "a\n", tmp_path / "file" / "slipway.conf": "a\n"})
    assert told["failed"]
    assert f"File exists: '{tmp_path / 'file'}'" in told["msg"]
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
