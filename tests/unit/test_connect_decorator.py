"""`@droppable.cache(cache=droppable.connect(...))`: the results of a function, in all processes of a host."""

from __future__ import annotations

import asyncio
import cmath
import functools
import multiprocessing
import operator
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import droppable

WAIT_SECONDS = 20
calls: list[Any] = []


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    calls.clear()


def double(number: int, *, times: int = 1) -> bytes:
    calls.append((number, times))
    return b"%d" % (2 * number * times)


class Tile:
    def __init__(self, name: str, secret: object = None) -> None:
        self.name = name
        self.secret = secret

    def render(self, zoom: int) -> bytes:
        calls.append((self.name, zoom))
        return f"{type(self).__name__} {self.name} {zoom}".encode()


def name_class(cls: type, number: int) -> str:
    calls.append(number)
    return f"{cls.__name__} {number}"


class OtherTile(Tile):
    @classmethod
    def called(cls, number: int) -> str:
        return name_class(cls, number)


class Doubling:
    def __call__(self, number: int) -> bytes:
        return double(number)


class TestFunctions:
    def test_another_process_finds_the_results(self, shared: droppable.SharedCache, server_socket: Path) -> None:
        """As another client of this process, which has the same function."""
        mine = droppable.cache(cache=shared)(double)
        with droppable.connect(server_socket) as other:
            theirs = droppable.cache(cache=other)(double)
            assert [mine(1), mine(1), theirs(1), theirs(2), mine(2)] == [b"2", b"2", b"2", b"4", b"4"]
            assert calls == [(1, 1), (2, 1)]
            assert theirs.cache_info()[:2] == (1, 1)
        assert mine.cache_info()[:2] == (2, 1)
        assert mine.__wrapped__ is double
        assert mine.__name__ == "double"
        assert mine.cache_parameters()["name"] == f"{__name__}.double"

    def test_arguments_are_told_apart_as_in_a_process(self, shared: droppable.SharedCache) -> None:
        plain = droppable.cache(cache=shared)(double)
        normal = droppable.cache(cache=shared, normalize=True, name="normal")(double)
        for function in (plain, normal):
            calls.clear()
            assert function(3, times=2) == function(3, times=2) == b"12"
            assert function(3) == b"6"
            assert len(calls) == 2
        calls.clear()
        assert normal(number=3, times=1) == normal(3) == b"6"
        assert calls == []

    def test_functions_have_keys_of_their_own(self, shared: droppable.SharedCache) -> None:
        one = droppable.cache(cache=shared, name="one")(lambda n: b"one %d" % n)
        two = droppable.cache(cache=shared, name="two")(lambda n: b"two %d" % n)
        in_part = droppable.cache(cache=shared.namespace("part"), name="one")(lambda n: b"part %d" % n)
        for _ in range(2):
            assert (one(1), two(1), in_part(1)) == (b"one 1", b"two 1", b"part 1")

    def test_options(self, shared: droppable.SharedCache, numpy: Any) -> None:
        kept = droppable.cache(cache=shared, name="kept", keep=lambda value: value != b"0", key=lambda n: n % 10)(
            double
        )
        assert [kept(0), kept(0), kept(13), kept(3)] == [b"0", b"0", b"26", b"26"]
        assert [number for number, _ in calls] == [0, 0, 13]
        zeros = droppable.cache(cache=shared, name="zeros", copy=True)(lambda n: numpy.zeros(n))
        for _ in range(3):
            array = zeros(1000)
            assert not array.any()
            array += 1
        frozen = droppable.cache(cache=shared, name="frozen")(lambda n: numpy.zeros(n))
        assert not frozen(10).flags.writeable

    def test_a_time_to_live(self, start_server: Callable[..., Any]) -> None:
        server = start_server("--allow-clock")
        with droppable.connect(server.path) as cache:
            calls.clear()
            short = droppable.cache(cache=cache, ttl=lambda value: 50 if value == b"2" else 5000)(double)
            short(1), short(2)
            subprocess.run(
                [sys.executable, "-c", CLOCK, str(server.path)],
                check=True,
                stdout=subprocess.DEVNULL,
                timeout=WAIT_SECONDS,
            )
            assert (short(1), short(2)) == (b"2", b"4")
            assert calls == [(1, 1), (2, 1), (1, 1)]

    def test_clear_and_invalidate_count_for_all(self, shared: droppable.SharedCache, server_socket: Path) -> None:
        mine = droppable.cache(cache=shared)(double)
        with droppable.connect(server_socket) as other:
            theirs = droppable.cache(cache=other)(double)
            assert (mine(1), mine(2)) == (b"2", b"4")
            assert theirs.invalidate(1)
            assert not theirs.discard(1)
            mine(1), mine(2)
            assert calls == [(1, 1), (2, 1), (1, 1)]
            shared.set("beside", b"stays")
            theirs.cache_clear()
            mine(1), mine(2)
            assert len(calls) == 5
            assert shared["beside"] == b"stays"
            assert theirs.cache[theirs.cache_key(2)] == b"4"

    def test_exceptions_reach_the_caller_and_are_not_kept(self, shared: droppable.SharedCache) -> None:
        fails = droppable.cache(cache=shared, name="fails")(lambda n: 1 // n)
        for _ in range(2):
            with pytest.raises(ZeroDivisionError):
                fails(0)

    def test_a_result_that_cannot_be_shared_is_told(self, shared: droppable.SharedCache) -> None:
        listing = droppable.cache(cache=shared, name="listing")(lambda: [1])
        with pytest.raises(TypeError, match=r"value must be bytes, str, an int of 64 bits or a NumPy array") as raised:
            listing()
        assert raised.value.__notes__ == ["It is what listing has returned"]

    def test_keys_that_cannot_be_shared_are_told(self, shared: droppable.SharedCache) -> None:
        length = droppable.cache(cache=shared, name="length")(lambda text: b"%d" % len(text))
        with pytest.raises(ValueError, match=r"the arguments of length make a key of more than 4096 bytes.*key="):
            length("x" * 5000)
        with pytest.raises(TypeError, match=r"argument 'text' of length, of type generator, cannot be part of a key"):
            length(n for n in ())

    def test_without_a_server_it_computes(self, tmp_path: Path) -> None:
        with droppable.connect(tmp_path / "nobody") as cache:
            calls.clear()
            function = droppable.cache(cache=cache)(double)
            assert function(1) == function(1) == b"2"
            assert len(calls) == 2
            function.cache_clear()


CLOCK = """
import socket, sys
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect(sys.argv[1])
    connection.sendall(b"debugtime 60\\r\\n")
    assert connection.recv(100) == b"OK\\r\\n"
"""


class TestMethods:
    def test_self_is_known_by_what_identifies_it(self, shared: droppable.SharedCache, server_socket: Path) -> None:
        for self_key in ("name", lambda tile: tile.name):
            for normalize in (False, True):
                shared.clear()
                calls.clear()
                method = droppable.cache(cache=shared, self_key=self_key, normalize=normalize)(Tile.render)
                # Other numbers of classes than in a process that has seen these two the other way round.
                seen = [
                    method(kind(name), zoom=1) for kind in (OtherTile, Tile) for name in ("a", "b") for _ in range(2)
                ]
                assert seen[::2] == seen[1::2] == [b"OtherTile a 1", b"OtherTile b 1", b"Tile a 1", b"Tile b 1"]
                assert len(calls) == 4
                assert method(Tile("a", "another secret"), zoom=1) == b"Tile a 1"
                assert len(calls) == 4
                with pytest.raises(TypeError, match=r"takes self by position"):
                    method(zoom=1)

    def test_classes_have_the_same_key_in_each_process(
        self, server_socket: Path, run_python: Callable[..., str]
    ) -> None:
        """Of two heirs, whichever was called first: a number of this process would give one's result for the other."""
        code = """
            import sys, droppable
            sys.modules["shapes"] = sys.modules["__main__"]
            cache = droppable.connect(sys.argv[1], strict=True)

            class Shape:
                __module__ = "shapes"
                def __init__(self, id):
                    self.id = id
                @droppable.cache(cache=cache, self_key="id", name="shapes")
                def name(self):
                    return type(self).__name__

            class Round(Shape):
                __module__ = "shapes"
            class Square(Shape):
                __module__ = "shapes"
            for kind in sys.argv[2:]:
                print(globals()[kind](1).name())
        """
        assert run_python(code, str(server_socket), "Round") == "Round\n"
        assert run_python(code, str(server_socket), "Square", "Round", "Shape") == "Square\nRound\nShape\n"

    def test_class_methods_and_static_methods(
        self, shared: droppable.SharedCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        of_class = droppable.cache(cache=shared, name="of class")(classmethod(name_class))
        monkeypatch.setattr(Tile, "of_class", of_class, raising=False)
        monkeypatch.setattr(Tile, "static", droppable.cache(cache=shared)(staticmethod(double)), raising=False)
        tile: Any = Tile
        for _ in range(2):
            assert (tile.of_class(1), tile("a").of_class(1), tile.static(2)) == ("Tile 1", "Tile 1", b"4")
        assert calls == [1, (2, 1)]

    def test_self_by_value(self, shared: droppable.SharedCache) -> None:
        method = droppable.cache(cache=shared)(Tile.render)
        assert method(Tile("a"), 1) == method(Tile("a"), 1)
        assert calls == [("a", 1)]
        method(Tile("a", "other"), 1)
        assert len(calls) == 2


class TestCoroutines:
    def test_it_computes_once(self, shared: droppable.SharedCache, server_socket: Path) -> None:
        async def slow(number: int) -> bytes:
            calls.append(number)
            await asyncio.sleep(0.01)
            return b"%d" % number

        function = droppable.cache(cache=shared, name="slow")(slow)
        assert asyncio.iscoroutinefunction(function)

        async def run() -> None:
            assert await asyncio.gather(*(function(n % 3) for n in range(12))) == [b"%d" % (n % 3) for n in range(12)]
            assert sorted(calls) == [0, 1, 2]
            with droppable.connect(server_socket) as other:
                assert await droppable.cache(cache=other, name="slow")(slow)(1) == b"1"
            assert len(calls) == 3

        asyncio.run(run())
        assert function.cache_info().hits + function.cache_info().misses == 12


class TestRefusals:
    def test_options_of_a_cache_in_the_process(self, shared: droppable.SharedCache) -> None:
        options: dict[str, tuple[Any, str]] = {
            "max_bytes": ("64M", r"droppable serve --memory"),
            "backing": ("droppable", r"droppable serve"),
            "fork": ("share", r"Leave it out"),
            "serializer": (functools, r"connect\(serializer=\.\.\.\)"),
        }
        for name, (value, instead) in options.items():
            with pytest.raises(TypeError, match=rf"{name}= cannot be given with a shared cache: .*{instead}"):
                droppable.cache(cache=shared, **{name: value})
        with pytest.raises(TypeError, match=r"stale= needs a cache of this process: .*invalidate\(\)"):
            droppable.cache(cache=shared, ttl=5, stale=5)(double)
        with pytest.raises(TypeError, match=r"INSTANCE needs a cache of this process.*name of an attribute"):
            droppable.cache(cache=shared, self_key=droppable.INSTANCE)(Tile.render)
        with pytest.raises(TypeError, match=r"what droppable.connect\(\) gives, or None; you gave 5"):
            droppable.cache(cache=5)  # type: ignore[call-overload]

    def test_refresh(self, shared: droppable.SharedCache) -> None:
        function = droppable.cache(cache=shared)(double)
        with pytest.raises(droppable.UnsupportedError, match=r"refresh\(\) of .*double.*Call invalidate\(\)"):
            function.refresh(1)

    def test_functions_without_a_name_that_others_have(
        self, shared: droppable.SharedCache, run_python: Callable[..., str], server_socket: Path
    ) -> None:
        def local() -> bytes:
            return b""

        more_than_a_function = (
            functools.partial(double, 1),
            staticmethod(functools.partial(double, 1)),
            Tile("a").render,
            OtherTile.called,
            Doubling(),
            operator.attrgetter("number"),
            b"".join,
        )
        for function in (local, lambda: b"", functools.partial(local), *more_than_a_function):
            with pytest.raises(ValueError, match=r"may be several functions: give @droppable.cache\(cache=..., name="):
                droppable.cache(cache=shared)(function)
        code = """
            import sys, droppable
            try:
                @droppable.cache(cache=droppable.connect(sys.argv[1]))
                def function(): pass
            except ValueError as error:
                print(error)
        """
        assert "function of module __main__ may be several functions" in run_python(code, str(server_socket))

    def test_functions_of_the_interpreter_and_of_wrappers_have_a_name(self, shared: droppable.SharedCache) -> None:
        assert droppable.cache(cache=shared, keep=None)(os.path.basename)("a/b") == "b"
        with pytest.raises(TypeError, match=r"(?s)type complex.*It is what cmath\.sqrt has returned"):
            droppable.cache(cache=shared)(cmath.sqrt)(4)
        wrapped = droppable.cache(cache=shared)(functools.lru_cache(double))
        assert (wrapped(4), wrapped(4), calls) == (b"8", b"8", [(4, 1)])

    def test_programs_that_are_folders_have_functions_of_their_own(self, server_socket: Path, tmp_path: Path) -> None:
        """Each calls itself __main__, also where others have a name for what is started."""
        for name in ("one", "other"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "__main__.py").write_text(
                "import sys, droppable\n"
                "@droppable.cache(cache=droppable.connect(sys.argv[1], strict=True))\n"
                f"def whose(): return {name!r}\n"
                "print(whose())\n"
            )
            done = subprocess.run(
                [sys.executable, tmp_path / name, server_socket], capture_output=True, text=True, timeout=60, check=True
            )
            assert done.stdout == f"{name}\n"


PROGRAM = """
import multiprocessing, os, sys
import droppable

cache = droppable.connect(sys.argv[1], strict=True)

@droppable.cache(cache=cache)
def square(number):
    os.close(os.open(f"{sys.argv[2]}/{number}", os.O_CREAT | os.O_EXCL))  # raises for the second who computes it
    return b"%d" % number ** 2

if __name__ == "__main__":
    with multiprocessing.get_context(sys.argv[3]).Pool(3) as pool:
        for found in [square(1), *pool.map(square, [1, 2, 3] * 4, chunksize=1), square(3)]:
            print(found.decode(), end=" ")
"""


class TestProcesses:
    @pytest.mark.parametrize("how", ["spawn", "fork"])
    def test_a_program_and_its_pool_have_one_function(self, server_socket: Path, tmp_path: Path, how: str) -> None:
        """Its module is `__main__` here and `__mp_main__` there."""
        program = tmp_path / "program.py"
        program.write_text(PROGRAM)
        made = tmp_path / "made"
        made.mkdir()
        argv = [sys.executable, str(program), str(server_socket), str(made), how]
        result = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
        assert (result.stderr, result.stdout) == ("", "1 " + "1 4 9 " * 4 + "9 ")
        assert sorted(os.listdir(made)) == ["1", "2", "3"]

    def test_processes_compute_each_result_once(self, server_socket: Path, tmp_path: Path) -> None:
        context = multiprocessing.get_context("spawn")
        with context.Manager() as manager, context.Pool(4) as pool:
            ready = manager.Barrier(4)
            computed = pool.starmap(run_all, [(str(server_socket), ready)] * 4)
        assert sum(computed) == 20

    def test_threads_wait_for_one_another(self, shared: droppable.SharedCache) -> None:
        ready = threading.Barrier(8)

        def slow() -> bytes:
            calls.append(1)
            return b"value"

        function = droppable.cache(cache=shared, name="threads")(slow)

        def run() -> None:
            ready.wait(WAIT_SECONDS)
            assert function() == b"value"

        threads = [threading.Thread(target=run) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_SECONDS)
        assert calls == [1]


def run_all(path: str, ready: Any) -> int:
    """In a process of its own: how many of twenty results it computes."""
    with droppable.connect(path, strict=True) as cache:
        calls.clear()
        function = droppable.cache(cache=cache, name="run_all")(double)
        ready.wait(WAIT_SECONDS)
        assert [function(number) for number in range(20)] == [b"%d" % (2 * number) for number in range(20)]
    return len(calls)
