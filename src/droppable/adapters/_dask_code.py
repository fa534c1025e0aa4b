"""What identifies a function whose results a worker keeps, beside the arguments.

                                          Dask's tokenize sees             so the token has besides
    of a notebook, a script, a lambda     code, and the globals it uses
    of a module that can be imported      the names of both alone          its code, and the text of its module

The worker imports such a module by itself, and `Client.upload_file` can give it another version while the results of
the first are kept. So this half of the token is made where the function runs, of the module as it is there. The whole
text is taken: constants and other functions of the module say what the function does, too. It is read once each time
that the module is loaded: a file that is about to be loaded again already has the next version's text.

`dask.py` alone calls this.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, Final

from dask.base import tokenize

_texts: Final[dict[str, tuple[Any, str]]] = {}
"""By the name of a module: its spec, which is another one after a reload, and a token of its text."""


def code_token(function: Callable[..., Any]) -> str:
    """A token of the function's code and of the text of its module, as both were loaded in this process.

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
    if spec is None or get_source is None:
        return None
    known = _texts.get(spec.name)
    if known is not None and known[0] is spec:
        return known[1]
    try:
        text = get_source(spec.name)
    except (ImportError, SyntaxError, UnicodeDecodeError):  # its file is gone, or is no Python any more
        text = None
    token = str(tokenize(text))
    _texts[spec.name] = spec, token
    return token


def _parts(code: CodeType) -> list[Any]:
    """What the code does, without what changes as lines move: `marshal` would tell of those too."""
    constants = [_parts(constant) if isinstance(constant, CodeType) else constant for constant in code.co_consts]
    return [code.co_code, code.co_names, code.co_flags, code.co_varnames, code.co_freevars, constants]
