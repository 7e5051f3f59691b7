"""What ordinary apps do: a function for each, which raises if it cannot.

The servers that it calls are tests/behaviour/edge/servers.py.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import ctypes
import datetime
import getpass
import http.client
import logging.handlers
import mmap
import multiprocessing.shared_memory
import os
import shutil
import smtplib
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import zoneinfo
from pathlib import Path

STATE = Path(os.environ.get("STATE_DIRECTORY", "."))
# A name that only DNS knows.
SERVICE = "service.slipway.test"
FORK = multiprocessing.get_context("fork")


def upload() -> str:
    """Store what a visitor sent, by way of a temporary file, in a directory of a day."""
    with tempfile.NamedTemporaryFile() as received:
        received.write(b"a picture")
        received.flush()
        day = Path("uploads/2026-11-24")
        day.mkdir(exist_ok=True)
        shutil.copyfile(received.name, day / "picture.png")
    Path("uploads/picture.png").write_bytes((day / "picture.png").read_bytes())
    return str(sorted(path.name for path in Path("uploads").iterdir()))


def cache() -> str:
    """Keep a cache in a file, replaced in one piece."""
    (STATE / "cache.new").write_text("cached")
    os.replace(STATE / "cache.new", STATE / "cache")
    return (STATE / "cache").read_text()


def database_in_a_file() -> int:
    """Use SQLite with a write-ahead log, which has shared memory beside the file."""
    with sqlite3.connect(STATE / "data.sqlite") as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("create table if not exists visits (at text)")
        connection.execute("insert into visits values (datetime('now'))")
        count: int = connection.execute("select count(*) from visits").fetchone()[0]
    return count


def asked(connection: socket.socket) -> str:
    """Send a word to a server that sends it back, and return it."""
    with connection:
        connection.settimeout(5)
        connection.sendall(b"select 1\n")
        answer = connection.recv(100).decode().strip()
    if answer != "select 1":
        raise ValueError(answer)
    return answer


def database_by_tcp() -> str:
    """Ask a database by TCP."""
    return asked(socket.create_connection((SERVICE, 15432), timeout=5))


def database_by_socket() -> str:
    """Ask a database by its unix socket."""
    connection = socket.socket(socket.AF_UNIX)
    connection.connect("/run/slipway-test/database.sock")
    return asked(connection)


def name_from_dns() -> str:
    """Ask DNS for a name that no file has, as every client library does."""
    found = socket.getaddrinfo(SERVICE, 443, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return str(found[0][4][0])


def service_by_tls() -> str:
    """Call another service by HTTPS, and know it by its certificate."""
    context = ssl.create_default_context(cafile="/etc/ssl/certs/ca-certificates.crt")
    if not context.get_ca_certs():
        raise ValueError("no authorities")
    context.load_verify_locations("/etc/ssl/slipway-test.pem")
    connection = http.client.HTTPSConnection(SERVICE, 15443, context=context, timeout=5)
    connection.request("GET", "/")
    return connection.getresponse().read().decode()


def mail() -> str:
    """Hand a mail to the host's mail server."""
    with smtplib.SMTP("localhost", 25, timeout=5) as server:
        refused = server.sendmail("app@localhost", ["you@localhost"], "Subject: hello\n\nhello")
    return str(refused)


def program() -> str:
    """Run a program, and a shell with a pipe."""
    subprocess.run(["/bin/ls", "/"], check=True, capture_output=True)
    return subprocess.run("echo one | tr o a", shell=True, check=True, capture_output=True, text=True).stdout.strip()


def processes() -> str:
    """Share work out to processes, with a queue, a lock and shared memory."""
    with FORK.Pool(2) as pool:
        found = pool.map(abs, [-1, -2])
    memory = multiprocessing.shared_memory.SharedMemory(create=True, size=100)
    if memory.buf is not None:
        memory.buf[0] = 7
    memory.close()
    memory.unlink()
    return str(found)


def threads() -> str:
    """Share work out to threads."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return str(list(pool.map(abs, [-1, -2])))


def event_loop() -> str:
    """Run an event loop that starts a program and opens a connection."""

    async def work() -> str:
        process = await asyncio.create_subprocess_exec("/bin/echo", "from a loop", stdout=subprocess.PIPE)
        said, _ = await process.communicate()
        _, writer = await asyncio.open_connection("localhost", 15432)
        writer.close()
        return said.decode().strip()

    return asyncio.run(work())


def foreign_function() -> str:
    """Call the C library, and let it call back."""
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
    numbers = (ctypes.c_int * 3)(3, 1, 2)
    ctypes.CDLL(None).qsort(numbers, 3, ctypes.sizeof(ctypes.c_int), compare(lambda one, two: one[0] - two[0]))
    if list(numbers) != [1, 2, 3]:
        raise ValueError(list(numbers))
    return str(list(numbers))


def mapped_file() -> str:
    """Map a file into memory."""
    path = STATE / "mapped"
    path.write_bytes(b"0" * 4096)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as mapped:
        mapped[:1] = b"1"
        return mapped[:2].decode()


def time_zone() -> str:
    """Know the time elsewhere, and here."""
    there = datetime.datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin"))
    return f"{there.isoformat()} {datetime.datetime.now().astimezone().tzname()}"


def own_name() -> str:
    """Look up its user, and the number of processors."""
    return f"{getpass.getuser()} {os.cpu_count()} {socket.gethostname()} {Path('~').expanduser()}"


def system_log() -> str:
    """Write a line to the system's log, and one to the error output."""
    handler = logging.handlers.SysLogHandler("/dev/log")
    handler.emit(logging.makeLogRecord({"msg": "an ordinary line"}))
    print("an ordinary line", file=sys.stderr)
    return str(handler.socktype)


THINGS = {
    what.__name__: what
    for what in (
        upload, cache, database_in_a_file, database_by_tcp, database_by_socket, name_from_dns, service_by_tls, mail,
        program, processes, threads, event_loop, foreign_function, mapped_file, time_zone, own_name, system_log,
    )
}  # fmt: skip
