"""Reads cache traces, in the formats of libCacheSim and of Caffeine's simulator. Called by cache_traces.py.

    read("wiki.oracleGeneral.xz")  ->  Trace(keys [0, 1, 0, 2 ...], sizes or None, costs or None)

Files may be compressed (.xz, .gz, .bz2). The format is seen in the name or in the first lines; binary ones that have
neither a name nor a mark are named in front of the path: cache2k:FILE.

    oracle      libCacheSim's oracleGeneral: little-endian records of time, id, size, next time
    csv         libCacheSim's: a head line that names its columns, or time,id,size
    txt         libCacheSim's and LIRS': an id a line
    twitter     time,key,key size,value size,client,operation,time to live: the reads of it
    adaptsize   number id size; LRB's time id size is read alike
    arc         first block, number of blocks, two numbers more: a request for each block
    address     l or s, an address, a number
    penalties   l or s, an address, a number, the cost of a hit, the cost of a miss
    cache2k     keys of 4 bytes              corda       keys of 8 bytes
"""

import bz2
import gzip
import lzma
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

_ORACLE = numpy.dtype([("time", "<u4"), ("id", "<u8"), ("size", "<u4"), ("next", "<i8")])
_OPENERS: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open, ".bz2": bz2.open}


class TraceError(ValueError):
    """The file is not what it was taken for; the message says what to do."""


@dataclass(frozen=True)
class Trace:
    """Requests in order. Keys are numbered by first appearance, from 0."""

    format: str
    keys: Any
    sizes: Any
    costs: Any

    def first(self, requests: int) -> "Trace":
        parts = (None if part is None else part[:requests] for part in (self.keys, self.sizes, self.costs))
        return Trace(self.format, *parts)


def read(name: str) -> Trace:
    """Reads FILE or FORMAT:FILE.

    Raises:
        TraceError: of no known format, or cut off.
        OSError: the file cannot be read.
    """
    prefix, _, rest = name.partition(":")
    given, path = (prefix, Path(rest)) if prefix in _READERS and rest else ("", Path(name))
    suffixes = path.suffixes
    opener = _OPENERS.get(suffixes[-1]) if suffixes else None
    with opener(path, "rb") if opener else path.open("rb") as file:
        data: bytes = file.read()
    kind = given or _kind(path.name, data)
    try:
        return _READERS[kind](data)
    except (ValueError, IndexError) as error:
        raise TraceError(f"{path}: not of the format {kind}: {error}. Name the right one: FORMAT:{path}") from error


def _kind(name: str, data: bytes) -> str:
    if "oraclegeneral" in name.lower():
        return "oracle"
    lines = [line for line in data[:4096].split(b"\n")[:-1] if line.strip()] or [data[:4096].strip()]
    if not data[:4096].isascii() or b"\0" in data[:4096]:
        raise TraceError(f"{name}: binary, and its name does not tell the format. Name it: cache2k:{name}, for example")
    text = lines[-1].decode().strip()
    for kind, pattern in _PATTERNS.items():
        if re.fullmatch(pattern, text):
            return kind
    raise TraceError(f"{name}: no known format has lines like {text[:80]!r}. Known are {', '.join(_READERS)}")


_PATTERNS = {
    "twitter": r"\d+,[^,]+,\d+,\d+,\d+,[a-z]+,\d+",
    "csv": r"[^,]+(,[^,]*)+",
    "penalties": r"[ls] 0x[0-9a-fA-F]+ \d+ \d+ \d+",
    "address": r"[ls] 0x[0-9a-fA-F]+ \d+",
    "arc": r"\d+ \d+ \d+ \d+",
    "adaptsize": r"\d+ \d+ \d+( .*)?",
    "txt": r"\*|\S+",
}


def _trace(kind: str, keys: Any, sizes: Any = None, costs: Any = None) -> Trace:
    """Numbers the keys by first appearance."""
    keys = numpy.asarray(keys)
    if not len(keys):
        raise ValueError("no request in it")
    _, first, where = numpy.unique(keys, return_index=True, return_inverse=True)
    order = numpy.empty(len(first), "u4")
    order[numpy.argsort(first)] = numpy.arange(len(first), dtype="u4")
    parts = (None if part is None else numpy.asarray(part, "i8").astype("u4") for part in (sizes, costs))
    return Trace(kind, order[where.reshape(-1)], *parts)


def _oracle(data: bytes) -> Trace:
    records = numpy.frombuffer(data, _ORACLE)
    return _trace("oracle", records["id"], records["size"])


def _rows(data: bytes, separator: str | None) -> Iterator[list[str]]:
    for line in data.decode().splitlines():
        if line.strip() and line.strip() != "*":
            yield line.strip().split(separator)


def _csv(data: bytes) -> Trace:
    rows = [[cell.strip() for cell in row] for row in _rows(data, ",")]
    columns = {"id": 1, "size": 2}
    if not rows[0][0].replace(".", "").isdigit():
        head = [cell.strip("# ").lower() for cell in rows.pop(0)]
        names = {"id": ("id", "obj_id", "object_id", "key", "lbn", "lba"), "size": ("size", "obj_size", "object_size")}
        columns = {of: head.index(name) for of, all_ in names.items() for name in all_ if name in head}
        if "id" not in columns:
            raise ValueError(f"no column is called id, but {', '.join(head)}")
    at = columns.get("size", len(rows[0]))
    sizes = [int(row[at]) for row in rows] if len(rows[0]) > at else None
    return _trace("csv", [row[columns["id"]] for row in rows], sizes)


def _txt(data: bytes) -> Trace:
    return _trace("txt", [row[0] for row in _rows(data, None)])


def _twitter(data: bytes) -> Trace:
    rows = [row for row in _rows(data, ",") if row[5] in ("get", "gets")]
    return _trace("twitter", [row[1] for row in rows], [int(row[2]) + int(row[3]) for row in rows])


def _adaptsize(data: bytes) -> Trace:
    rows = [row[1:3] for row in _rows(data, None)]
    # The same id with another size counts as another object, as in the simulator these come from.
    return _trace("adaptsize", [f"{key} {size}" for key, size in rows], [int(size) for _, size in rows])


def _arc(data: bytes) -> Trace:
    blocks = (range(int(row[0]), int(row[0]) + int(row[1])) for row in _rows(data, None))
    return _trace("arc", [block for some in blocks for block in some])


def _address(data: bytes) -> Trace:
    return _trace("address", [int(row[1], 16) for row in _rows(data, None)])


def _penalties(data: bytes) -> Trace:
    rows = list(_rows(data, None))
    return _trace("penalties", [int(row[1], 16) for row in rows], None, [int(row[4]) for row in rows])


_READERS: dict[str, Callable[[bytes], Trace]] = {
    "oracle": _oracle, "csv": _csv, "txt": _txt, "twitter": _twitter, "adaptsize": _adaptsize, "arc": _arc,
    "address": _address, "penalties": _penalties,
    "cache2k": lambda data: _trace("cache2k", numpy.frombuffer(data, "<u4")),
    "corda": lambda data: _trace("corda", numpy.frombuffer(data, ">u8")),
}  # fmt: skip
