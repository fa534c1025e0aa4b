"""A shared cache in event loops, which it never makes wait; and computations that wait for one another."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import droppable

WAIT_SECONDS = 20


@contextmanager
def claimed(path: Path, key: str) -> Iterator[socket.socket]:
    """Another client computes the value of that key, until this ends."""
    word = droppable.lowlevel.shared_key(key)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(WAIT_SECONDS)
        connection.connect(str(path))
        connection.sendall(b"*2\r\n$15\r\nDROPPABLE.CLAIM\r\n$%d\r\n%s\r\n" % (len(word), word))
        assert int(connection.recv(100)[1:]) > 0
        yield connection


@pytest.fixture(params=["cache", "namespace"])
def part(shared: droppable.SharedCache, request: pytest.FixtureRequest) -> Any:
    return shared if request.param == "cache" else shared.namespace("part").namespace("inner")


class TestCalls:
    def test_values(self, part: Any, numpy: Any) -> None:
        async def run() -> None:
            assert await part.aget("k") is None
            assert await part.aget("k", 5) == 5
            assert await part.aset("k", b"v", ttl=100)
            assert await part.aget("k") == part["k"] == b"v"
            assert await part.adelete("k")
            assert not await part.adelete("k")
            assert await part.aset("array", numpy.arange(3))
            copy = await part.aget("array", copy=True)
            copy += 1
            assert (await part.aget("array")).tolist() == [0, 1, 2]
            with pytest.raises(TypeError, match=r"value must be bytes"):
                await part.aset("k", object())
            for call in (part.aget, part.adelete, lambda key: part.aset(key, b"")):
                with pytest.raises(ValueError, match=r"at most 4096 bytes"):
                    await call("x" * 5000)

        asyncio.run(run())

    def test_one_computation(self, part: Any) -> None:
        calls = []

        async def compute() -> bytes:
            calls.append(1)
            await asyncio.sleep(0.01)
            return b"v"

        async def run() -> None:
            found = await asyncio.gather(*(part.aget_or_create("k", compute) for _ in range(10)))
            assert found == [b"v"] * 10
            assert await part.aget_or_create("k", compute) == b"v"

        asyncio.run(run())
        assert calls == [1]
        assert part["k"] == b"v"

    def test_an_exception_reaches_all(self, part: Any) -> None:
        async def fail() -> bytes:
            await asyncio.sleep(0.01)
            raise ZeroDivisionError

        async def run() -> None:
            found = await asyncio.gather(*(part.aget_or_create("k", fail) for _ in range(3)), return_exceptions=True)
            assert [type(error) for error in found] == [ZeroDivisionError] * 3
            with pytest.raises(TypeError, match=r"factory must be a coroutine function"):
                await part.aget_or_create("k", lambda: b"v")

        asyncio.run(run())

    def test_tasks_and_threads_compute_once(self, shared: droppable.SharedCache) -> None:
        calls = []

        async def compute() -> bytes:
            calls.append(1)
            await asyncio.sleep(0.02)
            return b"v"

        def compute_in_thread() -> bytes:
            calls.append(1)
            time.sleep(0.02)
            return b"v"

        async def run() -> None:
            found = await asyncio.gather(
                shared.aget_or_create("k", compute),
                *(asyncio.to_thread(shared.get_or_create, "k", compute_in_thread) for _ in range(3)),
                shared.aget_or_create("k", compute),
            )
            assert found == [b"v"] * 5

        asyncio.run(run())
        assert calls == [1]


class TestLoops:
    def test_it_goes_on_while_another_process_computes(
        self, shared: droppable.SharedCache, server_socket: Path
    ) -> None:
        async def compute() -> bytes:
            return b"mine"

        async def run() -> None:
            with claimed(server_socket, "k"):
                waiting = asyncio.create_task(shared.aget_or_create("k", compute))
                for _ in range(50):
                    await asyncio.sleep(0.001)
                assert not waiting.done()
                with droppable.connect(server_socket) as other:
                    other["k"] = b"theirs"
                assert await asyncio.wait_for(waiting, WAIT_SECONDS) == b"theirs"

        asyncio.run(run())

    def test_the_server_is_asked_in_another_thread(
        self, shared: droppable.SharedCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By every call that waits for an answer."""
        wire = shared._link.wire
        asked_in: list[int] = []

        def pipeline(*arguments: Any) -> Any:
            asked_in.append(threading.get_ident())
            return ask(*arguments)

        ask = wire.pipeline
        monkeypatch.setattr(wire, "pipeline", pipeline)

        async def compute() -> bytes:
            return b"made"

        async def fail() -> bytes:
            raise ZeroDivisionError

        function = droppable.cache(cache=shared, name="function")(compute)
        method = droppable.cache(cache=shared.namespace("of functions"), name="function")(compute)

        async def run() -> None:
            new = map(shared.namespace, range(100))
            for call in (
                lambda: shared.aget("absent"),
                lambda: next(new).aget("absent"),
                lambda: shared.aset("k", b"v"),
                lambda: next(new).aset("k", b"v"),
                lambda: shared.adelete("k"),
                lambda: next(new).adelete("k"),
                lambda: shared.aget_or_create("absent", compute),
                lambda: shared.aget_or_create("fails", fail),
                lambda: next(new).aget_or_create("absent", compute),
                lambda: next(new).namespace("inner").aget_or_create("absent", compute),
                function,
                method,
            ):
                asked_in.clear()
                assert await asyncio.gather(call(), return_exceptions=True)
                assert asked_in
                assert threading.get_ident() not in asked_in

        asyncio.run(run())

    def test_a_loop_whose_threads_all_wait(self, shared: droppable.SharedCache) -> None:
        """The loop's own threads wait for values that its tasks compute: the server is asked in another one."""

        async def compute(number: int) -> bytes:
            await asyncio.sleep(0.01)
            return b"%d" % number

        async def run() -> None:
            from concurrent.futures import ThreadPoolExecutor

            loop = asyncio.get_running_loop()
            loop.set_default_executor(ThreadPoolExecutor(1))
            computing = [asyncio.create_task(shared.aget_or_create(n, lambda n=n: compute(n))) for n in range(5)]
            await asyncio.sleep(0)
            waiting = [loop.run_in_executor(None, shared.get_or_create, n, lambda: b"") for n in range(5)]
            assert await asyncio.gather(*computing) == [b"%d" % n for n in range(5)]
            assert await asyncio.gather(*waiting) == [b"%d" % n for n in range(5)]

        asyncio.run(run())

    def test_who_is_cancelled_gives_up_the_claim(self, shared: droppable.SharedCache, server_socket: Path) -> None:
        async def for_ever() -> bytes:
            await asyncio.Event().wait()
            return b""

        async def run() -> None:
            for key, turns in (("at once", 0), ("later", 30)):
                task = asyncio.create_task(shared.aget_or_create(key, for_ever))
                for _ in range(turns):
                    await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(run())  # which cancels the computations, for nobody waits for them
        assert shared.get("behind what the thread still has to do") is None
        shared._link.in_thread(int).result(WAIT_SECONDS)
        for key in ("at once", "later"):
            with claimed(server_socket, key):
                pass


class TestWaits:
    def test_threads_that_compute_for_one_another(self, shared: droppable.SharedCache) -> None:
        """Each computes what the other needs: one of them sees that it could never end."""
        both = threading.Barrier(2)
        found = []

        def outer(mine: str, other: str) -> bytes:
            def compute() -> bytes:
                both.wait(WAIT_SECONDS)
                return shared.get_or_create(other, lambda: other.encode()) + mine.encode()

            return shared.get_or_create(mine, compute)

        threads = [threading.Thread(target=lambda p=pair: found.append(outer(*p))) for pair in ("ab", "ba")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_SECONDS)
        assert len(found) == 2

    def test_a_computation_that_asks_for_itself(self, shared: droppable.SharedCache) -> None:
        assert shared.get_or_create("k", lambda: shared.get_or_create("k", lambda: b"inner") + b" outer") in (
            b"inner outer",
        )

    def test_who_finds_no_room_for_a_claim_stores_nothing(
        self, shared: droppable.SharedCache, server_socket: Path
    ) -> None:
        """Nobody could tell whether the key was set meanwhile."""
        with droppable.connect(server_socket, strict=True) as holder:
            word = droppable.lowlevel.shared_key
            for first in range(0, 60_000, 1000):
                holder._link.ask_many([(b"DROPPABLE.CLAIM", word(first + n)) for n in range(1000)])
            assert holder._link.ask(b"DROPPABLE.CLAIM", word("k")) == -1

            def older() -> bytes:
                assert holder.set("k", b"newer")
                return b"older"

            assert shared.get_or_create("k", older, wait_seconds=0.01) == b"older"
            assert shared["k"] == b"newer"

    def test_who_overtakes_does_not_renew_the_claim(self, shared: droppable.SharedCache, server_socket: Path) -> None:
        """Its own is another one. Else what the one computes who was overtaken is stored, though it was deleted."""
        started, go_on = [threading.Event(), threading.Event()], [threading.Event(), threading.Event()]

        def slow(number: int) -> bytes:
            started[number].set()
            assert go_on[number].wait(WAIT_SECONDS)
            return b"%d" % number

        def compute(number: int, wait_seconds: float) -> None:
            shared.get_or_create("k", lambda: slow(number), wait_seconds=wait_seconds)

        threads = [threading.Thread(target=compute, args=arguments) for arguments in ((0, WAIT_SECONDS), (1, 0.01))]
        threads[0].start()
        assert started[0].wait(WAIT_SECONDS)
        with droppable.connect(server_socket) as other:
            other.delete("k")
            threads[1].start()
            assert started[1].wait(WAIT_SECONDS)
            go_on[0].set()
            threads[0].join(WAIT_SECONDS)
            assert other.get("k") is None
            go_on[1].set()
            threads[1].join(WAIT_SECONDS)
            assert other.get("k") == b"1"

    def test_what_cannot_be_stored_reaches_all_who_wait(self, tmp_path: Path, server_socket: Path) -> None:
        large = b"x" * (2 << 20)
        for where, value in ((tmp_path / "nobody", b"v"), (server_socket, large)):
            calls, ready = [], threading.Barrier(4)
            with droppable.connect(where) as cache:

                def slow(value: bytes = value, calls: list[int] = calls, cache: Any = cache) -> bytes:
                    calls.append(1)
                    while sum(len(flight.waiters) for flight in cache._computing._table.values()) < 3:
                        time.sleep(0.001)
                    return value

                def run(cache: Any = cache, ready: Any = ready, value: bytes = value, slow: Any = slow) -> None:
                    ready.wait(WAIT_SECONDS)
                    assert cache.get_or_create("large", slow) == value

                threads = [threading.Thread(target=run) for _ in range(4)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join(WAIT_SECONDS)
                assert calls == [1]

    def test_a_fork_during_a_computation(self, shared: droppable.SharedCache) -> None:
        """The child has no part in what its parent computes."""
        child = 0

        def compute() -> bytes:
            nonlocal child
            child = os.fork()
            if child == 0:
                signal.alarm(WAIT_SECONDS)
                found = shared.get_or_create("k", lambda: b"child", wait_seconds=0.05)
                os._exit(0 if found == b"child" else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            return b"parent"

        assert shared.get_or_create("k", compute) == b"parent"
