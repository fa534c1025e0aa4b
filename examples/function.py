"""A function that takes long, called again and again: its results stay until something else needs the memory."""

import zlib
from pathlib import Path

import droppable


@droppable.cache
def packed_size(path: Path) -> int:
    """How many bytes a file has when it is compressed."""
    return len(zlib.compress(path.read_bytes(), level=9))


files = sorted(Path(droppable.__file__).parent.glob("*.py"))
for _ in range(3):
    total = sum(packed_size(path) for path in files)
print(f"{len(files)} files have {total} bytes when they are compressed")
print(packed_size.cache_info())
assert packed_size.cache_info().misses == len(files)
