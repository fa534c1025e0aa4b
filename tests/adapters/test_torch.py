"""PyTorch's data loader above a dataset whose samples are kept, with workers that are forked and spawned."""

from __future__ import annotations

import copy
import os
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from droppable import testing

numpy = pytest.importorskip("numpy")
torch = pytest.importorskip("torch", reason="torch is not installed (requirements/torch.txt)")

from torch.utils.data import DataLoader, Dataset, IterableDataset  # noqa: E402

from droppable.adapters.torch import CachedDataset  # noqa: E402

SAMPLES = 40
pytestmark = pytest.mark.filterwarnings("default")  # torch's own are not ours


class Pictures(Dataset[Any]):
    """Tells in each sample who made it."""

    def __init__(self) -> None:
        self.made = 0

    def __getitem__(self, index: int) -> Any:
        self.made += 1
        return torch.full((3, 64, 64), float(index)), index, os.getpid()

    def __len__(self) -> int:
        return SAMPLES


def check(batches: list[Any]) -> set[int]:
    """Each sample once, and right; the processes that made them."""
    indices = [int(index) for _, numbers, _ in batches for index in numbers]
    assert sorted(indices) == list(range(SAMPLES))
    for pictures, numbers, _ in batches:
        assert torch.equal(pictures[:, 0, 0, 0], numbers.float())
        assert pictures.shape[1:] == (3, 64, 64)
    return {int(pid) for _, _, pids in batches for pid in pids}


def test_samples_are_made_once() -> None:
    pictures = Pictures()
    dataset = CachedDataset(pictures)
    loader = DataLoader(dataset, batch_size=8, shuffle=True)
    for _ in range(3):
        assert check(list(loader)) == {os.getpid()}
    assert pictures.made == SAMPLES
    picture = dataset[3][0]
    picture += 1  # the caller's own
    assert float(dataset[3][0][0, 0, 0]) == 3
    testing.drop(dataset.cache)
    assert check(list(loader)) == {os.getpid()}
    assert pictures.made == 2 * SAMPLES
    dataset.cache.close()


def test_forked_workers_find_what_was_cached_before() -> None:
    dataset = CachedDataset(Pictures())
    half = [dataset[index] for index in range(SAMPLES // 2)]
    assert len(half) == SAMPLES // 2
    loader = DataLoader(dataset, batch_size=5, num_workers=2, persistent_workers=True, multiprocessing_context="fork")
    first, second = check(list(loader)), check(list(loader))
    assert os.getpid() in first
    assert len(first) == 3
    assert second >= {os.getpid()}
    dataset.cache.close()


def test_spawned_workers_begin_empty() -> None:
    dataset = CachedDataset(Pictures(), max_bytes="64M")
    assert dataset[0][1] == 0
    copied = pickle.loads(pickle.dumps(dataset))
    assert (len(copied.cache), copied.cache.max_bytes, len(copied)) == (0, 64 << 20, SAMPLES)
    assert copied[7][1] == 7
    copied.cache.close()
    dataset.cache.close()


class Arrays(Dataset[Any]):
    """Samples of NumPy, large enough to lie on pages of the cache."""

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, int):
            return [self[number] for number in (range(index.stop) if isinstance(index, slice) else index)]
        if index >= 4:
            raise IndexError(index)
        return {"array": numpy.full(5000, float(index)), "label": index}

    def __len__(self) -> int:
        return 4


@pytest.mark.filterwarnings("error")
def test_a_tensor_that_torch_makes_of_an_array_does_not_reach_the_cache() -> None:
    """PyTorch warns of arrays that are read-only, and writes to their memory nevertheless."""
    dataset = CachedDataset(Arrays())
    for _ in range(2):
        for sample in DataLoader(dataset, batch_size=None):
            assert sample["array"].unique().tolist() == [sample["label"]]
            sample["array"] += 1
    assert dataset.cache.stats().hits == 4
    dataset.cache.close()


def test_what_cannot_be_a_key_is_not_kept() -> None:
    dataset = CachedDataset(Arrays())
    for index in (slice(2), [0, 1], numpy.array([0, 1]).tolist()):
        assert [sample["label"] for sample in dataset[index]] == [0, 1]
    assert len(dataset.cache) == 0
    assert len(list(iter(dataset))) == 4
    dataset.cache.close()


class Scaled(CachedDataset[Any]):
    """Derived by a user, with arguments and attributes of its own."""

    def __init__(self, dataset: Dataset[Any], scale: int) -> None:
        super().__init__(dataset, max_bytes="64M")
        self.scale = scale

    def __getitem__(self, index: Any) -> Any:
        return super().__getitem__(index)["label"] * self.scale


def test_a_derived_dataset_can_be_sent_to_spawned_workers() -> None:
    dataset = Scaled(Arrays(), 3)
    assert dataset[2] == 6
    for other in (pickle.loads(pickle.dumps(dataset)), copy.copy(dataset), copy.deepcopy(dataset)):
        assert (other[2], other.scale, other.cache.max_bytes) == (6, 3, 64 << 20)
        assert other.cache is not dataset.cache
        other.cache.close()
    dataset.cache.close()


class Stream(IterableDataset[int]):
    def __iter__(self) -> Iterator[int]:
        return iter(range(3))


@pytest.mark.parametrize("wrong", [3, None, Stream()])
def test_what_has_no_samples_by_index_is_refused(wrong: Any) -> None:
    with pytest.raises(TypeError, match="dataset must have __getitem__"):
        CachedDataset(wrong)
