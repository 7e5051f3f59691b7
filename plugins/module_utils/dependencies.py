"""The files that say what a release needs from the Python index, and how uv installs from each kind.

A lock is obeyed and never written: the source is read-only to uv, which refuses a lock that does not fit.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

# Bytecode makes imports three times as fast; the app cannot write it later.
INTO = ("--quiet", "--compile-bytecode")
KINDS = {
    "uv.lock": re.compile(r"uv\.lock"),
    "pylock": re.compile(r"pylock\.(?:[^.]+\.)?toml"),  # PEP 751
    "pyproject": re.compile(r"pyproject\.toml"),
    "requirements": re.compile(r".+\.txt"),
}


class DependencyError(ValueError):
    """A file cannot say what a release needs; the message says which, why, and what to do."""


def kind(file: str) -> str:
    """Return the kind of a file, a key of KINDS; its name tells it.

    Args:
        file: path of the file.

    Raises:
        DependencyError: it is of no kind.
    """
    for name, pattern in KINDS.items():
        if pattern.fullmatch(os.path.basename(file)):
            return name
    raise DependencyError(
        f"{file} is no file that says what to install. Accepted in release_requirements: requirements files with "
        "hashes (*.txt), uv.lock, pylock.toml and pyproject.toml."
    )


def needs(file: str) -> list[str]:
    """Return the files that have to be beside a file: uv.lock is only good together with its pyproject.toml."""
    return [os.path.join(os.path.dirname(file), "pyproject.toml")] if kind(file) == "uv.lock" else []


def check(path: Path) -> None:
    """Refuse, on the controller, what would be refused on the host after a build has begun.

    Raises:
        DependencyError: a requirements file names packages and has no hash, or it is of no kind.
    """
    if kind(str(path)) != "requirements":
        return
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and line.strip()[0] != "#"]
    if lines and not any("--hash=" in line for line in lines):
        raise DependencyError(
            f"{path} has no hashes, so it is no lock. Write what you need into requirements.in, and make it with: "
            "uv pip compile --universal --generate-hashes requirements.in --output-file requirements.txt"
        )


def install(uv: str, venv: str, file: str) -> list[str]:
    """Return the command that installs into an environment what a file says.

    Args:
        uv: path of uv.
        venv: path of the environment.
        file: absolute path of the file.

    Returns:
        Program and arguments. They want the environment variables of variables().
    """
    if kind(file) == "uv.lock":
        # Locked: pyproject.toml must not have changed since. Inexact: what another file installed stays.
        project = ["--no-dev", "--no-install-project", "--inexact", "--project", os.path.dirname(file)]
        return [uv, "sync", *INTO, "--locked", *project]
    options = {"requirements": ["--require-hashes"], "pylock": ["--require-hashes", "--preview-features", "pylock"]}
    return [uv, "pip", "install", *INTO, "--python", venv, *options.get(kind(file), []), "--requirement", file]


def variables(venv: str) -> dict[str, str]:
    """Return the environment variables that install() wants."""
    return {"UV_PROJECT_ENVIRONMENT": venv}
