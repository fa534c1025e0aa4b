"""Half an hour at full load in full memory: does anything of a cache grow, slow down or drift?

    python benchmarks/soak.py --out soak.json               thirty minutes; needs memory cgroups
    python benchmarks/soak.py --trace FILE ...              a recorded trace instead of requests by Zipf's law
    python benchmarks/soak.py --plot soak.json --to DIRECTORY   draws what was measured, as soak_NAME.svg

Two caches run side by side: the server, which two client processes ask, and a cache in a process of its own, which
two threads use (soak_process.py). Each has a cgroup of 200 MB without swap together with a neighbour, which takes 80
MB for 15 of every 30 seconds. Both play the same requests at full speed, again and again: what is missing is stored,
one in eight with an expiry of some seconds, and now and then a key is deleted. Clients of the server also close their
connections, or go away with a value half sent; threads of the process hold arrays for a while. Sizes come from the
trace, at most 256 KiB, or are 100 B to 64 KiB.

Every five seconds both are asked for their counts, and the system for their memory, mappings and descriptors. The
fifth to tenth minute of thirty is compared with the last five: descriptors, mappings, connections, pinned bytes and
bytes that cannot be dropped must not have grown by more than a tenth (and a little), hits must not have become fewer,
and nor must requests for each second of the processor. (Requests for each second on the clock are drawn, but say as
much of the other programs that run on the machine.) Kills and wrong bytes must be 0, and at its end the cache in the
process has to know where each entry went that was ever stored.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from measure import Goal, write, zipf
from server_pressure import AT_ONCE, LIMIT_BYTES, LOST, PEERS, WAVE_BYTES, Line, Neighbour, running

CLIENTS = 2
WAVE_SECONDS, SAMPLE_SECONDS = 15.0, 5.0
VALUE_MOST_BYTES = 256 << 10
SIZES_BYTES = (100, 400, 1000, 4096, 10_000, 65_536)
KEYS = 60_000
DRIFT_SHARE = 0.1
PARTS = 6
"""Of its time: the second part is compared with the last."""
ALLOWED_MORE = {"descriptors": 4, "connections": 4, "mappings": 200, "pinned_bytes": 4 << 20, "ordinary_bytes": 4 << 20}


# In a client


class SoakClient:
    """One connection after the other, and what they have seen."""

    def __init__(self, path: Path, seed: int) -> None:
        self._path = path
        self._chance = random.Random(seed)
        self._filler = bytes(range(1, 251)) * (VALUE_MOST_BYTES // 250 + 1)
        self._line = Line(path)
        self.requests = self.hits = self.wrong = 0

    def value(self, name: bytes, size: int) -> bytes:
        return (name + self._filler[: max(0, size - 2 * len(name))] + name)[: max(size, 2 * len(name))]

    def batch(self, wanted: dict[bytes, int]) -> None:
        found = self._get(list(wanted))
        commands = []
        for name, size in wanted.items():
            value = self.value(name, size)
            self.requests += 1
            if name in found:
                self.hits += 1
                self.wrong += found[name] != value
            else:
                seconds = self._chance.randrange(1, 20) if self._chance.random() < 0.125 else 0
                commands.append(b"set %s 0 %d %d\r\n%s\r\n" % (name, seconds, len(value), value))
        if self._chance.random() < 0.02:
            commands.append(b"delete " + self._chance.choice(list(wanted)) + b"\r\n")
        self._line.send(b"".join(commands))
        for _ in commands:
            self._line.line()
        if self._chance.random() < 0.001:
            if self._chance.random() < 0.5:
                self._line.send(b"set half 0 0 100000\r\nhalf")
            self._line.close()
            self._line = Line(self._path)

    def _get(self, names: Sequence[bytes]) -> dict[bytes, bytes]:
        self._line.send(b"get " + b" ".join(names) + b"\r\n")
        found: dict[bytes, bytes] = {}
        while (line := self._line.line()) != b"END":
            _, name, _, count = line.split()
            found[name] = self._line.exactly(int(count))
        return found


def requests_of(traces: Sequence[str]) -> tuple[list[int], list[int]]:
    """Keys, and the size of each request's value."""
    if not traces:
        keys = zipf(KEYS, 1_000_000).tolist()
        return keys, [SIZES_BYTES[key % len(SIZES_BYTES)] for key in keys]
    from traces import read

    keys, sizes = [], []
    for number, name in enumerate(traces):
        trace = read(name)
        own = [key + (number << 40) for key in trace.keys.tolist()]
        if trace.sizes is None:
            own_sizes = [SIZES_BYTES[key % len(SIZES_BYTES)] for key in own]
        else:  # a value has one size, or a reader could not know which bytes are right
            first: dict[int, int] = {}
            own_sizes = [first.setdefault(key, min(size, VALUE_MOST_BYTES))
                         for key, size in zip(own, trace.sizes.tolist(), strict=True)]  # fmt: skip
        keys += own
        sizes += own_sizes
    return keys, sizes


def be_client(path: Path, seed: int, seconds: float, traces: Sequence[str]) -> None:
    """Prints requests, hits, wrong values and failed connections."""
    keys, sizes = requests_of(traces)
    client = SoakClient(path, seed)
    at, failed = seed * 7919 % len(keys), 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        wanted = {b"key:%013d" % key: size
                  for key, size in zip(keys[at : at + AT_ONCE], sizes[at : at + AT_ONCE], strict=True)}  # fmt: skip
        try:
            client.batch(wanted)
        except LOST:
            failed += 1
            break
        at += AT_ONCE
        if at >= len(keys):
            at = 0
    print(client.requests, client.hits, client.wrong, failed)


# In the parent


@dataclass(frozen=True)
class Sample:
    """One look. requests, hits and processor_seconds: since the start; ordinary_bytes: what the kernel cannot drop."""

    seconds: float
    processor_seconds: float
    requests: int
    hits: int
    entries: int
    connections: int
    pinned_bytes: int
    resident_bytes: int
    ordinary_bytes: int
    mappings: int
    descriptors: int
    group_bytes: int


class Subject(Protocol):
    """One of the two that are soaked."""

    name: str
    pid: int

    def counts(self) -> dict[str, int]:
        """requests, hits, entries, connections, pinned_bytes."""

    def runs(self) -> bool: ...

    def result(self) -> dict[str, int]:
        """requests, hits, wrong, failed, adrift: when it has ended."""


class Served:
    """The server, and clients outside of its group."""

    name = "server"

    def __init__(self, group: Any, stack: ExitStack, folder: Path, seconds: float, traces: Sequence[str]) -> None:
        self._path = folder / "server"
        command = PEERS[0].command(self._path)
        assert command
        self._server = stack.enter_context(running(group, command, self._path))
        self.pid = self._server.pid
        self._clients = [
            subprocess.Popen(
                [sys.executable, __file__, "--client", str(self._path), str(seed), str(seconds), *traces],
                stdout=subprocess.PIPE,
                text=True,
            )
            for seed in range(CLIENTS)
        ]

    def counts(self) -> dict[str, int]:
        line = Line(self._path)
        line.send(b"stats\r\n")
        found = {}
        while (answer := line.line()) != b"END":
            _, name, *value = answer.decode().split(" ", 2)
            found[name] = value[0] if value else ""
        line.close()
        names = {"requests": "cmd_get", "hits": "get_hits", "entries": "curr_items", "connections": "curr_connections"}
        return {ours: int(found[theirs]) for ours, theirs in names.items()} | {"pinned_bytes": 0}

    def runs(self) -> bool:
        return self._server.poll() is None and any(client.poll() is None for client in self._clients)

    def result(self) -> dict[str, int]:
        if self._server.poll() is not None:
            for client in self._clients:
                client.kill()
        told = [client.communicate()[0].split() for client in self._clients]
        sums = [sum(int(one[place]) for one in told if one) for place in range(4)]
        failed = sum(not one for one in told) + (self._server.poll() is not None)
        return dict(zip(("requests", "hits", "wrong", "failed"), sums, strict=True)) | {"adrift": failed}


class InProcess:
    """A process of the group that has a cache of its own."""

    name = "process"

    def __init__(self, group: Any, seconds: float, traces: Sequence[str]) -> None:
        self._process: subprocess.Popen[str] = group.popen(
            [sys.executable, Path(__file__).with_name("soak_process.py"), str(seconds), *traces],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.pid = self._process.pid
        self._last: dict[str, int] = {}

    def counts(self) -> dict[str, int]:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("look\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise EOFError("the process is gone")
        told: dict[str, int] = json.loads(line)
        if "wrong" in told:
            self._last = told
            raise EOFError("the process has done its work")
        return told

    def runs(self) -> bool:
        return not self._last and self._process.poll() is None

    def result(self) -> dict[str, int]:
        self._process.communicate()
        failed = int(self._process.returncode != 0)
        return self._last or {"requests": 0, "hits": 0, "wrong": 0, "failed": failed, "adrift": failed}


def smaps_rollup(pid: int) -> dict[str, int]:
    """Bytes by the kernel's names."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in lines)}


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def look(subject: Subject, group: Any, start: float) -> Sample:
    counts, rollup = subject.counts(), smaps_rollup(subject.pid)
    return Sample(
        seconds=round(time.monotonic() - start, 1),
        processor_seconds=processor_seconds(subject.pid),
        resident_bytes=rollup["Rss"],
        ordinary_bytes=rollup["Anonymous"] - rollup["LazyFree"],
        mappings=len(Path(f"/proc/{subject.pid}/maps").read_text().splitlines()),
        descriptors=len(os.listdir(f"/proc/{subject.pid}/fd")),
        group_bytes=group.usage_bytes,
        **counts,
    )


def soak(seconds: float, traces: Sequence[str], folder: Path) -> dict[str, Any]:
    from droppable._cgroup import MemoryCgroup

    with ExitStack() as stack:
        groups = [stack.enter_context(MemoryCgroup.create(LIMIT_BYTES)) for _ in range(2)]
        subjects: list[Subject] = [
            Served(groups[0], stack, folder, seconds, traces),
            InProcess(groups[1], seconds, traces),
        ]
        neighbours = [Neighbour(group) for group in groups]
        samples: dict[str, list[Sample]] = {subject.name: [] for subject in subjects}
        start = time.monotonic()
        while any(subject.runs() for subject in subjects):
            for neighbour in neighbours:
                neighbour.take(WAVE_BYTES if (time.monotonic() - start) // WAVE_SECONDS % 2 else 0)
            for subject, group in zip(subjects, groups, strict=True):
                if subject.runs():
                    with suppress(*LOST, OSError):
                        samples[subject.name].append(look(subject, group, start))
            time.sleep(SAMPLE_SECONDS)
        found = {
            subject.name: {**subject.result(), "samples": list(map(asdict, samples[subject.name]))}
            for subject in subjects
        }
        for neighbour in neighbours:
            neighbour.end()
        for subject, group in zip(subjects, groups, strict=True):
            found[subject.name]["oom_kills"] = group.oom_kills
        return {"subjects": found, "limit_bytes": LIMIT_BYTES, "seconds": seconds}


def middle(samples: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.median(sample[name] for sample in samples)


def rate(samples: Sequence[dict[str, Any]], name: str, per: str) -> float:
    """How much of one there was for each of the other."""
    first, last = samples[0], samples[-1]
    return float((last[name] - first[name]) / max(last[per] - first[per], 1))


def judge(report: dict[str, Any]) -> list[Goal]:
    return [goal for name, found in report["subjects"].items() for goal in judge_one(name, found)]


def judge_one(name: str, found: dict[str, Any]) -> list[Goal]:
    samples = found["samples"]
    part = max(2, len(samples) // PARTS)
    early, late = samples[part : 2 * part], samples[-part:]
    bad = [found[kind] for kind in ("oom_kills", "wrong", "failed", "adrift")]
    what = f"{name}: kills, wrong values, failures, entries adrift"
    goals = [Goal(what, "0, 0, 0, 0", ", ".join(map(str, bad)), not any(bad))]
    most = max(sample["group_bytes"] for sample in samples)
    goals.append(
        Goal(f"{name}: memory of the group", f"<= {LIMIT_BYTES >> 20} MB", f"{most >> 20} MB", most <= LIMIT_BYTES)
    )
    for what, little in ALLOWED_MORE.items():
        before, after = middle(early, what), middle(late, what)
        allowed = before * (1 + DRIFT_SHARE) + little
        goals.append(
            Goal(f"{name}: {what}", f"<= {allowed:,.0f}", f"{before:,.0f} then {after:,.0f}", after <= allowed)
        )
    for what, per in (("requests", "processor_seconds"), ("hits", "requests")):
        before, after = rate(early, what, per), rate(late, what, per)
        least = before * (1 - DRIFT_SHARE)
        shown = f"{before:,.5g} then {after:,.5g}"
        goals.append(Goal(f"{name}: {what} by {per}", f">= {least:,.5g}", shown, after >= least))
    return goals


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", action="append", default=[], metavar="FILE", help="see traces.py for the formats")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--plot", type=Path, metavar="JSON", help="measures nothing: draws this")
    parser.add_argument("--to", type=Path, default=Path(), metavar="DIRECTORY", help="where the pictures go")
    parser.add_argument("--client", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        path, seed, seconds, *traces = arguments.client
        be_client(Path(path), int(seed), float(seconds), traces)
        return 0
    if arguments.plot:
        from plots import draw_soak

        print(*draw_soak(json.loads(arguments.plot.read_text()), arguments.to), sep="\n")
        return 0
    from droppable._cgroup import CgroupUnavailableError

    try:
        with tempfile.TemporaryDirectory(prefix="droppable-bench-") as directory:
            report = soak(arguments.minutes * 60, arguments.trace, Path(directory))
    except CgroupUnavailableError as error:
        print(f"SKIP: {error}")
        return 0
    for name, found in report["subjects"].items():
        print(f"{name}: {found['requests']:,} requests, {found['hits'] / max(found['requests'], 1):.3f} hits")
    write(arguments.out, report, judge(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
