"""The source of a release, read on the controller: which files, their digest, an archive of them."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tarfile
from pathlib import Path

# What no release needs and what would make two readings of the same source differ.
NEVER = frozenset(
    {
        ".git",
        ".hg",
        ".svn",
        ".venv",
        "venv",
        "__pycache__",
        "node_modules",
        ".mypy_cache",
        ".pytest_cache",
        ".ruff_cache",
    }
)


class SourceError(ValueError):
    """The source cannot become a release; the message says which path, why, and what to do."""


def files(directory: Path) -> list[Path]:
    """List the files of a source directory, relative to it and sorted.

    In a git work tree these are the files that git tracks or would track (``git ls-files --cached --others
    --exclude-standard``, so .gitignore is honoured); elsewhere all but the caches and environments in NEVER.

    Args:
        directory: the source directory.

    Raises:
        SourceError: it is no directory, or holds no file, or git could not list it.
    """
    if not directory.is_dir():
        raise SourceError(f"{directory} is not a directory on the controller.")
    if _in_git(directory):
        command = ["git", "-C", str(directory), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, capture_output=True, check=False)
        if listed.returncode:
            raise SourceError(f"git could not list {directory}: {listed.stderr.decode(errors='replace').strip()}")
        # A file that was deleted but not yet committed is still listed; the work tree is what counts.
        found = {Path(os.fsdecode(name)) for name in listed.stdout.split(b"\0") if name}
        found = {path for path in found if os.path.lexists(directory / path)}
    else:
        found = set()
        for parent, directories, names in os.walk(directory):
            directories[:] = [name for name in directories if name not in NEVER]
            links = [name for name in directories if os.path.islink(os.path.join(parent, name))]
            found |= {(Path(parent) / name).relative_to(directory) for name in [*names, *links]}
    if not found:
        raise SourceError(f"{directory} holds no file that could be released: is all of it ignored by git?")
    return sorted(found)


def _in_git(directory: Path) -> bool:
    """Whether ``directory`` lies in a git work tree and does not lie in an ignored part of one.

    Raises:
        SourceError: git refuses to say, for example because the repository is another user's. To go on without
            git would release what .gitignore keeps out.
    """
    inside = ["git", "-C", str(directory), "rev-parse", "--is-inside-work-tree"]
    ignored = ["git", "-C", str(directory), "check-ignore", "--quiet", "."]
    try:
        asked = subprocess.run(
            inside, capture_output=True, text=True, errors="replace", check=False, env={**os.environ, "LC_ALL": "C"}
        )
        if asked.returncode and "not a git repository" not in asked.stderr:
            raise SourceError(f"git could not read {directory}: {asked.stderr.strip()}")
        # In the .git directory itself git says "false", and all is well.
        return asked.stdout.strip() == "true" and bool(
            subprocess.run(ignored, capture_output=True, check=False).returncode
        )
    except FileNotFoundError:
        return False


def digest(directory: Path, names: list[Path]) -> str:
    """Return the SHA-256, in hexadecimal, of the names, contents and executable bits of files.

    Times and owners are left out: a fresh clone is the same source.

    Args:
        directory: the source directory.
        names: files relative to it, as files() lists them.

    Raises:
        SourceError: a path is neither a file nor a symbolic link that stays inside the source.
    """
    total = hashlib.sha256()
    for name in sorted(names):
        path = directory / name
        mode = path.lstat().st_mode
        if stat.S_ISLNK(mode):
            kind, content = b"l", os.fsencode(_safe_link(directory, name))
        elif stat.S_ISREG(mode):
            kind, content = b"x" if mode & stat.S_IXUSR else b"f", path.read_bytes()
        else:
            raise SourceError(f"{path} is neither a file nor a link: remove it, or let git ignore it.")
        for part in (kind, os.fsencode(name), content):
            total.update(len(part).to_bytes(8, "big"))
            total.update(part)
    return total.hexdigest()


def _safe_link(directory: Path, name: Path) -> str:
    """Return the target of a link; refuse one that leads out of the source, to what a host has not got."""
    target = os.readlink(directory / name)
    inside = os.path.normpath(os.path.join(name.parent, target))
    if os.path.isabs(target) or inside == ".." or inside.startswith("../"):
        raise SourceError(
            f"{directory / name} links to {target}, outside the source: copy the file in, or ignore the link."
        )
    return target


def check_lock(path: Path) -> None:
    """Refuse a requirements file that is not locked, before anything is built from it.

    Raises:
        SourceError: it names packages and has no hash.
    """
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and line.strip()[0] != "#"]
    if lines and not any("--hash=" in line for line in lines):
        raise SourceError(
            f"{path} has no hashes, so it is no lock. Write what you need into requirements.in, and make it with: "
            "uv pip compile --universal --generate-hashes requirements.in --output-file requirements.txt"
        )


def pack(directory: Path, names: list[Path], archive: Path) -> None:
    """Write ``names`` of ``directory`` into a gzipped tar ``archive``, owned by root and readable by all.

    Modification times stay as they are: web servers derive Last-Modified and ETag of static files from them.
    """

    def normal(info: tarfile.TarInfo) -> tarfile.TarInfo:
        info.uid = info.gid = 0
        info.uname = info.gname = "root"
        info.mode = 0o777 if info.issym() else 0o755 if info.mode & stat.S_IXUSR else 0o644
        return info

    with tarfile.open(archive, "w:gz", compresslevel=6) as tar:
        for name in names:
            tar.add(directory / name, arcname=str(name), recursive=False, filter=normal)


def describe(directory: Path) -> str:
    """Say in one line where a source comes from: its path, and its commit where it is in a git work tree."""
    if not _in_git(directory):
        return str(directory)
    said = subprocess.run(
        ["git", "-C", str(directory), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return f"{directory} at {said.stdout.strip()}" if said.returncode == 0 else str(directory)
