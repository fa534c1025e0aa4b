"""A day of traffic in twenty minutes: does the server stay within its limit, and does anything in it grow?

    python benchmarks/server_soak.py --trace FILE ...       twenty minutes; needs memory cgroups
    python benchmarks/server_soak.py --minutes 2            requests by Zipf's law instead of a recorded trace

A cgroup of 200 MB without swap has the server and a neighbour, which takes 80 MB for 15 of every 30 seconds. Several
client processes outside play the trace at full speed, each from another place in it, again and again: a batch of 32
keys is asked for, and what is missing is stored, one in eight with an expiry of some seconds. Now and then a client
deletes a key, closes its connection and opens another one, or goes away with a value half sent. Sizes come from the
trace, at most 256 KiB, or are 100 B to 64 KiB.

Every five seconds the server is asked for its statistics, and the system for its resident memory and descriptors. The
last quarter of the run is compared with the second one: descriptors, bytes that cannot be dropped, connections and
requests a second must not have moved by more than a tenth (and a little). Kills and wrong bytes must be 0.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from measure import Goal, write, zipf
from server_pressure import AT_ONCE, LIMIT_BYTES, LOST, PEERS, WAVE_BYTES, Line, Neighbour, running

CLIENTS = 2
WAVE_SECONDS, SAMPLE_SECONDS = 15.0, 5.0
VALUE_MOST_BYTES = 256 << 10
SIZES_BYTES = (100, 400, 1000, 4096, 10_000, 65_536)
KEYS = 60_000
DRIFT_SHARE = 0.1


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
    """One look at the server. ordinary_bytes: resident memory that the kernel cannot drop."""

    seconds: float
    resident_bytes: int
    ordinary_bytes: int
    descriptors: int
    connections: int
    entries: int
    requests: int
    group_bytes: int


def statistics_of(path: Path) -> dict[str, str]:
    line = Line(path)
    line.send(b"stats\r\n")
    found = {}
    while (answer := line.line()) != b"END":
        _, name, *value = answer.decode().split(" ", 2)
        found[name] = value[0] if value else ""
    line.close()
    return found


def smaps_rollup(pid: int) -> dict[str, int]:
    """Bytes by the kernel's names."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in lines)}


def look(path: Path, pid: int, group: Any, start: float) -> Sample:
    stats, rollup = statistics_of(path), smaps_rollup(pid)
    return Sample(
        round(time.monotonic() - start, 1), rollup["Rss"], rollup["Anonymous"] - rollup["LazyFree"],
        len(os.listdir(f"/proc/{pid}/fd")), int(stats["curr_connections"]), int(stats["curr_items"]),
        int(stats["cmd_get"]), group.usage_bytes,
    )  # fmt: skip


def soak(seconds: float, traces: Sequence[str], folder: Path) -> dict[str, Any]:
    from droppable._cgroup import MemoryCgroup

    path = folder / "server"
    command = PEERS[0].command(path)
    assert command
    samples: list[Sample] = []
    with MemoryCgroup.create(LIMIT_BYTES) as group, running(group, command, path) as server:
        neighbour = Neighbour(group)
        clients = [
            subprocess.Popen(
                [sys.executable, __file__, "--client", str(path), str(seed), str(seconds), *traces],
                stdout=subprocess.PIPE,
                text=True,
            )
            for seed in range(CLIENTS)
        ]
        start = time.monotonic()
        try:
            while any(client.poll() is None for client in clients) and server.poll() is None:
                elapsed = time.monotonic() - start
                neighbour.take(WAVE_BYTES if elapsed // WAVE_SECONDS % 2 else 0)
                with suppress(*LOST):
                    samples.append(look(path, server.pid, group, start))
                time.sleep(SAMPLE_SECONDS)
        finally:
            for client in clients:
                if server.poll() is not None:
                    client.kill()
            told = [client.communicate()[0].split() for client in clients]
        died = server.poll() is not None
        neighbour.end()
        sums = [sum(int(one[place]) for one in told if one) for place in range(4)]
        seen = dict(zip(("requests", "hits", "wrong", "failed"), sums, strict=True))
        return {"samples": [asdict(one) for one in samples], **seen, "oom_kills": group.oom_kills, "died": died}


def middle(samples: Sequence[dict[str, Any]], name: str) -> float:
    return statistics.median(sample[name] for sample in samples)


def rate(samples: Sequence[dict[str, Any]]) -> float:
    """Requests a second."""
    first, last = samples[0], samples[-1]
    return float((last["requests"] - first["requests"]) / max(last["seconds"] - first["seconds"], 1))


def judge(report: dict[str, Any]) -> list[Goal]:
    samples = report["samples"]
    quarter = max(2, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    bad = (report["oom_kills"], report["wrong"], report["failed"], int(report["died"]))
    goals = [
        Goal(
            "soak: kills, wrong values, failed connections, ended", "0, 0, 0, 0", ", ".join(map(str, bad)), not any(bad)
        )
    ]
    most = max(sample["group_bytes"] for sample in samples)
    goals.append(
        Goal("soak: memory of the group", f"<= {LIMIT_BYTES >> 20} MB", f"{most >> 20} MB", most <= LIMIT_BYTES)
    )
    for name, little in (("descriptors", 4), ("connections", 4), ("ordinary_bytes", 2 << 20)):
        before, after = middle(early, name), middle(late, name)
        allowed = before * (1 + DRIFT_SHARE) + little
        goals.append(Goal(f"soak: {name}", f"<= {allowed:,.0f}", f"{before:,.0f} then {after:,.0f}", after <= allowed))
    before, after = rate(early), rate(late)
    least = before * (1 - DRIFT_SHARE)
    shown = f"{before:,.0f} then {after:,.0f}"
    goals.append(Goal("soak: requests a second", f">= {least:,.0f}", shown, after >= least))
    return goals


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", action="append", default=[], metavar="FILE", help="see traces.py for the formats")
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--client", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        path, seed, seconds, *traces = arguments.client
        be_client(Path(path), int(seed), float(seconds), traces)
        return 0
    from droppable._cgroup import CgroupUnavailableError

    try:
        with tempfile.TemporaryDirectory(prefix="droppable-bench-") as directory:
            report = soak(arguments.minutes * 60, arguments.trace, Path(directory))
    except CgroupUnavailableError as error:
        print(f"SKIP: {error}")
        return 0
    print(f"{report['requests']:,} requests, {report['hits'] / max(report['requests'], 1):.3f} hits")
    write(arguments.out, report, judge(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
