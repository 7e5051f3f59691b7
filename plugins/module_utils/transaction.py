"""Several files written as one: all of them, or none.

Files are put in place one by one, each by a rename, so that a program that reads one never finds half of it. What was
there before is kept in memory until whoever asked says that it stays.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class File:
    """A file, a link or that there is none.

    Attributes:
        path: where it is.
        content: what is in it; None where there is nothing at the path.
        mode: its permissions.
        uid: its owner.
        gid: its group.
        target: for a symbolic link, what it leads to.
        secret: it must not be shown.
    """

    path: str
    content: str | None = None
    mode: int = 0o644
    uid: int = field(default_factory=os.geteuid)
    gid: int = field(default_factory=os.getegid)
    target: str = ""
    secret: bool = False

    @classmethod
    def at(cls, path: str) -> File:
        """Return what there is at a path.

        Raises:
            OSError: it cannot be read, or is neither a file nor a link.
        """
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            status = os.lstat(path)
            if os.path.islink(path):
                return cls(path, "", 0o777, status.st_uid, status.st_gid, os.readlink(path))
            content = Path(path).read_bytes().decode("utf-8", "surrogateescape")
            return cls(path, content, status.st_mode & 0o7777, status.st_uid, status.st_gid)
        return cls(path)

    def same(self, other: File) -> bool:
        """Say whether there is nothing to do to make one from the other."""
        if self.content is None or other.content is None:
            return self.content is other.content
        whole = [(one.content, one.mode, one.uid, one.gid, one.target) for one in (self, other)]
        return whole[0] == whole[1]

    def put(self) -> None:
        """Make it so.

        Raises:
            OSError: it cannot be done.
        """
        if self.content is None:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(self.path)
            return
        # What begins with a dot is nothing to `include …/*`.
        directory = tempfile.mkdtemp(prefix=".slipway-", dir=os.path.dirname(self.path))
        try:
            new = os.path.join(directory, "new")
            if self.target:
                os.symlink(self.target, new)
            else:
                with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
                    output.write(self.content.encode("utf-8", "surrogateescape"))
                    os.fchown(output.fileno(), self.uid, self.gid)
                    os.fchmod(output.fileno(), self.mode)
                    os.fsync(output.fileno())
            os.replace(new, self.path)
        finally:
            shutil.rmtree(directory)


class Change:
    """What has to be done for files to be as they are wanted, and how it is undone."""

    def __init__(self, wanted: Iterable[File]) -> None:
        """Compare what is wanted with what is there.

        Raises:
            OSError: a file cannot be read.
        """
        pairs = [(File.at(file.path), file) for file in wanted]
        self.files = [(before, after) for before, after in pairs if not before.same(after)]
        self._directories: list[str] = []

    def make(self) -> None:
        """Write all that differs, with the directories that it takes.

        Raises:
            OSError: a file cannot be written. All are as they were.
        """
        try:
            for _, after in self.files:
                if after.content is not None:
                    # What is made for a file that only its owner reads is for nobody else to enter.
                    self._make_directory(os.path.dirname(after.path), 0o755 if after.mode & 0o077 else 0o700)
                after.put()
        except OSError:
            self.undo()
            raise

    def undo(self) -> None:
        """Put back what was there before.

        Raises:
            OSError: a file cannot be written.
        """
        for before, after in reversed(self.files):
            # What is not there cannot be looked for in a directory that is not there.
            if not File.at(after.path).same(before):
                before.put()
        for directory in reversed(self._directories):
            with contextlib.suppress(OSError):  # somebody else uses it by now
                os.rmdir(directory)

    def _make_directory(self, path: str, mode: int) -> None:
        if os.path.isdir(path):
            return
        self._make_directory(os.path.dirname(path), 0o755)
        os.mkdir(path)
        os.chmod(path, mode)
        self._directories.append(path)

    def diff(self) -> list[dict[str, str]]:
        """Return for each file that differs what `--diff` shows."""
        return [
            {
                "before_header": before.path,
                "after_header": after.path,
                "before": _shown(before, after.secret),
                "after": _shown(after, after.secret),
            }
            for before, after in self.files
        ]


def _shown(file: File, secret: bool) -> str:
    """Return what is shown of a file; its owner and permissions only where that is all that can be told."""
    if file.content is None:
        return ""
    if file.target:
        return f"link to {file.target}\n"
    rights = f"owner {file.uid}, group {file.gid}, mode {file.mode:04o}\n"
    return rights + ("(hidden)\n" if secret else file.content)
