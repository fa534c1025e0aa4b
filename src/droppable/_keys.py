"""Keys that are neither text, numbers nor containers, taken apart into those, so that equal keys have equal bytes.

The rules are those of pickle (`copyreg`, `__reduce_ex__`, protocol 5): whatever can be pickled can be a key. Unlike a
pickle, the parts do not tell which of them are the same object, and classes whose equal instances have unequal pickles
are told apart by what makes them equal. `binding/key_tree.c` writes the parts down and calls this; so nothing here is
imported before the first such key.

Functions and classes are known by their names. Where a name is given to another one (a cell of a notebook is run again,
a module is reloaded), results for the first must not be found by the second. So it is remembered which object a name
stood for, and one that follows gets a number with its name:

    "module:name"                         the first of this name that was part of a key in this process
    "module:name", a byte 0, and "1"...   those that came after it

Each note is one write to a dict, so threads need no lock; a forked child goes on with the notes of its parent.
"""

import copyreg
import functools
import importlib
import os
import pathlib
import pickle
import sys
import types
import uuid
import weakref
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, NamedTuple

_SECRET: bytes = globals().get("_SECRET") or os.urandom(32)
"""Nobody outside can make two keys of one digest. A forked child has the same, and so finds what it was left; a reload
of this module keeps it, for caches that exist have digests under it."""


class _Holder(NamedTuple):
    """Who has a name: a reference, a function's code (which may be replaced), which of the name it is, its own."""

    reference: Callable[[], Any]
    code: Any
    number: int
    name: str


_holders: dict[str, _Holder] = globals().get("_holders") or {}
"""By name; kept by a reload, as the secret is."""


def digest(tag: bytes, data: Any) -> bytes:
    """32 bytes that stand for tag and data (bytes-like)."""
    hasher = blake2b(tag, digest_size=32, key=_SECRET)
    hasher.update(data)
    return hasher.digest()


_WITHOUT_NAME: dict[type, Any] = {type(value): value for value in (None, ..., NotImplemented)}

_SETS_REDUCE = (set.__reduce__, frozenset.__reduce__)  # also of subclasses that have none of their own

# Equal instances of these have unequal pickles: a UUID notes whether its maker was safe from other processes, and
# since Python 3.13 a path notes how it was joined.
_FORMS: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    uuid.UUID: lambda value: (value.hex,),
    pathlib.PosixPath: lambda path: (str(path),),
    pathlib.PurePosixPath: lambda path: (str(path),),
    pathlib.PureWindowsPath: lambda path: (str(path),),
    # What has no name that it could be imported by.
    type: lambda kind: (_WITHOUT_NAME[kind],),
}


def take_apart(value: Any) -> str | tuple[Any, ...]:
    """Returns a name, for `named`, or parts, for `put_together`.

    Raises:
        Whatever the value's class raises; pickle.PicklingError.
    """
    kind = type(value)
    if kind in _FORMS and (kind is not type or value in _WITHOUT_NAME):
        return kind, _FORMS[kind](value)
    reduced: Any
    reducer: Callable[[Any], Any] | None = dict.get(copyreg.dispatch_table, kind)
    if reducer is not None:
        reduced = reducer(value)
    elif issubclass(kind, type) or kind is types.FunctionType:
        return _name_of(value, None)
    else:
        reduced = _whole_array(kind, value).__reduce_ex__(5)
    if isinstance(reduced, str):
        return _name_of(value, reduced)
    if not isinstance(reduced, tuple) or not 2 <= len(reduced) <= 6:
        raise pickle.PicklingError(
            f"__reduce_ex__ of {kind.__qualname__} must return a string or a tuple of 2 to 6 items"
        )
    function, arguments, state, items, pairs, setter = reduced + (None,) * (6 - len(reduced))
    if issubclass(kind, (set, frozenset)) and kind.__reduce__ in _SETS_REDUCE:
        arguments = tuple(map(frozenset, arguments))  # pickle has a list, in the order of the elements' history
    if pairs is not None:
        # A mapping that is equal to one of another order gives a dict, which the encoding sorts.
        pairs = dict(pairs) if issubclass(kind, dict) and kind.__eq__ is dict.__eq__ else list(pairs)
    parts: tuple[Any, ...] = (
        None if function is copyreg.__newobj__ else function,  # type: ignore[attr-defined]
        tuple(arguments),
        _without_memos(kind, state),
        None if items is None else list(items),
        pairs,
        setter,
    )
    while parts[-1] is None:
        parts = parts[:-1]
    return parts


def put_together(parts: tuple[Any, ...]) -> Any:
    """Returns an object like the one that was taken apart."""
    function, arguments, state, items, pairs, setter = parts + (None,) * (6 - len(parts))
    value = (function or copyreg.__newobj__)(*arguments)  # type: ignore[attr-defined]
    for item in items or ():
        value.append(item)
    for key, item in pairs.items() if type(pairs) is dict else pairs or ():
        value[key] = item
    if setter is not None:
        setter(value, state)
    elif state is not None:
        _set_state(value, state)
    return value


def named(name: str) -> Any:
    """Returns the class or function of this name. LookupError where the name is another one's by now."""
    full, _, number = name.partition("\0")
    value = _found(full)
    if (number or full in _holders) and _numbered(full, value) != name:
        raise LookupError(f"{full} is another object by now")
    return value


def _found(full: str) -> Any:
    module, _, path = full.partition(":")
    return functools.reduce(getattr, path.split("."), importlib.import_module(module))


def _numbered(full: str, value: Any) -> str:
    """The name, with a number where another object had it before."""
    holder = _holders.get(full)
    if holder is not None:
        reference, code, number, name = holder
        if reference() is value and (code is None or code is value.__code__):
            return name
        number, name = number + 1, f"{full}\0{number + 1}"
    else:
        number, name = 0, full
    try:
        reference = weakref.ref(value)
    except TypeError:
        reference = functools.partial(_itself, value)
    _holders[full] = _Holder(reference, getattr(value, "__code__", None), number, name)
    return name


def _itself(value: Any) -> Any:
    return value


def _name_of(value: Any, name: str | None) -> str:
    path = name if name is not None else value.__qualname__
    module = getattr(value, "__module__", None)
    if type(module) is str and getattr(sys.modules.get(module), path, None) is value:
        return _numbered(f"{module}:{path}", value)  # the common case, fast
    full = f"{pickle.whichmodule(value, path)}:{path}"  # type: ignore[attr-defined]
    if "<locals>" in path.split("."):
        raise pickle.PicklingError(f"{path} is local to a function, so it cannot be told by its name")
    try:
        found = _found(full)
    except (ImportError, AttributeError) as error:
        raise pickle.PicklingError(f"{full} is not found under its name: {error}") from error
    if found is not value:
        raise pickle.PicklingError(f"{full} is another object by now")
    return _numbered(full, value)


def _whole_array(kind: type, value: Any) -> Any:
    """The value, or a copy of a NumPy array that lies in pieces, whose pickle would not be that of an equal one."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and kind is getattr(numpy, "ndarray", None) and not value.flags.forc:
        return value.copy()
    return value


def _without_memos(kind: type, state: Any) -> Any:
    """The state of a frozen dataclass without cached properties: made from the rest, and only there once asked for."""
    parameters = getattr(kind, "__dataclass_params__", None)
    if parameters is None or not (parameters.frozen and parameters.eq) or type(state) is not dict:
        return state
    return {
        name: item
        for name, item in state.items()
        if not isinstance(getattr(kind, name, None), functools.cached_property)
    }


def _set_state(value: Any, state: Any) -> None:
    set_state = getattr(value, "__setstate__", None)
    if set_state is not None:
        set_state(state)
        return
    attributes, slots = state if isinstance(state, tuple) and len(state) == 2 else (state, None)
    if attributes:
        vars(value).update(attributes)
    for name, item in (slots or {}).items():
        setattr(value, name, item)
