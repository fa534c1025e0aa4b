"""droppable.testing: drops are real, exact in what they report, and choose the same pages for the same seed."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import droppable
from droppable import Cache, ClosedError, Dropped, Region, UnsupportedError
from droppable.lowlevel import Layout, Mapping, page_size_bytes
from droppable.testing import DropReport, advance_clock, drop, settle
from droppable.testing.contract import CacheContract
from droppable.testing.plugin import Dropper

PAGE = page_size_bytes()
BACKINGS = ("lazyfree", "droppable")
SMALL = Layout(shards=1, segment_bytes=32768, span_bytes=1 << 20)


def make(backing: str, **options: Any) -> Cache:
    try:
        return Cache(backing=backing, **options)  # type: ignore[arg-type]
    except UnsupportedError as error:
        pytest.skip(f"{backing}: {error}")


def make_mapping(backing: str, pages: int) -> Mapping:
    try:
        return Mapping(pages * PAGE, backing)  # type: ignore[arg-type]
    except UnsupportedError as error:
        pytest.skip(f"{backing}: {error}")


def written(backing: str, pages: int) -> Mapping:
    mapping = make_mapping(backing, pages)
    with memoryview(mapping) as view:
        view[:] = b"x" * len(view)
    settle(mapping)
    return mapping


def content(mapping: Mapping) -> list[bool]:
    """Page by page: is it still what written() wrote?"""
    with memoryview(mapping) as view:
        return [view[at] == ord("x") for at in range(0, len(view), PAGE)]


@pytest.mark.parametrize("backing", BACKINGS)
class TestMapping:
    def test_everything_goes(self, backing: str, droppable_drop: Dropper) -> None:
        mapping = written(backing, 64)
        assert droppable_drop(mapping, seed=7) == DropReport(64, 64, 64, 7)
        assert not any(content(mapping))

    def test_the_report_is_exact(self, backing: str, droppable_drop: Dropper) -> None:
        mapping = written(backing, 256)
        report = droppable_drop(mapping, fraction=0.5)
        assert report.resident_pages == 256
        assert 64 < report.chosen_pages < 192
        assert report.dropped_pages == report.chosen_pages == content(mapping).count(False)

    def test_a_seed_chooses_the_same_pages(self, backing: str, droppable_drop: Dropper) -> None:
        contents = []
        for _ in range(2):
            mapping = written(backing, 128)
            droppable_drop(mapping, fraction=0.3, seed=99)
            contents.append(content(mapping))
        assert contents[0] == contents[1]
        other = written(backing, 128)
        droppable_drop(other, fraction=0.3, seed=98)
        assert content(other) != contents[0]

    def test_nothing_chosen_nothing_dropped(self, backing: str, droppable_drop: Dropper) -> None:
        mapping = written(backing, 16)
        report = droppable_drop(mapping, fraction=0.0)
        assert (report.resident_pages, report.chosen_pages, report.dropped_pages) == (16, 0, 0)
        assert all(content(mapping))


def test_pages_that_are_pinned_stay(droppable_drop: Dropper) -> None:
    mapping = written("lazyfree", 32)
    mapping.pin(4 * PAGE, 8 * PAGE)
    droppable_drop(mapping)
    kept = content(mapping)
    assert all(kept[4:12])
    assert not any(kept[:4] + kept[12:])


def test_what_another_processor_wrote_goes_as_well(droppable_drop: Dropper) -> None:
    processors = os.sched_getaffinity(0)
    if len(processors) < 2:
        pytest.skip("one processor: there is no other one")
    writer, dropper = sorted(processors)[:2]
    for _ in range(10):
        cache = Cache()
        try:
            os.sched_setaffinity(0, {writer})
            cache["key"] = "value"
            os.sched_setaffinity(0, {dropper})
        finally:
            os.sched_setaffinity(0, processors)
        droppable_drop(cache)
        assert cache.get("key") is None


def make_region(on_drop: str, backing: str, pages: int) -> Region:
    try:
        return Region(pages * PAGE, on_drop, backing)  # type: ignore[arg-type]
    except UnsupportedError as error:
        pytest.skip(f"{on_drop}, {backing}: {error}")


KINDS = [(on_drop, backing) for on_drop in ("zero", "raise") for backing in BACKINGS] + [("signal", "lazyfree")]


@pytest.mark.parametrize(("on_drop", "backing"), KINDS)
class TestRegions:
    def written(self, on_drop: str, backing: str, pages: int) -> Region:
        region = make_region(on_drop, backing, pages + 4)  # the last ones are never written
        region.write(0, b"x" * pages * PAGE)
        return region

    def content(self, region: Region, pages: int) -> list[bool]:
        """Page by page: is it still what written() wrote?"""
        kept = []
        for at in range(0, pages * PAGE, PAGE):
            try:
                kept.append(region.read(at, at + PAGE) == b"x" * PAGE)
            except Dropped:
                kept.append(False)
        return kept

    def test_everything_goes(self, on_drop: str, backing: str, droppable_drop: Dropper) -> None:
        with self.written(on_drop, backing, 100) as region:
            assert droppable_drop(region, seed=7) == DropReport(100, 100, 100, 7)
            assert not any(self.content(region, 100))
            assert droppable_drop(region).resident_pages == 0

    def test_a_seed_chooses_the_same_pages(self, on_drop: str, backing: str, droppable_drop: Dropper) -> None:
        contents = []
        for seed in (99, 99, 98):
            with self.written(on_drop, backing, 128) as region:
                report = droppable_drop(region, fraction=0.3, seed=seed)
                contents.append(self.content(region, 128))
            assert (report.resident_pages, report.dropped_pages) == (128, report.chosen_pages)
            assert report.dropped_pages == contents[-1].count(False)
        assert contents[0] == contents[1] != contents[2]

    def test_open_blocks_stay(self, on_drop: str, backing: str, droppable_drop: Dropper) -> None:
        if backing == "droppable":
            pytest.skip("droppable memory cannot be pinned")
        processors = os.sched_getaffinity(0)
        with self.written(on_drop, backing, 32) as region:
            with region.pin(4 * PAGE, 12 * PAGE), region.writing(20 * PAGE, 21 * PAGE) as view:
                view[:] = b"x" * PAGE
                del view
                report = droppable_drop(region)
                assert (report.chosen_pages, report.dropped_pages) == (32, 32 - 8 - 1)
            kept = self.content(region, 32)
            assert [at for at in range(32) if kept[at]] == [*range(4, 12), 20]
            settle(region)
            assert droppable_drop(region).dropped_pages == 9
        assert os.sched_getaffinity(0) == processors


@pytest.mark.parametrize("backing", BACKINGS)
class TestCaches:
    def test_everything_goes(self, backing: str, droppable_drop: Dropper) -> None:
        cache = make(backing)
        for number in range(1000):
            cache[number] = bytes([1 + number % 255]) * 1000
        report = droppable_drop(cache)
        # a thousand times a thousand bytes, and the index; 32 KiB at least are the index's
        assert report.resident_pages >= 1000 * 1000 // PAGE
        assert report.dropped_pages == report.chosen_pages == report.resident_pages
        assert all(number not in cache for number in range(1000))
        again = droppable_drop(cache)
        assert again.resident_pages < report.resident_pages / 4

    def test_what_is_pinned_stays(self, backing: str, droppable_drop: Dropper) -> None:
        if backing == "droppable":
            pytest.skip("droppable memory cannot be pinned")
        cache = make(backing)
        cache["held"] = b"h" * 64 * PAGE
        cache["loose"] = b"l" * 64 * PAGE
        with cache.view("held") as memory:
            report = droppable_drop(cache)
            assert report.chosen_pages == report.resident_pages
            assert report.chosen_pages - report.dropped_pages == 64
            assert memory == b"h" * 64 * PAGE
        assert "loose" not in cache
        assert droppable_drop(cache).dropped_pages >= 64

    def test_a_seed_repeats(self, backing: str, droppable_drop: Dropper) -> None:
        alive = []
        for _ in range(2):
            cache = make(backing, layout=SMALL)
            for number in range(60):
                cache[number] = bytes([number + 1]) * 5000
            droppable_drop(cache, fraction=0.2, seed=5)
            alive.append(cache.stats().entries)
        assert alive[0] == alive[1]

    def test_a_memoised_function(self, backing: str, droppable_drop: Dropper) -> None:
        calls = []
        make(backing).close()

        @droppable.cache(ttl=100, backing=backing)
        def double(text: str) -> str:
            calls.append(text)
            return text * 2

        assert double("a") == double("a") == "aa"
        assert calls == ["a"]
        assert droppable_drop(double).dropped_pages >= 1
        assert double("a") == "aa"
        assert calls == ["a", "a"]
        assert double.cache_info().dropped + double.cache.stats().misses_dropped > 0
        advance_clock(double, 101)
        assert double("a") == "aa"
        assert len(calls) == 3
        settle(double)

    def test_the_clock(self, backing: str) -> None:
        cache = make(backing)
        cache.set("short", 1, ttl=10)
        cache.set("long", 2, ttl=1000)
        cache.set("ever", 3)
        advance_clock(cache, 11)
        assert [key in cache for key in ("short", "long", "ever")] == [False, True, True]
        advance_clock(cache, 1000)
        assert [key in cache for key in ("short", "long", "ever")] == [False, False, True]
        assert cache.get("long") is None
        assert cache.stats().expired == 2


def test_bad_input() -> None:
    cache = Cache()
    for fraction in (-0.1, 1.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="fraction must be a number from 0 to 1"):
            drop(cache, fraction)
    for wrong in ("all", None, [1]):
        with pytest.raises(TypeError, match="fraction must be a number from 0 to 1; you gave "):
            drop(cache, wrong)  # type: ignore[arg-type]
    for seed in (-1, 1 << 63):
        with pytest.raises(ValueError, match="seed must be"):
            drop(cache, seed=seed)
    for text in ("7", 7.0):
        with pytest.raises(TypeError, match="seed must be an int, or None; you gave "):
            drop(cache, seed=text)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="never drops"):
        drop(Mapping(PAGE, "plain"))
    for call in (drop, settle, lambda target: advance_clock(target, 1)):
        for target in ({}, None, Cache, len):
            with pytest.raises(TypeError, match="you gave"):
                call(target)  # type: ignore[arg-type]
    for seconds in (-1, 0, float("nan")):
        with pytest.raises(ValueError, match="seconds must be more than 0"):
            advance_clock(cache, seconds)
    cache.close()
    mapping, region = Mapping(PAGE), Region(PAGE)
    mapping.close()
    region.close()
    for closed in (cache, mapping, region):
        with pytest.raises(ClosedError):
            drop(closed)


def test_the_report_is_frozen_and_names_its_seed() -> None:
    mapping = written("lazyfree", 1)
    try:
        first, second = drop(mapping, 0.0), drop(mapping, 0.0)
    except UnsupportedError as error:
        pytest.skip(str(error))
    assert first.seed != second.seed
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.seed = 0  # type: ignore[misc]


def test_importing_loads_neither_pytest_nor_numpy() -> None:
    code = "import sys, droppable.testing; print({'pytest', 'numpy'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


PLUGIN_TEST = """
    import droppable

    def test_drops(droppable_drop):
        cache = droppable.Cache()
        cache["key"] = b"x" * 100_000
        droppable_drop(cache, 0.5)
        droppable_drop(cache)
        print("entries", len(cache))
        assert False
"""


def run_pytest(folder: Path) -> str:
    (folder / "test_user.py").write_text(textwrap.dedent(PLUGIN_TEST))
    (folder / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_user.py"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False).stdout


def test_the_plugin_reports_its_seeds_and_repeats(tmp_path: Path) -> None:
    outputs = [run_pytest(tmp_path), run_pytest(tmp_path)]
    if "1 skipped" in outputs[0]:
        pytest.skip("this kernel has no MADV_PAGEOUT")
    drops = [[line for line in output.splitlines() if line.startswith("drop(")] for output in outputs]
    assert len(drops[0]) == 2, outputs[0]
    assert drops[0] == drops[1]
    seeds = [line.split("seed=")[1].split(")")[0] for line in drops[0]]
    assert len(set(seeds)) == 2


@pytest.mark.parametrize("backing", BACKINGS)
@pytest.mark.parametrize("layout", [None, SMALL], ids=["chosen", "small"])
class TestContract(CacheContract):
    """The contract suite, by the library's own caches."""

    @pytest.fixture
    def cache(self, backing: str, layout: Layout | None) -> Cache:
        if layout:
            return make(backing, layout=Layout(1, 32768, 8 << 20))
        return make(backing)


class Holder:
    """As an adapter of a library is: no Cache, and it holds one."""

    def __init__(self) -> None:
        self.inner = Cache[Any, Any]()

    def __setitem__(self, key: Any, value: Any) -> None:
        self.inner[key] = value

    def __getitem__(self, key: Any) -> Any:
        return self.inner[key]

    def __delitem__(self, key: Any) -> None:
        del self.inner[key]

    def __contains__(self, key: Any) -> bool:
        return key in self.inner

    def get(self, key: Any, default: Any = None) -> Any:
        return self.inner.get(key, default)

    def clear(self) -> None:
        self.inner.clear()


class TestContractHolder(CacheContract):
    """What the page on adapters tells: drop() takes its arguments by position, whatever it calls them."""

    def make(self) -> Holder:
        return Holder()

    def drop(self, cache: Holder, share: float, number: int) -> None:  # type: ignore[override]
        drop(cache.inner, share, number)


def test_what_a_contract_lacks_is_told() -> None:
    class Nothing(CacheContract):
        pass

    with pytest.raises(NotImplementedError, match=r"^Nothing needs a method make\(self\)"):
        Nothing().make()
    with pytest.raises(TypeError, match="you gave an object of type Holder") as raised:
        Nothing().drop(Holder(), 1.0, 1)
    assert "Let Nothing have a method drop(self, cache, fraction, seed)" in raised.value.__notes__[0]


class TestContractShared(CacheContract):
    """A child that keeps what was cached before the fork."""

    def make(self) -> Cache:
        return Cache(fork="share")


class TestContractBounded(CacheContract):
    """With a bound, which leads to another layout."""

    def make(self) -> Cache:
        return Cache(max_bytes=8 << 20)


class TestContractSerializer(CacheContract):
    """With a serializer of one's own."""

    def make(self) -> Cache:
        import marshal

        class Marshal:
            def dumps(self, value: Any, /) -> bytes:
                return b"m" + marshal.dumps(value)

            def loads(self, data: bytes, /) -> Any:
                return marshal.loads(data[1:])

        return Cache(serializer=Marshal())
