"""The certificate and key of a site on its host: what the pair says, when it is due, and how another takes its place.

A pair is a directory with ``fullchain.pem``, ``privkey.pem`` and ``origin``, which says where it comes from. The link
``live`` beside it leads to the pair in use, so that another takes its place by one rename(2).

The module slipway.wsgi.certificate uses this file, and a copy of it is the program of the unit that has certificates
issued by an ACME authority: ``python3 certificates.py CONFIGURATION``. Standard library, openssl(1) and lego(1) only.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import re
import secrets
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FULLCHAIN, KEY, ORIGIN, LIVE = "fullchain.pem", "privkey.pem", "origin", "live"
SELF_SIGNED, PLACEHOLDER, FILES = "self_signed", "placeholder", "files"
# Apple's systems take no certificate that is valid for longer, even if their user trusts it.
SELF_SIGNED_DAYS = 825
# Of a certificate's lifetime is left when it is renewed: 30 of 90 days, 15 of 45, 2 of 6.
SHARE_LEFT = 1 / 3
# How authorities say that they do not know an account, or no longer.
FORGOTTEN = re.compile(r"accountDoesNotExist|has status \"(?:deactivated|revoked)\"|account\b.{0,60}\bdeactivated")


class CertificateError(Exception):
    """There is no new pair, and why."""


@dataclass(frozen=True)
class Certificate:
    """What a certificate says: the names it is for, and when it begins and ends in seconds since the epoch."""

    names: frozenset[str]
    begin: float
    end: float

    @property
    def due(self) -> float:
        """When it is to be renewed: a share of its lifetime, whatever that is, before its end."""
        return self.end - (self.end - self.begin) * SHARE_LEFT


def canonical(name: str) -> str:
    """Return a name as it is compared: lower case, an IP address in its shortest form."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()


def wanted_names(names: Iterable[str]) -> frozenset[str]:
    """Return the names that a pair has to be for; of a site that answers to any name, those of the host."""
    own = [socket.gethostname().lower(), "localhost", "127.0.0.1", "::1"]
    return frozenset(map(canonical, names)) or frozenset(own)


def moment(seconds: float) -> str:
    """Return a time as people read it, UTC."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def openssl(*arguments: str, text: str | None = None) -> str:
    """Run openssl and return its output.

    Raises:
        CertificateError: it failed.
    """
    done = subprocess.run(["openssl", *arguments], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise CertificateError(f"openssl {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def certificate(path: str) -> Certificate:
    """Read the first certificate of a file.

    Raises:
        CertificateError: it is none.
    """
    told = openssl("x509", "-in", path, "-noout", "-startdate", "-enddate", "-ext", "subjectAltName")
    begin, end = map(ssl.cert_time_to_seconds, re.findall(r"(?m)^not(?:Before|After)=(.*)$", told))
    names = re.findall(r"(?:DNS|IP Address):([^,\s]+)", told)
    return Certificate(frozenset(map(canonical, names)), begin, end)


def fit(fullchain: str, key: str) -> bool:
    """Say whether the key of a file belongs to the first certificate of another."""
    return openssl("x509", "-in", fullchain, "-noout", "-pubkey") == openssl("pkey", "-in", key, "-pubout")


def self_signed(app: str, names: Iterable[str]) -> tuple[str, str]:
    """Make a certificate that only its own key signs, and the key.

    Args:
        app: whose it is; people see it in their browser.
        names: host names and IP addresses.

    Returns:
        Both, in PEM.

    Raises:
        CertificateError: openssl failed.
    """
    entries = [f"{'IP' if ':' in name or name.replace('.', '').isdigit() else 'DNS'}:{name}" for name in sorted(names)]
    configuration = f"""
        [req]
        prompt = no
        distinguished_name = subject
        x509_extensions = extensions
        [subject]
        commonName = {app}
        [extensions]
        basicConstraints = critical, CA:FALSE
        keyUsage = critical, digitalSignature
        extendedKeyUsage = serverAuth
        subjectAltName = {",".join(entries)}
    """
    with tempfile.TemporaryDirectory() as directory:
        files = {name: os.path.join(directory, name) for name in (FULLCHAIN, KEY, "openssl.cnf")}
        with open(files["openssl.cnf"], "w", encoding="utf-8") as target:
            target.write(configuration)
        openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-sha256",
            "-days", str(SELF_SIGNED_DAYS), "-config", files["openssl.cnf"],
            "-out", files[FULLCHAIN], "-keyout", files[KEY],
        )  # fmt: skip
        return read(files[FULLCHAIN]), read(files[KEY])


def read(path: str) -> str:
    """Return the text of a file, empty if there is none."""
    try:
        with open(path, encoding="utf-8") as source:
            return source.read()
    except FileNotFoundError:
        return ""


@contextlib.contextmanager
def masked(mask: int) -> Iterator[None]:
    """Take rights from the files that are made while the block runs."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


class Store:
    """The pairs of one site: a directory that only its owner may change and only its group may read."""

    def __init__(self, path: str) -> None:
        """Take the directory; it need not be there."""
        self.path = path
        self.live = os.path.join(path, LIVE)

    def text(self, name: str) -> str:
        """Return a file of the pair in use, empty if there is none."""
        return read(os.path.join(self.live, name))

    def fits(self) -> bool:
        """Say whether the key of the pair in use belongs to its certificate.

        Raises:
            CertificateError: one of them is none, or not there.
        """
        return fit(os.path.join(self.live, FULLCHAIN), os.path.join(self.live, KEY))

    def reason(self, origin: str, names: Iterable[str], now: float) -> str:
        """Say why a new pair is wanted.

        Args:
            origin: where it is to come from.
            names: what it is to be for.
            now: seconds since the epoch.

        Returns:
            The reason, empty if the pair in use is as wanted.
        """
        here = self.text(ORIGIN).strip()
        if not here:
            return "there is none yet"
        if here != origin:
            return f"the one in use comes from {here}, and {origin} is asked for"
        try:
            found = self.certificate()
            if not self.fits():
                return "the key does not fit the certificate in use"
        except CertificateError as error:
            return f"the one in use cannot be read: {error}"
        if found.names != frozenset(names):
            return f"the one in use is for {', '.join(sorted(found.names))}, and not for {', '.join(sorted(names))}"
        if now >= found.due:
            return f"the one in use ends at {moment(found.end)} and was to be renewed from {moment(found.due)} on"
        return ""

    def certificate(self) -> Certificate:
        """Read the certificate in use.

        Raises:
            CertificateError: there is none.
        """
        return certificate(os.path.join(self.live, FULLCHAIN))

    def ending(self) -> str:
        """Say until when the pair in use is good, and from when on it is renewed."""
        found = self.certificate()
        return f"valid until {moment(found.end)}, to be renewed from {moment(found.due)} on"

    def own(self, user: int, group: int, dry: bool = False) -> bool:
        """Give all of it to a user and a group; make the directory if it is not there.

        Args:
            user: who may change it.
            group: who may read it.
            dry: only look.

        Returns:
            Whether anything was, or would be, changed.
        """
        changed = not os.path.isdir(self.path)
        if changed and dry:
            return True
        if changed:
            with masked(0o022):
                os.makedirs(self.path)
        for directory, directories, files in os.walk(self.path):
            paths = [directory, *(os.path.join(directory, name) for name in (*directories, *files))]
            for path in paths:
                found = os.lstat(path)
                if (found.st_uid, found.st_gid) != (user, group):
                    changed = True
                    if not dry:
                        os.lchown(path, user, group)
        # What is made in it belongs to the group by itself, also when the owner is no member of that.
        if os.stat(self.path).st_mode & 0o7777 != 0o2750:
            changed = True
            if not dry:
                os.chmod(self.path, 0o2750)
        return changed

    def put(self, pair: tuple[str, str], origin: str) -> None:
        """Let a pair take the place of the one in use; the one before it stays, all others go.

        Args:
            pair: the certificate with those between it and its authority, and the key, in PEM.
            origin: where they come from.

        Raises:
            CertificateError: they do not fit.
        """
        before = os.path.realpath(self.live)
        name = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()) + "-" + secrets.token_hex(3)
        path = os.path.join(self.path, name)
        with masked(0o027):
            os.mkdir(path, 0o750)
            for file, content in {FULLCHAIN: pair[0], KEY: pair[1], ORIGIN: origin + "\n"}.items():
                with open(os.path.join(path, file), "x", encoding="utf-8") as target:
                    target.write(content)
                    target.flush()
                    os.fsync(target.fileno())
        if not fit(os.path.join(path, FULLCHAIN), os.path.join(path, KEY)):
            shutil.rmtree(path)
            raise CertificateError("The new key does not fit the new certificate.")
        link = os.path.join(self.path, f".{name}")
        os.symlink(name, link)
        os.replace(link, self.live)
        for entry in os.scandir(self.path):
            if entry.is_dir(follow_symlinks=False) and entry.path not in (path, before):
                shutil.rmtree(entry.path)


# -- ACME -------------------------------------------------------------------------------------------------------------


def command(configuration: Mapping[str, Any], known: str) -> list[str]:
    """Return the command line of lego.

    Args:
        configuration: what roles/certificate writes for an app.
        known: what lego says of its options; what it can be told by its environment is not on its command line.
    """
    words = [
        "lego", "--accept-tos", "--path", f"{configuration['state']}/lego", "--key-type", "ec256",
        "--server", configuration["directory"], "--email", configuration["email"],
    ]  # fmt: skip
    if configuration["dns"]:
        words += ["--dns", configuration["dns"]]
        words += [word for resolver in configuration["dns_resolvers"] for word in ("--dns.resolvers", resolver)]
        words += [] if configuration["dns_wait"] else ["--dns.disable-cp"]
    else:
        words += ["--http", "--http.webroot", configuration["webroot"]]
    if configuration["eab_key_id"]:
        words += ["--eab", f"--kid={configuration['eab_key_id']}"]
        words += [] if "LEGO_EAB_HMAC" in known else [f"--hmac={configuration['eab_hmac']}"]
    return [*words, *(word for name in configuration["names"] for word in ("--domains", name)), "run"]


def environment(configuration: Mapping[str, Any], inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of lego and of the hook that it calls."""
    given = {
        "HOME": configuration["state"],
        "HTTP_PROXY": configuration["proxy_url"],
        "HTTPS_PROXY": configuration["proxy_url"],
        "NO_PROXY": ",".join(configuration["proxy_exceptions"]),
        "LEGO_CA_CERTIFICATES": configuration["ca"],
        "LEGO_EAB_HMAC": configuration["eab_hmac"],
        "EXEC_PATH": configuration["dns_hook"],
    }
    return {**inherited, **{name: value for name, value in given.items() if value}, **configuration["environment"]}


def issued(configuration: Mapping[str, Any]) -> tuple[str, str]:
    """Have a certificate issued.

    Returns:
        The certificate with those between it and its authority, and the key, in PEM.

    Raises:
        CertificateError: the authority did not issue it.
    """
    lego = f"{configuration['state']}/lego"
    shutil.rmtree(f"{lego}/certificates", ignore_errors=True)
    known = subprocess.run(["lego", "--help"], capture_output=True, text=True, check=True).stdout
    said = []
    with subprocess.Popen(
        command(configuration, known), env=environment(configuration, os.environ),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        for line in process.stdout or ():
            print(line, end="", flush=True)
            said.append(line)
    if process.returncode:
        if FORGOTTEN.search("".join(said)):
            shutil.rmtree(f"{lego}/accounts", ignore_errors=True)
            raise CertificateError(
                f"{configuration['directory']} does not know the account. The next attempt makes another one."
            )
        raise CertificateError(f"{configuration['directory']} issued no certificate; lego says why above.")
    (file,) = (name for name in os.listdir(f"{lego}/certificates") if re.fullmatch(r".*(?<!\.issuer)\.crt", name))
    path = f"{lego}/certificates/{file.removesuffix('.crt')}"
    return read(f"{path}.crt"), read(f"{path}.key")


def renew(configuration: Mapping[str, Any], issue: Callable[[Mapping[str, Any]], tuple[str, str]], now: float) -> str:
    """Have a new pair issued if one is wanted, and put it in place.

    Args:
        configuration: what roles/certificate writes for an app.
        issue: gives a pair.
        now: seconds since the epoch.

    Returns:
        What was done.

    Raises:
        CertificateError: there is no new pair; the one in use stays.
    """
    store = Store(configuration["store"])
    names = wanted_names(configuration["names"])
    if not (reason := store.reason(configuration["directory"], names, now)):
        return f"Nothing to do: the certificate is {store.ending()}."
    print(f"A new certificate is wanted: {reason}.", flush=True)
    try:
        pair = issue(configuration)
        # Before the swap and not after it: if this process ends in between, a reload too many is no harm.
        with open(configuration["renewed"], "w", encoding="utf-8"):
            store.put(pair, configuration["directory"])
    except CertificateError as error:
        raise CertificateError(f"{error} The certificate in use stays.") from error
    return f"The new certificate is in place: {store.ending()}."


def main(arguments: Sequence[str]) -> int:
    """The program; see the top of this file."""
    try:
        print(renew(json.loads(read(arguments[0])), issued, time.time()), flush=True)
    except CertificateError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
