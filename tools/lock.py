"""Lock what the controller, a release's app server, the apps and the judges need, with hashes and without an index.

    python tools/lock.py [--upgrade]

The controller's lock is the one that is made anew; what a host installs of it (uv, uWSGI, gunicorn) is cut out of it,
so that the versions that are tested here are the ones that run there.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from steps import ROOT, StepError, end, run, step

CUT = {
    "uv": (ROOT / "roles" / "release" / "files" / "uv.txt", "What makes the environments of releases."),
    "gunicorn": (ROOT / "roles" / "gunicorn" / "files" / "requirements.txt", "gunicorn, which needs nothing else."),
    "pyuwsgi": (ROOT / "roles" / "uwsgi" / "files" / "requirements.txt", "uWSGI, as wheels that need no compiler."),
}
JUDGES = sorted((ROOT / "tools" / "judges").glob("*.in"))
EXAMPLES = [*sorted(ROOT.glob("examples/*/requirements.in")), *sorted(ROOT.glob("tests/apps/*/requirements.in"))]


def compile_lock(directory: Path, source: str, target: str, *options: str) -> None:
    """Resolve the requirements in ``source`` for every platform and write them to ``target``, both in ``directory``."""
    general = ["--universal", "--generate-hashes", "--no-emit-index-url", *options]
    run("uv", "pip", "compile", "--quiet", *general, *sys.argv[1:], source, "--output-file", target, cwd=directory)


def entry(lock: str, package: str) -> str:
    """Return the lines of ``package`` in a lock: the version and its hashes.

    Raises:
        StepError: the lock has no such package.
    """
    found = re.search(rf"^{re.escape(package)}==.*\n(?:    --hash=.*\n)+", lock, re.MULTILINE)
    if found is None:
        raise StepError(f"requirements.lock has no {package}.")
    return found[0]


def main() -> None:
    """Make all locks."""
    with step("controller"):
        compile_lock(ROOT, "pyproject.toml", "requirements.lock", "--extra", "dev", "--python-version", "3.11")
    for package, (file, purpose) in CUT.items():
        with step(package):
            text = entry((ROOT / "requirements.lock").read_text(), package)
            file.write_text(f"# {purpose} Cut out of requirements.lock by `make lock`.\n{text}")
    for source in JUDGES:
        with step(source.stem):
            compile_lock(source.parent, source.name, f"{source.stem}.txt", "--python-version", "3.11")
    for source in [ROOT / "app" / "requirements.in", *EXAMPLES]:
        with step(str(source.parent.relative_to(ROOT))):
            compile_lock(source.parent, source.name, "requirements.txt", "--python-version", "3.10")


if __name__ == "__main__":
    try:
        main()
    except StepError as error:
        end(error)
