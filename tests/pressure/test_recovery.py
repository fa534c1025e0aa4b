"""After memory pressure a cache holds again what fits: it does not evict for what it finds to be gone by then.

    cgroup, limit 120 MiB, no swap
      +- one Python process, about 10 MB of its own: a cache of 80 MB
           +- pressure: 60 MB of ordinary memory, here or in a child. Then its end: all values fit again
           +- requests by Zipf's law before, meanwhile and afterwards; what is missing is set

The headroom is read some times a second only, so a few values may still be evicted at the beginning: a twentieth is
allowed, and none later. Time is not asserted.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from typing import Any

import pytest

MB = 1 << 20
LIMIT_BYTES = 120 * MB

PROGRAM = """
import itertools, json, mmap, os, random, sys
import droppable

MB = 1 << 20
backing, size = sys.argv[1], int(sys.argv[2])
cache = droppable.Cache(backing=backing)
keys = range(80 * MB // size)

def content(key):
    return (key * 2654435761 % 2**64 | 1).to_bytes(8, "little") * (size // 8)

popular = list(keys)
draw = random.Random(1)
draw.shuffle(popular)
shares = list(itertools.accumulate((1 + rank) ** -0.9 for rank in keys))

def ask():
    # by Zipf's law, and sets what is missing
    for key in draw.choices(popular, cum_weights=shares, k=4 * len(keys)):
        value = cache.get(key)
        assert value in (None, content(key)), key
        if value is None:
            cache[key] = content(key)

def take(bytes_):
    memory = mmap.mmap(-1, bytes_, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for at in range(0, bytes_, 4096):
        memory[at] = 1
    return memory

ask()
PRESSURE
before = cache.stats().evicted
ask()
stats = cache.stats()
ask()
present = sum(key in cache for key in keys)
print(json.dumps(dict(present=present, evicted=stats.evicted - before, later=cache.stats().evicted - stats.evicted,
                      dropped=stats.dropped, keys=len(keys))))
"""

PRESSURES = {
    "wave": """
        memory = take(60 * MB)
        ask()
        memory.close()
    """,
    "neighbour": """
        read, write = os.pipe()
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            memory = take(60 * MB)
            os.write(write, b"x")
            os.read(told, 1)
            os._exit(0)
        os.read(read, 1)
        ask()
        os.write(tell, b"x")
        os.waitpid(child, 0)
    """,
    "three waves": """
        for _ in range(3):
            memory = take(60 * MB)
            ask()
            memory.close()
            ask()
    """,
}


@pytest.mark.parametrize("size_bytes", [4096, 65536])
@pytest.mark.parametrize("pressure", PRESSURES)
@pytest.mark.parametrize("backing", ["lazyfree", "droppable"])
def test_it_grows_back(run_in_cgroup: Callable[..., Any], backing: str, pressure: str, size_bytes: int) -> None:
    import droppable

    if backing == "droppable" and not droppable.features()["map_droppable"].available:
        pytest.skip("this kernel has no MAP_DROPPABLE")
    program = PROGRAM.replace("PRESSURE", textwrap.dedent(PRESSURES[pressure]))
    done = run_in_cgroup(LIMIT_BYTES, program, backing, str(size_bytes))
    assert done.oom_kills == 0, done
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["dropped"] > 0, result
    assert result["evicted"] <= result["keys"] / 20, result
    assert result["later"] == 0, result
