"""Sizes, seconds, fractions, choices and functions as callers give them, and what who gives something else is told."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest

import droppable
from droppable import NEVER, Cache
from droppable._arguments import read_choice, read_fraction, read_function, read_seconds, read_size, read_wait
from droppable._flight import Keeping
from droppable.testing import advance_clock

TIME = r"seconds \(a number\), a timedelta, or droppable\.NEVER"


class Index:
    def __index__(self) -> int:
        return 4096


class TestSizes:
    @pytest.mark.parametrize(
        "given, size_bytes",
        [
            (None, None),
            (1, 1),
            (1 << 70, 1 << 70),
            (1e9, 1_000_000_000),
            (Index(), 4096),
            ("1G", 1 << 30),
            ("128MiB", 128 << 20),
            ("64 MB", 64 << 20),
            ("4096", 4096),
            ("1.5k", 1536),
            ("4611686018427387903", (1 << 62) - 1),
        ],
    )
    def test_they_are_read(self, given: Any, size_bytes: int | None) -> None:
        assert read_size("max_bytes", given) == size_bytes

    @pytest.mark.parametrize("given", ["1X", "", "G", "-1M", "0", "0.5", 0, -1, 1.5, 0.0, math.inf, math.nan])
    def test_what_is_out_of_range_is_told_how_to_write_it(self, given: Any) -> None:
        with pytest.raises(ValueError, match=r"^max_bytes must be a size .* such as '64M' .*; you gave ") as caught:
            Cache(max_bytes=given)
        assert str(caught.value).endswith(repr(given))

    @pytest.mark.parametrize("given", [[1], b"1G", 1j, Decimal(5), {}])
    def test_what_is_no_size(self, given: Any) -> None:
        with pytest.raises(TypeError, match=r"^max_bytes must be a size of more than 0 bytes .*, or None; you gave "):
            Cache(max_bytes=given)
        with pytest.raises(TypeError, match=r"^max_bytes must be a size of more than 0 bytes"):
            droppable.cache(max_bytes=given)(len)

    def test_a_cache_has_the_size_in_bytes(self) -> None:
        assert Cache(max_bytes="128MiB").max_bytes == 128 << 20
        assert Cache(max_bytes=1e6).max_bytes == 1_000_000
        assert droppable.cache(max_bytes="1M")(len).cache_info().maxsize == 1 << 20


class TestSeconds:
    def test_a_timedelta_is_its_seconds(self, cache: Cache) -> None:
        cache.set("k", 1, ttl=timedelta(minutes=1))
        cache.add("l", 1, ttl=timedelta(minutes=1), cost=timedelta(seconds=1))
        assert cache.get_or_create("m", lambda: 1, ttl=timedelta(minutes=1)) == 1
        advance_clock(cache, 59)
        assert all(key in cache for key in "klm")
        advance_clock(cache, timedelta(seconds=2))
        assert not any(key in cache for key in "klm")

    def test_never_is_longer_than_the_caches_own_ttl(self, make_cache: Callable[..., Cache]) -> None:
        cache = make_cache(ttl=timedelta(seconds=5))
        cache["short"] = 1
        cache.set("long", 2, ttl=NEVER)
        cache.add("added", 3, ttl=NEVER)
        cache.get_or_create("made", lambda: 4, ttl=NEVER)
        advance_clock(cache, 1e9)
        advance_clock(cache, 1e9)
        assert cache.get("short") is None
        assert [cache.get(key) for key in ("long", "added", "made")] == [2, 3, 4]
        forever = make_cache(ttl=NEVER)
        forever["k"] = 1
        advance_clock(forever, 1e9)
        assert forever["k"] == 1

    @pytest.mark.parametrize("given", [5, 0.5, True, Fraction(1, 2), Decimal("0.5"), NEVER, Index()])
    def test_numbers_of_all_kinds(self, cache: Cache, given: Any) -> None:
        assert cache.set("k", 1, ttl=given) is True
        assert read_seconds("ttl", given) == float(given) if not isinstance(given, Index) else True

    @pytest.mark.parametrize("given", ["5m", "5", [], b"5", 1j, object])
    def test_what_is_no_time(self, cache: Cache, given: Any) -> None:
        with pytest.raises(TypeError, match=rf"^ttl must be {TIME}; you gave ") as caught:
            cache.set("k", 1, ttl=given)
        assert str(caught.value).endswith(repr(given))
        calls: list[Callable[[], object]] = [
            lambda: Cache(ttl=given),
            lambda: cache.add("k", 1, ttl=given),
            lambda: read_seconds("ttl", given),
        ]
        for call in calls:
            with pytest.raises(TypeError) as again:
                call()
            assert str(again.value) == str(caught.value)  # C and Python say the same
        with pytest.raises(TypeError, match=r"^cost must be seconds \(a number\), a timedelta, or None; you gave "):
            cache.set("k", 1, cost=given)
        for name in ("wait_seconds", "linger_seconds"):
            with pytest.raises(TypeError, match=rf"^{name} must be {TIME}; you gave "):
                Cache(**{name: given})
        assert "k" not in cache

    @pytest.mark.parametrize("given", [0, -1, math.nan, -math.inf, timedelta(0), timedelta(days=-1)])
    def test_what_is_out_of_range(self, cache: Cache, given: Any) -> None:
        with pytest.raises(ValueError, match=r"^ttl must be more than 0 seconds; you gave ") as caught:
            cache.set("k", 1, ttl=given)
        assert str(caught.value).endswith(repr(given))
        with pytest.raises(ValueError) as again:
            read_seconds("ttl", given)
        assert str(again.value) == str(caught.value)
        with pytest.raises(ValueError, match=r"^wait_seconds must be more than 0 seconds; you gave "):
            Cache(wait_seconds=given)

    def test_numbers_beyond_a_float(self, cache: Cache) -> None:
        for call in (lambda: cache.set("k", 1, ttl=10**400), lambda: Cache(wait_seconds=10**400)):
            with pytest.raises(ValueError, match=r"is a number of too many digits"):
                call()

    def test_an_error_of_the_number_itself_is_raised_as_it_is(self, cache: Cache) -> None:
        class Odd:
            def __float__(self) -> float:
                raise LookupError("odd")

        with pytest.raises(LookupError, match="odd"):
            cache.set("k", 1, ttl=Odd())  # type: ignore[arg-type]

    def test_waits(self) -> None:
        assert read_wait("wait_seconds", NEVER) == 9e9
        assert read_wait("linger_seconds", 0) == 0
        cache = Cache(wait_seconds=timedelta(minutes=5), linger_seconds=timedelta(0))
        assert (cache._flights.wait_seconds, cache._flights.linger_seconds) == (300, 0)


class TestOthers:
    @pytest.mark.parametrize("given", ["swap", "", None, 5, [], {}, set()])
    def test_choices(self, given: Any) -> None:
        with pytest.raises(ValueError, match=r"^backing must be 'auto', 'lazyfree' or 'droppable'; you") as caught:
            Cache(backing=given)
        assert str(caught.value).endswith(repr(given))
        with pytest.raises(ValueError, match=r"^fork must be 'wipe' or 'share'; you gave "):
            Cache(fork=given)
        with pytest.raises(ValueError, match=r"^backing must be"):
            droppable.cache(backing=given)(len)
        assert read_choice("fork", "share", {"wipe": 1, "share": 2}) == 2

    @pytest.mark.parametrize("given", [-0.1, 1.1, math.nan])
    def test_fractions(self, given: float) -> None:
        with pytest.raises(ValueError, match=r"^jitter must be a fraction from 0 to 1; you gave "):
            read_fraction("jitter", given)
        with pytest.raises(TypeError, match=r"^jitter must be a fraction from 0 to 1; you gave '0.1'"):
            read_fraction("jitter", "0.1")  # type: ignore[arg-type]
        assert [read_fraction("jitter", right) for right in (0, 0.25, 1)] == [0, 0.25, 1]

    def test_functions(self) -> None:
        read_function("keep", len)
        with pytest.raises(TypeError, match=r"^keep must be a function of the result; you gave 5"):
            read_function("keep", 5)  # type: ignore[arg-type]


class TestKeeping:
    """How a computed value is kept."""

    @staticmethod
    def make(cache: Cache, keeping: Keeping, value: Any = "value") -> Any:
        return cache._flights.do(cache, droppable.lowlevel.EncodedKey("k"), lambda: value, keeping)

    def test_a_ttl_of_the_result(self, cache: Cache) -> None:
        keeping = Keeping(ttl=lambda value: len(value))
        assert self.make(cache, keeping) == "value"
        advance_clock(cache, 4)
        assert "k" in cache
        advance_clock(cache, 2)
        assert "k" not in cache

    def test_what_is_not_to_be_kept_is_returned(self, cache: Cache) -> None:
        assert self.make(cache, Keeping(keep=lambda value: value != "value")) == "value"
        assert "k" not in cache
        assert self.make(cache, Keeping(keep=lambda value: value == "value")) == "value"
        assert "k" in cache

    def test_an_exception_of_either_function_reaches_the_caller(self, cache: Cache) -> None:
        for keeping in (Keeping(ttl=lambda value: 1 / 0), Keeping(keep=lambda value: 1 / 0)):
            with pytest.raises(ZeroDivisionError):
                self.make(cache, keeping)
            assert "k" not in cache
            assert not cache._flights.table

    @pytest.mark.parametrize("ttl", [100, timedelta(seconds=100)])
    def test_jitter_shortens_each_ttl(self, ttl: Any) -> None:
        keeping = Keeping(ttl=ttl, jitter=0.5)
        got = {keeping.ttl_of(None) for _ in range(100)}
        assert len(got) > 90
        assert all(ttl * 0.5 <= one <= ttl for one in got)
        assert Keeping(ttl=ttl).ttl_of(None) == ttl
        assert Keeping(jitter=0.5).ttl_of(None) is None
        assert Keeping(ttl=NEVER, jitter=0.5).ttl_of(None) == NEVER


def test_errors_that_name_a_value_can_be_pickled() -> None:
    with pytest.raises(ValueError) as caught:
        Cache(max_bytes="1X")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
