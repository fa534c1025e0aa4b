"""`droppable.features()` against what this machine says when it is asked another way."""

import builtins
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import droppable
from droppable._cgroup import current
from droppable._features import ERRNO_ENOTSUPP
from droppable.lowlevel import Mapping, UnsupportedError, headroom, page_size_bytes, probe

NAMES = [
    "kernel",
    "lazyfree",
    "map_droppable",
    "page_out",
    "cold",
    "wipe_on_fork",
    "signal",
    "pagemap_scan",
    "vdso_getrandom",
    "lru",
    "swap_bytes",
    "cgroup",
    "memory_limit_bytes",
    "memory_left_bytes",
    "page_size_bytes",
    "overcommit",
    "libc",
    "python",
    "free_threading",
    "address_bits",
]


def kernel_version() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(digit for digit in minor if digit.isdigit()))


def accepts(backing: str) -> bool:
    try:
        Mapping(page_size_bytes(), backing).close()  # type: ignore[arg-type]
    except UnsupportedError:
        return False
    return True


def test_the_names_and_their_order_are_these() -> None:
    assert [feature.name for feature in droppable.features()] == NAMES


def test_each_absence_has_a_reason() -> None:
    for feature in droppable.features():
        assert feature.available or feature.reason, feature


def test_one_by_name_or_a_key_error_that_tells_the_names() -> None:
    features = droppable.features()
    assert features["lru"] is features.items[NAMES.index("lru")]
    assert len(features) == len(NAMES)
    with pytest.raises(KeyError, match="no feature 'ksm'; there are kernel, lazyfree"):
        features["ksm"]


def test_backings_are_as_mapping_finds_them() -> None:
    features = droppable.features()
    assert features["map_droppable"].available == accepts("droppable")
    if struct.calcsize("P") == 8 and kernel_version() >= (6, 11):
        assert features["map_droppable"].available
    with Mapping(page_size_bytes()) as mapping, memoryview(mapping) as memory:
        memory[0] = 1
        mapping.mark()
        assert memory[0] == 1 or not features["lazyfree"].available
    assert features["lazyfree"].available


def test_pagemap_scan_is_as_a_census_finds_it() -> None:
    with Mapping(page_size_bytes()) as mapping:
        assert droppable.features()["pagemap_scan"].available == mapping.census().exact


def test_vdso_getrandom_is_there_on_kernels_that_have_it() -> None:
    feature = droppable.features()["vdso_getrandom"]
    if os.uname().machine == "x86_64" and struct.calcsize("P") == 8:
        assert feature.available == (kernel_version() >= (6, 11)), feature
    else:
        assert feature.available or "vDSO" in feature.reason


def test_the_machine_is_as_proc_says() -> None:
    features = droppable.features()
    meminfo = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
    assert features["swap_bytes"].value == int(meminfo["SwapTotal"].split()[0]) * 1024
    assert features["swap_bytes"].available == (features["swap_bytes"].value != 0)
    assert features["page_size_bytes"].value == os.sysconf("SC_PAGE_SIZE")
    assert features["address_bits"].value == struct.calcsize("P") * 8
    assert features["lru"].value in ("classic", "mglru")
    assert str(features["python"].value).endswith(sys.version.split()[0])
    assert os.uname().release in str(features["kernel"].value)


def test_memory_left_is_within_the_machine() -> None:
    features = droppable.features()
    machine_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    left_bytes = features["memory_left_bytes"].value
    assert isinstance(left_bytes, int)
    assert 0 < left_bytes <= machine_bytes * 2
    limit = current()
    assert 0 < limit.limit_bytes <= machine_bytes
    assert limit.version in (0, 1, 2)
    assert (limit.version != 0) == features["memory_limit_bytes"].available
    assert limit.limit_bytes == headroom().limit_bytes


def test_threads_may_ask_at_once() -> None:
    answers: list[tuple[bool, ...]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(tuple(f.available for f in droppable.features())))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 4
    assert len(set(answers)) == 1


@pytest.mark.parametrize("error, words", [(ERRNO_ENOTSUPP, "32-bit kernels"), (22, "Linux 6.11")])
def test_droppable_says_why_not(monkeypatch: pytest.MonkeyPatch, error: int, words: str) -> None:
    monkeypatch.setattr("droppable._features.probe", lambda name: (False, "call_failed", error))
    features = droppable.features()
    assert not features["map_droppable"].available
    assert words in features["map_droppable"].reason
    assert "MAP_DROPPABLE" in features["map_droppable"].reason


@pytest.mark.parametrize("finding, words", [("lost_at_once", "gone at once"), ("never_dropped", "no page was dropped")])
def test_a_sandbox_that_only_pretends_is_told(monkeypatch: pytest.MonkeyPatch, finding: str, words: str) -> None:
    monkeypatch.setattr("droppable._features.probe", lambda name: (False, finding, 0))
    assert words in droppable.features()["lazyfree"].reason


def test_an_unknown_probe_is_an_error() -> None:
    with pytest.raises(ValueError, match="'ksm'"):
        probe("ksm")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="str"):
        probe(1)  # type: ignore[arg-type]


def test_a_kernel_that_is_new_enough_is_not_told_to_be_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("droppable._features.probe", lambda name: (False, "call_failed", 0))
    for release, words in (("6.18.4-rc1", "it is refused or hidden"), ("5.10.0", "it came with Linux 6.7, this is")):
        kernel = SimpleNamespace(sysname="Linux", release=release, machine="x86_64")
        monkeypatch.setattr("droppable._features.KERNEL", kernel)
        assert words in droppable.features()["pagemap_scan"].reason


@pytest.mark.parametrize("hidden", [OSError(24, "Too many open files"), ImportError("no module")])
def test_nothing_is_raised_where_modules_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch, hidden: Exception) -> None:
    def refuse(name: str, *args: object, **kwargs: object) -> object:
        if name == "droppable._cgroup":
            raise hidden
        return importing(name, *args, **kwargs)  # type: ignore[arg-type]

    importing = builtins.__import__
    monkeypatch.setattr("builtins.__import__", refuse)
    features = droppable.features()
    monkeypatch.undo()
    assert [feature.name for feature in features] == NAMES
    for name in ("cgroup", "memory_limit_bytes", "memory_left_bytes"):
        assert not features[name].available
        assert str(hidden) in features[name].reason


def test_the_first_call_of_all_tells_that_no_descriptors_are_left() -> None:
    code = """
import os, resource, droppable
resource.setrlimit(resource.RLIMIT_NOFILE, (64, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
opened = []
try:
    while True:
        opened.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
limit = droppable.features()["memory_limit_bytes"]
for fd in opened:
    os.close(fd)
assert not limit.available and "caches stay small" in limit.reason and "cannot be read" in limit.reason, limit
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_limit_that_cannot_be_read_is_told() -> None:
    """In a child whose descriptors are used up; nothing is raised, and when they are back all is read again."""
    code = """
import os, resource, droppable
from droppable._cgroup import current
droppable.features()
before = current().unread
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
opened = []
resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
try:
    while True:
        opened.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
features = droppable.features()
limit, left = features["memory_limit_bytes"], features["memory_left_bytes"]
for fd in opened:
    os.close(fd)
assert not limit.available and not left.available, (limit, left)
assert "EMFILE" in limit.reason and "/proc/self/cgroup" in limit.reason, limit
assert current().unread == before
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_locked_memory_is_told_as_the_cause(run_python: Callable[..., str]) -> None:
    """With mlockall(MCL_FUTURE) the kernel answers as one that has no MADV_FREE."""
    told = run_python(
        """
        import ctypes
        import droppable
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.mlockall(2) != 0:
            print("refused")
        else:
            for make in (droppable.Cache, lambda: droppable.Region(1 << 16, "raise")):
                try:
                    make()
                except droppable.UnsupportedError as error:
                    print(error)
            print(droppable.features()["lazyfree"].reason)
        """
    )
    if told.strip() == "refused":
        pytest.skip("mlockall is refused here (RLIMIT_MEMLOCK)")
    cache, region, feature = told.splitlines()
    for words in (cache, region):
        assert "this process locks its memory (mlockall)" in words
        assert "munlockall()" in words
    assert "this process has called mlockall" in feature
