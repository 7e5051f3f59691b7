"""Inputs on the way to hosts: what is refused changes nothing, and a proxy is what a host goes through."""

from __future__ import annotations

import itertools
import json
import urllib.parse
from collections.abc import Callable

import pytest
import yaml
from conftest import ROOT, Play, Run, Site, WebServer, live_release
from proxy import proxy
from testinfra.host import Host

pytestmark = pytest.mark.usefixtures("lesson")

# What is refused together, {inputs: what is said}: a role tells all that is wrong with its inputs at once.
# WEB is the name of the web server.
REFUSED: list[tuple[dict[str, object], list[str]]] = [
    (
        {
            "WEB_port": 99999, "WEB_server_names": ["a b;}"], "WEB_client_max_body_size": "1q",
        },
        [
            "WEB_port is 99999; accepted is a whole number from 1 to 65535.",
            "WEB_server_names[0] is 'a b;}'; accepted is a host name",
            "WEB_client_max_body_size is '1q'; accepted is a size",
        ],
    ),
    ({"app_name": "../x"}, ["It comes from app_name."]),
    ({"WEB_keepalive_timout": 2}, ["did you mean WEB_keepalive_timeout?"]),
    (
        {
            "app_server": "uwsgi", "uwsgi_processes": 0,
            "uwsgi_options": {"lazy-apps": True, "stats": "a\nvacuum = true", "env": "A=1", "cheaper": 1},
        },
        [
            "uwsgi_processes is 0; accepted is a whole number from 1 to 1024.",
            "the release would count as started before the app is imported",
            "uwsgi_options['stats'] is 'a\\nvacuum = true'",
            "uwsgi_options['cheaper'] has a key that is refused",
            "set uwsgi_cheaper",
            "uWSGI would set it after Python has read its environment",
        ],
    ),
    (
        {
            "app_server": "uwsgi", "uwsgi_processes": 2, "uwsgi_threads": 2,
            "uwsgi_cheaper": 2, "uwsgi_cheaper_initial": 3,
            "uwsgi_max_requests_delta": 5, "uwsgi_max_worker_lifetime_delta": 7, "uwsgi_cgi": True,
            "app_streams": ["/events/"], "uwsgi_options": {"cheaper-busyness-max": 70},
        },
        [
            "uwsgi_cheaper is 2 and uwsgi_processes is 2; accepted are fewer than uwsgi_processes",
            "uwsgi_cheaper is 2 and uwsgi_threads is 2; accepted is that with 1 thread",
            "uwsgi_cheaper_initial is 3; accepted is a number from uwsgi_cheaper (2) to uwsgi_processes (2).",
            "uwsgi_options has cheaper-busyness-max, and uwsgi_cheaper_algo is spare; accepted is that with busyness.",
            "uwsgi_max_requests_delta is 5 and uwsgi_max_requests is 0;",
            "uwsgi_max_worker_lifetime_delta is 7 and uwsgi_max_worker_lifetime is 0;",
            "uwsgi_cgi is true and uwsgi_streams is ['/events/']; accepted is one of them",
        ],
    ),
    (
        {"app_server": "uwsgi", "uwsgi_cheaper_algo": "busyness"},
        ["uwsgi_cheaper is 0, and uwsgi_cheaper_initial, uwsgi_cheaper_step or uwsgi_cheaper_algo is set"],
    ),
    (
        {"app_server": "gunicorn", "app_streams": ["/events/"]},
        ["gunicorn_streams is ['/events/'] and gunicorn_threads is 1; accepted is that with 2 threads or more"],
    ),
    ({"release_module": "a", "release_wsgi_file": "routes.py"}, ["Accepted: one of them, or none."]),
    ({"release_source": "app"}, ["release_source is app: a directory has to be given by its absolute path."]),
    ({"release_requirements": ["missing.txt"]}, ["missing.txt is not there, but the release needs it."]),
    ({"app_static": {"/static/": "statik"}}, ["statik is not there, but the release needs it."]),
]  # fmt: skip


def test_bad_input_is_refused_before_anything_changes(
    web: WebServer, hosts: dict[str, Host], play: Callable[..., Play]
) -> None:
    """The message names the variable, its value and what is accepted; no task has changed anything."""
    refused = json.loads(json.dumps(REFUSED).replace("WEB", web.name))
    # In turns: it takes no second host to see what is said.
    names = list(itertools.islice(itertools.cycle(hosts), len(refused)))
    plays = [play("site.yml", "--limit", name, **inputs) for name, (inputs, _) in zip(names, refused, strict=True)]
    for name, (_, said), run in zip(names, refused, [one.wait() for one in plays], strict=True):
        assert run.code != 0
        assert [one for one in said if one not in run.words] == [], run.output
        assert run.changed == {name: 0}


# The hosts are changed from here on, and the lesson's app is deployed again by a test at the end.


def test_a_host_goes_through_the_proxy(
    hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run]
) -> None:
    """Both apt and uv fetch what they need through the proxy that the inventory names."""
    name, host = next(iter(hosts.items()))
    gateway = host.check_output("ip -4 route show default").split()[2]
    with proxy(gateway) as server:
        inputs = {
            "proxy_url": f"http://{gateway}:{server.server_address[1]}",
            "release_source": f"{ROOT}/tests/apps/bottle",
            "release_health_path": "/hello",
            "app_static": {},
        }
        run = playbook("site.yml", "--limit", name, **inputs)
    assert run.code == 0, run.output
    machine = yaml.safe_load((ROOT / ".slipway" / "machine.yml").read_text())
    package_sources = {urllib.parse.urlsplit(source["uri"]).hostname for source in machine["host_apt_sources"]}
    assert server.asked & package_sources, "apt"
    assert server.asked - package_sources, "uv"
    assert sites[name].get("/hello").json()["name"].startswith("bottle")


def occupy(host: Host, port: int) -> None:
    """Have another program listen on a port, as unit `occupier`."""
    host.check_output(f"systemd-run --quiet --unit=occupier /usr/bin/python3 -m http.server {port}")


def test_a_port_that_the_web_server_does_not_get_is_seen(
    web: WebServer, hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run]
) -> None:
    """The play ends red and says who has it, each time, and the web server serves on as before."""
    name, host = next(iter(hosts.items()))
    occupy(host, 81)
    before = host.check_output(web.digests)
    try:
        for _ in range(2):
            run = playbook("site.yml", "--limit", name, web_port=81)
            assert run.code != 0
            assert 'Port 81 is taken: users:(("python3",' in run.words
            assert host.check_output(web.digests) == before, "it was taken back"
            assert sites[name].get("/hello").status == 200
    finally:
        host.check_output("systemctl stop occupier")


def test_a_web_server_that_cannot_start_is_seen(
    web: WebServer, hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run], lesson: dict[str, str]
) -> None:
    """With its port taken, the play ends red and says by whom; with the port free, all is well again."""
    name, host = next(iter(hosts.items()))
    host.check_output(f"systemctl stop {web.unit}")
    occupy(host, 80)
    try:
        sites[name].until("/", lambda answer: "python" in answer.headers.get("server", "").lower())
        run = playbook("site.yml", "--limit", name)
    finally:
        host.check_output("systemctl stop occupier")
    assert run.code != 0
    assert 'Port 80 is taken: users:(("python3",' in run.words
    assert playbook("site.yml", "--limit", name).code == 0
    assert live_release(host) == lesson[name], "whatever was deployed before"
    assert sites[name].get("/hello").json()["name"] == "world"


def test_a_second_app_does_not_take_what_is_the_first_ones(
    web: WebServer, hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run]
) -> None:
    """Neither its link nor its port: both plays end red, say so, and the first app is served on."""
    name, host = next(iter(hosts.items()))
    second = {"app_name": "second", "web_server_names": ["second.example.org"]}
    link = "/run/uwsgi.sock belongs to another app (/srv/hello/live/uwsgi.sock)."
    for inputs, said in (
        # Apache would serve both by their names.
        (second, web.either("a duplicate default server for 0.0.0.0:80", link)),
        ({**second, f"{web.name}_port": 8080}, link),
    ):
        run = playbook("site.yml", "--limit", name, **inputs)
        assert run.code != 0
        assert said in " ".join(run.output.split())
        host.check_output(f"{web.test} && systemctl reload {web.unit}")
        assert sites[name].get("/hello").status == 200
    host.check_output(f"rm -r {web.either('/etc/nginx/conf.d/second.conf', '/etc/apache2/slipway/second')}")
    host.check_output(f"systemctl reload {web.unit}")
