"""The server as Redis' clients see it: both versions of the protocol, one key space with memcached's clients."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pymemcache.client.base import Client
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.unit.test_serve import ask

WAIT_SECONDS = 20


@pytest.fixture(params=[2, 3])
def client(server_socket: Path, request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    client = redis.Redis(unix_socket_path=str(server_socket), protocol=request.param, socket_timeout=WAIT_SECONDS)
    client.flushdb()
    yield client
    client.close()


def encoded(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def test_values_come_back(client: redis.Redis) -> None:
    values = {f"key{size}": os.urandom(size) for size in (0, 1, 100, 4000, 4096, 32_768, 65_536, 500_000, 1 << 20)}
    for key, value in values.items():
        assert client.set(key, value)
        assert client.get(key) == value
    assert client.mget(list(values)) == list(values.values())
    assert client.mget("nope", "key1", "nope") == [None, values["key1"], None]
    assert client.delete("key1", "key100", "nope") == 2
    assert client.exists("key1", "key4000", "key4000") == 2
    assert client.dbsize() == len(values) - 2


def test_set_has_its_options(client: redis.Redis) -> None:
    assert client.set("a", "1", nx=True)
    assert client.set("a", "2", nx=True) is None
    assert client.set("b", "2", xx=True) is None
    assert client.set("a", "2", xx=True, get=True) == b"1"
    assert client.set("new", "1", get=True) is None
    assert client.get("new") == b"1"
    assert client.set("a", "3", ex=100)
    assert client.set("a", "4", keepttl=True)
    assert 99 <= client.ttl("a") <= 100
    assert client.set("a", "5")
    assert client.ttl("a") == -1
    assert client.execute_command("GETSET", "a", "6") == b"5"
    assert client.getdel("a") == b"6"
    assert client.get("a") is None
    assert client.execute_command("SETNX", "a", "1")
    assert not client.execute_command("SETNX", "a", "2")
    with pytest.raises(redis.ResponseError, match="invalid expire time"):
        client.set("a", "1", ex=0)
    with pytest.raises(redis.ResponseError, match="syntax error"):
        client.execute_command("SET", "a", "1", "NX", "XX")
    with pytest.raises(redis.ResponseError, match="not an integer"):
        client.execute_command("SET", "a", "1", "EX", "soon")


def test_expiry(client: redis.Redis) -> None:
    assert client.ttl("nope") == -2
    assert client.execute_command("SETEX", "a", 100, "1")
    assert 99_000 <= client.pttl("a") <= 100_000
    assert client.expire("a", 500)
    assert 499 <= client.ttl("a") <= 500
    assert client.expire("a", 100, gt=True) is False
    assert client.expire("a", 100, lt=True) is True
    assert client.expire("a", 100, nx=True) is False
    moment = int(client.time()[0]) + 1000
    assert client.expireat("a", moment)
    assert abs(client.expiretime("a") - moment) <= 1
    assert client.persist("a")
    assert client.persist("a") is False
    assert client.ttl("a") == -1
    assert client.getex("a", ex=50) == b"1"
    assert 49 <= client.ttl("a") <= 50
    assert client.getex("a", persist=True) == b"1"
    assert client.ttl("a") == -1
    assert client.expire("a", -1)
    assert client.get("a") is None
    assert client.expire("a", 1) is False
    assert client.execute_command("PSETEX", "a", 100_000, "1")
    for past_ms in (1, -1, -(2**63)):
        client.set("a", "1")
        assert client.pexpireat("a", past_ms) is True
        assert client.exists("a") == 0


def test_numbers(client: redis.Redis) -> None:
    assert client.incr("n") == 1
    assert client.incrby("n", 41) == 42
    assert client.decr("n") == 41
    assert client.decrby("n", 100) == -59
    assert client.get("n") == b"-59"
    client.expire("n", 100)
    assert client.incr("n") == -58
    assert client.ttl("n") >= 99
    client.set("n", str(2**63 - 1))
    with pytest.raises(redis.ResponseError, match="overflow"):
        client.incr("n")
    client.set("n", "12 ")
    with pytest.raises(redis.ResponseError, match="not an integer"):
        client.incr("n")


def test_strings(client: redis.Redis) -> None:
    assert client.append("s", "abc") == 3
    assert client.append("s", "def") == 6
    assert client.strlen("s") == 6
    assert client.strlen("nope") == 0
    assert client.type("s") == b"string"
    assert client.type("nope") == b"none"
    assert client.mset({"x": "1", "y": "2"})
    assert client.mget("x", "y") == [b"1", b"2"]
    assert client.unlink("x", "y") == 2


def test_transactions_are_queued_and_run(client: redis.Redis) -> None:
    with client.pipeline(transaction=True) as pipeline:
        pipeline.set("a", "1").incr("a").get("a").mget("a", "nope")
        assert pipeline.execute() == [True, 2, b"2", [b"2", None]]
    with client.pipeline(transaction=False) as pipeline:
        pipeline.set("a", "x").incr("a").get("a")
        set_answer, error, value = pipeline.execute(raise_on_error=False)
        assert (set_answer, value) == (True, b"x")
        assert isinstance(error, redis.ResponseError)
    client.execute_command("MULTI")
    with pytest.raises(redis.ResponseError, match="unknown command"):
        client.execute_command("LPUSH", "a", "1")


def test_a_transaction_with_a_mistake_is_not_run(server_socket: Path) -> None:
    commands = [
        encoded(b"MULTI"),
        encoded(b"SET", b"m", b"1"),
        encoded(b"NOPE"),
        encoded(b"EXEC"),
        encoded(b"EXISTS", b"m"),
    ]
    answer = ask(server_socket, b"".join(commands), b":0\r\n")
    assert answer.startswith(b"+OK\r\n+QUEUED\r\n-ERR unknown command 'NOPE'\r\n-EXECABORT")
    commands = [
        encoded(b"MULTI"),
        encoded(b"SET", b"m", b"1"),
        encoded(b"DISCARD"),
        encoded(b"EXISTS", b"m"),
        encoded(b"EXEC"),
    ]
    answer = ask(server_socket, b"".join(commands), b"MULTI\r\n")
    assert answer == b"+OK\r\n+QUEUED\r\n+OK\r\n:0\r\n-ERR EXEC without MULTI\r\n"


def test_what_needs_more_than_a_cache_is_refused(client: redis.Redis) -> None:
    for command in (
        ["LPUSH", "a", "1"],
        ["HSET", "a", "b", "c"],
        ["EVAL", "return 1", "0"],
        ["WATCH", "a"],
        ["SCAN", "0"],
    ):
        with pytest.raises(redis.ResponseError, match="unknown command"):
            client.execute_command(*command)
    with pytest.raises(redis.ResponseError, match="one key space"):
        client.execute_command("SELECT", "1")
    with pytest.raises(redis.ResponseError, match="wrong number of arguments"):
        client.execute_command("GET")
    with pytest.raises(redis.ResponseError, match="16384"):
        client.set("k" * 20_000, "x")


def test_one_key_space_with_memcached(client: redis.Redis, server_socket: Path) -> None:
    other = Client(str(server_socket), timeout=WAIT_SECONDS)
    client.set("shared", "from redis", ex=100)
    assert other.get("shared") == b"from redis"
    assert other.set("shared", "from memcached", noreply=False)
    assert client.get("shared") == b"from memcached"
    assert client.ttl("shared") == -1
    client.set("n", 41)
    assert other.incr("n", 1) == 42
    assert client.get("n") == b"42"
    other.close()


def test_info_has_what_exporters_read(client: redis.Redis) -> None:
    client.set("a", "1")
    client.get("a")
    client.get("nope")
    info = client.info()
    for name in (
        *("redis_version", "uptime_in_seconds", "connected_clients", "maxclients", "used_memory", "used_memory_rss"),
        *("maxmemory", "maxmemory_policy", "total_commands_processed", "total_connections_received", "evicted_keys"),
        *("rejected_connections", "keyspace_hits", "keyspace_misses", "expired_keys", "role", "used_cpu_sys", "db0"),
    ):
        assert name in info
    assert info["db0"]["keys"] >= 1
    assert info["keyspace_hits"] >= 1
    assert info["keyspace_misses"] >= 1
    assert info["maxmemory"] > 0


def test_names_of_clients(client: redis.Redis) -> None:
    with client.client() as one:
        assert one.client_setname("worker-1")
        assert one.client_getname() in ("worker-1", b"worker-1")  # redis-py decodes it, or not
        assert one.client_id() > 0
        assert one.ping()
        assert one.echo("x") == b"x"


def test_passwords(start_server: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "words").write_text("user:word\nsecret\n")
    path = start_server("--password-file", str(tmp_path / "words")).path
    for options in ({"password": "secret"}, {"username": "user", "password": "word"}):
        for protocol in (2, 3):
            client = redis.Redis(unix_socket_path=str(path), protocol=protocol, **options)
            assert client.ping()
            client.close()
    for options in ({}, {"password": "wrong"}, {"username": "user", "password": "worse"}):
        at_once = Retry(NoBackoff(), 0)
        client = redis.Redis(unix_socket_path=str(path), retry=at_once, **options)
        with pytest.raises(redis.AuthenticationError):
            client.ping()
        client.close()
    assert ask(path, encoded(b"GET", b"a"), b"\r\n").startswith(b"-NOAUTH")
    assert ask(path, encoded(b"EXEC"), b"\r\n").startswith(b"-NOAUTH")


@pytest.mark.parametrize(
    "sent",
    [
        b"*x\r\n",
        b"*1\r\n+GET\r\n",
        b"*1\r\n$-1\r\n",
        b"*1\r\n$9999999999999999999999\r\n",
        b"*99999999\r\n",
        b"*1\r\n$1\r\nabc\r\n",
        b"*" + b"1" * 100,
        b"*1\r\n$" + b"1" * 100,
        b"*1\r\n$4\r\nPING\r\nPING\r\n",
    ],
)
def test_where_framing_is_lost_the_connection_ends(server_socket: Path, sent: bytes) -> None:
    answer = ask(server_socket, sent, b"never")
    assert b"-ERR Protocol error" in answer


def test_what_is_too_large_is_refused_and_the_next_command_is_found(start_server: Callable[..., Any]) -> None:
    path = start_server("--max-value", "10K").path
    large = b"x" * 10_241
    sent = [
        encoded(b"SET", b"a", b"1"),
        encoded(b"SET", b"a", large, b"EX", b"10"),
        encoded(b"GET", b"a"),
        encoded(b"MSET", *[large[1:]] * 20),
        encoded(b"APPEND", b"a", large[1:]),
        encoded(b"ECHO", b"end"),
    ]
    answer = ask(path, b"".join(sent), b"end\r\n")
    assert answer.count(b"--max-value") == 2
    assert b"$1\r\n1\r\n" in answer
    assert b"-ERR the command is larger" in answer
    for piece in (37, 1000):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(WAIT_SECONDS)
            connection.connect(str(path))
            got, data = b"", b"".join(sent)
            for at in range(0, len(data), piece):
                connection.sendall(data[at : at + piece])
            while not got.endswith(b"end\r\n"):
                got += connection.recv(1 << 16)
            assert got == answer


def test_a_slow_reader_of_many_values_gets_them_all(start_server: Callable[..., Any]) -> None:
    path = start_server("--buffers", "8M").path
    value = b"v" * 900_000
    assert ask(path, encoded(b"SET", b"big", value), b"\r\n") == b"+OK\r\n"
    one = b"$900000\r\n" + value + b"\r\n"
    assert (
        ask(path, encoded(b"MGET", *[b"big"] * 20) + encoded(b"ECHO", b"end"), b"end\r\n")
        == b"*20\r\n" + one * 20 + b"$3\r\nend\r\n"
    )
    many = [encoded(b"MULTI"), *[encoded(b"MGET", b"big", b"big")] * 8, encoded(b"EXEC"), encoded(b"ECHO", b"end")]
    expected = b"+OK\r\n" + b"+QUEUED\r\n" * 8 + b"*8\r\n" + (b"*2\r\n" + one * 2) * 8 + b"$3\r\nend\r\n"
    assert ask(path, b"".join(many), b"end\r\n") == expected
