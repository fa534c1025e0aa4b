"""What the cache promises under real memory pressure, in a cgroup of 100 MiB.

    cgroup, limit 100 MiB, no swap
      +- one Python process, about 10 MB of its own
           +- a cache, everything else: bytes and arrays, inserted without end

Counts are compared with a tolerance that covers the interpreter's own memory; time is not asserted.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

MB = 1 << 20
LIMIT_BYTES = 100 * MB

PRELUDE = """
import json, resource, sys
import droppable

MB = 1 << 20
backing = sys.argv[1]
cache = droppable.Cache(backing=backing)

def content(key, size):
    return (key * 2654435761 % 2**64 | 1).to_bytes(8, "little") * (size // 8)

def alive(keys, size):
    # contains() looks at every page and copies nothing
    return sum(size for key in keys if key in cache)
"""


@pytest.fixture(params=["lazyfree", "droppable"])
def backing(request: pytest.FixtureRequest) -> str:
    import droppable

    name: str = request.param
    if name == "droppable" and not droppable.features()["map_droppable"].available:
        pytest.skip("this kernel has no MAP_DROPPABLE")
    return name


def run(run_in_cgroup: Callable[..., Any], backing: str, code: str, limit_bytes: int = LIMIT_BYTES) -> dict[str, Any]:
    import textwrap

    done = run_in_cgroup(limit_bytes, PRELUDE + textwrap.dedent(code), backing)
    assert done.oom_kills == 0, done
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("size_bytes", [1000, 65536, 1 << 20])
def test_a_gigabyte_through_a_tenth_of_it(
    run_in_cgroup: Callable[..., Any], backing: str, size_bytes: int, request: pytest.FixtureRequest
) -> None:
    """Raw droppable memory keeps 2 MB of 100 in this case; see docs/kernel/over-drop.md.

    Some 86 MiB live. An emulated machine, where one batch of reclaim more or less counts, came to 84.4 once.

    A large value on MAP_DROPPABLE is marked every 32 pages while it is written. If reclaim meets pages that are not
    marked yet, it drops more than it needs, and the cache fills again. Depending on when that was last, 63 to 87 MiB
    live (30 runs).
    """
    result = run(
        run_in_cgroup,
        backing,
        f"""
        size = {size_bytes}
        count = 1000 * MB // size
        for key in range(count):
            cache[key] = content(key, size)
        wrong = sum(cache.get(key) not in (None, content(key, size)) for key in range(0, count, 7))
        live = alive(range(count), size)
        print(json.dumps(dict(live=live, wrong=wrong, stats=str(cache.stats()))))
        """,
    )
    assert result["wrong"] == 0
    stored_share = 0.9 if size_bytes == 1000 else 1.0  # of small entries a tenth is heads, padding and index
    least_bytes = (82 if request.config.getoption("--emulated") else 85) * MB
    if backing == "droppable" and size_bytes == 1 << 20:
        least_bytes = 40 * MB
    assert result["live"] >= least_bytes * stored_share, result


def test_a_hot_set_stays(run_in_cgroup: Callable[..., Any], backing: str, request: pytest.FixtureRequest) -> None:
    """30 MB, read after every 5 MB of 970 MB that pass by: less than 1 % of it is ever found missing.

    Mostly it is nothing. A kernel that loses all of it twice on its way has 1 % (6.1 on i686, the MGLRU of 6.12 once,
    both on emulated machines, which are allowed 3).
    """
    result = run(
        run_in_cgroup,
        backing,
        """
        size = 65536
        hot = range(30 * MB // size)
        for key in hot:
            cache[key] = content(key, size)
        reads = lost = 0
        passing = 0
        for block in range(970 // 5):
            for _ in range(5 * MB // size):
                passing += 1
                cache["cold", passing] = content(passing, size)
            for key in hot:
                reads += 1
                if cache.get(key) is None:
                    lost += 1
                    cache[key] = content(key, size)
        print(json.dumps(dict(reads=reads, lost=lost)))
        """,
    )
    share = 0.03 if request.config.getoption("--emulated") else 0.01
    assert result["lost"] < share * result["reads"], result


def test_held_arrays_survive_and_released_ones_can_go(run_in_cgroup: Callable[..., Any]) -> None:
    """40 MB of arrays held by the program are there after any pressure; let go, ordinary memory takes their place.

    New values that nobody asks for need not: a kernel may keep what was used once before what never was.
    """
    pytest.importorskip("numpy")
    result = run(
        run_in_cgroup,
        "lazyfree",
        """
        import numpy as np
        from droppable._cgroup import current
        def array(key):
            return np.full(1 * MB // 8, key, dtype=np.int64)
        for key in range(1, 41):
            cache[key] = array(key)
        held = {key: cache[key] for key in range(1, 41)}
        views = {key: a[1000:2000:7] for key, a in held.items() if key % 2}
        del held
        held = {key: cache[key] for key in range(2, 41, 2)}
        for i in range(300):
            cache["new", i] = content(i + 1, MB)
        wrong = sum(not (a == key).all() for key, a in (views | held).items())
        pinned = cache.stats().pinned_bytes
        del views, held
        released = cache.stats().pinned_bytes
        taken = []
        while True:
            limits = current()
            room = limits.limit_bytes - limits.usage_bytes + limits.reclaimable_bytes
            if room < 12 * MB:
                break
            taken.append(bytearray(2 * MB))
        left = sum(key in cache for key in range(1, 41))
        print(json.dumps(dict(wrong=wrong, pinned=pinned, released=released, left=left)))
        """,
    )
    assert result["wrong"] == 0
    assert result["pinned"] >= 40 * MB
    assert result["released"] == 0
    assert result["left"] <= 12, result


def test_arrays_in_use_give_way_to_ordinary_memory(run_in_cgroup: Callable[..., Any]) -> None:
    """Arrays in steady use rest in the window while there is room; the less is left, the fewer, and none at the end."""
    pytest.importorskip("numpy")
    result = run(
        run_in_cgroup,
        "lazyfree",
        """
        import numpy as np
        from droppable._cgroup import current
        for key in range(1, 4):
            cache[key] = np.full(1 * MB // 8, key, dtype=np.int64)
        def use():
            wrong = 0
            for _ in range(200):
                for key in range(1, 4):
                    array = cache.get(key)
                    wrong += array is not None and not (array[::512] == key).all()
            return wrong
        wrong, taken, windows = use(), [], []
        while True:
            windows.append(cache.stats().window_bytes)
            limits = current()
            left = limits.limit_bytes - limits.usage_bytes + limits.reclaimable_bytes
            if left < 2 * MB:
                break
            taken.append(bytearray(min(left - MB, MB)))
            wrong += use()
        cache.get(1)
        print(json.dumps(dict(wrong=wrong, windows=windows, left=cache.stats().window_bytes)))
        """,
    )
    assert result["wrong"] == 0
    assert max(result["windows"]) >= 2 * MB, result
    assert result["windows"][-1] == 0, result
    assert result["left"] == 0, result


def test_ordinary_memory_gets_what_it_needs(run_in_cgroup: Callable[..., Any], backing: str) -> None:
    """Ordinary memory grows to what the limit leaves beside the interpreter while the cache inserts: no OOM kill."""
    result = run(
        run_in_cgroup,
        backing,
        """
        taken, key = [], 0
        for step in range(76):
            taken.append(bytearray(MB))
            for _ in range(100):
                key += 1
                cache[key] = content(key, 16384)
        squeezed = cache.stats()
        del taken
        for _ in range(5000):
            key += 1
            cache[key] = content(key, 16384)
        live = alive(range(1, key + 1), 16384)
        print(json.dumps(dict(refused=squeezed.refused, sets=squeezed.sets, live=live)))
        """,
    )
    assert result["live"] >= 60 * MB, result  # it grew back


def test_an_insert_is_refused_where_it_would_kill(run_in_cgroup: Callable[..., Any], backing: str) -> None:
    """Ordinary memory stands so close to the limit that nothing can be dropped: inserts are refused and counted."""
    result = run(
        run_in_cgroup,
        backing,
        """
        from droppable._cgroup import current
        taken = []
        while True:
            limits = current()
            left = limits.limit_bytes - limits.usage_bytes + limits.reclaimable_bytes
            if left < 1_200_000:
                break
            taken.append(bytearray(min(left - 1_100_000, MB)))
        stored = sum(cache.set(key, content(key, 65536)) for key in range(1, 2000))
        refused = cache.stats().refused
        del taken
        after = sum(cache.set(key, content(key, 65536)) for key in range(1, 200))
        print(json.dumps(dict(stored=stored, refused=refused, after=after)))
        """,
    )
    assert result["refused"] > 0
    assert result["stored"] + result["refused"] == 1999
    assert result["after"] > 150


def test_a_wave_of_ordinary_memory_is_given_way_to(run_in_cgroup: Callable[..., Any], backing: str) -> None:
    """A child writes 50 MB as fast as it can, again and again, while gets go on.

    Memory is given back before it is asked for; what is read meanwhile is right or missing, and nobody is killed.
    """
    result = run(
        run_in_cgroup,
        backing,
        """
        import os, mmap, random

        size = 65536
        keys = 120 * MB // size
        for key in range(keys):
            cache[key] = content(key, size)
        draw = random.Random(1)
        wrong = waves = 0
        # In each the child takes what it takes within some calls; a busy machine may make one too slow to be a wave.
        while waves < 50 and cache.stats().yielded_bytes < 4 * MB:
            waves += 1
            child = os.fork()
            if child == 0:
                memory = mmap.mmap(-1, 50 * MB, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
                for place in range(0, 50 * MB, MB):
                    memory[place : place + MB] = bytes([1]) * MB
                os._exit(0)
            while os.waitpid(child, os.WNOHANG) == (0, 0):
                key = draw.randrange(keys)
                value = cache.get(key)
                wrong += value is not None and value != content(key, size)
                if value is None:
                    cache[key] = content(key, size)
        print(json.dumps(dict(wrong=wrong, yielded_bytes=cache.stats().yielded_bytes, waves=waves)))
        """,
    )
    assert result["wrong"] == 0
    assert result["yielded_bytes"] >= 4 * MB, result
