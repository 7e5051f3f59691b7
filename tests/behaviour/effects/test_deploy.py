"""Other apps than the lesson's, by one changed line of the inventory each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import ROOT, Run, Site
from testinfra.host import Host

HOSTS = pytest.mark.parametrize("name", ["debian12", "debian13"])


@pytest.fixture(scope="module")
def callable_deployed(lesson: dict[str, str], playbook: Callable[..., Run]) -> None:
    """Deploy the callable without a framework, by one changed line."""
    assert lesson, "the lesson's app was live before"
    run = playbook("playbooks/deploy.yml", "-e", f"release_source={ROOT}/tests/apps/callable")
    assert run.code == 0, run.output


BODY = b"x" * 100_000


@HOSTS
@pytest.mark.usefixtures("callable_deployed")
@pytest.mark.parametrize(
    ("method", "body", "headers", "read"),
    [
        ("GET", None, {}, 0),
        ("HEAD", None, {}, 0),
        ("OPTIONS", None, {}, 0),
        ("POST", BODY, {"Content-Type": "text/plain"}, len(BODY)),
        ("POST", b"", {"Content-Type": "text/plain"}, 0),
        ("POST", iter([BODY, BODY]), {"Content-Type": "text/plain"}, 2 * len(BODY)),
        ("GET", None, {"X-Forwarded-Proto": "javascript", "Proxy": "http://example.org", "X_Odd": "1"}, 0),
    ],
    ids=["get", "head", "options", "post", "empty post", "chunked post", "hostile headers"],
)
def test_the_chain_keeps_pep_3333(
    sites: dict[str, Site], name: str, method: str, body: object, headers: dict[str, str], read: int
) -> None:
    """wsgiref.validate finds nothing in what the chain hands over, and the app sees what the visitor sent."""
    body = [BODY, BODY] if read > len(BODY) else body
    answer = sites[name].get("/a%20b?c=d", method, body, headers)
    assert answer.status == 200
    if method != "HEAD":
        assert answer.json() == {"method": method, "path": "/a b", "query": "c=d", "scheme": "http", "read": read}


@pytest.fixture(scope="module")
def httpbin_deployed(playbook: Callable[..., Run]) -> None:
    """Deploy an app of the Python index by the inventory lines of its example."""
    run = playbook("playbooks/deploy.yml", "-e", f"@{ROOT}/examples/httpbin/slipway.yml")
    assert run.code == 0, run.output


@HOSTS
@pytest.mark.usefixtures("httpbin_deployed")
def test_an_app_of_the_python_index_is_served(sites: dict[str, Site], name: str) -> None:
    """Only its requirements and its module were named."""
    answer = sites[name].get("/anything/x", "POST", b"hello", {"Content-Type": "text/plain"})
    assert answer.json()["data"] == "hello"
    assert answer.json()["url"] == "http://localhost/anything/x"


def test_the_lesson_is_served_again(
    hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run]
) -> None:
    """The first release is still whole: going back to it builds nothing."""
    run = playbook("playbooks/deploy.yml")
    assert run.code == 0, run.output
    assert run.changed == dict.fromkeys(hosts, 3), "it was started, went live, and the one before was stopped: no more"
    for name in hosts:
        assert sites[name].get("/hello").json() == {"message": "hello", "name": "world"}
