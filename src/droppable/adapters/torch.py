"""PyTorch: a dataset whose samples are kept, for data loaders with workers.

dataset ---- CachedDataset ---- DataLoader
|                 |  fork
cache, filled      workers: they find what was cached before, in the same memory; what they cache
before the fork    themselves is their own

With shared="/run/droppable.sock" the samples are in the cache of `droppable serve`, and all workers of all loaders of
the host find what any of them asked for.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from torch.utils.data import Dataset, IterableDataset

import droppable
from droppable.adapters._shared import part_of

T_co = TypeVar("T_co", covariant=True)


class CachedDataset(Dataset[T_co], Generic[T_co]):
    """A dataset that keeps the samples of another one, by their index, until something else needs the memory.

        loader = DataLoader(CachedDataset(pictures), num_workers=4, persistent_workers=True)

    A sample that is lost is asked for again. Each call gives tensors, arrays and objects of the caller's own, which may
    be changed: torch makes tensors of NumPy arrays without a copy, and would write to the cache's memory through them.

    Threads: any. Forked workers find what was cached before they were forked, and each keeps what it asks for itself:
    fill the cache before, or let the workers live (`persistent_workers=True`). Spawned workers begin empty. With
    `shared` all of them have one cache, and a sample is asked for once.

    What the dataset makes anew at each call, as with random augmentations, must come after the cache, not before it:
    else each sample looks the same in every epoch.

    Args:
        dataset: with `__getitem__` and `__len__`. It must give the same sample for the same index. What it gives for a
            slice, or for an index that is not hashable, such as a list, is not kept.
        shared: the path of a server's socket (`droppable serve`). Samples are NumPy arrays, bytes, text or ints then;
            others, tensors too, need `serializer=`, an option of `droppable.connect`. A sample must not be larger than
            the server's --max-value.
        name: with `shared`, which dataset it is, in all processes: another name for other samples, also where only what
            is done to them changed.
        options: what `droppable.Cache` takes; fork is "share" unless you say otherwise. With `shared`, what
            `droppable.connect` takes.

    Raises:
        TypeError: dataset has no `__getitem__`, or is an IterableDataset. `shared` without `name`, or the other way.
        PermissionError: see `droppable.connect`.
    """

    def __init__(
        self, dataset: Dataset[T_co], *, shared: str | None = None, name: str | None = None, **options: Any
    ) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(type(dataset), "__getitem__"):
            raise TypeError(
                "dataset must have __getitem__, so that samples can be kept by their index; an IterableDataset has "
                f"none. You gave {dataset!r}"
            )
        if (shared is None) != (name is None):
            raise TypeError(
                "shared and name go together: the path of a server's socket, and which dataset it is for all "
                f"processes; you gave shared={shared!r}, name={name!r}"
            )
        self._dataset: Any = dataset
        self._shared = shared
        self._name = name
        self._options = options
        self._cache = self._make()

    def _make(self) -> droppable.Cache[Any, T_co] | droppable.SharedNamespace:
        if self._shared is not None and self._name is not None:
            return part_of(self._shared, "torch", self._name, self._options)
        return droppable.Cache(**{"fork": "share", **self._options})

    @property
    def cache(self) -> droppable.Cache[Any, T_co] | droppable.SharedNamespace:
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
        self._cache = self._make()


def _is_hashable(index: object) -> bool:
    try:
        hash(index)
    except TypeError:
        return False
    return True
