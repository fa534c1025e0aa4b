"""Dask: a worker of a real LocalCluster keeps more results than its limit, and is neither paused nor ended for it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

import droppable
from droppable import testing

pytest.importorskip("distributed", reason="Dask's distributed is not installed: make adapters")
numpy = pytest.importorskip("numpy")

import dask  # noqa: E402
from distributed import Client, LocalCluster  # noqa: E402

from droppable.adapters import dask as adapter  # noqa: E402

pytestmark = pytest.mark.filterwarnings("default")  # Dask's own are not ours

LIMIT_BYTES, RESULT_BYTES, RESULTS = 300_000_000, 1 << 20, 400
WAIT_SECONDS = 120
OPTIONS = {"n_workers": 1, "threads_per_worker": 2, "memory_limit": LIMIT_BYTES, "dashboard_address": ":0"}


def load(number: int) -> Any:
    return numpy.full(RESULT_BYTES, number % 251, dtype="u1")


def measure(number: int) -> int:
    """A task: the sum of a result that is kept. Sent by value: a worker cannot import this module."""
    return int(adapter.memoize(load)(number).sum())


def wait_until(holds: Any) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def client() -> Iterator[Any]:
    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with (
        dask.config.set({"distributed.worker.memory.spill": False}),
        LocalCluster(**OPTIONS) as cluster,
        Client(cluster) as made,
    ):
        yield made
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_more_results_than_the_limit_are_kept(client: Any) -> None:
    adapter.register(client)
    expected = [RESULT_BYTES * (number % 251) for number in range(RESULTS)]
    pids = client.run(os.getpid)
    for _ in range(2):
        assert client.gather(client.map(measure, range(RESULTS), pure=False), asynchronous=False) == expected
    assert client.run(os.getpid) == pids, "no worker was ended"
    (stats,) = client.run(lambda: droppable.named("dask:").stats()).values()
    assert stats.hits >= RESULTS // 2
    (resident,) = client.run(resident_bytes).values()
    (seen,) = client.run(lambda dask_worker: dask_worker.monitor.get_process_memory()).values()
    assert resident > LIMIT_BYTES, "Dask would have paused it"
    assert seen < LIMIT_BYTES // 2
    assert client.run(lambda dask_worker: dask_worker.status.name) == {next(iter(pids)): "running"}


def test_without_it_the_worker_is_paused_or_ended(client: Any) -> None:
    pids = client.run(os.getpid)
    futures = client.map(measure, range(RESULTS), pure=False)

    def is_stopped() -> bool:
        (now,) = client.run(lambda dask_worker: (os.getpid(), dask_worker.status.name)).values() or [(0, "")]
        return now[1] == "paused" or now[0] not in pids.values()

    wait_until(is_stopped)
    client.cancel(futures)


def test_ordinary_memory_is_still_seen(client: Any) -> None:
    """A worker that takes more than its limit in memory of the usual kind is ended, as Dask's users expect."""
    adapter.register(client)
    pids = client.run(os.getpid)

    def hoard() -> int:
        kept = [numpy.ones(RESULT_BYTES, dtype="u1") for _ in range(LIMIT_BYTES // RESULT_BYTES + 20)]
        time.sleep(WAIT_SECONDS)
        return len(kept)

    future = client.submit(hoard, retries=0)
    wait_until(lambda: client.run(os.getpid, on_error="ignore") not in ({}, pids))
    future.cancel()


def test_workers_that_are_started_again_have_it_too(client: Any) -> None:
    adapter.register(client)
    adapter.register(client)  # a second time changes nothing
    client.restart()
    assert client.gather(client.map(measure, [1, 2, 1], pure=False)) == [RESULT_BYTES, 2 * RESULT_BYTES, RESULT_BYTES]
    (seen,) = client.run(lambda dask_worker: "get_process_memory" in vars(dask_worker.monitor)).values()
    assert seen
    pids = client.run(os.getpid)
    client.gather(client.map(measure, range(RESULTS), pure=False))
    assert client.run(os.getpid) == pids


def test_the_cache_goes_with_the_plugin(client: Any) -> None:
    adapter.register(client, "mine", max_bytes="8M")
    assert list(client.run(lambda: droppable.named("dask:mine").max_bytes).values()) == [8 << 20]
    client.unregister_worker_plugin("droppable mine")
    client.unregister_worker_plugin("droppable nanny", nanny=True)
    assert list(client.run(lambda: [cache.name for cache in droppable.caches()]).values()) == [[]]
    (seen,) = client.run(lambda dask_worker: "get_process_memory" in vars(dask_worker.monitor)).values()
    assert not seen


def test_memoize_in_this_process() -> None:
    calls = []

    @adapter.memoize
    def square(number: int, *, sign: int = 1) -> int:
        calls.append(number)
        return sign * number * number

    assert [square(3), square(3), square(3, sign=-1), square(numpy.arange(3)).tolist()] == [9, 9, -9, [0, 1, 4]]
    assert square(numpy.arange(3)).tolist() == [0, 1, 4]
    assert len(calls) == 3
    assert (square.__name__, dask.base.tokenize(square)) == ("square", dask.base.tokenize(square))
    testing.drop(square.cache)
    assert square(3) == 9
    assert len(calls) == 4
    square.cache.close()


def test_what_has_no_lasting_token_is_refused() -> None:
    @adapter.memoize
    def same(thing: object) -> object:
        return thing

    with pytest.raises(dask.tokenize.TokenizationError):
        same(object())
    same.cache.close()


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="backing must be 'lazyfree' or 'auto' in a Dask worker; you gave 'droppable'"):
        adapter.DroppableWorkerPlugin(backing="droppable")


def test_ordinary_memory_of_a_process_that_fills_a_cache() -> None:
    code = (
        "import sys, droppable; cache = droppable.Cache()\n"
        "for number in range(100): cache[number] = bytes(1 << 20)\n"
        "print('full', flush=True); input()\n"
        "hoard = bytearray(b'x') * (50 << 20); print('hoards', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        memory = adapter.OrdinaryMemory(process.pid, watch_bytes=1 << 20)
        assert process.stdout.readline() == b"full\n"
        before = memory.read_bytes()
        assert before < 60 << 20
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"hoards\n"
        assert memory.read_bytes() >= before + (48 << 20)
        process.communicate(b"\n")
    with pytest.raises((FileNotFoundError, ProcessLookupError)):
        memory.read_bytes()
