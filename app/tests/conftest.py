"""Fixtures: the app, a client for it, and a stand-in for the module that exists only inside uWSGI."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

import routes


@pytest.fixture
def app() -> Flask:
    """Return the app, in testing mode: an exception in a view is the test's."""
    routes.app.config.update(TESTING=True)
    return routes.app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """Return a client that asks the app without any server."""
    return app.test_client()


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what the machine the tests run on could put into the app's environment."""
    for name in ("SLIPWAY_APP", "SLIPWAY_RELEASE", "SLIPWAY_LINK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake_uwsgi(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes `import uwsgi` succeed, as inside a worker.

    Its keyword arguments replace single values of the module.
    """

    def install(**values: Any) -> None:
        module = ModuleType("uwsgi")
        given = {"version": b"2.0.30", "numproc": 4, "worker_id": lambda: 3, "sockets": []} | values
        for name, value in given.items():
            setattr(module, name, value)
        monkeypatch.setitem(sys.modules, "uwsgi", module)

    return install
