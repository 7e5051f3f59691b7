"""A secret reaches the app and nobody else: not the output, the journal, `ps`, systemd's properties or a file."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import APP, ROOT, SWITCHABLE, Run, Site, live_release
from testinfra.host import Host

# What a shell, systemd, YAML, an EnvironmentFile or a template would each change, if it came to read it.
ODD = "quo\"te 'single' $HOME ${HOME} $$ %n %% back\\slash \\n {{ 7 * 6 }} `id` #no; \té\nsecond line"
CANARIES = {
    "PLAIN": "canary-plain-5e1f",
    "ODD": "canary-odd-77ab",
    "token": "canary-token-a41c",
    "index": "canary-0d2e",
}
SECRETS = {"PLAIN": CANARIES["PLAIN"], "ODD": f"{CANARIES['ODD']} {ODD}"}
# Collects every command line that there is on a host, and every file of a unit that is there for a moment only.
COLLECTOR = """
import glob, os, signal, sys, time
seen = set()
signal.signal(signal.SIGTERM, lambda *_: (open("/root/seen", "wb").write(b"\\n".join(seen)), sys.exit()))
while True:
    for path in glob.glob("/proc/[0-9]*/cmdline") + glob.glob("/run/systemd/transient/*.service"):
        try:
            if os.stat(path).st_mode & 4:
                seen.add(open(path, "rb").read())
        except OSError:
            pass
    time.sleep(0.01)  # the processor is for the deploy
"""


@pytest.fixture
def seen(hosts: dict[str, Host]) -> Iterator[Callable[[], dict[str, str]]]:
    """Watch what each host shows of its processes and units, and return it when asked, once."""
    for host in hosts.values():
        run = "systemd-run --quiet --collect --unit=collector python3 /root/collector.py"
        host.check_output(f"printf %%s %s > /root/collector.py && {run}", COLLECTOR)

    def stop() -> dict[str, str]:
        lines = {}
        for name, host in hosts.items():
            host.check_output("systemctl stop collector")
            lines[name] = host.check_output("tr '\\0' ' ' < /root/seen; rm /root/seen")
        return lines

    yield stop
    for host in hosts.values():
        host.run("systemctl stop collector; rm -f /root/collector.py /root/seen")


def leaks(text: str) -> list[str]:
    """Return the canaries that a text holds."""
    return [name for name, canary in CANARIES.items() if canary in text]


def told(host: Host, since: str) -> str:
    """Return what systemd and its journal tell, and which files hold a canary that neither root's nor the app's are."""
    # Not the whole of it: sudo writes this very command into the journal.
    words = " ".join(f"-e {canary[:-2]}" for canary in CANARIES.values())
    nobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups"
    return str(
        host.check_output(
            f"journalctl --since={since} --output=export --all; systemctl show-environment;"
            f" systemctl show '*'; systemctl cat '{APP}@*';"
            f" {nobody} grep -rsF --text {words} /srv /etc /run /tmp /var /opt /home /root; true"
        )
    )


def index() -> str:
    """Return the URL of the machine's Python index with a password, which an index without a login does not mind."""
    machine = yaml.safe_load((ROOT / ".slipway" / "machine.yml").read_text())
    scheme, _, rest = (machine["release_index_url"] or "https://pypi.org/simple").partition("://")
    return f"{scheme}://you:{CANARIES['index']}@{rest.rpartition('@')[2]}"


def key(directory: Path) -> str:
    """Return a private key; a line of it becomes a canary."""
    path = directory / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    text = path.read_text()
    CANARIES["key"] = text.splitlines()[2]
    return text


@pytest.mark.usefixtures("anything")
@pytest.mark.long
def test_a_secret_is_seen_by_the_app_only(
    hosts: dict[str, Host], sites: dict[str, Site], playbook: Callable[..., Run],
    seen: Callable[[], dict[str, str]], tmp_path: Path,
) -> None:  # fmt: skip
    """A good deploy and four that fail, each with all that Ansible can be made to say."""
    since = {name: host.check_output("date +@%s") for name, host in hosts.items()}
    # `${PLAIN}` is for the shell: systemd would put the value on its command line. It takes long enough to be seen.
    hooks = {"before_live": ['test -n "${PLAIN}" && sleep 1']}

    def deploy(fault: str = "", **more: Any) -> Run:
        inputs = json.dumps({**SWITCHABLE, "release_environment": {"FAULT": fault}, **more})
        secrets = ", ".join(f"{name}: !unsafe {json.dumps(value)}" for name, value in SECRETS.items())
        path = tmp_path / "inputs.yml"
        path.write_text(f"{inputs[:-1]}, release_secrets: {{{secrets}}}}}")
        return playbook("playbooks/deploy.yml", "-vvv", "--diff", "-e", f"@{path}")

    runs = {
        "good": deploy(release_hooks=hooks, release_index_url=index()),
        "raises with its environment": deploy("tell"),
        "a hook fails": deploy(release_hooks={"before_live": ["env; false"]}),
        "no such source by https": deploy(
            release_source="https://127.0.0.1:9/app.git", release_ref="main", release_token=CANARIES["token"]
        ),
        "no such source by ssh": deploy(
            release_source="ssh://git@127.0.0.1:9/app.git", release_ref="main", release_deploy_key=key(tmp_path)
        ),
    }
    assert [run.code == 0 for run in runs.values()] == [True, False, False, False, False], runs["good"].output
    assert "told to raise at import, with" in runs["raises with its environment"].output
    assert "FAULT=" in runs["a hook fails"].output, "what is no secret is shown"
    assert {name: leaks(run.output) for name, run in runs.items()} == {name: [] for name in runs}
    collected = seen()
    for name, host in hosts.items():
        assert "test -n" in collected[name], "the collector was quick enough to see a hook"
        assert re.search(r"BindPaths=\S+/venv", collected[name]), "and the unit of a build"
        assert leaks(collected[name]) == []
        assert leaks(told(host, since[name])) == []
        digests = sites[name].get("/").json()["sha256"]
        for secret, value in SECRETS.items():
            assert digests[secret] == hashlib.sha256(value.encode()).hexdigest()
        file = host.file(f"/srv/{APP}/releases/{live_release(host)}/etc/secrets")
        assert (file.user, file.mode) == ("root", 0o600)
    for canary in CANARIES.values():
        command = ["grep", "-rlsF", "-e", canary, str(Path.home() / ".ansible")]
        assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == ""
