"""HTTP as bytes, for what no client library would send or tell."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import ssl
import struct
from collections.abc import Iterator

from conftest import Site


def exchange(site: Site, sent: bytes, tls: bool = True, name: str = "localhost") -> bytes:
    """Send bytes and return all that comes until the server closes."""
    received = b""
    with site.connect(tls, name) as connection, contextlib.suppress(ConnectionError, ssl.SSLError):
        with contextlib.suppress(ConnectionError, ssl.SSLError):  # who is refused can still read why
            connection.sendall(sent)
        while chunk := connection.recv(65536):
            received += chunk
    return received


@contextlib.contextmanager
def websocket(site: Site, path: str, name: str = "localhost", **headers: str) -> Iterator[socket.socket]:
    """Ask for a websocket by HTTPS, and give the connection when the server has agreed."""
    asked = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", **headers}
    lines = [f"GET {path} HTTP/1.1", f"Host: {name}", *(f"{key}: {value}" for key, value in asked.items())]
    with site.connect(True, name) as connection:
        # The example of RFC 6455.
        connection.sendall("\r\n".join([*lines, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "", ""]).encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        assert status(head) == 101, head
        assert ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") in fields(head)
        yield connection


def message(kind: int, data: bytes) -> bytes:
    """Return a short message of a visitor's by websocket."""
    assert len(data) < 126
    mask = b"\x01\x02\x03\x04"
    masked = bytes(byte ^ mask[number % 4] for number, byte in enumerate(data))
    return bytes([0x80 | kind, 0x80 | len(data)]) + mask + masked


def heard(connection: socket.socket) -> tuple[int, bytes]:
    """Return kind and data of the server's next short message by websocket."""
    kind, length, data = connection.recv(1)[0] & 0xF, connection.recv(1)[0], b""
    while len(data) < length:
        data += connection.recv(length - len(data))
    return kind, data


def status(received: bytes) -> int:
    """Return the status of the one answer that was received, 0 if there is none."""
    return int(received.split()[1]) if received else 0


def fields(received: bytes) -> list[tuple[str, str]]:
    """Return the headers of an answer, those too that are there twice, with lower-case names."""
    found = http.client.parse_headers(io.BytesIO(received.partition(b"\r\n")[2]))
    return [(name.lower(), value) for name, value in found.items()]


def hpack(name: str, value: str) -> bytes:
    """Return a header as a literal that is in no table."""

    def text(data: bytes) -> bytes:
        if len(data) < 127:
            return bytes([len(data)]) + data
        rest, out = len(data) - 127, bytes([127])
        while rest >= 128:
            out += bytes([rest % 128 + 128])
            rest //= 128
        return out + bytes([rest]) + data

    return b"\0" + text(name.encode()) + text(value.encode())


# The statuses that HPACK has a number for, and the bits of figures where they are written by Huffman's code.
INDEXED = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}
FIGURES = {f"{number:05b}": str(number) for number in range(3)} | {
    f"{number + 22:06b}": str(number) for number in range(3, 10)
}


def status_of(block: bytes) -> int:
    """Return the status of an answer's headers: it comes first, after changes of the table's size."""
    block = block.lstrip(bytes(range(0x20, 0x40)))
    if block[0] in INDEXED:
        return INDEXED[block[0]]
    length = block[1] & 0x7F
    if not block[1] & 0x80:
        return int(block[2 : 2 + length])
    bits, figures, read = "".join(f"{byte:08b}" for byte in block[2 : 2 + length]), "", ""
    for bit in bits:
        read += bit
        if read in FIGURES:
            figures, read = figures + FIGURES[read], ""
    return int(figures)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Return a frame."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def http2(site: Site, path: str, headers: list[tuple[str, str]], name: str = "localhost", authority: str = "") -> int:
    """Send a request by HTTP/2; return its status, or 0 if it is given up because of it."""
    pseudo = [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", authority or name)]
    block = b"".join(hpack(*pair) for pair in pseudo + headers)
    parts = [block[start : start + 16000] for start in range(0, len(block), 16000)]
    last = len(parts) - 1
    sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
    for number, part in enumerate(parts):
        flags = (1 if number == 0 else 0) | (4 if number == last else 0)
        sent += frame(1 if number == 0 else 9, flags, 1, part)
    with site.connect(True, name, ["h2"]) as connection:
        assert isinstance(connection, ssl.SSLSocket)
        assert connection.selected_alpn_protocol() == "h2"
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            connection.sendall(sent)
        with connection.makefile("rb") as received:
            while len(head := received.read(9)) == 9:
                payload = received.read(int.from_bytes(head[:3], "big"))
                if head[3] == 1:  # HEADERS
                    return status_of(payload)
                if head[3] in (3, 7):  # RST_STREAM, GOAWAY
                    return 0
    return 0
