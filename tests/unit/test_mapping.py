"""A cache is a mutable mapping, and its calls hold where entries vanish between two of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, ItemsView, Iterator, KeysView, Mapping, MutableMapping, ValuesView
from typing import Any

import pytest

import droppable
from droppable import Cache, ClosedError, Namespace
from droppable.testing import drop

Make = Callable[[], Any]


class Mine(Cache[str, int]):
    pass


@pytest.fixture(params=["cache", "namespace", "inner namespace", "subclass"])
def mapping(request: pytest.FixtureRequest) -> Iterator[Any]:
    with Mine() if request.param == "subclass" else Cache() as cache:
        if request.param == "inner namespace":
            yield cache.namespace("outer").namespace(("inner", 1))
        else:
            yield cache.namespace("part") if request.param == "namespace" else cache


def test_it_is_a_mutable_mapping(mapping: Any) -> None:
    assert isinstance(mapping, MutableMapping)
    assert isinstance(mapping, Mapping)
    assert isinstance(mapping, Hashable)
    assert isinstance(mapping.keys(), KeysView)
    assert isinstance(mapping.items(), ItemsView)
    assert isinstance(mapping.values(), ValuesView)


def test_equality_and_hash_are_those_of_the_object(mapping: Any) -> None:
    other = Cache[Any, Any]()
    assert mapping == mapping
    assert mapping != other
    assert mapping != {}
    assert {mapping: 1, other: 2}[mapping] == 1
    other.close()


def test_what_is_stored_is_what_the_views_show(mapping: Any) -> None:
    model = {f"key {number}": number for number in range(500)}
    mapping.update(model)
    assert len(mapping) == len(mapping.keys()) == 500
    assert dict(mapping) == dict(mapping.items()) == model
    assert set(mapping) == set(mapping.keys()) == model.keys()
    assert sorted(mapping.values()) == list(range(500))
    assert mapping.keys() == model.keys()
    assert model.keys() == mapping.keys()
    assert mapping.items() == model.items()
    assert ("key 1", 1) in mapping.items()
    assert ("key 1", 2) not in mapping.items()
    assert ("none", 1) not in mapping.items()
    assert "key 1" not in mapping.items()
    assert 499 in mapping.values()
    assert 500 not in mapping.values()
    assert "key 1" in mapping.keys()  # noqa: SIM118
    assert mapping.keys() & {"key 1", "none"} == {"key 1"}


def test_views_are_live(mapping: Any) -> None:
    keys, items, values = mapping.keys(), mapping.items(), mapping.values()
    assert (list(keys), list(items), list(values)) == ([], [], [])
    mapping["a"] = 1
    assert (list(keys), list(items), list(values)) == (["a"], [("a", 1)], [1])
    del mapping["a"]
    assert (list(keys), list(items), list(values)) == ([], [], [])


def test_views_leave_out_what_was_dropped(mapping: Any) -> None:
    model = {number: b"x" * 500 for number in range(2000)}
    mapping.update(model)
    drop(mapping, 0.3, seed=1)
    left = dict(mapping.items())
    assert all(model[number] == value for number, value in left.items())
    assert mapping.keys() <= model.keys()
    assert mapping.items() <= model.items()
    assert mapping.items() == left.items()
    assert list(mapping.values()).count(b"x" * 500) == len(left)
    drop(mapping, 1.0, seed=1)
    assert (list(mapping.items()), list(mapping.values()), list(mapping)) == ([], [], [])
    assert mapping.keys() == set()
    assert not mapping.keys() > set()


def test_views_compare_as_sets_do(mapping: Any) -> None:
    mapping.update(a=1, b=2)
    keys = mapping.keys()
    for other in ({"a"}, {"a", "b"}, {"a", "b", "c"}, {"a", "c"}, set()):
        mine = {"a", "b"}
        assert (keys == other, keys < other, keys <= other, keys > other, keys >= other) == (
            mine == other,
            mine < other,
            mine <= other,
            mine > other,
            mine >= other,
        )
    assert keys == mapping.keys()
    assert keys != ["a", "b"]
    with pytest.raises(TypeError):
        assert keys < 5
    with pytest.raises(TypeError):
        hash(keys)


def test_setdefault_stores_only_what_is_not_there(mapping: Any) -> None:
    assert mapping.setdefault("a", [1]) == [1]
    assert mapping.setdefault("a", [2]) == [1]
    assert mapping["a"] == [1]
    assert mapping.setdefault("none") is None
    assert mapping.get("none", "missing") is None
    given: list[int] = []
    assert mapping.setdefault("list", given) is not given


def test_setdefault_is_one_of_all_threads(mapping: Any) -> None:
    for number in range(200):
        results: list[int] = []
        start = threading.Barrier(4)

        def work(me: int, number: int = number, results: list[int] = results, start: Any = start) -> None:
            start.wait()
            results.append(mapping.setdefault(number, me))

        threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [mapping[number]] * 4


def test_popitem_gives_each_entry_once(mapping: Any) -> None:
    model = {f"key {number}": number for number in range(100)}
    mapping.update(model)
    taken = [mapping.popitem() for _ in range(100)]
    assert sorted(taken) == sorted(model.items())
    with pytest.raises(KeyError, match="is empty"):
        mapping.popitem()


def test_popitem_gives_each_entry_to_one_thread(mapping: Any) -> None:
    mapping.update((number, number) for number in range(400))
    taken: list[Any] = []

    def work() -> None:
        try:
            while True:
                taken.append(mapping.popitem())
        except KeyError:
            pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taken += list(mapping.items())  # an iteration may end early for a thread that sees others take what it looks at
    assert sorted(taken) == [(number, number) for number in range(400)]


class HasKeys:
    def keys(self) -> list[str]:
        return ["x", "y"]

    def __getitem__(self, key: str) -> str:
        return key + key


def test_update_takes_what_dict_takes(mapping: Any) -> None:
    mapping.update({"a": 1}, b=2)
    mapping.update([("c", 3), ["d", 4]], other=5)
    mapping.update(HasKeys())
    mapping.update()
    with Cache() as cache:
        cache["e"] = 6
        mapping.update(cache)
    mapping.update(mapping)
    assert dict(mapping.items()) == {"a": 1, "b": 2, "c": 3, "d": 4, "other": 5, "x": "xx", "y": "yy", "e": 6}
    with pytest.raises(TypeError):
        mapping.update(5)


def test_there_is_no_order(mapping: Any) -> None:
    with pytest.raises(TypeError, match="not reversible"):
        reversed(mapping)


def test_the_name_of_the_class_is_in_its_repr() -> None:
    cache = Cache[str, int]()
    cache["a"] = 1
    assert repr(cache).startswith("<droppable.Cache: 1 entries, ")
    assert repr(cache.namespace("user")).startswith("<droppable.Namespace 'user' of <droppable.Cache: ")
    cache.close()
    assert repr(cache).startswith("<droppable.Cache: ")
    mine = Mine()
    assert repr(mine).startswith("<Mine: 0 entries")
    mine.close()
    assert repr(mine).startswith("<Mine: ")
    with droppable.named("repr") as named:
        assert repr(named).startswith("<droppable.Cache 'repr': 0 entries")


def test_a_closed_one_says_so(mapping: Any) -> None:
    mapping["a"] = 1
    views = (mapping.keys(), mapping.items(), mapping.values())
    (mapping.cache if isinstance(mapping, Namespace) else mapping).close()
    calls: list[Callable[[], object]] = [
        lambda: mapping.setdefault("a", 1),
        lambda: mapping.popitem(),
        lambda: mapping.update(a=1),
        lambda: mapping.delete_prefix("a"),
        lambda: list(mapping),
        *(lambda view=view: list(view) for view in views),  # type: ignore[misc]
    ]
    for call in calls:
        with pytest.raises(ClosedError):
            call()
    assert hash(mapping) == hash(mapping)
    assert mapping == mapping


class TestDeletePrefix:
    def test_keys_of_its_type_go_and_no_others(self, mapping: Any) -> None:
        keys = ["user:1", "user:2", "user", "use", b"user:1", b"user:", ("user:1",), "\u20ac1", "\u20ac2", "\udc80x", 1]
        mapping.update((key, 1) for key in keys)
        assert mapping.delete_prefix("user:") == 2
        assert mapping.delete_prefix(b"user:") == 2
        assert mapping.delete_prefix("\u20ac") == 2
        assert mapping.delete_prefix("\udc80") == 1
        assert mapping.delete_prefix("nobody") == 0
        assert set(mapping) == {"user", "use", ("user:1",), 1}
        assert mapping.delete_prefix("") == 2
        assert set(mapping) == {("user:1",), 1}

    def test_many(self, mapping: Any) -> None:
        mapping.update((f"{number % 7}:{number}", b"v") for number in range(7000))
        assert mapping.delete_prefix("3:") == 1000
        assert len(set(mapping)) == 6000
        assert not [key for key in mapping if key.startswith("3:")]

    @pytest.mark.parametrize("prefix", [1, None, ("a",), bytearray(b"a")])
    def test_a_prefix_is_text_or_bytes(self, mapping: Any, prefix: Any) -> None:
        with pytest.raises(TypeError, match="prefix must be str or bytes"):
            mapping.delete_prefix(prefix)

    def test_what_is_computed_meanwhile_is_not_kept(self, mapping: Any) -> None:
        def factory(prefix: str) -> str:
            mapping.delete_prefix(prefix)
            return "old"

        assert mapping.get_or_create("user:1", lambda: factory("user:")) == "old"
        assert "user:1" not in mapping
        assert mapping.get_or_create("user:1", lambda: factory("post:")) == "old"
        assert mapping["user:1"] == "old"

    def test_what_one_part_deletes_the_others_keep(self) -> None:
        with Cache() as cache:
            parts = [cache, cache.namespace("a"), cache.namespace("b"), cache.namespace("a").namespace("a")]
            for part in parts:
                part.update({"user:1": 1, "user:2": 2})
            for done, part in enumerate(parts):
                assert [len(list(part)) for part in parts] == [0] * done + [2] * (4 - done)
                assert part.delete_prefix("user:") == 2
