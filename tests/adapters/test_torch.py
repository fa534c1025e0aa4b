"""PyTorch's data loader above a dataset whose samples are kept, with workers that are forked and spawned."""

from __future__ import annotations

import os
import pickle
from typing import Any

import pytest

from droppable import testing

torch = pytest.importorskip("torch", reason="torch is not installed (requirements/torch.txt)")

from torch.utils.data import DataLoader, Dataset  # noqa: E402

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
