"""What a cache is worth under memory pressure: hits against an exact LRU given the same bytes, stalls, unpinned bytes.

    python benchmarks/cache_pressure.py                     prints tables, three minutes; needs memory cgroups
    python benchmarks/cache_pressure.py --out pressure.json

Hits: a child in a cgroup of 100 MB (50 for 100 B), without swap, asks for keys by Zipf's law (0.9) and sets what is
missing. The keys' values are four times the limit. The second half of the requests counts. The peers get the same
requests and the same bytes: the limit less what the child uses before its first insert. They are simulated without any
overhead, not even the key's bytes: a cache that could not be built. LRU is the exact one, below; S3-FIFO and W-TinyLFU
are libcachesim's.

Stalls: of every get and set in those runs, those of missing keys too. `wall` is what a caller waits; `own` is that less
what the thread waited for a processor that others had (run_delay of /proc/thread-self/schedstat): all reclaim inside
the call is in it, sleeping there too. The control is the same requests in a cgroup of 2 GB, where nothing is reclaimed.

Unpinned bytes: a child inserts 10^6 values of 100 B into one cache; then the kernel is asked to take all it can. What
is left in the cgroup, less what was there when the cache held 1,000, is divided by 10^6. Page tables are in it.

Bias: written by those who wrote droppable. Requests are independent draws: real ones have bursts, which favour LRU.
"""

import argparse
import array
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measure import Goal, write

LIMITS_BYTES = {100: 50 << 20, 4096: 100 << 20, 65536: 100 << 20, 1 << 20: 100 << 20}
"""Bytes of a value: the cgroup's limit. The smallest needs fewer requests to fill half as much."""
FREE_BYTES = 2 << 30
SKEW = 0.9
REQUESTS = {100: 2_200_000, 4096: 400_000, 65536: 50_000, 1 << 20: 6_000}
"""Bytes of a value: number of requests."""
BACKINGS = ("lazyfree", "droppable")
ENTRIES = 1_000_000
CACHES = ("droppable", "dict", "cachetools", "cachebox", "lru-dict")
STALL_NS = 1_000_000
BUCKET_SHIFT, BUCKETS = 9, 1 << 14  # buckets of half a microsecond, up to 8 ms


class Stalls:
    """A histogram of times of a call, small enough for the child: it shares the cgroup with the cache."""

    def __init__(self) -> None:
        self._counts = array.array("Q", bytes(8 * BUCKETS))
        self._worst_ns = 0

    def add(self, ns: int) -> None:
        self._counts[min(ns >> BUCKET_SHIFT, BUCKETS - 1)] += 1
        if ns > self._worst_ns:
            self._worst_ns = ns

    def report(self) -> dict[str, int]:
        """Upper edges of the buckets in which the percentiles lie."""
        total = sum(self._counts)
        found = {}
        for name, share in (("p50_ns", 0.5), ("p99_ns", 0.99), ("p999_ns", 0.999)):
            below = 0
            for bucket, count in enumerate(self._counts):
                below += count
                if below >= share * total:
                    found[name] = min((bucket + 1) << BUCKET_SHIFT, self._worst_ns)
                    break
        return {"calls": total, **found, "worst_ns": self._worst_ns}


# In the child


def run_delay_reader() -> Callable[[], int]:
    """Nanoseconds that this thread was ready and had no processor; always 0 where the kernel does not count them."""
    try:
        file = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    except OSError:
        return lambda: 0
    return lambda: int(os.pread(file, 64, 0).split()[1])


def usage_bytes(group: Path) -> int:
    name = "memory.current" if (group / "memory.current").exists() else "memory.usage_in_bytes"
    return int((group / name).read_text())


def serve(group: Path, trace: Path, size_bytes: int, backing: str) -> dict[str, Any]:
    """Plays the trace on a cache; answers with hits in the second half, stalls, and what was used before."""
    import droppable

    stalls = {name: Stalls() for name in ("get_wall", "get_own", "set_wall", "set_own")}
    get_wall, get_own, set_wall, set_own = (one.add for one in stalls.values())
    cache = droppable.Cache(backing=backing)  # type: ignore[arg-type]
    count = trace.stat().st_size // 4
    number = hits = wrong = 0
    wall = time.perf_counter_ns
    run_delay_ns = run_delay_reader()
    padding = bytes(size_bytes)
    before_bytes, waited = usage_bytes(group), run_delay_ns()
    with trace.open("rb", buffering=0) as file:
        while chunk := file.read(1 << 16):
            for key in memoryview(chunk).cast("I"):
                number += 1
                start = wall()
                value = cache.get(key)
                took = wall() - start
                before, waited = waited, run_delay_ns()
                get_wall(took)
                get_own(max(0, took + before - waited))
                if value is not None:
                    hits += number * 2 > count
                    wrong += value[:8] != key.to_bytes(8, "big") or len(value) != size_bytes
                    continue
                value = key.to_bytes(8, "big") + padding[8:]
                start = wall()
                cache.set(key, value)
                took = wall() - start
                before, waited = waited, run_delay_ns()
                set_wall(took)
                set_own(max(0, took + before - waited))
    return {
        "hit_ratio": hits / (count - count // 2), "wrong": wrong, "before_bytes": before_bytes,
        "usage_bytes": usage_bytes(group), "stats": asdict(cache.stats()),
        "stalls": {name: one.report() for name, one in stalls.items()},
    }  # fmt: skip


def fill(group: Path, name: str) -> dict[str, Any]:
    """Inserts 10^6 values of 100 B, then waits until the parent has had the kernel take what it can."""
    put, keep = filled(name)
    for number in range(1000):
        put(b"%09d" % (ENTRIES + number), b"%0100d" % number)
    print(json.dumps("empty"), flush=True)
    sys.stdin.readline()
    for number in range(ENTRIES):
        put(b"%09d" % number, b"%0100d" % number)
    before_bytes = usage_bytes(group)
    print(json.dumps("full"), flush=True)
    sys.stdin.readline()
    return {"filled_bytes": before_bytes, "kept": bool(keep)}


def filled(name: str) -> tuple[Callable[[bytes, bytes], object], object]:
    room = 2 * ENTRIES
    cache: Any
    if name == "droppable":
        import droppable

        cache = droppable.Cache()
        return cache.set, cache
    if name == "cachetools":
        import cachetools

        cache = cachetools.LRUCache(room)
    elif name == "cachebox":
        import cachebox

        cache = cachebox.LRUCache(room)
    elif name == "lru-dict":
        import lru

        cache = lru.LRU(room)
    else:
        cache = {}
    return cache.__setitem__, cache


# In the parent


def child(group: Any, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, __file__, "--child", str(group.path), *map(str, arguments)]
    started: subprocess.Popen[str] = group.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return started


def play(limit_bytes: int, trace: Path, size_bytes: int, backing: str) -> dict[str, Any] | None:
    """None: the child did not survive."""
    from droppable._cgroup import MemoryCgroup

    with MemoryCgroup.create(limit_bytes) as group:
        process = child(group, "serve", trace, size_bytes, backing)
        output, _ = process.communicate()
        kills = group.oom_kills
        if process.returncode:
            print(f"the child ended with {process.returncode}; OOM kills: {kills}")
            return None
        answer: dict[str, Any] = json.loads(output)
        return {**answer, "oom_kills": kills}


def unpinned(name: str) -> dict[str, Any] | None:
    """What of 10^6 entries the kernel cannot take, in bytes an entry."""
    from droppable._cgroup import MemoryCgroup

    with MemoryCgroup.create(FREE_BYTES) as group:
        process = child(group, "fill", name)
        assert process.stdin is not None
        assert process.stdout is not None
        left = []
        for _ in ("empty", "full"):
            if not process.stdout.readline():
                print(f"SKIP {name}: it is not installed")
                return None
            left.append(squeeze(group))
            process.stdin.write("\n")
            process.stdin.flush()
        answer = json.loads(process.communicate()[0])
    per_entry = (left[1] - left[0]) / ENTRIES
    return {"left_bytes_per_entry": per_entry, "resident_bytes_per_entry": (answer["filled_bytes"] - left[0]) / ENTRIES}


def squeeze(group: Any) -> int:
    """Has the kernel take what it can; what is left then. The LRU has two lists, so once is not enough."""
    if (group.path / "memory.force_empty").exists():
        for _ in range(3):
            try:
                (group.path / "memory.force_empty").write_text("0")
            except OSError:
                pass  # not empty: a process is in it
    else:
        idle = 0
        while idle < 3:
            idle = 0 if group.reclaim(1 << 22) > 1 << 16 else idle + 1
    return int(group.usage_bytes)


def exact_lru(requests: Sequence[int], entries: int) -> float:
    """Hit ratio in the second half."""
    held: OrderedDict[int, None] = OrderedDict()
    half = len(requests) // 2
    hits = 0
    for number, key in enumerate(requests):
        if key in held:
            held.move_to_end(key)
            hits += number >= half
        else:
            held[key] = None
            if len(held) > entries:
                held.popitem(last=False)
    return hits / (len(requests) - half)


def simulated(requests: Any, entries: int, directory: Path) -> dict[str, float]:
    """Hit ratios in the second half of S3-FIFO and W-TinyLFU, by libcachesim."""
    try:
        import libcachesim  # type: ignore[import-untyped]
        import numpy
    except ImportError as error:
        print(f"SKIP S3-FIFO and W-TinyLFU: {error}")
        return {}
    record = numpy.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])  # libCacheSim's own format
    ratios = {}
    half = len(requests) // 2
    for name, policy in (("s3fifo", libcachesim.S3FIFO), ("wtinylfu", libcachesim.WTinyLFU)):
        misses = []
        for count in (half, len(requests)):
            trace = numpy.zeros(count, record)
            trace["id"], trace["size"] = requests[:count].astype("u8") + 1, 1
            path = directory / "trace.oracleGeneral"
            trace.tofile(path)
            reader = libcachesim.TraceReader(str(path), trace_type=libcachesim.TraceType.ORACLE_GENERAL_TRACE)
            misses.append(policy(entries).process_trace(reader)[0] * count)
        if misses[1] == len(requests):
            continue  # W-TinyLFU's window is a hundredth of the cache: one value must fit
        ratios[name] = 1 - (misses[1] - misses[0]) / (len(requests) - half)
    return ratios


def zipf(keys: int, count: int) -> Any:
    import numpy

    shares = numpy.cumsum(numpy.arange(1, keys + 1, dtype=float) ** -SKEW)
    draws = numpy.random.default_rng(keys).random(count) * shares[-1]
    ranks = numpy.searchsorted(shares, draws)
    return numpy.random.default_rng(1).permutation(keys).astype(numpy.uint32)[ranks]


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
    limit_bytes = LIMITS_BYTES[size_bytes]
    requests = zipf(4 * limit_bytes // size_bytes, int(REQUESTS[size_bytes] * scale))
    trace = directory / "requests.u32"
    requests.tofile(trace)
    rows = []
    against: dict[str, float] = {}
    control = play(FREE_BYTES, trace, size_bytes, BACKINGS[0])
    for backing in BACKINGS:
        pressed = play(limit_bytes, trace, size_bytes, backing)
        if not control or not pressed:
            continue
        if not against:
            entries = (limit_bytes - pressed["before_bytes"]) // size_bytes
            against = {"lru": exact_lru(requests.tolist(), entries), **simulated(requests, entries, directory)}
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


def judge(rows: Sequence[Row], left: dict[str, dict[str, Any]]) -> list[Goal]:
    goals = []
    lazyfree = [row for row in rows if row.backing == "lazyfree"]
    for row in lazyfree:
        ratio = row.hit_ratio / row.against["lru"]
        least = 1.0 if row.size_bytes == 100 else 1.05
        measured = f"{ratio:.3f} ({row.hit_ratio:.3f} and {row.against['lru']:.3f})"
        goals.append(
            Goal(f"hits under pressure, {row.size_bytes:,} B, against an exact LRU given the same bytes",
                 f">= {least:.2f}", measured, ratio >= least)
        )  # fmt: skip
    for row in lazyfree:
        goals.append(judge_stall(row, "worst insert", "set", "worst_ns"))
        goals.append(judge_stall(row, "p99.9 of get", "get", "p999_ns"))
    if "droppable" in left:
        bytes_left = {name: one["left_bytes_per_entry"] for name, one in left.items()}
        others = ", ".join(f"{name} {one:.0f}" for name, one in bytes_left.items() if name != "droppable")
        ours = bytes_left["droppable"]
        goals.append(Goal("memory not droppable, 10^6 entries of 100 B", "<= 1 B an entry",
                          f"{ours:.2f} B; {others}", ours <= 1))  # fmt: skip
    goals.append(
        Goal("OOM kills", "0", str(sum(row.oom_kills for row in rows)), all(not row.oom_kills for row in rows))
    )
    return goals


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        group, task, *rest = sys.argv[2:]
        if task == "serve":
            print(json.dumps(serve(Path(group), Path(rest[0]), int(rest[1]), rest[2])))
        else:
            print(json.dumps(fill(Path(group), rest[0])))
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the requests to play")
    parser.add_argument("--sizes", type=int, nargs="*", default=list(REQUESTS), choices=REQUESTS)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    arguments = parser.parse_args()
    from droppable._cgroup import CgroupUnavailableError

    try:
        left = {name: one for name in CACHES if (one := unpinned(name))}
        for name, one in left.items():
            resident, kept = one["resident_bytes_per_entry"], one["left_bytes_per_entry"]
            print(f"{name:<12}{resident:8.1f} B an entry, {kept:8.2f} not droppable")
        rows = []
        with tempfile.TemporaryDirectory(prefix="droppable-bench-") as directory:
            for size_bytes in arguments.sizes:
                rows += measure_size(size_bytes, arguments.scale, Path(directory))
    except CgroupUnavailableError as error:
        print(f"SKIP: {error}")
        return 0
    print()
    report = {"scale": arguments.scale, "rows": [asdict(row) for row in rows], "unpinned": left}
    write(arguments.out, report, judge(rows, left))
    return 0


if __name__ == "__main__":
    sys.exit(main())
