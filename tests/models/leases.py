"""Leases: nothing read from its source before an invalidation stays after it. csrc/cache/lease.c, csrc/store/leases.c.

    shared    the source's value; the cache's value, 0: none; the open leases and which of them are stale

Two threads compute the value of a key that is not there: each opens a lease, reads the source, and stores what it
read. A third changes the source and then invalidates the key: deletes it, or stores the new value itself.

What is claimed: once the invalidation has returned, no look-up returns a value that the source had before. Every
call ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .machine import Code, Model, atomic, claim, do, lock, unlock

BUGS = {
    "deletion does not revoke": "cache_delete(): the open leases of the key are not revoked",
    "store does not revoke": "tell_leases(): the open leases are not revoked by a store",
    "stale lease stores": "check_conditions(): a store does not look whether its lease is stale",
    "looked at without the lock": "check_conditions(): looks whether the lease is stale before it has the shard's lock",
    "opened after reading": "the value is read from its source before the lease is opened",
    "only the newest is revoked": "leases_revoke_open(): ends with the first lease that it finds",
}


class Shared(NamedTuple):
    source: int = 1
    value: int = 0
    open: tuple[str, ...] = ()
    stale: frozenset[str] = frozenset()
    oldest: int = 0  # values before that one must not be seen any more


@dataclass(frozen=True)
class Leases:
    bug: str = ""

    def revoke(self, s: Shared) -> Shared:
        found = s.open[-1:] if self.bug == "only the newest is revoked" else s.open
        return s._replace(stale=s.stale | set(found))

    def compute(self, name: str) -> Code:
        early = (yield atomic(lambda s: (s, s.source))) if self.bug == "opened after reading" else 0
        yield lock()  # cache_lease_begin()
        yield do(lambda s: (s._replace(open=(*s.open, name)), None))
        yield unlock()
        value = early or (yield atomic(lambda s: (s, s.source)))
        seen = (yield atomic(lambda s: (s, name in s.stale))) if self.bug == "looked at without the lock" else None
        yield lock()  # cache_set_leased(): check_conditions()

        def keep(s: Shared) -> tuple[Shared, None]:
            is_stale = (name in s.stale) if seen is None else seen
            if is_stale and self.bug != "stale lease stores":
                return s, None
            return s._replace(value=value), None

        yield do(keep)
        yield unlock()
        yield lock()  # cache_lease_end()
        yield do(lambda s: (s._replace(open=tuple(each for each in s.open if each != name)), None))
        yield unlock()

    def invalidate(self, stores: bool) -> Code:
        yield atomic(lambda s: (s._replace(source=2), None))
        yield lock()

        def change(s: Shared) -> tuple[Shared, None]:
            missing = "store does not revoke" if stores else "deletion does not revoke"
            s = s if self.bug == missing else self.revoke(s)
            return s._replace(value=2 if stores else 0), None

        yield do(change)
        yield unlock()
        yield atomic(lambda s: (s._replace(oldest=2), None))  # it has returned

    def look_up(self) -> Code:
        oldest = yield atomic(lambda s: (s, s.oldest))
        yield lock()
        value = yield do(lambda s: (s, s.value))
        yield unlock()
        yield claim(
            value == 0 or value >= oldest, f"a look-up returned {value} after an invalidation of all before {oldest}"
        )

    def model(self, name: str, stores: bool = False, **bounds: object) -> Model:
        threads = {
            "first": [lambda: self.compute("first")],
            "second": [lambda: self.compute("second")],
            "invalidator": [lambda: self.invalidate(stores)],
            "reader": [self.look_up, self.look_up],
        }
        return Model(f"leases {name}", [], threads, Shared(), **bounds)  # type: ignore[arg-type]
