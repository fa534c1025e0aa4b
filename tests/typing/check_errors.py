"""Types a user may rely on, checked by mypy --strict and never run: errors."""

from typing import assert_type

import droppable


def an_error_is_caught_by_what_it_also_is(happened: Exception) -> None:
    match happened:
        case droppable.RefusedError():
            memory: MemoryError = happened
            base: droppable.DroppableError = happened
            print(memory, base)
        case droppable.Dropped():
            lookup: LookupError = happened
            print(lookup)
        case droppable.UnsupportedError():
            assert_type(happened.errno, int | None)
        case droppable.ClosedError() | droppable.ValueTooLargeError():
            value: ValueError = happened
            print(value)
        case _:
            pass
