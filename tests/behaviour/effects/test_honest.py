"""A second run and a dry run on deployed hosts: neither does anything."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import Run, pids
from testinfra.host import Host

# All that a deploy writes to, with sizes, times, owners and modes; without what a mere look leaves behind.
FILES = (
    "find /etc /opt /srv /usr /var/lib /var/cache -xdev -not -path '/var/lib/systemd/*' -not -path '/var/cache/apt*'"
    " -not -name '*.pyc' -not -name __pycache__ -printf '%p %y %m %u %g %s %T@ %l\\n' | sort"
)


@pytest.mark.parametrize("options", [(), ("--check", "--diff")], ids=["second run", "dry run"])
def test_nothing_to_do_means_nothing_done(
    hosts: dict[str, Host], playbook: Callable[..., Run], options: tuple[str, ...]
) -> None:
    """The run ends green and reports changed=0; every file and every process is the same as before."""
    before = {name: (host.check_output(FILES).splitlines(), pids(host)) for name, host in hosts.items()}
    run = playbook("site.yml", *options)
    assert run.code == 0, run.output
    assert run.changed == dict.fromkeys(hosts, 0), run.output
    for name, host in hosts.items():
        assert pids(host) == before[name][1]
        assert host.check_output(FILES).splitlines() == before[name][0]
