#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Writes and removes small files of a host's configuration."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.wsgi.plugins.module_utils.transaction import Change, File

DOCUMENTATION = r"""
module: files
short_description: Write and remove small files of configuration in one go
description:
  - Writes files that root owns, with the directories that they are in, and removes those that are to be empty. All of
    them take one round trip, where a task for each would take one each.
  - If one cannot be written, all are as they were.
options:
  files:
    description: What is in each file, by its path, for everybody to read. Where that is empty, there is no file.
    type: dict
    required: true
  secret_files:
    description: The same for files that only root may read, and that are never shown.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Says what would change.
    support: full
  diff_mode:
    description: Shows each file that changes, but for secret ones.
    support: full
author: Slipway maintainers (@slipway)
"""

EXAMPLES = r"""
- name: Limit the journal, and leave the kernel as it is
  slipway.wsgi.files:
    files:
      /etc/systemd/journald.conf.d/slipway.conf: "{{ lookup('ansible.builtin.template', 'journald.conf.j2') }}"
      /etc/sysctl.d/90-slipway.conf: ""

- name: Have a proxy that has a password
  slipway.wsgi.files:
    files: {}
    secret_files:
      /etc/apt/apt.conf.d/90slipway: "{{ lookup('ansible.builtin.template', 'apt.conf.j2') }}"
"""

RETURN = r"""
paths:
  description: The files that change.
  returned: always
  type: list
  elements: str
  sample: [/etc/systemd/journald.conf.d/slipway.conf]
"""

OWNER = (0, 0)


def main() -> None:
    """Read the arguments and do what is asked for."""
    module = AnsibleModule(
        {"files": {"type": "dict", "required": True}, "secret_files": {"type": "dict", "default": {}, "no_log": True}},
        supports_check_mode=True,
    )
    files: dict[str, str] = module.params["files"]
    secret_files: dict[str, str] = module.params["secret_files"]
    wanted = [File(path, text or None, 0o644, *OWNER) for path, text in files.items()]
    wanted += [File(path, text or None, 0o600, *OWNER, secret=True) for path, text in secret_files.items()]
    try:
        change = Change(wanted)
        if not module.check_mode:
            change.make()
    except OSError as error:
        module.fail_json(msg=str(error))
    paths = [after.path for _, after in change.files]
    module.exit_json(changed=bool(paths), paths=paths, diff=change.diff())


if __name__ == "__main__":
    main()
