"""`droppable.connect(near=True)`: long values are kept in the process too, and are never older than the server's."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import droppable
import droppable.testing
from droppable.cli._serve import server_program

LONG = 100_000


@pytest.fixture(scope="module")
def path(start_server: Callable[..., Any]) -> Path:
    found: Path = start_server("--allow-clock").path
    return found


@pytest.fixture
def near(path: Path) -> Iterator[droppable.SharedCache]:
    with droppable.connect(path, strict=True, near=True) as cache:
        cache.clear()
        yield cache


@pytest.fixture
def plain(path: Path) -> Iterator[droppable.SharedCache]:
    with droppable.connect(path, strict=True) as cache:
        yield cache


def near_hits(cache: droppable.SharedCache, call: Callable[[], object]) -> int:
    before = cache.stats().hits_near
    call()
    return cache.stats().hits_near - before


class TestValues:
    def test_arrays_are_given_in_place(
        self, near: droppable.SharedCache, plain: droppable.SharedCache, numpy: Any
    ) -> None:
        record = numpy.dtype([("a", "<i4"), ("b", ">f8", (2,))])
        for array in (
            numpy.arange(LONG, dtype="f8"),
            numpy.asfortranarray(numpy.arange(LONG).reshape(100, -1)),
            numpy.zeros(LONG // 10, record),
            numpy.arange(LONG).astype("M8[s]"),
        ):
            plain["k"] = array
            first = near["k"]
            second, third = near["k"], near["k"]
            assert numpy.shares_memory(second, third)
            for found in (first, second, third):
                assert (found.dtype, found.shape, found.flags.f_contiguous) == (
                    array.dtype,
                    array.shape,
                    array.flags.f_contiguous,
                )
                assert (found == array).all()
                assert not found.flags.writeable
            own = near.get("k", copy=True)
            assert own.flags.writeable
            assert not numpy.shares_memory(own, second)

    @pytest.mark.parametrize("value", [b"x" * LONG, "x" * LONG, "\N{SNAKE}" * LONG, b"x" * 16384])
    def test_long_bytes_and_text(self, near: droppable.SharedCache, value: Any) -> None:
        near["k"] = value
        assert near_hits(near, lambda: [near["k"] for _ in range(3)]) == 2
        assert near["k"] == near.get_many(["k"])["k"] == value
        assert near.stats().hits_read >= near.stats().hits_near

    def test_short_values_and_objects_of_a_serializer_are_not_kept(self, path: Path) -> None:
        import pickle

        with droppable.connect(path, near=True, serializer=pickle) as cache:
            for value in (b"short", b"x" * 16383, list(range(LONG))):
                cache["k"] = value
                assert near_hits(cache, lambda: [cache["k"] for _ in range(3)]) == 0
                assert cache["k"] == value
            assert cache.near is not None
            assert len(cache.near) == 0

    def test_functions_and_namespaces(self, near: droppable.SharedCache, numpy: Any) -> None:
        tile = droppable.cache(cache=near.namespace("tiles"), name="tile")(lambda number: numpy.full(LONG, number))
        for _ in range(3):
            assert (tile(1)[0], tile(2)[0]) == (1, 2)
        assert numpy.shares_memory(tile(1), tile(1))

    def test_a_cache_of_the_users(self, path: Path) -> None:
        with droppable.Cache(max_bytes="8M") as mine:
            mine["k"] = "the user's own"
            with droppable.connect(path, near=mine) as cache:
                assert cache.near is mine
                cache["k"] = b"x" * LONG
                assert near_hits(cache, lambda: [cache["k"] for _ in range(3)]) == 2
                assert list(mine) == ["k"]
                assert mine["k"] == "the user's own"
                droppable.testing.drop(mine)
                assert near_hits(cache, lambda: cache["k"]) == 0
                assert cache["k"] == b"x" * LONG
                mine.close()
                assert cache["k"] == b"x" * LONG
                assert near_hits(cache, lambda: cache["k"]) == 0
        own = droppable.connect(path, near=True)
        assert own.near is not None
        own.close()
        with pytest.raises(droppable.ClosedError):
            len(own.near)

    def test_a_value_that_can_never_fit_is_not_kept(self, path: Path) -> None:
        with droppable.Cache(max_bytes="64K") as small, droppable.connect(path, near=small) as cache:
            cache["k"] = b"x" * LONG
            assert near_hits(cache, lambda: [cache["k"] for _ in range(3)]) == 0
            assert cache["k"] == cache.get_many(["k"])["k"] == b"x" * LONG

    def test_what_a_signal_handler_raises_while_a_value_is_kept_ends_the_call(self, path: Path) -> None:
        class Interrupted(droppable.Cache[Any, Any]):
            def set(self, key: Any, value: Any, *_: Any, **__: Any) -> bool:
                raise KeyboardInterrupt

        with Interrupted() as mine, droppable.connect(path, near=mine) as cache:
            cache["k"] = b"x" * LONG
            for call in (lambda: cache["k"], lambda: cache.get_many(["k"])):
                with pytest.raises(KeyboardInterrupt):
                    call()

    def test_wrong_arguments(self, path: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"near needs attach=True"):
            droppable.connect(path, near=True, attach=False)
        for wrong in (5, "64M", droppable.Cache(below={})):
            with pytest.raises(TypeError, match=r"near must be True, or a Cache without below= .*; you gave"):
                droppable.connect(path, near=wrong)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"near must be a Cache or None; you gave one of type int"):
            droppable.lowlevel.Reader(-1, -1, 0, print, print, 5)  # type: ignore[arg-type]


class Stepping:
    """Stored in the near cache in the place of a value: whoever looks there steps in before it is found unusable."""

    step_in: Callable[[], object]

    def __reduce__(self) -> Any:
        return Stepping.load, ()

    @staticmethod
    def load() -> None:
        Stepping.step_in()
        raise ValueError("to be looked for elsewhere")


class SteppingCache(droppable.Cache[Any, Any]):
    """A near cache that keeps what it is given in `kept`, and a `Stepping` in its place."""

    kept: list[Any]

    def set(self, key: Any, value: Any, *_: Any, **__: Any) -> bool:
        self.kept.append(value)
        return super().set(key, Stepping())


class TestAmidALookUp:
    """Between the two reads of a look-up: where the near cache was asked, and has not the value."""

    @pytest.fixture
    def stepping(self, path: Path) -> Iterator[droppable.SharedCache]:
        with SteppingCache() as cache:
            cache.kept = []
            with droppable.connect(path, strict=True, near=cache, serializer=json) as near:
                near["k"] = b"x" * LONG
                assert near["k"] == b"x" * LONG
                assert cache.kept == [b"x" * LONG]
                yield near

    @pytest.mark.parametrize("other", [{"of a": "serializer" * 10_000}, b"short"])
    def test_a_value_that_is_not_for_the_near_cache_any_more(self, stepping: droppable.SharedCache, other: Any) -> None:
        Stepping.step_in = lambda: stepping.set("k", other)
        assert stepping["k"] == other
        assert stepping.near is not None
        assert stepping.near.kept == [b"x" * LONG]  # type: ignore[attr-defined]
        assert stepping["k"] == other

    def test_a_value_that_is_another_one(self, stepping: droppable.SharedCache) -> None:
        Stepping.step_in = lambda: stepping.set("k", b"y" * LONG)
        assert stepping["k"] == b"y" * LONG
        assert stepping.near is not None
        assert stepping.near.kept == [b"x" * LONG, b"y" * LONG]  # type: ignore[attr-defined]

    def test_the_near_cache_is_closed(self, stepping: droppable.SharedCache) -> None:
        assert stepping.near is not None
        Stepping.step_in = stepping.near.close
        assert stepping["k"] == b"x" * LONG
        assert stepping["k"] == b"x" * LONG


class TestNeverOlder:
    def test_what_others_change_counts_at_once(self, near: droppable.SharedCache, plain: droppable.SharedCache) -> None:
        for round_ in range(50):
            value = b"%03d" % round_ * LONG
            plain["k"] = value
            assert near["k"] == near["k"] == value
            if round_ % 3 == 0:
                del plain["k"]
                assert near.get("k") is None
            elif round_ % 7 == 0:
                plain.clear()
                assert near.get("k") is None
        assert near.stats().hits_near >= 50

    def test_a_time_to_live(self, near: droppable.SharedCache, plain: droppable.SharedCache, path: Path) -> None:
        plain.set("k", b"x" * LONG, ttl=50)
        assert near["k"] == near["k"]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            connection.sendall(b"debugtime 60\r\n")
            assert connection.recv(100) == b"OK\r\n"
        assert near.get("k") is None

    def test_other_keys_make_no_copy_necessary(self, near: droppable.SharedCache, plain: droppable.SharedCache) -> None:
        """What is stored beside it changes the page of the index, and not the entry."""
        plain["k"] = b"x" * LONG
        assert near["k"] == b"x" * LONG
        for number in range(200):
            plain[number] = b"beside"
            assert near_hits(near, lambda: near["k"]) == 1

    def test_a_server_that_was_started_anew(self, tmp_path: Path) -> None:
        """The new one stores its value in the very place where the old one had one."""
        program = server_program()
        assert program is not None
        with droppable.connect(tmp_path / "socket", near=True, retry_seconds=0.001) as cache:
            for value in (b"old" * LONG, b"new" * LONG):
                argv = [str(program), "--unix", str(tmp_path / "socket"), "--threads", "1"]
                server = subprocess.Popen(argv, stdout=subprocess.PIPE)
                try:
                    assert server.stdout is not None
                    server.stdout.readline()
                    with droppable.connect(tmp_path / "socket", strict=True) as other:
                        other["k"] = value
                    while not cache.server_stats():
                        pass
                    assert cache["k"] == cache["k"] == value
                finally:
                    server.kill()
                    server.communicate()
                assert cache.get("k") is None
            assert cache.stats().hits_near == 2

    def test_beside_a_writer_in_another_process(self, near: droppable.SharedCache, path: Path) -> None:
        """Whatever is read is whole, and never older than what was read before."""
        code = """
            import sys, droppable
            with droppable.connect(sys.argv[1], strict=True) as cache:
                for number in range(2000):
                    for key in "abc":
                        cache.set(key, b"%06d" % number * 5000)
        """
        with subprocess.Popen([sys.executable, "-c", textwrap.dedent(code), str(path)]) as writer:
            last = dict.fromkeys("abc", -1)
            while writer.poll() is None:
                for key in "abc":
                    value = near.get(key)
                    if value is None:
                        continue
                    assert value == value[:6] * 5000
                    assert int(value[:6]) >= last[key]
                    last[key] = int(value[:6])
            assert writer.returncode == 0
        assert near["a"] == near["a"] == b"001999" * 5000
        assert near.stats().hits_near > 0

    def test_a_fork_has_a_near_cache_of_its_own(self, near: droppable.SharedCache) -> None:
        near["k"] = b"x" * LONG
        assert near_hits(near, lambda: [near["k"], near["k"]]) == 1
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            status = 1
            try:
                right = near["k"] == b"x" * LONG and near_hits(near, lambda: near["k"]) == 1
                status = 0 if right and near.set("k", b"y" * LONG) and near["k"] == b"y" * LONG else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert near["k"] == b"y" * LONG
