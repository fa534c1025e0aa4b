"""A value on pages of its own, written and read: csrc/log/witness.c, csrc/cache/set.c, csrc/cache/cache.c.

    first, last   | mark  rest |     the value's two pages; both words of both are its number. At first it is 1
    ordinary memory: which value the key's entry leads to, users of the segment, pages that are free to be written

One key. Its value is 1, on pages `first` and `last`; a store writes 2 there after 1 was deleted (store/reuse.c).
Readers copy without the lock, as users of the segment.

What is claimed: a look-up returns the value that the key had at one moment while the lock was held for it, whole,
or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .machine import Code, Model, PageKind, call, claim, cpu, do, fence, load, lock, mark, purge, store, unlock

PAGES = ("first", "last")
STEP_TRIES = 2
MISS = None

BUGS = {
    "mark written last": "page_in_order(): the mark is written after the rest of its page",
    "no fence after the mark": "page_in_order(): no release fence between the mark and the rest",
    "named before it is marked": "witness_write(): others may see an older value still when this one is indexed",
    "writer ignores a move": "witness_write(): what was written is not compared after the writer changed processor",
    "only the first witness": "witness_intact(): looks at the first page alone",
    "no acquire fence": "witness_intact(): no fence between the copy and the look at the witnesses",
    "reader ignores a move": "copy_extent(): the reader does not look whether it changed processor",
    "prim_cpu is no barrier": "prim_cpu(): accesses are moved across it",
    "written under a reader": "reuse_take(): places in segments that have users are written",
}


class Shared(NamedTuple):
    value: int = 1  # that the entry leads to; 0: there is no entry
    users: int = 0
    free: bool = False


@dataclass(frozen=True)
class Extents:
    backing: str
    bug: str = ""

    # csrc/log/witness.c

    def page_in_order(self, page: str, value: int) -> Code:
        if self.bug == "mark written last":
            yield store(page, 1, value)
            yield store(page, 0, value)
            return
        yield store(page, 0, value)
        if self.bug != "no fence after the mark":
            yield fence("release")
        yield store(page, 1, value)

    def page_at_once(self, page: str, value: int) -> Code:
        yield store(page, 1, value)
        yield store(page, 0, value)

    def is_equal(self, value: int) -> Code:
        for page in PAGES:
            for word in (0, 1):
                if (yield load(page, word)) != value:
                    return False
        return True

    def witness_write(self, value: int) -> Code:
        in_order = self.backing == "droppable"
        on = (yield cpu()) if in_order else 0
        for page in PAGES:
            yield from (self.page_in_order if in_order else self.page_at_once)(page, value)
        if self.bug != "named before it is marked":
            yield mark(*PAGES)
        if in_order and (yield cpu()) != on and self.bug != "writer ignores a move":
            return (yield from self.is_equal(value))
        return True

    def witness_intact(self) -> Code:
        if self.bug != "no acquire fence":
            yield fence("acquire")
        for page in PAGES[:1] if self.bug == "only the first witness" else PAGES:
            if (yield load(page, 0)) == 0:
                return False
        return True

    # csrc/cache/set.c, csrc/store/shard.c, rewrite.c

    def take_extent(self) -> Code:
        """False: the place has users; the value would go elsewhere, which is nothing to look at here."""
        yield lock()

        def take(s: Shared) -> tuple[Shared, bool]:
            if s.users > 0 and self.bug != "written under a reader":
                return s, False
            return s._replace(free=False, users=s.users + 1), True

        taken = yield do(take)
        yield unlock()
        return taken

    def cache_delete(self) -> Code:
        """The pages stay as they are, marked: the next value of as many pages is written there."""
        yield lock()
        yield do(lambda s: (s._replace(value=0, free=True), None))
        yield unlock()

    def cache_set(self, value: int) -> Code:
        if not (yield from self.take_extent()):
            return
        written = yield from self.witness_write(value)
        if not written:
            yield purge(*PAGES)  # store_give_up_pages()
        yield lock()
        yield do(lambda s: (s._replace(value=value if written else 0, users=s.users - 1), None))
        yield unlock()

    # csrc/cache/cache.c

    def copy_extent(self) -> Code:
        for _ in range(STEP_TRIES):
            on = yield cpu(self.bug != "prim_cpu is no barrier")
            copy = []
            for page in PAGES:
                copy += [(yield load(page, 0)), (yield load(page, 1))]
            if not (yield from self.witness_intact()):
                return MISS
            if (yield cpu()) == on or self.bug == "reader ignores a move":
                return tuple(copy)
        return MISS

    def get_extent(self) -> Code:
        yield lock()
        value = yield do(lambda s: (s._replace(users=s.users + (s.value > 0)), s.value))
        yield unlock()
        if value == 0:
            return
        yield call()  # sink->begin_copy()
        copy = yield from self.copy_extent()
        yield claim(copy is MISS or copy == (value,) * 4, f"a look-up returned {copy}; the value is {value}")
        yield lock()
        yield do(lambda s: (s._replace(users=s.users - 1), None))  # arena_release()
        yield unlock()

    def model(self, name: str, dirty: bool = False, **bounds: object) -> Model:
        """Dirty: the older value's pages were not marked yet, which no caller leaves so."""
        return Model(
            f"extents {name}",
            [PageKind(page, self.backing, (1, 1), dirty) for page in PAGES],
            {"writer": [self.cache_delete, lambda: self.cache_set(2)], "reader": [self.get_extent]},
            Shared(),
            **bounds,  # type: ignore[arg-type]
        )
