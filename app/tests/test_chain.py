"""The values of the chain, as JSON: without uWSGI, and with what only uWSGI gives."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flask.testing import FlaskClient

APP_DIRECTORY = str(Path(__file__).resolve().parent.parent)

# What a web server hands over with each request.
FROM_NGINX = {
    "REMOTE_ADDR": "192.0.2.7",
    "REMOTE_PORT": "50123",
    "SERVER_PROTOCOL": "HTTP/2.0",
    "SERVER_SOFTWARE": "nginx/1.26.3",
    "SERVER_NAME": "www.example.org",
    "SERVER_PORT": "443",
    "wsgi.url_scheme": "https",
}


def test_links_are_there_in_name(client: FlaskClient) -> None:
    chain = client.get("/chain").get_json()
    assert set(chain) == {"client", "web_server", "socket", "app_server", "release", "framework"}


def test_client_and_web_server_are_what_was_handed_over(client: FlaskClient, fake_uwsgi: Callable[..., None]) -> None:
    fake_uwsgi()
    chain = client.get("/chain", environ_overrides=FROM_NGINX).get_json()
    assert chain["client"] == {"address": "192.0.2.7", "port": 50123, "protocol": "HTTP/2.0"}
    assert chain["web_server"] == {
        "software": "nginx/1.26.3",
        "name": "www.example.org",
        "port": 443,
        "scheme": "https",
    }


@pytest.mark.parametrize("port", ["", "http", "²"])
def test_a_port_that_is_no_number_is_not_told(client: FlaskClient, port: str) -> None:
    chain = client.get("/chain", environ_overrides={"REMOTE_PORT": port}).get_json()
    assert chain["client"]["port"] is None


def test_uwsgi_tells_its_workers(client: FlaskClient, fake_uwsgi: Callable[..., None]) -> None:
    fake_uwsgi()
    assert client.get("/chain").get_json()["app_server"] == {
        "name": "uWSGI",
        "version": "2.0.30",
        "worker": 3,
        "workers": 4,
        "pid": os.getpid(),
    }


def test_another_server_is_named_by_its_own_word(client: FlaskClient) -> None:
    chain = client.get("/chain", environ_overrides={"SERVER_SOFTWARE": "Other/1.2"}).get_json()
    assert chain["app_server"] == {
        "name": "Other",
        "version": "1.2",
        "worker": None,
        "workers": None,
        "pid": os.getpid(),
    }
    assert chain["web_server"]["software"] is None


def test_a_server_without_a_name_is_unknown(client: FlaskClient) -> None:
    chain = client.get("/chain", environ_overrides={"SERVER_SOFTWARE": ""}).get_json()
    assert (chain["app_server"]["name"], chain["app_server"]["version"]) == ("unknown", None)


def test_socket_is_the_one_the_worker_listens_on(
    client: FlaskClient, fake_uwsgi: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLIPWAY_LINK", "/run/uwsgi.sock")
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        fake_uwsgi(sockets=[listening.fileno()])
        for _ in range(2):
            assert client.get("/chain").get_json()["socket"] == {"link": "/run/uwsgi.sock", "path": path}
        assert listening.getsockname() == path, "the worker's own socket must stay open"


def test_tcp_and_abstract_sockets_are_told_too(client: FlaskClient, fake_uwsgi: Callable[..., None]) -> None:
    abstract = f"slipway-test-{os.getpid()}"
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        tcp.bind(("127.0.0.1", 0))
        unix.bind(f"\0{abstract}")
        fake_uwsgi(sockets=[tcp.fileno(), unix.fileno()])
        port = tcp.getsockname()[1]
        assert client.get("/chain").get_json()["socket"]["path"] == f"127.0.0.1:{port}, @{abstract}"


def test_a_descriptor_that_is_no_socket_is_passed_over(client: FlaskClient, fake_uwsgi: Callable[..., None]) -> None:
    with Path(os.devnull).open("rb") as nothing:
        fake_uwsgi(sockets=[nothing.fileno()])
        before = set(os.listdir("/proc/self/fd"))
        assert client.get("/chain").get_json()["socket"]["path"] is None
        assert set(os.listdir("/proc/self/fd")) == before, "the duplicate must be closed"


def test_without_a_server_nothing_is_known_of_a_socket(client: FlaskClient) -> None:
    assert client.get("/chain").get_json()["socket"] == {"link": None, "path": None}


def test_release_is_what_the_environment_says(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLIPWAY_APP", "shop")
    monkeypatch.setenv("SLIPWAY_RELEASE", "0123456789ab")
    expected = {"app": "shop", "name": "0123456789ab", "directory": APP_DIRECTORY}
    assert client.get("/chain").get_json()["release"] == expected


@pytest.mark.parametrize("value", [None, ""])
def test_without_a_release_it_is_development(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv("SLIPWAY_APP", value)
        monkeypatch.setenv("SLIPWAY_RELEASE", value)
    expected = {"app": "development", "name": "development", "directory": APP_DIRECTORY}
    assert client.get("/chain").get_json()["release"] == expected


def test_framework_is_this_python(client: FlaskClient) -> None:
    framework = client.get("/chain").get_json()["framework"]
    assert framework["name"] == "Flask"
    assert framework["version"].startswith("3.1.")
    assert framework["prefix"] == sys.prefix
    assert framework["python"] == platform.python_version()
    assert framework["endpoint"] == "chain"
    assert 0 <= framework["milliseconds"] < 10_000
