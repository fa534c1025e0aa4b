"""What reclaim takes: the model against the kernel, the same stream of writes in a memory cgroup and in the model.

<mount>/droppable-<pid>-<token>     32 MB, no swap     10 MB hot, re-read every 2 MB while 110 MB stream through

    raw droppable   both over-drop: live memory falls to almost nothing again and again, hot pages are lost by the way
    marked          both keep the cgroup full, and lose nothing that is hot

The model's LRU is the classic one. The multi-generational one takes more at a time: its bounds are wider.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from typing import Any, Protocol

import pytest

from droppable import UnsupportedError
from droppable.lowlevel import Mapping, page_size_bytes
from droppable.model import DROPPABLE, LAZYFREE, Machine, State

MB = 1 << 20
PAGE = page_size_bytes()
LIMIT_MB, HOT_MB, EVERY_MB, STREAM_MB = 32, 10, 2, 120
FLAGS = {"lazyfree": LAZYFREE, "droppable": DROPPABLE}


class Memory(Protocol):
    """What stream() needs of real memory and of the model's; numbers are pages."""

    def write(self, first: int, count: int) -> None: ...
    def read_lost(self, count: int) -> list[int]: ...
    def live_pages(self) -> int: ...


def stream(memory: Memory, mb_pages: int, hot_mb: int, every_mb: int, stream_mb: int) -> tuple[float, list[int]]:
    """The share of hot reads that found the page gone, and the live pages after each MB."""
    memory.write(0, hot_mb * mb_pages)
    lost, reads, live = 0, 0, []
    for mb in range(hot_mb, stream_mb):
        memory.write(mb * mb_pages, mb_pages)
        live.append(memory.live_pages())
        if mb % every_mb == 0:
            gone = memory.read_lost(hot_mb * mb_pages)
            for index in gone:
                memory.write(index, 1)
            lost, reads = lost + len(gone), reads + hot_mb * mb_pages
    return lost / reads, live


class RealMemory:
    def __init__(self, backing: str, mark: bool, page: int, length: int) -> None:
        from droppable.lowlevel import Mapping

        self.mapping, self.marks, self.page = Mapping(length, backing), mark, page  # type: ignore[arg-type]
        self.view = memoryview(self.mapping)

    def write(self, first: int, count: int) -> None:
        for index in range(first, first + count):
            self.view[index * self.page : (index + 1) * self.page] = b"x" * self.page
        if self.marks:
            self.mapping.mark(first * self.page, count * self.page)

    def read_lost(self, count: int) -> list[int]:
        return [index for index in range(count) if not self.view[index * self.page]]

    def live_pages(self) -> int:
        return self.mapping.census().resident_pages


class ModelMemory:
    def __init__(self, backing: str, mark: bool, ram_pages: int) -> None:
        self.mapping = Machine(ram_pages).start().map(STREAM_MB * MB // PAGE, FLAGS[backing])
        self.marks = mark

    def write(self, first: int, count: int) -> None:
        for index in range(first, first + count):
            page = self.mapping.fault_for_write(index)
            assert page
            page.content = b"x"
        if self.marks:
            self.mapping.mark(first * self.mapping.machine.page_bytes, count * self.mapping.machine.page_bytes)

    def read_lost(self, count: int) -> list[int]:
        gone = [index for index in range(count) if self.mapping.state(index) is not State.RESIDENT]
        for index in range(count):
            self.mapping.touch(index)
        return gone

    def live_pages(self) -> int:
        return self.mapping.machine.used_pages


@pytest.mark.parametrize(
    "backing, mark",
    [("droppable", False), ("droppable", True), ("lazyfree", True)],
    ids=["raw", "droppable", "lazyfree"],
)
def test_reclaim_takes_what_the_model_says(
    backing: str, mark: bool, run_in_cgroup: Callable[..., Any], mglru: bool
) -> None:
    try:
        Mapping(PAGE, backing).close()  # type: ignore[arg-type]
    except UnsupportedError as error:
        pytest.skip(f"{backing}: {error}")
    if not Mapping(PAGE).census().exact:
        pytest.skip("no PAGEMAP_SCAN here: a page that was dropped and read cannot be told from a live one")
    code = "\n".join(
        [
            "from __future__ import annotations",
            "import json",
            inspect.getsource(RealMemory),
            inspect.getsource(stream).replace("memory: Memory", "memory"),
            f"memory = RealMemory({backing!r}, {mark}, {PAGE}, {STREAM_MB * MB})",
            f"print(json.dumps(stream(memory, {MB // PAGE}, {HOT_MB}, {EVERY_MB}, {STREAM_MB})))",
        ]
    )
    done = run_in_cgroup(LIMIT_MB * MB, code)
    assert done.returncode == 0, done.stderr
    assert done.oom_kills == 0
    real_lost, real_live = json.loads(done.stdout)
    ram_pages = max(real_live)  # what the interpreter leaves of the limit
    lost, live = stream(ModelMemory(backing, mark, ram_pages), MB // PAGE, HOT_MB, EVERY_MB, STREAM_MB)

    full = ram_pages // (MB // PAGE)
    print(
        f"lost: kernel {real_lost:.4f}, model {lost:.4f}; least live after {full} MB: "
        f"kernel {min(real_live[full:])}, model {min(live[full:])} of {ram_pages} pages"
    )
    if mark:
        assert lost == 0
        assert real_lost < (0.03 if mglru else 0.01)
        assert min(live[full:]) > 0.9 * ram_pages
        assert min(real_live[full:]) > (0.6 if mglru else 0.8) * ram_pages
    else:
        assert 0.5 * lost <= real_lost <= 1.5 * lost
        assert min(live[full:]) < 0.15 * ram_pages
        assert min(real_live[full:]) < (0.3 if mglru else 0.15) * ram_pages
