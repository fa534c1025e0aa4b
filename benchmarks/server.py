"""Commands a second of the server, beside memcached and Redis where they are installed: csrc/tests/bench_server.c asks.

    python benchmarks/server.py                     every value size and depth, one thread a server, five rounds
    python benchmarks/server.py --rounds 3 --values 100,65536

Each round starts one server after the other, in another order each time, on a unix socket, and asks it alone. Printed
are the medians of the rounds and the ratio to the peer: nine of ten commands get, sixteen connections.
"""

import argparse
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from core_programs import core_program

CONNECTIONS = 16
DEPTHS = (1, 16)
VALUES_BYTES = (100, 4000, 4096, 65536)
STORED_BYTES = 64 << 20
START_SECONDS = 20.0


@dataclass(frozen=True)
class Server:
    """One server that runs. protocol: what bench_server speaks to it."""

    name: str
    protocol: str
    address: Path


def wait_for(address: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not address.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"{process.args!r} did not come up")
        time.sleep(0.02)


@contextmanager
def running(name: str, protocol: str, command: list[str], address: Path) -> Iterator[Server]:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        wait_for(address, process)
        yield Server(name, protocol, address)
    finally:
        process.terminate()
        process.wait()


def commands(folder: Path, threads: int) -> list[tuple[str, str, list[str], Path]]:
    """What can be started here. A peer that is not installed is left out, and it is said."""
    ours = str(Path(sys.executable).with_name("droppable-server"))
    found = []
    for name, protocol in (("droppable", "text"), ("droppable, RESP", "resp")):
        address = folder / f"{protocol}.droppable"
        found.append((name, protocol, [ours, "--unix", str(address), "--threads", str(threads)], address))
    for peer, protocol in (("memcached", "text"), ("redis-server", "resp")):
        program = shutil.which(peer)
        if program is None:
            print(f"SKIP {peer}: not installed")
            continue
        address = folder / peer
        if peer == "memcached":
            command = [program, "-u", "root", "-s", str(address), "-t", str(threads), "-m", "1024"]
        else:
            command = [program, "--port", "0", "--unixsocket", str(address), "--save", "", "--appendonly", "no"]
        found.append((peer, protocol, command, address))
    return found


def ask(program: Path, server: Server, value_bytes: int, depth: int, seconds: float) -> float:
    keys = max(100, min(100_000, STORED_BYTES // value_bytes))
    arguments = map(str, (server.address, server.protocol, value_bytes, depth, CONNECTIONS, keys, seconds))
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description="Commands a second of the server and its peers.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of one run")
    parser.add_argument("--threads", type=int, default=1, help="of each server")
    parser.add_argument("--values", default=",".join(map(str, VALUES_BYTES)), help="bytes, with commas between")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        program = core_program("bench_server", folder)
        if program is None:
            sys.exit(1)
        for value_bytes in map(int, options.values.split(",")):
            for depth in DEPTHS:
                compare(program, folder, value_bytes, depth, options)


def compare(program: Path, folder: Path, value_bytes: int, depth: int, options: argparse.Namespace) -> None:
    rates: dict[str, list[float]] = {}
    started = commands(folder, options.threads)
    for _ in range(options.rounds):
        for name, protocol, command, address in random.sample(started, k=len(started)):
            address.unlink(missing_ok=True)
            with running(name, protocol, command, address) as server:
                rates.setdefault(name, []).append(ask(program, server, value_bytes, depth, options.seconds))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    line = f"{value_bytes:6} B, depth {depth:2}"
    for name, median in medians.items():
        line += f"   {name} {median:,.0f}/s"
    for ours, peer in (("droppable", "memcached"), ("droppable, RESP", "redis-server")):
        if peer in medians:
            line += f"   {ours} / {peer} {medians[ours] / medians[peer]:.2f}"
    print(line, flush=True)


if __name__ == "__main__":
    main()
