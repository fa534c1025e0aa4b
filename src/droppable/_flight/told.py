"""What those get who waited: each a value or an exception of his own."""

from __future__ import annotations

import copy
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import TYPE_CHECKING, Any

from droppable._flight.flight import Outcome

if TYPE_CHECKING:
    from droppable._flight.keeping import Keeping
    from droppable._flight.table import Store
    from droppable.lowlevel import EncodedKey

_EACH_HIS_OWN = frozenset(
    {"__dict__", "__weakref__", "__traceback__", "__context__", "__cause__", "__suppress_context__"}
)

MISSING = object()
"""What a look-up gives back for "no value" where None is a value."""


def told(outcome: Outcome, store: Store, key: EncodedKey, keeping: Keeping) -> Any:
    """What one who waited gets: a value of his own, as from a hit, or MISSING: he starts again. Or the error is raised.

    What cannot be pickled is the same object for all, unless it can be used only once: then each computes for himself.
    What is large is read from the cache, and may be gone from there.
    """
    if outcome.error is not None:
        raise told_error(outcome)
    if outcome.copy is not None:
        return outcome.copy.load(keeping.copy, MISSING)
    return store.get(key, MISSING, copy=keeping.copy) if key in store else MISSING


def told_error(outcome: Outcome) -> Exception:
    """An exception of one's own, with the traceback as it was when the computation failed: none grows by others'.

    The same object where its class does not let itself be copied.
    """
    error = outcome.error
    assert error is not None
    try:
        told = _copied(error)
    except Exception:
        told = error
    if type(told) is not type(error):
        told = error
    if told is not error:
        _take_over(error, told)
        told.__cause__, told.__context__ = error.__cause__, error.__context__
        told.__suppress_context__ = error.__suppress_context__
        if outcome.notes:
            told.__notes__ = list(outcome.notes)
    return told.with_traceback(outcome.traceback)


def _copied(error: Exception) -> Exception:
    kind = type(error)
    if isinstance(kind.__reduce__, FunctionType) or not isinstance(kind.__init__, FunctionType):
        return copy.copy(error)
    # The class has an __init__ in Python, which may take other arguments, or do things: only what C set up is copied.
    reduced: Any = error.__reduce__()
    _, arguments, *state = reduced
    told: Any = kind.__new__(kind, *arguments)
    bases: tuple[Any, ...] = kind.__mro__
    base = next(base for base in bases if not isinstance(base.__init__, FunctionType))
    base.__init__(told, *arguments)
    if state and state[0]:
        told.__setstate__(state[0])
    return told  # type: ignore[no-any-return]


def _take_over(error: Exception, told: Exception) -> None:
    """What neither the arguments nor `__dict__` hold: slots, and what C keeps (a filename, an attribute's name)."""
    for kind in type(error).__mro__:
        for name, place in vars(kind).items():
            if name in _EACH_HIS_OWN or not isinstance(place, (GetSetDescriptorType, MemberDescriptorType)):
                continue
            try:
                value = place.__get__(error)
                if getattr(told, name, MISSING) is not value:
                    place.__set__(told, value)
            except (AttributeError, TypeError):
                pass  # it is not set, or cannot be
