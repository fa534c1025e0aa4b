"""An array of 10 GB in a cgroup of 256 MB: is all of it right, what is computed again, and is anything killed?

    python benchmarks/chunked_walk.py                   a minute; needs memory cgroups
    python benchmarks/chunked_walk.py --gigabytes 1

A child walks through all chunks of 4 MB in order and compares each element with what NumPy computes for the same place.
Beside it 40 MB of hot chunks are read again after every chunk of the walk, and a third of the way a wave of 100 MB of
ordinary memory comes for another third. fill is cheap here, so the time is that of the memory.
"""

import argparse
import json
import subprocess
import sys

from droppable._cgroup import MemoryCgroup

LIMIT_BYTES = 256 << 20
CHILD = """
import json
import time
import numpy
import droppable

ROWS, COLUMNS, CHUNK = {rows}, 4096, 128

def fill(where):
    rows, columns = (numpy.arange(part.start, part.stop, dtype="f8") for part in where)
    return rows[:, None] * COLUMNS + columns

array = droppable.ChunkedArray((ROWS, COLUMNS), "f8", (CHUNK, COLUMNS), fill)
assert array.nbytes == ROWS * COLUMNS * 8
wrong = hot_reads = 0
began = time.perf_counter()
wave = None
for number, (where, block) in enumerate(array.blocks()):
    wrong += not numpy.array_equal(block, fill(where))
    del block
    hot = number % 10
    wrong += array[hot * CHUNK + 5, 7] != (hot * CHUNK + 5) * COLUMNS + 7
    hot_reads += 1
    if number == ROWS // CHUNK // 3:
        wave = bytearray(100 << 20)
        wave[::4096] = bytes([1]) * len(wave[::4096])
    if number == 2 * ROWS // CHUNK // 3:
        wave = None
stats = array.stats()
print(json.dumps(dict(
    wrong=int(wrong), chunks=stats.chunks, computed=stats.computed, computed_again=stats.computed_again,
    hot_reads=hot_reads, seconds=time.perf_counter() - began, dropped=array.cache.stats().dropped,
    evicted=array.cache.stats().evicted,
)))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=10.0)
    arguments = parser.parse_args()
    rows = int(arguments.gigabytes * 1e9 / 4096 / 8 / 128) * 128
    with MemoryCgroup.create(LIMIT_BYTES) as group:
        with group.popen([sys.executable, "-c", CHILD.format(rows=rows)], stdout=subprocess.PIPE) as child:
            out, _ = child.communicate()
        told = json.loads(out) if child.returncode == 0 else {}
        print(
            f"{rows * 4096 * 8 / 1e9:.1f} GB in {LIMIT_BYTES >> 20} MB: exit {child.returncode}, "
            f"OOM kills {group.oom_kills}, {told}"
        )
    return child.returncode


if __name__ == "__main__":
    sys.exit(main())
