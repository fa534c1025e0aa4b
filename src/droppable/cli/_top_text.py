"""`droppable top`: a report as lines of text, for a terminal of any size.

A heading, a row for each process, and details of the chosen one: its cgroup, its largest mappings, its caches.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from droppable._arguments import format_size

_CAUSES: Final = ("absent", "expired", "evicted", "dropped", "unloadable")
_INDENT: Final = 8
_LEAST_ROWS: Final = 3
"""Of processes, however low the terminal is."""


def render(report: Mapping[str, Any], width: int, height: int | None = None, chosen: int = 0) -> list[str]:
    """The lines of a report.

    Args:
        report: what `droppable top --once --json` prints.
        width: no line is longer.
        height: no more lines than that; None: as many as it takes.
        chosen: which process is shown in detail, by its place in the list.
    """
    processes: Sequence[Mapping[str, Any]] = report["processes"]
    rows = [_process(process, place == chosen) for place, process in enumerate(processes)]
    details = list(_details(processes[chosen])) if processes else list(_NONE)
    if report["unreadable_processes"]:
        details.append(f"Processes that you may not look into: {report['unreadable_processes']}.")
    details = [piece for line in details for piece in _folded(line, width)]
    if height is not None:
        room = max(1, height - 2)
        shown = min(len(rows), max(_LEAST_ROWS, room - len(details)), room)
        first = max(0, min(chosen - shown + 1, len(rows) - shown)) if chosen >= shown else 0
        rows = rows[first : first + shown]
        details = details[: room - len(rows)]
    heading = _heading(report) + ("" if height is None else "  q: quit")
    return [_plain(line)[:width].rstrip() for line in (heading, _HEAD, *rows, *details)]


def _plain(line: str) -> str:
    """Without what would steer the terminal: the names of caches, cgroups and sockets are anybody's."""
    return line if line.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in line)


_NONE: Final = (
    "No process here has droppable or lazyfree memory.",
    "A cache of less than about 2 MB may not be seen, because pages of small values are marked many at a time. "
    "If its program is started with DROPPABLE_STATS=1 in the environment, it is seen.",
)
"""In place of the details, where there is no process. README.md, "What to know", has the 2 MB."""
_HEAD: Final = f"{'PID':>8} {'DROPPABLE':>9} {'LAZYFREE':>8} {'ORDINARY':>8} {'DROPS/S':>8}  COMMAND"


def _folded(line: str, width: int) -> list[str]:
    return textwrap.wrap(line, width, subsequent_indent=" " * min(_INDENT, width // 4), break_on_hyphens=False)


def _heading(report: Mapping[str, Any]) -> str:
    machine = report["machine"]
    count = len(report["processes"])
    available, memory = format_size(machine["available_bytes"]), format_size(machine["memory_bytes"])
    return f"droppable top  {count} process{'' if count == 1 else 'es'}  {available} of {memory} available"


def _process(process: Mapping[str, Any], is_chosen: bool) -> str:
    rate = process["dropped_bytes_per_second"]
    return (
        f"{'>' if is_chosen else ' '}{process['pid']:>7} {format_size(process['droppable_bytes']):>9} "
        f"{format_size(process['lazyfree_bytes']):>8} {format_size(process['ordinary_bytes']):>8} "
        f"{'-' if rate is None else format_size(round(rate)):>8}  {process['command']}"
    )


def _details(process: Mapping[str, Any]) -> Iterator[str]:
    yield from _group(process["cgroup"])
    for mapped in process["mappings"]:
        resident = format_size(mapped["resident_bytes"])
        yield (
            f"map     {mapped['kind']:<9} {resident:>6} of {format_size(mapped['mapped_bytes']):<6} "
            f"[{mapped['residency']}] {mapped['address']}"
        )
    for cache in (*process["caches"], *process["servers"]):
        yield from _cache(cache)


def _group(group: Mapping[str, Any] | None) -> Iterator[str]:
    if group is None:
        yield "cgroup  cannot be seen from here"
        return
    usage, limit = group["usage_bytes"], group["limit_bytes"]
    of = "no limit" if limit is None else f"limit {format_size(limit)}"
    used = "" if usage is None else f"usage {format_size(usage)}, "
    inactive = group["inactive_file_bytes"]
    yield (
        f"cgroup  {used}{of}"
        + ("" if inactive is None else f", inactive_file {format_size(inactive)}")
        + f"  v{group['version']} {group['path']}"
    )
    pressure = ", ".join(f"{name} {share:.1f}%" for name, share in group["pressure_percent"].items()) or "not told"
    events = ", ".join(f"{name} {count}" for name, count in group["events"].items()) or "none"
    yield f"        PSI ({group['pressure_of']}): {pressure}; events: {events}"
    yield f"        dropped ({group['dropped_of']}): {format_size(group['dropped_bytes'])}"


def _cache(cache: Mapping[str, Any]) -> Iterator[str]:
    misses = {cause: cache.get(f"misses_{cause}", 0) for cause in _CAUSES}
    looked = cache["hits"] + sum(misses.values())
    ratio = f"{100 * cache['hits'] / looked:.1f}%" if looked else "-"
    causes = ", ".join(f"{cause} {count}" for cause, count in misses.items() if count) or "none"
    name = _plain(cache["name"] or "a cache without a name")  # here: folding would end the line at a line break
    yield f"cache   {name}: hits {ratio} of {looked}; misses: {causes}"
    pinned = cache.get("pinned_bytes", 0) + cache.get("window_bytes", 0)
    yield (
        f"        {cache['entries']} entries, {format_size(cache['stored_bytes'])}, pinned {format_size(pinned)}, "
        f"yielded {format_size(cache['yielded_bytes'])}; dropped {cache['dropped']}, evicted {cache['evicted']}, "
        f"refused {cache['refused']}"
    )
