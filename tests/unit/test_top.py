"""`droppable top`: processes with droppable memory, ours or not; as text, as JSON, and on a terminal of any size."""

from __future__ import annotations

import curses
import fcntl
import itertools
import json
import math
import os
import pty
import re
import select
import shutil
import socket
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import droppable
from droppable import _stats_page
from droppable._arguments import format_size
from droppable._stats import COUNTS
from droppable.cli import _top, _top_group, _top_memory, _top_text, _top_told, main

pyte = pytest.importorskip("pyte", reason="pyte, a terminal in memory, is not installed")

DOCS = Path(__file__).parents[2] / "docs"
PAGE = os.sysconf("SC_PAGE_SIZE")
WAIT_SECONDS = 30
UNCOUNTED_PAGES = 31
"""Which MADV_FREE was told of, and which wait in a processor's batch."""

# Half of 4 MiB of droppable memory is written, and 1 MiB of 2 is given away by MADV_FREE.
PROGRAM = """
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
int main(void)
{
    char *droppable = mmap(NULL, 4 << 20, PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS, -1, 0);
    char *lazyfree = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (lazyfree == MAP_FAILED)
        return 1;
    madvise(lazyfree, 2 << 20, MADV_NOHUGEPAGE);
    memset(lazyfree, 1, 2 << 20);
    madvise(lazyfree, 1 << 20, MADV_FREE);
    if (droppable != MAP_FAILED) {
        madvise(droppable, 4 << 20, MADV_NOHUGEPAGE);
        memset(droppable, 1, 2 << 20);
    }
    puts(droppable == MAP_FAILED ? "none" : "droppable");
    fflush(stdout);
    getchar();
    return 0;
}
"""


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[subprocess.Popen[str]]:
    """A running C program that knows nothing of us."""
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        pytest.skip(f"there is no C compiler, {compiler}, to make a program with that knows nothing of droppable")
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "stranger.c").write_text(PROGRAM)
    subprocess.run([compiler, "-o", folder / "stranger", folder / "stranger.c"], check=True)
    with subprocess.Popen([folder / "stranger"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.has_droppable = process.stdout.readline() == "droppable\n"  # type: ignore[attr-defined]
        yield process
        process.communicate()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where processes of the test publish their counts."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "droppable"


def report(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    assert main(["top", "--once", "--json", *argv]) == 0
    return json.loads(capsys.readouterr().out)


class TestAStranger:
    """A process that has such memory without us."""

    def test_its_memory_is_told_apart(self, stranger: Any, capsys: pytest.CaptureFixture[str]) -> None:
        [process] = report(capsys, str(stranger.pid))["processes"]
        assert process["pid"] == stranger.pid
        assert process["command"].endswith("/stranger")
        assert (1 << 20) - UNCOUNTED_PAGES * PAGE <= process["lazyfree_bytes"] <= 1 << 20
        assert process["ordinary_bytes"] >= 1 << 20
        parts = ("droppable_bytes", "lazyfree_bytes", "ordinary_bytes")
        assert process["resident_bytes"] == sum(process[part] for part in parts)
        assert (process["caches"], process["servers"]) == ([], [])
        if not stranger.has_droppable:
            pytest.skip("this kernel has no MAP_DROPPABLE: the rest cannot be seen")
        assert process["droppable_bytes"] == 2 << 20
        assert process["droppable_mapped_bytes"] == 4 << 20
        largest = process["mappings"][0]
        assert (largest["kind"], largest["mapped_bytes"]) == ("droppable", 4 << 20)
        assert largest["residency"] == "#" * (_top.CELLS // 2) + "." * (_top.CELLS // 2)

    def test_it_is_found_without_its_number(self, stranger: Any, capsys: pytest.CaptureFixture[str]) -> None:
        told = report(capsys)
        assert stranger.pid in [process["pid"] for process in told["processes"]]
        sums = [process["droppable_bytes"] + process["lazyfree_bytes"] for process in told["processes"]]
        assert sums == sorted(sums, reverse=True)
        for process in told["processes"]:
            assert process["mappings"] or process["caches"] or process["servers"], "what has nothing is not listed"

    def test_text_says_the_same(self, stranger: Any, capsys: pytest.CaptureFixture[str]) -> None:
        parts = ("droppable_bytes", "lazyfree_bytes", "ordinary_bytes")
        before, after, text = (0, 0, 0), (1, 1, 1), ""
        while before != after:  # the kernel counts some pages later than they were marked
            before = tuple(report(capsys, str(stranger.pid))["processes"][0][part] for part in parts)
            assert main(["top", "--once", str(stranger.pid)]) == 0
            text = capsys.readouterr().out
            after = tuple(report(capsys, str(stranger.pid))["processes"][0][part] for part in parts)
        heading, head, row, *rest = text.splitlines()
        assert heading.startswith("droppable top  1 process ")
        assert head.split() == ["PID", "DROPPABLE", "LAZYFREE", "ORDINARY", "DROPS/S", "COMMAND"]
        sizes = map(format_size, before)
        assert row.split()[:6] == [">", str(stranger.pid), *sizes, "-"]
        assert any(line.startswith("cgroup  ") for line in rest)
        assert any(line.startswith("map     lazyfree") for line in rest)


def test_names_have_their_units(stranger: Any, capsys: pytest.CaptureFixture[str]) -> None:
    told = report(capsys, str(stranger.pid))
    counts = {"pid", "unreadable_processes", "version", "residency"}

    def check(thing: Any, path: str) -> None:
        if isinstance(thing, dict):
            for key, value in thing.items():
                check(value, f"{path}.{key}")
        elif isinstance(thing, list):
            for value in thing:
                check(value, path)
        elif isinstance(thing, int | float):
            name = path.split(".")[-1]
            has_unit = re.search(r"_(bytes|seconds|percent)$|_per_second$", name)
            assert has_unit or name in counts or ".events." in path or ".pressure_percent." in path, path

    check(told, "")


def test_the_page_names_what_is_told(stranger: Any, capsys: pytest.CaptureFixture[str]) -> None:
    told = report(capsys, str(stranger.pid))
    [process] = told["processes"]
    names = {*told, *told["machine"], *process, *process["mappings"][0], *(process["cgroup"] or ())}
    text = (DOCS / "top.md").read_text()
    assert {name for name in names if f"`{name}`" not in text} == set()


def test_a_process_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert main(["top", "--once", str(child.pid)]) == 1
    assert f"there is no process {child.pid}" in capsys.readouterr().err


def test_a_process_of_somebody_else(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> _top_memory.Memory:
        raise PermissionError(f"/proc/{pid}/smaps")

    monkeypatch.setattr(_top_memory, "read_memory", refuse)
    assert main(["top", "--once", "1"]) == 1
    assert "process 1 belongs to somebody else" in capsys.readouterr().err
    told = report(capsys)
    assert not any(process["pid"] == 1 for process in told["processes"])  # others may tell of themselves
    assert told["unreadable_processes"] > 0
    assert main(["top", "--once"]) == 0
    assert "Processes that you may not look into: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "argv, words",
    [
        (["top", "x"], "invalid int value"),
        (["top", "0"], "PID must be 1 or more"),
        (["top", "--json"], "--json goes with --once"),
        (["top", "--interval", "0"], "--interval must be more than 0"),
    ],
)
def test_wrong_arguments(argv: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


def test_without_a_terminal_it_says_what_to_do() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "droppable", "top"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "give --once" in done.stderr


class TestTold:
    """What caches and servers say of themselves."""

    def test_the_example_of_the_page_and_the_environment(
        self, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        [example] = re.findall(r"^```python\n(.*?)^```", (DOCS / "top.md").read_text(), flags=re.DOTALL | re.MULTILINE)
        use = 'c = droppable.named("tiles"); c["k"] = 1; c["k"]; c.get("l"); print("ready", flush=True); input()'
        for code, asked in ((example, ""), ("import droppable", "1")):
            monkeypatch.setenv("DROPPABLE_STATS", asked)
            command = [sys.executable, "-c", f"{code}\n{use}"]
            with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
                [told] = report(capsys, str(process.pid))["processes"]
                [cache] = told["caches"]
                assert cache.keys() == {"name", "max_bytes", *(row.field for row in COUNTS)}
                assert (cache["name"], cache["hits"], cache["misses_absent"]) == ("tiles", 1, 1)
                assert main(["top", "--once", str(process.pid)]) == 0
                text = capsys.readouterr().out
                assert "cache   tiles: hits 50.0% of 2; misses: absent 1" in text
                process.communicate("\n")

    def test_a_server_is_asked_at_its_socket(
        self, start_server: Callable[..., Any], capsys: pytest.CaptureFixture[str]
    ) -> None:
        from pymemcache.client.base import Client

        server = start_server()
        client = Client(str(server.path))
        client.set("k", b"value")
        assert (client.get("k"), client.get("l")) == (b"value", None)
        client.close()
        [told] = report(capsys, str(server.process.pid))["processes"]
        [row] = told["servers"]
        assert row["socket"] == str(server.path)
        assert (row["hits"], row["misses_absent"], row["misses_dropped"], row["entries"]) == (1, 1, 0, 1)
        assert main(["top", "--once", str(server.process.pid)]) == 0
        assert "cache   server: hits 50.0% of 2; misses: absent 1" in capsys.readouterr().out


class TestCgroup:
    """Limit, usage, pressure and events, of either version."""

    @pytest.fixture
    def group(self, tmp_path: Path) -> Path:
        own = tmp_path / "outer" / "own"
        own.mkdir(parents=True)
        return own

    def test_version_2(self, group: Path, tmp_path: Path) -> None:
        files = {
            "memory.current": "3000\n",
            "memory.max": "max\n",
            "memory.high": "8000\n",
            "memory.stat": "inactive_file 1000\npglazyfreed 5\n",
            "memory.events": "low 0\nhigh 1\nmax 2\noom 0\noom_kill 0\n",
            "memory.pressure": "some avg10=1.50 avg60=0.00 total=1\nfull avg10=0.25 avg60=0.00 total=1\n",
            "../memory.max": "7000\n",
        }
        for name, text in files.items():
            (group / name).write_text(text)
        told = _top_group._read_at(2, tmp_path, group)
        assert (told["limit_bytes"], told["limit_path"]) == (7000, str(group.parent))
        assert (told["usage_bytes"], told["inactive_file_bytes"], told["working_set_bytes"]) == (3000, 1000, 2000)
        assert (told["pressure_percent"], told["pressure_of"]) == ({"some": 1.5, "full": 0.25}, "cgroup")
        assert (told["dropped_bytes"], told["dropped_of"]) == (5 * PAGE, "cgroup")
        assert told["events"] == {"low": 0, "high": 1, "max": 2, "oom": 0, "oom_kill": 0}

    def test_version_1_leaves_to_the_machine_what_it_does_not_count(self, group: Path, tmp_path: Path) -> None:
        files = {
            "memory.usage_in_bytes": "3000\n",
            "memory.limit_in_bytes": f"{(1 << 63) - PAGE}\n",
            "memory.stat": "inactive_file 10\ntotal_inactive_file 1000\n",
            "memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
            "memory.failcnt": "4\n",
        }
        for name, text in files.items():
            (group / name).write_text(text)
        told = _top_group._read_at(1, tmp_path, group)
        assert (told["limit_bytes"], told["limit_path"]) == (None, None)
        assert (told["usage_bytes"], told["working_set_bytes"]) == (3000, 2000)
        assert told["events"] == {"max": 4, "oom_kill": 3}
        assert told["dropped_of"] == "machine"

    def test_the_group_of_a_process_is_its_own(self, stranger: Any) -> None:
        own, told = _top_group.read_group(os.getpid()), _top_group.read_group(stranger.pid)
        assert (own is None) == (told is None)
        if own is not None and told is not None:
            assert own["path"] == told["path"], "a child is where its parent is"


def test_rates_are_of_the_time_between_two_reports() -> None:
    group = {"path": "/g", "dropped_bytes": 1000}
    before = {"monotonic_seconds": 10.0, "processes": [{"pid": 1, "cgroup": group}, {"pid": 2, "cgroup": group}]}
    later = {"path": "/g", "dropped_bytes": 5000}
    processes: list[dict[str, Any]] = [
        {"pid": 1, "cgroup": later, "dropped_bytes_per_second": None},
        {"pid": 2, "cgroup": {**later, "path": "/moved"}, "dropped_bytes_per_second": None},
        {"pid": 3, "cgroup": later, "dropped_bytes_per_second": None},
    ]
    _top._add_rates(processes, 12.0, before)
    assert [process["dropped_bytes_per_second"] for process in processes] == [2000, None, None]


def test_real_drops_are_counted(make_cache: Callable[..., droppable.Cache]) -> None:
    cache = make_cache()
    for number in range(100):
        cache[number] = b"x" * 100_000
    before = _top_group.machine_lazyfreed_pages()
    dropped = droppable.testing.drop(cache).dropped_pages
    assert dropped > 1000
    assert _top_group.machine_lazyfreed_pages() - before >= dropped - UNCOUNTED_PAGES


@pytest.mark.parametrize("width, height", [(80, 24), (40, 10), (20, 3), (200, 60), (1, 1)])
@pytest.mark.parametrize("count", [0, 1, 50])
def test_lines_fit_the_terminal(width: int, height: int, count: int, stranger: Any) -> None:
    told = _top.read_report(stranger.pid, None)
    told["processes"] *= count
    for chosen in range(max(1, count)):
        lines = _top_text.render(told, width, height, chosen)
        assert all(len(line) <= width for line in lines)
        if height > 3:
            assert len(lines) <= height
            assert sum(line.startswith(">") for line in lines) == min(count, 1), "the chosen one can be seen"


def test_where_nobody_is_seen_it_says_how_to_be_seen() -> None:
    machine = {"memory_bytes": 1 << 30, "available_bytes": 1 << 29, "dropped_bytes": 0}
    text = " ".join(_top_text.render({"machine": machine, "processes": [], "unreadable_processes": 0}, 120))
    assert "No process here has droppable or lazyfree memory." in text
    assert "DROPPABLE_STATS=1" in text


def test_what_a_process_calls_itself_cannot_steer_the_terminal(place: Path) -> None:
    code = "import time; print('ready', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, "\x1b[2J\n"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert _top_memory.command(process.pid).endswith("?[2J")
        process.communicate("\n")


TRUE_ROW: dict[str, Any] = {"name": "tiles", "hits": 3, "misses_absent": 1, "stored_bytes": 5}


class Liar:
    """A publisher of this process's number that answers what it is told to."""

    def __init__(self, place: Path, answer: Callable[[socket.socket], object]) -> None:
        place.mkdir(mode=0o700)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(place / f"stats-{os.getpid()}.sock"))
        self._listener.listen()
        self._answer = answer
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection, suppress(OSError):  # who asked has heard enough
            self._answer(connection)

    def __enter__(self) -> Liar:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()
        self._listener.close()


def claims(caches: object) -> bytes:
    return json.dumps({"pid": os.getpid(), "caches": caches}).encode()


@pytest.mark.parametrize(
    "answer, caches",
    [
        (claims(5), 0),
        (claims({"name": "x"}), 0),
        (claims(["x", None, [1]]), 0),
        (b"[" * 200_000, 0),
        (b'{"pid": %d, "caches": %s}' % (os.getpid(), b"[" * 5000 + b"]" * 5000), 0),
        (b"\xff\xfe{}", 0),
        (b'{"pid": %d, "caches": [{"hits": %s}]}' % (os.getpid(), b"9" * 5000), 0),
        (claims([{}]), 1),
        (claims([{"name": ["x"], "hits": "3"}]), 1),
        (claims([{"hits": -1, "entries": True, "stored_bytes": 10**400}]), 1),
        (claims([{"hits": math.nan, "stored_bytes": math.inf, "misses_absent": -math.inf}]), 1),
        (claims([TRUE_ROW]), 1),
    ],
)
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_process_may_say_of_its_caches_what_it_likes(
    answer: bytes, caches: int, options: list[str], place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be anybody's: what is no count is left out, and everybody else is shown."""
    with Liar(place, lambda connection: connection.sendall(answer)):
        assert main(["top", "--once", *options, str(os.getpid())]) == 0
    out = capsys.readouterr().out
    if options:
        [process] = json.loads(out, parse_constant=pytest.fail)["processes"]
        assert len(process["caches"]) == caches
        for cache in process["caches"]:
            assert all(cache[row.field] >= 0 for row in COUNTS)
    else:
        assert out.count("\ncache   ") == caches
    if TRUE_ROW["name"] in answer.decode(errors="replace"):
        assert "tiles" in out
        assert options or "hits 75.0% of 4" in out


class Trickle:
    """A connection on which a byte comes each 0.4 seconds, by a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []

    def settimeout(self, seconds: float) -> None:
        self.waits.append(seconds)

    def recv(self, _: int) -> bytes:
        self.now += 0.4
        return b" "


def test_who_answers_a_byte_at_a_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte in time, and no end of them."""
    connection: Any = Trickle()
    monkeypatch.setattr(time, "monotonic", lambda: connection.now)
    few = itertools.islice(_stats_page.pieces(connection, 0.5), 10)
    with pytest.raises(TimeoutError):
        list(few)
    assert connection.waits == pytest.approx([0.5, 0.1])


@pytest.mark.parametrize(
    "answer",
    [b"STAT get_hits 1\r\nSTAT \xff 5\r\nEND\r\n", b"STAT get_hits 1\r\nSTAT bytes %s\r\nEND\r\n" % (b"9" * 5000)],
)
def test_a_server_may_say_what_it_likes(answer: bytes, tmp_path: Path) -> None:
    path = str(tmp_path / "server.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        assert _top_told._ask_server(path) == {"get_hits": 1}
        thread.join()


FORGER = r"""
import os, socket
with socket.socket(socket.AF_UNIX) as real, socket.socket(socket.AF_UNIX) as forged:
    real.bind("real.sock")
    real.listen()
    forged.bind(f"a\n0: 2 0 zz 1 1 {os.fstat(real.fileno()).st_ino} b")
    print(flush=True)
    input()
"""


def test_a_line_break_in_the_name_of_a_socket_forges_no_row(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", FORGER], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "\n"
        assert _top_told._sockets(process.pid) == ["real.sock"]
        process.communicate("\n")


def test_no_name_in_a_report_can_steer_the_terminal(stranger: Any, capsys: pytest.CaptureFixture[str]) -> None:
    told = report(capsys, str(stranger.pid))
    [process] = told["processes"]
    if process["cgroup"] is None:
        pytest.skip("the cgroup cannot be seen from here, so its name is not told")
    process["cgroup"]["path"] = "/\x1b[2J\x07\ud800"
    assert any("/?[2J??" in line for line in _top_text.render(told, 500))
    assert all(line.isprintable() for line in _top_text.render(told, 500))


class Terminal:
    """`droppable top` on a terminal of its own, and what is on its screen."""

    def __init__(self, columns: int, lines: int, *argv: str) -> None:
        try:
            curses.setupterm("xterm", 1)
        except curses.error as error:
            pytest.skip(f"this system does not know what a terminal of the kind xterm is: {error}")
        self.ours, self.theirs = pty.openpty()
        self.screen = pyte.Screen(columns, lines)
        self.stream = pyte.ByteStream(self.screen)
        self.output = b""
        self.set_size(columns, lines)
        self.settings = termios.tcgetattr(self.theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "droppable", "top", *argv],
            stdin=self.theirs,
            stdout=self.theirs,
            stderr=self.theirs,
            env={**os.environ, "TERM": "xterm"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )

    def set_size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        self.screen.reset()
        self.set_size(columns, lines)

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    def wait_for(self, holds: Callable[[list[str]], bool]) -> list[str]:
        deadline = time.monotonic() + WAIT_SECONDS
        while not holds(self.screen.display):
            assert time.monotonic() < deadline, "\n".join(self.screen.display)
            self.read(0.1)
        return list(self.screen.display)

    def read(self, seconds: float) -> None:
        if select.select([self.ours], [], [], seconds)[0]:
            data = os.read(self.ours, 1 << 16)
            self.output += data
            self.stream.feed(data)

    def end(self) -> int:
        """Its exit status; what it wrote up to its end is in `output`."""
        deadline = time.monotonic() + WAIT_SECONDS
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            self.read(0.05)
        while select.select([self.ours], [], [], 0)[0]:
            self.read(0)
        assert termios.tcgetattr(self.theirs) == self.settings, "the terminal is as it was"
        os.close(self.ours)
        os.close(self.theirs)
        return self.process.returncode


@pytest.mark.parametrize("columns, lines", [(80, 24), (40, 10)])
@pytest.mark.parametrize("keys", [b"q", b"\x03"])
def test_on_a_terminal(columns: int, lines: int, keys: bytes, stranger: Any) -> None:
    terminal = Terminal(columns, lines, str(stranger.pid), "--interval", "0.2")
    size = format_size(2 << 20) if stranger.has_droppable else "0"
    shown = terminal.wait_for(lambda rows: any("cgroup" in row for row in rows))
    assert shown[0].startswith("droppable top  1 process")
    assert shown[2].split()[:3] == [">", str(stranger.pid), size]
    terminal.wait_for(lambda rows: rows[2].split()[5:6] not in ([], ["-"]) or columns < 60)  # a rate: it was read again
    for new_columns, new_lines in ((columns // 2 + 20, lines // 2 + 4), (columns + 20, lines + 10)):
        terminal.resize(new_columns, new_lines)
        shown = terminal.wait_for(lambda rows: rows[0].startswith("droppable top") and str(stranger.pid) in rows[2])
        assert all(len(row) == new_columns for row in shown)
    terminal.type(b"\x1b[B")  # an arrow
    terminal.type(keys)
    assert terminal.end() == 0
    leaves, rest = terminal.output.rpartition(b"\x1b[?1049l")[1:]
    assert leaves, "it leaves the other screen"
    assert b"Traceback" not in rest


def test_ctrl_c_takes_no_key_that_was_seen(stranger: Any) -> None:
    """Else it hangs once in a hundred times, where a key was typed at the same moment: it would wait for that key."""
    terminal = Terminal(80, 24, str(stranger.pid))
    terminal.wait_for(lambda rows: any("cgroup" in row for row in rows))
    assert termios.tcgetattr(terminal.theirs)[3] & termios.NOFLSH
    terminal.type(b"\x1b[B" * 10 + b"\x03")
    assert terminal.end() == 0


def test_a_process_that_ends_ends_the_view() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        terminal = Terminal(80, 24, str(process.pid), "--interval", "0.1")
        terminal.wait_for(lambda rows: str(process.pid) in rows[2])
        process.communicate(b"\n")
    assert terminal.end() == 1
    assert b"it has ended" in terminal.output


def test_a_terminal_of_no_known_kind_is_told() -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "droppable", "top", str(os.getpid())]
    environment = {**os.environ, "TERM": "no-such-terminal"}
    done = subprocess.run(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(ours)
    os.close(theirs)
    assert done.returncode == 1
    assert b"set TERM, or give --once" in done.stderr


def test_each_command_of_the_page_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    text = (DOCS / "top.md").read_text()
    commands = re.findall(r"`droppable (top[^`]*)`|^    \$ droppable (top.*)$", text, flags=re.MULTILINE)
    lines = [(first or second).replace("4711", str(os.getpid())).split() for first, second in commands]
    assert len(lines) > 5
    for argv in lines:
        once = argv if "--once" in argv else [*argv, "--once"]
        assert main(once) == 0
        assert capsys.readouterr().out


def test_a_cache_of_ours_shows_as_droppable_memory(capsys: pytest.CaptureFixture[str]) -> None:
    with droppable.Cache() as cache:
        for number in range(100):
            cache[number] = b"x" * 100_000
        droppable.testing.settle(cache)
        [process] = report(capsys, str(os.getpid()))["processes"]
        assert process["droppable_bytes"] + process["lazyfree_bytes"] > 5_000_000
        assert len(cache) == 100
