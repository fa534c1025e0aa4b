"""Values that processes share: as bytes, and back. Nothing here runs what somebody else has written.

    kind         meta                               value
    BYTES        -                                  the bytes
    ASCII, TEXT  -                                  UTF-8
    ARRAY        repr of (shape, order, dtype)      the array's bytes        dtype: as in a .npy file, read as a literal
    SERIALIZED   -                                  what the user's serializer made of it
    INTEGER      -                                  decimal digits of an int of 64 bits, which the server can add to

Whoever can connect to the server can write, so that no value is ever unpickled, and what does not fit its kind is no
value.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from droppable._arguments import read_dumped
from droppable._cache import Serializer

BYTES: Final = 0
ASCII: Final = 1
TEXT: Final = 2
_FIRST_CODED: Final = 4  # binding/value.h: the binding asks decode() for those from here on, less this
ARRAY: Final = _FIRST_CODED + 4  # kinds that a cache in a process has begin at 4: these are none of them
SERIALIZED: Final = _FIRST_CODED + 5
INTEGER: Final = _FIRST_CODED + 6

INTEGERS: Final = range(-(1 << 63), 1 << 63)
_DIGITS: Final = re.compile(rb"-?[0-9]{1,19}")

_FORM_MOST_BYTES: Final = 2048
"""Of a dtype that is written down. With the shape, of 64 numbers at most, it fits into the server's 4,096 bytes."""

Encoded = tuple[int, bytes, Any]
"""kind, meta, and the value: bytes, or a buffer of single bytes."""


class CannotRead(Exception):
    """What is stored is no value of this client: of another version, or made by hand."""


def encode(value: Any, serializer: Serializer | None) -> Encoded:
    """Takes a value apart.

    Raises:
        TypeError: it is neither bytes, text, an int of 64 bits nor an array, and there is no serializer. Whatever the
        serializer raises.
    """
    if isinstance(value, (bytes, bytearray, memoryview)):
        return BYTES, b"", value if type(value) is bytes else bytes(memoryview(value))
    if type(value) is str:
        return (ASCII if value.isascii() else TEXT), b"", value.encode("utf-8", "surrogatepass")
    if type(value) is int and value in INTEGERS:
        return INTEGER, b"", b"%d" % value
    if is_array(value) and not value.dtype.hasobject:
        form = _form_of(value.dtype)
        if form is not None:
            return _encode_array(value, form)
    if serializer is None:
        kind = type(value).__qualname__
        if is_array(value):
            kind += f" and dtype {value.dtype!s:.200}"
        raise TypeError(
            "value must be bytes, str, an int of 64 bits or a NumPy array without objects; you gave one of type "
            f"{kind}. For other objects give connect(serializer=...) one with dumps() and loads() that is safe with "
            "what others may write"
        )
    return SERIALIZED, b"", _as_bytes(serializer.dumps(value))


def _as_bytes(dumped: Any) -> bytes | memoryview:
    """What a serializer has made, so that its length is its length in bytes."""
    data = read_dumped(dumped)
    if type(data) is bytes:
        return data
    view = memoryview(data)
    return view.cast("B") if view.c_contiguous and view.nbytes else bytes(view)


def is_array(value: Any) -> bool:
    """Whether it is a NumPy array, and of no subclass."""
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray


def own_value(value: Any, copy: bool) -> Any:
    """The value; with copy an array that can be written to."""
    return value.copy(order="K") if copy and is_array(value) else value


def decoder(serializer: Serializer | None) -> Callable[[int, bytes, Any], Any]:
    """What makes a value of (kind less _FIRST_CODED, meta, memory), for the binding."""

    def decode(kind: int, meta: bytes, memory: Any) -> Any:
        if kind == ARRAY - _FIRST_CODED:
            return _decode_array(meta, memory)
        if kind == INTEGER - _FIRST_CODED:
            return _decode_integer(bytes(memory))
        if kind != SERIALIZED - _FIRST_CODED:
            raise CannotRead(f"no client of this version stores a value of kind {kind}")
        if serializer is None:
            raise CannotRead("it was stored with a serializer, so give connect() the same serializer=")
        return serializer.loads(bytes(memory))

    return decode


def _decode_integer(digits: bytes) -> int:
    if not _DIGITS.fullmatch(digits):
        raise CannotRead("an int that is no digits")
    return int(digits)


def decode_reply(kind: int, meta: bytes, value: bytes, decode: Callable[[int, bytes, Any], Any]) -> Any:
    """The value of a server's reply."""
    if kind == BYTES:
        return value
    if kind in (ASCII, TEXT):
        return value.decode("utf-8", "surrogatepass")
    return decode(kind - _FIRST_CODED, meta, value)


@lru_cache(maxsize=256)
def _form_of(dtype: Any) -> str | None:
    """How a dtype is written down, as a literal; None for one that would not come back as it was."""
    from ast import literal_eval

    from numpy.lib import format as npy

    try:
        form = repr(npy.dtype_to_descr(dtype))
        if len(form.encode()) > _FORM_MOST_BYTES:
            return None
        return form if npy.descr_to_dtype(literal_eval(form)) == dtype else None
    except (TypeError, ValueError, SyntaxError):
        return None


def _encode_array(array: Any, form: str) -> Encoded:
    import numpy

    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = numpy.ascontiguousarray(array)
    order = "C" if array.flags.c_contiguous else "F"
    flat = memoryview(array.reshape(-1, order=order).view(numpy.uint8)) if array.size else b""
    return ARRAY, f"({array.shape!r}, {order!r}, {form})".encode(), flat


@lru_cache(maxsize=256)
def _read_meta(meta: bytes) -> tuple[tuple[int, ...], str, Any]:
    """The shape, the order and the dtype of an array's meta, which is a literal and nothing more."""
    from ast import literal_eval

    from numpy.lib import format as npy

    shape, order, form = literal_eval(meta.decode())
    return tuple(shape), str(order), npy.descr_to_dtype(form)


def _decode_array(meta: bytes, memory: Any) -> Any:
    import numpy

    shape, order, dtype = _read_meta(meta)
    if dtype.hasobject:
        raise CannotRead("an array of objects")
    if dtype.names is not None:
        dtype = numpy.dtype(dtype, copy=True)  # its names can be changed, so each array has its own
    array: Any = numpy.ndarray(shape, dtype, memory, 0, None, order)  # type: ignore[arg-type]
    if array.nbytes != len(memory):
        raise CannotRead("an array that is longer than its form")
    return array
