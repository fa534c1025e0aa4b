"""The demo: its parts are deterministic, its figures right, and a small run makes the table and the picture."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

DEMO = Path(__file__).parents[2] / "demo"
ROWS = {
    "requests served",
    "hit ratio",
    "  in calm",
    "  in waves",
    "rendering saved",
    "OOM kills",
    "request, p50",
    "request, p99",
    "peak memory",
    "size set",
    "wrong documents",
}

if missing := [name for name in ("cachetools", "matplotlib", "pygments", "rich") if not importlib.util.find_spec(name)]:
    pytest.skip(f"the demo needs {', '.join(missing)} (pip install '.[demo]')", allow_module_level=True)


@pytest.fixture(autouse=True)
def _modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo is a folder of scripts: its modules are found beside demo.py."""
    monkeypatch.syspath_prepend(DEMO)


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_the_stream_depends_on_its_seed_alone() -> None:
    zipf = module("stream").zipf
    assert zipf(100, 2000, 1) == zipf(100, 2000, 1)
    assert zipf(100, 2000, 1) != zipf(100, 2000, 2)
    assert zipf(100, 2000, 1)[:500] == zipf(100, 500, 1)


def test_the_stream_is_skewed_and_within_the_corpus() -> None:
    requests = module("stream").zipf(1000, 10_000)
    assert set(requests) <= set(range(1000))
    often = sorted((requests.count(file) for file in set(requests)), reverse=True)
    assert sum(often[:10]) > len(requests) / 4  # rank ** -1.1: the first ten of a thousand get about half
    assert len(often) > 500


@pytest.mark.parametrize("requests", [1, 7, 11, 500, 3581])
def test_phases_cover_every_request_once_and_take_turns(requests: int) -> None:
    phases = module("waves").schedule(requests)
    assert phases[0].start == 0
    assert phases[-1].stop == requests
    assert [phase.stop for phase in phases[:-1]] == [phase.start for phase in phases[1:]]
    if requests >= 11:
        assert [phase.is_wave for phase in phases] == [False, True] * 5 + [False]
        assert max(phase.height for phase in phases) == 1.0


def test_the_hand_sized_cache_and_the_highest_wave_fit_under_the_limit() -> None:
    sizes = module("sizing").Sizes(baseline_bytes=30_000_000, shared_bytes=50_000_000)
    spare_bytes = sizes.limit_bytes - sizes.baseline_bytes - sizes.wave_bytes - sizes.hand_bytes
    assert spare_bytes == sizes.shared_bytes * module("sizing").MARGIN_OF_SHARED
    assert 0 < sizes.hand_bytes < sizes.wave_bytes < sizes.shared_bytes


def test_the_figures_of_a_run() -> None:
    run, waves = module("run"), module("waves")
    requests = [
        run.Request(0, False, 0.5, 0.4, 10, 0, True),
        run.Request(1, True, 0.1, 0.0, 10, 0, True),
        run.Request(2, True, 0.2, 0.0, 10, 0, True),
        run.Request(3, False, 0.9, 0.8, 20, 1, False),
    ]
    ran = run.Run("dict", requests)
    stream = [7, 7, 7, 8]
    prices = run.prices_seconds([ran], stream)
    assert prices == {7: 0.4, 8: 0.8}
    assert ran.saved_seconds(stream, prices) == pytest.approx(0.8)
    assert ran.spent_seconds(stream, prices) == pytest.approx([0.4, 0.4, 0.4, 1.2])
    assert ran.hit_ratio([waves.Phase(0, 2, 0.0)]) == 0.5
    assert ran.hit_ratio([waves.Phase(0, 9, 0.0)]) == 0.5
    assert ran.hit_ratio([waves.Phase(4, 9, 1.0)]) == 0.0
    assert ran.recent_hit_ratios() == [0.0, 0.5, pytest.approx(2 / 3), 0.5]
    assert (ran.percentile_seconds(50), ran.percentile_seconds(99)) == (0.2, 0.9)
    assert ran.wrong == 1


def test_the_corpus_has_its_order_from_the_names(tmp_path: Path) -> None:
    corpus = module("corpus")
    for name in ("b.py", "a.py", "c.txt", "site-packages/d.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x = 1\n")
    assert [path.name for path in corpus.collect(tmp_path).files] == ["a.py", "b.py"]
    assert corpus.collect(tmp_path, ".txt").total_bytes == 6
    with pytest.raises(FileNotFoundError, match="--suffix"):
        corpus.collect(tmp_path, ".c")
    with pytest.raises(FileNotFoundError, match="not a directory"):
        corpus.collect(tmp_path / "none")


def test_a_neighbour_holds_what_it_is_told() -> None:
    mmap, neighbour = module("mmap"), module("neighbour")
    page = mmap.PAGESIZE
    with mmap.mmap(-1, 8 * page, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        assert neighbour.hold(memory, 0, 8 * page) == 8 * page
        assert neighbour.hold(memory, 8 * page, 3 * page + 1) == 3 * page
        assert memory[:] == b"\1" * 3 * page + b"\0" * 5 * page


@pytest.fixture
def some_files(tmp_path: Path) -> Path:
    """A corpus of real files that renders in a moment."""
    directory = tmp_path / "input"
    shutil.copytree(Path(sysconfig.get_path("stdlib")) / "json", directory)
    return directory


@pytest.mark.parametrize("cgroup", [True, False])
def test_a_small_run_makes_the_table_and_the_picture(
    some_files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], cgroup: bool
) -> None:
    """With a cgroup where one can be made; else, as with --no-cgroup, pages are dropped on request."""
    output = tmp_path / "output"
    options = [] if cgroup else ["--no-cgroup"]
    arguments = ["--input", str(some_files), "--output", str(output), "--requests", "120", "--memory", "8M"]
    assert module("demo").main(arguments + options) == 0
    printed = capsys.readouterr().out
    data = json.loads((output / "demo.json").read_text())
    assert set(data["figures"]) == ROWS
    assert (output / "demo.png").read_bytes().startswith(b"\x89PNG")
    assert all(row.strip() in printed for row in ROWS)
    assert "120 requests" in printed
    assert ("No cgroup" in printed) >= (not cgroup)
    for run in data["runs"]:
        assert [request["index"] for request in run["requests"]] == list(range(120)), run["way"]
        assert all(request["intact"] for request in run["requests"])
        assert run["victim"] is None
    assert [run["way"] for run in data["runs"]] == ["dict", "cachetools", "droppable"]


def test_an_input_without_files_is_told_plainly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert module("demo").main(["--input", str(tmp_path / "none"), "--output", str(tmp_path)]) == 2
    assert "not a directory" in capsys.readouterr().err
