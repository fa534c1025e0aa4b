"""droppable.replay: small traces with known outcomes, and the document that is drawn with it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from droppable.model import DROPPABLE, LAZYFREE, Flag, Killed, Machine
from droppable.replay import Outcome, Setup, replay

ROOT = Path(__file__).parents[2]
PAGE = 4096


def keys(name: str, *wanted: int, size_bytes: int = PAGE) -> Iterator[tuple[str, int, int]]:
    for key in wanted:
        yield name, key, size_bytes


def one(trace: Iterator[tuple[str, int, int]], setup: Setup, ram_pages: int = 1000) -> Outcome:
    return replay(trace, {"a": setup}, Machine(ram_pages))["a"]


@pytest.mark.parametrize("setup", [Setup(), Setup(DROPPABLE), Setup(DROPPABLE, mark=False), Setup(mark=False)], ids=str)
def test_with_room_for_all_nothing_is_lost(setup: Setup) -> None:
    assert one(keys("a", 1, 2, 3, 1, 2, 3, 4), setup) == Outcome(hits=3, absent=4, lost=0, resident_pages=4)


def test_small_values_share_pages_and_never_straddle_one() -> None:
    assert one(keys("a", *range(20), size_bytes=1000), Setup()).resident_pages == 5
    assert one(keys("a", *range(20), size_bytes=3000), Setup()).resident_pages == 20
    assert one(keys("a", *range(20), size_bytes=5000), Setup()).resident_pages == 40


def test_what_the_kernel_took_is_lost_and_stored_again() -> None:
    outcome = one(keys("a", *range(64), *range(64)), Setup(), ram_pages=40)
    assert outcome.hits == 0  # a loop larger than memory defeats every least-recently-used order
    assert (outcome.absent, outcome.lost) == (64, 64)
    assert outcome.hit_ratio == 0
    assert outcome.lost_ratio == 0.5


def test_what_is_read_stays() -> None:
    def trace() -> Iterator[tuple[str, int, int]]:
        for step in range(2000):
            yield "a", step % 10, PAGE
            yield "scan", step, PAGE

    got = replay(trace(), {"a": Setup(), "scan": Setup()}, Machine(100))
    assert got["a"] == Outcome(hits=1990, absent=10, lost=0, resident_pages=10)
    assert (got["scan"].hits, got["scan"].lost) == (0, 0)


def test_the_over_drop_takes_what_is_read_too() -> None:
    def trace() -> Iterator[tuple[str, int, int]]:
        for step in range(2000):
            yield "a", step % 10, PAGE
            yield "scan", step, PAGE

    raw = Setup(DROPPABLE, mark=False)
    assert replay(trace(), {"a": raw, "scan": raw}, Machine(100))["a"].lost > 100


def test_a_limit_of_its_own_evicts_the_oldest() -> None:
    outcome = one(keys("a", *range(10), 9, 8, 0), Setup(max_pages=5))
    assert outcome == Outcome(hits=2, absent=10, lost=1, resident_pages=5)


def test_an_ordinary_process_takes_from_the_caches_and_gives_back() -> None:
    trace = [*keys("a", *range(80)), ("other", 0, 90 * PAGE), ("other", 0, -90 * PAGE), *keys("a", *range(80))]
    outcome = one(iter(trace), Setup(), ram_pages=100)
    assert outcome.lost > 60
    assert outcome.resident_pages == 80


def test_memory_that_cannot_be_dropped_meets_the_killer() -> None:
    with pytest.raises(Killed):
        one(keys("a", *range(80)), Setup(mark=False), ram_pages=50)


def test_lost_writes_are_misses() -> None:
    setup = Setup(DROPPABLE | {Flag.LOSE_WRITES})
    trace = [("other", 0, 10 * PAGE), *keys("a", 1, 1, 1)]
    outcome = replay(iter(trace), {"a": setup}, Machine(10))["a"]
    assert outcome == Outcome(hits=0, absent=3, lost=0, resident_pages=0)


def test_an_empty_trace() -> None:
    outcome = one(iter(()), Setup(LAZYFREE))
    assert outcome == Outcome(0, 0, 0, 0)
    assert outcome.hit_ratio == outcome.lost_ratio == 0


def test_the_document_is_what_the_model_draws() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "diagrams.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
