"""The sizes of the experiment, from measurement: what the programs need, how much they share, what a person would set.

limit of the cgroup
|<------- baseline -------->|<---------------------- shared ---------------------->|
| interpreters, Pygments,   | cache                      | highest wave            |
| one rendering at work     |<- hand_bytes ->|<- margin->|                         |
"""

from dataclasses import dataclass

SHARED_OF_HTML = 0.4
"""Without --memory, cache and neighbours share this part of what the HTML of the whole corpus would take."""

WAVE_OF_SHARED = 0.6
"""The highest wave takes this part of what is shared."""

MARGIN_OF_SHARED = 0.16
"""What must stay free beside a cache sized by hand, for the heap's fragmentation and the rendering at work. Found by
trial with the standard library: the worker was OOM-killed in the last wave with 0.08 in each of two runs, with 0.10 in
two of three, with 0.12 in one of four; with 0.16 it lived in each of two. Who sets a size has to leave that much."""

SHARED_BYTES_MIN = 8 << 20


@dataclass(frozen=True)
class Sizes:
    """In bytes; `baseline_bytes` is measured, see `service.rehearse`."""

    baseline_bytes: int
    shared_bytes: int

    @property
    def limit_bytes(self) -> int:
        return self.baseline_bytes + self.shared_bytes

    @property
    def wave_bytes(self) -> int:
        """The highest wave."""
        return int(self.shared_bytes * WAVE_OF_SHARED)

    @property
    def hand_bytes(self) -> int:
        """The largest cache that survives the highest wave: what a careful person sets who knows all of this."""
        return self.limit_bytes - self.baseline_bytes - self.wave_bytes - int(self.shared_bytes * MARGIN_OF_SHARED)


def shared_bytes(html_bytes: float) -> int:
    """What cache and neighbour share, for a corpus that makes so much HTML."""
    return max(SHARED_BYTES_MIN, int(html_bytes * SHARED_OF_HTML))
