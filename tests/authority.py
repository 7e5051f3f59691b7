"""An ACME authority of the tests' own on this machine: pebble, and the DNS server that it asks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.slipway.wsgi.plugins.module_utils.certificates import self_signed

DAY = 86400
# An authority that asks at once, and refuses nothing that is right, unlike the one that pebble plays by itself.
CALM = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}


def free_port() -> int:
    """Return a port that nobody listens on."""
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


@dataclass
class Authority:
    """The authority; each start of it is a new one: it has another root, and has forgotten all accounts.

    Attributes:
        directory: an empty directory of the test's.
        address: this machine, as the hosts reach it.
        lifetime: of the certificates that it issues, in seconds.
        keys: {identifier: key} that an account has to be tied to; none is asked for without.
    """

    directory: Path
    address: str
    lifetime: int = 90 * DAY
    keys: dict[str, str] = field(default_factory=dict)
    ports: list[int] = field(default_factory=lambda: [free_port() for _ in range(4)])
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make what its own site is known by, and start the DNS server."""
        fullchain, key = self_signed("pebble", ["localhost", "127.0.0.1", self.address])
        self.known_by.write_text(fullchain)
        self.known_by.with_suffix(".key").write_text(key)
        _, _, dns, control = self.ports
        self._run(
            "dns", "pebble-challtestsrv", "-dns01", f":{dns}", "-management", f":{control}", "-http01", "",
            "-https01", "", "-tlsalpn01", "", "-defaultIPv6", "", "-defaultIPv4", "127.0.0.1",
        )  # fmt: skip
        self._await(control)

    @property
    def known_by(self) -> Path:
        """The certificate of the authority's own site."""
        return self.directory / "pebble.pem"

    @property
    def url(self) -> str:
        """The authority's directory, as hosts reach it."""
        return f"https://{self.address}:{self.ports[0]}/dir"

    @property
    def resolver(self) -> str:
        """The DNS server, as hosts reach it."""
        return f"{self.address}:{self.ports[2]}"

    @property
    def control(self) -> str:
        """Where the DNS server is told what to answer, as hosts reach it."""
        return f"http://{self.address}:{self.ports[3]}"

    def start(self, **changes: Any) -> None:
        """Start it anew, with other attributes if any are given."""
        self.stop()
        for name, value in changes.items():
            setattr(self, name, value)
        acme, control, dns, _ = self.ports
        settings = {
            "listenAddress": f"0.0.0.0:{acme}",
            "managementListenAddress": f"127.0.0.1:{control}",
            "certificate": str(self.known_by),
            "privateKey": str(self.known_by.with_suffix(".key")),
            "httpPort": 80,
            "tlsPort": 443,
            "externalAccountBindingRequired": bool(self.keys),
            "externalAccountMACKeys": self.keys,
            # The word of Debian 12's, and that of later ones.
            "certificateValidityPeriod": self.lifetime,
            "profiles": {"default": {"description": "the only one", "validityPeriod": self.lifetime}},
        }
        configuration = self.directory / "pebble.json"
        configuration.write_text(json.dumps({"pebble": settings}))
        self._run("pebble", "pebble", "-config", str(configuration), "-dnsserver", f"127.0.0.1:{dns}")
        self._await(acme)
        self._await(control)

    def stop(self, name: str = "pebble") -> None:
        """Let it be down."""
        process = self.processes.pop(name, None)
        if process is not None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)

    def end(self) -> None:
        """End all of it."""
        self.stop()
        self.stop("dns")

    def root(self) -> str:
        """Return the certificate that all that it issues is proved by, in PEM."""
        context = ssl.create_default_context(cafile=str(self.known_by))
        url = f"https://localhost:{self.ports[1]}/roots/0"
        with urllib.request.urlopen(url, context=context, timeout=10) as answer:
            return str(answer.read().decode())

    def resolve(self, name: str, address: str) -> None:
        """Let a name lead to an address."""
        self.tell("add-a", host=f"{name}.", addresses=[address])

    def tell(self, order: str, **content: Any) -> None:
        """Tell the DNS server what to answer."""
        url = f"http://127.0.0.1:{self.ports[3]}/{order}"
        with urllib.request.urlopen(url, data=json.dumps(content).encode(), timeout=10) as answer:
            assert answer.status == 200

    def log(self, name: str = "pebble") -> str:
        """Return what it has written."""
        return (self.directory / f"{name}.log").read_text()

    def _run(self, name: str, *command: str) -> None:
        """Start one of its programs."""
        with (self.directory / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **CALM})

    def _await(self, port: int) -> None:
        """Return when somebody listens on a port."""
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5):
                return
            assert time.monotonic() < deadline, f"nobody listens on port {port}"
