"""Dask: a worker of a real LocalCluster keeps more results than its limit, and is neither paused nor ended for it."""

from __future__ import annotations

import asyncio
import functools
import importlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import droppable
from droppable import testing

pytest.importorskip("distributed", reason="Dask's distributed is not installed: make adapters")
numpy = pytest.importorskip("numpy")

import dask  # noqa: E402
from distributed import Client, LocalCluster  # noqa: E402

from droppable.adapters import _dask_code  # noqa: E402
from droppable.adapters import dask as adapter  # noqa: E402
from droppable.adapters._dask_memory import Look, OrdinaryMemory  # noqa: E402

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


def is_shown(dask_worker: Any) -> bool:
    """Whether the worker sees its ordinary memory."""
    return "get_process_memory" in vars(dask_worker.monitor)


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
    assert all(client.run(is_shown).values())
    pids = client.run(os.getpid)
    client.gather(client.map(measure, range(RESULTS), pure=False))
    assert client.run(os.getpid) == pids


def test_the_cache_goes_with_the_plugin(client: Any) -> None:
    adapter.register(client, "mine", max_bytes="8M")
    assert list(client.run(lambda: droppable.named("dask:mine").max_bytes).values()) == [8 << 20]
    client.unregister_worker_plugin("droppable mine")
    client.unregister_worker_plugin("droppable nanny", nanny=True)
    assert list(client.run(lambda: [cache.name for cache in droppable.caches()]).values()) == [[]]
    assert not any(client.run(is_shown).values())


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
    with pytest.raises(TypeError, match="function must be a function; you gave 3"):
        adapter.memoize(3)  # type: ignore[arg-type]
    with pytest.raises(
        TypeError, match=r"client must be a distributed\.Client, as Client\(cluster\) is one; you gave 'tcp:"
    ):
        adapter.register("tcp://127.0.0.1:8786")  # type: ignore[arg-type]


async def coroutine_function(number: int) -> int:
    return number


class WithCoroutine:
    async def __call__(self, number: int) -> int:
        return number


@pytest.mark.parametrize(
    "function",
    [coroutine_function, functools.partial(coroutine_function, 1), WithCoroutine(), WithCoroutine().__call__],
)
def test_coroutine_functions_are_refused(function: Any) -> None:
    with pytest.raises(TypeError, match="function must not be a coroutine function"):
        adapter.memoize(function)


def test_after_wrong_options_nothing_is_registered(client: Any) -> None:
    with pytest.raises(TypeError, match="name must be a str; you gave 5"):
        adapter.register(client, 5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_bytes must be a size of more than 0 bytes"):
        adapter.register(client, max_bytes="xx")
    with pytest.raises(TypeError, match="maxsize"):
        adapter.register(client, maxsize=100)
    assert not any(client.run(is_shown).values())
    adapter.register(client, max_bytes="100M")
    assert all(client.run(is_shown).values())
    assert list(client.run(lambda: droppable.named("dask:").max_bytes).values()) == [100 << 20]


def test_what_a_worker_refuses_stays_nowhere_registered(client: Any) -> None:
    client.run(lambda: droppable.named("dask:", ttl=5.0).name)
    with pytest.raises(ValueError, match=r"the cache named 'dask:' exists with ttl=5.0; you gave 6.0"):
        adapter.register(client, ttl=6.0)
    assert not any(client.run(is_shown).values())
    assert list(client.run(lambda: [cache.name for cache in droppable.caches()]).values()) == [["dask:"]]
    adapter.register(client, ttl=5.0)
    assert all(client.run(is_shown).values())


def test_a_second_time_with_other_options_is_an_error(client: Any) -> None:
    adapter.register(client, "mine", max_bytes="10M", ttl=5.0)
    adapter.register(client, "mine", max_bytes="10M")
    adapter.register(client, "mine", fork="wipe", ttl=5)
    with pytest.raises(ValueError, match=r"registered with max_bytes='10M'; you gave '20M'.*\('droppable mine'\)"):
        adapter.register(client, "mine", max_bytes="20M")
    client.unregister_worker_plugin("droppable mine")
    adapter.register(client, "mine", max_bytes="20M")
    assert list(client.run(lambda: droppable.named("dask:mine").max_bytes).values()) == [20 << 20]


def test_each_of_two_caches_can_go_without_the_other(client: Any) -> None:
    adapter.register(client)
    adapter.register(client, "second")
    client.unregister_worker_plugin("droppable second")
    assert all(client.run(is_shown).values())
    assert list(client.run(lambda: [cache.name for cache in droppable.caches()]).values()) == [["dask:"]]
    client.unregister_worker_plugin("droppable")
    assert not any(client.run(is_shown).values())


def test_workers_of_one_process_share_the_cache_until_the_last_is_gone() -> None:
    options = {**OPTIONS, "n_workers": 2, "threads_per_worker": 1}
    with LocalCluster(**options, processes=False) as cluster, Client(cluster) as client:
        adapter.register(client, "shared", max_bytes="30M")
        first, _ = client.scheduler_info()["workers"]
        client.retire_workers([first], close_workers=True)
        wait_until(lambda: len(client.scheduler_info()["workers"]) == 1)
        assert droppable.named("dask:shared").max_bytes == 30 << 20
    assert "dask:shared" not in [cache.name for cache in droppable.caches()]


def test_of_an_asynchronous_client_it_is_awaited() -> None:
    async def main() -> None:
        async with (
            LocalCluster(**OPTIONS, asynchronous=True) as cluster,
            Client(cluster, asynchronous=True) as client,
        ):
            assert await adapter.register(client, max_bytes="10M") is None
            assert list((await client.run(is_shown)).values()) == [True]
            with pytest.raises(ValueError, match="you gave '20M'"):
                await adapter.register(client, max_bytes="20M")

    asyncio.run(main())


MODULE = """
FACTOR = {factor}

def _times(number):
    return FACTOR * number

def load(number):
    return _times(number)
"""


def test_another_version_of_an_uploaded_module_computes_again(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a constant is another one: neither the function nor its name tell that."""
    file = tmp_path / "dask_uploaded.py"
    monkeypatch.syspath_prepend(tmp_path)
    adapter.register(client)

    def upload(factor: int) -> None:
        file.write_text(MODULE.format(factor=factor))
        client.upload_file(str(file))

    def hits() -> int:
        (stats,) = client.run(lambda: droppable.named("dask:").stats()).values()
        return int(stats.hits)

    upload(1000)
    module = importlib.import_module("dask_uploaded")
    memoized = adapter.memoize(module.load)
    key = dask.base.tokenize(memoized)
    for _ in range(2):
        assert client.submit(memoized, 1, pure=False).result() == 1000
    assert hits() == 1
    upload(20_000)
    assert client.submit(memoized, 1, pure=False).result() == 20_000, "made before the module changed"
    importlib.reload(module)
    for _ in range(2):
        assert client.submit(adapter.memoize(module.load), 1, pure=False).result() == 20_000
    assert hits() == 2
    assert dask.base.tokenize(adapter.memoize(module.load)) != key
    upload(1000)
    importlib.reload(module)
    assert client.submit(adapter.memoize(module.load), 1, pure=False).result() == 1000
    assert hits() == 3, "the first version's result is still there"


def test_the_text_of_a_module_is_that_of_when_it_was_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a task of the first version, while the file is written, would keep its result as the second version's."""
    file = tmp_path / "dask_loaded.py"
    monkeypatch.syspath_prepend(tmp_path)
    file.write_text(MODULE.format(factor=1000))
    module = importlib.import_module("dask_loaded")
    first = _dask_code.code_token(module.load)
    file.write_text(MODULE.format(factor=20_000))
    assert _dask_code.code_token(module.load) == first
    importlib.reload(module)
    second = _dask_code.code_token(module.load)
    assert second != first
    file.unlink()
    assert _dask_code.code_token(module.load) == second


def test_a_text_that_was_read_too_late_is_not_taken_for_the_next_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is written before the first call of the version that is loaded: its text is already the next one's."""
    file = tmp_path / "dask_late.py"
    monkeypatch.syspath_prepend(tmp_path)
    file.write_text(MODULE.format(factor=1000))
    module = importlib.import_module("dask_late")
    file.write_text(MODULE.format(factor=20_000))
    first = _dask_code.code_token(module.load)
    importlib.reload(module)
    assert _dask_code.code_token(module.load) != first


def test_the_code_is_known_where_a_module_has_no_text() -> None:
    """As of bytecode, or of what `exec` made: constants of the function and of functions within it tell."""
    made = []
    for number in (1, 1, 2):
        space: dict[str, Any] = {"__name__": "no_such_module"}
        exec(f"def outer():\n    def inner():\n        return {number}\n    return inner()", space)
        made.append(_dask_code.code_token(space["outer"]))
    assert made[0] == made[1] != made[2]
    assert _dask_code.code_token(functools.partial(os.path.join, "a")) == _dask_code.code_token(os.path.join)
    assert _dask_code.code_token(len) == _dask_code.code_token(len)


def grow(number: int) -> int:
    """20 MB that are kept; the task itself keeps nothing of it."""

    def make(number: int) -> Any:
        return numpy.full(20 << 20, number % 251, dtype="u1")

    return int(adapter.memoize(make)(number)[0])


def test_a_cache_that_grows_fast_leads_to_nothing(client: Any) -> None:
    """It passes the worker's limit, and everything that Dask acts on, between two of Dask's looks."""
    adapter.register(client)
    assert client.gather(client.map(grow, range(60))) == list(range(60))
    assert client.get_events("worker-restart-memory") == ()
    (lines,) = client.get_worker_logs().values()
    assert not [line for _, line in lines if "Pausing" in line]
    (resident,) = client.run(resident_bytes).values()
    assert resident > 3 * LIMIT_BYTES


class FakeNanny:
    """What the plugin asks of a nanny, with the process' memory as a test says."""

    def __init__(self) -> None:
        self.process = SimpleNamespace(process=SimpleNamespace(pid=17))
        self.memory_manager = SimpleNamespace(memory_limit=1000, memory_terminate_fraction=0.95)
        self.periodic_callbacks = {"memory_monitor": SimpleNamespace(callback=self.end)}
        self.resident, self.ordinary, self.looks, self.ended = 0, 0, 0, 0

    def end(self) -> None:
        self.ended += 1

    def resident_bytes(self) -> int:
        return self.resident

    def look(self) -> Look:
        self.looks += 1
        return Look(self.ordinary, 1e9)  # no second one is ever due

    def tick(self, resident: int, ordinary: int) -> int:
        self.resident, self.ordinary = resident, ordinary
        self.periodic_callbacks["memory_monitor"].callback()
        return self.ended


def test_a_nanny_ends_its_worker_only_for_what_a_look_says(monkeypatch: pytest.MonkeyPatch) -> None:
    nanny = FakeNanny()
    monkeypatch.setattr(adapter, "ProcessFigures", lambda pid: nanny)
    plugin = adapter.DroppableNannyPlugin()
    plugin.setup(nanny)
    assert nanny.tick(949, 949) == 0
    assert nanny.looks == 0
    assert nanny.tick(2000, 100) == 0
    assert nanny.tick(9000, 100) == 0, "the cache grew, and no look is due"
    assert nanny.looks == 1
    nanny.process.process.pid += 1  # another worker
    assert nanny.tick(2000, 951) == 1
    assert nanny.tick(2000, 100) == 1, "after one that acted, the next look is at once"
    assert nanny.looks == 3
    plugin.teardown(nanny)
    assert nanny.tick(0, 0) == 2, "Dask's own again"


def test_limits_that_change_count_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    nanny = FakeNanny()
    monkeypatch.setattr(adapter, "ProcessFigures", lambda pid: nanny)
    plugin = adapter.DroppableNannyPlugin()
    plugin.setup(nanny)
    assert nanny.tick(900, 100) == 0
    nanny.memory_manager.memory_limit = 500
    assert nanny.tick(900, 100) == 0, "nearly all of it is a cache"
    nanny.memory_manager.memory_limit = None
    assert nanny.tick(900, 900) == 0
    manager = SimpleNamespace(
        memory_target_fraction=False, memory_spill_fraction=False, memory_pause_fraction=0.8, memory_limit=1000
    )
    memory = OrdinaryMemory(nanny, 0)
    nanny.resident, nanny.ordinary = 700, 100
    assert adapter._read_bytes(manager, memory) == 700
    manager.memory_limit = 500
    assert adapter._read_bytes(manager, memory) == 100
    manager.memory_limit = None
    assert adapter._read_bytes(manager, memory) == 700


@pytest.mark.parametrize(
    ("target", "spill", "pause", "mark"),
    [(0.6, 0.7, 0.8, 600), (False, 0.7, 0.8, 700), (0.6, False, 0.4, 400), (False, False, False, None)],
)
def test_the_mark_of_a_worker_is_the_least_that_it_acts_on(target: Any, spill: Any, pause: Any, mark: Any) -> None:
    manager = SimpleNamespace(
        memory_target_fraction=target, memory_spill_fraction=spill, memory_pause_fraction=pause, memory_limit=1000
    )
    assert adapter._mark_bytes(manager) == mark
    manager.memory_limit = None
    assert adapter._mark_bytes(manager) is None
