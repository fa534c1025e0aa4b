"""What is told on the logger `droppable`, each matter once. Never by a warning: `-W error` must break no program."""

from __future__ import annotations

import signal
import sys
from types import CodeType, TracebackType
from typing import Final

_TOLD_MOST: Final = 1000

told: set[str] = set()
"""Of whom was told."""


def tell_once(of: str, text: str, *arguments: object) -> None:
    """Logs a line, unless something was told of the same already.

    If a logging handler raises, the caller asked for a value and must get it: the traceback goes to standard error, if
    `logging.raiseExceptions` says so, as `logging` itself does it. An exception that a signal handler raised meanwhile,
    such as a time limit, has nothing to do with logging and goes on.
    """
    if of in told or len(told) >= _TOLD_MOST:
        return
    told.add(of)
    try:
        import logging
    except (ImportError, OSError) as error:
        told.discard(of)
        if _is_of_a_signal(error.__traceback__):
            raise
        return  # no descriptor is left to load it with: it is told the next time
    try:
        logging.getLogger("droppable").warning(text, *arguments)
    except Exception as error:
        if _is_of_a_signal(error.__traceback__):
            raise
        if getattr(logging, "raiseExceptions", False) and sys.stderr is not None:  # it may be amid its own import
            _print(error)


def _print(error: Exception) -> None:
    try:
        import traceback

        traceback.print_exception(error, file=sys.stderr)
    except (ImportError, OSError):
        pass  # standard error cannot be written to, or there is no descriptor to load the module with


def _is_of_a_signal(traceback: TracebackType | None) -> bool:
    found = (getattr(signal.getsignal(number), "__code__", None) for number in signal.valid_signals())
    handlers: set[CodeType] = {code for code in found if code is not None}
    while traceback is not None:
        if traceback.tb_frame.f_code in handlers:
            return True
        traceback = traceback.tb_next
    return False
