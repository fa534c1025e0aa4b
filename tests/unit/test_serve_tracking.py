"""CLIENT TRACKING: a client that keeps values near it is told when they change, whoever changes them, and in time."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.cache import CacheConfig

WAIT_SECONDS = 20
Reply = Any


class Push(list[Any]):
    """What came without being asked for."""


class Connection:
    """RESP 3, by hand: replies and pushes in the order in which they came."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(WAIT_SECONDS)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rb")
        assert self.ask("HELLO", "3")

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def send(self, *words: str) -> None:
        encoded = [f"${len(word)}\r\n{word}\r\n" for word in words]
        self._socket.sendall(f"*{len(words)}\r\n{''.join(encoded)}".encode())

    def read(self) -> Reply:
        line = self._file.readline()
        assert line.endswith(b"\r\n"), "the server hung up"
        kind, rest = line[:1], line[1:-2]
        if kind == b"$":
            return self._file.read(int(rest) + 2)[:-2] if rest != b"-1" else None
        if kind in b"*>%":
            items = [self.read() for _ in range(int(rest) * (2 if kind == b"%" else 1))]
            return Push(items) if kind == b">" else items
        return None if kind == b"_" else int(rest) if kind == b":" else line[:-2]

    def ask(self, *words: str) -> Reply:
        self.send(*words)
        return self.read()


@pytest.fixture
def connect(server_socket: Path) -> Iterator[Callable[[], Connection]]:
    connections: list[Connection] = []

    def make() -> Connection:
        connections.append(Connection(server_socket))
        return connections[-1]

    make().ask("FLUSHALL")
    yield make
    for connection in connections:
        connection.close()


def test_what_was_read_is_told_once(connect: Callable[[], Connection]) -> None:
    reader, writer = connect(), connect()
    assert reader.ask("CLIENT", "TRACKING", "ON") == b"+OK"
    writer.ask("SET", "a", "1")
    assert reader.ask("GET", "a") == b"1"
    writer.ask("SET", "unread", "1")
    writer.ask("SET", "a", "2")
    writer.ask("SET", "a", "3")
    assert reader.read() == [b"invalidate", [b"a"]]
    assert reader.ask("PING") == b"+PONG"  # nothing else was told
    assert reader.ask("MGET", "a", "unread") == [b"3", b"1"]
    writer.ask("DEL", "unread")
    assert reader.read() == [b"invalidate", [b"unread"]]
    writer.ask("FLUSHALL")
    assert reader.read() == [b"invalidate", None]


@pytest.mark.parametrize("change", ["INCR n", "APPEND n 1", "EXPIRE n 100", "GETDEL n", "MSET n 5", "SET n 5 XX GET"])
def test_every_change_is_told(connect: Callable[[], Connection], change: str) -> None:
    reader, writer = connect(), connect()
    reader.ask("CLIENT", "TRACKING", "ON")
    writer.ask("SET", "n", "1")
    reader.ask("GET", "n")
    writer.ask(*change.split())
    assert reader.read() == [b"invalidate", [b"n"]]


def test_changes_by_memcached_are_told(connect: Callable[[], Connection], server_socket: Path) -> None:
    reader = connect()
    reader.ask("CLIENT", "TRACKING", "ON")
    with socket.socket(socket.AF_UNIX) as other:
        other.settimeout(WAIT_SECONDS)
        other.connect(str(server_socket))
        for command in (
            b"set m 0 0 1\r\n1\r\n",
            b"incr m 1\r\n",
            b"touch m 100\r\n",
            b"ms m 1\r\n5\r\n",
            b"delete m\r\n",
        ):
            reader.ask("GET", "m")
            other.sendall(command)
            assert reader.read() == [b"invalidate", [b"m"]]
            assert other.recv(100)


def test_prefixes_are_told_without_a_read(connect: Callable[[], Connection]) -> None:
    reader, writer = connect(), connect()
    assert reader.ask("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "user:", "PREFIX", "page:") == b"+OK"
    writer.ask("SET", "other", "1")
    writer.ask("SET", "user:1", "1")
    assert reader.read() == [b"invalidate", [b"user:1"]]
    writer.ask("SET", "page:1", "1")
    assert reader.read() == [b"invalidate", [b"page:1"]]
    assert reader.ask("CLIENT", "TRACKING", "OFF") == b"+OK"
    writer.ask("SET", "user:1", "2")
    assert reader.ask("PING") == b"+PONG"


def test_own_changes_are_told_unless_not_wanted(connect: Callable[[], Connection]) -> None:
    one = connect()
    one.ask("CLIENT", "TRACKING", "ON", "BCAST")
    assert one.ask("SET", "a", "1") == b"+OK"
    assert one.read() == [b"invalidate", [b"a"]]
    one.ask("CLIENT", "TRACKING", "ON", "BCAST", "NOLOOP")
    one.ask("SET", "a", "2")
    assert one.ask("PING") == b"+PONG"


def test_tracking_needs_version_3(server_socket: Path) -> None:
    client = redis.Redis(unix_socket_path=str(server_socket), protocol=2)
    with pytest.raises(redis.ResponseError, match="version 3"):
        client.execute_command("CLIENT", "TRACKING", "ON")
    client.close()


def test_mail_of_a_client_that_does_not_read_is_bounded(connect: Callable[[], Connection]) -> None:
    reader, writer = connect(), connect()
    reader.ask("CLIENT", "TRACKING", "ON", "BCAST")
    for number in range(0, 30_000, 100):
        for one in range(number, number + 100):
            writer.send("SET", f"a long key, so that there is much mail: {one:060}", "x")
        for _ in range(100):
            assert writer.read() == b"+OK"
    reader.send("PING")
    told: set[bytes] = set()
    forgets_all = False
    while (got := reader.read()) != b"+PONG":
        assert got[0] == b"invalidate"
        forgets_all = forgets_all or got[1] is None
        told.update(got[1] or ())
    while not forgets_all and len(told) < 30_000:
        got = reader.read()
        forgets_all = forgets_all or got[1] is None
        told.update(got[1] or ())
    assert forgets_all or len(told) == 30_000


def test_the_cache_of_redis_py_stays_coherent(server_socket: Path) -> None:
    near = redis.Redis(unix_socket_path=str(server_socket), protocol=3, cache_config=CacheConfig())
    far = redis.Redis(unix_socket_path=str(server_socket), protocol=3)
    for number in range(50):
        far.set("near", str(number))
        while near.get("near") != str(number).encode():
            pass  # the message is under way
        assert near.get("near") == str(number).encode()
    near.close()
    far.close()


def test_at_rest_no_near_cache_is_stale(connect: Callable[[], Connection]) -> None:
    """Writers at full speed, a near cache that forgets what it is told to: at the end it has what the server has."""
    near, chance = connect(), random.Random(5)
    near.ask("CLIENT", "TRACKING", "ON")
    keys = [f"k{number}" for number in range(50)]
    held: dict[str, bytes | None] = {}

    def write(seed: int, connection: Connection) -> None:
        own = random.Random(seed)
        for number in range(3000):
            connection.ask("SET", own.choice(keys), f"{seed}:{number}")

    writers = [threading.Thread(target=write, args=(seed, connect())) for seed in range(3)]
    for thread in writers:
        thread.start()

    def take(got: Reply) -> bool:
        if not isinstance(got, Push):
            return False
        for key in got[1] if got[1] is not None else list(held):
            held.pop(key.decode() if isinstance(key, bytes) else key, None)
        return True

    while any(thread.is_alive() for thread in writers):
        key = chance.choice(keys)
        near.send("GET", key)
        while take(got := near.read()):
            pass
        held[key] = got
    for thread in writers:
        thread.join()
    near.send("PING")
    while take(near.read()):
        pass
    other = connect()
    settled = {key: other.ask("GET", key) for key in keys}
    near.send("PING")
    while take(near.read()):
        pass
    assert {key: value for key, value in held.items() if settled[key] != value} == {}
