"""What serving costs, measured on the host itself: wrk asks its web server, and the units' processes are looked at.

    python3 bench.py URL SECONDS CONNECTIONS UNIT...

Prints JSON: `requests`, `seconds`, how many `failed`, and of each unit's processes the seconds of processor time that
they took (`cpu`, with those that have ended meanwhile) and the most memory that they had at once (`memory`, in bytes,
what several processes share divided among them); and `others`, the share of the machine's processors that somebody else
took. From /proc, so that it is the same on all hosts.
Standard library only.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

EVERY = 0.25  # seconds between two looks at the memory


def processes(unit: str) -> list[Path]:
    """Return the processes of a unit, as directories of /proc."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            groups = (directory / "cgroup").read_text().splitlines()
            if any(group.endswith(f"/{unit}") for group in groups):
                found.append(directory)
    return found


def ticks(process: Path) -> int:
    """Return the processor time of a process and of its children that have ended, in the kernel's ticks."""
    return sum(int(word) for word in (process / "stat").read_text().rpartition(")")[2].split()[11:15])


def share(process: Path) -> int:
    """Return the memory of a process in bytes, and its share of what it has in common with others."""
    found = re.search(r"^Pss: +(\d+) kB", (process / "smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def together(unit: str, what: Callable[[Path], int]) -> int:
    """Return the sum over a unit's processes; one that ends meanwhile counts for nothing."""
    total = 0
    for process in processes(unit):
        with contextlib.suppress(OSError):
            total += what(process)
    return total


def machine() -> tuple[int, int]:
    """Return the time of the machine's processors since it started, in ticks: busy, and all of it."""
    user, nice, system, idle, waiting, *rest = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    busy = user + nice + system + sum(rest)
    return busy, busy + idle + waiting


def number(pattern: str, text: str) -> float:
    """Return the number that a pattern finds in what wrk says, 0 if it says nothing of it."""
    found = re.search(pattern, text)
    return float(found[1]) if found else 0.0


def main(url: str, seconds: str, connections: str, *units: str) -> None:
    """Measure, and print what was found."""
    wrk = ["wrk", "--threads", "1", "--timeout", "30s", "--connections", connections]
    subprocess.run([*wrk, "--duration", "2s", url], check=True, stdout=subprocess.DEVNULL)
    before, began, asked = {unit: together(unit, ticks) for unit in units}, machine(), os.times()
    asking = subprocess.Popen([*wrk, "--duration", f"{seconds}s", url], stdout=subprocess.PIPE, text=True)
    memory = dict.fromkeys(units, 0)
    while True:
        memory = {unit: max(most, together(unit, share)) for unit, most in memory.items()}
        with contextlib.suppress(subprocess.TimeoutExpired):
            asking.wait(EVERY)
            break
    second = os.sysconf("SC_CLK_TCK")
    cpu = {unit: (together(unit, ticks) - before[unit]) / second for unit in units}
    busy, whole = ((now - then) / second for now, then in zip(machine(), began, strict=True))
    own = sum(cpu.values()) + sum(now - then for now, then in zip(os.times()[:4], asked[:4], strict=True))
    said = asking.stdout.read() if asking.stdout else ""
    errors = re.search(r"Socket errors: (.*)", said)
    told = {
        "requests": number(r"(\d+) requests in ", said),
        "seconds": number(r"requests in ([\d.]+)s", said),
        "failed": number(r"Non-2xx or 3xx responses: (\d+)", said)
        + sum(int(count) for count in re.findall(r"\d+", errors[1] if errors else "")),
        "cpu": cpu,
        "memory": memory,
        "others": max(0.0, busy - own) / whole,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:])
