"""The server and clients that mean no good, or that end in the middle: what docs/security.md says of them."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

StartServer = Callable[..., Any]
WAIT_SECONDS = 20


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(WAIT_SECONDS)
    connection.connect(str(path))
    return connection


def receive(connection: socket.socket, end: bytes) -> bytes:
    """What comes up to that end, or until the server hangs up."""
    got = bytearray()
    while not got.endswith(end):
        piece = connection.recv(1 << 16)
        if not piece:
            break
        got += piece
    return bytes(got)


def ask(path: Path, command: bytes, end: bytes) -> bytes:
    with connect(path) as connection:
        connection.sendall(command)
        return receive(connection, end)


def stat_of(path: Path, name: str) -> int:
    found = re.search(rf"STAT {name} (\d+)\r\n", ask(path, b"stats\r\n", b"END\r\n").decode())
    assert found is not None
    return int(found[1])


def wait_until(holds: Callable[[], bool]) -> None:
    """Asks again and again: for what the server does by itself, a moment later."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", b"POST /x HTTP/1.1\r\n", b"CONNECT a:1 HTTP/1.1\r\n"])
def test_a_browser_cannot_store(server_socket: Path, start: bytes) -> None:
    """A page can make a browser send a body that looks like commands; it cannot keep it from sending a verb first."""
    ask(server_socket, b"set forged 0 0 1\r\na\r\n", b"\r\n")
    body = b"Host: a\r\n\r\nset forged 0 0 1\r\nb\r\n"
    assert b"STORED" not in ask(server_socket, start + body, b"never")
    assert ask(server_socket, b"get forged\r\n", b"END\r\n") == b"VALUE forged 0 1\r\na\r\nEND\r\n"


def test_keys_that_are_too_long_are_refused_and_the_next_command_is_found(server_socket: Path) -> None:
    long, longest = b"k" * 251, b"k" * 250
    sent = b"get %b\r\nset %b 0 0 1\r\na\r\nmg %b v\r\nset %b 0 0 1\r\na\r\nmn\r\n" % (long, long, long, longest)
    with connect(server_socket) as connection:
        connection.sendall(sent)
        told = receive(connection, b"MN\r\n")
    assert told.count(b"CLIENT_ERROR bad command line format\r\n") == 3
    assert told.endswith(b"STORED\r\nMN\r\n")


@pytest.mark.parametrize("byte", [*range(1, 10), 11, 12, *range(14, 32), 127, 128, 255])
def test_control_characters_in_keys_are_bytes_like_others(server_socket: Path, byte: int) -> None:
    key = b"a%cb" % byte
    sent = b"set %b 0 0 1\r\nx\r\nget %b\r\n" % (key, key)
    assert ask(server_socket, sent, b"END\r\n") == b"STORED\r\nVALUE %b 0 1\r\nx\r\nEND\r\n" % key


def test_a_flood_of_connections_leaves_the_server_as_it_was(start_server: StartServer) -> None:
    server = start_server("--connections", "50", "--no-attach")  # we look into its /proc
    descriptors = Path(f"/proc/{server.process.pid}/fd")
    with connect(server.path) as before:
        before.sendall(b"mn\r\n")
        assert receive(before, b"MN\r\n") == b"MN\r\n"
        open_before = len(list(descriptors.iterdir()))
        refused = 0
        for _ in range(20):
            flood = [connect(server.path) for _ in range(100)]
            for connection in flood:
                connection.settimeout(WAIT_SECONDS)
            told = receive(flood[-1], b"\r\n")
            refused += told == b"ERROR Too many open connections\r\n"
            for connection in flood:
                connection.close()
            before.sendall(b"mn\r\n")  # whoever was there before is served all the while
            assert receive(before, b"MN\r\n") == b"MN\r\n"
            wait_until(lambda: len(list(descriptors.iterdir())) == open_before)
        assert refused == 20
    wait_until(lambda: stat_of(server.path, "curr_connections") == 1)  # it may not have seen the end of the last one


def test_a_client_that_is_killed_while_it_stores_changes_nothing(server_socket: Path) -> None:
    ask(server_socket, b"set kept 0 0 3\r\nold\r\n", b"\r\n")
    code = """
        import os, socket, sys, signal
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(sys.argv[1])
        connection.sendall(b"set kept 0 0 500000\\r\\n" + b"x" * 400000)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    program = "\n".join(line.strip() for line in code.splitlines())
    killed = subprocess.run([sys.executable, "-c", program, str(server_socket)], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    wait_until(lambda: stat_of(server_socket, "curr_connections") == 1)
    assert ask(server_socket, b"get kept\r\n", b"END\r\n") == b"VALUE kept 0 3\r\nold\r\nEND\r\n"


def test_a_reset_in_the_middle_of_a_reply_harms_nobody(server_socket: Path) -> None:
    ask(server_socket, b"set large 0 0 1000000\r\n" + b"x" * 1_000_000 + b"\r\n", b"\r\n")
    for _ in range(50):
        connection = connect(server_socket)
        connection.sendall(b"get large large large\r\n")
        assert connection.recv(1000)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
    wait_until(lambda: stat_of(server_socket, "curr_connections") == 1)
    assert ask(server_socket, b"mn\r\n", b"\r\n") == b"MN\r\n"


def test_values_are_in_no_core_dump(start_server: StartServer) -> None:
    server = start_server("--no-attach")  # else there is no core dump at all
    with connect(server.path) as connection:
        for number in range(40):
            connection.sendall(b"set big%d 0 0 1000000\r\n" % number + os.urandom(1_000_000) + b"\r\n")
            assert receive(connection, b"\r\n") == b"STORED\r\n"
    held_bytes = {"dumped": 0, "left out": 0}
    for mapping in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{server.process.pid}/smaps").read_text())[
        1:
    ]:
        resident = re.search(r"^Rss: +(\d+) kB", mapping, flags=re.MULTILINE)
        flags = re.search(r"^VmFlags: (.*)", mapping, flags=re.MULTILINE)
        assert resident is not None
        assert flags is not None
        held_bytes["left out" if "dd" in flags[1].split() else "dumped"] += int(resident[1]) * 1024
    assert held_bytes["left out"] >= 40_000_000
    assert held_bytes["dumped"] < 20_000_000  # the program, its libraries, and buffers of connections


def test_other_users_cannot_connect(tmp_path: Path, start_server: StartServer) -> None:
    path = start_server().path
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    for folder in path.parents:
        if not folder.stat().st_mode & 0o001 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)  # so that the socket's own mode decides
    code = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
except PermissionError:
    print("refused")
"""
    asked = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (asked.stdout, asked.stderr) == ("refused\n", "")


@pytest.mark.parametrize("command", [b"*1\r\n$-0\r\n\r\n", b"*-0\r\n", b"*2\r\n$3\r\nGET\r\n$-0\r\n\r\n"])
def test_a_length_of_minus_nothing_is_no_length(start_server: StartServer, command: bytes) -> None:
    server = start_server()
    answer = ask(server.path, command, b"\r\n")
    assert answer.startswith(b"-ERR Protocol error")
    assert ask(server.path, b"*1\r\n$4\r\nPING\r\n", b"\r\n") == b"+PONG\r\n"
