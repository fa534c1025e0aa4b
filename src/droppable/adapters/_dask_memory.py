"""How much memory of a process cannot be taken back, for those who act on it: Dask's workers and nannies.

    resident   what the process has in memory: cheap to ask for
    LazyFree   what of it the kernel may take back at any moment. Only a look at the page tables tells it, which takes
               15 ms of CPU a gigabyte of resident memory and is rationed
    ordinary   resident - LazyFree. Dask acts where it is above a mark

Both figures move between two looks. A cache that grows adds to both, so that resident - (old LazyFree) says too much:
who acts on that ends a worker for its cache. A cache that is taken back while other memory takes its place leaves
resident as it is, so that the same difference says too little, and would say so for ever. Hence the answer is

    resident            where that is below the mark: the rest can only be less, and nobody acts on it
    what a look says    where one is due
    the last answer     otherwise, less what resident memory has shrunk by: it falls at any time, and rises by a look

                     look               look               look
    resident - old     |             .--' |             .--' |       the cache grows. Above the mark this would end a
    LazyFree           |         .--'     |         .--'     |       worker; no answer shows it
    mark - - - - - - - | - - .--' - - - - | - - .--' - - - - | - -
                       | .--'             | .--'             |
    answer   ----------+------------------+-------.          +----
                                                   `---------'       other memory was freed: shown at once

A look is due when a pause is over that is a multiple of the CPU time of the last look:

    `_CHANGED`  where resident memory has changed since by a sixteenth of the mark: a third of a second a gigabyte
    `_SAME`     where it has not: one and a half seconds a gigabyte

So looks take a twentieth of one CPU while memory comes and goes, and a hundredth at rest, even if the answer stays
close to the mark for long. For as long as the pause an answer can be too low. One that is above the mark is that of a
look: it can be too high for as long, if memory was freed and a cache grew by as much between two questions.

A look may fail: there are no file descriptors, or the process does not let itself be looked at. Nobody is ended for
that: the last answer stays. Before any look has worked the answer is the resident memory, as it is for Dask by itself.

Called by `droppable.adapters.dask`, in the event loop of a worker (for itself) and of a nanny (for its worker).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from droppable._log import tell_once

_CHANGED: Final = 20
_SAME: Final = 100
_CHANGE_SHARE: Final = 1 / 16


class Look(NamedTuple):
    """Bytes of a process that cannot be taken back, and the CPU seconds that it took to see that."""

    ordinary_bytes: int
    spent_seconds: float


class Figures(Protocol):
    """Where the figures of a process come from: `ProcessFigures`, or a test."""

    def resident_bytes(self) -> int:
        """Resident memory. Cheap."""

    def look(self) -> Look:
        """Ordinary memory. Dear."""


class ProcessFigures:
    """The figures of a process, from /proc. Where it has ended: FileNotFoundError or ProcessLookupError."""

    def __init__(self, pid: int) -> None:
        self._folder = Path(f"/proc/{pid}")

    def resident_bytes(self) -> int:
        """As of `Figures`."""
        return int((self._folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def look(self) -> Look:
        """As of `Figures`."""
        began = time.thread_time()
        try:
            text = (self._folder / "smaps_rollup").read_text()
        except FileNotFoundError:  # before Linux 4.14; or the process has ended, and this has too
            text = (self._folder / "smaps").read_text()
        sizes = dict.fromkeys(("Rss", "LazyFree"), 0)
        for line in text.splitlines():
            name, _, size = line.partition(":")
            if name in sizes:
                sizes[name] += int(size.split()[0]) << 10
        if sizes["Rss"] == 0:  # it is about to end
            raise ProcessLookupError(f"{self._folder} tells of no memory")
        return Look(sizes["Rss"] - sizes["LazyFree"], time.thread_time() - began)


class OrdinaryMemory:
    """Bytes of a process that cannot be taken back, for somebody who acts where they are above `mark_bytes`.

    One thread asks. Where the process has ended, the errors are those of `figures`. The mark may be set to another one
    at any time.
    """

    def __init__(self, figures: Figures, mark_bytes: int, now: Callable[[], float] = time.monotonic) -> None:
        self._figures = figures
        self.mark_bytes = mark_bytes
        self._now = now
        self._last: Look | None = None
        self._last_resident_bytes = 0
        self._looked_at = 0.0
        self._answer_bytes = 0

    def read_bytes(self) -> int:
        """Resident bytes, where they are below the mark; else ordinary ones."""
        resident_bytes = self._figures.resident_bytes()
        if resident_bytes < self.mark_bytes:
            return resident_bytes
        if self._last is None or self._is_due(self._last, resident_bytes):
            look = self._look()
            if look is not None:
                self._last = look
                self._last_resident_bytes = resident_bytes
                self._looked_at = self._now()
                self._answer_bytes = look.ordinary_bytes
            elif self._last is None:
                return resident_bytes
        freed_bytes = self._last_resident_bytes - resident_bytes
        self._answer_bytes = max(0, min(self._answer_bytes, self._last.ordinary_bytes - freed_bytes))
        return self._answer_bytes

    def _look(self) -> Look | None:
        try:
            return self._figures.look()
        except (FileNotFoundError, ProcessLookupError):
            raise
        except OSError as error:
            tell_once(
                f"dask look {error.errno}",
                "it cannot be seen how much memory of a Dask worker the kernel may take back, so that it may be paused "
                "or ended for its cache: %s",
                error,
            )
            return None

    def _is_due(self, last: Look, resident_bytes: int) -> bool:
        has_changed = abs(resident_bytes - self._last_resident_bytes) >= _CHANGE_SHARE * self.mark_bytes
        return self._now() - self._looked_at >= (_CHANGED if has_changed else _SAME) * last.spent_seconds
