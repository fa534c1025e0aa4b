"""What identifies a function whose results a worker keeps, beside the arguments.

                                          Dask's tokenize sees             so the token has besides
    of a notebook, a script, a lambda     code, and the globals it uses
    of a module that can be imported      the names of both alone          its code, and the text of its module

The worker imports such a module by itself, and `Client.upload_file` can give it another version of it while the results
of the first are kept. So this half of the token is made where the function runs, of the module as it is there. The whole
text is taken: constants and other functions of the module say what the function does, too. Called by `memoize` alone.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any

from dask.base import tokenize


def code_token(function: Callable[..., Any]) -> str:
    """A token of the function's code and of the text of its module, as both are in this process now.

    Where there is no text, as for modules written in C or delivered as bytecode, and no code, the token does not tell
    versions apart.
    """
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(function, "__code__", None)  # also of methods
    return str(tokenize(_text_of(getattr(function, "__module__", None)), _parts(code) if code is not None else None))


def _text_of(module_name: str | None) -> str | None:
    spec = getattr(sys.modules.get(module_name or ""), "__spec__", None)
    get_source = getattr(spec and spec.loader, "get_source", None)
    try:
        return get_source(spec.name) if spec is not None and get_source is not None else None
    except (ImportError, SyntaxError, UnicodeDecodeError):  # its file is gone, or is being written
        return None


def _parts(code: CodeType) -> list[Any]:
    """What the code does, without what changes as lines move: `marshal` would tell of those too."""
    constants = [_parts(constant) if isinstance(constant, CodeType) else constant for constant in code.co_consts]
    return [code.co_code, code.co_names, code.co_flags, code.co_varnames, code.co_freevars, constants]
