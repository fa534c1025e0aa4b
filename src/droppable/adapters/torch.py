"""PyTorch: a dataset whose samples are kept, for data loaders with workers.

dataset ---- CachedDataset ---- DataLoader
|                 |  fork
cache, filled      workers: they find what was cached before, in the same memory; what they cache
before the fork    themselves is their own
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from torch.utils.data import Dataset, IterableDataset

import droppable

T_co = TypeVar("T_co", covariant=True)


class CachedDataset(Dataset[T_co], Generic[T_co]):
    """A dataset that keeps the samples of another one, by their index, until something else needs the memory.

        loader = DataLoader(CachedDataset(pictures), num_workers=4, persistent_workers=True)

    A sample that is lost is asked for again. Each call gives tensors, arrays and objects of the caller's own, which may
    be changed: torch makes tensors of NumPy arrays without a copy, and would write to the cache's memory through them.

    Threads: any. Forked workers find what was cached before they were forked, and each keeps what it asks for itself:
    fill the cache before, or let the workers live (`persistent_workers=True`). Spawned workers begin empty.

    What the dataset makes anew at each call, as with random augmentations, must come after the cache, not before it:
    else each sample looks the same in every epoch.

    Args:
        dataset: with `__getitem__` and `__len__`. It must give the same sample for the same index. What it gives for a
            slice, or for an index that is not hashable, such as a list, is not kept.
        options: what `droppable.Cache` takes; fork is "share" unless you say otherwise.

    Raises:
        TypeError: dataset has no `__getitem__`, or is an IterableDataset.
    """

    def __init__(self, dataset: Dataset[T_co], **options: Any) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(type(dataset), "__getitem__"):
            raise TypeError(
                "dataset must have __getitem__, so that samples can be kept by their index; an IterableDataset has "
                f"none. You gave {dataset!r}"
            )
        self._dataset: Any = dataset
        self._options = {"fork": "share", **options}
        self._cache: droppable.Cache[Any, T_co] = droppable.Cache(**self._options)

    @property
    def cache(self) -> droppable.Cache[Any, T_co]:
        """The cache behind it: for `stats()`, and for tests that drop what is in it."""
        return self._cache

    def __getitem__(self, index: Any) -> T_co:
        if isinstance(index, slice) or not _is_hashable(index):
            return self._dataset[index]  # type: ignore[no-any-return]
        return self._cache.get_or_create(index, lambda: self._dataset[index], copy=True)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getstate__(self) -> dict[str, Any]:
        """For workers that are spawned: without what is cached."""
        return {name: value for name, value in vars(self).items() if name != "_cache"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cache = droppable.Cache(**self._options)


def _is_hashable(index: object) -> bool:
    try:
        hash(index)
    except TypeError:
        return False
    return True
