"""How long single calls take, measured in the process whose cgroup is under pressure. Called by the workers."""

import array
import os
from collections.abc import Callable
from pathlib import Path

_SHIFT, _BUCKETS = 9, 1 << 14  # buckets of half a microsecond, up to 8 ms


class Stalls:
    """A histogram of times of a call, of 128 KiB."""

    def __init__(self) -> None:
        self._counts = array.array("Q", bytes(8 * _BUCKETS))
        self._worst_ns = 0

    def add(self, ns: int) -> None:
        self._counts[min(ns >> _SHIFT, _BUCKETS - 1)] += 1
        if ns > self._worst_ns:
            self._worst_ns = ns

    def report(self) -> dict[str, int]:
        """Upper edges of the buckets in which the percentiles lie; 0 where nothing was counted."""
        total = sum(self._counts)
        found = {}
        for name, share in (("p50_ns", 0.5), ("p99_ns", 0.99), ("p999_ns", 0.999)):
            below = 0
            for bucket, count in enumerate(self._counts):
                below += count
                if below >= share * total:
                    found[name] = min((bucket + 1) << _SHIFT, self._worst_ns)
                    break
        return {"calls": total, **found, "worst_ns": self._worst_ns}


def run_delay_reader() -> Callable[[], int]:
    """Nanoseconds that this thread was ready and had no processor; always 0 where the kernel does not count them."""
    try:
        file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    except OSError:
        return lambda: 0
    return lambda: int(os.pread(file, 64, 0).split()[1])


def usage_bytes(group: Path) -> int:
    """Of a cgroup, read from inside it."""
    name = "memory.current" if (group / "memory.current").exists() else "memory.usage_in_bytes"
    return int((group / name).read_text())
