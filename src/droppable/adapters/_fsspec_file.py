"""Which file an open file of fsspec reads, and which version of it.

                     in this process                        for all processes of the host
    file system      fsspec's token, with the process id    its class and a digest of its arguments
    version          all that its details tell              what changes whenever a byte of the file does
    unknown          a number that no other cache has       random bytes: the blocks are shared with nobody

Arguments of a file system may be passwords, and whoever connects to a server reads its keys: hence the digest. An
argument that is no plain value cannot be told from another process's, and then nothing is shared.

`fsspec.py` alone calls this.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
from collections.abc import Hashable
from contextlib import suppress
from typing import Any, Final

from fsspec import AbstractFileSystem

_CHANGING: Final = (
    "ETag", "etag", "Last-Modified", "LastModified", "last_modified", "Content-MD5", "Digest", "mtime", "updated",
)  # fmt: skip
_VERSIONS: Final = (*_CHANGING, "created")
"""Where file systems say in a file's details which of its contents this is."""
_PLAIN: Final = frozenset({str, bytes, int, float, bool, type(None)})
_alone = itertools.count()


class Origin:
    """Where a cache's blocks come from. fetcher: a method of the open file, if the file is to be known."""

    def __init__(self, fetcher: Any, size: int) -> None:
        file = getattr(fetcher, "__self__", None)
        self._filesystem: Any = getattr(file, "fs", None)
        self._path = getattr(file, "path", None)
        self._details = getattr(file, "details", None)
        self._size = size
        self._version: tuple[str, ...] = ()

    def in_process(self) -> Hashable:
        """What the file is, for all who open it in this process."""
        token = getattr(self._filesystem, "_fs_token", None)
        if token is None or not isinstance(self._path, str):
            return next(_alone)
        version = _version(self._details, _VERSIONS) or _version(self._info(), _VERSIONS)
        return str(token), self._path, self._size, version

    def on_host(self) -> Hashable:
        """What the file is, for all processes; random bytes where that, or the file's version, is not known."""
        part = _filesystem_part(self._filesystem)
        if part is not None and isinstance(self._path, str):
            # Asked for, although the file may tell it: a list of a folder writes a time otherwise than an answer
            self._version = self._ask_version()
            if self._version:
                token = hashlib.blake2b(repr((part, self._path)).encode(errors="surrogatepass"), digest_size=32)
                return token.digest(), self._size, self._version
        return secrets.token_bytes(16)

    def is_same(self) -> bool:
        """Whether the file still has the version that `on_host` has found. The file system is asked.

        True where that is not known: then nobody else finds the blocks.
        """
        return not self._version or self._ask_version() == self._version

    def _ask_version(self) -> tuple[str, ...]:
        with suppress(Exception):
            self._filesystem.invalidate_cache(self._path)  # what it knows of the folder may be old
        details = self._info()
        is_of_size = isinstance(details, dict) and details.get("size") == self._size
        return _version(details, _CHANGING) if is_of_size else ()

    def _info(self) -> Any:
        with suppress(Exception):  # it cannot say: as if it told no version
            return self._filesystem.info(self._path)
        return None


def _version(details: Any, names: tuple[str, ...]) -> tuple[str, ...]:
    if not isinstance(details, dict):
        return ()
    told = ((name, str(details[name])) for name in names if details.get(name))
    # A weak ETag stands for contents that mean the same: their bytes may differ.
    return tuple(text for name, text in told if name.lower() != "etag" or not text.startswith("W/"))


def _filesystem_part(filesystem: Any) -> Any:
    """What tells this file system from all others on any process of the host; None where that cannot be told."""
    if not isinstance(filesystem, AbstractFileSystem):
        return None
    kind = type(filesystem)
    arguments = _part((filesystem.storage_args, filesystem.storage_options))
    return None if arguments is None else (kind.__module__, kind.__qualname__, arguments)


def _part(value: Any) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return kind.__name__, value
    if isinstance(value, AbstractFileSystem):
        return _filesystem_part(value)
    if kind is dict:
        names = sorted(value, key=repr)
        parts = [part for name in names for part in (_part(name), _part(value[name]))]
    elif kind in (list, tuple):
        parts = [_part(item) for item in value]
    else:
        return None
    return None if None in parts else (kind.__name__, *parts)
