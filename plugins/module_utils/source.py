"""The source of a release, on the controller: fetched, listed, digested and packed.

A source is a local directory, a git reference or an archive. fetch() brings any of them into a directory, once for all
hosts. Secrets reach git by its environment and ssh by an agent: never by a command line, a URL or a file.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import ipaddress
import lzma
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from calendar import timegm
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import SplitResult, urlsplit

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

# What keeps an empty directory in git.
KEEPERS = frozenset({".gitkeep", ".gitignore", ".keep"})

# Seconds for all of a fetch, and for one answer of a web server.
TIME_LIMIT = 300.0
ANSWER_LIMIT = 30.0

# What ties git to a repository, as a hook that starts a deploy inherits it (`git rev-parse --local-env-vars`).
_TIES = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES",
        "GIT_COMMON_DIR",
        "GIT_CONFIG",
        "GIT_CONFIG_PARAMETERS",
        "GIT_DIR",
        "GIT_GRAFT_FILE",
        "GIT_IMPLICIT_WORK_TREE",
        "GIT_INDEX_FILE",
        "GIT_INTERNAL_SUPER_PREFIX",
        "GIT_NAMESPACE",
        "GIT_NO_REPLACE_OBJECTS",
        "GIT_OBJECT_DIRECTORY",
        "GIT_PREFIX",
        "GIT_QUARANTINE_PATH",
        "GIT_REPLACE_REF_BASE",
        "GIT_SHALLOW_FILE",
        "GIT_WORK_TREE",
    }
)

# The same commit is the same files for every user, and nothing of git's stays behind at work.
_SETTINGS = {
    "advice.detachedHead": "false",
    "core.autocrlf": "false",
    "core.fsmonitor": "false",
    "core.hooksPath": os.devnull,
    "gc.auto": "0",
    "maintenance.auto": "false",
}

# What git and ssh say, and what to do about it.
_ADVICE = {
    "Host key verification failed": (
        "The controller does not know this host's key, or knows another: connect once by hand with ssh and compare it."
    ),
    "Permission denied (publickey": "ssh has no key that is accepted: is release_deploy_key the right one?",
    "terminal prompts disabled": "It asks for a login: set release_token.",
    "Authentication failed": "It refuses the login: is release_token right, and may it read this repository?",
}

_DIGESTS = {"sha256": 64, "sha512": 128}
_SCP = re.compile(r"[A-Za-z0-9_][\w.+-]*@(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9_][\w.-]*):[^:\s]\S*")
_GIT_URLS = "https://, ssh://, user@host:path, file:// or the absolute path of a repository"
_BAD_REF = re.compile(r"^[-+]|[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{")
_NO_SUCH_REF = re.compile(r"couldn't find remote ref|not our ref|unadvertised object")
_BROKEN_ARCHIVE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    # What zipfile says to a password or a method that it has not got.
    RuntimeError,
    # A name that no file can have; a hard link to what is not there.
    ValueError,
    KeyError,
)


class SourceError(ValueError):
    """The source cannot become a release; the message says which path, why, and what to do."""


@dataclass(frozen=True)
class Wanted:
    """What the inputs say about the source; every field is empty when not set.

    Attributes:
        source: absolute directory, git URL, or absolute path or http(s) URL of an archive.
        ref: branch, tag or commit; makes the source a git repository.
        checksum: ``sha256:`` or ``sha512:`` and hexadecimal digits; makes the source an archive.
        subdirectory: the part of a repository or archive that is the source.
        deploy_key: text of a private key, or path of one on the controller; for git by ssh.
        token: password for git by https, bearer token for the URL of an archive.
    """

    source: str
    ref: str = ""
    checksum: str = ""
    subdirectory: str = ""
    deploy_key: str = field(default="", repr=False)
    token: str = field(default="", repr=False)


@dataclass(frozen=True)
class Fetched:
    """A source that lies ready.

    Attributes:
        directory: where its files are: the local directory itself, else one below the workspace.
        names: its files, relative to the directory and sorted.
        digest: their digest, as digest() gives it.
        origin: one line for people: path or URL without credentials, and the reference.
        commit: full commit id, with ``-dirty`` where a local work tree differs from it; empty if there is none.
    """

    directory: Path
    names: list[Path]
    digest: str
    origin: str
    commit: str


# --- what is wanted -------------------------------------------------------------------------------------------


def check(wanted: Wanted) -> None:
    """Refuse what can be refused without a network.

    Args:
        wanted: the inputs.

    Raises:
        SourceError: inputs that do not go together, a malformed one, a path that is not there, a program that is
            missing. The message holds no secret.
    """
    if not wanted.source:
        raise SourceError(
            f"release_source is empty: set it to an absolute directory, a git URL ({_GIT_URLS}) or an archive."
        )
    if wanted.ref and wanted.checksum:
        raise SourceError(
            "release_ref and release_checksum are both set: the first is for git, the second for an archive. Unset one."
        )
    if not wanted.source.startswith("/") and re.search(r"[\s\x00-\x1f\x7f]", wanted.source):
        raise SourceError("release_source has a blank or a control character in its URL: write it as %20 and the like.")
    part = PurePosixPath(wanted.subdirectory)
    if part.is_absolute() or ".." in part.parts or "\0" in wanted.subdirectory:
        raise SourceError(
            f"release_subdirectory is {wanted.subdirectory!r}: accepted is a relative path inside of it, without '..'."
        )
    if re.search(r"[\x00-\x20\x7f]", wanted.token):
        raise SourceError("release_token has a blank or a line break in it: set it to the token alone.")
    if wanted.ref:
        _check_git(wanted)
    elif wanted.checksum:
        _check_archive(wanted)
    else:
        _check_directory(wanted)


def _check_git(wanted: Wanted) -> None:
    """Refuse what git cannot fetch, or should not be asked to."""
    if _BAD_REF.search(wanted.ref):
        raise SourceError(f"release_ref is {wanted.ref!r}: accepted is the name of a branch or tag, or a commit id.")
    transport = _transport(wanted.source)
    if not transport:
        raise SourceError(f"release_source is {_shown(wanted.source)}: with release_ref accepted is {_GIT_URLS}.")
    if transport != "path":
        _check_url(wanted.source)
    elif wanted.source.startswith("/") and not os.path.isdir(wanted.source):
        raise SourceError(f"{wanted.source} is not a directory on the controller, so no git repository.")
    if transport == "http" and not _private(wanted.source):
        raise SourceError(
            f"release_source is {_shown(wanted.source)}: who listens could change the code. Use https://."
        )
    if wanted.token and transport != "http":
        raise SourceError(
            f"release_token is for https://, and release_source is {_shown(wanted.source)}: unset it; "
            "ssh takes release_deploy_key."
        )
    if wanted.deploy_key and transport != "ssh":
        raise SourceError(
            f"release_deploy_key is for ssh, and release_source is {_shown(wanted.source)}: "
            "use ssh://user@host/path or user@host:path, or unset it; https takes release_token."
        )
    _check_tools(wanted, transport)


def _check_tools(wanted: Wanted, transport: str) -> None:
    """Refuse a deploy key that is neither key nor file, and what no program on the controller can do."""
    needed = ["git"] + ["ssh"] * (transport == "ssh")
    if wanted.deploy_key and _is_key(wanted.deploy_key):
        needed += ["ssh-agent", "ssh-add"]
    elif wanted.deploy_key and not os.path.isfile(os.path.expanduser(wanted.deploy_key)):
        # The value stays out: it may be a key that lacks its first line.
        raise SourceError(
            "release_deploy_key is neither the text of a private key (-----BEGIN ...) nor the path of a file "
            "on the controller."
        )
    for program in needed:
        if not shutil.which(program):
            raise SourceError(f"The program {program} is not on the controller: install git and openssh-client.")


def _check_archive(wanted: Wanted) -> None:
    """Refuse what is no archive that can be trusted."""
    kind, _, digits = wanted.checksum.partition(":")
    if len(digits) != _DIGESTS.get(kind) or not re.fullmatch(r"[0-9A-Fa-f]+", digits):
        raise SourceError(
            f"release_checksum is {wanted.checksum!r}: accepted is sha256: and 64 hexadecimal digits, "
            "or sha512: and 128 of them."
        )
    if wanted.deploy_key:
        raise SourceError(
            "release_deploy_key is for git by ssh, and release_checksum makes the source an archive: unset it."
        )
    if wanted.source.startswith("/"):
        if not os.path.isfile(wanted.source):
            raise SourceError(
                f"{wanted.source} is not a file on the controller, and release_checksum asks for an archive."
            )
        if wanted.token:
            raise SourceError(f"release_token is for a URL, and release_source is the path {wanted.source}: unset it.")
    elif _transport(wanted.source) == "http":
        _check_url(wanted.source)
        if wanted.token and not _private(wanted.source):
            raise SourceError(
                f"release_source is {_shown(wanted.source)}: release_token would be sent for all to read. Use https://."
            )
    else:
        raise SourceError(
            f"release_source is {_shown(wanted.source)}: with release_checksum accepted is the absolute path "
            "or the http(s) URL of an archive."
        )


def _check_directory(wanted: Wanted) -> None:
    """Refuse what is no local directory, and inputs that such a one has no use for."""
    shown = _shown(wanted.source)
    if _transport(wanted.source) in ("http", "ssh") or "://" in wanted.source:
        raise SourceError(
            f"release_source is {shown}: set release_ref to a branch, tag or commit if it is a git repository, "
            "or release_checksum to sha256:... if it is an archive."
        )
    if os.path.isfile(wanted.source):
        raise SourceError(
            f"{shown} is a file: set release_checksum to sha256: and what `sha256sum` says if it is an archive."
        )
    if not os.path.isabs(wanted.source):
        raise SourceError(f"release_source is {shown}: a directory has to be given by its absolute path.")
    if not os.path.isdir(wanted.source):
        raise SourceError(f"{shown} is not a directory on the controller.")
    for name, value in (
        ("deploy_key", wanted.deploy_key),
        ("token", wanted.token),
        ("subdirectory", wanted.subdirectory),
    ):
        if value:
            raise SourceError(
                f"release_{name} is for git and archives, and release_source is the directory {shown}: unset it, "
                "or set release_ref or release_checksum."
            )


def _check_url(url: str) -> None:
    """Refuse a URL that cannot be read, or that holds a password: it would be on git's command line."""
    if _SCP.fullmatch(url):
        return
    try:
        parts = urlsplit(url)
        known = parts.hostname or parts.scheme == "file"
        parts.port  # noqa: B018  (it is read to have it checked)
    except ValueError:
        known = None
    if not known:
        raise SourceError(f"release_source is {_shown(url)}: that URL names no host, or a port that there is not.")
    if parts.password is not None:
        raise SourceError(f"release_source is {_shown(url)} with a password in it: put that into release_token.")


def _transport(url: str) -> str:
    """Say how a URL is reached: "path" (of this machine), "http" (https too), "ssh", or "" for anything else."""
    if url.startswith(("/", "file://")):
        return "path"
    if url.startswith(("https://", "http://")):
        return "http"
    return "ssh" if url.startswith("ssh://") or _SCP.fullmatch(url) else ""


def _private(url: str) -> bool:
    """Whether nobody can listen: by https, or on this machine."""
    parts = urlsplit(url)
    try:
        local = ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        local = parts.hostname == "localhost"
    return parts.scheme == "https" or local


def _is_key(deploy_key: str) -> bool:
    """Whether it is the text of a private key, and not the path of one."""
    return "-----BEGIN" in deploy_key or "\n" in deploy_key.strip()


def _shown(text: str, wanted: Wanted | None = None) -> str:
    """Return text for people: without credentials, and without what may be one in the query of a URL."""
    text = re.sub(r"(https?://)[^/\s'\"]*@", r"\1", text)
    text = re.sub(r"(\w://[^/\s'\":@]*):[^/\s'\"]*@", r"\1@", text)
    text = re.sub(r"(https?://[^\s'\"?#]*)[?#][^\s'\"]*", r"\1", text)
    if wanted and wanted.token:
        text = text.replace(wanted.token, "***")
    return text


# --- fetching -------------------------------------------------------------------------------------------------


def fetch(wanted: Wanted, workspace: Path) -> Fetched:
    """Bring the source to the controller.

    Args:
        wanted: the inputs.
        workspace: a directory that the caller removes once the source is packed; made if it is not there. Each
            call has a new directory in it.

    Raises:
        SourceError: check() refuses it, or it cannot be had, or it holds what cannot be released. The message
            holds no secret.
    """
    check(wanted)
    if not wanted.ref and not wanted.checksum:
        directory = Path(wanted.source)
        names = files(directory)
        short, commit = _commit(directory)
        origin = f"{directory} at {short}" if short else str(directory)
        return Fetched(directory, names, digest(directory, names), origin, commit)
    try:
        workspace.mkdir(parents=True, exist_ok=True)
        workspace = Path(tempfile.mkdtemp(prefix="source-", dir=workspace))
        if wanted.ref:
            root, commit = _clone(wanted, workspace)
            origin = f"{_shown(wanted.source)} at {wanted.ref}"
        else:
            root, commit = _unpacked(wanted, workspace), ""
            origin = _shown(wanted.source)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SourceError(f"{_shown(wanted.source)} could not be fetched: {_shown(str(error), wanted)}.") from None
    directory = root / wanted.subdirectory
    if not directory.is_dir() or not directory.resolve().is_relative_to(root.resolve()):
        raise SourceError(
            f"{origin} has no directory {wanted.subdirectory}: correct release_subdirectory, or unset it."
        )
    # What is committed or packed is so on purpose: no .gitignore has a say. A submodule has a file called .git.
    never = {".git"} if wanted.ref else NEVER
    names = sorted(name for name in _walk(directory, never) if not wanted.ref or name.name != ".git")
    if not names:
        raise SourceError(f"{origin} holds no file that could be released.")
    return Fetched(directory, names, digest(directory, names), origin, commit)


# --- git ------------------------------------------------------------------------------------------------------


def _clone(wanted: Wanted, workspace: Path) -> tuple[Path, str]:
    """Check a reference out, with as little of its history as the server allows; return directory and commit id."""
    directory = workspace / "source"
    url = _shown(wanted.source)
    with contextlib.ExitStack() as stack:
        git = _Git(directory, wanted, stack, workspace)
        git.do("init", "--quiet", "--template=", str(directory))
        # Relative URLs of submodules are relative to this one.
        git.do("remote", "add", "--", "origin", wanted.source)
        fetched = git.ask("fetch", "--quiet", "--no-tags", "--depth=1", "origin", wanted.ref)
        found = wanted.ref if fetched.returncode else "FETCH_HEAD"
        if fetched.returncode and not _NO_SUCH_REF.search(fetched.stderr):
            raise git.error(fetched)
        if fetched.returncode and re.fullmatch("[0-9A-Fa-f]{4,64}", wanted.ref):
            # Part of a commit id is never fetched by itself, a whole one not from every server.
            branches, tags = "+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"
            git.do("fetch", "--quiet", "--no-tags", "origin", branches, tags)
        parsed = git.ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{found}^{{commit}}")
        commit = parsed.stdout.strip()
        if parsed.returncode:
            raise SourceError(
                f"{url} has no commit {wanted.ref}: release_ref has to be a branch or a tag of it, or the id of "
                "a commit that is on one of them (at least so much of it that no other begins so)."
            )
        git.do("checkout", "--quiet", "--detach", commit)
        if os.path.lexists(directory / ".gitmodules"):
            git.do("submodule", "--quiet", "update", "--init", "--recursive", "--depth=1")
    return directory, commit


class _Git:
    """git in one directory, with the credentials of one source, until one deadline."""

    def __init__(self, directory: Path, wanted: Wanted, stack: contextlib.ExitStack, workspace: Path) -> None:
        """Prepare the environment; an ssh-agent, if it takes one, lives as long as ``stack``."""
        self._directory = directory
        self._wanted = wanted
        self._deadline = time.monotonic() + TIME_LIMIT
        settings = list(_SETTINGS.items())
        secrets = {}
        if wanted.token:
            # A helper and not GIT_ASKPASS: git asks it about this scheme, host and port alone, and not about those
            # of a submodule or a redirection. No other helper is left, so none stores the token.
            parts = urlsplit(wanted.source)
            host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
            told = r"""!printf 'username=%s\npassword=%s\n' "$SLIPWAY_GIT_USER" "$SLIPWAY_GIT_TOKEN"; :"""
            settings += [("credential.helper", ""), (f"credential.{host}.helper", told)]
            secrets = {"SLIPWAY_GIT_USER": parts.username or "x-access-token", "SLIPWAY_GIT_TOKEN": wanted.token}
        self._environment = _environment(settings) | secrets
        if _transport(wanted.source) == "ssh":
            self._environment["GIT_SSH_COMMAND"] = self._ssh(stack, workspace)

    def _ssh(self, stack: contextlib.ExitStack, workspace: Path) -> str:
        """Return the command for ssh: the user's own, which asks nothing, with the deploy key and no other."""
        configured = self.ask("config", "--get", "core.sshCommand").stdout.strip()
        command = os.environ.get("GIT_SSH_COMMAND") or configured or "ssh"
        # A connection that is kept may be by another key, and one with the deploy key must not stay.
        options = ["-o", "BatchMode=yes", "-o", "ControlMaster=no", "-o", "ControlPath=none"]
        if key := self._wanted.deploy_key:
            if _is_key(key):
                socket, public = stack.enter_context(_agent(key))
                named = workspace / "deploy-key.pub"
                named.write_text(public, encoding="utf-8")
                options += ["-o", f"IdentityAgent={socket}"]
            else:
                named = Path(key).expanduser()
            options += ["-o", "IdentitiesOnly=yes", "-i", str(named)]
        return f"{command} {shlex.join(options)}"

    def ask(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run git, in its directory once that is there, and return what it said.

        Raises:
            SourceError: the deadline has passed.
        """
        where = self._directory if self._directory.is_dir() else self._directory.parent
        # A session of its own: no terminal to ask on, and one signal ends git and all that it has started.
        with subprocess.Popen(
            ["git", *arguments],
            cwd=where,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            try:
                out, err = process.communicate(timeout=max(0.0, self._deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise SourceError(
                    f"git {arguments[0]} of {_shown(self._wanted.source)} was ended after {TIME_LIMIT:.0f} s without a "
                    "result: is the server slow, or does a firewall drop what is sent to it?"
                ) from None
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def do(self, *arguments: str) -> None:
        """Run git.

        Raises:
            SourceError: it failed.
        """
        done = self.ask(*arguments)
        if done.returncode:
            raise self.error(done)

    def error(self, failed: subprocess.CompletedProcess[str]) -> SourceError:
        """Return the error of a run: git's last words without credentials, and what to do where that is known."""
        lines = [line.strip() for line in failed.stderr.splitlines() if line.strip(" \t@")]
        words = _shown("; ".join(lines[-6:]), self._wanted) or f"exit status {failed.returncode}"
        advice = "".join(f" {remedy}" for sign, remedy in _ADVICE.items() if sign in failed.stderr)
        return SourceError(f"git {failed.args[0]} of {_shown(self._wanted.source)} failed: {words}{advice}")


def _environment(settings: list[tuple[str, str]] | None = None) -> dict[str, str]:
    """Return git's environment: the user's own, which no repository is named in, and where nothing asks."""
    environment = {name: value for name, value in os.environ.items() if name not in _TIES}
    environment |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS": ""}
    # Settings by the environment: what is on a command line can be read by everybody on the machine.
    first = int(environment.get("GIT_CONFIG_COUNT") or 0)
    for number, (name, value) in enumerate(settings or [], first):
        environment |= {f"GIT_CONFIG_KEY_{number}": name, f"GIT_CONFIG_VALUE_{number}": value}
    environment["GIT_CONFIG_COUNT"] = str(first + len(settings or []))
    return environment


@contextlib.contextmanager
def _agent(key: str) -> Iterator[tuple[str, str]]:
    """Hold a private key in an ssh-agent; give the agent's socket and the public key.

    Raises:
        SourceError: the agent does not start, or does not take the key.
    """
    # The pipe ends with this process, however that ends, and then the shell takes the agent along.
    script = 'echo "$SSH_AUTH_SOCK"; cat; kill "$SSH_AGENT_PID"'
    with subprocess.Popen(
        ["ssh-agent", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as holder:
        assert holder.stdout is not None
        socket = holder.stdout.readline().strip()
        if not os.path.exists(socket):
            raise SourceError(f"ssh-agent, which is to hold release_deploy_key, did not start: {socket}")

        def ssh_add(argument: str, text: str = "") -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["ssh-add", argument],
                input=text,
                env={**os.environ, "SSH_AUTH_SOCK": socket, "SSH_ASKPASS_REQUIRE": "never", "LC_ALL": "C"},
                capture_output=True,
                text=True,
                check=False,
                timeout=ANSWER_LIMIT,
                start_new_session=True,
            )

        # A key out of a variable often lacks its last line's end, without which ssh-add does not know it.
        added = ssh_add("-", "\n".join(key.strip().splitlines()) + "\n")
        if added.returncode:
            raise SourceError(
                "release_deploy_key was not accepted by ssh-add: it has to be the whole text of a private key "
                "that has no passphrase."
            )
        yield socket, ssh_add("-L").stdout


# --- archives -------------------------------------------------------------------------------------------------


def _unpacked(wanted: Wanted, workspace: Path) -> Path:
    """Get an archive, verify it, unpack it; return the directory that is its source."""
    shown = _shown(wanted.source)
    archive = workspace / "archive"
    kind, _, digits = wanted.checksum.partition(":")
    total = hashlib.new(kind)
    with contextlib.closing(_open(wanted)) as stream, archive.open("wb") as copy:
        deadline = time.monotonic() + TIME_LIMIT
        try:
            while block := stream.read1(1 << 20):
                total.update(block)
                copy.write(block)
                if time.monotonic() > deadline:
                    raise SourceError(f"The download of {shown} was ended after {TIME_LIMIT:.0f} s, unfinished.")
        except http.client.HTTPException as error:
            raise SourceError(f"The download of {shown} broke off: {error!r}.") from None
    if total.hexdigest() != digits.lower():
        raise SourceError(
            f"{shown} ({archive.stat().st_size} bytes) has the checksum {kind}:{total.hexdigest()}, and "
            f"release_checksum is {wanted.checksum}. Nothing was unpacked: it is another archive, or only part of it."
        )
    root = workspace / "source"
    try:
        if zipfile.is_zipfile(archive) and not tarfile.is_tarfile(archive):
            with zipfile.ZipFile(archive) as opened:
                _write(root, _zip_members(opened))
        else:
            with tarfile.open(archive) as tar:
                _write(root, _tar_members(tar))
    except SourceError as error:
        raise SourceError(f"{shown} cannot be unpacked: {error}") from None
    except _BROKEN_ARCHIVE as error:
        raise SourceError(
            f"{shown} cannot be unpacked: {error}. Accepted are .tar, .tar.gz, .tar.bz2, .tar.xz and .zip."
        ) from None
    archive.unlink()
    inside = list(root.iterdir())
    # Archives of forges have all in one directory that is named after the release.
    return inside[0] if len(inside) == 1 and inside[0].is_dir() and not inside[0].is_symlink() else root


def _open(wanted: Wanted) -> Any:
    """Open an archive for reading: a file, or the answer of a web server."""
    if wanted.source.startswith("/"):
        return open(wanted.source, "rb")
    shown = _shown(wanted.source)
    url = urlsplit(wanted.source)
    # A user's name in the URL is for git; urllib takes it for a part of the host.
    request = urllib.request.Request(url._replace(netloc=url.netloc.rpartition("@")[2]).geturl())
    _authorize(request, url, wanted.token)
    try:
        return urllib.request.build_opener(_Redirections(url, wanted.token)).open(request, timeout=ANSWER_LIMIT)
    except urllib.error.HTTPError as error:
        error.close()
        advice = " Is release_token right, and may it read this?" if wanted.token else " Does it want a release_token?"
        raise SourceError(
            f"{shown} was answered with {error.code} {_shown(str(error.reason), wanted)}."
            + advice * (error.code in (401, 403, 404))
        ) from None
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise SourceError(f"{shown} could not be fetched: {_shown(str(reason), wanted)}.") from None


def _authorize(request: urllib.request.Request, first: SplitResult, token: str) -> None:
    """Give the token to a request if it goes where the first one goes."""
    there = urlsplit(request.full_url)
    if token and (there.scheme, there.hostname, there.port) == (first.scheme, first.hostname, first.port):
        request.add_unredirected_header("Authorization", f"Bearer {token}")


class _Redirections(urllib.request.HTTPRedirectHandler):
    """Follow redirections, and give the token to none that leads to another host."""

    def __init__(self, first: SplitResult, token: str) -> None:
        """Note the URL that the token is for."""
        self._first = first
        self._token = token

    def redirect_request(self, *arguments: Any) -> urllib.request.Request | None:
        """Return the next request."""
        request = super().redirect_request(*arguments)
        if request:
            _authorize(request, self._first, self._token)
        return request


@dataclass(frozen=True)
class _Member:
    """A file or symbolic link of an archive.

    Attributes:
        mode: its permissions.
        modified: seconds since 1970.
        target: where a symbolic link leads to; None for a file.
        read: opens a file's content.
    """

    mode: int
    modified: float
    target: str | None
    read: Callable[[], IO[bytes]]


def _tar_members(tar: tarfile.TarFile) -> Iterator[tuple[str, _Member]]:
    """Give the files and links of a tar archive."""

    def opened(info: tarfile.TarInfo) -> Callable[[], IO[bytes]]:
        def read() -> IO[bytes]:
            # For a hard link this finds the file in the archive.
            content = tar.extractfile(info)
            if content is None:
                raise SourceError(f"{info.name} is a hard link to what is no file.")
            return content

        return read

    for info in tar:
        if info.isdir():
            continue
        if not (info.isreg() or info.islnk() or info.issym()):
            raise SourceError(f"{info.name} is neither a file nor a link.")
        yield info.name, _Member(info.mode, info.mtime, info.linkname if info.issym() else None, opened(info))


def _zip_members(archive: zipfile.ZipFile) -> Iterator[tuple[str, _Member]]:
    """Give the files and links of a zip archive."""

    def opened(info: zipfile.ZipInfo) -> Callable[[], IO[bytes]]:
        return lambda: archive.open(info)

    for info in archive.infolist():
        if info.is_dir():
            continue
        mode = info.external_attr >> 16
        target = os.fsdecode(archive.read(info)) if stat.S_ISLNK(mode) else None
        # No zone is noted; UTC gives the same on every controller.
        yield info.filename, _Member(mode, timegm((*info.date_time, 0, 0, 0)), target, opened(info))


def _write(root: Path, members: Iterator[tuple[str, _Member]]) -> None:
    """Unpack into a new directory.

    Links come last, so nothing is written through one; where they lead to is judged by digest().

    Raises:
        SourceError: a name leads out of the directory.
    """
    root.mkdir()
    chosen: dict[PurePosixPath, _Member] = {}
    for name, member in members:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts:
            raise SourceError(f"{name!r} leads out of the archive.")
        # As tar does it: of two with the same name the later one counts.
        chosen[path] = member
    for path, member in sorted(chosen.items(), key=lambda item: item[1].target is not None):
        there = root / path
        there.parent.mkdir(parents=True, exist_ok=True)
        if member.target is not None:
            there.symlink_to(member.target)
            continue
        with member.read() as content, there.open("xb") as file:
            shutil.copyfileobj(content, file)
        there.chmod(0o755 if member.mode & stat.S_IXUSR else 0o644)
        os.utime(there, (member.modified, member.modified))


# --- directories ----------------------------------------------------------------------------------------------


def files(directory: Path) -> list[Path]:
    """List the files of a source directory, relative to it and sorted.

    In a git work tree these are the files that git tracks or would track (``git ls-files --cached --others
    --exclude-standard``, so .gitignore is honoured); elsewhere all but the caches and environments in NEVER, and but
    what a .gitignore of the directory keeps out, if there is git to read it.

    Args:
        directory: the source directory.

    Raises:
        SourceError: it is no directory, or holds no file, or git could not list it.
    """
    if not directory.is_dir():
        raise SourceError(f"{directory} is not a directory on the controller.")
    place = _place(directory)
    if place == "tracked":
        listed = _git(directory, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
        if listed.returncode:
            raise SourceError(f"git could not list {directory}: {_said(listed)}")
        # A file that was deleted but not yet committed is still listed; the work tree is what counts.
        found = {path for path in _paths(listed.stdout) if os.path.lexists(directory / path)}
    else:
        found = _walk(directory, NEVER)
        if place == "elsewhere" and any(path.name == ".gitignore" for path in found):
            found -= _ignored(directory, found)
    if not found:
        raise SourceError(f"{directory} holds no file that could be released: is all of it ignored by git?")
    return sorted(found)


def _walk(directory: Path, never: frozenset[str] | set[str]) -> set[Path]:
    """List all files and links, relative to the directory, but for those below directories called as in ``never``."""
    found = set()
    for parent, directories, names in os.walk(directory):
        directories[:] = [name for name in directories if name not in never]
        links = [name for name in directories if os.path.islink(os.path.join(parent, name))]
        found |= {(Path(parent) / name).relative_to(directory) for name in [*names, *links]}
    return found


def _ignored(directory: Path, names: set[Path]) -> set[Path]:
    """Return those of ``names`` that the .gitignore files of a directory outside git keep out.

    Raises:
        SourceError: git could not say.
    """
    with tempfile.TemporaryDirectory(prefix="slipway-") as empty:
        made = _git(Path(empty), "init", "--quiet", "--template=", ".")
        where = [f"--git-dir={empty}/.git", f"--work-tree={directory}"]
        # So that no name begins like a pathspec with magic.
        asking = b"\0".join(b"./" + os.fsencode(name) for name in names)
        asked = _git(directory, *where, "check-ignore", "-z", "--stdin", stdin=asking)
    # Status 1 means that none is.
    if made.returncode or asked.returncode not in (0, 1):
        raise SourceError(f"git could not read the .gitignore of {directory}: {_said(made) or _said(asked)}")
    return _paths(asked.stdout)


def _place(directory: Path) -> str:
    """Say where a directory lies.

    Returns:
        "tracked" or "ignored" in a git work tree, "elsewhere", or "unknown" where there is no git to ask.

    Raises:
        SourceError: git refuses to say, for example because the repository is another user's. To go on without
            git would release what .gitignore keeps out.
    """
    if not shutil.which("git"):
        return "unknown"
    asked = _git(directory, "rev-parse", "--is-inside-work-tree")
    if asked.returncode and b"not a git repository" not in asked.stderr:
        raise SourceError(f"git could not read {directory}: {_said(asked)}")
    # In the .git directory itself git says "false", and all is well.
    if asked.stdout.strip() != b"true":
        return "elsewhere"
    return "tracked" if _git(directory, "check-ignore", "--quiet", ".").returncode else "ignored"


def _git(directory: Path, *arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Ask git about a directory of this machine."""
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, input=stdin, capture_output=True, check=False, env=_environment())


def _paths(listed: bytes) -> set[Path]:
    """Read paths, each ended by a zero byte."""
    return {Path(os.fsdecode(name)) for name in listed.split(b"\0") if name}


def _said(asked: subprocess.CompletedProcess[bytes]) -> str:
    """Return git's words about what failed."""
    return asked.stderr.decode(errors="replace").strip()


def _commit(directory: Path) -> tuple[str, str]:
    """Return the commit of a local work tree, as `git describe` names it and by its full id; empty texts if none."""
    if _place(directory) != "tracked":
        return "", ""
    named = [_git(directory, *form) for form in (("describe", "--always"), ("rev-parse", "--verify", "HEAD"))]
    if any(one.returncode for one in named):
        return "", ""
    # New files are part of the source as well.
    changed = _git(directory, "status", "--porcelain", "--untracked-files=all", "--", ".").stdout
    short, full = (os.fsdecode(one.stdout).strip() + "-dirty" * bool(changed) for one in named)
    return short, full


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


def keep_apart(names: list[Path], shared: Sequence[str]) -> None:
    """Refuse shared directories that would hide files of the source, or each other.

    Args:
        names: the files of the source, relative to it.
        shared: the directories that outlive releases, relative to the source.

    Raises:
        SourceError: there is something at the place of one, or one is inside another.
    """
    for directory in map(Path, shared):
        outer = next(
            (other for other in map(Path, shared) if other != directory and directory.is_relative_to(other)), None
        )
        if outer:
            raise SourceError(f"app_shared has both {outer} and {directory}, which is in it: name one of them.")
        for name in names:
            kept = name.parent == directory and name.name in KEEPERS
            if not kept and (name.is_relative_to(directory) or directory.is_relative_to(name)):
                raise SourceError(
                    f"The source has {name}, and {directory} is a shared directory (app_shared): the app would not see "
                    f"what the source has there. Take it out of the source (a .gitignore does), and copy what the app "
                    f"needs to shared/{directory} in the app's directory on the host."
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
