"""Where a memory cgroup can be made, and the bare file operations on cgroup directories.

Callers: `_cgroup`, whose docstring has the picture, and `droppable top`.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

_UNLIMITED_BYTES = 1 << 62
"""Above this a limit of cgroup v1 means none: the kernel spells that as the largest multiple of a page."""


def places(failures: list[str]) -> Iterator[tuple[int, Path, Path]]:
    """Cgroup version, directory to make a group in, and this process's own directory; the best first."""
    found = 0
    for version, mount, own in hierarchies():
        found += 1
        if version == 2:
            if not has_controller(2, mount):
                failures.append(f"cgroup v2, {mount}: the memory controller is not there (cgroup v1 may have it)")
                continue
            yield 2, own, own
            if own == mount:
                continue
            if read(own / "memory.max", "max").strip() == "max":
                yield 2, own.parent, own
            else:
                failures.append(f"cgroup v2, {own.parent}: a group there would escape the limit of {own}")
        elif any(_limited_v1(level) for level in (own, *own.parents) if mount in level.parents):
            yield 1, own, own
        else:
            yield 1, mount, own
    if not found:
        failures.append("no cgroup file system with a memory controller is mounted")


def place_at(parent: Path, failures: list[str]) -> Iterator[tuple[int, Path, Path]]:
    version = 2 if (parent / "cgroup.controllers").exists() else 1 if (parent / "memory.limit_in_bytes").exists() else 0
    if version == 0:
        failures.append(f"{parent}: this is not a directory of a cgroup file system with a memory controller")
        return
    yield version, parent, next((own for found, _, own in hierarchies() if found == version), parent)


def has_controller(version: int, directory: Path) -> bool:
    """Whether groups in this directory can have memory limits; on v1 the mount itself says so."""
    return version == 1 or "memory" in read(directory / "cgroup.controllers", "").split()


def hierarchies(process: str = "self") -> Iterator[tuple[int, Path, Path]]:
    """Version, mount point and a process's own directory, for each mount that can have the memory controller.

    process: its number as text, or "self": this one. Mounts are those that this process sees.
    """
    memberships = {}
    for line in read(Path(f"/proc/{process}/cgroup"), "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "" or "memory" in controllers.split(","):
            memberships[2 if controllers == "" else 1] = path
    for line in read(Path("/proc/self/mountinfo"), "").splitlines():
        fields, _, tail = line.partition(" - ")
        root, mount = fields.split()[3:5]
        kind, _, options = tail.split(None, 2)
        version = 2 if kind == "cgroup2" else 1 if kind == "cgroup" and "memory" in options.split(",") else 0
        if version not in memberships:
            continue
        # In a container the mount's root is often the own cgroup, under a name that only the host knows.
        path, mount = memberships[version], _unescape(mount)
        inside = os.path.relpath(path, root) if path.startswith(root) and not path.startswith("/..") else "."
        own = Path(mount, inside)
        yield version, Path(mount), own if os.path.isdir(own) else Path(mount)


def _unescape(text: str) -> str:
    r"""A path as /proc/self/mountinfo spells it: \ooo for space, tab, newline and backslash."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _limited_v1(directory: Path) -> bool:
    return int(read(directory / "memory.limit_in_bytes", str(_UNLIMITED_BYTES))) < _UNLIMITED_BYTES


def delegate_memory(place: Path, home: Path, ours: tuple[int, int]) -> Path:
    """Makes limits available below a v2 directory; returns where this process is afterwards.

    A directory that holds processes cannot hand controllers down (but for the root of all), so if those processes are
    only `ours`, they move into a leaf first. The keeper takes the leaf away again.
    """
    if not os.access(place / "cgroup.procs", os.W_OK):  # moving a process needs this of the common ancestor
        raise PermissionError(errno.EACCES, f"not delegated to uid {os.geteuid()}: cgroup.procs is not writable")
    if not has_controller(2, place):
        raise OSError(errno.ENOTSUP, "not delegated: memory is not in cgroup.controllers")
    if "memory" in read(place / "cgroup.subtree_control").split():
        return home
    try:
        write(place / "cgroup.subtree_control", "+memory")
        return home
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        others = set(pids(place)) - set(ours)
        if place != home or others:
            reason = f"holds {len(others)} other processes, so limits cannot be set below it"
            raise OSError(errno.EBUSY, reason) from None
    leaf = place / f"droppable-leaf-{os.getpid()}"
    leaf.mkdir()
    for pid in ours:
        write(leaf / "cgroup.procs", pid)
    write(place / "cgroup.subtree_control", "+memory")
    return leaf


def read(path: Path, default: str | None = None) -> str:
    try:
        return os.fsdecode(path.read_bytes())  # a cgroup's name may be any bytes
    except OSError:
        if default is None:
            raise
        return default


def write(path: Path, value: int | str) -> None:
    """Writes in one piece: the kernel takes each write as one command."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)


def pids(directory: Path) -> tuple[int, ...]:
    return tuple(int(pid) for pid in read(directory / "cgroup.procs", "").split())


def table(path: Path) -> dict[str, int]:
    return {name: int(value) for name, value in (line.split() for line in read(path).splitlines())}
