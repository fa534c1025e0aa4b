"""Which elements of which chunks an index means: numbers alone, nothing of caches.

    axis of 10, chunks of 4        | 0 1 2 3 | 4 5 6 7 | 8 9 |
    [1:9:3]                            1         4   7              pieces: chunk 0 [1:2], chunk 1 [0:4:3]

A basic index (integers, slices, `...`, None) is taken apart axis by axis. Any other is NumPy's own affair: it is
applied to the coordinates of each axis, so whatever NumPy understands is understood, and its errors are NumPy's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

BASIC: Final = (int, slice, type(Ellipsis), type(None))


class Piece(NamedTuple):
    """What an axis needs of one chunk: its number, the part of it, and where that lies in the result."""

    chunk: int
    part: int | slice
    place: slice


class AxisIndex(NamedTuple):
    """One axis of a basic index. length: of the result's axis, None for an integer; flips: the result is reversed."""

    pieces: list[Piece]
    length: int | None
    flips: bool


def is_basic(index: tuple[Any, ...]) -> bool:
    """Whether integers, slices, `...` and None are all that it has. A bool is none of these."""
    return all(isinstance(one, BASIC) and not isinstance(one, bool) for one in index)


def as_tuple(index: Any) -> tuple[Any, ...]:
    """The index of each axis; NumPy's integers are Python's."""
    indices = index if isinstance(index, tuple) else (index,)
    return tuple(one.__index__() if _is_integer(one) else one for one in indices)


def _is_integer(one: Any) -> bool:
    if not hasattr(one, "__index__") or isinstance(one, bool) or getattr(one, "ndim", 0) > 0:
        return False
    return getattr(getattr(one, "dtype", None), "kind", "i") in "iu"


def expand(index: tuple[Any, ...], ndim: int) -> tuple[list[int | slice], list[Any]]:
    """One index for each axis, and what makes the new axes: an index for the result, of slices and None.

    Raises:
        IndexError: there are more indices than axes, or `...` twice.
    """
    given = sum(one is not None and one is not Ellipsis for one in index)
    if given > ndim:
        raise IndexError(f"too many indices for array: array is {ndim}-dimensional, but {given} were indexed")
    if sum(one is Ellipsis for one in index) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    if not any(one is Ellipsis for one in index):
        index = (*index, Ellipsis)
    axes: list[int | slice] = []
    shaping: list[Any] = []
    for one in index:
        if one is Ellipsis:
            axes += [slice(None)] * (ndim - given)
            shaping += [slice(None)] * (ndim - given)
        elif one is None:
            shaping.append(None)
        else:
            axes.append(one)
            if isinstance(one, slice):
                shaping.append(slice(None))
    return axes, shaping


def axis_index(index: int | slice, axis: int, length: int, chunk_length: int) -> AxisIndex:
    """What one axis's index means.

    Raises:
        IndexError: it is out of bounds.
    """
    if not isinstance(index, slice):
        if not -length <= index < length:
            raise IndexError(f"index {index} is out of bounds for axis {axis} with size {length}")
        chunk, part = divmod(index % length, chunk_length)
        return AxisIndex([Piece(chunk, part, slice(0, 1))], None, False)
    chosen = range(length)[index]
    flips = chosen.step < 0
    chosen = chosen[::-1] if flips else chosen
    return AxisIndex(list(_pieces(chosen, chunk_length)), len(chosen), flips)


def _pieces(chosen: range, chunk_length: int) -> Iterator[Piece]:
    done = 0
    while done < len(chosen):
        chunk, first = divmod(chosen[done], chunk_length)
        count = min((chunk_length - 1 - first) // chosen.step + 1, len(chosen) - done)
        yield Piece(chunk, slice(first, first + (count - 1) * chosen.step + 1, chosen.step), slice(done, done + count))
        done += count
