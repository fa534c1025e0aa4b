"""Real drops, now: the kernel takes pages (MADV_PAGEOUT) as it would under pressure, but a seed chooses which."""

import itertools
import os
import random
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from droppable import Cache, ChunkedArray, Memo, Namespace, Region
from droppable._arguments import read_fraction
from droppable.lowlevel import Mapping, page_size_bytes

Target: TypeAlias = Cache | Namespace | Memo[..., Any] | ChunkedArray | Mapping | Region

_RESIDENT: Final = 1
_TRIES: Final = 8
_SEED_BITS: Final = 63


@dataclass(frozen=True, slots=True)
class DropReport:
    """What one `drop` did, in OS pages, counted page by page before and after.

    Exact while nobody else uses the target. Where the kernel has no PAGEMAP_SCAN (before Linux 6.7) pages of zeros that
    were read count as resident (but not those of a region); a page that is pinned and went to swap counts as dropped,
    though its content is kept.
    """

    resident_pages: int
    """In memory before, with content."""
    chosen_pages: int
    """Of those, what the kernel was asked to take."""
    dropped_pages: int
    """Of those, what it took. Pinned pages stay, and so may a page that somebody is just reading."""
    seed: int
    """Give it to `drop` again, and the same pages of the same target are chosen."""


def drop(target: Target, fraction: float = 1.0, seed: int | None = None) -> DropReport:
    """Lets the kernel take a share of target's pages at once, without memory pressure and without privilege.

    Of a cache everything that can go is settled first: pinned pages stay, and the index may go as well. A region is
    settled too, as `Region.settle()` does: pages in open blocks (`writing`, `pin`; with "signal" `reading`) stay. Of a
    mapping only what is marked can go. No lock is held while pages go, so other threads may use the target meanwhile;
    in a forked child it drops the child's pages alone. The calling thread visits each processor that it may run on, for
    a cache once, for a region while pages are kept: a page can wait in one's batch, out of reach of the others.

    Args:
        target: a `Cache`, a `Namespace` or a `ChunkedArray` (all of its cache), a function decorated with
            `@droppable.cache`, a `Region`, or a `lowlevel.Mapping`.
        fraction: how likely each page is chosen: 0.0 none, 1.0 all.
        seed: chooses the pages; None: chosen at random, and told in the report.

    Raises:
        TypeError: target is nothing of the kind, or fraction or seed is no number. ValueError: fraction is not in 0..1,
            seed is negative, or the mapping's backing is "plain", which the kernel never drops.
        UnsupportedError: this kernel has no MADV_PAGEOUT (Linux 5.4).
        ClosedError: the target was closed.
    """
    fraction = read_fraction("fraction", fraction)
    if seed is None:
        seed = random.SystemRandom().getrandbits(_SEED_BITS)
    if not isinstance(seed, int):
        raise TypeError(f"seed must be an int, or None; you gave {seed!r}")
    if not 0 <= seed < 1 << _SEED_BITS:
        raise ValueError(f"seed must be from 0 to 2**{_SEED_BITS} - 1; you gave {seed!r}")
    if isinstance(target, Mapping):
        return _drop_mapping(target, fraction, seed)
    if isinstance(target, Region):
        return _drop_region(target, fraction, seed)
    cache = _cache_of(target)
    _empty_batches()
    return DropReport(*cache._drop(fraction, seed), seed)


def settle(target: Target) -> None:
    """Marks everything that can be: from now on the kernel may take all of target but what is pinned.

    A cache does this by itself, but in batches: what was written last may not be droppable yet. `drop` includes it for
    caches and regions. Raises TypeError and ClosedError as `drop`.
    """
    if isinstance(target, Mapping):
        target.mark()
    elif isinstance(target, Region):
        target.settle()
    else:
        _cache_of(target)._settle()


def advance_clock(target: Cache | Namespace | Memo[..., Any] | ChunkedArray, seconds: float) -> None:
    """Moves one cache's clock forward, so that entries with a ttl expire now. There is no way back.

    Raises:
        TypeError: target is no `Cache`, no `Namespace`, and no function decorated with `@droppable.cache`.
        ValueError: seconds is not more than 0.
    """
    _cache_of(target)._advance_clock(seconds)


def _cache_of(target: object) -> Cache:
    if isinstance(target, Memo | Namespace | ChunkedArray):
        return target.cache
    if isinstance(target, Cache):
        return target
    raise TypeError(
        "give a droppable.Cache, ChunkedArray or Region, a function decorated with @droppable.cache, or a "
        "lowlevel.Mapping; "
        f"you gave an object of type {type(target).__qualname__}"
    )


def _runs(pages: list[int]) -> Iterator[tuple[int, int]]:
    """Neighbours together: (first page, how many)."""
    for _, group in itertools.groupby(enumerate(pages), lambda pair: pair[1] - pair[0]):
        run = [page for _, page in group]
        yield run[0], len(run)


def _drop_pages(
    states: Callable[[], bytes],
    page_out: Callable[[int, int], None],
    fraction: float,
    seed: int,
    rounds: Iterator[object],
) -> DropReport:
    """Chooses among the resident pages and lets them go, once a round: what is referenced just then is passed over.

    page_out takes a start and a stop in bytes.
    """
    page = page_size_bytes()
    chance = random.Random(seed)
    resident = [at for at, state in enumerate(states()) if state == _RESIDENT]
    chosen = [at for at in resident if chance.random() < fraction]
    left = chosen
    for _ in rounds:
        if not left:
            break
        for first, count in _runs(left):
            page_out(first * page, (first + count) * page)
        now = states()
        left = [at for at in left if now[at] == _RESIDENT]
    return DropReport(len(resident), len(chosen), len(chosen) - len(left), seed)


def _drop_mapping(mapping: Mapping, fraction: float, seed: int) -> DropReport:
    if mapping.backing == "plain":
        raise ValueError("the kernel never drops a mapping with backing='plain'")

    def page_out(start: int, stop: int) -> None:
        mapping.page_out(start, stop - start)

    return _drop_pages(mapping.page_states, page_out, fraction, seed, iter(range(_TRIES)))


def _empty_batches() -> None:
    """A new page waits in a batch of the processor that wrote it. A mark on another one would pass it over for good.

    Each advice about memory empties the batch of the processor where it is given.
    """
    page = page_size_bytes()
    with Mapping(page) as mapping:
        for _ in _on_each_processor():
            mapping.page_out(0, page)


def _drop_region(region: Region, fraction: float, seed: int) -> DropReport:
    region.settle()
    with closing(_on_each_processor(times=2)) as visits:
        return _drop_pages(region.page_states, region.page_out, fraction, seed, itertools.chain(range(_TRIES), visits))


def _on_each_processor(times: int = 1) -> Generator[None, None, None]:
    """So many rounds on each processor that the thread may run on; closing it undoes that."""
    processors = os.sched_getaffinity(0)
    try:
        for processor in sorted(processors) * times:
            with suppress(OSError):  # the cpuset has changed meanwhile
                os.sched_setaffinity(0, {processor})
            yield
    finally:
        with suppress(OSError):
            os.sched_setaffinity(0, processors)
