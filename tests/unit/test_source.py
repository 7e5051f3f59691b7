"""The source of a release: which files belong to it, their digest, and the archive that is sent."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "collections"))
from ansible_collections.slipway.wsgi.plugins.module_utils import source

UNUSUAL = (
    "-n",
    " space ",
    "tab\there",
    "line\nbreak",
    "quote'\"",
    "umlaut-\u00fc",
    "no-utf8-\udcff",
    "back\\slash",
    "*",
    ":(top)x",
)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep git from what the user, the machine or a hook says to it."""
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")


def write(root: Path, files: dict[str, str]) -> Path:
    """Write {path: text} below a directory and give the directory."""
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def git(root: Path, *arguments: str) -> None:
    """Run git in a directory; raise CalledProcessError if it fails."""
    command = ["git", "-C", str(root), "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    subprocess.run(command, capture_output=True, check=True, timeout=30)


def listed(root: Path) -> list[str]:
    """Give the files of a source as text."""
    return [str(path) for path in source.files(root)]


def digest(root: Path) -> str:
    """Give the digest of a source."""
    return source.digest(root, source.files(root))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Give a git work tree with tracked files."""
    root = write(
        tmp_path / "tree",
        {
            "wsgi.py": "a",
            "static/style.css": "b",
            ".gitignore": "*.log\n/build/\n/.env\n",
            "app/.gitignore": "/local.py\n",
            "app/routes.py": "c",
        },
    )
    git(root, "init", "-q")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", "a")
    return root


# --- files ----------------------------------------------------------------------------------------------------


def test_tracked_and_new_files_are_the_source(tree: Path) -> None:
    """In a work tree: what git tracks and what it would track, sorted; nothing that it ignores."""
    write(tree, {"new.py": "", "app/new.py": "", "error.log": "", "build/x": "", ".env": "", "app/local.py": ""})
    assert listed(tree) == [
        ".gitignore",
        "app/.gitignore",
        "app/new.py",
        "app/routes.py",
        "new.py",
        "static/style.css",
        "wsgi.py",
    ]


def test_what_was_deleted_is_no_part_of_it(tree: Path) -> None:
    """The work tree counts, not the index."""
    (tree / "wsgi.py").unlink()
    assert "wsgi.py" not in listed(tree)
    assert "static/style.css" in listed(tree)


def test_a_link_that_leads_nowhere_is_part_of_it(tree: Path) -> None:
    """A link is a file of its own, whatever it leads to."""
    (tree / "dangling").symlink_to("nowhere")
    git(tree, "add", "-A")
    assert "dangling" in listed(tree)


def test_a_source_may_be_a_part_of_a_work_tree(tree: Path) -> None:
    """Paths are relative to the source, and the .gitignore above it counts."""
    write(tree, {"app/error.log": "", "app/local.py": "", "app/sub/new.py": ""})
    assert listed(tree / "app") == [".gitignore", "routes.py", "sub/new.py"]


def test_a_source_that_is_ignored_is_read_without_git(tree: Path) -> None:
    """A build directory may be the source, though git ignores all of it."""
    write(tree, {"build/wsgi.py": "", "build/error.log": "", "build/__pycache__/x.pyc": ""})
    assert listed(tree / "build") == ["error.log", "wsgi.py"]


@pytest.mark.parametrize("in_git", [True, False])
def test_unusual_names_are_names(tmp_path: Path, in_git: bool) -> None:
    """No name is quoted, split or taken for an option or a pattern."""
    root = tmp_path / "tree"
    write(root, dict.fromkeys(UNUSUAL[:-4], "x"))
    for name in UNUSUAL[-4:]:
        (root / name).write_text("x")
    if in_git:
        git(root, "init", "-q")
        git(root, "add", "-A")
    assert source.files(root) == sorted(Path(name) for name in UNUSUAL)
    archive = tmp_path / "source.tar.gz"
    source.pack(root, source.files(root), archive)
    (tmp_path / "out").mkdir()
    subprocess.run(["tar", "-xzf", str(archive), "-C", str(tmp_path / "out")], check=True, timeout=30)
    assert sorted(os.listdir(os.fsencode(tmp_path / "out"))) == sorted(os.fsencode(name) for name in UNUSUAL)
    assert digest(tmp_path / "out") == digest(root)


def test_without_git_caches_and_environments_stay_out(tmp_path: Path) -> None:
    """Elsewhere it is every file, dotfiles too, but nothing below the directories in NEVER, however deep."""
    write(tmp_path, {"wsgi.py": "", ".hidden": "", "a/b/c.py": ""})
    for name in source.NEVER:
        write(tmp_path, {f"{name}/x": "", f"a/{name}/b/x": ""})
    assert listed(tmp_path) == [".hidden", "a/b/c.py", "wsgi.py"]


def test_what_stays_out_without_git() -> None:
    """The names are these."""
    assert {".git", ".venv", "venv", "__pycache__", "node_modules"} <= source.NEVER


def test_without_git_links_to_directories_are_links(tmp_path: Path) -> None:
    """A link to a directory is listed, and what it leads to only once."""
    write(tmp_path, {"a/x": ""})
    (tmp_path / "b").symlink_to("a")
    assert listed(tmp_path) == ["a/x", "b"]


def test_a_machine_without_git_can_release(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no program git every file counts."""
    write(tree, {"error.log": ""})
    monkeypatch.setenv("PATH", "")
    assert "error.log" in listed(tree)
    assert not [name for name in listed(tree) if name.startswith(".git/")]


def test_a_repository_that_git_refuses_is_not_read_without_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where git would not say what is ignored, nothing is released: .env would be in it."""
    write(tree, {".env": "secret"})
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")  # git's own tests do it so
    with pytest.raises(source.SourceError, match=r"(?s)git could not read .*dubious ownership.*safe\.directory"):
        source.files(tree)


@pytest.mark.parametrize("in_git", [True, False])
def test_a_source_without_files_is_refused(tmp_path: Path, in_git: bool) -> None:
    """An empty source is a mistake, and the message asks about the likely one."""
    if in_git:
        git(write(tmp_path, {"x.log": "", ".git/info/exclude": ""}), "init", "-q")
        (tmp_path / ".git/info/exclude").write_text("*.log\n")
    with pytest.raises(source.SourceError, match="holds no file that could be released: is all of it ignored by git"):
        source.files(tmp_path)


def test_a_source_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    """A file is no source, nor is what is not there."""
    write(tmp_path, {"file": ""})
    for name in ("file", "missing"):
        with pytest.raises(source.SourceError, match=f"{name} is not a directory on the controller"):
            source.files(tmp_path / name)


# --- digest ---------------------------------------------------------------------------------------------------


def example(root: Path) -> Path:
    """Write a source with all kinds of content."""
    write(root, {"a.py": "a", "b/c.py": "c", "run.sh": "r"})
    (root / "run.sh").chmod(0o755)
    (root / "link").symlink_to("b/c.py")
    return root


def test_a_digest_is_of_content_alone(tmp_path: Path) -> None:
    """Times, modes that git does not know, the order of writing and the place make no difference."""
    one, two = example(tmp_path / "one"), tmp_path / "two"
    (two / "b").mkdir(parents=True)
    (two / "link").symlink_to("b/c.py")
    for name in ("run.sh", "b/c.py", "a.py"):
        (two / name).write_bytes((one / name).read_bytes())
        os.utime(two / name, (1, 1))
        (two / name).chmod(0o700 if name == "run.sh" else 0o600)
    assert digest(one) == digest(two)
    assert source.digest(one, list(reversed(source.files(one)))) == digest(one)
    if os.geteuid() == 0:
        for name in ("a.py", "run.sh"):
            os.chown(two / name, 65534, 65534)
        assert digest(one) == digest(two)


@pytest.mark.parametrize("change", ["content", "name", "directory", "bit", "target", "kind", "more", "less", "moved"])
def test_a_digest_depends_on(tmp_path: Path, change: str) -> None:
    """Each of these makes another release."""
    root = example(tmp_path / "one")
    before = digest(root)
    if change == "content":
        (root / "a.py").write_text("b")
    elif change == "name":
        (root / "a.py").rename(root / "z.py")
    elif change == "directory":
        (root / "b").rename(root / "d")
    elif change == "bit":
        (root / "a.py").chmod(0o755)
    elif change == "target":
        (root / "link").unlink()
        (root / "link").symlink_to("a.py")
    elif change == "kind":
        (root / "link").unlink()
        (root / "link").write_text("b/c.py")
    elif change == "more":
        (root / "empty").touch()
    elif change == "less":
        (root / "a.py").unlink()
    else:  # a byte moves from a content to the next name
        (root / "a.py").rename(root / "a.pya")
        (root / "a.pya").write_text("")
    assert digest(root) != before


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("out", "/etc/hostname"),
        ("out", "../beside"),
        ("out", ".."),
        ("a/out", "../../beside"),
        ("a/out", "../b/../../beside"),
    ],
)
def test_a_link_that_leads_out_is_refused(tmp_path: Path, name: str, target: str) -> None:
    """What it leads to is not on the host: the message says which link, where to, and what to do."""
    root = write(tmp_path / "source", {"wsgi.py": "", "a/x": "", "b/x": ""})
    (root / name).symlink_to(target)
    words = f"{root / name} links to {target}, outside the source: copy the file in, or ignore the link."
    with pytest.raises(source.SourceError, match=f"^{re.escape(words)}$"):
        digest(root)


@pytest.mark.parametrize("target", ["wsgi.py", "../b/x", "..", "../a/../b/x", "./x"])
def test_a_link_that_stays_inside_is_fine(tmp_path: Path, target: str) -> None:
    """Up and down again, and to the source itself."""
    root = write(tmp_path, {"wsgi.py": "", "a/x": "", "b/x": ""})
    (root / "a/link").symlink_to(target)
    assert digest(root)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A pipe would be waited for without end: the message says which path and what to do."""
    root = write(tmp_path, {"wsgi.py": ""})
    os.mkfifo(root / "pipe")
    words = f"{root / 'pipe'} is neither a file nor a link: remove it, or let git ignore it."
    with pytest.raises(source.SourceError, match=f"^{re.escape(words)}$"):
        digest(root)


def test_a_repository_in_the_source_is_refused(tree: Path) -> None:
    """A repository of its own is one entry to git, and its files would be missing."""
    git(write(tree / "vendored", {"x.py": ""}), "init", "-q")
    with pytest.raises(source.SourceError, match="vendored is neither a file nor a link"):
        digest(tree)


# --- pack -----------------------------------------------------------------------------------------------------


def test_an_archive_is_the_source_made_normal(tmp_path: Path) -> None:
    """Owned by root, modes of three kinds, times kept, and `tar` reads it."""
    root = example(tmp_path / "one")
    (root / "a.py").chmod(0o660)
    (root / "run.sh").chmod(0o4711)
    if os.geteuid() == 0:
        os.chown(root / "a.py", 65534, 65534)
    os.utime(root / "a.py", (1_000_000_000, 1_000_000_000))
    archive = tmp_path / "source.tar.gz"
    source.pack(root, source.files(root), archive)
    with tarfile.open(archive, "r:gz") as tar:
        found = {info.name: info for info in tar}
    assert {name: info.mode for name, info in found.items()} == {
        "a.py": 0o644,
        "b/c.py": 0o644,
        "link": 0o777,
        "run.sh": 0o755,
    }
    assert {(info.uid, info.gid, info.uname, info.gname) for info in found.values()} == {(0, 0, "root", "root")}
    assert found["a.py"].mtime == 1_000_000_000
    assert found["link"].linkname == "b/c.py"
    (tmp_path / "out").mkdir()
    subprocess.run(
        ["tar", "-xzf", str(archive), "--no-same-owner", "-C", str(tmp_path / "out")], check=True, timeout=30
    )
    assert digest(tmp_path / "out") == digest(root)
    assert (tmp_path / "out/a.py").stat().st_mtime == 1_000_000_000


def test_an_archive_holds_what_is_listed(tmp_path: Path) -> None:
    """Nothing that is not named gets in by its directory."""
    root = example(tmp_path / "one")
    source.pack(root, [Path("b/c.py")], tmp_path / "source.tar.gz")
    with tarfile.open(tmp_path / "source.tar.gz") as tar:
        assert tar.getnames() == ["b/c.py"]


# --- describe -------------------------------------------------------------------------------------------------


def test_a_source_is_described_by_its_commit(tree: Path, tmp_path: Path) -> None:
    """The commit where there is one, whether the tree differs from it, and the bare path elsewhere."""
    assert re.fullmatch(rf"{re.escape(str(tree))} at [0-9a-f]{{7,}}", source.describe(tree))
    (tree / "wsgi.py").write_text("changed")
    assert source.describe(tree).endswith("-dirty")
    assert source.describe(tmp_path) == str(tmp_path)
    bare = write(tmp_path / "new", {"wsgi.py": ""})
    git(bare, "init", "-q")
    assert source.describe(bare) == str(bare)
