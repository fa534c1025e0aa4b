"""What a cache is worth under memory pressure: hits against an exact LRU given the same bytes, and stalls.

    python benchmarks/cache_pressure.py                     prints tables, three minutes; needs memory cgroups
    python benchmarks/cache_pressure.py --out pressure.json

Hits: a child in a cgroup of its own, without swap, asks for keys by Zipf's law (0.9) and sets what is missing. The
values of all keys are four times the room. The second half of the requests counts. The room is what the cgroup's
limit is above what the child uses before its first insert; the peers are given the same room for the same requests
(player.py tells what is in it). They are simulated without any overhead, not even the key's bytes: a cache that could
not be built. LRU is the exact one of policies.py; S3-FIFO and W-TinyLFU are libcachesim's. Values are random bytes:
if they were zeros, a page that went would be as good as one that is there.

Stalls: of every get and set in those runs, those of missing keys too. `wall` is what a caller waits; `own` is that
less what the thread waited for a processor that others had (run_delay of /proc/thread-self/schedstat): all reclaim
inside the call is in it, sleeping there too. The control is the same requests with 2 GB of room, where nothing is
reclaimed.

Bias: written by those who wrote droppable. Requests are independent draws: real ones have bursts (cache_traces.py).
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from measure import Goal, write, zipf
from player import play, write_requests
from policies import exact_lru, simulated

ROOMS_BYTES = {100: 32 << 20, 4096: 80 << 20, 65536: 80 << 20, 1 << 20: 80 << 20}
"""Bytes of a value: the room. The smallest needs fewer requests to fill less."""
FREE_BYTES = 2 << 30
REQUESTS = {100: 2_200_000, 4096: 1_200_000, 65536: 50_000, 1 << 20: 6_000}
"""Bytes of a value: number of requests."""
BACKINGS = ("lazyfree", "droppable")
STALL_NS = 1_000_000


@dataclass(frozen=True)
class Row:
    """One size and backing: hits under pressure, and the stalls of them beside the control's."""

    size_bytes: int
    backing: str
    hit_ratio: float
    against: dict[str, float]
    wrong: int
    oom_kills: int
    stalls: dict[str, dict[str, int]]
    control: dict[str, dict[str, int]]
    stats: dict[str, int]


def measure_size(size_bytes: int, scale: float, directory: Path) -> list[Row]:
    import numpy

    room_bytes = ROOMS_BYTES[size_bytes]
    keys = zipf(4 * room_bytes // size_bytes, int(REQUESTS[size_bytes] * scale))
    sizes = numpy.full(len(keys), size_bytes)
    begin = len(keys) // 2
    trace = directory / "requests"
    write_requests(trace, keys, sizes)
    lru = float(exact_lru(keys, sizes, room_bytes)[begin:].mean())
    against = {"lru": lru, **simulated(keys, sizes, room_bytes, directory, begin)}
    rows = []
    control = play(trace, FREE_BYTES, begin=begin, clocked=True)
    for backing in BACKINGS:
        pressed = play(trace, room_bytes, begin=begin, backing=backing, clocked=True)
        if not control or not pressed:
            continue
        row = Row(
            size_bytes, backing, pressed["hit_ratio"], against, pressed["wrong"] + control["wrong"],
            pressed["oom_kills"], pressed["stalls"], control["stalls"], pressed["stats"],
        )  # fmt: skip
        print_row(row)
        rows.append(row)
    return rows


def print_row(row: Row) -> None:
    against = ", ".join(f"{name} {hits:.3f} (x{row.hit_ratio / hits:.3f})" for name, hits in row.against.items())
    print(f"\n{row.size_bytes:,} B, {row.backing}: hits {row.hit_ratio:.3f}; {against}; wrong {row.wrong}")
    for name, one in row.stalls.items():
        control = row.control[name]
        print(
            f"    {name:<9} p50 {one['p50_ns'] / 1e3:,.1f}  p99 {one['p99_ns'] / 1e3:,.1f}"
            f"  p99.9 {one['p999_ns'] / 1e3:,.1f}  worst {one['worst_ns'] / 1e3:,.1f} us; without pressure p50 "
            f"{control['p50_ns'] / 1e3:,.1f}  p99 {control['p99_ns'] / 1e3:,.1f}"
            f"  p99.9 {control['p999_ns'] / 1e3:,.1f}  worst {control['worst_ns'] / 1e3:,.1f}",
            flush=True,
        )


def judge_stall(row: Row, what: str, call: str, percentile: str) -> Goal:
    own, control, wall = (
        of[f"{call}_{clock}"][percentile] / 1e3
        for of, clock in ((row.stalls, "own"), (row.control, "own"), (row.stalls, "wall"))
    )
    measured = f"{own:,.1f} us (without pressure {control:,.1f}; with waits for a processor {wall:,.1f})"
    return Goal(f"{what} while reclaiming, {row.size_bytes:,} B", "<= 1 ms", measured, own * 1e3 <= STALL_NS)


def judge(rows: Sequence[Row]) -> list[Goal]:
    goals = []
    lazyfree = [row for row in rows if row.backing == "lazyfree"]
    for row in lazyfree:
        ratio = row.hit_ratio / row.against["lru"]
        least = 1.0 if row.size_bytes == 100 else 1.05
        measured = f"{ratio:.3f} ({row.hit_ratio:.3f} and {row.against['lru']:.3f})"
        goals.append(
            Goal(f"hits under pressure, {row.size_bytes:,} B",
                 f">= {least:.2f}", measured, ratio >= least)
        )  # fmt: skip
    for row in lazyfree:
        goals.append(judge_stall(row, "worst insert", "set", "worst_ns"))
        goals.append(judge_stall(row, "p99.9 of get", "get", "p999_ns"))
    goals.append(
        Goal("OOM kills", "0", str(sum(row.oom_kills for row in rows)), all(not row.oom_kills for row in rows))
    )
    return goals


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the requests to play")
    parser.add_argument("--sizes", type=int, nargs="*", default=list(REQUESTS), choices=REQUESTS)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    arguments = parser.parse_args()
    from droppable._cgroup import CgroupUnavailableError

    try:
        rows = []
        with tempfile.TemporaryDirectory(prefix="droppable-bench-") as directory:
            for size_bytes in arguments.sizes:
                rows += measure_size(size_bytes, arguments.scale, Path(directory))
    except CgroupUnavailableError as error:
        print(f"SKIP: {error}")
        return 0
    print()
    report = {"scale": arguments.scale, "rows": [asdict(row) for row in rows]}
    write(arguments.out, report, judge(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
