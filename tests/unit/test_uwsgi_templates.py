"""What the uwsgi role hands to a release: by its defaults, by other inputs, judged by uWSGI itself."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ansible.errors import AnsibleError
from ansible.template import trust_as_template
from rendering import ROLES, is_managed, lines, render, section

TEMPLATES = ["cgi_script.py.j2", "uwsgi.ini.j2"]
OTHER: dict[str, object] = {
    "uwsgi_processes": 2,
    "uwsgi_threads": 8,
    "uwsgi_harakiri": 30,
    "uwsgi_streams": ["/events/", "/a.b/c/"],
    "uwsgi_cheaper": "1",
    "uwsgi_cheaper_algo": "busyness",
    "uwsgi_max_requests": 1000,
    "uwsgi_max_worker_lifetime": "600",
    "uwsgi_max_worker_lifetime_delta": 7,
    "uwsgi_reload_on_rss": 256,
    "uwsgi_buffer_size": 8192,
    "uwsgi_show_config": True,
    "uwsgi_log_requests": True,
    "uwsgi_options": {
        "cheaper-busyness-max": 70,
        "env": ["COLOUR=blue", "TITLE=a b; # c"],
        "thunder-lock": True,
        "log-zero": False,
    },
}
OTHER_OPTIONS = [
    "cheaper-busyness-max = 70",
    "env = COLOUR=blue",
    "env = TITLE=a b; # c",
    "log-zero = false",
    "thunder-lock = true",
]
APP = "def application(environ, start_response):\n    return []\n"
UWSGI = Path(sys.executable).with_name("uwsgi")  # pyuwsgi brings it, see pyproject.toml


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


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("inputs", [{}, OTHER], ids=["defaults", "other"])
def test_the_file_says_who_manages_it(template: str, inputs: dict[str, object]) -> None:
    """It opens with the managed header and holds no template syntax."""
    assert sorted(path.name for path in (ROLES / "uwsgi" / "templates").iterdir()) == sorted(TEMPLATES)
    text = render("uwsgi", template, **inputs)
    assert is_managed(text)
    assert text.endswith("\n")


def test_an_undefined_variable_is_an_error() -> None:
    """Nothing is rendered as an empty word."""
    with pytest.raises(AnsibleError, match="no_such_variable"):
        render("uwsgi", "uwsgi.ini.j2", uwsgi_harakiri=trust_as_template("{{ no_such_variable }}"))


def test_the_shared_names_reach_the_role() -> None:
    """What the inventory says for any server is what this role takes by default, text of the command line too."""
    text = lines(render("uwsgi", "uwsgi.ini.j2", app_timeout="20", app_workers="7", app_threads="2"))
    assert {"harakiri = 20", "processes = 7", "threads = 2"} <= set(text)


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
        "worker-reload-mercy = 70",
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
        "buffer-size = 8192",
        "max-vars = 4096",
        "log-4xx = true",
        "need-app = true",
    ):
        assert line in found
    for before, *after in (
        ("no-orphans = true", "cheaper = 1", "cheaper-initial = 1", "cheaper-step = 1", "cheaper-algo = busyness"),
        ("cheaper-algo = busyness", "max-requests = 1000", "max-requests-delta = 100"),
        ("max-requests-delta = 100", "max-worker-lifetime = 600", "max-worker-lifetime-delta = 7"),
        ("max-worker-lifetime-delta = 7", "reload-on-rss = 256", "worker-reload-mercy = 40"),
    ):
        at = found.index(before) + 1
        assert found[at : at + len(after)] == after
    routes = ["/events/", "/a.b/c/"]
    assert [line for line in found if line.startswith("route-")] == [
        *(f"route-if = startswith:${{PATH_INFO}};{prefix} last:" for prefix in routes),
        "route-run = harakiri:30",
    ]
    assert not [line for line in found if line.startswith(("disable-logging", "harakiri"))]
    assert found[-6:] == ["hook-master-start = unix_signal:15 gracefully_kill_them_all", *OTHER_OPTIONS]


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


def test_uwsgi_would_take_options_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be added to those of its file: that is why `release_environment` refuses them."""
    monkeypatch.setenv("UWSGI_NO_SUCH_OPTION", "1")
    result = started(tmp_path, APP, "--no-server")
    assert result.returncode != 0
    assert "[strict-mode] unknown config directive: no-such-option" in result.stdout


def test_an_app_that_is_not_there_is_no_start(tmp_path: Path) -> None:
    """Without a callable uWSGI ends, which only need-app makes it do, and the reason is in what it says."""
    result = started(tmp_path, "web = print\n", f"--socket={tmp_path}/test.sock")
    assert result.returncode != 0
    assert "NoCallable: wsgi has neither a callable `application` nor `app`. Callable there: web." in result.stdout
    assert "no app loaded. GAME OVER" in result.stdout
