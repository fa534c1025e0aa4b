"""The worker: serves the requests, in a cgroup with the neighbours. Started by parts.py as `worker.py TASK.json`.

It writes one JSON line for each thing that happens, so that all of it is known when the OOM killer ends it:

    []                            ready to serve
    [index]                       at the edge of a phase: waits for a line on stdin, the bytes of room for its cache now
    [index, hit, seconds, render_seconds, document_bytes, dropped, intact]      a request served (see run.Request)

Or, where the task names no way: the bytes of HTML of each of its files, all in one line, and waits.
"""

import json
import mmap
import sys
import time
import zlib
from functools import cache
from pathlib import Path
from typing import Any

from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexer import Lexer
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound
from ways import WAYS

import droppable
from droppable import testing


@cache
def _lexer(suffix: str) -> Lexer:
    lexer: Lexer
    try:
        lexer = get_lexer_for_filename(f"name{suffix}")
    except ClassNotFound:
        lexer = TextLexer()
    return lexer


class Renderer:
    """Renders a file to HTML, and remembers how long the last rendering took: that is how a miss is known.

    In seconds of this process, so that what else the machine does makes no document dearer.
    """

    def __init__(self) -> None:
        self._formatter = HtmlFormatter()
        self.seconds = 0.0

    def render(self, path: str) -> bytes:
        begin = time.process_time()
        source = Path(path).read_text(encoding="utf-8", errors="replace")
        document = highlight(source, _lexer(Path(path).suffix), self._formatter).encode()
        self.seconds = time.process_time() - begin
        return document


def serve(task: dict[str, Any]) -> None:
    """Answers each request of the task from the cache."""
    renderer = Renderer()
    cached = WAYS[task["way"]](renderer.render, task["hand_bytes"])
    files: list[str] = task["files"]
    stops = set(task["stops"])
    room_bytes = 0
    checksums: dict[int, int] = {}
    say([])
    for index, file in enumerate(task["stream"]):
        if index in stops:
            say([index])
            room_bytes = int(sys.stdin.readline())
        if task["trim_requests"] and index % task["trim_requests"] == 0:
            trim(cached, room_bytes, index)
        renderer.seconds = 0.0
        begin = time.perf_counter()
        document = cached(files[file])
        seconds = time.perf_counter() - begin
        checksum = zlib.crc32(document)
        intact = checksums.setdefault(file, checksum) == checksum
        hit = renderer.seconds == 0.0
        say([index, hit, seconds, renderer.seconds, len(document), dropped(cached), intact])


def rehearse(task: dict[str, Any]) -> None:
    """Renders each file, keeps nothing."""
    renderer = Renderer()
    say([len(renderer.render(path)) for path in task["files"]])
    sys.stdin.readline()


def dropped(cached: Any) -> int:
    """How many entries the kernel took from the cache so far."""
    info = getattr(cached, "cache_info", None)
    return getattr(info(), "dropped", 0) if info else 0


def trim(cached: Any, room_bytes: int, seed: int) -> None:
    """Stands in for memory pressure: has the kernel drop pages of droppable's cache, down to the room that there is."""
    if isinstance(cached, droppable.Memo):
        resident_bytes = testing.drop(cached, 0.0).resident_pages * mmap.PAGESIZE
        if resident_bytes > room_bytes:
            testing.drop(cached, 1 - room_bytes / resident_bytes, seed)


def say(event: list[Any]) -> None:
    print(json.dumps(event), flush=True)


def main() -> None:
    task = json.loads(Path(sys.argv[1]).read_text())
    if task["way"] is None:
        rehearse(task)
    else:
        serve(task)


if __name__ == "__main__":
    main()
