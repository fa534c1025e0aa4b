"""Fixtures for every test: memory cgroups of one's own, and Python snippets that run inside them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from droppable import Region
from droppable._cgroup import CgroupUnavailableError, MemoryCgroup

if TYPE_CHECKING:
    from tests.server import Server

SNIPPET_SECONDS = 300.0
EMULATED_SNIPPET_SECONDS = 1200.0
EMULATED_EXAMPLES = 10  # each tenth
MAX_PAGE_OUTS = 200
RESIDENT = 1  # of Region.page_states()

# A shell has what it starts in the background ignore SIGINT, and nohup SIGHUP; so would all that is started here, and
# programs that tests interrupt would go on for ever. What has a handler is at its default again after exec().
for _number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, lambda *_: None)

# No example has a deadline: on a busy machine, or one that is emulated, a pause of a second says nothing.
settings.register_profile("droppable", deadline=None)
settings.load_profile("droppable")

NO_KERNEL = "asks nothing of the kernel that other tests here do not, and computes for long"
MANY_STARTS = "starts the interpreter or a server again and again; others that do are run"
SOCKETS = "asks nothing of the kernel but sockets; test_serve_attach.py and test_connect_sandbox.py are run"
TOO_LONG = "the same at this size takes minutes; other sizes are run"

# What `--emulated` leaves out: the start of a test's name, and why. The kernel matrix (tests/kernels) prints it. State
# machines run a part of their examples.
LEFT_OUT = {
    "tests/unit/test_layering.py": "reads the source",
    "tests/unit/test_public_face.py": "reads the package's names",
    "tests/unit/test_docs.py": "reads the documentation",
    "tests/unit/test_model.py": "the model alone; test_model_against_kernel is run",
    "tests/unit/test_replay.py": "the model alone; test_model_against_kernel is run",
    "tests/unit/test_keys.py": NO_KERNEL,
    "tests/unit/test_flight.py": NO_KERNEL,
    "tests/unit/test_flight_bytecodes.py::test_nobody_hangs": NO_KERNEL,
    "tests/unit/test_flight_bytecodes.py::test_the_last_one": NO_KERNEL,
    "tests/unit/test_flight_programs.py": "starts the interpreter again and again; test_no_child_hangs is run",
    "tests/unit/test_values.py": NO_KERNEL,
    "tests/unit/test_memo.py": NO_KERNEL,
    "tests/unit/test_cli.py": MANY_STARTS,
    "tests/unit/test_objects.py": NO_KERNEL,
    "tests/unit/test_random_numpy.py": NO_KERNEL,
    "tests/unit/test_testing.py::test_the_plugin_reports_its_seeds_and_repeats": NO_KERNEL,
    "tests/unit/test_installed.py": "reads the source",
    "tests/unit/test_mutants.py": "reads the source",
    "tests/unit/test_arguments.py": NO_KERNEL,
    "tests/unit/test_bench_traces.py": NO_KERNEL,
    "tests/unit/test_chunked.py": NO_KERNEL,
    "tests/unit/test_decorator_control.py": NO_KERNEL,
    "tests/unit/test_decorator_methods.py": NO_KERNEL,
    "tests/unit/test_decorator_stale.py": NO_KERNEL,
    "tests/unit/test_disable.py": NO_KERNEL,
    "tests/unit/test_first_mistakes.py": NO_KERNEL,
    "tests/unit/test_keys_redefined.py": NO_KERNEL,
    "tests/unit/test_many.py": NO_KERNEL,
    "tests/unit/test_mapping.py": NO_KERNEL,
    "tests/unit/test_metrics.py": NO_KERNEL,
    "tests/unit/test_named.py": NO_KERNEL,
    "tests/unit/test_namespace.py": NO_KERNEL,
    "tests/unit/test_replaced_results.py": NO_KERNEL,
    "tests/unit/test_replay_command.py": NO_KERNEL,
    "tests/unit/test_replay_trace.py": NO_KERNEL,
    "tests/unit/test_scopes.py": NO_KERNEL,
    "tests/unit/test_second_call.py": NO_KERNEL,
    "tests/unit/test_tiers.py": NO_KERNEL,
    "tests/unit/test_tiers_edges.py": NO_KERNEL,
    "tests/unit/test_tiers_interrupts.py": NO_KERNEL,
    "tests/unit/test_unloadable.py": NO_KERNEL,
    "tests/unit/test_update.py": NO_KERNEL,
    "tests/unit/test_connect_async.py": NO_KERNEL,
    "tests/unit/test_connect_decorator.py": NO_KERNEL,
    "tests/unit/test_connect_namespace.py": NO_KERNEL,
    "tests/unit/test_serve_differential.py": NO_KERNEL,
    "tests/unit/test_serve_redis_differential.py": NO_KERNEL,
    "tests/unit/test_serve_replies.py": NO_KERNEL,
    "tests/unit/test_serve_resp.py": NO_KERNEL,
    "tests/unit/test_serve_values.py": NO_KERNEL,
    "tests/unit/test_closed.py": NO_KERNEL,
    "tests/unit/test_demo.py": MANY_STARTS,
    "tests/unit/test_examples.py": MANY_STARTS,
    "tests/unit/test_import.py": MANY_STARTS,
    "tests/unit/test_interpreters.py": MANY_STARTS,
    "tests/unit/test_no_memory.py": MANY_STARTS,
    "tests/unit/test_serve_docs.py": MANY_STARTS,
    "tests/unit/test_serve_exporters.py": MANY_STARTS,
    "tests/unit/test_serve_ring.py": MANY_STARTS,
    "tests/unit/test_connect.py": MANY_STARTS,
    "tests/unit/test_connect_hostile.py": SOCKETS,
    "tests/unit/test_connect_near.py": SOCKETS,
    "tests/unit/test_connect_updating.py": SOCKETS,
    "tests/unit/test_serve.py": SOCKETS,
    "tests/unit/test_serve_hostile.py": SOCKETS,
    "tests/unit/test_serve_tracking.py": SOCKETS,
    "tests/unit/test_dask_memory.py": NO_KERNEL,
    "tests/unit/test_turn.py": NO_KERNEL,
    "tests/property/test_chunked.py": NO_KERNEL,
    "tests/property/test_decorator_and_tiers.py": NO_KERNEL,
    "tests/property/test_random.py": NO_KERNEL,
    "tests/pressure/test_cache_pressure.py::test_a_gigabyte_through_a_tenth_of_it[lazyfree-1000]": TOO_LONG,
    "tests/pressure/test_cache_pressure.py::test_a_gigabyte_through_a_tenth_of_it[droppable-1000]": TOO_LONG,
    "tests/pressure/test_cache_pressure.py::test_a_gigabyte_through_a_tenth_of_it[lazyfree-1048576]": TOO_LONG,
    "tests/pressure/test_cache_pressure.py::test_a_gigabyte_through_a_tenth_of_it[droppable-1048576]": TOO_LONG,
    "tests/pressure/test_cache_pressure.py::test_a_wave_of_ordinary_memory": "nobody takes memory fast there",
    "tests/pressure/test_demo_pressure.py": "the demo at its full size takes an hour",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--emulated", action="store_true", help="leave out what an emulated machine has no time for")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--emulated"):
        return
    for item in items:
        machine = getattr(item, "cls", None)
        if isinstance(examples := getattr(machine, "settings", None), settings):  # hypothesis' state machines
            machine.settings = settings(examples, max_examples=max(1, examples.max_examples // EMULATED_EXAMPLES))
        for start, reason in LEFT_OUT.items():
            if item.nodeid.startswith(start):
                item.add_marker(pytest.mark.skip(reason=f"left out on an emulated machine: {reason}"))


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
def run_in_cgroup(
    memory_cgroup: Callable[..., MemoryCgroup], request: pytest.FixtureRequest
) -> Callable[..., Confined]:
    """`run_in_cgroup(limit_bytes, code, *argv)` runs Python code, indented or not, in a cgroup of that size."""
    emulated = request.config.getoption("--emulated")
    timeout_seconds = EMULATED_SNIPPET_SECONDS if emulated else SNIPPET_SECONDS

    def run(limit_bytes: int, code: str, *argv: str) -> Confined:
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
def mglru() -> bool:
    """Whether reclaim here is the multi-generational LRU, which tells the age of a page less exactly."""
    try:
        return bool(int(Path("/sys/kernel/mm/lru_gen/enabled").read_text(), 16) & 1)
    except FileNotFoundError:
        return False


@pytest.fixture
def drop() -> Callable[..., None]:
    """`drop(region, start=0, stop=None)` drops the pages of a region for sure.

    The kernel skips a page that is referenced at the moment, or that waits in another processor's batch for its list:
    so again, and on each processor.
    """

    def drop_all(region: Region, start: int = 0, stop: int | None = None) -> None:
        processors = os.sched_getaffinity(0)
        try:
            for _ in range(MAX_PAGE_OUTS):
                for processor in processors:
                    os.sched_setaffinity(0, {processor})
                    region.page_out(start, stop)
                    if RESIDENT not in region.page_states(start, stop):
                        return
        finally:
            os.sched_setaffinity(0, processors)
        pytest.fail(f"the kernel keeps pages: {region.census(start, stop)}")

    return drop_all


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of this test alone."""
    from tests.server import Server

    server = Server(tmp_path / "socket")
    yield server
    server.kill()
