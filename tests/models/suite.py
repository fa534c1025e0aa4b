"""All models in all configurations, and the seeded bugs that they have to find.

small    what pytest runs: seconds       all    what `make models` runs: minutes
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import entries, extents, leases, pins, readers
from .entries import Entries
from .extents import Extents
from .leases import Leases
from .machine import Model, Order
from .pins import Pins
from .readers import SCENES, Readers

IN_TURN = {"waiting": 0, "early": 0}  # no access is out of turn
BACKINGS = ("lazyfree", "droppable")


@dataclass(frozen=True)
class Seeded:
    protocol: str
    bug: str
    what: str
    model: Model


def small() -> Iterator[Model]:
    for backing in BACKINGS:
        for verb, deletes in (("stored", False), ("deleted", True)):
            yield Entries(backing).model(f"{verb}, {backing}, a move", deletes, moves=1, **IN_TURN)
        yield Extents(backing).model(f"{backing}, a move", moves=1, **IN_TURN)
    yield Extents("droppable").model("droppable, not marked, a move", dirty=True, moves=1, **IN_TURN)
    yield Pins().model("of two threads", drops=2, **IN_TURN)
    yield Pins().model("a deletion", deletes=True, **IN_TURN)
    for forks in ("holding", "idle"):
        yield Pins().model(f"a fork, {forks}", forks, **IN_TURN)
        yield Pins(shares=True).model(f"a fork that shares, {forks}", forks, **IN_TURN)
    for scene in SCENES:
        yield Readers(scene).model(scene, early=0)
    for verb, stores in (("a deletion", False), ("a store", True)):
        yield Leases().model(verb, stores, drops=0, **IN_TURN)


def large() -> Iterator[Model]:
    for backing in BACKINGS:
        for verb, deletes in (("stored", False), ("deleted", True)):
            for order in Order:
                yield Entries(backing).model(f"{verb}, {backing}, {order.value}", deletes, order=order)
            yield Entries(backing).model(f"{verb}, {backing}, two drops, a move", deletes, drops=2, moves=1, **IN_TURN)
            yield Entries(backing).model(f"{verb}, {backing}, a move, compiler", deletes, moves=1, hoists=("log",))
        for order in Order:
            yield Extents(backing).model(f"{backing}, {order.value}", order=order)
            yield Extents(backing).model(f"{backing}, a move, {order.value}", moves=1, order=order)
        yield Extents(backing).model(f"{backing}, two drops, a move", drops=2, moves=1, **IN_TURN)
    for order in Order:
        yield Pins().model(f"of two threads, {order.value}", drops=2, order=order)
        for forks in ("holding", "idle"):
            yield Pins().model(f"a fork, {forks}, {order.value}", forks, drops=2, order=order)
            yield Pins(shares=True).model(f"a fork that shares, {forks}, {order.value}", forks, drops=2, order=order)
    yield Pins().model("a deletion, two drops", deletes=True, drops=2, **IN_TURN)
    for scene in SCENES:
        for order in Order:
            drops = int(scene in ("replace", "lost"))  # in the others a drop has a million states more; small() has it
            yield Readers(scene).model(f"{scene}, {order.value}", order=order, drops=drops, hoists=("board",))


def every() -> Iterator[Model]:
    yield from small()
    yield from large()


def seeded() -> Iterator[Seeded]:
    for bug, what in entries.BUGS.items():
        bounds: dict[str, object] = {"moves": 1, **IN_TURN}
        if bug == "no release fence":
            bounds = {"early": 0}
        elif bug == "no acquire fence":
            bounds = {"waiting": 0, "hoists": ("log",)}
        deletes = bug == "nothing found, guard not looked at"
        yield Seeded("entries", bug, what, Entries("droppable", bug).model(bug, deletes, **bounds))
    for bug, what in extents.BUGS.items():
        bounds = {"moves": 1, **IN_TURN}
        if bug == "no fence after the mark":
            bounds = {"early": 0}
        elif bug == "no acquire fence":
            bounds = {"waiting": 0}
        elif bug == "prim_cpu is no barrier":
            bounds = {"moves": 1, "waiting": 0}
        backing = "lazyfree" if bug == "written under a reader" else "droppable"
        yield Seeded("extents", bug, what, Extents(backing, bug).model(bug, bug == "writer ignores a move", **bounds))
    for bug, what in pins.BUGS.items():
        forks = {"half a pin stays in the child": "idle", "held pages are wiped in the child": "holding"}.get(bug, "")
        pinned = Pins(bug, shares=bug == "half a pin stays in the child")
        yield Seeded("pins", bug, what, pinned.model(bug, forks, bug == "given back under a holder", **IN_TURN))
    for bug, (scene, what) in readers.BUGS.items():
        bounds = {"early": 0}
        if bug == "no fence in board_begin":
            bounds = {"early": 0, "waiting": 2, "drops": 0}
        elif bug == "no fence in look_still_stands":
            bounds = {"hoists": ("board",), "drops": 0}
        yield Seeded("readers", bug, what, Readers(scene, bug=bug).model(bug, **bounds))
    for bug, what in leases.BUGS.items():
        stores = bug == "store does not revoke"
        yield Seeded("leases", bug, what, Leases(bug).model(bug, stores, drops=0, **IN_TURN))
