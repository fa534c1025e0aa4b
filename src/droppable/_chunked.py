"""`droppable.ChunkedArray`: an array that is computed chunk by chunk, and computes again what was lost.

    a[2:7, 5]  -->  the chunks that this touches  -->  cache.get_or_create(one chunk, fill)  -->  put together

    chunk:   not computed --read--> in the cache --memory is short--> lost --read--> computed again

The chunks are entries of a cache. Nothing else is kept but a bit for each chunk, to tell a chunk that was lost from
one that nobody has asked for yet.
"""

from __future__ import annotations

import itertools
import math
import operator
import os
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Never, Self, cast

from droppable._arguments import read_function
from droppable._cache import Cache
from droppable._chunked_index import AxisIndex, Piece, as_tuple, axis_index, expand, is_basic
from droppable._namespace import Namespace
from droppable._stats import ChunkedArrayStats

if TYPE_CHECKING:
    import numpy
    from numpy.typing import DTypeLike, NDArray

_CHUNKS_MOST: Final = 1 << 31


class ChunkedArray:
    """A read-only array of which only those chunks are in memory that were asked for and that memory is free for.

    fill is called for a chunk when one of its elements is asked for, once, however many threads ask. When memory is
    short the kernel takes chunks, and those that are asked for again are computed again. The array can be far larger
    than memory.

    `a[...]` takes what NumPy takes: integers, slices with any step, `...`, None, arrays of integers and of bools. The
    result is a read-only NumPy array (one element: a scalar). If it lies in one chunk it is a view of the cache's
    memory, which stays while the view is held. `numpy.asarray(a)` computes everything into one new array. Functions of
    NumPy do the same with a ChunkedArray: for arrays larger than memory use `blocks()`.

    Threads: any. Fork: the child finds its chunks absent and computes them itself, unless the cache was made with
    fork="share".

    Args:
        shape: lengths of the axes, or the length of the only one.
        dtype: of the elements, as NumPy takes it; not of Python objects.
        chunks: lengths of a chunk, one for each axis or one for all; None or -1: the whole axis. Chunks of 100 KB to
            10 MB are good: each is an entry of the cache, and is computed and lost as a whole.
        fill: called with a tuple of slices, which say where the chunk lies in the array; returns its elements, with
            the shape that the slices have. It should give the same elements each time.
        cache: where the chunks are kept, together with whatever else is in it; None: a cache of its own.
        name: what this array's chunks are called in the cache, any key. Two arrays of one cache and one name have the
            same chunks, and so has an array that is made later; None: a name that no other array has.

    Raises:
        ImportError: NumPy is not installed.
        TypeError, ValueError: an argument is none of these.
    """

    def __init__(
        self,
        shape: int | Sequence[int],
        dtype: DTypeLike,
        chunks: int | Sequence[int | None] | None,
        fill: Callable[[tuple[slice, ...]], Any],
        *,
        cache: Cache[Any, Any] | Namespace[Any, Any] | None = None,
        name: Hashable = None,
        **unknown: Never,
    ) -> None:
        if unknown:
            advice = "Give cache=droppable.Cache(...), with the cache's options there"
            raise TypeError(f"ChunkedArray() has no argument {next(iter(unknown))}=. {advice}")
        import numpy

        self._shape = _read_shape(shape)
        self._dtype = numpy.dtype(dtype)
        if self._dtype.hasobject:
            raise TypeError(f"dtype must be of plain elements, not of Python objects; you gave {dtype!r}")
        self._chunks = _read_chunks(chunks, self._shape)
        self._counts = tuple(
            -(-length // chunk) if chunk else 0 for length, chunk in zip(self._shape, self._chunks, strict=True)
        )
        self._chunk_count = math.prod(self._counts)
        if self._chunk_count > _CHUNKS_MOST:
            raise ValueError(
                f"chunks={chunks!r} makes {self._chunk_count:,} chunks, and {_CHUNKS_MOST:,} are the most: "
                "give larger chunks"
            )
        read_function("fill", fill)
        if cache is not None and not isinstance(cache, (Cache, Namespace)):
            raise TypeError(f"cache must be a droppable.Cache, a Namespace, or None; you gave {cache!r}")
        hash(name)
        self._fill = fill
        self._owns_cache = cache is None
        self._entries: Any = Cache() if cache is None else cache
        self._name = os.urandom(16) if name is None else name
        self._lock = threading.RLock()  # of what follows; a signal handler may come here again
        self._was_computed = bytearray((self._chunk_count + 7) // 8)
        self._computed = 0
        self._computed_again = 0
        self._fill_seconds = 0.0

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self._shape

    @property
    def dtype(self) -> numpy.dtype[Any]:
        """Of the elements."""
        return self._dtype

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self._shape)

    @property
    def size(self) -> int:
        """How many elements there are."""
        return math.prod(self._shape)

    @property
    def nbytes(self) -> int:
        """Of all elements, in memory or not."""
        return self.size * self._dtype.itemsize

    @property
    def chunks(self) -> tuple[int, ...]:
        """Lengths of a chunk. The last one of an axis may be shorter."""
        return self._chunks

    @property
    def cache(self) -> Cache[Any, Any]:
        """The cache that has the chunks, for its statistics."""
        entries = self._entries
        return cast("Cache[Any, Any]", entries.cache if isinstance(entries, Namespace) else entries)

    def __len__(self) -> int:
        if not self._shape:
            raise TypeError("len() of unsized object")
        return self._shape[0]

    def __repr__(self) -> str:
        return f"<droppable.ChunkedArray: shape {self._shape}, {self._dtype}, chunks of {self._chunks}>"

    def __iter__(self) -> Iterator[Any]:
        if not self._shape:
            raise TypeError("iteration over a 0-d array")
        return (self[position] for position in range(self._shape[0]))

    def __getitem__(self, index: Any, /) -> Any:
        indices = as_tuple(index)
        return self._basic(indices) if is_basic(indices) else self._advanced(index)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        if copy is False:
            raise ValueError("a ChunkedArray has no array that could be handed out without a copy: give copy=None")
        import numpy

        return numpy.array(self[...], dtype=dtype)

    def blocks(self) -> Iterator[tuple[tuple[slice, ...], NDArray[Any]]]:
        """All chunks in their order: where each lies in the array, as slices, and its elements, read-only.

        One chunk is held at a time, so arrays larger than memory can be walked through.
        """
        for number in self._numbers():
            yield self._where(number), _read_only(self._chunk(number).view())

    def clear(self) -> None:
        """Forgets all chunks, for when fill would give something else now. Arrays that are held stay valid.

        What is computed at this moment is returned to its callers and not kept. Takes a look-up for each chunk.
        """
        for number in self._numbers():
            self._entries.discard((self._name, number))
        with self._lock:
            self._was_computed = bytearray(len(self._was_computed))

    def stats(self) -> ChunkedArrayStats:
        """How many chunks there are, and how many were computed, for the first time and again."""
        with self._lock:
            return ChunkedArrayStats(self._chunk_count, self._computed, self._computed_again, self._fill_seconds)

    def close(self) -> None:
        """Gives the memory back, if the cache is the array's own. Every later read raises ClosedError."""
        if self._owns_cache:
            self._entries.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # One chunk

    def _numbers(self) -> Iterator[tuple[int, ...]]:
        return itertools.product(*(range(count) for count in self._counts))

    def _where(self, number: tuple[int, ...]) -> tuple[slice, ...]:
        return tuple(
            slice(chunk * place, min(chunk * (place + 1), length))
            for place, chunk, length in zip(number, self._chunks, self._shape, strict=True)
        )

    def _chunk(self, number: tuple[int, ...]) -> NDArray[Any]:
        found = self._entries.get_or_create((self._name, number), lambda: self._compute(number))
        shape = tuple(part.stop - part.start for part in self._where(number))
        if getattr(found, "shape", None) != shape or found.dtype != self._dtype:
            raise ValueError(
                f"name={self._name!r} is that of another array in this cache, with other chunks: "
                f"there is {found!r:.60} in the place of a chunk of shape {shape} and {self._dtype}"
            )
        return cast("NDArray[Any]", found)

    def _compute(self, number: tuple[int, ...]) -> NDArray[Any]:
        import numpy

        where = self._where(number)
        shape = tuple(part.stop - part.start for part in where)
        began = time.perf_counter()
        filled = numpy.asarray(self._fill(where))
        took_seconds = time.perf_counter() - began
        if filled.shape != shape:
            raise ValueError(f"fill({where}) must return the shape {shape}; it returned the shape {filled.shape}")
        if not numpy.can_cast(filled.dtype, self._dtype, "same_kind"):
            raise TypeError(
                f"fill({where}) must return {self._dtype}, or what can be cast to it; it returned {filled.dtype}"
            )
        filled = filled.astype(self._dtype, copy=False)
        byte, bit = divmod(self._flat(number), 8)
        with self._lock:
            if self._was_computed[byte] >> bit & 1:
                self._computed_again += 1
            self._was_computed[byte] |= 1 << bit
            self._computed += 1
            self._fill_seconds += took_seconds
        return filled

    def _flat(self, number: tuple[int, ...]) -> int:
        flat = 0
        for place, count in zip(number, self._counts, strict=True):
            flat = flat * count + place
        return flat

    # Many chunks

    def _basic(self, indices: tuple[Any, ...]) -> Any:
        axes, shaping = expand(indices, self.ndim)
        read = [
            axis_index(one, axis, length, chunk)
            for axis, (one, length, chunk) in enumerate(zip(axes, self._shape, self._chunks, strict=True))
        ]
        result = self._one_piece(read) if all(len(axis.pieces) == 1 for axis in read) else self._put_together(read)
        if any(axis.flips for axis in read):
            kept = [axis for axis in read if axis.length is not None]
            result = result[tuple(slice(None, None, -1 if axis.flips else 1) for axis in kept)]
        if None in shaping:
            result = result[tuple(shaping)]
        is_element = result.ndim == 0 and not any(one is Ellipsis for one in indices)
        return result[()] if is_element else _read_only(result)

    def _one_piece(self, read: list[AxisIndex]) -> NDArray[Any]:
        pieces = [axis.pieces[0] for axis in read]
        chunk = self._chunk(tuple(piece.chunk for piece in pieces))
        return chunk[(*(piece.part for piece in pieces), Ellipsis)]  # with which one element is an array too

    def _put_together(self, read: list[AxisIndex]) -> NDArray[Any]:
        import numpy

        result = numpy.empty(tuple(axis.length for axis in read if axis.length is not None), self._dtype)
        pieces: tuple[Piece, ...]
        for pieces in itertools.product(*(axis.pieces for axis in read)):
            place = tuple(piece.place for piece, axis in zip(pieces, read, strict=True) if axis.length is not None)
            chunk = self._chunk(tuple(piece.chunk for piece in pieces))
            result[place] = chunk[tuple(piece.part for piece in pieces)]
        return _read_only(result)

    def _advanced(self, index: Any) -> NDArray[Any]:
        # For each element of the result, its coordinate on each axis: NumPy applies the index to coordinates.
        import numpy

        coordinates = []
        for axis, length in enumerate(self._shape):
            along = numpy.arange(length).reshape([-1 if other == axis else 1 for other in range(self.ndim)])
            coordinates.append(numpy.broadcast_to(along, self._shape)[index])
        if not coordinates:
            return _read_only(numpy.asarray(self[...][index]))
        result = numpy.empty(coordinates[0].shape, self._dtype)
        if result.size == 0:
            return _read_only(result)
        flat = [one.ravel() for one in coordinates]
        chunk_of = numpy.zeros(result.size, numpy.int64)
        for one, chunk, count in zip(flat, self._chunks, self._counts, strict=True):
            chunk_of = chunk_of * count + one // chunk
        order = numpy.argsort(chunk_of, kind="stable")
        numbers, starts = numpy.unique(chunk_of[order], return_index=True)
        elements = result.reshape(-1)
        for flat_number, chosen in zip(numbers, numpy.split(order, starts[1:]), strict=True):
            number = tuple(int(place) for place in numpy.unravel_index(flat_number, self._counts))
            inside = tuple(
                one[chosen] - place * chunk for one, place, chunk in zip(flat, number, self._chunks, strict=True)
            )
            elements[chosen] = self._chunk(number)[inside]
        return _read_only(result)


def _read_only(array: NDArray[Any]) -> NDArray[Any]:
    if array.flags.writeable:
        array.flags.writeable = False
    return array


def _read_length(name: str, given: Any, least: int) -> int:
    try:
        length = operator.index(given)
    except TypeError:
        raise TypeError(f"{name} must be of integers; you gave {given!r}") from None
    if length < least:
        raise ValueError(f"{name} must be of integers of {least} or more; you gave {given!r}")
    return length


def _read_shape(shape: Any) -> tuple[int, ...]:
    given = shape if isinstance(shape, Sequence) else (shape,)
    return tuple(_read_length("shape", length, 0) for length in given)


def _read_chunks(chunks: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    given = chunks if isinstance(chunks, Sequence) and not isinstance(chunks, str) else (chunks,) * len(shape)
    if len(given) != len(shape):
        raise ValueError(f"chunks must have a length for each of the {len(shape)} axes; you gave {chunks!r}")
    return tuple(
        length if chunk is None or chunk == -1 else min(_read_length("chunks", chunk, 1), length)
        for chunk, length in zip(given, shape, strict=True)
    )
