"""Throw-away Debian hosts that boot real systemd and are reached over ssh: podman with runc, images by mmdebstrap.

    python tools/hosts.py create  --state DIR NAME=IMAGE...   make them; those that are up stay as they are
    python tools/hosts.py restart --state DIR NAME...         power off and start again, as a host does
    python tools/hosts.py destroy --state DIR                 remove all that were made with DIR

IMAGE is debian12 or debian13, or a reference that `podman pull` understands (a Debian image of a registry).
DIR takes the key, the known hosts and an `ssh_config` with which `ssh -F DIR/ssh_config NAME` works.
Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import select
import shlex
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bootstrap import SUITE, package_sources, sudo
from steps import ROOT, StepError, end, run, step

SUITES = {"debian12": "bookworm", "debian13": "trixie"}

# What a Debian server installation brings; everything else is the roles' business.
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "openssh-server", "sudo",
    "python3", "python3-apt", "ca-certificates", "iproute2",
)  # fmt: skip

# Units that cannot work in a container; a second way into the host, as cloud images have it, for a user with sudo; and
# no host keys: each host makes its own at its first start.
PREPARE = " && ".join(
    [
        "systemctl mask systemd-modules-load.service systemd-sysctl.service systemd-binfmt.service"
        " systemd-remount-fs.service getty.target console-getty.service",
        "useradd --create-home --shell /bin/bash admin",
        "echo 'admin ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/admin",
        "rm -f /etc/ssh/ssh_host_*",
        "mkdir -p /etc/systemd/system/ssh.service.d",
        r"printf '[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n'"
        " > /etc/systemd/system/ssh.service.d/keys.conf",
    ]
)

BOOT_SECONDS = 60


def podman(*arguments: str | Path, stdin: str | None = None, accept: tuple[int, ...] = (0,)) -> str:
    """Run podman with the project's own settings (runc, limits that every machine has); see steps.run."""
    settings = f"CONTAINERS_CONF={ROOT / 'tools' / 'containers.conf'}"
    return run(*sudo(), "env", settings, "podman", *arguments, stdin=stdin, accept=accept)


def apt_options() -> list[str]:
    """The machine's own settings of how apt reaches its sources (proxy, certificates), one option each."""
    wanted = ("Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::https::CAInfo")
    dump = run("apt-config", "dump", *wanted).splitlines()
    return [line for line in dump if '""' not in line]


def image(name: str) -> str:
    """Return the reference of the prepared image for ``name``, and make it if it is not there.

    Args:
        name: a key of SUITES, or a reference for `podman pull`.

    Raises:
        StepError: it could not be made.
    """
    recipe = hashlib.sha256(repr((name, PACKAGES, PREPARE)).encode()).hexdigest()[:12]
    label = name if name in SUITES else "other"
    reference = f"localhost/slipway-{label}:{recipe}"
    with step(f"image {name}") as current:
        if podman("images", "-q", reference).strip():
            current.outcome = "there"
            return reference
        if name in SUITES:
            debootstrap(SUITES[name], reference)
            current.outcome = "made by mmdebstrap"
        else:
            install = f"apt-get update -q && apt-get install -q -y --no-install-recommends {' '.join(PACKAGES)}"
            recipe_file = f"FROM {name}\nRUN {install}\nRUN {PREPARE}\n"
            there = podman("images", "-q", name).strip()
            podman("build", "-q", "--layers=false", "-t", reference, "-f", "-", stdin=recipe_file)
            # What is kept is the prepared one alone, which `make down` removes.
            if not there:
                podman("rmi", name)
            current.outcome = "made from the registry's"
    return reference


def debootstrap(suite: str, reference: str) -> None:
    """Make a Debian root file system from the machine's package sources and import it as an image.

    Raises:
        StepError: mmdebstrap or the import failed.
    """
    options = [f"--aptopt={option}" for option in apt_options()]
    # Documentation is most of the files of a minimal system and nobody reads it in a throw-away host.
    options += [f"--dpkgopt=path-exclude=/usr/share/{part}/*" for part in ("doc", "man", "locale")]
    sources = [f"deb {source['uri']} {source['suite'].replace(SUITE, suite)} main" for source in package_sources()]
    with tempfile.TemporaryDirectory() as directory:
        archive = Path(directory) / "root.tar"
        run(
            *sudo(), "mmdebstrap", "--variant=apt", f"--include={','.join(PACKAGES)}", *options,
            f'--customize-hook=chroot "$1" sh -c {shlex.quote(PREPARE)}',
            suite, archive, *sources,
        )  # fmt: skip
        podman("import", "-q", archive, reference)


def container(state: Path, name: str) -> str:
    """The container's name: two clones of the project on one machine do not meet."""
    return f"slipway-{hashlib.sha256(str(state).encode()).hexdigest()[:8]}-{name}"


def states(state: Path) -> dict[str, tuple[str, str]]:
    """Each container made with ``state``, by name: podman's word for how it is, and the image it was made from."""
    listed = json.loads(podman("ps", "-a", "--filter", f"label=slipway={state}", "--format", "json") or "[]")
    return {entry["Names"][0]: (entry["State"], entry["Labels"]["slipway.image"]) for entry in listed}


def ports(name: str) -> dict[int, int]:
    """The ports on 127.0.0.1 that lead into container ``name``: {port inside: port outside}."""
    lines = podman("port", name).splitlines()
    return {int(line.split("/")[0]): int(line.rpartition(":")[2]) for line in lines}


def taken_ports() -> set[int]:
    """The ports that podman forwards to any container, or will when that is started again.

    Nobody seems to listen on them once the container's processes were killed from outside, but the kernel still has
    the rules, and they come before those of a new container.
    """
    listed = json.loads(podman("ps", "-a", "--format", "json") or "[]")
    return {published["host_port"] for entry in listed for published in entry["Ports"] or []}


def free_port(first: int) -> int:
    """The first port from ``first`` on that nobody listens on at 127.0.0.1, and that no container has."""
    taken = taken_ports()
    for port in range(first, first + 100):
        if port in taken:
            continue
        with contextlib.closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise StepError(f"No free port on 127.0.0.1 from {first} to {first + 99}.")


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let no other run in this clone make hosts meanwhile: it would make the same images, and find the same ports."""
    path = ROOT / ".slipway" / "hosts.lock"
    path.parent.mkdir(exist_ok=True)
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def published(first: int) -> list[str]:
    """The options of `podman run` by which a host is reached: 22, 80 and 443, by UDP as well.

    Args:
        first: where to begin to look for a free port for port 80. 2222 and 8443 go with 8080.
    """
    ssh, http, tls = (free_port(first + offset) for offset in (2222 - 8080, 0, 8443 - 8080))
    forwards = (f"{ssh}:22", f"{http}:80", f"{tls}:443", f"{tls}:443/udp")
    return [word for forward in forwards for word in ("--publish", f"127.0.0.1:{forward}")]


def alive(name: str) -> bool:
    """Whether a container that podman takes for running has processes: somebody may have killed them, podman's too."""
    return podman("exec", name, "echo", "alive", accept=(0, 1, 125, 126, 127, 255)).strip() == "alive"


def wait_until_booted(name: str) -> None:
    """Return when systemd in container ``name`` says that all its jobs are done.

    Raises:
        StepError: some unit failed, or it took longer than BOOT_SECONDS.
    """
    deadline = time.monotonic() + BOOT_SECONDS
    word = ""
    while time.monotonic() < deadline:
        word = podman("exec", name, "systemctl", "is-system-running", accept=(0, 1, 125, 126, 127, 255)).strip()
        if word == "running":
            return
        if word == "degraded":
            raise StepError(f"{name}: " + podman("exec", name, "systemctl", "--failed", "--no-legend"))
        select.select([], [], [], 0.1)  # systemd offers no event before its bus is up
    raise StepError(f"{name} did not boot within {BOOT_SECONDS} s; systemd says: {word or 'nothing'}")


def key(state: Path) -> Path:
    """The private key for the hosts of ``state``, made if it is not there."""
    path = state / "key"
    if not path.exists():
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "slipway", "-f", path)
    return path


def admit(name: str, public_key: str) -> None:
    """Let the holder of ``public_key`` into container ``name`` as root and as admin."""
    for user, home in (("root", "/root"), ("admin", "/home/admin")):
        script = (
            f"install -d -m 0700 -o {user} -g {user} {home}/.ssh && cat > {home}/.ssh/authorized_keys"
            f" && chown {user}: {home}/.ssh/authorized_keys && chmod 0600 {home}/.ssh/authorized_keys"
        )
        podman("exec", "-i", name, "sh", "-c", script, stdin=public_key)


def write_ssh_config(state: Path, names: list[str]) -> None:
    """Write `ssh_config`, `known_hosts` and `hosts.json` for the hosts ``names`` into ``state``."""
    config, known, reachable = [], [], {}
    for name in names:
        outside = ports(container(state, name))
        host_key = podman("exec", container(state, name), "cat", "/etc/ssh/ssh_host_ed25519_key.pub").split()[:2]
        known.append(f"[127.0.0.1]:{outside[22]} {' '.join(host_key)}\n")
        config.append(
            f"Host {name}\n  HostName 127.0.0.1\n  Port {outside[22]}\n  IdentityFile {state / 'key'}\n"
            f"  IdentitiesOnly yes\n  UserKnownHostsFile {state / 'known_hosts'}\n  StrictHostKeyChecking yes\n"
        )
        reachable[name] = {
            "ssh_port": outside[22],
            "url": f"http://127.0.0.1:{outside[80]}",
            "tls_url": f"https://127.0.0.1:{outside[443]}",
        }
    (state / "ssh_config").write_text("\n".join(config))
    (state / "known_hosts").write_text("".join(known))
    (state / "hosts.json").write_text(json.dumps(reachable, indent=2) + "\n")


@one_at_a_time()
def create(state: Path, wanted: dict[str, str], first_port: int) -> bool:
    """Make the hosts that are not up yet.

    Args:
        state: the directory for key, known hosts and ssh_config; made if it is not there.
        wanted: {host name: image name}.
        first_port: where to begin to look for a free port for each host's port 80; see ``published``.

    Returns:
        Whether any host was made or started.

    Raises:
        StepError: an image or a host could not be made.
    """
    state.mkdir(parents=True, exist_ok=True)
    public_key = key(state).with_suffix(".pub").read_text()
    references = {name: image(name) for name in dict.fromkeys(wanted.values())}
    present = states(state)
    changed = False
    for host, image_name in wanted.items():
        name = container(state, host)
        with step(f"host {host}") as current:
            how, made_from = present.get(name, ("", image_name))
            if made_from != image_name:
                raise StepError(f"{host} was made from {made_from}, not from {image_name}: `make down` first.")
            if how == "running" and alive(name):
                current.outcome = "up"
                continue
            changed = True
            if how == "running":  # to podman, which can neither start nor stop it any more
                podman("rm", "-f", "-t", "0", name)
            if how not in ("", "running"):
                podman("start", name)
            else:
                podman(
                    "run", "-d", "--name", name, "--hostname", host, "--label", f"slipway={state}",
                    "--label", f"slipway.image={image_name}",
                    "--systemd=always", "--privileged", *published(first_port), references[image_name], "/sbin/init",
                )  # fmt: skip
            wait_until_booted(name)
            admit(name, public_key)
            current.outcome = "booted"
    if changed or not (state / "ssh_config").exists():
        write_ssh_config(state, list(wanted))
    return changed


def restart(state: Path, hosts: list[str]) -> None:
    """Power each host off, in order and with all its units stopped, and start it again.

    Raises:
        StepError: a host did not come back.
    """
    for host in hosts:
        name = container(state, host)
        with step(f"restart of {host}") as current:
            podman("exec", name, "systemctl", "poweroff", accept=(0, 137, 255))
            podman("wait", name)
            podman("start", name)
            wait_until_booted(name)
            current.outcome = "booted"


def destroy(state: Path) -> None:
    """Remove all hosts that were made with ``state``, and what create wrote there."""
    present = states(state)
    with step(f"hosts of {state.name}") as current:
        for name in present:
            podman("rm", "-f", "-t", "0", name)
        for file in ("key", "key.pub", "known_hosts", "ssh_config", "hosts.json"):
            (state / file).unlink(missing_ok=True)
        current.outcome = f"removed {len(present)}" if present else "none there"


def remove_images() -> None:
    """Remove the images that image() made; those of hosts that are still there stay."""
    with step("images") as current:
        references = podman("images", "-q", "--filter", "reference=localhost/slipway-*").split()
        removed = [reference for reference in references if podman("rmi", reference, accept=(0, 2))]
        current.outcome = f"removed {len(removed)} of {len(references)}" if references else "none there"


def main() -> None:
    """The command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("verb", choices=["create", "restart", "destroy"])
    parser.add_argument("--state", type=lambda text: Path(os.path.abspath(text)), required=True)
    parser.add_argument("--first-port", type=int, default=8180)
    parser.add_argument("hosts", nargs="*", metavar="NAME[=IMAGE]")
    arguments = parser.parse_intermixed_args()
    try:
        if arguments.verb == "create":
            wanted = dict(entry.split("=", 1) for entry in arguments.hosts)
            create(arguments.state, wanted, arguments.first_port)
        elif arguments.verb == "restart":
            restart(arguments.state, arguments.hosts)
        else:
            destroy(arguments.state)
    except (StepError, subprocess.SubprocessError) as error:
        end(StepError(str(error)))


if __name__ == "__main__":
    main()
