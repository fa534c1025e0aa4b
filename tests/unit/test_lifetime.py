"""Forks, limits and the end of the interpreter: pins stay valid, caches start afresh, nothing hangs or speaks."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from droppable import Cache
from droppable.lowlevel import Layout
from droppable.testing import drop

Make = Callable[..., Cache]
Run = Callable[..., str]


def in_child(function: Callable[[], object]) -> None:
    """Runs function in a forked child; an exception there fails the test."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:
            import traceback

            os.write(write, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(status)
    os.close(write)
    with open(read, "rb") as pipe:
        told = pipe.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, told or f"the child ended with {status}"


class TestFork:
    def test_the_child_finds_it_empty_and_uses_it(self, make_cache: Make, numbers: Any) -> None:
        cache = make_cache()
        for key in range(500):
            cache[key] = bytes([key % 256]) * key * 20

        def child() -> None:
            assert len(cache) == 0
            assert list(cache) == []
            assert all(key not in cache for key in range(500))
            for key in range(500):
                cache[key] = f"child {key}" * key
            assert all(cache[key] == f"child {key}" * key for key in range(500))
            drop(cache)
            cache["again"] = numbers
            assert (cache["again"] == numbers).all()
            in_child(lambda: cache.__setitem__("grandchild", 1))
            cache.close()

        in_child(child)
        assert all(cache[key] == bytes([key % 256]) * key * 20 for key in range(500))
        assert len(cache) == 500

    def test_shared_content(self) -> None:
        cache = Cache(fork="share")
        for key in range(500):
            cache[key] = bytes([key % 256]) * key * 20

        def child() -> None:
            assert all(cache[key] == bytes([key % 256]) * key * 20 for key in range(500))
            for key in range(0, 500, 2):
                cache[key] = "child"
            cache.discard(1)
            assert [cache.get(key) for key in (0, 1, 3)] == ["child", None, b"\3" * 60]

        in_child(child)
        assert all(cache[key] == bytes([key % 256]) * key * 20 for key in range(500))

    @pytest.mark.parametrize("fork", ["wipe", "share"])
    def test_what_is_held_stays_in_both(self, make_cache: Make, backing: str, fork: str, numbers: Any) -> None:
        if (backing, fork) == ("droppable", "share"):
            pytest.skip("the kernel wipes droppable memory on fork")
        cache = make_cache(fork=fork)
        cache["array"], cache["bytes"], cache["loose"] = numbers, b"b" * 500_000, b"l" * 500_000
        array, part = cache["array"], cache["array"][::100]
        with cache.view("bytes") as memory:

            def child() -> None:
                nonlocal array, part
                assert (array == numbers).all()
                assert (part == numbers[::100]).all()
                assert memory == b"b" * 500_000
                drop(cache)
                cache["new"] = numbers * 2
                assert (array == numbers).all()
                assert memory == b"b" * 500_000
                del array, part
                for key in range(50):
                    cache[key] = numbers + key
                assert memory == b"b" * 500_000
                cache.close()
                assert memory == b"b" * 500_000

            in_child(child)
            assert (array == numbers).all()
            drop(cache)
            assert (part == numbers[::100]).all()
            assert memory == b"b" * 500_000
            in_child(lambda: None)
        del array, part
        assert cache.stats().pinned_bytes == 0

    def test_pins_taken_by_the_parent_after_are_its_own(self, make_cache: Make, numbers: Any) -> None:
        cache = make_cache()
        cache["k"] = numbers
        for _ in range(10):
            held = cache["k"]
            in_child(lambda: cache.set("k", 1))
            assert (held == numbers).all()
            del held

    @pytest.mark.skipif(
        not getattr(sys, "_is_gil_enabled", lambda: True)(),
        reason="CPython 3.13t: a dict that another thread reads at the fork stays locked in the child",
    )
    def test_in_one_thread_while_others_use_it(self, make_cache: Make, numbers: Any) -> None:
        """No lock of a thread that the child does not have is ever waited for."""
        cache = make_cache(layout=Layout(2, 1 << 16, 16 << 20))
        over = threading.Event()
        failures: list[BaseException] = []

        def hammer(me: int) -> None:
            number = 0
            try:
                while not over.is_set():
                    number += 1
                    cache[me, number % 50] = numbers[: number % 300 * 200]
                    array = cache.get((1 - me, number % 50))
                    if array is not None:
                        assert (array == numbers[: len(array)]).all()
                    cache[number % 20] = b"x" * (number % 40_000)
                    text = cache.get(number % 20, b"")
                    assert text.count(b"x") == len(text)
                    cache.discard((me, number % 7))
                    cache.get_or_create((me, "made", number % 10), lambda: "made")
            except BaseException as error:
                failures.append(error)

        def child() -> None:
            for key in range(20):
                cache[key] = b"c" * 5000
                assert cache[key] == b"c" * 5000
            assert cache.get_or_create((0, "made", 1), lambda: "child") == "child"
            cache["array"] = numbers
            assert (cache["array"] == numbers).all()
            cache.clear()
            cache.close()

        threads = [threading.Thread(target=hammer, args=(me,)) for me in (0, 1)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(30):
                in_child(child)
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert not failures

    def test_many_caches(self, make_cache: Make) -> None:
        caches = [make_cache() for _ in range(20)]
        for number, cache in enumerate(caches):
            cache["k"] = number
        caches[3].close()
        del caches[5]

        def child() -> None:
            for cache in caches[:3] + caches[6:]:
                assert "k" not in cache
                cache["k"] = 1

        in_child(child)
        assert caches[0]["k"] == 0


class TestEnd:
    @pytest.mark.usefixtures("numpy")
    def test_with_live_pins(self, backing: str, run_python: Run) -> None:
        code = """
            import sys, numpy, droppable
            cache = droppable.Cache(backing=sys.argv[1])
            cache["array"], cache["bytes"] = numpy.arange(1e6), b"b" * 1_000_000
            array, block = cache["array"], cache.view("bytes")
            memory = block.__enter__()
            frame = {"a": array[::7]}
            sys.held = [array, memory, cache, block]  # outlives the module
            sys.modules["held"] = array
            class Late:
                def __del__(self):
                    assert frame["a"][1] == 7.0
                    cache["late"] = 1
            late = Late()
            loop = [late]; loop.append(loop)
            print("ready")
        """
        assert run_python(code, backing) == "ready\n"

    @pytest.mark.usefixtures("numpy")
    def test_with_threads_that_use_it(self, backing: str, run_python: Run) -> None:
        code = """
            import sys, threading, numpy, droppable, droppable.testing
            cache = droppable.Cache(backing=sys.argv[1])
            begun = threading.Barrier(4)
            def use():
                data = numpy.arange(100_000.0)
                begun.wait()
                while True:
                    cache["array"], cache["bytes"] = data, b"b" * 1_000_000
                    held = cache.get("array"), cache.get("bytes")
                    droppable.testing.drop(cache, 0.1)
            for _ in range(3):
                threading.Thread(target=use, daemon=True).start()
            begun.wait()
            while cache.stats().sets < 30: pass
            print("ready")
        """
        for _ in range(3):
            assert run_python(code, backing) == "ready\n"

    @pytest.mark.usefixtures("numpy")
    def test_by_exit_in_a_child(self, backing: str, run_python: Run) -> None:
        code = """
            import os, sys, numpy, droppable
            cache = droppable.Cache(backing=sys.argv[1])
            cache["array"] = numpy.arange(1e6)
            array = cache["array"]
            child = os.fork()
            if child == 0:
                cache["child"] = array
                sys.exit(0 if array.sum() == 499999500000.0 else 1)
            assert os.waitpid(child, 0)[1] == 0
            print(array.sum())
        """
        assert run_python(code, backing) == "499999500000.0\n"

    def test_a_memo_in_a_module(self, run_python: Run) -> None:
        code = """
            import asyncio, droppable
            @droppable.cache
            async def fetch(n): return [n] * 1000
            @droppable.cache
            def square(n): return n * n
            class Thing:
                @droppable.cache
                def name(self): return "thing"
            print(len(asyncio.run(fetch(1))), square(3), Thing().name())
        """
        assert run_python(code) == "1000 9 thing\n"

    def test_in_a_cycle(self, run_python: Run) -> None:
        code = """
            import gc, droppable
            for _ in range(100):
                cache = droppable.Cache()
                cache["k"] = b"v" * 1_000_000
                cache.me = cache
                cache.held = cache.view("k").__enter__()
            del cache
            gc.collect()
            print(gc.garbage)
        """
        assert run_python(code) == "[]\n"


class TestLimits:
    """RLIMIT_AS in a process of its own: what is asked for in vain is told, and the cache goes on living."""

    BEGIN = """
        import resource, sys, droppable
        def limit(more_bytes):
            now = 4096 * int(open("/proc/self/statm").read().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (now + more_bytes, resource.RLIM_INFINITY))
        def free():
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)
    """

    def test_no_room_for_a_cache(self, backing: str, run_python: Run) -> None:
        code = (
            self.BEGIN
            + """
        limit(0)
        try:
            for _ in range(100_000): droppable.Cache(backing=sys.argv[1])["k"] = b"v" * 1000
        except MemoryError as error:
            free()
            print(type(error).__name__, error)
        cache = droppable.Cache(backing=sys.argv[1])
        cache["k"] = 1
        print(cache["k"])
        """
        )
        first, second = run_python(code, backing).splitlines()
        assert first.startswith("MemoryError")
        assert "RLIMIT_AS" in first
        assert second == "1"

    def test_no_room_for_a_value(self, backing: str, run_python: Run) -> None:
        code = (
            self.BEGIN
            + """
        cache = droppable.Cache(backing=sys.argv[1])
        cache["old"] = b"o" * 100_000
        value = b"v" * (64 << 20)
        limit(32 << 20)
        for key in ("new", "old"):
            try:
                cache[key] = value
            except MemoryError as error:
                print(type(error).__name__, error)
            else:
                print("stored")
        print(cache["old"] == b"o" * 100_000, "new" in cache)
        cache["small"] = "s"
        print(cache["small"])
        free()
        cache["new"] = value
        print(cache["new"] == value)
        """
        )
        lines = run_python(code, backing).splitlines()
        assert all(line.startswith("MemoryError") and "RLIMIT_AS" in line for line in lines[:2])
        assert lines[2:] == ["True False", "s", "True"]

    def test_no_room_for_many_small_values(self, backing: str, run_python: Run) -> None:
        """It lives in what it has: the oldest give way, or the insert says that there is no room."""
        code = (
            self.BEGIN
            + """
        cache = droppable.Cache(backing=sys.argv[1])
        for key in range(1000): cache[key] = b"v" * 1000
        limit(16 << 20)
        told = 0
        for key in range(100_000):
            try:
                cache[key] = b"w" * 1000
            except MemoryError as error:
                told += 1
        wrong = [key for key in range(100_000) if cache.get(key, b"w" * 1000) not in (b"v" * 1000, b"w" * 1000)]
        print(told, wrong, len(cache) > 0)
        free()
        cache["k"] = 5
        print(cache["k"])
        """
        )
        first, second = run_python(code, backing).splitlines()
        assert first.endswith(" [] True")
        assert second == "5"

    def test_no_room_for_a_copy(self, backing: str, run_python: Run) -> None:
        code = (
            self.BEGIN
            + """
        cache = droppable.Cache(backing=sys.argv[1])
        value = b"v" * (64 << 20)
        cache["k"] = value
        limit(16 << 20)
        try:
            cache["k"]
        except MemoryError as error:
            print("told")
        if sys.argv[1] == "lazyfree":
            with cache.view("k") as memory:
                assert memory[-1] == ord("v")
        free()
        print(cache["k"] == value)
        """
        )
        assert run_python(code, backing).splitlines() == ["told", "True"]
