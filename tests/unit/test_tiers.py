"""A slower mapping below a cache: each call reaches both, failures are counted, and nobody gets what is old."""

import asyncio
import contextlib
import gc
import os
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import numpy
import pytest

import droppable
from droppable import Cache, UnpicklableError, UnsupportedError
from droppable.lowlevel import CoreCache, EncodedKey
from droppable.testing import drop

MISS = object()


def lose(cache: Cache[Any, Any]) -> None:
    """What the cache has is gone; what lies below stays."""
    CoreCache.clear(cache)


@pytest.fixture(params=["through", "behind"])
def write(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture
def below() -> dict[Any, Any]:
    return {}


@pytest.fixture
def cache(below: dict[Any, Any], write: Any) -> Iterator[Cache[Any, Any]]:
    with Cache(below=below, write=write) as made:
        yield made


class Failing(MutableMapping[Any, Any]):
    """Fails when it is told to, before or after it has done what was asked."""

    def __init__(self) -> None:
        self.values_: dict[Any, Any] = {}
        self.fails: Callable[[str], str] = lambda what: ""

    def _do(self, what: str, call: Callable[[], Any]) -> Any:
        when = self.fails(what)
        if when == "before":
            raise OSError(f"{what} failed")
        result = call()
        if when == "after":
            raise OSError(f"{what} failed when it was done")
        return result

    def __getitem__(self, key: Any) -> Any:
        return self._do("read", lambda: self.values_[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._do("write", lambda: self.values_.__setitem__(key, value))

    def __delitem__(self, key: Any) -> None:
        self._do("delete", lambda: self.values_.__delitem__(key))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._do("list", lambda: list(self.values_)))

    def __len__(self) -> int:
        return len(self.values_)

    def clear(self) -> None:
        self._do("clear", self.values_.clear)


def test_a_value_that_was_dropped_is_fetched(cache: Any, below: dict[Any, Any]) -> None:
    cache["k"] = [1, 2]
    assert drop(cache).dropped_pages > 0
    assert cache["k"] == [1, 2]
    assert cache.tier_stats().fetched == 1
    assert CoreCache.get(cache, EncodedKey("k")) == [1, 2]  # and the cache has it again


def test_what_lay_there_before_is_found(below: dict[Any, Any]) -> None:
    below["old"] = b"value"
    cache: Any = Cache(below=below)
    assert cache.get("old") == b"value"
    assert "old" in cache
    assert cache.get("other") is None
    assert "other" not in cache


@pytest.mark.parametrize(
    "value",
    [b"bytes", "text", 7, 1.5, None, True, (1, 2), {"a": [1]}, numpy.arange(3000)],
    ids=lambda v: type(v).__name__,
)
def test_a_fetched_value_is_as_from_a_hit(cache: Any, value: Any) -> None:
    cache["k"] = value
    hit = cache["k"]
    cache.flush()
    lose(cache)
    fetched = cache["k"]
    assert type(fetched) is type(hit)
    if isinstance(hit, numpy.ndarray):
        assert (fetched == hit).all()
        assert fetched.flags.writeable == hit.flags.writeable
        lose(cache)
        assert cache.get("k", copy=True).flags.writeable
    else:
        assert fetched == hit


def test_a_later_change_of_the_object_reaches_neither_tier(cache: Any) -> None:
    value = [1]
    cache["k"] = value
    value.append(2)
    assert cache["k"] == [1]
    lose(cache)
    assert cache["k"] == [1]
    cache["k"].append(3)
    lose(cache)
    assert cache["k"] == [1]


def test_a_computation_is_asked_for_only_where_both_miss(cache: Any, below: dict[Any, Any]) -> None:
    calls: list[int] = []

    def compute() -> str:
        calls.append(1)
        return "value"

    assert cache.get_or_create("k", compute) == "value"
    lose(cache)
    assert cache.get_or_create("k", compute) == "value"
    assert cache.get_or_create("k", compute) == "value"
    assert len(calls) == 1
    cache.flush()
    assert below == {"k": "value"}


def test_many_callers_have_one_fetch_and_one_computation() -> None:
    lower = Failing()
    cache: Any = Cache(below=lower)
    reads: list[str] = []
    gate = threading.Barrier(4)
    lower.fails = lambda what: reads.append(what) or ""  # type: ignore[func-returns-value]

    def ask() -> None:
        gate.wait()
        assert cache.get_or_create("k", lambda: "value") == "value"

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reads.count("write") == 1


def test_deletes_reach_both(cache: Any, below: dict[Any, Any]) -> None:
    for forget in (
        lambda: cache.discard("k"), lambda: cache.delete("k"), lambda: cache.pop("k"), lambda: cache.delete_many(["k"]),
        lambda: cache.__delitem__("k"), cache.clear, lambda: cache.delete_prefix("k"),
    ):  # fmt: skip
        cache["k"] = 1
        lose(cache)
        forget()
        assert cache.get("k") is None
        assert below == {}
    assert cache.discard("k") is False
    with pytest.raises(KeyError):
        del cache["k"]
    with pytest.raises(KeyError):
        cache.pop("k")
    assert cache.pop("k", 5) == 5


def test_a_prefix_is_counted_once_a_key(cache: Any, below: dict[Any, Any]) -> None:
    cache.set_many({"a1": 1, "a2": 2, "b": 3, b"a3": 4})
    cache.flush()
    CoreCache.discard(cache, "a1")
    assert cache.delete_prefix("a") == 2
    assert set(below) == {"b", b"a3"}


def test_calls_that_depend_on_what_is_there(cache: Any, below: dict[Any, Any]) -> None:
    assert cache.add("k", 1) is True
    lose(cache)
    assert cache.add("k", 2) is False
    assert cache.setdefault("k", 3) == 1
    assert cache.setdefault("new", 4) == 4
    lose(cache)
    assert cache.incr("k", 5) == 6
    lose(cache)
    assert cache.incr("k") == 7
    with pytest.raises(KeyError):
        cache.incr("absent")
    assert cache.incr("absent", 2, initial=10) == 12
    assert cache.transform("k", lambda value: value * 2) == 14
    lose(cache)
    assert cache.transform("k", lambda value: value * 2) == 28
    assert cache.transform("list", lambda value: [*value, 1], []) == [1]
    with pytest.raises(KeyError):
        cache.transform("nothing", lambda value: value)
    cache.flush()
    assert below == {"k": 28, "new": 4, "absent": 12, "list": [1]}


def test_many_keys(cache: Any) -> None:
    assert cache.set_many({1: "one", 2: "two", 3: "three"}) == []
    CoreCache.discard(cache, 2)
    assert cache.get_many([1, 2, 4]) == {1: "one", 2: "two"}
    assert cache.delete_many([1, 2, 4]) == 2
    assert cache.get_many([1, 2, 3]) == {3: "three"}


def test_views_and_iteration_are_of_the_cache(cache: Any) -> None:
    cache["k"] = b"x" * 50_000
    lose(cache)
    assert len(cache) == 0
    with cache.view("k") as memory:
        assert bytes(memory) == b"x" * 50_000
    assert list(cache) == ["k"]
    assert cache.popitem() == ("k", b"x" * 50_000)
    assert cache.get("k") is None


def test_an_expiry_is_kept_below(cache: Any, below: dict[Any, Any]) -> None:
    cache.set("k", "v", ttl=1000)
    lose(cache)
    assert cache["k"] == "v"
    assert 900 < cache.expires_in("k") <= 1000
    cache.incr("n", 0, initial=1)
    assert cache.touch("k", 5000)
    lose(cache)
    assert 4900 < cache.expires_in("k") <= 5000
    assert cache.touch("k", None)
    lose(cache)
    assert cache.expires_in("k") == droppable.NEVER
    assert cache.touch("absent", 5) is False


def test_what_expired_below_is_a_miss(monkeypatch: pytest.MonkeyPatch, cache: Any, below: dict[Any, Any]) -> None:
    cache.set("k", "v", ttl=100)
    cache.flush()
    lose(cache)
    monkeypatch.setattr("time.time", lambda: below["k"].expires_at + 1)
    assert cache.get("k") is None
    assert cache.get_or_create("k", lambda: "new") == "new"


def test_the_caches_own_time_to_live_holds_below(below: dict[Any, Any]) -> None:
    cache: Any = Cache(below=below, ttl=100)
    cache["k"] = 1
    lose(cache)
    assert cache["k"] == 1
    assert 90 < cache.expires_in("k") <= 100
    cache.set("n", 1, ttl=droppable.NEVER)
    assert below["n"] == 1


def test_a_value_too_large_for_the_cache_lies_below(below: dict[Any, Any]) -> None:
    cache: Any = Cache(below=below, max_bytes="1M")
    assert cache.set("k", b"x" * (8 << 20)) is True
    assert len(cache) == 0
    assert cache["k"] == b"x" * (8 << 20)


def test_a_value_that_cannot_be_pickled_is_in_neither(cache: Any, below: dict[Any, Any]) -> None:
    cache["k"] = 1
    with pytest.raises(UnpicklableError):
        cache["k"] = threading.Lock()
    cache.flush()
    assert cache.get("k") is None
    assert below == {}


def test_what_fails_is_counted_and_never_raised(write: Any) -> None:
    lower = Failing()
    lower.fails = lambda what: "before"
    with Cache(below=lower, write=write) as made:
        cache: Any = made
        assert cache.set("k", 1) is True
        cache.flush()
        assert cache["k"] == 1
        lose(cache)
        assert cache.get("k") is None
        assert cache.get_or_create("k", lambda: 2) == 2
        assert cache.discard("k") is True
        assert cache.delete_prefix("k") == 0
        cache.clear()
        assert cache.tier_stats().failures >= 4
        lower.fails = lambda what: ""
        cache.clear()
        cache["k"] = 3
        lose(cache)
        assert cache["k"] == 3


@pytest.mark.parametrize("what", ["write", "delete"])
def test_an_older_value_that_could_not_be_replaced_is_not_given(what: str) -> None:
    lower = Failing()
    cache: Any = Cache(below=lower)
    cache["k"] = "old"
    lower.fails = lambda call: "before" if call in (what, "delete") else ""
    if what == "write":
        cache["k"] = "new"
        assert cache["k"] == "new"
        lose(cache)
    else:
        cache.discard("k")
    assert lower.values_ == {"k": "old"}
    assert cache.get("k") is None
    assert "k" not in cache
    assert cache.tier_stats().distrusted == 1
    lower.fails = lambda call: ""
    assert cache.get("k") is None  # deleted now
    assert lower.values_ == {}
    assert cache.tier_stats().distrusted == 0


def test_a_clear_that_failed_hides_all(write: Any) -> None:
    lower = Failing()
    cache: Any = Cache(below=lower, write=write)
    cache.set_many({number: number for number in range(10)})
    cache.flush()
    lower.fails = lambda what: "before" if what == "clear" else ""
    cache.clear()
    assert cache.get_many(range(10)) == {}
    cache[1] = "new"
    cache.flush()
    assert cache[1] == "new"
    lower.fails = lambda what: ""
    cache.clear()
    assert len(lower) == 0


@pytest.mark.parametrize("seed", range(6))
def test_a_tier_that_fails_at_random_loses_nothing_and_tells_nothing_old(seed: int, write: Any) -> None:
    chance = random.Random(seed)
    lower = Failing()
    lower.fails = lambda what: chance.choice(("before", "after")) if chance.random() < 0.2 else ""
    model: dict[int, int] = {}
    with Cache(below=lower, write=write) as made:
        cache: Any = made
        for step in range(3000):
            key, pick = chance.randrange(20), chance.random()
            if pick < 0.3:
                cache[key] = model[key] = step
            elif pick < 0.4:
                cache.discard(key)
                model.pop(key, None)
            elif pick < 0.5:
                lose(cache)
            elif pick < 0.52:
                cache.clear()
                model.clear()
            elif pick < 0.6:
                value = cache.get_or_create(key, lambda key=key, step=step: model.get(key, -step))
                assert value == model.setdefault(key, value)
            elif pick < 0.65:
                model[key] = cache.transform(key, lambda value: value + 1, model.get(key, 0))
            else:
                assert cache.get(key, MISS) in (MISS, model.get(key))
        assert cache.tier_stats().failures > 100


def test_readers_never_see_what_was_overwritten(write: Any) -> None:
    """As the torture test: what a read brings was current at some moment of the read."""
    lower = Failing()
    seeds = random.Random(5)
    lower.fails = lambda what: "after" if seeds.random() < 0.05 else ""
    with Cache(below=lower, write=write) as made:
        cache: Any = made
        keys, threads_count = 24, 4
        started, finished = [0] * keys, [0] * keys
        failures: list[str] = []

        def work(me: int) -> None:
            chance = random.Random(me)
            for step in range(4000):
                key = chance.randrange(keys)
                if chance.random() < 0.6:
                    low = finished[key]
                    got = cache.get(key)
                    high = started[key]
                    if got is not None and not low <= got <= high:
                        failures.append(f"key {key}: {got}, not from {low} to {high}")
                else:
                    mine = key - key % threads_count + me
                    started[mine] += 1
                    if chance.random() < 0.8:
                        cache[mine] = started[mine]
                    else:
                        cache.discard(mine)
                    finished[mine] = started[mine]
                if step % 50 == 0:
                    lose(cache)

        threads = [threading.Thread(target=work, args=(me,)) for me in range(threads_count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert cache.tier_stats().fetched > 0


def test_sums_of_four_threads(write: Any) -> None:
    with Cache(below={}, write=write) as made:
        cache: Any = made

        def add_to_other() -> None:
            while True:
                try:
                    cache.transform("other", lambda value: value + 1, 0)
                except RuntimeError as error:  # as it says: others came first 100 times in a row, and all is as it was
                    if not str(error).endswith("try again"):
                        raise
                else:
                    return

        def work(me: int) -> None:
            for step in range(300):
                cache.incr("sum", 1, initial=0)
                add_to_other()
                if step % 20 == me:
                    lose(cache)

        threads = [threading.Thread(target=work, args=(me,)) for me in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert cache["sum"] == 1200
        assert cache["other"] == 1200


def test_a_value_that_was_deleted_while_it_was_fetched_is_not_kept() -> None:
    lower = Failing()
    cache: Any = Cache(below=lower)
    lower.values_["k"] = "old"

    def delete_meanwhile(what: str) -> str:
        if what == "read":
            value = dict(lower.values_)
            lower.fails = lambda call: ""
            cache.discard("k")
            lower.values_.update(value)  # the read below had begun before
        return ""

    lower.fails = delete_meanwhile
    assert cache.get("k") == "old"  # as it was when the read began
    assert CoreCache.get(cache, EncodedKey("k")) is None


class Nested:
    """Changes another key while it is pickled."""

    def __init__(self, cache: Any, key: str) -> None:
        self.cache, self.key = cache, key

    def __reduce__(self) -> Any:
        self.cache[self.key] = "nested"
        return str, ("pickled",)


def test_changes_from_within_changes_do_not_wait_for_each_other() -> None:
    cache: Any = Cache(below={})
    names = [f"key {number}" for number in range(40)]
    over = [threading.Event(), threading.Event()]

    def work(me: int) -> None:
        for _ in range(30):
            for one, other in zip(names, reversed(names), strict=True):
                cache[one if me else other] = Nested(cache, other if me else one)
        over[me].set()

    threads = [threading.Thread(target=work, args=(me,), daemon=True) for me in range(2)]
    for thread in threads:
        thread.start()
    assert all(event.wait(60) for event in over)
    lose(cache)
    for name in names:
        assert cache.get(name) in (None, "nested", "pickled")


def test_behind_has_a_bound(below: dict[Any, Any]) -> None:
    gate = threading.Event()
    lower = Failing()

    def hold(what: str) -> str:
        if threading.current_thread() is not threading.main_thread():
            gate.wait(60)
        return ""

    lower.fails = hold
    with Cache(below=lower, write="behind") as made:
        cache: Any = made
        tier = cache._tier
        first = tier.stripe(EncodedKey(0))  # whose lock the writing thread holds until the gate opens
        numbers = [0, *(number for number in range(1, 1000) if tier.stripe(EncodedKey(number)) is not first)]
        for number in numbers:
            cache[number] = b"x"
        assert cache.tier_stats().pending <= 256
        assert len(lower.values_) >= len(numbers) - 256
        gate.set()
    assert len(lower.values_) == len(numbers)


@pytest.mark.parametrize("way", ["close", "let go", "end"])
def test_what_waits_is_written_in_the_end(way: str, tmp_path: Any) -> None:
    ends = {"close": "cache.close()", "let go": "del cache; gc.collect()", "end": ""}[way]
    program = f"""
import gc, pathlib, droppable

class Folder(dict):
    # A dbm may keep what was written until it is closed, so this has a file for each key.
    def __setitem__(self, key, value):
        pathlib.Path({str(tmp_path)!r}, key).write_text(str(value))

cache = droppable.Cache(below=Folder(), write="behind")
for number in range(200):
    cache[str(number)] = number
{ends}
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(str(number) for number in range(200))


def test_a_cache_that_is_let_go_goes(write: Any) -> None:
    import weakref

    cache: Any = Cache(below={}, write=write)
    cache["k"] = 1
    reference = weakref.ref(cache)
    del cache
    gc.collect()
    assert reference() is None


def test_a_forked_child_goes_on(below: dict[Any, Any], write: Any) -> None:
    lower = Failing()
    cache: Any = Cache(below=lower, write=write)
    cache["k"] = "v"
    cache.flush()
    inside, gate = threading.Event(), threading.Event()

    def hold(what: str) -> str:
        if threading.current_thread() is not threading.main_thread():
            inside.set()
            gate.wait(60)
        return ""

    lower.fails = hold
    thread = threading.Thread(target=lambda: cache.set("k", "held"))
    thread.start()
    assert inside.wait(60)
    pid = os.fork()
    if pid == 0:
        status = 1
        with contextlib.suppress(BaseException):
            lower.fails = lambda what: ""
            # From below: the child's cache is empty. What waits in the parent is newer than what lies there.
            assert cache.get("k") == ("held" if write == "behind" else "v")
            cache["k"] = "child"
            cache.flush()
            status = 0 if cache.get("k") == "child" and cache.tier_stats().pending == 0 else 2
        os._exit(status)
    gate.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_coroutines_do_not_stop_the_loop(write: Any) -> None:
    lower = Failing()
    threads: list[threading.Thread] = []
    lower.fails = lambda what: threads.append(threading.current_thread()) or ""  # type: ignore[func-returns-value]

    async def compute() -> str:
        await asyncio.sleep(0)
        return "value"

    async def main(cache: Any) -> None:
        assert await cache.aget_or_create("k", compute) == "value"
        lose(cache)
        assert await cache.aget_or_create("k", compute) == "value"

    with Cache(below=lower, write=write) as made:
        asyncio.run(main(made))
        assert threads
        assert threading.main_thread() not in threads
        made.flush()
    assert lower.values_ == {"k": "value"}


def test_a_cache_that_is_disabled_does_not_read_below(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DROPPABLE_DISABLE", "1")
    lower = {"k": "old", "other": 1}
    cache: Any = Cache(below=lower)
    assert cache.get("k") is None
    cache["k"] = "new"  # and what is changed is changed there, or it would be old afterwards
    cache.discard("other")
    assert lower == {"k": "new"}


def test_what_does_not_go_together() -> None:
    with pytest.raises(TypeError, match="below must be a mapping that can be changed: tuple has no __setitem__"):
        Cache(below=())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="write must be 'through' or 'behind'; you gave 'back'"):
        Cache(below={}, write="back")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="there is none: give below="):
        Cache(write="behind")
    plain: Any = Cache()
    plain.flush()
    with pytest.raises(UnsupportedError, match="no lower tier"):
        plain.tier_stats()
    cache: Any = Cache(below={})
    with pytest.raises(UnsupportedError, match="namespace"):
        cache.namespace("n")
    with pytest.raises(TypeError, match="no lower tier"):
        droppable.cache(cache=cache)(len)


def test_the_class(below: dict[Any, Any]) -> None:
    class Own(Cache[str, int]):
        """Derived by a user."""

    cache = Own(below=below)
    assert isinstance(cache, Own)
    assert type(Own(below={})) is type(cache)
    assert "TieredCache" in repr(Cache(below={}))
    assert droppable.named("tiered", below=below) is droppable.named("tiered", below=below)
    droppable.named("tiered").close()


def test_a_closed_cache_says_so(cache: Any) -> None:
    cache.close()
    for call in (cache.tier_stats, cache.flush, lambda: cache.get("k"), lambda: cache.set("k", 1), cache.clear):
        with pytest.raises(droppable.ClosedError):
            call()


def test_a_distrusted_key_is_one_key() -> None:
    """Keys that are equal but of different types are different ones here, too."""
    lower = Failing()
    cache: Any = Cache(below=lower)
    lower.fails = lambda what: "before" if what != "read" else ""
    cache[1] = "a"
    cache[1] = "b"
    assert cache.tier_stats().distrusted == 1
    assert EncodedKey(1) != EncodedKey(1.0)
