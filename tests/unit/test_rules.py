"""The vocabulary of rules: what each word and each format accepts, refuses and says."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.slipway.wsgi.plugins.module_utils import rules

GOOD: dict[str, list[Any]] = {
    "name": ["app", "a", "my-app", "app2", "a" * 31],
    "user": ["www-data", "_apt", "app", "app_1", "root"],
    "path": ["/srv/app", "/srv", "/run/uwsgi.sock", "/srv/.well-known", "/a@b+c-d_e", "/srv/a..b"],
    "relative_path": ["static", "app/static", ".config/x", "a.b/c"],
    "hostname": [
        "example.org",
        "*.example.org",
        "localhost",
        "a-b.example.org",
        "127.0.0.1",
        "::1",
        "2001:db8::1",
        "xn--bcher-kva.example",
    ],
    "destination": ["example.org", ".example.org", "10.0.0.1", "10.0.0.0/8", "2001:db8::/32"],
    "url_prefix": ["/static/", "/a/b.c/", "/.well-known/"],
    "mode": ["0660", "0777", "0000"],
    "module": ["wsgi", "package.module", "wsgi:app", "a.b:create_app()"],
    "one_line": ["text", '{"a": "$b"};', "ü", 5, 0.5, True, "50%"],
    "size": ["10m", "0", "1G", "512k", "1048576", 1048576, 0],
    "url": [
        "http://proxy:3128",
        "https://user:p%40ss@example.org/simple/",
        "http://[::1]:8080/",
        "https://example.org/?a=b&c=d",
    ],
    "network": ["192.0.2.7", "10.0.0.0/8", "0.0.0.0/0", "2001:db8::/32", "::1"],
    "port": [80, "80", "53/udp", "443/tcp", "8000-8010", "8000-8010/udp", "1-65535"],
    "time": ["04:30", "00:00", "23:59"],
    "option": ["buffer-size", "py-autoreload", "2fa"],
    "identifier": ["app", "_x", "SECRET_KEY", "a1"],
    "url_path": ["/", "/healthz", "/a/b?c=d&e=%20"],
    "git_ref": ["main", "v1.0", "feature/x", "0f3c2d1", "refs/heads/main"],
    "checksum": ["sha256:" + "0a" * 32],
    "release": ["0123456789ab"],
    "variable": ["DATABASE_URL", "_x", "a1"],
    "environment": ["DATABASE_URL", "_x", "a1", "MY_UWSGI_X", "WEB_CONCURRENCY"],
    "value": ["a\nb", "$x", 5, 0.5, True],
    "memory": ["512M", "2G", "50%", "100%", "infinity"],
    "percent": ["1%", "150%", "6400%"],
    "device": ["/dev/ttyUSB0", "/dev/snd/pcmC0D0p"],
    "system_call": ["@chown", "@raw-io", "ptrace", "sched_setaffinity"],
    "email": ["you@example.org", "you+slipway@mail.example.org"],
    "address": ["192.0.2.1:53", "[2001:db8::1]:53", "dns.example.org:5353"],
    "token": ["-_kid.1", "a~b+/c=="],
    "secret": ["12345678", 'with "quotes" and\nlines'],
    "header": ["X-Frame-Options", "Server", "X1"],
    "header_value": ["nosniff", "default-src 'self'; img-src *", 'a "b" \\', "geolocation=()", 0],
    "login": ["you", "you@example.org", "a.b-c_d+e"],
    "password_hash": ["$6$salt$abcdefgh./", "$apr1$x$abcdefgh", "$2y$10$abcdefgh", "$y$j9T$abcdefgh"],
    "redirect_from": ["/", "/old", "/a/b.html", "www.example.org"],
    "redirect_to": ["/", "/new", "/a%20b", "https://example.org", "https://example.org:8443/a"],
    "text": ["location = /a { return 204; }", "a\n\tb;\n"],
}
BREAKS = [
    "",
    " ",
    "a b",
    "a;",
    "a}",
    "a{",
    'a"',
    "a'",
    "a\\",
    "a\n",
    "\na",
    "a\r",
    "a\x00",
    "a\u2028b",
    "a$b",
    "a`b`",
    "a#b",
    "$(a)",
    "%n",
    "[a]",
]
"""What nginx, systemd, ini files or a shell give a meaning: only QUOTED accept it around a good value."""
QUOTED = {"one_line", "header_value", "value", "secret", "text", "password_hash"}
"""What is quoted where it is written, or goes into a file of its own."""
BAD: dict[str, list[Any]] = {
    "header": ["", "X Frame", "X_Frame", "X:", "1X", "X\n", "é"],
    "header_value": ["", "a\nb", "a\r", "$host", "é", " ", "a ", "a\x00"],
    "login": ["", "a:b", "a b", "a\n", "ä"],
    "password_hash": ["password", "{PLAIN}password", "$1$salt$abcdefgh", "$6$a$b c", "$6$salt$abcdefgh\nroot:x", ""],
    "redirect_from": ["", "*.example.org", "/a b", "/a;", "/../a", "/a/", "https://a/", "/a?b", "a_b"],
    "redirect_to": ["", "new", "/a b", "/a?b=c", "https://a/?b", "ftp://a", "/$uri", "//a;", "javascript:x"],
    "text": ["a\x00", "a\x1b[0m", "a\r\n", 5, None, "\u202e"],
    "url_path": ["healthz", "", "/a b", "/a;b", "/%zz", "http://a/", "/a#b"],
    "git_ref": ["-a", "a..b", "a b", "a:b", "a~1", "a^{}", "@{u}", ""],
    "checksum": ["sha256:" + "0" * 63, "0" * 64, "md5:" + "0" * 32, "sha256:" + "G" * 64],
    "release": ["0" * 11, "0" * 13, "A" * 12, "../../etc/pas"],
    "variable": ["1A", "A-B", "A B", "", "A=B"],
    "environment": ["1A", "A=B", "SLIPWAY_APP", "UWSGI_LAZY_APPS", "GUNICORN_CMD_ARGS", "LISTEN_FDS", "NOTIFY_SOCKET"],
    "value": ["a\0b", ["a"], float("nan")],
    "memory": ["512", "512m", "0G", "-1M", "1.5G", "0%", "101%", "50 %", "1G\n", 512, "max"],
    "percent": ["150", "0%", "-1%", "1.5%", 150],
    "device": ["/etc/passwd", "/dev", "/dev/../etc/passwd", "/dev/a b", "dev/tty", "/devices/a"],
    "system_call": ["~@privileged", "@", "a b", "A", "read:EPERM", ""],
    "email": ["you", "@example.org", "you@localhost", "a@b@a.org", "a b@example.org", "-a@a.org", "a@192.0.2.1"],
    "address": ["192.0.2.1", ":53", "192.0.2.1:0", "192.0.2.1:65536", "2001:db8::1:53", "[192.0.2.1]:53", "*.a.org:53"],
    "token": ["a b", "a;b", "a$b", "ä", 5],
    "secret": ["1234567", "", 12345678, "a\0bcdefgh"],
    "name": ["../x", "App", "1app", "-app", "a_b", "a" * 32, "a.b", "é", None, 5, True, ["app"]],
    "user": ["1a", "-a", "A", "a" * 32, "a$", 1000],
    "path": ["srv/app", "/", "/srv/", "/srv//app", "/srv/../etc", "/srv/..", "/srv/./app", "~/app", "//"],
    "relative_path": ["/static", "../etc", "a/../../etc", "a/..", "..", ".", "./a", "a/", "a//b", "-rf", "~"],
    "hostname": [
        "a b;}",
        "*",
        "*example.org",
        "a.*.org",
        "*.*.org",
        "-a.org",
        "a-.org",
        "a..b",
        ".org",
        "org.",
        "_a.org",
        "ä.org",
        "1.2.3",
        "1.2.3.400",
        "1.2.3.4/8",
        "fe80::1%a;}",
        "fe80::1%eth0",
        "[::1]",
        ":::",
        "a:80",
        "a" * 64,
        ".".join(["a" * 60] * 5),
        127.0,
        5,
    ],
    "destination": ["", ".", "..org", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.0/", "a b", "a;b", "a\n", ".a,b"],
    "url_prefix": [
        "/",
        "//",
        "static/",
        "/static",
        "/a//b/",
        "/../",
        "/a/../",
        "/./",
        "/a b/",
        "/%2e%2e/",
        "/~a/",
    ],
    "mode": ["660", "0888", "00660", "1777", "u=rw", 432, 0o660, 660],
    "module": [
        "a.",
        ".a",
        "a-b",
        "a:b:c",
        "a:b(x)",
        "a()",
        "import",
        "a.class",
        "a:def",
        "a.py/b",
        "../a",
        "1a",
        "ä",
    ],
    "size": ["1q", "m", "1.5m", "-1", "1 m", "1mb", "10M ", -1, 1.5, True, "٣m"],
    "url": [
        "ftp://a",
        "//a",
        "http://",
        "http:///x",
        "http://a b",
        "http://a:99999",
        "http://a:0",
        "http://a:x",
        "http://[::1",
        "http://a%zz",
        "javascript://a",
        "http://*.a",
        "HTTP://a",
    ],
    "network": [
        *("10.0.0.1/8", "10.0.0.0/33", "example.org", "10", "fe80::1%eth0", "1.2.3", "10.0.0.0/", "1.2.3.4 }"),
        *("10.0.0.1 any", ".", "", 7, None),
    ],
    "port": [0, 65536, "99999", "80-79", "80/sctp", "http", "80,81", "80/udp/tcp", "-1", "80-", "٣", True, 80.0],
    "time": ["4:30", "24:00", "12:60", 750, "now", "04:30;", "+5"],
    "option": ["-a", "--ini", "A", "a_b", "a=b"],
    "identifier": ["1a", "a-b", "a.b", "ä", "٣"],
    "one_line": [
        "",
        " ",
        "a\nb",
        "a\n",
        "\t",
        "a\rb",
        "a\x00",
        "a\x1b[0m",
        "a\u2028b",
        "a\u202eb",
        "\ud800",
        "a\\",
        float("nan"),
        float("inf"),
        None,
    ],
}


@pytest.mark.parametrize(("form", "value"), [(form, value) for form, values in GOOD.items() for value in values])
def test_format_accepts(form: str, value: Any) -> None:
    assert rules.check("x", value, {"format": form}) == []


@pytest.mark.parametrize(("form", "value"), [(form, value) for form, values in BAD.items() for value in values])
def test_format_refuses(form: str, value: Any) -> None:
    (fault,) = rules.check("x", value, {"format": form})
    assert fault.variable == "x"
    assert rules.FORMATS[form].words in fault.accepted


def test_every_format_has_good_and_bad_values() -> None:
    assert set(rules.FORMATS) == set(GOOD) == set(BAD)


@pytest.mark.parametrize("form", sorted(set(GOOD) - QUOTED))
def test_nothing_that_has_a_meaning_elsewhere_passes(form: str) -> None:
    texts = [str(value) for value in GOOD[form]]
    broken = [text + end for text in texts for end in BREAKS if end] + [
        start + text for text in texts for start in BREAKS if start
    ]
    passed = [text for text in broken if not rules.check("x", text, {"format": form})]
    assert passed == []


@pytest.mark.parametrize(
    "name",
    [
        "root",
        "nginx",
        "www-data",
        "getty",
        "user",
        "systemd",
        "systemd-journald",
        "ssh",
        "sshd",
        "nobody",
        "daemon",
    ],
)
def test_a_name_of_the_system_is_refused_with_the_reason(name: str) -> None:
    (fault,) = rules.check("app_name", name, {"format": "name"})
    assert fault.value == repr(name)
    assert fault.reason.startswith(f"The reason: {name} is ")


@pytest.mark.parametrize(
    "value",
    [
        0,
        65536,
        "0",
        "80 ",
        "80\n",
        "8_0",
        "٣",
        "1e3",
        80.5,
        80.0,
        "80.0",
        True,
        float("nan"),
        float("inf"),
        [80],
        {},
    ],
)
def test_a_number_out_of_range_or_no_number_is_refused(value: Any) -> None:
    (fault,) = rules.judge("port", value, {"type": "int"}, {"min": 1, "max": 65535})
    assert fault.accepted == "a whole number from 1 to 65535"


@pytest.mark.parametrize("value", [1, 65535, "8080"])
def test_a_number_in_range_passes(value: Any) -> None:
    assert rules.judge("port", value, {"type": "int"}, {"min": 1, "max": 65535}) == []


def test_a_word_may_stand_beside_a_range() -> None:
    rule = {"min": 1, "max": 64, "also": ["auto"]}
    option = {"type": "str"}
    assert rules.judge("workers", "auto", option, rule) == rules.judge("workers", 4, option, rule) == []
    (fault,) = rules.judge("workers", "auto;", option, rule)
    assert str(fault) == "workers is 'auto;'; accepted is a whole number from 1 to 64, or auto."


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("str", ["a", 5], [1.10, True, [], {}]),
        ("path", ["/a"], [False, 0.5]),
        ("bool", [True, False], ["false", "yes", 1]),
        ("int", [1, "1", -1], [True, 1.0, "x", "1\n"]),
        ("float", [0.5, "0.5", 1], ["nan", float("inf"), False]),
        ("list", [["a"], []], ["a,b", 1, {}]),
        ("dict", [{}, {"a": 1}], ["a=b", [], 1]),
        ("raw", [object(), None], []),
    ],
)
def test_types(kind: str, good: list[Any], bad: list[Any]) -> None:
    assert [value for value in good if rules.typed("x", value, {"type": kind})] == []
    assert [value for value in bad if not rules.typed("x", value, {"type": kind})] == []


def test_empty_values() -> None:
    empties: list[Any] = ["", None, []]
    for empty in empties:
        assert rules.check("x", empty, {"each": {"format": "path"}, "format": "path", "optional": True}) == []
        (fault,) = rules.check("x", empty, {"format": "path"})
        assert fault.value == "empty"
    assert rules.judge("x", None, {"type": "str"}, {}) == []
    assert [fault.value for fault in rules.judge("x", None, {"type": "str", "default": "a"}, {})] == ["empty (null)"]


def test_places_inside_of_lists_and_dictionaries() -> None:
    rule = {"keys": {"format": "url_prefix"}, "values": {"format": "relative_path"}}
    assert [fault.variable for fault in rules.check("s", {"/a": "x", "/b/": "/x", "/c/": "y"}, rule)] == [
        "s['/a']",
        "s['/b/']",
    ]
    option = {"type": "list", "elements": "str"}
    faults = rules.judge("n", ["a.org", 1.5, "b c", "d.org"], option, {"each": {"format": "hostname"}})
    assert [(fault.variable, fault.value) for fault in faults] == [("n[1]", "1.5"), ("n[2]", "'b c'")]


def test_a_value_of_a_dictionary_may_be_a_list() -> None:
    rule = {"keys": {"format": "option"}, "values": {"format": "one_line", "each": {"format": "one_line"}}}
    assert rules.check("o", {"env": ["A=1", "B=2"], "threads": 4, "strict": True}, rule) == []
    (fault,) = rules.check("o", {"env": ["A=1", "B\n[uwsgi]"]}, rule)
    assert fault.variable == "o['env'][1]"


def test_refused_values_and_keys_say_why() -> None:
    (fault,) = rules.check(
        "o",
        {"lazy-apps": True},
        {"keys": {"format": "option", "refuse": {"lazy-apps": "a broken release would start"}}},
    )
    assert "The reason: a broken release would start." in str(fault)
    (fault,) = rules.check("o", {"vacuum": True}, {"refuse": {"vacuum": "the socket is systemd's"}})
    assert str(fault) == "o['vacuum'] is refused. The reason: the socket is systemd's."
    (fault,) = rules.check("u", "root", {"format": "user", "refuse": {"root": "it may do anything"}})
    assert fault.reason == "The reason: it may do anything."


def test_keys_that_the_spec_lists() -> None:
    option = {"type": "dict", "options": {"name": {"required": True}, "port": {"type": "int"}}}
    assert rules.typed("site", {"name": "a", "port": 1}, option) == []
    lines = [str(fault) for fault in rules.typed("site", {"nmae": "a", "port": "x"}, option)]
    assert lines == [
        "site['nmae'] is no key of site: did you mean name?",
        "site['name'] is required and not set; accepted is text.",
        "site['port'] is 'x'; accepted is a whole number.",
    ]


def test_a_rule_for_each_key_that_the_spec_lists() -> None:
    option = {
        "type": "list",
        "elements": "dict",
        "options": {"uri": {"required": True}, "suite": {}, "parts": {"type": "list"}},
    }
    rule = {
        "each": {
            "options": {
                "uri": {"format": "url"},
                "suite": {"format": "option"},
                "parts": {"each": {"format": "option"}},
            }
        }
    }
    assert rules.judge("s", [{"uri": "http://a", "suite": "b-c", "parts": ["main"]}], option, rule) == []
    faults = rules.judge(
        "s",
        [{"uri": "x"}, {"uri": "http://a", "suite": "b c"}, {"uri": "http://a", "parts": ["m", "n]"]}, {}],
        option,
        rule,
    )
    assert [fault.variable for fault in faults] == [
        "s[3]['uri']",
        "s[0]['uri']",
        "s[1]['suite']",
        "s[2]['parts'][1]",
    ]
    assert rules.audit({"s": {"options": {"a": {"format": "x"}}}}, {"s": {}})[0].startswith("s.a: there is no format x")


def test_a_secret_inside_of_an_input_is_never_shown() -> None:
    keys: dict[str, Any] = {"name": {}, "token": {"no_log": True, "aliases": ["secret"]}}
    option = {"type": "list", "elements": "dict", "options": keys}
    rule = {"each": {"options": {"token": {"format": "identifier"}, "name": {"format": "identifier"}}}}
    values: list[Any] = [
        [{"token": "hunter-2"}],
        [{"secret": "hunter-2"}],
        {"token": "hunter-2"},
        [["hunter-2"]],
    ]
    for value in values:
        (fault,) = rules.judge("s", value, option, rule)
        assert fault.value == "(hidden)"
    (fault,) = rules.judge("s", [{"name": "not-hidden"}], option, rule)
    assert fault.value == "'not-hidden'"


def test_choices_do_not_take_true_for_one() -> None:
    option = {"type": "raw", "choices": [1, 2]}
    accepted = {value: not rules.typed("x", value, option) for value in ("2", "True")}
    assert accepted == {"2": True, "True": False}
    yes: Any = True
    assert rules.typed("x", yes, option)


def test_a_value_is_shown_on_one_line_cut_and_without_secrets() -> None:
    assert rules.shown("a\nb") == r"'a\nb'"
    assert len(rules.shown("x" * 500)) == rules.SHOWN
    assert "pass" not in rules.shown("http://user:pass@proxy:3128")
    for fault in rules.judge(
        "token", {"a": "hunter2;"}, {"type": "dict", "no_log": True}, {"values": {"format": "identifier"}}
    ):
        assert "hunter2" not in str(fault)
    for fault in rules.judge("token", ["hunter2"], {"type": "dict", "no_log": True}):
        assert "hunter2" not in str(fault)


@pytest.mark.parametrize(
    ("rule", "option", "words"),
    [
        ({"min": 1, "max": 65535}, {"type": "int"}, "a whole number from 1 to 65535"),
        ({"min": 1}, None, "a whole number of 1 or more"),
        ({"max": 1.5}, None, "a number of 1.5 or less"),
        ({}, {"type": "bool"}, "true or false"),
        ({}, {"choices": ["a", True]}, "one of a, true"),
        ({"format": "mode", "optional": True}, {}, 'four octal digits in quotes, such as "0660", or empty'),
        ({}, {"type": "list", "elements": "int"}, "a list (each item: a whole number)"),
        (
            {"each": {"min": 1}},
            {"type": "list", "elements": "int"},
            "a list (each item: a whole number of 1 or more)",
        ),
        ({}, {"type": "list", "elements": "str", "choices": ["a", "b"]}, "a list (each item: one of a, b)"),
        (
            {"format": "option", "refuse": {"a": "x", "b": "y"}},
            {},
            rules.FORMATS["option"].words + ", except a, b",
        ),
        ({}, {"type": "dict", "options": {"a": {}, "b": {}}}, "a dictionary (keys: a, b)"),
        ({"values": {"min": 0}}, {"type": "dict"}, "a dictionary (each value: a whole number of 0 or more)"),
    ],
)
def test_accepted_in_words(rule: dict[str, Any], option: dict[str, Any] | None, words: str) -> None:
    assert rules.accepted(rule, option) == words


def test_misspelt_names() -> None:
    known = ["nginx_worker_processes", "nginx_port", "app_name", "proxy_url", "__nginx_rules"]
    names = [
        "nginx_worker_proceses",
        "nginx_port",
        "nginx_ports",
        "nginx_my_own_thing",
        "app_nmae",
        "app_colour",
        "proxyurl",
        "my_port",
        "proxy_uri",
        "ngnix_worker_processes",
        "Nginx_Worker-Processes",
        "my_worker_processes",
    ]
    assert rules.misspelt(names, known) == [
        ("Nginx_Worker-Processes", "nginx_worker_processes"),
        ("app_nmae", "app_name"),
        ("nginx_ports", "nginx_port"),
        ("nginx_worker_proceses", "nginx_worker_processes"),
        ("ngnix_worker_processes", "nginx_worker_processes"),
        ("proxy_uri", "proxy_url"),
        ("proxyurl", "proxy_url"),
    ]
    assert str(rules.misspelling("app_nmae", "app_name")) == "app_nmae is no input of Slipway: did you mean app_name?"


def test_shared_names_are_what_no_role_declares() -> None:
    defaults = {
        "a_user": "{{ app_user | default(a_app) }}",
        "a_app": "{{ app_name | default('app') }}",
        "a_list": [
            "{{ app_name | regex_replace('x', 'y') }}",
            {"k": "{{ ansible_facts.x | default(omit) }}{{ range(3) }}{{ __a_x }}"},
        ],
        "a_env": "{{ lookup('ansible.builtin.env', 'HOME') if web_group is match('x') else groups }}",
    }
    assert rules.shared(defaults, defaults) == {
        "app_user": {"a_user"},
        "app_name": {"a_app", "a_list"},
        "web_group": {"a_env"},
    }


def test_origins_are_what_the_user_has_set() -> None:
    variables = {
        "a_app": "{{ app_name | default('app') }}",
        "a_root": "{{ app_root | default('/srv/' ~ a_app) }}",
        "app_name": "{{ project }}",
        "project": "../x",
        "loop_a": "{{ loop_b }}",
        "loop_b": "{{ loop_a }}",
        "broken": "{{",
    }
    assert rules.origins(variables["a_root"], variables) == {"project"}
    assert rules.origins(variables["project"], variables) == rules.origins("{{", variables) == set()
    assert rules.origins("{{ loop_a }} {{ broken }}", variables) == {"loop_b", "broken"}


def test_audit_finds_the_mistakes_of_a_role() -> None:
    options: dict[str, Any] = {"a": {}, "b": {}, "c": {}, "d": {}}
    assert (
        rules.audit({"a": {"min": 1, "max": 2.5, "optional": True}, "b": {"each": {"format": "name"}}}, options) == []
    )
    wrong = rules.audit(
        {
            "a": {"minimum": 1},
            "b": {"each": {"format": "nmae"}},
            "c": {"min": "1", "refuse": ["x"]},
            "d": 1,
            "e": {},
        },
        options,
    )
    assert [line.split(":")[0] for line in wrong] == ["e", "a", "b.each", "c", "c", "d"]
