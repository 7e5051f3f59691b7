"""The socket and service of a release: by defaults, by other inputs, judged by systemd itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from rendering import lines, section
from rendering import render as render_of_role

PLAN: dict[str, Any] = {
    "start": ["uwsgi", "--ini", "../etc/uwsgi.ini"],
    "stop_timeout": 70,
    "tasks": 4,
}
OTHER: dict[str, object] = {
    "release_app": "shop",
    "release_root": "/opt/shop",
    "release_link": "/run/shop.sock",
    "release_user": "keeper",
    "release_server": "gunicorn",
    "release_socket_owner": "keeper",
    "release_web_group": "web",
    "release_socket_mode": "0600",
    "release_socket_backlog": 128,
    "release_memory_max": "2G",
    "release_memory_high": "50%",
    "release_tasks_max": 99,
    "release_cpu_quota": "150%",
    "release_open_files": 1000,
    "release_shared": ["uploads", "data/media"],
    "__app_server_plan": {"start": ["uwsgi", "--other"], "stop_timeout": 40, "tasks": 16},
}
ANALYZE = shutil.which("systemd-analyze")
needs_systemd = pytest.mark.skipif(ANALYZE is None, reason="this is no machine with systemd")
# Of what every app is in, whatever else it may do.
SANDBOX = [
    "UMask=0027",
    "ProtectSystem=strict",
    "ProtectHome=tmpfs",
    "PrivateTmp=true",
    "PrivateDevices=true",
    "CapabilityBoundingSet=",
    "NoNewPrivileges=true",
    "PrivateUsers=true",
    "ProtectProc=invisible",
    "PrivateIPC=true",
    "RemoveIPC=true",
    "KeyringMode=private",
    "ProtectClock=true",
    "ProtectControlGroups=true",
    "ProtectHostname=true",
    "ProtectKernelLogs=true",
    "ProtectKernelModules=true",
    "ProtectKernelTunables=true",
    "LockPersonality=true",
    "RestrictNamespaces=true",
    "RestrictRealtime=true",
    "RestrictSUIDSGID=true",
    "SystemCallArchitectures=native",
    "SystemCallErrorNumber=EPERM",
    "SystemCallFilter=@system-service",
    "SystemCallFilter=~@privileged @resources",
]
# Each relaxation with the lines that it brings, and those that it takes away.
RELAXATIONS: list[tuple[dict[str, object], list[str], list[str]]] = [
    (
        {"write_execute": True}, [],
        ["MemoryDenyWriteExecute=true", "NoExecPaths=/tmp /var/tmp /dev/shm /var/lib/slipway/app"],
    ),
    (
        {"network": []}, ["PrivateNetwork=true", "RestrictAddressFamilies=AF_UNIX"],
        ["RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"],
    ),
    ({"network": ["localhost", "10.0.0.0/8"]}, ["IPAddressDeny=any", "IPAddressAllow=localhost 10.0.0.0/8"], []),
    ({"readable": ["/home/me", "/data"]}, ["BindReadOnlyPaths=/home/me", "BindReadOnlyPaths=/data"], []),
    (
        {"writable": ["/data"]}, ["BindPaths=/data", "NoExecPaths=/tmp /var/tmp /dev/shm /var/lib/slipway/app /data"],
        ["NoExecPaths=/tmp /var/tmp /dev/shm /var/lib/slipway/app"],
    ),
    ({"devices": ["/dev/ttyUSB0"]}, ["BindPaths=/dev/ttyUSB0", "DeviceAllow=/dev/ttyUSB0 rw"], []),
    ({"groups": ["redis", "dialout"]}, ["SupplementaryGroups=redis dialout"], []),
    (
        {"address_families": ["AF_NETLINK"]}, ["RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK"],
        ["RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6"],
    ),
    ({"system_calls": ["@chown", "ptrace"]}, ["SystemCallFilter=@chown ptrace"], []),
    ({"proc": True}, [], ["ProcSubset=pid"]),
]  # fmt: skip
OTHER["release_sandbox"] = {key: value for relaxation, _, _ in RELAXATIONS for key, value in relaxation.items()}


def render(template: str, **inputs: object) -> str:
    """Give a unit; its server is uWSGI unless the inputs say another."""
    return render_of_role("release", template, **{"__app_server_plan": PLAN, **inputs})


def verified(tmp_path: Path, edit: dict[str, str], **inputs: object) -> str:
    """Give what systemd says about the two units of a release, whose program stands below a directory of the test's.

    edit: {what is written: what is written instead}, to show that systemd looks.
    """
    app, root = str(inputs.get("release_app", "app")), tmp_path / "srv"
    program = root / "releases/0123456789ab/venv/bin" / PLAN["start"][0]
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    units = []
    for kind in ("socket", "service"):
        text = render(f"{kind}.j2", **(inputs | {"release_root": str(root)}))
        for old, new in edit.items():
            text = text.replace(old, new)
        (tmp_path / f"{app}@.{kind}").write_text(text, encoding="utf-8")
        units.append(str(tmp_path / f"{app}@0123456789ab.{kind}"))
        (tmp_path / f"{app}@0123456789ab.{kind}").symlink_to(f"{app}@.{kind}")
    command = [str(ANALYZE), "verify", "--man=no", *units]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    said = result.stdout + result.stderr
    assert result.returncode == 0 or said, "systemd-analyze failed without a word"
    return said


def test_socket_by_defaults() -> None:
    """The socket is systemd's, the web server's group may connect, and it goes when it is stopped."""
    text = render("socket.j2")
    assert section(text, "Unit") == [
        "Description=app: socket of release %i",
        "ConditionPathExists=/etc/systemd/system/%n",
    ]
    assert section(text, "Socket") == [
        "ListenStream=/run/app/%i.sock",
        "SocketUser=root",
        "SocketGroup=www-data",
        "SocketMode=0660",
        "DirectoryMode=0755",
        "Backlog=4096",
        "RemoveOnStop=true",
    ]
    assert section(text, "Install") == ["WantedBy=sockets.target"]


def test_socket_by_other_inputs() -> None:
    """Each input reaches its line."""
    text = render("socket.j2", **OTHER)
    assert section(text, "Unit") == [
        "Description=shop: socket of release %i",
        "ConditionPathExists=/etc/systemd/system/%n",
    ]
    assert section(text, "Socket") == [
        "ListenStream=/run/shop/%i.sock",
        "SocketUser=keeper",
        "SocketGroup=web",
        "SocketMode=0600",
        "DirectoryMode=0755",
        "Backlog=128",
        "RemoveOnStop=true",
    ]


def test_service_by_defaults() -> None:
    """The service runs the release's own server as the app's user, in a sandbox that shows it no other release."""
    text = render("service.j2")
    assert section(text, "Unit") == [
        "Description=app: release %i, served by uwsgi",
        "ConditionPathExists=/etc/systemd/system/%n",
        "Requires=app@%i.socket",
        "After=app@%i.socket network.target",
        "StartLimitIntervalSec=300",
        "StartLimitBurst=100",
    ]
    service = section(text, "Service")
    assert [line for line in service if line not in SANDBOX] == [
        "Type=notify",
        "User=app",
        "Group=app",
        "WorkingDirectory=/srv/app/releases/%i/app",
        "Environment=SLIPWAY_APP=app SLIPWAY_RELEASE=%i SLIPWAY_LINK=/run/uwsgi.sock",
        "Environment=PYTHONFAULTHANDLER=1",
        "EnvironmentFile=/srv/app/releases/%i/etc/environment",
        "EnvironmentFile=/srv/app/releases/%i/etc/secrets",
        "ExecStart=/srv/app/releases/%i/venv/bin/uwsgi --ini ../etc/uwsgi.ini",
        "Restart=always",
        "RestartSec=200ms",
        "TimeoutStartSec=60",
        "TimeoutStartFailureMode=abort",
        "KillMode=mixed",
        "KillSignal=SIGTERM",
        "TimeoutStopSec=70",
        "MemoryMax=80%",
        "MemoryHigh=infinity",
        "OOMPolicy=continue",
        "TasksMax=1028",
        "LimitNOFILE=4096",
        "StateDirectory=slipway/app",
        "StateDirectoryMode=0700",
        "TemporaryFileSystem=/srv/app:ro",
        "BindReadOnlyPaths=/srv/app/releases/%i",
        "MemoryDenyWriteExecute=true",
        "NoExecPaths=/tmp /var/tmp /dev/shm /var/lib/slipway/app",
        "ProcSubset=pid",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    ]
    assert [line for line in SANDBOX if line not in service] == []
    assert section(text, "Install") == ["WantedBy=multi-user.target"]


def test_service_by_other_inputs() -> None:
    """Each input reaches its lines, and nothing of the defaults is left."""
    text = render("service.j2", **OTHER)
    assert section(text, "Unit")[:4] == [
        "Description=shop: release %i, served by gunicorn",
        "ConditionPathExists=/etc/systemd/system/%n",
        "Requires=shop@%i.socket",
        "After=shop@%i.socket network.target",
    ]
    service = section(text, "Service")
    for line in (
        "User=keeper",
        "Group=keeper",
        "WorkingDirectory=/opt/shop/releases/%i/app",
        "Environment=SLIPWAY_APP=shop SLIPWAY_RELEASE=%i SLIPWAY_LINK=/run/shop.sock",
        "ExecStart=/opt/shop/releases/%i/venv/bin/uwsgi --other",
        "TimeoutStopSec=40",
        "TemporaryFileSystem=/opt/shop:ro",
        "BindReadOnlyPaths=/opt/shop/releases/%i",
        "MemoryMax=2G",
        "MemoryHigh=50%",
        "TasksMax=115",
        "CPUQuota=150%",
        "LimitNOFILE=1000",
        "BindPaths=/opt/shop/shared/data/media:/opt/shop/releases/%i/app/data/media",
        "NoExecPaths=/opt/shop/releases/%i/app/data/media",
        *SANDBOX,
    ):
        assert line in service
    assert "/srv/app" not in text


@pytest.mark.parametrize(("relaxation", "more", "less"), RELAXATIONS, ids=lambda value: "-".join(value))
def test_each_relaxation_changes_its_own_lines(relaxation: dict[str, object], more: list[str], less: list[str]) -> None:
    """And no others: all the rest of the sandbox stays as it is."""
    before = section(render("service.j2"), "Service")
    after = section(render("service.j2", release_sandbox=relaxation), "Service")
    assert sorted(set(after) - set(before)) == sorted(more)
    assert sorted(set(before) - set(after)) == sorted(less)


def test_what_is_shared_is_writable_and_never_runs() -> None:
    """Not even where the app may run what it wrote elsewhere."""
    text = render("service.j2", release_shared=["uploads"], release_sandbox={"write_execute": True})
    service = section(text, "Service")
    assert "BindPaths=/srv/app/shared/uploads:/srv/app/releases/%i/app/uploads" in service
    assert [line for line in service if line.startswith("NoExecPaths=")] == [
        "NoExecPaths=/srv/app/releases/%i/app/uploads"
    ]


def test_there_are_tasks_for_all_workers() -> None:
    """However many an inventory asks for."""
    text = render("service.j2", __app_server_plan={**PLAN, "tasks": 5000})
    assert "TasksMax=6024" in lines(text)


def test_the_shared_names_reach_the_role() -> None:
    """What the inventory says for all roles is what this role takes by default, text of the command line too."""
    shared = {"app_name": "shop", "app_link": "/run/shop.sock", "web_group": "web", "app_tasks_max": "2000"}
    service = section(render("service.j2", **shared), "Service")
    assert "User=shop" in service
    assert "TasksMax=2004" in service
    assert "Environment=SLIPWAY_APP=shop SLIPWAY_RELEASE=%i SLIPWAY_LINK=/run/shop.sock" in service
    assert "SocketGroup=web" in lines(render("socket.j2", **shared))
    assert "User=keeper" in lines(render("service.j2", **shared, app_user="keeper"))


@needs_systemd
@pytest.mark.parametrize("inputs", [{}, OTHER], ids=["defaults", "other"])
def test_systemd_has_nothing_to_say(tmp_path: Path, inputs: dict[str, object]) -> None:
    """Both units pass `systemd-analyze verify` without a word."""
    assert verified(tmp_path, {}, **inputs) == ""


@needs_systemd
@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Backlog=", "Backlogg=", "Unknown key"),
        ("ProtectProc=", "ProtectProcc=", "Unknown key"),
        ("Type=notify", "Type=notified", "Failed to parse service type"),
        ("/venv/bin/uwsgi", "/venv/bin/uwsgj", "is not executable"),
    ],
)
def test_systemd_would_say_what_is_wrong(tmp_path: Path, old: str, new: str, words: str) -> None:
    """The judge judges: a fault in either unit is named."""
    assert re.search(words, verified(tmp_path, {old: new}))
