"""A small model checker: threads of a protocol, a memory that keeps little order, and a kernel that takes pages.

    thread    generator: yields one operation after the other, is sent its result       models in files beside this one
    memory    page -> words, or absent; dirty; what processors still see of a page that was dropped
    kernel    takes a page, ends stale translations, moves a thread to another processor: at any moment, a few times

A model is a list of threads, each a list of calls. A call is a Python generator that does what the C function of
the same name does, one access of memory a `yield`. `check()` goes through every interleaving of all threads and
the kernel, breadth first, so that the first counterexample is among the shortest. What is proven holds for the
bounds given, no more.

Two things change the order in which accesses take effect. Each configuration is checked with either:

    Order.COMPILER   may swap any two accesses that no fence, call or look at the processor's number stands between.
                     (C11 would let it move some across an acquire or a release fence. GCC and Clang move none.)
    Order.HARDWARE   a store becomes visible later, a load is done earlier, as on ARMv8; x86-64 does less. Release
                     fences order stores, acquire fences loads. Memory itself is one for all, as it is not on POWER.
                     Which page an access means is found out in its turn, for a fault is precise; an interrupt, as a
                     flush or a move to another processor is one, ends all that was done early.

At most `waiting` stores and `early` loads of a thread are out of turn at once. A load is never later than a store
behind it: no protocol here has a store that says "I have read".

A page, as csrc/os/prim.h has it: a dropped page reads as zeros, and a write begins a new one. Until the kernel has
flushed it, any subset of the processors may see the old page. There they may write it, too, if it was dirty when
it was taken; a clean one traps at the first write. Of one page there is at most one such old state at a time.
"""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

CALL_STEPS = 400  # a call that takes more accesses does not end

# Operations: what a thread yields. It is sent the word of a load, the number of `cpu`, what `do` returned.


class Op(NamedTuple):
    kind: str
    page: str = ""
    word: int = 0
    value: Any = None
    order: str = ""


Code = Generator[Op, Any, Any]


def load(page: str, word: int = 0, order: str = "") -> Op:
    return Op("load", page, word, None, order)


def store(page: str, word: int, value: int, order: str = "") -> Op:
    return Op("store", page, word, value, order)


def fence(order: str) -> Op:
    return Op("fence", order=order)


def pin(page: str) -> Op:
    """An atomic OR with 0 (prim_pin), a whole step: what is younger than an access that faults is done after it."""
    return Op("pin", page)


def mark(*pages: str) -> Op:
    return Op("mark", value=pages)


def purge(*pages: str) -> Op:
    return Op("purge", value=pages)


def grab(page: str) -> Op:
    """A system call (pread of /proc/PID/mem) has got hold of the page: this thread's loads of it see that one."""
    return Op("grab", page)


def cpu(is_barrier: bool = True) -> Op:
    """The number of the processor (prim_cpu). is_barrier: the compiler moves nothing across it."""
    return Op("cpu", value=is_barrier)


def call() -> Op:
    """A function that the compiler knows nothing of."""
    return Op("call")


def lock() -> Op:
    return Op("lock")


def unlock() -> Op:
    return Op("unlock")


def wait() -> Op:
    """Gives the lock up, waits until somebody tells, and takes it again (pthread_cond_wait)."""
    return Op("wait")


def tell() -> Op:
    """All who wait go on (pthread_cond_broadcast)."""
    return Op("tell")


def do(change: Callable[[Any], tuple[Any, Hashable]]) -> Op:
    """Reads and changes what the lock protects: `change(shared) -> (shared, result)`. No step of its own."""
    return Op("do", value=change)


def atomic(change: Callable[[Any], tuple[Any, Hashable]]) -> Op:
    """The same for what no lock protects: a step."""
    return Op("atomic", value=change)


def fork(keep: Callable[[Any], frozenset[str]]) -> Op:
    """From here on this is the child: no other thread, and of the pages those that are kept. The parent is left."""
    return Op("fork", value=keep)


def claim(holds: bool, words: str) -> Op:
    return Op("claim", value=(holds, words))


# State


class Order(Enum):
    COMPILER = "compiler"
    HARDWARE = "hardware"


NOW, OLD, NOWHERE = 0, 1, 2  # the page that a store under way means


class Thread(NamedTuple):
    cpu: int
    call: int  # which of its calls; that many: done
    seen: tuple[Any, ...]  # results of this call's operations so far, which say where it stands
    waiting: tuple[tuple[int, int, int, int] | None, ...]  # page, word, value, which; None: a release fence
    early: tuple[tuple[int, int, int], ...]  # loads that happened already
    asleep: int  # 1: waits to be told; 2: was told, waits for the lock
    held: tuple[int, tuple[int, ...] | None] | None  # page, and its words if it is no longer what is there


class Page(NamedTuple):
    words: tuple[int, ...] | None
    dirty: bool
    old: tuple[int, ...] | None  # dropped, and seen still
    old_dirty: bool
    seen_by: int  # bits of processors


class State(NamedTuple):
    threads: tuple[Thread, ...]
    pages: tuple[Page, ...]
    shared: Any
    owner: int  # of the lock; -1: nobody
    drops: int  # that are left
    moves: int


@dataclass(frozen=True)
class PageKind:
    name: str
    kind: str  # "plain": never taken; "lazyfree"; "droppable"
    words: tuple[int, ...] | None
    dirty: bool = False


@dataclass
class Model:
    """One protocol in one configuration."""

    name: str
    pages: list[PageKind]
    threads: dict[str, list[Callable[[], Code]]]
    shared: Any = ()
    order: Order = Order.COMPILER
    drops: int = 1
    moves: int = 0
    waiting: int = 1
    early: int = 1
    cpus: int = 2
    starts: tuple[int, ...] = ()  # processor of each thread; else 0, 1, 0, ...
    hoists: tuple[str, ...] | None = None  # pages that are loaded early; None: all


@dataclass
class Result:
    model: str
    states: int = 0
    steps: int = 0
    longest: int = 0  # accesses of one call
    seconds: float = 0.0  # of a processor
    wrong: str = ""
    trace: list[str] = field(default_factory=list)


class Explorer:
    def __init__(self, model: Model) -> None:
        self.model = model
        self.in_hardware = model.order is Order.HARDWARE
        self.names = list(model.threads)
        self.numbers = {page.name: i for i, page in enumerate(model.pages)}
        self.calls = list(model.threads.values())
        self.next_ops: dict[tuple[int, int, tuple[Any, ...]], tuple[Op | None, str]] = {}
        self.hoisted = [
            (i, word)
            for i, page in enumerate(model.pages)
            if model.hoists is None or page.name in model.hoists
            for word in range(len(self.zeros(i)))
        ]

    def zeros(self, page: int) -> tuple[int, ...]:
        return (0,) * len(self.model.pages[page].words or (0,))

    def begin(self) -> State:
        starts = self.model.starts or tuple(i % self.model.cpus for i in range(len(self.names)))
        threads = tuple(Thread(at, 0, (), (), (), 0, None) for at in starts)
        pages = tuple(Page(page.words, page.dirty, None, False, 0) for page in self.model.pages)
        return State(threads, pages, self.model.shared, -1, self.model.drops, self.model.moves)

    def next_op(self, i: int, call: int, seen: tuple[Any, ...]) -> tuple[Op | None, str]:
        """What the thread does next, and in which function. The same results always lead there, so it is remembered."""
        known = self.next_ops.get((i, call, seen))
        if known is None:
            code = self.calls[i][call]()
            try:
                op = next(code)
                for result in seen:
                    op = code.send(result)
            except StopIteration:
                known = (None, "")
            else:
                inner: Any = code
                while isinstance(inner.gi_yieldfrom, Generator):
                    inner = inner.gi_yieldfrom
                known = (op, inner.gi_code.co_name)
            self.next_ops[i, call, seen] = known
        return known

    # Memory

    def read(self, state: State, thread: Thread, page: int, word: int) -> int:
        if thread.held is not None and thread.held[0] == page and thread.held[1] is not None:
            return thread.held[1][word]
        at = state.pages[page]
        through_system_call = thread.held is not None and thread.held[0] == page
        if at.old is not None and at.seen_by >> thread.cpu & 1 and not through_system_call:
            return at.old[word]
        return at.words[word] if at.words is not None else 0

    def write(self, pages: tuple[Page, ...], cpu: int, page: int, word: int, value: int | None) -> tuple[Page, ...]:
        """Where the value is None the word stays as it is, and its page is dirty."""
        at = pages[page]
        if at.old is not None and at.seen_by >> cpu & 1:
            if at.old_dirty:
                if value is None:
                    return pages
                old = (*at.old[:word], value, *at.old[word + 1 :])
                return (*pages[:page], at._replace(old=old), *pages[page + 1 :])
            at = flushed(at, 1 << cpu)  # it traps, and finds the page gone
        words = at.words if at.words is not None else self.zeros(page)
        if value is not None:
            words = (*words[:word], value, *words[word + 1 :])
        return (*pages[:page], at._replace(words=words, dirty=True), *pages[page + 1 :])

    # Steps

    def settle(self, state: State, i: int) -> tuple[State, str]:
        """Does what nobody else can tell from the step before: what the lock protects, claims, the end of a call."""
        while True:
            thread = state.threads[i]
            if thread.call == len(self.calls[i]) or thread.asleep:
                return state, ""
            op, _ = self.next_op(i, thread.call, thread.seen)
            if op is None:
                state = with_thread(state, i, thread._replace(call=thread.call + 1, seen=()))
            elif op.kind == "claim":
                holds, words = op.value
                if not holds:
                    return state, words
                state = with_thread(state, i, thread._replace(seen=(*thread.seen, None)))
            elif op.kind == "do":
                shared, result = op.value(state.shared)
                state = with_thread(state._replace(shared=shared), i, thread._replace(seen=(*thread.seen, result)))
            elif not thread.waiting and not thread.early and self.orders_nothing(op, state):
                result = thread.cpu if op.kind == "cpu" else None
                state = with_thread(state, i, thread._replace(seen=(*thread.seen, result)))
            else:
                return state, ""

    def orders_nothing(self, op: Op, state: State) -> bool:
        """A fence where nothing is out of turn: whatever else happens before it may as well happen after it."""
        return op.kind in ("fence", "call") or (op.kind == "cpu" and state.moves == 0)

    def step(self, state: State, i: int) -> State | None:
        """The thread's next operation in its turn. None: not now."""
        thread = state.threads[i]
        if thread.call == len(self.calls[i]):
            return None
        if thread.asleep:
            if thread.asleep == 1 or state.owner >= 0:
                return None
            return with_thread(state._replace(owner=i), i, thread._replace(asleep=0, seen=(*thread.seen, None)))
        op, _ = self.next_op(i, thread.call, thread.seen)
        assert op is not None
        if op.kind == "load":
            return self.do_load(state, i, thread, op)
        if op.kind == "store":
            return self.do_store(state, i, thread, op)
        after = thread._replace(early=(), seen=(*thread.seen, None))
        if op.kind in ("cpu", "call") and (self.in_hardware or op.value is False):
            result = thread.cpu if op.kind == "cpu" else None
            return with_thread(state, i, thread._replace(seen=(*thread.seen, result)))
        if self.in_hardware and op.kind == "fence" and op.order == "acquire":
            return with_thread(state, i, after)
        if self.in_hardware and op.kind == "fence" and op.order == "release":
            waiting = (*thread.waiting, None) if thread.waiting else ()
            return with_thread(state, i, thread._replace(waiting=waiting, seen=(*thread.seen, None)))
        if op.kind == "grab":
            page = self.numbers[op.page]
            held = (page, None if state.pages[page].words is not None else self.zeros(page))
            early = tuple(each for each in thread.early if each[0] != page)
            return with_thread(state, i, thread._replace(held=held, early=early, seen=(*thread.seen, None)))
        if thread.waiting:
            return None  # the others order all stores
        if op.kind == "cpu":
            return with_thread(state, i, after._replace(seen=(*thread.seen, thread.cpu)))
        if op.kind == "lock":
            return None if state.owner >= 0 else with_thread(state._replace(owner=i), i, after)
        if op.kind == "unlock":
            assert state.owner == i
            return with_thread(state._replace(owner=-1), i, after)
        if op.kind == "wait":
            assert state.owner == i
            return with_thread(state._replace(owner=-1), i, thread._replace(early=(), asleep=1))
        if op.kind == "tell":
            woken = tuple(each._replace(asleep=2) if each.asleep else each for each in state.threads)
            return with_thread(state._replace(threads=woken), i, after)
        if op.kind in ("fence", "call"):
            return with_thread(state, i, after)
        if op.kind == "pin":
            pages = self.write(state.pages, thread.cpu, self.numbers[op.page], 0, None)
            return with_thread(state._replace(pages=pages), i, thread._replace(seen=(*thread.seen, None)))
        if op.kind in ("mark", "purge"):
            state = with_thread(state, i, after)
            for name in op.value:
                state = self.advise(state, self.numbers[name], op.kind)
            return state
        if op.kind == "atomic":
            shared, result = op.value(state.shared)
            return with_thread(state._replace(shared=shared), i, after._replace(seen=(*thread.seen, result)))
        assert op.kind == "fork"
        kept = op.value(state.shared)
        pages = tuple(
            at if at.words is None or page.kind == "plain" or page.name in kept else Page(None, False, None, False, 0)
            for page, at in zip(self.model.pages, state.pages, strict=True)
        )
        alone = tuple(
            each if k == i else each._replace(call=len(self.calls[k]), seen=(), waiting=(), early=(), asleep=0)
            for k, each in enumerate(state.threads)
        )
        return with_thread(state._replace(threads=alone, pages=pages), i, after)

    def do_load(self, state: State, i: int, thread: Thread, op: Op) -> State:
        page = self.numbers[op.page]
        place = (page, op.word)
        value = next((each[2] for each in reversed(thread.waiting) if each and each[:2] == place), None)
        early = thread.early
        if value is None:
            value = next((each[2] for each in early if each[:2] == place), None)
            if value is None:
                value = self.read(state, thread, page, op.word)
            else:
                early = tuple(each for each in early if each[:2] != place)
        if op.order == "acquire":
            early = ()
        return with_thread(state, i, thread._replace(early=early, seen=(*thread.seen, value)))

    def do_store(self, state: State, i: int, thread: Thread, op: Op) -> State | None:
        """At once. That it waits is another step: delay()."""
        page = self.numbers[op.page]
        if any(each is None or each[:2] == (page, op.word) for each in thread.waiting):
            return None
        if op.order == "release" and thread.waiting:
            return None
        pages = self.write(state.pages, thread.cpu, page, op.word, op.value)
        return with_thread(state._replace(pages=pages), i, thread._replace(seen=(*thread.seen, None)))

    def delay(self, state: State, i: int) -> State | None:
        thread = state.threads[i]
        if thread.call == len(self.calls[i]) or thread.asleep:
            return None
        if sum(each is not None for each in thread.waiting) >= self.model.waiting:
            return None
        op, _ = self.next_op(i, thread.call, thread.seen)
        if op is None or op.kind != "store" or (op.order == "release" and thread.waiting):
            return None
        page, which = self.numbers[op.page], NOW
        if self.in_hardware:
            state = state._replace(pages=self.write(state.pages, thread.cpu, page, 0, None))
            which = OLD if state.pages[page].seen_by >> thread.cpu & 1 else NOW
        waiting = (*thread.waiting, (page, op.word, op.value, which))
        return with_thread(state, i, thread._replace(waiting=waiting, seen=(*thread.seen, None)))

    def finish(self, pages: tuple[Page, ...], thread: Thread, each: tuple[int, int, int, int]) -> tuple[Page, ...]:
        """A store that waited takes effect."""
        page, word, value, which = each
        if not self.in_hardware:
            return self.write(pages, thread.cpu, page, word, value)
        at = pages[page]
        if which == NOW and at.words is not None:
            at = at._replace(words=(*at.words[:word], value, *at.words[word + 1 :]))
        elif which == OLD and at.old is not None:
            at = at._replace(old=(*at.old[:word], value, *at.old[word + 1 :]))
        return (*pages[:page], at, *pages[page + 1 :])

    def leave(self, state: State, page: int) -> State:
        """The page is about to go: whoever holds it sees it as it is, and stores under way go with it."""
        words = state.pages[page].words
        threads = []
        for each in state.threads:
            if each.held == (page, None) and words is not None:
                each = each._replace(held=(page, words))
            if self.in_hardware and any(it is not None and it[0] == page for it in each.waiting):
                waiting = tuple(
                    (*it[:3], NOWHERE if it[3] == OLD else OLD) if it is not None and it[0] == page else it
                    for it in each.waiting
                )
                each = each._replace(waiting=waiting)
            threads.append(each)
        return state._replace(threads=tuple(threads))

    def interrupted(self, state: State, cpu_number: int) -> State:
        if not self.in_hardware:
            return state
        threads = tuple(
            each._replace(early=()) if each.cpu == cpu_number and each.early else each for each in state.threads
        )
        return state._replace(threads=threads)

    def advise(self, state: State, page: int, kind: str) -> State:
        for cpu_number in range(self.model.cpus):
            if state.pages[page].seen_by >> cpu_number & 1:
                state = self.interrupted(state, cpu_number)
        at = flushed(state.pages[page], -1)
        if kind == "mark":
            at = at._replace(dirty=False)
        else:
            state = self.leave(state, page)
            at = at._replace(words=None, dirty=False)
        return state._replace(pages=(*state.pages[:page], at, *state.pages[page + 1 :]))

    def others(self, state: State) -> Iterator[tuple[tuple[Any, ...], State]]:
        """What happens to threads: their stores and loads out of turn, and the kernel."""
        for i, thread in enumerate(state.threads):
            for k, each in enumerate(thread.waiting):
                if each is None:
                    break
                if any(other is not None and other[:2] == each[:2] for other in thread.waiting[:k]):
                    continue
                left = thread.waiting[:k] + thread.waiting[k + 1 :]
                while left and left[0] is None:
                    left = left[1:]
                pages = self.finish(state.pages, thread, each)
                yield ("late", i, each[:3]), with_thread(state._replace(pages=pages), i, thread._replace(waiting=left))
            if thread.call == len(self.calls[i]) or thread.asleep:
                continue
            if len(thread.early) < self.model.early:
                for place in self.hoisted:
                    if any(each[:2] == place for each in thread.early):
                        continue
                    if any(each is not None and each[:2] == place for each in thread.waiting):
                        continue
                    value = self.read(state, thread, *place)
                    early = tuple(sorted((*thread.early, (*place, value))))
                    yield ("early", i, (*place, value)), with_thread(state, i, thread._replace(early=early))
            if state.moves > 0 and not (self.in_hardware and thread.waiting):
                early = () if self.in_hardware else thread.early
                for to in range(self.model.cpus):
                    if to != thread.cpu:
                        moved = state._replace(moves=state.moves - 1)
                        yield ("moves", i, to), with_thread(moved, i, thread._replace(cpu=to, early=early))
        for page, at in enumerate(state.pages):
            for cpu_number in range(self.model.cpus):
                if at.seen_by >> cpu_number & 1 and not self.has_old_store(state, page, cpu_number):
                    after = self.interrupted(state, cpu_number)
                    pages = (*state.pages[:page], flushed(at, 1 << cpu_number), *state.pages[page + 1 :])
                    yield ("flushes", page, cpu_number), after._replace(pages=pages)
            kind = self.model.pages[page].kind
            if state.drops > 0 and at.words is not None and at.old is None and kind != "plain":
                if kind == "lazyfree" and at.dirty:
                    continue
                left_state = self.leave(state._replace(drops=state.drops - 1), page)
                for seen_by in range(1 << self.model.cpus):
                    gone = Page(None, False, at.words if seen_by else None, at.dirty and seen_by > 0, seen_by)
                    yield (
                        ("takes", page, seen_by),
                        left_state._replace(pages=(*state.pages[:page], gone, *state.pages[page + 1 :])),
                    )

    def has_old_store(self, state: State, page: int, cpu_number: int) -> bool:
        """A flush waits for stores that have begun there."""
        return self.in_hardware and any(
            it is not None and it[0] == page and it[3] == OLD
            for each in state.threads
            if each.cpu == cpu_number
            for it in each.waiting
        )

    # Search

    def run(self, most_states: int) -> Result:
        begun = time.process_time()
        result = Result(self.model.name)
        first = self.begin()
        for i in range(len(self.names)):
            first, wrong = self.settle(first, i)
            assert not wrong
        came: dict[State, tuple[State, tuple[Any, ...]] | None] = {first: None}
        queue = deque([first])
        while queue and not result.wrong:
            state = queue.popleft()
            goes_on = False
            for label, after, wrong in self.successors(state):
                result.steps += 1
                goes_on |= label[0] in ("step", "delay", "late")
                if wrong:
                    result.wrong = wrong
                    result.trace = [*self.tell_way(came, state), self.tell(label, state)]
                    break
                if after not in came:
                    came[after] = (state, label)
                    queue.append(after)
            if result.wrong:
                break
            if not goes_on and any(t.call < len(self.calls[i]) for i, t in enumerate(state.threads)):
                result.wrong = "nobody can go on: a hang"
                result.trace = [*self.tell_way(came, state), *self.tell_stuck(state)]
            if len(came) > most_states:
                raise MemoryError(f"{self.model.name}: more than {most_states} states")
        result.states = len(came)
        result.longest = max((len(seen) for _, _, seen in self.next_ops), default=0)
        result.seconds = time.process_time() - begun
        return result

    def successors(self, state: State) -> Iterator[tuple[tuple[Any, ...], State, str]]:
        for i in range(len(self.names)):
            for kind, after in (("step", self.step(state, i)), ("delay", self.delay(state, i))):
                if after is None:
                    continue
                after, wrong = self.settle(after, i)
                if not wrong and len(after.threads[i].seen) > CALL_STEPS:
                    wrong = f"{self.names[i]} does not end"
                yield (kind, i), after, wrong
        for label, after in self.others(state):
            yield label, after, ""

    # Telling

    def tell_way(self, came: dict[State, Any], state: State) -> list[str]:
        lines = []
        while (before := came[state]) is not None:
            state, label = before
            lines.append(self.tell(label, state))
        return lines[::-1]

    def tell(self, label: tuple[Any, ...], state: State) -> str:
        kind, i, *rest = label
        names = [page.name for page in self.model.pages]
        if kind == "takes":
            old = [str(k) for k in range(self.model.cpus) if rest[0] >> k & 1]
            seen = f"; processor {' and '.join(old)} still sees the old page" if old else ""
            return f"        kernel: takes page `{names[i]}`{seen}"
        if kind == "flushes":
            return f"        kernel: processor {rest[0]} sees that `{names[i]}` is gone"
        thread = state.threads[i]
        who = f"  cpu {thread.cpu}  {self.names[i]}: "
        if kind == "moves":
            return f"        kernel: moves {self.names[i]} to processor {rest[0]}"
        if kind in ("late", "early"):
            page, word, value = rest[0]
            how = "only now is stored" if kind == "late" else "is already loaded:"
            return f"{who}{how} {names[page]}[{word}] = {value}"
        op, at = self.next_op(i, thread.call, thread.seen)
        assert op is not None
        if thread.asleep:
            return f"{who}{at}: goes on with the lock"
        what = {
            "load": lambda: f"loads {op.page}[{op.word}] = {self.loaded(state, i, op)}",
            "store": lambda: f"{'will store' if kind == 'delay' else 'stores'} {op.page}[{op.word}] = {op.value}",
            "fence": lambda: f"{op.order} fence",
            "mark": lambda: f"marks {', '.join(op.value)}",
            "purge": lambda: f"gives back {', '.join(op.value)}",
            "grab": lambda: f"pread gets hold of {op.page}",
            "pin": lambda: f"dirties {op.page}",
            "cpu": lambda: f"is on processor {thread.cpu}",
        }.get(op.kind, lambda: op.kind)()
        return f"{who}{at}: {what}"

    def loaded(self, state: State, i: int, op: Op) -> int:
        after = self.do_load(state, i, state.threads[i], op)
        value: int = after.threads[i].seen[-1]
        return value

    def tell_stuck(self, state: State) -> list[str]:
        lines = []
        for i, thread in enumerate(state.threads):
            if thread.call < len(self.calls[i]):
                _, at = self.next_op(i, thread.call, thread.seen)
                lines.append(f"  {self.names[i]}: {at} waits {'to be told' if thread.asleep == 1 else 'for the lock'}")
        return lines


def with_thread(state: State, i: int, thread: Thread) -> State:
    threads, pages, shared, owner, drops, moves = state
    return State((*threads[:i], thread, *threads[i + 1 :]), pages, shared, owner, drops, moves)


def with_page_gone(store_under_way: Any, page: int) -> Any:
    if store_under_way is None or store_under_way[0] != page:
        return store_under_way
    return (*store_under_way[:3], NOWHERE if store_under_way[3] == OLD else OLD)


def flushed(page: Page, cpus: int) -> Page:
    seen_by = page.seen_by & ~cpus
    if seen_by:
        return page._replace(seen_by=seen_by)
    return Page(page.words, page.dirty, None, False, 0)


def check(model: Model, most_states: int = 3_000_000) -> Result:
    """Goes through all states. The collector would go through them again and again, and they hold no cycles."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return Explorer(model).run(most_states)
    finally:
        if was_enabled:
            gc.enable()
