"""slowhttptest of Debian 13: visitors who send and read as slowly as they can, and others beside them."""

from __future__ import annotations

import csv
import io
import threading
import time
from collections.abc import Callable

import pytest
from conftest import Run, Site, await_that
from testinfra.host import Host

from judges.conftest import NAME, Authority, Verdicts

CONNECTIONS = 800
SECONDS = 12
# Its options for each kind: what comes every five seconds, or is read every second, keeps a connection from its end.
KINDS = {
    "slow headers": "-H -i 5 -u http://{name}/x",
    "slow bodies": "-B -i 5 -s 8192 -u http://{name}/x",
    "slow readers": "-X -w 64 -y 128 -n 1 -z 32 -k 3 -u http://{name}/big",
}
# A server that serves one visitor after the other.
VICTIM = (
    "from http.server import HTTPServer, BaseHTTPRequestHandler as B;"
    " B.do_GET = lambda s: (s.send_response(200), s.end_headers()); HTTPServer(('127.0.0.1', 8083), B).serve_forever()"
)


@pytest.fixture(scope="module")
def served_plain(authority: Authority, addresses: dict[str, str], playbook: Callable[..., Run]) -> None:
    """The app on port 80 too: slowhttptest names nobody in its handshake, which is refused."""
    run = playbook("site.yml", web_redirect=False)
    assert run.code == 0, run.output


def attack(bench: Host, options: str, connections: int, seconds: int) -> list[dict[str, str]]:
    """Run it, and return its report: a row a second."""
    bench.check_output(
        f"rm -f /tmp/slow.csv; prlimit --nofile=4096 -- slowhttptest {options} -c {connections} -r {connections // 2}"
        f" -l {seconds} -p 1 -g -o /tmp/slow -v 0 > /dev/null 2>&1 < /dev/null; test -e /tmp/slow.csv"
    )
    return list(csv.DictReader(io.StringIO(bench.check_output("cat /tmp/slow.csv"))))


@pytest.mark.parametrize("name", ["debian12", "debian13"])
@pytest.mark.parametrize("kind", KINDS)
def test_others_are_served_within_a_second(
    name: str, kind: str, served_plain: None, hosts: dict[str, Host], sites: dict[str, Site],
    addresses: dict[str, str], verdicts: Verdicts,
) -> None:  # fmt: skip
    """While all of its connections are open, a new visitor gets a page of the app and a file at once."""
    bench, site = hosts["debian13"], sites[name]
    # Written and not replaced: in a container it is mounted.
    bench.check_output(
        f"cp /etc/hosts /tmp/hosts && (sed '/{NAME}/d' /tmp/hosts; echo '{addresses[name]} {NAME}') > /etc/hosts"
    )
    took: list[float] = []
    over = threading.Event()

    def visit() -> None:
        while not over.wait(0.1):
            for path in ("/x", "/static/robots.txt"):
                began = time.monotonic()
                answer = site.get(path, name=NAME)
                took.append(time.monotonic() - began if answer.status == 200 else float("inf"))

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        report = attack(bench, KINDS[kind].format(name=NAME), CONNECTIONS, SECONDS)
    finally:
        over.set()
        visitor.join()
    most = max(int(row["Connected"]) for row in report)
    version = bench.package("slowhttptest").version
    verdicts.add(
        f"slowhttptest, {kind}", version, name,
        f"{most} connections at once, {len(took)} other visits, the slowest {max(took):.2f} s", "see below",
    )  # fmt: skip
    assert most == CONNECTIONS
    assert len(took) > 50
    assert max(took) < 1
    assert {int(row["Service Available"]) for row in report} <= {0, CONNECTIONS}


def test_it_stops_a_server_that_is_not_made_for_it(
    addresses: dict[str, str], hosts: dict[str, Host], verdicts: Verdicts
) -> None:
    """The same judge on a server that serves one after the other: nobody else is served."""
    bench = hosts["debian13"]
    bench.check_output(f'systemd-run --unit judges-victim -- /usr/bin/python3 -c "{VICTIM}"')
    try:
        await_that(lambda: bench.run("ss --no-header --listening --tcp 'sport = :8083' | grep .").rc == 0)
        report = attack(bench, "-H -i 5 -u http://127.0.0.1:8083/", 50, 6)
    finally:
        bench.check_output("systemctl stop judges-victim")
    unavailable = sum(int(row["Service Available"]) == 0 for row in report)
    verdicts.add("slowhttptest, slow headers", bench.package("slowhttptest").version, "debian13", "",
                 f"a server for one at a time: not available in {unavailable} of {len(report)} s")  # fmt: skip
    assert unavailable >= 3
