"""Real memory cgroups: the limit holds, the figures are right, and nothing stays behind however the maker ends.

<mount>/droppable-<pid>-<token>     50 MB, no swap     expected: peak = limit, oom_kill = 1 for a child of 100 MB
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from droppable._cgroup import CgroupUnavailableError, MemoryCgroup

MB = 1 << 20
LIMIT_BYTES = 50 * MB
GONE_SECONDS = 120.0

WAIT = [sys.executable, "-c", "import signal; print(1, flush=True); signal.pause()"]

Make = Callable[..., MemoryCgroup]


def start_waiting(group: MemoryCgroup) -> subprocess.Popen[bytes]:
    """A program in the group that waits to be killed; on return it is inside."""
    child = group.popen(WAIT, stdout=subprocess.PIPE)
    assert child.stdout is not None
    with child.stdout as out:
        out.readline()
    return child


def wait_until_gone(path: Path) -> None:
    """Blocks until a cgroup directory is gone; the keeper's own work is bounded, so the time-out is for failures."""
    deadline = threading.Event()
    timer = threading.Timer(GONE_SECONDS, deadline.set)
    timer.start()
    try:
        while path.exists():
            assert not deadline.wait(0.01), f"{path} is still there, with {(path / 'cgroup.procs').read_text()!r}"
    finally:
        timer.cancel()


def test_a_child_past_the_limit_is_killed_and_counted(run_in_cgroup: Callable[..., Any]) -> None:
    done = run_in_cgroup(LIMIT_BYTES, f"b = b'x' * {100 * MB}")
    assert done.returncode == -signal.SIGKILL
    assert done.oom_kills == 1
    assert done.peak_bytes == LIMIT_BYTES


def test_a_child_within_the_limit_lives_and_peak_is_what_it_used(run_in_cgroup: Callable[..., Any]) -> None:
    done = run_in_cgroup(
        LIMIT_BYTES,
        f"""
        b = b'x' * {20 * MB}
        print(len(b))
    """,
    )
    assert (done.returncode, done.stdout, done.oom_kills) == (0, f"{20 * MB}\n", 0)
    assert 20 * MB < done.peak_bytes < 45 * MB  # 20 MB and an interpreter


def test_the_child_is_inside_before_its_program_starts(memory_cgroup: Make) -> None:
    group = memory_cgroup(LIMIT_BYTES)
    child = group.popen([sys.executable, "-c", "print(open('/proc/self/cgroup').read())"], stdout=subprocess.PIPE)
    out, _ = child.communicate()
    assert group.path.name in out.decode()
    assert group.pids() == ()


def test_arguments_reach_the_program_as_they_are(memory_cgroup: Make) -> None:
    group = memory_cgroup(LIMIT_BYTES)
    words = ["a b", "", "$HOME", "'\"", "-x", "\n"]
    child = group.popen([sys.executable, "-c", "import sys; print(sys.argv[1:])", *words], stdout=subprocess.PIPE)
    assert child.communicate()[0].decode().strip() == repr(words)


def test_a_program_that_is_not_there_exits_127(memory_cgroup: Make) -> None:
    assert memory_cgroup(LIMIT_BYTES).popen(["no-such-program-here"], stderr=subprocess.DEVNULL).wait() == 127


def test_shell_is_refused(memory_cgroup: Make) -> None:
    with pytest.raises(ValueError, match="shell"):
        memory_cgroup(LIMIT_BYTES).popen(["true"], shell=True)


def test_the_limit_can_be_moved_both_ways(memory_cgroup: Make) -> None:
    group = memory_cgroup(LIMIT_BYTES)
    for limit_bytes in (80 * MB, 30 * MB, LIMIT_BYTES):
        group.limit_bytes = limit_bytes
        assert group.limit_bytes == limit_bytes
    child = group.popen([sys.executable, "-c", f"b = b'x' * {60 * MB}"])
    assert child.wait() == -signal.SIGKILL
    group.limit_bytes = 100 * MB
    assert group.popen([sys.executable, "-c", f"b = b'x' * {60 * MB}"]).wait() == 0


def test_reclaim_takes_page_cache_back(memory_cgroup: Make, tmp_path: Path) -> None:
    group = memory_cgroup(LIMIT_BYTES)
    code = f"""
import os
with open({str(tmp_path / "file")!r}, 'wb') as f:
    f.write(bytes({20 * MB}))
    f.flush()
    os.fsync(f.fileno())
"""
    assert group.popen([sys.executable, "-c", code]).wait() == 0
    before = group.usage_bytes
    stat = group.stat()
    if stat["inactive_file"] + stat["active_file"] < 10 * MB:
        pytest.skip(f"{tmp_path} is in memory or keeps no page cache: {stat}")
    assert group.reclaim(5 * MB) >= 4 * MB
    assert group.usage_bytes < before
    assert group.limit_bytes == LIMIT_BYTES


def test_stat_has_the_kernels_names(memory_cgroup: Make) -> None:
    stat = memory_cgroup(LIMIT_BYTES).stat()
    assert {"inactive_file", "active_file"} <= stat.keys()
    assert all(value >= 0 for value in stat.values())


def test_groups_nest_and_go_together(memory_cgroup: Make) -> None:
    outer = memory_cgroup(LIMIT_BYTES)
    if outer.version == 2:
        (outer.path / "cgroup.subtree_control").write_text("+memory")
    inner = MemoryCgroup.create(10 * MB, parent=outer.path)
    assert inner.path.parent == outer.path
    child = start_waiting(inner)
    outer.close()
    assert not inner.path.exists()
    inner.close()
    assert child.returncode == -signal.SIGKILL


def test_the_same_name_twice_is_an_error_and_spares_the_first(memory_cgroup: Make) -> None:
    group = memory_cgroup(LIMIT_BYTES)
    with pytest.raises(CgroupUnavailableError, match="exists already"):
        MemoryCgroup.create(LIMIT_BYTES, name=group.path.name, parent=group.path.parent)
    assert group.path.exists()


def test_an_exception_in_the_block_leaves_nothing(memory_cgroup: Make) -> None:
    group = memory_cgroup(LIMIT_BYTES)
    child = start_waiting(group)
    with pytest.raises(KeyError), group:
        raise KeyError
    assert not group.path.exists()
    assert child.returncode == -signal.SIGKILL
    group.close()  # again: nothing


def test_daemons_of_the_child_are_killed_and_others_are_not(memory_cgroup: Make) -> None:
    group = memory_cgroup(LIMIT_BYTES)
    outside = subprocess.Popen(WAIT, stdout=subprocess.DEVNULL)
    daemon = """
import os, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        print(os.getpid(), flush=True)
        signal.pause()
    os._exit(0)
os.wait()
"""
    child = group.popen([sys.executable, "-c", daemon], stdout=subprocess.PIPE)
    assert child.stdout is not None
    daemon_pid = int(child.stdout.readline())
    assert child.wait() == 0
    assert group.pids() == (daemon_pid,)
    watch = os.pidfd_open(daemon_pid)
    try:
        group.close()
        assert select.select([watch], [], [], GONE_SECONDS)[0], "the daemon lives"
    finally:
        os.close(watch)
    assert not group.path.exists()
    assert outside.poll() is None
    outside.kill()
    outside.wait()
    child.stdout.close()


def test_the_maker_may_be_inside(memory_cgroup: Make) -> None:
    group = memory_cgroup(LIMIT_BYTES)
    before = Path("/proc/self/cgroup").read_text()
    group.add(os.getpid())
    assert os.getpid() in group.pids()
    group.close()
    assert Path("/proc/self/cgroup").read_text() == before


MAKER = """
import os, signal, sys
from droppable._cgroup import MemoryCgroup
with MemoryCgroup.create(20 << 20) as group:
    child = group.popen([sys.executable, "-c", "import signal; print(1, flush=True); signal.pause()"], stdout=-1)
    child.stdout.readline()
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)  # a signal that comes before the read ends it too
    print(group.path, child.pid, flush=True)
    os.read(wake, 1)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_maker_that_is_interrupted_or_killed_leaves_nothing(memory_cgroup: Make, number: signal.Signals) -> None:
    memory_cgroup(LIMIT_BYTES)  # skips where there are none
    maker = subprocess.Popen([sys.executable, "-c", MAKER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    path, child_pid = maker.stdout.readline().split()
    watch = os.pidfd_open(int(child_pid))
    try:
        maker.send_signal(number)
        maker.communicate(timeout=GONE_SECONDS)
        assert maker.returncode == -number
        assert select.select([watch], [], [], GONE_SECONDS)[0], "the child lives"
    finally:
        os.close(watch)
    wait_until_gone(Path(path))


def test_a_forked_child_that_closes_does_not_take_the_group(memory_cgroup: Make) -> None:
    group = memory_cgroup(LIMIT_BYTES)
    pid = os.fork()
    if pid == 0:
        group.close()
        os._exit(0)
    os.waitpid(pid, 0)
    assert group.path.exists()


def test_a_keeper_that_was_killed_is_replaced(memory_cgroup: Make) -> None:
    group = memory_cgroup(LIMIT_BYTES)
    child = start_waiting(group)
    group._keeper.kill()
    group._keeper.wait()
    group.close()
    assert not group.path.exists()
    assert child.returncode == -signal.SIGKILL


def test_a_process_sees_its_own_limit(run_in_cgroup: Callable[..., Any]) -> None:
    done = run_in_cgroup(
        LIMIT_BYTES,
        """
        import droppable
        from droppable._cgroup import current
        ballast = b"x" * (10 << 20)
        limit, features = current(), droppable.features()
        print(limit.limit_bytes, limit.usage_bytes, limit.left_bytes, limit.version)
        print(features["memory_limit_bytes"].value, features["cgroup"].value)
        """,
    )
    assert done.returncode == 0, done.stderr
    (limit, usage, left, version), (feature, cgroup) = (line.split() for line in done.stdout.splitlines())
    assert int(limit) == int(feature) == LIMIT_BYTES
    assert 10 * MB < int(usage) < LIMIT_BYTES
    assert LIMIT_BYTES - int(usage) <= int(left) < LIMIT_BYTES
    assert cgroup == f"v{version}"


def test_a_process_alone_in_a_limited_group_makes_groups_below_it(run_in_cgroup: Callable[..., Any]) -> None:
    # On v2 it moves into a leaf meanwhile, for a group with limits below it must be empty of processes.
    done = run_in_cgroup(
        LIMIT_BYTES,
        """
        import sys
        from droppable._cgroup import MemoryCgroup
        from droppable._cgroup_place import hierarchies, has_controller
        def here():
            return next(own for version, mount, own in hierarchies() if has_controller(version, mount))
        before = here()
        with MemoryCgroup.create(20 << 20) as first, MemoryCgroup.create(20 << 20) as second:
            assert first.path.parent == second.path.parent == before, (first.path, second.path, before)
            assert first.popen([sys.executable, "-c", f"b = b'x' * {40 << 20}"]).wait() == -9
            assert (first.oom_kills, second.oom_kills) == (1, 0)
        assert here() == before, here()
        print([path.name for path in before.iterdir() if path.is_dir()])
        """,
    )
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_a_group_that_would_escape_a_limit_is_refused(memory_cgroup: Make) -> None:
    group = memory_cgroup(LIMIT_BYTES)
    if group.version == 1:
        pytest.skip("cgroup v1 allows groups below one that holds processes, so there is always a place")
    start_waiting(group)
    code = "from droppable._cgroup import MemoryCgroup; MemoryCgroup.create(20 << 20)"
    child = group.popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    _, errors = child.communicate()
    assert child.returncode == 1
    assert "holds 1 other processes" in errors
    assert "would escape the limit" in errors
