"""`droppable top`: what caches and servers tell of themselves: hits, and misses by cause, by name.

Processes that publish their counts (`droppable.metrics.publish`) are asked at their socket, servers at their own unix
socket, with memcached's `stats`. Both answer within half a second, or are left out.
"""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path
from typing import Any, Final

from droppable import _stats_page
from droppable._stats import COUNTS
from droppable.cli._serve import PROGRAM
from droppable.cli._top_memory import short_name

_COMM_BYTES: Final = 15
_LISTENS: Final = 0x10000
_ASK_SECONDS: Final = 0.5
_MOST_BYTES: Final = 1 << 20
_MOST_COUNT: Final = 1 << 64

_OF_SERVER: Final = {
    "hits": "get_hits",
    "misses_expired": "get_expired",
    "misses_evicted": "misses_evicted",
    "misses_dropped": "misses_dropped",
    "refused": "refused",
    "dropped": "dropped",
    "entries": "curr_items",
    "stored_bytes": "bytes",
    "yielded_bytes": "yielded_bytes",
}
"""Our name for what a server counts, and its own."""


def caches_of(pid: int) -> list[dict[str, Any]]:
    """The caches of a process that publishes them, with the counts of `CacheStats`."""
    try:
        owner = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return []
    places = [_stats_page.folder(), Path(f"/run/user/{owner}/droppable"), Path(f"/tmp/droppable-{owner}")]
    for place in dict.fromkeys(places):
        told = _stats_page.ask(pid, place)
        if told is not None:
            caches = told.get("caches")
            return [_checked(cache) for cache in caches if isinstance(cache, dict)] if isinstance(caches, list) else []
    return []


def _checked(cache: dict[str, Any]) -> dict[str, Any]:
    """What a process says of a cache, without what can be no count: the process may be anybody's, and say anything."""
    name = cache.get("name")
    counts = {
        field: count for field, count in cache.items() if type(count) in (int, float) and 0 <= count <= _MOST_COUNT
    }
    known = dict.fromkeys((row.field for row in COUNTS), 0)
    return {"name": name if isinstance(name, str) else None, "max_bytes": None, **known, **counts}


def servers_of(pid: int) -> list[dict[str, Any]]:
    """The server that this process is, at the first unix socket that answers; names as for caches. Else nothing."""
    if short_name(pid) != PROGRAM[:_COMM_BYTES]:
        return []
    for path in _sockets(pid):
        stats = _ask_server(path)
        if stats:
            counts = {ours: stats.get(theirs, 0) for ours, theirs in _OF_SERVER.items()}
            known = counts["misses_expired"] + counts["misses_evicted"] + counts["misses_dropped"]
            absent = max(0, stats.get("get_misses", 0) - known)
            evicted = max(0, stats.get("evictions", 0) - counts["dropped"])
            return [{"name": "server", "socket": path, **counts, "misses_absent": absent, "evicted": evicted}]
    return []


def _sockets(pid: int) -> list[str]:
    """Paths of unix sockets at which a process listens."""
    try:
        links = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
        rows = Path(f"/proc/{pid}/net/unix").read_text(errors="surrogateescape").splitlines()[1:]
    except OSError:
        return _likely_sockets(pid)
    inodes = {found[1] for link in links if (found := re.fullmatch(r"socket:\[(\d+)\]", link))}
    # Whoever gives a socket a name with a line break in it writes the next row as he likes.
    found_rows = (re.fullmatch(r"\S+ +\S+ +\S+ +([0-9A-Fa-f]{1,8}) +\S+ +\S+ +(\d+) +(.+)", row) for row in rows)
    return [row[3] for row in found_rows if row and row[2] in inodes and int(row[1], 16) & _LISTENS]


def _likely_sockets(pid: int) -> list[str]:
    """The same of a server that only root may look into: what its command line says, or where it listens without."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="surrogateescape").split("\0")
        user = os.stat(f"/proc/{pid}/cmdline").st_uid
    except OSError:
        return []
    given = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "--unix"]
    given += [word.removeprefix("--unix=") for word in words if word.startswith("--unix=")]
    user = user or os.getuid()  # the files of a process that is not dumpable are root's
    return given or [f"/run/user/{user}/droppable/server.sock", f"/tmp/droppable-{user}/server.sock"]


def _ask_server(path: str) -> dict[str, int]:
    answer = bytearray()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ASK_SECONDS)
            connection.connect(path)
            connection.sendall(b"stats\r\n")
            for piece in _stats_page.pieces(connection, _ASK_SECONDS):
                answer += piece
                if answer.endswith(b"END\r\n") or len(answer) >= _MOST_BYTES:
                    break
                if answer.startswith(b"CLIENT_ERROR"):
                    return {}
            else:
                return {}
    except OSError:
        return {}
    text = answer.decode("ascii", errors="replace")
    return {found[1]: int(found[2]) for found in re.finditer(r"^STAT (\w+) ([0-9]{1,20})\r$", text, re.MULTILINE)}
