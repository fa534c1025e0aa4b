"""What `@droppable.cache` asks of a function: may it have a cache at all, is it a coroutine function, its signature."""

import functools
import inspect
import sys
from collections.abc import Callable, Iterator
from inspect import Parameter
from typing import Any

_BY_PLACE = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)


def innermost(function: Any) -> Any:
    """The function itself, without the partials, static and class methods around it."""
    while isinstance(function, (functools.partial, staticmethod, classmethod)):
        function = function.func if isinstance(function, functools.partial) else function.__func__
    return function


def check_function(function: object) -> None:
    """Raises TypeError for what cannot have a cache, with what to do instead."""
    if isinstance(function, type):
        raise TypeError(
            f"@droppable.cache decorates functions and methods; {function.__qualname__} is a class. Decorate its "
            "methods, or a function that makes an instance"
        )
    if isinstance(function, property):
        raise TypeError("@droppable.cache stands below @property, not above it: decorate the function of the property")
    if isinstance(function, functools.cached_property):
        raise TypeError(
            "functools.cached_property keeps its result in the instance already. Use @property, and below it "
            "@droppable.cache"
        )
    if not callable(function):
        raise TypeError(f"@droppable.cache decorates functions; you gave {function!r}")
    for candidate in (function, type(function).__call__):
        for is_one, kind in (
            (inspect.isgeneratorfunction, "a generator function: a generator"),
            (inspect.isasyncgenfunction, "an asynchronous generator function: a generator"),
        ):
            if is_one(candidate):
                name = getattr(function, "__qualname__", repr(function))
                raise TypeError(
                    f"{name} is {kind} can be gone through only once, so that there is nothing to keep. Return a list "
                    "or a tuple instead, or decorate what computes one element"
                )


def is_coroutine_function(function: Callable[..., Any]) -> bool:
    """Whether a call gives a coroutine: of functions, methods, partials, and objects whose class has such a call."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


async def _a_coroutine_function() -> None: ...


def mark_coroutine_function(memo: Any) -> None:
    """`inspect.iscoroutinefunction` and `asyncio.iscoroutinefunction` are true of it, as frameworks ask."""
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(memo)
    else:  # where they look for what is like a function of Python's, and has the flag in its code
        code = getattr(inspect.unwrap(memo), "__code__", _a_coroutine_function.__code__)
        memo.__code__ = code if code.co_flags & inspect.CO_COROUTINE else _a_coroutine_function.__code__
        memo.__defaults__ = memo.__kwdefaults__ = None


def name_like(memo: Any, function: Callable[..., Any]) -> None:
    """Names for what has none of its own: a partial, or an object with a call."""
    while isinstance(function, functools.partial):
        function = function.func
    for attribute in ("__name__", "__qualname__"):
        if not hasattr(memo, attribute):
            setattr(memo, attribute, getattr(function, attribute, getattr(type(function), attribute)))


def parameters_of(function: Callable[..., Any]) -> list[Parameter] | None:
    """Those of its signature; None for a builtin that does not tell."""
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return None


def takes_any_keyword(parameters: list[Parameter] | None) -> bool:
    """Whether the order of keyword arguments reaches the function: in its **kwargs."""
    return parameters is None or any(parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters)


def is_method(parameters: list[Parameter] | None) -> bool:
    """Whether its first parameter is called self."""
    return bool(parameters) and parameters[0].name == "self"  # type: ignore[index]


def signature_of_bound(function: Callable[..., Any]) -> inspect.Signature:
    """Without the first parameter. Raises AttributeError where nothing is known, as for any attribute."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise AttributeError(str(error)) from None
    parameters = list(signature.parameters.values())
    return signature.replace(
        parameters=parameters[1:] if parameters and parameters[0].kind in _BY_PLACE else parameters
    )


def named_arguments(
    parameters: list[Parameter] | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """The arguments of a call with the names of their parameters, as errors tell them."""
    places = [parameter.name for parameter in parameters or () if parameter.kind in _BY_PLACE]
    for place, value in enumerate(args):
        yield (f"{places[place]!r}" if place < len(places) else f"number {place + 1}"), value
    for name, value in kwargs.items():
        yield f"{name!r}", value


def binding_key(function: Callable[..., Any], parameters: list[Parameter] | None) -> Callable[..., tuple[Any, ...]]:
    """A function of the same signature that gives the key of a call: by place, by name and by default are one.

    The key is that of the call in which all arguments that can be are given by place, and the others by name. It is
    compiled, as a dataclass's __init__ is: then the interpreter binds the arguments, some ten times as fast as
    `inspect.Signature.bind`, and with its own words for wrong ones.

    Raises:
        TypeError: the signature is not known.
    """
    if parameters is None or not all(parameter.name.isidentifier() for parameter in parameters):
        raise TypeError(f"normalize=True needs to know the signature; that of {function!r} is not known")
    heads: list[str] = []
    by_place: list[str] = []
    by_name: list[str] = []
    rest = pairs = ""
    for place, parameter in enumerate(parameters):
        name, kind = parameter.name, parameter.kind
        optional = "" if parameter.default is Parameter.empty else "=None"
        if kind is Parameter.VAR_POSITIONAL:
            heads.append(f"*{name}")
            rest = name
        elif kind is Parameter.VAR_KEYWORD:
            heads.append(f"**{name}")
            pairs = f"*[part for pair in {name}.items() for part in pair],"
        elif kind is Parameter.KEYWORD_ONLY:
            if not rest and not by_name:
                heads.append("*")
            heads.append(name + optional)
            by_name.append(name)
        else:
            heads.append(name + optional)
            by_place.append(name)
            if kind is Parameter.POSITIONAL_ONLY and (
                place + 1 == len(parameters) or parameters[place + 1].kind is not kind
            ):
                heads.append("/")
    count = f"{len(by_place)} + {rest}.__len__()" if rest else f"{len(by_place)}"
    values = [count, *by_place, *([f"*{rest}"] if rest else ()), *(f"{name!r}, {name}" for name in sorted(by_name))]
    space: dict[str, Any] = {}
    exec(f"def key({', '.join(heads)}): return ({', '.join(values)}, {pairs})", space)
    key: Any = space["key"]
    defaults = {
        parameter.name: parameter.default for parameter in parameters if parameter.default is not Parameter.empty
    }
    key.__defaults__ = tuple(defaults[name] for name in by_place if name in defaults) or None
    key.__kwdefaults__ = {name: defaults[name] for name in by_name if name in defaults} or None
    key.__name__ = getattr(function, "__name__", "function")
    key.__qualname__ = getattr(function, "__qualname__", key.__name__)
    return key  # type: ignore[no-any-return]
