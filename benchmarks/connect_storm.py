"""Reads of a server's memory by the hundred million, while servers are stopped and killed: is any byte ever wrong?

    python benchmarks/connect_storm.py                     half an hour; builds a program of the C core
    python benchmarks/connect_storm.py --reads 2000000 --kills 5
    python benchmarks/connect_storm.py --group /sys/fs/cgroup/memory/NAME/cgroup.procs    with its memory squeezed

csrc/tests/bench_reader.c: four processes read and compare every byte of every hit with what key and version say; the
owner of the memory has two threads that store, touch and delete, and one that has the kernel drop pages, clears and
marks. It is stopped for two seconds and killed in turn, and another one takes its place.

Bias: written by those who wrote droppable. It runs on one machine: another processor's order of memory accesses is not
shown.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from core_programs import core_program


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=120_000_000, help="of all readers together (%(default)s)")
    parser.add_argument("--kills", type=int, default=100, help="of owners (%(default)s)")
    parser.add_argument("--group", type=Path, help="cgroup.procs of the memory cgroup that the owners go into")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        program = core_program("bench_reader", Path(directory))
    if program is None:
        return 0
    command = [str(program), str(arguments.reads), str(arguments.kills)]
    command += [str(arguments.group)] if arguments.group else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    words = done.stdout.splitlines()[-1].split() if done.stdout else []
    if len(words) != 8:
        print(f"FAILED {done.stdout}{done.stderr}")
        return 1
    reads, hits, stores, dropped, kills, stops, wrong, seconds = map(int, words)
    print(
        f"{reads:,} reads, {hits:,} hits, all compared: {wrong} wrong. {stores:,} stores, {dropped:,} pages dropped on "
        f"order, {kills} kills, {stops} stops, {seconds:,} s"
    )
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
