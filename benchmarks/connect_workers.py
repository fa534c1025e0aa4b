"""Eight gunicorn workers in one container beside a neighbour: one cache for all of them, or one for each?

    python benchmarks/connect_workers.py                     ten minutes; needs memory cgroups and gunicorn
    python benchmarks/connect_workers.py --ways shared private --requests 500 --out workers.json

Each run has a cgroup of 512 MB of its own, without swap. In it are eight workers (sync, of worker_app.py), the server
of the cache if there is one, and a neighbour. A client outside sends 16 requests at a time. Each asks for a page of
eight fragments of 16 KB, by Zipf's law (0.9) out of 20,000 (320 MB). A fragment that is not kept takes 5 ms to compute
(a sleep, for a query). The requests come in three phases of as many each, and the neighbour holds 256 MB of ordinary
memory for the second one. The order of the ways is drawn anew for each round.

shared       `droppable serve`, and `droppable.connect` in each worker
private      a `droppable.Cache` in each worker
memcached    with the size that fits while the neighbour is away, and with one that leaves room for it

Hits: look-ups that computed nothing, over all. Failed: requests without an answer, because somebody was killed. Each
answer has the checksum of each fragment; one that is not the right one is counted as wrong. Memory: the most that the
cgroup used. Bias: written by those who wrote droppable. Sizes for memcached were chosen by hand for this container, one
on each side of what it survives; droppable is told none.
"""

import argparse
import http.client
import os
import random
import shutil
import socket
import statistics
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from measure import Goal, write, zipf
from server_pressure import MB, PHASES, Neighbour, running
from worker_app import fragment

LIMIT_BYTES, WAVE_BYTES = 512 * MB, 256 * MB
FRAGMENTS, FRAGMENTS_OF_A_PAGE = 20_000, 8
WORKERS, AT_ONCE = 8, 16
REQUESTS = 4_000
"""Of a phase."""
LOST = (OSError, http.client.HTTPException)


@dataclass(frozen=True)
class Way:
    """size_mb: what the cache is told; None: nothing."""

    title: str
    kind: str
    size_mb: int | None = None

    def server(self, path: Path) -> list[str] | None:
        """The command of the cache's server; None: it has none."""
        if self.kind == "shared":
            return [str(Path(sys.executable).with_name("droppable-server")), "--unix", str(path)]
        if self.kind == "memcached":
            program = shutil.which("memcached") or "memcached"
            return [program, "-u", "root", "-s", str(path), "-m", str(self.size_mb)]
        return None


WAYS = {
    "shared": Way("droppable, one for all", "shared"),
    "private": Way("droppable, one a worker", "private"),
    "memcached-small": Way("memcached -m 96", "memcached", 96),
    "memcached-large": Way("memcached -m 256", "memcached", 256),
}


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@dataclass
class Phase:
    """What came out of some requests."""

    answered: int = 0
    failed: int = 0
    hits: int = 0
    computed: int = 0
    wrong: int = 0
    seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)


def ask(path: Path, keys: Sequence[int], phase: Phase) -> None:
    """One page."""
    names = [f"fragment:{key:06d}" for key in keys]
    connection = UnixConnection(path)
    try:
        connection.request("GET", "/" + ",".join(names))
        response = connection.getresponse()
        lines = response.read().decode().splitlines()
        if response.status != 200:
            raise http.client.HTTPException(response.status)
    except LOST:
        with phase.lock:
            phase.failed += 1
        return
    finally:
        connection.close()
    computed = sum(int(line.split()[1]) for line in lines)
    wrong = sum(int(line.split()[0]) != zlib.crc32(fragment(name)) for name, line in zip(names, lines, strict=True))
    with phase.lock:
        phase.answered += 1
        phase.computed += computed
        phase.hits += len(names) - computed
        phase.wrong += wrong


def send(path: Path, pages: Sequence[Sequence[int]]) -> Phase:
    """All of these pages, AT_ONCE at a time."""
    phase = Phase()
    rest = iter(pages)
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                page = next(rest, None)
            if page is None:
                return
            ask(path, page, phase)

    threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    begin = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    phase.seconds = time.monotonic() - begin
    return phase


@dataclass(frozen=True)
class Run:
    """By phase: hits over look-ups, computations, requests a second. Sums of the rest."""

    ratios: list[float]
    computed: list[int]
    requests_per_second: list[int]
    failed: int
    wrong: int
    oom_kills: int
    peak_bytes: int | None


def run(way: Way, requests: int, folder: Path) -> Run:
    from droppable._cgroup import MemoryCgroup

    keys = zipf(FRAGMENTS, requests * len(PHASES) * FRAGMENTS_OF_A_PAGE).tolist()
    pages = [keys[at : at + FRAGMENTS_OF_A_PAGE] for at in range(0, len(keys), FRAGMENTS_OF_A_PAGE)]
    cache, web = folder / "cache", folder / "web"
    command = [sys.executable, "-m", "gunicorn", "--chdir", str(Path(__file__).parent), "--workers", str(WORKERS),
               "--bind", f"unix:{web}", "--log-level", "critical", "worker_app:app"]  # fmt: skip
    with MemoryCgroup.create(LIMIT_BYTES) as group, ExitStack() as stack:
        if server := way.server(cache):
            stack.enter_context(running(group, server, cache))
        os.environ.update(WAY=way.kind, SOCKET=str(cache))
        stack.enter_context(running(group, command, web))
        neighbour = Neighbour(group)
        phases = []
        for number, name in enumerate(PHASES):
            neighbour.take(WAVE_BYTES if name == "during" else 0)
            phases.append(send(web, pages[number * requests : (number + 1) * requests]))
        neighbour.end()
        return Run(
            [round(phase.hits / max(1, phase.hits + phase.computed), 4) for phase in phases],
            [phase.computed for phase in phases],
            [round(phase.answered / phase.seconds) for phase in phases],
            sum(phase.failed for phase in phases),
            sum(phase.wrong for phase in phases),
            group.oom_kills,
            group.peak_bytes,
        )


def show(way: Way, runs: Sequence[Run]) -> None:
    """A row of the table: medians of phases, sums of what must not be."""

    def medians(columns: Sequence[Sequence[float]]) -> list[float]:
        return [statistics.median(column) for column in zip(*columns, strict=True)]

    ratios = ", ".join(f"{ratio:.3f}" for ratio in medians([one.ratios for one in runs]))
    computed = sum(medians([one.computed for one in runs]))
    speeds = ", ".join(f"{speed:.0f}" for speed in medians([one.requests_per_second for one in runs]))
    peak = max((one.peak_bytes or 0) / MB for one in runs)
    kills, failed, wrong = (sum(getattr(one, name) for one in runs) for name in ("oom_kills", "failed", "wrong"))
    print(f"| {way.title} | {ratios} | {computed:,.0f} | {speeds} | {peak:.0f} MB | {kills} | {failed} | {wrong} |",
          flush=True)  # fmt: skip


def judge(runs: dict[str, list[Run]]) -> list[Goal]:
    goals = []
    for name in ("shared", "private"):
        if name in runs:
            bad = sum(one.oom_kills + one.wrong + one.failed for one in runs[name])
            goals.append(Goal(f"{WAYS[name].title}: kills, wrong, failed", "0", str(bad), bad == 0))
    if {"shared", "private"} <= set(runs):
        ours, others = (sum(one.computed[1] for one in runs[name]) for name in ("shared", "private"))
        goals.append(Goal("computations beside the neighbour, one for all", f"<= {others} (one a worker)", str(ours),
                          ours <= others))  # fmt: skip
    return goals


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--requests", type=int, default=REQUESTS, help="of a phase")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    arguments = parser.parse_args()
    from droppable._cgroup import CgroupUnavailableError

    runs: dict[str, list[Run]] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="droppable-bench-") as directory:
            for _ in range(arguments.rounds):
                for name in random.sample(arguments.ways, k=len(arguments.ways)):
                    if WAYS[name].kind == "memcached" and not shutil.which("memcached"):
                        print(f"SKIP {name}: memcached is not installed")
                        continue
                    runs.setdefault(name, []).append(run(WAYS[name], arguments.requests, Path(directory)))
    except CgroupUnavailableError as error:
        print(f"SKIP: {error}")
        return 0
    print("| way | hits before, during, after | computed | requests a second | most memory | kills | failed | wrong |")
    print("|---|---|---|---|---|---|---|---|")
    for name in WAYS:
        if name in runs:
            show(WAYS[name], runs[name])
    print()
    write(arguments.out, {"limit_bytes": LIMIT_BYTES, "runs": {k: [asdict(one) for one in v] for k, v in runs.items()}},
          judge(runs))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
