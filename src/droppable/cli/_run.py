"""`droppable run`: a command in a memory cgroup of its own, with a report at the end.

The command gets what it would have got without us, as from env(1) and timeout(1): arguments and environment byte by
byte (Python sets LC_CTYPE in its own), open descriptors, closed ones too, directory, umask, process group, ignored and
blocked signals. But for one thing: Python ignores SIGPIPE and SIGXFSZ from its start, so nobody knows whether they were
ignored before. The command gets them with their default.

Signals. All that ask a command to end stay blocked here and are taken one by one with sigwaitinfo, which tells where
each came from: one that a process sent to us is passed on; one from the terminal (Ctrl-C) the command has had already,
being in our process group. So no signal ends us while the cgroup stands.
"""

import errno
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from droppable._arguments import format_size
from droppable._cgroup import SCOPE_MARKER, CgroupUnavailableError, MemoryCgroup, reenter_in_scope
from droppable.lowlevel import exec_program, page_size_bytes

FORWARDED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
FAILED, NOT_RUNNABLE, NOT_FOUND = 125, 126, 127
"""Our own exit statuses, as env(1) and timeout(1) use them."""


def run(memory_bytes: int, swap_bytes: int, command: Sequence[str], hands_over: Sequence[int] = ()) -> int:
    """Runs the command to its end; returns its exit status, or 128 + N if signal N ended it.

    hands_over: descriptors that are closed here once the command has them, because somebody waits for their end.
    Whether the report could be written does not matter for the status. Where standard error is closed there is none.
    125 where the system has no descriptor, no process or no memory left for the start, or the group cannot be removed.
    """
    try:
        return _run(memory_bytes, swap_bytes, command, hands_over)
    except OSError as error:
        _say(str(error))
        return FAILED


def _run(memory_bytes: int, swap_bytes: int, command: Sequence[str], hands_over: Sequence[int]) -> int:
    path, status = _find(os.fsencode(command[0]))
    if status:
        _say(f"{command[0]}: {'there is no such program' if status == NOT_FOUND else 'it is there, but not a program'}")
        return status
    environment = _inherited_environment()
    _keep_closed_streams_free()
    with _held_signals() as (waited, mask_before, ignored):
        try:
            group = MemoryCgroup.create(memory_bytes, swap_bytes)
        except CgroupUnavailableError as error:
            unavailable = str(error)
        else:
            with group:
                dropped_before = _lazyfreed_pages(group)
                start = _Start(
                    path, [os.fsencode(word) for word in command], environment, mask_before, ignored, hands_over
                )
                status, why_not = _attend(group, start, waited)
                report = why_not or _report(group, status, _lazyfreed_pages(group) - dropped_before)
            _say(report)
            return 128 - status if status < 0 else status
    sizes = ["--memory", str(memory_bytes), "--swap", str(swap_bytes)]
    argv = [sys.executable, "-m", "droppable", "run", *sizes, "--", *command]
    why_not = reenter_in_scope(argv, environment)
    _say(f"{unavailable}\nsystemd-run was tried too: {why_not}")
    return FAILED


def _find(name: bytes) -> tuple[bytes, int]:
    """The program's path and 0, or what was asked for and the status that says why it cannot be run."""
    if b"/" in name:
        places = [name]
    else:
        places = [os.path.join(place or b".", name) for place in _search_path()]
    is_there = False
    for place in places:
        if name and os.path.isfile(place) and os.access(place, os.X_OK):
            return place, 0
        is_there = is_there or (bool(name) and os.path.lexists(place))
    return name, NOT_RUNNABLE if is_there else NOT_FOUND


def _search_path() -> list[bytes]:
    return [os.fsencode(place) for place in os.get_exec_path()]


def _inherited_environment() -> list[bytes]:
    """What we were started with, entry by entry, as the kernel keeps it: not what Python makes of it and adds."""
    try:
        entries = Path("/proc/self/environ").read_bytes().split(b"\0")[:-1]
    except OSError:  # no /proc
        entries = [name + b"=" + value for name, value in os.environb.items()]
    return [entry for entry in entries if not entry.startswith(os.fsencode(SCOPE_MARKER) + b"=")]


def _keep_closed_streams_free() -> None:
    """Where standard error, say, is closed, no file of ours must come to lie there. The command gets it closed too."""
    descriptor = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.close(descriptor)


@contextmanager
def _held_signals() -> Iterator[tuple[set[int], set[int], bool]]:
    """Blocks what asks us to end, and SIGCHLD; gives those, the mask before, and whether SIGCHLD was ignored.

    Drops what is pending at the end.
    """
    ignored = signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # SIG_IGN, if inherited, would lose the exit status
    waited = {int(number) for number in FORWARDED if signal.getsignal(number) != signal.SIG_IGN} | {signal.SIGCHLD}
    mask_before = {int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, waited)}
    try:
        yield waited, mask_before, ignored
    finally:
        while signal.sigtimedwait(waited, 0) is not None:
            pass
        signal.pthread_sigmask(signal.SIG_SETMASK, mask_before)


class _Start:
    """How the command is started: in a child of this process, which has one thread, so that any code may run there."""

    def __init__(
        self,
        path: bytes,
        arguments: list[bytes],
        environment: list[bytes],
        mask: set[int],
        ignores_sigchld: bool,
        hands_over: Sequence[int],
    ) -> None:
        self.path = path
        self.arguments = arguments
        self.environment = environment
        self._mask = mask
        self._ignores_sigchld = ignores_sigchld
        self._hands_over = hands_over

    def in_group(self, group: MemoryCgroup) -> tuple[int, int]:
        """Starts it, from its first allocation in the group. Returns its pid and the error of exec, or 0."""
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._become(group, writer)
        for descriptor in (writer, *self._hands_over):
            os.close(descriptor)
        with os.fdopen(reader, "rb") as pipe:
            error = pipe.read()
        return pid, int(error or b"0")

    def _become(self, group: MemoryCgroup, writer: int) -> NoReturn:
        try:
            group.add(0)  # this process
            for number in (signal.SIGPIPE, signal.SIGXFSZ):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGCHLD, signal.SIG_IGN if self._ignores_sigchld else signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
            try:
                exec_program(self.path, self.arguments, self.environment)
            except OSError as error:
                if error.errno != errno.ENOEXEC:  # a script that does not say whose, as execvp(3) takes it
                    raise
                exec_program(b"/bin/sh", [b"sh", self.path, *self.arguments[1:]], self.environment)
        except OSError as error:
            os.write(writer, b"%d" % (error.errno or errno.EIO))
        finally:
            os._exit(FAILED)


def _attend(group: MemoryCgroup, start: _Start, waited: set[int]) -> tuple[int, str]:
    """Starts the command, passes signals on to it; returns its status as subprocess has it, and why it never ran."""
    early = signal.sigtimedwait(waited - {signal.SIGCHLD}, 0)
    if early is not None:
        return -early.si_signo, ""
    child, error = start.in_group(group)
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        caught = signal.sigwaitinfo(waited)
        sent_by_a_process = caught.si_code <= 0
        if caught.si_signo != signal.SIGCHLD and sent_by_a_process:
            os.kill(child, caught.si_signo)
    if error:
        why_not = f"{os.fsdecode(start.arguments[0])}: {os.strerror(error)}"
        return (NOT_FOUND if error == errno.ENOENT else NOT_RUNNABLE), why_not
    return os.waitstatus_to_exitcode(status), ""


def _report(group: MemoryCgroup, status: int, lazyfreed_pages: int) -> str:
    peak_bytes = group.peak_bytes
    left_running = len(group.pids())
    ended = f"{status}" if status >= 0 else f"{128 - status} ({_signal_name(-status)})"
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


def _signal_name(number: int) -> str:
    """Of the real-time signals only the first and the last have names: those between are counted from the first."""
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"SIGRTMIN+{number - signal.SIGRTMIN}"


def _lazyfreed_pages(group: MemoryCgroup) -> int:
    """Marked pages that reclaim dropped so far: the group's own on cgroup v2, the machine's on v1."""
    if group.version == 2:
        return group.stat().get("pglazyfreed", 0)
    with open("/proc/vmstat") as vmstat:
        return next((int(line.split()[1]) for line in vmstat if line.startswith("pglazyfreed ")), 0)


def _say(text: str) -> None:
    """To standard error and nowhere else, also not to a file that took its number. If it fails, nobody hears."""
    if sys.stderr is None:  # it was closed when we were started
        return
    message = f"droppable run: {text}\n"
    try:
        descriptor = sys.stderr.fileno()
    except (OSError, ValueError):  # not a file: somebody reads what we say
        sys.stderr.write(message)
        return
    data = message.encode(errors="surrogateescape")
    with suppress(
        OSError
    ):  # written past Python's buffers, which would fail once more at the exit, and change its status
        while data:
            data = data[os.write(descriptor, data) :]
