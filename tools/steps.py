"""Steps that say what they do and how long they took. Standard library only: this runs before anything is installed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# For an ansible-playbook whose output a program reads. Colours that are forced (molecule does in CI) win over none.
PLAIN = {"ANSIBLE_FORCE_COLOR": "0", "ANSIBLE_NOCOLOR": "1"}


class StepError(Exception):
    """A command of a step ended with an error; the message has its last lines."""


class Step:
    """What one step reports when it is over: by default that it was done."""

    outcome = "done"


@contextlib.contextmanager
def step(title: str) -> Iterator[Step]:
    """Print ``title``, run the body, print its outcome and the seconds it took.

    The body may set ``outcome`` of the yielded step, e.g. to "nothing to do".
    """
    print(f"• {title} ... ", end="", flush=True)
    started = time.monotonic()
    current = Step()
    try:
        yield current
    except BaseException:
        print("failed", flush=True)
        raise
    print(f"{current.outcome} ({time.monotonic() - started:.1f} s)", flush=True)


def run(
    *command: str | Path,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    accept: Sequence[int] = (0,),
) -> str:
    """Run ``command`` and return what it wrote to standard output.

    Args:
        command: the program and its arguments.
        stdin: text for its standard input; none by default.
        env: its whole environment; by default this process's.
        cwd: the directory to run it in.
        accept: exit codes that are no error.

    Raises:
        StepError: it ended with another exit code, or there is no such program.
    """
    arguments = [str(part) for part in command]
    try:
        result = subprocess.run(
            arguments, input=stdin or "", env=env, cwd=cwd, text=True, capture_output=True, check=False
        )
    except FileNotFoundError as error:
        raise StepError(f"{arguments[0]}: no such program") from error
    if result.returncode not in accept:
        lines = (result.stdout + result.stderr).strip().splitlines()[-15:]
        raise StepError("\n".join([f"$ {' '.join(arguments)}  (exit code {result.returncode})", *lines]))
    return result.stdout


def end(error: StepError) -> None:
    """Print the error of a step and end the program with exit code 1."""
    print(f"\n{error}", file=sys.stderr)
    raise SystemExit(1)
