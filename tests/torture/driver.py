"""`make torture SECONDS=600 SEED=7`: processes that use caches (process.py), and all that can happen to a process.

    driver --SIGSTOP, SIGCONT, SIGKILL--> process: threads, forked children, a timer's signals, drops on order
       |--watches: does a thread go on?         ^ in the same memory cgroup
       '--changes the group's limit             '-- antagonist: takes what memory is left, and gives it back

What each process does follows from the seed and the number of its round. When the threads come to it does not. What
goes wrong is printed at once, with the command that does that round again. A report is printed at the end, and the exit
status is 1 where anything went wrong.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from typing import Any, Final

from droppable._cgroup import CgroupUnavailableError, MemoryCgroup

from .caller import THREADS

MB: Final = 1 << 20
LIVES: Final = 4
OPERATIONS: Final = 40_000
HANG_SECONDS: Final = 120
"""Where no thread makes a call for so long, they hang: a call takes a millisecond, a forked child some seconds."""
LOOK_SECONDS: Final = 0.02
LEAST_LIMIT: Final = 500 * MB
MOST_LIMIT: Final = 900 * MB
SPARE: Final = 200 * MB
"""What the processes may take at once, of which a change of the limit takes nothing."""
STOP_SHARE: Final = 0.02
LIMIT_SHARE: Final = 0.05
"""In such a share of the driver's looks a process is stopped, or the limit changed."""
KILL_SHARE: Final = 0.1
"""Of the processes are killed in the middle."""
ANTAGONIST: Final = """
import mmap, random, sys
from droppable import _cgroup
MB = 1 << 20
chance = random.Random(int(sys.argv[1]))
while True:
    held = []
    while _cgroup.current().left_bytes > chance.randrange(100, 250) * MB:
        held.append(mmap.mmap(-1, 4 * MB))
        held[-1].write(b"x" * (4 * MB))
    for one in chance.choices(held, k=chance.randrange(100)) if held else ():
        one.seek(0)
        one.write(b"y")
    for one in held:
        one.close()
"""


class Round:
    """One process, from its start to its end.

    Attributes:
        counts: what was done, by it and to it.
        failures: what went wrong, as text.
    """

    def __init__(self, seed: int, number: int, operations: int, group: MemoryCgroup | None) -> None:
        self._seed = seed * 1_000_003 + number * LIVES
        self._chance = random.Random(self._seed)
        self._group = group
        self._operations = operations
        self._ending = self._chance.choice(("rest", "rest", "exit"))
        self._is_killed = self._chance.random() < KILL_SHARE
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []

    def again(self, progress: str = "FILE") -> list[str]:
        """The command that does this round; FILE: 32 zero bytes."""
        words = [str(self._seed), str(LIVES), str(self._operations), progress, self._ending]
        return ["-m", "torture.process", *words]

    def run(self) -> None:
        start: Any = subprocess.Popen if self._group is None else self._group.popen
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(8 * THREADS))
            file.flush()
            process = start(
                [sys.executable, *self.again(file.name)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            try:
                with mmap.mmap(file.fileno(), 8 * THREADS) as words:
                    self._watch(process, words)
            finally:
                self._end(process)

    def _watch(self, process: subprocess.Popen[str], words: mmap.mmap) -> None:
        seen, since = b"", time.monotonic()
        kill_at = self._chance.randrange(LIVES * self._operations) if self._is_killed else sys.maxsize
        while process.poll() is None:
            time.sleep(LOOK_SECONDS)
            if words[:] != seen:
                seen, since = words[:], time.monotonic()
            elif time.monotonic() - since > HANG_SECONDS:
                self._note_hang("no thread goes on")
                os.kill(process.pid, signal.SIGABRT)  # faulthandler prints where each of them is
                return
            if sum(memoryview(seen).cast("Q")) > kill_at:
                self.counts["killed in the middle"] += 1
                os.killpg(process.pid, signal.SIGKILL)
                return
            if self._chance.random() < STOP_SHARE:
                self._stop_for_a_while(process)
            if self._group is not None and self._chance.random() < LIMIT_SHARE:
                self._change_limit(self._group)

    def _note_hang(self, what: str) -> None:
        self.counts["hangs"] += 1
        self.failures.append(what)

    def _stop_for_a_while(self, process: subprocess.Popen[str]) -> None:
        os.kill(process.pid, signal.SIGSTOP)
        self.counts["stopped"] += 1
        time.sleep(self._chance.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGCONT)

    def _change_limit(self, group: MemoryCgroup) -> None:
        # Of what the processes hold themselves nothing can be reclaimed: a limit below that would kill one of them.
        stat = group.stat()
        held = group.usage_bytes - stat.get("inactive_file", 0) - stat.get("active_file", 0)
        limit_bytes = max(self._chance.randrange(LEAST_LIMIT, MOST_LIMIT), min(held + SPARE, MOST_LIMIT))
        try:
            group.limit_bytes = limit_bytes
            self.counts["limits changed"] += 1
        except OSError:  # so much cannot be reclaimed
            self.counts["limits refused"] += 1

    def _end(self, process: subprocess.Popen[str]) -> None:
        try:
            told, errors = process.communicate(timeout=HANG_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            told, errors = process.communicate()
            self._note_hang("the process does not end")
        if self._is_killed and process.returncode == -signal.SIGKILL:
            return
        try:
            report = json.loads(told.splitlines()[-1])
        except (IndexError, ValueError):
            report = {"counts": {}, "failures": ["it told nothing"]}
        self.counts.update(report["counts"])
        self.failures += report["failures"]
        if process.returncode != 0 or self.failures:
            self.failures.append(f"exit status {process.returncode}\n{errors}")


def make_group() -> MemoryCgroup | None:
    try:
        return MemoryCgroup.create(MOST_LIMIT)
    except CgroupUnavailableError as error:
        print(f"SKIP memory pressure: {str(error).splitlines()[0]}")
        return None


def report(seed: int, seconds: float, rounds: int, counts: Counter[str], failed: int) -> str:
    """A table, for docs/torture.md and for people."""
    rows = [
        ("seed", seed), ("seconds", round(seconds)), ("processes", rounds),
        ("values read and compared", counts["hit"] + counts["view hit"]),
        ("arrays held, and compared again later", counts["held"]),
        ("values stored", sum(counts[what] for what in ("set", "add", "transform"))),
        ("drops on order", counts["drops on order"]), ("pages dropped by them", counts["dropped pages"]),
        ("forks", counts["fork"]), ("signals handled", counts["signals"]), ("SIGSTOP", counts["stopped"]),
        ("SIGKILL in the middle", counts["killed in the middle"]),
        ("close() in the middle", counts["closed in the middle"]), ("clock moved", counts["clock jumps"]),
        ("memory limit changed", counts["limits changed"]), ("values refused for want of memory", counts["refused"]),
        ("hangs", counts["hangs"]), ("OOM kills", counts["oom kills"]), ("processes with anything wrong", failed),
    ]  # fmt: skip
    return "\n".join(["| what | how much |", "|---|---:|", *(f"| {what} | {number:,} |" for what, number in rows)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="no round begins later (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="what is done follows from it (default: 1)")
    parser.add_argument("--operations", type=int, default=OPERATIONS, help=f"in each life (default: {OPERATIONS})")
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    began, number, failed = time.monotonic(), 0, 0
    group = make_group()
    antagonist = None
    try:
        if group is not None:
            antagonist = group.popen([sys.executable, "-c", ANTAGONIST, str(arguments.seed)])
        while number == 0 or time.monotonic() - began < arguments.seconds:
            one = Round(arguments.seed, number, arguments.operations, group)
            one.run()
            number += 1
            counts += one.counts
            if one.failures:
                failed += 1
                print(f"WRONG: python {' '.join(one.again())}", *one.failures, sep="\n", flush=True)
            if antagonist is not None and antagonist.poll() is not None:
                print(f"WRONG: the antagonist ended with {antagonist.returncode}", flush=True)
                failed, antagonist = failed + 1, None
        if group is not None:
            counts["oom kills"] = group.oom_kills
    finally:
        if antagonist is not None:
            antagonist.kill()
        if group is not None:
            group.close()
    print(report(arguments.seed, time.monotonic() - began, number, counts, failed))
    return 1 if failed or counts["oom kills"] else 0


if __name__ == "__main__":
    sys.exit(main())
