"""What Dask is told of a worker's memory: never an old figure that is too high, and no figure for long that is too low.

A fake of the process stands for /proc: its cache and its other memory grow and shrink as a test says, and looks take
their time on a clock of the test.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from droppable.adapters._dask_memory import Look, OrdinaryMemory, ProcessFigures

MB = 1 << 20
MARK = 300 * MB
TICK = 0.1
"""Seconds between two questions of Dask."""
LOOK_SECONDS_A_BYTE = 0.015 / (1 << 30)


class FakeProcess:
    """Memory of two kinds, and a clock that goes on as looks are taken and as ticks pass."""

    def __init__(self, ordinary_bytes: int, cache_bytes: int) -> None:
        self.ordinary_bytes = ordinary_bytes
        self.cache_bytes = cache_bytes
        self.now = 1000.0
        self.looks = 0
        self.spent_seconds = 0.0
        self.memory = OrdinaryMemory(self, MARK, lambda: self.now)

    def resident_bytes(self) -> int:
        return self.ordinary_bytes + self.cache_bytes

    def look(self) -> Look:
        spent_seconds = self.resident_bytes() * LOOK_SECONDS_A_BYTE
        self.looks += 1
        self.spent_seconds += spent_seconds
        self.now += spent_seconds
        return Look(self.ordinary_bytes, spent_seconds)

    def tick(self) -> int:
        """One question of Dask's."""
        self.now += TICK
        return self.memory.read_bytes()


def test_below_the_mark_nobody_looks() -> None:
    process = FakeProcess(100 * MB, 199 * MB)
    assert process.tick() == 299 * MB
    assert process.looks == 0


def test_a_cache_that_grows_is_never_taken_for_ordinary_memory() -> None:
    process = FakeProcess(130 * MB, 170 * MB)
    for _ in range(200):
        process.cache_bytes += 50 * MB
        assert process.tick() == 130 * MB
    assert process.looks > 1


@pytest.mark.parametrize("resident_gigabytes", [1, 10, 64])
def test_ordinary_memory_that_grows_is_seen_after_a_pause(resident_gigabytes: int) -> None:
    process = FakeProcess(100 * MB, resident_gigabytes << 30)
    process.tick()
    began = process.now
    process.ordinary_bytes = 2 * MARK
    while process.tick() < MARK:
        pass
    look_seconds = process.resident_bytes() * LOOK_SECONDS_A_BYTE
    assert process.now - began <= 20 * look_seconds + look_seconds + TICK
    assert process.tick() == 2 * MARK


def test_ordinary_memory_in_the_place_of_a_cache_is_seen_though_resident_memory_stays() -> None:
    process = FakeProcess(100 * MB, 2000 * MB)
    assert process.tick() == 100 * MB
    began = process.now
    process.ordinary_bytes, process.cache_bytes = 1100 * MB, 1000 * MB
    while process.tick() < MARK:
        pass
    look_seconds = process.resident_bytes() * LOOK_SECONDS_A_BYTE
    assert process.now - began <= 100 * look_seconds + look_seconds + TICK


def test_a_cache_that_is_taken_back_hides_ordinary_memory_for_a_pause_only() -> None:
    process = FakeProcess(400 * MB, 2000 * MB)
    assert process.tick() == 400 * MB
    began = process.now
    process.cache_bytes = 0
    assert process.tick() == 0, "it could have been ordinary memory that went"
    while process.tick() != 400 * MB:
        pass
    assert process.now - began <= 20 * 2400 * MB * LOOK_SECONDS_A_BYTE + 3 * TICK


def test_what_is_freed_is_seen_at_once_and_stays_seen_while_the_cache_grows() -> None:
    """As while a worker writes results to disk: it asks after each of them whether that is enough."""
    process = FakeProcess(400 * MB, 10_000 * MB)
    assert process.tick() == 400 * MB
    for left in (350, 300, 250):
        process.ordinary_bytes = left * MB
        assert process.memory.read_bytes() == left * MB
    process.cache_bytes += 100 * MB
    assert process.memory.read_bytes() == 250 * MB
    assert process.looks == 1


@pytest.mark.parametrize("ordinary_megabytes", [299, 301])
def test_close_to_the_mark_for_long_looks_cost_a_hundredth_at_rest_and_a_twentieth_else(
    ordinary_megabytes: int,
) -> None:
    process = FakeProcess(ordinary_megabytes * MB, 4000 * MB)
    for change, share in ((0, 1 / 100), (100 * MB, 1 / 20)):
        began, process.spent_seconds = process.now, 0.0
        for number in range(3000):
            process.cache_bytes += change if number % 2 else -change
            process.tick()
        one_look = 4400 * MB * LOOK_SECONDS_A_BYTE
        assert 0 < process.spent_seconds <= share * (process.now - began) + one_look


@pytest.mark.parametrize("seed", range(20))
def test_no_answer_is_above_what_the_last_look_said(seed: int) -> None:
    chance = random.Random(seed)
    process = FakeProcess(200 * MB, 500 * MB)
    seen_bytes = 0
    for _ in range(500):
        process.ordinary_bytes = max(0, process.ordinary_bytes + chance.randrange(-60, 61) * MB)
        process.cache_bytes = max(0, process.cache_bytes + chance.randrange(-300, 301) * MB)
        looks = process.looks
        answer = process.tick()
        if process.resident_bytes() < MARK:
            assert answer == process.resident_bytes()
        elif process.looks > looks:
            assert answer == process.ordinary_bytes
            seen_bytes = answer
        else:
            assert 0 <= answer <= seen_bytes


def test_the_figures_of_a_process_that_fills_a_cache() -> None:
    code = (
        "import droppable; cache = droppable.Cache()\n"
        "for number in range(100): cache[number] = bytes(1 << 20)\n"
        "print('full', flush=True); input()\n"
        "hoard = bytearray(b'x') * (50 << 20); print('hoards', flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        figures = ProcessFigures(process.pid)
        assert process.stdout.readline() == b"full\n"
        assert figures.resident_bytes() > 100 * MB
        before = figures.look()
        assert before.ordinary_bytes < 60 * MB
        assert before.spent_seconds > 0
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"hoards\n"
        assert figures.look().ordinary_bytes >= before.ordinary_bytes + 48 * MB
        process.communicate(b"\n")
    for ask in (figures.resident_bytes, figures.look):
        with pytest.raises((FileNotFoundError, ProcessLookupError)):
            ask()


def test_a_look_that_fails_ends_nobody() -> None:
    process = FakeProcess(100 * MB, 400 * MB)
    assert process.tick() == 100 * MB
    process.now += 3600
    process.cache_bytes += 100 * MB

    def no_descriptors() -> Look:
        raise OSError(24, "Too many open files")

    look = process.look
    process.look = no_descriptors  # type: ignore[method-assign]
    assert process.tick() == 100 * MB
    process.look = look  # type: ignore[method-assign]
    assert process.tick() == 100 * MB
    assert process.looks == 2


def test_where_no_look_ever_worked_dask_sees_resident_memory() -> None:
    class Hidden(FakeProcess):
        def look(self) -> Look:
            raise PermissionError(13, "Permission denied")

    process = Hidden(100 * MB, 400 * MB)
    assert process.tick() == process.tick() == 500 * MB


def test_figures_of_a_kernel_without_sums(tmp_path: Path) -> None:
    """Before Linux 4.14 there is no smaps_rollup."""
    figures = ProcessFigures(1)
    figures._folder = tmp_path
    (tmp_path / "smaps").write_text(
        "00400000-00500000 r-xp 00000000 08:01 1 /bin/program\nRss:   1024 kB\nLazyFree:   0 kB\n"
        "7f0000000000-7f0000100000 rw-p 00000000 00:00 0\nRss:   2048 kB\nLazyFree:   512 kB\nVmFlags: rd wr\n"
    )
    assert figures.look().ordinary_bytes == (1024 + 2048 - 512) << 10
    (tmp_path / "smaps").unlink()
    with pytest.raises(FileNotFoundError):
        figures.look()
