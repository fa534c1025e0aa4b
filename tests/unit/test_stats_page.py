"""What a process tells `droppable top`: only when asked to, only to its own user, after forks and crashes too."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from droppable import _stats_page

PROGRAM = """
import os, sys
import droppable
cache = droppable.named("tiles", fork="share")
cache["k"] = b"value"
assert cache["k"] == b"value"
{more}
print("ready", flush=True)
sys.stdin.read()
"""
FORK = """
child = os.fork()
if child == 0:
    cache["of the child"] = b"value"
print(os.getpid())
"""
PUBLISH = "print(droppable.metrics.publish() == droppable.metrics.publish())"


RACE = """
import threading
from droppable import _stats_page
sweep, others, paths = _stats_page.sweep, [], []
def publish():
    paths.append(droppable.metrics.publish())
def sweep_and_let_others_in(place):
    _stats_page.sweep = sweep
    sweep(place)
    others.append(threading.Thread(target=publish))
    others[0].start()
    if fork and os.fork() == 0:
        publish()  # nobody of the parent is here to give anything back
        _stats_page._remove()
        os._exit(0)
    others[0].join(0.5)  # long enough for who does not wait
_stats_page.sweep = sweep_and_let_others_in
publish()
others[0].join()
print(paths[0] == paths[1], sum(thread.name == "droppable stats" for thread in threading.enumerate()))
if fork:
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "droppable"


def start(place: Path, more: str = "", **environment: str) -> subprocess.Popen[str]:
    """A process with a cache, once it has said that it is ready."""
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(more=more)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(place.parent), **environment},
    )


def read_until_ready(process: subprocess.Popen[str], times: int = 1) -> list[str]:
    assert process.stdout is not None
    lines: list[str] = []
    while lines.count("ready") < times:
        line = process.stdout.readline()
        assert line, "it ended before it was ready"
        lines.append(line.strip())
    return [line for line in lines if line != "ready"]


def stop(process: subprocess.Popen[str]) -> None:
    process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize("environment", [{}, {"DROPPABLE_STATS": ""}, {"DROPPABLE_STATS": "0"}])
def test_nobody_publishes_who_was_not_asked_to(place: Path, environment: dict[str, str]) -> None:
    process = start(place, **environment)
    read_until_ready(process)
    assert _stats_page.ask(process.pid, place) is None
    assert not place.exists()
    stop(process)


@pytest.mark.parametrize("more, environment", [("", {"DROPPABLE_STATS": "1"}), (PUBLISH, {})])
def test_who_was_asked_to_tells_the_counts_of_this_moment(place: Path, more: str, environment: dict[str, str]) -> None:
    process = start(place, more, **environment)
    read_until_ready(process)
    for _ in range(3):  # one after the other
        told = _stats_page.ask(process.pid, place)
        assert told is not None
        [cache] = told["caches"]
        assert (cache["name"], cache["sets"], cache["hits"], cache["misses_absent"]) == ("tiles", 1, 1, 0)
    [socket] = place.iterdir()
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(place.stat().st_mode) == 0o700
    stop(process)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize("fork", [False, True])
def test_two_threads_that_publish_at_once_open_one_socket(place: Path, fork: bool) -> None:
    with start(place, f"fork = {fork}\n{RACE}") as process:
        assert read_until_ready(process) == ["True 1", *(["0"] if fork else [])]
        stop(process)
    assert list(place.iterdir()) == []


def test_a_forked_child_tells_its_own_counts(place: Path) -> None:
    process = start(place, FORK, DROPPABLE_STATS="1")
    pids = [int(line) for line in read_until_ready(process, 2)]
    sets = {}
    for pid in pids:
        told = _stats_page.ask(pid, place)
        assert told is not None
        sets[pid] = told["caches"][0]["sets"]
    [child] = set(pids) - {process.pid}
    assert sets == {process.pid: 1, child: 2}
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert _stats_page.ask(process.pid, place) is None, "the child does not keep its parent's socket alive"
    assert _stats_page.ask(child, place) is not None
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()  # the child ends
    assert process.stdout.read() == ""
    process.stdout.close()


@pytest.mark.parametrize("look", [_stats_page.ask, lambda pid, place: _stats_page.sweep(place)])
def test_the_file_of_a_process_that_was_killed_is_removed_by_who_looks(
    place: Path, look: Callable[[int, Path], object]
) -> None:
    process = start(place, DROPPABLE_STATS="1")
    read_until_ready(process)
    process.kill()
    process.communicate()
    assert len(list(place.iterdir())) == 1
    look(process.pid, place)
    assert list(place.iterdir()) == []


def test_who_publishes_removes_what_others_left_and_nothing_else(place: Path) -> None:
    dead = start(place, DROPPABLE_STATS="1")
    living = start(place, DROPPABLE_STATS="1")
    for process in (dead, living):
        read_until_ready(process)
    dead.kill()
    dead.communicate()
    (place / "stats-of-something-else.sock").write_text("")
    third = start(place, DROPPABLE_STATS="1")
    read_until_ready(third)
    left = {path.name for path in place.iterdir()}
    assert left == {"stats-of-something-else.sock", f"stats-{living.pid}.sock", f"stats-{third.pid}.sock"}
    for process in (living, third):
        assert _stats_page.ask(process.pid, place) is not None
        stop(process)


def test_a_folder_that_others_may_write_to_is_refused_and_the_program_goes_on(place: Path) -> None:
    place.mkdir()
    place.chmod(0o777)
    process = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(more="")],
        input="",
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(place.parent), "DROPPABLE_STATS": "1"},
        check=True,
    )
    assert "droppable top cannot read the counts of this process" in process.stderr
    assert "must be yours, and nobody else may write to it" in process.stderr
    assert list(place.iterdir()) == []


def test_a_process_that_publishes_nothing_tells_nothing(place: Path) -> None:
    assert _stats_page.ask(os.getpid(), place) is None
    place.mkdir()
    (place / f"stats-{os.getpid()}.sock").write_text("no socket")
    assert _stats_page.ask(os.getpid(), place) is None
