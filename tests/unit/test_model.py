"""droppable.model: each promise of the specification, small machines, no kernel."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from droppable.model import (
    DROPPABLE,
    LAZYFREE,
    PLAIN,
    Advice,
    Flag,
    Killed,
    Lru,
    Machine,
    Mapping,
    Page,
    Process,
    Signal,
    State,
    Waits,
)

PAGE = 16  # bytes; any number will do
FULL = b"x" * PAGE
ZEROS = bytes(PAGE)


def start(ram_pages: int = 100, swap_pages: int = 0, **options: int | bool) -> Process:
    return Machine(ram_pages, swap_pages, page_bytes=PAGE, **options).start(memlock_pages=4)  # type: ignore[arg-type]


def fill(mapping: Mapping, first: int, count: int, mark: bool = False) -> None:
    for index in range(first, first + count):
        mapping.write(index * PAGE, FULL)
    if mark:
        mapping.mark(first * PAGE, count * PAGE)


def live(mapping: Mapping) -> int:
    return sum(mapping.state(index) is State.RESIDENT for index in range(mapping.length_pages))


@pytest.fixture(params=[LAZYFREE, DROPPABLE, PLAIN], ids=["lazyfree", "droppable", "plain"])
def mapping(request: pytest.FixtureRequest) -> Mapping:
    return start().map(4, request.param)


# Reading and writing


def test_absent_pages_read_as_zeros_and_then_are_the_zero_page_which_costs_nothing(mapping: Mapping) -> None:
    assert mapping.read() == bytes(4 * PAGE)
    assert mapping.page_states() == bytes([State.ZERO] * 4)
    assert mapping.machine.used_pages == 0


def test_bytes_are_kept_across_page_borders(mapping: Mapping) -> None:
    data = bytes(range(1, 2 * PAGE + 1))
    mapping.write(PAGE - 3, data)
    assert mapping.read() == bytes(PAGE - 3) + data + bytes(4 * PAGE - (PAGE - 3) - len(data))
    assert mapping.page_states() == bytes([1, 1, 1, 2])
    assert mapping.machine.used_pages == 3


@pytest.mark.parametrize("offset, length", [(-1, 1), (0, 4 * PAGE + 1), (4 * PAGE, 1), (5, -1)])
def test_what_lies_outside_is_refused(mapping: Mapping, offset: int, length: int) -> None:
    with pytest.raises(ValueError, match="do not lie"):
        mapping.read(offset, length)


def test_purge_gives_back(mapping: Mapping) -> None:
    fill(mapping, 0, 4)
    mapping.purge(PAGE, 2 * PAGE)
    assert mapping.read() == FULL + ZEROS * 2 + FULL
    assert mapping.machine.used_pages == 2


# What may be dropped


@pytest.mark.parametrize(
    "flags, written, marked, written_after",
    [(LAZYFREE, False, True, False), (DROPPABLE, True, True, True), (PLAIN, False, True, False)],
    ids=["lazyfree", "droppable", "plain"],
)
def test_when_a_page_may_go(flags: frozenset[Flag], written: bool, marked: bool, written_after: bool) -> None:
    mapping = start().map(1, flags)
    mapping.write(0, b"a")
    assert mapping.pages[0].may_drop == written
    mapping.mark()
    assert mapping.pages[0].may_drop == marked
    assert mapping.read(0, 1) == b"a"
    assert mapping.pages[0].may_drop == marked  # reading changes nothing
    mapping.pin()
    assert mapping.pages[0].may_drop == written_after
    assert mapping.read(0, 1) == b"a"


def test_drop_is_the_kernels_choice_within_the_specification() -> None:
    mapping = start().map(2)
    with pytest.raises(ValueError, match="must not"):
        mapping.drop(0)
    mapping.write(0, FULL)
    with pytest.raises(ValueError, match="must not"):
        mapping.drop(0)
    mapping.mark()
    mapping.drop(0)
    assert mapping.state(0) is State.ABSENT
    assert mapping.read(0, PAGE) == ZEROS
    assert mapping.machine.used_pages == 0


def test_page_out_takes_what_may_go_and_nothing_else() -> None:
    mapping = start().map(4)
    fill(mapping, 0, 4)
    mapping.mark(0, 3 * PAGE)
    mapping.write(2 * PAGE, b"y")
    mapping.page_out()
    assert mapping.page_states() == bytes([0, 0, 1, 1])
    assert mapping.pages[2].lru is Lru.ANON  # written since: ordinary memory again
    mapping.mark(2 * PAGE, PAGE)
    mapping.page_out()
    assert mapping.page_states() == bytes([0, 0, 0, 1])


# Fork


def test_fork_wipes_content_and_keeps_the_mapping() -> None:
    for flags in (LAZYFREE, DROPPABLE):
        process = start()
        mapping = process.map(2, flags)
        fill(mapping, 0, 2)
        copy = process.fork().mappings[mapping.address]
        assert copy.read() == ZEROS * 2
        assert mapping.read() == FULL * 2
        copy.write(0, b"child")
        assert mapping.read() == FULL * 2


def test_kept_content_is_copy_on_write_both_ways() -> None:
    process = start()
    mapping = process.map(2)
    mapping.madvise(Advice.KEEPONFORK)
    fill(mapping, 0, 2)
    child = process.fork()
    copy = child.mappings[mapping.address]
    assert process.machine.used_pages == 2  # shared
    copy.write(0, b"c")
    mapping.write(PAGE, b"p")
    assert mapping.read() == FULL + b"p" + FULL[1:]
    assert copy.read() == b"c" + FULL[1:] + FULL
    assert process.machine.used_pages == 4
    child.exit()
    assert process.machine.used_pages == 2


def test_a_shared_page_goes_for_all_and_only_when_it_is_clean_for_all() -> None:
    process = start()
    mapping = process.map(1)
    mapping.madvise(Advice.KEEPONFORK)
    fill(mapping, 0, 1)
    copy = process.fork().mappings[mapping.address]
    mapping.mark()
    assert not mapping.pages[0].may_drop  # dirty in the child
    copy.mark()
    mapping.page_out()
    assert mapping.state(0) is State.RESIDENT  # page_out skips what is shared
    mapping.drop(0)
    assert mapping.read() == copy.read() == ZEROS


def test_droppable_memory_can_be_neither_kept_on_fork_nor_dumped() -> None:
    mapping = start().map(1, DROPPABLE)
    for advice in (Advice.KEEPONFORK, Advice.DODUMP):
        with pytest.raises(OSError) as caught:
            mapping.madvise(advice)
        assert caught.value.errno == errno.EINVAL
    mapping.madvise(Advice.WIPEONFORK)
    mapping.madvise(Advice.DONTDUMP)


def test_droppable_implies_the_rest_and_bad_sets_are_refused() -> None:
    process = start()
    assert process.map(1, {Flag.DROPPABLE}).flags == DROPPABLE
    for flags in ({Flag.LOCKED}, {Flag.LOSE_WRITES}, {Flag.DROPPABLE, Flag.LOCKED}):
        with pytest.raises(OSError):
            process.map(1, flags)
    with pytest.raises(OSError):
        process.map(0)


# Core dumps, swap, mlock, overcommit


def test_core_dumps_have_plain_memory_only() -> None:
    process = start(swap_pages=10)
    mappings = [process.map(1, flags) for flags in (LAZYFREE, DROPPABLE, PLAIN)]
    for mapping in mappings:
        mapping.write(0, FULL)
    mappings[2].page_out()
    assert mappings[2].state(0) is State.SWAPPED
    assert process.core_dump() == {mappings[2].address: FULL}
    mappings[0].madvise(Advice.DODUMP)
    assert process.core_dump() == {mappings[0].address: FULL, mappings[2].address: FULL}


def test_droppable_memory_never_reaches_swap_and_lazyfree_only_while_dirty() -> None:
    for flags, expected in ((DROPPABLE, 0), (LAZYFREE, 40), (PLAIN, 40)):
        process = start(ram_pages=50, swap_pages=200)
        mapping = process.map(100, flags)
        fill(mapping, 0, 40)
        other = process.machine.start().map(100, PLAIN)
        fill(other, 0, 100)
        assert sum(mapping in page.mappers for page in process.machine.swap) == expected
        assert mapping.read(0, 40 * PAGE) == (FULL if expected else ZEROS) * 40


def test_marked_pages_go_before_anything_is_swapped() -> None:
    process = start(ram_pages=50, swap_pages=200)
    mapping = process.map(100)
    fill(mapping, 0, 40, mark=True)
    fill(process.map(100, PLAIN), 0, 40)
    assert process.machine.counters["pswpout"] == 0
    assert live(mapping) == 8  # 32 went at once


def test_what_was_swapped_comes_back_and_free_forgets_it() -> None:
    process = start(swap_pages=10)
    mapping = process.map(2, PLAIN)
    fill(mapping, 0, 2)
    mapping.page_out()
    assert mapping.page_states() == bytes([0, 0])  # as a census tells it
    assert process.machine.used_pages == 0
    assert mapping.read(0, PAGE) == FULL
    mapping.mark(PAGE, PAGE)
    assert mapping.read(PAGE, PAGE) == ZEROS
    assert not process.machine.swap


def test_mlock_costs_the_budget_and_holds_except_on_droppable_memory() -> None:
    process = start(ram_pages=50)
    droppable = process.map(100, DROPPABLE)
    droppable.mlock()
    assert Flag.LOCKED not in droppable.flags
    lazyfree = process.map(4)
    lazyfree.write(0, FULL)
    lazyfree.mark()
    lazyfree.mlock()
    with pytest.raises(OSError) as caught:
        process.map(1).mlock()
    assert caught.value.errno == errno.ENOMEM
    with pytest.raises(OSError):
        lazyfree.mark()
    fill(process.map(100, DROPPABLE), 0, 100)
    assert lazyfree.page_states() == bytes([1] * 4)
    assert Flag.LOCKED not in process.fork().mappings[lazyfree.address].flags


def test_nothing_is_reserved() -> None:
    process = start(ram_pages=10)
    for flags in (LAZYFREE, DROPPABLE):
        process.map(10**9, flags)
    with pytest.raises(OSError) as caught:
        process.map(11, frozenset())
    assert caught.value.errno == errno.ENOMEM
    process.map(10, frozenset())


def test_strict_overcommit_counts_all_but_droppable_memory() -> None:
    process = start(ram_pages=100, commit_limit_pages=10)
    process.map(10**9, DROPPABLE)
    process.map(6, LAZYFREE)
    with pytest.raises(OSError):
        process.map(5, LAZYFREE)
    process.map(4, PLAIN)


# Reclaim


def stream(flags: frozenset[Flag], mark: bool, hot_pages: int = 0) -> Iterator[tuple[Mapping, int]]:
    """Streams 20 pages at a time through 400 pages of memory, and reads the hot ones in between; yields live pages."""
    mapping = start(ram_pages=400).map(10_000, flags)
    fill(mapping, 0, hot_pages, mark)
    for first in range(hot_pages, 2000, 20):
        fill(mapping, first, 20, mark)
        yield mapping, mapping.machine.used_pages
        for index in range(hot_pages):
            if mapping.state(index) is State.RESIDENT:
                mapping.touch(index)


@pytest.mark.parametrize("flags", [LAZYFREE, DROPPABLE])
def test_marked_memory_is_dropped_as_needed_and_what_is_read_stays(flags: frozenset[Flag]) -> None:
    steps = list(stream(flags, mark=True, hot_pages=100))
    mapping = steps[-1][0]
    assert min(used for _, used in steps[20:]) > 300
    assert all(mapping.state(index) is State.RESIDENT for index in range(100))
    assert mapping.machine.counters["nr_vmscan_immediate_reclaim"] == 0
    assert mapping.machine.counters["pgsteal"] > 0


def test_dirty_droppable_memory_is_over_dropped() -> None:
    steps = list(stream(DROPPABLE, mark=False, hot_pages=100))
    mapping = steps[-1][0]
    assert min(used for _, used in steps[20:]) < 40
    assert not any(mapping.state(index) is State.RESIDENT for index in range(100))
    assert mapping.machine.counters["pgsteal"] == 0


def test_least_recently_used_goes_first() -> None:
    mapping = start(ram_pages=100).map(200)
    fill(mapping, 0, 100, mark=True)
    for index in range(0, 100, 2):
        mapping.touch(index)
    fill(mapping, 100, 32, mark=True)
    gone = [index for index in range(132) if mapping.state(index) is State.ABSENT]
    assert gone == list(range(1, 64, 2))  # one batch of 32: the oldest that were not read


def test_a_second_chance_is_one_chance_and_two_accesses_make_active() -> None:
    mapping = start().map(1)
    fill(mapping, 0, 1, mark=True)
    machine, page = mapping.machine, mapping.pages[0]
    lists = [page.lru]
    for touched in (True, True, False):
        if touched:
            mapping.touch(0)
            assert machine.consider(page) == 0
        else:
            mapping.cold()
        lists.append(page.lru)
    assert lists == [Lru.INACTIVE, Lru.INACTIVE, Lru.ACTIVE, Lru.INACTIVE]
    assert machine.consider(page) == 1
    assert mapping.state(0) is State.ABSENT


def test_a_policy_of_ones_own() -> None:
    class NewestFirst(Machine):
        def victims(self, priority: int) -> Iterator[Page]:
            yield from list(reversed(self.lists[Lru.INACTIVE]))[:32]

    mapping = NewestFirst(50, page_bytes=PAGE).start().map(100)
    fill(mapping, 0, 50, mark=True)
    fill(mapping, 50, 1, mark=True)
    assert mapping.page_states()[:51] == bytes([1] * 18 + [0] * 32 + [1])


# Out of memory


def test_the_killer_takes_the_largest_process() -> None:
    process = start(ram_pages=50)
    large = process.map(100, PLAIN)
    fill(large, 0, 40)
    small = process.machine.start().map(100, PLAIN)
    fill(small, 0, 20)
    assert process.machine.counters["oom_kill"] == 1
    assert process not in process.machine.processes
    assert live(small) == 20
    with pytest.raises(Killed):
        fill(small, 20, 80)


def test_droppable_memory_keeps_others_from_the_killer() -> None:
    for flags, mark in ((LAZYFREE, True), (DROPPABLE, True), (DROPPABLE, False)):
        process = start(ram_pages=50)
        cache = process.map(1000, flags)
        for index in range(500):
            fill(cache, index, 1, mark)
        fill(process.machine.start().map(100, PLAIN), 0, 50)
        assert process.machine.counters["oom_kill"] == 0
        assert live(cache) == 0


@pytest.mark.parametrize(
    "flags, expected",
    [(LAZYFREE, OSError), (PLAIN, OSError), (DROPPABLE, Waits), (DROPPABLE | {Flag.LOSE_WRITES}, None)],
    ids=["lazyfree", "plain", "droppable", "lost writes"],
)
def test_a_fault_that_finds_no_memory(flags: frozenset[Flag], expected: type[Exception] | None) -> None:
    process = start(ram_pages=10, oom_killer=False)
    ordinary = process.map(10, PLAIN)
    fill(ordinary, 0, 10)
    mapping = process.map(1, flags)
    if expected:
        with pytest.raises(expected):
            mapping.write(0, FULL)
    else:
        mapping.write(0, FULL)
    assert mapping.read() == ZEROS  # nothing was written, nobody was hurt
    ordinary.purge(0, PAGE)
    mapping.write(0, FULL)  # the retried instruction
    assert mapping.read() == FULL


# The variant with a signal


@pytest.mark.parametrize("flags", [LAZYFREE, DROPPABLE])
def test_a_signal_tells_the_page_and_refill_revives_it(flags: frozenset[Flag]) -> None:
    process = start()
    mapping = process.map(2, flags | {Flag.SIGNAL})
    for index in (0, 1):
        mapping.refill(index, FULL)
    with pytest.raises(OSError) as exists:
        mapping.refill(0, FULL)
    assert exists.value.errno == errno.EEXIST
    assert mapping.pages[0].may_drop == (Flag.DROPPABLE in flags)  # a refilled page is a written one
    mapping.mark()
    mapping.drop(1)
    assert mapping.read(0, PAGE) == FULL
    for touch in (lambda: mapping.read(), lambda: mapping.write(PAGE, b"y")):
        with pytest.raises(Signal) as signal:
            touch()
        assert signal.value.args == (mapping.address + PAGE,)
    mapping.refill(1, FULL)
    assert mapping.read() == FULL * 2
    assert process.fork().mappings[mapping.address].read() == ZEROS * 2  # the child has no signal


def test_everything_is_given_back_at_exit() -> None:
    process = start(ram_pages=50, swap_pages=50)
    for flags in (LAZYFREE, DROPPABLE, PLAIN):
        fill(process.map(30, flags), 0, 30)
    child = process.fork()
    child.exit()
    process.exit()
    assert (process.machine.used_pages, len(process.machine.swap), process.machine.processes) == (0, 0, [])
