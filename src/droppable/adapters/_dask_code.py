"""What identifies a function whose results a worker keeps, beside the arguments.

                                          Dask's tokenize sees             so the token has besides
    of a notebook, a script, a lambda     code, and the globals it uses
    of a module that can be imported      the names of both alone          its code, and the text of its module

The worker imports such a module by itself, and `Client.upload_file` can give it another version while the results of
the first are kept. So this half of the token is made where the function runs, of the module as it is there. The whole
text is taken: constants and other functions of the module say what the function does, too. It is read once each time
that the module is loaded: a file that is about to be loaded again already has the next version's text. If it is read so
late, two versions that follow one another seem to have the same text. So texts that do are told apart by a number.

`dask.py` and `_dask_arguments.py` call this.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, Final, NamedTuple

from dask.base import tokenize


class _Text(NamedTuple):
    """A token of a module's text. spec: another one after a reload. same: how many loads had the text of the last."""

    spec: Any
    token: str
    same: int


_texts: Final[dict[str, _Text]] = {}
"""By the name of a module."""


def code_token(function: Callable[..., Any]) -> str:
    """A token of the function's code and of the text of its module, as both were loaded in this process.

    Where there is no text, as for modules written in C or delivered as bytecode, and no code, the token does not tell
    versions apart.
    """
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(function, "__code__", None)  # also of methods
    return str(tokenize(_text_of(getattr(function, "__module__", None)), _parts(code) if code is not None else None))


def _text_of(module_name: str | None) -> tuple[str, int] | None:
    spec = getattr(sys.modules.get(module_name or ""), "__spec__", None)
    get_source = getattr(spec and spec.loader, "get_source", None)
    if spec is None or get_source is None:
        return None
    known = _texts.get(spec.name)
    if known is not None and known.spec is spec:
        return known.token, known.same
    try:
        text = get_source(spec.name)
    except (ImportError, SyntaxError, UnicodeDecodeError):  # its file is gone, or is no Python any more
        text = None
    token = str(tokenize(text))
    same = 0 if known is None else known.same + (known.token == token)
    _texts[spec.name] = _Text(spec, token, same)
    return token, same


def _parts(code: CodeType) -> list[Any]:
    """What the code does, without what changes as lines move: `marshal` would tell of those too."""
    constants = [_parts(constant) if isinstance(constant, CodeType) else constant for constant in code.co_consts]
    names = [code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars]
    counts = [code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount]
    return [code.co_code, code.co_exceptiontable, code.co_flags, names, counts, constants]
