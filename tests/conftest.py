"""Fixtures for every test: memory cgroups of one's own, and Python snippets that run inside them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from hypothesis import settings

from droppable import Region
from droppable._cgroup import CgroupUnavailableError, MemoryCgroup

SNIPPET_SECONDS = 300.0
MAX_PAGE_OUTS = 200

# No example has a deadline: on a busy machine, or one that is emulated, a pause of a second says nothing.
settings.register_profile("droppable", deadline=None)
settings.load_profile("droppable")


@dataclass(frozen=True)
class Confined:
    """What a snippet did in its cgroup, and what the cgroup saw of it."""

    returncode: int
    stdout: str
    stderr: str
    oom_kills: int
    peak_bytes: int | None


@pytest.fixture
def memory_cgroup() -> Iterator[Callable[..., MemoryCgroup]]:
    """`memory_cgroup(limit_bytes, swap_bytes=0)` makes a cgroup that goes with the test, or skips the test."""
    with ExitStack() as groups:

        def make(limit_bytes: int, swap_bytes: int = 0) -> MemoryCgroup:
            try:
                return groups.enter_context(MemoryCgroup.create(limit_bytes, swap_bytes))
            except CgroupUnavailableError as error:
                pytest.skip(str(error))

        yield make


@pytest.fixture
def run_in_cgroup(memory_cgroup: Callable[..., MemoryCgroup]) -> Callable[..., Confined]:
    """`run_in_cgroup(limit_bytes, code, *argv)` runs Python code, indented or not, in a cgroup of that size."""

    def run(limit_bytes: int, code: str, *argv: str, timeout_seconds: float = SNIPPET_SECONDS) -> Confined:
        with memory_cgroup(limit_bytes) as group:
            child = group.popen(
                [sys.executable, "-c", textwrap.dedent(code), *argv],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            stdout, stderr = child.communicate(timeout=timeout_seconds)
            return Confined(child.returncode, stdout, stderr, group.oom_kills, group.peak_bytes)

    return run


@pytest.fixture
def drop() -> Callable[..., None]:
    """`drop(region, start=0, stop=None)` drops the pages of a region for sure.

    The kernel skips a page that is referenced at the moment, or that waits in another processor's batch for its list:
    so again, and on each processor. A kernel without an exact census gets some rounds, and the test's own checks.
    """

    def drop_all(region: Region, start: int = 0, stop: int | None = None) -> None:
        processors = os.sched_getaffinity(0)
        try:
            for tries in range(MAX_PAGE_OUTS):
                for processor in processors:
                    os.sched_setaffinity(0, {processor})
                    region.page_out(start, stop)
                    census = region.census(start, stop)
                    if census.resident_pages == 0 or (not census.exact and tries > 5):
                        return
        finally:
            os.sched_setaffinity(0, processors)
        pytest.fail(f"the kernel keeps pages: {region.census(start, stop)}")

    return drop_all
