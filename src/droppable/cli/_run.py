"""`droppable run`: a command in a memory cgroup of its own, with a report at the end.

Signals. All that ask a command to end stay blocked here and are taken one by one with sigwaitinfo, which tells where
each came from: one that a process sent to us is passed on; one from the terminal (Ctrl-C) the command has had already,
being in our process group. So no signal ends us while the cgroup stands.
"""

import os
import shutil
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from droppable._cgroup import CgroupUnavailableError, MemoryCgroup, reenter_in_scope
from droppable.cli._sizes import format_size
from droppable.lowlevel import page_size_bytes

FORWARDED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
FAILED, NOT_RUNNABLE, NOT_FOUND = 125, 126, 127
"""Our own exit statuses, as env(1) and timeout(1) use them."""


def run(memory_bytes: int, swap_bytes: int, command: Sequence[str]) -> int:
    """Runs the command to its end; returns its exit status, or 128 + N if signal N ended it."""
    path = shutil.which(command[0])
    if path is None:
        found = os.path.exists(command[0])
        _say(f"{command[0]}: {'it is there, but not a program' if found else 'there is no such program'}")
        return NOT_RUNNABLE if found else NOT_FOUND
    with _held_signals() as (waited, mask_before):
        try:
            group = MemoryCgroup.create(memory_bytes, swap_bytes)
        except CgroupUnavailableError as error:
            unavailable = str(error)
        else:
            with group:
                dropped_before = _lazyfreed_pages(group)
                status = _attend(group, command, waited, mask_before)
                report = _report(group, status, _lazyfreed_pages(group) - dropped_before)
            _say(report)
            return 128 - status if status < 0 else status
    sizes = ["--memory", str(memory_bytes), "--swap", str(swap_bytes)]
    why_not = reenter_in_scope([sys.executable, "-m", "droppable", "run", *sizes, "--", *command])
    _say(f"{unavailable}\nsystemd-run was tried too: {why_not}")
    return FAILED


@contextmanager
def _held_signals() -> Iterator[tuple[set[int], set[int]]]:
    """Blocks what asks us to end, and SIGCHLD; gives those, and the mask before. Drops what is pending at the end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # SIG_IGN, if inherited, would lose the exit status
    waited = {int(number) for number in FORWARDED if signal.getsignal(number) != signal.SIG_IGN} | {signal.SIGCHLD}
    mask_before = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, waited)}
    try:
        yield waited, mask_before
    finally:
        while signal.sigtimedwait(waited, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, mask_before)


def _attend(group: MemoryCgroup, command: Sequence[str], waited: set[int], mask_before: set[int]) -> int:
    """Starts the command, passes signals on to it, returns its status as subprocess tells it."""
    early = signal.sigtimedwait(waited - {signal.SIGCHLD}, 0)
    if early is not None:
        return -early.si_signo
    # preexec_fn is safe: this process has one thread. The command must not inherit our mask.
    child = group.popen(command, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask_before))
    while child.poll() is None:
        caught = signal.sigwaitinfo(waited)
        sent_by_a_process = caught.si_code <= 0
        if caught.si_signo != signal.SIGCHLD and sent_by_a_process:
            child.send_signal(caught.si_signo)
    return int(child.returncode)


def _report(group: MemoryCgroup, status: int, lazyfreed_pages: int) -> str:
    peak_bytes = group.peak_bytes
    left_running = len(group.pids())
    ended = f"{status}" if status >= 0 else f"{128 - status} ({signal.Signals(-status).name})"
    scope = "" if group.version == 2 else ", counted over the whole machine: cgroup v1 does not count them by group"
    lines = [
        f"memory cgroup of {format_size(group.limit_bytes)} (cgroup v{group.version})",
        "peak memory   " + (format_size(peak_bytes) if peak_bytes is not None else "not kept before Linux 5.19"),
        f"dropped       {format_size(lazyfreed_pages * page_size_bytes())} in {lazyfreed_pages} lazyfree pages{scope}",
        f"OOM kills     {group.oom_kills}",
        f"exit status   {ended}",
    ]
    if left_running:
        lines.append(f"left running  {left_running} processes, which end now")
    return "\n  ".join(lines)


def _lazyfreed_pages(group: MemoryCgroup) -> int:
    """Marked pages that reclaim dropped so far: the group's own on cgroup v2, the machine's on v1."""
    if group.version == 2:
        return group.stat().get("pglazyfreed", 0)
    with open("/proc/vmstat") as vmstat:
        return next((int(line.split()[1]) for line in vmstat if line.startswith("pglazyfreed ")), 0)


def _say(text: str) -> None:
    print(f"droppable run: {text}", file=sys.stderr, flush=True)
