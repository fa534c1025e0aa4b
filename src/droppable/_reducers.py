"""Reducers: how objects hand pickle their memory out of band where by themselves they would copy it into the pickle.

    type -> reduce(object) -> (callable, arguments); an argument may be a pickle.PickleBuffer over the object's memory

As `copyreg`, for this package's caches alone. NumPy's dates and slices, torch's tensors and Pillow's images have
reducers here, which join the table once somebody else has imported their library: nothing here imports one for a
program that does not use it. DataFrames, Arrow tables and other arrays need none: they hand out their memory.
"""

import copyreg
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pickle import PickleBuffer
from typing import Any, Final, TypeVar

T = TypeVar("T")

Reduced = str | tuple[Any, ...]
Reduce = Callable[[Any], Reduced]
Table = dict[type, Reduce]


@dataclass(frozen=True)
class _Library:
    """A library whose types have reducers here. `growth`: a number that changes when it has more types than before."""

    name: str
    offer: Callable[[Any], Table]
    growth: Callable[[Any], int] = lambda module: 0


@dataclass(frozen=True)
class _Offer:
    """What a library offered, and when: while this is so, there is nothing new to ask it for."""

    module: Any
    growth: int
    table: Table


class _Reducers:
    """The table.

    No lock, for a finaliser may register a type in the middle of anything here. Instead nothing is read, changed and
    written back: a registration is one write to a dict, which loses none of the others, and each library has an entry
    that is replaced as a whole. Two threads that meet a new library ask it twice, for the same. Dicts that others may
    write to are copied at once, never walked.
    """

    def __init__(self, *libraries: _Library) -> None:
        self._libraries = libraries
        self._offers: dict[str, _Offer] = {}
        self._registered: Table = {}

    def register(self, kind: type, reduce: Reduce) -> None:
        self._registered[kind] = reduce

    def table(self) -> Table | None:
        """For `pickle.Pickler.dispatch_table`; None: what pickle does by itself is all there is to do."""
        table: Table = {}
        for library in self._libraries:
            module = sys.modules.get(library.name)
            if module is not None:
                self._welcome(library, module)
            offer = self._offers.get(library.name)
            if offer is not None:
                table.update(offer.table)
        registered = self._registered.copy()
        if not table and not registered:
            return None
        # What the program told copyreg stands above ours, and what it told us above that.
        return {**table, **copyreg.dispatch_table.copy(), **registered}

    def _welcome(self, library: _Library, module: Any) -> None:
        known = self._offers.get(library.name)
        growth = library.growth(module)
        if known is not None and known.module is module and known.growth == growth:
            return
        if getattr(module.__spec__, "_initializing", False):
            return
        table = library.offer(module)
        if known is not None:  # imported anew: objects of the older classes may be alive
            table = {**known.table, **table}
        self._offers[library.name] = _Offer(module, growth, table)


def register_reducer(kind: type[T], reduce: Callable[[T], Reduced]) -> None:
    """Tells every cache of this process how to take objects of a type apart, instead of what pickle would do.

    Args:
        kind: the type, exactly: subclasses have their own.
        reduce: as for `copyreg.pickle`: from an object to `(callable, arguments)`. What is a `pickle.PickleBuffer`
            among the arguments lies in the cache's own memory, and at a get the callable gets a read-only buffer over
            it, without a copy.

    A later call for the same type replaces the earlier one. Any thread may call it; values that are stored already
    keep their form. Caches with a serializer of their own do not ask it.
    """
    if not isinstance(kind, type) or not callable(reduce):  # type: ignore[redundant-expr]
        raise TypeError(f"a type and a function are needed; you gave {kind!r} and {reduce!r}")
    reducers.register(kind, reduce)


# NumPy: it pickles in band what has no buffer protocol (dates and times) or is no stretch of memory.


def _offer_numpy(numpy: Any) -> Table:
    ndarray, uint8, contiguous = numpy.ndarray, numpy.uint8, numpy.ascontiguousarray

    def reduce(array: Any) -> Reduced:
        flags = array.flags
        is_stretch = flags.c_contiguous or flags.f_contiguous
        if array.dtype.hasobject or (is_stretch and array.dtype.kind not in "mM"):
            return array.__reduce_ex__(5)  # type: ignore[no-any-return]
        if not is_stretch:
            array = contiguous(array)
        order = "C" if array.flags.c_contiguous else "F"
        memory = PickleBuffer(array.reshape(-1, order=order).view(uint8))
        return _make_array, (array.shape, array.dtype, memory, order)

    return {ndarray: reduce}


def _make_array(shape: tuple[int, ...], dtype: Any, memory: Any, order: Any) -> Any:
    return import_module("numpy").ndarray(shape, dtype, memory, 0, None, order)


# torch: it has no read-only tensors, and who writes to the cache's memory would change what others get from it. So a
# tensor is copied out, once.


def _is_dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the elements fill one stretch of memory, in whatever order of axes."""
    expected = 1
    for stride, length in sorted((stride, length) for stride, length in zip(strides, shape, strict=True) if length > 1):
        if stride != expected:
            return False
        expected *= length
    return True


def _offer_torch(torch: Any) -> Table:
    import ctypes  # here, so that who has no torch does not wait for it

    def reduce(tensor: Any) -> Reduced:
        if (
            (tensor.device.type, tensor.layout) != ("cpu", torch.strided)
            or tensor.is_quantized
            or (tensor.requires_grad and not tensor.is_leaf)
            or tensor.is_conj()
            or tensor.is_neg()
            or tensor.__dict__
        ):
            return tensor.__reduce_ex__(5)  # type: ignore[no-any-return]
        given = tensor.detach()
        if not _is_dense(given.shape, given.stride()):
            given = given.contiguous()
        memory: Any = (ctypes.c_char * (given.numel() * given.element_size())).from_address(given.data_ptr())
        memory.owner = given  # keeps it alive until it is stored
        arguments = (PickleBuffer(memory), given.dtype, tuple(given.shape), given.stride(), tensor.requires_grad)
        return _make_tensor, arguments

    return {torch.Tensor: reduce}


def _make_tensor(memory: Any, dtype: Any, shape: Any, strides: Any, requires_grad: bool) -> Any:
    torch = import_module("torch")
    if len(memory) == 0:
        tensor = torch.empty(shape, dtype=dtype)
    else:
        tensor = torch.frombuffer(bytearray(memory), dtype=dtype).as_strided(shape, strides)
    return tensor.requires_grad_(requires_grad)


# Pillow: some modes can lie in foreign memory; a program that writes to such an image gets a copy from Pillow first.
# Images that were opened from a file come back as plain images, with their format.

_IMAGES_IN_PLACE: Final = frozenset({"L", "P", "RGBA", "RGBX", "CMYK", "I;16"})


def _offer_pillow(module: Any) -> Table:
    def reduce(image: Any) -> Reduced:
        palette = None
        if image.palette is not None and image.mode in ("P", "PA"):
            palette = (image.palette.mode, bytes(image.getpalette(image.palette.mode)))
        memory = PickleBuffer(image.tobytes())
        return _make_image, (memory, image.mode, image.size, palette, image.info, image.format)

    def own_subclasses(kind: type) -> Iterator[type]:
        heirs: list[type] = kind.__subclasses__()
        for heir in heirs:
            if heir.__module__.startswith("PIL."):
                yield heir
                yield from own_subclasses(heir)

    return dict.fromkeys((module.Image, *own_subclasses(module.Image)), reduce)


def _make_image(memory: Any, mode: str, size: tuple[int, int], palette: Any, info: Any, form: str | None) -> Any:
    Image = import_module("PIL.Image")
    if mode in _IMAGES_IN_PLACE and len(memory) > 0:
        image = Image.frombuffer(mode, size, memory, "raw", mode, 0, 1)
    else:
        image = Image.frombytes(mode, size, memory)
    if palette is not None:
        image.putpalette(palette[1], palette[0])
    image.info = info
    image.format = form
    return image


reducers: Final = _Reducers(
    _Library("numpy", _offer_numpy),
    _Library("torch", _offer_torch),
    _Library("PIL.Image", _offer_pillow, growth=lambda module: len(module.ID)),
)
