"""A neighbour: a program that takes and returns ordinary memory, in the same cgroup as the worker.

Started by parts.py. Reads on stdin how many bytes to hold, one number a line; answers with that number when it holds
them, every page written. It takes them at full speed, as a program does that loads its data.
"""

import mmap
import sys

_AT_ONCE_BYTES = 1 << 20


def hold(memory: mmap.mmap, held_bytes: int, wanted_bytes: int) -> int:
    """Writes the pages up to `wanted_bytes`, gives those above it back to the kernel; returns what is held now."""
    wanted_bytes -= wanted_bytes % mmap.PAGESIZE
    if wanted_bytes < held_bytes:
        memory.madvise(mmap.MADV_DONTNEED, wanted_bytes, held_bytes - wanted_bytes)
    for start in range(held_bytes, wanted_bytes, _AT_ONCE_BYTES):
        stop = min(start + _AT_ONCE_BYTES, wanted_bytes)
        memory[start:stop] = b"\1" * (stop - start)
    return wanted_bytes


def main() -> None:
    highest_bytes = int(sys.argv[1])
    memory = mmap.mmap(-1, highest_bytes + mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    held_bytes = 0
    for line in sys.stdin:
        held_bytes = hold(memory, held_bytes, int(line))
        print(line, end="", flush=True)


if __name__ == "__main__":
    main()
