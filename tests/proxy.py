"""An HTTP proxy that notes which hosts it was asked for. It serves the hosts of the tests and ends with them."""

from __future__ import annotations

import contextlib
import selectors
import socket
import socketserver
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any


class _Handler(socketserver.StreamRequestHandler):
    """One connection of a client: a tunnel (CONNECT), or one plain request passed on."""

    server: Proxy

    def handle(self) -> None:
        method, target, _ = self.rfile.readline().decode().split(" ", 2)
        headers = [line for line in iter(self.rfile.readline, b"\r\n") if line]
        tunnel = method == "CONNECT"
        url = urllib.parse.urlsplit(f"//{target}" if tunnel else target)
        self.server.asked.add(url.hostname or "")
        with socket.create_connection((url.hostname or "", url.port or 80), timeout=20) as upstream:
            if tunnel:
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                kept = [line for line in headers if not line.lower().startswith((b"connection:", b"proxy-connection:"))]
                request = f"{method} {url.path or '/'}{'?' + url.query if url.query else ''} HTTP/1.1\r\n".encode()
                upstream.sendall(request + b"".join(kept) + b"Connection: close\r\n\r\n")
            self._relay(upstream)

    def _relay(self, upstream: socket.socket) -> None:
        """Copy both ways until one side is done."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection, selectors.EVENT_READ, upstream)
            selector.register(upstream, selectors.EVENT_READ, self.connection)
            while True:
                for key, _ in selector.select(timeout=60):
                    data = key.fileobj.recv(65536)  # type: ignore[union-attr]  # both are sockets
                    if not data:
                        return
                    key.data.sendall(data)


class Proxy(socketserver.ThreadingTCPServer):
    """The proxy; `asked` has the names of the hosts that it was asked for."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int]) -> None:
        """Listen on an address (IP, port)."""
        super().__init__(address, _Handler)
        self.asked: set[str] = set()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is no fault of the test."""


@contextlib.contextmanager
def proxy(ip: str) -> Iterator[Proxy]:
    """Run a proxy on a free port of ``ip``."""
    with Proxy((ip, 0)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
