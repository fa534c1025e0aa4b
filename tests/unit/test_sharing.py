"""Nothing that a cache hands out is shared and can be changed: what one caller does to it, no other caller sees."""

from __future__ import annotations

import pickle
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

import pytest

import droppable
from droppable import Cache
from droppable._reducers import _Library, _Reducers

Make = Callable[..., Cache]


def rename(dtype: Any) -> None:
    dtype.names = tuple(f"{name}_changed" for name in dtype.names)


def rename_inner(dtype: Any) -> None:
    rename(dtype["inner"])


def rename_base(dtype: Any) -> None:
    rename(dtype["many"].base)


def fill_metadata(dtype: Any) -> None:
    dtype.metadata["seen"].append("changed")


def fill_inner_metadata(dtype: Any) -> None:
    dtype["inner"].metadata["seen"].append("changed")


def swap(dtype: Any) -> None:
    other = dtype.newbyteorder("S")
    dtype.__setstate__(other.__reduce__()[2])


def names_of(dtype: Any) -> str:
    """All that tells two dtypes apart, in words; their pickles also differ in what they share inside."""
    told = [repr(dtype), str(dtype.metadata or None), str(dtype.isalignedstruct), str(sorted(dict(dtype.fields or {})))]
    told += [names_of(dtype[name]) for name in dtype.names or ()]
    return " ".join(told + ([names_of(dtype.base)] if dtype.subdtype else []))


CHANGES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], None]]] = {
    "names": (lambda np: np.dtype([("x", "<f8"), ("y", "<f8")]), rename),
    "nested names": (lambda np: np.dtype([("inner", [("x", "i4"), ("y", "i4")]), ("z", "f8")]), rename_inner),
    "names in a subarray": (lambda np: np.dtype([("many", [("x", "i4"), ("y", "i4")], (2,))]), rename_base),
    "titles": (lambda np: np.dtype([(("title", "x"), "f8"), ("y", "i4")]), rename),
    "offsets": (
        lambda np: np.dtype({"names": ["a", "b"], "formats": ["i4", "f8"], "offsets": [0, 2], "itemsize": 32}),
        rename,
    ),
    "aligned": (lambda np: np.dtype([("a", "i1"), ("b", "f8")], align=True), rename),
    "metadata": (lambda np: np.dtype("f8", metadata={"seen": []}), fill_metadata),
    "nested metadata": (
        lambda np: np.dtype([("inner", np.dtype("f8", metadata={"seen": []})), ("z", "i4")]),
        fill_inner_metadata,
    ),
    "byte order": (lambda np: np.dtype(">i4"), swap),
    "text": (lambda np: np.dtype(">U7"), swap),
    "dates": (lambda np: np.dtype(">M8[ns]"), swap),
}


class TestDtypes:
    @pytest.mark.parametrize("what", CHANGES)
    @pytest.mark.parametrize("order", ["C", "F"])
    def test_one_callers_change_is_his_own(self, make_cache: Make, numpy: Any, what: str, order: Any) -> None:
        make, change = CHANGES[what]
        cache = make_cache()
        stored = numpy.frombuffer(bytes(range(200)) * make(numpy).itemsize, dtype=make(numpy))[:150]
        stored = numpy.array(stored.reshape(10, 15), order=order)
        for key in "abc":
            cache[key] = stored
        right = names_of(make(numpy))
        for number in range(4):
            for key in "abc":
                got = cache[key]
                assert names_of(got.dtype) == right, f"{key} after {number} rounds"
                assert (got == stored).all()
                assert got.dtype == make(numpy)
                change(got.dtype)
                assert names_of(got.dtype) != right, "the change changes nothing: this test proves nothing"

    def test_what_numpy_has_once_is_given_as_it_is(self, cache: Cache, numpy: Any) -> None:
        for code in ("f8", "f4", "i8", "u2", "?", "c16"):
            cache["k"] = numpy.zeros(2000, code)
            assert cache["k"].dtype is numpy.dtype(code)
            assert cache["k"].dtype is numpy.dtype(code)

    def test_in_pickles_too(self, cache: Cache, numpy: Any) -> None:
        stored = numpy.zeros(3000, [("x", "f8"), ("y", "f8")])
        for key in "ab":
            cache[key] = {"array": stored, "list": []}
        for _ in range(3):
            for key in "ab":
                got = cache[key]
                assert got["array"].dtype.names == ("x", "y")
                assert got["list"] == []
                rename(got["array"].dtype)
                got["list"].append(1)

    def test_more_dtypes_than_are_remembered(self, cache: Cache, numpy: Any) -> None:
        for _ in range(2):
            for number in range(100):
                dtype = numpy.dtype([(f"field{number}", "f8"), ("y", "f8")])
                cache[number] = numpy.ones(1000, dtype)
                assert cache[number].dtype == dtype
                rename(cache[number].dtype)
                assert cache[number].dtype == dtype

    def test_with_a_serializer(self, make_cache: Make, numpy: Any) -> None:
        cache = make_cache(serializer=pickle)
        cache["a"] = cache["b"] = numpy.zeros(3000, [("x", "f8"), ("y", "f8")])
        for key in "abab":
            got = cache[key]
            assert got.dtype.names == ("x", "y")
            rename(got.dtype)


class TestExceptionsAndFigures:
    def test_each_error_is_a_new_one(self) -> None:
        cache = Cache()
        cache.close()
        region = droppable.Region(65536, on_drop="raise")
        region.close()
        for call in (lambda: cache["k"], lambda: cache.get("k"), lambda: region.read(0, 1), lambda: Cache(ttl=-1)):
            errors = []
            for _ in range(3):
                with pytest.raises(ValueError) as caught:
                    call()
                errors.append(caught.value)
                assert not hasattr(caught.value, "__notes__")
                assert caught.value.args != ("changed",)
                caught.value.add_note("mine")
                caught.value.args = ("changed",)
            assert len({id(error) for error in errors}) == 3

    def test_figures_cannot_be_changed_for_others(self, cache: Cache) -> None:
        cache._counts()["hits"] = 99
        assert cache.stats().hits == 0
        with pytest.raises(AttributeError):
            cache.stats().hits = 1  # type: ignore[misc]
        with pytest.raises(AttributeError):
            droppable.features()["python"].value = 1  # type: ignore[misc]
        assert isinstance(droppable.features().items, tuple)
        assert isinstance(droppable.Dropped("made by hand").offsets, tuple)


class _Registering(type):
    """Its hash registers another type: what a finaliser in the middle of a registration would do."""

    before: Callable[[], None] | None = None

    def __hash__(cls) -> int:
        before, _Registering.before = _Registering.before, None
        if before:
            before()
        return 1


def reduce(value: Any) -> Any:
    return str(value)


class TestReducers:
    """Registrations that meet each other: none is lost."""

    def test_one_in_the_middle_of_another(self) -> None:
        reducers = _Reducers()

        class First(metaclass=_Registering):
            pass

        class Second:
            pass

        _Registering.before = lambda: reducers.register(Second, reduce)
        reducers.register(First, reduce)
        assert set(reducers.table() or {}) >= {First, Second}

    def test_a_library_that_comes_while_another_one_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        modules = {name: types.ModuleType(name) for name in ("outer", "inner")}
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)

        class Outer:
            pass

        class Inner:
            pass

        asked: list[str] = []

        def offer_outer(module: Any) -> Any:
            asked.append("outer")
            if asked == ["outer"]:
                reducers.table()
                reducers.register(int, reduce)
            return {Outer: reduce}

        reducers = _Reducers(_Library("outer", offer_outer), _Library("inner", lambda module: {Inner: reduce}))
        for _ in range(3):
            assert set(reducers.table() or {}) >= {Outer, Inner, int}
        assert asked == ["outer"] * 2

    def test_growth_while_it_is_asked(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module: Any = types.ModuleType("growing")
        module.kinds = [int]
        monkeypatch.setitem(sys.modules, "growing", module)

        def offer(module: Any) -> Any:
            table = dict.fromkeys(module.kinds, reduce)
            if len(module.kinds) == 1:
                module.kinds.append(float)
            return table

        reducers = _Reducers(_Library("growing", offer, growth=lambda module: len(module.kinds)))
        reducers.table()
        assert set(reducers.table() or {}) >= {int, float}

    def test_a_library_imported_anew(self, monkeypatch: pytest.MonkeyPatch) -> None:
        kinds = iter([int, float])
        reducers = _Reducers(_Library("anew", lambda module: {next(kinds): reduce}))
        for _ in range(2):
            monkeypatch.setitem(sys.modules, "anew", types.ModuleType("anew"))
            reducers.table()
        assert set(reducers.table() or {}) >= {int, float}

    def test_many_threads(self) -> None:
        reducers = _Reducers()
        kinds = [[type(f"Kind{number}_{at}", (), {}) for at in range(60)] for number in range(8)]
        begin = threading.Barrier(8)

        def register(mine: list[type]) -> None:
            begin.wait()
            for kind in mine:
                reducers.register(kind, reduce)
                assert kind in (reducers.table() or {})

        threads = [threading.Thread(target=register, args=(mine,)) for mine in kinds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(reducers.table() or {}) >= {kind for mine in kinds for kind in mine}
