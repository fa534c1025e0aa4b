"""`droppable top`: who has memory that the kernel may take, ours or not; once as text or JSON, or again and again.

/proc and sockets give a report; a report gives JSON or lines of text; lines go to standard output once, or to the
terminal until q or Ctrl-C. A rate is what one report has more than the one before.
"""

from __future__ import annotations

import json
import shutil
import signal
import sys
import time
from contextlib import suppress
from typing import Any, Final

from droppable import _stats_page
from droppable._cgroup_place import read
from droppable.cli import _top_group, _top_memory, _top_text, _top_told
from droppable.lowlevel import page_size_bytes

FAILED: Final = 1
MAPPINGS_MOST: Final = 8
CELLS: Final = 30


def top(pid: int | None, once: bool, as_json: bool, interval_seconds: float) -> int:
    """Shows one process, or all that have droppable or lazyfree memory, or tell of caches. Returns the exit status.

    Args:
        pid: the process; None: all that may be looked into.
        once: print one report as text and return.
        as_json: print it as JSON.
        interval_seconds: how often the terminal is drawn anew.
    """
    try:
        report = read_report(pid, None)
        if as_json:
            print(json.dumps(report, indent=2))
            return 0
        if once:
            print("\n".join(_top_text.render(report, shutil.get_terminal_size().columns)))
            return 0
        return _interact(pid, report, interval_seconds)
    except (FileNotFoundError, ProcessLookupError):
        print(f"droppable top: there is no process {pid}, or it has ended", file=sys.stderr)
    except PermissionError:
        print(f"droppable top: process {pid} belongs to somebody else: try it as that user or as root", file=sys.stderr)
    except KeyboardInterrupt:
        return 0
    return FAILED


def read_report(pid: int | None, before: dict[str, Any] | None) -> dict[str, Any]:
    """All that is told, with units in its names.

    Args:
        pid: the process; None: all that are of interest.
        before: the report before this one, for rates; None: rates are null.

    Raises:
        FileNotFoundError, ProcessLookupError: there is no process pid. PermissionError: it is not ours.
    """
    seconds = time.monotonic()
    processes, unreadable = [], 0
    _stats_page.sweep(_stats_page.folder())
    for one in _top_memory.pids() if pid is None else [pid]:
        try:
            process = _read_process(one, pid is not None)
        except PermissionError:
            unreadable += 1
            if pid is not None:
                raise
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            if pid is not None:
                raise
        else:
            if process is not None:
                processes.append(process)
    processes.sort(key=lambda process: -(process["droppable_bytes"] + process["lazyfree_bytes"]))
    _add_rates(processes, seconds, before)
    return {
        "monotonic_seconds": seconds,
        "machine": _machine(),
        "unreadable_processes": unreadable,
        "processes": processes,
    }


def _read_process(pid: int, is_asked_for: bool) -> dict[str, Any] | None:
    servers = _top_told.servers_of(pid)
    try:
        memory = _top_memory.read_memory(pid)
    except PermissionError:
        if not servers:
            raise
        memory = _top_memory.guess_memory(pid, servers[0]["stored_bytes"])
    caches = _top_told.caches_of(pid)
    if not (is_asked_for or memory.is_of_interest() or caches or servers):
        return None
    return {
        "pid": pid,
        "command": _top_memory.command(pid),
        "resident_bytes": memory.resident_bytes,
        "droppable_bytes": memory.droppable_bytes,
        "droppable_mapped_bytes": memory.droppable_mapped_bytes,
        "lazyfree_bytes": memory.lazyfree_bytes,
        "ordinary_bytes": memory.ordinary_bytes,
        "swapped_bytes": memory.swapped_bytes,
        "dropped_bytes_per_second": None,
        "mappings": [
            {
                "address": f"{mapped.start:x}",
                "kind": mapped.kind,
                "mapped_bytes": mapped.mapped_bytes,
                "resident_bytes": mapped.resident_bytes,
                "lazyfree_bytes": mapped.lazyfree_bytes,
                "residency": _top_memory.residency(pid, mapped, CELLS),
            }
            for mapped in memory.largest(MAPPINGS_MOST)
            if mapped.end > 0
        ],
        "cgroup": _top_group.read_group(pid),
        "caches": caches,
        "servers": servers,
    }


def _add_rates(processes: list[dict[str, Any]], seconds: float, before: dict[str, Any] | None) -> None:
    """What reclaim dropped in each process's cgroup, or on the machine, for each second since the report before."""
    if before is None or seconds <= before["monotonic_seconds"]:
        return
    spent = seconds - before["monotonic_seconds"]
    then = {process["pid"]: process["cgroup"] for process in before["processes"]}
    for process in processes:
        group, old = process["cgroup"], then.get(process["pid"])
        if group is not None and old is not None and group["path"] == old["path"]:
            process["dropped_bytes_per_second"] = max(0, group["dropped_bytes"] - old["dropped_bytes"]) / spent


def _machine() -> dict[str, int]:
    rows = (line.split() for line in read(_top_group.MEMINFO, "").splitlines())
    sizes = {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if row[2:] == ["kB"]}
    return {
        "memory_bytes": sizes.get("MemTotal", 0),
        "available_bytes": sizes.get("MemAvailable", 0),
        "dropped_bytes": _top_group.machine_lazyfreed_pages() * page_size_bytes(),
    }


def _interact(pid: int | None, report: dict[str, Any], interval_seconds: float) -> int:
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stdout.isatty()):  # None: it is closed
        print("droppable top: this is no terminal: give --once, for text, or --once --json", file=sys.stderr)
        return FAILED
    try:
        import curses
    except ImportError as error:
        print(f"droppable top: this Python has no curses ({error}): give --once", file=sys.stderr)
        return FAILED
    try:
        curses.wrapper(_draw_until_quit, pid, report, interval_seconds)
    except curses.error as error:
        print(f"droppable top: this terminal cannot be drawn on ({error}): set TERM, or give --once", file=sys.stderr)
        return FAILED
    return 0


def _draw_until_quit(screen: Any, pid: int | None, report: dict[str, Any], interval_seconds: float) -> None:
    """Each key draws anew, and so does a new size; each interval reads anew."""
    import curses

    with suppress(curses.error):  # a terminal without colours
        curses.use_default_colors()
    with suppress(curses.error):  # a terminal that cannot hide it
        curses.curs_set(0)
    _keep_keys_at_interrupt()
    chosen = 0
    due = time.monotonic() + interval_seconds
    interrupts: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        interrupts.append(number)  # an exception can be lost, where a finaliser runs at that moment
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    while not interrupts:
        chosen = max(0, min(chosen, len(report["processes"]) - 1))
        _draw(screen, report, chosen)
        screen.timeout(max(1, round(1000 * (due - time.monotonic()))))
        key = screen.getch()
        if key in (ord("q"), ord("Q")):
            return
        if key == curses.KEY_RESIZE:
            curses.update_lines_cols()
        elif key in (curses.KEY_DOWN, ord("j")):
            chosen += 1
        elif key in (curses.KEY_UP, ord("k")):
            chosen -= 1
        if time.monotonic() >= due:
            report = read_report(pid, report)
            due = time.monotonic() + interval_seconds


def _keep_keys_at_interrupt() -> None:
    """Asks the terminal not to forget the keys that were typed and not read when Ctrl-C comes.

    If it did, curses could hang: it has seen that there is a key, and waits for it when the signal has come and the key
    is forgotten. curses sets the terminal back to what it was at the end.
    """
    import curses
    import termios

    terminal = sys.stdin.fileno()
    with suppress(termios.error):  # the keys come from no terminal
        settings = termios.tcgetattr(terminal)
        settings[3] |= termios.NOFLSH
        termios.tcsetattr(terminal, termios.TCSANOW, settings)
        curses.def_prog_mode()  # for when the program comes back from Ctrl-Z


def _draw(screen: Any, report: dict[str, Any], chosen: int) -> None:
    import curses

    height, width = screen.getmaxyx()
    screen.erase()
    for row, line in enumerate(_top_text.render(report, width, height, chosen)[:height]):
        with suppress(curses.error):  # the last cell of the screen is drawn, and the cursor has no place to go to
            screen.addstr(row, 0, line, curses.A_BOLD if row < 2 else curses.A_NORMAL)
    screen.refresh()
