"""What an input of a role may hold: types as in argument_specs.yml, and the rules that a type cannot say.

Pure Python: the plugin ``slipway.wsgi.inputs``, ``tools/docs.py`` and the tests use the same functions, so
that what is checked, what is said in a fault and what stands in the documentation cannot differ.

An *option* is an entry of ``meta/argument_specs.yml`` (type, elements, choices, options, required, default,
no_log). A *rule* is an entry of ``__<role>_rules`` in ``vars/main.yml``: a dict with some of ``min``,
``max``, ``format``, ``each``, ``keys``, ``values``, ``options``, ``optional``, ``also``, ``refuse``.

Types are stricter than Ansible's own wherever the role's templates would write something else than the user
meant: Ansible converts a copy of the value, the template gets the original. The string "false" is true to
Jinja, the string " 80 " is a number to Python, the number 3.10 is 3.1 and 0660 is 432 to YAML.
"""

from __future__ import annotations

import difflib
import ipaddress
import keyword
import math
import re
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jinja2
import jinja2.meta
import jinja2.nodes
from ansible_collections.slipway.wsgi.plugins.module_utils.releases import SECRET_LENGTH

Rule = Mapping[str, Any]
Option = Mapping[str, Any]

TYPES = ("str", "path", "int", "float", "bool", "list", "dict", "raw")
"""Types of options that Slipway uses."""

VOCABULARY = ("min", "max", "format", "each", "keys", "values", "options", "optional", "also", "refuse")
"""Words of a rule."""

_INSIDE = ("keys", "values", "options")  # words for the inside of a dictionary

SHOWN = 80
"""Characters of a value that a fault shows."""

CUTOFF = 0.8
"""How much a name must resemble a known one to be taken for a misspelling of it (difflib's ratio)."""


CUTOFF_ELSEWHERE = 0.93
"""The same for a name that does not begin as an input does: one letter in fourteen."""


@dataclass(frozen=True)
class Fault:
    """One input that is refused.

    variable: the variable, with the place inside of it: ``nginx_static['/a']``.
    value: what it holds, as it may be shown; empty when it holds nothing.
    accepted: what is accepted, in words.
    reason: why, or what to do, where that is known.
    problem: the whole sentence, where "variable is value" does not fit.
    """

    variable: str
    value: str = ""
    accepted: str = ""
    reason: str = ""
    problem: str = ""

    def __str__(self) -> str:
        """Give the fault as one line."""
        text = self.problem or f"{self.variable} is {self.value}"
        if self.accepted:
            text += f"; accepted is {self.accepted}"
        if not text.endswith("?"):
            text += "."
        return f"{text} {self.reason}" if self.reason else text


def shown(value: object, *, secret: bool = False) -> str:
    """Give a value as a fault may show it: on one line, cut, without passwords.

    Args:
        value: any value.
        secret: it must not be shown at all.

    Returns:
        The text.
    """
    if secret:
        return "(hidden)"
    text = re.sub(r"://[^/@\s'\"]+@", "://(hidden)@", repr(value))
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."


# --- formats ------------------------------------------------------------------------------------------------

_RESERVED = {
    "a user or group of every Debian system": """
        root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody
        nogroup adm tty disk dialout fax voice cdrom floppy tape sudo audio dip operator src shadow utmp
        video sasl plugdev staff users kmem input kvm render sgx crontab messagebus polkitd ssl-cert
        syslog netdev
    """,
    "a unit, command or directory of the system": """
        getty autovt serial-getty container-getty console-getty user user-runtime-dir ssh sshd nginx
        apache2 modprobe e2scrub blockdev quotaon ifup ifdown cron dbus udev init initctl lock log mount
        netns shm screen rsyslog slipway uwsgi postgresql mysql mariadb redis-server
    """,
}
# Sources: /etc/passwd and /etc/group of base-passwd, template units in /lib/systemd/system and directories in
# /run of Debian 12; the units of the packages that commonly stand beside an app.


def _reserved(value: str) -> str:
    """Say why a name belongs to the system; empty when it does not."""
    if value == "systemd" or value.startswith("systemd-"):
        return f"{value} is a name of systemd's own: choose another name"
    for owner, names in _RESERVED.items():
        if value in names.split():
            return f"{value} is the name of {owner}: the app's units, user or directories would collide with it"
    return ""


_PART = r"[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*|\.[A-Za-z0-9_@+-][A-Za-z0-9._@+-]*"  # of a path; neither . nor ..
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"  # of a host name, RFC 1123 section 2.1


def _matches(pattern: str, *, number: bool = False) -> Callable[[Any], str | None]:
    """Make a check that a whole string matches; with number, a whole number may stand for its own digits."""
    compiled = re.compile(pattern)

    def judge(value: Any) -> str | None:
        if number and isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        return "" if isinstance(value, str) and compiled.fullmatch(value) else None

    return judge


def _is_name(value: Any) -> str | None:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z][a-z0-9-]{0,30}", value):
        return None
    return _reserved(value)


def _is_path(value: Any) -> str | None:
    return "" if isinstance(value, str) and re.fullmatch(rf"(?:/(?:{_PART}))+", value) else None


def _is_relative_path(value: Any) -> str | None:
    if not isinstance(value, str) or value.startswith("-"):
        return None  # a leading dash would be an option to a command
    return "" if all(re.fullmatch(_PART, part) for part in value.split("/")) else None


def _is_hostname(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    if re.fullmatch(r"[0-9.]+|[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*", value):  # ipaddress alone lets a zone pass: fe80::1%a;}
        try:
            ipaddress.ip_address(value)
        except ValueError:
            return None
        return ""
    name = value.removeprefix("*.")
    if len(value) > 253 or not re.fullmatch(rf"{_LABEL}(?:\.{_LABEL})*", name) or name.rpartition(".")[2].isdigit():
        return None
    return ""


def _is_destination(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    if re.fullmatch(r"[0-9A-Fa-f.:]+/[0-9]{1,3}", value):
        try:
            ipaddress.ip_network(value)
        except ValueError:
            return None
        return ""
    return _is_hostname(value.removeprefix("."))


def _is_network(value: Any) -> str | None:
    # ipaddress alone lets a number and a zone pass.
    if not isinstance(value, str) or not re.fullmatch(r"[0-9A-Fa-f.:]+(?:/[0-9]{1,3})?", value):
        return None
    try:
        ipaddress.ip_network(value)
    except ValueError as error:
        return str(error) if "host bits" in str(error) else None
    return ""


def _is_port(value: Any) -> str | None:
    if isinstance(value, bool):
        return None
    found = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(?:tcp|udp))?", str(value))
    if not found:
        return None
    first, last = int(found[1]), int(found[2] or found[1])
    return "" if 1 <= first <= last <= 65535 else None


def _is_device(value: Any) -> str | None:
    return _is_path(value) if isinstance(value, str) and value.startswith("/dev/") else None


def _is_url_prefix(value: Any) -> str | None:
    if not isinstance(value, str) or not re.fullmatch(r"/(?:[A-Za-z0-9._@+-]+/)+", value):
        return None
    return None if {".", ".."} & set(value.split("/")) else ""


def _is_email(value: Any) -> str | None:
    name, _, host = value.rpartition("@") if isinstance(value, str) else ("", "", "")
    if not re.fullmatch(r"[A-Za-z0-9_+][A-Za-z0-9._+-]{0,63}", name) or "." not in host or host[0] == "*":
        return None
    return None if _is_hostname(host) is None or host.replace(".", "").isdigit() or ":" in host else ""


def _is_address(value: Any) -> str | None:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 1 <= int(port) <= 65535 or host.startswith("*"):
        return None
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    return None if (":" in bare) == (bare == host) else _is_hostname(bare)


def _is_module(value: Any) -> str | None:
    word = r"[A-Za-z_][A-Za-z0-9_]*"
    if not isinstance(value, str) or not re.fullmatch(rf"{word}(?:\.{word})*(?::{word}(?:\(\))?)?", value):
        return None
    return None if any(keyword.iskeyword(part) for part in re.findall(word, value)) else ""


def _is_one_line(value: Any) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, (bool, int, float)):
        return ""
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        return None
    # A backslash at the end joins the next line in systemd's units and escapes the closing quote in nginx.
    return None if value.endswith("\\") else ""


_ESCAPE = "%[0-9A-Fa-f]{2}"
_URL = re.compile(
    rf"https?://(?:(?:[A-Za-z0-9._~:&=+,-]|{_ESCAPE})+@)?"  # user and password
    r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?"  # host and port
    rf"(?:[/?](?:[A-Za-z0-9._~:/?@&=+,-]|{_ESCAPE})*)?"  # path and query
)


def _is_url(value: Any) -> str | None:
    if not isinstance(value, str) or not _URL.fullmatch(value):
        return None
    try:
        parts = urllib.parse.urlsplit(value)
        if parts.port == 0:
            return None
    except ValueError:  # a port out of range
        return None
    host = parts.hostname or ""
    return "" if _is_hostname(host) == "" else None


def _is_redirect_from(value: Any) -> str | None:
    if isinstance(value, str) and value.startswith("/"):
        return "" if value == "/" else _is_path(value)
    return None if isinstance(value, str) and value.startswith("*") else _is_hostname(value)


def _is_redirect_to(value: Any) -> str | None:
    if not isinstance(value, str) or "?" in value:
        return None
    return _is_url(value) if not value.startswith("/") else FORMATS["url_path"].judge(value)


def _is_text(value: Any) -> str | None:
    return "" if isinstance(value, str) and value.replace("\n", "").replace("\t", "").isprintable() else None


def _is_value(value: Any) -> str | None:
    if isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)):
        return ""
    return "" if isinstance(value, str) and "\0" not in value else None


def _is_secret(value: Any) -> str | None:
    return "" if isinstance(value, str) and len(value) >= SECRET_LENGTH and "\0" not in value else None


_is_variable = _matches(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_THE_APPS = {
    "SLIPWAY_": "what begins with SLIPWAY_ is set by Slipway",
    "UWSGI_": "uWSGI takes what begins with UWSGI_ for its options, past all checks: set uwsgi_options",
    "GUNICORN_": "gunicorn takes its settings from it, past all checks: set gunicorn_options",
    "LISTEN_": "systemd hands the socket over by it",
    "NOTIFY_": "systemd is told by it that the release is up",
}


def _is_environment(value: Any) -> str | None:
    begins = (reason for prefix, reason in _NOT_THE_APPS.items() if str(value).startswith(prefix))
    return next(begins, "") if _is_variable(value) == "" else None


@dataclass(frozen=True)
class Format:
    """A named format.

    words: what is accepted, continuing "accepted is". judge: gives None when a value has another form, a
    reason when it has the form and is refused all the same, and the empty string when it is accepted.
    """

    words: str
    judge: Callable[[Any], str | None]


FORMATS: dict[str, Format] = {
    "name": Format(
        "1 to 31 lower-case letters, digits and dashes, a letter first, and no name of the system", _is_name
    ),
    "user": Format(
        "the name of a user or group: 1 to 31 lower-case letters, digits, dashes and underscores,"
        " no digit or dash first",
        _matches(r"[a-z_][a-z0-9_-]{0,30}"),
    ),
    "path": Format(
        "an absolute path of A-Z a-z 0-9 . _ / @ + -, without .., double slash or slash at the end", _is_path
    ),
    "relative_path": Format(
        "a relative path of A-Z a-z 0-9 . _ / @ + -, without .., leading slash or slash at the end",
        _is_relative_path,
    ),
    "hostname": Format("a host name (example.org), a wildcard (*.example.org) or an IP address", _is_hostname),
    "destination": Format(
        "a host name (example.org), a domain (.example.org), an IP address or a network (10.0.0.0/8)", _is_destination
    ),
    "network": Format("an IP address (192.0.2.7) or a network (10.0.0.0/8, 2001:db8::/32)", _is_network),
    "port": Format("a port from 1 to 65535 or several (8000-8010), of TCP, or with /udp after it of UDP", _is_port),
    "time": Format('a time of day in quotes, such as "04:30"', _matches(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]")),
    "url_prefix": Format(
        "a URL path with a slash at both ends, such as /static/, of A-Z a-z 0-9 . _ @ + -, without .. in it",
        _is_url_prefix,
    ),
    "mode": Format('four octal digits in quotes, such as "0660"', _matches(r"0[0-7]{3}")),
    "module": Format("a Python module, such as package.module, optionally with :callable or :factory()", _is_module),
    "one_line": Format("one line of printable text without a backslash at its end", _is_one_line),
    "size": Format(
        "a size: a whole number with k, m, g or nothing after it, such as 10m",
        _matches(r"[0-9]{1,12}[kKmMgG]?", number=True),
    ),
    "memory": Format(
        "a size such as 512M or 2G, a share of the host's memory such as 50%, or infinity",
        _matches(r"[1-9][0-9]{0,8}[KMGT]|(?:[1-9][0-9]?|100)%|infinity"),
    ),
    "percent": Format("a percentage, such as 150%", _matches(r"[1-9][0-9]{0,5}%")),
    "device": Format("the path of a device below /dev, such as /dev/ttyUSB0", _is_device),
    "system_call": Format(
        "the name of a system call, or of a group of them (@chown), see systemd-analyze syscall-filter",
        _matches(r"@?[a-z][a-z0-9_-]*"),
    ),
    "url": Format("a URL that begins with http:// or https://", _is_url),
    "option": Format("lower-case letters, digits and dashes, no dash first", _matches(r"[a-z0-9][a-z0-9-]*")),
    "url_path": Format(
        "a URL path that begins with a slash, such as /healthz, with a query or without",
        _matches(rf"/(?:[A-Za-z0-9._~:/?@&=+,-]|{_ESCAPE})*"),
    ),
    "git_ref": Format(
        "a branch, a tag or a commit of A-Z a-z 0-9 . _ / @ + -, without .., no dash first",
        _matches(r"(?!-)(?!.*\.\.)[A-Za-z0-9._/@+-]+"),
    ),
    "checksum": Format("sha256: and 64 hexadecimal digits", _matches(r"sha256:[0-9a-f]{64}")),
    "release": Format("the name of a release, 12 hexadecimal digits", _matches(r"[0-9a-f]{12}")),
    "variable": Format("letters, digits and underscores, no digit first", _is_variable),
    "environment": Format(
        f"letters, digits and underscores, no digit first, and none of {', '.join(_NOT_THE_APPS)} first",
        _is_environment,
    ),
    "value": Format("a text, a number, true or false", _is_value),
    "secret": Format(f"a text of at least {SECRET_LENGTH} characters", _is_secret),
    "header": Format("the name of a header: letters, digits and dashes", _matches(r"[A-Za-z][A-Za-z0-9-]*")),
    "header_value": Format(
        "one line of printable ASCII without a dollar sign", _matches(r"[ -#%-~]*[!-#%-~]", number=True)
    ),
    "login": Format("a user name of A-Z a-z 0-9 . _ @ + -", _matches(r"[A-Za-z0-9._@+-]+")),
    "password_hash": Format(
        "the hash of a password, as `openssl passwd -6` makes it",
        _matches(r"\$(?:apr1|2[aby]|5|6|y)\$[A-Za-z0-9./$=,]{8,}"),
    ),
    "redirect_from": Format("a path such as /old, or a host name", _is_redirect_from),
    "redirect_to": Format("a path or a URL, without a query", _is_redirect_to),
    "text": Format("printable text of any number of lines", _is_text),
    "email": Format("an e-mail address, such as you@example.org", _is_email),
    "address": Format("a host and a port, such as 192.0.2.1:53 or [2001:db8::1]:53", _is_address),
    "token": Format("text of A-Z a-z 0-9 . _ ~ + / = -", _matches(r"[A-Za-z0-9._~+/=-]+")),
    "identifier": Format("letters, digits and underscores, no digit first", _matches(r"[A-Za-z_][A-Za-z0-9_]*")),
}
"""Formats by name. All but these are free of what nginx, ini files and shells give a meaning: one_line and header_value
must be quoted by the template that writes them, and text and password_hash go into files of their own. A url may hold
the per cent sign of an escape, which units of systemd want doubled."""


# --- words --------------------------------------------------------------------------------------------------

_TYPE_WORDS = {
    "str": "text",
    "path": "a path",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "a dictionary",
    "raw": "any value",
}


def _range(rule: Rule) -> str:
    """Give the bounds of a rule in words: " from 1 to 65535", or the empty string."""
    if "min" in rule and "max" in rule:
        return f" from {rule['min']} to {rule['max']}"
    if "min" in rule:
        return f" of {rule['min']} or more"
    return f" of {rule['max']} or less" if "max" in rule else ""


def _whole(rule: Rule, option: Option) -> bool:
    """Say whether the bounds of a rule want a whole number."""
    return option.get("type") != "float" and not any(isinstance(rule.get(end), float) for end in ("min", "max"))


def accepted(rule: Rule, option: Option | None = None) -> str:
    """Say what is accepted, in words that continue "accepted is".

    Args:
        rule: the rule; may be empty.
        option: the variable's entry in the spec, where there is one.

    Returns:
        The words.
    """
    option = option or {}
    kind = str(option.get("type") or ("str" if option else "raw"))
    if kind == "list" or "each" in rule:
        text = _accepted_in_list(rule, option if kind == "list" else {})
    elif kind == "dict" or set(_INSIDE) & set(rule):
        text = _accepted_in_dict(rule, option)
    else:
        text = _accepted_alone(rule, option, kind)
    if rule.get("also"):
        text += ", or " + ", ".join(_plain(value) for value in rule["also"])
    if rule.get("refuse"):
        text += ", except " + ", ".join(str(value) for value in rule["refuse"])
    return f"{text}, or empty" if rule.get("optional") else text


def _accepted_alone(rule: Rule, option: Option, kind: str) -> str:
    """Say what is accepted where a single value stands."""
    if option.get("choices"):
        return "one of " + ", ".join(_plain(choice) for choice in option["choices"])
    if rule.get("format") in FORMATS:
        return FORMATS[rule["format"]].words
    if "min" in rule or "max" in rule:
        return _TYPE_WORDS["int" if _whole(rule, option) else "float"] + _range(rule)
    return _TYPE_WORDS.get(kind, _TYPE_WORDS["raw"])


def _accepted_in_list(rule: Rule, option: Option) -> str:
    """Say what is accepted where a list stands; with a format beside ``each``, one value may stand for it."""
    words = accepted(rule.get("each", {}), _element(option))
    text = _TYPE_WORDS["list"] if words == _TYPE_WORDS["raw"] else f"{_TYPE_WORDS['list']} (each item: {words})"
    return f"{FORMATS[rule['format']].words}, or {text}" if rule.get("format") in FORMATS and not option else text


def _accepted_in_dict(rule: Rule, option: Option) -> str:
    """Say what is accepted where a dictionary stands."""
    parts = [f"each {word[:-1]}: {accepted(rule[word])}" for word in ("keys", "values") if word in rule]
    if names := option.get("options") or rule.get("options"):
        parts.append("keys: " + ", ".join(names))
    return _TYPE_WORDS["dict"] + (f" ({'; '.join(parts)})" if parts else "")


def _element(option: Option) -> Option:
    """Give the entry that a list's items would have in the spec."""
    return {key: option[key] for key in ("options", "choices") if key in option} | {
        "type": option.get("elements", "raw")
    }


def _hidden(option: Option) -> bool:
    """Say whether a value holds a secret, itself or under one of its keys."""
    return bool(option.get("no_log")) or any(_hidden(inner) for inner in (option.get("options") or {}).values())


def _plain(value: object) -> str:
    """Give a choice as a user would write it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


# --- types --------------------------------------------------------------------------------------------------


def _place(name: str, key: object) -> str:
    """Name a place inside of a variable, whatever the key holds."""
    return f"{name}[{shown(key)}]"


def _number(value: Any) -> int | float | None:
    """Give a number that is written as one: an int, a finite float or plain digits; None otherwise."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}\.[0-9]{1,18}", value):
        return float(value)
    return None


def _type_problem(value: Any, kind: str) -> str | None:
    """Judge a value's type.

    Returns None when it fits, otherwise the remedy, or the empty string when there is none to give.
    """
    if kind in ("str", "path"):
        if isinstance(value, float):
            return "Put it in quotes: YAML reads it as a number, and 1.10 as 1.1."
        if isinstance(value, bool):
            return "Put it in quotes: YAML reads it as true or false."
        return None if isinstance(value, (str, int)) else ""
    if kind == "int":
        return None if isinstance(_number(value), int) else ""
    if kind == "float":
        return None if _number(value) is not None else ""
    if kind == "bool":
        if isinstance(value, str):  # Jinja takes the text "false" for true
            return "Write true or false without quotes; on the command line: -e '{\"variable\": true}'."
        return None if isinstance(value, bool) else ""
    if kind == "list":
        return None if isinstance(value, (list, tuple)) else "Write it as a list, an item a line with a dash before it."
    if kind == "dict":
        return None if isinstance(value, Mapping) else ""
    return None


def typed(name: str, value: Any, option: Option, rule: Rule | None = None, *, secret: bool = False) -> list[Fault]:
    """Check a value against its entry in the spec: type, choices, elements, keys of a dictionary.

    Args:
        name: the variable, with the place inside of it.
        value: its value, templates filled in.
        option: the entry.
        rule: the variable's rule, for the words of a fault and for ``optional``.
        secret: the value must not be shown; ``no_log`` of the option says the same.

    Returns:
        Every fault, an empty list when there is none.
    """
    rule = rule or {}
    secret = secret or bool(option.get("no_log"))
    kind = str(option.get("type", "str"))
    words = accepted(rule, option)
    if value is None:
        empty = rule.get("optional") or (not option.get("required") and option.get("default") is None)
        return [] if empty or kind == "raw" else [Fault(name, "empty (null)", words)]
    if rule.get("optional") and isinstance(value, str) and not value:
        return []
    hidden = secret or _hidden(option)
    remedy = _type_problem(value, kind)
    if remedy is not None:
        return [Fault(name, shown(value, secret=hidden), words, remedy.replace("variable", name))]
    if kind == "list":
        return [
            fault
            for index, item in enumerate(value)
            for fault in typed(_place(name, index), item, _element(option), rule.get("each"), secret=secret)
        ]
    if kind == "dict" and option.get("options"):
        return _typed_keys(name, value, option["options"], rule, secret=secret)
    choices = option.get("choices")
    if not choices or any(_same(value, choice) for choice in choices):
        return []
    near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], 1)
    hint = f"Did you mean {near[0]}?" if near and not hidden else ""
    return [Fault(name, shown(value, secret=hidden), words, hint)]


def _typed_keys(
    name: str, value: Mapping[Any, Any], options: Mapping[str, Option], rule: Rule, *, secret: bool
) -> list[Fault]:
    """Check the keys of a dictionary whose keys the spec lists, and what is under them."""
    names = [alias for key, option in options.items() for alias in _names(key, option)]
    faults = []
    for key in value:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, 1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(names)}"
            place = _place(name, key)
            faults.append(Fault(place, problem=f"{place} is no key of {name}: {hint}"))
    for key, option in options.items():
        here = next((alias for alias in _names(key, option) if alias in value), None)
        if here is not None:
            faults += typed(_place(name, here), value[here], option, _under(rule, key), secret=secret)
        elif option.get("required"):
            faults.append(missing(_place(name, key), option, _under(rule, key)))
    return faults


def _names(key: str, option: Option) -> list[str]:
    """Give the names that an option goes by."""
    return [key, *option.get("aliases", [])]


def _under(rule: Rule, key: str) -> Rule:
    """Give the rule for what a dictionary has under a key: the key's own, or the one for all values."""
    found: Rule = (rule.get("options") or {}).get(key) or rule.get("values") or {}
    return found


def missing(name: str, option: Option, rule: Rule | None = None) -> Fault:
    """Give the fault of an input that is required and not set.

    Args:
        name: the variable, with the place inside of it.
        option: its entry in the spec.
        rule: its rule, if it has one.

    Returns:
        The fault.
    """
    return Fault(name, accepted=accepted(rule or {}, option), problem=f"{name} is required and not set")


def _same(value: object, choice: object) -> bool:
    """Compare without taking true for 1; the digits on a command line are the number."""
    if isinstance(value, bool) or isinstance(choice, bool):
        return value is choice
    return value == choice or (isinstance(choice, int) and value == str(choice))


# --- rules --------------------------------------------------------------------------------------------------


def check(name: str, value: Any, rule: Rule, option: Option | None = None, *, secret: bool = False) -> list[Fault]:
    """Check a value against a rule.

    A list is judged by ``each``, a dictionary by ``keys``, ``values`` and ``options`` (a rule for what is
    under each key), anything else by ``format``, ``min`` and ``max``. ``refuse`` names values and keys that
    are refused, ``also`` values that are accepted besides. ``optional`` lets the empty text, null and the
    empty list pass.

    Args:
        name: the variable, with the place inside of it.
        value: its value, templates filled in.
        rule: the rule.
        option: the variable's entry in the spec, for words and types.
        secret: the value must not be shown; ``no_log`` of the option says the same.

    Returns:
        Every fault, an empty list when there is none.
    """
    option = option or {}
    secret = secret or bool(option.get("no_log"))
    if value is None or (isinstance(value, (str, list, tuple)) and not value):
        return [] if rule.get("optional") or not rule else [Fault(name, "empty", accepted(rule, option))]
    fault = Fault(name, shown(value, secret=secret or _hidden(option)), accepted(rule, option))
    if isinstance(value, (list, tuple)):
        if "each" not in rule:
            return [fault] if {"format", "min", "max", *_INSIDE} & set(rule) else []
        return [
            found
            for index, item in enumerate(value)
            for found in check(_place(name, index), item, rule["each"], _element(option), secret=secret)
        ]
    if isinstance(value, Mapping):
        if {"format", "min", "max", "each"} & set(rule) and not set(_INSIDE) & set(rule):
            return [fault]
        return _check_keys(name, value, rule, option, secret=secret)
    reason = _refusal(value, rule, option)
    return [] if reason is None else [replace(fault, reason=_sentence(reason))]


def _check_keys(name: str, value: Mapping[Any, Any], rule: Rule, option: Option, *, secret: bool) -> list[Fault]:
    """Check the keys of a dictionary, and what is under them."""
    refused = {str(key): str(reason) for key, reason in (rule.get("refuse") or {}).items()}
    known = {
        alias: (key, inner) for key, inner in (option.get("options") or {}).items() for alias in _names(key, inner)
    }
    faults = []
    for key, inner in value.items():
        place = _place(name, key)
        if str(key) in refused:
            faults.append(Fault(place, problem=f"{place} is refused", reason=_sentence(refused[str(key)])))
        faults += [
            replace(found, problem=f"{place} has a key that is refused")
            for found in check(place, key, rule.get("keys", {}))
        ]
        own, inner_option = known.get(key, (str(key), None))
        faults += check(place, inner, _under(rule, own), inner_option, secret=secret)
    return faults


def _refusal(value: Any, rule: Rule, option: Option) -> str | None:
    """Judge a value that is neither a list nor a dictionary.

    Returns None when it is accepted, otherwise the reason, which may be empty.
    """
    for refused, reason in (rule.get("refuse") or {}).items():
        if str(refused) in (str(value), _plain(value)):
            return str(reason)
    if any(_same(value, other) for other in rule.get("also", ())):
        return None
    if "format" in rule:
        reason = FORMATS[rule["format"]].judge(value)
        if reason != "":  # None is another form, text is the reason
            return reason or ""
    elif {"each", *_INSIDE} & set(rule):
        return ""
    return None if _in_range(value, rule, option) else ""


def _in_range(value: Any, rule: Rule, option: Option) -> bool:
    """Say whether a value is within the bounds of a rule, if it has any."""
    if not {"min", "max"} & set(rule):
        return True
    number = _number(value)
    if number is None or (_whole(rule, option) and not isinstance(number, int)):
        return False
    return bool(rule.get("min", number) <= number <= rule.get("max", number))


def _sentence(text: str) -> str:
    """Make a sentence of a rule's reason, which may begin with a name that must not be written otherwise."""
    return f"The reason: {text.strip().rstrip('.')}." if text.strip() else ""


def judge(name: str, value: Any, option: Option, rule: Rule | None = None, *, secret: bool = False) -> list[Fault]:
    """Check a value against its type and its rule, and give each place one fault.

    Args:
        name: the variable.
        value: its value, templates filled in.
        option: its entry in the spec.
        rule: its rule, if it has one.
        secret: the value must not be shown.

    Returns:
        Every fault, an empty list when there is none.
    """
    rule = rule or {}
    faults = typed(name, value, option, rule, secret=secret)
    places = tuple(fault.variable for fault in faults)
    if not rule or value is None:
        return faults
    return faults + [
        fault
        for fault in check(name, value, rule, option, secret=secret)
        if not any(fault.variable == place or fault.variable.startswith(f"{place}[") for place in places)
    ]


def audit(rules: Mapping[str, Any], options: Mapping[str, Option]) -> list[str]:
    """Say what is wrong with the rules of a role themselves.

    Args:
        rules: the rules, by variable.
        options: the role's options, by variable.

    Returns:
        One sentence for each mistake of whoever wrote the role, an empty list when there is none.
    """
    wrong = [f"{name}: there is no such option in argument_specs.yml" for name in rules if name not in options]
    for name, rule in rules.items():
        wrong += _audit(name, rule)
    return wrong


def _audit(place: str, rule: Any) -> list[str]:
    """Say what is wrong with one rule and with those inside of it."""
    if not isinstance(rule, Mapping):
        return [f"{place}: a rule is a dictionary"]
    wrong = [
        f"{place}: {word} is no word of a rule ({', '.join(VOCABULARY)})" for word in rule if word not in VOCABULARY
    ]
    if "format" in rule and rule["format"] not in FORMATS:
        wrong.append(f"{place}: there is no format {rule['format']} ({', '.join(FORMATS)})")
    wrong += [
        f"{place}: {end} is a number"
        for end in ("min", "max")
        if isinstance(rule.get(end, 0), bool) or not isinstance(rule.get(end, 0), (int, float))
    ]
    for word, kind, words in (
        ("refuse", Mapping, "a dictionary of values and reasons"),
        ("options", Mapping, "a dictionary of keys and rules"),
        ("also", (list, tuple), "a list of values"),
    ):
        if word in rule and not isinstance(rule[word], kind):
            return [*wrong, f"{place}: {word} is {words}"]
    inner = {word: rule[word] for word in ("each", "keys", "values") if word in rule} | dict(rule.get("options", {}))
    return wrong + [found for word, under in inner.items() for found in _audit(f"{place}.{word}", under)]


# --- names --------------------------------------------------------------------------------------------------

_ANSIBLE_NAMES = {
    *("groups", "group_names", "hostvars", "inventory_dir", "inventory_file", "inventory_hostname"),
    *("inventory_hostname_short", "play_hosts", "playbook_dir", "role_name", "role_path", "vars", "omit"),
    *("lookup", "query", "q", "now", "undef"),
}
"""Names that Ansible sets itself ("Special variables" in its documentation), and its Jinja functions."""


def undeclared(value: Any) -> set[str]:
    """Name the variables that a default reads from elsewhere, Ansible's and Jinja's own left out.

    Args:
        value: a default as it stands in ``defaults/main.yml``, templates not filled in.

    Returns:
        The names.

    Raises:
        jinja2.TemplateSyntaxError: a template cannot be read.
    """
    if isinstance(value, Mapping):
        return {name for inner in value.values() for name in undeclared(inner)}
    if isinstance(value, (list, tuple)):
        return {name for inner in value for name in undeclared(inner)}
    if not isinstance(value, str):
        return set()
    environment = jinja2.Environment(autoescape=True, extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"])
    tree = environment.parse(value)
    # Ansible's filters and tests are unknown to plain Jinja, which would refuse them; none is ever called.
    environment.filters.update((node.name, len) for node in tree.find_all(jinja2.nodes.Filter))
    environment.tests.update((node.name, len) for node in tree.find_all(jinja2.nodes.Test))
    names = jinja2.meta.find_undeclared_variables(tree) - set(environment.globals) - _ANSIBLE_NAMES
    return {name for name in names if not name.startswith(("__", "ansible_"))}


def shared(defaults: Mapping[str, Any], options: Iterable[str]) -> dict[str, set[str]]:
    """Find the names that the inventory shares between roles: what defaults read and no role declares.

    Args:
        defaults: the defaults of all roles.
        options: the names of all options of all roles.

    Returns:
        Each shared name with the variables whose defaults read it.
    """
    declared = set(options) | set(defaults)
    readers: dict[str, set[str]] = {}
    for variable, value in defaults.items():
        for name in undeclared(value) - declared:
            readers.setdefault(name, set()).add(variable)
    return readers


def origins(value: Any, variables: Mapping[str, Any], seen: frozenset[str] = frozenset()) -> set[str]:
    """Find the variables that a value is made from in the end: what a user has set, and where to change it.

    Args:
        value: the value as it is written, templates not filled in.
        variables: all variables, likewise.
        seen: variables that are being followed already.

    Returns:
        The names, none when the value is made from no variable or its template cannot be read.
    """
    try:
        names = undeclared(value) - seen
    except jinja2.TemplateError:
        return set()
    found: set[str] = set()
    for name in names & set(variables):
        found |= origins(variables[name], variables, seen | {name}) or {name}
    return found


def misspelt(names: Iterable[str], known: Iterable[str]) -> list[tuple[str, str]]:
    """Find variables that are meant to be inputs and are not.

    A name that is not known and resembles a known one is a misspelling: closely where it begins as an input does
    (``nginx_``, ``app_``: the first word of any known name), very closely elsewhere. Capitals and dashes are no
    difference. One that resembles nothing is the user's own variable, and one that begins with an underscore a role's.

    Args:
        names: the variables that are set.
        known: the inputs of all roles and the names they share.

    Returns:
        Pairs of name and suggestion, sorted.
    """
    inputs = sorted(set(known))
    prefixes = tuple({f"{name.split('_')[0]}_" for name in inputs if "_" in name})
    found = []
    for name in sorted(set(names) - set(inputs)):
        if name.startswith("_"):
            continue
        plain = name.lower().replace("-", "_")
        cutoff = CUTOFF if plain.startswith(prefixes) else CUTOFF_ELSEWHERE
        near = difflib.get_close_matches(plain, inputs, 1, cutoff)
        found += [(name, near[0])] if near else []
    return found


def misspelling(name: str, suggestion: str) -> Fault:
    """Give the fault of a misspelt variable."""
    return Fault(name, problem=f"{name} is no input of Slipway: did you mean {suggestion}?")
