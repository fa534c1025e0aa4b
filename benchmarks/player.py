"""Plays requests on a droppable cache, in a cgroup of its own. Called by cache_pressure, cache_traces and cache_cost.

    parent: play() -- makes the cgroup, starts the child, sets the limit to what the child uses plus the room, says go
    child:  reads requests of REQUEST from a file, gets, sets what is missing, answers with hits and stalls

The peers that play() is compared with are given the room. What the child uses before its first insert (the
interpreter and its libraries, of which the kernel could take some: base_file_bytes) is on top of that. All that the
cache needs beside the values comes out of the room: keys, heads, index, page tables, the objects that a get makes.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stalls import Stalls, run_delay_reader

REQUEST = [("key", "<u4"), ("size", "<u4"), ("cost_us", "<u4")]
"""A NumPy type: what is asked for, the bytes of its value, microseconds to compute it."""
FREE_BYTES = 2 << 30
_CHUNK_BYTES = 12 << 12


# In the child


def serve(trace: Path, begin: int, backing: str, costs: bool, clocked: bool) -> dict[str, Any]:
    """Hits and the cost of misses from request `begin` on. `clocked`: every call is timed."""
    import droppable

    stalls = {name: Stalls() for name in ("get_wall", "get_own", "set_wall", "set_own")} if clocked else {}
    padding = os.urandom(1 << 20) * 5
    wall, run_delay_ns = time.perf_counter_ns, run_delay_reader()
    print("ready", flush=True)
    sys.stdin.readline()
    cache = droppable.Cache(backing=backing)  # type: ignore[arg-type]  # as in a container: the limit is there before
    number = hits = hit_bytes = wrong = 0
    missed_us = 0
    took = waited = 0
    with trace.open("rb", buffering=0) as file:
        while chunk := file.read(_CHUNK_BYTES):
            words = iter(memoryview(chunk).cast("I"))
            for key, size, cost_us in zip(words, words, words, strict=True):
                number += 1
                if clocked:
                    waited, start = run_delay_ns(), wall()
                    value = cache.get(key)
                    took = wall() - start
                    stalls["get_wall"].add(took)
                    stalls["get_own"].add(max(0, took + waited - run_delay_ns()))
                else:
                    value = cache.get(key)
                if value is not None:
                    if number > begin:
                        hits += 1
                        hit_bytes += size
                    length = len(value)
                    right = (key.to_bytes(8, "big") + padding[8:16])[:length]
                    wrong += value[:16] != right or (length > 16 and value[-8:] != padding[length - 8 : length])
                    continue
                if number > begin:
                    missed_us += cost_us
                value = (key.to_bytes(8, "big") + padding[8:size])[:size]
                cost = cost_us / 1e6 if costs else None
                if clocked:
                    waited, start = run_delay_ns(), wall()
                    cache.set(key, value, cost=cost)
                    took = wall() - start
                    stalls["set_wall"].add(took)
                    stalls["set_own"].add(max(0, took + waited - run_delay_ns()))
                else:
                    cache.set(key, value, cost=cost)
    return {
        "requests": number - begin, "hits": hits, "hit_ratio": hits / (number - begin), "hit_bytes": hit_bytes,
        "missed_seconds": missed_us / 1e6, "wrong": wrong, "stats": asdict(cache.stats()),
        "stalls": {name: one.report() for name, one in stalls.items()},
    }  # fmt: skip


# In the parent


def write_requests(path: Path, keys: Any, sizes: Any, costs_us: Any = 0) -> None:
    import numpy

    requests = numpy.zeros(len(keys), REQUEST)
    requests["key"], requests["size"], requests["cost_us"] = keys, sizes, costs_us
    requests.tofile(path)


def play(
    trace: Path, room_bytes: int, *, begin: int = 0, backing: str = "lazyfree", costs: bool = False,
    clocked: bool = False,
) -> dict[str, Any] | None:  # fmt: skip
    """What serve() answers, and the child's base_bytes, base_file_bytes, oom_kills. None: it did not survive.

    Raises:
        droppable._cgroup.CgroupUnavailableError: no memory cgroup can be made here.
    """
    from droppable._cgroup import MemoryCgroup

    with MemoryCgroup.create(FREE_BYTES) as group:
        command = [sys.executable, __file__, str(trace), str(begin), backing, str(int(costs)), str(int(clocked))]
        child: subprocess.Popen[str] = group.popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert child.stdout
        child.stdout.readline()
        base_bytes, stat = group.usage_bytes, group.stat()
        group.limit_bytes = base_bytes + room_bytes
        output, _ = child.communicate("\n")
        kills = group.oom_kills
        if child.returncode:
            print(f"the child ended with {child.returncode}; OOM kills: {kills}")
            return None
        file_bytes = stat.get("inactive_file", 0) + stat.get("active_file", 0)
        return {**json.loads(output), "base_bytes": base_bytes, "base_file_bytes": file_bytes, "oom_kills": kills}


if __name__ == "__main__":
    print(json.dumps(serve(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "1", sys.argv[5] == "1")))
