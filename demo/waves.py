"""The waves: when the neighbour takes memory and when it returns it.

Counted in requests, not in seconds, so that each way of caching meets the same wave at the same request:

    height  1          ____              ____
            3/4        |  |        ____  |  |
            1/2  ____  |  |  ____  |  |  |  |
            0  __|  |__|  |__|  |__|  |__|  |__   calm, wave, calm, wave ... calm, all of one length
"""

from dataclasses import dataclass

HEIGHTS = (0.5, 1.0, 0.5, 0.75, 1.0)
"""Of the highest wave, one after the other."""


@dataclass(frozen=True)
class Phase:
    """Requests `start` <= index < `stop`, while the neighbour holds `height` of the highest wave."""

    start: int
    stop: int
    height: float

    @property
    def is_wave(self) -> bool:
        return self.height > 0


def schedule(requests: int, heights: tuple[float, ...] = HEIGHTS) -> tuple[Phase, ...]:
    """Divides the requests into calm and waves by turns; first and last are calm."""
    turns = [0.0]
    for height in heights:
        turns += [height, 0.0]
    edges = [turn * requests // len(turns) for turn in range(len(turns) + 1)]
    return tuple(
        Phase(start, stop, height) for start, stop, height in zip(edges, edges[1:], turns, strict=False) if start < stop
    )
