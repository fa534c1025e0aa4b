"""Samples of a dataset in a cache that all processes of the host share.

Where torch is not installed, two empty classes stand in for those of torch that the adapter derives from and asks for.
Worker processes read samples as those of a DataLoader do.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import types
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest

import droppable
from tests.server import Server

numpy = pytest.importorskip("numpy")
T = TypeVar("T")


class _Dataset(Generic[T]):
    pass


class _IterableDataset(_Dataset[T]):
    pass


if find_spec("torch") is None:
    data = types.ModuleType("torch.utils.data")
    vars(data).update(Dataset=_Dataset, IterableDataset=_IterableDataset)
    sys.modules["torch.utils.data"] = data
    try:
        from droppable.adapters.torch import CachedDataset
    finally:
        del sys.modules["torch.utils.data"]  # the tests that need torch see that there is none
else:
    from droppable.adapters.torch import CachedDataset

SAMPLES = 40
pytestmark = pytest.mark.filterwarnings("default")  # torch's own are not ours


class Pictures(_Dataset[Any]):
    """Tells in each sample who made it."""

    def __init__(self, bytes_each: int = 800) -> None:
        self.made = 0
        self.length = bytes_each // 8

    def __getitem__(self, index: int) -> Any:
        self.made += 1
        return numpy.full(self.length, index * 10_000_000 + os.getpid(), dtype=numpy.int64)

    def __len__(self) -> int:
        return SAMPLES


class Dicts(Pictures):
    def __getitem__(self, index: int) -> Any:
        return {"index": index, "made by": os.getpid()}


class Ending(Pictures):
    """Its worker is killed while it computes a sample, unless the file says that this has been."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self.mark = mark

    def __getitem__(self, index: int) -> Any:
        if index == 3 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


def makers(dataset: Any) -> set[int]:
    """Goes through the dataset as a worker does: each sample must be right. Who made them."""
    found = set()
    for index in range(len(dataset)):
        sample = dataset[index]
        assert sample[0] // 10_000_000 == index
        assert (sample == sample[0]).all()
        found.add(int(sample[0] % 10_000_000))
        sample += 1  # the caller's own
    return found


@pytest.fixture
def dataset(server: Server) -> Iterator[Any]:
    made: Any = CachedDataset(Pictures(), connect=server.path, name="pictures", retry_seconds=0.001)
    yield made
    made.cache.close()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_find_what_another_process_has_made(method: str, dataset: Any) -> None:
    with multiprocessing.get_context(method).Pool(1) as pool:
        (first,) = pool.apply(makers, (dataset,))
    assert first != os.getpid()
    with multiprocessing.get_context(method).Pool(2) as pool:
        assert pool.map(makers, [dataset] * 2) == [{first}] * 2
    assert makers(dataset) == {first}


def test_a_worker_that_is_killed_while_it_computes_holds_nobody_up(tmp_path: Path, server: Server) -> None:
    dataset: Any = CachedDataset(Ending(tmp_path / "mark"), connect=server.path, name="ending")
    worker = multiprocessing.get_context("fork").Process(target=makers, args=(dataset,))
    worker.start()
    worker.join()
    assert worker.exitcode == -signal.SIGKILL
    assert makers(dataset) == {worker.pid, os.getpid()}
    dataset.cache.close()


def test_a_name_stands_for_a_version(server: Server, dataset: Any) -> None:
    makers(dataset)
    second: Any = CachedDataset(Pictures(), connect=server.path, name="pictures 2")
    makers(second)
    assert (dataset._dataset.made, second._dataset.made) == (SAMPLES, SAMPLES)
    same: Any = CachedDataset(Pictures(), connect=server.path, name="pictures")
    makers(same)
    assert same._dataset.made == 0
    for made in (second, same):
        made.cache.close()


def test_a_server_that_dies_in_the_middle(dataset: Any, server: Server) -> None:
    makers(dataset)
    server.kill()
    makers(dataset)
    assert dataset._dataset.made == 2 * SAMPLES
    server.start()
    makers(dataset)
    makers(dataset)
    assert dataset.cache.stats().connections >= 2
    made = dataset._dataset.made
    makers(dataset)
    assert dataset._dataset.made == made


def test_samples_over_the_servers_limit_are_made_each_time(server: Server) -> None:
    server.kill()
    server.start("--max-value", "2000")
    dataset: Any = CachedDataset(Pictures(8000), connect=server.path, name="large")
    makers(dataset)
    makers(dataset)
    assert dataset._dataset.made == 2 * SAMPLES
    dataset.cache.close()


def test_other_objects_need_a_serializer(server: Server) -> None:
    refused: Any = CachedDataset(Dicts(), connect=server.path, name="dicts")
    with pytest.raises(TypeError, match="serializer"):
        refused[0]
    kept: Any = CachedDataset(Dicts(), connect=server.path, name="dicts", serializer=json)
    assert kept[1] == kept[1] == {"index": 1, "made by": os.getpid()}
    for made in (refused, kept):
        made.cache.close()


def test_arguments(tmp_path: Path) -> None:
    for wrong in ({"connect": tmp_path / "no.sock"}, {"name": "pictures"}):
        with pytest.raises(ValueError, match="connect and name belong together"):
            CachedDataset(Pictures(), **wrong)
    with pytest.raises(TypeError, match="max_bytes"):
        CachedDataset(Pictures(), connect=tmp_path / "no.sock", name="pictures", max_bytes=1)
    private: Any = CachedDataset(Pictures())
    assert isinstance(private.cache, droppable.Cache)
    private.cache.close()
