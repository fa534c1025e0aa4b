# ruff: noqa: E501 - lines of Markdown
"""Makes docs/benchmarks.md from the JSON of the benchmarks. Called by run.py.

findings.md, beside it, is written by hand and goes into the page: why goals are missed.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

Reports = dict[str, Any]

GOALS = (
    # of the design: row, goal, what stands elsewhere, script, beginnings of its goals' names
    ("get, hit, 100 B bytes", "<= cachetools' `.get`", "dict + mmap copy 68 ns", "cache_latency", "get, hit, 100 B"),
    ("get, hit, 10 KB bytes", "<= 1.2x dict + memcpy", "lmdb 523 ns, diskcache 5,978 ns", "cache_latency",
     "get, hit, 10 KB"),
    ("get, 1 MB array, hot", "<= 1 us, zero-copy", "lmdb copy 31 us, diskcache 63 us", "cache_latency",
     "get, 1 MB array"),
    ("set, 100 B", "<= cachetools", "lru-dict 49 ns, diskcache 35 us", "cache_latency", "set, 100 B"),
    ("decorator hit, one str argument", "<= cachetools' `@cached`, and half of it", "lru_cache 39 ns", "cache_latency",
     "decorator hit"),
    ("hits under pressure, against an exact LRU given the same bytes", ">= 1.05 at 4 KB, 64 KB and 1 MB, >= 1.0 at "
     "100 B, Zipf 0.9", "raw `MAP_DROPPABLE` 0.76-0.86", "cache_pressure", "hits under pressure"),
    ("memory not droppable, a million 100 B entries", "<= 1 B an entry",
     "Segcache 5, CacheLib 32, memcached 56, a dict of bytes about 250", "cache_pressure", "memory not droppable"),
    ("p99.9 of get while reclaiming", "<= 1 ms", "polling caches: killed or seconds late", "cache_pressure",
     "p99.9 of get"),
    ("worst insert while reclaiming", "<= 1 ms", "raw `MAP_DROPPABLE` 45-130 ms", "cache_pressure", "worst insert"),
    ("another process part takes the whole limit at full speed", "0 OOM kills; allocation at >= 0.9 of its speed with no "
     "cache", "polling caches: killed or seconds late", "", "`make demo` shows one"),
    ("wrong bytes in 10^9 reads during a drop storm", "0", "", "cache_pressure", "wrong bytes"),
    ("OOM kills, the cache alone against its limit", "0", "unbounded dict: killed", "cache_pressure", "OOM kills"),
    ("16 random bytes", ">= 4x os.urandom", "315 ns", "random_speed", "token_bytes(16)"),
)  # fmt: skip


def page(reports: Reports) -> str:
    """The whole page, in Markdown."""
    parts = (_head, _goals, _findings, _latency, _hits, _stalls, _unpinned, _printed)
    return "\n".join(line for part in parts for line in part(reports)).rstrip() + "\n"


def _head(reports: Reports) -> Iterator[str]:
    machines = [one["machine"] for one in reports.values() if isinstance(one.get("machine"), dict)]
    machine = machines[0]
    loads = [one["load_average"][1] for one in machines]
    yield from """\
# Benchmarks

<!-- Written by benchmarks/run.py (make bench). Edit benchmarks/report.py, not this page. -->

Benchmarks are easy to bend, and these were written by those who wrote droppable. Each script says at its top what it measures
and whom it favours. All peers run in one run: compare within a table, never across machines. `make bench` makes this page
on yours.
""".splitlines()
    yield (
        f"Machine: {machine['processor']}, {machine['processors']} processors, {machine['memory_bytes'] / 2**30:.0f} GiB; "
        f"Linux {machine['kernel']}, Python {machine['python']};"
    )
    yield ", ".join(f"{name} {version}" for name, version in machine["versions"].items()) + "."
    yield f"Load average while it ran: {min(loads):.1f} to {max(loads):.1f}."
    if max(loads) > machine["processors"]:
        yield "**The machine was busy with other work.** Ratios within one run hold; absolute times are longer than on an idle"
        yield "machine, and time on the clock (`wall`) is mostly waiting for a processor."
    yield ""


def _goals(reports: Reports) -> Iterator[str]:
    yield "## The goals of the design, and where it stands"
    yield ""
    yield "| | goal | stands elsewhere | measured here | |"
    yield "|---|---|---|---|---|"
    for row, goal, elsewhere, script, beginning in GOALS:
        found = [one for one in _judged(reports, script) if one["what"].startswith(beginning)]
        parts = dict.fromkeys(f"{_detail(one['what'])}{one['measured']}" for one in found)
        measured = "; ".join(parts) or "not measured"
        source = f" (`{script}.py`)" if script else f": {beginning}"
        marks = [one["met"] for one in found if one["met"] is not None]
        missed = marks.count(False)
        verdict = "-" if not marks else "met" if not missed else "**not met**"
        if 0 < missed < len(marks):
            verdict += f" in {missed} of {len(marks)}"
        yield f"| {row} | {goal} | {elsewhere} | {measured}{source} | {verdict} |"
    yield ""


def _findings(reports: Reports) -> Iterator[str]:
    if any(goal["met"] is False for script in ("cache_latency", "cache_pressure") for goal in _judged(reports, script)):
        yield "## Where a goal is not met: why"
        yield ""
        yield (Path(__file__).parent / "findings.md").read_text()


def _detail(what: str) -> str:
    """The size in a goal's name, where the row of the table stands for several sizes."""
    sizes = [part for part in what.split(", ") if part.removesuffix(" B").replace(",", "").isdigit()]
    return f"{sizes[-1]}: " if sizes and ("reclaiming" in what or "pressure" in what) else ""


def _judged(reports: Reports, script: str) -> list[dict[str, Any]]:
    report = reports.get(script, {})
    goals: list[dict[str, Any]] = list(report.get("goals", ())) if script != "random_speed" else []
    if script == "cache_pressure" and report:
        reads = sum(row["stats"]["hits"] for row in report["rows"])
        wrong = sum(row["wrong"] for row in report["rows"])
        # Fewer reads than the goal's can show that it is not met, never that it is.
        goals.append(
            {"what": "wrong bytes", "measured": f"{wrong} in {reads:,} reads", "met": None if not wrong else False}
        )
    if script == "random_speed":
        for pair in report.get("sizes", ()):
            if pair["name"] == "token_bytes(16)":
                measured = f"{pair['ratio']:.1f}x: {pair['ours_ns']:.0f} ns against {pair['peer_ns']:.0f} ns"
                goals.append({"what": pair["name"], "measured": measured, "met": pair["ratio"] >= 4})
    return goals


def _latency(reports: Reports) -> Iterator[str]:
    report = reports.get("cache_latency")
    if not report:
        return
    yield from f"""\
## Latency

`benchmarks/cache_latency.py`, {report["rounds"]} rounds: nanoseconds of processor time a call, the median and what holds the middle
half. Values are bytes, at 1,000,000 B NumPy arrays. What hands out a reference (dict, lru_cache, cachetools, cachebox, lru-dict,
moka-py) copies nothing, at any size.""".splitlines()
    for size, operations in report["sizes"].items():
        cells = {operation: {one["name"]: one for one in of_all} for operation, of_all in operations.items()}
        names = list(dict.fromkeys(one["name"] for of_all in operations.values() for one in of_all))
        yield ""
        yield f"| {int(size):,} B | " + " | ".join(operations) + " |"
        yield "|---|" + "---|" * len(operations)
        for name in names:
            row = (cells[operation].get(name) for operation in operations)
            shown = (f"{one['ns']:,.0f} ({one['low_ns']:,.0f}-{one['high_ns']:,.0f})" if one else "-" for one in row)
            yield f"| {name} | " + " | ".join(shown) + " |"
    yield ""


def _hits(reports: Reports) -> Iterator[str]:
    rows = reports.get("cache_pressure", {}).get("rows", ())
    if not rows:
        return
    yield from """\
## Hits under pressure

`benchmarks/cache_pressure.py`: a cgroup of 100 MB (50 for 100 B), Zipf 0.9 over four times as many bytes, the second half of the requests.
The peers are simulated with the same requests and bytes, and pay nothing for keys or bookkeeping; what real ones pay is in
the last table. In brackets: droppable's hits divided by theirs.
""".splitlines()
    scale = reports["cache_pressure"].get("scale", 1.0)
    if scale != 1.0:
        yield f"In this run {scale:.0%} of the requests were played (`--scale`)."
        yield ""
    names = {"lru": "exact LRU", "s3fifo": "S3-FIFO", "wtinylfu": "W-TinyLFU"}
    peers = [name for name in names if name in rows[0]["against"]]
    yield "| value | backing | droppable | " + " | ".join(names[name] for name in peers) + " | OOM kills |"
    yield "|---|---|---|" + "---|" * (len(peers) + 1)
    for row in rows:
        hits, against = row["hit_ratio"], row["against"]
        cells = " | ".join(
            f"{against[name]:.3f} ({hits / against[name]:.3f})" if name in against else "-" for name in peers
        )
        yield f"| {row['size_bytes']:,} B | {row['backing']} | {hits:.3f} | {cells} | {row['oom_kills']} |"
    yield ""


def _stalls(reports: Reports) -> Iterator[str]:
    rows = reports.get("cache_pressure", {}).get("rows", ())
    if not rows:
        return
    yield from """\
## Stalls

The same runs, microseconds; in brackets the same requests in a cgroup where nothing is reclaimed. `wall`: what the caller waits;
`own`: that less its waits for a processor that others had, reclaim inside the call included. A percentile of 8,388.6 is that
or more.

| value | backing | call | p50 | p99 | p99.9 | worst |
|---|---|---|---|---|---|---|""".splitlines()
    keys = ("p50_ns", "p99_ns", "p999_ns", "worst_ns")
    for row in rows:
        for name, one in row["stalls"].items():
            control = row["control"][name]
            cells = " | ".join(f"{one[key] / 1e3:,.1f} ({control[key] / 1e3:,.1f})" for key in keys)
            yield f"| {row['size_bytes']:,} B | {row['backing']} | {name.replace('_', ', ')} | {cells} |"
    yield ""


def _unpinned(reports: Reports) -> Iterator[str]:
    left = reports.get("cache_pressure", {}).get("unpinned", {})
    if not left:
        return
    yield from """\
## Memory that the kernel cannot take

10^6 entries of 100 B: bytes an entry after the last insert, and after the kernel took all it can. Page tables are in both.

| | resident | not droppable |
|---|---|---|""".splitlines()
    for name, one in left.items():
        yield f"| {name} | {one['resident_bytes_per_entry']:.1f} | {one['left_bytes_per_entry']:.2f} |"
    yield ""


def _printed(reports: Reports) -> Iterator[str]:
    for name in ("random_speed", "random_statistics", "regions", "cache_objects"):
        if printed := reports.get(name, {}).get("printed"):
            yield from (f"## `{name}.py`", "", "```text", *printed.strip().splitlines(), "```", "")
