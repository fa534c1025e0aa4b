"""Values that follow from a key and a version, so that whoever reads one can tell whether it is right to the last byte.

    (key, version) -> hash -> kind, size, offset into a pool of random bytes

Keys come in three classes of sizes, so that a million operations stay affordable: most values are small, a few keys
have values of up to 8 MB.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

SMALL_KEYS, MIDDLE_KEYS, LARGE_KEYS = 1500, 120, 24
KEYS = SMALL_KEYS + MIDDLE_KEYS + LARGE_KEYS
LARGEST_BYTES = 8 << 20

POOL = numpy.random.default_rng(20).bytes(2 * LARGEST_BYTES)
TEXT = POOL[: LARGEST_BYTES // 4].hex()
WIDE = "".join(chr(0x20 + int(point)) for point in numpy.random.default_rng(21).integers(0, 0xD000, 1 << 20))

PLAIN = ["u1", "<f8", ">i4", "<c16", "?", "<f2", "<M8[s]", ">u8", "S7", "<U5", "V13", "i1", "<m8[ns]", "<f4"]
DTYPES = (
    *(numpy.dtype(name) for name in PLAIN),
    numpy.dtype([("id", "<i4"), ("weight", "<f8"), ("name", "S3")]),
    numpy.dtype([("point", "<f4", (3,)), ("at", [("x", ">u2"), ("y", "u1")])]),
)


def scatter(key: int, version: int) -> int:
    """64 bits that look random (SplitMix64)."""
    z = (key << 32 | version) * 0x9E3779B97F4A7C15 & 0xFFFFFFFFFFFFFFFF
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & 0xFFFFFFFFFFFFFFFF
    z = (z ^ z >> 27) * 0x94D049BB133111EB & 0xFFFFFFFFFFFFFFFF
    return z ^ z >> 31


def size_of(key: int, bits: int) -> int:
    """Log-uniform within the key's class, in bytes; a sixteenth of all values is empty."""
    share = (bits >> 12 & 0xFFF) / 0x1000
    if bits >> 8 & 15 == 0:
        return 0
    if key < SMALL_KEYS:
        return int(700**share)
    if key < SMALL_KEYS + MIDDLE_KEYS:
        return int(500 * 80**share)
    return int(30_000 * (LARGEST_BYTES / 30_000) ** share)


def some_bytes(size: int, bits: int) -> bytes:
    start = bits % LARGEST_BYTES
    return POOL[start : start + size]


def some_text(pool: str, size: int, bits: int) -> str:
    size = min(size, len(pool) // 2)
    start = bits % (len(pool) - size)
    return pool[start : start + size]


def some_array(size: int, bits: int) -> Any:
    dtype = DTYPES[bits >> 24 & 15]
    count = size // dtype.itemsize
    flat = numpy.frombuffer(POOL, dtype, count, bits % LARGEST_BYTES // 16 * 16)
    match bits >> 28 & 7:
        case 0:
            return flat[:1].reshape(()) if count else flat.reshape(3, 0, 5)
        case 1:
            return flat[: count // 6 * 6].reshape(2, -1, 3)
        case 2:
            return flat[: count // 4 * 4].reshape(4, -1).T  # in Fortran order
        case 3:
            return flat[: count // 4 * 4].reshape(-1, 4)[:, ::2]  # with gaps
        case 4:
            return flat[::-1]
        case _:
            return flat


def arrays_in_a_dict(size: int, bits: int) -> Any:
    # NumPy's pickle forgets the byte order of arrays with gaps, so these have none
    columns = [numpy.array(some_array(size // part, bits * part), order="A") for part in (2, 3)]
    return {"size": size, "columns": columns, "text": "\u20ac"}


MAKERS: tuple[Callable[[int, int], Any], ...] = (
    some_bytes,
    lambda size, bits: bytearray(some_bytes(size, bits)),
    lambda size, bits: memoryview(some_bytes(size, bits))[::2],
    lambda size, bits: some_text(TEXT, size, bits),
    lambda size, bits: some_text(WIDE, size // 3, bits),
    some_array,
    some_array,
    arrays_in_a_dict,
    lambda size, bits: {"bits": bits, "bytes": some_bytes(size, bits), 5: [None, True, 1.5, (bits,)]},
    lambda size, bits: (bits, some_text(WIDE, size // 3, bits)),
    some_bytes,
    lambda size, bits: bits - (1 << 63),
    lambda size, bits: bits << (size & 255),
    lambda size, bits: None,
    lambda size, bits: bits / 7,
    lambda size, bits: numpy.float32(bits & 0xFFFF),
)


def value(key: int, version: int) -> Any:
    bits = scatter(key, version)
    return MAKERS[bits & 15](size_of(key, bits), bits)


def is_viewable(expected: Any) -> bool:
    return isinstance(expected, bytes | bytearray | memoryview | numpy.ndarray)


def raw_bytes(expected: Any) -> bytes:
    """What a view of it shows: an array's elements in memory order."""
    if isinstance(expected, numpy.ndarray):
        return bytes(expected.tobytes("A"))
    return bytes(expected)


def same(got: Any, expected: Any) -> bool:
    """Equal in type, shape, layout and every byte. NaNs are equal to themselves."""
    if isinstance(expected, bytearray | memoryview):
        expected = bytes(expected)
    if type(got) is not type(expected):
        return False
    if isinstance(expected, numpy.ndarray):
        return (
            got.dtype == expected.dtype
            and got.shape == expected.shape
            and not (isinstance(got.base, numpy.ndarray) or got.flags.writeable)
            and (got.flags.c_contiguous or (got.flags.f_contiguous and not expected.flags.c_contiguous))
            and got.tobytes("A") == expected.tobytes("A")
        )
    if isinstance(expected, dict) and "columns" in expected:
        return (
            got.keys() == expected.keys()
            and got["size"] == expected["size"]
            and all(
                a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
                for a, b in zip(got["columns"], expected["columns"], strict=True)
            )
        )
    return bool(got == expected)
