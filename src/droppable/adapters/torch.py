"""PyTorch: a dataset whose samples are kept, for data loaders with workers.

dataset ---- CachedDataset ---- DataLoader
|                 |  fork
cache, filled      workers: they find what was cached before, in the same memory; what they cache
before the fork    themselves is their own

With `connect` all of them, spawned or forked, share the cache of a server.
"""

from __future__ import annotations

import os
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
        connect: the path of a server's unix socket: all processes of the host share the samples then, spawned workers
            and other programs too. NumPy arrays, bytes, text and ints need nothing else. Tensors, tuples and other
            objects need serializer=, which loads what anybody who can connect has written: pickle would run their code.
        name: of the samples, with connect: programs that give the same name find each other's samples. Whatever changes
            a sample needs another name: another version of the data, or of the code that makes it.
        options: what `droppable.Cache` takes; fork is "share" unless you say otherwise. With connect, what
            `droppable.connect` takes.

    Raises:
        TypeError: dataset has no `__getitem__`, or is an IterableDataset; an option is unknown.
        ValueError: connect without a name, or a name without connect; an option is out of range.
        PermissionError: see `droppable.connect`.
    """

    def __init__(
        self,
        dataset: Dataset[T_co],
        *,
        connect: str | os.PathLike[str] | None = None,
        name: str = "",
        **options: Any,
    ) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(type(dataset), "__getitem__"):
            raise TypeError(
                "dataset must have __getitem__, so that samples can be kept by their index; an IterableDataset has "
                f"none. You gave {dataset!r}"
            )
        if (connect is None) != (name == ""):
            raise ValueError(
                "connect and name belong together: all who give the same name share their samples; you gave "
                f"connect={connect!r} and name={name!r}"
            )
        self._dataset: Any = dataset
        self._path = connect
        self._name = name
        self._options = options if connect is not None else {"fork": "share", **options}
        self._cache: droppable.Cache[Any, T_co] | droppable.SharedCache = self._open()

    def _open(self) -> droppable.Cache[Any, T_co] | droppable.SharedCache:
        if self._path is None:
            return droppable.Cache(**self._options)
        return droppable.connect(self._path, **self._options)

    @property
    def cache(self) -> droppable.Cache[Any, T_co] | droppable.SharedCache:
        """The cache behind it: for `stats()`, and for tests that drop what is in it."""
        return self._cache

    def __getitem__(self, index: Any) -> T_co:
        if isinstance(index, slice) or not _is_hashable(index):
            return self._dataset[index]  # type: ignore[no-any-return]
        key = index if self._path is None else ("torch", self._name, index)
        return self._cache.get_or_create(key, lambda: self._dataset[index], copy=True)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getstate__(self) -> dict[str, Any]:
        """For workers that are spawned: without what is cached here."""
        return {name: value for name, value in vars(self).items() if name != "_cache"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._cache = self._open()


def _is_hashable(index: object) -> bool:
    try:
        hash(index)
    except TypeError:
        return False
    return True
