"""No call of a cache is the allocation that calls the OOM killer, whatever is gone, full, or cannot be read.

    cgroup, no swap
      +- one Python process: ordinary memory up to what a case says
           +- a cache; what it holds is dropped by the kernel when ordinary memory grows

Each case ends well, or its process is killed and the cgroup counts it. Results are what the process prints last.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

MB = 1 << 20

PRELUDE = """
import json, mmap, os, resource, sys, threading
import droppable
from droppable import _cgroup

MB = 1 << 20

def ordinary(left_mb):
    # anonymous memory until no more than that could be allocated
    held = []
    while _cgroup.current().left_bytes > left_mb * MB:
        held.append(mmap.mmap(-1, MB // 4))
        held[-1].write(b"x" * (MB // 4))
    return held

def no_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    opened = []
    try:
        while True:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    return opened, (soft, hard)
"""

VALUES = {
    "bytes": "b'1' * n",
    "str": "'1' * n",
    "object": "{'k': [b'1' * (n // 2), bytearray(b'2' * (n // 2))]}",
    "array": "__import__('numpy').ones(n, 'u1')",
    "fortran": "__import__('numpy').ones((n // 800, 100), 'f8', order='F')",
    "frame": "{'a': __import__('numpy').ones(n // 2, 'u1'), 'b': __import__('numpy').ones(n // 16)}",
}


@pytest.fixture(params=["lazyfree", "droppable"])
def backing(request: pytest.FixtureRequest) -> str:
    import droppable

    name: str = request.param
    if name == "droppable" and not droppable.features()["map_droppable"].available:
        pytest.skip("this kernel has no MAP_DROPPABLE")
    return name


def run(run_in_cgroup: Callable[..., Any], limit_bytes: int, code: str, *argv: str) -> dict[str, Any]:
    import textwrap

    done = run_in_cgroup(limit_bytes, PRELUDE + textwrap.dedent(code), *argv)
    assert done.oom_kills == 0, done
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("kind", VALUES)
@pytest.mark.parametrize("call", ["get", "view", "in", "get_or_create"])
def test_a_large_value_that_the_kernel_took_is_a_miss(
    run_in_cgroup: Callable[..., Any], backing: str, kind: str, call: str
) -> None:
    if kind in ("array", "fortran", "frame"):
        pytest.importorskip("numpy")
    if call == "view" and kind != "bytes":
        pytest.skip("a view is of bytes; arrays are in place anyhow")
    result = run(
        run_in_cgroup,
        150 * MB,
        """
        n = 40 * MB
        cache = droppable.Cache(backing=sys.argv[1])
        cache["big"] = eval(sys.argv[2])
        stored = cache.stats().entries
        need = bytearray(b"1") * (106 * MB)
        call = sys.argv[3]
        found = True
        for _ in range(3):
            if call == "get":
                found = cache.get("big") is not None
            elif call == "in":
                found = "big" in cache
            elif call == "get_or_create":
                found = cache.get_or_create("big", lambda: "small") != "small"
            else:
                try:
                    with cache.view("big"):
                        pass
                except KeyError:
                    found = False
        print(json.dumps(dict(stored=stored, found=found)))
        """,
        backing,
        VALUES[kind],
        call,
    )
    assert result["stored"] == 1
    assert result["found"] is False


def test_a_copy_for_which_there_is_no_room_is_a_miss(run_in_cgroup: Callable[..., Any], backing: str) -> None:
    """The value is there, its copy would not fit: 40 MB of it, and less than that left."""
    result = run(
        run_in_cgroup,
        120 * MB,
        """
        cache = droppable.Cache(backing=sys.argv[1])
        cache["big"] = b"1" * (40 * MB)
        held = ordinary(38)
        for _ in range(5):
            found = cache.get("big")
        stats = cache.stats()
        print(json.dumps(dict(found=found is not None, entries=len(cache))))
        """,
        backing,
    )
    assert result["found"] is False


@pytest.mark.parametrize("size_bytes", [1 << 20, 9 << 20])
def test_threads_that_insert_at_once_do_not_count_on_the_same_room(
    run_in_cgroup: Callable[..., Any], backing: str, size_bytes: int
) -> None:
    result = run(
        run_in_cgroup,
        100 * MB,
        """
        n = int(sys.argv[2])
        cache = droppable.Cache(backing=sys.argv[1])
        value = b"v" * n
        held = ordinary(2.5 * n / MB + 2)
        barrier = threading.Barrier(4)
        def insert(thread):
            for i in range(150):
                if i % 10 == 0:
                    barrier.wait()
                cache[thread, i % 3] = value
                cache.get((thread, i % 3))
        threads = [threading.Thread(target=insert, args=(t,)) for t in range(4)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        stats = cache.stats()
        print(json.dumps(dict(sets=stats.sets, refused=stats.refused)))
        """,
        backing,
        str(size_bytes),
    )
    assert result["sets"] + result["refused"] == 600


@pytest.mark.parametrize("size_bytes", [100, 4000, 100_000, 1_000_000])
@pytest.mark.parametrize("known", [True, False])
def test_without_descriptors_the_limit_still_counts(
    run_in_cgroup: Callable[..., Any], size_bytes: int, known: bool
) -> None:
    """known: the cache read the limit before; or it never could. Ordinary memory leaves 1.5 MB."""
    result = run(
        run_in_cgroup,
        60 * MB,
        """
        value = b"v" * int(sys.argv[1])
        cache = droppable.Cache() if sys.argv[2] == "True" else None
        if cache is not None:
            cache["w"] = b"x"
        held = ordinary(1.5)
        opened, limits = no_descriptors()
        if cache is None:
            cache = droppable.Cache()
        done = 0
        for i in range(60000):
            cache[i] = value
            done += 1
        refused = cache.stats().refused
        for fd in opened: os.close(fd)
        print(json.dumps(dict(done=done, refused=refused)))
        """,
        str(size_bytes),
        str(known),
    )
    assert result["done"] == 60000


def test_with_room_a_cache_goes_on_without_descriptors(run_in_cgroup: Callable[..., Any]) -> None:
    """Values are found, new ones come in, the window stays small; and all is as before when descriptors are back."""
    pytest.importorskip("numpy")
    result = run(
        run_in_cgroup,
        80 * MB,
        """
        import numpy, time
        cache = droppable.Cache()
        for i in range(200):
            cache[i] = b"v" * 50000
        opened, limits = no_descriptors()
        hits = sum(cache.get(i) is not None for i in range(200))
        array = numpy.ones(MB, "u1")
        for i in range(600):
            cache["array", i % 40] = array
            cache.get(("array", i % 40))
        window = cache.stats().window_bytes
        for i in range(200):
            cache["new", i] = b"v" * 10000
        new = sum(("new", i) in cache for i in range(200))
        unread = _cgroup.current().unread
        for fd in opened: os.close(fd)
        # The limit is read again after a while. What is stored then may be dropped at once: 6.12 takes too much.
        give_up = time.monotonic() + 60
        while not (stored := cache.set("large", b"v" * (20 * MB))) and time.monotonic() < give_up:
            pass
        print(json.dumps(dict(hits=hits, window=window, new=new, unread=unread, stored=stored)))
        """,
    )
    assert result["hits"] == 200
    assert result["window"] <= 4 * MB
    assert result["new"] == 200
    assert "EMFILE" in result["unread"]
    assert result["stored"] is True
