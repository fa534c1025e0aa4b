"""Memory that the kernel may take back, as an executable specification: pure Python, to be read in one sitting.

It says what the kernel does with a page, call by call, and has three uses: tests drive it and the real kernel with the
same sequences and compare what each promises; it is a fake for tests on systems without such memory; and
`droppable.replay` tries a drop policy with it on a trace (many caches on one host: who loses what).

    Machine (frames, swap, LRU lists) > Process > Mapping (flags, a set) > Page (shared after a fork)

It imports nothing of the package. One thread only. Counts are pages unless a name says bytes. Where the kernel may
choose, the model makes the choice that hurts (page_out takes all it may); `Mapping.drop` lets a test make another.
Left out: huge pages, several memory nodes, the multi-generational LRU, kswapd, swappiness (file pages go first).
"""

import errno
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, IntEnum, auto
from functools import partialmethod


class Flag(Enum):
    """What a mapping is. A set of names, not bits of a machine word, which 32-bit kernels have run out of."""

    DROPPABLE = auto()  # pages may go at any time, even dirty; implies the next three
    WIPE_ON_FORK = auto()
    DONT_DUMP = auto()
    NO_RESERVE = auto()
    LOCKED = auto()  # by mlock() only
    SIGNAL = auto()  # variant: touching an absent page is a signal; only refill() brings it to life
    LOSE_WRITES = auto()  # variant of DROPPABLE: a fault that finds no memory loses the write instead of waiting


PLAIN = frozenset({Flag.NO_RESERVE})
LAZYFREE = frozenset({Flag.WIPE_ON_FORK, Flag.DONT_DUMP, Flag.NO_RESERVE})
DROPPABLE = LAZYFREE | {Flag.DROPPABLE}

Advice = Enum("Advice", "FREE DONTNEED PAGEOUT COLD WIPEONFORK KEEPONFORK DONTDUMP DODUMP")
SETS_FLAG = {Advice.WIPEONFORK: Flag.WIPE_ON_FORK, Advice.DONTDUMP: Flag.DONT_DUMP}
CLEARS_FLAG = {Advice.KEEPONFORK: Flag.WIPE_ON_FORK, Advice.DODUMP: Flag.DONT_DUMP}

# INACTIVE, the file LRU that is looked at first: droppable pages from birth, lazyfree pages from FREE on. ACTIVE, the
# other file LRU: found accessed twice. ANON: ordinary memory, leaves for swap only.
Lru = Enum("Lru", "INACTIVE ACTIVE ANON")


class State(IntEnum):
    """As a census tells it (where SWAPPED is told as ABSENT)."""

    ABSENT = 0
    RESIDENT = 1
    ZERO = 2  # the shared zero page: read while absent; costs no frame
    SWAPPED = 3


class Signal(Exception):
    """SIGBUS: an absent page of a SIGNAL mapping was touched. args: the page's address in bytes."""


class Waits(Exception):
    """A droppable fault found no memory: no signal, nothing changed, the instruction is retried."""


class Killed(Exception):
    """The out-of-memory killer chose the process that was asking."""


@dataclass(eq=False, slots=True)
class Page:
    """One frame or swap slot. After a drop it stays behind as ABSENT, so that all its mappers see that it went."""

    content: bytes
    always_droppable: bool
    lru: Lru
    state: State = State.RESIDENT
    accessed: bool = True  # the fault that made it counts
    referenced: bool = False  # reclaim met it accessed once
    mappers: "set[Mapping]" = field(default_factory=set)
    dirty_in: "set[Mapping]" = field(default_factory=set)  # mappers that wrote it since their last FREE

    @property
    def locked(self) -> bool:
        """Whether a mapper holds it with mlock."""
        return any(Flag.LOCKED in mapping.flags for mapping in self.mappers)

    @property
    def may_drop(self) -> bool:
        """Whether reclaim may take it now."""
        takeable = self.state is State.RESIDENT and self.lru is not Lru.ANON and not self.locked
        return takeable and (self.always_droppable or not self.dirty_in)


@dataclass(eq=False)
class Machine:
    """Frames, swap and reclaim: a whole machine, or one memory cgroup. Counters have the kernel's names."""

    ram_pages: int = 1 << 20
    swap_pages: int = 0
    page_bytes: int = 4096
    commit_limit_pages: int | None = None  # strict overcommit (mode 2), where NO_RESERVE is not listened to
    oom_killer: bool = True  # False: nobody may be killed
    counters: Counter[str] = field(default_factory=Counter)
    processes: "list[Process]" = field(default_factory=list)
    swap: set[Page] = field(default_factory=set)
    next_address: int = 1 << 16

    def __post_init__(self) -> None:
        self.lists: dict[Lru, OrderedDict[Page, None]] = {lru: OrderedDict() for lru in Lru}  # oldest first
        self.zero_page = Page(bytes(self.page_bytes), False, Lru.ANON, State.ZERO)

    @property
    def used_pages(self) -> int:
        """Frames in use."""
        return sum(len(pages) for pages in self.lists.values())

    def start(self, memlock_pages: int = 0) -> "Process":
        """Starts a process, with a budget for mlock."""
        self.processes.append(Process(self, memlock_pages))
        return self.processes[-1]

    def make_room(self, mapping: "Mapping") -> bool:
        """A free frame for a fault, reclaimed if need be. False: there is none, and the mapping loses writes."""
        while self.used_pages >= self.ram_pages:
            self.reclaim()
            if self.used_pages < self.ram_pages:
                break
            if Flag.LOSE_WRITES in mapping.flags:
                return False
            if not self.oom_killer:
                raise Waits if Flag.DROPPABLE in mapping.flags else OSError(errno.ENOMEM, "out of memory")
            victim = max(self.processes, key=lambda process: process.resident_pages)
            self.counters["oom_kill"] += 1
            victim.exit()
            if victim is mapping.process:
                raise Killed
        return True

    def move(self, page: Page, lru: Lru) -> None:
        """To the young end of a list."""
        self.lists[page.lru].pop(page, None)
        page.lru = lru
        self.lists[lru][page] = None

    def forget(self, page: Page) -> None:
        """Frees the frame or the swap slot."""
        self.swap.discard(page)
        self.lists[page.lru].pop(page, None)
        page.state, page.content = State.ABSENT, b""

    def reclaim(self, target_pages: int = 32) -> int:
        """Looks harder and harder until target_pages are counted as progress; returns how many were."""
        counted = 0
        for priority in range(12, -1, -1):  # at 1/4096 of a list first, at all of it last
            for page in self.victims(priority):
                counted += self.consider(page)
                if counted >= target_pages:
                    return counted
        return counted

    def victims(self, priority: int) -> Iterator[Page]:
        """The pages that one round looks at, in order. A drop policy of your own overrides this."""
        inactive, active, anon = (self.lists[lru] for lru in Lru)
        while len(active) > len(inactive):
            page = next(iter(active))
            page.accessed = False
            self.move(page, Lru.INACTIVE)
        pages = inactive if len(inactive) >> priority or len(self.swap) == self.swap_pages else anon
        for _ in range(len(pages) >> priority):
            yield next(iter(pages))  # consider() takes each from there

    def consider(self, page: Page) -> int:
        """Drops, swaps or moves the page (second chance). Returns 1 where reclaim counts that as progress."""
        if page.accessed or page.locked:
            again = page.accessed and page.referenced and page.lru is Lru.INACTIVE
            page.referenced, page.accessed = page.accessed, False
            self.move(page, Lru.ACTIVE if again else page.lru)
        elif page.may_drop:
            self.forget(page)
            # The over-drop: a page that is dirty goes but is not counted, so reclaim goes on.
            self.counters["nr_vmscan_immediate_reclaim" if page.dirty_in else "pgsteal"] += 1
            return 0 if page.dirty_in else 1
        elif page.lru is Lru.ANON and len(self.swap) < self.swap_pages:
            self.lists[Lru.ANON].pop(page)
            self.swap.add(page)
            page.state = State.SWAPPED
            self.counters["pswpout"] += 1
            return 1
        else:
            self.move(page, Lru.ANON)  # also where it was lazyfree and was written since: ordinary memory again
        return 0


@dataclass(eq=False)
class Process:
    """mappings: by address in bytes. A child has its parent's mappings at the same addresses."""

    machine: Machine
    memlock_pages: int
    mappings: "dict[int, Mapping]" = field(default_factory=dict)

    @property
    def resident_pages(self) -> int:
        """Its RSS."""
        return sum(page.state is State.RESIDENT for m in self.mappings.values() for page in m.pages.values())

    def map(self, pages: int, flags: Iterable[Flag] = LAZYFREE) -> "Mapping":
        """OSError: EINVAL for flags that exclude one another, ENOMEM where more was reserved than there is."""
        machine, wanted = self.machine, frozenset(flags)
        if pages <= 0 or Flag.LOCKED in wanted or (Flag.LOSE_WRITES in wanted and Flag.DROPPABLE not in wanted):
            raise OSError(errno.EINVAL, "no such mapping")
        wanted |= DROPPABLE if Flag.DROPPABLE in wanted else frozenset()
        strict, limit = machine.commit_limit_pages, machine.ram_pages + machine.swap_pages
        if strict is not None:
            everyone = [mapping for process in machine.processes for mapping in process.mappings.values()]
            limit = strict - sum(m.length_pages for m in everyone if Flag.DROPPABLE not in m.flags)
        if pages > limit and (Flag.NO_RESERVE if strict is None else Flag.DROPPABLE) not in wanted:
            raise OSError(errno.ENOMEM, "more than can be reserved")
        mapping = self.mappings[machine.next_address] = Mapping(self, machine.next_address, pages, wanted)
        machine.next_address += (pages + 1) * machine.page_bytes
        return mapping

    def fork(self) -> "Process":
        """The child shares the content of mappings that are not wiped, copy-on-write; locks and signals stay here."""
        child = self.machine.start(self.memlock_pages)
        for address, mapping in self.mappings.items():
            flags = mapping.flags - {Flag.LOCKED, Flag.SIGNAL}
            copy = child.mappings[address] = Mapping(child, address, mapping.length_pages, flags)
            for index, page in mapping.pages.items() if Flag.WIPE_ON_FORK not in flags else ():
                copy.pages[index] = page
                if page.state is not State.ZERO:
                    page.mappers.add(copy)
                if mapping in page.dirty_in:
                    page.dirty_in.add(copy)
        return child

    def core_dump(self) -> dict[int, bytes]:
        """Content by address in bytes, page by page."""
        size, dumped = self.machine.page_bytes, [m for m in self.mappings.values() if Flag.DONT_DUMP not in m.flags]
        return {m.address + i * size: page.content for m in dumped for i, page in m.pages.items() if page.content}

    def exit(self) -> None:
        """Gives everything back."""
        for mapping in list(self.mappings.values()):
            mapping.unmap()
        self.machine.processes.remove(self)


@dataclass(eq=False)
class Mapping:
    """Pages by index. Offsets and lengths in bytes, as in `droppable.lowlevel.Mapping`, whose verbs it has."""

    process: Process
    address: int
    length_pages: int
    flags: frozenset[Flag]
    pages: dict[int, Page] = field(default_factory=dict)  # never touched: no entry; dropped: an ABSENT page

    def __post_init__(self) -> None:
        self.machine = self.process.machine

    def __len__(self) -> int:
        return self.length_pages * self.machine.page_bytes

    def state(self, index: int) -> State:
        """Where one page is."""
        page = self.pages.get(index)
        return page.state if page else State.ABSENT

    def page_states(self) -> bytes:
        """One byte a page, as a census tells them."""
        return bytes(self.state(index) % State.SWAPPED for index in range(self.length_pages))

    def drop(self, index: int) -> None:
        """The kernel takes this page now. ValueError: it may not, the specification forbids it."""
        if index not in self.pages or not self.pages[index].may_drop:
            raise ValueError(f"page {index} must not go now")
        self.machine.forget(self.pages[index])

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes; zeros where a page was dropped."""
        parts = self._parts(offset, length)
        return b"".join(self.touch(index).content[start:stop] for index, start, stop in parts)

    def write(self, offset: int, data: bytes) -> None:
        """Stores bytes, page by page."""
        for index, start, stop in self._parts(offset, len(data)):
            page = self.fault_for_write(index)
            part, data = data[: stop - start], data[stop - start :]
            if page:
                page.content = page.content[:start] + part + page.content[stop:]

    def pin(self, offset: int = 0, length: int | None = None) -> None:
        """Writes without changing: what is lazyfree stays until the next mark()."""
        for index, _start, _stop in self._parts(offset, length):
            self.fault_for_write(index)

    def touch(self, index: int) -> Page:
        """A read: an absent page becomes the shared zero page, a page that is there counts as accessed."""
        if self._swapped_in_or_signalled(index) is State.ABSENT:
            self.pages[index] = self.machine.zero_page
        self.pages[index].accessed = True
        return self.pages[index]

    def fault_for_write(self, index: int) -> Page | None:
        """The page, present, dirty and this mapping's own (copy-on-write). None: the write is lost."""
        state = self._swapped_in_or_signalled(index)
        page = self.pages.get(index)
        if page is None or state is not State.RESIDENT or len(page.mappers) > 1:
            page = self._new_page(index, page.content if page and page.content else self.machine.zero_page.content)
        if page:
            page.accessed = True
            page.dirty_in.add(self)
        return page

    def refill(self, index: int, content: bytes) -> None:
        """Makes an absent page live again, whole, also where touching it is a signal."""
        if self.state(index) is not State.ABSENT:
            raise OSError(errno.EEXIST, "the page is there")
        self._new_page(index, content)

    def _swapped_in_or_signalled(self, index: int) -> State:
        state = self.state(index)
        if state is State.ABSENT and Flag.SIGNAL in self.flags:
            raise Signal(self.address + index * self.machine.page_bytes)
        if state is State.SWAPPED and self.machine.make_room(self):
            self.machine.swap.discard(self.pages[index])
            self.machine.move(self.pages[index], Lru.ANON)
            state = self.pages[index].state = State.RESIDENT
        return state

    def _new_page(self, index: int, content: bytes) -> Page | None:
        if not self.machine.make_room(self):
            return None
        self._release(index)
        always = Flag.DROPPABLE in self.flags
        lru = Lru.INACTIVE if always else Lru.ANON
        page = self.pages[index] = Page(content, always, lru, mappers={self}, dirty_in={self})
        self.machine.move(page, lru)
        return page

    def _release(self, index: int) -> None:
        page = self.pages.pop(index, None)
        if page and page.state is not State.ZERO:
            page.mappers.discard(self)
            page.dirty_in.discard(self)
            if not page.mappers:
                self.machine.forget(page)

    def _parts(self, offset: int, length: int | None) -> Iterator[tuple[int, int, int]]:
        """(page index, start in it, stop in it) of a range of bytes."""
        size, whole = self.machine.page_bytes, self.length_pages * self.machine.page_bytes  # len() ends at ssize_t
        if not whole >= (end := whole if length is None else offset + length) >= offset >= 0:
            raise ValueError(f"offset {offset} and end {end} do not lie in a mapping of {whole} bytes")
        for index in range(offset // size, -(-end // size)):
            yield index, max(offset - index * size, 0), min(end - index * size, size)

    def madvise(self, advice: Advice, offset: int = 0, length: int | None = None) -> None:
        """OSError EINVAL: droppable memory can be neither kept on fork nor dumped; locked pages are not advised on."""
        if advice in SETS_FLAG:
            self.flags |= {SETS_FLAG[advice]}
            return
        if (Flag.DROPPABLE if advice in CLEARS_FLAG else Flag.LOCKED) in self.flags:
            raise OSError(errno.EINVAL, f"no {advice.name} here")
        if advice in CLEARS_FLAG:
            self.flags -= {CLEARS_FLAG[advice]}
            return
        for index, _start, _stop in self._parts(offset, length):
            page, state = self.pages.get(index), self.state(index)
            if advice is Advice.DONTNEED or (advice is Advice.FREE and state is State.SWAPPED):
                self._release(index)
            elif page and state is State.RESIDENT and (advice is not Advice.PAGEOUT or len(page.mappers) == 1):
                page.accessed = page.referenced = False
                if advice is Advice.PAGEOUT:
                    self.machine.consider(page)
                if advice is Advice.FREE:
                    page.dirty_in.discard(self)
                if (advice, page.lru) in ((Advice.FREE, Lru.ANON), (Advice.COLD, Lru.ACTIVE)):
                    self.machine.move(page, Lru.INACTIVE)

    mark = partialmethod(madvise, Advice.FREE)
    purge = partialmethod(madvise, Advice.DONTNEED)
    page_out = partialmethod(madvise, Advice.PAGEOUT)
    cold = partialmethod(madvise, Advice.COLD)

    def mlock(self) -> None:
        """OSError ENOMEM beyond the budget. On droppable memory it succeeds, costs nothing and does nothing."""
        if Flag.DROPPABLE in self.flags or Flag.LOCKED in self.flags:
            return
        locked = [m.length_pages for m in self.process.mappings.values() if Flag.LOCKED in m.flags]
        if sum(locked) + self.length_pages > self.process.memlock_pages:
            raise OSError(errno.ENOMEM, "beyond the mlock budget")
        self.flags |= {Flag.LOCKED}
        self.pin()

    def unmap(self) -> None:
        """Gives the pages and the address back."""
        for index in list(self.pages):
            self._release(index)
        del self.process.mappings[self.address]
