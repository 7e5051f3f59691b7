"""What a release depends on: which files can say so, what is wrong with them, and how uv installs from them.

A lock file is obeyed: it is neither resolved anew nor written. The app itself is not installed, it is imported from the
source. check() runs on the controller, the rest on both sides.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMPILE = "uv pip compile --universal --generate-hashes requirements.in --output-file requirements.txt"
EXPORT = "uv export --no-emit-project --no-dev"

# Keys of uv.lock for what lies in the source, as a file or a directory.
_LOCAL = ("virtual", "editable", "directory", "path")


class DependencyError(ValueError):
    """A file cannot say what a release needs; the message says which file, why, and what to do."""


def kind(file: str) -> str:
    """Tell by its name what a file is.

    Args:
        file: path of the file, relative or absolute.

    Returns:
        ``requirements``, ``uv.lock``, ``pylock`` or ``pyproject``.

    Raises:
        DependencyError: it is none of them.
    """
    name = os.path.basename(file)
    if name in ("uv.lock", "pyproject.toml"):
        return name.removesuffix(".toml")
    if re.fullmatch(r"pylock\.([^.]+\.)?toml", name):
        return "pylock"
    if name.endswith(".txt"):
        return "requirements"
    advice = f" Make a lock of it with: {COMPILE}" if name.endswith(".in") else ""
    raise DependencyError(
        f"release_requirements names {file}: a requirements file (*.txt), uv.lock, pylock.toml, pylock.<name>.toml or "
        f"pyproject.toml is needed.{advice}"
    )


def locked(file: str) -> bool:
    """Whether a file of this name says exactly what is installed, so that every build of it is the same.

    Raises:
        DependencyError: as kind() does.
    """
    return kind(file) != "pyproject"


def needs(file: str) -> list[str]:
    """Return the other files, relative to what ``file`` is relative to, that uv needs to install from it.

    Raises:
        DependencyError: as kind() does.
    """
    return [os.path.join(os.path.dirname(file), "pyproject.toml")] if kind(file) == "uv.lock" else []


def install(uv: str, venv: str, file: str) -> list[str]:
    """Return the command line that adds what a file says to an environment, and removes nothing from it.

    Args:
        uv: path of uv.
        venv: absolute path of the environment, which is there already.
        file: absolute path of the file.

    Raises:
        DependencyError: as kind() does.
    """
    if kind(file) == "uv.lock":
        # Not --locked: it resolves anew as soon as the host's index is not the one of the lock, or the project has
        # settings in [tool.uv], which a build does not read. Whether the lock is up to date, check() tells.
        # Without --python, uv may replace the environment by one of the version in .python-version.
        command = [uv, "sync", "--frozen", "--inexact", "--no-install-project", "--no-default-groups"]
        command += ["--project", os.path.dirname(file), "--python", os.path.join(venv, "bin", "python")]
        return [*command, "--no-editable", "--compile-bytecode", "--quiet"]
    command = [uv, "pip", "install", "--python", venv, "--requirement", file]
    # A pylock.toml cannot be without hashes, but for what comes from git: there the commit is the hash.
    command += ["--require-hashes"] if kind(file) == "requirements" else ["--no-editable"]
    return [*command, "--compile-bytecode", "--quiet"]


def variables(venv: str) -> dict[str, str]:
    """Return the environment variables that install()'s command lines need.

    Args:
        venv: as for install().
    """
    return {"UV_PROJECT_ENVIRONMENT": venv}


def check(path: Path) -> None:
    """Refuse, without a network, a file that is broken, that is no lock, or that is older than its project.

    Of a project only what a release installs is compared: its dependencies, as a Linux host sees them, neither extras
    nor groups. Dependencies that are computed by a build (``dynamic``) cannot be compared.

    Args:
        path: the file, on the controller, with the files that it needs beside it.

    Raises:
        DependencyError: it is refused.
    """
    checks = {"requirements": _check_requirements, "uv.lock": _check_uv_lock, "pylock": _check_pylock}
    try:
        checks.get(kind(str(path)), _check_pyproject)(path)
    except DependencyError:
        raise
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # TOML, but not the tables and texts that belong there.
        raise DependencyError(f"{path}, or a pyproject.toml that it is for, cannot be read: {error}") from error


def _check_requirements(path: Path) -> None:
    """Refuse a requirements file that has something in it without a hash. Nothing at all is fine."""
    for line in re.sub(r"\\\r?\n", " ", _text(path)).splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        editable = re.match(r"(-e|--editable)\b", words[0])
        # The other options say where to look, or include a file that uv checks.
        if editable or not (words[0].startswith("-") or re.search(r"\s--hash[= ]|#.*\b(sha256|sha384|sha512)=", line)):
            raise DependencyError(
                f"{path} has no hash for `{' '.join(words[:2] if editable else words[:1])}`, so it is no lock. Make it "
                f"with: {COMPILE} or, from uv.lock, with: {EXPORT} --no-emit-local --output-file requirements.txt"
            )


def _check_pyproject(path: Path) -> None:
    """Refuse a pyproject.toml that is no project."""
    if not isinstance(_toml(path).get("project"), dict):
        raise DependencyError(f"{path} has no table [project], so it does not say what the app needs.")


def _check_pylock(path: Path) -> None:
    """Refuse a pylock.toml that is none, or that would install the app itself or what is not there."""
    lock = _toml(path)
    if not isinstance(lock.get("lock-version"), str) or not isinstance(lock.get("packages"), list):
        raise DependencyError(f"{path} is no lock: it lacks lock-version or packages. Make it with: {_export(path)}")
    for package in lock["packages"]:
        for place in _places(package, ("directory", "archive", "sdist")):
            _check_place(path, package, place)
            if "directory" in package and os.path.normpath(place) == ".":
                raise DependencyError(
                    f"{path} would install the app itself ({package.get('name')}), but a release runs it from its "
                    f"source. Make it with: {_export(path)}"
                )


def _places(package: Mapping[str, Any], keys: tuple[str, ...]) -> list[str]:
    """Return the paths in the source that a package of a pylock.toml comes from."""
    files = [package.get(key) or {} for key in keys] + list(package.get("wheels") or [])
    return [file["path"] for file in files if "path" in file]


def _export(path: Path) -> str:
    """Return the command that makes a pylock.toml from a uv.lock."""
    return f"{EXPORT} --output-file {path.name}"


def _check_uv_lock(path: Path) -> None:
    """Refuse a uv.lock that belongs to another project, or to an older state of this one."""
    lock, beside = _toml(path), path.with_name("pyproject.toml")
    project = _toml(beside)
    tool = _tool(project)
    # With neither, uv installs nothing and says nothing.
    if "project" not in project and "workspace" not in tool:
        raise DependencyError(f"{beside} has no table [project], so {path.name} beside it cannot be its lock.")
    packages = lock.get("package") or []
    here = [package for package in packages if _local(package) == "."]
    name = _normal(str(project["project"].get("name"))) if "project" in project else ""
    if name and name not in [package.get("name") for package in here]:
        others = ", ".join(str(package.get("name")) for package in here) or "no project"
        raise DependencyError(f"{path} is the lock of {others}, but {beside} is {name}. Make it with: uv lock")
    for package in packages:
        place = _local(package)
        if place is not None:
            _check_place(path, package, place)
            _check_age(path, package, path.parent / place / "pyproject.toml", tool.get("sources") or {})


def _local(package: Mapping[str, Any]) -> str | None:
    """Return where in the source a package of a uv.lock lies, or None if it comes from elsewhere."""
    source = package.get("source") or {}
    return next((str(source[key]) for key in _LOCAL if key in source), None)


def _check_place(path: Path, package: Mapping[str, Any], place: str) -> None:
    """Refuse a package that lies where the host has nothing."""
    if os.path.isabs(place) or not (path.parent / place).exists():
        raise DependencyError(
            f"{path} has {package.get('name')} from {place}, which is not in the source: put it there and name it by a "
            "relative path, or take it from an index or from git."
        )


def _check_age(path: Path, package: Mapping[str, Any], beside: Path, sources: Mapping[str, Any]) -> None:
    """Refuse a uv.lock that was made when a project in it had other dependencies.

    Args:
        path: the uv.lock.
        package: the project's entry in it.
        beside: the project's pyproject.toml; without one, or without a table [project] in it, there is nothing to tell.
        sources: [tool.uv.sources] of the workspace.
    """
    document = _toml(beside) if beside.is_file() else {}
    project = document.get("project") or {}
    if not project or "dependencies" in (project.get("dynamic") or []):
        return
    sources = {**sources, **(_tool(document).get("sources") or {})}
    for environment in _environments():
        wants = _asked(project.get("dependencies") or [], sources, environment)
        had = _known(package, environment)
        if wants != had:
            parts = [f"{beside} asks for {', '.join(sorted(wants - had))}"] if wants - had else []
            parts += [f"{path.name} was made for {', '.join(sorted(had - wants))}"] if had - wants else []
            raise DependencyError(f"{path} is out of date: {' and '.join(parts)}. Bring it up to date with: uv lock")


def _asked(dependencies: list[str], sources: Mapping[str, Any], environment: dict[str, str]) -> set[str]:
    """Return the dependencies that a project has in an environment, each as one text."""
    # Here and below: ansible-core needs packaging, so a controller has it; a host need not.
    from packaging.requirements import Requirement

    by_name = {_normal(name): value for name, value in sources.items()}
    wanted = set()
    for requirement in map(Requirement, dependencies):
        if requirement.marker and not requirement.marker.evaluate(environment):
            continue
        name = _normal(requirement.name)
        found = by_name.get(name) or []
        candidates = [found] if isinstance(found, dict) else found
        # Those of an extra or a group are not for the project's own dependencies.
        own = [one for one in candidates if not {"extra", "group"} & one.keys() and _applies(one, environment)]
        source = own[0] if own else _direct(requirement.url) if requirement.url else {}
        wanted.add(_written(name, requirement.extras, _pin(source, str(requirement.specifier))))
    return wanted


def _known(package: Mapping[str, Any], environment: dict[str, str]) -> set[str]:
    """Return the dependencies that a project had, in an environment, when its uv.lock was made."""
    entries = (package.get("metadata") or {}).get("requires-dist") or []
    return {
        _written(entry["name"], entry.get("extras") or [], _pin(entry, entry.get("specifier", "")))
        for entry in entries
        if _applies(entry, environment)
    }


def _applies(entry: Mapping[str, Any], environment: dict[str, str]) -> bool:
    """Whether an entry with or without a marker is for an environment."""
    from packaging.markers import Marker

    return "marker" not in entry or Marker(entry["marker"]).evaluate(environment)


def _direct(url: str) -> dict[str, str]:
    """Return the source that a direct reference (``name @ url``) stands for."""
    if not url.startswith("git+"):
        return {"path" if url.startswith("file:") else "url": url}
    revision = urlsplit(url).path.partition("@")[2]
    return {"git": url, "rev": revision} if revision else {"git": url}


def _pin(source: Mapping[str, Any], specifier: str) -> str:
    """Return what decides the version of a dependency, written in one way for pyproject.toml and uv.lock.

    It is the revision for git, the file's name for a URL, nothing for what lies in the source, else the specifier.
    """
    from packaging.specifiers import SpecifierSet
    from packaging.utils import canonicalize_version

    if "git" in source:
        query = {key: values[0] for key, values in parse_qs(urlsplit(source["git"]).query).items()}
        revision = {**query, **source}
        return " @ " + str(next((revision[key] for key in ("rev", "tag", "branch") if key in revision), "git"))
    if "url" in source:
        return " @ " + os.path.basename(unquote(urlsplit(source["url"]).path))
    if "workspace" in source or any(key in source for key in _LOCAL):
        return ""
    return ",".join(
        sorted(
            one.operator + canonicalize_version(one.version, strip_trailing_zero=one.operator != "~=")
            for one in SpecifierSet(specifier)
        )
    )


def _written(name: str, extras: Iterable[str], pin: str) -> str:
    """Return a dependency as one text."""
    return f"{name}[{','.join(sorted(map(_normal, extras)))}]{pin}" if extras else f"{name}{pin}"


def _environments() -> Iterator[dict[str, str]]:
    """List what hosts are like, as markers see them: uv writes a marker in its own way, so its effect is compared."""
    for machine in ("x86_64", "aarch64"):
        for version in (f"3.{minor}" for minor in range(9, 20)):
            for full in (f"{version}.0", f"{version}.30"):
                yield {
                    "extra": "",
                    "implementation_name": "cpython",
                    "implementation_version": full,
                    "os_name": "posix",
                    "platform_machine": machine,
                    "platform_python_implementation": "CPython",
                    "platform_release": "",
                    "platform_system": "Linux",
                    "platform_version": "",
                    "python_full_version": full,
                    "python_version": version,
                    "sys_platform": "linux",
                }


def _normal(name: str) -> str:
    """Return the name of a package or extra as all tools compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _tool(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the table [tool.uv] of a pyproject.toml."""
    table: Mapping[str, Any] = (document.get("tool") or {}).get("uv") or {}
    return table


def _toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        DependencyError: it cannot be read.
    """
    import tomllib  # the controller's Python has it, a host's need not

    try:
        return tomllib.loads(_text(path))
    except tomllib.TOMLDecodeError as error:
        raise DependencyError(f"{path} is no valid TOML: {error}") from error


def _text(path: Path) -> str:
    """Read a text file.

    Raises:
        DependencyError: it is not there or cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise DependencyError(f"{path} is not there, but it is needed.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DependencyError(f"{path} cannot be read: {error}") from error
