"""A region against a bytearray with a note for each page, under random writes, blocks, page-outs and resizes.

The page-outs are the kernel's own (MADV_PAGEOUT), repeated until nothing is resident, so the model knows exactly what
went. What a page is, in the model:

    bytes   its content            None   gone: had content that was settled, and was dropped
    EMPTY   on_drop="signal" only: never filled, or purged
"""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from droppable import Dropped, Region, UnsupportedError
from droppable.lowlevel import page_size_bytes

PAGE = page_size_bytes()
MAX_PAGES = 12
MAX_TRIES = 100
RESIDENT = 1  # of Region.page_states()
ZEROS = bytes(PAGE)
EMPTY = "empty"

pages = st.integers(0, MAX_PAGES)
# 0 among the bytes: pages that are written and need no proof; edges of pages among the places
offsets = st.one_of(
    st.integers(0, MAX_PAGES * PAGE), st.builds(lambda page, by: max(0, page * PAGE + by), pages, st.integers(-2, 2))
)
patterns = st.one_of(st.sampled_from([b"\0", b"\xff"]), st.binary(min_size=1, max_size=5))


class RegionMachine(RuleBasedStateMachine):
    """One combination; the subclasses at the end name it."""

    on_drop: Any
    backing: Any

    @initialize(length=st.integers(1, MAX_PAGES))
    def make(self, length: int) -> None:
        self.region = Region(length * PAGE, self.on_drop, self.backing)
        self.model: list[bytes | str | None] = [self.blank] * length

    @property
    def blank(self) -> bytes | str:
        return EMPTY if self.on_drop == "signal" else ZEROS

    def clip(self, a: int, b: int) -> tuple[int, int]:
        start, stop = sorted((min(a, len(self.region)), min(b, len(self.region))))
        return start, stop

    def pages_of(self, start: int, stop: int) -> range:
        return range(start // PAGE, -(-stop // PAGE)) if start < stop else range(0)

    def whole(self, a: int, b: int) -> tuple[int, int]:
        start, stop = self.clip(a * PAGE, b * PAGE)
        return start, stop

    def offsets_of(self, numbers: list[int]) -> tuple[tuple[int, int], ...]:
        ranges: list[tuple[int, int]] = []
        for number in numbers:
            if ranges and ranges[-1][1] == number * PAGE:
                ranges[-1] = (ranges[-1][0], (number + 1) * PAGE)
            else:
                ranges.append((number * PAGE, (number + 1) * PAGE))
        return tuple(ranges)

    def lost(self, start: int, stop: int, *, with_empty: bool) -> list[int]:
        """The pages of the range that no reader (with_empty) or no writer can have."""
        return [
            n for n in self.pages_of(start, stop) if self.model[n] is None or (with_empty and self.model[n] is EMPTY)
        ]

    def content(self, start: int, stop: int) -> bytes:
        joined = b"".join(page if isinstance(page, bytes) else ZEROS for page in self.model)
        return joined[start:stop]

    def put(self, start: int, data: bytes) -> None:
        numbers = self.pages_of(start, start + len(data))
        joined = bytearray(self.content(0, len(self.model) * PAGE))
        joined[start : start + len(data)] = data
        for number in numbers:
            self.model[number] = bytes(joined[number * PAGE : (number + 1) * PAGE])

    def note_drop(self, numbers: range) -> None:
        for number in numbers:
            page = self.model[number]
            if self.on_drop == "zero":
                self.model[number] = ZEROS
            elif isinstance(page, bytes) and (page != ZEROS or self.on_drop == "signal"):
                self.model[number] = None

    @rule(start=offsets, stop=offsets, pattern=patterns)
    def write(self, start: int, stop: int, pattern: bytes) -> None:
        start, stop = self.clip(start, stop)
        data = (pattern * ((stop - start) // len(pattern) + 1))[: stop - start]
        partial = [n for n in self.pages_of(start, stop) if start > n * PAGE or stop < (n + 1) * PAGE]
        lost = [n for n in partial if self.model[n] is None]
        if lost:
            with pytest.raises(Dropped) as caught:
                self.region.write(start, data)
            assert caught.value.offsets == self.offsets_of(lost)
        else:
            self.region.write(start, data)
            self.put(start, data)

    @rule(start=offsets, stop=offsets)
    def read(self, start: int, stop: int) -> None:
        start, stop = self.clip(start, stop)
        lost = self.lost(start, stop, with_empty=True)
        buffer = bytearray(stop - start)
        if lost:
            with pytest.raises(Dropped) as caught:
                self.region.read(start, stop)
            assert caught.value.offsets == self.offsets_of(lost)
            with pytest.raises(Dropped):
                self.region.read_into(buffer, start)
        else:
            self.region.read_into(buffer, start)
            assert self.region.read(start, stop) == buffer == self.content(start, stop)

    @rule(first=pages, end=pages)
    def drop(self, first: int, end: int) -> None:
        start, stop = self.whole(first, end)
        processors = os.sched_getaffinity(0)
        try:  # a page may wait in another processor's batch for its list: so on each of them
            for processor in list(processors) * MAX_TRIES:
                os.sched_setaffinity(0, {processor})
                self.region.page_out(start, stop)
                if RESIDENT not in self.region.page_states(start, stop):
                    break
            else:
                raise AssertionError("the kernel keeps pages")
        finally:
            os.sched_setaffinity(0, processors)
        self.note_drop(self.pages_of(start, stop))

    @rule(first=pages, end=pages)
    def purge(self, first: int, end: int) -> None:
        start, stop = self.whole(first, end)
        self.region.purge(start, stop)
        for number in self.pages_of(start, stop):
            self.model[number] = self.blank

    @rule(start=offsets, stop=offsets)
    def settle(self, start: int, stop: int) -> None:
        self.region.settle(*self.clip(start, stop))

    @precondition(lambda self: self.on_drop == "raise")
    @rule(start=offsets, stop=offsets, first=pages, end=pages)
    def reading_block_with_a_drop_inside(self, start: int, stop: int, first: int, end: int) -> None:
        start, stop = self.clip(start, stop)
        block = self.region.reading(start, stop)
        view = block.__enter__()
        before = None if self.lost(start, stop, with_empty=True) else bytes(view)
        self.drop(first, end)
        lost = self.lost(start, stop, with_empty=True)
        del view
        if lost:
            with pytest.raises(Dropped) as caught:
                block.__exit__(None, None, None)
            assert caught.value.offsets == self.offsets_of(lost)
        else:
            block.__exit__(None, None, None)
            assert before == self.content(start, stop)

    @precondition(lambda self: (self.on_drop, self.backing) != ("raise", "droppable"))
    @rule(start=offsets, stop=offsets, part=offsets, pattern=patterns)
    def writing_block(self, start: int, stop: int, part: int, pattern: bytes) -> None:
        start, stop = self.clip(start, stop)
        lost = self.lost(start, stop, with_empty=False)
        block = self.region.writing(start, stop)
        if lost:
            with pytest.raises(Dropped) as caught:
                block.__enter__()
            assert caught.value.offsets == self.offsets_of(lost)
            return
        with block as view:
            if self.backing == "lazyfree":
                # what is held stays; "zero" holds nothing before it is written
                self.region.page_out()
                held = () if self.on_drop == "zero" else self.pages_of(start, stop)
                for number in set(range(len(self.model))) - set(held):
                    self.forget_exactly(number)
            assert view == self.content(start, stop)
            at = min(part, len(view))
            data = (pattern * ((len(view) - at) // len(pattern) + 1))[: len(view) - at]
            view[at:] = data
        self.put(start, bytes(self.content(start, start + at)) + data)

    def forget_exactly(self, number: int) -> None:
        """A page-out is best effort: what one page came to."""
        if RESIDENT not in self.region.page_states(number * PAGE, (number + 1) * PAGE):
            self.note_drop(range(number, number + 1))

    @precondition(lambda self: self.backing == "lazyfree")
    @rule(start=offsets, stop=offsets)
    def pin_block(self, start: int, stop: int) -> None:
        start, stop = self.clip(start, stop)
        lost = self.lost(start, stop, with_empty=True)
        block = self.region.pin(start, stop)
        if lost:
            with pytest.raises(Dropped) as caught:
                block.__enter__()
            assert caught.value.offsets == self.offsets_of(lost)
            return
        with block as view:
            self.region.page_out()
            assert view == self.content(start, stop)
            for number in set(range(len(self.model))) - set(self.pages_of(start, stop)):
                self.forget_exactly(number)

    @precondition(lambda self: self.on_drop == "signal")
    @rule(first=pages, end=pages, pattern=patterns)
    def refill(self, first: int, end: int, pattern: bytes) -> None:
        start, stop = self.whole(first, end)
        data = (pattern * ((stop - start) // len(pattern) + 1))[: stop - start]
        absent = [n for n in self.pages_of(start, stop) if not isinstance(self.model[n], bytes)]
        assert self.region.refill(start, data) == len(absent) * PAGE
        for number in absent:
            self.put(number * PAGE, data[number * PAGE - start :][:PAGE])

    @rule(length=st.integers(1, MAX_PAGES))
    def resize(self, length: int) -> None:
        self.region.resize(length * PAGE)
        self.model = (self.model + [self.blank] * length)[:length]

    @invariant()
    def the_census_knows_what_is_gone(self) -> None:
        if self.on_drop != "zero" and hasattr(self, "region"):
            gone = [n for n, page in enumerate(self.model) if page is None]
            assert self.region.dropped_pages() == self.offsets_of(gone)

    def teardown(self) -> None:
        if hasattr(self, "region"):
            self.region.close()


def machine(on_drop: Any, backing: Any) -> Any:
    try:
        Region(PAGE, on_drop, backing).close()
    except UnsupportedError as error:
        return pytest.mark.skip(str(error))(lambda: None)
    name = f"Test{on_drop.title()}{backing.title()}"
    case = type(name, (RegionMachine,), {"on_drop": on_drop, "backing": backing}).TestCase
    case.settings = settings(
        max_examples=40, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    return case


TestZeroLazyfree = machine("zero", "lazyfree")
TestZeroDroppable = machine("zero", "droppable")
TestRaiseLazyfree = machine("raise", "lazyfree")
TestRaiseDroppable = machine("raise", "droppable")
TestSignal = machine("signal", "lazyfree")
