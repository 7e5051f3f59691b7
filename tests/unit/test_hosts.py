"""Throw-away hosts: which ports they get, and which of them count as up. Without podman."""

from __future__ import annotations

import json
import socket

import pytest

import hosts


@pytest.fixture
def containers(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Give the list of what podman says that there is, to be filled."""
    there: list[dict[str, object]] = []
    monkeypatch.setattr(hosts, "podman", lambda *_, **__: json.dumps(there))
    return there


def test_a_port_that_somebody_listens_on_is_not_free(containers: list[dict[str, object]]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert hosts.free_port(server.getsockname()[1]) > server.getsockname()[1]
    assert containers == []


def test_a_port_of_a_dead_container_is_not_free(containers: list[dict[str, object]]) -> None:
    """Nobody listens there, but the kernel would hand its connections to a host that is gone."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert hosts.free_port(port) == port
    containers += [{"Ports": [{"host_port": port, "container_port": 80}]}, {"Ports": None}]
    assert hosts.free_port(port) > port


def test_a_host_is_reached_by_ssh_http_and_https(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts, "free_port", lambda first: first)
    assert [word for word in hosts.published(8080) if word != "--publish"] == [
        "127.0.0.1:2222:22", "127.0.0.1:8080:80", "127.0.0.1:8443:443", "127.0.0.1:8443:443/udp",
    ]  # fmt: skip


@pytest.mark.parametrize(("said", "up"), [("alive\n", True), ("", False)])
def test_a_container_without_processes_is_not_alive(monkeypatch: pytest.MonkeyPatch, said: str, up: bool) -> None:
    monkeypatch.setattr(hosts, "podman", lambda *_, **__: said)
    assert hosts.alive("one") is up
