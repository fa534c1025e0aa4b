"""The corpus: which files the service renders. Called by demo.py."""

import random
import sysconfig
from dataclasses import dataclass
from pathlib import Path

FILES_MAX = 2000
"""More files than this are sampled, so that a large tree does not turn the run into one of first renderings alone."""

FILE_BYTES_MAX = 1 << 20
"""Larger files are left out: one of them would take seconds to render (the standard library has none)."""

_NOT_THE_LIBRARY = {"site-packages", "dist-packages"}


@dataclass(frozen=True)
class Corpus:
    """Files in a fixed order; `sizes_bytes` are those of the sources, index by index."""

    directory: Path
    files: tuple[Path, ...]
    sizes_bytes: tuple[int, ...]

    @property
    def total_bytes(self) -> int:
        return sum(self.sizes_bytes)

    def warm(self) -> None:
        """Reads every file here, so that the page cache of the sources is charged to none of the runs."""
        for path in self.files:
            path.read_bytes()


def standard_library() -> Path:
    """The directory of the running Python's own library."""
    return Path(sysconfig.get_path("stdlib"))


def collect(directory: Path, suffix: str = ".py", seed: int = 1) -> Corpus:
    """Finds the files below a directory, in an order that depends on their names and the seed alone.

    Raises:
        FileNotFoundError: there is no such directory, or no file of that suffix in it.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory} is not a directory")
    found = []
    for path in sorted(directory.rglob(f"*{suffix}")):
        if _NOT_THE_LIBRARY.isdisjoint(path.relative_to(directory).parts) and path.is_file():
            size_bytes = path.stat().st_size
            if size_bytes <= FILE_BYTES_MAX:
                found.append((path, size_bytes))
    if not found:
        raise FileNotFoundError(f"no file below {directory} ends in {suffix!r}; --input and --suffix choose others")
    if len(found) > FILES_MAX:
        found = sorted(random.Random(seed).sample(found, FILES_MAX))
    return Corpus(directory, tuple(path for path, _ in found), tuple(size for _, size in found))
