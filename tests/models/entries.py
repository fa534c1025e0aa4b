"""An entry in the log, written, indexed and read: csrc/log/entry*, csrc/store/shard.c, index*, csrc/cache/set.c.

    log     | stamp  value value | stamp  value value | ...     places 0, 3, 6; a value is two words, both its number
    index   | guard  slot |                                     slot: 1 + place of the key's entry, or 0

One key. Its value is 1; a writer stores 2, or deletes it. All of it is under the shard's lock, so threads take
turns: what comes between two steps is the kernel, and the order in which accesses take effect.

What is claimed: a look-up returns the value that was stored last, whole, or nothing. After a deletion, or a store
that was refused, it returns nothing, also where the deletion found nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .machine import Code, Model, PageKind, call, claim, cpu, do, fence, load, lock, mark, purge, store, unlock

STAMP, GUARD = 9, 8
APPEND_RETRIES, GET_RETRIES, MAX_RETRIES = 2, 3, 2
MISS = None

BUGS = {
    "stamp last": "begin_piece(): the stamp is written after the value",
    "no release fence": "begin_piece(): no fence between the stamp and what follows",
    "no acquire fence": "entry_small_intact(): no fence between the value and the second look at the stamp",
    "stamp not looked at again": "small_get(): the copy is not looked at again",
    "writer trusts its stamp": "shard_append(): looks neither for the writer's stamp, nor whether it changed processor",
    "writer ignores a move": "shard_append(): the writer does not look whether it changed processor",
    "writer looks for a move first": "shard_append(): looks whether the writer changed processor, then for its stamp",
    "reader ignores a move": "small_get(), copy_inline(): the reader does not look whether it changed processor",
    "guard not looked at": "index_page_stands(): the guard of the index is not looked at after a store",
    "index ignores a move": "index_page_stands(): does not look whether the writer changed processor",
    "nothing found, guard not looked at": "index_end_search(): the guard is not looked at again",
    "page begun without purge": "begin_page(): old translations of the page are not ended",
}


class Shared(NamedTuple):
    value: int = 1  # that a look-up may return; 0: none
    next_place: int = 3
    page_lost: bool = False  # INDEX_PAGE_LOST


@dataclass(frozen=True)
class Entries:
    backing: str
    bug: str = ""
    places: int = 3

    # csrc/log/entry.c

    def entry_write(self, at: int, value: int) -> Code:
        if self.bug == "stamp last":
            yield store("log", at + 1, value)
            yield store("log", at + 2, value)
            yield store("log", at, STAMP)
            return
        yield store("log", at, STAMP)  # begin_piece()
        if self.bug != "no release fence":
            yield fence("release")
        yield store("log", at + 1, value)
        yield store("log", at + 2, value)

    def entry_intact(self, at: int) -> Code:
        if self.bug != "no acquire fence":
            yield fence("acquire")
        return (yield load("log", at)) == STAMP

    # csrc/store/shard.c

    def landed(self, at: int, value: int) -> Code:
        yield mark("log")
        there = (yield load("log", at)) == STAMP
        return there and (yield load("log", at + 1)) == value and (yield load("log", at + 2)) == value

    def shard_append(self, value: int) -> Code:
        in_order = self.backing == "droppable"
        for _ in range(APPEND_RETRIES):
            at = yield do(lambda s: (s._replace(next_place=s.next_place + 3), s.next_place))
            if at + 3 > 3 * self.places:
                return None
            on = (yield cpu()) if in_order else 0
            yield from self.entry_write(at, value)
            if in_order and self.bug != "writer trusts its stamp":
                moved_before = (yield cpu()) != on if self.bug == "writer looks for a move first" else False
                good = (yield from self.entry_intact(at)) and not moved_before
                if good and self.bug not in ("writer ignores a move", "writer looks for a move first"):
                    good = (yield cpu()) == on
                if not good and not (yield from self.landed(at, value)):
                    continue
            return at
        return None

    # csrc/store/index.c, index_search.h

    def index_has_page(self) -> Code:
        if (yield do(lambda s: (s, s.page_lost))):
            return False
        if (yield load("index", 0)) == GUARD:
            return True
        yield do(lambda s: (s._replace(page_lost=True), None))  # index_note_lost()
        return False

    def begin_page(self) -> Code:
        if self.bug != "page begun without purge":
            yield purge("index")
        else:
            yield store("index", 1, 0)
        yield do(lambda s: (s._replace(page_lost=False), None))
        yield store("index", 0, GUARD)

    def index_page_stands(self, on: int) -> Code:
        yield fence("full")
        if self.bug == "guard not looked at":
            return True
        if (yield load("index", 0)) != GUARD:
            return False
        if (yield cpu()) == on or self.bug == "index ignores a move":
            return True
        yield mark("index")
        return (yield load("index", 0)) == GUARD

    def change(self, slot: int) -> Code:
        on = yield cpu()
        yield store("index", 1, slot)
        if (yield from self.index_page_stands(on)):
            return True
        yield from self.begin_page()
        return False

    def index_insert(self, slot: int) -> Code:
        for _ in range(MAX_RETRIES):
            on = yield cpu()
            if not (yield from self.index_has_page()):
                yield from self.begin_page()
            yield store("index", 1, slot)
            if (yield from self.index_page_stands(on)):
                return True
            yield from self.begin_page()
        return False

    def shard_find(self) -> Code:
        """The place of the key's entry, or None. One that was dropped is forgotten."""
        on = yield cpu()  # index_find()
        if not (yield from self.index_has_page()):
            return None
        slot = yield load("index", 1)
        if slot != 0 and (yield load("log", slot - 1)) == STAMP:
            return slot - 1
        if slot != 0:
            yield from self.change(0)  # shard_forget()
        elif self.bug != "nothing found, guard not looked at" and not (yield from self.index_page_stands(on)):
            yield do(lambda s: (s._replace(page_lost=True), None))  # index_end_search()
        return None

    # csrc/cache/set.c, cache.c

    def publish(self, at: int) -> Code:
        if (yield from self.shard_find()) is not None and (yield from self.change(1 + at)):
            return True
        return (yield from self.index_insert(1 + at))

    def cache_set(self, value: int) -> Code:
        yield lock()
        at = yield from self.shard_append(value)
        if at is not None and (yield from self.publish(at)):
            yield do(lambda s: (s._replace(value=value), None))
        else:
            if (yield from self.shard_find()) is not None:  # forget_older()
                yield from self.change(0)
            yield do(lambda s: (s._replace(value=0), None))
        yield unlock()

    def cache_delete(self) -> Code:
        yield lock()
        if (yield from self.shard_find()) is not None:
            yield from self.change(0)
        yield do(lambda s: (s._replace(value=0), None))
        yield unlock()

    def small_get(self, at: int) -> Code:
        on = yield cpu()
        if (yield load("log", at)) != STAMP:  # entry_small_open()
            return MISS
        yield call()  # sink->reserve()
        value = ((yield load("log", at + 1)), (yield load("log", at + 2)))
        intact = True if self.bug == "stamp not looked at again" else (yield from self.entry_intact(at))
        if not intact:
            return MISS
        moved = (yield cpu()) != on
        return MISS if moved and self.bug != "reader ignores a move" else value

    def cache_get(self) -> Code:
        yield lock()
        value = MISS
        for _ in range(GET_RETRIES):
            at = yield from self.shard_find()
            if at is None:
                break
            value = yield from self.small_get(at)
            if value is not MISS:
                break
        newest = yield do(lambda s: (s, s.value))
        good = value is MISS or (newest > 0 and value == (newest, newest))
        yield claim(good, f"a look-up returned {value}; the key has {(newest, newest) if newest else 'no value'}")
        yield unlock()

    # csrc/store/index.c: the second step is outside the lock

    def index_mark(self) -> Code:
        yield lock()
        yield unlock()
        yield mark("index")  # index_mark_taken()

    def shard_mark(self) -> Code:
        yield lock()
        yield mark("log")
        yield unlock()

    def model(self, name: str, deletes: bool = False, **bounds: object) -> Model:
        words = (STAMP, 1, 1) + (0, 0, 0) * (self.places - 1)
        return Model(
            f"entries {name}",
            [PageKind("log", self.backing, words), PageKind("index", self.backing, (GUARD, 1))],
            {"writer": [self.cache_delete if deletes else lambda: self.cache_set(2)], "reader": [self.cache_get]},
            Shared(),
            **bounds,  # type: ignore[arg-type]
        )
