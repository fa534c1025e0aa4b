"""`droppable replay`: what it counts and what it tells. What it reads: test_replay_trace.py."""

from __future__ import annotations

import json
import pickle
import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from droppable.cli import _replay, main
from droppable.cli._replay import least_recently_used, play
from droppable.cli._replay_trace import Request, read_trace


def _in_a_process(first: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    program = f"import sys; from droppable.cli import main; {first}\nsys.exit(main(sys.argv[1:]))"
    return subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "trace"
        path.write_text(text)
        return path

    return write


def test_what_lru_hits() -> None:
    requests = [Request(key, size, 0.0) for key, size in (("a", 2), ("b", 2), ("a", 2), ("c", 2), ("b", 2), ("d", 9))]
    assert least_recently_used(requests, 4) == [False, False, True, False, False, False]
    assert least_recently_used(requests, 6) == [False, False, True, False, True, False]


def test_a_real_cache_hits_as_much_as_an_lru() -> None:
    random.seed(1)
    keys = random.choices(range(500), [1 / (key + 1) for key in range(500)], k=6000)
    requests = [Request(str(key), 8000, 0.0) for key in keys]
    ours, lru = (sum(policy(requests, 1 << 20)) for policy in (play, least_recently_used))
    assert ours >= 0.9 * lru > 0
    assert sum(play(requests, 64 << 20)) == len(requests) - len(set(keys))


@pytest.mark.parametrize("size_bytes", [(1 << 20) - 1, 1 << 20, 1 << 30, 1 << 31, 1 << 61])
def test_values_that_never_fit_are_misses(size_bytes: int) -> None:
    requests = [Request("large", size_bytes, 0.0), Request("a", 5, 0.0)] * 3
    assert play(requests, 1 << 20) == [False, False, False, True, False, True]


def test_a_value_that_is_never_stored_takes_no_memory(write: Any) -> None:
    """A value of 1 TB, and one of 2 GB less a byte, in a process that may not have 2 GB of addresses more."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))"
    path = write("a 1T\nb 2147483647\na 1T\nc 5\nc 5\n")
    told = _in_a_process(limit, "replay", str(path), "--memory", "8M", "--json")
    assert told.returncode == 0, told.stderr
    assert [one["hits"] for one in json.loads(told.stdout)["outcomes"]][:2] == [1, 1]


def test_the_report(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("a 1000 0.5\nb 1000 0.25\na 1000 0.5\n")
    assert main(["replay", str(path), "--memory", "1M,64M"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("3 requests for 2 keys; all values together: 2K\nThe file was read as a list.\n")
    assert "No key is asked for twice" not in shown
    assert "seconds saved, of 1.2\n" in shown
    assert [line.split()[:3] for line in shown.splitlines() if line.startswith("        1M")] == [
        ["1M", "33.3%", "33.3%"],
        ["1M", "0.5", "0.5"],
    ]
    assert main(["replay", str(path), "--memory", "1M", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["read_as"], report["requests"], report["skipped_lines"]) == ("a list", 3, 0)
    assert report["outcomes"][0] == {
        "policy": "droppable", "memory_bytes": 1 << 20, "hits": 1, "hit_ratio": 1 / 3, "saved_seconds": 0.5
    }  # fmt: skip


def test_a_table_without_names_is_told_to_have_no_key_twice(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(write("a,1000,0.5\na,1000,0.25\n")), "--memory", "1M"]) == 0
    assert "The file was read as a list.\nNo key is asked for twice, so no cache can hit." in capsys.readouterr().out


def test_seconds_of_the_largest_numbers_are_json(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(write("a 5 9e9\n" * 1000)), "--memory", "1M", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outcomes"][0]["saved_seconds"] == 999 * 9e9


def test_other_policies_where_libcachesim_is(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("libcachesim", reason="libcachesim is not installed")
    assert main(["replay", str(write("a 10\nb 10\na 10\n" * 20)), "--memory", "1M", "--json"]) == 0
    outcomes = json.loads(capsys.readouterr().out)["outcomes"]
    assert [(one["policy"], one["hits"]) for one in outcomes[2:]] == [("S3-FIFO", 58), ("W-TinyLFU", 58)]


def test_other_policies_write_no_warnings_of_their_own(write: Any) -> None:
    pytest.importorskip("libcachesim", reason="libcachesim is not installed")
    path = write("a 10\nb 5000\nc 0\nd 200T\n" * 3)
    told = _in_a_process("", "replay", str(path), "--memory", "4096,3G,4G,64G,100T", "--json")
    assert (told.returncode, told.stderr) == (0, "")
    hits = [one["hits"] for one in json.loads(told.stdout)["outcomes"]]
    assert hits == [4] * 4 + [6] * 16


@pytest.mark.parametrize("sizes", ["", ",", "0", "8", "64M,1", "much", "9" * 5000, "9" * 400 + ".5", "5\u212a"])
def test_sizes_that_are_none(sizes: str, write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(write("a\n")), "--memory", sizes])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    messages = ("is not a size", "is no list of sizes", "is more than any machine has", "and the least is a page of ")
    assert sum(message in said for message in messages) == 1


def test_sizes_with_spaces_between_them(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["replay", str(write("a\n")), "--memory", "1M 2M"])
    assert "Between sizes write commas, as in 64M," in capsys.readouterr().err
    assert main(["replay", str(write("a\n")), "--memory", "1 M, 2 MB"]) == 0


def test_a_trace_on_standard_input(write: Any) -> None:
    with write("a 5\na 5\n").open() as trace:
        told = subprocess.run(
            [sys.executable, "-m", "droppable", "replay", "-", "--memory", "1M"],
            stdin=trace, capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert told.stdout.startswith("2 requests for 1 keys;")


def test_no_matplotlib_is_told_before_anything_is_played(
    write: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"] or ["matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(_replay, "read_trace", lambda *_: pytest.fail("the trace is read"))
    assert main(["replay", str(write("a\n")), "--plot", "hits.svg"]) == 1
    assert "pip install matplotlib" in capsys.readouterr().err


def test_a_picture(write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    path, picture = write("a\nb\na\n"), tmp_path / "hits.svg"
    assert main(["replay", str(path), "--plot", str(picture)]) == 0
    assert picture.read_text().count("<svg") == 1
    assert main(["replay", str(path), "--plot", str(tmp_path / "nowhere" / "hits.svg")]) == 1
    assert "cannot be written" in capsys.readouterr().err


def test_larger_units_change_nothing_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory of more than 1 GB is simulated in larger units; here of more than 1 MB (30,000 requests: 3 %)."""
    pytest.importorskip("libcachesim", reason="libcachesim is not installed")
    random.seed(1)
    keys = [int(random.paretovariate(0.8)) for _ in range(30_000)]
    requests = [Request(str(key), 4000 + key % 7 * 1000, 0.0) for key in keys]
    exact = {name: sum(policy(requests, 8 << 20)) for name, policy in _replay._simulated().items()}
    monkeypatch.setattr(_replay, "_MOST_SIMULATED", 1 << 20)
    rounded = {name: sum(policy(requests, 8 << 20)) for name, policy in _replay._simulated().items()}
    assert exact == {name: pytest.approx(hits, rel=0.03) for name, hits in rounded.items()}


def test_what_the_recipe_of_the_documentation_records(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "replay.md").read_text()
    names: dict[str, Any] = {}
    exec(re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)[0], names)
    path = tmp_path / "requests.csv"
    keys = ["page one", 'a, "b"', "two\nlines", "", 1, "1", ("t", 2), "\u00e9", "key"]
    for result in (None, 7, {"a": [1, 2]}):  # a program that was started three times
        with path.open("a", newline="") as file:
            call = names["traced"](lambda key, result=result: result, file)
            assert [call(key) for key in keys] == [result] * len(keys)
    trace = read_trace(path, 1)
    assert trace.form == "a table"
    assert [request.key for request in trace.requests] == [repr(key) for key in keys] * 3
    assert trace.requests[0].size_bytes == len(pickle.dumps(None))
    assert trace.has_seconds
