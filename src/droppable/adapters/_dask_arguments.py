"""What identifies the arguments of a call whose result a worker keeps.

Dask's `tokenize` is made for names of tasks. It gives one token to values that are not the same: a square matrix and
its transpose, frames whose columns have changed places, arrays of text that join to the same text, subclasses of str
and dict, named tuples. Here no two values have the same part that a function could tell apart:

    numbers, text, bytes, None     the value itself
    list, tuple, dict              its kind and the parts of its elements, in their order
    arrays, frames, dates, sets    what they are made of, as for keys of a cache: src/droppable/_keys.py
    functions, methods, partials   see `_dask_code.py`
    what has __dask_tokenize__     what that gives
    all others                     what tokenize gives, and what they are made of

Equal values may have different parts. Then a result is computed once more.

`dask.py` alone calls this.
"""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Callable, Mapping
from typing import Any, Final

import cloudpickle
from dask.base import tokenize

from droppable.adapters._dask_code import code_token
from droppable.lowlevel import EncodedKey

_PLAIN: Final = frozenset({int, float, complex, bool, str, bytes, type(None)})
_MADE_OF: Final = frozenset(
    {"builtins", "collections", "datetime", "decimal", "fractions", "numpy", "pandas", "pathlib", "uuid", "zoneinfo"}
)
"""Modules whose types are known to be picklable with all that they are made of, without asking `tokenize`."""

_METHODS: Final = (types.MethodType, types.BuiltinFunctionType, types.MethodWrapperType)
_FUNCTIONS: Final = (types.FunctionType, *_METHODS, type)


class _Whole:
    """A value of any type as a key: whether it is hashable does not matter."""

    def __init__(self, value: Any) -> None:
        self._value = value

    def __hash__(self) -> int:
        return 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _Whole, (self._value,)


def arguments_part(args: tuple[Any, ...], kwargs: Mapping[str, Any], keeps_order: bool) -> Any:
    """A key for the arguments of a call. keeps_order: the function sees in which order the named ones were given.

    Raises:
        dask.tokenize.TokenizationError: an argument has no token that stays the same.
    """
    memo: dict[int, Any] = {}
    named = kwargs.items() if keeps_order else sorted(kwargs.items())
    return tuple(_part(value, memo) for value in args), tuple((name, _part(value, memo)) for name, value in named)


def function_part(function: Callable[..., Any]) -> Any:
    """A key for a function, beside its code: what it is bound to and closes over counts, as it is now."""
    return _part_of_function(function, {})


def is_sent_by_value(module_name: str | None) -> bool:
    """Whether workers get what is in this module by value, without the module."""
    names = {"__main__", *cloudpickle.list_registry_pickle_by_value()}
    return module_name is not None and any(f"{module_name}.".startswith(f"{name}.") for name in names)


def _part(value: Any, memo: dict[int, Any]) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    known = memo.get(id(value))
    if known is not None:  # the same object again, or one that contains itself
        return known
    memo[id(value)] = ("within", len(memo))
    part = _part_of(value, kind, memo)
    memo[id(value)] = part
    return part


def _part_of(value: Any, kind: type, memo: dict[int, Any]) -> Any:
    if kind is list or kind is tuple:
        return kind.__name__, tuple(_part(item, memo) for item in value)
    if kind is dict:
        return "dict", tuple((_part(key, memo), _part(item, memo)) for key, item in value.items())
    if isinstance(value, (functools.partial, *_FUNCTIONS)):
        return "function", _part_of_function(value, memo), code_token(value)
    if not hasattr(value, "__dask_tokenize__"):
        made_of = None if kind is object else _made_of(value)
        if made_of is not None and kind.__module__.partition(".")[0] in _MADE_OF:
            return "value", made_of
        return "object", _token(value), made_of or _pickled(value)
    return "dask", _token(value)


def _part_of_function(function: Any, memo: dict[int, Any]) -> Any:
    if type(function) is functools.partial:
        inner = _part_of_function(function.func, memo)
        return "partial", inner, _part(function.args, memo), _part(function.keywords, memo)
    owner = getattr(function, "__self__", None)
    if isinstance(function, _METHODS) and owner is not None and not isinstance(owner, types.ModuleType):
        return "method", _part(owner, memo), function.__name__
    if not isinstance(function, _FUNCTIONS):
        return _part(function, memo)
    # tokenize does not know of modules that are sent by value, and would take the name alone
    token = _pickled(function) if is_sent_by_value(function.__module__) else None
    return token or _token(function)


def _token(value: Any) -> str:
    return str(tokenize(value, ensure_deterministic=True))


def _made_of(value: Any) -> bytes | None:
    """None where that cannot be told by names: functions, and classes that no module has."""
    try:
        return bytes(EncodedKey(_Whole(value)))
    except Exception:
        return None


def _pickled(value: Any) -> bytes | None:
    try:
        return hashlib.blake2b(cloudpickle.dumps(value, protocol=5)).digest()
    except Exception:
        return None
