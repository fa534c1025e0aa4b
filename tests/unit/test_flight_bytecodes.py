"""At every bytecode of the single flight in turn: an exception, a call that comes back into it, a fork.

A signal handler, a finaliser, a weak reference's callback or a profile hook may run between any two bytecodes. Each
role below is one way through the code. It is run once for each bytecode on that way, and something happens there; then
another thread and another loop ask for the same key and for a new one, and nobody hangs. What was raised is kept with
its frames, as programs do.
"""

from __future__ import annotations

import asyncio
import dis
import functools
import gc
import itertools
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import droppable._flight
from droppable import Cache
from droppable._flight import Flights, tasks
from droppable._flight.keeping import DEFAULT
from droppable.lowlevel import EncodedKey

WAIT_SECONDS = 30.0  # only a hang takes that long
# An interrupt between a coroutine and its task, or in a callback of the loop, is told in these ways.
pytestmark = [
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
FOLDER = str(Path(droppable._flight.__file__).parent)
TRACES_OPCODES = sys.version_info < (3, 12)  # later ones have sys.monitoring, and 3.12.1 does not trace opcodes


@pytest.fixture(scope="module", autouse=True)
def _own_rubbish() -> Iterator[None]:
    """What is left is collected while the above is ignored, and not in the middle of another module's test."""
    yield
    gc.collect()


class Boom(BaseException):
    """As KeyboardInterrupt."""


class Late(Exception):
    """As a time limit of a library."""


class Trap:
    """Calls act() at the n-th bytecode of the flight that a thread runs between arm() and disarm()."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        self.left = number
        self.act = act
        self.place: tuple[str, int] | None = None
        self.thread = 0

    @property
    def has_sprung(self) -> bool:
        return self.place is not None

    def arm(self) -> None:
        self.thread = threading.get_ident()
        if TRACES_OPCODES:
            sys.settrace(self._trace)
        else:
            monitoring = sys.monitoring
            monitoring.use_tool_id(monitoring.DEBUGGER_ID, "trap")
            monitoring.register_callback(monitoring.DEBUGGER_ID, monitoring.events.INSTRUCTION, self._instruction)
            for code in codes():
                monitoring.set_local_events(monitoring.DEBUGGER_ID, code, monitoring.events.INSTRUCTION)

    def disarm(self) -> None:
        self.thread = 0
        if TRACES_OPCODES:
            sys.settrace(None)
        else:
            monitoring = sys.monitoring
            for code in codes():
                monitoring.set_local_events(monitoring.DEBUGGER_ID, code, 0)
            monitoring.register_callback(monitoring.DEBUGGER_ID, monitoring.events.INSTRUCTION, None)
            monitoring.free_tool_id(monitoring.DEBUGGER_ID)

    def _step(self, name: str, line: int) -> None:
        self.left -= 1
        if self.left == 0:
            self.place = (name, line)
            self.act()

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti not in within_calls(frame.f_code):
            self._step(frame.f_code.co_name, frame.f_lineno)
        return self._trace

    def _instruction(self, code: Any, offset: int) -> None:
        if threading.get_ident() == self.thread:
            self._step(code.co_name, offset)


@functools.cache
def within_calls(code: CodeType) -> frozenset[int]:
    """Where Python 3.11 cannot be interrupted: what is raised between KW_NAMES and CALL garbles the next call."""
    offsets, is_within = set(), False
    for instruction in dis.get_instructions(code):
        if is_within:
            offsets.add(instruction.offset)
        if instruction.opname == "KW_NAMES":
            is_within = True
        elif instruction.opname == "CALL":
            is_within = False
    return frozenset(offsets)


def codes() -> Iterator[Any]:
    """All code of the package."""

    def within(code: CodeType) -> Iterator[CodeType]:
        yield code
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                yield from within(constant)

    for name in ("flight", "keeping", "patience", "table", "tasks", "told", "waiting"):
        module = sys.modules[f"droppable._flight.{name}"]
        for value in vars(module).copy().values():
            if getattr(value, "__module__", None) != module.__name__:
                continue
            functions = [value, *vars(value).values()] if isinstance(value, type) else [value]
            for function in functions:
                function = getattr(function, "fget", function)
                if hasattr(function, "__code__"):
                    yield from within(function.__code__)


class World:
    """A cache, others who use it, and what one run of a role needs of them."""

    def __init__(self) -> None:
        self.cache = Cache()
        self.pool = ThreadPoolExecutor(4)
        self.loop = asyncio.new_event_loop()
        self.loop_thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.loop_thread.start()
        self.numbers = itertools.count()
        self.kept: list[BaseException] = []
        self.begin()

    def begin(self) -> None:
        """Flights and keys that nobody has used. Roles may choose a value that each caller gets a copy of."""
        self.value: Any = 1
        number = next(self.numbers)
        self.flights = Flights(wait_seconds=60, linger_seconds=0)
        self.key, self.other, self.new = (EncodedKey((name, number)) for name in ("key", "other", "new"))
        del self.kept[:-20]

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.loop_thread.join()
        self.loop.close()
        self.pool.shutdown()

    def get(self, key: EncodedKey | None = None, factory: Callable[[], Any] | None = None) -> Any:
        return self.flights.do(self.cache, key or self.key, factory or (lambda: self.value), DEFAULT)

    async def aget(self, key: EncodedKey | None = None, seconds: float | None = None) -> Any:
        async def factory() -> Any:
            if seconds is not None:
                await asyncio.sleep(seconds)
            return self.value

        return await tasks.do(self.flights, self.cache, key or self.key, factory, DEFAULT)

    def trapped(self, trap: Trap, call: Callable[[], Any]) -> None:
        """call() with the trap set; what it raises is kept, as it holds its frames."""
        trap.arm()
        try:
            call()
        except (Boom, Late, asyncio.CancelledError) as error:
            self.kept.append(error)
        finally:
            trap.disarm()

    def all_can_get(self) -> None:
        for key in (self.key, self.other, self.new):
            assert self.pool.submit(self.get, key).result(WAIT_SECONDS) == self.value
            assert asyncio.run_coroutine_threadsafe(self.aget(key), self.loop).result(WAIT_SECONDS) == self.value

    def all_can_get_in_a_child(self) -> None:
        child = os.fork()
        if child == 0:
            signal.alarm(int(WAIT_SECONDS))
            done = []

            def ask() -> None:
                for key in (self.key, self.new):
                    self.get(key)
                    asyncio.run(self.aget(key))
                done.append(1)

            thread = threading.Thread(target=ask, daemon=True)
            thread.start()
            thread.join(WAIT_SECONDS / 2)
            os._exit(0 if done else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child hangs"

    def waiters(self) -> int:
        flight = self.flights.table.get(self.key)
        return 0 if flight is None else len(flight.waiters)


Role = Callable[[World, Trap], None]


def owner(world: World, trap: Trap) -> None:
    world.trapped(trap, world.get)


def failing_owner(world: World, trap: Trap) -> None:
    def fails() -> None:
        raise Late

    world.trapped(trap, lambda: world.get(factory=fails))


def nested(world: World, trap: Trap) -> None:
    inner = Flights(wait_seconds=60, linger_seconds=0)

    def factory() -> Any:
        return inner.do(world.cache, world.other, world.get, DEFAULT)

    world.trapped(trap, lambda: world.get(factory=factory))


def waiter(world: World, trap: Trap) -> None:
    left = threading.Event()

    def factory() -> int:
        while not left.is_set() and world.waiters() < 1:
            os.sched_yield()
        return 1

    first = world.pool.submit(world.get, None, factory)
    while not world.flights.table and not first.done():
        os.sched_yield()
    world.trapped(trap, world.get)
    left.set()
    assert first.result(WAIT_SECONDS) == 1


def owner_with_waiters(world: World, trap: Trap) -> None:
    others: list[Any] = []

    def factory() -> Any:
        others.append(world.pool.submit(world.get))
        others.append(asyncio.run_coroutine_threadsafe(world.aget(), world.loop))
        while world.waiters() + sum(other.done() for other in others) < 2:
            os.sched_yield()
        return world.value

    world.trapped(trap, lambda: world.get(factory=factory))
    for other in others:
        try:
            assert other.result(WAIT_SECONDS) == world.value
        except Late as error:  # raised within the computation it is as the function's own, and reaches all
            world.kept.append(error)


def owner_of_a_list_with_waiters(world: World, trap: Trap) -> None:
    world.value = [1]
    owner_with_waiters(world, trap)


def owner_of_what_cannot_be_stored(world: World, trap: Trap) -> None:
    world.trapped(trap, lambda: world.get(factory=threading.Lock))


def in_a_loop(world: World, trap: Trap, main: Callable[[], Any]) -> None:
    loop = asyncio.new_event_loop()

    async def bounded() -> None:
        task = asyncio.ensure_future(main())
        done, _ = await asyncio.wait([task], timeout=WAIT_SECONDS)
        assert done, "the caller hangs"
        try:
            task.result()
        except (Boom, Late, asyncio.CancelledError) as error:
            world.kept.append(error)

    try:
        world.trapped(trap, lambda: loop.run_until_complete(bounded()))
    finally:
        for task in asyncio.all_tasks(loop):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()


def task_owner(world: World, trap: Trap) -> None:
    in_a_loop(world, trap, lambda: world.aget(seconds=0))


def task_waiter(world: World, trap: Trap) -> None:
    left = threading.Event()

    def factory() -> int:
        while not left.is_set() and world.waiters() < 1:
            os.sched_yield()
        return 1

    first = world.pool.submit(world.get, None, factory)
    while not world.flights.table and not first.done():
        os.sched_yield()
    try:
        in_a_loop(world, trap, world.aget)
    finally:
        left.set()
    assert first.result(WAIT_SECONDS) == 1


def task_cancelled(world: World, trap: Trap) -> None:
    async def main() -> None:
        task = asyncio.ensure_future(world.aget(seconds=WAIT_SECONDS * 2))
        while world.waiters() < 1 and not task.done():
            await asyncio.sleep(0)
        task.cancel()
        await task

    in_a_loop(world, trap, main)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    world = World()
    yield world
    world.close()


def at_every_bytecode(world: World, role: Role, act: Callable[[World], None], at_least: int) -> None:
    """In a thread of its own: on 3.11 an exception that a trace function raised can stay its thread's current one."""
    with ThreadPoolExecutor(1) as thread:
        sprung = thread.submit(spring_all, world, role, act).result()
    assert sprung >= at_least


def spring_all(world: World, role: Role, act: Callable[[World], None]) -> int:
    """Roles that meet others take ways of several lengths: a trap that does not spring is tried some more."""
    sprung = missed = 0
    for number in itertools.count(1):
        world.begin()
        trap = Trap(number, lambda: act(world))
        try:
            role(world, trap)
            world.all_can_get()
        except BaseException as error:
            error.add_note(f"{role.__name__}, bytecode {number}, in {trap.place}")
            raise
        sprung += trap.has_sprung
        missed = 0 if trap.has_sprung else missed + 1
        if missed > 2:
            break
    return sprung


def interrupt(world: World) -> None:
    raise Boom


def time_out(world: World) -> None:
    raise Late


def re_enter(world: World) -> None:
    assert world.get(world.key) == world.value
    assert world.get(world.other) == world.value


def fork(world: World) -> None:
    world.all_can_get_in_a_child()


SHORT: list[Role] = [
    owner,
    failing_owner,
    owner_with_waiters,
    owner_of_a_list_with_waiters,
    owner_of_what_cannot_be_stored,
    task_owner,
]
LONG: list[Role] = [nested, waiter, task_waiter]  # they look at stacks and signal handlers: thousands of bytecodes


@pytest.mark.parametrize("role", SHORT)
@pytest.mark.parametrize("act", [interrupt, time_out, re_enter])
def test_nobody_hangs(world: World, role: Role, act: Callable[[World], None]) -> None:
    at_every_bytecode(world, role, act, 100)


@pytest.mark.parametrize("role", LONG)
def test_nobody_hangs_after_an_interrupt(world: World, role: Role, monkeypatch: pytest.MonkeyPatch) -> None:
    few = {signal.SIGINT, signal.SIGTERM}  # each of them is looked at in the same way
    monkeypatch.setattr("droppable._flight.waiting.signal.valid_signals", lambda: few)
    at_every_bytecode(world, role, interrupt, 100)


def test_no_child_hangs(world: World) -> None:
    at_every_bytecode(world, owner, fork, 100)


@pytest.mark.skipif(
    TRACES_OPCODES, reason="CPython 3.11 garbles later calls after a trace function raised in a callback"
)
def test_the_last_one_who_is_cancelled_does_not_hang(world: World) -> None:
    at_every_bytecode(world, task_cancelled, interrupt, 100)
