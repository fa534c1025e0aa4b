"""What droppable memory promises (docs/promises.md), point by point, on the kernel that runs, with positive controls.

Each child is a process of its own; where it is confined, the cgroup is

<mount>/droppable-<pid>-<token>     50 to 100 MB, no swap     expected: oom_kill = 0, but for the one test that says so

What needs a machine of one's own (swap, reclaim of the whole machine, overcommit 2) is in tests/kernels.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import platform
import re
import resource
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from droppable import Dropped, Region, UnsupportedError
from droppable._cgroup import MemoryCgroup
from droppable.lowlevel import page_size_bytes
from tests.smaps import smaps_of

PAGE = page_size_bytes()
MB = 1 << 20
GB = 1 << 30
SIXTY_FOUR_BITS = sys.maxsize > 1 << 32
CHILD_SECONDS = 300.0
NOBODY = 65534
MADV_HUGEPAGE = 14
Drop = Callable[..., None]
COMBINATIONS = [
    ("zero", "lazyfree"),
    ("zero", "droppable"),
    ("raise", "lazyfree"),
    ("raise", "droppable"),
    ("signal", "lazyfree"),
]
# CVE-2026-31398: lazyfree huge pages and partial protection, fixed in 6.18.20 and 6.19.10
RELEASE = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:3])
HUGE_LAZYFREE_IS_BROKEN = (6, 15) <= RELEASE < (6, 18, 20) or (6, 19) <= RELEASE < (6, 19, 10)


@pytest.fixture(params=COMBINATIONS, ids="-".join)
def combination(request: pytest.FixtureRequest) -> tuple[Any, Any]:
    on_drop, backing = request.param
    try:
        Region(PAGE, on_drop, backing).close()
    except UnsupportedError as error:
        pytest.skip(str(error))
    return on_drop, backing


def run(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=CHILD_SECONDS,
        **options,
    )


# The patterns are written 8 bytes at a time, so that no 64 bytes of one ever stand together in memory of another kind.
CORE = f"""
import hashlib, os, resource, sys
from droppable import Region

def piece(name, at):
    return hashlib.sha256(b"%s %d" % (name, at)).digest()[:8]

region = Region({4 * PAGE}, sys.argv[1], sys.argv[2])
if sys.argv[1] == "signal":
    region.refill(0, bytes({4 * PAGE}))
ordinary = bytearray({4 * PAGE})
for at in range(0, {4 * PAGE}, 8):
    region[at : at + 8] = piece(b"region", at)
    ordinary[at : at + 8] = piece(b"ordinary", at)
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
os.abort()
"""


def pattern(name: bytes, at: int) -> bytes:
    return b"".join(hashlib.sha256(b"%s %d" % (name, at + i)).digest()[:8] for i in range(0, 64, 8))


def test_never_in_a_core_dump(combination: tuple[str, str], tmp_path: Path) -> None:
    core_pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    limit = resource.getrlimit(resource.RLIMIT_CORE)[1]
    if core_pattern.startswith(("|", "/")) or limit != resource.RLIM_INFINITY:
        pytest.skip(f"no core in the working directory here: core_pattern is {core_pattern!r}, its limit {limit}")
    done = run(CORE, *combination, cwd=tmp_path)
    assert done.returncode == -signal.SIGABRT, done.stderr
    cores = list(tmp_path.iterdir())
    assert len(cores) == 1
    with cores[0].open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as core:
        for at in range(0, 4 * PAGE, PAGE // 2):
            assert core.find(pattern(b"ordinary", at)) >= 0, "the control is not in the core: the search proves nothing"
            assert core.find(pattern(b"region", at)) < 0
    cores[0].unlink()


def test_the_kernel_knows_the_promises(combination: tuple[Any, Any]) -> None:
    region = Region(PAGE, *combination)
    flags = smaps_of(region.address)["VmFlags"].split()
    assert {"dd", "wf", "nr"} <= set(flags)  # not in core dumps, wiped on fork, not reserved
    assert ("dp" in flags) == (combination[1] == "droppable")


UNPRIVILEGED = f"""
import ctypes, mmap, os, resource, sys
from droppable import Dropped, Region

resource.setrlimit(resource.RLIMIT_MEMLOCK, (0, 0))
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
    os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
ordinary = mmap.mmap(-1, {PAGE})
libc = ctypes.CDLL(None, use_errno=True)
address = ctypes.addressof(ctypes.c_char.from_buffer(ordinary))
print("control", libc.mlock(ctypes.c_void_p(address), ctypes.c_size_t({PAGE})))
region = Region({64 * MB}, sys.argv[1], sys.argv[2])
data = os.urandom({MB})
for start in range(0, {64 * MB}, {MB}):
    region.write(start, data)
assert region.read({7 * MB}, {8 * MB}) == data
if sys.argv[2] == "lazyfree":
    with region.pin(0, {8 * MB}) as view:
        assert view[:{MB}] == data
for _ in range(100):
    region.page_out()
    if region.census().resident_pages == 0:
        break
try:
    print("read", region.read(0, {PAGE}) == bytes({PAGE}))
except Dropped as error:
    print("Dropped", error.offsets)
print([line.split()[1] for line in open("/proc/self/status") if line.startswith("VmLck")])
"""


def test_nothing_counts_against_mlock_and_no_privilege_is_needed(combination: tuple[str, str]) -> None:
    done = run(UNPRIVILEGED, *combination)
    assert done.returncode == 0, done.stderr
    control, result, locked = done.stdout.splitlines()
    assert control == "control -1", "the control could lock memory: the limit proves nothing"
    assert result == ("read True" if combination[0] == "zero" else f"Dropped ((0, {PAGE}),)")
    assert locked == "['0']"


@pytest.mark.skipif(not SIXTY_FOUR_BITS, reason="a 32-bit process has no room for it")
def test_larger_than_ram(combination: tuple[Any, Any]) -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    length = (4 * total) // PAGE * PAGE
    before = resident_bytes()
    with Region(length, *combination) as region:
        for start in (0, length // 2 // PAGE * PAGE, length - PAGE):
            region.write(start, b"far" * (PAGE // 3) + b"!" * (PAGE % 3))
            assert region.read(start, start + 3) == b"far"
        assert resident_bytes() - before < 64 * MB
        region.settle(length - PAGE, length)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def committed_bytes() -> int:
    match = re.search(r"Committed_AS:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    assert match
    return int(match[1]) * 1024


@pytest.mark.skipif(not SIXTY_FOUR_BITS, reason="a 32-bit process has no room for it")
def test_nothing_is_reserved(combination: tuple[Any, Any]) -> None:
    if Path("/proc/sys/vm/overcommit_memory").read_text().strip() == "2" and combination[1] == "lazyfree":
        pytest.skip(
            "with overcommit 2 the kernel reserves for MAP_NORESERVE too; only MAP_DROPPABLE keeps this promise"
        )
    for _ in range(5):  # the machine's figure moves with everybody's doings
        before = committed_bytes()
        with mmap.mmap(-1, GB, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS):
            control = committed_bytes() - before
        before = committed_bytes()
        with Region(64 * GB, *combination):
            grown = committed_bytes() - before
        if control > 900 * MB and grown < 512 * MB:
            return
    pytest.fail(f"1 GB of ordinary memory reserved {control}, a 64 GB region {grown} bytes")


def test_a_refusal_by_rlimit_as_is_clear(combination: tuple[str, str]) -> None:
    done = run(
        f"""
        import resource, sys
        from droppable import Region
        resource.setrlimit(resource.RLIMIT_AS, ({GB}, {GB}))
        region = Region({16 * MB}, sys.argv[1], sys.argv[2])
        for call in (lambda: Region({GB}, sys.argv[1], sys.argv[2]), lambda: region.resize({GB})):
            try:
                call()
            except MemoryError as error:
                print(error)
        region.write(0, b"as before")
        assert region.read(0, 9) == b"as before"
        """,
        *combination,
    )
    assert done.returncode == 0, done.stderr
    assert len(re.findall("raise RLIMIT_AS", done.stdout)) == 2


@pytest.mark.skipif(not SIXTY_FOUR_BITS, reason="a 32-bit process has no room for it")
def test_over_4_gib(drop: Drop, combination: tuple[Any, Any]) -> None:
    border = 4 * GB
    data = os.urandom(4 * PAGE)
    with Region(5 * GB, *combination) as region:
        region.write(border - 2 * PAGE, data)
        region.write(0, data)
        assert region.read(border - 2 * PAGE, border + 2 * PAGE) == data
        drop(region, border - PAGE, border + PAGE)
        assert region.dropped_pages(border - 4 * PAGE, border + 4 * PAGE) == ((border - PAGE, border + PAGE),)
        if combination[0] == "zero":
            assert region.read(border, border + PAGE) == bytes(PAGE)
        else:
            with pytest.raises(Dropped) as caught:
                region.read(border - 2 * PAGE, border + 2 * PAGE)
            assert caught.value.offsets == ((border - PAGE, border + PAGE),)
        assert region.read(0, 4 * PAGE) == data
        region.resize(border + 64 * PAGE)
        assert region.read(border + PAGE, border + 2 * PAGE) == data[3 * PAGE :]


def test_huge_pages_are_off(combination: tuple[Any, Any]) -> None:
    with Region(8 * MB, *combination) as region:
        region.write(0, b"h" * 8 * MB)
        fields = smaps_of(region.address)
        assert fields.get("AnonHugePages", "0 kB") == "0 kB"
        if Path("/sys/kernel/mm/transparent_hugepage").exists():
            assert "nh" in fields["VmFlags"].split()


@pytest.mark.skipif(HUGE_LAZYFREE_IS_BROKEN, reason="this kernel has CVE-2026-31398: huge lazyfree pages are not safe")
def test_huge_pages_switched_on_go_whole_and_are_told(drop: Drop, combination: tuple[Any, Any]) -> None:
    with Region(16 * MB, *combination) as region:
        libc = ctypes.CDLL(None)
        if libc.madvise(ctypes.c_void_p(region.address), ctypes.c_size_t(16 * MB), MADV_HUGEPAGE) != 0:
            pytest.skip("this kernel has no huge pages")
        data = os.urandom(16 * MB)
        if combination[0] == "zero":
            with region.writing() as view:
                view[:] = data
        else:
            region.write(0, data)
        if combination[0] != "signal" and smaps_of(region.address).get("AnonHugePages") == "0 kB":
            pytest.skip("the kernel gave no huge page")  # signal mode fills small pages
        assert region.read() == data
        drop(region, 0, 16 * MB)
        assert region.dropped_pages() == ((0, 16 * MB),)
        region.write(5 * MB, data[: 2 * MB])
        assert region.read(5 * MB, 7 * MB) == data[: 2 * MB]
        if combination[0] == "zero":
            assert region.read(0, MB) == bytes(MB)
        else:
            with pytest.raises(Dropped):
                region.read(0, MB)


STREAM = f"""
import sys
from droppable import Region
region = Region({400 * MB}, sys.argv[1], sys.argv[2])
data = bytes(range(1, 256)) * ({MB} // 255) + b"x" * ({MB} % 255)
for start in range(0, {400 * MB}, {MB}):
    region.write(start, data)
print(region.census().resident_pages * {PAGE})
"""


def test_the_limit_of_a_cgroup_takes_what_it_needs_and_no_more(
    combination: tuple[str, str], run_in_cgroup: Callable[..., Any]
) -> None:
    """400 MB through 100 MB. Marked pages: about 85 MB live beside the interpreter; unmarked MAP_DROPPABLE kept 2."""
    done = run_in_cgroup(100 * MB, STREAM, *combination)
    assert (done.returncode, done.oom_kills) == (0, 0), done.stderr
    assert 60 * MB < int(done.stdout) < 100 * MB


VERIFY = f"""
import hashlib, sys
from droppable import Dropped, Region
mode, backing = sys.argv[1:]
region = Region({128 * MB}, mode, backing)
def content(number, generation):
    return hashlib.sha256(b"%d %d" % (number, generation)).digest() * {PAGE // 32}
pages = {128 * MB // PAGE}
good = gone = wrong = 0
for generation in range(2):
    for number in range(pages):
        region.write(number * {PAGE}, content(number, generation))
        old = number * 7919 % (number + 1)
        try:
            got = region.read(old * {PAGE}, (old + 1) * {PAGE})
        except Dropped:
            gone += 1
            continue
        if got == content(old, generation):
            good += 1
        elif mode == "zero" and got == bytes({PAGE}):
            gone += 1
        else:
            wrong += 1
print(good, gone, wrong)
"""


def test_no_wrong_byte_under_pressure(combination: tuple[str, str], run_in_cgroup: Callable[..., Any]) -> None:
    done = run_in_cgroup(64 * MB, VERIFY, *combination)
    assert (done.returncode, done.oom_kills) == (0, 0), done.stderr
    good, gone, wrong = map(int, done.stdout.split())
    assert wrong == 0
    assert good > 0
    assert gone > 0


RECLAIMED = f"""
import sys
from droppable import Dropped, Region
mode, backing, group, version = sys.argv[1:]
region = Region({32 * MB}, mode, backing)
region.write(0, b"r" * {32 * MB})
region.settle()
before = region.census().resident_pages
try:
    if version == "2":
        open(group + "/memory.reclaim", "w").write("{64 * MB}")
    else:
        open(group + "/memory.force_empty", "w").write("0")
except FileNotFoundError:
    print("no memory.reclaim")
    sys.exit()
except OSError:
    pass  # EAGAIN: there was less to take than was asked for
census = region.census()
print(before, census.resident_pages, census.dropped_pages)
"""


def test_reclaim_on_demand(combination: tuple[str, str], memory_cgroup: Callable[..., MemoryCgroup]) -> None:
    """memory.reclaim of cgroup v2 (Linux 5.19), memory.force_empty of v1: all that is settled can be taken at once."""
    with memory_cgroup(100 * MB) as group:
        child = group.popen(
            [sys.executable, "-c", RECLAIMED, *combination, str(group.path), str(group.version)],
            stdout=subprocess.PIPE,
            text=True,
        )
        output, _ = child.communicate(timeout=CHILD_SECONDS)
    assert child.returncode == 0
    if output.startswith("no"):
        pytest.skip("this kernel has no memory.reclaim")
    before, after, dropped = map(int, output.split())
    assert before == 32 * MB // PAGE
    assert after < before // 2
    assert dropped == before - after


FULL = f"""
import mmap, sys
from droppable import Region
mode, backing, group, version = sys.argv[1:]
usage = open(group + ("/memory.current" if version == "2" else "/memory.usage_in_bytes"))
def used():
    usage.seek(0)
    return int(usage.read())
region = Region({32 * MB}, mode, backing)
data = b"f" * {PAGE}
region.write(0, data)
ordinary = mmap.mmap(-1, {50 * MB}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
at = 0
print("filling", flush=True)
while used() < {50 * MB} - int(sys.argv[5]) and at < {50 * MB}:
    ordinary[at] = 1
    at += {PAGE}
print("full", flush=True)
for start in range(0, {32 * MB}, {PAGE}):
    region.write(start, data)
print("lived", flush=True)
"""
FULL = FULL.replace("mode, backing, group, version = sys.argv[1:]", "mode, backing, group, version = sys.argv[1:5]")


def run_full(
    combination: tuple[str, str], memory_cgroup: Callable[..., MemoryCgroup], room_bytes: int
) -> tuple[int, list[str], int]:
    with memory_cgroup(50 * MB) as group:
        child = group.popen(
            [sys.executable, "-c", FULL, *combination, str(group.path), str(group.version), str(room_bytes)],
            stdout=subprocess.PIPE,
            text=True,
        )
        output, _ = child.communicate(timeout=CHILD_SECONDS)  # a hang would be a failure
        return child.returncode, output.split(), group.oom_kills


def test_a_cgroup_nearly_full_of_ordinary_memory_lets_writes_live(
    combination: tuple[str, str], memory_cgroup: Callable[..., MemoryCgroup]
) -> None:
    """3 MB of 50 are left: 32 MB of writes go on, since each takes the place of a page that was settled before."""
    assert run_full(combination, memory_cgroup, 3 * MB) == (0, ["filling", "full", "lived"], 0)


def test_a_fault_with_no_memory_left_never_hangs(
    combination: tuple[str, str], memory_cgroup: Callable[..., MemoryCgroup]
) -> None:
    """Filled to the last page: the writer lives, or the OOM killer of its cgroup says so. Nothing between, and no hang.

    Which of them depends on whether a settled page is left to take; the caches keep away from this edge, a region does
    not.
    """
    returncode, words, oom_kills = run_full(combination, memory_cgroup, 0)
    if returncode == 0:
        assert (words[-1], oom_kills) == ("lived", 0)
    else:
        assert returncode == -signal.SIGKILL
        assert oom_kills == 1
    print(f"{combination}: {'lived' if returncode == 0 else 'killed'} after {words}")


BARE = f"""
import ctypes, mmap, sys
from droppable import Region
backing, group, version = sys.argv[1:]
usage = open(group + ("/memory.current" if version == "2" else "/memory.usage_in_bytes"))
def used():
    usage.seek(0)
    return int(usage.read())
region = Region({32 * MB}, "zero", backing)
ctypes.memset(region.address, 1, {8 * MB})
region.settle(0, {8 * MB})
ordinary = mmap.mmap(-1, {50 * MB}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
at = 0
while used() < {49 * MB} and at < {50 * MB}:
    ordinary[at] = 1
    at += {PAGE}
print("full", flush=True)
ctypes.memset(region.address, 1, {32 * MB})
print("lived", flush=True)
"""


@pytest.mark.parametrize("backing", ["lazyfree", "droppable"])
def test_bare_writes_beyond_the_room_live_on_droppable_only(
    backing: str, memory_cgroup: Callable[..., MemoryCgroup]
) -> None:
    """1 MB of 50 is left, 8 MB are settled, 32 MB are written through a bare view, with no settling between.

    MAP_DROPPABLE gives its own pages, written or not, to its own faults; on lazyfree what is not settled is ordinary
    memory, and the cgroup's OOM killer comes.
    """
    try:
        Region(PAGE, backing=backing).close()  # type: ignore[arg-type]
    except UnsupportedError as error:
        pytest.skip(str(error))
    with memory_cgroup(50 * MB) as group:
        child = group.popen(
            [sys.executable, "-c", BARE, backing, str(group.path), str(group.version)],
            stdout=subprocess.PIPE,
            text=True,
        )
        output, _ = child.communicate(timeout=CHILD_SECONDS)
        lived = backing == "droppable"
        assert (child.returncode, group.oom_kills) == ((0, 0) if lived else (-signal.SIGKILL, 1))
        assert output.split() == (["full", "lived"] if lived else ["full"])
