"""`droppable.connect`: one cache in several processes, whatever happens to the server, the process and its threads."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import droppable
from tests.server import Server
from tests.unit.test_serve import wait_until

StartServer = Callable[..., Any]
WAIT_SECONDS = 20
VALUES: list[Any] = [
    b"",
    b"bytes",
    b"\0" * 5000,
    b"x" * 500_000,
    "",
    "text",
    "t\u00e9xt \N{SNAKE} \udc80",
    "a" * 10_000,
]


@pytest.fixture(scope="module")
def path(start_server: StartServer) -> Path:
    found: Path = start_server("--allow-clock").path
    return found


@pytest.fixture
def shared(path: Path) -> Iterator[droppable.SharedCache]:
    with droppable.connect(path, strict=True) as cache:
        cache.clear()
        yield cache


@pytest.fixture(params=["memory", "socket"])
def either(path: Path, request: pytest.FixtureRequest) -> Iterator[droppable.SharedCache]:
    """A client that reads the server's memory, and one that asks."""
    with droppable.connect(path, strict=True, attach=request.param == "memory") as cache:
        assert cache.stats().is_attached == (request.param == "memory"), cache.stats().why_not_attached
        cache.clear()
        yield cache


def raw(path: Path, *words: bytes) -> bytes:
    """One command, as somebody else may send it."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(WAIT_SECONDS)
        connection.connect(str(path))
        connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
        return connection.recv(1 << 16)


class TestValues:
    @pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__} {len(value)}")
    def test_bytes_and_text_come_back(self, either: droppable.SharedCache, value: Any) -> None:
        assert either.set("key", value)
        found = either["key"]
        assert (type(found), found) == (type(value), value)

    def test_bytearrays_and_memoryviews_come_back_as_bytes(self, either: droppable.SharedCache) -> None:
        for value in (bytearray(b"abc"), memoryview(b"abcdef")[::2], memoryview(b"abc")):
            assert either.set("key", value)
            assert either["key"] == bytes(value)

    def test_arrays_come_back_read_only(self, either: droppable.SharedCache, numpy: Any) -> None:
        record = numpy.dtype([("a", "<i4"), ("b", ">f8", (2,))])
        for array in (
            numpy.arange(100_000, dtype="f8"),
            numpy.arange(12).reshape(3, 4),
            numpy.asfortranarray(numpy.arange(12).reshape(3, 4)),
            numpy.arange(100)[::3],
            numpy.zeros((0, 3), "u1"),
            numpy.array(5.5),
            numpy.array(["2020-01-01", "NaT"], "M8[ns]"),
            numpy.array([b"ab", b"c"]),
            numpy.array(["\u00e9", "xyz"]),
            numpy.zeros(3, record),
            numpy.array([True, False]),
        ):
            assert either.set("key", array)
            found = either["key"]
            assert found.dtype == array.dtype
            assert found.shape == array.shape
            assert found.tobytes() == array.tobytes()
            assert not found.flags.writeable

    def test_other_objects_need_a_serializer(self, path: Path, numpy: Any) -> None:
        with droppable.connect(path) as plain, droppable.connect(path, serializer=pickle) as pickling:
            for value in (1 << 63, True, None, [1], numpy.array([None])):
                with pytest.raises(
                    TypeError,
                    match=r"value must be bytes, str, an int of 64 bits or a NumPy array without objects; you gave",
                ):
                    plain.set("key", value)  # type: ignore[arg-type]
            assert pickling.set("key", {"a": [1, 2]})
            assert pickling["key"] == {"a": [1, 2]}
            assert plain.get("key") is None
            assert pickling.set("none", None)
            assert pickling.get("none", "default") is None

    def test_what_others_have_written_is_not_run(
        self, either: droppable.SharedCache, path: Path, tmp_path: Path
    ) -> None:
        """Each of these is a miss: a pickle, an array whose dtype is a pickle, text that is none, unknown kinds."""
        trap = tmp_path / "ran"

        class Trap:
            def __reduce__(self) -> Any:
                return (os.mkdir, (str(trap),))

        evil = pickle.dumps(Trap())
        key = droppable.lowlevel.shared_key("key")
        shape = b"C\x01" + (3).to_bytes(8, "little")
        for kind, meta, value in (
            (3, b"", evil),
            (4, shape + evil, b"abc"),
            (5, evil, b"abc"),
            (6, b"", evil),
            (9, b"", evil),
            (8, evil, b"abc"),
            (8, b"((3,), 'C', __import__('os').mkdir(%r))" % str(trap), b"abc"),
            (8, b"((3,), 'C', '|O')", b"a" * 24),
            (8, b"((2,), 'C', '|u1')", b"abc"),
            (8, b"((30000,), 'C', '|u1')", b"abc"),
            (1, b"", b"\xff\xfe is no ASCII"),
            (2, b"", b"\xff\xfe is no UTF-8"),
            (200, b"", b"abc"),
        ):
            assert raw(path, b"DROPPABLE.SET", key, b"%d" % kind, meta, value, b"0") == b"+OK\r\n"
            assert either.get("key", "a miss") == "a miss", kind
            assert either.get_many(["key"]) == {}, kind
        assert not trap.exists()

    def test_a_value_that_is_too_large_is_told(self, shared: droppable.SharedCache) -> None:
        with pytest.raises(droppable.ValueTooLargeError, match=r"--max-value"):
            shared.set("key", b"x" * (2 << 20))
        assert shared.get("key") is None


class TestKeys:
    def test_types_are_told_apart(self, shared: droppable.SharedCache) -> None:
        keys: list[Any] = [1, 1.0, True, "1", b"1", None, (1, "a"), ("1", "a"), frozenset({1, 2}), "\u00e9", "x" * 300]
        for number, key in enumerate(keys):
            assert shared.set(key, b"%d" % number)
        assert [shared.get(key) for key in keys] == [b"%d" % number for number in range(len(keys))]

    def test_keys_that_are_too_long_are_told(self, shared: droppable.SharedCache) -> None:
        for call in (shared.get, shared.delete, shared.__contains__, lambda key: shared.set(key, b"")):
            with pytest.raises(ValueError, match=r"at most 4096 bytes; yours has more"):
                call("x" * 5000)

    def test_keys_that_cannot_be_hashed_are_told(self, shared: droppable.SharedCache) -> None:
        with pytest.raises(TypeError):
            shared.get([1])  # type: ignore[arg-type]


class TestCalls:
    def test_a_mapping(self, either: droppable.SharedCache) -> None:
        either["a"] = b"1"
        assert "a" in either
        assert either["a"] == b"1"
        del either["a"]
        assert "a" not in either
        assert either.get("a") is None
        assert either.get("a", 5) == 5
        with pytest.raises(KeyError):
            either["a"]
        with pytest.raises(KeyError):
            del either["a"]

    def test_add_stores_only_what_is_new(self, shared: droppable.SharedCache) -> None:
        assert shared.add("a", b"1")
        assert not shared.add("a", b"2")
        assert shared["a"] == b"1"

    def test_many(self, either: droppable.SharedCache) -> None:
        assert either.set_many({n: b"%d" % n for n in range(300)}) == []
        assert either.get_many(range(0, 600, 2)) == {n: b"%d" % n for n in range(0, 300, 2)}
        assert either.delete_many(range(0, 600, 2)) == 150
        assert either.get_many([]) == {}
        assert len(either.get_many(range(300))) == 150

    def test_a_time_to_live(self, either: droppable.SharedCache, path: Path) -> None:
        either.set("short", b"v", ttl=50)
        either.set("long", b"v", ttl=5000)
        either.set("ever", b"v", ttl=droppable.NEVER)
        assert len(either.get_many(["short", "long", "ever"])) == 3
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(b"debugtime 60\r\n")
            assert connection.recv(100) == b"OK\r\n"
        assert sorted(either.get_many(["short", "long", "ever"])) == ["ever", "long"]

    def test_many_at_once_give_what_each_alone_gives(self, either: droppable.SharedCache) -> None:
        """Of all types and lengths, some beside each other in the server's memory, some far apart; with some twice."""
        values = {f"short{n}": b"%d" % n * (n % 90) for n in range(700)}
        values |= {n: f"text {n}" for n in range(100)} | {("t", n): VALUES[n % len(VALUES)] for n in range(60)}
        values |= {f"\u00e9{n}": b"k" for n in range(20)} | {"long key " * 200 + str(n): b"l" for n in range(5)}
        for key, value in values.items():
            assert either.set(key, value)
        keys: list[Any] = [*values, "absent", *values, *(f"absent{n}" for n in range(200))]
        for again in range(2):  # and again, where it is known where they lie
            assert either.get_many(keys) == values, again
        assert either.get_many(iter(keys[:300])) == {key: values[key] for key in keys[:300]}
        stats = either.stats()
        if stats.is_attached:
            assert stats.hits_read >= 4 * len(values)

    def test_a_key_that_cannot_be_one_ends_it(self, either: droppable.SharedCache) -> None:
        with pytest.raises(TypeError):
            either.get_many(["a", {}, "b"])
        with pytest.raises(ValueError, match="4096"):
            either.get_many(["a", "k" * 5000, "b"])
        with pytest.raises(TypeError):
            either.get_many(5)  # type: ignore[arg-type]

    def test_get_or_create(self, either: droppable.SharedCache, numpy: Any) -> None:
        calls = []

        def make() -> Any:
            calls.append(1)
            return numpy.arange(3)

        first, second = either.get_or_create("k", make), either.get_or_create("k", make)
        assert first.tolist() == second.tolist() == [0, 1, 2]
        assert not first.flags.writeable
        assert calls == [1]
        with pytest.raises(ZeroDivisionError):
            either.get_or_create("l", lambda: 1 / 0)
        assert either.get_or_create("l", lambda: b"now") == b"now"

    def test_threads_compute_once(self, shared: droppable.SharedCache) -> None:
        calls, ready = [], threading.Barrier(8)

        def make() -> bytes:
            calls.append(1)
            return b"value"

        def run() -> None:
            ready.wait(WAIT_SECONDS)
            assert shared.get_or_create("k", make) == b"value"

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_SECONDS)
        assert calls == [1]

    def test_what_is_lacking_is_told(self, shared: droppable.SharedCache) -> None:
        for call in (shared.view, shared.pin, shared.__len__, lambda: list(shared), lambda: "x" in iter(shared)):
            with pytest.raises(droppable.UnsupportedError, match=r"a SharedCache has no"):
                call()
        with pytest.raises(TypeError, match=r"connect in the other process"):
            pickle.dumps(shared)
        assert bool(shared)

    def test_counts(self, path: Path) -> None:
        with droppable.connect(path) as cache:
            cache.clear()
            before = cache.server_stats()
            cache.set("k", b"v")
            assert [cache.get("k"), cache.get("l"), cache.get("k")] == [b"v", None, b"v"]
            stats = cache.stats()
            assert (stats.hits_read, stats.hits_asked, stats.misses, stats.sets) == (2, 0, 1, 1)
            assert (stats.failures, stats.connections, stats.is_attached, stats.why_not_attached) == (0, 1, True, "")
            after = cache.server_stats()
            assert after["direct_hits"] - before["direct_hits"] == 2
            assert (after["entries"], after["sets"] - before["sets"]) == (1, 1)
        assert cache.stats().hits_read == 2

    def test_closed(self, path: Path) -> None:
        before = len(os.listdir("/proc/self/fd"))
        cache = droppable.connect(path)
        assert len(os.listdir("/proc/self/fd")) == before + 2  # the connection and the memory; the board needs none
        cache.set("k", b"v")
        cache.close()
        cache.close()
        assert len(os.listdir("/proc/self/fd")) == before
        for call in (lambda: cache.get("k"), lambda: cache.set("k", b""), lambda: "k" in cache, cache.clear):
            with pytest.raises(droppable.ClosedError):
                call()
        assert "closed" in repr(cache)

    def test_wrong_arguments(self, path: Path) -> None:
        with pytest.raises(ValueError, match=r"user needs a password; you gave user='me' alone"):
            droppable.connect(path, user="me")
        with pytest.raises(TypeError, match=r"serializer must be an object with the functions dumps"):
            droppable.connect(path, serializer=5)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"timeout_seconds must be more than 0 seconds; you gave 0"):
            droppable.connect(path, timeout_seconds=0)


class TestApart:
    def test_values_lie_apart_from_those_of_memcached_and_redis(
        self, shared: droppable.SharedCache, path: Path
    ) -> None:
        key = droppable.lowlevel.shared_key("k")
        shared.set("k", b"ours")
        assert raw(path, b"GET", key) == raw(path, b"GET", b"k") == b"$-1\r\n"
        assert raw(path, b"SET", key, b"theirs") == b"+OK\r\n"
        assert shared["k"] == b"ours"
        assert raw(path, b"FLUSHALL") == b"+OK\r\n"
        assert shared["k"] == b"ours"
        assert raw(path, b"SET", key, b"theirs") == b"+OK\r\n"
        shared.clear()
        assert raw(path, b"GET", key) == b"$6\r\ntheirs\r\n"
        raw(path, b"DEL", key)


class TestServers:
    def test_without_a_server_all_is_a_miss(self, tmp_path: Path) -> None:
        with droppable.connect(tmp_path / "nobody") as cache:
            assert cache.get("k", "default") == "default"
            assert not cache.set("k", b"v")
            assert not cache.delete("k")
            assert "k" not in cache
            assert cache.get_many(["k"]) == {}
            assert not cache.clear()
            assert cache.server_stats() == {}
            assert cache.get_or_create("k", lambda: b"v") == b"v"
            assert cache.stats().failures > 0
            assert not cache.stats().is_attached
        with pytest.raises(OSError, match=r"cannot be reached"):
            droppable.connect(tmp_path / "nobody", strict=True)

    def test_a_server_that_comes_later_is_found(self, tmp_path: Path) -> None:
        with droppable.connect(tmp_path / "socket", retry_seconds=0.001) as cache:
            assert not cache.set("k", b"v")
            server = Server(tmp_path / "socket")
            try:
                wait_until(lambda: cache.set("k", b"v"))
                assert cache["k"] == b"v"
                assert cache.stats().hits_read == 1
            finally:
                server.kill()

    def test_a_server_that_is_killed_and_started_anew(self, server: Server) -> None:
        with droppable.connect(server.path, retry_seconds=0.001) as cache:
            for round_ in range(10):
                assert cache.set("k", b"%d" % round_)
                assert cache.get("k") == b"%d" % round_
                server.kill()
                assert cache.get("k") is None  # the memory is gone, and so is the value
                assert cache.get_many(["k"]) == {}
                assert not cache.set("k", b"lost")
                server.start()
                wait_until(lambda: cache.server_stats() != {})
                assert cache.get("k") is None
            assert cache.stats().hits_read == 10
            assert cache.stats().connections == 11
            assert cache.stats().is_attached

    def test_calls_find_a_server_that_was_started_anew_at_once(self, server: Server) -> None:
        """The first call after a restart, without one that failed in between."""
        for call in ("get", "set", "many"):
            with droppable.connect(server.path, strict=True) as cache:
                cache.set("k", b"v")
                server.kill()
                server.start()
                if call == "get":
                    assert cache.get("k") is None
                elif call == "set":
                    assert cache.set("k", b"w")
                    assert cache["k"] == b"w"
                else:
                    assert cache.get_many(["k", "l"]) == {}
                assert cache.stats().failures == 0

    def test_a_stopped_server_is_read(self, server: Server) -> None:
        with droppable.connect(server.path, timeout_seconds=0.05, retry_seconds=0.001) as cache:
            cache.set("k", b"v")
            with server.stopped():
                assert [cache.get("k") for _ in range(2000)] == [b"v"] * 2000
                assert cache.get("absent") is None
                assert not cache.set("k", b"w")  # it may be stored all the same, once the server goes on
            wait_until(lambda: cache.set("k", b"x"))
            assert cache["k"] == b"x"

    def test_strict_raises(self, server: Server) -> None:
        with droppable.connect(server.path, strict=True) as cache:
            cache.set("k", b"v")
            server.kill()
            for call in (lambda: cache.get("k"), lambda: cache.set("k", b"v"), lambda: "k" in cache, cache.clear):
                with pytest.raises(OSError, match=str(server.path)):
                    call()

    def test_a_server_that_passes_no_memory_is_asked(self, start_server: StartServer) -> None:
        with droppable.connect(start_server("--no-attach").path, strict=True) as cache:
            assert cache.set("k", b"v")
            assert cache["k"] == b"v"
            stats = cache.stats()
            assert (stats.is_attached, stats.hits_read, stats.hits_asked) == (False, 0, 1)
            assert "--no-attach" in stats.why_not_attached

    def test_no_flush_is_told(self, start_server: StartServer) -> None:
        cache = droppable.connect(start_server("--no-flush").path)
        with cache, pytest.raises(droppable.UnsupportedError, match=r"--no-flush"):
            cache.clear()

    @pytest.mark.parametrize(
        "address",
        ["localhost:11211", "127.0.0.1:6379", "[::1]:6379", "unix:/run/a.sock", "unix:///run/a.sock", "redis://a"],
    )
    def test_an_address_is_no_path(self, address: str) -> None:
        with pytest.raises(ValueError, match=r"path must be that of the server's unix socket, .*; you gave ") as raised:
            droppable.connect(address)
        assert repr(address) in str(raised.value)

    def test_a_path_with_colons_is_a_path(self, start_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
        path = start_server().path
        monkeypatch.chdir(path.parent)
        os.symlink(path.name, "host:80")
        for name in (Path("host:80"), "./host:80", str(path.parent / "host:80")):
            with droppable.connect(name, strict=True) as cache:
                assert cache.set("k", b"v")

    def test_a_socket_of_another_user_is_told(self, start_server: StartServer) -> None:
        path = start_server().path
        for folder in path.parents:
            if not folder.stat().st_mode & 0o001 and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o011)  # so that the socket's own mode decides
        os.chmod(path, 0)  # for those who run the tests as somebody: their own socket is closed to them too
        code = """
            import os, sys, droppable, droppable._connect.computing
            if os.geteuid() == 0:
                os.setgroups([]); os.setgid(65534); os.setuid(65534)
            try:
                droppable.connect(sys.argv[1])
            except PermissionError as error:
                print(error.errno, error)
        """
        asked = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), str(path)],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert asked.stdout.startswith("13 [Errno 13] the server's socket is closed to this user: "), asked.stderr
        assert asked.stdout.endswith(f"'{path}'\n")

    def test_a_value_of_a_serializer_without_one(
        self, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("droppable._log.told", set())  # each matter is told once
        with droppable.connect(path, serializer=pickle) as writer, droppable.connect(path) as reader:  # type: ignore[arg-type]
            key = frozenset({"of a serializer"})  # it is told once for each type of key
            assert writer.set(key, {"a": 1})
            assert reader.get(key) is None
        assert "it was stored with a serializer, so give connect() the same serializer=" in caplog.text

    def test_passwords(self, start_server: StartServer, tmp_path: Path) -> None:
        secret = tmp_path / "password"
        secret.write_text("word\nme:mine\n")
        path = start_server("--password-file", str(secret)).path
        with pytest.raises(PermissionError, match=r"asks for a password: give connect\(password=...\)"):
            droppable.connect(path)
        with pytest.raises(PermissionError, match=r"refuses this password"):
            droppable.connect(path, password="wrong")
        for login in ({"password": "word"}, {"password": "mine", "user": "me"}):
            with droppable.connect(path, strict=True, **login) as cache:  # type: ignore[arg-type]
                assert cache.set("k", b"v")
                assert cache["k"] == b"v"
                assert cache.stats().is_attached


def compute_all(path: str, folder: str, ready: Any) -> int:
    """In a process of its own: asks for twenty values, and notes each that it computes. Returns how many those are."""
    computed = 0

    def compute(number: int) -> bytes:
        nonlocal computed
        computed += 1
        os.close(os.open(f"{folder}/{number}", os.O_CREAT | os.O_EXCL))  # raises for the second who computes it
        time.sleep(0.005)  # it takes a while
        return b"value %d" % number

    with droppable.connect(path, strict=True) as cache:
        ready.wait(WAIT_SECONDS)
        for number in range(20):
            assert cache.get_or_create(number, lambda number=number: compute(number)) == b"value %d" % number
    return computed


@contextmanager
def claimed(path: Path, key: str) -> Iterator[tuple[socket.socket, bytes]]:
    """Another client computes the value of that key, until this ends: its connection, and its claim's number."""
    word = droppable.lowlevel.shared_key(key)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(WAIT_SECONDS)
        connection.connect(str(path))
        connection.sendall(b"*2\r\n$15\r\nDROPPABLE.CLAIM\r\n$%d\r\n%s\r\n" % (len(word), word))
        claim = connection.recv(100)
        assert int(claim[1:]) > 0
        yield connection, claim[1:-2]


class TestOneComputation:
    def test_processes_compute_each_value_once(self, shared: droppable.SharedCache, path: Path, tmp_path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        with context.Manager() as manager, context.Pool(4) as pool:
            ready = manager.Barrier(4)
            computed = pool.starmap(compute_all, [(str(path), str(tmp_path), ready)] * 4)
        assert sum(computed) == 20 == len(os.listdir(tmp_path))

    def test_who_dies_while_computing_is_followed_by_another(self, shared: droppable.SharedCache, path: Path) -> None:
        code = """
            import sys, droppable
            cache = droppable.connect(sys.argv[1])
            cache.get_or_create("k", lambda: print("computing", flush=True) or sys.stdin.read().encode())
        """
        command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
            assert first.stdout is not None
            assert first.stdout.readline() == "computing\n"
            found = []
            second = threading.Thread(target=lambda: found.append(shared.get_or_create("k", lambda: b"second")))
            second.start()
            assert raw(path, b"DROPPABLE.CLAIM", droppable.lowlevel.shared_key("k")) == b":0\r\n"
            assert not found
            first.kill()
            second.join(WAIT_SECONDS)
        assert found == [b"second"]
        assert shared["k"] == b"second"

    def test_nobody_is_waited_for_longer_than_asked(self, shared: droppable.SharedCache, path: Path) -> None:
        with claimed(path, "k"):
            assert shared.get_or_create("k", lambda: b"mine", wait_seconds=0.02) == b"mine"
            assert shared["k"] == b"mine"

    def test_what_was_changed_meanwhile_stays_so(self, shared: droppable.SharedCache, path: Path) -> None:
        with droppable.connect(path, strict=True) as other:

            def compute(change: Callable[[], object]) -> bytes:
                change()
                return b"old"

            changes: dict[str, tuple[Callable[[], object], bytes | None]] = {
                "deleted": (lambda: other.delete("deleted"), None),
                "cleared": (other.clear, None),
                "set": (lambda: other.set("set", b"new"), b"new"),
                "not": (lambda: None, b"old"),
            }
            for key, (change, left) in changes.items():
                assert shared.get_or_create(key, lambda change=change: compute(change)) == b"old"  # type: ignore[misc]
                assert shared.get(key) == left, key

    def test_a_claim_ends_with_its_computation(self, shared: droppable.SharedCache, path: Path) -> None:
        with pytest.raises(ZeroDivisionError):
            shared.get_or_create("raises", lambda: 1 / 0)
        with pytest.raises(TypeError, match=r"value must be bytes"):
            shared.get_or_create("no value", object)
        assert len(shared.get_or_create("large", lambda: b"x" * (2 << 20))) == 2 << 20
        for key in ("raises", "no value", "large"):
            with claimed(path, key):
                pass

    def test_claims_hold_for_their_client_alone(self, shared: droppable.SharedCache, path: Path) -> None:
        key = droppable.lowlevel.shared_key("k")
        with claimed(path, "k") as (holder, claim):
            assert raw(path, b"DROPPABLE.CLAIM", key) == b":0\r\n"
            assert raw(path, b"DROPPABLE.RELEASE", key, claim) == b":0\r\n"
            assert raw(path, b"DROPPABLE.RELEASE", key, b"0") == b":0\r\n"
            assert raw(path, b"DROPPABLE.SET", key, b"0", b"", b"theirs", b"0", b"CLAIMED", claim) == b"$-1\r\n"
            assert shared.get("k") is None
            for number, answer in ((claim + b"0", b"$-1\r\n"), (claim, b"+OK\r\n"), (claim, b"$-1\r\n")):
                holder.sendall(
                    b"*8\r\n$13\r\nDROPPABLE.SET\r\n$%d\r\n%s\r\n" % (len(key), key)
                    + b"$1\r\n0\r\n$0\r\n\r\n$3\r\nold\r\n$1\r\n0\r\n$7\r\nCLAIMED\r\n"
                    + b"$%d\r\n%s\r\n" % (len(number), number)
                )
                assert holder.recv(100) == answer
        assert shared["k"] == b"old"

    def test_hostile_claims(self, shared: droppable.SharedCache, path: Path) -> None:
        for words in (
            (b"CLAIM", b"k", b"NOW"),
            (b"RELEASE", b"k", b"-1"),
            (b"RELEASE", b"k", b"9223372036854775808"),
            (b"SET", b"k", b"0", b"", b"v", b"0", b"CLAIMED"),
            (b"SET", b"k", b"0", b"", b"v", b"0", b"NX", b"1"),
            (b"SET", b"k", b"0", b"", b"v", b"0", b"CLAIMED", b"0"),
            (b"SET", b"k", b"0", b"", b"v", b"0", b"CLAIMED", b"x"),
            (b"CLAIM", b"", b"ANYWAY"),
        ):
            assert raw(path, b"DROPPABLE." + words[0], *words[1:]).startswith(b"-ERR "), words
        assert raw(path, b"DROPPABLE.HAS", b"k") == b":0\r\n"

    def test_more_claims_than_there_is_room_for(self, shared: droppable.SharedCache, path: Path) -> None:
        """Who finds no room computes all the same. It is not stored: nobody could tell whether it is older by then."""
        words = [b"*2\r\n$15\r\nDROPPABLE.CLAIM\r\n$6\r\n%06d\r\n" % number for number in range(60_000)]
        answers: list[bytes] = []
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(WAIT_SECONDS)
            connection.connect(str(path))
            for first in range(0, len(words), 1000):
                connection.sendall(b"".join(words[first : first + 1000]))
                got = b""
                while got.count(b"\r\n") < 1000:
                    got += connection.recv(1 << 16)
                answers += got.split(b"\r\n")[:-1]
            numbers = [int(answer[1:]) for answer in answers if answer != b":-1"]
            assert len(numbers) == 4096  # each place was looked at some hundred times
            assert sorted(set(numbers)) == sorted(numbers)
            assert shared.get_or_create("k", lambda: b"v") == b"v"
            assert shared.get("k") is None
        wait_until(lambda: shared.get_or_create("k", lambda: b"v") == b"v" and shared.get("k") == b"v")


class TestProcesses:
    def test_what_one_stores_the_others_find(
        self, shared: droppable.SharedCache, path: Path, run_python: Callable[..., str]
    ) -> None:
        shared.set("from here", b"1")
        code = """
            import sys, droppable
            with droppable.connect(sys.argv[1], strict=True) as cache:
                print(cache["from here"], cache.stats().hits_read)
                cache["from there"] = b"2"
                del cache["from here"]
        """
        assert run_python(code, str(path)) == "b'1' 1\n"
        assert shared["from there"] == b"2"
        assert shared.get("from here") is None

    def test_a_fork_goes_on(self, shared: droppable.SharedCache) -> None:
        shared.set("k", b"before")
        assert shared["k"] == b"before"
        child = os.fork()
        if child == 0:
            status = 1
            try:
                right = shared["k"] == b"before" and shared.set("k", b"child") and shared["k"] == b"child"
                right = right and shared.get_or_create("c", lambda: b"made") == b"made" and "absent" not in shared
                status = 0 if right and shared.stats().connections == 2 else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert shared["k"] == b"child"
        assert shared["c"] == b"made"
        assert shared.stats().connections == 1

    def test_forks_beside_threads_that_are_in_calls(self, shared: droppable.SharedCache) -> None:
        """Whatever lock a thread holds at that moment, the child has its own."""
        stop = threading.Event()

        def work(number: int) -> None:
            while not stop.is_set():
                shared.set(number, b"v" * 5000)
                shared.get(number)
                shared.get((number, "absent"))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        try:
            for number in range(20):
                child = os.fork()
                if child == 0:
                    signal.alarm(WAIT_SECONDS)
                    stored = shared.set(("child", number), b"w") and shared.get(("child", number)) == b"w"
                    os._exit(0 if stored else 1)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        finally:
            stop.set()
            for thread in threads:
                thread.join(WAIT_SECONDS)

    def test_descriptors_do_not_survive_an_exec(self, shared: droppable.SharedCache) -> None:
        code = "import os; print(*(os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if n > '2'))"
        # Not by subprocess, which closes them itself.
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(writer, 1)
            os.execv(sys.executable, [sys.executable, "-S", "-c", f"try: {code}\nexcept OSError: pass"])
        os.close(writer)
        with os.fdopen(reader) as output:
            seen = output.read()
        os.waitpid(child, 0)
        assert "/mem" not in seen
        assert "memfd" not in seen
        assert shared.stats().is_attached

    def test_without_descriptors_it_asks_the_socket(self, path: Path, run_python: Callable[..., str]) -> None:
        code = """
            import os, resource, sys, droppable
            from droppable._connect import computing  # what is imported later needs descriptors, too
            taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 2, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            cache = droppable.connect(sys.argv[1], strict=True)
            assert cache.set("k", b"v") and cache["k"] == b"v"
            print(cache.stats().is_attached, cache.stats().why_not_attached)
            for descriptor in taken:
                os.close(descriptor)
            while not cache.stats().is_attached:
                assert "absent" not in cache
            assert cache["k"] == b"v" and cache.stats().hits_read == 1 and cache.stats().connections == 1
            cache.close()
        """
        code = code.replace("strict=True)", "strict=True, retry_seconds=0.001)")
        assert "False this process has no descriptors left" in run_python(code, str(path))
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 20

    def test_a_client_that_is_left_open_ends_quietly(self, path: Path, run_python: Callable[..., str]) -> None:
        code = """
            import sys, droppable
            cache = droppable.connect(sys.argv[1])
            cache.set("k", b"v")
            print(cache.get("k"))
        """
        assert run_python(code, str(path)) == "b'v'\n"

    def test_readers_beside_a_writer_in_another_process(
        self, shared: droppable.SharedCache, path: Path, tmp_path: Path
    ) -> None:
        """Whatever is read is whole, and never older than what was read before."""
        code = """
            import sys, droppable
            with droppable.connect(sys.argv[1], strict=True) as cache:
                for number in range(3000):
                    for key, size in (("small", 20), ("pages", 5000), ("long", 60_000)):
                        cache.set(key, b"%06d" % number * size)
        """
        with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(path)]) as writer:
            last = {"small": -1, "pages": -1, "long": -1}
            while writer.poll() is None:
                for key, size in (("small", 20), ("pages", 5000), ("long", 60_000)):
                    value = shared.get(key)
                    if value is None:
                        continue
                    assert value == value[:6] * size
                    assert int(value[:6]) >= last[key]
                    last[key] = int(value[:6])
            assert writer.returncode == 0
        assert shared.stats().hits_read > 100
