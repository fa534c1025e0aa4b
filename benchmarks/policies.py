"""What other policies would hit, given the same requests and bytes. Called by cache_pressure, _traces and _cost.

Simulated: they hold objects of known sizes and pay nothing for keys, tables and bookkeeping. LRU and GreedyDual are
written here, for exactness; S3-FIFO and W-TinyLFU are libcachesim's.
"""

import heapq
from collections import OrderedDict
from pathlib import Path
from typing import Any

NAMES = {"lru": "exact LRU", "s3fifo": "S3-FIFO", "wtinylfu": "W-TinyLFU"}


def exact_lru(keys: Any, sizes: Any, room_bytes: int) -> Any:
    """For each request: whether it hits. What is larger than the room is not kept. `sizes` by request."""
    import numpy

    held: OrderedDict[int, int] = OrderedDict()
    hits = numpy.zeros(len(keys), bool)
    left_bytes = room_bytes
    for number, (key, size) in enumerate(zip(keys.tolist(), sizes.tolist(), strict=True)):
        if key in held:
            held.move_to_end(key)
            hits[number] = True
        elif size <= room_bytes:
            held[key] = size
            left_bytes -= size
            while left_bytes < 0:
                left_bytes += held.popitem(last=False)[1]
    return hits


def greedy_dual(keys: Any, costs: Any, entries: int) -> Any:
    """For each request: whether it hits, in a cache that weighs recency against cost (Young 1994); equal sizes."""
    import numpy

    dues: dict[int, float] = {}
    queue: list[tuple[float, int, int]] = []
    inflation = 0.0
    hits = numpy.zeros(len(keys), bool)
    for number, (key, cost) in enumerate(zip(keys.tolist(), costs.tolist(), strict=True)):
        hits[number] = key in dues
        if key not in dues and len(dues) >= entries:
            while True:
                due, _, oldest = heapq.heappop(queue)
                if dues.get(oldest) == due:
                    break
            del dues[oldest]
            inflation = due
        dues[key] = inflation + cost + number * 1e-9  # of two alike the one that was used last stays
        heapq.heappush(queue, (dues[key], number, key))
    return hits


def simulated(keys: Any, sizes: Any, room_bytes: int, directory: Path, begin: int = 0) -> dict[str, float]:
    """Hit ratios of S3-FIFO and W-TinyLFU over the requests from `begin` on."""
    try:
        import libcachesim  # type: ignore[import-untyped]
        import numpy
    except ImportError as error:
        print(f"SKIP S3-FIFO and W-TinyLFU: {error}")
        return {}
    record = numpy.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])  # libCacheSim's own format
    ratios = {}
    for name, policy in (("s3fifo", libcachesim.S3FIFO), ("wtinylfu", libcachesim.WTinyLFU)):
        hits = []
        for count in (begin, len(keys)):
            if not count:
                hits.append(0.0)
                continue
            trace = numpy.zeros(count, record)
            trace["id"], trace["size"] = keys[:count].astype("u8") + 1, sizes[:count]
            path = directory / "trace.oracleGeneral"
            trace.tofile(path)
            reader = libcachesim.TraceReader(str(path), trace_type=libcachesim.TraceType.ORACLE_GENERAL_TRACE)
            hits.append((1 - policy(room_bytes, hashpower=18).process_trace(reader)[0]) * count)
        if hits[1]:  # W-TinyLFU's window is a hundredth of the cache: one value must fit
            ratios[name] = (hits[1] - hits[0]) / (len(keys) - begin)
    return ratios
