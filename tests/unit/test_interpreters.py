"""The extension imported again, and in subinterpreters: what exists goes on, with the same exception classes.

Each test runs in a process of its own: what it does to `sys.modules` is nothing for the others.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable

import pytest

Run = Callable[..., str]

# A second module of the extension, beside the one that droppable uses.
AGAIN = """
import gc, importlib.util, io, sys, types, weakref
import droppable, droppable.lowlevel

def import_again():
    spec = importlib.util.find_spec(droppable.lowlevel._core.__name__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def forget(package="droppable"):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]

def loads(kind, meta, memory):
    raise AssertionError("nothing here needs decode()")

OPTIONS = dict(backing=0, share_on_fork=False, max_bytes=0, ttl=None, shards=0, segment_bytes=0, span_bytes=0,
               encode=None, decode=loads, unloadable=print, disabled=False, has_below=False)
"""

CLASSES = ("DroppableError", "ClosedError", "ValueTooLargeError", "UnsupportedError", "RefusedError", "Dropped")

# run(make("legacy"), code): in a subinterpreter that shares the GIL. The modules have other names in each Python.
INTERPRETERS = """
try:
    import _interpreters as interpreters

    def make(kind):
        return interpreters.create(kind)

    def run(interpreter, code):
        told = interpreters.exec(interpreter, code)
        assert told is None, told.formatted
except ImportError:
    import _xxsubinterpreters as interpreters

    def make(kind):
        return interpreters.create(isolated=kind == "isolated")

    run = interpreters.run_string
"""


def with_head(head: str, code: str) -> str:
    return head + textwrap.dedent(code)


class TestImportedAgain:
    def test_one_set_of_exception_classes(self, run_python: Run) -> None:
        code = with_head(
            AGAIN,
            f"""
            other = import_again()
            assert other is not droppable.lowlevel._core
            for name in {CLASSES}:
                assert getattr(other, name) is getattr(droppable, name), name
            assert droppable.Dropped.offsets == ()
            """,
        )
        run_python(code)

    def test_both_raise_what_the_other_one_catches(self, run_python: Run) -> None:
        code = with_head(
            AGAIN,
            """
            old = droppable
            first = old.Cache()
            region = old.Region(65536, on_drop="raise")
            first.close()
            region.close()
            forget()
            import droppable
            assert droppable is not old and droppable.Cache is not old.Cache
            second = droppable.Cache()
            second.close()
            for call in (lambda: first["k"], lambda: second["k"], lambda: region.read(0, 1)):
                for classes in (old, droppable):
                    try:
                        call()
                    except classes.ClosedError:
                        continue
                    raise AssertionError("not caught")
            """,
        )
        run_python(code)

    def test_values_of_every_kind_stay_readable(self, run_python: Run, numpy: object) -> None:
        code = with_head(
            AGAIN,
            """
            import numpy
            values = {"bytes": b"b" * 100, "text": "t\\u00e9xt", "pickle": {1: [2]}, "array": numpy.arange(9000.0)}
            old = droppable.Cache()
            numbers = droppable.cache(lambda size: list(range(size)))
            for key, value in values.items():
                old[(key,)] = value
            old[("array",)], numbers(10)
            held = old[("array",)]
            for again in range(3):
                import_again()
                forget()
                import droppable
                new = droppable.Cache()
                for key, value in values.items():
                    new[key] = value
                    assert numpy.array_equal(new[key], value) and numpy.array_equal(old[(key,)], value), key
                assert sorted(old) == sorted((key,) for key in values)
                assert numbers(10) == list(range(10)) and numbers.cache_info().hits == again + 1
                held_region = droppable.Region(65536)
                with held_region.writing(0, 4096) as memory:
                    memory[:4] = b"1234"
                assert held_region.read(0, 4) == b"1234"
            assert held.sum() == values["array"].sum()
            try:
                held.flags.writeable = True
            except ValueError:
                pass
            else:
                raise AssertionError("a held array must stay read-only")
            """,
        )
        run_python(code)

    def test_a_module_goes_with_the_last_of_its_objects(self, run_python: Run) -> None:
        code = with_head(
            AGAIN,
            """
            def use(keep):
                module = import_again()
                cache = module.Cache(**OPTIONS)
                cache["k"] = bytes(100_000)
                memo = module.Memo(cache, types.SimpleNamespace(miss=1), None, 0, None, 1, 1, 0, 0, 0, 0, 0, None)
                memo.itself = memo, cache, module  # a cycle through all of it
                module.random_uuid4()
                region = module.RawRegion(65536)
                kept = {"nothing": None, "pin": cache._raw("k")[1], "cache": cache, "region": region,
                        "hold": region.hold("read", 0, 4096), "mapping": module.Mapping(65536),
                        "class": module.Cache, "function": module.random_uuid4}[keep]
                return weakref.ref(module), kept

            for keep in ("nothing", "pin", "cache", "region", "hold", "mapping", "class", "function"):
                module, kept = use(keep)
                gc.collect()
                assert (module() is None) == (keep == "nothing"), keep
                if keep == "pin":
                    assert bytes(kept) == bytes(100_000)
                    try:
                        io.BytesIO(b"1").readinto(kept)
                    except (BufferError, TypeError):
                        pass
                    else:
                        raise AssertionError("a pin let itself be written")
                if keep == "cache":
                    kept["pickled"] = [1]
                    assert kept["pickled"] == [1] and kept["k"] == bytes(100_000)
                if keep == "hold":
                    assert len(memoryview(kept)) == 4096
                    kept.finish()
                kept = None
                gc.collect()
                assert module() is None, keep
            """,
        )
        run_python(code)

    def test_objects_of_another_module_are_refused_with_a_reason(self, run_python: Run) -> None:
        code = with_head(
            AGAIN,
            """
            one, other = import_again(), import_again()
            cache = one.Cache(**OPTIONS)
            try:
                other.Memo(cache, types.SimpleNamespace(miss=1), None, 0, None, 1, 1, 0, 0, 0, 0, 0, None)
            except TypeError as error:
                assert "Cache" in str(error)
            else:
                raise AssertionError("a memo took the cache of another module")
            """,
        )
        run_python(code)

    def test_uuids_of_every_module(self, run_python: Run) -> None:
        code = with_head(
            AGAIN,
            """
            import uuid
            modules = [import_again() for _ in range(3)]
            made = {module.random_uuid4() for module in modules for _ in range(10)}
            assert len(made) == 30 and all(type(one) is uuid.UUID and one.version == 4 for one in made)
            assert all(one.is_safe is uuid.SafeUUID.unknown for one in made)
            """,
        )
        run_python(code)


class TestSubinterpreters:
    def test_they_come_and_go_while_the_main_one_uses_its_caches(self, run_python: Run) -> None:
        code = with_head(
            INTERPRETERS,
            """
            import droppable
            closed, cache = droppable.Cache(), droppable.Cache()
            closed.close()
            cache["pickled"], cache["long"] = {1: 2}, bytes(500_000)
            squares = droppable.cache(lambda number: [number * number])
            squares(3)
            for round in range(4):
                interpreter = make("legacy")
                run(interpreter, '''if True:
                    import droppable
                    cache = droppable.Cache()
                    cache["pickled"] = {3: 4}
                    cache["long"] = bytes(300_000)
                    assert cache["pickled"] == {3: 4}
                    gone = droppable.Cache()
                    gone.close()
                    try:
                        gone["k"]
                    except droppable.ClosedError:
                        pass
                    region = droppable.Region(65536, on_drop="raise")
                    region.write(0, b"here")
                    hold = region.reading(0, 4)
                    view = cache.view("long").__enter__()  # alive when the interpreter ends
                    squares = droppable.cache(lambda number: [number * number])
                    assert squares(2) == squares(2) == [4]
                    droppable.random.uuid4()
                ''')
                assert cache["pickled"] == {1: 2} and squares(3) == [9]
                if round % 2:
                    interpreters.destroy(interpreter)
                assert cache["pickled"] == {1: 2} and squares(3) == [9] and len(cache["long"]) == 500_000
                try:
                    closed["k"]
                except droppable.ClosedError:
                    continue
                raise AssertionError("not caught")
            assert squares.cache_info().hits == 8
            """,
        )
        run_python(code)

    def test_its_exceptions_are_its_own(self, run_python: Run) -> None:
        code = with_head(
            INTERPRETERS,
            """
            import droppable
            interpreter = make("legacy")
            run(interpreter, f'''if True:
                import droppable
                assert id(droppable.ClosedError) != {id(droppable.ClosedError)}
                import importlib, sys
                core = droppable.lowlevel._core
                del sys.modules[core.__name__]
                again = importlib.import_module(core.__name__)
                assert again is not core and again.ClosedError is droppable.ClosedError
            ''')
            interpreters.destroy(interpreter)
            assert issubclass(droppable.ClosedError, ValueError)
            """,
        )
        run_python(code)

    @pytest.mark.skipif(sys.version_info < (3, 12), reason="interpreters with a GIL of their own came with Python 3.12")
    def test_one_with_a_gil_of_its_own_is_refused(self, run_python: Run) -> None:
        code = with_head(
            INTERPRETERS,
            """
            import droppable
            cache = droppable.Cache()
            cache["k"] = [1]
            interpreter = make("isolated")
            run(interpreter, '''if True:
                try:
                    import droppable
                except ImportError as error:
                    assert "share" in str(error) and "GIL" in str(error), error
                else:
                    raise AssertionError("it was not refused")
            ''')
            interpreters.destroy(interpreter)
            assert cache["k"] == [1]
            """,
        )
        run_python(code)


class TestOtherSystems:
    """In one sentence: what is supported, and what this is."""

    @pytest.mark.parametrize(
        "change",
        [
            "sys.platform = 'darwin'",
            "sys.platform = 'win32'",
            "sys.implementation.name = 'pypy'",
        ],
    )
    def test_the_import_says_what_is_supported(self, run_python: Run, change: str) -> None:
        code = with_head(
            f"import sys\n{change}\n",
            """
            try:
                import droppable
            except ImportError as error:
                text = str(error)
            else:
                raise AssertionError("it was imported")
            assert "Linux" in text and "CPython 3.11" in text and "\\n" not in text, text
            assert sys.platform in text and sys.implementation.name in text, text
            """,
        )
        run_python(code)
