"""`droppable replay`: what would a cache save, of the requests in a file, with so much memory?

Plays the requests on a real `Cache` for each size, and on other policies. LRU is simulated here; S3-FIFO and W-TinyLFU
are libcachesim's, if it is installed. Those that are simulated pay nothing for keys and bookkeeping.
"""

import dataclasses
import json
import mmap
import sys
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import droppable
from droppable._arguments import format_size
from droppable.cli._replay_text import TraceError
from droppable.cli._replay_trace import Request, Trace, read_trace

OURS: Final = "droppable"
_FAILED: Final = 1
_LARGEST_BYTES: Final = 1 << 31
"""Larger values are not stored in the real cache, whatever its memory: each would be written whole."""
_LEAST_INDEX: Final = 18
"""Powers of two of slots that libcachesim's tables begin with."""
_MOST_SIMULATED: Final = 1 << 30
"""Of memory for libcachesim, whose W-TinyLFU counts in 32 bits. More memory, and the sizes, are given in larger units:
rounding them up takes at most (requests / this) of the memory."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one policy got with so much memory, of all requests. saved_seconds: computations that hits made needless."""

    policy: str
    memory_bytes: int
    hits: int
    hit_ratio: float
    saved_seconds: float


Policy = Callable[[Sequence[Request], int], "list[bool]"]


def replay(path: Path, memories: Sequence[int], size_bytes: int, as_json: bool, plot: Path | None) -> int:
    """Prints what a cache would hit, for each size of memory. The exit status: 1 if the trace cannot be read.

    Args:
        path: the trace; see `_replay_trace`. A "-" is standard input.
        memories: bytes of memory to try.
        size_bytes: of values whose size the trace does not say.
        as_json: one object for programs in place of a table.
        plot: where a picture goes; needs matplotlib. None: nowhere.
    """
    if plot is not None and not _can_draw():
        return _FAILED
    try:
        trace = read_trace(Path("/dev/stdin") if path == Path("-") else path, size_bytes)
    except OSError as error:
        print(f"droppable replay: {path} cannot be read: {error.strerror or error}", file=sys.stderr)
        return _FAILED
    except TraceError as error:
        print(f"droppable replay: {error}", file=sys.stderr)
        return _FAILED
    outcomes = [
        outcome_of(name, memory, trace, policy)
        for memory in memories
        for name, policy in {OURS: play, "LRU": least_recently_used, **_simulated()}.items()
    ]
    if plot is not None and not _draw(outcomes, trace, plot):
        return _FAILED
    if as_json:
        counts = {"read_as": trace.form, "requests": len(trace.requests), "skipped_lines": trace.skipped}
        print(json.dumps({**counts, "outcomes": [dataclasses.asdict(one) for one in outcomes]}, indent=2))
    else:
        print("\n".join(_table(outcomes, trace)))
    return 0


def outcome_of(name: str, memory_bytes: int, trace: Trace, policy: Policy) -> Outcome:
    """Plays a trace on one policy."""
    hits = policy(trace.requests, memory_bytes)
    saved = sum(request.seconds for request, hit in zip(trace.requests, hits, strict=True) if hit)
    return Outcome(name, memory_bytes, sum(hits), sum(hits) / len(hits), saved)


def play(requests: Sequence[Request], memory_bytes: int) -> list[bool]:
    """Which requests hit in a real cache with this bound."""
    most_bytes = min(memory_bytes, _LARGEST_BYTES)
    largest = max((request.size_bytes for request in requests if request.size_bytes < most_bytes), default=0)
    filler = memoryview(mmap.mmap(-1, max(1, largest), prot=mmap.PROT_READ))  # never written to, so it takes no memory
    hits = []
    with droppable.Cache[str, memoryview](max_bytes=memory_bytes) as cache:
        for request in requests:
            hit = cache.get(request.key) is not None
            hits.append(hit)
            if not hit and request.size_bytes < most_bytes:
                try:
                    cache.set(request.key, filler[: request.size_bytes], cost=request.seconds or None)
                except droppable.ValueTooLargeError:
                    pass  # a miss each time, as with any cache of this size
    return hits


def least_recently_used(requests: Sequence[Request], memory_bytes: int) -> list[bool]:
    """Which requests hit in an LRU of so many bytes of values."""
    held: OrderedDict[str, int] = OrderedDict()
    left_bytes = memory_bytes
    hits = []
    for request in requests:
        hit = request.key in held
        hits.append(hit)
        if hit:
            held.move_to_end(request.key)
        elif request.size_bytes <= memory_bytes:
            held[request.key] = request.size_bytes
            left_bytes -= request.size_bytes
            while left_bytes < 0:
                left_bytes += held.popitem(last=False)[1]
    return hits


def _simulated() -> dict[str, Policy]:
    """Policies of libcachesim, by name; none where it is not installed."""
    try:
        import libcachesim  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return {}

    def simulate(kind: Any) -> Policy:
        def hits_of(requests: Sequence[Request], memory_bytes: int) -> list[bool]:
            unit = -(-memory_bytes // _MOST_SIMULATED)
            cache, asked = kind(memory_bytes // unit, hashpower=_LEAST_INDEX), libcachesim.Request()
            numbers: dict[str, int] = {}
            hits = []
            for request in requests:
                asked.obj_id = numbers.setdefault(request.key, len(numbers) + 1)
                asked.obj_size = -(-request.size_bytes // unit)
                # libcachesim writes a warning on standard error, if it is asked for more than its memory.
                hits.append(request.size_bytes <= memory_bytes and bool(cache.get(asked)))
            return hits

        return hits_of

    return {"S3-FIFO": simulate(libcachesim.S3FIFO), "W-TinyLFU": simulate(libcachesim.WTinyLFU)}


def _table(outcomes: Sequence[Outcome], trace: Trace) -> list[str]:
    names = list(dict.fromkeys(outcome.policy for outcome in outcomes))
    sizes = {request.key: request.size_bytes for request in trace.requests}
    whole_size = format_size(sum(sizes.values()))
    lines = [
        f"{len(trace.requests):,} requests for {len(sizes):,} keys; all values together: {whole_size}",
        f"The file was read as {trace.form}.",
    ]
    if len(sizes) == len(trace.requests) > 1:
        lines.append(
            "No key is asked for twice, so no cache can hit. Look whether the file has the form that was meant."
        )
    if trace.skipped:
        lines.append(f"{trace.skipped:,} lines are no GET with status 200, and are left out")
    tables: list[tuple[str, Callable[[Outcome], str]]] = [("hits", lambda one: f"{one.hit_ratio:.1%}")]
    if trace.has_seconds:
        whole = sum(request.seconds for request in trace.requests)
        tables.append((f"seconds saved, of {whole:,.1f}", lambda one: f"{one.saved_seconds:,.1f}"))
    for title, shown in tables:
        lines += ["", title, f"{'memory':>10}" + "".join(f"{name:>12}" for name in names)]
        for memory in dict.fromkeys(outcome.memory_bytes for outcome in outcomes):
            row = [shown(outcome) for outcome in outcomes if outcome.memory_bytes == memory]
            lines.append(f"{format_size(memory):>10}" + "".join(f"{cell:>12}" for cell in row))
    if len(names) == 2:
        lines += ["", "For S3-FIFO and W-TinyLFU beside them: pip install libcachesim"]
    return lines


def _can_draw() -> bool:
    """Whether matplotlib is there; says so if not, before the requests are played for minutes."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        print(f"droppable replay: --plot needs matplotlib ({error}): pip install matplotlib", file=sys.stderr)
        return False
    return True


def _draw(outcomes: Sequence[Outcome], trace: Trace, path: Path) -> bool:
    """Hits, or seconds saved, over the memory. False, and a message, where that cannot be written."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot()
    for name in dict.fromkeys(outcome.policy for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.policy == name]
        values = [one.saved_seconds if trace.has_seconds else 100 * one.hit_ratio for one in mine]
        style = {"linewidth": 2.5, "marker": "o"} if name == OURS else {"linestyle": "--", "marker": "."}
        axes.plot([one.memory_bytes / 2**20 for one in mine], values, label=name, **style)
    axes.set_xlabel("memory, MB")
    axes.set_ylabel("seconds saved" if trace.has_seconds else "hits, percent of requests")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        print(f"droppable replay: {path} cannot be written: {error}", file=sys.stderr)
        return False
    return True
