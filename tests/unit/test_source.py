"""The source of a release: how it is fetched, which files belong to it, their digest, and the archive that is sent."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import inspect
import io
import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import traceback
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
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


# --- what is said of a local directory ------------------------------------------------------------------------


def origin(root: Path) -> str:
    """Give the line for people."""
    return source.fetch(source.Wanted(str(root)), root.parent / "unused").origin


def test_a_source_is_described_by_its_commit(tree: Path, tmp_path: Path) -> None:
    """The commit where there is one, whether the tree differs from it, and the bare path elsewhere."""
    assert re.fullmatch(rf"{re.escape(str(tree))} at [0-9a-f]{{7,}}", origin(tree))
    (tree / "wsgi.py").write_text("changed")
    assert origin(tree).endswith("-dirty")
    plain = write(tmp_path / "plain", {"wsgi.py": ""})
    assert origin(plain) == str(plain)
    bare = write(tmp_path / "new", {"wsgi.py": ""})
    git(bare, "init", "-q")
    assert origin(bare) == str(bare)


@pytest.mark.parametrize(("change", "dirty"), [("", False), ("tracked", True), ("new", True), ("ignored", False)])
def test_a_local_directory_is_fetched_where_it_is(tree: Path, tmp_path: Path, change: str, dirty: bool) -> None:
    """Nothing is copied; the commit says whether what is released differs from it."""
    if change:
        write(tree, {{"tracked": "wsgi.py", "new": "new.py", "ignored": "error.log"}[change]: "changed"})
    fetched = source.fetch(source.Wanted(str(tree)), tmp_path / "work")
    assert fetched.directory == tree
    assert fetched.names == source.files(tree)
    assert fetched.digest == digest(tree)
    assert fetched.commit == head(tree) + "-dirty" * dirty
    assert re.fullmatch(rf"{re.escape(str(tree))} at [0-9a-f]{{7,}}{'-dirty' * dirty}", fetched.origin)
    assert not (tmp_path / "work").exists()


def test_a_hook_of_git_may_deploy(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a hook's environment says of its own repository is not taken for the source's."""
    other = write(tmp_path / "other", {"x": ""})
    git(other, "init", "-q")
    expected = head(tree)
    before = sorted(other.rglob("*"))
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / ".git/index"))
    assert source.fetch(source.Wanted(str(tree)), tmp_path / "work").commit == expected
    assert source.fetch(source.Wanted(str(tree), ref="HEAD"), tmp_path / "work").commit == expected
    assert sorted(other.rglob("*")) == before


# --- .gitignore outside git -----------------------------------------------------------------------------------


def test_gitignore_counts_outside_git_too(tmp_path: Path) -> None:
    """git itself matches: nested files, patterns that are taken back, unusual names; and NEVER applies."""
    root = write(
        tmp_path / "plain",
        {
            ".gitignore": "*.log\n/.env\n!keep.log\n",
            ".env": "secret",
            "wsgi.py": "",
            "a.log": "",
            "keep.log": "",
            "app/.gitignore": "/local.py\n",
            "app/local.py": "",
            "app/x.log": "",
            "app/routes.py": "",
            "venv/x": "",
            ":(top)x.log": "",
            ":!x.py": "",
            "*": "",
        },
    )
    (root / "link").symlink_to("app")
    assert listed(root) == [
        "*",
        ".gitignore",
        ":!x.py",
        "app/.gitignore",
        "app/routes.py",
        "keep.log",
        "link",
        "wsgi.py",
    ]
    assert not (root / ".git").exists()
    assert source.fetch(source.Wanted(str(root)), tmp_path / "work").commit == ""


def test_gitignore_that_ignores_nothing_outside_git(tmp_path: Path) -> None:
    """Nothing ignored is no error."""
    assert listed(write(tmp_path, {".gitignore": "*.log\n", "wsgi.py": ""})) == [".gitignore", "wsgi.py"]


# --- check ----------------------------------------------------------------------------------------------------

TOKEN = "canary-token-5eb63bbbe01eeed0"
SHA = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"source": ""}, "release_source is empty"),
        ({"source": "app"}, "release_source is app: a directory has to be given by its absolute path"),
        ({"source": "/missing"}, "/missing is not a directory on the controller"),
        ({"source": "FILE"}, "is a file: set release_checksum"),
        ({"source": "https://h/a.tgz"}, r"https://h/a\.tgz: set release_ref .* or release_checksum"),
        ({"source": "git@h:a.git"}, "set release_ref"),
        ({"source": "DIR", "token": TOKEN}, "release_token is for git and archives"),
        ({"source": "DIR", "deploy_key": "k"}, "release_deploy_key is for git and archives"),
        ({"source": "DIR", "subdirectory": "a"}, "release_subdirectory is for git and archives"),
        ({"source": "https://h/a", "ref": "x", "checksum": SHA}, "release_ref and release_checksum are both set"),
        ({"source": "https://h/a b", "ref": "x"}, "blank or a control character"),
        *(
            ({"source": "https://h/a", "ref": ref}, "release_ref is .*accepted is the name of a branch or tag")
            for ref in ("-x", "--upload-pack=x", "+x", "a:b", "a b", "^a", "a*", "a..b", "a@{1}", "a\nb", "a~1")
        ),
        *(
            ({"source": url, "ref": "x"}, "with release_ref accepted is https://, ssh://")
            for url in ("-x", "--upload-pack=x", "ext::sh%20-c%20x", "git://h/a", "h:a", "a/b", "-o@h:a", "a@-o:b")
        ),
        ({"source": "/missing", "ref": "x"}, "/missing is not a directory on the controller, so no git repository"),
        ({"source": "http://h/a", "ref": "x"}, "who listens could change the code"),
        ({"source": "http://127.evil.example/a", "ref": "x"}, "who listens could change the code"),
        ({"source": "https:///a", "ref": "x"}, "names no host"),
        ({"source": "https://h:port/a", "ref": "x"}, "names no host, or a port"),
        ({"source": f"https://u:{TOKEN}@h/a", "ref": "x"}, "https://h/a with a password in it: .*release_token"),
        ({"source": f"ssh://u:{TOKEN}@h/a", "ref": "x"}, "ssh://u@h/a with a password in it"),
        ({"source": f"https://u:{TOKEN}@h/a", "checksum": SHA}, "https://h/a with a password in it"),
        ({"source": "git@h:a", "ref": "x", "token": TOKEN}, "release_token is for https://"),
        ({"source": "/tmp", "ref": "x", "token": TOKEN}, "release_token is for https://"),
        ({"source": "https://h/a", "ref": "x", "token": TOKEN + "\n" + TOKEN}, "release_token has a blank"),
        ({"source": "https://h/a", "ref": "x", "deploy_key": TOKEN}, "release_deploy_key is for ssh"),
        ({"source": "git@h:a", "ref": "x", "deploy_key": TOKEN}, "neither the text of a private key"),
        ({"source": "https://h/a", "ref": "x", "subdirectory": "../b"}, "release_subdirectory is '../b'"),
        ({"source": "https://h/a", "ref": "x", "subdirectory": "/b"}, "release_subdirectory is '/b'"),
        *(
            ({"source": "https://h/a", "checksum": checksum}, "release_checksum is .*accepted is sha256: and 64")
            for checksum in ("x", "0" * 64, "md5:" + "0" * 32, "sha256:" + "0" * 63, "sha256:" + "g" * 64)
        ),
        ({"source": "/missing", "checksum": SHA}, "/missing is not a file on the controller"),
        ({"source": "DIR", "checksum": SHA}, "is not a file on the controller"),
        ({"source": "git@h:a", "checksum": SHA}, "with release_checksum accepted is"),
        ({"source": "FILE", "checksum": SHA, "token": TOKEN}, "release_token is for a URL"),
        ({"source": "https://h/a", "checksum": SHA, "deploy_key": TOKEN}, "release_deploy_key is for git by ssh"),
        ({"source": "http://h/a", "checksum": SHA, "token": TOKEN}, "would be sent for all to read"),
    ],
)
def test_what_cannot_be_is_refused_before_anything(tmp_path: Path, inputs: dict[str, str], words: str) -> None:
    """Each message names the input and what is accepted, and no secret."""
    write(tmp_path, {"file": ""})
    place = {"DIR": str(tmp_path), "FILE": str(tmp_path / "file")}
    wanted = source.Wanted(**(inputs | {"source": place.get(inputs["source"], inputs["source"])}))
    with pytest.raises(source.SourceError, match=words) as refused:
        source.check(wanted)
    assert TOKEN not in str(refused.value)
    assert TOKEN not in repr(wanted) or TOKEN in wanted.source


@pytest.mark.parametrize(
    "inputs",
    [
        {"source": "https://user@h:8443/a.git", "ref": "v1.0", "token": TOKEN, "subdirectory": "a/b"},
        {"source": "ssh://git@h:22/a.git", "ref": "feature/x+y", "deploy_key": "-----BEGIN X"},
        {"source": "git@h:~me/a.git", "ref": "HEAD", "deploy_key": "KEY"},
        {"source": "git@[::1]:a.git", "ref": "abcdef0"},
        {"source": "file:///a", "ref": "x"},
        {"source": "http://127.0.0.1:1/a", "ref": "x", "token": TOKEN},
        {"source": "http://h/a.zip", "checksum": "sha512:" + "Aa" * 64},
        {"source": "https://h/a.zip?x=y", "checksum": SHA, "token": TOKEN},
    ],
)
def test_what_can_be_is_accepted(tmp_path: Path, inputs: dict[str, str]) -> None:
    """Without a look at the network."""
    key = str(write(tmp_path, {"key": ""}) / "key")
    source.check(source.Wanted(**{name: key if value == "KEY" else value for name, value in inputs.items()}))


@pytest.mark.parametrize(("url", "program"), [("https://h/a", "git"), ("git@h:a", "ssh"), ("git@h:a", "ssh-agent")])
def test_a_missing_program_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, program: str) -> None:
    """Before git fails at it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for other in {"git", "ssh", "ssh-add", "ssh-agent"} - {program}:
        (tmp_path / other).touch(0o755)
    key = "-----BEGIN X" if url.startswith("git@") else ""
    with pytest.raises(source.SourceError, match=f"The program {program} is not on the controller"):
        source.check(source.Wanted(url, ref="x", deploy_key=key))


# --- git ------------------------------------------------------------------------------------------------------


def head(root: Path, name: str = "HEAD") -> str:
    """Give the full id of a commit."""
    command = ["git", "-C", str(root), "rev-parse", f"{name}^{{commit}}"]
    return subprocess.run(command, capture_output=True, check=True, text=True, timeout=30).stdout.strip()


def commit(root: Path, files: dict[str, str]) -> str:
    """Write and commit files, ignored ones too; give the commit's id."""
    git(write(root, files), "add", "-Af")
    git(root, "commit", "-q", "-m", "x")
    return head(root)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Give a repository: two commits on main, tags of the first, a branch beside, a commit on none of them."""
    root = tmp_path / "repository"
    root.mkdir()
    git(root, "init", "-q", "-b", "main")
    commit(root, {"wsgi.py": "one", ".gitignore": "*.log\n", "kept.log": "k", "venv/x": "", "part/y.py": ""})
    git(root, "tag", "light")
    git(root, "tag", "-a", "-m", "x", "annotated")
    git(root, "tag", "tree", "HEAD:part")
    git(root, "checkout", "-q", "-b", "feature/x")
    commit(root, {"wsgi.py": "feature"})
    git(root, "checkout", "-q", "--detach")
    git(root, "tag", "lost", commit(root, {"wsgi.py": "lost"}))
    git(root, "checkout", "-q", "main")
    commit(root, {"wsgi.py": "two"})
    return root


def everything(workspace: Path) -> bytes:
    """Give the names and contents of all files of a workspace."""
    found = [path for path in workspace.rglob("*") if path.is_file()]
    return b"".join(os.fsencode(path) + path.read_bytes() for path in found)


@pytest.mark.parametrize("form", ["file://{}", "{}"])
@pytest.mark.parametrize(
    ("ref", "content"),
    [
        ("main", "two"),
        ("HEAD", "two"),
        ("feature/x", "feature"),
        ("refs/heads/feature/x", "feature"),
        ("light", "one"),
        ("annotated", "one"),
        ("full", "one"),
        ("short", "one"),
        ("upper", "one"),
    ],
)
def test_a_git_reference_is_fetched(repository: Path, tmp_path: Path, form: str, ref: str, content: str) -> None:
    """Branch, tags, and commits by all or part of their id; all that is committed is in it."""
    first = head(repository, "light")
    wanted = {"full": first, "short": first[:8], "upper": first[:9].upper()}.get(ref, ref)
    url = form.format(repository)
    fetched = source.fetch(source.Wanted(url, ref=wanted), tmp_path / "work")
    assert (fetched.directory / "wsgi.py").read_text() == content
    assert fetched.directory.is_relative_to(tmp_path / "work")
    assert [str(name) for name in fetched.names] == [".gitignore", "kept.log", "part/y.py", "venv/x", "wsgi.py"]
    assert fetched.digest == source.digest(fetched.directory, fetched.names)
    assert fetched.commit == head(repository, first if wanted != ref else ref)
    assert fetched.origin == f"{url} at {wanted}"


def test_one_workspace_is_enough(repository: Path, tmp_path: Path) -> None:
    """Several sources of one run do not meet in it."""
    one, two = (source.fetch(source.Wanted(str(repository), ref=ref), tmp_path) for ref in ("main", "light"))
    assert [(fetched.directory / "wsgi.py").read_text() for fetched in (one, two)] == ["two", "one"]


def test_no_more_is_fetched_than_needed(repository: Path, tmp_path: Path) -> None:
    """One commit of a branch, not its history."""
    fetched = source.fetch(source.Wanted(f"file://{repository}", ref="main"), tmp_path / "work")
    count = ["git", "-C", str(fetched.directory), "rev-list", "--count", "--all", "HEAD"]
    assert subprocess.run(count, capture_output=True, check=True, timeout=30).stdout == b"1\n"


def test_a_server_that_gives_branches_and_tags_only(repository: Path, tmp_path: Path) -> None:
    """A full commit id is found all the same, unless it is on none of them."""
    first, lost = head(repository, "light"), head(repository, "lost")
    git(repository, "tag", "-d", "lost")
    old = write(tmp_path, {"gitconfig": "[protocol]\n\tversion = 0\n"}) / "gitconfig"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", str(old))
        assert source.fetch(source.Wanted(f"file://{repository}", ref=first), tmp_path / "work").commit == first
        with pytest.raises(source.SourceError, match=f"has no commit {lost}"):
            source.fetch(source.Wanted(f"file://{repository}", ref=lost), tmp_path / "work2")


@pytest.mark.parametrize("ref", ["missing", "deadbeef", "0" * 40, "FETCH_HEAD", "tree"])
def test_a_reference_that_is_not_there(repository: Path, tmp_path: Path, ref: str) -> None:
    """The message names the repository, the reference and what is accepted."""
    words = f"^file://{repository} has no commit {ref}: release_ref has to be a branch or a tag of it, or the id of"
    with pytest.raises(source.SourceError, match=words):
        source.fetch(source.Wanted(f"file://{repository}", ref=ref), tmp_path / "work")


def test_a_repository_that_is_not_there(tmp_path: Path) -> None:
    """git's last words say why."""
    with pytest.raises(
        source.SourceError, match=r"^git fetch of file:///missing failed: .*does not appear to be a git"
    ):
        source.fetch(source.Wanted("file:///missing", ref="main"), tmp_path / "work")


def test_a_part_of_a_repository(repository: Path, tmp_path: Path) -> None:
    """The part is all of the source; one that is not there, or leads out, is refused."""
    commit(repository, {"z": ""})
    (repository / "out").symlink_to("/usr")
    commit(repository, {})
    url = f"file://{repository}"
    fetched = source.fetch(source.Wanted(url, ref="main", subdirectory="part"), tmp_path / "work")
    assert fetched.names == [Path("y.py")]
    for number, part in enumerate(("missing", "wsgi.py", "out")):
        with pytest.raises(source.SourceError, match=f"{url} at main has no directory {part}: correct release_subdir"):
            source.fetch(source.Wanted(url, ref="main", subdirectory=part), tmp_path / str(number))


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an ssh on the path that notes its process id and that of its child, and never answers."""
    script = '#!/bin/sh\nsleep 600 &\necho $$ $! >"$0.pids"\nwait\n'
    (write(tmp_path, {"bin/ssh": script}) / "bin/ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(source, "TIME_LIMIT", 1.0)
    return tmp_path / "bin/ssh.pids"


def running(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not yet buried does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int]) -> bool:
    """Whether all of these processes end within five seconds; an agent that nobody ends takes up to ten."""
    deadline = time.monotonic() + 5
    while any(map(running, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(running, pids))


def test_a_server_that_hangs_is_given_up(hanging: Path, tmp_path: Path) -> None:
    """In words, and with all that git has started."""
    with pytest.raises(source.SourceError, match=r"^git fetch of git@h:a was ended after 1 s without a result"):
        source.fetch(source.Wanted("git@h:a", ref="main"), tmp_path / "work")
    pids = [int(pid) for pid in hanging.read_text().split()]
    assert len(pids) == 2
    assert gone(pids)


# --- git and archives by http ---------------------------------------------------------------------------------


@dataclass
class Web:
    """A web server on this machine.

    Attributes:
        url: its address.
        files: what it serves below /files/, by name.
        moved: where paths lead to by a redirection.
        password: what it asks for, if set: by Basic for /git/, by Bearer for the rest.
        asked: path and credentials of each request.
        commands: the command lines of all that this test had started, each time it answered.
    """

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)
    password: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    commands: bytes = field(default=b"", repr=False)


def command_lines(ancestor: int) -> bytes:
    """Give the command lines of all processes that a process has started, and those have started."""
    parents, found = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            found[int(path.name)] = (path / "cmdline").read_bytes()
    chosen = []
    for pid, command in found.items():
        above = pid
        while above not in (0, ancestor):
            above = parents.get(above, 0)
        if above:
            chosen.append(command)
    return b"\n".join(chosen)


def backend(root: Path, method: str, path: str, query: str, headers: Message, body: bytes) -> tuple[Message, bytes]:
    """Have git answer a request for a repository; give headers and body."""
    environment = os.environ | {
        "GIT_PROJECT_ROOT": str(root),
        "GIT_HTTP_EXPORT_ALL": "1",
        "GIT_PROTOCOL": headers.get("Git-Protocol", ""),
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_METHOD": method,
        "CONTENT_TYPE": headers.get("Content-Type", ""),
        "HTTP_CONTENT_ENCODING": headers.get("Content-Encoding", ""),
    }
    command = ["git", "http-backend"]
    done = subprocess.run(command, input=body, capture_output=True, env=environment, check=True, timeout=30)
    head, _, content = done.stdout.partition(b"\r\n\r\n")
    return message_from_bytes(head), content


def serve(root: Path, web: Web) -> http.server.ThreadingHTTPServer:
    """Make a server of git's repositories below a directory, and of files."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
            # Some servers say again what they were told.
            self.send_response(status, self.headers.get("Authorization") if status == 401 else None)
            for name, value in ({"Content-Length": str(len(body))} | dict(headers)).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            path, mark, query = self.path.partition("?")
            said = self.headers.get("Authorization", "")
            if said.startswith("Basic "):
                said = base64.b64decode(said[6:]).decode()
            web.asked.append((path, said))
            web.commands += command_lines(os.getpid())
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if path in web.moved:
                self.answer(302, b"", {"Location": web.moved[path] + mark + query})
            elif web.password and said not in {start + web.password for start in ("x-access-token:", "me:", "Bearer ")}:
                self.answer(401, b"", {"WWW-Authenticate": 'Basic realm="x"'})
            elif path.startswith("/git/"):
                found = backend(root, self.command, path.removeprefix("/git"), query, self.headers, body)
                self.answer(int(found[0].get("Status", "200").split()[0]), found[1], dict(found[0]))
            else:
                content = web.files.get(path.removeprefix("/files/"))
                self.answer(404 if content is None else 200, content or b"", {})

        do_POST = do_GET  # noqa: N815  (the name is http.server's)

    return http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@contextlib.contextmanager
def serving(root: Path) -> Iterator[Web]:
    """Run a server as long as it is needed."""
    web = Web()
    with serve(root, web) as server:
        web.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield web
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def web(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """Give a server that no proxy is asked about."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with serving(tmp_path) as server:
        yield server


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Web]:
    """Give another server; another port is another host to git and to us."""
    with serving(tmp_path) as server:
        yield server


def secret_in(web: Web, workspace: Path) -> bool:
    """Whether the token was on a command line, or is in a file of the workspace, plainly or as Basic sends it."""
    forms = [TOKEN.encode(), *(base64.b64encode(f"{user}:{TOKEN}".encode()) for user in ("x-access-token", "me"))]
    assert web.commands
    return any(form in web.commands or form in everything(workspace) for form in forms)


@pytest.mark.parametrize("user", ["", "me"])
def test_a_token_opens_a_repository(repository: Path, tmp_path: Path, web: Web, user: str) -> None:
    """It goes to the server, with the user of the URL if there is one, and nowhere else."""
    web.password = TOKEN
    at = f"{user}@" if user else ""
    url = web.url.replace("//", f"//{at}") + "/git/repository"
    store = tmp_path / "store"
    config = write(tmp_path, {"gitconfig": f"[credential]\n\thelper = store --file={store}\n"}) / "gitconfig"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", str(config))
        fetched = source.fetch(source.Wanted(url, ref="annotated", token=TOKEN), tmp_path / "work")
    assert (fetched.directory / "wsgi.py").read_text() == "one"
    assert f"{user or 'x-access-token'}:{TOKEN}" in {said for _, said in web.asked}
    assert fetched.origin == f"{web.url}/git/repository at annotated"
    assert not store.exists()
    assert not secret_in(web, tmp_path / "work")


def test_git_does_not_ask(repository: Path, tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """No terminal, and no program that asks: the message says what to set."""
    web.password = TOKEN
    asking = write(tmp_path, {"ask": '#!/bin/sh\ntouch "$0.asked"\necho x\n'}) / "ask"
    asking.chmod(0o755)
    for name in ("GIT_ASKPASS", "SSH_ASKPASS"):
        monkeypatch.setenv(name, str(asking))
    with pytest.raises(source.SourceError, match=r"It asks for a login: set release_token\.$"):
        source.fetch(source.Wanted(f"{web.url}/git/repository", ref="main"), tmp_path / "work")
    assert not (tmp_path / "ask.asked").exists()


def test_a_token_that_is_refused(repository: Path, tmp_path: Path, web: Web) -> None:
    """The message says so and does not show it."""
    web.password = "another"
    with pytest.raises(source.SourceError, match=r"Authentication failed .*is release_token right") as refused:
        source.fetch(source.Wanted(f"{web.url}/git/repository", ref="main", token=TOKEN), tmp_path / "work")
    assert TOKEN not in "".join(traceback.format_exception(refused.value))
    assert f"x-access-token:{TOKEN}" in {said for _, said in web.asked}
    assert not secret_in(web, tmp_path / "work")


def test_a_token_is_for_one_host(repository: Path, tmp_path: Path, web: Web, other: Web) -> None:
    """A redirection or a submodule that leads to another host does not get it."""
    other.password = TOKEN
    web.moved = {"/git/moved/info/refs": f"{other.url}/git/repository/info/refs"}
    with pytest.raises(source.SourceError, match="asks for a login"):
        source.fetch(source.Wanted(f"{web.url}/git/moved", ref="main", token=TOKEN), tmp_path / "work")
    git(repository, "config", "-f", ".gitmodules", "submodule.lib.path", "lib")
    git(repository, "config", "-f", ".gitmodules", "submodule.lib.url", f"{other.url}/git/repository")
    git(repository, "update-index", "--add", "--cacheinfo", f"160000,{head(repository)},lib")
    git(repository, "add", ".gitmodules")
    git(repository, "commit", "-q", "-m", "x")
    web.password = TOKEN
    with pytest.raises(source.SourceError, match=r"^git submodule of"):
        source.fetch(source.Wanted(f"{web.url}/git/repository", ref="main", token=TOKEN), tmp_path / "work2")
    assert f"x-access-token:{TOKEN}" in {said for _, said in web.asked}
    assert other.asked
    assert {said for _, said in other.asked} == {""}


def test_submodules_are_part_of_the_source(repository: Path, tmp_path: Path, web: Web) -> None:
    """Those of submodules too, with the same token, by URLs relative to the repository's."""
    web.password = TOKEN
    for name, inner, text in (("deep", "", "d"), ("lib", "deep", "l"), ("repository", "lib", "two")):
        root = tmp_path / name
        if name != "repository":
            root.mkdir()
            git(root, "init", "-q", "-b", "main")
        if inner:
            write(root, {".gitmodules": f'[submodule "{inner}"]\n\tpath = {inner}\n\turl = ../{inner}\n'})
            git(root, "update-index", "--add", "--cacheinfo", f"160000,{head(tmp_path / inner)},{inner}")
            (root / inner).mkdir()
        (root / "x.py").write_text(text)
        git(root, "add", "x.py", *([".gitmodules"] if inner else []))
        git(root, "commit", "-q", "-m", "x")
    wanted = source.Wanted(f"{web.url}/git/repository", ref="main", token=TOKEN)
    fetched = source.fetch(wanted, tmp_path / "work")
    assert (fetched.directory / "lib/deep/x.py").read_text() == "d"
    assert {Path("lib/x.py"), Path("lib/deep/x.py"), Path("x.py")} <= set(fetched.names)
    assert not [name for name in fetched.names if ".git" in name.parts]
    assert not secret_in(web, tmp_path / "work")


# --- git by ssh -----------------------------------------------------------------------------------------------


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put an ssh on the path that notes what it can see, and runs the command on this machine; give its notes."""
    script = f"""#!{sys.executable}
import contextlib, os, subprocess, sys
from pathlib import Path
{inspect.getsource(command_lines)}
notes = {str(tmp_path / "notes")!r}
with open(notes, "a") as file:
    print(*sys.argv[1:], sep="\\n", file=file)
    for option in sys.argv[1:]:
        if option.startswith("IdentityAgent="):
            agent = dict(os.environ, SSH_AUTH_SOCK=option.partition("=")[2])
            print(subprocess.run(["ssh-add", "-L"], env=agent, capture_output=True, text=True).stdout, file=file)
with open(notes + ".commands", "ab") as file:
    file.write(command_lines({os.getpid()}) + Path("/proc/self/environ").read_bytes())
if os.path.exists(notes + ".fail"):
    sys.exit(open(notes + ".fail").read())
os.execvp("sh", ["sh", "-c", sys.argv[-1]])
"""
    (write(tmp_path, {"bin/ssh": script}) / "bin/ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return tmp_path / "notes"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a private key, without a passphrase; its public half is beside it."""
    path = tmp_path_factory.mktemp("key") / "id"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=30)
    return path


def agents() -> list[int]:
    """Give the process ids of the ssh-agents that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if path.read_bytes().startswith(b"ssh-agent\0"):
                found.append(int(path.parent.name))
    return [pid for pid in found if running(pid)]


@pytest.mark.parametrize("form", ["as it is", "no last line end", "carriage returns"])
def test_a_deploy_key_is_lent_by_an_agent(repository: Path, tmp_path: Path, ssh: Path, key: Path, form: str) -> None:
    """ssh is to use this key alone, asks nothing, and the key is on no command line, in no file, in no environment."""
    text = key.read_text()
    lines = text.splitlines()[1:-1]
    text = {"as it is": text, "no last line end": text.strip(), "carriage returns": text.replace("\n", "\r\n")}[form]
    before = agents()
    fetched = source.fetch(source.Wanted(f"git@h:{repository}", ref="light", deploy_key=text), tmp_path / "work")
    assert (fetched.directory / "wsgi.py").read_text() == "one"
    assert fetched.origin == f"git@h:{repository} at light"
    notes = ssh.read_text().splitlines()
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    assert any(line.startswith(public) for line in notes)
    assert {"BatchMode=yes", "IdentitiesOnly=yes", "ControlPath=none", "git@h"} <= set(notes)
    assert next((tmp_path / "work").glob("*/deploy-key.pub")).read_text().startswith(public)
    seen = Path(f"{ssh}.commands").read_bytes() + everything(tmp_path / "work")
    assert b"IdentityAgent" in seen
    assert not [line for line in lines if line.encode() in seen]
    assert gone([pid for pid in agents() if pid not in before])


@pytest.mark.parametrize("how", ["ssh fails", "git hangs"])
def test_the_agent_goes_when_the_fetch_fails(
    tmp_path: Path, ssh: Path, key: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever ends it."""
    before = agents()
    if how == "git hangs":
        monkeypatch.setattr(source, "TIME_LIMIT", 1.0)
        (tmp_path / "bin/ssh").write_text("#!/bin/sh\nexec sleep 600\n")
    else:
        Path(f"{ssh}.fail").write_text("git@h: Permission denied (publickey).")
    words = "ended after 1 s" if how == "git hangs" else "Permission denied .*is release_deploy_key the right one"
    with pytest.raises(source.SourceError, match=words):
        source.fetch(source.Wanted("git@h:a", ref="main", deploy_key=key.read_text()), tmp_path / "work")
    assert gone([pid for pid in agents() if pid not in before])


def test_the_agent_goes_with_a_deploy_that_is_killed(tmp_path: Path, ssh: Path, key: Path) -> None:
    """SIGKILL leaves no time to clean up: the agent has to notice by itself."""
    before = agents()
    os.mkfifo(tmp_path / "started")
    (tmp_path / "bin/ssh").write_text(f"#!/bin/sh\necho $$ >{tmp_path / 'started'}\nexec sleep 600\n")
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, 'collections')\n"
        "from ansible_collections.slipway.wsgi.plugins.module_utils import source\n"
        "key, work = map(Path, sys.argv[1:])\n"
        "source.fetch(source.Wanted('git@h:a', ref='main', deploy_key=key.read_text()), work)\n"
    )
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen([sys.executable, "-c", code, str(key), str(tmp_path / "work")], cwd=root) as deploy:
        waiting = int((tmp_path / "started").read_text())
        held = [pid for pid in agents() if pid not in before]
        deploy.kill()
    os.kill(waiting, signal.SIGKILL)
    assert held
    assert gone(held)


def test_a_deploy_key_may_be_a_file(repository: Path, tmp_path: Path, ssh: Path, key: Path) -> None:
    """ssh reads it itself, and there is no agent."""
    source.fetch(source.Wanted(f"ssh://git@h{repository}", ref="main", deploy_key=str(key)), tmp_path / "work")
    notes = ssh.read_text().splitlines()
    assert notes[notes.index("-i") + 1] == str(key)
    assert "IdentitiesOnly=yes" in notes
    assert not [line for line in notes if line.startswith("IdentityAgent")]


def test_a_key_with_a_passphrase_is_refused(tmp_path: Path, ssh: Path) -> None:
    """Nobody is there to type it; a text that is no key is refused in the same words."""
    path = tmp_path / "locked"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(path)], check=True, timeout=30)
    for text in (path.read_text(), f"-----BEGIN X\n{TOKEN}\n-----END X"):
        with pytest.raises(source.SourceError, match="whole text of a private key that has no passphrase") as refused:
            source.fetch(source.Wanted("git@h:a", ref="main", deploy_key=text), tmp_path / "work")
        assert TOKEN not in "".join(traceback.format_exception(refused.value))


def test_an_unknown_host_key_is_told(tmp_path: Path, ssh: Path) -> None:
    """With what to do; nothing is accepted unseen."""
    Path(f"{ssh}.fail").write_text("No ED25519 host key is known for h\nHost key verification failed.")
    with pytest.raises(
        source.SourceError, match="does not know this host's key, or knows another: connect once by hand"
    ):
        source.fetch(source.Wanted("git@h:a", ref="main"), tmp_path / "work")
    assert "StrictHostKeyChecking" not in ssh.read_text()


def test_the_users_own_ssh_is_used(repository: Path, tmp_path: Path, ssh: Path) -> None:
    """core.sshCommand and GIT_SSH_COMMAND stay, with BatchMode after them."""
    config = write(tmp_path, {"gitconfig": "[core]\n\tsshCommand = ssh -F configured\n"}) / "gitconfig"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CONFIG_GLOBAL", str(config))
        source.fetch(source.Wanted(f"git@h:{repository}", ref="main"), tmp_path / "work")
        assert ssh.read_text().startswith("-F\nconfigured\n-o\nBatchMode=yes\n")
        ssh.unlink()
        patch.setenv("GIT_SSH_COMMAND", "ssh -F environment")
        source.fetch(source.Wanted(f"git@h:{repository}", ref="main"), tmp_path / "work2")
        assert ssh.read_text().startswith("-F\nenvironment\n-o\nBatchMode=yes\n")


# --- archives -------------------------------------------------------------------------------------------------


def packed(path: Path, files: dict[str, str], kind: str = "") -> Path:
    """Write an archive with an executable run.sh and a link beside the files given."""
    kind = kind or path.name.partition(".")[2]
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, text in files.items():
                info = zipfile.ZipInfo(name, (2001, 9, 9, 1, 46, 40))
                mode = 0o120777 if name.endswith("link") else 0o100755 if name.endswith(".sh") else 0o100644
                info.external_attr = mode << 16
                archive.writestr(info, text)
        return path
    opening = {"tar": "w:", "tar.gz": "w:gz", "tgz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}[kind]
    with tarfile.open(path, opening) as tar:  # type: ignore[call-overload]
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.mtime = 1_000_000_000
            if name.endswith("link"):
                member.type, member.linkname = tarfile.SYMTYPE, text
            else:
                member.mode, member.size = 0o755 if name.endswith(".sh") else 0o640, len(text)
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def checksum(path: Path, kind: str = "sha256") -> str:
    """Give the checksum of a file as release_checksum has it."""
    return f"{kind}:{hashlib.new(kind, path.read_bytes()).hexdigest()}"


KINDS = ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "zip"]


@pytest.mark.parametrize("top", ["", "shop-1.0/", "./"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_archive_is_unpacked(tmp_path: Path, kind: str, top: str) -> None:
    """Contents, executable bits, links and times; one directory around it all is left out, and NEVER applies."""
    content = {"wsgi.py": "w", "run.sh": "r", "a/b.py": "b", "a/link": "../wsgi.py", "venv/x": "", ".gitignore": "a\n"}
    path = packed(tmp_path / f"x.{kind}", {top + name: text for name, text in content.items()})
    fetched = source.fetch(source.Wanted(str(path), checksum=checksum(path)), tmp_path / "work")
    assert [str(name) for name in fetched.names] == [".gitignore", "a/b.py", "a/link", "run.sh", "wsgi.py"]
    root = fetched.directory
    assert [(root / name).stat().st_mode & 0o777 for name in ("wsgi.py", "run.sh")] == [0o644, 0o755]
    assert (root / "a/link").read_text() == "w"
    assert (root / "a/b.py").stat().st_mtime == 1_000_000_000
    assert fetched.origin == str(path)
    assert fetched.commit == ""
    same = write(tmp_path / "same", {name: content[name] for name in ("wsgi.py", "run.sh", "a/b.py", ".gitignore")})
    (same / "run.sh").chmod(0o755)
    (same / "a/link").symlink_to("../wsgi.py")
    assert fetched.digest == source.digest(same, fetched.names)
    part = source.Wanted(str(path), checksum=checksum(path, "sha512").upper().replace("SHA", "sha"), subdirectory="a")
    with pytest.raises(source.SourceError, match=r"a/link links to \.\./wsgi\.py, outside the source"):
        source.fetch(part, tmp_path / "part")


def test_hard_links_and_double_names(tmp_path: Path) -> None:
    """A hard link is the file it is of; of two members with one name the later one counts, as with tar."""
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name, text in (("a", b"old"), ("a", b"new")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
        member = tarfile.TarInfo("b")
        member.type, member.linkname = tarfile.LNKTYPE, "a"
        tar.addfile(member)
    path = tmp_path / "x.tar"
    root = source.fetch(source.Wanted(str(path), checksum=checksum(path)), tmp_path / "work").directory
    assert [(root / name).read_text() for name in ("a", "b")] == ["new", "new"]


@pytest.mark.parametrize("kind", ["tar", "zip"])
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/etc/x", "'/etc/x' leads out of the archive"),
        ("../x", r"'\.\./x' leads out of the archive"),
        ("a/../../x", "leads out of the archive"),
        ("link", "links to /etc/passwd, outside the source"),
        ("link/x", "cannot be unpacked"),
        ("link/../x", "leads out of the archive"),
    ],
)
def test_an_archive_that_leads_out_is_refused(tmp_path: Path, kind: str, name: str, words: str) -> None:
    """Nothing is written outside, neither by a name nor through a link."""
    target = tmp_path / "outside"
    target.mkdir()
    content = {"w": "", "link": str(target), name: "x"} if name.startswith("link/") else {"w": "", name: "/etc/passwd"}
    path = packed(tmp_path / f"x.{kind}", content)
    with pytest.raises(source.SourceError, match=words):
        source.fetch(source.Wanted(str(path), checksum=checksum(path)), tmp_path / "work")
    assert not list(target.iterdir())
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("kind", ["pipe", "text", "cut", "missing target", "locked"])
def test_an_archive_that_cannot_be_read_is_refused(tmp_path: Path, kind: str) -> None:
    """In words, and no traceback of a library."""
    path = tmp_path / "x.tar"
    if kind == "text":
        path.write_text("no archive")
    elif kind == "cut":
        path.write_bytes(packed(tmp_path / "y.tar.gz", {"a": "a" * 100_000}).read_bytes()[:-20])
    elif kind == "locked":
        content = bytearray(packed(tmp_path / "y.zip", {"a": "a"}).read_bytes())
        content[6] |= 1
        content[content.index(b"PK\1\2") + 8] |= 1
        path.write_bytes(content)
    else:
        with tarfile.open(path, "w") as tar:
            member = tarfile.TarInfo("a")
            member.type, member.linkname = (tarfile.FIFOTYPE if kind == "pipe" else tarfile.LNKTYPE), "none"
            tar.addfile(member)
    with pytest.raises(source.SourceError, match=f"^{path} cannot be unpacked: "):
        source.fetch(source.Wanted(str(path), checksum=checksum(path)), tmp_path / "work")


def test_an_archive_is_verified_before_it_is_read(tmp_path: Path) -> None:
    """The message has both checksums, and nothing is unpacked."""
    path = packed(tmp_path / "x.tar", {"a": ""})
    words = f"has the checksum {checksum(path)}, and release_checksum is {SHA}. Nothing was unpacked"
    with pytest.raises(source.SourceError, match=words):
        source.fetch(source.Wanted(str(path), checksum=SHA), tmp_path / "work")
    assert [path.name for path in (tmp_path / "work").glob("*/*")] == ["archive"]


def test_an_archive_is_downloaded(tmp_path: Path, web: Web) -> None:
    """With the token, and what its URL may hold of secrets is not shown."""
    path = packed(tmp_path / "x.tar.gz", {"shop/a/b.py": "", "shop/c.py": ""})
    web.files, web.password = {"x.tar.gz": path.read_bytes()}, TOKEN
    url = f"{web.url}/files/x.tar.gz?signature={TOKEN}"
    wanted = source.Wanted(url, checksum=checksum(path), token=TOKEN, subdirectory="a")
    fetched = source.fetch(wanted, tmp_path / "work")
    assert fetched.names == [Path("b.py")]
    assert fetched.origin == f"{web.url}/files/x.tar.gz"
    assert not secret_in(web, tmp_path / "work")
    with pytest.raises(source.SourceError, match=r"answered with 401 .* Does it want a release_token") as refused:
        source.fetch(source.Wanted(url, checksum=checksum(path)), tmp_path / "work2")
    assert TOKEN not in "".join(traceback.format_exception(refused.value))
    web.password = "another"
    with pytest.raises(
        source.SourceError, match=r"answered with 401 Bearer \*\*\*\. Is release_token right"
    ) as refused:
        source.fetch(wanted, tmp_path / "work3")
    assert TOKEN not in "".join(traceback.format_exception(refused.value))


def test_a_redirection_keeps_the_token_on_its_host(tmp_path: Path, web: Web, other: Web) -> None:
    """The same host gets it again, another does not."""
    path = packed(tmp_path / "x.zip", {"a": ""})
    other.files = {"x.zip": path.read_bytes()}
    web.moved = {"/first": "/second", "/second": f"{other.url}/files/x.zip"}
    source.fetch(source.Wanted(f"{web.url}/first", checksum=checksum(path), token=TOKEN), tmp_path / "work")
    assert web.asked == [("/first", f"Bearer {TOKEN}"), ("/second", f"Bearer {TOKEN}")]
    assert other.asked == [("/files/x.zip", "")]


def test_a_download_that_fails_is_told(tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing file, nobody there, and a server that says nothing."""
    wanted = source.Wanted(f"{web.url}/files/none", checksum=SHA)
    with pytest.raises(source.SourceError, match=f"^{web.url}/files/none was answered with 404"):
        source.fetch(wanted, tmp_path / "work")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.tar"
        monkeypatch.setattr(source, "ANSWER_LIMIT", 0.2)
        with pytest.raises(source.SourceError, match=f"^{url} could not be fetched: timed out"):
            source.fetch(source.Wanted(url, checksum=SHA), tmp_path / "work")
    with pytest.raises(source.SourceError, match=f"^{url} could not be fetched: .*refused"):
        source.fetch(source.Wanted(url, checksum=SHA), tmp_path / "work")


@pytest.mark.parametrize(
    ("names", "shared"),
    [
        (["app.py"], []),
        (["app.py", "uploads2/a", "more/uploads/a"], ["uploads"]),
        (["uploads/.gitkeep", "uploads/.gitignore", "uploads/.keep"], ["uploads"]),
        (["data/readme"], ["data/uploads", "data/media"]),
    ],
)
def test_a_shared_directory_hides_nothing(names: list[str], shared: list[str]) -> None:
    """Where the source has nothing, or only what keeps a directory in git."""
    source.keep_apart([Path(name) for name in names], shared)


@pytest.mark.parametrize(
    ("name", "directory"),
    [("uploads/a.png", "uploads"), ("uploads/a/.gitkeep", "uploads"), ("uploads", "uploads"), ("data", "data/uploads")],
)
def test_a_shared_directory_that_would_hide_something_is_refused(name: str, directory: str) -> None:
    """A file in it, a file or link in its place or on the way to it."""
    with pytest.raises(source.SourceError) as failure:
        source.keep_apart([Path("app.py"), Path(name)], [directory])
    assert str(failure.value).startswith(f"The source has {name}, and {directory} is a shared directory (app_shared): ")
    assert f"copy what the app needs to shared/{directory} in the app's directory" in str(failure.value)


def test_shared_directories_are_beside_each_other() -> None:
    """The app owns the outer one, so it could lead root, who makes the inner one, astray."""
    with pytest.raises(source.SourceError, match="both data and data/uploads, which is in it: name one"):
        source.keep_apart([Path("app.py")], ["data", "data/uploads"])
