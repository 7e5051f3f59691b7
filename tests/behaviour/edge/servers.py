"""What an ordinary app calls, on the host: a database by TCP and unix socket, HTTPS, mail and DNS.

As little of each as can be. Run as root; the certificate and its key are the arguments. They end when this does.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys

SOCKET = "/run/slipway-test/database.sock"


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send a line back, for a database."""
    writer.write(await reader.readline())
    await writer.drain()
    writer.close()


async def https(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\nservice")
    await writer.drain()
    writer.close()


async def smtp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take a mail."""
    writer.write(b"220 localhost\r\n")
    while line := (await reader.readline()).upper():
        if line.startswith(b"DATA"):
            writer.write(b"354 go on\r\n")
            await reader.readuntil(b"\r\n.\r\n")
        writer.write(b"221 bye\r\n" if line.startswith(b"QUIT") else b"250 ok\r\n")
        await writer.drain()
    writer.close()


class Dns(asyncio.DatagramProtocol):
    """Knows every name: it is this host. Of its IPv6 address it knows nothing."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what answers are sent by."""
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        """Answer a question of one name."""
        question = data[12 : data.index(b"\0", 12) + 5]
        known = question[-4:-2] == b"\0\x01"
        answer = b"\xc0\x0c\0\x01\0\x01\0\0\0\0\0\x04\x7f\0\0\x01" if known else b""
        flags = b"\x81\x80\0\x01\0" + bytes([known]) + b"\0\0\0\0"
        self.transport.sendto(data[:2] + flags + question + answer, addr)  # type: ignore[attr-defined]


async def main(certificate: str, key: str) -> None:
    """Serve until the end."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    await asyncio.start_server(echo, "127.0.0.1", 15432)
    await asyncio.start_server(https, "127.0.0.1", 15443, ssl=context)
    await asyncio.start_server(smtp, "127.0.0.1", 25)
    await asyncio.start_unix_server(echo, SOCKET)
    os.chmod(SOCKET, 0o777)
    await asyncio.get_running_loop().create_datagram_endpoint(Dns, local_addr=("127.0.0.1", 53))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
