"""Properties of droppable.random over arguments that Hypothesis thinks of."""

import base64
import operator

from hypothesis import given, settings
from hypothesis import strategies as st

from droppable import random


@given(st.integers(min_value=0, max_value=100_000))
@settings(max_examples=200)
def test_lengths(nbytes: int) -> None:
    assert len(random.token_bytes(nbytes)) == nbytes
    assert len(random.token_hex(nbytes)) == 2 * nbytes
    text = random.token_urlsafe(nbytes)
    assert len(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))) == nbytes


@given(st.integers(min_value=1) | st.integers(min_value=0, max_value=200).map(lambda k: 1 << k))
def test_below_is_below(limit: int) -> None:
    assert 0 <= random.randbelow(limit) < limit


@given(st.integers(min_value=0, max_value=5000))
def test_bits_are_as_many(k: int) -> None:
    assert 0 <= random.randbits(k) < 1 << k


@given(st.integers(), st.integers(min_value=1), st.integers(min_value=-100, max_value=100).filter(bool))
def test_randrange_stays_in_its_range(start: int, width: int, step: int) -> None:
    stop = start + width if step > 0 else start - width
    assert random.SystemRandom().randrange(start, stop, step) in range(start, stop, step)


@given(st.lists(st.integers(), max_size=200))
def test_shuffle_loses_nothing(items: list[int]) -> None:
    shuffled = list(items)
    random.shuffle(shuffled)
    assert sorted(shuffled) == sorted(items)
    if items:
        assert random.choice(items) in items


@given(st.integers(min_value=0, max_value=300), st.integers(min_value=0, max_value=300), st.data())
def test_fill_stays_in_its_slice(before: int, after: int, data: st.DataObject) -> None:
    length = data.draw(st.integers(min_value=0, max_value=1000))
    frame = bytes(range(256)) * 3
    target = bytearray(frame[:before] + bytes(length) + frame[:after])
    random.fill(memoryview(target)[before : before + length])
    assert target[:before] == frame[:before]
    assert target[before + length :] == frame[:after]


@given(st.floats(allow_nan=False, width=32), st.floats(allow_nan=False, width=32))
def test_uniform_lies_between(low: float, high: float) -> None:
    if abs(low) == float("inf") or abs(high) == float("inf"):
        return
    low, high = sorted((low, high))
    assert operator.le(low, random.uniform(low, high))
    assert random.uniform(low, high) <= high
