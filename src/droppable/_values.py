"""Values whose large parts come back on the cache's own memory: NumPy arrays, and pickles with buffers out of band.

The binding calls `encode` with what is neither bytes-like nor str, and `decode` with what `encode` made of it. The
parts of a value lie one behind the other; each begins on a multiple of 64 bytes, as NumPy and Arrow like it best.
"""

import io
import pickle
import struct
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from droppable._arguments import read_dumped
from droppable._log import tell_once
from droppable._reducers import reducers
from droppable.lowlevel import UnpicklableError, remember_dtype

_ARRAY: Final = 0
_PARTS: Final = 1
_SERIALIZED: Final = 2

KIND_BYTES: Final = 0
"""The binding's own kinds end at 3 (binding/value.h); ours follow."""
_BINDINGS_PICKLE: Final = 3
_BINDINGS_KINDS: Final = 4
KIND_ARRAY: Final = _BINDINGS_KINDS + _ARRAY

_ALIGN_BYTES: Final = 64
_PADDING: Final = bytes(_ALIGN_BYTES)
_IN_PLACE_BYTES: Final = 32 * 1024
"""A pickle of so much lies on pages of its own anyway, and can be read there: a copy less."""
_SCALARS: Final = frozenset({int, float, bool, complex, type(None)})

Coded = tuple[int, bytes, tuple[Any, ...]]
Encode = Callable[[Any], bytes | Coded]
Decode = Callable[[int, bytes, Any], Any]


def coder(serializer: Any) -> tuple[Encode, Decode]:
    """The pair of functions that the binding calls, with an optional serializer in the place of pickle."""
    if serializer is None:
        return encode, decode

    def encode_with(value: Any) -> bytes | Coded:
        if _is_plain_array(value):
            return _encode_array(value)
        return _SERIALIZED, b"", (_dumps_with(serializer, value),)

    def decode_with(kind: int, meta: bytes, memory: Any) -> Any:
        return serializer.loads(bytes(memory)) if kind == _SERIALIZED else decode(kind, meta, memory)

    return encode_with, decode_with


def encode(value: Any) -> bytes | Coded:
    """Takes a value apart: pickle bytes alone, or (kind, meta, parts).

    Raises:
        UnpicklableError: the value cannot be pickled; the message says why.
    """
    if _is_plain_array(value):
        return _encode_array(value)
    buffers: list[pickle.PickleBuffer] = []
    try:
        head = _dumps(value, buffers)
    except MemoryError:
        raise
    except Exception as error:
        _explain(lambda: _dumps(value, []), error, f"your value of type {type(value).__qualname__} cannot be pickled")
    if not buffers and len(head) < _IN_PLACE_BYTES:
        return head
    return _encode_parts(head, buffers)


def _dumps_with(serializer: Any, value: Any) -> Any:
    """The same with a serializer in the place of pickle."""
    try:
        dumped = serializer.dumps(value)
    except MemoryError:
        raise
    except Exception as error:
        kind = type(value).__qualname__
        _explain(lambda: serializer.dumps(value), error, f"your serializer cannot take your value of type {kind}")
    return read_dumped(dumped)


def _explain(dump: Callable[[], object], first: Exception, text: str) -> NoReturn:
    """Dumps once more what raised first, to tell whether the value is to blame: UnpicklableError if it is.

    It is not if it works now. Then first (a signal handler's time limit, say) is raised as it was. If it fails with an
    exception of another type, a third attempt tells which of the two is not the value's, and that one is raised.
    """
    second: Exception | None = None
    third: Exception | None = None
    try:
        second = _failure(dump)
        if second is not None and type(second) is type(first):
            raise UnpicklableError(f"{text}: {second}") from second
        third = None if second is None else _failure(dump)
        raise second if second is not None and type(third) is type(first) else first
    finally:
        del first, second, third  # this frame is in the traceback of one of them


def _failure(dump: Callable[[], object]) -> Exception | None:
    try:
        dump()
    except MemoryError:
        raise
    except Exception as error:
        return error
    return None


def _dumps(value: Any, buffers: list[pickle.PickleBuffer]) -> bytes:
    table = None if type(value) in _SCALARS else reducers.table()
    if table is None:
        return pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol=5, buffer_callback=buffers.append)
    pickler.dispatch_table = table
    pickler.dump(value)
    return file.getvalue()


def decode(kind: int, meta: bytes, memory: Any) -> Any:
    """Puts a value together again on memory: a pin, or bytes where memory cannot be pinned."""
    return _decode_array(meta, memory) if kind == _ARRAY else _decode_parts(meta, memory)


def _is_plain_array(value: Any) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and type(value) is numpy.ndarray and not value.dtype.hasobject


def _encode_array(array: Any) -> Coded:
    import numpy

    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        array = numpy.ascontiguousarray(array)
    order = "C" if array.flags.c_contiguous else "F"
    # as bytes: the buffer protocol has no format for datetimes and the like
    flat = array.reshape(-1, order=order).view(numpy.uint8) if array.size else b""
    head = struct.pack(f"=cB{array.ndim}q", order.encode(), array.ndim, *array.shape)
    return _ARRAY, head + pickle.dumps(array.dtype, protocol=5), (flat,)


def _decode_array(meta: bytes, memory: Any) -> Any:
    """The binding does this for what it remembers of C-ordered arrays: binding/array.c has a picture of meta."""
    from numpy import ndarray

    order, dimensions = struct.unpack_from("=cB", meta)
    shape = struct.unpack_from(f"={dimensions}q", meta, 2)
    pickled = meta[2 + 8 * dimensions :]
    if order != b"C":
        return ndarray(shape, pickle.loads(pickled), memory, 0, None, order.decode())
    dtype, own = _dtype_source(pickled)
    remember_dtype(pickled, ndarray, dtype, own)
    return ndarray(shape, own(dtype) if own else dtype, memory)


def _dtype_source(pickled: bytes) -> tuple[Any, Callable[[Any], Any] | None]:
    """For remember_dtype(): a dtype for all arrays and None; or an argument, and what makes a dtype of it for each.

    Callers can change a dtype: its fields' names, what its metadata hold, and anything by `__setstate__`. So each array
    gets a dtype of its own, but for those of which NumPy has only one itself.
    """
    from numpy import dtype

    mine = pickle.loads(pickled)  # never handed out, so that it stays as it is
    if not _is_copied_whole(mine):
        return pickled, pickle.loads
    if mine.names is None:
        common = dtype(mine.str)
        if common is dtype(mine.str) and common == mine and common.char == mine.char:
            return common, None
    copy = mine.newbyteorder("|")  # "|": the byte order stays; a tenth of the time that unpickling takes
    if type(copy) is not type(mine) or copy is mine or copy != mine or repr(copy) != repr(mine):
        return pickled, pickle.loads
    return "|", mine.newbyteorder


def _is_copied_whole(dtype: Any) -> bool:
    """Whether dtype.newbyteorder() copies all that can be changed, and all there is: not metadata, nor titles."""
    if dtype.metadata is not None or dtype.isbuiltin == 2:  # 2: of another library
        return False
    if dtype.subdtype is not None:
        return _is_copied_whole(dtype.base)
    if dtype.names is None:
        return True
    return len(dtype.fields) == len(dtype.names) and all(_is_copied_whole(dtype[name]) for name in dtype.names)


def _encode_parts(head: bytes, buffers: list[pickle.PickleBuffer]) -> Coded:
    parts: list[Any] = []
    lengths = []
    for raw in (*(buffer.raw() for buffer in buffers), memoryview(head)):
        length = len(raw)
        lengths.append(length)
        parts.append(raw)
        if length % _ALIGN_BYTES:
            parts.append(_PADDING[: _ALIGN_BYTES - length % _ALIGN_BYTES])
    return _PARTS, struct.pack(f"<{len(lengths)}Q", *lengths), tuple(parts)


def _decode_parts(meta: bytes, memory: Any) -> Any:
    parts = _take_apart(meta, memory)
    head = parts.pop()
    return pickle.loads(head, buffers=parts)


def _take_apart(meta: bytes, memory: Any) -> list[memoryview]:
    view = memoryview(memory)
    parts = []
    at = 0
    for (length,) in struct.iter_unpack("<Q", meta):
        parts.append(view[at : at + length])
        at += -(-length // _ALIGN_BYTES) * _ALIGN_BYTES
    return parts


def unloadable(kind: int, meta: bytes, memory: Any, error: BaseException) -> None:
    """Tells the logger `droppable`, once a type, that a value was stored and cannot be loaded: it counts as a miss."""
    if kind == _BINDINGS_PICKLE:
        name = _pickled_name(memory)
    elif kind == _BINDINGS_KINDS + _PARTS:
        name = _pickled_name(_take_apart(meta, memory)[-1])
    else:
        name = "a type of the serializer's"
    tell_once(
        f"type {name}",
        "a value of %s was stored, but cannot be loaded (%s: %s): each time it counts as a miss and is computed anew; "
        "give its class a __reduce__() that fits its __init__(), or keep another type",
        name,
        type(error).__name__,
        error,
    )


def _pickled_name(pickled: Any) -> str:
    """The class or function that a pickle begins with, as far as that can be told without loading it."""
    import pickletools

    texts: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(bytes(pickled)):
            if opcode.name == "STACK_GLOBAL":
                return ".".join(texts[-2:])
            if isinstance(argument, str):
                texts.append(argument)
    except ValueError:
        pass  # it is cut short
    return "an unknown type"
