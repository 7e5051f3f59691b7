"""systemd's own judge of what a unit may do."""

from __future__ import annotations

import re

import pytest
from conftest import APP, live_release
from testinfra.host import Host

from judges.conftest import Authority, Verdicts


def exposure(said: str) -> float:
    """Return the level that systemd-analyze sums up by, from 0 to 10."""
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found, said
    return float(found[1])


@pytest.mark.parametrize(("unit", "most"), [("app", 1.2), ("nginx", 2.0)])
def test_little_is_exposed(host: Host, authority: Authority, verdicts: Verdicts, unit: str, most: float) -> None:
    """The unit as it runs; Debian's own file of nginx, without what Slipway adds to it, is the control."""
    name = f"{APP}@{live_release(host)}.service" if unit == "app" else "nginx.service"
    assert host.service(name).is_running
    level = exposure(host.check_output(f"systemd-analyze security --no-pager {name}"))
    # By another name, or systemd would take Slipway's drop-in for it.
    host.check_output("cp /lib/systemd/system/nginx.service /tmp/stock.service")
    stock = exposure(host.check_output("systemd-analyze security --no-pager --offline=true /tmp/stock.service"))
    version = host.check_output("systemd-analyze --version").split()[1]
    verdicts.add(
        f"systemd-analyze security, {unit}", version, host.backend.get_hostname(), f"{level} (at most {most})",
        f"Debian's nginx.service: {stock}",
    )  # fmt: skip
    assert stock > 9
    assert level <= most
