"""A memory cgroup: make one, run programs in it, read its figures, remove it with everything in it.

Callers: `droppable run`, `droppable.testing`, tests/pressure and the demo; not part of the public face. Where a group
goes (`_cgroup_place` chooses):

    cgroup v2   <own cgroup>/droppable-...      own: where this process is
                  droppable-leaf-...            this process moves here, for a group with limits below it must be empty
                <own cgroup>/../droppable-...   where own holds other processes, and has no limit that this would escape
    cgroup v1   <mount>/droppable-...           or below the own cgroup, where that has a limit

Every group has a keeper, a small shell process that holds the reading end of a pipe. When the maker closes the group,
or dies in any way (SIGKILL too), the keeper kills what is in the group and removes it. So nothing stays behind.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from droppable._cgroup_place import (
    delegate_memory,
    has_controller,
    hierarchies,
    pids,
    place_at,
    places,
    read,
    table,
    write,
)
from droppable.lowlevel import DroppableError, exec_program, headroom

_KEEPER_SECONDS = 30.0
"""How long `close` waits for the keeper, whose own loop is bounded to about 12 seconds."""

# $1: the group. EOF or a line on stdin: remove it. rmdir answers EBUSY until the kernel has let go of what was killed.
# A leaf (see above) goes when nothing else is left beside it: first the controller, then the processes move back up.
_KEEPER = r"""
trap '' HUP INT TERM
group=$1 parent=${1%/*} tries=0
read -r word
clean() {
    [ -e "$1/cgroup.kill" ] && echo 1 > "$1/cgroup.kill"
    for child in "$1"/*/; do [ -d "$child" ] && clean "${child%/}"; done
    while read -r pid; do [ "$pid" -gt 1 ] && kill -9 "$pid"; done < "$1/cgroup.procs"
    rmdir "$1"
}
while [ -d "$group" ] && [ "$tries" -lt 600 ]; do
    clean "$group" 2>/dev/null
    [ -d "$group" ] && sleep 0.02
    tries=$((tries + 1))
done
set -- "$parent"/*/
case $1 in "$parent"/droppable-leaf-*/) if [ $# = 1 ]; then
    { echo -memory > "$parent/cgroup.subtree_control"
      while read -r pid; do echo "$pid" > "$parent/cgroup.procs"; done < "$1/cgroup.procs"
      rmdir "$1"; } 2>/dev/null
fi ;; esac
[ ! -d "$group" ]
"""

# $0: the group's cgroup.procs. The shell moves itself, then becomes the program: its first allocation is in the group.
_ENTER = 'echo $$ > "$0" || exit 126; exec "$@"'


class CgroupUnavailableError(DroppableError, OSError):
    """No memory cgroup can be made here; the message says what was tried, why each failed and what to do."""


@dataclass(frozen=True)
class MemoryLimit:
    """The tightest of what limits this process's memory: its cgroup, those above it, and the machine.

    Attributes:
        limit_bytes: the limit; the machine's memory where no cgroup is tighter.
        usage_bytes: what counts against it now.
        reclaimable_bytes: what of that is on the file LRUs; clean droppable memory is there too.
        version: of the cgroup that sets the limit, 1 or 2; 0 where the machine does.
        unread: why not all of it could be read, so that there may be a tighter limit; else empty.
    """

    limit_bytes: int
    usage_bytes: int
    reclaimable_bytes: int
    version: int
    unread: str = ""

    @property
    def left_bytes(self) -> int:
        """What could be allocated before reclaim finds nothing."""
        return max(0, self.limit_bytes - self.usage_bytes) + self.reclaimable_bytes


def current() -> MemoryLimit:
    """This process's own memory limit, read from the kernel's files now (tens of microseconds); true for the moment."""
    room = headroom()
    machine_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit_bytes = machine_bytes if room.limit_bytes is None else room.limit_bytes
    version = controller_version() if limit_bytes < machine_bytes else 0
    unread = _UNREAD[room.unread] if room.unread else ""
    if room.unread and room.unread_errno:
        name = errno.errorcode.get(room.unread_errno, room.unread_errno)
        unread += f": {name} ({os.strerror(room.unread_errno)})"
    return MemoryLimit(limit_bytes, room.usage_bytes, room.reclaimable_bytes, version, unread)


_UNREAD = {
    "membership": "/proc/self/cgroup cannot be read",
    "outside": "the memory cgroup of this process cannot be seen from here",
    "group": "the files of this process's memory cgroup, or of one above it, cannot be read",
    "machine": "/proc/meminfo cannot be read",
}


def controller_version() -> int:
    """Which cgroup version has the memory controller here: 1, 2, or 0 where none is mounted."""
    return next((version for version, mount, _ in hierarchies() if has_controller(version, mount)), 0)


@dataclass(frozen=True)
class _Files:
    """How one cgroup version spells what both have."""

    limit: str
    usage: str
    peak: str
    events: str


_FILES = {
    1: _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
    2: _Files("memory.max", "memory.current", "memory.peak", "memory.events"),
}


class MemoryCgroup:
    """A memory cgroup that lives as long as its `with` block, or until `close`.

    Make it with `create`. All methods may be called from any thread. A forked child may read it; closing it there does
    nothing, the group belongs to the process that made it.
    """

    def __init__(self, path: Path, version: int, home: Path, keeper: subprocess.Popen[bytes]) -> None:
        """Private: use `create`."""
        self.path = path
        self.version = version
        self._home = home
        self._keeper = keeper
        self._maker_pid = os.getpid()
        self._children: list[subprocess.Popen[Any]] = []
        self._closed = False

    @classmethod
    def create(
        cls, limit_bytes: int, swap_bytes: int = 0, name: str | None = None, *, parent: Path | None = None
    ) -> Self:
        """Makes a group with a hard limit.

        Args:
            limit_bytes: what the group's processes may hold in memory, page cache included; rounded down to pages.
            swap_bytes: what they may hold in swap beyond that.
            name: of the group's directory; by default a new one that begins with "droppable-".
            parent: the cgroup directory to make it in; by default the first place that works (see the module).

        Raises:
            CgroupUnavailableError: no place works.
            ValueError: a limit is out of range, or the name is not a plain file name.
        """
        if limit_bytes <= 0 or swap_bytes < 0:
            raise ValueError(f"limit_bytes must be positive and swap_bytes not negative: {limit_bytes}, {swap_bytes}")
        name = name if name is not None else f"droppable-{os.getpid()}-{os.urandom(4).hex()}"
        if not name or "/" in name or name.startswith("."):
            raise ValueError(f"a cgroup's name must be a plain file name, not {name!r}")
        failures: list[str] = []
        for version, place, home in places(failures) if parent is None else place_at(parent, failures):
            try:
                return cls._create_at(version, place, home, name, limit_bytes, swap_bytes)
            except OSError as error:
                failures.append(f"cgroup v{version}, {place}: {error.strerror or error}{_detail(error)}")
        tried = "".join(f"\n  {failure}" for failure in failures)
        raise CgroupUnavailableError(f"no memory cgroup can be made here. Tried:{tried}\n{_WHAT_TO_DO}")

    @classmethod
    def _create_at(cls, version: int, place: Path, home: Path, name: str, limit_bytes: int, swap_bytes: int) -> Self:
        path = place / name
        if path.exists():
            raise FileExistsError(errno.EEXIST, "a group of this name exists already", str(path))
        # The keeper first: from here on nothing can be left behind, whatever interrupts us.
        keeper = _start_keeper(path)
        group = cls(path, version, home, keeper)
        try:
            if version == 2:
                group._home = delegate_memory(place, home, (os.getpid(), keeper.pid))
            path.mkdir()
            group._set_limits(limit_bytes, swap_bytes)
        except BaseException:
            group.close()
            raise
        return group

    def _set_limits(self, limit_bytes: int, swap_bytes: int) -> None:
        if self.version == 2:
            write(self.path / "memory.max", limit_bytes)
            if (self.path / "memory.swap.max").exists():  # not there in kernels without swap
                write(self.path / "memory.swap.max", swap_bytes)
            return
        if read(self.path / "memory.use_hierarchy", "1").strip() != "1":  # before Linux 5.11 a choice
            write(self.path / "memory.use_hierarchy", 1)
        write(self.path / "memory.limit_in_bytes", limit_bytes)
        if (self.path / "memory.memsw.limit_in_bytes").exists():  # not there with swapaccount=0
            write(self.path / "memory.memsw.limit_in_bytes", limit_bytes + swap_bytes)
        elif swap_bytes == 0:
            write(self.path / "memory.swappiness", 0)

    def popen(self, argv: Sequence[str | os.PathLike[str]], **kwargs: Any) -> subprocess.Popen[Any]:
        """Starts a program inside the group, from its first allocation; `close` kills and reaps it if it still runs.

        Takes what `subprocess.Popen` takes, but for `shell` and `executable`. Exit code 126: it could not enter the
        group; 127: there is no such program.
        """
        if kwargs.get("shell") or kwargs.get("executable"):
            raise ValueError("shell and executable do not go with a cgroup: name the shell in argv")
        enter = ["/bin/sh", "-c", _ENTER, str(self.path / "cgroup.procs")]
        child: subprocess.Popen[Any] = subprocess.Popen([*enter, *argv], **kwargs)
        self._children.append(child)
        return child

    def add(self, pid: int) -> None:
        """Moves a process in. What it allocated before stays charged where it was."""
        write(self.path / "cgroup.procs", pid)

    def pids(self) -> tuple[int, ...]:
        """The processes in the group now; none after it is gone. Those in groups below are not among them."""
        return pids(self.path)

    @property
    def limit_bytes(self) -> int:
        """The hard limit. Lowering it reclaims; where that is not enough, v1 answers OSError (EBUSY), v2 kills."""
        return int(read(self.path / _FILES[self.version].limit))

    @limit_bytes.setter
    def limit_bytes(self, limit_bytes: int) -> None:
        memsw = self.path / "memory.memsw.limit_in_bytes"
        if self.version == 2 or not memsw.exists():
            write(self.path / _FILES[self.version].limit, limit_bytes)
            return
        # v1 keeps limit <= memsw at every moment, so the order depends on the direction; the swap allowance stays.
        before = self.limit_bytes
        writes = [(self.path / "memory.limit_in_bytes", limit_bytes), (memsw, int(read(memsw)) - before + limit_bytes)]
        for path, value in writes if limit_bytes <= before else reversed(writes):
            write(path, value)

    @property
    def usage_bytes(self) -> int:
        """Charged to the group and to those below it now, page cache and kernel memory included."""
        return int(read(self.path / _FILES[self.version].usage))

    @property
    def peak_bytes(self) -> int | None:
        """The highest usage so far; None on cgroup v2 before Linux 5.19, which does not keep it."""
        try:
            return int(read(self.path / _FILES[self.version].peak))
        except FileNotFoundError:
            return None

    @property
    def oom_kills(self) -> int:
        """Processes of the group that the OOM killer killed so far; on v2 those of groups below it too."""
        return table(self.path / _FILES[self.version].events).get("oom_kill", 0)

    def stat(self) -> dict[str, int]:
        """The kernel's memory.stat, as the kernel spells the names of this cgroup version."""
        return table(self.path / "memory.stat")

    def reclaim(self, bytes_: int) -> int:
        """Asks the kernel to take this many bytes back now; returns by how much usage fell.

        On v1 and before Linux 5.19 by lowering the limit for a moment: what the group allocates just then can stall.
        """
        before = self.usage_bytes
        try:
            if (self.path / "memory.reclaim").exists():
                write(self.path / "memory.reclaim", bytes_)
            elif self.version == 2:
                limit = read(self.path / "memory.high").strip()
                write(self.path / "memory.high", max(0, before - bytes_))
                write(self.path / "memory.high", limit)
            else:
                limit = read(self.path / "memory.limit_in_bytes").strip()
                try:
                    write(self.path / "memory.limit_in_bytes", max(0, before - bytes_))
                finally:
                    write(self.path / "memory.limit_in_bytes", limit)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EBUSY):  # those two: less could be taken
                raise
        return max(0, before - self.usage_bytes)

    def close(self) -> None:
        """Kills what is still in the group, waits for its end, and removes the group. Calling it again does nothing.

        An interrupt while it waits does not stop the removal: the keeper goes on with it.

        Raises:
            OSError: the group could not be removed in time (EBUSY): a process in it does not die.
        """
        if self._closed or os.getpid() != self._maker_pid:
            return
        if os.getpid() in self.pids():
            write(self._home / "cgroup.procs", os.getpid())
        self._closed = True
        for keeper in (self._keeper, None):  # a second one, should somebody have killed the first
            if self.path.exists() or keeper is not None:
                (keeper or _start_keeper(self.path)).communicate(b"\n", timeout=_KEEPER_SECONDS)
        if self.path.exists():
            reason = f"processes {self.pids()} do not die; remove the group with rmdir"
            raise OSError(errno.EBUSY, reason, str(self.path))
        for child in self._children:
            child.wait(_KEEPER_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


_WHAT_TO_DO = """\
What to do, whichever fits:
  as root: run it again with sudo;
  in a systemd session: systemd-run --user --scope -p Delegate=yes COMMAND ...;
  in a container: start it with a writable cgroup file system (docker run --privileged)."""


SCOPE_MARKER = "DROPPABLE_IN_SCOPE"
"""Set in the environment of who is in a scope already."""


def reenter_in_scope(argv: Sequence[str], environment: Sequence[bytes]) -> str:
    """Runs argv in place of this process, in a new systemd scope where groups can be made; returns only to say why not.

    environment: entries as exec hands them on, without the marker of this function.

    The last resort on cgroup v2 without root: the user's service manager owns a part of the tree and hands out scopes.
    """
    if os.environ.get(SCOPE_MARKER):
        return "this is a systemd scope already, and it has no memory controller"
    scope = ["systemd-run", "--scope", "--quiet", "--collect", "--property=Delegate=yes"]
    scope += ["--user"] if os.geteuid() != 0 else []
    try:
        trial = subprocess.run(
            [*scope, "true"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_KEEPER_SECONDS,
        )
    except FileNotFoundError:
        return "there is no systemd-run"
    except subprocess.TimeoutExpired:
        return f"{' '.join(scope)} does not answer"
    if trial.returncode != 0:
        return f"{' '.join(scope)}: {trial.stderr.strip() or f'exit status {trial.returncode}'}"
    program = shutil.which(scope[0])
    if program is None:
        return "systemd-run has gone"
    words = [os.fsencode(word) for word in (*scope, "--", *argv)]
    exec_program(os.fsencode(program), words, [*environment, os.fsencode(SCOPE_MARKER) + b"=1"])


def _start_keeper(path: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", _KEEPER, "droppable-keeper", str(path)],
        cwd="/",
        start_new_session=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _detail(error: OSError) -> str:
    reasons = {
        errno.EACCES: f" for uid {os.geteuid()}",
        errno.EPERM: f" for uid {os.geteuid()}",
        errno.EROFS: " (mounted read-only, as in most containers)",
    }
    return reasons.get(error.errno or 0, "")
