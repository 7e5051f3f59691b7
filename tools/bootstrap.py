"""Install what this project needs on the controller: Debian packages, and `.venv` from `requirements.lock`.

Runs on a machine that has only git, make and python3, as root or with sudo; a second run finds nothing to do.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

from steps import ROOT, StepError, end, run, step

VENV = ROOT / ".venv"
LOCK = ROOT / "requirements.lock"
MACHINE = ROOT / ".slipway" / "machine.yml"
AUTHORITIES = Path("/usr/local/share/ca-certificates")
SUITE = "{{ ansible_facts.distribution_release }}"

# A program that each package brings, so that a look at PATH tells what is missing.
PACKAGES = {
    "apache2": "apache2-bin",  # tests read rendered sites by `apache2 -t`; without a service
    "iptables": "iptables",  # podman's network on Debian 12
    "nft": "nftables",  # and on Debian 13
    "mmdebstrap": "mmdebstrap",  # the image of a host
    "nginx": "nginx-light",  # tests read rendered sites by `nginx -t`; its service stays off
    "pebble": "pebble",  # an ACME authority for tests
    "podman": "podman",
    "runc": "runc",
    "ssh": "openssh-client",
    "systemd-analyze": "systemd",  # tests read rendered units
}
PATH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def sudo() -> list[str]:
    """The prefix for a command that needs root: nothing for root itself."""
    return [] if os.geteuid() == 0 else ["sudo"]


def missing_packages() -> list[str]:
    """Names of the Debian packages that are not installed yet."""
    missing = [package for program, package in PACKAGES.items() if not shutil.which(program, path=PATH)]
    if importlib.util.find_spec("ensurepip") is None:  # Debian's python3 comes without it
        missing.append("python3-venv")
    return missing


def package_lists() -> bool:
    """Whether apt knows what its sources have."""
    return "Debian" in run("apt-get", "indextargets", "--format", "$(ORIGIN)")


def install_packages() -> None:
    """Install the missing Debian packages, without starting a service of theirs.

    Raises:
        StepError: apt-get failed, or this is no machine with apt-get.
    """
    with step("Debian packages") as current:
        packages = missing_packages()
        if not packages and package_lists():
            current.outcome = "all there"
            return
        run(*sudo(), "apt-get", "update", "-q")
        if not packages:
            current.outcome = "lists updated"
            return
        # RUNLEVEL=1 is how Debian's own invoke-rc.d is told not to start what is being installed.
        run(
            *sudo(), "env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1",
            "apt-get", "install", "-q", "-y", "--no-install-recommends", *packages,
        )  # fmt: skip
        if "nginx-light" in packages and shutil.which("systemctl"):
            # The tests only need the program; a web server on this machine is the user's to start.
            run(*sudo(), "systemctl", "disable", "nginx.service", accept=(0, 1))
        current.outcome = f"installed {', '.join(packages)}"


def install_environment() -> None:
    """Make `.venv` as `requirements.lock` says, anew whenever the lock or the interpreter changed.

    Raises:
        StepError: the environment could not be made, or a package not be had.
    """
    with step("Python environment") as current:
        mark = VENV / "lock.sha256"
        wanted = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()
        if mark.exists() and mark.read_text() == wanted:
            current.outcome = "as locked"
            return
        run(sys.executable, "-m", "venv", "--clear", VENV)
        run(VENV / "bin" / "pip", "install", "-q", "--disable-pip-version-check", "--require-hashes", "-r", LOCK)
        mark.write_text(wanted)
        current.outcome = "made from requirements.lock"


def describe_machine() -> None:
    """Write how this machine reaches its package indexes, for the inventories of throw-away hosts.

    They are hosts of this machine's, so they go the same way: its package sources, its proxy, its certificate
    authorities. The inventories of one's own servers say this themselves, if at all.
    """
    with step("the way to the package indexes") as current:
        values = {
            "host_apt_sources": package_sources(),
            "host_ca_certificates": sorted(str(path) for path in AUTHORITIES.glob("*.crt")),
            "proxy_url": os.environ.get("https_proxy") or os.environ.get("http_proxy") or "",
            "proxy_exceptions": [name for name in os.environ.get("no_proxy", "").split(",") if name],
            "release_index_url": run(VENV / "bin" / "pip", "config", "get", "global.index-url", accept=(0, 1)).strip(),
        }
        text = f"---\n{json.dumps(values, indent=2)}\n"
        if MACHINE.exists() and MACHINE.read_text() == text:
            current.outcome = "as before"
            return
        MACHINE.parent.mkdir(exist_ok=True)
        MACHINE.write_text(text)
        current.outcome = "read"


def package_sources() -> list[dict[str, str]]:
    """The machine's own Debian package sources, in the form of the input host_apt_sources.

    The suite is the host's: another Debian release than the machine's is at the same place.

    Raises:
        StepError: the machine names no Debian source.
    """
    codename = next(
        line.partition("=")[2].strip()
        for line in Path("/etc/os-release").read_text().splitlines()
        if line.startswith("VERSION_CODENAME=")
    )
    found = {}
    for line in run("apt-get", "indextargets", "--format", "$(ORIGIN)|$(SITE)|$(RELEASE)|$(COMPONENT)").splitlines():
        origin, site, release, component = line.split("|")
        if origin == "Debian" and release.partition("-")[0] == codename and component == "main":
            found[site, release.removeprefix(codename)] = True
    if not found:
        raise StepError("`apt-get indextargets` names no Debian package source: run `apt-get update`, and look there.")
    return [{"uri": site, "suite": SUITE + suffix} for site, suffix in found]


def bootstrap() -> None:
    """All that has to be there before a host can be made and reached."""
    install_packages()
    install_environment()
    describe_machine()


if __name__ == "__main__":
    try:
        bootstrap()
    except StepError as error:
        end(error)
