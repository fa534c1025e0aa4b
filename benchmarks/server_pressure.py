"""A server that fills its container, and a neighbour that wants memory: hits, and who is killed, beside its peers.

    python benchmarks/server_pressure.py                     eight minutes; needs memory cgroups
    python benchmarks/server_pressure.py --values 4096 --rounds 1 --out pressure.json

Each run has a cgroup of 200 MB of its own, without swap, and in it a server and a neighbour. A client outside asks for
keys by Zipf's law (0.9) out of 375 MB of values, 32 at a time, and stores what was missing. The requests come in three
phases of as many each; the neighbour holds 80 MB of ordinary memory for the second one. In the runs that are called
`idle` the client fills the server and stops asking, and then the neighbour takes 150 MB, which leaves less than the
smallest size that a peer has here.

The peers are memcached and Redis with the sizes that somebody could give them: one that leaves room for the neighbour,
one that leaves room for the server's own overhead, and one that is as large as the values. droppable is given no size.

Hits are those of each phase over its requests; the first phase begins with an empty server. A value that is not the
right one is counted as wrong. Bias: written by those who wrote droppable; misses cost nothing but the request.
"""

import argparse
import mmap
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from measure import Goal, write, zipf

MB = 1 << 20
LIMIT_BYTES, WAVE_BYTES, IDLE_WAVE_BYTES = 200 * MB, 80 * MB, 150 * MB
VALUES_BYTES = 375 * MB
REQUESTS = {400: 1_200_000, 4096: 240_000, 61440: 20_000}
"""Bytes of a value: requests of a phase."""
AT_ONCE = 32
PHASES = ("before", "during", "after")
IDLE = "idle"
START_SECONDS = 20.0
OURS = "droppable"
LOST = (ConnectionError, EOFError)


# What speaks to a server


class Client(Protocol):
    """Look-aside, in batches: brings what is there, and stores what is given."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]: ...
    def set(self, values: dict[bytes, bytes]) -> None: ...


class Line:
    """A connection that is read by lines and by lengths."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rb", buffering=MB)

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def line(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError("the server is gone")
        return line[:-2]

    def exactly(self, count: int) -> bytes:
        data = self._file.read(count + 2)
        if len(data) != count + 2:
            raise EOFError("the server is gone")
        return data[:-2]


class Memcached:
    """memcached's text protocol."""

    def __init__(self, path: Path) -> None:
        self._line = Line(path)

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._line.send(b"get " + b" ".join(keys) + b"\r\n")
        found: dict[bytes, bytes] = {}
        while (line := self._line.line()) != b"END":
            _, key, _, count = line.split()
            found[key] = self._line.exactly(int(count))
        return [found.get(key) for key in keys]

    def set(self, values: dict[bytes, bytes]) -> None:
        self._line.send(
            b"".join(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value) for key, value in values.items())
        )
        for _ in values:
            self._line.line()


class Redis:
    """RESP2."""

    def __init__(self, path: Path) -> None:
        self._line = Line(path)

    @staticmethod
    def _command(*words: bytes) -> bytes:
        return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._line.send(self._command(b"MGET", *keys))
        count = int(self._line.line()[1:])
        return [self._bulk() for _ in range(count)]

    def _bulk(self) -> bytes | None:
        count = int(self._line.line()[1:])
        return None if count < 0 else self._line.exactly(count)

    def set(self, values: dict[bytes, bytes]) -> None:
        self._line.send(b"".join(self._command(b"SET", key, value) for key, value in values.items()))
        for _ in values:
            self._line.line()


# The servers


@dataclass(frozen=True)
class Peer:
    """A server as somebody would start it. size_mb: what it is told; None: nothing."""

    name: str
    client: type[Memcached] | type[Redis]
    size_mb: int | None

    def command(self, path: Path) -> list[str] | None:
        """None: the program is not here."""
        if self.size_mb is None:
            return [str(Path(sys.executable).with_name("droppable-server")), "--unix", str(path)]
        program = shutil.which("memcached" if self.client is Memcached else "redis-server")
        if program is None:
            return None
        if self.client is Memcached:
            return [program, "-u", "root", "-s", str(path), "-m", str(self.size_mb)]
        return [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--appendonly", "no",
                "--maxmemory", f"{self.size_mb}mb", "--maxmemory-policy", "allkeys-lru"]  # fmt: skip


PEERS = (
    Peer(OURS, Memcached, None),
    *(Peer(f"memcached -m {size}", Memcached, size) for size in (64, 150, 1024)),
    *(Peer(f"Redis maxmemory {size}mb", Redis, size) for size in (64, 150)),
)


@contextmanager
def running(group: Any, command: Sequence[str], path: Path) -> Iterator[subprocess.Popen[bytes]]:
    path.unlink(missing_ok=True)
    process: subprocess.Popen[bytes] = group.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not path.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{' '.join(command)}: did not come up; run it by hand to see why")
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        process.wait()


class Neighbour:
    """A process in the group that takes ordinary memory when it is told, and gives it back."""

    def __init__(self, group: Any) -> None:
        self._process: subprocess.Popen[str] = group.popen(
            [sys.executable, __file__, "--neighbour"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def take(self, count: int) -> None:
        """Holds so many bytes from now on. It may be killed for it, and is counted then."""
        assert self._process.stdin
        assert self._process.stdout
        try:
            self._process.stdin.write(f"{count}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return
        self._process.stdout.readline()

    def end(self) -> None:
        assert self._process.stdin
        with suppress(BrokenPipeError):  # it was killed
            self._process.stdin.close()
        self._process.wait()


def be_neighbour() -> None:
    held: mmap.mmap | None = None
    for line in sys.stdin:
        if held is not None:
            held.close()
            held = None
        if count := int(line):
            held = mmap.mmap(-1, count, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            for at in range(0, count, mmap.PAGESIZE):
                held[at] = 1
        print("done", flush=True)


# One run


@dataclass(frozen=True)
class Run:
    """ratios: hits over requests of the phases that it lived through."""

    ratios: tuple[float, ...]
    wrong: int
    oom_kills: int
    requests_per_second: float


def ask(client: Client, keys: Sequence[int], value_bytes: int) -> tuple[int, int]:
    """Hits, and values that were not the right ones."""
    hits = wrong = 0
    filler = bytes(range(1, 251)) * (value_bytes // 250 + 1)
    for at in range(0, len(keys), AT_ONCE):
        names = [b"key:%010d" % key for key in dict.fromkeys(keys[at : at + AT_ONCE])]
        missing = {}
        for name, value in zip(names, client.get(names), strict=True):
            expected = name + filler[: value_bytes - 2 * len(name)] + name
            if value is None:
                missing[name] = expected
            else:
                hits += 1
                wrong += value != expected
        hits += len(keys[at : at + AT_ONCE]) - len(names)  # asked twice in one batch: the client has it
        if missing:
            client.set(missing)
    return hits, wrong


def play(peer: Peer, path: Path, group: Any, value_bytes: int, situation: str) -> Run:
    count = REQUESTS[value_bytes]
    keys = zipf(VALUES_BYTES // value_bytes, count * len(PHASES)).tolist()
    client = peer.client(path)
    neighbour = Neighbour(group)
    ratios, wrong = [], 0
    start = time.monotonic()
    try:
        for number, phase in enumerate(PHASES):
            if situation == IDLE and phase == "during":
                neighbour.take(IDLE_WAVE_BYTES)
            elif situation != IDLE:
                neighbour.take(WAVE_BYTES if phase == "during" else 0)
            hits, more_wrong = ask(client, keys[number * count : (number + 1) * count], value_bytes)
            ratios.append(round(hits / count, 4))
            wrong += more_wrong
            if situation == IDLE and phase == "during":
                break
    except LOST:
        pass  # killed: the count of the group tells
    seconds = time.monotonic() - start
    neighbour.end()
    return Run(tuple(ratios), wrong, group.oom_kills, round(len(ratios) * count / seconds))


def run(peer: Peer, value_bytes: int, situation: str, folder: Path) -> Run | None:
    from droppable._cgroup import MemoryCgroup

    path = folder / "server"
    command = peer.command(path)
    if command is None:
        return None
    with MemoryCgroup.create(LIMIT_BYTES) as group, running(group, command, path):
        return play(peer, path, group, value_bytes, situation)


# All runs


@dataclass(frozen=True)
class Row:
    """One peer, size of value and situation: median hit ratio by phase of the runs that lived, and sums."""

    situation: str
    value_bytes: int
    peer: str
    ratios: list[float]
    killed_runs: int
    wrong: int
    runs: list[Run]


def row(situation: str, value_bytes: int, peer: Peer, runs: list[Run]) -> Row:
    lived = [one.ratios for one in runs if one.oom_kills == 0]
    ratios = [round(statistics.median(column), 3) for column in zip(*lived, strict=True)]
    killed = sum(one.oom_kills > 0 for one in runs)
    made = Row(situation, value_bytes, peer.name, ratios, killed, sum(one.wrong for one in runs), runs)
    shown = " / ".join(f"{ratio:.3f}" for ratio in ratios) or "killed each time"
    print(f"{situation:<6}{value_bytes:>6} B  {peer.name:<22}{shown:<24} killed in {killed} of {len(runs)}"
          f"  wrong {made.wrong}", flush=True)  # fmt: skip
    return made


def judge(rows: Sequence[Row]) -> list[Goal]:
    goals = []
    for ours in rows:
        if ours.peer != OURS:
            continue
        what = f"server, {ours.situation}, {ours.value_bytes} B"
        goals.append(Goal(f"{what}: kills, wrong values", "0, 0", f"{ours.killed_runs}, {ours.wrong}",
                          ours.killed_runs == ours.wrong == 0))  # fmt: skip
        rivals = [
            one
            for one in rows
            if one.peer != OURS
            and (one.situation, one.value_bytes) == (ours.situation, ours.value_bytes)
            and not one.killed_runs
        ]
        if ours.situation == IDLE or not rivals or not ours.ratios:
            continue
        for number, phase in enumerate(PHASES):
            best = max(rivals, key=lambda one: one.ratios[number])
            goals.append(Goal(f"{what}: hits {phase}", f">= {best.ratios[number]:.3f} ({best.peer})",
                              f"{ours.ratios[number]:.3f}", ours.ratios[number] >= best.ratios[number]))  # fmt: skip
    return goals


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--values", nargs="+", type=int, choices=REQUESTS, default=list(REQUESTS), help="bytes")
    parser.add_argument("--situations", nargs="+", choices=("wave", IDLE), default=("wave", IDLE))
    parser.add_argument("--peers", nargs="+", choices=[peer.name for peer in PEERS], help="these peers only")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--neighbour", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.neighbour:
        be_neighbour()
        return 0
    from droppable._cgroup import CgroupUnavailableError

    peers = [peer for peer in PEERS if not arguments.peers or peer.name in arguments.peers]
    rows = []
    try:
        with tempfile.TemporaryDirectory(prefix="droppable-bench-") as directory:
            for situation in arguments.situations:
                for value_bytes in arguments.values:
                    runs: dict[Peer, list[Run]] = {peer: [] for peer in peers}
                    for _ in range(arguments.rounds):
                        for peer in random.sample(peers, k=len(peers)):
                            done = run(peer, value_bytes, situation, Path(directory))
                            if done is None:
                                print(f"SKIP {peer.name}: not installed")
                            else:
                                runs[peer].append(done)
                    rows += [row(situation, value_bytes, peer, made) for peer, made in runs.items() if made]
    except CgroupUnavailableError as error:
        print(f"SKIP: {error}")
        return 0
    print()
    write(arguments.out, {"limit_bytes": LIMIT_BYTES, "rows": [asdict(one) for one in rows]}, judge(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
