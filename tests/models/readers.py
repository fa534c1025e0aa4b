"""Reads of another process while places are used anew: csrc/client/reader.c, csrc/log/board.h, csrc/store/index.c.

    board   | changes  serial  place  serial of the value's segment |   shared memory that the reader maps
    index   | slot of our key  slot of another key |                    1 + place, or 0
    log     | stamp  key  value value | the same once more |            places 0 and 4; base of a segment of entries
    pages   | mark  rest |                                              of a value that has pages of its own

The owner does one of these while the reader looks our key up, twice, the second time from the place that it
remembers:

    replace   stores 2 for our key, behind 1
    reuse     deletes our key; the segment is retired and opened again, with the same number, for numbers go round, so
              that its stamps are the same; stores 2 for the other key in the same place
    retire    gives the segment up while the slot of our key names it still; stores 2 for the other key there, under
              another number
    lost      finds the page of the index gone, begins it anew, and stores 2 for our key
    rewrite   our key's value is on pages of its own; deletes it and stores 2 for the other key there

Relocation (store/move.c) is, for a reader, a store of the same value elsewhere and then `retire`.

What is claimed: a look-up returns, whole, a value that the key had at one moment between its begin and its end; or
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from .machine import Code, Model, PageKind, atomic, claim, do, fence, grab, load, mark, purge, store

CHANGES, SERIAL, PLACE, VALUE_SERIAL = range(4)  # of the board
OURS, OTHER = 1, 2  # keys
NUMBER_MASK = 1  # serials 1 and 3 have the same number; number 0 is passed over
TRIES = 2
MISS, CHANGED = "miss", "changed"

SCENES = ("replace", "reuse", "retire", "lost", "rewrite")
BUGS = {
    "slot changed untold": ("reuse", "put(): the board is not told that a slot changes"),
    "no fence in board_begin": (
        "replace",
        "board_begin(): no fence behind the odd count",
    ),
    "segment retired untold": ("retire", "arena_retire(), give_serial(): the board is not told"),
    "no fence in board_forget_segment": ("retire", "board_forget_segment(): no fence behind it"),
    "changes not looked at again": ("reuse", "look_still_stands(): does not look at the changes"),
    "serial not looked at again": ("retire", "look_still_stands(): does not look at the serials"),
    "no fence in look_still_stands": ("rewrite", "look_still_stands(): no fence between the copy and the second look"),
    "changes looked at late": ("rewrite", "look_up(): the changes are noted after the slot was read"),
    "entry read by two preads": ("replace", "read_entry(): the head and the value come by two calls"),
    "witness not compared": ("rewrite", "copy_extent(): the witness in the copy is not compared"),
    "a lost page is not told": ("lost", "index_note_lost(), begin_page(): the board is not told"),
}


class Shared(NamedTuple):
    """What our key's value may be at this moment, and may have been since the look-up began; 0: none."""

    now: frozenset[int] = frozenset({1})
    since: frozenset[int] = frozenset()


def may_be(*values: int) -> object:
    return do(lambda s: (Shared(frozenset(values), s.since | frozenset(values)), None))


def stamp_of(serial: int) -> int:
    return 10 + (serial if serial == 2 else serial & NUMBER_MASK)


@dataclass(frozen=True)
class Readers:
    scene: str
    backing: str = "lazyfree"
    bug: str = ""

    # The owner, under the lock of the shard. csrc/log/board.h

    def board_begin(self, count: int) -> Code:
        yield store("board", CHANGES, count + 1)
        if self.bug != "no fence in board_begin":
            yield fence("full")

    def board_end(self, count: int) -> Code:
        yield store("board", CHANGES, count + 2, "release")

    def board_forget_segment(self) -> Code:
        if self.bug == "segment retired untold":
            return
        yield store("board", SERIAL, 0)
        if self.bug != "no fence in board_forget_segment":
            yield fence("full")

    def board_note_segment(self, serial: int) -> Code:
        if self.bug == "segment retired untold":
            return
        yield store("board", SERIAL, 0)
        yield fence("full")
        yield store("board", PLACE, 1)
        yield store("board", SERIAL, serial, "release")

    # csrc/store/index.c

    def put(self, count: int, slot: int, value: int) -> Code:
        """Returns the count of changes, which the owner alone changes."""
        if self.bug == "slot changed untold":
            yield store("index", slot, value)
            return count
        yield from self.board_begin(count)
        yield store("index", slot, value)
        yield from self.board_end(count)
        return count + 2

    def begin_page(self, count: int) -> Code:
        told = self.bug != "a lost page is not told"
        if told:  # index_note_lost()
            yield from self.board_begin(count)
            yield from self.board_end(count)
            yield from self.board_begin(count + 2)
        yield purge("index")
        if told:
            yield from self.board_end(count + 2)
        return count + (4 if told else 0)

    # csrc/log/entry.c

    def entry_write(self, at: int, serial: int, key: int, value: int) -> Code:
        yield store("log", at, stamp_of(serial))
        yield fence("release")
        yield store("log", at + 1, key)
        yield store("log", at + 2, value)
        yield store("log", at + 3, value)

    def owner(self) -> Code:
        if self.scene == "replace":
            yield may_be(1, 2)
            yield from self.entry_write(4, 1, OURS, 2)
            yield from self.put(0, 0, 1 + 4)
            yield may_be(2)
        elif self.scene == "reuse":
            yield may_be(1, 0)
            count = yield from self.put(0, 0, 0)
            yield may_be(0)
            yield from self.board_forget_segment()
            yield from self.board_note_segment(3)
            yield from self.entry_write(0, 3, OTHER, 2)
            yield from self.put(count, 1, 1)
        elif self.scene == "retire":
            yield may_be(1, 0)
            yield from self.board_forget_segment()
            yield may_be(0)
            yield from self.entry_write(0, 2, OTHER, 2)
            yield from self.put(0, 1, 1)
        elif self.scene == "lost":
            if (yield load("index", 0)) != 0:
                return
            yield may_be(1, 2)
            count = yield from self.begin_page(0)
            yield from self.entry_write(4, 1, OURS, 2)
            if self.bug == "a lost page is not told":
                yield store("index", 0, 1 + 4)
            else:
                yield from self.put(count, 0, 1 + 4)
            yield may_be(2)
        else:
            yield may_be(1, 0)
            count = yield from self.put(0, 0, 0)
            yield may_be(0)
            yield store("pages", 0, 2)  # witness_write(): lazyfree, in any order
            yield store("pages", 1, 2)
            yield mark("pages")
            yield from self.put(count, 1, 1)

    # The reader. csrc/client/reader.c

    def look_still_stands(self, change: int, serials: dict[int, int]) -> Code:
        if self.bug != "no fence in look_still_stands":
            yield fence("full")
        if self.bug != "serial not looked at again":
            for cell, serial in serials.items():
                if (yield load("board", cell)) != serial:
                    return False
        return self.bug == "changes not looked at again" or (yield load("board", CHANGES)) == change

    def look_at_place(self, at: int, change: int) -> Code:
        serial = yield load("board", SERIAL, "acquire")  # find_segment()
        if serial == 0 or (serial != 2 and serial & NUMBER_MASK != 1):
            return MISS
        yield load("board", PLACE)
        yield grab("log")
        stamp = yield load("log", at)
        key = yield load("log", at + 1)
        if self.bug == "entry read by two preads":
            yield grab("log")
        value = ((yield load("log", at + 2)), (yield load("log", at + 3)))
        if stamp != stamp_of(1):
            return MISS
        if key != OURS:
            return MISS
        serials = {SERIAL: serial}
        if self.scene == "rewrite":  # copy_extent()
            serials[VALUE_SERIAL] = yield load("board", VALUE_SERIAL, "acquire")
            yield grab("pages")
            value = ((yield load("pages", 0)), (yield load("pages", 1)))
            if value[0] == 0 and self.bug != "witness not compared":
                return MISS
        return value if (yield from self.look_still_stands(change, serials)) else CHANGED

    def look_up(self) -> Code:
        """The value and what look_again() goes by."""
        is_late = self.bug == "changes looked at late"
        change = 0 if is_late else (yield load("board", CHANGES, "acquire"))
        if change % 2 != 0:
            return CHANGED, None
        yield grab("index")
        slot = yield load("index", 0)
        if is_late:
            change = yield load("board", CHANGES, "acquire")
        if slot == 0:
            return MISS, None
        value = yield from self.look_at_place(slot - 1, change)
        return value, (slot - 1, change) if isinstance(value, tuple) else None

    def look_again(self, place: tuple[int, int]) -> Code:
        if not (yield from self.look_still_stands(place[1], {})):
            return MISS
        return (yield from self.look_at_place(*place))

    def reader_get(self, place: tuple[int, int] | None) -> Code:
        yield atomic(lambda s: (s._replace(since=s.now), None))
        value = (yield from self.look_again(place)) if place else MISS
        if not isinstance(value, tuple):
            for _ in range(TRIES):
                value, place = yield from self.look_up()
                if value is not CHANGED:
                    break
        possible = yield do(lambda s: (s, s.since))
        good = not isinstance(value, tuple) or (value[0] == value[1] and value[0] in possible - {0})
        yield claim(good, f"a look-up returned {value}; the value was one of {sorted(possible)}, 0 for none")
        return place

    def reader(self) -> Code:
        place = yield from self.reader_get(None)
        if place:
            yield from self.reader_get(place)

    def model(self, name: str, **bounds: object) -> Model:
        return Model(
            f"readers {name}",
            [
                PageKind("board", "plain", (0, 1, 1, 7)),
                PageKind("index", self.backing, (1, 0)),
                PageKind("log", self.backing, (stamp_of(1), OURS, 1, 1, 0, 0, 0, 0)),
                PageKind("pages", self.backing, (1, 1)),
            ],
            {"owner": [self.owner], "reader": [self.reader]},
            Shared(),
            **bounds,  # type: ignore[arg-type]
        )
