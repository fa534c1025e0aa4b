"""What droppable.Region costs: an access in each mode, and settling with and without the kernel's help.

    python benchmarks/regions.py            prints two tables, about ten seconds

Method: medians of the thread's processor time, in user space and the kernel, so that waiting for a busy processor is
not counted. Settling is timed on one region of 256 MiB that never had a bare view (its whole range is marked) and on
one that has one (the kernel is asked what was written; Linux 6.7 and userfaultfd, else both are the same).

Bias: the peer of the access table is a slice of a bytearray, which can lose nothing and does no checking. Slices of a
region are Python code around `read` and `write`, which take 0.7 us less when called directly.
"""

import platform
import statistics
import sys
import time
from collections.abc import Callable

from droppable import Dropped, Region, UnsupportedError
from droppable.lowlevel import page_size_bytes

PAGE = page_size_bytes()
ROUNDS = 15
BATCH = 500
SETTLE_BYTES = 256 << 20
COMBINATIONS = (
    ("zero", "droppable"),
    ("zero", "lazyfree"),
    ("raise", "droppable"),
    ("raise", "lazyfree"),
    ("signal", "lazyfree"),
)
COLUMNS = (
    "read 100 B",
    "read 64 KiB",
    "write 100 B",
    "write a page",
    "reading 16 pages",
    "writing 16 pages",
    "pin 16 pages",
)


def median_ns(call: Callable[[], object], batch: int = BATCH) -> float:
    def once() -> float:
        start = time.thread_time_ns()
        for _ in range(batch):
            call()
        return (time.thread_time_ns() - start) / batch

    return statistics.median(once() for _ in range(ROUNDS))


def accesses(memory: Region | bytearray) -> list[str]:
    small, page = b"s" * 100, b"p" * PAGE
    view = memoryview(memory) if isinstance(memory, bytearray) else memory

    def put(start: int, data: bytes) -> None:
        view[start : start + len(data)] = data

    calls: list[Callable[[], object]] = [
        lambda: view[100:200] if isinstance(view, Region) else bytes(view[100:200]),
        lambda: view[0:65536] if isinstance(view, Region) else bytes(view[0:65536]),
        lambda: put(100, small),
        lambda: put(PAGE, page),
    ]
    cells = [f"{median_ns(call):,.0f}" for call in calls]
    if isinstance(memory, bytearray):
        return cells + ["-"] * 3
    for name in ("reading", "writing", "pin"):

        def block(name: str = name) -> None:
            with getattr(memory, name)(0, 16 * PAGE):
                pass

        try:
            cells.append(f"{median_ns(block, BATCH // 10):,.0f}")
        except UnsupportedError:
            cells.append("-")
    return cells


def dropped_ns(region: Region) -> float:
    """A read that raises."""
    region.settle()
    for _ in range(100):
        region.page_out()

    def read() -> None:
        try:
            region.read(0, 100)
        except Dropped:
            pass

    return median_ns(read, BATCH // 10)


def settle_ms(region: Region, touch: memoryview, every: int) -> tuple[float, float]:
    """Milliseconds for a settle, nanoseconds for the write of a page, when one page of `every` was written before."""
    settles, writes = [], []
    for _ in range(ROUNDS // 3):
        places = range(0, SETTLE_BYTES, every * PAGE) if every else range(0)
        start = time.thread_time_ns()
        for place in places:
            touch[place] = 1
        middle = time.thread_time_ns()
        region.settle()
        settles.append((time.thread_time_ns() - middle) / 1e6)
        writes.append((middle - start) / max(1, len(places)))
    return statistics.median(settles), statistics.median(writes)


def main() -> None:
    print(
        f"Linux {platform.release()}, {platform.machine()}, Python {platform.python_version()}, pages of {PAGE} bytes\n"
    )
    print("nanoseconds     | " + " | ".join(COLUMNS) + " | a read that raises Dropped")
    print("---|" + "---|" * (len(COLUMNS) + 1))
    print("bytearray | " + " | ".join(accesses(bytearray(1 << 20))) + " | -")
    for on_drop, backing in COMBINATIONS:
        try:
            region = Region(1 << 20, on_drop, backing)  # type: ignore[arg-type]
        except UnsupportedError as error:
            print(f"{on_drop}, {backing} | {error}")
            continue
        region.write(0, b"w" * len(region))
        cells = accesses(region)
        lost = "-" if on_drop == "zero" else f"{dropped_ns(region):,.0f}"
        print(f"{on_drop}, {backing} | " + " | ".join(cells) + f" | {lost}")

    print(
        f"\nsettling {SETTLE_BYTES >> 20} MiB | settle: nothing written | 1 page of 100 | all | a write: 1 of 100 | all"
    )
    print("---|---|---|---|---|---")
    for name in ("mark the range", "ask the kernel"):
        region = Region(SETTLE_BYTES + PAGE, "zero", "lazyfree")
        if name.startswith("ask"):
            touch = memoryview(region)
        else:  # not a bare view, and not on all of it: from either the kernel would be asked
            touch = memoryview(region.hold("write", 0, SETTLE_BYTES))
            touch.obj.finish()
        for place in range(0, SETTLE_BYTES, PAGE):
            touch[place] = 1
        region.settle()
        none, _ = settle_ms(region, touch, 0)
        some, some_write = settle_ms(region, touch, 100)
        everything, all_write = settle_ms(region, touch, 1)
        print(
            f"{name} | {none:.2f} ms | {some:.2f} ms | {everything:.2f} ms | {some_write:.0f} ns | {all_write:.0f} ns"
        )


if __name__ == "__main__":
    sys.exit(main())
