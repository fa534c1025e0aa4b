"""What the cache benchmarks share: interleaved rounds, medians with their spread, the machine, JSON."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from itertools import cycle, islice
from pathlib import Path
from typing import Any

PEERS = (
    "cachetools",
    "cachebox",
    "lru-dict",
    "moka-py",
    "theine",
    "diskcache",
    "lmdb",
    "pymemcache",
    "libcachesim",
    "numpy",
)


@dataclass(frozen=True)
class Contender:
    """A call to be timed; each tuple of `arguments` is one call, in a circle that goes on from round to round.

    `elsewhere_ns`: the processor time so far of a process that the call has work for it.
    """

    name: str
    call: Callable[..., object]
    arguments: Sequence[tuple[object, ...]]
    elsewhere_ns: Callable[[], int] | None = None


@dataclass(frozen=True)
class Figure:
    """Nanoseconds a call: the median of the rounds, and what holds the middle half of them."""

    name: str
    ns: float
    low_ns: float
    high_ns: float
    rounds_ns: tuple[float, ...]


def interleave(contenders: Sequence[Contender], rounds: int, batch_seconds: float) -> list[Figure]:
    """Times every contender once a round, in another order each round, so that the machine's moods fall on all.

    The clock is the thread's processor time: waiting for a busy processor is not counted, and waiting for a disk is
    not either. Python's loop around the call is in it, the same for all.
    """
    calls = [cycle(contender.arguments) for contender in contenders]
    batches = []
    for contender, arguments in zip(contenders, calls, strict=True):
        batch_ns(contender, arguments, len(contender.arguments))  # what only the first call for a key does
        count = max(3, int(batch_seconds * 1e8 / batch_ns(contender, arguments, 3)))
        batches.append(max(3, int(batch_seconds * 1e9 / batch_ns(contender, arguments, min(count, 100_000)))))
    times: list[list[float]] = [[] for _ in contenders]
    for number in range(rounds):
        for place in range(len(contenders)):
            which = (place + number) % len(contenders)
            contender, arguments, count = contenders[which], calls[which], batches[which]
            batch_ns(contender, arguments, count // 8 + 1)  # brings its code and data into the processor's caches
            times[which].append(batch_ns(contender, arguments, count))
    return [figure(one.name, measured) for one, measured in zip(contenders, times, strict=True)]


def batch_ns(contender: Contender, arguments: Iterator[tuple[object, ...]], count: int) -> float:
    """Mean processor time of a call over the next `count` calls."""
    call, elsewhere_ns = contender.call, contender.elsewhere_ns or (lambda: 0)
    batch = list(islice(arguments, count))
    start = time.thread_time_ns() + elsewhere_ns()
    for one in batch:
        call(*one)
    return (time.thread_time_ns() + elsewhere_ns() - start) / count


def figure(name: str, rounds_ns: Sequence[float]) -> Figure:
    low, middle, high = statistics.quantiles(rounds_ns, n=4)
    return Figure(name, middle, low, high, tuple(round(value, 1) for value in rounds_ns))


def ratio(ours: Figure, peer: Figure) -> tuple[float, float, float]:
    """Ours over theirs, round by round: low quartile, median, high quartile."""
    ratios = [mine / other for mine, other in zip(ours.rounds_ns, peer.rounds_ns, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return low, middle, high


def zipf(keys: int, count: int, skew: float = 0.9) -> Any:
    """Requests by Zipf's law: numbers below `keys`, the same in each run, popular ones anywhere among them."""
    import numpy

    shares = numpy.cumsum(numpy.arange(1, keys + 1, dtype=float) ** -skew)
    draws = numpy.random.default_rng(keys).random(count) * shares[-1]
    ranks = numpy.searchsorted(shares, draws)
    return numpy.random.default_rng(1).permutation(keys).astype(numpy.uint32)[ranks]


def memory_available_bytes() -> int:
    """What the machine could still give to programs now."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))


def machine() -> dict[str, Any]:
    """What ran it, for the report."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    versions = {}
    for peer in PEERS:
        try:
            versions[peer] = metadata.version(peer)
        except metadata.PackageNotFoundError:
            versions[peer] = "not installed"
    return {
        "kernel": platform.release(), "machine": platform.machine(), "processor": (models or [platform.machine()])[0],
        "processors": os.cpu_count(), "python": platform.python_version(), "load_average": os.getloadavg(),
        "memory_bytes": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"), "versions": versions,
    }  # fmt: skip


@dataclass(frozen=True)
class Goal:
    """A goal of the design beside what came out. `met` None: could not be measured here."""

    what: str
    goal: str
    measured: str
    met: bool | None


def write(path: Path | None, report: dict[str, Any], goals: Sequence[Goal]) -> None:
    for goal in goals:
        print(f"{'met' if goal.met else 'not measured' if goal.met is None else 'NOT MET':<13}{goal.what}: "
              f"{goal.measured} (goal: {goal.goal})")  # fmt: skip
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {"machine": machine(), **report, "goals": [asdict(goal) for goal in goals]}
        path.write_text(json.dumps(whole, indent=1) + "\n")
