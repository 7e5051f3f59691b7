"""Which ports of a host answer, as seen from this machine or from another host."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

from testinfra.host import Host

# A closed port that no firewall hides refuses; one that is hidden says nothing.
PROBE = """
import json, socket, sys
def reached(port):
    try:
        socket.create_connection((sys.argv[1], port), 2).close()
    except ConnectionRefusedError:
        return "closed"
    except TimeoutError:
        return "hidden"
    return "open"
print(json.dumps({port: reached(int(port)) for port in sys.argv[2:]}))
"""


def reached(address: str, *ports: int, source: Host | None = None) -> dict[int, str]:
    """Return for each TCP port whether it is open, closed or hidden, seen from a host, or from this machine."""
    command = ["-c", PROBE, address, *map(str, ports)]
    if source is None:
        said = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True, timeout=60).stdout
    else:
        said = source.check_output(shlex.join(["python3", *command]))
    return {int(port): how for port, how in json.loads(said).items()}


def address(host: Host, family: int = 4) -> str:
    """Return the address of a host in the network of the hosts; that of IPv6 is for another host there."""
    scope = "global" if family == 4 else "link"
    told = json.loads(host.check_output(f"ip -json -{family} address show scope {scope} up"))
    interface = next(entry for entry in told if entry.get("addr_info") and entry["ifname"] != "lo")
    local: str = interface["addr_info"][0]["local"]
    return local if family == 4 else f"{local}%{interface['ifname']}"
