# ruff: noqa: E501 - lines of Markdown
"""The sections of docs/benchmarks.md below its goals: one function a section, lines of Markdown out. Called by report.py."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from policies import NAMES

Reports = dict[str, Any]
Pictures = Mapping[str, str]


def _picture(pictures: Pictures, name: str, says: str) -> Iterator[str]:
    if name in pictures:
        yield f"![{says}](images/{pictures[name]})"
        yield ""


def _table(head: list[str], rows: Iterator[list[str]]) -> Iterator[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"
    yield ""


def _latency(reports: Reports, pictures: Pictures) -> Iterator[str]:
    report = reports.get("cache_latency")
    if not report:
        return
    yield from f"""\
## Latency

`benchmarks/cache_latency.py`, {report["rounds"]} rounds: nanoseconds of processor time a call, the median and what holds the middle
half. Values are bytes, at 1,000,000 B NumPy arrays. What hands out a reference (dict, lru_cache, cachetools, cachebox, lru-dict,
moka-py, theine) copies nothing, at any size. memcached's own time is in: it runs in another process, and its processor time is
added.

""".splitlines()
    yield from _picture(pictures, "latency", "Nanoseconds of a get and a set in each cache, at three sizes of values")
    for size, operations in report["sizes"].items():
        cells = {operation: {one["name"]: one for one in of_all} for operation, of_all in operations.items()}
        names = list(dict.fromkeys(one["name"] for of_all in operations.values() for one in of_all))
        yield f"| {int(size):,} B | " + " | ".join(operations) + " |"
        yield "|---|" + "---|" * len(operations)
        for name in names:
            row = (cells[operation].get(name) for operation in operations)
            shown = (f"{one['ns']:,.0f} ({one['low_ns']:,.0f}-{one['high_ns']:,.0f})" if one else "-" for one in row)
            yield f"| {name} | " + " | ".join(shown) + " |"
        yield ""


def _threads(reports: Reports, pictures: Pictures) -> Iterator[str]:
    rows = reports.get("cache_threads", {}).get("rows")
    if not rows:
        return
    yield from """\
## Threads

`benchmarks/cache_threads.py`: thousands of calls a second by one thread, and by two together; waits for a processor that other
programs had are taken off. The last column is the ratio with them. With the GIL calls run side by side only while 32 KiB or
more are copied. A free-threaded Python is measured if one runs the script; the stress test of the C core under
ThreadSanitizer is part of `make c-test`.

""".splitlines()
    yield from _table(
        ["", "value", "calls", "one", "two", "ratio (middle half)", "by the clock"],
        ([one["where"], f"{one['value_bytes']:,} B", one["mix"], f"{one['one'] / 1e3:,.1f}", f"{one['two'] / 1e3:,.1f}",
          f"{one['ratio']:.2f} ({one['low']:.2f}-{one['high']:.2f})", f"{one['clock_ratio']:.2f}"] for one in rows),
    )  # fmt: skip


def _hits(reports: Reports, pictures: Pictures) -> Iterator[str]:
    rows = reports.get("cache_pressure", {}).get("rows", ())
    if not rows:
        return
    yield from """\
## Hits under pressure

`benchmarks/cache_pressure.py`: a cgroup, Zipf 0.9 over four times as many bytes of values as it has room for, the second half of the
requests. The peers are simulated with the same requests and exactly the same room, and pay nothing for keys or bookkeeping;
droppable pays for all of that out of the room. The interpreter before its first insert is on top for both. In
brackets: droppable's hits divided by theirs.

""".splitlines()
    scale = reports["cache_pressure"].get("scale", 1.0)
    if scale != 1.0:
        yield f"In this run {scale:.0%} of the requests were played (`--scale`)."
        yield ""
    yield from _picture(pictures, "hits", "Hits of droppable, S3-FIFO and W-TinyLFU over those of an exact LRU")
    peers = [name for name in NAMES if name in rows[0]["against"]]
    yield from _table(
        ["value", "backing", "droppable", *(NAMES[name] for name in peers), "OOM kills"],
        ([f"{row['size_bytes']:,} B", row["backing"], f"{row['hit_ratio']:.3f}", *_against(row, peers),
          str(row["oom_kills"])] for row in rows),
    )  # fmt: skip


def _against(row: dict[str, Any], peers: list[str]) -> Iterator[str]:
    for name in peers:
        theirs = row["against"].get(name)
        yield f"{theirs:.3f} ({row['hit_ratio'] / theirs:.3f})" if theirs else "-"


def _traces(reports: Reports, pictures: Pictures) -> Iterator[str]:
    rows = reports.get("cache_traces", {}).get("rows", ())
    if not rows:
        return
    yield from """\
## Recorded traces

`benchmarks/cache_traces.py --trace FILE ...`: the same against traces that were given, in room for a tenth and a quarter of all their
values. Cost of misses: over the exact LRU's, with `cost=` and without, where the trace tells costs.

""".splitlines()
    peers = [name for name in NAMES if name in rows[0]["against"]]
    yield from _table(
        ["trace", "requests", "room", "droppable", *(NAMES[name] for name in peers), "cost of misses", "OOM kills"],
        ([row["trace"], f"{row['requests']:,}", f"{row['share']:.0%}, {row['room_bytes'] / 1e6:.0f} MB",
          f"{row['hit_ratio']:.3f}", *_against(row, peers),
          "-" if row["cost_ratio"] is None else f"{row['cost_ratio']:.3f}, {row['blind_cost_ratio']:.3f}",
          str(row["oom_kills"])] for row in rows),
    )  # fmt: skip


def _cost(reports: Reports, pictures: Pictures) -> Iterator[str]:
    rows = reports.get("cache_cost", {}).get("rows", ())
    if not rows:
        return
    yield from """\
## Cost

`benchmarks/cache_cost.py`: values that take 1 ms and values that take 100 ms to compute, of one size and equally popular, three times the
room. Seconds that computing what was missing would have taken, second half of the requests. GreedyDual knows every cost
exactly and pays nothing for it.

""".splitlines()
    yield from _table(
        ["value", "with `cost=`", "without", "exact LRU", "GreedyDual"],
        ([f"{row['size_bytes']:,} B", f"{row['steered_seconds']:,.0f} (hits {row['steered_hits']:.3f})",
          f"{row['blind_seconds']:,.0f} (hits {row['blind_hits']:.3f})", f"{row['lru_seconds']:,.0f}",
          f"{row['greedy_dual_seconds']:,.0f}"] for row in rows),
    )  # fmt: skip


def _stalls(reports: Reports, pictures: Pictures) -> Iterator[str]:
    rows = reports.get("cache_pressure", {}).get("rows", ())
    if not rows:
        return
    yield from """\
## Stalls

The runs of cache_pressure.py, microseconds; in brackets the same requests in a cgroup where nothing is reclaimed. `wall`: what the
caller waits; `own`: that less its waits for a processor that others had, reclaim inside the call included. A percentile of
8,388.6 is that or more.

""".splitlines()
    keys = ("p50_ns", "p99_ns", "p999_ns", "worst_ns")
    yield from _table(
        ["value", "backing", "call", "p50", "p99", "p99.9", "worst"],
        ([f"{row['size_bytes']:,} B", row["backing"], name.replace("_", ", "),
          *(f"{one[key] / 1e3:,.1f} ({row['control'][name][key] / 1e3:,.1f})" for key in keys)]
         for row in rows for name, one in row["stalls"].items()),
    )  # fmt: skip


def _antagonist(reports: Reports, pictures: Pictures) -> Iterator[str]:
    report = reports.get("cache_antagonist")
    if not report:
        return
    yield from f"""\
## An antagonist

`benchmarks/cache_antagonist.py`: in a cgroup of {report["limit_bytes"] >> 20} MB a process serves requests through a cache while another takes
the whole limit at full speed, again and again. Speed: of its allocation, over that with no cache in the cgroup. The file's clean
pages in the page cache are what costs the kernel least to take: no cache that lives in reclaimable memory can be expected to
give way faster. Get and insert: microseconds, less waits for a processor that others had.

""".splitlines()
    yield from _picture(pictures, "antagonist", "Memory of the cache and of the antagonist over time, in three runs")
    yield from _table(
        ["the cache", "runs", "OOM kills", "killed", "waves survived", "speed", "hits", "get, p99.9", "insert, p99.9",
         "insert, worst"],
        ([row["title"], str(row["runs"]), str(row["kills"]), row["killed"] or "-", str(row["waves"]),
          "-" if row["speed_ratio"] is None else f"{row['speed_ratio']:.2f}",
          "-" if row["hit_ratio"] is None else f"{row['hit_ratio']:.3f}",
          *(f"{row['stalls'][of][key] / 1e3:,.0f}" if row["stalls"] else "-"
            for of, key in (("get_own", "p999_ns"), ("set_own", "p999_ns"), ("set_own", "worst_ns")))]
         for row in report["rows"]),
    )  # fmt: skip


def _recovery(reports: Reports, pictures: Pictures) -> Iterator[str]:
    rows = reports.get("cache_recovery", {}).get("rows", ())
    if not rows:
        return
    yield from """\
## After memory pressure

`benchmarks/cache_recovery.py`: hits by phase of a run, while the memory that is left to the cache shrinks and grows. The simple way
is a dict of mappings of their own, marked for the kernel to take: it evicts nothing itself, so it holds whatever fits as soon as
it fits again. `after`: the mean of the phases that come after pressure.

""".splitlines()
    yield from _table(
        ["", "the cache", "hits by phase", "after", "OOM kills"],
        ([row["situation"], row["peer"], " ".join(f"{ratio:.3f}" for ratio in row["ratios"]) or "killed",
          f"{row['after']:.3f}", str(row["oom_kills"])] for row in rows),
    )  # fmt: skip


def _growth(reports: Reports, pictures: Pictures) -> Iterator[str]:
    report = reports.get("cache_growth")
    if not report:
        return
    yield from f"""\
## Ten million entries

`benchmarks/cache_growth.py`, {report["rounds"]} rounds: nanoseconds of processor time a call, the median and what holds the middle half, for keys
drawn at random out of so many entries of 100 B. A dict does the same work at every size, so its growth is what
the processor's own caches cost.

""".splitlines()
    yield from _picture(pictures, "growth", "Nanoseconds of a get and a set by the number of entries")
    times = report["times"]
    sizes = next(iter(times.values()), {})
    yield from _table(
        ["entries", *(f"{operation}, {name}" for operation in times for name in ("droppable", "dict"))],
        ([f"{int(size):,}", *(f"{one['ns']:,.0f} ({one['low_ns']:,.0f}-{one['high_ns']:,.0f})"
                             for operation in times for one in times[operation][size].values())] for size in sizes),
    )  # fmt: skip
    if not report["memory"]:
        return
    yield "Bytes an entry after the last insert, and after the kernel took all it can. Page tables are in both."
    yield ""
    yield from _table(
        ["", "entries", "resident", "not droppable"],
        ([row["name"], f"{row['entries']:,}", f"{row['resident_bytes_per_entry']:.1f}",
          f"{row['left_bytes_per_entry']:.2f}"
          + (f" (runs: {', '.join(map(str, row['left_runs']))})" if len(row["left_runs"]) > 1 else "")]
         for row in report["memory"]),
    )  # fmt: skip


def _printed(reports: Reports, pictures: Pictures) -> Iterator[str]:
    for name in ("cache_objects", "random_speed", "random_statistics", "regions"):
        if printed := reports.get(name, {}).get("printed"):
            yield from (f"## `{name}.py`", "", "```text", *printed.strip().splitlines(), "```", "")


SECTIONS: tuple[Callable[[Reports, Pictures], Iterator[str]], ...] = (
    _latency, _threads, _hits, _traces, _cost, _stalls, _recovery, _antagonist, _growth, _printed,
)  # fmt: skip
