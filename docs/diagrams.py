"""Draws docs/model.md from the model: `python docs/diagrams.py` rewrites what is generated, `--check` only compares.

A generated part stands between <!-- NAME --> and <!-- end NAME -->; pictures are in docs/images. The state diagrams are
found, not written: every sequence of calls up to a length is played on one page of a small machine, and each step that
changes what the page is becomes an arrow. The replay tables are played on the traces below, the same in every run.
"""

from __future__ import annotations

import argparse
import itertools
import math
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


# A state has a place (the middle of its box), and each pair of states one curve: two that go to and fro bend apart.
PLACES = {
    "absent": (95, 95),
    "clean, may go": (625, 70),
    "dirty, stays": (400, 175),
    "dirty, may go": (400, 175),
    "zero page": (95, 300),
    "on swap": (450, 320),
}
COLOURS = {"clean, may go": "#d8efd8", "dirty, may go": "#f6e3c4", "dirty, stays": "#f3d3d3"}
WIDTH, HEIGHT = 720, 370
BOX_WIDTH, BOX_HEIGHT = 150, 44
BEND = 26
BENDS = {("on swap", "absent"): -45, ("clean, may go", "absent"): 40, ("zero page", "dirty, stays"): -20}


def curve(before: str, after: str) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float]]:
    """Begin, control point and end of the arrow, from the edge of one box to the edge of the other."""
    (x0, y0), (x1, y1) = PLACES[before], PLACES[after]
    bend = 2 * BENDS.get((before, after), BEND) / math.hypot(x1 - x0, y1 - y0)
    control = ((x0 + x1) / 2 + bend * (y0 - y1), (y0 + y1) / 2 + bend * (x1 - x0))

    def edge(x: float, y: float) -> tuple[float, float]:
        along_x, along_y = control[0] - x, control[1] - y
        share = min(
            (BOX_WIDTH / 2 + 3) / abs(along_x) if along_x else math.inf,
            (BOX_HEIGHT / 2 + 3) / abs(along_y) if along_y else math.inf,
        )
        return x + along_x * share, y + along_y * share

    return edge(x0, y0), control, edge(x1, y1)


def diagram(title: str, flags: frozenset[Flag]) -> str:
    """An SVG picture of the states and of what moves a page from one to another."""
    found = transitions(flags)
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}"'
        ' font-family="sans-serif" font-size="14">',
        f"<title>{title}</title>",
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8"'
        ' orient="auto-start-reverse"><path d="M0 0 10 5 0 10z" fill="#345"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#fff"/>',
    ]
    labels = []
    for (before, after), calls in sorted(found.items()):
        (x0, y0), (cx, cy), (x1, y1) = curve(before, after)
        lines.append(
            f'<path d="M{x0:.0f} {y0:.0f}Q{cx:.0f} {cy:.0f} {x1:.0f} {y1:.0f}" fill="none" stroke="#345"'
            ' stroke-width="1.5" marker-end="url(#head)"/>'
        )
        x, y = (x0 + 2 * cx + x1) / 4, (y0 + 2 * cy + y1) / 4
        labels.append(
            f'<text x="{x:.0f}" y="{y + 5:.0f}" text-anchor="middle" fill="#234" stroke="#fff" stroke-width="5"'
            f' paint-order="stroke">{", ".join(call for call in CALLS if call in calls)}</text>'
        )
    for state in sorted({state for pair in found for state in pair}):
        x, y = PLACES[state]
        colour = {"clean, may go": "#d8efd8", "dirty, may go": "#f6e3c4", "dirty, stays": "#f3d3d3"}.get(
            state, "#e8edf2"
        )
        lines.append(
            f'<rect x="{x - BOX_WIDTH // 2}" y="{y - BOX_HEIGHT // 2}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}"'
            f' rx="10" fill="{colour}" stroke="#345"/>'
            f'<text x="{x}" y="{y + 5}" text-anchor="middle" fill="#000">{state}</text>'
        )
    return "\n".join([*lines, *labels, "</svg>", ""])


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


def generated() -> dict[Path, str]:
    """What each generated file holds, made anew: the pictures, and the document with its generated parts."""
    files = {}
    parts = {"three caches": table()}
    for name, flags in BACKINGS.items():
        title = f"States of a page of {name} memory"
        files[DOCUMENT.parent / "images" / f"states_{name}.svg"] = diagram(title, flags)
        parts[f"states of {name}"] = f"![{title}](images/states_{name}.svg)"
    text = DOCUMENT.read_text()
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), flags=re.DOTALL)
        text, count = pattern.subn(lambda _: f"{begin}\n{part}\n{end}", text)  # noqa: B023
        if count != 1:
            raise ValueError(f"{DOCUMENT} has {count} parts named {name}")
    return {**files, DOCUMENT: text}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 where a file is not current")
    check = parser.parse_args().check
    old = {path: text for path, text in generated().items() if not path.exists() or path.read_text() != text}
    for path, text in old.items():
        if check:
            print(f"{path} is not what the model draws now: run python docs/diagrams.py", file=sys.stderr)
        else:
            path.write_text(text)
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
