"""The service: runs one way of caching through the stream and the waves, and records what happens. Called by demo.py.

At the edge of a phase the worker waits, the neighbours take or return their memory, then the worker goes on: so each
way meets the same wave at the same request.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from corpus import Corpus
from parts import Parts
from run import Request, Run, Sample
from sizing import Sizes
from waves import Phase

from droppable._cgroup import MemoryCgroup

SAMPLE_REQUESTS = 10
"""The state is sampled after this many requests."""

TRIM_REQUESTS = 50
"""Without a cgroup: how often the worker drops pages of its cache down to the room it has."""

_REHEARSAL_LIMIT_BYTES = 2 << 30
_REHEARSAL_FILES = 60


@dataclass(frozen=True)
class Rehearsal:
    """Measured before the runs: what memory the programs need themselves, and how much HTML a byte of source makes."""

    baseline_bytes: int
    html_per_source: float


@dataclass(frozen=True)
class Experiment:
    """What all three runs have in common. `directory` takes what the worker is told."""

    corpus: Corpus
    stream: list[int]
    phases: tuple[Phase, ...]
    sizes: Sizes
    has_cgroup: bool
    directory: Path


def rehearse(corpus: Corpus, directory: Path, has_cgroup: bool) -> Rehearsal:
    """Renders the largest file and some others, nothing kept, beside neighbours that hold nothing.

    Raises:
        CgroupUnavailableError: a cgroup was asked for, and none can be made here.
    """
    by_size = sorted(range(len(corpus.files)), key=lambda file: corpus.sizes_bytes[file])
    step = max(1, len(by_size) // _REHEARSAL_FILES)
    chosen = [*by_size[step // 2 :: step], by_size[-1]]
    task = {"way": None, "files": [str(corpus.files[file]) for file in chosen]}
    with Parts(task, directory, _REHEARSAL_LIMIT_BYTES if has_cgroup else None, 0) as parts:
        ready = parts.hold(0)
        event = parts.event()
        if event is None or not ready:
            raise RuntimeError("a part ended before the sample was rendered")
        baseline_bytes = (parts.group.peak_bytes or parts.group.usage_bytes) if parts.group else 0
    sample = chosen[:-1]  # each stands for those next to it in size; the largest is there for its memory alone
    html_bytes, source_bytes = sum(event[: len(sample)]), sum(corpus.sizes_bytes[file] for file in sample)
    return Rehearsal(baseline_bytes, html_bytes / max(1, source_bytes))


def serve(
    experiment: Experiment, way: str, requests: int, deadline_seconds: float, watch: Callable[[Run], None]
) -> Run:
    """Runs the stream, or its first `requests`, under the waves, in a cgroup of its own.

    Args:
        experiment: the common conditions.
        way: a name in `ways.WAYS`.
        requests: no more than these.
        deadline_seconds: on `time.monotonic`; the run is cut there.
        watch: called after each sample.
    """
    sizes = experiment.sizes
    heights = {phase.start: phase.height for phase in experiment.phases}
    task = {
        "way": way,
        "hand_bytes": sizes.hand_bytes,
        "files": [str(path) for path in experiment.corpus.files],
        "stream": experiment.stream[:requests],
        "stops": sorted(heights),
        "trim_requests": 0 if experiment.has_cgroup else TRIM_REQUESTS,
    }
    run = Run(way)
    with Parts(
        task, experiment.directory, sizes.limit_bytes if experiment.has_cgroup else None, sizes.wave_bytes
    ) as parts:
        recorder = _Recorder(run, experiment, parts.group)
        while len(run.requests) < requests and time.monotonic() < deadline_seconds:
            event = parts.event()
            if event is None:
                run.victim = "the worker"
                break
            if len(event) > 1:
                recorder.add(Request(*event))
                if len(run.requests) % SAMPLE_REQUESTS == 0:
                    recorder.sample()
                    watch(run)
            elif event:
                recorder.wave_bytes = int(sizes.wave_bytes * heights[event[0]])
                if not parts.hold(recorder.wave_bytes):
                    run.victim = "the worker" if parts.worker_has_ended() else "a neighbour"
                    break
                parts.go(sizes.shared_bytes - recorder.wave_bytes)
        recorder.finish()
    if run.victim and not run.oom_kills:
        raise RuntimeError(f"{way}: {run.victim} ended at request {len(run.requests):,}, not by the OOM killer")
    return run


class _Recorder:
    """Fills a Run in."""

    def __init__(self, run: Run, experiment: Experiment, group: MemoryCgroup | None) -> None:
        self._run = run
        self._experiment = experiment
        self._group = group
        self._begin_seconds = time.monotonic()
        self._stored_bytes: dict[int, int] = {}
        self.wave_bytes = 0

    def add(self, request: Request) -> None:
        self._run.requests.append(request)
        self._stored_bytes[self._experiment.stream[request.index]] = request.document_bytes

    def sample(self) -> None:
        stored_bytes = sum(self._stored_bytes.values())
        self._run.samples.append(
            Sample(
                index=self._run.requests[-1].index,
                seconds=time.monotonic() - self._begin_seconds,
                usage_bytes=self._group.usage_bytes if self._group else None,
                wave_bytes=self.wave_bytes,
                resident_bytes=self._resident_bytes(stored_bytes),
                stored_bytes=stored_bytes,
            )
        )

    def _resident_bytes(self, stored_bytes: int) -> int | None:
        """The dict keeps all, the hand-sized cache fills its size; for droppable's the kernel is asked.

        Pages that the kernel may take back lie on its lists of file pages; whatever there is no page of a file is ours.
        """
        if self._run.way == "dict":
            return stored_bytes
        if self._run.way == "cachetools":
            return min(stored_bytes, self._experiment.sizes.hand_bytes)
        if self._group is None:
            return None
        stat = self._group.stat()
        prefix, file = ("total_", "total_cache") if self._group.version == 1 else ("", "file")
        listed_bytes = stat[f"{prefix}active_file"] + stat[f"{prefix}inactive_file"]
        return max(0, listed_bytes - stat[file])

    def finish(self) -> None:
        self._run.seconds = time.monotonic() - self._begin_seconds
        if self._group:
            self._run.oom_kills = self._group.oom_kills
            self._run.peak_bytes = self._group.peak_bytes
