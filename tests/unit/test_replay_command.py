"""`droppable replay`: what it reads, what it counts, and what it says of files that it cannot read."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from droppable.cli import main
from droppable.cli._replay import least_recently_used, play
from droppable.cli._replay_trace import Request, Trace, TraceError, read_trace


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "trace"
        path.write_text(text)
        return path

    return write


def test_lists_of_requests(write: Any) -> None:
    assert read_trace(write("a\n\nb 2K\nc 10 0.5\n"), 7) == Trace(
        [Request("a", 7, 0.0), Request("b", 2048, 0.0), Request("c", 10, 0.5)], 0
    )


def test_tables(write: Any) -> None:
    assert read_trace(write("Seconds, key,other,SIZE\n1.5,a,x,3\n,b,y,\n"), 7) == Trace(
        [Request("a", 3, 1.5), Request("b", 7, 0.0)], 0
    )


def test_access_logs(write: Any) -> None:
    lines = [
        '::1 - ada [26/Nov/2026:10:00:00 +0000] "GET /a?b=1 HTTP/1.1" 200 5120 "-" "curl/8 (1.0)" 0.042',
        '::1 - - [26/Nov/2026:10:00:00 +0000] "GET /b HTTP/1.1" 200 10',
        '::1 - - [26/Nov/2026:10:00:00 +0000] "POST /b HTTP/1.1" 200 10',
        '::1 - - [26/Nov/2026:10:00:00 +0000] "GET /b HTTP/1.1" 404 10',
        '::1 - - [26/Nov/2026:10:00:00 +0000] "GET /b HTTP/1.1" 200 -',
        "something else",
    ]
    assert read_trace(write("\n".join(lines)), 7) == Trace([Request("/a?b=1", 5120, 0.042), Request("/b", 10, 0.0)], 4)


def test_a_mark_at_the_begin_and_lines_of_windows(write: Any) -> None:
    assert read_trace(write("\ufeffkey,size\r\na,3\r\n"), 7) == Trace([Request("a", 3, 0.0)], 0)
    assert read_trace(write("\ufeffa 3\r\nb\r\n"), 7) == Trace([Request("a", 3, 0.0), Request("b", 7, 0.0)], 0)


def test_packed_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "access.log.1.gz"
    path.write_bytes(gzip.compress(b"a 3\nb\n" * 1000))
    assert len(read_trace(path, 7).requests) == 2000
    path.write_bytes(path.read_bytes()[:-20])
    assert main(["replay", str(path)]) == 1
    assert "ended before" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no request in it"),
        ("a\nb much\n", "line 2: a line is KEY [SIZE [SECONDS]]; you gave 'b much'"),
        ("a 1 long\n", "line 1: a line is KEY [SIZE [SECONDS]]; you gave 'a 1 long'"),
        ("a 1 -1\n", "line 1: a key, and seconds of 0 or more, are missing in 'a 1 -1'"),
        ("a 1 inf\n", "line 1: a key, and seconds of 0 or more"),
        ("key,size\n,3\n", "line 2: a key, and seconds"),
    ],
)
def test_what_cannot_be_read(write: Any, text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(text)
    with pytest.raises(TraceError) as raised:
        read_trace(path, 7)
    assert message in str(raised.value)
    assert main(["replay", str(path)]) == 1
    assert message in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path / "nothing")]) == 1
    assert "No such file" in capsys.readouterr().err


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


def test_values_that_never_fit_are_misses() -> None:
    assert play([Request("large", 1 << 30, 0.0)] * 3, 1 << 20) == [False] * 3


def test_the_report(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    path = write("a 1000 0.5\nb 1000 0.25\na 1000 0.5\n")
    assert main(["replay", str(path), "--memory", "1M,64M"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("3 requests for 2 keys; all values together: 2K\n")
    assert "seconds saved, of 1.2\n" in shown
    assert [line.split()[:3] for line in shown.splitlines() if line.startswith("        1M")] == [
        ["1M", "33.3%", "33.3%"],
        ["1M", "0.5", "0.5"],
    ]
    assert main(["replay", str(path), "--memory", "1M", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["requests"], report["skipped_lines"]) == (3, 0)
    assert report["outcomes"][0] == {
        "policy": "droppable", "memory_bytes": 1 << 20, "hits": 1, "hit_ratio": 1 / 3, "saved_seconds": 0.5
    }  # fmt: skip


def test_other_policies_where_libcachesim_is(write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("libcachesim", reason="libcachesim is not installed")
    assert main(["replay", str(write("a 10\nb 10\na 10\n" * 20)), "--memory", "1M", "--json"]) == 0
    outcomes = json.loads(capsys.readouterr().out)["outcomes"]
    assert [(one["policy"], one["hits"]) for one in outcomes[2:]] == [("S3-FIFO", 58), ("W-TinyLFU", 58)]


@pytest.mark.parametrize("sizes", ["", ",", "0", "much"])
def test_sizes_that_are_none(sizes: str, write: Any, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(write("a\n")), "--memory", sizes])
    assert ended.value.code == 2
    assert "is not a size" in (said := capsys.readouterr().err) or "is no list of sizes" in said


def test_a_picture(write: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    path, picture = write("a\nb\na\n"), tmp_path / "hits.svg"
    assert main(["replay", str(path), "--plot", str(picture)]) == 0
    assert picture.read_text().count("<svg") == 1
    assert main(["replay", str(path), "--plot", str(tmp_path / "nowhere" / "hits.svg")]) == 1
    assert "cannot be written" in capsys.readouterr().err
