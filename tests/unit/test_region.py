"""Region, from Python. Drops are real: MADV_PAGEOUT lets the kernel take pages when the test wants it."""

from __future__ import annotations

import copy
import ctypes
import errno
import faulthandler
import gc
import hashlib
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import droppable
from droppable import Dropped, Region
from droppable.lowlevel import page_size_bytes

PAGE = page_size_bytes()
Drop = Callable[..., None]
MODES: tuple[Any, ...] = ("zero", "raise", "signal")
# What no address space holds; where addresses have 32 bits, not even a length that the kernel could be asked for.
TOO_LONG = 1 << 62
TOO_LONG_ERROR = MemoryError if sys.maxsize > TOO_LONG else OverflowError
COMBINATIONS = (
    ("zero", "lazyfree"),
    ("zero", "droppable"),
    ("raise", "lazyfree"),
    ("raise", "droppable"),
    ("signal", "lazyfree"),
)


def make(on_drop: Any = "zero", backing: Any = "auto", pages: int = 16, **options: Any) -> Region:
    try:
        return Region(pages * PAGE, on_drop, backing, **options)
    except droppable.UnsupportedError as error:
        pytest.skip(str(error))


@pytest.fixture(params=COMBINATIONS, ids="-".join)
def any_region(request: pytest.FixtureRequest) -> Region:
    return make(*request.param)


@pytest.mark.parametrize(
    "length, error, words",
    [
        (0, ValueError, "positive"),
        (-PAGE, ValueError, "positive"),
        (PAGE + 1, ValueError, f"the next is {2 * PAGE}"),
        (TOO_LONG, TOO_LONG_ERROR, "address space"),
        (1 << 80, OverflowError, "address space"),
    ],
)
def test_lengths_that_cannot_be(length: int, error: type[Exception], words: str) -> None:
    for on_drop in MODES:
        with pytest.raises(error, match=words):
            Region(length, on_drop)


@pytest.mark.parametrize(
    "options, words",
    [
        ({"on_drop": "exception"}, "'zero', 'raise' or 'signal'"),
        ({"backing": "plain"}, "'lazyfree', 'droppable' or 'auto'"),
        ({"fork": "keep"}, "'wipe' or 'share'"),
    ],
)
def test_words_that_are_none(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Region(PAGE, **options)


@pytest.mark.parametrize("options", [{"on_drop": "signal"}, {"fork": "share"}])
def test_what_droppable_backing_cannot(options: dict[str, Any]) -> None:
    with pytest.raises(droppable.UnsupportedError, match=r"'droppable'.*: no kernel .* backing='lazyfree'"):
        Region(PAGE, backing="droppable", **options)


def test_auto_takes_what_fits() -> None:
    assert Region(PAGE, "raise").backing == "lazyfree"
    assert Region(PAGE, "zero", fork="share").backing == "lazyfree"
    assert Region(PAGE, "zero").backing == ("droppable" if droppable.lowlevel.probe("droppable")[0] else "lazyfree")
    region = Region(PAGE, name="tiles")
    assert (region.name, region.on_drop, region.fork, region.closed) == ("tiles", "zero", "wipe", False)
    assert "tiles" in repr(region)


def test_slices_are_those_of_a_bytearray(any_region: Region) -> None:
    model = bytearray(len(any_region))
    if any_region.on_drop == "signal":
        any_region.refill(0, bytes(len(any_region)))
    for start, data in ((0, b"abc"), (PAGE - 2, b"across"), (3 * PAGE, bytes(range(1, 251)) * 40)):
        any_region[start : start + len(data)] = data
        model[start : start + len(data)] = data
    any_region[-1] = model[-1] = 255
    for index in (
        slice(0, 10),
        slice(None),
        slice(PAGE - 5, PAGE + 5),
        slice(None, None, 777),
        slice(20, 2, -3),
        slice(9, 3),
    ):
        assert any_region[index] == bytes(model[index])
    assert any_region[1] == ord("b")
    assert any_region[-1] == 255
    with pytest.raises(IndexError):
        any_region[len(any_region)]
    with pytest.raises(ValueError, match="3 bytes, not 2"):
        any_region[0:3] = b"ab"
    with pytest.raises(ValueError, match="step"):
        any_region[0:4:2] = b"ab"
    with pytest.raises(ValueError):
        any_region[0] = 256
    with pytest.raises(TypeError):
        any_region[0:1] = 5


def test_ranges_outside_are_refused(any_region: Region) -> None:
    end = len(any_region)
    for start, stop in ((-1, 5), (0, end + 1), (5, 4), (end + 1, None)):
        for call in (any_region.read, any_region.settle):
            with pytest.raises(ValueError, match="do not lie"):
                call(start, stop)
        with pytest.raises(ValueError), any_region.reading(start, stop):
            pass
    with pytest.raises(ValueError, match="do not lie"):
        any_region.write(end - 1, b"ab")
    with pytest.raises(ValueError, match="do not lie"):
        any_region.write(sys.maxsize, b"ab")
    with pytest.raises(ValueError, match="whole pages"):
        any_region.purge(1, PAGE)
    for call in (any_region.settle, any_region.purge, any_region.page_out):
        call(PAGE, PAGE)
    assert any_region.read(end, end) == b""
    any_region.write(end, b"")


def test_what_went(drop: Drop, any_region: Region) -> None:
    data = os.urandom(4 * PAGE)
    any_region.write(PAGE, data)
    assert any_region.read(PAGE, 5 * PAGE) == data
    assert any_region.dropped_pages() == ()
    drop(any_region, 2 * PAGE, 3 * PAGE)
    drop(any_region, 4 * PAGE, 5 * PAGE)
    went = ((2 * PAGE, 3 * PAGE), (4 * PAGE, 5 * PAGE))
    assert any_region.dropped_pages() == went
    assert any_region.census().dropped_pages == 2
    buffer = bytearray(4 * PAGE)
    if any_region.on_drop == "zero":
        expected = data[:PAGE] + bytes(PAGE) + data[2 * PAGE : 3 * PAGE] + bytes(PAGE)
        any_region.read_into(buffer, PAGE)
        assert any_region[PAGE : 5 * PAGE] == buffer == expected
    else:
        for read in (lambda: any_region.read(PAGE, 5 * PAGE), lambda: any_region.read_into(buffer, PAGE)):
            with pytest.raises(Dropped) as caught:
                read()
            assert caught.value.offsets == went
            assert str(went[0]) in str(caught.value)
        with pytest.raises(Dropped) as caught:
            any_region.write(2 * PAGE + 100, b"part of a page that went")
        assert caught.value.offsets == went[:1]
    assert any_region.read(PAGE, 2 * PAGE) == data[:PAGE]
    any_region.write(2 * PAGE, data[: 3 * PAGE])  # whole pages come alive
    assert any_region.read(2 * PAGE, 5 * PAGE) == data[: 3 * PAGE]
    assert any_region.dropped_pages() == ()


def test_a_dropped_that_somebody_makes_has_no_offsets() -> None:
    assert Dropped("by hand").offsets == ()


def test_purged_content_is_no_loss(drop: Drop, any_region: Region) -> None:
    any_region.write(0, b"x" * 2 * PAGE)
    drop(any_region)
    any_region.purge(0, PAGE)
    assert any_region.dropped_pages() == ((PAGE, 2 * PAGE),)
    if any_region.on_drop == "raise":
        assert any_region.read(0, PAGE) == bytes(PAGE)


@pytest.mark.parametrize("code", ["numpy", "hashlib"])
def test_native_code_in_a_reading_block_never_gives_a_wrong_result(drop: Drop, code: str) -> None:
    region = make("raise", "lazyfree")
    data = os.urandom(8 * PAGE)
    region.write(0, data)
    region.settle()

    def compute(view: memoryview) -> object:
        if code == "hashlib":
            return hashlib.sha256(view).digest()
        numpy = pytest.importorskip("numpy")
        return int(numpy.frombuffer(view, numpy.uint8).sum())

    with region.reading(0, 8 * PAGE) as view:
        result = compute(view)
    assert result == compute(memoryview(data))
    results = []

    def lose_and_compute() -> None:
        with region.reading(0, 8 * PAGE) as view:
            drop(region, 3 * PAGE, 4 * PAGE)
            results.append(compute(view))

    with pytest.raises(Dropped) as caught:
        lose_and_compute()
    assert results != [compute(memoryview(data))]  # it was computed on zeros, and thrown away
    assert caught.value.offsets == ((3 * PAGE, 4 * PAGE),)
    with region.reading(4 * PAGE, 8 * PAGE) as view:
        assert bytes(view) == data[4 * PAGE :]


@pytest.mark.parametrize("backing", ["lazyfree", "droppable"])
@pytest.mark.parametrize("how", ["write", "slice", "thread", "purge", "two writes"])
def test_a_repair_does_not_hide_the_loss_from_who_reads(drop: Drop, backing: str, how: str) -> None:
    region = make("raise", backing)
    data = bytes(range(1, 256)) * (16 * PAGE // 255 + 1)
    data = data[: 16 * PAGE]
    region.write(0, data)
    region.settle()

    def repair() -> None:
        if how == "slice":
            region[3 * PAGE : 4 * PAGE] = data[3 * PAGE : 4 * PAGE]
        elif how == "purge":
            region.purge(3 * PAGE, 4 * PAGE)
        else:
            region.write(3 * PAGE, data[3 * PAGE : 4 * PAGE])
        if how == "two writes":
            region.write(0, data)

    def read(start: int, stop: int) -> bytes:
        with region.reading(start * PAGE, stop * PAGE) as view, region.reading((start + 1) * PAGE, stop * PAGE):
            drop(region, 3 * PAGE, 4 * PAGE)
            seen = bytes(view)
            if how == "thread":
                thread = threading.Thread(target=repair)
                thread.start()
                thread.join()
            else:
                repair()
        return seen

    for start, stop in ((0, 16), (2, 4), (1, 5)):
        with pytest.raises(Dropped) as caught:
            read(start, stop)
        assert caught.value.offsets == ((3 * PAGE, 4 * PAGE),)
        region.write(0, data)
        region.settle()
    assert read(4, 16) == data[4 * PAGE :]
    assert read(0, 3) == data[: 3 * PAGE]


def test_a_reading_that_never_ends_is_no_burden(drop: Drop) -> None:
    """Blocks that are left behind: each hold ends with its object."""
    region = make("raise")
    region.write(0, b"x" * len(region))
    holds = [region.hold("read", 0, PAGE) for _ in range(100)]
    with pytest.raises(BufferError):
        region.close()
    with pytest.raises(BufferError):
        region.resize(32 * PAGE)
    del holds[::2]
    drop(region, 0, PAGE)
    region.write(0, b"x" * PAGE)
    for hold in holds:
        with pytest.raises(Dropped):
            hold.finish()
    region.resize(32 * PAGE)
    region.close()


def test_the_loss_comes_before_what_it_caused(drop: Drop) -> None:
    region = make("raise", "lazyfree")
    region.write(0, b"5")

    def lose_and_fail() -> None:
        with region.reading(0, 1) as view:
            drop(region, 0, PAGE)
            int(bytes(view))

    with pytest.raises(Dropped) as caught:
        lose_and_fail()
    assert isinstance(caught.value.__context__, ValueError)


@pytest.mark.parametrize("on_drop", MODES)
def test_pinned_bytes_stay(drop: Drop, on_drop: str) -> None:
    region = make(on_drop, "lazyfree")
    data = os.urandom(2 * PAGE)
    region.write(0, data)
    region.settle()
    with region.pin(0, PAGE) as view:
        assert view.readonly
        for _ in range(3):
            region.page_out()
        assert view == data[:PAGE]
        with pytest.raises(BufferError, match="pin"):
            region.purge()
    drop(region)
    if on_drop == "zero":
        with region.pin(0, PAGE) as view:
            assert bytes(view) == bytes(PAGE)
    else:
        with pytest.raises(Dropped) as caught, region.pin(0, 2 * PAGE):
            pass
        assert caught.value.offsets == ((0, 2 * PAGE),)


def test_droppable_backing_cannot_pin() -> None:
    region = make("zero", "droppable")
    with pytest.raises(droppable.UnsupportedError, match="pin"), region.pin():
        pass
    region = make("raise", "droppable")
    with pytest.raises(droppable.UnsupportedError, match="writing"), region.writing():
        pass


@pytest.mark.parametrize("on_drop, backing", [c for c in COMBINATIONS if c != ("raise", "droppable")])
def test_a_writing_block_settles(drop: Drop, on_drop: str, backing: str) -> None:
    region = make(on_drop, backing)
    with region.writing(PAGE, 3 * PAGE) as view:
        assert len(view) == 2 * PAGE
        view[:] = b"w" * len(view)
    assert region.read(PAGE, 3 * PAGE) == b"w" * 2 * PAGE
    drop(region, PAGE, 3 * PAGE)
    assert region.dropped_pages(PAGE, 3 * PAGE) == ((PAGE, 3 * PAGE),)
    if on_drop != "zero":
        with pytest.raises(Dropped), region.writing(0, 2 * PAGE):
            pass
        region.purge(PAGE, 3 * PAGE)
    with region.writing(PAGE, 2 * PAGE) as view:
        view[5] = 1
    assert region.read(PAGE, 2 * PAGE) == bytes(5) + b"\1" + bytes(PAGE - 6)


@pytest.mark.parametrize("kind", ["reading", "writing", "pin"])
def test_an_array_that_outlives_its_block_is_told(kind: str) -> None:
    numpy = pytest.importorskip("numpy")
    region = make("raise", "lazyfree")
    region.write(0, b"a")
    with pytest.raises(BufferError, match="del array"), getattr(region, kind)(0, PAGE) as view:
        array = numpy.frombuffer(view, numpy.uint8)
    with pytest.raises(BufferError, match="close"):
        region.close()
    del array, view
    region.close()


def test_a_block_is_entered_once() -> None:
    region = make("raise", "lazyfree")
    block = region.reading(0, PAGE)
    with block, pytest.raises(RuntimeError, match="entered already"), block:
        pass
    with pytest.raises(RuntimeError, match="not entered"):
        block.__exit__(None, None, None)
    with block:
        pass


@pytest.mark.parametrize("on_drop", ["zero", "signal"])
def test_bare_views(drop: Drop, on_drop: str) -> None:
    numpy = pytest.importorskip("numpy")
    region = make(on_drop, "lazyfree")
    if on_drop == "signal":
        region.refill(0, bytes(len(region)))
    array = numpy.frombuffer(region, numpy.int64)
    array[:] = numpy.arange(len(array))
    assert region.read(8, 16) == (1).to_bytes(8, sys.byteorder)
    number = ctypes.c_int64.from_buffer(region, 16)
    assert number.value == 2
    number.value = 77
    assert array[2] == 77
    for call in (region.close, lambda: region.resize(PAGE)):
        with pytest.raises(BufferError, match="alive"):
            call()
    region.settle()
    drop(region)
    assert region.census().dropped_pages == 16
    del array, number
    gc.collect()
    region.close()


def test_bare_views_are_refused_where_they_would_lie() -> None:
    with pytest.raises(BufferError, match=r"reading\(\)"):
        memoryview(make("raise", "lazyfree"))


def test_closed(any_region: Region) -> None:
    any_region.close()
    any_region.close()
    assert any_region.closed
    assert "closed" in repr(any_region)
    calls: list[Callable[[], object]] = [
        lambda: len(any_region),
        lambda: any_region[0],
        lambda: any_region.read(0, 1),
        lambda: any_region.write(0, b"a"),
        lambda: any_region.resize(PAGE),
        any_region.census,
        any_region.page_states,
        any_region.settle,
        lambda: any_region.reading(0, 1).__enter__(),
        any_region.__enter__,
    ]
    for call in calls:
        with pytest.raises(droppable.ClosedError):
            call()
    with make() as region:
        region.write(0, b"a")
    assert region.closed


def test_resize(drop: Drop, any_region: Region) -> None:
    data = os.urandom(3 * PAGE)
    any_region.write(PAGE, data)
    drop(any_region, 2 * PAGE, 3 * PAGE)
    any_region.resize(64 * PAGE)
    assert len(any_region) == 64 * PAGE
    assert any_region.read(PAGE, 2 * PAGE) == data[:PAGE]
    assert any_region.read(3 * PAGE, 4 * PAGE) == data[2 * PAGE :]
    assert any_region.dropped_pages() == ((2 * PAGE, 3 * PAGE),)
    any_region.write(63 * PAGE, b"z" * PAGE)
    any_region.resize(2 * PAGE)
    assert any_region.read(PAGE, 2 * PAGE) == data[:PAGE]
    for length in (0, -PAGE, PAGE + 1):
        with pytest.raises(ValueError, match="multiple"):
            any_region.resize(length)
    with pytest.raises(TOO_LONG_ERROR):
        any_region.resize(TOO_LONG)
    assert any_region.read(PAGE, 2 * PAGE) == data[:PAGE]


def test_refill_fills_what_is_absent() -> None:
    region = make("signal")
    region.write(PAGE, b"k" * PAGE)
    assert region.refill(0, b"r" * 3 * PAGE) == 2 * PAGE
    assert region.read(0, 3 * PAGE) == b"r" * PAGE + b"k" * PAGE + b"r" * PAGE
    with pytest.raises(ValueError, match="whole pages"):
        region.refill(1, bytes(PAGE))
    with pytest.raises(ValueError, match="write"):
        make("zero").refill(0, bytes(PAGE))


def test_system_calls_on_dropped_pages_give_efault(drop: Drop) -> None:
    region = make("signal")
    region.write(0, b"s" * PAGE)
    drop(region, 0, PAGE)
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError, match="Bad address"):
            os.write(writing, memoryview(region)[:10])
        region.refill(0, b"t" * PAGE)
        assert os.write(writing, memoryview(region)[:10]) == 10
        assert os.read(reading, 10) == b"t" * 10
    finally:
        os.close(reading)
        os.close(writing)


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments, "-c", code], capture_output=True, text=True, timeout=120)


RAW_TOUCH = f"""
import resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from droppable import Region
region = Region({4 * PAGE}, "signal", name="my tiles")
region.write({PAGE}, b"x" * {PAGE})
view = memoryview(region)
for _ in range(100):
    region.page_out()
print(view[{PAGE + 7}])
"""


@pytest.mark.parametrize("arguments", [(), ("-X", "faulthandler")])
def test_a_raw_touch_ends_with_the_regions_name(arguments: tuple[str, ...]) -> None:
    make("signal").close()
    done = run(RAW_TOUCH, *arguments)
    assert done.returncode == -signal.SIGBUS
    assert f"byte {PAGE + 7} of region 'my tiles'" in done.stderr
    assert ("Fatal Python error: Bus error" in done.stderr) == bool(arguments)


FOREIGN = f"""
import faulthandler, mmap, resource, sys, tempfile
from droppable import Dropped, Region
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
if sys.argv[1] == "before":
    faulthandler.enable()
region = Region({4 * PAGE}, "signal")
if sys.argv[1] != "before":
    faulthandler.enable()
if sys.argv[1] == "after, disabled":
    region[0:0]
def dropped():
    try:
        region[0]
    except Dropped:
        return True
assert dropped()
if sys.argv[1] == "after, disabled":
    faulthandler.disable()
    assert dropped()
if sys.argv[1] == "closed":
    region.close()
with tempfile.TemporaryFile() as file:
    file.truncate({2 * PAGE})
    memory = mmap.mmap(file.fileno(), {2 * PAGE})
    file.truncate({PAGE})
    print("touching", flush=True)
    memory[{PAGE}]
"""


@pytest.mark.parametrize("order", ["before", "after", "after, disabled", "closed"])
def test_a_truncated_file_is_still_faulthandlers(order: str) -> None:
    make("signal").close()
    done = subprocess.run([sys.executable, "-c", FOREIGN, order], capture_output=True, text=True, timeout=120)
    assert done.stdout == "touching\n"
    assert done.returncode == -signal.SIGBUS
    assert "region" not in done.stderr.lower().replace("region[", "").replace("dropped()", "")
    assert ("Fatal Python error: Bus error" in done.stderr) == (order != "after, disabled")


def test_drops_in_threads_are_each_threads_own() -> None:
    region = make("signal", pages=64)
    data = os.urandom(PAGE)
    wrong: list[object] = []

    def work(page: int) -> None:
        for _ in range(200):
            try:
                if region.read(page * PAGE, (page + 1) * PAGE) != data:
                    wrong.append(page)
            except Dropped as error:
                if error.offsets != ((page * PAGE, (page + 1) * PAGE),):
                    wrong.append(error.offsets)
                region.write(page * PAGE, data)
            region.page_out(page * PAGE, (page + 1) * PAGE)

    threads = [threading.Thread(target=work, args=(page,)) for page in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def in_child(check: Callable[[], bool]) -> None:
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if check() else 1)
        except BaseException:
            faulthandler.dump_traceback()
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0


def test_a_child_has_the_mapping_and_not_the_content(any_region: Region) -> None:
    data = os.urandom(PAGE)
    any_region.write(0, data)

    def check() -> bool:
        try:
            wiped = any_region.read(0, PAGE) == bytes(PAGE) and any_region.on_drop == "zero"
        except Dropped as error:
            wiped = error.offsets == ((0, PAGE),) and any_region.on_drop != "zero"
        any_region.write(0, data)
        return wiped and any_region.read(0, PAGE) == data

    in_child(check)
    assert any_region.read(0, PAGE) == data


@pytest.mark.parametrize("on_drop", MODES)
def test_a_shared_region_is_read_by_children(on_drop: str) -> None:
    region = make(on_drop, fork="share")
    region.write(0, b"parent")

    def check() -> bool:
        shared = region.read(0, 6) == b"parent"
        region.write(0, b"child!")
        return shared and region.read(0, 6) == b"child!"

    in_child(check)
    assert region.read(0, 6) == b"parent"


def test_fork_inside_of_a_writing_block() -> None:
    region = make("raise", "lazyfree")
    with region.writing(0, PAGE) as view:
        view[:] = b"p" * PAGE

        def check() -> bool:
            view[7] = 1  # in wiped memory: the page is not what it was
            try:
                region.read(0, PAGE)
            except Dropped:
                return True
            return False

        in_child(check)
    assert region.read(0, PAGE) == b"p" * PAGE


@pytest.mark.parametrize("kind", ["reading", "pin"])
@pytest.mark.parametrize("fork", ["wipe", "share"])
def test_a_child_that_ends_a_block_hears_that_it_saw_zeros(kind: str, fork: str) -> None:
    region = make("raise", "lazyfree", fork=fork)
    region.write(0, b"p" * 2 * PAGE)
    block = getattr(region, kind)(0, 2 * PAGE)
    view = block.__enter__()

    def check() -> bool:
        seen = bytes(view)
        try:
            block.__exit__(None, None, None)
        except Dropped as error:
            return fork == "wipe" and seen == bytes(2 * PAGE) and error.offsets == ((0, 2 * PAGE),)
        return fork == "share" and seen == b"p" * 2 * PAGE

    in_child(check)
    assert bytes(view) == b"p" * 2 * PAGE
    block.__exit__(None, None, None)


def test_nothing_leaks() -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    for on_drop in MODES:
        for _ in range(20):
            other = make(on_drop)
            if on_drop != "raise":
                memoryview(other).release()
            other.write(0, b"a" * PAGE)
    del other
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_a_hold_that_nobody_finished_ends_with_its_object(drop: Drop) -> None:
    region = make("raise", "lazyfree")
    region.write(0, b"a" * PAGE)
    hold = region.hold("pin", 0, PAGE)
    with pytest.raises(BufferError):
        region.close()
    del hold
    drop(region, 0, PAGE)
    region.close()


def test_regions_are_not_copied() -> None:
    region = make()
    for call in (copy.copy, pickle.dumps):
        with pytest.raises(TypeError):
            call(region)


def test_views_of_a_region_written_into_itself() -> None:
    region = make("zero")
    region.write(0, bytes(range(256)) * (PAGE // 256))
    region.write(100, memoryview(region)[:PAGE])
    assert region.read(100, 100 + PAGE) == bytes(range(256)) * (PAGE // 256)


def test_census_adds_up(drop: Drop, any_region: Region) -> None:
    any_region.write(3 * PAGE, b"c" * 5 * PAGE)
    drop(any_region, 4 * PAGE, 6 * PAGE)
    census = any_region.census()
    assert census.pages == 16 == census.resident_pages + census.zero_pages + census.absent_pages
    assert census.dropped_pages == 2
    if census.exact:
        assert census.resident_pages == 3
    else:  # looking for the drops reads pages, and those that are gone read as zeros: resident, to this kernel
        assert 3 <= census.resident_pages <= 5
    states = any_region.page_states()
    assert [at for at, state in enumerate(states) if state == 1] == [3, 6, 7]
    assert any_region.page_states(4 * PAGE, 7 * PAGE) == states[4:7]
    with pytest.raises(AttributeError):
        census.pages = 3  # type: ignore[misc]


class Number:
    """A whole number that is no int, as NumPy's are."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


def test_whole_numbers_of_any_class_are_taken(any_region: Region) -> None:
    region = any_region
    region.write(Number(0), bytes(PAGE))  # type: ignore[arg-type]
    region[Number(2)] = Number(7)
    assert region[Number(2)] == region[2] == 7
    assert region[Number(2) : Number(3)] == region.read(Number(2), Number(3)) == b"\x07"  # type: ignore[arg-type]
    region.resize(Number(32 * PAGE))  # type: ignore[arg-type]
    assert len(region) == 32 * PAGE
    assert len(Region(Number(PAGE))) == PAGE  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [1.0, "1", None, (1, 2)])
def test_what_is_no_number_is_told_by_name(any_region: Region, wrong: Any) -> None:
    region = any_region
    shown = re.escape(repr(wrong))
    with pytest.raises(TypeError, match=rf"indexed by an int or a slice; you gave {shown}"):
        region[wrong]
    with pytest.raises(TypeError, match=rf"an int from 0 to 255; you gave {shown}"):
        region[0] = wrong
    with pytest.raises(TypeError, match=rf"Region.read: start must be a whole number of bytes; you gave {shown}"):
        region.read(wrong, PAGE)
    with pytest.raises(TypeError, match=rf"Region.write: start must be .*; you gave {shown}"):
        region.write(wrong, b"x")
    with pytest.raises(TypeError, match=rf"Region.resize: length must be .*; you gave {shown}"):
        region.resize(wrong)
    with pytest.raises(TypeError, match=rf"length must be a number of bytes, .*; you gave {shown}"):
        Region(wrong)
    with (
        pytest.raises(TypeError, match=rf"Region.reading: start must be .*; you gave {shown}"),
        region.reading(wrong, 5),
    ):
        pass


@pytest.mark.parametrize("number", [-1, 256, 1 << 70])
def test_a_byte_is_from_0_to_255(any_region: Region, number: int) -> None:
    with pytest.raises(ValueError, match=f"from 0 to 255; you gave {number}"):
        any_region[0] = number


@pytest.mark.parametrize(
    "large", [sys.maxsize, sys.maxsize + 1, 1 << 80, 10**5000], ids=["largest", "more", "much", "most"]
)
def test_numbers_that_no_region_holds_are_outside(any_region: Region, large: int) -> None:
    """They wrap nowhere, whatever is added to them, and the message is of the bytes."""
    region = any_region
    calls: tuple[Callable[[], object], ...] = (
        lambda: region.read(0, large),
        lambda: region.read(large, large),
        lambda: region.read(-large, PAGE),
        lambda: region.write(large, b"xy"),
        lambda: region.write(large, b""),
        lambda: region.write(-large, b"xy"),
        lambda: region.read_into(bytearray(2), large),
        lambda: region.settle(0, large),
        lambda: region.purge(0, large),
        lambda: region.page_out(large, large),
        lambda: region.census(0, large),
        lambda: region.page_states(0, large),
        region.reading(0, large).__enter__,
        region.writing(large, large).__enter__,
        region.pin(0, large).__enter__,
    )
    for call in calls:
        with pytest.raises(ValueError, match="do not lie in a region of") as raised:
            call()
        assert "bytes -1 to" not in str(raised.value)
    with pytest.raises(ValueError, match="multiple"):
        region.resize(large)
    with pytest.raises(OverflowError, match="address space"):
        Region(large)


def test_arrays_without_elements_are_no_bytes(any_region: Region) -> None:
    numpy = pytest.importorskip("numpy", reason="NumPy is not installed")
    any_region[0:0] = numpy.zeros((0, 3))
    any_region.write(0, numpy.zeros(0))


CLOSER = """
import os
from droppable import Dropped, Region, UnsupportedError
page = os.sysconf("SC_PAGE_SIZE")
listens = Region(16 * page, on_drop="signal")
listens.write(0, b"x" * 16 * page)
tracked = Region(16 * page, on_drop="zero", backing="lazyfree")
memoryview(tracked).release()
before = max(map(int, os.listdir("/proc/self/fd")))
os.closerange(3, before + 1)
files = [os.open("/dev/null", os.O_RDONLY) for _ in range(3, before + 1)]
if ends_it:
    listens.close()
    tracked.close()
else:
    while 1 in listens.page_states():
        listens.settle()
        listens.page_out()
    calls = {
        "read": listens.read, "write": lambda: listens.write(0, b"x"), "refill": lambda: listens.refill(0, b"x" * page),
        "census": listens.census, "resize": lambda: listens.resize(32 * page), "reading": listens.reading().__enter__,
        "writing": listens.writing().__enter__, "pin": listens.pin().__enter__,
    }
    for name, call in calls.items():
        try:
            print(name, call())
        except UnsupportedError as error:
            assert "its descriptor is closed" in str(error), error
    tracked.write(0, b"y" * page)
    tracked.settle()
    while 1 in tracked.page_states():
        tracked.page_out()
    assert tracked.read(0, page) == bytes(page)
for file in files:
    os.close(file)
print("done")
"""


@pytest.mark.parametrize("ends_it", [True, False])
def test_a_program_that_closes_all_descriptors_keeps_its_own_and_is_told(ends_it: bool) -> None:
    """As one that becomes a daemon does. Dropped pages are never taken for zeros, nor the program's files for ours."""
    make("signal")
    done = run(f"ends_it = {ends_it}\n{CLOSER}")
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_without_descriptors_the_error_says_for_what() -> None:
    make("signal")
    code = """
import os, resource
from droppable import Region
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
try:
    while True:
        os.dup(0)
except OSError:
    pass
try:
    Region(1 << 20, on_drop="signal")
except OSError as error:
    print(error.errno, error)
"""
    done = run(code)
    assert done.stderr == ""
    assert done.stdout.startswith(f"{errno.EMFILE} [Errno {errno.EMFILE}] Region(on_drop='signal', ")
    assert done.stdout.endswith(f": {os.strerror(errno.EMFILE)}\n")


class Heir(Region):  # type: ignore[misc]  # for a type checker nobody may
    """A region that has attributes."""


def test_a_region_that_holds_its_own_block_can_be_collected() -> None:
    mappings = Path("/proc/self/maps")
    heirs = weakref.WeakSet[Heir]()
    gc.collect()
    for on_drop in ("zero", "raise"):
        region = Heir(16 * PAGE, on_drop, "lazyfree")
        region.block = region.reading()  # type: ignore[attr-defined]
        region.view = region.block.__enter__()  # type: ignore[attr-defined]
        address = f"{region.address:x}"
        heirs.add(region)
        del region
        gc.collect()
        assert not heirs
        assert not any(line.startswith(f"{address}-") for line in mappings.read_text().splitlines())


def test_a_child_that_is_forked_during_a_resize_has_the_region() -> None:
    """No thread of the child goes on with it, so it is as it was before, or after."""
    small, large = 4096 * PAGE, 8192 * PAGE
    region = Region(small, "raise", "lazyfree", fork="share")
    region.write(0, b"x" * (64 * PAGE))
    turns = threading.Event()

    def resize() -> None:
        while not turns.is_set():
            region.resize(large)
            region.resize(small)

    def check() -> bool:
        length = len(region)
        assert length in (small, large)
        assert region.read(0, 64 * PAGE) == b"x" * (64 * PAGE)
        region.resize(small + large)
        assert len(region) == small + large
        region.close()
        return region.closed

    thread = threading.Thread(target=resize)
    thread.start()
    try:
        for _ in range(30):
            in_child(check)
    finally:
        turns.set()
        thread.join()
