"""Draws docs/model.md from the model: `python docs/diagrams.py` rewrites its generated parts, `--check` only compares.

A generated part stands between <!-- NAME --> and <!-- end NAME -->. The state diagrams are found, not written: every
sequence of calls up to a length is played on one page of a small machine, and each step that changes what the page is
becomes an arrow. The replay tables are played on the traces below, the same in every run.
"""

from __future__ import annotations

import argparse
import itertools
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from droppable.model import DROPPABLE, LAZYFREE, Flag, Lru, Machine, Mapping, Page, State
from droppable.replay import Setup, replay

DOCUMENT = Path(__file__).parent / "model.md"

# State diagrams

BACKINGS = {"lazyfree": LAZYFREE, "droppable": DROPPABLE}
DEPTH = 5
CALLS: dict[str, Callable[[Mapping], object]] = {
    "read": lambda mapping: mapping.read(),
    "write": lambda mapping: mapping.write(0, b"x"),
    "mark": lambda mapping: mapping.mark(),
    "purge": lambda mapping: mapping.purge(),
    "reclaim": lambda mapping: mapping.page_out(),
}


def what(mapping: Mapping) -> str:
    """What the one page of the mapping is, in the glossary's words."""
    page = mapping.pages.get(0)
    if page is None or page.state is State.ABSENT:
        return "absent"
    if page.state is not State.RESIDENT:
        return {State.ZERO: "zero page", State.SWAPPED: "on swap"}[page.state]
    return f"{'dirty' if page.dirty_in else 'clean'}, {'may go' if page.may_drop else 'stays'}"


def transitions(flags: frozenset[Flag]) -> dict[tuple[str, str], set[str]]:
    """(from, to) of every step that any short sequence of calls makes, with the calls that make it."""
    found: dict[tuple[str, str], set[str]] = {}
    for names in itertools.product(CALLS, repeat=DEPTH):
        mapping = Machine(ram_pages=4, swap_pages=4, page_bytes=1).start().map(1, flags)
        for name in names:
            before = what(mapping)
            CALLS[name](mapping)
            if what(mapping) != before:
                found.setdefault((before, what(mapping)), set()).add(name)
    return found


def diagram(flags: frozenset[Flag]) -> str:
    found = transitions(flags)
    names = {state: re.sub(r"\W+", "_", state) for pair in found for state in pair}
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f'    state "{state}" as {name}' for state, name in sorted(names.items())]
    lines += ["    [*] --> absent: map"]
    for (before, after), calls in sorted(found.items()):
        lines.append(f"    {names[before]} --> {names[after]}: {', '.join(call for call in CALLS if call in calls)}")
    return "\n".join([*lines, "```"])


# Three caches on one host

MB = 1 << 20
HOST_MB = 4
ACCESSES = 6_000
TAKEN_MB = 1.5


def zipf(generator: random.Random, keys: int, alpha: float) -> Iterator[int]:
    weights = list(itertools.accumulate((rank + 1) ** -alpha for rank in range(keys)))
    while True:
        yield from generator.choices(range(keys), cum_weights=weights, k=1000)


def host() -> Iterator[tuple[str, int, int]]:
    """Pages: many small values, skewed. Thumbnails: fewer, larger, less skewed. Export: each value once, never again.

    In the middle third an ordinary process holds 1.5 MB.
    """
    generator = random.Random(1)
    pages, thumbnails = zipf(generator, 3_500, 0.9), zipf(generator, 140, 0.7)
    for step in range(ACCESSES):
        if step == ACCESSES // 3:
            yield "ordinary", 0, int(TAKEN_MB * MB)
        if step == 2 * ACCESSES // 3:
            yield "ordinary", 0, -int(TAKEN_MB * MB)
        yield "pages", next(pages), 500
        if step % 4 == 0:
            yield "thumbnails", next(thumbnails), 30_000
        if step % 40 == 0:
            yield "export", step, 256 << 10


class AnyPage(Machine):
    """A policy to compare with: takes pages by lot, whether somebody reads them or not."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.lot = random.Random(2)

    def victims(self, priority: int) -> Iterator[Page]:
        if priority == 0:
            for page in self.lot.sample(list(self.lists[Lru.INACTIVE]), len(self.lists[Lru.INACTIVE])):
                page.accessed = False
                yield page


def table() -> str:
    marked, raw, bounded = Setup(), Setup(DROPPABLE, mark=False), Setup(max_pages=MB // 2 // 4096)
    trials: list[tuple[str, type[Machine], Setup, Setup]] = [
        ("written pages marked: what the caches do", Machine, marked, marked),
        ("the same, and `export` keeps to 0.5 MB", Machine, marked, bounded),
        ("`MAP_DROPPABLE` without marks: the over-drop", Machine, raw, raw),
        ("pages taken by lot", AnyPage, marked, marked),
    ]
    lines = [
        "| policy | `pages`: hits | lost | `thumbnails`: hits | lost | MB at the end: `pages` | `thumbnails` "
        "| `export` |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, kind, setup, export in trials:
        caches = {"pages": setup, "thumbnails": setup, "export": export}
        got = replay(host(), caches, kind(HOST_MB * MB // 4096))
        shares = [f"{share:.3f}" for c in ("pages", "thumbnails") for share in (got[c].hit_ratio, got[c].lost_ratio)]
        held = [f"{got[cache].resident_pages * 4096 / MB:.1f}" for cache in caches]
        lines.append("| " + " | ".join([name, *shares, *held]) + " |")
    return "\n".join(lines)


# The document


def generated(text: str) -> str:
    """The document with its generated parts made anew."""
    parts = {f"states of {name}": diagram(flags) for name, flags in BACKINGS.items()} | {"three caches": table()}
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), flags=re.DOTALL)
        text, count = pattern.subn(lambda _: f"{begin}\n{part}\n{end}", text)  # noqa: B023
        if count != 1:
            raise ValueError(f"{DOCUMENT} has {count} parts named {name}")
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 where the document is not current")
    check = parser.parse_args().check
    old = DOCUMENT.read_text()
    new = generated(old)
    if not check:
        DOCUMENT.write_text(new)
    elif new != old:
        print(f"{DOCUMENT} is not what the model draws now: run python docs/diagrams.py", file=sys.stderr)
    return int(check and new != old)


if __name__ == "__main__":
    sys.exit(main())
