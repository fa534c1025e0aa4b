"""A disk below the cache: what the kernel takes is read from the disk again, and outlives the process."""

import tempfile
from collections.abc import Iterator, MutableMapping
from pathlib import Path

import droppable
from droppable import testing


class Folder(MutableMapping[str, bytes]):
    """A file for each key. diskcache and other mappings do as well."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __getitem__(self, key: str) -> bytes:
        try:
            return (self.path / key).read_bytes()
        except FileNotFoundError:
            raise KeyError(key) from None

    def __setitem__(self, key: str, value: bytes) -> None:
        (self.path / key).write_bytes(value)

    def __delitem__(self, key: str) -> None:
        (self.path / key).unlink()

    def __len__(self) -> int:
        return len(list(self))

    def __iter__(self) -> Iterator[str]:
        return (path.name for path in self.path.iterdir())


with tempfile.TemporaryDirectory() as path, droppable.Cache(below=Folder(Path(path))) as cache:
    page = cache.get_or_create("index", lambda: b"rendered")
    testing.drop(cache)  # the kernel takes all of it
    assert cache.get("index") == b"rendered"  # from the file
    print(cache.tier_stats())
