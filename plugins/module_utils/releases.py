"""What is decided about releases, apart from doing it: names, and what may be removed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence

# Raised when a release is laid out differently, so that an old one is never taken for a new one.
LAYOUT = 1

# systemd's words for spans of time, in seconds; from `month` on they are averages.
SPANS = {"us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600, "d": 86400, "w": 604800, "month": 2629800, "y": 31557600}


def release_name(source: str, files: Mapping[str, str], requirements: Sequence[str], python: str) -> str:
    """Return the name of a release: the same for the same source and inputs, on every host.

    Args:
        source: digest of the source, as source.digest() gives it.
        files: {name: text} of the files that Slipway adds to the release.
        requirements: requirements files in the source, relative to it.
        python: path of the interpreter that the environment is made with.

    Returns:
        12 hexadecimal digits (48 bits: far more than a host ever has releases).
    """
    identity = json.dumps([LAYOUT, source, dict(files), list(requirements), python], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:12]


def prunable(lived: Mapping[str, float], keep: int, untouchable: Sequence[str]) -> list[str]:
    """Return the releases that may be removed, oldest first.

    Args:
        lived: {release: when it last went live or was built, in seconds since the epoch}.
        keep: how many stay, the most recent ones.
        untouchable: releases that stay whatever their age.
    """
    by_age = sorted(lived, key=lambda name: lived[name], reverse=True)
    return [name for name in reversed(by_age[keep:]) if name not in untouchable]


def timespan(text: str) -> float:
    """Return the seconds of a span of time as systemd shows it: `1min 10s`, `infinity`; 0 for an empty text."""
    if text.strip() == "infinity":
        return float("inf")
    return sum(float(count) * SPANS[unit] for count, unit in re.findall(r"([\d.]+)\s*([a-z]+)", text))
