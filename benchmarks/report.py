# ruff: noqa: E501 - lines of Markdown
"""Makes docs/benchmarks.md from the JSON of the benchmarks. Called by run.py.

findings.md, beside it, is written by hand and goes into the page: why goals are missed. tables.py has the tables.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tables

Reports = dict[str, Any]

LATENCY, PRESSURE, GROWTH, ANTAGONIST = "cache_latency", "cache_pressure", "cache_growth", "cache_antagonist"
GOALS = (
    # of the design: row, goal, what stands elsewhere, script, beginnings of its goals' names
    ("get, hit, 100 B bytes", "<= cachetools' `.get`", "dict + mmap copy 68 ns", LATENCY, "get, hit, 100 B bytes"),
    ("get, hit, 10 KB bytes", "<= 1.2x dict + memcpy", "lmdb 523 ns, diskcache 5,978 ns", LATENCY,
     "get, hit, 10 KB bytes"),
    ("get, 1 MB array, hot", "<= 1 us, zero-copy", "lmdb copy 31 us, diskcache 63 us", LATENCY, "get, 1 MB array, hot"),
    ("set, 100 B", "<= cachetools", "lru-dict 49 ns, diskcache 35 us", LATENCY, "set, 100 B"),
    ("decorator hit, one str argument", "<= cachetools' `@cached`, and half of it", "lru_cache 39 ns", LATENCY,
     "decorator hit, one str argument"),
    ("2 threads on the C core, 2 processors", ">= 1.6x the throughput of one", "", "cache_threads", "threads, C core"),
    ("hits under pressure, against an exact LRU given the same bytes", ">= 1.05 at 4 KB, 64 KB and 1 MB, >= 1.0 at "
     "100 B, Zipf 0.9", "raw `MAP_DROPPABLE` 0.76-0.86", PRESSURE, "hits under pressure"),
    ("hits under pressure, recorded traces, against the same", ">= 1.0", "", "cache_traces", "traces"),
    ("time to compute again, values of 1 ms and 100 ms, against cost-blind", "at least 30 % less", "", "cache_cost",
     "cost"),
    ("memory not droppable, 100 B entries", "<= 1 B an entry at 10^6 and 10^7",
     "Segcache 5, CacheLib 32, memcached 56, a dict of bytes about 250", GROWTH, "memory not droppable"),
    ("get and set at 10^7 entries", "<= 2x their time at 10^4", "", GROWTH, "time at 10^7"),
    ("p99.9 of get while reclaiming", "<= 1 ms", "polling caches: killed or seconds late", PRESSURE,
     "p99.9 of get while reclaiming"),
    ("worst insert while reclaiming", "<= 1 ms", "raw `MAP_DROPPABLE` 45-130 ms", PRESSURE,
     "worst insert while reclaiming"),
    ("hits after memory pressure, against the kernel alone on lazyfree memory", ">= 0.99", "an LRU sized by hand: 0.86",
     "cache_recovery", "recovery"),
    ("OOM kills, the cache alone against its limit", "0", "unbounded dict: killed", PRESSURE, "OOM kills"),
    ("another process part takes the whole limit at full speed: OOM kills", "0", "polling caches: killed", ANTAGONIST,
     "antagonist, OOM kills"),
    ("its allocation", ">= 0.9 of its speed with no cache", "", ANTAGONIST, "antagonist, its speed"),
    ("p99.9 of get meanwhile", "<= 1 ms", "polling caches: killed or seconds late", ANTAGONIST,
     "antagonist, p99.9 of get"),
    ("worst insert meanwhile", "<= 1 ms", "", ANTAGONIST, "antagonist, worst insert"),
    ("wrong bytes in 10^9 reads during a drop storm", "0", "", "cache_storm", "wrong bytes"),
    ("16 random bytes", ">= 4x os.urandom", "315 ns", "random_speed", "token_bytes(16)"),
)  # fmt: skip


def page(reports: Reports, pictures: Mapping[str, str]) -> str:
    """The whole page, in Markdown. `pictures`: NAME: file name in images/, beside the page."""
    parts = [*_head(reports), *_goals(reports), *_findings(reports)]
    for section in tables.SECTIONS:
        parts += section(reports, pictures)
    return "\n".join(parts).rstrip() + "\n"


def _head(reports: Reports) -> Iterator[str]:
    machines = [one["machine"] for one in reports.values() if isinstance(one.get("machine"), dict)]
    machine = machines[0]
    loads = [one["load_average"][1] for one in machines]
    yield from """\
# Benchmarks

<!-- Written by benchmarks/run.py (make bench). Edit benchmarks/report.py and tables.py, not this page. -->

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
    if max(loads) > machine["processors"] + 1.5:  # the benchmarks themselves have two threads, or three processes
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
        parts = dict.fromkeys(f"{_detail(one['what'], beginning)}{one['measured']}" for one in found)
        measured = "; ".join(parts) or "not measured"
        marks = [one["met"] for one in found if one["met"] is not None]
        missed = marks.count(False)
        verdict = "-" if not marks else "met" if not missed else "**not met**"
        if 0 < missed < len(marks):
            verdict += f" in {missed} of {len(marks)}"
        yield f"| {row} | {goal} | {elsewhere} | {measured} (`{script}.py`) | {verdict} |"
    yield ""


def _detail(what: str, beginning: str) -> str:
    """What a goal's name says beyond the row's, where the row stands for several."""
    rest = what.removeprefix(beginning).strip(", ")
    return f"{rest}: " if rest else ""


def _findings(reports: Reports) -> Iterator[str]:
    scripts = {script for *_, script, _ in GOALS}
    if any(goal["met"] is False for script in scripts for goal in _judged(reports, script)):
        yield "## Where a goal is not met: why"
        yield ""
        yield (Path(__file__).parent / "findings.md").read_text()


def _judged(reports: Reports, script: str) -> list[dict[str, Any]]:
    report = reports.get(script, {})
    goals: list[dict[str, Any]] = list(report.get("goals", ())) if script != "random_speed" else []
    if script == "random_speed":
        for pair in report.get("sizes", ()):
            if pair["name"] == "token_bytes(16)":
                measured = f"{pair['ratio']:.1f}x: {pair['ours_ns']:.0f} ns against {pair['peer_ns']:.0f} ns"
                goals.append({"what": pair["name"], "measured": measured, "met": pair["ratio"] >= 4})
    return goals
