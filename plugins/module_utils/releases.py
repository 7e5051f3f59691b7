"""What is decided about releases, apart from doing it: names, and what may be removed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

# Raised when a release is laid out differently, so that an old one is never taken for a new one.
LAYOUT = 2

# systemd's words for spans of time, in seconds; from `month` on they are averages.
SPANS = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800, "month": 2629800, "y": 31557600}

# Settings of [Service] that are about the service and not about how a process of it runs.
OF_THE_SERVICE = ("Type=", "Exec", "Restart", "Timeout", "Kill", "Final", "Sockets=", "NotifyAccess=", "Watchdog")

# As many characters a secret has at least: it is kept out of messages by its text, and a shorter one is in everything.
SECRET_LENGTH = 8

# What has to be escaped between double quotes in an EnvironmentFile=, and by what.
ESCAPED, SLASHED = re.compile(r'(["\\\\$`])'), r"\\\1"


def release_name(source: str, plan: Mapping[str, Any], secrets: Mapping[str, str]) -> str:
    """Return the name of a release: the same for the same source and inputs, on every host.

    Args:
        source: digest of the source, as source.digest() gives it.
        plan: everything else that makes the release: files, requirements, interpreter, health, hooks.
        secrets: {variable: value}. They go in by scrypt (RFC 7914), which makes guessing one from a name expensive: a
            name is public.

    Returns:
        12 hexadecimal digits (48 bits: far more than a host ever has releases).
    """
    identity = json.dumps([LAYOUT, source, plan], sort_keys=True).encode()
    hidden = json.dumps(dict(secrets), sort_keys=True).encode()
    key = hashlib.scrypt(hidden, salt=identity, n=2**14, r=8, p=1) if secrets else b""
    return hashlib.sha256(identity + key).hexdigest()[:12]


def quoted(variables: Mapping[str, str]) -> str:
    """Return the text of an EnvironmentFile= with these variables, see systemd.exec(5).

    Args:
        variables: {name: value}; a value may hold quotes and line breaks.
    """
    return "".join(f'{name}="{ESCAPED.sub(SLASHED, value)}"\n' for name, value in sorted(variables.items()))


def unquoted(text: str) -> list[str]:
    """Return the values in what quoted() made."""
    return [re.sub(r"\\(.)", r"\1", value) for value in re.findall(r'^\w+="((?:[^"\\]|\\.)*)"$', text, re.MULTILINE)]


def sandbox(service: str, release: str) -> list[str]:
    """Return what systemd-run needs to run a command as a service runs: its user, its sandbox, its environment.

    Args:
        service: text of the unit.
        release: what stands for %i in it.

    Returns:
        The lines of [Service] without those that say how the service itself is run, `Key=value` each.
    """
    section = re.split(r"^\[(\w+)\]$", service, flags=re.MULTILINE)
    lines = section[section.index("Service") + 1].splitlines()
    settings = [line for line in lines if re.match(r"\w+=", line) and not line.startswith(OF_THE_SERVICE)]
    return [line.replace("%i", release) for line in settings]


def timespan(text: str) -> float:
    """Return the seconds of a span of time as systemd shows it: `1min 10s`, `infinity`; 0 for an empty text."""
    if text.strip() == "infinity":
        return float("inf")
    return sum(float(count) * SPANS[unit] for count, unit in re.findall(r"([\d.]+)\s*([a-z]+)", text))
