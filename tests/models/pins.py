"""Values in place, while the kernel takes pages and a thread forks: csrc/cache/pin.c, fork.c, csrc/policy/unpin.c.

    first, last   | mark  rest |     the value's two pages, lazyfree: both words of both are 1
    shared        the pin of csrc/store/pins.h: its state, its holders; users of the segment; is the entry there?

Two threads pin the value, read it where it lies, and let go. A third may delete the key, or fork; the child then
asks for the value, too.

What is claimed: who holds a pin reads the value, whole, as long as he holds it; every call ends, in the child as
well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .machine import (
    Code,
    Model,
    PageKind,
    call,
    claim,
    do,
    fence,
    fork,
    load,
    lock,
    mark,
    pin,
    purge,
    tell,
    unlock,
    wait,
)

PAGES = ("first", "last")
NONE, PINNING, HELD, FREEING = range(4)

BUGS = {
    "pages not dirtied": "prim_pin(): the page is not written",
    "looked at before it is dirtied": "dirty_and_check(): the witnesses are looked at before prim_pin() alone",
    "last but one unpins": "cache_unpin(): the pages are marked while there is a holder left",
    "marked while held": "unpin_give_back(): the pin is HELD, not FREEING, while its pages are marked",
    "nobody is told": "cache_take_pin(), give_back(): nobody is told that the state has changed",
    "given back under a holder": "shard_free_extent(): a pin of the deleted value is not looked for",
    "half a pin stays in the child": "end_unfinished(): a pin that another thread was taking or giving back stays",
    "held pages are wiped in the child": "keep_mapping(): what is held is wiped in the child",
}


class Shared(NamedTuple):
    entry: bool = True
    state: int = NONE
    count: int = 0
    users: int = 0
    forgotten: bool = False
    mine: bool = False  # the forking thread holds the value


@dataclass(frozen=True)
class Pins:
    bug: str = ""
    shares: bool = False  # config.share_on_fork

    def witness_intact(self) -> Code:
        yield fence("acquire")
        for page in PAGES:
            if (yield load(page, 0)) == 0:
                return False
        return True

    def dirty_and_check(self) -> Code:
        if not (yield from self.witness_intact()):
            return False
        for page in PAGES:
            if self.bug != "pages not dirtied":
                yield pin(page)
        if self.bug == "looked at before it is dirtied":
            return True
        return (yield from self.witness_intact())

    def get_pin(self) -> Code:
        """cache_get() of GET_PIN. Returns whether the value is held."""
        yield lock()
        while True:

            def look(s: Shared) -> tuple[Shared, str]:
                if not s.entry:
                    return s, "miss"
                if s.state == NONE:  # cache_take_pin()
                    return s._replace(state=PINNING, count=1, users=s.users + 1), "take"
                if s.state != HELD:
                    return s, "wait"
                return s._replace(count=s.count + 1), "shared"  # cache_share_pin()

            found = yield do(look)
            if found != "wait":
                break
            yield wait()
        if found != "take":
            yield unlock()
            return found == "shared"
        yield unlock()
        yield call()  # cache_begin_copy()
        intact = yield from self.dirty_and_check()
        if not intact:
            yield purge(*PAGES)  # give_up_pages()
        yield lock()

        def end(s: Shared) -> tuple[Shared, None]:
            if intact:
                return s._replace(state=HELD), None
            s = s._replace(state=NONE, count=0, users=s.users - 1, forgotten=False)
            return s._replace(entry=False), None  # forget_dropped()

        yield do(end)
        if self.bug != "nobody is told":
            yield tell()
        yield unlock()
        return intact

    def cache_unpin(self) -> Code:
        yield lock()

        def leave(s: Shared) -> tuple[Shared, bool]:
            last = s.count == (2 if self.bug == "last but one unpins" and s.count > 1 else 1)
            s = s._replace(count=s.count - 1)
            return (s._replace(state=HELD if self.bug == "marked while held" else FREEING) if last else s), last

        last = yield do(leave)
        yield unlock()
        if not last:
            return
        yield mark(*PAGES)  # unpin_give_back(): mark_runs()
        yield lock()
        forgotten = yield do(lambda s: (s, s.forgotten))
        if forgotten:  # finish_pin()
            yield unlock()
            yield purge(*PAGES)
            yield lock()
        yield do(lambda s: (s._replace(state=NONE, users=s.users - 1, forgotten=False), None))  # pin_end()
        if self.bug != "nobody is told":
            yield tell()
        yield unlock()

    def hold(self) -> Code:
        """A program that takes an array, reads it now and later, and lets it go."""
        if not (yield from self.get_pin()):
            return
        yield from self.read_in_place()
        yield from self.cache_unpin()

    def read_in_place(self) -> Code:
        for page in PAGES:
            value = ((yield load(page, 0)), (yield load(page, 1)))
            yield claim(value == (1, 1), f"a holder reads {value} in page `{page}`; the value is (1, 1)")

    def cache_delete(self) -> Code:
        """shard_free_extent(): the pages go with the entry, or with the last holder."""
        yield lock()

        def forget(s: Shared) -> tuple[Shared, bool]:
            pinned = s.state != NONE and self.bug != "given back under a holder"
            return s._replace(entry=False, forgotten=pinned), s.entry and not pinned

        if (yield do(forget)):
            yield purge(*PAGES)
        yield unlock()

    def forks(self, with_pin: bool) -> Code:
        """Forks at any moment, with a pin of its own or without, and goes on in the child."""
        holds = (yield from self.get_pin()) if with_pin else False
        yield lock()  # before_fork()
        yield do(lambda s: (s._replace(mine=holds), None))
        yield fork(self.kept)

        def in_child(s: Shared) -> tuple[Shared, bool]:
            unfinished = s.state in (PINNING, FREEING)
            if unfinished and self.bug != "half a pin stays in the child":  # end_unfinished()
                s = s._replace(state=NONE, count=0, users=s.users - 1, forgotten=False)
            s = s._replace(users=int(s.state != NONE))  # recount_users()
            if not self.shares:  # shard_empty(): the child begins with an empty cache
                s = s._replace(entry=False, forgotten=s.state != NONE)
            return s, unfinished and self.shares

        if (yield do(in_child)):
            yield mark(*PAGES)
        yield unlock()
        if holds:
            yield from self.read_in_place()
            # The holders that other threads of the parent were have left no object that would let go: the pin stays.
            yield do(lambda s: (s._replace(count=1), None))
            yield from self.cache_unpin()
        if (yield from self.get_pin()):
            yield from self.read_in_place()
            yield from self.cache_unpin()

    def kept(self, s: Shared) -> frozenset[str]:
        held = s.state == HELD and s.count > 0
        if self.shares or (held and self.bug != "held pages are wiped in the child"):
            return frozenset(PAGES)
        return frozenset()

    def model(self, name: str, forks: str = "", deletes: bool = False, **bounds: object) -> Model:
        """What forks may be: "holding" the value, or "idle"."""
        threads = {"one": [self.hold], "two": [self.hold]}
        if forks:
            threads = {"one": [self.hold], "forker": [lambda: self.forks(forks == "holding")]}
        if deletes:
            threads = {"one": [self.hold], "two": [self.hold], "deleter": [self.cache_delete]}
        return Model(
            f"pins {name}",
            [PageKind(page, "lazyfree", (1, 1)) for page in PAGES],
            threads,  # type: ignore[arg-type]
            Shared(),
            **bounds,  # type: ignore[arg-type]
        )
