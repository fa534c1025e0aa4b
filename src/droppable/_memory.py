"""`Region`: memory that the kernel may take back, for people who build their own structures on it.

The C core's region (csrc/region/region.h has the picture of a page's life) does the work; here are Python's manners:
slices, blocks, frozen figures. Callers: users; the caches do not use it.
"""

from __future__ import annotations

import operator
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, SupportsIndex, TypeAlias, cast, final, overload

from droppable.lowlevel import RawRegion, RegionHold

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

ByteRange: TypeAlias = tuple[int, int]
"""start and stop of a range of bytes, counted from the region's start"""


@final
@dataclass(frozen=True)
class RegionCensus:
    """Pages of a region by state, true only for the moment."""

    pages: int
    """looked at"""
    resident_pages: int
    """in memory, with content of their own"""
    zero_pages: int
    """never written, or dropped, and read since: the shared page of zeros"""
    absent_pages: int
    """not in memory"""
    dropped_pages: int
    """had content that was settled, and it is gone"""
    exact: bool
    """False where the kernel cannot tell zero pages from resident ones (before Linux 6.7)"""


@final
class RegionBlock:
    """What `Region.reading`, `writing` and `pin` return: a context manager whose value is a memoryview."""

    __slots__ = ("_entry", "_hold", "_kind", "_region", "_start", "_stop", "_view")

    def __init__(self, region: Region, kind: Literal["read", "write", "pin"], start: int, stop: int) -> None:
        """Private: use the methods of `Region`."""
        self._region = region
        self._kind: Literal["read", "write", "pin"] = kind
        self._start = start
        self._stop = stop
        self._hold: RegionHold | None = None
        self._view: memoryview | None = None
        self._entry = [True]  # taken by the one that is inside: of two threads that come at once, one gets it

    def __enter__(self) -> memoryview:
        try:
            self._entry.pop()
        except IndexError:
            raise RuntimeError("this block is entered already; ask the region for another one") from None
        try:
            self._hold = self._region.hold(self._kind, self._start, self._stop)
            self._view = memoryview(self._hold)
        except BaseException:
            self._hold = None
            self._entry.append(True)
            raise
        return self._view

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        hold, self._hold = self._hold, None
        if hold is None or self._view is None:
            raise RuntimeError("this block is not entered; it may have ended before")
        with suppress(BufferError):  # an array on it: counted by the hold, with those on a copy of this view
            self._view.release()
        self._entry.append(True)
        buffers = hold.finish()  # Dropped goes first: whatever else happened in the block, it was on bytes that went
        if buffers and error is None:
            raise BufferError(
                "an array or memoryview made in this block is still alive, and what is done with it from now on would "
                "go unnoticed; delete it (del array), or copy what you keep, before the block ends"
            )


@final
class Region(RawRegion):
    """Memory that the kernel may take back at any moment, page by page.

    Nothing is reserved for it, nothing counts against the mlock budget, and it is never in a core dump. What is written
    stays until it is settled (at the end of a `writing` block, by `settle`, and at the latest 64 pages after `write`);
    from then on the kernel drops it, least recently used first, when something else needs the memory.

    Args:
        length: bytes, a multiple of the OS page (`droppable.lowlevel.page_size_bytes()`). It may be larger than RAM.
        on_drop: what happens where a page went.
            "zero": it reads zeros. The region is a writable buffer: memoryview, NumPy and ctypes work on it.
            "raise": reading through the region raises `Dropped`; bare views are refused, `reading` gives checked ones.
            "signal": touching it is SIGBUS, and EFAULT for system calls. Through the region: `Dropped`. The region is
            a writable buffer, and a dropped page touched through a bare view ends the process, with a message that
            names the region and the byte. A page is live once it was filled, by `write`, `writing` or `refill`.
        backing: "droppable" (MAP_DROPPABLE, Linux 6.11: never in swap, even before it is settled), "lazyfree" (every
            kernel; can be pinned), or "auto": "droppable" for on_drop="zero" with fork="wipe" where the kernel has it,
            else "lazyfree".
        fork: "wipe": a forked child has the region without its content. "share": the child sees the content,
            copy-on-write ("lazyfree" only).
        name: for messages.

    Raises:
        ValueError: the length is zero, negative or no multiple of a page.
        MemoryError: address space is exhausted, or a limit on it (RLIMIT_AS) is reached; also OverflowError, for a
            length beyond any address space.
        UnsupportedError: the kernel does not offer this combination. "signal" needs userfaultfd, and "lazyfree".

    Threads: every method may be called from every thread. Whoever writes a range (in whole pages) while others read it
    has to order that, as with a bytearray. Large copies run without the GIL.
    """

    __slots__ = ()

    def _stop(self, stop: int | None) -> int:
        return len(self) if stop is None else stop

    def reading(self, start: int = 0, stop: int | None = None) -> RegionBlock:
        """A block in which any code may compute on the memory, zero-copy; its value is a read-only memoryview.

        With on_drop="raise" the end of the block raises `Dropped` if any page of the range went meanwhile or before,
        also if somebody repaired or purged it since, so a result computed from missing bytes never leaves the block.
        With "signal" the range is pinned, and entering raises. With "zero" nothing is checked.

        Raises:
            Dropped: `offsets` tells what went.
            BufferError: at the end, if an array or view made in the block is still alive.
        """
        return RegionBlock(self, "read", start, self._stop(stop))

    def writing(self, start: int = 0, stop: int | None = None) -> RegionBlock:
        """A block for writing by any code, zero-copy; its value is a writable memoryview. Its end settles the range.

        Give the range that you will write: it is marked as a whole. With "zero" on "lazyfree" a block on all of a
        region (more than 64 pages) asks the kernel instead what was written, where it can tell (Linux 6.7), and marks
        only that. With "raise" and "signal" all of the range is kept in memory for the block (40-70 ns a page that has
        content; with "signal" pages that were never filled become zeros), and content of it that went before must be
        given up first (`purge`), for part of a page cannot be repaired.

        Raises:
            Dropped: content of the range went before. Nothing is held then.
            UnsupportedError: on_drop="raise" with backing="droppable", where nothing can keep a half-written page; use
                `write`.
            BufferError: at the end, if an array or view made in the block is still alive. The range is settled.
        """
        return RegionBlock(self, "write", start, self._stop(stop))

    def pin(self, start: int = 0, stop: int | None = None) -> RegionBlock:
        """A block in which the kernel cannot take the range; its value is a read-only memoryview.

        Raises:
            Dropped: something of the range went before (not with on_drop="zero"). Nothing is pinned then.
                With "raise" and fork="wipe" also at the end, in a child that was forked in the block: it saw zeros.
            UnsupportedError: backing="droppable" cannot pin.
            BufferError: at the end, if an array or view made in the block is still alive.
        """
        return RegionBlock(self, "pin", start, self._stop(stop))

    def read(self, start: int = 0, stop: int | None = None) -> bytes:
        """A copy of the bytes; raises `Dropped` if something of them went (not with on_drop="zero")."""
        return RawRegion.read(self, start, self._stop(stop))

    def read_into(self, buffer: WriteableBuffer, start: int = 0) -> None:
        """Fills a writable buffer with the bytes from start on; raises as `read`, the buffer's content is void then."""
        RawRegion.read_into(self, buffer, start)

    def write(self, start: int, data: ReadableBuffer) -> None:
        """Copies data in. Pages that it covers whole come alive whatever they were.

        Raises:
            Dropped: a page that is covered only in part went before (not with on_drop="zero"); nothing was written.
            RefusedError: on_drop="raise" with backing="droppable": the kernel took pages faster than they were written.
        """
        RawRegion.write(self, start, data)

    def settle(self, start: int = 0, stop: int | None = None) -> None:
        """Lets the kernel take what was written in the range, through bare views too. Open blocks are left out.

        Where the kernel tells what was written (Linux 6.7, userfaultfd, backing="lazyfree") only that is marked: 1 ms
        for 1 GiB without news, 1.6 us a page that was written. Elsewhere the whole range is, 60 ns a resident page, and
        all of it looks as if it had not been read lately. So settle the range that you wrote, soon.
        """
        RawRegion.settle(self, start, self._stop(stop))

    def purge(self, start: int = 0, stop: int | None = None) -> None:
        """Gives the content of whole pages up: they read as zeros and are no loss any more (with "signal": absent).

        Raises:
            BufferError: a `writing` or `pin` block holds some of them.
        """
        RawRegion.purge(self, start, self._stop(stop))

    def refill(self, start: int, data: ReadableBuffer) -> int:
        """on_drop="signal": makes the absent pages of the range live with this content, each at once.

        Threads that touch a page see all of it or SIGBUS. Pages that are live are left as they are.

        Returns:
            The bytes that were filled.
        """
        return RawRegion.refill(self, start, data)

    def page_out(self, start: int = 0, stop: int | None = None) -> None:
        """Asks the kernel to drop whole pages now, without pressure or privilege: for tests and experiments.

        Settles the range first. Best effort: a page that is referenced at that moment is skipped, so look, and repeat.
        Raises UnsupportedError before Linux 5.4.
        """
        RawRegion.page_out(self, start, self._stop(stop))

    def dropped_pages(self, start: int = 0, stop: int | None = None) -> tuple[ByteRange, ...]:
        """The byte ranges, whole pages, whose settled content is gone; true only for the moment.

        With "raise" the content proves it. With "zero" it is known of what was settled by range, or where the kernel
        tells what was written, and a page in swap counts as dropped.
        """
        return self._census(start, stop)[6]

    def census(self, start: int = 0, stop: int | None = None) -> RegionCensus:
        """Counts whole pages by state: 3 us, and some ns a page."""
        return RegionCensus(*self._census(start, stop)[:6])

    def _census(self, start: int, stop: int | None) -> tuple[int, int, int, int, int, bool, tuple[ByteRange, ...]]:
        return RawRegion.census_counts(self, start, self._stop(stop))

    def page_states(self, start: int = 0, stop: int | None = None) -> bytes:
        """One byte a whole page: 0 absent, 1 resident with content of its own, 2 the shared page of zeros.

        True only for the moment. Where the kernel cannot tell the last two apart (before Linux 6.7), each page of
        nothing but zeros is told as 2; finding out reads all that is resident.
        """
        return RawRegion.page_states(self, start, self._stop(stop))

    def resize(self, length: int) -> None:
        """Grows or shrinks to a multiple of the OS page. What is there stays, what was dropped stays dropped.

        Growing copies what is resident to a new place, 64 pages at a time, so it needs no double memory.

        Raises:
            BufferError: views or arrays of it are alive, or a block or a call is using it.
            MemoryError: no address space; nothing has changed.
        """
        RawRegion.resize(self, length)

    def close(self) -> None:
        """Gives the memory back; twice is fine. Raises BufferError while views of it, blocks or calls are alive."""
        RawRegion.close(self)

    @overload
    def __getitem__(self, index: SupportsIndex) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> bytes: ...
    def __getitem__(self, index: SupportsIndex | slice) -> int | bytes:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step == 1:
                return self.read(start, max(start, stop))
            span = range(start, stop, step)
            if not span:
                return b""
            low, high = min(span[0], span[-1]), max(span[0], span[-1])
            return self.read(low, high + 1)[::step]
        at = self._index(index)
        return self.read(at, at + 1)[0]

    def __setitem__(self, index: SupportsIndex | slice, value: SupportsIndex | ReadableBuffer) -> None:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if isinstance(value, int):
                raise TypeError("a slice takes bytes, not an int")
            if step != 1:
                raise ValueError("only slices without a step can be assigned")
            data = memoryview(cast("ReadableBuffer", value))
            data = data.cast("B") if data.nbytes else memoryview(b"")  # an array without elements cannot be cast
            if len(data) != max(0, stop - start):
                raise ValueError(
                    f"a region cannot change its length here: {max(0, stop - start)} bytes, not {len(data)}"
                )
            self.write(start, data)
        else:
            try:
                number = operator.index(cast("SupportsIndex", value))
            except TypeError:
                raise TypeError(f"a byte takes an int from 0 to 255; you gave {value!r}") from None
            if not 0 <= number <= 255:
                raise ValueError(f"a byte takes an int from 0 to 255; you gave {value!r}")
            self.write(self._index(index), bytes((number,)))

    def _index(self, index: SupportsIndex) -> int:
        try:
            number = operator.index(index)
        except TypeError:
            raise TypeError(f"a region is indexed by an int or a slice; you gave {index!r}") from None
        at = number + len(self) if number < 0 else number
        if not 0 <= at < len(self):
            raise IndexError(f"byte {number} does not lie in a region of {len(self)} bytes")
        return at

    def __enter__(self) -> Self:
        len(self)  # raises ClosedError
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed:
            return f"<Region {self.name!r}, closed>"
        return f"<Region {self.name!r}, {len(self)} bytes, on_drop={self.on_drop!r}, backing={self.backing!r}>"
