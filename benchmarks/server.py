"""Commands a second of the server, beside memcached and Redis where they are installed: csrc/tests/bench_server.c asks.

    python benchmarks/server.py                          the whole table: ten minutes
    python benchmarks/server.py --values 65536 --rounds 3 --transports unix

All servers of a cell run at the same time, and one burst asks one of them: in each round every server has its turn, in
another order each time, so that what else the machine does meets them alike. A burst has 16 connections; nine of ten
commands get. Printed are the medians of the rounds, of commands a second and of processor time that a command takes in
the server, and the ratios to the peer: ours by memcached's text protocol beside memcached, ours by RESP beside Redis,
which has one thread. Bias: written by those who wrote droppable.
"""

import argparse
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from core_programs import core_program

CONNECTIONS = 16
DEPTHS = (1, 16)
VALUES_BYTES = (100, 4000, 4096, 65536, 1 << 20)
TRANSPORTS = ("unix", "tcp")
STORED_BYTES = 64 << 20
START_SECONDS = 20.0
NS_PER_SECOND = 10**9
OURS, OURS_RESP, MEMCACHED, REDIS = "droppable", "droppable, RESP", "memcached", "redis-server"
PAIRS = ((OURS, MEMCACHED), (OURS_RESP, REDIS))


@dataclass(frozen=True)
class Server:
    """One server that runs. address: a path, or a port of 127.0.0.1; protocol: what bench_server speaks to it."""

    name: str
    protocol: str
    address: str
    pid: int


@dataclass(frozen=True)
class Burst:
    """Of one server, asked once. cpu_ns: of the server, for a command."""

    per_second: float
    cpu_ns: float
    hits_percent: float
    p999_us: float


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_up(address: str) -> bool:
    family, where = (socket.AF_INET, ("127.0.0.1", int(address))) if address.isdigit() else (socket.AF_UNIX, address)
    with socket.socket(family) as probe:
        try:
            probe.connect(where)
        except OSError:
            return False
    return True


@contextmanager
def running(name: str, protocol: str, command: list[str], address: str) -> Iterator[Server]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not is_up(address):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"{command!r} did not come up")
            time.sleep(0.02)
        yield Server(name, protocol, address, process.pid)
    finally:
        process.terminate()
        process.wait()


def command_of(name: str, address: str, threads: int) -> list[str] | None:
    """None: it is not installed, and it is said."""
    is_tcp = address.isdigit()
    if name in (OURS, OURS_RESP):
        ours = str(Path(sys.executable).with_name("droppable-server"))
        where = ["--listen", f"127.0.0.1:{address}"] if is_tcp else ["--unix", address]
        return [ours, *where, "--threads", str(threads), "--max-value", "2M"]
    program = shutil.which(name)
    if program is None:
        print(f"SKIP {name}: not installed")
        return None
    if name == MEMCACHED:
        where = ["-l", "127.0.0.1", "-p", address] if is_tcp else ["-s", address]
        return [program, "-u", "root", *where, "-t", str(threads), "-m", "1024", "-I", "2m"]
    where = ["--port", address, "--bind", "127.0.0.1"] if is_tcp else ["--port", "0", "--unixsocket", address]
    return [program, *where, "--save", "", "--appendonly", "no"]


def cpu_ns(pid: int) -> int:
    """Processor time of all threads of a process so far."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path("/proc", str(pid), "task").iterdir())


def ask(program: Path, server: Server, value_bytes: int, depth: int, seconds: float) -> Burst:
    """Seconds 0: only stores all keys."""
    keys = max(64, min(100_000, STORED_BYTES // value_bytes))
    arguments = map(str, (server.address, server.protocol, value_bytes, depth, CONNECTIONS, keys, seconds))
    before = cpu_ns(server.pid)
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    used = cpu_ns(server.pid) - before
    if seconds == 0:
        return Burst(0, 0, 0, 0)
    commands, took, hits, _, p999 = map(float, done.stdout.split())
    return Burst(commands / took, used / commands, hits, p999)


@contextmanager
def servers(folder: Path, transport: str, threads: int) -> Iterator[list[Server]]:
    """Those that are compared. Redis has one thread, so it is asked only where the others have one."""
    names = (OURS, OURS_RESP, MEMCACHED, REDIS) if threads == 1 else (OURS, MEMCACHED)
    with ExitStack() as stack:
        started = []
        for number, name in enumerate(names):
            address = str(folder / f"{transport}{threads}.{number}") if transport == "unix" else str(free_port())
            command = command_of(name, address, threads)
            if command:
                protocol = "resp" if name in (OURS_RESP, REDIS) else "text"
                started.append(stack.enter_context(running(name, protocol, command, address)))
        yield started


def compare(
    program: Path, among: list[Server], value_bytes: int, depth: int, what: str, options: argparse.Namespace
) -> None:
    bursts: dict[str, list[Burst]] = {server.name: [] for server in among}
    for _ in range(options.rounds):
        for server in random.sample(among, k=len(among)):
            bursts[server.name].append(ask(program, server, value_bytes, depth, options.seconds))
    rate = {name: statistics.median(burst.per_second for burst in made) for name, made in bursts.items()}
    cpu = {name: statistics.median(burst.cpu_ns for burst in made) for name, made in bursts.items()}
    for ours, peer in PAIRS:
        if ours in rate and peer in rate:
            hits = min(burst.hits_percent for burst in bursts[ours])
            line = f"{what}   rate {rate[ours] / rate[peer]:.2f}  cpu {cpu[ours] / cpu[peer]:.2f}"
            for name in (ours, peer):
                line += f"   {name:15} {rate[name]:9,.0f}/s {cpu[name] / 1000:7.1f} us"
            print(line if hits > 99.9 else f"{line}  hits {hits} %", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="of one burst")
    parser.add_argument("--threads", nargs="+", type=int, default=(1, 2), help="of each server")
    parser.add_argument("--transports", nargs="+", choices=TRANSPORTS, default=TRANSPORTS)
    parser.add_argument("--depths", nargs="+", type=int, default=DEPTHS, help="commands under way of a connection")
    parser.add_argument("--values", nargs="+", type=int, default=VALUES_BYTES, help="bytes of a value")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="droppable-bench-") as directory:
        folder = Path(directory)
        program = core_program("bench_server", folder)
        if program is None:
            sys.exit(1)
        for value_bytes in options.values:
            for transport in options.transports:
                for threads in options.threads:
                    with servers(folder, transport, threads) as among:
                        for server in among:
                            ask(program, server, value_bytes, 1, 0)
                        for depth in options.depths:
                            what = f"{value_bytes:8,} B  depth {depth:2}  {transport:4}  threads {threads}"
                            compare(program, among, value_bytes, depth, what, options)


if __name__ == "__main__":
    main()
