"""What the uwsgi role hands to a release: by its defaults, by other inputs, judged by systemd and uWSGI themselves."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.errors import AnsibleError
from ansible.template import trust_as_template
from rendering import ROLES, lines, render

TEMPLATES = ("service.j2", "socket.j2", "uwsgi.ini.j2")
OTHER: dict[str, object] = {
    "uwsgi_app": "shop",
    "uwsgi_root": "/opt/shop",
    "uwsgi_link": "/run/shop.sock",
    "uwsgi_user": "keeper",
    "uwsgi_socket_owner": "keeper",
    "uwsgi_socket_group": "web",
    "uwsgi_socket_mode": "0600",
    "uwsgi_socket_backlog": 128,
    "uwsgi_processes": 2,
    "uwsgi_threads": 8,
    "uwsgi_harakiri": 30,
    "uwsgi_buffer_size": 8192,
    "uwsgi_show_config": True,
    "uwsgi_log_requests": True,
    "uwsgi_memory_max": "2G",
    "uwsgi_memory_high": "50%",
    "uwsgi_tasks_max": 99,
    "uwsgi_cpu_quota": "150%",
    "uwsgi_open_files": 1000,
    "uwsgi_shared": ["uploads", "data/media"],
    "uwsgi_options": {
        "max-requests": 1000,
        "env": ["COLOUR=blue", "TITLE=a b; # c"],
        "thunder-lock": True,
        "log-zero": False,
    },
}
OTHER_OPTIONS = [
    "env = COLOUR=blue",
    "env = TITLE=a b; # c",
    "log-zero = false",
    "max-requests = 1000",
    "thunder-lock = true",
]
APP = "def application(environ, start_response):\n    return []\n"
ANALYZE = shutil.which("systemd-analyze")
UWSGI = Path(sys.executable).with_name("uwsgi")  # pyuwsgi brings it, see pyproject.toml
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
OTHER["uwsgi_sandbox"] = {key: value for relaxation, _, _ in RELAXATIONS for key, value in relaxation.items()}


def section(text: str, name: str) -> list[str]:
    """Give the lines of the one section of a unit or an ini file that is called so.

    Raises ValueError when there is not exactly one.
    """
    (found,) = [part for part in "\n".join(lines(text)).split("\n[") if part.lstrip("[").startswith(f"{name}]")]
    return found.splitlines()[1:]


def verified(tmp_path: Path, edit: dict[str, str], **inputs: object) -> str:
    """Give what systemd says about the two units of a release, whose program stands below a directory of the test's.

    edit: {what is written: what is written instead}, to show that systemd looks.
    """
    app, root = str(inputs.get("uwsgi_app", "app")), tmp_path / "srv"
    program = root / "releases/0123456789ab/venv/bin/uwsgi"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    units = []
    for kind in ("socket", "service"):
        text = render("uwsgi", f"{kind}.j2", **(inputs | {"uwsgi_root": str(root)}))
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


def started(tmp_path: Path, app: str, *further: str, **inputs: object) -> subprocess.CompletedProcess[str]:
    """Let uWSGI read a release's uwsgi.ini and load its app by it.

    The environment is left out: uWSGI would look for a whole one, and this one has pyuwsgi.

    app: text of the source's wsgi.py. further: options of the command line; one of them has to make uWSGI end.
    """
    for directory in ("app", "etc"):
        (tmp_path / directory).mkdir()
    (tmp_path / "app/wsgi.py").write_text(app)
    (tmp_path / "etc/entry.py").write_text(render("release", "entry.py.j2"), encoding="utf-8")
    shutil.copy(ROLES / "uwsgi/files/pep3333.py", tmp_path / "etc")
    text = render("uwsgi", "uwsgi.ini.j2", **inputs)
    assert text.count("virtualenv = %d../venv\n") == 1
    path = tmp_path / "etc/uwsgi.ini"
    path.write_text(text.replace("virtualenv = %d../venv\n", ""), encoding="utf-8")
    return subprocess.run(
        [str(UWSGI), "--ini", str(path), *further],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=30,
    )


def test_every_template_is_tested() -> None:
    """A template that is added is added here too."""
    assert sorted(path.name for path in (ROLES / "uwsgi" / "templates").iterdir()) == sorted(TEMPLATES)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("inputs", [{}, OTHER], ids=["defaults", "other"])
def test_every_file_says_who_manages_it(template: str, inputs: dict[str, object]) -> None:
    """Every file opens with the managed header and holds no template syntax."""
    text = render("uwsgi", template, **inputs)
    assert text.startswith("#\n# Ansible managed\n#\n")
    assert "{{" not in text
    assert "{%" not in text
    assert text.endswith("\n")


@pytest.mark.parametrize(
    ("template", "variable"),
    [("service.j2", "uwsgi_user"), ("socket.j2", "uwsgi_socket_group"), ("uwsgi.ini.j2", "uwsgi_harakiri")],
)
def test_an_undefined_variable_is_an_error(template: str, variable: str) -> None:
    """Nothing is rendered as an empty word."""
    with pytest.raises(AnsibleError, match="no_such_variable"):
        render("uwsgi", template, **{variable: trust_as_template("{{ no_such_variable }}")})


def test_socket_by_defaults() -> None:
    """The socket is systemd's, the web server's group may connect, and it goes when it is stopped."""
    text = render("uwsgi", "socket.j2")
    assert section(text, "Unit") == ["Description=app: socket of release %i"]
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
    text = render("uwsgi", "socket.j2", **OTHER)
    assert section(text, "Unit") == ["Description=shop: socket of release %i"]
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
    """The service runs the release's own uWSGI as the app's user, in a sandbox that shows it no other release."""
    text = render("uwsgi", "service.j2")
    assert section(text, "Unit") == [
        "Description=app: release %i, served by uWSGI",
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
        "ExecStart=/srv/app/releases/%i/venv/bin/uwsgi --ini /srv/app/releases/%i/etc/uwsgi.ini",
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
    text = render("uwsgi", "service.j2", **OTHER)
    assert section(text, "Unit")[:3] == [
        "Description=shop: release %i, served by uWSGI",
        "Requires=shop@%i.socket",
        "After=shop@%i.socket network.target",
    ]
    service = section(text, "Service")
    for line in (
        "User=keeper",
        "Group=keeper",
        "WorkingDirectory=/opt/shop/releases/%i/app",
        "Environment=SLIPWAY_APP=shop SLIPWAY_RELEASE=%i SLIPWAY_LINK=/run/shop.sock",
        "ExecStart=/opt/shop/releases/%i/venv/bin/uwsgi --ini /opt/shop/releases/%i/etc/uwsgi.ini",
        "TimeoutStopSec=40",
        "TemporaryFileSystem=/opt/shop:ro",
        "BindReadOnlyPaths=/opt/shop/releases/%i",
        "MemoryMax=2G",
        "MemoryHigh=50%",
        "TasksMax=99",
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
    before = section(render("uwsgi", "service.j2"), "Service")
    after = section(render("uwsgi", "service.j2", uwsgi_sandbox=relaxation), "Service")
    assert sorted(set(after) - set(before)) == sorted(more)
    assert sorted(set(before) - set(after)) == sorted(less)


def test_what_is_shared_is_writable_and_never_runs() -> None:
    """Not even where the app may run what it wrote elsewhere."""
    text = render("uwsgi", "service.j2", uwsgi_shared=["uploads"], uwsgi_sandbox={"write_execute": True})
    service = section(text, "Service")
    assert "BindPaths=/srv/app/shared/uploads:/srv/app/releases/%i/app/uploads" in service
    assert [line for line in service if line.startswith("NoExecPaths=")] == [
        "NoExecPaths=/srv/app/releases/%i/app/uploads"
    ]


def test_there_are_tasks_for_all_workers() -> None:
    """However many an inventory asks for."""
    text = render("uwsgi", "service.j2", uwsgi_processes="100", uwsgi_threads=50)
    assert "TasksMax=6024" in lines(text)


def test_the_shared_names_reach_the_role() -> None:
    """What the inventory says for all roles is what this role takes by default, text of the command line too."""
    shared = {"app_name": "shop", "app_link": "/run/shop.sock", "web_group": "web", "app_timeout": "20"}
    service = section(render("uwsgi", "service.j2", **shared), "Service")
    assert "User=shop" in service
    assert "TimeoutStopSec=30" in service
    assert "Environment=SLIPWAY_APP=shop SLIPWAY_RELEASE=%i SLIPWAY_LINK=/run/shop.sock" in service
    assert "SocketGroup=web" in lines(render("uwsgi", "socket.j2", **shared))
    assert "harakiri = 20" in lines(render("uwsgi", "uwsgi.ini.j2", **shared))
    assert "User=keeper" in lines(render("uwsgi", "service.j2", **shared, app_user="keeper"))


def test_uwsgi_ini_by_defaults() -> None:
    """These lines and no others: each one that is missing is a way for a release to fail unseen."""
    assert section(render("uwsgi", "uwsgi.ini.j2"), "uwsgi") == [
        "strict = true",
        "chdir = %d../app",
        "virtualenv = %d../venv",
        "wsgi-file = %dpep3333.py",
        "need-app = true",
        "single-interpreter = true",
        "master = true",
        "processes = 4",
        "threads = 1",
        "enable-threads = true",
        "no-orphans = true",
        "harakiri = 60",
        "buffer-size = 65535",
        "max-vars = 4096",
        "post-buffering = 65536",
        "disable-logging = true",
        "log-4xx = false",
        "log-5xx = true",
        "hook-master-start = unix_signal:15 gracefully_kill_them_all",
    ]


def test_uwsgi_ini_by_other_inputs() -> None:
    """Each input reaches its line; further options come last, a list as one line each, true and false in small."""
    found = section(render("uwsgi", "uwsgi.ini.j2", **OTHER), "uwsgi")
    for line in (
        "strict = true",
        "show-config = true",
        "processes = 2",
        "threads = 8",
        "harakiri = 30",
        "buffer-size = 8192",
        "max-vars = 4096",
        "log-4xx = true",
        "need-app = true",
    ):
        assert line in found
    assert not [line for line in found if line.startswith("disable-logging")]
    assert found[-6:] == ["hook-master-start = unix_signal:15 gracefully_kill_them_all", *OTHER_OPTIONS]


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


@pytest.mark.parametrize("inputs", [{}, OTHER], ids=["defaults", "other"])
def test_uwsgi_accepts_the_file_and_loads_the_app(tmp_path: Path, inputs: dict[str, object]) -> None:
    """uWSGI's strict parser knows every option, finds the app by entry.py, and runs it in the source's directory."""
    result = started(tmp_path, APP, "--no-server", **inputs)
    assert result.returncode == 0, result.stdout
    assert "WSGI app 0 (mountpoint='') ready" in result.stdout
    assert f"chdir() to {tmp_path}/etc/../app" in result.stdout
    assert (";uWSGI instance configuration" in result.stdout) == ("uwsgi_show_config" in inputs)


@pytest.mark.parametrize("option", ["max-request", "procceses"])
def test_uwsgi_refuses_an_option_that_it_does_not_know(tmp_path: Path, option: str) -> None:
    """An option that is misspelt in uwsgi_options is named, and no app is started without it."""
    result = started(tmp_path, APP, "--no-server", uwsgi_options={option: 5})
    assert result.returncode != 0
    assert f"[strict-mode] unknown config directive: {option}" in result.stdout
    assert "ready" not in result.stdout


def test_an_app_that_is_not_there_is_no_start(tmp_path: Path) -> None:
    """Without a callable uWSGI ends, which only need-app makes it do, and the reason is in what it says."""
    result = started(tmp_path, "web = print\n", f"--socket={tmp_path}/test.sock")
    assert result.returncode != 0
    assert "NoCallable: wsgi has neither a callable `application` nor `app`. Callable there: web." in result.stdout
    assert "no app loaded. GAME OVER" in result.stdout
