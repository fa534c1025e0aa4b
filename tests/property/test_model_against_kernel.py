"""The specification against the kernel: the same sequences on droppable.model and on real memory, the same promises.

Where the kernel may choose (a droppable page goes now, later or never), the model says what is allowed; what the kernel
was seen to do is then told to the model, so that a page which was seen gone stays gone until it is written.

    real.op()  ->  observe  ->  allowed by the model?  ->  model.drop() what went  ->  model.op()  ->  same answer?
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from droppable import UnsupportedError
from droppable.lowlevel import Mapping, page_size_bytes
from droppable.model import DROPPABLE, LAZYFREE, Advice, Flag, Machine, State

PAGE = page_size_bytes()
PAGES = 6
FLAGS = {"lazyfree": LAZYFREE, "droppable": DROPPABLE}
SWAP_LINES = Path("/proc/swaps").read_text().splitlines() if Path("/proc/swaps").exists() else [""]
HAS_SWAP = len(SWAP_LINES) > 1  # a dirty lazyfree page may then be absent without being gone

MAX_TRIES = 1000
EXACT = Mapping(PAGE).census().exact

parts = st.tuples(st.integers(0, PAGES - 1), st.integers(1, PAGES)).map(lambda p: (p[0], min(p[1], PAGES - p[0])))
fills = st.integers(1, 255).map(lambda byte: bytes([byte]))


def supported(backing: str) -> bool:
    try:
        Mapping(PAGE, backing).close()  # type: ignore[arg-type]
    except UnsupportedError:
        return False
    return True


@contextmanager
def in_child(work: Iterator[bytes]) -> Iterator[bytes]:
    """Runs work in a forked child, which lives until the block ends; gives what it yielded first."""
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.write(to_parent, next(work))
            os.close(to_child)
            os.read(from_parent, 1)
            status = 0
        finally:
            os._exit(status)
    os.close(to_parent)
    os.close(from_parent)
    with open(from_child, "rb") as pipe:
        answer = pipe.read(PAGES * 2)  # what child_work() yields
        try:
            yield answer
        finally:
            os.close(to_child)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class Comparison(RuleBasedStateMachine):
    backing: str

    @initialize(keep_on_fork=st.booleans())
    def map(self, keep_on_fork: bool) -> None:
        # A page in another processor's batch of new pages is on no list yet, and page_out skips it: stay on one.
        self.processors = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(self.processors)})
        keep = keep_on_fork and self.backing == "lazyfree"
        self.real = Mapping(PAGES * PAGE, self.backing, keep_on_fork=keep)  # type: ignore[arg-type]
        self.view = memoryview(self.real)
        self.process = Machine(page_bytes=PAGE).start()
        self.model = self.process.map(PAGES, FLAGS[self.backing])
        if keep:
            self.model.madvise(Advice.KEEPONFORK)

    def teardown(self) -> None:
        if hasattr(self, "processors"):
            os.sched_setaffinity(0, self.processors)
        if hasattr(self, "view"):
            self.view.release()
            self.real.close()

    # What the kernel chose

    def droppable_pages(self, part: tuple[int, int] = (0, PAGES)) -> set[int]:
        first, count = part
        return {i for i in range(first, first + count) if (page := self.model.pages.get(i)) and page.may_drop}

    def went(self, index: int, where: str) -> None:
        """The kernel took a page: the model raises if it must not have."""
        event(f"{self.backing}: seen gone by {where}")
        self.model.drop(index)

    def observed_content(self, index: int, data: bytes, where: str) -> None:
        """Content that was just read from the kernel is the model's, or, of a page that may go, zeros."""
        expected = self.model.pages[index].content if index in self.model.pages else b""
        if data != (expected or bytes(PAGE)) and index in self.droppable_pages() and not any(data):
            self.went(index, where)
        assert self.model.read(index * PAGE, PAGE) == data, f"page {index}, seen by {where}"

    def real_page(self, index: int) -> bytes:
        return bytes(self.view[index * PAGE : (index + 1) * PAGE])

    @invariant()
    def states_are_allowed(self) -> None:
        """A census, which touches nothing. ABSENT where the model has content: it went, if it may, or is on swap."""
        if not hasattr(self, "real") or not EXACT:
            return
        may_go = self.droppable_pages()
        for index, seen in enumerate(self.real.page_states()):
            state = self.model.state(index)
            if state is State.RESIDENT and seen == State.ABSENT:
                if index in may_go:
                    self.went(index, "census")
                else:
                    assert HAS_SWAP, f"page {index} must be there"
                    assert self.backing == "lazyfree", f"page {index} must never be on swap"
            else:
                assert seen == state, f"page {index}"

    # The same calls on both

    @rule(part=parts, fill=fills)
    def write_pages(self, part: tuple[int, int], fill: bytes) -> None:
        first, count = part
        self.view[first * PAGE : (first + count) * PAGE] = fill * (count * PAGE)
        self.model.write(first * PAGE, fill * (count * PAGE))
        self.after_write(part)

    @rule(index=st.integers(0, PAGES - 1), offset=st.integers(0, PAGE - 1), fill=fills)
    def write_byte(self, index: int, offset: int, fill: bytes) -> None:
        self.before_small_write((index, 1))
        self.view[index * PAGE + offset] = fill[0]
        self.model.write(index * PAGE + offset, fill)
        self.after_write((index, 1))

    @rule(part=parts)
    def pin(self, part: tuple[int, int]) -> None:
        self.before_small_write(part)
        self.real.pin(part[0] * PAGE, part[1] * PAGE)
        self.model.pin(part[0] * PAGE, part[1] * PAGE)
        self.after_write(part)

    def before_small_write(self, part: tuple[int, int]) -> None:
        """A write that keeps the rest of a page makes that stay, so what went before it has to be known: read it."""
        for index in self.droppable_pages(part):
            self.observed_content(index, self.real_page(index), "read before write")

    def after_write(self, part: tuple[int, int]) -> None:
        """A page that stays droppable while it is written may go in the middle: each byte is the last one, or 0."""
        for index in self.droppable_pages(part):
            page, data = self.model.touch(index), self.real_page(index)
            assert all(seen in (byte, 0) for seen, byte in zip(data, page.content, strict=True))
            page.content = data

    @rule(part=parts)
    def mark(self, part: tuple[int, int]) -> None:
        self.real.mark(part[0] * PAGE, part[1] * PAGE)
        self.model.mark(part[0] * PAGE, part[1] * PAGE)

    @rule(part=parts)
    def purge(self, part: tuple[int, int]) -> None:
        self.real.purge(part[0] * PAGE, part[1] * PAGE)
        self.model.purge(part[0] * PAGE, part[1] * PAGE)

    @rule(part=parts)
    def cold(self, part: tuple[int, int]) -> None:
        self.real.cold(part[0] * PAGE, part[1] * PAGE)
        self.model.cold(part[0] * PAGE, part[1] * PAGE)

    @rule(part=parts)
    def page_out(self, part: tuple[int, int]) -> None:
        """All that may go goes, though the kernel may skip a page at first, and nothing else does."""
        may_go = self.droppable_pages(part)
        for tries in range(1, MAX_TRIES + 1):
            self.real.page_out(part[0] * PAGE, part[1] * PAGE)
            states = self.real.page_states()
            if all(states[index] == State.ABSENT for index in may_go):
                event(f"{self.backing}: page_out took {'all that may go' if may_go else 'nothing'} at try {tries}")
                break
        else:
            raise AssertionError(f"{may_go} may go, and did not: {states!r}")
        self.model.page_out(part[0] * PAGE, part[1] * PAGE)
        assert not self.droppable_pages(part)

    @rule(part=parts)
    def pressure(self, part: tuple[int, int]) -> None:
        """The kernel takes what it likes, as under pressure; the census after each step tells the model what went."""
        self.real.page_out(part[0] * PAGE, part[1] * PAGE)

    @rule(part=parts)
    def read(self, part: tuple[int, int]) -> None:
        for index in range(part[0], part[0] + part[1]):
            self.observed_content(index, self.real_page(index), "read")

    @precondition(lambda self: hasattr(self, "real"))
    @rule(keep=st.booleans())
    def fork_content(self, keep: bool) -> None:
        advice = Advice.KEEPONFORK if keep else Advice.WIPEONFORK
        try:
            self.real.fork_content(keep)
        except UnsupportedError:
            with pytest.raises(OSError):
                self.model.madvise(advice)
        else:
            self.model.madvise(advice)

    def child_work(self) -> Iterator[bytes]:
        """In a child: tells the first and last byte of each page, then writes all of it."""
        seen = bytes(self.view[at] for i in range(PAGES) for at in (i * PAGE, (i + 1) * PAGE - 1))
        for at in range(0, PAGES * PAGE, PAGE):
            self.view[at] = 255
        yield seen

    @rule(mark_meanwhile=st.booleans(), write_meanwhile=st.booleans())
    def fork(self, mark_meanwhile: bool, write_meanwhile: bool) -> None:
        """The child sees the content or zeros; what it writes stays there; what the parent does meanwhile, here."""
        may_go = self.droppable_pages()
        child = self.process.fork()
        copy = child.mappings[self.model.address]
        assert (Flag.WIPE_ON_FORK in copy.flags) == (Flag.WIPE_ON_FORK in self.model.flags)
        with in_child(self.child_work()) as seen:
            for index in range(PAGES):
                page = copy.read(index * PAGE, PAGE)
                told = seen[2 * index : 2 * index + 2]
                assert told == page[:1] + page[-1:] or (index in may_go and not any(told))
                copy.write(index * PAGE, b"\xff")
            if mark_meanwhile:
                self.mark((0, PAGES))
            if write_meanwhile:
                self.write_pages((0, PAGES // 2), b"w")
        child.exit()

    @rule()
    def everything_is_as_promised(self) -> None:
        self.read((0, PAGES))


class LazyfreeComparison(Comparison):
    backing = "lazyfree"


class DroppableComparison(Comparison):
    backing = "droppable"


pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
TestLazyfree = LazyfreeComparison.TestCase
TestDroppable = DroppableComparison.TestCase
TestLazyfree.settings = TestDroppable.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
if not supported("droppable"):
    TestDroppable = pytest.mark.skip(reason="this kernel has no MAP_DROPPABLE")(TestDroppable)
