"""The open-loop client in the background of a test, and tables of what it noted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import client

ROOT = Path(__file__).resolve().parents[2]
# What tests on hosts measured; `make molecule` shows it at its end.
FIGURES = ROOT / ".slipway" / "figures.md"


@contextmanager
def traffic(
    ports: dict[str, int], directory: Path, rate: float, *options: str, scheme: str = "http"
) -> Iterator[dict[str, Path]]:
    """Send requests to each host while the block runs.

    Args:
        ports: of the sites, on 127.0.0.1, by the name of the host.
        directory: takes what the clients noted.
        rate: requests per second to each of them.
        *options: further ones of the client's command line.
        scheme: "http" or "https".

    Returns:
        {host: file for client.read()}, each complete when the block has ended.
    """
    files = {name: directory / f"{name}.jsonl" for name in ports}
    command = [sys.executable, client.__file__, "--rate", str(rate), *options]
    clients = [
        subprocess.Popen([*command, "--out", files[name], f"{scheme}://127.0.0.1:{port}"], stdin=subprocess.PIPE)
        for name, port in ports.items()
    ]
    try:
        yield files
    finally:
        for process in clients:
            assert process.stdin
            process.stdin.close()  # tells it to end
        codes = [process.wait(timeout=2 * client.TIMEOUT) for process in clients]
    assert not any(codes), f"the clients ended with exit codes {codes}"


def faults(records: Sequence[client.Record]) -> list[str]:
    """Return what went wrong in the words of the client, once for each request that failed."""
    return [f"{record.kind}: {record.fault}" for record in records if record.fault]


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a section of a Markdown file with a heading and one table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join([f"## {title}", "", *(f"| {' | '.join(line)} |" for line in lines), "", ""])


def publish(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Append a table to FIGURES."""
    FIGURES.parent.mkdir(exist_ok=True)
    with FIGURES.open("a", encoding="utf-8") as target:
        target.write(table(title, columns, rows))
