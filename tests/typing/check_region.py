"""Types a user may rely on, checked by mypy --strict and never run: regions."""

from typing import Literal, assert_type

import droppable
import droppable.testing


def a_region_is_memory(region: droppable.Region, buffer: bytearray) -> None:
    assert_type(region[0], int)
    assert_type(region[0:10], bytes)
    region[0] = 1
    region[0:2] = b"ab"
    region[0:2] = memoryview(b"ab")
    assert_type(memoryview(region)[0], int)
    assert_type(region.read(5), bytes)
    assert_type(region.read_into(buffer, 5), None)
    assert_type(region.refill(0, buffer), int)
    assert_type(region.on_drop, Literal["zero", "raise", "signal"])
    assert_type(region.backing, Literal["lazyfree", "droppable"])
    with region.reading(0, 10) as view:
        assert_type(view, memoryview)
    assert_type(region.census(), droppable.RegionCensus)
    assert_type(region.census().dropped_pages, int)
    assert_type(region.dropped_pages(), tuple[tuple[int, int], ...])
    assert_type(region.page_states(), bytes)
    assert_type(droppable.testing.drop(region, 0.5, seed=1), droppable.testing.DropReport)
    droppable.testing.settle(region)


def words_are_checked() -> None:
    droppable.Region(4096, "never")  # type: ignore[arg-type]
    droppable.Region(4096, backing="plain")  # type: ignore[arg-type]
    droppable.Region(4096, fork="keep")  # type: ignore[arg-type]


def what_went(error: droppable.Dropped) -> None:
    assert_type(error.offsets, tuple[tuple[int, int], ...])
