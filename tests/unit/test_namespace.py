"""Namespaces: parts of a cache that are cleared at once, also where the kernel takes what says where they are."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest

from droppable import Cache, ClosedError, Namespace, UnsupportedError
from droppable.lowlevel import EncodedKey
from droppable.testing import advance_clock, drop
from droppable.testing.contract import CacheContract


class TestContract(CacheContract):
    def make(self) -> Any:
        return Cache().namespace("part")


class TestContractOfAnInnerOne(CacheContract):
    def make(self) -> Any:
        return Cache().namespace("outer").namespace("part")


@pytest.fixture
def cache() -> Iterator[Cache]:
    with Cache() as cache:
        yield cache


def lose_cell(namespace: Namespace[Any, Any]) -> None:
    """What a drop of the one page does that the cell lies on."""
    cell = namespace._cell_key(1)
    assert cell is not None
    assert namespace.cache.discard(cell)


def test_a_namespace_has_keys_of_its_own(cache: Cache) -> None:
    user, post = cache.namespace("user"), cache.namespace("post")
    parts = [cache, user, post, user.namespace("user"), user.namespace("post"), cache.namespace(("user", 1))]
    for number, part in enumerate(parts):
        for key in ("key", 1, ("a", None), "k" * 9000):
            part[key] = number
    for number, part in enumerate(parts):
        assert [part[key] for key in ("key", 1, ("a", None), "k" * 9000)] == [number] * 4
        assert set(part) == {"key", 1, ("a", None)}
    assert [len(part) for part in parts[1:]] == [4] * 5
    assert len(cache) == 24 + 5  # and a cell for each namespace


def test_everybody_sees_the_same_entries(cache: Cache) -> None:
    cache.namespace("a").set("key", 1)
    assert cache.namespace("a")["key"] == 1
    assert cache.namespace("a").namespace("b").get("key") is None
    assert cache.namespace("a").name == "a"
    assert cache.namespace("a").cache is cache


def test_calls_are_those_of_a_cache(cache: Cache) -> None:
    part = cache.namespace("part")
    assert part.get("key") is None
    assert part.get("key", 5) == 5
    assert not part.discard("key")
    assert part.pop("key", 6) == 6
    assert part.set("key", b"value", ttl=100)
    assert not part.add("key", b"other")
    assert part.add("new", b"other")
    assert "key" in part
    with part.view("key") as memory:
        assert memory == b"value"
    assert part.pop("key") == b"value"
    advance_clock(part, 1)
    part["gone"] = 1
    del part["gone"]
    for call in (part.pop, part.__delitem__, part.__getitem__, part.view):
        with pytest.raises(KeyError, match=r"^'absent'$"):
            call("absent")
    with pytest.raises(TypeError, match="unhashable"):
        part.get([])


def test_what_can_be_no_key_raises_in_an_empty_one(cache: Cache) -> None:
    part = cache.namespace("never used")
    for call in (part.get, part.pop, part.discard, part.view, part.__contains__):
        with pytest.raises(TypeError, match="unhashable"):
            call([])
    with pytest.raises(TypeError, match="unhashable"):
        cache.namespace([])


def test_clear_leaves_the_others(cache: Cache) -> None:
    outer = cache.namespace("outer")
    inner, other = outer.namespace("inner"), cache.namespace("other")
    for part in (cache, outer, inner, other):
        part["key"] = 1
    inner.clear()
    assert [list(part) for part in (cache, outer, inner, other)] == [["key"], ["key"], [], ["key"]]
    inner["key"] = 2
    outer.clear()
    assert [list(part) for part in (cache, outer, inner, other)] == [["key"], [], [], ["key"]]
    inner["key"] = 3
    assert inner["key"] == 3
    assert list(outer) == []
    cache.clear()
    assert [list(part) for part in (cache, outer, inner, other)] == [[], [], [], []]
    for part in (outer, inner, other):
        part.clear()
        assert len(part) == 0


def test_clear_deletes_one_entry_whatever_there_is(cache: Cache) -> None:
    part = cache.namespace("part")
    for number in range(3000):
        part[number] = b"x" * 100
    before = cache.stats()
    part.clear()
    after = cache.stats()
    assert after.deletes - before.deletes == 1
    assert before.entries - after.entries == 1
    assert (len(part), list(part)) == (0, [])
    assert all(part.get(number) is None for number in range(3000))


def test_the_cell_never_expires() -> None:
    with Cache(ttl=10) as cache:
        part = cache.namespace("part")
        part.set("key", 1, ttl=100_000)
        advance_clock(cache, 50_000)
        assert part["key"] == 1


def test_a_hit_or_a_miss_is_counted_once(cache: Cache) -> None:
    part = cache.namespace("outer").namespace("part")
    part.get("key")
    assert (cache.stats().hits, cache.stats().misses) == (0, 1)
    part["key"] = 1
    assert (cache.stats().hits, cache.stats().misses) == (0, 1)
    part.get("key")
    part.get("other")
    assert "key" in part
    assert len(part) == len(list(part)) == 1
    assert not part.discard("other")
    assert (cache.stats().hits, cache.stats().misses) == (1, 2)
    drop(cache)
    part.get("key")
    assert (cache.stats().misses, cache.stats().misses_dropped) == (3, 1)


def test_entries_of_a_lost_cell_are_never_seen_again(cache: Cache) -> None:
    part = cache.namespace("part")
    part["key"] = "old"
    part["other"] = "old"
    lose_cell(part)
    assert part.get("key") is None
    part["key"] = "new"
    assert part["key"] == "new"
    assert part.get("other") is None
    assert list(part) == ["key"]
    part.clear()
    assert part.get("key") is None


class TestComputations:
    def test_a_miss_computes_and_a_hit_does_not(self, cache: Cache) -> None:
        part = cache.namespace("part")
        calls: list[int] = []
        for _ in range(3):
            assert part.get_or_create("key", lambda: calls.append(1) or "value") == "value"  # type: ignore[func-returns-value]
        assert len(calls) == 1

        async def main() -> Any:
            async def factory() -> str:
                calls.append(2)
                return "other"

            return [await part.aget_or_create("other", factory) for _ in range(3)]

        assert asyncio.run(main()) == ["other"] * 3
        assert calls == [1, 2]

    @pytest.mark.parametrize("cleared", ["part", "inner", "outer", "cell lost"])
    def test_what_runs_while_it_is_cleared_is_returned_and_not_kept(self, cache: Cache, cleared: str) -> None:
        outer = cache.namespace("outer")
        part = outer.namespace("inner") if cleared == "outer" else outer

        def factory() -> str:
            if cleared == "cell lost":
                lose_cell(part)
            else:
                (outer if cleared == "outer" else part).clear()
            return "old"

        assert part.get_or_create("key", factory) == "old"
        assert part.get("key") is None
        assert part.get_or_create("key", lambda: "new") == "new"
        assert part["key"] == "new"

    def test_newcomers_do_not_join_what_was_cleared(self, cache: Cache) -> None:
        part = cache.namespace("part")
        begun, go_on = threading.Event(), threading.Event()
        results: list[str] = []

        def factory() -> str:
            begun.set()
            assert go_on.wait(60)
            return "old"

        thread = threading.Thread(target=lambda: results.append(part.get_or_create("key", factory)))
        thread.start()
        assert begun.wait(60)
        entries = cache.stats().entries
        part.clear()
        assert part.get_or_create("key", lambda: "new") == "new"
        go_on.set()
        thread.join()
        assert results == ["old"]
        assert part["key"] == "new"
        assert cache.stats().entries == entries + 1  # what was computed under the old scope was not stored at all

    def test_one_computes_for_all(self, cache: Cache) -> None:
        part = cache.namespace("part")
        calls: list[int] = []
        waiting = threading.Barrier(4)

        def factory() -> str:
            calls.append(1)
            return "value"

        def work() -> None:
            waiting.wait()
            assert part.get_or_create("key", factory) == "value"

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(calls) == 1


def in_threads(work: Callable[[int], None], count: int = 4) -> None:
    errors: list[BaseException] = []
    start = threading.Barrier(count)

    def run(me: int) -> None:
        start.wait()
        try:
            work(me)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(me,)) for me in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


class TestThreads:
    def test_all_agree_on_one_cell(self, cache: Cache) -> None:
        for number in range(300):
            scopes: set[bytes | None] = set()

            def work(me: int, number: int = number, scopes: set[bytes | None] = scopes) -> None:
                part = cache.namespace("outer").namespace(number)
                part[me] = me
                scopes.add(part._scope(1))

            in_threads(work)
            assert len(scopes) == 1
            assert set(cache.namespace("outer").namespace(number)) == {0, 1, 2, 3}

    def test_nothing_from_before_a_clear_is_seen_after_it(self, cache: Cache) -> None:
        """In each round all store and compute, and one clears and drops meanwhile. A clear ends the round for all."""
        part = cache.namespace("part")
        meet = threading.Barrier(4)

        def work(me: int) -> None:
            for round_number in range(60):
                meet.wait()
                for step in range(20):
                    value = part.get(step % 3)
                    assert value is None or value == round_number
                    part[step % 3] = round_number
                    assert part.get_or_create("computed", lambda: round_number) == round_number  # noqa: B023
                    part.pop((step + me) % 3, None)
                    if me == 0 and step == 10:
                        part.clear()
                        drop(cache, 0.3, seed=round_number)
                meet.wait()
                if me == 0:
                    part.clear()
                    assert list(part) == []

        in_threads(work)

    def test_drops_change_no_value(self, cache: Cache) -> None:
        def work(me: int) -> None:
            for step in range(400):
                part = cache.namespace(("user", step % 5))
                value = part.get(step % 50)
                assert value is None or value == (step % 5, step % 50)
                part[step % 50] = (step % 5, step % 50)
                if me == 0 and step % 40 == 0:
                    drop(cache, 0.5, seed=step)
                if me == 1 and step % 30 == 0:
                    part.clear()

        in_threads(work)


@pytest.mark.parametrize("fork", ["share", "wipe"])
def test_parent_and_child_do_not_see_what_the_other_stores(fork: Literal["share", "wipe"]) -> None:
    with Cache(fork=fork) as cache:
        part = cache.namespace("outer").namespace("part")
        part["before"] = "before"
        part["cleared"] = "cleared"
        child = os.fork()
        if child == 0:
            status = 1
            try:
                assert part.get("before") in (("before",) if fork == "share" else ("before", None))
                assert (part.get("before") is None) == (fork == "wipe")
                part["child"] = "child"
                assert part["child"] == "child"
                part.clear()
                assert list(part) == []
                part["cleared"] = "new"
                assert part["cleared"] == "new"
                status = 0
            finally:
                os._exit(status)
        part["parent"] = "parent"
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert dict(part.items()) == {"before": "before", "cleared": "cleared", "parent": "parent"}


def test_a_full_one_is_bounded_with_the_cache() -> None:
    with Cache(max_bytes=1 << 20) as cache:
        part = cache.namespace("part")
        for number in range(2000):
            part[number] = bytes(2000)
        assert cache.stats().evicted > 0
        assert part.get(1999, None) in (bytes(2000), None)


def test_on_droppable_memory() -> None:
    try:
        cache: Cache[str, int] = Cache(backing="droppable")
    except UnsupportedError as error:
        pytest.skip(str(error))
    with cache:
        part = cache.namespace("part")
        part["key"] = 1
        drop(part)
        assert part.get("key") is None
        part["key"] = 2
        assert part["key"] == 2


def test_a_disabled_cache_has_empty_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROPPABLE_DISABLE", "1")
    with Cache() as cache:
        part = cache.namespace("outer").namespace("part")
        assert part.set("key", 1)
        assert part.add("key", 1)
        assert part.get("key") is None
        assert (cache.stats().sets, cache.stats().evicted, cache.stats().misses) == (2, 2, 1)
        calls: list[int] = []
        for _ in range(2):
            part.get_or_create("key", lambda: calls.append(1))
        assert len(calls) == 2
        assert (len(part), list(part)) == (0, [])
        part.clear()


def test_a_namespace_keeps_its_cells_out_of_sight(cache: Cache) -> None:
    part = cache.namespace("part")
    part.namespace("inner")["key"] = 1
    assert (list(cache), list(part), len(part)) == ([], [], 0)
    assert cache.delete_prefix("part") == 0
    assert part.delete_prefix("inner") == 0
    assert part.namespace("inner")["key"] == 1
    assert EncodedKey("key") not in cache


@pytest.mark.parametrize("depth", [1, 2])
def test_get_with_and_without_entries(cache: Cache, depth: int) -> None:
    """The look-up is one call of the core; without any entry the key is checked all the same."""
    numpy = pytest.importorskip("numpy")
    part: Namespace[Any, Any] = cache.namespace("outer")
    if depth == 2:
        part = part.namespace("inner")
    for _ in range(2):
        with pytest.raises(TypeError, match="unhashable"):
            part.get([])
        assert part.get("absent") is None
        assert part.get("absent", 5) == 5
        part["array"] = numpy.arange(5)
        assert not part.get("array").flags.writeable
        assert part.get("array", copy=True).flags.writeable
    before = cache.stats()
    part.get("array")
    part.get("absent")
    after = cache.stats()
    assert (after.hits - before.hits, after.misses - before.misses) == (1, 1)
    lose_cell(part)
    assert part.get("array") is None
    cache.close()
    with pytest.raises(ClosedError):
        part.get("array")


@pytest.mark.parametrize("kind", ["cache", "namespace", "tiers"])
def test_popitem_passes_over_what_went_meanwhile(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread took what the iteration had given; an entry is left, and it is given."""
    with Cache[str, int](below={} if kind == "tiers" else None) as cache:
        mapping: Any = cache.namespace("part") if kind == "namespace" else cache
        mapping["left"] = 1
        walk = mapping._walk_own

        def one_that_goes(cursor: int) -> Any:
            batch = walk(cursor)
            return None if batch is None else (batch[0], ["gone", *batch[1]])

        monkeypatch.setattr(type(mapping), "_walk_own", lambda self, cursor: one_that_goes(cursor))
        assert mapping.popitem() == ("left", 1)
        with pytest.raises(KeyError, match="is empty"):
            mapping.popitem()
