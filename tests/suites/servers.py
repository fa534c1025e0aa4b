"""The servers that suites of others run against: droppable's, and the one whose protocol it speaks.

Each listens at a port of the loopback and at a unix socket, and holds what is in it until the block ends.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

READY_SECONDS = 20


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int
    """At 127.0.0.1."""
    path: str
    """Of its unix socket."""


class NotInstalledError(Exception):
    """The program is not there; the text says which, and how it comes."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def program(name: str, package: str) -> str:
    """Where the program is.

    Raises:
        NotInstalledError: it is not installed.
    """
    found = shutil.which(name)
    if found is None:
        raise NotInstalledError(f"{name} is not installed (Debian and Ubuntu: apt-get install {package})")
    return found


def connect(server: Server) -> None:
    """Connects and hangs up again, by the unix socket if there is one.

    Raises:
        OSError: nobody takes connections there.
    """
    if Path(server.path).exists():
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(server.path)
    else:
        socket.create_connection(("127.0.0.1", server.port), timeout=1).close()


def wait_for(server: Server, process: subprocess.Popen[bytes]) -> None:
    """Until it takes connections: memcached has no other way to tell."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            connect(server)
        except OSError:
            assert process.poll() is None, f"the server ended with status {process.returncode}"
            assert time.monotonic() < deadline, "the server takes no connections"
            time.sleep(0.02)
        else:
            return


@contextmanager
def running(kind: str, *, at_socket: bool = False) -> Iterator[Server]:
    """A server: `droppable`, `memcached` or `redis`.

    memcached listens at its socket alone, if that is asked for, else at its port alone; the others listen at both.

    Raises:
        NotInstalledError: the program is not installed.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/socket"
        command = {
            "droppable": lambda: [
                *(sys.executable, "-m", "droppable", "serve", "--threads", "2"),
                *("--unix", path, "--listen", f"127.0.0.1:{port}"),
            ],
            "memcached": lambda: [
                *(program("memcached", "memcached"), "-u", "root"),
                *(["-s", path] if at_socket else ["-l", "127.0.0.1", "-p", str(port)]),
            ],
            "redis": lambda: [
                *(program("redis-server", "redis-server"), "--save", "", "--dir", folder),
                *("--bind", "127.0.0.1", "--port", str(port), "--unixsocket", path),
            ],
        }[kind]()
        server = Server(port, path)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            try:
                wait_for(server, process)
                yield server
            finally:
                process.terminate()
                process.wait(READY_SECONDS)
