"""The apps in examples/, each deployed by the inventory lines beside it, and asked for what only it answers.

Static files are below /static/ in the scenario's inventory as well, so that a deploy is enough.
"""

from __future__ import annotations

import http.cookies
import re
import secrets
import urllib.parse
from collections.abc import Callable

import pytest
from conftest import ROOT, Run, Site
from testinfra.host import Host

# What an inventory would take from Ansible Vault.
VAULT = {"vault_secret_key": secrets.token_urlsafe(50)}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}

Deploy = Callable[..., list[Site]]


@pytest.fixture
def deploy(lesson: dict[str, str], playbook: Callable[..., Run], sites: dict[str, Site]) -> Deploy:
    """Deploy an example, to all hosts or to the one that is named, and return the sites that serve it."""
    assert lesson, "the lesson's app was live before"

    def run(name: str, host: str = "all") -> list[Site]:
        # Before the example's lines, Slipway's default, which not each inventory of the tests has.
        lines = ["-e", '{"release_requirements": ["requirements.txt"]}', "-e", f"@{ROOT}/examples/{name}/slipway.yml"]
        # As many as there are examples, and the lesson's.
        done = playbook("playbooks/deploy.yml", "--limit", host, *lines, release_keep=10, **VAULT)
        assert done.code == 0, done.output
        return [site for one, site in sites.items() if host in ("all", one)]

    return run


def test_a_bare_callable(deploy: Deploy) -> None:
    """No framework, nothing installed, no name said."""
    for site in deploy("callable"):
        assert site.get("/you").body == b"hello, you, from http://localhost/\n"


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("module", {"goods": ["apples", "pears"]}),
        ("factory", {"title": "Notes", "signed": True}),
        ("wsgi-file", {"book": "visitors", "entries": []}),
    ],
)
def test_flask(deploy: Deploy, name: str, answer: object) -> None:
    """A module's callable with a name of its own; a factory with settings and a secret; a file that is no module."""
    for site in deploy(name):
        assert site.get("/").json() == answer


def test_a_package_of_the_python_index(deploy: Deploy) -> None:
    """Only its requirements and its module were named."""
    for site in deploy("httpbin"):
        answer = site.get("/anything/x", "POST", b"hello", {"Content-Type": "text/plain"})
        assert answer.json()["data"] == "hello"
        assert answer.json()["url"] == "http://localhost/anything/x"


@pytest.mark.parametrize("host", ["debian12", "debian13"])
def test_django(deploy: Deploy, host: str) -> None:
    """Static files are collected, nginx serves them, the database is migrated, the secret signs, the name counts.

    Of the entries only this test's own is looked for: the database outlives releases. It is a file of one host, and a
    migration is run on one host for all: so each is deployed to by itself.
    """
    name, text = "guestbook.example.org", f"<written {secrets.token_hex(8)}>"
    for site in deploy("django", host):
        page = site.get("/", name=name)
        style = re.search(r'href="(/static/guestbook/style\.[0-9a-f]{12}\.css)"', page.body.decode())
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page.body.decode())
        assert style
        assert token

        # Django itself serves no static files unless it is debugged.
        answer = site.get(style[1], name=name)
        assert b"font-family" in answer.body
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"

        cookie = http.cookies.SimpleCookie(page.headers["set-cookie"])["csrftoken"]
        form = urllib.parse.urlencode({"text": text, "csrfmiddlewaretoken": token[1]})
        assert site.get("/", "POST", form, FORM, name=name).status == 403, "without the cookie"
        written = site.get("/", "POST", form, FORM | {"Cookie": f"csrftoken={cookie.value}"}, name=name)
        assert (written.status, written.headers["location"]) == (302, "/")
        assert text.replace("<", "&lt;").replace(">", "&gt;") in site.get("/", name=name).body.decode()

        assert site.get("/", name="other.example.org").status == 400, "ALLOWED_HOSTS"


def test_the_lesson_is_served_again(
    hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run]
) -> None:
    """The first release is still whole: going back to it builds nothing."""
    run = playbook("playbooks/deploy.yml")
    assert run.code == 0, run.output
    assert run.changed == dict.fromkeys(hosts, 3), "it was started, went live, and the one before was stopped: no more"
    for site in sites.values():
        assert site.get("/hello").json() == {"message": "hello", "name": "world"}
