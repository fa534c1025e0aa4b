"""The trace formats that benchmarks/traces.py reads, and the exact policies of benchmarks/policies.py."""

import gzip
import importlib.util
import lzma
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
numpy = pytest.importorskip("numpy")


def load(name: str) -> ModuleType:
    """A script's module; its directory is not on the path of a test."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


traces: Any = load("traces")
policies: Any = load("policies")


def listed(part: Any) -> list[int] | None:
    return None if part is None else part.tolist()


TEXTS = {
    "penalties": ("t.trace", "s 0x1fffff50 1 1 100\nl 0x10 6 1 10\ns 0x1fffff50 2 1 10\n", [0, 1, 0], None,
                  [100, 10, 10]),
    "address": ("t.trace", "l 0xff 3\ns 0x10 6\nl 0xff 1\n", [0, 1, 0], None, None),
    "adaptsize": ("t.tr", "1 5 68\n2 6 7454\n3 5 68\n4 5 70\n", [0, 1, 0, 2], [68, 7454, 68, 70], None),
    "arc": ("P1.lis", "10 3 0 0\n11 2 0 1\n", [0, 1, 2, 1, 2], None, None),
    "txt": ("t.trc", "7\n*\n8\n\n7\n", [0, 1, 0], None, None),
    "csv": ("t.csv", "time,id,size\n1,70,100\n2,ab,200\n3,70,100\n", [0, 1, 0], [100, 200, 100], None),
    "twitter": ("t.sort", "0,key:a,5,100,1,get,0\n0,key:b,5,7,1,set,60\n1,key:b,5,7,1,gets,0\n2,key:a,5,100,1,get,0\n",
                [0, 1, 0], [105, 12, 105], None),
}  # fmt: skip


@pytest.mark.parametrize("kind", TEXTS)
def test_text_formats_are_recognised_by_their_lines(tmp_path: Path, kind: str) -> None:
    name, text, keys, sizes, costs = TEXTS[kind]
    path = tmp_path / name
    path.write_text(text)
    trace = traces.read(str(path))
    assert trace.format == kind
    assert (listed(trace.keys), listed(trace.sizes), listed(trace.costs)) == (keys, sizes, costs)


def test_csv_without_a_head_line_is_time_id_size(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("1,70,100\n2,71,200\n3,70,100\n")
    trace = traces.read(str(path))
    assert (listed(trace.keys), listed(trace.sizes)) == ([0, 1, 0], [100, 200, 100])


def test_csv_columns_are_found_by_name_and_size_may_be_absent(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("# obj_id, time\n9,1\n8,2\n9,3\n")
    trace = traces.read(str(path))
    assert (listed(trace.keys), listed(trace.sizes)) == ([0, 1, 0], None)


def oracle(requests: Sequence[tuple[int, int]]) -> bytes:
    return b"".join(struct.pack("<IQIq", 0, key, size, -1) for key, size in requests)


@pytest.mark.parametrize("opener, suffix", [(open, ""), (gzip.open, ".gz"), (lzma.open, ".xz")])
def test_oracle_general_is_recognised_by_its_name_also_compressed(tmp_path: Path, opener: Any, suffix: str) -> None:
    path = tmp_path / f"wiki.oracleGeneral.bin{suffix}"
    with opener(path, "wb") as file:
        file.write(oracle([(1 << 40, 100), (7, 200), (1 << 40, 100)]))
    trace = traces.read(str(path))
    assert (listed(trace.keys), listed(trace.sizes)) == ([0, 1, 0], [100, 200, 100])


@pytest.mark.parametrize("kind, code", [("cache2k", "<3I"), ("corda", ">3Q")])
def test_binary_keys_need_the_format_in_front(tmp_path: Path, kind: str, code: str) -> None:
    path = tmp_path / "t.trace"
    path.write_bytes(struct.pack(code, 240, 16777216, 240))
    assert listed(traces.read(f"{kind}:{path}").keys) == [0, 1, 0]
    with pytest.raises(traces.TraceError, match="cache2k:"):
        traces.read(str(path))


def test_a_file_cut_off_or_of_another_format_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    cut = tmp_path / "t.oracleGeneral"
    cut.write_bytes(oracle([(1, 2)])[:-1])
    with pytest.raises(traces.TraceError, match="oracleGeneral"):
        traces.read(str(cut))
    text = tmp_path / "t.trace"
    text.write_text("one two three\n")
    with pytest.raises(traces.TraceError, match="no known format"):
        traces.read(str(text))
    empty = tmp_path / "empty.txt"
    empty.write_text("*\n")
    with pytest.raises(traces.TraceError, match="no request"):
        traces.read(str(empty))


def test_first_cuts_all_parts(tmp_path: Path) -> None:
    path = tmp_path / "t.tr"
    path.write_text("1 5 68\n2 6 7454\n3 5 68\n")
    trace = traces.read(str(path)).first(2)
    assert (listed(trace.keys), listed(trace.sizes), trace.costs) == ([0, 1], [68, 7454], None)


def test_exact_lru_counts_bytes() -> None:
    keys, sizes = numpy.array([0, 1, 0, 2, 1, 0, 3, 0]), numpy.array([10, 10, 10, 10, 10, 10, 50, 10])
    # 20 bytes: 2 takes 1's place, 1 takes 0's, 0 takes 2's; 3 is too large and moves nothing
    assert policies.exact_lru(keys, sizes, 20).tolist() == [False, False, True, False, False, False, False, True]


def test_greedy_dual_keeps_what_is_dear_until_the_cheap_have_outlived_it() -> None:
    keys = numpy.array([0, 1, 2, 0, 3, 4, 0, 5, 6, 7, 0])
    # two entries: 0 costs as much as three of the others, so two may pass it, and the third takes its place
    hits = policies.greedy_dual(keys, numpy.where(keys == 0, 3, 1), 2)
    assert numpy.flatnonzero(hits).tolist() == [3, 6]


def test_greedy_dual_of_equal_costs_is_an_lru() -> None:
    keys = numpy.random.default_rng(1).integers(0, 30, 2000)
    lru = policies.exact_lru(keys, numpy.ones(len(keys), int), 10)
    assert (policies.greedy_dual(keys, numpy.ones(len(keys)), 10) == lru).all()
