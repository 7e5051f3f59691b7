"""Both successors of gixy on what nginx really reads: `nginx -T` of each host."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from testinfra.host import Host

from judges.conftest import SITE, Authority, Verdicts

# In the app's own server: a line break in the path would end the header.
BAD = "location /bad/ { return 301 https://$host$uri; }"


def judge(program: Path, dump: Path) -> list[dict[str, Any]]:
    """Return what it finds; every check is on, since nobody's settings are in this home directory."""
    done = subprocess.run(
        [program, "--format", "json", dump],
        env={**os.environ, "HOME": str(dump.parent)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "ERROR" not in done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    assert done.returncode == bool(found)
    return found


@pytest.mark.parametrize("name", ["gixy-ng", "gixy-next"])
def test_gixy_finds_nothing(
    host: Host, authority: Authority, tmp_path: Path, verdicts: Verdicts, name: str,
    tool: Callable[[str, str], Path], version: Callable[[str], str],
) -> None:  # fmt: skip
    """Nothing in what is deployed, and the fault that is put into the site's own file."""
    program, text = tool(name, "gixy"), host.check_output("nginx -T 2>/dev/null")
    assert "gixy" not in text, "nothing is excused"
    dump = tmp_path / "dump.conf"
    dump.write_text(text)
    found = judge(program, dump)

    before, mark, site = text.partition(f"# configuration file {SITE}:")
    anchor = "uwsgi_pass"
    assert mark
    assert anchor in site
    start = site.rindex("location", 0, site.index(anchor))
    dump.write_text(before + mark + site[:start] + BAD + "\n" + site[start:])
    control = judge(program, dump)
    assert ("http_splitting", SITE) in {(one["plugin"], one["file"]) for one in control}

    said = f"{len(found)} findings" + "".join(f", {one['plugin']}" for one in found)
    verdicts.add(name, version(name), host.backend.get_hostname(), said, f"{len(control)} findings")
    assert found == []
