#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Puts the rules of a host's firewall in force."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.wsgi.plugins.module_utils.firewall import NFT, Firewall, FirewallError, filled
from ansible_collections.slipway.wsgi.plugins.module_utils.host import read

DOCUMENTATION = r"""
module: firewall
short_description: Put the rules of a host's firewall in force without locking anybody out
description:
  - Puts a table of nftables, C(inet slipway), in force and sees to it that it is there after a restart. No rule
    outside of that table is touched.
  - New rules are on trial until a second, new connection from the controller has come through them. Without it the
    host itself puts back the rules that were in force, and the task fails. Until then the old rules are on disk too.
  - Fills in the ports of ssh, which are those that sshd listens on and that of the present connection.
options:
  state:
    description:
      - C(applied) puts the rules in force; C(absent) removes the table and what belongs to it.
      - C(confirmed) and C(reverted) end the trial. The controller's side of C(applied) asks for them.
    type: str
    choices: [applied, confirmed, reverted, absent]
    default: applied
  rules:
    description:
      - A file of nft that makes the table anew. Must be given for C(applied).
      - The word SSH_PORTS in it stands for the ports of ssh, with commas between them.
    type: str
    default: ""
  unit:
    description: The unit C(slipway-firewall.service), which loads C(/etc/slipway/firewall.nft) at boot.
    type: str
    default: ""
  seconds:
    description: How long new rules are on trial.
    type: int
    default: 30
attributes:
  check_mode:
    description: Says what would change. Where nft is not installed yet, it is the whole file.
    support: full
  diff_mode:
    description: Shows the rules as nft lists them.
    support: full
author: Slipway maintainers (@slipway)
"""

EXAMPLES = r"""
- name: Let ssh in, and nothing else
  slipway.wsgi.firewall:
    rules: |
      table inet slipway
      delete table inet slipway
      table inet slipway {
          chain input {
              type filter hook input priority filter; policy drop;
              ct state established,related accept
              tcp dport { SSH_PORTS } accept
          }
      }
    unit: "{{ lookup('ansible.builtin.file', 'slipway-firewall.service') }}"

- name: Have no firewall
  slipway.wsgi.firewall:
    state: absent
"""

RETURN = r"""
unconfirmed:
  description: The rules are on trial; only the controller's side of this module sees it.
  returned: when new rules were put in force
  type: bool
  sample: true
"""


def main() -> None:
    """Read the arguments and do what is asked for."""
    module = AnsibleModule(
        argument_spec={
            "state": {"choices": ["applied", "confirmed", "reverted", "absent"], "default": "applied"},
            "rules": {"type": "str", "default": ""},
            "unit": {"type": "str", "default": ""},
            "seconds": {"type": "int", "default": 30},
        },
        required_if=[("state", "applied", ("rules", "unit"))],
        supports_check_mode=True,
    )

    def run(command: list[str], stdin: str) -> tuple[int, str, str]:
        answer: tuple[int, str, str] = module.run_command(
            command, data=stdin, binary_data=True, handle_exceptions=False
        )
        return answer

    steps = {"applied": applied, "confirmed": confirmed, "reverted": reverted, "absent": absent}
    try:
        module.exit_json(**steps[module.params["state"]](module, Firewall(run)))
    except (FirewallError, OSError) as error:
        module.fail_json(msg=str(error))


def applied(module: AnsibleModule, firewall: Firewall) -> dict[str, Any]:
    """Put the rules in force, on trial, unless they are."""
    rules, unit = filled(module.params["rules"], firewall.ports()), module.params["unit"]
    if module.check_mode and not os.path.exists(NFT):
        return {"changed": True, "diff": {"before": "", "after": rules}}
    wanted, live = firewall.canonical(rules), firewall.live()
    if wanted == live and firewall.settled(rules, unit):
        return {"changed": False}
    # Where the rules are the same, what differs is on disk.
    diff = {"before": live, "after": wanted} if wanted != live else {"before": read(firewall.file), "after": rules}
    if module.check_mode:
        return {"changed": True, "diff": diff}
    for chain in firewall.others():
        module.warn(
            f"This host has another firewall ({chain}), and what that drops is dropped whatever Slipway's lets in. "
            "Set host_firewall to false where the other one is to decide."
        )
    firewall.try_out(rules, unit, module.params["seconds"])
    return {"changed": True, "diff": diff, "unconfirmed": True}


def confirmed(module: AnsibleModule, firewall: Firewall) -> dict[str, Any]:
    """Keep the rules that are on trial; that this runs shows that somebody came through them."""
    firewall.confirm()
    return {"changed": True}


def reverted(module: AnsibleModule, firewall: Firewall) -> dict[str, Any]:
    """Take back the rules that are on trial."""
    firewall.revert()
    return {"changed": True}


def absent(module: AnsibleModule, firewall: Firewall) -> dict[str, Any]:
    """Remove all of it."""
    left = firewall.leftovers()
    if left and not module.check_mode:
        firewall.remove()
    return {"changed": bool(left), "diff": {"before": "".join(f"{one}\n" for one in left), "after": ""}}


if __name__ == "__main__":
    main()
