"""What can be wrong with a certificate before any host knows of it; on the controller only, by `cryptography`."""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from ansible_collections.slipway.wsgi.plugins.module_utils.certificates import canonical
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

# Whoever brings the files has so long to bring new ones once a run has begun to speak of it.
SOON = timedelta(days=21)


@dataclass
class Verdict:
    """What is wrong with a pair, a sentence each; with faults it is refused, with warnings it is said."""

    faults: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def covers(entry: str, name: str) -> bool:
    """Say whether an entry of a certificate is for a name; a wildcard stands for one label."""
    return entry == name or (entry.startswith("*.") and entry[1:] == "." + name.partition(".")[2] and name[0] != "*")


def entries(certificate: x509.Certificate) -> list[str]:
    """Return the names and addresses that a certificate is for."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return [canonical(str(entry.value)) for entry in found if isinstance(entry, (x509.DNSName, x509.IPAddress))]


def judge(fullchain: bytes, key: bytes, names: Iterable[str], now: datetime) -> Verdict:
    """Judge a certificate and its key.

    Args:
        fullchain: the certificate first, then those between it and its authority, in PEM.
        key: its key, in PEM.
        names: what the site answers to; of a site that answers to any name, none.
        now: the time, with its zone.
    """
    verdict = Verdict()
    try:
        chain = x509.load_pem_x509_certificates(fullchain)
    except ValueError:
        chain = []
        verdict.faults.append("certificate_fullchain holds no certificate in PEM, or one that cannot be read.")
    owned = _public(key, verdict)
    if not chain:
        return verdict
    if owned and owned != chain[0].public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo):
        verdict.faults.append(
            "certificate_key is not the key of the first certificate in certificate_fullchain. The site's own"
            " certificate comes first, those of the authority after it; or the key is that of another certificate."
        )
    _dates(chain, now, verdict)
    _links(chain, verdict)
    found = entries(chain[0])
    missing = [name for name in map(canonical, names) if not any(covers(entry, name) for entry in found)]
    if missing:
        verdict.faults.append(
            f"The certificate is for {', '.join(found) or 'no name'}, and not for {', '.join(missing)}: visitors would"
            " be warned of it. Take the name out of web_server_names, or have a certificate made that has it."
        )
    return verdict


def _public(key: bytes, verdict: Verdict) -> bytes:
    """Return the public half of a private key; nothing, and a fault, if it is none."""
    try:
        public = load_pem_private_key(key, password=None).public_key()
    except TypeError:
        verdict.faults.append(
            "certificate_key is locked by a pass phrase, which nobody could give at every start of the host. Unlock it"
            " (openssl pkey -in key -out unlocked) and encrypt the file by ansible-vault instead."
        )
    except (ValueError, UnsupportedAlgorithm):
        verdict.faults.append("certificate_key holds no private key in PEM, or one that cannot be read.")
    else:
        return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return b""


def _dates(chain: list[x509.Certificate], now: datetime, verdict: Verdict) -> None:
    """Find certificates that are not valid now, and say when the first one ends soon."""
    for one in chain:
        about = "The site's certificate" if one is chain[0] else f"{one.subject.rfc4514_string()}"
        if one.not_valid_after_utc <= now:
            verdict.faults.append(f"{about} ended at {one.not_valid_after_utc:%Y-%m-%d %H:%M} UTC.")
        if one.not_valid_before_utc > now:
            verdict.faults.append(f"{about} begins at {one.not_valid_before_utc:%Y-%m-%d %H:%M} UTC only.")
    if now < chain[0].not_valid_after_utc <= now + SOON:
        verdict.warnings.append(f"The certificate ends at {chain[0].not_valid_after_utc:%Y-%m-%d %H:%M} UTC. Renew it.")


def _links(chain: list[x509.Certificate], verdict: Verdict) -> None:
    """Find a chain that browsers could not follow."""
    for one, issuer in itertools.pairwise(chain):
        try:
            one.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            verdict.faults.append(
                f"In certificate_fullchain, {issuer.subject.rfc4514_string()} follows {one.subject.rfc4514_string()},"
                f" which was issued by {one.issuer.rfc4514_string()}. Each one is followed by that of its issuer."
            )
    if len(chain) == 1 and chain[0].issuer != chain[0].subject:
        verdict.warnings.append(
            "certificate_fullchain holds the certificate alone. Unless browsers know"
            f" {chain[0].issuer.rfc4514_string()} by themselves, append its certificate, or visitors are warned."
        )


def acme_faults(wanted: Mapping[str, Any]) -> list[str]:
    """Say why an ACME authority could not issue what is wanted; what must be a file is judged by the caller.

    Args:
        wanted: names, email, dns, dns_hook, eab_key_id, eab_hmac.
    """
    faults = []
    names = [str(name) for name in wanted["names"]]
    if not names:
        faults.append("certificate_names is empty. An authority certifies names: set web_server_names.")
    if not wanted["email"]:
        faults.append("certificate_acme_email is empty. The authority writes to it if something is wrong.")
    for name in names:
        if _address(name):
            faults.append(f"certificate_names has {name}, an IP address. Take it out, or bring a certificate as files.")
        elif name.startswith("*.") and not wanted["dns"]:
            faults.append(f"certificate_names has {name}. A wildcard is proved by DNS only: set certificate_acme_dns.")
        elif "." not in name:
            faults.append(f"certificate_names has {name}. No authority certifies a name without a domain.")
    if (wanted["dns"] == "exec") != bool(wanted["dns_hook"]):
        faults.append(
            "certificate_acme_dns is 'exec' and certificate_acme_dns_hook is its program: set both or neither."
            f" They are '{wanted['dns']}' and '{wanted['dns_hook']}'."
        )
    if bool(wanted["eab_key_id"]) != bool(wanted["eab_hmac"]):
        faults.append("certificate_acme_eab_key_id and certificate_acme_eab_hmac belong together: set both or neither.")
    return faults


def _address(name: str) -> bool:
    """Say whether a name is an IP address."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
