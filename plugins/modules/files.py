#!/usr/bin/python
# SPDX-License-Identifier: MIT
"""Writes and removes small files of a host's configuration."""

from __future__ import annotations

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.slipway.wsgi.plugins.module_utils.host import read, write

DOCUMENTATION = r"""
module: files
short_description: Write and remove small files of configuration in one go
description:
  - Writes files that everybody may read and root owns, with the directories that they are in, and removes those that
    are to be empty. All of them take one round trip, where a task for each would take one each.
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

MODE = 0o644
OWNER = (0, 0)


def differs(path: str, text: str) -> bool:
    """Return whether a file is not as it has to be: there or not, its text, its mode and its owner."""
    if not os.path.lexists(path):
        return bool(text)
    state = os.lstat(path)
    return not text or (read(path), state.st_mode & 0o7777, state.st_uid, state.st_gid) != (text, MODE, *OWNER)


def put(path: str, text: str) -> None:
    """Write a file, or remove it where its text is empty."""
    if not text:
        os.unlink(path)
        return
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    write(path, text)
    os.chmod(path, MODE)
    os.chown(path, *OWNER)


def main() -> None:
    """Read the arguments and do what is asked for."""
    module = AnsibleModule(argument_spec={"files": {"type": "dict", "required": True}}, supports_check_mode=True)
    files: dict[str, str] = module.params["files"]
    try:
        changed = {path: text for path, text in files.items() if differs(path, text)}
        diff: list[dict[str, Any]] = [
            {"before_header": path, "after_header": path, "before": read(path), "after": text}
            for path, text in changed.items()
        ]
        for path, text in changed.items():
            if not module.check_mode:
                put(path, text)
    except OSError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=bool(changed), paths=list(changed), diff=diff)


if __name__ == "__main__":
    main()
