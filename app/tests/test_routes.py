"""What the routes answer."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient


@pytest.mark.parametrize(
    ("path", "name"),
    [("/hello", "world"), ("/hello/ada", "ada"), ("/hello/J%C3%BCrgen", "Jürgen"), ("/hello/%3Cb%3E", "<b>")],
)
def test_hello_greets(client: FlaskClient, path: str, name: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.mimetype == "application/json"
    assert answer.get_json() == {"message": "hello", "name": name}


def test_healthz_is_ok(client: FlaskClient) -> None:
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.get_json() == {"status": "ok"}


@pytest.mark.parametrize("path", ["/nothing", "/hello/a/b"])
def test_unknown_address_is_not_found(client: FlaskClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/", "/chain", "/hello", "/healthz"])
def test_answers_are_not_kept_by_caches(client: FlaskClient, path: str) -> None:
    assert client.get(path).headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("name", "mimetype"),
    [("style.css", "text/css"), ("icons.svg", "image/svg+xml"), ("favicon.svg", "image/svg+xml")],
)
def test_static_files_may_be_kept(client: FlaskClient, name: str, mimetype: str) -> None:
    with client.get(f"/static/{name}") as answer:
        assert answer.status_code == 200
        assert answer.mimetype == mimetype
        assert "no-store" not in answer.headers["Cache-Control"]
