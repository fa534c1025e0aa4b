"""One process of `make torture`: several lives of a cache, one after the other, and what they left behind.

    python -m torture.process SEED LIVES OPERATIONS PROGRESS ENDING

PROGRESS is a file with a word for each thread, which the driver watches. ENDING is "rest", or "exit": the process ends
while threads use the cache. A line of JSON is printed: what was done, and what went wrong. A timer's signals interrupt
the main thread all the time, and their handler reads from the cache.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import json
import mmap
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Final

from .caller import THREADS, Caller
from .life import Life, backings, eager_threads, make_plan

SIGNAL_SECONDS: Final = 0.003
GROWTH: Final = {"descriptors": 0, "threads": 0, "mappings": 24, "blocks": 3000, "bytes": 512 * 1024}
"""More is a leak. Allocators keep some mappings, and libraries some of Python's blocks and of malloc's bytes."""


class _Mallinfo(ctypes.Structure):
    _fields_ = (
        ("arena", ctypes.c_size_t), ("ordblks", ctypes.c_size_t), ("smblks", ctypes.c_size_t),
        ("hblks", ctypes.c_size_t), ("hblkhd", ctypes.c_size_t), ("usmblks", ctypes.c_size_t),
        ("fsmblks", ctypes.c_size_t), ("uordblks", ctypes.c_size_t), ("fordblks", ctypes.c_size_t),
        ("keepcost", ctypes.c_size_t),
    )  # fmt: skip


def malloc_bytes() -> int:
    """What malloc has given out; 0 where the C library does not tell."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except AttributeError:
        return 0
    mallinfo.restype = _Mallinfo
    return int(mallinfo().uordblks)


def what_is_left() -> dict[str, int]:
    """What this process has at this moment, which should be no more after many lives."""
    gc.collect()
    return {
        "descriptors": len(os.listdir("/proc/self/fd")),
        "threads": threading.active_count(),
        "mappings": len(Path("/proc/self/maps").read_text().splitlines()),
        "blocks": sys.getallocatedblocks(),
        "bytes": malloc_bytes(),
    }


def leaks(before: dict[str, int], after: dict[str, int]) -> list[str]:
    """What grew by more than allocators do."""
    return [
        f"leak: {what} grew from {before[what]} to {after[what]}"
        for what, most in GROWTH.items()
        if after[what] > before[what] + most
    ]


class Interrupter:
    """Reads from the cache in a signal's handler, in the middle of whatever the main thread does."""

    def __init__(self) -> None:
        self._caller: Caller | None = None
        signal.signal(signal.SIGALRM, self._interrupt)
        signal.setitimer(signal.ITIMER_REAL, SIGNAL_SECONDS, SIGNAL_SECONDS)

    def begin(self, life: Life) -> None:
        caller = Caller(life, -1, life.plan.seed + 7)
        life.guests.append(caller)
        self._caller = caller

    def end(self) -> Counter[str]:
        """What was done in the handler."""
        caller, self._caller = self._caller, None
        return Counter() if caller is None else caller.counts

    def stop(self) -> None:
        """No signal comes any more: at its end a process would not survive one."""
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _interrupt(self, number: int, frame: object) -> None:
        caller = self._caller
        if caller is None or caller.life.over.is_set():
            return
        caller.counts["signals"] += 1
        caller.life.guarded(lambda: caller.read(caller.pick()))


def live_and_leave(life: Life) -> None:
    """Makes the main thread's calls, and leaves the other threads and the drops at work."""

    def work(caller: Caller) -> None:
        life.guarded(lambda: caller.work(sys.maxsize))

    for caller in life.callers[1:]:
        threading.Thread(target=work, args=(caller,), daemon=True).start()
    threading.Thread(target=life.guarded, args=(life.disturb,), daemon=True).start()
    life.guarded(lambda: life.callers[0].work(life.plan.operations // THREADS))
    for caller in life.callers:
        life.counts += caller.counts.copy()


def main() -> int:
    seed, lives, operations = (int(word) for word in sys.argv[1:4])
    with open(sys.argv[4], "r+b") as file:
        progress = memoryview(mmap.mmap(file.fileno(), 8 * THREADS)).cast("Q")
    leaves = sys.argv[5] == "exit"
    faulthandler.enable()

    def note_progress(me: int) -> None:
        progress[me] += 1

    counts: Counter[str] = Counter()
    failures: list[str] = []
    offered, interrupter = backings(), Interrupter()
    before: dict[str, int] | None = None
    for number in range(lives):
        life = Life(make_plan(seed + number, operations, offered), note_progress)
        interrupter.begin(life)
        if leaves and number == lives - 1:
            with eager_threads():
                live_and_leave(life)
        else:
            life.run()
        counts += interrupter.end() + life.counts
        failures += [f"{life.plan}\n{text}" for text in life.failures]
        if failures or (leaves and number == lives - 1):
            break
        del life
        before = before or what_is_left()
    else:
        failures += leaks(before or {}, what_is_left())
    interrupter.stop()
    print(json.dumps({"counts": counts, "failures": failures}), flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
