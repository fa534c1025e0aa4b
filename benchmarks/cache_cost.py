"""Values that are dear to compute and values that are cheap, under the same pressure: what does cost= save?

    python benchmarks/cache_cost.py                     a minute; needs memory cgroups
    python benchmarks/cache_cost.py --out cost.json

A child in a cgroup asks for keys by Zipf's law (0.9) and sets what is missing. Every other key costs 1 ms to compute,
the others 100 ms; sizes are equal, and both classes equally popular. The values are three times the room. No time is
slept: the costs of the misses in the second half of the requests are added up. The same requests are played with
set(..., cost=) and without it. Beside both: an exact LRU, which knows no cost, and GreedyDual, which knows every cost
exactly and pays nothing for it, both simulated in the same bytes.

Bias: written by those who wrote droppable, and two classes a hundred times apart are an easy case for steering by
cost.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from measure import Goal, write, zipf
from player import play, write_requests
from policies import exact_lru, greedy_dual

ROOM_BYTES = 64 << 20
REQUESTS = {4096: 300_000, 65536: 30_000}
"""Bytes of a value: number of requests."""
COSTS_US = (1_000, 100_000)
GOAL = 0.7


@dataclass(frozen=True)
class Row:
    """One size: seconds to compute what was missing, and hit ratios of each class, cheap and dear."""

    size_bytes: int
    steered_seconds: float
    blind_seconds: float
    lru_seconds: float
    greedy_dual_seconds: float
    steered_hits: float
    blind_hits: float
    wrong: int
    oom_kills: int


def measure(size_bytes: int, scale: float, directory: Path) -> Row | None:
    import numpy

    entries = ROOM_BYTES // size_bytes
    keys = zipf(3 * entries, int(REQUESTS[size_bytes] * scale))
    # Keys are ranks shuffled, so odd and even ones are equally popular but for chance.
    costs_us = numpy.array(COSTS_US, "u4")[keys % 2]
    begin = len(keys) // 2
    trace = directory / "requests"
    write_requests(trace, keys, size_bytes, costs_us)
    steered = play(trace, ROOM_BYTES, begin=begin, costs=True)
    blind = play(trace, ROOM_BYTES, begin=begin)
    if not steered or not blind:
        return None
    lru = exact_lru(keys, numpy.full(len(keys), size_bytes), ROOM_BYTES)
    ideal = greedy_dual(keys, costs_us, entries)
    seconds = [float((costs_us * ~hits)[begin:].sum()) / 1e6 for hits in (lru, ideal)]
    return Row(
        size_bytes, steered["missed_seconds"], blind["missed_seconds"], *seconds, steered["hit_ratio"],
        blind["hit_ratio"], steered["wrong"] + blind["wrong"], steered["oom_kills"] + blind["oom_kills"],
    )  # fmt: skip


def judge(rows: Sequence[Row]) -> Iterator[Goal]:
    for row in rows:
        ratio = row.steered_seconds / row.blind_seconds
        measured = (
            f"{1 - ratio:.0%} less: {row.steered_seconds:,.0f} s and {row.blind_seconds:,.0f} s; "
            f"exact LRU {row.lru_seconds:,.0f} s, GreedyDual {row.greedy_dual_seconds:,.0f} s"
        )
        yield Goal(f"cost, {row.size_bytes:,} B", "at least 30 % less time to compute again", measured, ratio <= GOAL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the requests to play")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    arguments = parser.parse_args()
    from droppable._cgroup import CgroupUnavailableError

    rows = []
    try:
        with tempfile.TemporaryDirectory(prefix="droppable-bench-") as directory:
            for size_bytes in REQUESTS:
                if row := measure(size_bytes, arguments.scale, Path(directory)):
                    rows.append(row)
                    print(
                        f"{size_bytes:>7,} B: with cost= {row.steered_seconds:,.0f} s (hits {row.steered_hits:.3f}), "
                        f"without {row.blind_seconds:,.0f} s ({row.blind_hits:.3f}), "
                        f"exact LRU {row.lru_seconds:,.0f} s, GreedyDual {row.greedy_dual_seconds:,.0f} s",
                        flush=True,
                    )
    except CgroupUnavailableError as error:
        print(f"SKIP: {error}")
        return 0
    report = {"scale": arguments.scale, "room_bytes": ROOM_BYTES, "rows": [asdict(row) for row in rows]}
    write(arguments.out, report, list(judge(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
