"""incr, touch and expires_in of a shared cache: in several processes, and whatever happens to the server."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import droppable
from tests.server import Server
from tests.unit.test_connect import WAIT_SECONDS, raw
from tests.unit.test_serve import wait_until

TIMES = 500
LARGEST = (1 << 63) - 1


def advance(path: Path, seconds: int) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        connection.sendall(b"debugtime %d\r\n" % seconds)
        assert connection.recv(100) == b"OK\r\n"


def count(path: Path, times: int) -> None:
    """In another process."""
    with droppable.connect(path) as cache:
        for _ in range(times):
            cache.incr("count", 1, 0)


@pytest.fixture(scope="module")
def server_socket(start_server: Callable[..., Any]) -> Path:
    path: Path = start_server("--allow-clock").path
    return path


@pytest.fixture(params=["cache", "namespace"])
def part(shared: droppable.SharedCache, request: pytest.FixtureRequest) -> Any:
    return shared if request.param == "cache" else shared.namespace("counts")


class TestIntegers:
    @pytest.mark.parametrize("value", [0, 1, -1, LARGEST, -LARGEST - 1])
    def test_they_come_back(self, shared: droppable.SharedCache, server_socket: Path, value: int) -> None:
        assert shared.set("k", value)
        with droppable.connect(server_socket, attach=False) as asking:
            for cache in (shared, asking):
                assert cache["k"] == value
                assert type(cache["k"]) is int

    @pytest.mark.parametrize("value", [LARGEST + 1, -LARGEST - 2, True])
    def test_others_need_a_serializer(self, shared: droppable.SharedCache, value: int) -> None:
        with pytest.raises(TypeError, match=r"value must be bytes, str, an int of 64 bits or a NumPy array"):
            shared.set("k", value)

    @pytest.mark.parametrize("digits", [b"", b"-", b"1_0", b" 1", b"0x1", b"9" * 30, b"\xd9\xa1"])
    def test_what_is_no_digits_is_a_miss(
        self, shared: droppable.SharedCache, server_socket: Path, digits: bytes
    ) -> None:
        key = droppable.lowlevel.shared_key("k")
        assert raw(server_socket, b"DROPPABLE.SET", key, b"10", b"", digits, b"0") == b"+OK\r\n"
        assert shared.get("k") is None


class TestIncr:
    def test_it_adds(self, part: Any) -> None:
        with pytest.raises(KeyError, match="'k'"):
            part.incr("k")
        assert part.incr("k", 5, initial=10) == 15
        assert part["k"] == 15
        assert part.incr("k") == 16
        assert part.incr("k", -20, initial=1000) == -4
        assert part["k"] == -4

    def test_the_entry_expires_when_it_would_have(self, part: Any, server_socket: Path) -> None:
        part.set("k", 1, ttl=60)
        advance(server_socket, 40)
        assert part.incr("k") == 2
        assert part.expires_in("k") <= 20
        advance(server_socket, 21)
        assert part.get("k") is None
        with pytest.raises(KeyError):
            part.incr("k")

    @pytest.mark.parametrize("value", [b"1", "1", "x"])
    def test_what_is_no_int_stays_as_it_is(self, part: Any, value: Any) -> None:
        part["k"] = value
        with pytest.raises(TypeError, match=r"incr\(\) counts in int"):
            part.incr("k")
        assert part["k"] == value

    def test_sums_have_64_bits(self, part: Any) -> None:
        part["k"] = LARGEST
        with pytest.raises(OverflowError, match="64 bits"):
            part.incr("k")
        assert part["k"] == LARGEST
        assert part.incr("k", -LARGEST - 1) == -1
        assert part.incr("k", -LARGEST) == -LARGEST - 1
        with pytest.raises(OverflowError, match="64 bits"):
            part.incr("k", -1)
        with pytest.raises(OverflowError, match="64 bits"):
            part.incr("new", LARGEST, initial=1)

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [((True,), TypeError), ((1.5,), TypeError), ((1 << 63,), ValueError), ((1, "0"), TypeError)],
    )
    def test_wrong_arguments(self, part: Any, arguments: tuple[Any, ...], error: type[Exception]) -> None:
        with pytest.raises(error, match=r"(delta|initial) must be an int of 64 bits.*; you gave"):
            part.incr("k", *arguments)

    def test_four_processes_lose_no_count(self, shared: droppable.SharedCache, server_socket: Path) -> None:
        context = multiprocessing.get_context("spawn")
        processes = [context.Process(target=count, args=(server_socket, TIMES)) for _ in range(4)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(WAIT_SECONDS)
            assert process.exitcode == 0
        assert shared["count"] == 4 * TIMES

    def test_beside_stores_and_deletes_it_is_one_of_both(
        self, shared: droppable.SharedCache, server_socket: Path
    ) -> None:
        """A count is never put in the place of what was stored amid it, nor is a deleted one brought back."""
        ends = threading.Event()

        def count_on() -> None:
            with droppable.connect(server_socket) as cache:
                while not ends.is_set():
                    cache.incr("k", 1, 0)

        counting = threading.Thread(target=count_on)
        counting.start()
        try:
            for number in range(TIMES):
                shared["k"] = number * 1_000_000
                assert number * 1_000_000 <= shared.get("k", number * 1_000_000) < (number + 1) * 1_000_000
                if number % 3 == 0:
                    shared.delete("k")
                    assert shared.get("k", 0) < 1_000_000
        finally:
            ends.set()
            counting.join(WAIT_SECONDS)

    def test_a_computation_that_was_under_way_is_not_stored_over_it(
        self, shared: droppable.SharedCache, server_socket: Path
    ) -> None:
        with droppable.connect(server_socket) as other:

            def compute() -> int:
                other.incr("k", 1, 0)
                other.incr("k")
                return 100

            assert shared.get_or_create("k", compute) == 100
            assert shared["k"] == 2

    def test_a_count_that_is_gone_begins_again(self, part: Any) -> None:
        assert part.incr("k", 1, 10) == 11
        assert part.clear()
        with pytest.raises(KeyError):
            part.incr("k")
        assert part.incr("k", 1, 10) == 11


class TestServers:
    def test_one_that_was_started_anew_counts_anew(self, server: Server) -> None:
        with droppable.connect(server.path, retry_seconds=0.001) as cache:
            assert cache.incr("k", 1, 0) == 1
            server.kill()
            server.path.unlink()
            server.start()
            with pytest.raises(KeyError):
                cache.incr("k")  # it is connected again, and there is no count
            assert cache.stats().failures == 0
            assert cache.incr("k", 1, 0) == 1

    def test_a_lost_connection_counts_once(self, tmp_path: Path) -> None:
        """The server hangs up after it was asked, before it answers: nobody can tell whether it has counted."""
        asked: list[bytes] = []
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "socket"))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                while b"INCR" not in (data := connection.recv(4096)):
                    connection.sendall(b":0\r\n")
                asked.append(data)

        thread = threading.Thread(target=serve)
        thread.start()
        with listener, droppable.connect(tmp_path / "socket", attach=False) as cache, pytest.raises(KeyError):
            cache.incr("k", 1, 0)
        thread.join(WAIT_SECONDS)
        assert len(asked) == 1
        assert cache.stats().failures == 2  # to count, and to ask whether a count is there

    def test_without_one(self, server: Server) -> None:
        with droppable.connect(server.path, retry_seconds=60) as cache:
            cache["k"] = 1
            server.kill()
            with pytest.raises(KeyError):
                cache.incr("k")
            with pytest.raises(KeyError):
                cache.incr("k", 1, 0)
            assert not cache.touch("k", 60)
            with pytest.raises(KeyError):
                cache.expires_in("k")
        with droppable.connect(server.path, strict=False, retry_seconds=60) as cache, pytest.raises(KeyError):
            cache.incr("k", 1, 0)

    @pytest.mark.parametrize("call", ["incr", "touch", "expires_in"])
    def test_strict(self, server: Server, call: str) -> None:
        arguments: dict[str, tuple[Any, ...]] = {"touch": (60,)}
        with droppable.connect(server.path, strict=True) as cache:
            server.kill()
            with pytest.raises(OSError, match="cannot be reached"):
                getattr(cache, call)("k", *arguments.get(call, ()))

    def test_one_that_is_stopped_is_waited_for_no_longer_than_said(self, server: Server) -> None:
        with droppable.connect(server.path, timeout_seconds=0.05, retry_seconds=0.001) as cache:
            cache["k"] = 1
            with server.stopped(), pytest.raises(KeyError):
                cache.incr("k")
            wait_until(
                lambda: cache.get("k") in (1, 2)
            )  # whether it is counted when it goes on is open; twice it is not
            with server.stopped():
                assert not cache.touch("k", 60)

    def test_a_forked_child_counts_by_its_own_connection(self, server: Server) -> None:
        with droppable.connect(server.path) as cache:
            cache["k"] = 0
            child = os.fork()
            if child == 0:
                try:
                    for _ in range(TIMES):
                        cache.incr("k")
                    os._exit(0)
                finally:
                    os._exit(1)
            for _ in range(TIMES):
                cache.incr("k")
            assert os.waitpid(child, 0)[1] == 0
            assert cache["k"] == 2 * TIMES


class TestTimes:
    def test_touch(self, part: Any, server_socket: Path) -> None:
        assert not part.touch("k", 60)
        part.set("k", b"v" * 5000, ttl=10)
        assert part.touch("k", 60)
        assert 20 < part.expires_in("k") <= 60
        advance(server_socket, 30)
        assert part["k"] == b"v" * 5000
        assert part.touch("k", droppable.NEVER)
        assert part.expires_in("k") == droppable.NEVER
        assert part.touch("k", 5)
        assert part.touch("k")
        assert part.expires_in("k") == droppable.NEVER
        assert part.touch("k", 5)
        advance(server_socket, 6)
        assert part.get("k") is None
        assert not part.touch("k", 60)

    def test_expires_in(self, part: Any) -> None:
        with pytest.raises(KeyError, match="'k'"):
            part.expires_in("k")
        part["k"] = b"v"
        assert part.expires_in("k") == droppable.NEVER
        part.set("k", b"v", ttl=50)
        assert 40 < part.expires_in("k") <= 50

    @pytest.mark.parametrize("ttl", [0, -1])
    def test_a_time_of_nothing_is_told(self, part: Any, ttl: int) -> None:
        part["k"] = b"v"
        with pytest.raises(ValueError, match="ttl must be more than 0 seconds"):
            part.touch("k", ttl)

    def test_a_computation_goes_on(self, shared: droppable.SharedCache) -> None:
        def compute() -> bytes:
            shared.touch("k", 60)
            return b"v"

        assert shared.get_or_create("k", compute) == b"v"
        assert shared["k"] == b"v"


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        ((b"INCR", b"k", b"256", b"1"), b"kind and what is added"),
        ((b"INCR", b"k", b"10", b"01"), b"kind and what is added"),
        ((b"INCR", b"", b"10", b"1"), b"keys have"),
        ((b"TOUCH", b"k", b"-1"), b"a number of milliseconds"),
        ((b"TOUCH", b"", b"1"), b"keys have"),
        ((b"TTL", b""), b"keys have"),
    ],
)
def test_commands_by_hand(server_socket: Path, words: tuple[bytes, ...], answer: bytes) -> None:
    said = raw(server_socket, b"DROPPABLE." + words[0], *words[1:])
    assert said.startswith(b"-ERR ")
    assert answer in said
