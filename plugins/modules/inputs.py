"""Documentation of slipway.wsgi.inputs; the work is done on the controller, by plugins/action/inputs.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: inputs
short_description: Refuse inputs of a role that cannot work
version_added: 0.1.0
description:
  - Checks every input of the role it is called from against the role's C(meta/argument_specs.yml), entry
    point C(main), and against rules that a type cannot say, such as ranges and forms.
  - Refuses names of variables that look like a misspelt input of this role or of the roles beside it.
  - Reports all faults at once, each with the variable, its value, what is accepted and what to do.
  - Runs on the controller only. It never connects to the host and never changes anything.
  - Types are stricter than those of M(ansible.builtin.validate_argument_spec), because a role's templates get
    the value as it was written and not as it was converted. The text V(false) is no boolean, and a
    number with a fraction is no text.
author:
  - The Slipway authors
options:
  rules:
    description:
      - What is accepted, by variable. Each rule is a dictionary with some of the keys below.
      - C(min) and C(max) bound a number.
      - C(format) is one of V(name), V(user), V(path), V(relative_path), V(hostname), V(url_prefix), V(mode),
        V(module), V(one_line), V(size), V(url), V(option) and V(identifier).
      - C(each) is the rule for the items of a list, C(keys) and C(values) are those for a dictionary,
        C(options) has one for what is under each key.
      - C(optional) lets an empty text, null and an empty list pass.
      - C(also) lists values that are accepted besides, such as V(auto) for a number.
      - C(refuse) maps values, or keys of a dictionary, to the reason why they are refused.
    type: dict
    default: {}
attributes:
  check_mode:
    description: Can run in check mode and gives the same result there.
    support: full
  diff_mode:
    description: Shows no difference, since nothing changes.
    support: none
"""

EXAMPLES = r"""
- name: validate | Refuse what cannot work before anything changes
  slipway.wsgi.inputs:
    rules: "{{ __nginx_rules }}"

- name: validate | Refuse what cannot work, with the rules written here
  slipway.wsgi.inputs:
    rules:
      nginx_port:
        min: 1
        max: 65535
      nginx_server_names:
        optional: true
        each:
          format: hostname
"""

RETURN = r"""
msg:
  description: How many inputs are refused and, a line each, which and why.
  returned: always
  type: str
  sample: |-
    Role nginx: 1 input is refused, and the role changes nothing:
    nginx_port is 99999; accepted is a whole number from 1 to 65535.
"""
