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
  - Writes files that everybody may read and root owns, with the directories that they are in, and removes those that
    are to be empty. All of them take one round trip, where a task for each would take one each.
  - If one cannot be written, all are as they were.
options:
  files:
    description: What is in each file, by its path. Where that is empty, there is no file.
    type: dict
    required: true
attributes:
  check_mode:
    description: Says what would change.
    support: full
  diff_mode:
    description: Shows each file that changes.
    support: full
author: Slipway maintainers (@slipway)
"""

EXAMPLES = r"""
- name: Limit the journal, and leave the kernel as it is
  slipway.wsgi.files:
    files:
      /etc/systemd/journald.conf.d/slipway.conf: "{{ lookup('ansible.builtin.template', 'journald.conf.j2') }}"
      /etc/sysctl.d/90-slipway.conf: ""
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
    module = AnsibleModule(argument_spec={"files": {"type": "dict", "required": True}}, supports_check_mode=True)
    files: dict[str, str] = module.params["files"]
    try:
        change = Change(File(path, text or None, 0o644, *OWNER) for path, text in files.items())
        if not module.check_mode:
            change.make()
    except OSError as error:
        module.fail_json(msg=str(error))
    paths = [after.path for _, after in change.files]
    module.exit_json(changed=bool(paths), paths=paths, diff=change.diff())


if __name__ == "__main__":
    main()
