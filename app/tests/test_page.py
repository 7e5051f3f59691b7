"""The page: live values in it, nothing from elsewhere, nothing that a visitor could slip in."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from flask.testing import FlaskClient

LINKS = ["Client", "nginx", "Socket", "uWSGI worker", "Release", "Flask"]


class Outline(HTMLParser):
    """Collects what the tests ask of a page: its elements with attributes, and the text of its headings."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self._in_heading = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in_heading = tag == "h2"

    def handle_endtag(self, tag: str) -> None:
        self._in_heading = False

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self.headings.append(data)


def test_page_shows_the_links_in_order(
    client: FlaskClient, fake_uwsgi: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_uwsgi()
    monkeypatch.setenv("SLIPWAY_RELEASE", "0123456789ab")
    page = client.get("/", environ_overrides={"SERVER_SOFTWARE": "nginx/1.26.3"}).get_data(as_text=True)
    assert Outline(page).headings == LINKS
    assert "<dd>3 of 4</dd>" in page
    assert "<dd>0123456789ab</dd>" in page
    assert "Another server than uWSGI" not in page
    assert "No release" not in page


def test_page_names_another_server(client: FlaskClient) -> None:
    page = client.get("/", environ_overrides={"SERVER_SOFTWARE": "Other/1.2"}).get_data(as_text=True)
    assert "Another server than uWSGI is serving; it calls itself Other." in page
    assert "No release: the app runs from its source directory." in page
    assert Outline(page).headings == ["Client", "Web server", "Socket", "Other", "Release", "Flask"]


@pytest.mark.parametrize("key", ["REMOTE_ADDR", "SERVER_NAME", "SERVER_SOFTWARE", "SERVER_PROTOCOL"])
@pytest.mark.parametrize("inside_uwsgi", [True, False])
def test_values_are_escaped(
    client: FlaskClient,
    fake_uwsgi: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    key: str,
    inside_uwsgi: bool,
) -> None:
    if inside_uwsgi:
        fake_uwsgi()
    monkeypatch.setenv("SLIPWAY_RELEASE", "<script>1</script>")
    page = client.get("/", environ_overrides={key: '"><script>alert(1)</script>'}).get_data(as_text=True)
    assert "<script" not in page
    assert "&lt;script&gt;1" in page
    assert "&lt;script&gt;alert(1)" in page


def test_page_needs_nothing_from_elsewhere_and_nothing_inline(client: FlaskClient) -> None:
    page = client.get("/").get_data(as_text=True)
    elements = Outline(page).elements
    assert {"script", "style"}.isdisjoint(tag for tag, _ in elements)
    for tag, attributes in elements:
        assert not [name for name in attributes if name == "style" or name.startswith("on")], tag
    targets = [value for _, attributes in elements for name, value in attributes.items() if name in ("href", "src")]
    assert targets
    assert all(target is not None and target.startswith("/") for target in targets), targets


def test_everything_the_page_links_to_is_there(client: FlaskClient) -> None:
    for tag, attributes in Outline(client.get("/").get_data(as_text=True)).elements:
        target = attributes.get("href")
        if target is None:
            continue
        path, _, fragment = target.partition("#")
        with client.get(path) as answer:
            assert answer.status_code == 200, (tag, target)
            if fragment:
                assert f'id="{fragment}"' in answer.get_data(as_text=True), target


def test_style_sheet_loads_nothing(client: FlaskClient) -> None:
    with client.get("/static/style.css") as answer:
        assert not re.search(r"@import|url\(|//", answer.get_data(as_text=True))


def test_page_has_what_readers_of_any_kind_need(client: FlaskClient) -> None:
    elements = Outline(client.get("/").get_data(as_text=True)).elements
    tags = [tag for tag, _ in elements]
    assert ("html", {"lang": "en"}) in elements
    assert tags.count("h1") == tags.count("main") == tags.count("title") == 1
    assert any(attributes.get("name") == "viewport" for _, attributes in elements)
    assert all(attributes.get("aria-hidden") == "true" for tag, attributes in elements if tag == "svg")
