"""Another process takes the whole memory limit at full speed, while a cache serves: who survives, and who waits?

    python benchmarks/cache_antagonist.py                     six minutes; needs memory cgroups
    python benchmarks/cache_antagonist.py --out antagonist.json

Each run has a cgroup of its own, of 256 MB without swap, and in it two processes (antagonist_parts.py): a worker that
serves requests by Zipf's law (0.9; values of 64 KB, three times the limit in all) through a cache, as fast as it can;
and an antagonist that writes so many pages that with what the processes themselves need 95 % of the limit is taken.
It holds them for a moment, gives them back, waits until the cache has grown again, and comes back.

Ways: no cache at all (the worker computes every answer anew); droppable; values read from a file, so that what fills
the cgroup is clean page cache, which costs the kernel least to take; an LRU in a dict that looks at the cgroup's
usage every 100 ms, or every second, and evicts down to 80 % of the limit when more than 90 % is used; an LRU of fixed
size, half of the limit or a fiftieth. And droppable with no antagonist and memory to spare, as the control for
stalls. The ways take turns; what is compared is compared within a round.

Kills: processes that the OOM killer ended; a run is over then. Speed: the antagonist's bytes a second over that in
the same round's run with no cache, waits for a processor that others had taken off (run_delay). Stalls: percentiles
are medians over the runs, the worst is that of all runs. `own` is less these waits too; all reclaim inside the call
is in it.

Bias: written by those who wrote droppable. To be fair to the dicts their values come from mappings of their own
(MALLOC_MMAP_THRESHOLD_), so that what they evict goes back to the kernel at once, and they look at the whole cgroup,
which is more than a process's RSS tells.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from antagonist_parts import AT_ONCE_BYTES, VALUE_BYTES
from measure import Goal, write

LIMIT_BYTES = 256 << 20
FREE_BYTES = 2 << 30
TAKEN = 0.95
KEYS = 3 * LIMIT_BYTES // VALUE_BYTES
NONE, DROPPABLE, FILE, CONTROL = "none", "droppable", "file", "droppable, no antagonist"
WAYS = (NONE, DROPPABLE, FILE, "poll 0.1", "poll 1", "fixed 0.5", "fixed 0.02", CONTROL)
TITLES = {
    NONE: "no cache", DROPPABLE: "droppable", FILE: "a file, in the page cache",
    "poll 0.1": "dict, polls every 100 ms", "poll 1": "dict, polls every 1 s",
    "fixed 0.5": "dict, fixed at 1/2 of the limit", "fixed 0.02": "dict, fixed at 1/50", CONTROL: CONTROL,
}  # fmt: skip
FILL_SECONDS, SETTLE_SECONDS, HOLD_SECONDS, REGROW_SECONDS, ANSWER_SECONDS = 6.0, 0.3, 0.3, 1.0, 20.0
SAMPLE_SECONDS = 0.02
STALL_NS = 1_000_000


class Part:
    """One process in the group."""

    def __init__(self, group: Any, *arguments: object) -> None:
        command = [sys.executable, str(Path(__file__).with_name("antagonist_parts.py")), *map(str, arguments)]
        environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "32768", "MALLOC_ARENA_MAX": "1"}
        self.process: subprocess.Popen[str] = group.popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def tell(self) -> None:
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it is gone; the one who waits for its answer will see
            self.process.stdin.write("\n")
            self.process.stdin.flush()

    def answer(self) -> str:
        """A line; nothing when it is gone or does not answer in time."""
        assert self.process.stdout
        late = threading.Timer(ANSWER_SECONDS, self.process.kill)
        late.start()
        try:
            line = self.process.stdout.readline()
        finally:
            late.cancel()
        return line if line.endswith("\n") else ""

    def resident_bytes(self) -> int:
        try:
            return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            return 0


class Sampler:
    """What both hold and what the group uses, over time: [seconds, worker, antagonist, group] in bytes."""

    def __init__(self, group: Any, worker: Part, antagonist: Part) -> None:
        self.samples: list[list[float]] = []
        self._of = group, worker, antagonist
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()

    def _sample(self) -> None:
        group, worker, antagonist = self._of
        start = time.monotonic()
        while not self._over.wait(SAMPLE_SECONDS):
            seconds = round(time.monotonic() - start, 3)
            self.samples.append([seconds, worker.resident_bytes(), antagonist.resident_bytes(), group.usage_bytes])

    def stop(self) -> list[list[float]]:
        self._over.set()
        self._thread.join()
        return self.samples


def settled(group: Any, worker: Part) -> None:
    """Waits until the group's usage grows no more, or the time is over, or the worker is gone."""
    deadline = time.monotonic() + FILL_SECONDS
    before_bytes = 0
    while time.monotonic() < deadline and worker.process.poll() is None:
        usage_bytes = group.usage_bytes
        if usage_bytes < before_bytes + (1 << 20):
            return
        before_bytes = usage_bytes
        time.sleep(SETTLE_SECONDS)


def run(way: str, waves: int) -> dict[str, Any]:
    from droppable._cgroup import MemoryCgroup

    has_antagonist = way != CONTROL
    limit_bytes = LIMIT_BYTES if has_antagonist else FREE_BYTES
    with MemoryCgroup.create(limit_bytes) as group:
        worker = Part(group, "worker", DROPPABLE if way == CONTROL else way, group.path, limit_bytes, KEYS)
        worker.answer()
        first = Part(group, "antagonist", AT_ONCE_BYTES)
        first.answer()
        base_bytes = group.usage_bytes
        first.process.kill()
        first.process.wait()
        wanted_bytes = int(TAKEN * LIMIT_BYTES - base_bytes) // AT_ONCE_BYTES * AT_ONCE_BYTES
        antagonist = Part(group, "antagonist", wanted_bytes)
        antagonist.answer()
        sampler = Sampler(group, worker, antagonist)
        worker.tell()
        settled(group, worker)
        speeds = []
        for _ in range(waves):
            if has_antagonist:
                antagonist.tell()
                line = antagonist.answer()
                if not line or group.oom_kills:
                    break
                speeds.append([wanted_bytes / seconds for seconds in json.loads(line)])
            time.sleep(HOLD_SECONDS)
            if has_antagonist:
                antagonist.tell()
                antagonist.answer()
            if group.oom_kills:
                break
            time.sleep(REGROW_SECONDS)
        samples = sampler.stop()
        worker.process.terminate()
        line = worker.answer()
        report = json.loads(line) if line else {}
        return {
            "way": way, "kills": group.oom_kills, "killed": who(worker, antagonist) if group.oom_kills else "",
            "speeds": speeds, "wanted_bytes": wanted_bytes, "samples": samples, **report,
        }  # fmt: skip


def who(worker: Part, antagonist: Part) -> str:
    gone = [name for name, part in (("cache", worker), ("antagonist", antagonist)) if part.process.poll() == -9]
    return " and ".join(gone) or "another process"


def speed(one: dict[str, Any]) -> float | None:
    """Bytes a second of the run's waves, without waits for a processor: their median."""
    return statistics.median(own for _, own in one["speeds"]) if one["speeds"] else None


def summary(rounds: Sequence[dict[str, dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """One row for each way."""
    for way in rounds[0]:
        runs = [one[way] for one in rounds]
        against = [
            mine / bare for one in rounds if (mine := speed(one[way])) and NONE in one and (bare := speed(one[NONE]))
        ]
        served = [one for one in runs if "stalls" in one]
        stalls = {
            name: {
                key: (max if key == "worst_ns" else statistics.median)(one["stalls"][name][key] for one in served)
                for key in ("p50_ns", "p99_ns", "p999_ns", "worst_ns")
            }
            for name in (served[0]["stalls"] if served else ())
        }
        speeds = [found for one in runs if (found := speed(one))]
        yield {
            "way": way, "title": TITLES[way], "runs": len(runs), "kills": sum(one["kills"] for one in runs),
            "killed": ", ".join(sorted({one["killed"] for one in runs if one["killed"]})),
            "waves": sum(len(one["speeds"]) for one in runs),
            "bytes_per_second": statistics.median(speeds) if speeds else None,
            "speed_ratio": statistics.median(against) if against else None,
            "speed_ratios": [round(ratio, 3) for ratio in against],
            "hit_ratio": statistics.median(one["hits"] / one["requests"] for one in served) if served else None,
            "requests": statistics.median(one["requests"] for one in served) if served else None,
            "refused": sum(one["refused"] for one in served), "wrong": sum(one["wrong"] for one in served),
            "stalls": stalls,
        }  # fmt: skip


def show(row: dict[str, Any]) -> None:
    ratio = "-" if row["speed_ratio"] is None else f"{row['speed_ratio']:.2f}"
    hits = "-" if row["hit_ratio"] is None else f"{row['hit_ratio']:.3f}"
    line = f"{row['title']:<32}{row['kills']} kills ({row['killed'] or 'nobody'}), speed {ratio}, hits {hits}"
    if row["stalls"]:
        get, put = row["stalls"]["get_own"], row["stalls"]["set_own"]
        line += f", p99.9 of get {get['p999_ns'] / 1e3:,.0f} us, worst insert {put['worst_ns'] / 1e3:,.0f} us"
    print(line, row["speed_ratios"], f"refused {row['refused']}", flush=True)


def judge(rows: Sequence[dict[str, Any]]) -> Iterator[Goal]:
    by_way = {row["way"]: row for row in rows}
    ours, control = by_way[DROPPABLE], by_way[CONTROL]
    others = ", ".join(f"{row['title']} {row['kills']} in {row['runs']} runs" for row in rows
                       if row["way"] not in (DROPPABLE, NONE, FILE, CONTROL))  # fmt: skip
    kills = ours["kills"] + control["kills"]
    yield Goal("antagonist, OOM kills", "0", f"{kills} in {ours['runs']} runs; {others}", kills == 0)
    ratio = ours["speed_ratio"]
    what, goal = "antagonist, its speed", ">= 0.9 of that with no cache"
    if ratio is None:
        yield Goal(what, goal, "no wave came to its end", False)
    else:
        spread = f"{min(ours['speed_ratios']):.2f} to {max(ours['speed_ratios']):.2f}"
        file = by_way[FILE]["speed_ratio"] if FILE in by_way else None
        beside = f"; page cache in its place {file:.2f}" if file else ""
        measured = f"{ratio:.2f} ({spread}){beside}; {ours['bytes_per_second'] / 1e9:.2f} GB/s"
        yield Goal(what, goal, measured, ratio >= 0.9)
    for name, call, percentile in (("p99.9 of get", "get", "p999_ns"), ("worst insert", "set", "worst_ns")):
        if not ours["stalls"]:
            yield Goal(f"antagonist, {name}", "<= 1 ms", "killed", False)
            continue
        own, bare, wall = (
            of["stalls"][f"{call}_{clock}"][percentile] / 1e3
            for of, clock in ((ours, "own"), (control, "own"), (ours, "wall"))
        )
        measured = (
            f"{own:,.0f} us, {own / max(bare, 0.001):.1f} times that without pressure ({bare:,.0f}); "
            f"with waits for a processor {wall:,.0f}"
        )
        yield Goal(f"antagonist, {name}", "<= 1 ms", measured, own * 1e3 <= STALL_NS)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--waves", type=int, default=4, help="in a run (%(default)s)")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    arguments = parser.parse_args()
    from droppable._cgroup import CgroupUnavailableError

    rounds = []
    try:
        for _ in range(arguments.rounds):
            rounds.append({way: run(way, arguments.waves) for way in WAYS if way in arguments.ways})
    except CgroupUnavailableError as error:
        print(f"SKIP: {error}")
        return 0
    rows = list(summary(rounds))
    for row in rows:
        show(row)
    timeline = {way: one["samples"] for way, one in rounds[0].items()}
    goals = list(judge(rows)) if {DROPPABLE, CONTROL} <= set(arguments.ways) else []
    write(arguments.out, {"limit_bytes": LIMIT_BYTES, "rows": rows, "timeline": timeline}, goals)
    return 0


if __name__ == "__main__":
    sys.exit(main())
