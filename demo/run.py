"""What happened in one run, and the figures made of it. Filled in by service.py; view, table and plot read it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from waves import Phase

RECENT_REQUESTS = 200
"""The hit ratio over time is taken over this many requests."""


@dataclass(frozen=True)
class Request:
    """One request served. `render_seconds`: processor time, 0 for a hit. `dropped` counts from the start of the run."""

    index: int
    hit: bool
    seconds: float
    render_seconds: float
    document_bytes: int
    dropped: int
    intact: bool


@dataclass(frozen=True)
class Sample:
    """The state after a request.

    `usage_bytes` is all that is charged to the cgroup, None without one; `resident_bytes` what the cache has in memory,
    None where nobody knows; `stored_bytes` what was ever put into it, each document once.
    """

    index: int
    seconds: float
    usage_bytes: int | None
    wave_bytes: int
    resident_bytes: int | None
    stored_bytes: int


@dataclass
class Run:
    """One way of caching under the whole stream, or up to the request at which the OOM killer came."""

    way: str
    requests: list[Request] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    victim: str | None = None
    oom_kills: int = 0
    peak_bytes: int | None = None
    seconds: float = 0.0

    def hit_ratio(self, phases: Iterable[Phase]) -> float:
        """Hits among the requests of these phases that were served; 0 where none were."""
        served = [request.hit for phase in phases for request in self.requests[phase.start : phase.stop]]
        return sum(served) / len(served) if served else 0.0

    def recent_hit_ratios(self) -> list[float]:
        """Request by request, over the last RECENT_REQUESTS."""
        hits = [0]
        for request in self.requests:
            hits.append(hits[-1] + request.hit)
        ratios = []
        for stop in range(1, len(hits)):
            start = max(0, stop - RECENT_REQUESTS)
            ratios.append((hits[stop] - hits[start]) / (stop - start))
        return ratios

    def saved_seconds(self, stream: Sequence[int], prices: Mapping[int, float]) -> float:
        """What the hits would have cost to render."""
        return sum(prices[stream[request.index]] for request in self.requests if request.hit)

    def spent_seconds(self, stream: Sequence[int], prices: Mapping[int, float]) -> list[float]:
        """Request by request: what all misses so far cost to render."""
        spent = (0.0 if request.hit else prices[stream[request.index]] for request in self.requests)
        return list(accumulate(spent))

    def percentile_seconds(self, percent: float) -> float:
        """Nearest-rank percentile of the time of a request, in seconds; 0 where none was served."""
        ordered = sorted(request.seconds for request in self.requests)
        return ordered[max(0, -(-int(len(ordered) * percent) // 100) - 1)] if ordered else 0.0

    @property
    def wrong(self) -> int:
        """Documents that were not, byte for byte, what the first rendering of that file was."""
        return sum(not request.intact for request in self.requests)


def prices_seconds(runs: Iterable[Run], stream: Sequence[int]) -> dict[int, float]:
    """What each file costs to render: the quickest rendering of it in any run, so that all are paid alike."""
    prices: dict[int, float] = {}
    for run in runs:
        for request in run.requests:
            if not request.hit:
                file = stream[request.index]
                prices[file] = min(prices.get(file, request.render_seconds), request.render_seconds)
    return prices
