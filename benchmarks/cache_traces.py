"""Hits under pressure for recorded traces, against an exact LRU, S3-FIFO and W-TinyLFU given the same bytes.

    python benchmarks/cache_traces.py --trace FILE ...      half a minute a trace; needs memory cgroups
    make bench ARGS="--trace FILE --trace cache2k:FILE"

traces.py tells which formats are read. Each trace is played on a droppable cache in a cgroup whose room is a tenth,
then a quarter of the bytes of all its values; misses are set. The peers are simulated with the same requests and the
same room, and pay nothing for keys and bookkeeping (player.py, policies.py). All requests count. Where a trace has no
sizes, values have --value-bytes. Where misses have costs, it is played a second time with set(..., cost=), a unit of
cost taken as a millisecond, and the cost of the misses is compared.

Bias: written by those who wrote droppable. No trace is chosen by it: give it your own. Values larger than a tenth of
the room favour those who may refuse them; droppable stores whatever fits.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from measure import Goal, write
from player import play, write_requests
from policies import NAMES, exact_lru, simulated
from traces import Trace, TraceError, read

SHARES = (0.1, 0.25)
VALUE_BYTES = 4096
REQUESTS = 1_000_000


@dataclass(frozen=True)
class Row:
    """One trace and share: hit ratios; where there are costs, those of all misses over the exact LRU's."""

    trace: str
    format: str
    requests: int
    all_value_bytes: int
    share: float
    room_bytes: int
    hit_ratio: float
    byte_hit_ratio: float
    against: dict[str, float]
    cost_ratio: float | None
    blind_cost_ratio: float | None
    wrong: int
    oom_kills: int


def all_value_bytes(trace: Trace, sizes: object) -> int:
    """Of every object once, as large as it was last."""
    import numpy

    last = numpy.zeros(int(trace.keys.max()) + 1, "i8")
    last[trace.keys] = sizes
    return int(last.sum())


def measure(name: str, trace: Trace, value_bytes: int, share: float, directory: Path) -> Row | None:
    import numpy

    keys = trace.keys
    sizes = numpy.full(len(keys), value_bytes) if trace.sizes is None else numpy.maximum(trace.sizes, 1)
    total_bytes = all_value_bytes(trace, sizes)
    room_bytes = int(share * total_bytes)
    costs_us = numpy.zeros(len(keys), "u4") if trace.costs is None else trace.costs * 1000
    path = directory / "requests"
    write_requests(path, keys, sizes, costs_us)
    played = play(path, room_bytes)
    steered = play(path, room_bytes, costs=True) if trace.costs is not None else None
    if not played:
        return None
    hits = exact_lru(keys, sizes, room_bytes)
    against = {"lru": float(hits.mean()), **simulated(keys, sizes, room_bytes, directory)}
    lru_seconds = float((costs_us * ~hits).sum()) / 1e6
    return Row(
        name, trace.format, len(keys), total_bytes, share, room_bytes, played["hit_ratio"],
        played["hit_bytes"] / float(numpy.asarray(sizes, "i8").sum()), against,
        steered["missed_seconds"] / lru_seconds if steered else None,
        played["missed_seconds"] / lru_seconds if lru_seconds else None, played["wrong"], played["oom_kills"],
    )  # fmt: skip


def show(row: Row) -> None:
    against = ", ".join(f"{NAMES[name]} {hits:.4f} (x{row.hit_ratio / hits:.3f})" for name, hits in row.against.items())
    costs = ""
    if row.cost_ratio is not None and row.blind_cost_ratio is not None:
        costs = f"; cost of misses over LRU's: {row.cost_ratio:.3f} with cost=, {row.blind_cost_ratio:.3f} without"
    print(
        f"{row.trace} ({row.format}, {row.requests:,} requests), room {row.share:.0%} = {row.room_bytes / 1e6:.0f} MB: "
        f"hits {row.hit_ratio:.4f}; {against}{costs}; wrong {row.wrong}, OOM kills {row.oom_kills}",
        flush=True,
    )


def judge(rows: Sequence[Row]) -> Iterator[Goal]:
    for row in rows:
        lru = row.against["lru"]
        ratio = row.hit_ratio / lru
        measured = f"{ratio:.4f} ({row.hit_ratio:.4f} and {lru:.4f})"
        yield Goal(f"traces, {row.trace}, {row.share:.0%}", ">= 1.0 of an exact LRU's hits", measured, ratio >= 1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", nargs="+", action="extend", default=[], metavar="[FORMAT:]FILE")
    parser.add_argument("--value-bytes", type=int, default=VALUE_BYTES, help="where a trace has no sizes (%(default)s)")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of a trace, at most (%(default)s)")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    arguments = parser.parse_args()
    from droppable._cgroup import CgroupUnavailableError

    if not arguments.trace:
        print("SKIP: no trace is given; name some: --trace FILE ...")
        return 0
    rows = []
    try:
        with tempfile.TemporaryDirectory(prefix="droppable-bench-") as directory:
            for name in arguments.trace:
                trace = read(name).first(arguments.requests)
                title = Path(name).name.rpartition(":")[2].split(".")[0]
                for share in SHARES:
                    if row := measure(title, trace, arguments.value_bytes, share, Path(directory)):
                        rows.append(row)
                        show(row)
    except CgroupUnavailableError as error:
        print(f"SKIP: {error}")
        return 0
    except (TraceError, OSError) as error:
        print(f"cache_traces: {error}", file=sys.stderr)
        return 2
    write(arguments.out, {"rows": [asdict(row) for row in rows]}, list(judge(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
