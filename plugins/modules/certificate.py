#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Puts certificate and key of a site in place, and has an ACME authority issue them."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import subprocess
import time
from collections.abc import Iterator
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.wsgi.plugins.module_utils import certificates

DOCUMENTATION = r"""
module: certificate
short_description: Put certificate and key of a site in place
version_added: 0.1.0
description:
  - Keeps the pair of certificate and key of a site in a directory, where the link C(live) leads to the pair in use, so
    that another takes its place by one rename.
  - V(checked) reads on the controller only and refuses what could not be served, or not be issued.
  - V(prepared) leaves a pair that a web server can start with. It is the one asked for, or, if an authority has still
    to issue that, one that is signed by itself.
  - V(issued) starts the unit that asks the authority, if another pair is asked for than the one in use. One that is
    only due is left to the unit's timer.
options:
  state:
    description: What to do.
    type: str
    choices: [checked, prepared, issued]
    required: true
  source:
    description: Where the pair comes from.
    type: str
    choices: [self_signed, files, acme]
    required: true
  app:
    description: Name of the app; a certificate that is signed by itself bears it.
    type: str
    required: true
  directory:
    description: Where the pairs are, on the host.
    type: path
    required: true
  names:
    description: What the site answers to; none if it answers to any name.
    type: list
    elements: str
    default: []
  owner:
    description: User that may change the pairs.
    type: str
    default: root
  group:
    description: Group that may read them.
    type: str
    default: root
  fullchain:
    description:
      - Of the source V(files), the path on the controller of the certificate, followed by those of its issuers, in PEM.
    type: str
    default: ""
  key:
    description: Of the source V(files), the path on the controller of the key, in PEM.
    type: str
    default: ""
  acme:
    description: Of the source V(acme), what is judged on the controller.
    type: dict
    default: {}
  authority:
    description: Of the source V(acme), the URL of the authority's directory.
    type: str
    default: ""
  unit:
    description: Of the source V(acme), the unit that asks the authority.
    type: str
    default: ""
  renew:
    description: Make, or have issued, another pair even if the one in use is as asked for.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says whether anything would change.
    support: full
  diff_mode:
    description: The reason why a pair is made takes its place, as there is a key in it.
    support: none
author: Slipway maintainers (@slipway)
"""

EXAMPLES = r"""
- name: Have a pair for the web server to start with
  slipway.wsgi.certificate:
    state: prepared
    source: self_signed
    app: shop
    directory: /etc/slipway/certificates/shop
    group: www-data
"""

RETURN = r"""
reason:
  description: Why another pair was, or would be, made; empty if none was.
  returned: state is prepared or issued
  type: str
  sample: there is none yet
"""

ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["checked", "prepared", "issued"], "required": True},
    "source": {"type": "str", "choices": ["self_signed", "files", "acme"], "required": True},
    "app": {"type": "str", "required": True},
    "directory": {"type": "path", "required": True},
    "names": {"type": "list", "elements": "str", "default": []},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
    "fullchain": {"type": "str", "default": ""},
    "key": {"type": "str", "default": "", "no_log": True},
    "acme": {"type": "dict", "default": {}},
    "authority": {"type": "str", "default": ""},
    "unit": {"type": "str", "default": ""},
    "renew": {"type": "bool", "default": False},
}


@contextlib.contextmanager
def acting_as(user: int, group: int) -> Iterator[None]:
    """Work as a user while the block runs: what it may change, root does not follow it into."""
    os.setegid(group)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def prepared(arguments: dict[str, Any], check: bool) -> dict[str, Any]:
    """Leave a pair that the web server can start with, and return the module's result."""
    store = certificates.Store(arguments["directory"])
    names = certificates.wanted_names(arguments["names"])
    try:
        user, group = pwd.getpwnam(arguments["owner"]), grp.getgrnam(arguments["group"]).gr_gid
    except KeyError:
        if not check:  # a dry run of a host on which a real one would have made them by now
            raise
        return {"changed": True, "reason": "there is none yet"}
    owned = store.own(user.pw_uid, group, dry=check)
    if arguments["source"] == "acme":
        origin, reason = certificates.PLACEHOLDER, "" if usable(store) else "there is none yet"
    elif arguments["source"] == "files":
        origin, reason = certificates.FILES, new_files(store, arguments)
    else:
        origin = certificates.SELF_SIGNED
        asked = "it is asked for" if arguments["renew"] else ""
        reason = asked or store.reason(origin, names, time.time())
    if reason and not check:
        texts = arguments["fullchain"], arguments["key"]
        with acting_as(user.pw_uid, user.pw_gid):
            own = origin != certificates.FILES
            store.put(certificates.self_signed(arguments["app"], names) if own else texts, origin)
    return {"changed": owned or bool(reason), "reason": reason}


def usable(store: certificates.Store) -> bool:
    """Say whether a web server could start with the pair in use, however old it is."""
    try:
        return store.fits()
    except certificates.CertificateError:
        return False


def new_files(store: certificates.Store, arguments: dict[str, Any]) -> str:
    """Say why the user's files are to take the place of the pair in use; empty if they are that."""
    here = store.text(certificates.FULLCHAIN), store.text(certificates.KEY)
    return "" if here == (arguments["fullchain"], arguments["key"]) else "the files are not those in use"


def issued(arguments: dict[str, Any], check: bool) -> dict[str, Any]:
    """Have the authority asked if another pair is wanted than the one in use, and return the module's result."""
    store = certificates.Store(arguments["directory"])
    # As old as its certificate is, it is due later than now: that is the timer's business.
    fresh = 0.0
    with contextlib.suppress(certificates.CertificateError):
        found = store.certificate()
        fresh = time.time() if time.time() >= found.end else found.begin
    names = certificates.wanted_names(arguments["names"])
    asked = "it is asked for" if arguments["renew"] else ""
    reason = asked or store.reason(arguments["authority"], names, fresh)
    if not reason or check:
        return {"changed": bool(reason), "reason": reason}
    if asked:
        owner = os.stat(store.path)
        with acting_as(owner.st_uid, owner.st_gid), contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(store.live, certificates.ORIGIN))
    started = time.time()
    subprocess.run(["systemctl", "daemon-reload"], check=True)  # the unit may have been written a moment ago
    done = subprocess.run(["systemctl", "start", arguments["unit"]], capture_output=True, text=True, check=False)
    if done.returncode:
        # Without it the last lines, which hold the cause, may not be in the journal yet.
        subprocess.run(["journalctl", "--sync"], check=False)
        told = subprocess.run(
            ["journalctl", "--unit", arguments["unit"], "--since", f"@{started:.0f}", "--output", "cat", "--no-pager",
             "--lines", "25"], capture_output=True, text=True, check=False,
        )  # fmt: skip
        raise certificates.CertificateError(
            f"There is no certificate for {', '.join(sorted(names))} from {arguments['authority']}, which was asked"
            f" because {reason}. The pair in use stays, and {arguments['unit']} tries again by itself.\n"
            f"The end of its journal:\n{told.stdout.strip()}"
        )
    return {"changed": True, "reason": reason}


def main() -> None:
    """Read the arguments, do what the state asks for, and say what happened."""
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    step = prepared if module.params["state"] == "prepared" else issued
    try:
        module.exit_json(**step(module.params, module.check_mode))
    except certificates.CertificateError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
