"""What a `SharedCache` has counted."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SharedCacheStats:
    """What one `SharedCache` has counted since it was made; a forked child goes on from there.

    What all clients have done: `SharedCache.server_stats`.

    Attributes:
        hits_read: values that were read from the server's memory.
        hits_near: those of them that the near cache had.
        hits_asked: values that the server was asked for.
        misses: look-ups that found nothing, also because there was no server.
        sets: values that the server has stored.
        refused: values that it did not store, for want of memory.
        failures: calls that did not reach the server.
        connections: that were made. More than one: the server was lost, and found again.
        is_attached: whether reads go to the server's memory now.
        why_not_attached: why they do not, or "".
    """

    hits_read: int
    hits_near: int
    hits_asked: int
    misses: int
    sets: int
    refused: int
    failures: int
    connections: int
    is_attached: bool
    why_not_attached: str
