#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Tells which releases of an app a host has."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.wsgi.plugins.module_utils.host import Host

DOCUMENTATION = r"""
module: release_info
short_description: Tell which releases of a WSGI app a host has
description:
  - Tells which releases there are, where they come from, when and by whom they were built and went live, and which
    one is live.
options:
  app:
    description: Name of the app.
    type: str
    required: true
  root:
    description: Directory of the app on the host.
    type: path
    required: true
attributes:
  check_mode:
    description: It only looks.
    support: full
author: Slipway maintainers (@slipway)
"""

EXAMPLES = r"""
- name: Ask for the releases
  slipway.wsgi.release_info:
    app: hello
    root: /srv/hello
  register: releases
"""

RETURN = r"""
releases:
  description: The releases, the one that was live most recently first.
  returned: always
  type: list
  elements: dict
  sample:
    - name: 3f2a9c1b7d10
      state: live
      source: /home/you/shop at main
      commit: 8c1f0d3e5b7a9c2d4e6f8091a2b3c4d5e6f70819
      built: "2026-11-24T10:00:00Z"
      by: you@laptop
      live_at: "2026-11-24T10:00:09Z"
      live_by: you@laptop
      why: ""
text:
  description: The same as lines of a table.
  returned: always
  type: list
  elements: str
"""

COLUMNS = ("name", "state", "live_at", "live_by", "commit", "source")


def releases(host: Host) -> list[dict[str, str]]:
    """Return what is known about each release that is whole, the one that was live most recently first.

    `state` is live, previous (where a rollback goes), warm (up without traffic), bad (`why` says why) or "".
    """
    history, live, built = host.history(), host.live(), host.all()
    previous = history.before(live, built)

    def state(name: str) -> str:
        if name == previous == history.warm:
            return "previous, warm"
        states = {live: "live", history.warm: "warm", previous: "previous"} | dict.fromkeys(history.bad, "bad")
        return states.get(name, "")

    found = [
        {
            "name": name, "state": state(name), "source": facts["source"], "commit": facts["commit"],
            "built": facts["built"], "by": facts["by"],
            "live_at": history.lived.get(name, {}).get("at", ""), "live_by": history.lived.get(name, {}).get("by", ""),
            "why": history.bad.get(name, ""),
        }
        for name, facts in built.items()
    ]  # fmt: skip
    return sorted(found, key=lambda release: (release["live_at"], release["built"]), reverse=True)


def table(rows: list[dict[str, str]]) -> list[str]:
    """Return the releases as lines of a table, with a line for why a bad one is bad."""
    short = [{**row, "commit": row["commit"][:12]} for row in rows]
    widths = {column: max([len(column), *(len(row[column]) for row in short)]) for column in COLUMNS}
    lines = ["  ".join(column.ljust(widths[column]) for column in COLUMNS).rstrip()]
    for row in short:
        lines.append("  ".join(row[column].ljust(widths[column]) for column in COLUMNS).rstrip())
        if row["why"]:
            lines.append(f"    bad: {row['why']}")
    return lines


def main() -> None:
    """Read the arguments and say what there is."""
    module = AnsibleModule(
        argument_spec={"app": {"type": "str", "required": True}, "root": {"type": "path", "required": True}},
        supports_check_mode=True,
    )
    found: list[dict[str, Any]] = releases(Host(module.params["app"], module.params["root"], module.warn))
    module.exit_json(changed=False, releases=found, text=table(found))


if __name__ == "__main__":
    main()
