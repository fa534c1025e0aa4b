"""Each adapter beside its library's default backend when memory gets short: who is killed, who finds what, how fast?

    python benchmarks/adapters_pressure.py                   six minutes; needs memory cgroups and the libraries
    python benchmarks/adapters_pressure.py --only Django --rounds 1

A process in a cgroup of 256 MB without swap asks its cache for 6,000 values of 64 KB by Zipf's law (0.9), 30,000 times,
and stores what is missing. In the second third of the requests the process holds 80 MB of ordinary memory. The backends
are as their libraries have them by default, without a size of ours. Who knows the right size can set it, until a
neighbour takes some of it. For fsspec a value is a piece of one file of 384 MB, and a hit is a read that fetches
nothing. For aiocache and zarr each call runs to its end before the next. Hits: of all requests; of a run that was
killed, of those until then. The rounds take turns; medians.
"""

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from cache_recovery import take
from measure import zipf

MB = 1 << 20
LIMIT_BYTES, WAVE_BYTES = 256 * MB, 80 * MB
KEYS, VALUE_BYTES, REQUESTS = 6_000, 65_536, 30_000
REPORT_CALLS = 500
Get = Callable[[int], Any]
Put = Callable[[int, bytes], Any]


def of_mapping(mapping: Any) -> tuple[Get, Put]:
    return lambda key: mapping.get(str(key)), lambda key, value: mapping.set(str(key), value)


def django(ours: bool, folder: str) -> tuple[Get, Put]:
    from django.conf import settings

    backend = "droppable.adapters.django.DroppableCache" if ours else "django.core.cache.backends.locmem.LocMemCache"
    settings.configure(CACHES={"default": {"BACKEND": backend}})
    from django.core.cache import cache

    return of_mapping(cache)


def cachelib(ours: bool, folder: str) -> tuple[Get, Put]:
    if ours:
        from droppable.adapters.cachelib import DroppableCache

        return of_mapping(DroppableCache())
    from cachelib import SimpleCache

    return of_mapping(SimpleCache())


def flask_caching(ours: bool, folder: str) -> tuple[Get, Put]:
    from flask import Flask
    from flask_caching import Cache

    kind = "droppable.adapters.flask_caching.DroppableCache" if ours else "SimpleCache"
    app = Flask("bench")
    cache = Cache(app, config={"CACHE_TYPE": kind})
    app.app_context().push()
    return of_mapping(cache)


def dogpile(ours: bool, folder: str) -> tuple[Get, Put]:
    from dogpile.cache import make_region
    from dogpile.cache.api import NO_VALUE

    region = make_region().configure("droppable" if ours else "dogpile.cache.memory")

    def get(key: int) -> Any:
        value = region.get(str(key))
        return None if value is NO_VALUE else value

    return get, lambda key, value: region.set(str(key), value)


def requests_cache(ours: bool, folder: str) -> tuple[Get, Put]:
    import requests_cache as library
    from requests_cache.models import CachedResponse

    if ours:
        from droppable.adapters.requests_cache import DroppableCache

        backend: Any = DroppableCache()
    else:
        backend = library.SQLiteCache(f"{folder}/cache")

    def get(key: int) -> Any:
        response = backend.get_response(str(key))
        return response and response.content

    return get, lambda key, value: backend.save_response(CachedResponse(content=value, url="http://x/"), str(key))


def aiocache(ours: bool, folder: str) -> tuple[Get, Put]:
    from aiocache import SimpleMemoryCache

    if ours:
        from droppable.adapters.aiocache import DroppableCache

        cache: Any = DroppableCache()
    else:
        cache = SimpleMemoryCache()
    loop = asyncio.new_event_loop()
    return (
        lambda key: loop.run_until_complete(cache.get(str(key))),
        lambda key, value: loop.run_until_complete(cache.set(str(key), value)),
    )


def fsspec(ours: bool, folder: str) -> tuple[Get, Put]:
    import fsspec as library
    from fsspec.spec import AbstractBufferedFile

    if ours:
        from droppable.adapters import fsspec as adapter

        adapter.register()
    fetched = [0]

    class Remote(AbstractBufferedFile):  # type: ignore[misc,unused-ignore]
        def _fetch_range(self, start: int, end: int) -> bytes:
            fetched[0] += 1
            return b"".join(value_of(key) for key in range(start // VALUE_BYTES, -(-end // VALUE_BYTES)))[
                start % VALUE_BYTES : end - start + start % VALUE_BYTES
            ]

    kind = {"cache_type": "droppable"} if ours else {}
    filesystem = library.filesystem("memory")
    filesystem.pipe("/remote", b"whoever asks for its version finds it")
    file = Remote(filesystem, "/remote", size=KEYS * VALUE_BYTES, block_size=VALUE_BYTES, **kind)

    def get(key: int) -> Any:
        before = fetched[0]
        file.seek(key * VALUE_BYTES)
        value = file.read(VALUE_BYTES)
        assert value[:8] == b"%08d" % key
        return value if fetched[0] == before else None

    return get, lambda key, value: None


def zarr(ours: bool, folder: str) -> tuple[Get, Put]:
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.buffer.cpu import Buffer
    from zarr.storage import MemoryStore

    if ours:
        from droppable.adapters.zarr import DroppableStore

        store: Any = DroppableStore()
    else:
        store = MemoryStore()
    loop, prototype = asyncio.new_event_loop(), default_buffer_prototype()

    def get(key: int) -> Any:
        found = loop.run_until_complete(store.get(str(key), prototype))
        return found and found.to_bytes()

    return get, lambda key, value: loop.run_until_complete(store.set(str(key), Buffer.from_bytes(value)))


LIBRARIES = {
    "Django": (django, "LocMemCache, 300 entries"),
    "cachelib": (cachelib, "SimpleCache, 500 entries"),
    "Flask-Caching": (flask_caching, "SimpleCache, 500 entries"),
    "dogpile.cache": (dogpile, "memory, no bound"),
    "requests-cache": (requests_cache, "SQLite on the disk"),
    "aiocache": (aiocache, "SimpleMemoryCache, no bound"),
    "fsspec": (fsspec, "readahead, one block"),
    "zarr": (zarr, "MemoryStore as cache_store, no bound"),
}
_FILLER = os.urandom(VALUE_BYTES - 16)


def value_of(key: int) -> bytes:
    return b"%08d" % key + _FILLER + b"%08d" % key


def play(library: str, ours: bool, folder: str) -> None:
    get, put = LIBRARIES[library][0](ours, folder)
    keys = zipf(KEYS, REQUESTS).tolist()
    ordinary, hits, wrong = None, 0, 0
    began = time.perf_counter()
    for number, key in enumerate(keys):
        third, first = divmod(number, REQUESTS // 3)
        if first == 0:
            ordinary = take(ordinary, WAVE_BYTES if third == 1 else 0)
        value = get(key)
        if value is None:
            put(key, value_of(key))
        else:
            hits += 1
            wrong += bytes(value[:8]) != b"%08d" % key or bytes(value[-8:]) != b"%08d" % key
        if (number + 1) % REPORT_CALLS == 0:
            seconds = time.perf_counter() - began
            print(json.dumps({"requests": number + 1, "hits": hits, "wrong": wrong, "seconds": seconds}), flush=True)


def run(library: str, ours: bool) -> dict[str, Any]:
    from droppable._cgroup import MemoryCgroup

    with tempfile.TemporaryDirectory(prefix="droppable-bench-") as folder, MemoryCgroup.create(LIMIT_BYTES) as group:
        child: subprocess.Popen[str] = group.popen(
            [sys.executable, __file__, "--child", library, str(int(ours)), folder], stdout=subprocess.PIPE, text=True
        )
        output, _ = child.communicate()
        lines = output.splitlines()
        last = json.loads(lines[-1]) if lines else {"requests": 0, "hits": 0, "wrong": 0, "seconds": 0.0}
        if group.oom_kills == 0 and last["requests"] != REQUESTS:
            raise RuntimeError(f"{library} ended early, with status {child.returncode}")
        return {"oom_kills": group.oom_kills, **last}


def row(library: str, what: str, runs: list[dict[str, Any]]) -> str:
    kills, wrong = sum(one["oom_kills"] for one in runs), sum(one["wrong"] for one in runs)
    hits = statistics.median(one["hits"] / max(1, one["requests"]) for one in runs)
    rate = statistics.median(one["requests"] / one["seconds"] if one["seconds"] else 0 for one in runs)
    reached = statistics.median(one["requests"] for one in runs)
    ended = f"killed after {reached:,.0f}" if kills else "lived"
    return f"| {library} | {what} | {kills} of {len(runs)} | {ended} | {hits:.3f} | {rate:,.0f} | {wrong} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=LIBRARIES, action="append", help="these libraries only")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        library, ours, folder = arguments.child
        play(library, bool(int(ours)), folder)
        return 0
    from droppable._cgroup import CgroupUnavailableError

    print("| library | backend | OOM kills | requests of 30,000 | hits | requests/s | wrong values |")
    print("|---|---|---|---|---|---|---|")
    for library in arguments.only or LIBRARIES:
        runs: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
        try:
            for number in range(arguments.rounds):
                for ours in (True, False) if number % 2 == 0 else (False, True):
                    runs[ours].append(run(library, ours))
        except CgroupUnavailableError as error:
            print(f"SKIP: {error}")
            return 0
        print(row(library, "droppable", runs[True]))
        print(row(library, LIBRARIES[library][1], runs[False]), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
