"""`droppable top`: what one process has of memory that the kernel may take, from /proc, and which processes have any.

    /proc/PID/smaps    each mapping: resident, LazyFree, and among its VmFlags `dp`: MAP_DROPPABLE
    /proc/PID/pagemap  eight bytes a page: bit 63, it is there; no privilege is needed for processes of one's own

A page of a MAP_DROPPABLE mapping is droppable whatever else is said of it. Of other mappings those pages are that count
as LazyFree: given away by MADV_FREE, and not written to since.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from droppable.lowlevel import page_size_bytes

_PRESENT: Final = 1 << 63
_ENTRY_BYTES: Final = 8
_SAMPLES: Final = 4
"""Of a cell of the map that stands for many pages so many runs are looked at..."""
_SAMPLE_PAGES: Final = 64
"""...of so many pages each."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """One mapping of a process, in bytes."""

    start: int
    end: int
    kind: Literal["droppable", "lazyfree", "ordinary"]
    resident_bytes: int
    lazyfree_bytes: int
    swapped_bytes: int

    @property
    def mapped_bytes(self) -> int:
        """Of address space."""
        return self.end - self.start

    @property
    def droppable_bytes(self) -> int:
        """What of it the kernel may take."""
        return self.resident_bytes if self.kind == "droppable" else self.lazyfree_bytes


@dataclass(frozen=True, slots=True)
class Memory:
    """All mappings of a process together, in bytes; resident is droppable, lazyfree and ordinary."""

    mappings: tuple[Mapped, ...]

    @property
    def resident_bytes(self) -> int:
        """Present in memory."""
        return sum(mapped.resident_bytes for mapped in self.mappings)

    @property
    def droppable_mapped_bytes(self) -> int:
        """Address space of MAP_DROPPABLE, resident or not."""
        return sum(mapped.mapped_bytes for mapped in self.mappings if mapped.kind == "droppable")

    @property
    def droppable_bytes(self) -> int:
        """Resident in mappings of MAP_DROPPABLE."""
        return sum(mapped.resident_bytes for mapped in self.mappings if mapped.kind == "droppable")

    @property
    def lazyfree_bytes(self) -> int:
        """Of other mappings, what MADV_FREE lets the kernel take."""
        return sum(mapped.lazyfree_bytes for mapped in self.mappings if mapped.kind != "droppable")

    @property
    def ordinary_bytes(self) -> int:
        """Resident, and neither of the two."""
        return self.resident_bytes - self.droppable_bytes - self.lazyfree_bytes

    @property
    def swapped_bytes(self) -> int:
        """In swap."""
        return sum(mapped.swapped_bytes for mapped in self.mappings)

    def is_of_interest(self) -> bool:
        """Whether the kernel may take any of it, now or once it is used."""
        return any(mapped.kind != "ordinary" for mapped in self.mappings)

    def largest(self, count: int) -> list[Mapped]:
        """The mappings that have most of what the kernel may take; none that is ordinary."""
        found = [mapped for mapped in self.mappings if mapped.kind != "ordinary"]
        return sorted(found, key=lambda mapped: (-mapped.droppable_bytes, -mapped.mapped_bytes))[:count]


def read_memory(pid: int) -> Memory:
    """All mappings of a process.

    Raises:
        OSError: it is gone (ProcessLookupError, FileNotFoundError), or not ours to look into (PermissionError).
    """
    with open(f"/proc/{pid}/smaps", "rb") as smaps:
        return Memory(tuple(_mappings(smaps)))


def guess_memory(pid: int, stored_bytes: int) -> Memory:
    """What is known of a process that may not be looked into: resident memory, of which so much is lazyfree at most.

    Raises:
        OSError: it is gone.
    """
    with open(f"/proc/{pid}/statm", "rb") as statm:
        resident_bytes = int(statm.read().split()[1]) * page_size_bytes()
    lazyfree_bytes = min(stored_bytes, resident_bytes)
    return Memory(
        (
            Mapped(0, 0, "lazyfree", lazyfree_bytes, lazyfree_bytes, 0),
            Mapped(0, 0, "ordinary", resident_bytes - lazyfree_bytes, 0, 0),
        )
    )


def _mappings(lines: Iterable[bytes]) -> Iterator[Mapped]:
    start = end = resident_bytes = lazyfree_bytes = swapped_bytes = 0
    for line in lines:
        name, _, rest = line.partition(b" ")
        if not name.endswith(b":"):  # "7f0000000000-7f0000001000 rw-p ...": a mapping begins
            start, end = (int(number, 16) for number in name.split(b"-"))
            lazyfree_bytes = swapped_bytes = 0
        elif name == b"Rss:":
            resident_bytes = int(rest.split()[0]) * 1024
        elif name == b"LazyFree:":
            lazyfree_bytes = int(rest.split()[0]) * 1024
        elif name == b"Swap:":
            swapped_bytes = int(rest.split()[0]) * 1024
        elif name == b"VmFlags:":  # its last line
            kind: Literal["droppable", "lazyfree", "ordinary"] = "lazyfree" if lazyfree_bytes else "ordinary"
            if b"dp" in rest.split():
                kind = "droppable"
            yield Mapped(start, end, kind, resident_bytes, lazyfree_bytes, swapped_bytes)


def residency(pid: int, mapped: Mapped, cells: int) -> str:
    """A map of which pages are there: a character for each part of the mapping, at most that many.

    "#": all pages of the part are there; "+": half of them or more; "-": fewer; ".": none. Of a part of more than 256
    pages, 256 are looked at. "" where the kernel does not tell.
    """
    page = page_size_bytes()
    pages = mapped.mapped_bytes // page
    cells = max(1, min(cells, pages))
    shares = []
    try:
        with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap:
            for cell in range(cells):
                first, last = pages * cell // cells, pages * (cell + 1) // cells
                shares.append(_share(pagemap.fileno(), mapped.start // page + first, last - first))
    except OSError:
        return ""
    return "".join("#" if share == 1 else "+" if share >= 0.5 else "-" if share > 0 else "." for share in shares)


def _share(pagemap: int, first: int, pages: int) -> float:
    if pages <= _SAMPLES * _SAMPLE_PAGES:
        runs = [(first, pages)]
    else:
        runs = [(first + pages * run // _SAMPLES, _SAMPLE_PAGES) for run in range(_SAMPLES)]
    present = looked = 0
    for begin, count in runs:
        data = os.pread(pagemap, count * _ENTRY_BYTES, begin * _ENTRY_BYTES)
        entries = struct.unpack(f"={len(data) // _ENTRY_BYTES}Q", data)
        looked += len(entries)
        present += sum(entry & _PRESENT != 0 for entry in entries)
    return present / looked if looked else 0.0


def command(pid: int) -> str:
    """What a process was started as, on one line; its short name in brackets where that is not told."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read(4096).replace(b"\0", b" ").strip()
        text = os.fsdecode(words) if words else f"[{short_name(pid)}]"
    except OSError:
        text = "?"
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def short_name(pid: int) -> str:
    """The name of the program, of which the kernel keeps 15 bytes; "" where it is gone."""
    try:
        with open(f"/proc/{pid}/comm", "rb") as file:
            return os.fsdecode(file.read().rstrip(b"\n"))
    except OSError:
        return ""


def pids() -> list[int]:
    """All processes that can be seen from here."""
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())
