"""lowlevel.Mapping: one mapping of the C core's contract with the kernel, as a buffer."""

import os
import sys
import threading

import pytest

from droppable import ClosedError, UnsupportedError
from droppable.lowlevel import Mapping, page_size_bytes
from tests.smaps import smaps_of

PAGE = page_size_bytes()
BACKINGS = ("lazyfree", "droppable", "plain")


def make(backing: str, pages: int = 4, **options: bool) -> Mapping:
    try:
        return Mapping(pages * PAGE, backing, **options)  # type: ignore[arg-type]
    except UnsupportedError as error:
        pytest.skip(f"{backing}: {error}")


@pytest.fixture(params=BACKINGS)
def mapping(request: pytest.FixtureRequest) -> Mapping:
    return make(request.param)


def test_it_is_a_writable_buffer_of_zeros(mapping: Mapping) -> None:
    with memoryview(mapping) as view:
        assert (len(view), view.readonly, view.format) == (4 * PAGE, False, "B")
        assert bytes(view) == bytes(4 * PAGE)
        view[PAGE : PAGE + 5] = b"hello"
        assert bytes(view[PAGE : PAGE + 5]) == b"hello"
    assert len(mapping) == 4 * PAGE


def test_census_and_page_states_tell_the_three_states(mapping: Mapping) -> None:
    census = mapping.census()
    assert (census.pages, census.absent_pages) == (4, 4)
    if not census.exact:
        pytest.skip("no PAGEMAP_SCAN here: zero pages cannot be told from resident ones")
    with memoryview(mapping) as view:
        view[0] = 1
        assert view[2 * PAGE] == 0
    assert mapping.page_states() == bytes([1, 0, 2, 0])
    assert mapping.page_states(2 * PAGE, PAGE) == bytes([2])
    assert mapping.census() == (4, 1, 1, 2, True)


def test_purge_gives_zeros_and_only_where_asked(mapping: Mapping) -> None:
    with memoryview(mapping) as view:
        view[:] = b"x" * len(view)
        mapping.purge(PAGE, 2 * PAGE)
        assert bytes(view) == b"x" * PAGE + bytes(2 * PAGE) + b"x" * PAGE


@pytest.mark.parametrize("backing", ["lazyfree", "droppable"])
def test_marked_pages_are_dropped_by_page_out(backing: str) -> None:
    mapping = make(backing, 64)
    with memoryview(mapping) as view:
        view[:] = b"x" * len(view)
        mapping.mark()
        for _ in range(100):  # a page that is referenced at that moment is skipped: bounded retries
            mapping.page_out()
            if mapping.census().absent_pages == 64:
                break
        assert mapping.census().absent_pages == 64
        assert bytes(view) == bytes(len(view))


def test_a_pinned_lazyfree_page_stays() -> None:
    mapping = make("lazyfree", 8)
    with memoryview(mapping) as view:
        view[:] = b"x" * len(view)
        mapping.mark()
        mapping.pin(2 * PAGE + 100, 1)  # any bytes: the page that they touch
        for _ in range(10):
            mapping.page_out()
        assert bytes(view[2 * PAGE : 3 * PAGE]) == b"x" * PAGE


def test_cold_keeps_the_content(mapping: Mapping) -> None:
    with memoryview(mapping) as view:
        view[: 2 * PAGE] = b"x" * (2 * PAGE)
        mapping.cold()
        assert set(bytes(view[: 2 * PAGE])) <= {0, ord("x")}
        assert mapping.backing == "droppable" or bytes(view[: 2 * PAGE]) == b"x" * (2 * PAGE)


def child_reads(mapping: Mapping) -> int:
    """The first byte of the mapping in a forked child."""
    child = os.fork()
    if child == 0:
        os._exit(memoryview(mapping)[0])
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize(
    "backing, options, seen",
    [
        ("lazyfree", {}, 0),
        ("lazyfree", {"keep_on_fork": True}, 7),
        ("droppable", {}, 0),
        ("plain", {}, 7),
    ],
)
def test_fork(backing: str, options: dict[str, bool], seen: int) -> None:
    mapping = make(backing, **options)
    memoryview(mapping)[0] = 7
    assert child_reads(mapping) == seen
    assert memoryview(mapping)[0] == 7


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_content_changes_what_children_see() -> None:
    mapping = make("lazyfree")
    memoryview(mapping)[0] = 7
    mapping.fork_content(True)
    assert child_reads(mapping) == 7
    mapping.fork_content(False)
    assert child_reads(mapping) == 0


def test_droppable_cannot_be_kept_on_fork() -> None:
    with pytest.raises(UnsupportedError):
        make("droppable").fork_content(True)
    with pytest.raises(UnsupportedError):
        Mapping(PAGE, "droppable", keep_on_fork=True)


def test_dump_and_wipe_flags_reach_the_kernel() -> None:
    def vm_flags(mapping: Mapping) -> set[str]:
        return set(smaps_of(mapping.address)["VmFlags"].split())

    assert {"dd", "wf"} <= vm_flags(make("lazyfree", 3))
    assert not {"dd", "wf"} & vm_flags(make("lazyfree", 5, dumpable=True, keep_on_fork=True))
    assert {"dd", "wf", "dp"} <= vm_flags(make("droppable", 7))


@pytest.mark.parametrize("length", [0, -PAGE, 1, PAGE + 1, -(2**30)])
def test_lengths_that_are_no_pages_are_refused(length: int) -> None:
    with pytest.raises(ValueError, match="multiple"):
        Mapping(length)


def test_lengths_beyond_the_address_space_are_refused() -> None:
    with pytest.raises(MemoryError if sys.maxsize > 2**62 else OverflowError):
        Mapping(2**62)
    with pytest.raises(OverflowError):
        Mapping(2**80)


def test_unknown_backings_are_refused() -> None:
    with pytest.raises(ValueError, match="ordinary"):
        Mapping(PAGE, "ordinary")  # type: ignore[arg-type]


@pytest.mark.parametrize("part", [(1, PAGE), (0, 1), (-PAGE, PAGE), (4 * PAGE, PAGE), (0, 5 * PAGE), (0, 0)])
@pytest.mark.parametrize("method", ["mark", "purge", "page_out", "cold", "census", "page_states"])
def test_parts_that_are_no_pages_of_it_are_refused(method: str, part: tuple[int, int]) -> None:
    with Mapping(4 * PAGE) as mapping, pytest.raises(ValueError, match="offset"):
        getattr(mapping, method)(*part)


def test_close() -> None:
    mapping = Mapping(PAGE)
    view = memoryview(mapping)
    with pytest.raises(BufferError):
        mapping.close()
    view.release()
    assert not mapping.closed
    mapping.close()
    mapping.close()
    assert mapping.closed
    for call in (mapping.mark, mapping.pin, mapping.census, mapping.page_states, mapping.__enter__):
        with pytest.raises(ClosedError):
            call()
    with pytest.raises(ClosedError):
        memoryview(mapping)


def hammer(mapping: Mapping, start: threading.Barrier, failures: list[BaseException]) -> None:
    start.wait()
    try:
        for _ in range(1000):
            mapping.pin()
            mapping.mark()
    except ClosedError:
        pass
    except BaseException as error:
        failures.append(error)


def test_close_never_unmaps_under_a_running_call() -> None:
    """Threads call into the mapping while it is closed: each call works or says that it is closed."""
    for _ in range(50):
        mapping = Mapping(256 * PAGE)
        start = threading.Barrier(3)
        failures: list[BaseException] = []
        threads = [threading.Thread(target=hammer, args=(mapping, start, failures)) for _ in range(2)]
        for thread in threads:
            thread.start()
        start.wait()
        while not mapping.closed:
            try:
                mapping.close()
            except BufferError:
                pass
        for thread in threads:
            thread.join()
        assert failures == []
