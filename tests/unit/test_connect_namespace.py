"""Namespaces of a shared cache, and what every shared cache has or says that it lacks."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import droppable
from droppable._connect.lacking import Lacking

WAIT_SECONDS = 20


class TestNamespaces:
    def test_keys_are_their_own(self, shared: droppable.SharedCache, server_socket: Path) -> None:
        with droppable.connect(server_socket) as other:
            mine, theirs = shared.namespace("users"), other.namespace("users")
            mine["k"] = b"in users"
            shared["k"] = b"outside"
            shared.namespace("tiles")["k"] = b"in tiles"
            shared.namespace(("users", 1))["k"] = b"by a tuple"
            assert theirs["k"] == mine["k"] == b"in users"
            assert "k" in theirs
            assert "l" not in theirs
            assert theirs.get("l", 5) == 5
            assert theirs.delete("k")
            assert not theirs.discard("k")
            assert mine.get("k") is None
            with pytest.raises(KeyError):
                mine["k"]
            with pytest.raises(KeyError):
                del mine["k"]
            assert shared["k"] == b"outside"
            assert shared.namespace("tiles")["k"] == b"in tiles"
            assert shared.namespace(("users", 1))["k"] == b"by a tuple"

    def test_what_was_not_stored_yet_is_not_there(self, shared: droppable.SharedCache) -> None:
        part = shared.namespace("empty")
        assert part.get("k") is None
        assert part.get_many(["k", "l"]) == {}
        assert "k" not in part
        assert not part.delete("k")
        assert part.clear()
        assert shared.server_stats()["entries"] == 0

    def test_clear_forgets_them_alone_in_all_processes(
        self, shared: droppable.SharedCache, server_socket: Path
    ) -> None:
        with droppable.connect(server_socket) as other:
            part, theirs = shared.namespace("users"), other.namespace("users")
            inner = part.namespace("of one")
            for cache in (shared, part, inner, shared.namespace("beside")):
                cache["k"] = b"v"
            assert theirs.clear()
            assert [cache.get("k") for cache in (part, inner, theirs)] == [None] * 3
            assert [cache.get("k") for cache in (shared, shared.namespace("beside"))] == [b"v"] * 2
            part["k"] = b"new"
            assert theirs["k"] == b"new"
            assert inner.get("k") is None
            inner["k"] = b"inner"
            assert theirs.namespace("of one")["k"] == b"inner"
            assert inner.clear()
            assert inner.get("k") is None
            assert part["k"] == b"new"

    def test_it_may_be_cleared_where_the_cache_may_not(self, start_server: Callable[..., Any]) -> None:
        with droppable.connect(start_server("--no-flush").path) as cache:
            part = cache.namespace("users")
            part["k"] = b"v"
            assert part.clear()
            assert part.get("k") is None

    def test_the_same_calls(self, shared: droppable.SharedCache, numpy: Any) -> None:
        part = shared.namespace("users")
        assert part.add("a", b"1")
        assert not part.add("a", b"2")
        assert part.set_many({n: b"%d" % n for n in range(100)}, ttl=100) == []
        assert part.get_many(range(50, 150)) == {n: b"%d" % n for n in range(50, 100)}
        assert part.delete_many(range(50, 150)) == 50
        assert part.setdefault("a", b"3") == b"1"
        assert part.setdefault("b", b"3") == part["b"] == b"3"
        part.update({"c": b"4"}, d=b"5")
        part.update([("e", b"6")])
        assert (part["c"], part["d"], part["e"]) == (b"4", b"5", b"6")
        made = [part.get_or_create("array", lambda: numpy.arange(3), copy=True) for _ in range(2)]
        made[0][0] = 7
        assert made[1].tolist() == part.get("array", copy=True).tolist() == [0, 1, 2]
        assert part.get("array", copy=True).flags.writeable
        assert not part["array"].flags.writeable
        assert part.stats() == shared.stats()
        assert (part.name, part.cache) == ("users", shared)
        assert repr(part).startswith("<droppable.SharedNamespace 'users' of <droppable.SharedCache at")
        assert part

    def test_keys_that_cannot_be_shared_are_told(self, shared: droppable.SharedCache) -> None:
        part = shared.namespace("users")
        for call in (part.get, part.delete, part.__contains__, lambda key: part.set(key, b""), part.namespace):
            with pytest.raises(ValueError, match=r"at most 4096 bytes; yours has more"):
                call("x" * 5000)
            with pytest.raises(TypeError):
                call([1])
        # A key that was encoded before holds a digest, which no other process would make.
        with pytest.raises(ValueError, match=r"at most 4096 bytes; yours has more"):
            shared.get(droppable.lowlevel.EncodedKey("x" * 5000, droppable.lowlevel.new_scope()))

    def test_what_is_written_in_the_place_of_its_number_is_none(self, shared: droppable.SharedCache) -> None:
        part = shared.namespace("users")
        for wrong in (b"too short", b"\0" * 8, "a string"):
            part.clear()
            assert shared.set(part._cell, wrong)
            assert part.get("k") is None
            assert not part.set("k", b"v")
            part.clear()
            assert part.set("k", b"v")

    def test_without_a_server_all_is_a_miss(self, tmp_path: Path) -> None:
        with droppable.connect(tmp_path / "nobody") as cache:
            part = cache.namespace("users").namespace("one")
            assert part.get("k") is None
            assert not part.set("k", b"v")
            assert part.set_many({"k": b"v"}) == ["k"]
            assert part.get_or_create("k", lambda: b"v") == b"v"
            assert not part.clear()

    def test_what_is_computed_during_a_clear_is_not_found(
        self, shared: droppable.SharedCache, server_socket: Path
    ) -> None:
        with droppable.connect(server_socket) as other:
            part, theirs = shared.namespace("users"), other.namespace("users")

            def compute() -> bytes:
                theirs.clear()
                return b"old"

            assert part.get_or_create("k", compute) == b"old"
            assert part.get("k") is None

    def test_threads_make_one_namespace(self, shared: droppable.SharedCache) -> None:
        ready = threading.Barrier(8)
        stored = []

        def run(number: int) -> None:
            ready.wait(WAIT_SECONDS)
            stored.append(shared.namespace("new").set(number, b"%d" % number))

        threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_SECONDS)
        assert stored == [True] * 8
        assert shared.namespace("new").get_many(range(8)) == {n: b"%d" % n for n in range(8)}


def calls_of(kind: type) -> set[str]:
    """Its public methods and attributes, and those of a mapping."""
    special = {"__getitem__", "__setitem__", "__delitem__", "__contains__", "__iter__", "__len__", "__reversed__"}
    return {name for name in dir(kind) if not name.startswith("_")} | (special & set(dir(kind)))


LACKING = {name for name in vars(Lacking) if not name.startswith("_")} | {"__iter__", "__len__", "__reversed__"}
ONLY_IN_A_PROCESS = {
    "max_bytes": "an attribute: the server has the bound",
    "name": "an attribute: SharedCache is known by its path",
}
ONLY_SHARED = {"aget", "aset", "adelete", "server_stats", "near", "pin", "stats"}


class TestTheTwoFaces:
    @pytest.mark.parametrize(
        ("own", "shared_kind"),
        [(droppable.Cache, droppable.SharedCache), (droppable.Namespace, droppable.SharedNamespace)],
    )
    def test_each_call_is_there_or_says_why_not(self, own: type, shared_kind: type) -> None:
        """A call that `Cache` gets has to be added to `SharedCache`, or to what it says that it lacks."""
        missing = calls_of(own) - calls_of(shared_kind) - set(ONLY_IN_A_PROCESS)
        assert missing == set()
        assert calls_of(shared_kind) - calls_of(own) - LACKING <= ONLY_SHARED

    @pytest.mark.parametrize(
        ("own", "shared_kind"),
        [(droppable.Cache, droppable.SharedCache), (droppable.Namespace, droppable.SharedNamespace)],
    )
    def test_calls_that_both_have_take_the_same(self, own: type, shared_kind: type) -> None:
        """But for cost=, which has no meaning where others store, and what a shared one takes besides."""
        for name in sorted((calls_of(own) & calls_of(shared_kind)) - LACKING - {"__reversed__", "close"}):
            one, other = getattr(own, name), getattr(shared_kind, name)
            if not callable(one) or isinstance(other, property):
                continue
            mine = set(inspect.signature(other).parameters)
            theirs = {parameter for parameter in inspect.signature(one).parameters if parameter != "cost"}
            assert theirs <= mine | {"items", "prefix"} or name in {"update"}, name

    def test_what_is_lacking_is_told(self, shared: droppable.SharedCache) -> None:
        for cache in (shared, shared.namespace("part")):
            kind = type(cache).__name__
            for name in sorted(LACKING - {"__iter__", "__len__", "__reversed__"}):
                with pytest.raises(droppable.UnsupportedError, match=rf"^a {kind} has no {name}\(\): .{{20}}"):
                    getattr(cache, name)("k", copy=True)
            with pytest.raises(droppable.UnsupportedError, match=rf"^a {kind} has no iteration: .* index of them"):
                list(cache)  # type: ignore[call-overload]
            with pytest.raises(droppable.UnsupportedError, match=rf"^a {kind} has no len\(\): .*server_stats"):
                len(cache)
            with pytest.raises(TypeError, match=r"not reversible"):
                reversed(cache)  # type: ignore[call-overload]

    def test_a_cost_is_told(self, shared: droppable.SharedCache) -> None:
        for cache in (shared, shared.namespace("part")):
            for call in (cache.set, cache.add):
                with pytest.raises(TypeError, match=r"cost"):
                    call("k", b"v", cost=1.0)  # type: ignore[call-arg]
