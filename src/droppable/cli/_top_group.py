"""`droppable top`: the memory cgroup of one process: limit, usage, pressure, events, and how much was dropped in it.

What a cgroup does not tell is taken from the machine, and the report says so: on cgroup v1 there is no PSI and no count
of dropped pages of a group.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from droppable._cgroup_place import has_controller, hierarchies, read, table
from droppable.lowlevel import page_size_bytes

_UNLIMITED_BYTES: Final = 1 << 62
MEMINFO: Final = Path("/proc/meminfo")
_VMSTAT: Final = Path("/proc/vmstat")


def read_group(pid: int) -> dict[str, Any] | None:
    """The figures of a process's memory cgroup, with units in their names; None where it cannot be seen from here."""
    for version, mount, own in hierarchies(str(pid)):
        if has_controller(version, mount):
            try:
                return _read_at(version, mount, own)
            except (OSError, ValueError):  # it is gone
                return None
    return None


def _read_at(version: int, mount: Path, own: Path) -> dict[str, Any]:
    stat = table(own / "memory.stat") if (own / "memory.stat").exists() else {}
    usage = read(own / ("memory.current" if version == 2 else "memory.usage_in_bytes"), "").strip()
    usage_bytes = int(usage) if usage else None  # the root of cgroup v2 has none
    inactive_bytes = stat.get("inactive_file" if version == 2 else "total_inactive_file")
    limits = [(limit, level) for level in (own, *own.parents) if (limit := _limit_bytes(version, level)) is not None]
    limit_bytes, limit_path = min(limits, default=(None, None))
    pressure, pressure_of = _pressure(own)
    lazyfreed_pages, dropped_of = stat.get("pglazyfreed"), "cgroup"
    if lazyfreed_pages is None:
        lazyfreed_pages, dropped_of = machine_lazyfreed_pages(), "machine"
    working = None if usage_bytes is None or inactive_bytes is None else max(0, usage_bytes - inactive_bytes)
    return {
        "path": str(own),
        "version": version,
        "limit_bytes": limit_bytes,
        "limit_path": None if limit_path is None else str(limit_path),
        "usage_bytes": usage_bytes,
        "inactive_file_bytes": inactive_bytes,
        "working_set_bytes": working,
        "pressure_percent": pressure,
        "pressure_of": pressure_of,
        "events": _events(version, own),
        "dropped_bytes": lazyfreed_pages * page_size_bytes(),
        "dropped_of": dropped_of,
    }


def _limit_bytes(version: int, level: Path) -> int | None:
    names = ("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes",)
    words = [read(level / name, "max").strip() for name in names]
    limits = [int(word) for word in words if word != "max"]
    return min((limit for limit in limits if limit < _UNLIMITED_BYTES), default=None)


def _pressure(own: Path) -> tuple[dict[str, float], str]:
    """The share of the last ten seconds in which some, or all, of the tasks waited for memory."""
    for path, of in ((own / "memory.pressure", "cgroup"), (Path("/proc/pressure/memory"), "machine")):
        text = read(path, "")
        if text:
            rows = (line.split() for line in text.splitlines())
            return {row[0]: float(row[1].removeprefix("avg10=")) for row in rows}, of
    return {}, "nobody"


def _events(version: int, own: Path) -> dict[str, int]:
    if version == 2:
        return table(own / "memory.events") if (own / "memory.events").exists() else {}
    counts = table(own / "memory.oom_control")
    return {"max": int(read(own / "memory.failcnt", "0")), "oom_kill": counts.get("oom_kill", 0)}


def machine_lazyfreed_pages() -> int:
    """Droppable and lazyfree pages that reclaim took, of the whole machine, since it started."""
    return table(_VMSTAT).get("pglazyfreed", 0)
