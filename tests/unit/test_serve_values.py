"""Large values on their way into the server: in pieces, half sent, from clients that die, beside clients that read."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.test_serve import ask, connect, receive, stats, wait_until

StartServer = Callable[..., Any]
SIZES = (4096, 65_536, 1 << 20)


def set_of(protocol: str, key: bytes, value: bytes) -> bytes:
    if protocol == "text":
        return b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value)
    if protocol == "meta":
        return b"ms %s %d\r\n%s\r\n" % (key, len(value), value)
    return b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(key), key, len(value), value)


STORED = {"text": b"STORED\r\n", "meta": b"HD\r\n", "resp": b"+OK\r\n"}
protocols = pytest.mark.parametrize("protocol", list(STORED))
sizes = pytest.mark.parametrize("size", SIZES)


def read(path: Path, key: bytes) -> bytes | None:
    answer = ask(path, b"get %s\r\n" % key, b"END\r\n")
    return answer.split(b"\r\n", 1)[1].removesuffix(b"\r\nEND\r\n") if answer != b"END\r\n" else None


@protocols
@sizes
def test_until_a_value_is_whole_the_old_one_is_read(server_socket: Path, protocol: str, size: int) -> None:
    old, new = os.urandom(size), os.urandom(size)
    key = b"whole%d" % size
    assert ask(server_socket, set_of("text", key, old)) == b"STORED\r\n"
    command = set_of(protocol, key, new)
    with connect(server_socket) as connection:
        for at in range(0, len(command), len(command) // 7):
            connection.sendall(command[at : at + len(command) // 7])
            if at + len(command) // 7 < len(command):
                assert read(server_socket, key) == old
        assert receive(connection, b"\r\n") == STORED[protocol]
    assert read(server_socket, key) == new


@protocols
@sizes
def test_commands_behind_a_large_value_are_answered(server_socket: Path, protocol: str, size: int) -> None:
    value = os.urandom(size)
    commands = b"".join(set_of(protocol, b"behind%d" % number, value) for number in range(5))
    with connect(server_socket) as connection:
        connection.sendall(commands)
        assert receive(connection, STORED[protocol] * 5) == STORED[protocol] * 5
    assert [read(server_socket, b"behind%d" % number) for number in range(5)] == [value] * 5


@protocols
@sizes
def test_a_client_that_is_killed_in_the_middle_changes_nothing(
    start_server: StartServer, protocol: str, size: int
) -> None:
    path = start_server().path
    old = os.urandom(100)
    assert ask(path, set_of("text", b"killed", old)) == b"STORED\r\n"
    before = int(stats(path)["buffer_bytes"])
    command = set_of(protocol, b"killed", b"x" * size)
    for sent in (len(command) - size, len(command) // 2, len(command) - 1):
        child = os.fork()
        if child == 0:
            try:
                connection = socket.socket(socket.AF_UNIX)
                connection.connect(str(path))
                connection.sendall(command[:sent])
                os.kill(os.getpid(), signal.SIGKILL)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        wait_until(lambda: stats(path)["curr_connections"] == "1")
        assert read(path, b"killed") == old
    wait_until(lambda: int(stats(path)["buffer_bytes"]) <= before)
    assert stats(path)["curr_items"] == "1"


@protocols
def test_half_a_value_is_given_up_after_a_while(start_server: StartServer, protocol: str) -> None:
    path = start_server("--stall-seconds", "1").path
    with connect(path) as connection:
        connection.sendall(set_of(protocol, b"half", b"x" * 1_000_000)[:-500_000])
        assert receive(connection, b"nothing") == b""
    assert read(path, b"half") is None
    assert stats(path)["idle_kicks"] == "1"


@protocols
def test_a_value_that_expires_while_it_comes_is_not_there(start_server: StartServer, protocol: str) -> None:
    path = start_server("--allow-clock").path
    value = b"x" * 500_000
    command = {
        "text": b"set soon 0 10 %d\r\n" % len(value),
        "meta": b"ms soon %d T10\r\n" % len(value),
        "resp": b"*4\r\n$5\r\nSETEX\r\n$4\r\nsoon\r\n$2\r\n10\r\n$%d\r\n" % len(value),
    }[protocol]
    with connect(path) as connection:
        connection.sendall(command + value[:-1])
        assert ask(path, b"debugtime 5\r\n") == b"OK\r\n"
        connection.sendall(value[-1:] + b"\r\n")
        assert receive(connection, b"\r\n") == STORED[protocol]
    assert ask(path, b"debugtime 7\r\n") == b"OK\r\n"
    assert read(path, b"soon") == value, "it has ten seconds from when it was stored"
    assert ask(path, b"debugtime 4\r\n") == b"OK\r\n"
    assert read(path, b"soon") is None


def test_values_under_way_are_in_the_budget_of_buffers(start_server: StartServer) -> None:
    path = start_server("--buffers", "8M").path
    before = int(stats(path)["buffer_bytes"])
    with connect(path) as connection:
        connection.sendall(set_of("text", b"way", b"x" * 1_000_000)[:-500_000])
        wait_until(lambda: int(stats(path)["buffer_bytes"]) >= before + 1_000_000)
        assert int(stats(path)["buffer_bytes"]) < before + 1_300_000
    wait_until(lambda: int(stats(path)["buffer_bytes"]) <= before)
