"""Many caches on one host: who loses what. Plays a trace of accesses on `droppable.model`, to try a drop policy first.

Each cache has a process of its own and appends its values to a log, as the engine does: small values share pages, a
value of a page or more starts on its own page; a value is a hit while none of its pages was dropped. The policy under
trial is the caches' `Setup`, the machine's size, or a subclass of `Machine` with another `victims`.

    log    |a a b c . |d d d d d d|e f . . .     an access to d reads its pages: that is all the kernel learns
    pages  0          1     2     3
"""

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass

from droppable.model import LAZYFREE, PLAIN, Advice, Flag, Machine, Page, Process, State

LOG_PAGES = 1 << 40  # address space is not what this simulates
CONTENT = b"\1"  # stands for any page full


@dataclass(frozen=True)
class Setup:
    """How one cache uses its memory.

    flags: of its mapping, LAZYFREE or DROPPABLE. mark: FREE after each write. max_pages: the cache's own limit, beyond
    which it evicts its oldest pages; None for no limit.
    """

    flags: frozenset[Flag] = LAZYFREE
    mark: bool = True
    max_pages: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What one cache got. hits + absent + lost is the number of its accesses.

    absent: misses on keys never stored. lost: misses on values that the kernel dropped or the cache's own limit
    evicted. resident_pages: what it holds at the end.
    """

    hits: int
    absent: int
    lost: int
    resident_pages: int

    @property
    def hit_ratio(self) -> float:
        """Hits per access; 0 where there was none."""
        return self.hits / ((self.hits + self.absent + self.lost) or 1)

    @property
    def lost_ratio(self) -> float:
        """Misses per access on values that had been stored; 0 where there was no access."""
        return self.lost / ((self.hits + self.absent + self.lost) or 1)


class _LoggedCache:
    """One cache of the trace: an append-only log in one mapping, and where each value lies."""

    def __init__(self, process: Process, setup: Setup) -> None:
        self.setup = setup
        self.process = process
        self.log = process.map(LOG_PAGES, setup.flags)
        self.places: dict[Hashable, tuple[int, list[Page]]] = {}  # first page, pages
        self.end_bytes = 0
        self.first_page = 0  # older ones were evicted
        self.hits = self.absent = self.lost = 0

    def access(self, key: Hashable, size_bytes: int) -> None:
        first, pages = self.places.get(key, (0, []))
        if pages and all(page.state is not State.ABSENT for page in pages):
            self.hits += 1
            for index in range(first, first + len(pages)):
                self.log.touch(index)
            return
        self.lost += bool(pages)
        self.absent += not pages
        self.append(key, size_bytes)

    def append(self, key: Hashable, size_bytes: int) -> None:
        page_bytes = self.log.machine.page_bytes
        room_bytes = -self.end_bytes % page_bytes
        if size_bytes > room_bytes:  # never straddles: a dropped page then costs as few values as can be
            self.end_bytes += room_bytes
        first, self.end_bytes = self.end_bytes // page_bytes, self.end_bytes + max(size_bytes, 1)
        last = (self.end_bytes - 1) // page_bytes
        pages = []
        for index in range(first, last + 1):
            page = self.log.fault_for_write(index)
            if page:  # else this variant of the memory lost the write
                page.content = CONTENT
                pages.append(page)
        self.places[key] = (first, pages)
        if self.setup.mark:
            self.log.madvise(Advice.FREE, first * page_bytes, (last + 1 - first) * page_bytes)
        if self.setup.max_pages is not None and last + 1 - self.first_page > self.setup.max_pages:
            oldest, self.first_page = self.first_page, last + 1 - self.setup.max_pages
            self.log.madvise(Advice.DONTNEED, oldest * page_bytes, (self.first_page - oldest) * page_bytes)

    def outcome(self) -> Outcome:
        return Outcome(self.hits, self.absent, self.lost, self.process.resident_pages)


class _Ordinary:
    """A process of the trace that is no cache: takes memory, gives it back."""

    def __init__(self, process: Process) -> None:
        self.memory = process.map(LOG_PAGES, PLAIN)
        self.used_pages = 0

    def resize(self, change_bytes: int) -> None:
        page_bytes = self.memory.machine.page_bytes
        wanted = max(self.used_pages + round(change_bytes / page_bytes), 0)
        for index in range(self.used_pages, wanted):
            self.memory.fault_for_write(index)
        if wanted < self.used_pages:
            self.memory.madvise(Advice.DONTNEED, wanted * page_bytes, (self.used_pages - wanted) * page_bytes)
        self.used_pages = wanted


def replay(
    trace: Iterable[tuple[str, Hashable, int]], caches: Mapping[str, Setup], machine: Machine
) -> dict[str, Outcome]:
    """Plays accesses in order and returns what each cache got.

    trace: (cache, key, size in bytes). A name that is not in caches is an ordinary process, which takes that many
    bytes more, or gives them back where negative; its key is ignored.
    Raises what the model raises where there is no memory: Killed, Waits, OSError ENOMEM.
    """
    players = {name: _LoggedCache(machine.start(), setup) for name, setup in caches.items()}
    ordinary: dict[str, _Ordinary] = {}
    for name, key, size_bytes in trace:
        if name in players:
            players[name].access(key, size_bytes)
        else:
            if name not in ordinary:
                ordinary[name] = _Ordinary(machine.start())
            ordinary[name].resize(size_bytes)
    return {name: player.outcome() for name, player in players.items()}
