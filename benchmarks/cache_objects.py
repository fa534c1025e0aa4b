"""How long a get of a large object takes: a DataFrame, an Arrow table, a dict of arrays, a tensor, images.

    python benchmarks/cache_objects.py                prints a table, half a minute
    python benchmarks/cache_objects.py --megabytes 1  smaller objects

Columns: a get of one object again and again, whose pages stay pinned (`hot`), and of many in turn, so that each get
pins and unpins; unpickling it from bytes in a dict, as a cache would that keeps pickles; and a copy of its memory, the
least that a cache must do which hands out copies: the library's own, or where that shares (Arrow), new buffers. Only
the get is timed: whoever uses the object reads the same bytes then, in each of them. Every object is timed by turns
with its peers, in processor time; see measure.py.

Bias: written by those who wrote droppable. A get that is in place is read-only, and who wants to change it pays the
copy after all. Pickles of protocol 5 in band; one that was compressed, or written to a disk, would take longer.
"""

import argparse
import functools
import importlib
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from measure import Contender, interleave

import droppable

IN_TURN_BYTES = 160 << 20
"""Together: more than the window of pins holds."""


@dataclass(frozen=True)
class Kind:
    """`make` gives an object of about so many bytes; `duplicate` copies one."""

    name: str
    make: Callable[[int], Any]
    duplicate: Callable[[Any], object]


def with_new_buffers(value: Any) -> object:
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(head, buffers=[bytes(buffer) for buffer in buffers])


def arrays() -> Kind:
    numpy = importlib.import_module("numpy")

    def make(size_bytes: int) -> Any:
        return {number: numpy.frombuffer(os.urandom(size_bytes // 4), "u1") for number in range(4)}

    return Kind("dict of 4 NumPy arrays", make, lambda value: {key: array.copy() for key, array in value.items()})


def frame() -> Kind:
    numpy, pandas = importlib.import_module("numpy"), importlib.import_module("pandas")

    def make(size_bytes: int) -> Any:
        rows = size_bytes // 32
        numbers = {name: numpy.frombuffer(os.urandom(rows * 8), "i8") for name in "abc"}
        return pandas.DataFrame({**numbers, "when": pandas.date_range("2020", periods=rows, freq="s")})

    return Kind("pandas DataFrame, numbers and dates", make, lambda value: value.copy())


def text_frame() -> Kind:
    pandas = importlib.import_module("pandas")
    importlib.import_module("pyarrow")

    def make(size_bytes: int) -> Any:
        texts = [os.urandom(12).hex() for _ in range(size_bytes // 32)]
        return pandas.DataFrame({"text": pandas.array(texts, dtype="string[pyarrow]")})

    return Kind("pandas DataFrame, text in Arrow", make, with_new_buffers)


def table() -> Kind:
    arrow = importlib.import_module("pyarrow")

    def make(size_bytes: int) -> Any:
        rows = size_bytes // 36
        texts = [os.urandom(12).hex() for _ in range(rows)]
        numbers = arrow.Array.from_buffers(arrow.int64(), rows, [None, arrow.py_buffer(os.urandom(rows * 8))])
        return arrow.table([numbers, texts], names=["number", "text"])

    return Kind("Arrow table", make, with_new_buffers)


def tensor() -> Kind:
    torch = importlib.import_module("torch")

    def make(size_bytes: int) -> Any:
        return torch.frombuffer(bytearray(os.urandom(size_bytes)), dtype=torch.uint8)

    return Kind("torch tensor (copied)", make, lambda value: value.clone())


def image(mode: str, pixel_bytes: int, note: str) -> Kind:
    pillow = importlib.import_module("PIL.Image")

    def make(size_bytes: int) -> Any:
        height = size_bytes // pixel_bytes // 2000
        return pillow.frombytes(mode, (2000, height), os.urandom(2000 * height * pixel_bytes))

    return Kind(f"Pillow image, {mode}{note}", make, lambda value: value.copy())


def kinds() -> Iterator[Kind]:
    opaque = functools.partial(image, "RGB", 3, " (copied)")
    for make in (arrays, frame, text_frame, table, functools.partial(image, "RGBA", 4, ""), opaque, tensor):
        try:
            yield make()
        except ImportError as error:
            print(f"SKIP a row: {error}", file=sys.stderr)


def figures(kind: Kind, size_bytes: int, rounds: int) -> list[float]:
    """Microseconds: get hot, get in turn, unpickle, copy."""
    count = max(2, IN_TURN_BYTES // size_bytes)
    with droppable.Cache() as cache:
        for number in range(count):
            cache[number] = kind.make(size_bytes)
        value = kind.make(size_bytes)
        cache["hot"] = value
        pickled = {"key": pickle.dumps(value, protocol=5)}
        timed = [
            Contender("hot", cache.get, [("hot",)]),
            Contender("in turn", cache.get, [(number,) for number in range(count)]),
            Contender("unpickle", lambda key: pickle.loads(pickled[key]), [("key",)]),
            Contender("copy", kind.duplicate, [(value,)]),
        ]
        measured = [one.ns / 1000 for one in interleave(timed, rounds, batch_seconds=0.02)]
        missing = cache.stats().misses
        assert missing == 0, f"{missing} gets found nothing: is there memory for {IN_TURN_BYTES >> 20} MiB?"
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    size_bytes = int(arguments.megabytes * 1e6)
    print(f"{'microseconds for ' + format(size_bytes, ',') + ' bytes':<40}{'get, hot':>12}{'get, in turn':>14}"
          f"{'unpickle':>12}{'copy':>12}{'copy / get':>14}")  # fmt: skip
    for kind in kinds():
        hot, in_turn, unpickled, copied = figures(kind, size_bytes, arguments.rounds)
        print(f"{kind.name:<40}{hot:>12,.1f}{in_turn:>14,.1f}{unpickled:>12,.0f}{copied:>12,.0f}"
              f"{copied / hot:>14,.1f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
