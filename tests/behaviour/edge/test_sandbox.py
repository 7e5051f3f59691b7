"""The sandbox of the app and of nginx: what an ordinary app does works, what none has any business doing does not."""

from __future__ import annotations

import json
import re
import secrets
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import APP, ROOT, STATE, Answer, Run, Site, WebServer, await_that, live_release, main_pid
from testinfra.host import Host

APPS = ROOT / "tests" / "apps"
SHARED = f"/srv/{APP}/shared/uploads"
NEIGHBOUR = "/var/lib/slipway/neighbour"
SERVERS = Path(__file__).with_name("servers.py")
# What every release of the ordinary app is deployed with.
INPUTS: dict[str, Any] = {
    "release_source": str(APPS / "ordinary"),
    "release_health_path": "/",
    "app_static": {},
    "app_shared": ["uploads"],
    "release_migrate": "touch uploads/by-the-migration",
    "release_hooks": {"after_build": ["touch uploads/by-the-hook"]},
    "release_secrets": {"SECRET": "a secret of the ordinary app"},
    # Releases that no run before has built: building is part of what is tested.
    "release_environment": {"RUN": secrets.token_hex()},
}
RELAXED: dict[str, Any] = {
    "write_execute": True,
    "network": [],
    "readable": ["/home/somebody"],
    "writable": ["/srv/slipway-test"],
    "devices": ["/dev/slipway-test"],
    "groups": ["adm"],
    "address_families": ["AF_NETLINK"],
    "system_calls": ["@resources"],
    "proc": True,
}
PREPARE = """
install -d -m 0755 /home/somebody /srv/slipway-test && echo ours > /home/somebody/file && chmod 777 /srv/slipway-test
test -e /dev/slipway-test || mknod -m 666 /dev/slipway-test c 1 3
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=service.slipway.test \
    -addext subjectAltName=DNS:service.slipway.test -keyout /etc/ssl/slipway-test.key -out /etc/ssl/slipway-test.pem
chown root:www-data /etc/ssl/slipway-test.key && chmod 640 /etc/ssl/slipway-test.key
cat > /run/slipway-servers.py
systemd-run --quiet --collect --unit slipway-test-servers --property RuntimeDirectory=slipway-test \
    python3 /run/slipway-servers.py /etc/ssl/slipway-test.pem /etc/ssl/slipway-test.key
"""
TIDY_UP = f"""
systemctl stop slipway-test-servers 'neighbour@*.service' 'neighbour@*.socket'
rm -rf /home/somebody /srv/slipway-test /dev/slipway-test /etc/ssl/slipway-test.* /run/slipway-servers.py {SHARED} \
    /etc/systemd/system/neighbour@* /etc/systemd/system/*/neighbour@* /etc/tmpfiles.d/slipway-neighbour.conf \
    /srv/neighbour {NEIGHBOUR} /var/cache/slipway/neighbour /run/neighbour /run/neighbour.sock
systemctl daemon-reload && userdel neighbour
"""


@pytest.fixture(scope="module")
def deployed(
    hosts: dict[str, Host], play: Callable[..., Any], playbook: Callable[..., Run], lesson: dict[str, str]
) -> Iterator[dict[str, str]]:
    """Have two releases of the ordinary app up, the later one live, a neighbour, and the servers that apps call.

    Yields {host: the earlier release}; the lesson's app is live again at the end.
    """
    try:
        for host in hosts.values():
            host.check_output(f"printf %s {shlex.quote(SERVERS.read_text())} | sh -ec {shlex.quote(PREPARE)}")
        neighbour = play(
            "playbooks/deploy.yml", app_name="neighbour", app_link="/run/neighbour.sock", app_static={}, release_url="",
            release_source=str(APPS / "switchable"), release_requirements=[], release_health_path="/",
            release_secrets={"SECRET": "a secret of the neighbour"},
        )  # fmt: skip
        first = playbook("playbooks/deploy.yml", **INPUTS)
        assert first.code == 0, first.output
        earlier = {name: live_release(host) for name, host in hosts.items()}
        second = playbook("playbooks/deploy.yml", **INPUTS, app_start_timeout=59, release_warm=True)
        assert second.code == 0, second.output
        beside = neighbour.wait()
        assert beside.code == 0, beside.output
        for host in hosts.values():
            host.check_output(f"echo theirs > {NEIGHBOUR}/file")
        yield earlier
    finally:
        for host in hosts.values():
            host.run(TIDY_UP)


def get(site: Site, path: str, method: str = "GET", body: str | None = None) -> Answer:
    """Ask a site, by HTTPS if it leads there."""
    answer = site.get(path, method, body)
    return site.get(path, method, body, tls=True) if answer.headers.get("location", "").startswith("https") else answer


def ask(site: Site, path: str, body: object = None) -> Any:
    """Ask the ordinary app, and return what it answers with."""
    answer = get(site, path, "GET" if body is None else "POST", None if body is None else json.dumps(body))
    assert answer.status == 200, answer
    return answer.json()


def attempted(site: Site, attempts: list[list[Any]]) -> dict[str, str]:
    """Let the app try things, and return what came of each."""
    return dict(zip(map(str, attempts), ask(site, "/try", attempts), strict=True))


def forbidden(web: WebServer, live: str, earlier: str) -> list[list[Any]]:
    """Return what no app may do, as [name of the attempt, what it is given...]."""
    own, other = f"/srv/{APP}/releases/{live}", f"/srv/{APP}/releases/{earlier}"
    reads = [
        "/srv/neighbour", "/srv/neighbour/live/app/wsgi.py", "/srv/neighbour/live/etc/secrets", NEIGHBOUR,
        f"{NEIGHBOUR}/file", other, f"{other}/app/wsgi.py", f"{other}/etc/secrets", f"{own}/etc/secrets",
        f"{own}/etc/environment", f"/srv/{APP}/state.json", f"/srv/{APP}/shared", "/etc/shadow", "/home/somebody",
        "/root", "/etc/ssl/slipway-test.key", f"{web.logs}/access.log",
        *web.either(["/etc/nginx/slipway/root"], []),
        "/proc/1/environ", "/proc/kallsyms", "/proc/sys/kernel/hostname", "/etc/ssh/ssh_host_ed25519_key",
    ]  # fmt: skip
    writes = [
        f"{own}/app/wsgi.py", f"{own}/venv/pyvenv.cfg", f"{own}/etc/entry.py", f"{other}/app/wsgi.py",
        "/srv/neighbour/live/app/wsgi.py", f"{NEIGHBOUR}/file", "/etc/hosts", "/usr/bin/env", "/srv/slipway-test",
        "/dev/slipway-test", "/proc/sys/kernel/hostname",
    ]  # fmt: skip
    writable = ["uploads", STATE, "/tmp", "/var/tmp"]
    return [
        *(["read", path] for path in reads),
        *(["write", path] for path in writes),
        *(["execute", directory] for directory in writable),
        *(["kind_of_socket", family] for family in ("AF_NETLINK", "AF_PACKET")),
        ["give_away", f"{STATE}/cache"],
        *([name] for name in ("other_processes", "code_in_memory", "namespace", "mount", "become_root")),
        *([name] for name in ("set_user_id", "trace", "priority", "host_name", "load")),
    ]


def test_an_ordinary_app_runs_with_the_defaults(host: Host, site: Site, deployed: dict[str, str]) -> None:
    """Uploads, caches, databases, DNS, TLS, mail, programs, processes, threads: all of it, with nothing relaxed."""
    resolver = host.check_output("cat /etc/resolv.conf")
    host.check_output("echo nameserver 127.0.0.1 > /etc/resolv.conf")
    try:
        told = ask(site, "/ordinary")
    finally:
        host.check_output(f"echo {shlex.quote(resolver)} > /etc/resolv.conf")
    assert len(told) == 17
    assert {name: came for name, came in told.items() if not came.startswith("did: ")} == {}
    assert (
        host.run(f"journalctl --no-pager -u '{APP}@{live_release(host)}.service' | grep -q 'an ordinary line'").rc == 0
    )


def test_what_an_app_may_not_do_it_cannot(
    web: WebServer, host: Host, site: Site, live: str, deployed: dict[str, str]
) -> None:
    """Other apps, other releases, its own code, the system: each attempt is refused that succeeds without a sandbox."""
    attempts = forbidden(web, live, deployed[host.backend.get_hostname()])
    came = attempted(site, attempts)
    assert [attempt for attempt, words in came.items() if not words.startswith("refused: ")] == []
    own = [["status"], ["read", f"/srv/{APP}/releases/{live}/app/wsgi.py"], ["write", STATE], ["write", "uploads"]]
    assert all(words.startswith("did: ") for words in attempted(site, own).values())
    # The proof of the proof: the same by root, with no sandbox. It mounts and renames: in
    # namespaces that end with it.
    command = f"cd /srv/{APP}/live/app && STATE_DIRECTORY={STATE} unshare --mount --uts python3 attempts.py"
    said = host.check_output(f"{command} {shlex.quote(json.dumps(attempts))}")
    assert said.count(": did ") == len(attempts), said


@pytest.mark.parametrize(
    ("unit", "limit"), [("{web}.service", 2.0), (f"{APP}@{{live}}.service", 1.2)], ids=["web", "app"]
)
def test_systemd_finds_little_exposed(
    web: WebServer, host: Host, live: str, deployed: dict[str, str], unit: str, limit: float
) -> None:
    """By systemd's own judge at most 2.0 of the web server and 1.2 of the app is exposed; without the lines more."""
    name = unit.format(web=web.unit, live=live)

    def exposure(*options: str) -> float:
        said = host.run(f"systemd-analyze security --no-pager {' '.join(options)}").stdout
        (found,) = re.findall(r"Overall exposure level for \S+: ([\d.]+)", said)
        return float(found)

    assert exposure(name) <= limit
    # The judge can fail: the same unit without what hardens it.
    bare = "/run/slipway-bare/bare.service"
    lines = "^(Protect|Private|Restrict|SystemCall|NoNew|Capab)"
    host.check_output(f"mkdir -p /run/slipway-bare && systemctl cat {name} | grep -vE '{lines}' > {bare}")
    try:
        assert exposure("--offline=true", bare) > limit
    finally:
        host.check_output("rm -r /run/slipway-bare")


def test_limits(host: Host, live: str, deployed: dict[str, str]) -> None:
    """Memory, tasks and open files have a limit by default, and a worker that is killed for memory is not the end."""
    unit = f"{APP}@{live}.service"
    shown = dict(
        line.split("=", 1)
        for line in host.check_output(
            f"systemctl show {unit} --property MemoryMax,TasksMax,LimitNOFILE,OOMPolicy,User,MainPID"
        ).splitlines()
    )
    total = int(host.check_output("awk '/MemTotal/ {print $2}' /proc/meminfo")) * 1024
    assert 0.7 * total < int(shown["MemoryMax"]) < 0.9 * total
    plan = json.loads(host.check_output(f"cat /srv/{APP}/live/etc/plan.json"))
    assert int(shown["TasksMax"]) == 1024 + plan["workers"]
    assert (shown["OOMPolicy"], shown["User"]) == ("continue", APP)
    assert re.search(r"^Max open files +4096 ", host.check_output(f"cat /proc/{shown['MainPID']}/limits"), re.MULTILINE)


def test_shared_directories_outlive_releases(host: Host, site: Site, live: str, deployed: dict[str, str]) -> None:
    """What both releases, the migration and the hook wrote is there, for the web server to read, and only that."""
    earlier = deployed[host.backend.get_hostname()]
    wrote = host.check_output(f"cat {SHARED}/by-the-app").splitlines()
    assert {earlier, live} <= set(wrote)
    there = set(host.check_output(f"ls {SHARED}").splitlines())
    assert "by-the-hook" in there
    # A migration is run on one host for all.
    assert ("by-the-migration" in there) == (host.backend.get_hostname() == min(deployed))
    assert host.check_output(f"stat -c '%U %G %a' {SHARED}") == f"{APP} www-data 2750"
    assert host.check_output(f"ls -A /srv/{APP}/releases/{live}/app/uploads") == ""
    ask(site, "/ordinary")
    for path, mode in (("picture.png", "640"), ("2026-11-24", "2750"), ("2026-11-24/picture.png", "640")):
        assert host.check_output(f"stat -c '%U %G %a' {SHARED}/{path}") == f"{APP} www-data {mode}"
    assert host.check_output(f"runuser -u www-data -- cat {SHARED}/2026-11-24/picture.png") == "a picture"
    # Not even the web server reads what else the app has, and nobody but the web server what is shared.
    assert host.run(f"runuser -u www-data -- ls {STATE}").rc != 0
    for user in ("nobody", "neighbour", APP):
        assert host.run(f"runuser -u {user} -- ls /srv/{APP}").rc != 0, user


def test_a_rollback_keeps_what_is_shared(
    hosts: dict[str, Host], playbook: Callable[..., Run], sites: dict[str, Site], deployed: dict[str, str]
) -> None:
    """The release before sees what the later one wrote, and goes on writing."""
    later = {name: live_release(host) for name, host in hosts.items()}
    run = playbook("playbooks/rollback.yml")
    assert run.code == 0, run.output
    for name, host in hosts.items():
        assert live_release(host) == deployed[name]
        assert later[name] in host.check_output(f"cat {SHARED}/by-the-app")
        assert ask(sites[name], "/ordinary")["upload"].startswith("did: ")


def test_each_relaxation_lets_an_app_do_more(
    web: WebServer,
    hosts: dict[str, Host],
    playbook: Callable[..., Run],
    sites: dict[str, Site],
    deployed: dict[str, str],
) -> None:
    """With app_sandbox what was refused is done; the network can be taken away, and what is shared never runs."""
    attempts: list[list[Any]] = [
        ["code_in_memory"], ["execute", STATE], ["execute", "/tmp"], ["read", "/home/somebody/file"],
        ["write", "/srv/slipway-test"], ["write", "/dev/slipway-test"], ["read", f"{web.logs}/access.log"],
        ["kind_of_socket", "AF_NETLINK"], ["priority"], ["load"],
    ]  # fmt: skip
    refused: list[list[Any]] = [["execute", "uploads"], ["call_out", "127.0.0.1", 15432]]
    before = {name: attempted(site, [*attempts, refused[1]]) for name, site in sites.items()}
    run = playbook("playbooks/deploy.yml", **INPUTS, app_sandbox=RELAXED, app_cpu_quota="150%", app_memory_high="1G")
    assert run.code == 0, run.output
    for name, host in hosts.items():
        assert [words[:3] for words in before[name].values()] == ["ref"] * len(attempts) + ["did"]
        after = attempted(sites[name], [*attempts, *refused])
        assert [words[:3] for words in after.values()] == ["did"] * len(attempts) + ["ref"] * len(refused), after
        unit = f"{APP}@{live_release(host)}.service"
        shown = host.check_output(f"systemctl show {unit} --property CPUQuotaPerSecUSec,MemoryHigh").splitlines()
        assert [line.rstrip("0s") for line in sorted(shown)] == ["CPUQuotaPerSecUSec=1.5", "MemoryHigh=1073741824"]


# -- the web server ---------------------------------------------------------------------------------------------------


def warnings(web: WebServer, host: Host) -> list[str]:
    """Return what the web server has warned of since the host started."""
    said = host.check_output(f"journalctl --sync && journalctl --boot --unit {web.unit} --no-pager --output cat")
    found = [line for line in said.splitlines() if re.search(r"\[(\w+:)?(warn|error|crit|alert|emerg)\]", line)]
    # In a container not even systemd may raise the number of open files above what the container was given.
    return [line for line in found if "setrlimit(RLIMIT_NOFILE" not in line]


def test_no_process_of_the_web_server_is_roots(web: WebServer, host: Host) -> None:
    """Master and workers run as www-data, which may not read what is not the web server's."""
    users = host.check_output(f"ps -o user= -C {web.unit}").split()
    assert len(users) > 1
    assert set(users) == {"www-data"}


def test_it_starts_and_reloads_whatever_root_left(web: WebServer, host: Host, site: Site) -> None:
    """A log that was removed, a process id that root's own test left: it starts, and warns of nothing."""
    before = warnings(web, host)
    start, reload = (f"{web.test} && systemctl {verb} {web.unit}" for verb in ("start", "reload"))
    host.check_output(f"systemctl stop {web.unit} && rm -f {web.logs}/access.log && {start}")
    assert get(site, "/").status == 200
    host.check_output(f"touch {web.logs}/own.log && {reload} && systemctl restart {web.unit}")
    assert host.check_output(f"stat -c %U {web.logs}/*.log | sort -u") == "www-data"
    assert warnings(web, host) == before
    host.check_output(f"rm {web.logs}/own.log")


def test_logs_are_rotated(web: WebServer, host: Host, site: Site) -> None:
    """Debian's own rule: after it the web server writes to the new file."""
    host.check_output(f"logrotate --force /etc/logrotate.d/{web.unit}")
    assert get(site, "/rotated").status
    await_that(lambda: host.run(f"grep -q /rotated {web.logs}/access.log").rc == 0)


def test_a_new_program_takes_over(web: WebServer, host: Host, site: Site) -> None:
    """As when its package is upgraded: another master, the same sandbox, and systemd knows it. Apache is restarted."""
    before = main_pid(host, web.unit)
    host.check_output(web.either("/etc/init.d/nginx upgrade", "systemctl restart apache2"))
    await_that(lambda: main_pid(host, web.unit) not in (before, 0))
    assert get(site, "/").status == 200
    assert host.service(web.unit).is_running


def test_a_file_that_it_may_not_read_is_seen_at_the_reload(web: WebServer, host: Host, site: Site) -> None:
    """Root could read it, so root's test passes; the reload fails in words, and what ran goes on."""
    conf = f"{web.directory}/{web.either('conf.d', 'sites-enabled')}/own.conf"
    host.check_output(f"touch {conf} && {web.test} && chmod 600 {conf}")
    assert host.run(web.test).rc == 0
    assert host.run(f"systemctl reload {web.unit}").rc != 0
    assert get(site, "/").status == 200
    host.check_output(f"rm {conf} && systemctl reload {web.unit}")


def test_the_web_server_runs_no_shell(web: WebServer, host: Host) -> None:
    """In its sandbox no program runs but what is beside it, for root neither."""
    inside = f"nsenter --target {main_pid(host, web.unit)} --mount"
    assert host.run(f"{inside} /usr/sbin/{web.unit} -v").rc == 0
    assert "Permission denied" in host.run(f"{inside} /bin/sh -c true").stderr
