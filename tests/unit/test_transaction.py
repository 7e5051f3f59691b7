"""Several files written as one: what differs is written, and what was there can be put back to the last byte."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.slipway.wsgi.plugins.module_utils.transaction import Change, File


def tree(directory: Path) -> dict[str, tuple[str, int]]:
    """Give all that is in a directory: content or where a link leads, and permissions."""
    return {
        str(path.relative_to(directory)): (
            os.readlink(path) if path.is_symlink() else "" if path.is_dir() else path.read_bytes().decode("latin-1"),
            path.lstat().st_mode,
        )
        for path in sorted(directory.rglob("*"))
    }


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give a directory with a file, one that is not text, and a link."""
    (tmp_path / "old").write_text("old\n")
    (tmp_path / "old").chmod(0o600)
    (tmp_path / "bytes").write_bytes(b"\xff\x00\n")
    (tmp_path / "link").symlink_to("../elsewhere")
    return tmp_path


def wanted(directory: Path) -> list[File]:
    """Give a change of each kind."""
    return [
        File(str(directory / "old"), "new\n"),
        File(str(directory / "a" / "b" / "secret"), "hunter2\n", 0o640, secret=True),
        File(str(directory / "c" / "d" / "own"), "mine\n", 0o600),
        File(str(directory / "bytes")),
        File(str(directory / "link")),
        File(str(directory / "never" / "there")),
    ]


def test_all_is_written_as_wanted(directory: Path) -> None:
    Change(wanted(directory)).make()
    assert tree(directory) == {
        "old": ("new\n", 0o100644),
        "a": ("", 0o040755),
        "a/b": ("", 0o040755),
        "a/b/secret": ("hunter2\n", 0o100640),
        "c": ("", 0o040755),
        "c/d": ("", 0o040700),
        "c/d/own": ("mine\n", 0o100600),
    }
    assert Change(wanted(directory)).files == []


def test_all_is_put_back_as_it_was(directory: Path) -> None:
    before = tree(directory)
    change = Change(wanted(directory))
    change.make()
    change.undo()
    assert tree(directory) == before


@pytest.mark.parametrize("number", range(5))
def test_what_was_written_until_a_fault_is_put_back(
    directory: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before, put = tree(directory), File.put
    done: list[File] = []

    def fail(file: File) -> None:
        if len(done) == number:
            raise OSError("no space left")
        done.append(file)
        put(file)

    change = Change(wanted(directory))
    with monkeypatch.context() as patch:
        patch.setattr(File, "put", fail)
        with pytest.raises(OSError, match="no space left"):
            change.make()
    change.undo()
    assert tree(directory) == before


def test_a_reader_never_finds_half_a_file(directory: Path) -> None:
    """A file is another one afterwards, and who has the old one open reads on in that."""
    with (directory / "old").open() as reader:
        Change(wanted(directory)).make()
        assert reader.read() == "old\n"


def test_a_secret_is_not_shown(directory: Path) -> None:
    shown = Change(wanted(directory)).diff()
    assert [Path(one["after_header"]).name for one in shown] == ["old", "secret", "own", "bytes", "link"]
    assert "hunter2" not in str(shown)
    assert shown[0]["before"].endswith("mode 0600\nold\n")
    assert shown[0]["after"].endswith("mode 0644\nnew\n")
    assert shown[4] == {
        "before_header": str(directory / "link"), "after_header": str(directory / "link"),
        "before": "link to ../elsewhere\n", "after": "",
    }  # fmt: skip
