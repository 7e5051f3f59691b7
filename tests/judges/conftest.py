"""What the judges share: a site that they look at, their own environments, and the table of their verdicts."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import APP, ROOT, Run
from testinfra.host import Host

NAME = "www.example.org"
SITE = f"/etc/nginx/conf.d/{APP}.conf"
HEAD = "| judge | version | host | verdict | the same judge on what is bad |\n| --- | --- | --- | --- | --- |\n"


@dataclass
class Verdicts:
    """The table of what the judges said; written after each of them, so that a failure leaves what came before."""

    file: Path
    rows: list[str] = field(default_factory=list)

    def add(self, judge: str, version: str, host: str, verdict: str, control: str) -> None:
        """Note a verdict, and what the judge said of the control."""
        self.rows.append(f"| {judge} | {version} | {host} | {verdict} | {control} |\n")
        self.file.write_text(HEAD + "".join(self.rows))


@dataclass(frozen=True)
class Authority:
    """The files of a certificate authority of the tests' own, and of the certificate that it gave the site."""

    directory: Path

    @property
    def ca(self) -> Path:
        """What visitors trust."""
        return self.directory / "ca.pem"

    def make(self) -> None:
        """Make the authority, and a certificate for the site that is valid as long as public ones are."""
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        names = (f"subjectAltName=DNS:{NAME}", "extendedKeyUsage=serverAuth", "keyUsage=critical,digitalSignature",
                 "basicConstraints=critical,CA:FALSE", "authorityKeyIdentifier=keyid")  # fmt: skip
        (self.directory / "extensions").write_text("\n".join(names) + "\n")
        self.openssl("req", "-x509", *curve, "-days", "365", "-subj", "/CN=Authority of the judges",
                     "-addext", "keyUsage=critical,keyCertSign,cRLSign",
                     "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
        self.openssl("req", *curve, "-subj", f"/CN={NAME}", "-keyout", "key.pem", "-out", "request.pem")
        self.openssl("x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial",
                     "-days", "90", "-extfile", "extensions", "-out", "certificate.pem")  # fmt: skip

    def openssl(self, *arguments: str) -> str:
        """Call openssl in the directory and return what it says."""
        done = subprocess.run(["openssl", *arguments], cwd=self.directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def pem(self) -> str:
        """Return the site's certificate."""
        return (self.directory / "certificate.pem").read_text()


# A server that no judge of TLS may be content with: a cipher without forward secrecy, no TLS 1.3, unknown issuer.
WEAK = ("openssl", "s_server", "-accept", "0", "-www", "-tls1_2", "-cipher", "AES128-SHA:@SECLEVEL=0",
        "-cert", "weak.pem", "-key", "weak.key")  # fmt: skip
WEAK_KEY = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", "/CN=weak.example",
            "-keyout", "weak.key", "-out", "weak.pem")  # fmt: skip


@contextlib.contextmanager
def weak_server(authority: Authority) -> Iterator[int]:
    """Serve by TLS as badly as it goes, and give the port."""
    authority.openssl(*WEAK_KEY)
    process = subprocess.Popen(WEAK, cwd=authority.directory, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        said = next(line for line in process.stdout if line.startswith("ACCEPT"))
        found = re.search(r":(\d+)\s*$", said)
        assert found, said
        yield int(found[1])
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def state(pytestconfig: pytest.Config) -> Path:
    """The directory of the hosts' state, where all goes that is made here."""
    directory: Path = pytestconfig.getoption("--state")
    return directory.resolve()


@pytest.fixture(scope="session")
def verdicts(state: Path) -> Verdicts:
    """The table of verdicts, empty at first."""
    table = Verdicts(state / "verdicts.md")
    table.file.unlink(missing_ok=True)
    return table


@pytest.fixture(scope="session")
def authority(state: Path, hosts: dict[str, Host], playbook: Callable[..., Run]) -> Authority:
    """The site, deployed on all hosts by the inventory's inputs with a certificate of this authority."""
    found = Authority(state)
    found.make()
    run = playbook("site.yml")
    assert run.code == 0, run.output
    return found


@pytest.fixture(scope="session")
def tool(state: Path) -> Callable[[str, str], Path]:
    """Install a judge as tools/judges/ locks it, in an environment of its own, and return the way to its program."""

    def install(name: str, program: str) -> Path:
        environment = state / "tools" / name
        lock = ROOT / "tools" / "judges" / f"{name}.txt"
        uv = {**os.environ, "VIRTUAL_ENV": str(environment)}
        subprocess.run(["uv", "venv", "--quiet", "--clear", environment], check=True)
        subprocess.run(["uv", "pip", "sync", "--quiet", "--require-hashes", lock], env=uv, check=True)
        return environment / "bin" / program

    return install


@pytest.fixture(scope="session")
def version() -> Callable[[str], str]:
    """Say which version of a judge tools/judges/ locks."""

    def say(name: str) -> str:
        return (ROOT / "tools" / "judges" / f"{name}.in").read_text().strip().partition("==")[2]

    return say


@pytest.fixture(scope="session")
def addresses(hosts: dict[str, Host], authority: Authority) -> dict[str, str]:
    """The hosts' addresses among themselves; Debian's own judges are installed on the host with Debian 13."""
    found = {name: host.check_output("hostname -I").split()[0] for name, host in hosts.items()}
    install = "DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends testssl.sh slowhttptest"
    hosts["debian13"].check_output(f"apt-get update && {install}")
    return found
