"""The first command: a throw-away host, the lesson's app deployed to it, and its first answer. Standard library only.

python tools/up.py [--image IMAGE]    make the host, deploy, ask
python tools/up.py --down             remove what that made
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import ssl
import time
import urllib.request

import bootstrap
import hosts
from steps import PLAIN, ROOT, StepError, end, run, step

STATE = ROOT / ".slipway" / "local"
FIRST_PORT = 8080


def deploy() -> bool:
    """Run site.yml against the local host; return whether it changed anything.

    Raises:
        StepError: the play ended red; the whole of it is in deploy.log.
    """
    with step("ansible-playbook site.yml") as current:
        path = os.pathsep.join([str(bootstrap.VENV / "bin"), os.environ.get("PATH", "")])
        environment = {**os.environ, "PATH": path, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), **PLAIN}
        log = STATE / "deploy.log"
        try:
            output = run("ansible-playbook", "site.yml", env=environment, cwd=ROOT)
        except StepError as error:
            log.write_text(str(error))
            raise
        log.write_text(output)
        recap = re.search(r"^local\s.*ok=(\d+)\s+changed=(\d+)", output, re.MULTILINE)
        if recap is None:
            raise StepError(f"ansible-playbook reached no host; see {log.relative_to(ROOT)}.")
        current.outcome = f"{recap[1]} tasks, {recap[2]} changed something"
        return recap[2] != "0"


def ask(url: str) -> str:
    """Return what the app answers at ``url``. Whoever signed the certificate: the host has made one for itself.

    Raises:
        StepError: it did not answer 200.
    """
    anybody = ssl.create_default_context()
    anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
    with step(f"GET {url}"):
        try:
            with urllib.request.urlopen(url, timeout=10, context=anybody) as answer:
                return str(answer.read().decode().strip())
        except OSError as error:
            raise StepError(f"{url}: {error}") from error


def up(image: str) -> None:
    """Do the whole of it, and say what can be done next."""
    started = time.monotonic()
    bootstrap.bootstrap()
    changed = hosts.create(STATE, {"local": image}, FIRST_PORT)
    changed = deploy() or changed
    url = json.loads((STATE / "hosts.json").read_text())["local"]["tls_url"]
    answer = ask(f"{url}/hello")
    print(f"\n{answer}\n")
    print(f"Served by nginx, uWSGI and systemd of the host `local`: open {url} in a browser.")
    print("It will warn you once: the host has signed its certificate itself, and nobody else has (for curl: -k).")
    print(
        "It took {:.0f} s{}.".format(time.monotonic() - started, "" if changed else ", and nothing had to be changed")
    )
    print(f"""
Try next:
  . .venv/bin/activate && ansible-playbook site.yml     # change app/ and deploy it
  curl -k {url}/hello/you
  ssh -F .slipway/local/ssh_config root@local           # look around; `make down` removes it""")


def down() -> None:
    """Remove the local host, the images of hosts that are not in use, and what was written for them."""
    if shutil.which("podman") is not None:
        hosts.destroy(STATE)
        hosts.remove_images()
    shutil.rmtree(STATE, ignore_errors=True)
    print("Still there: .venv (`make clean` removes it) and the Debian packages.")


def main() -> None:
    """Read the command line; see the top of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--image", default="debian13")
    parser.add_argument("--down", action="store_true")
    arguments = parser.parse_args()
    try:
        if arguments.down:
            down()
        else:
            up(arguments.image)
    except StepError as error:
        end(error)


if __name__ == "__main__":
    main()
