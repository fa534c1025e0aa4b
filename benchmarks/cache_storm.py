"""Reads by the hundred million while the kernel takes pages all the time: is any byte ever wrong?

    python benchmarks/cache_storm.py                     some minutes; builds a program of the C core
    python benchmarks/cache_storm.py --reads 20000000

csrc/tests/bench_storm.c, half of the reads on each backing: two threads read, compare every byte of every hit with what
key and version say, and set what is missing; every 32,768 reads a third has the kernel drop one page in a hundred,
chosen at random, and now and then gives memory back.

Bias: written by those who wrote droppable. It runs on one machine: another processor's order of memory accesses is not
shown.
"""

import argparse
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from core_programs import core_program
from measure import Goal, write

BACKINGS = ("lazyfree", "droppable")
WANTED_READS = 10**9


@dataclass(frozen=True)
class Row:
    """What the readers of one backing saw, all together."""

    backing: str
    reads: int
    hits: int
    dropped_misses: int
    dropped_entries: int
    yielded_bytes: int
    wrong: int
    seconds: float


def measure(program: Path, backing: str, reads: int) -> Row | None:
    done = subprocess.run([program, backing, str(reads)], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    if len(words) != 7:
        print(f"SKIP {backing}: {done.stderr.strip()}")
        return None
    return Row(backing, *map(int, words[:6]), seconds=float(words[6]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=WANTED_READS, help="of both backings together (%(default)s)")
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        program = core_program("bench_storm", Path(directory))
    if program is None:
        return 0
    rows = [row for backing in BACKINGS if (row := measure(program, backing, arguments.reads // len(BACKINGS)))]
    for row in rows:
        print(
            f"{row.backing:<10} {row.reads:,} reads, {row.hits:,} hits, {row.dropped_misses:,} misses for a drop, "
            f"{row.wrong} wrong, {row.seconds:.0f} s",
            flush=True,
        )
    reads, wrong = sum(row.reads for row in rows), sum(row.wrong for row in rows)
    dropped = sum(row.dropped_misses for row in rows)
    measured = f"{wrong} in {reads:,} reads, of which {dropped:,} found their value dropped"
    met = None if not wrong and reads < WANTED_READS else not wrong
    write(arguments.out, {"rows": [asdict(row) for row in rows]}, [Goal("wrong bytes", "0", measured, met)])
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
