"""The pytest plugin: a fixture that drops pages, with a seed that belongs to the test. pytest loads it by itself."""

import zlib
from typing import TYPE_CHECKING, Protocol

import pytest

if TYPE_CHECKING:
    from droppable.testing import DropReport
    from droppable.testing._drop import Target


class Dropper(Protocol):
    """The type of the fixture `droppable_drop`: called as `droppable.testing.drop`."""

    def __call__(self, target: "Target", fraction: float = 1.0, seed: int | None = None) -> "DropReport":
        """As `droppable.testing.drop`."""


@pytest.fixture
def droppable_drop(request: pytest.FixtureRequest) -> Dropper:
    """`droppable_drop(target, fraction=1.0, seed=None)` lets the kernel take pages now, as `droppable.testing.drop`.

    Without a seed it takes one made from the test's name and the number of the call, so each run of a test drops the
    same pages. When the test fails, its report lists the drops with their seeds. A kernel without MADV_PAGEOUT skips
    the test.
    """
    from droppable import UnsupportedError
    from droppable.testing import drop

    name: str = request.node.nodeid
    calls = 0

    def call(target: "Target", fraction: float = 1.0, seed: int | None = None) -> "DropReport":
        nonlocal calls
        if seed is None:
            seed = zlib.crc32(f"{name}#{calls}".encode())
        calls += 1
        try:
            report = drop(target, fraction, seed)
        except UnsupportedError as error:
            pytest.skip(str(error))
        request.node.add_report_section(
            "call", "droppable_drop", f"drop(..., fraction={fraction!r}, seed={seed}): {report}\n"
        )
        return report

    return call
