"""What `self_key=` of a method takes: what of `self` stands in its keys. binding/memo_self.c puts it there."""

from collections.abc import Callable, Hashable
from enum import Enum
from typing import Any, Final, Literal, TypeAlias


class _Instance(Enum):
    INSTANCE = "INSTANCE"

    def __repr__(self) -> str:
        return "droppable.INSTANCE"


INSTANCE: Final = _Instance.INSTANCE
"""For `@droppable.cache(self_key=INSTANCE)`: results belong to one instance, whatever is in it, and go with it."""

SelfKey: TypeAlias = str | Callable[[Any], Hashable] | Literal[_Instance.INSTANCE]
"""What of `self` identifies it: the name of an attribute, a function of self, or `INSTANCE`."""

SELF_VALUE, SELF_ATTRIBUTE, SELF_FUNCTION, SELF_NUMBER = range(4)
"""enum memo_self in binding/memo.h."""


def read_self_key(value: object) -> tuple[int, Any]:
    """How `self` is identified, for the binding: one of SELF_..., and the attribute's name or the function.

    Raises:
        TypeError: it is nothing of that. ValueError: no name of an attribute, or `id`.
    """
    if value is None:
        return SELF_VALUE, None
    if value is INSTANCE:
        return SELF_NUMBER, None
    if value is id:
        raise ValueError(
            "self_key must not be id: the id of an object that is gone is given to another one. Use droppable.INSTANCE"
        )
    if isinstance(value, str):
        if not value.isidentifier():
            raise ValueError(f"self_key must be the name of an attribute of self; you gave {value!r}")
        return SELF_ATTRIBUTE, value
    if callable(value):
        return SELF_FUNCTION, value
    raise TypeError(
        "self_key must be the name of an attribute of self, a function of self, droppable.INSTANCE or None; "
        f"you gave {value!r}"
    )
