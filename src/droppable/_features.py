"""What this kernel, cgroup, C library and Python give, each with the reason where not: `droppable.features()`."""

import errno
import os
import re
import sys
import sysconfig
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from droppable.lowlevel import Mapping, page_size_bytes, probe, random_describe

KERNEL = os.uname()

ERRNO_ENOTSUPP = 524
"""The kernel's own, which 32-bit kernels leak to user space for MAP_DROPPABLE."""


@dataclass(frozen=True)
class Feature:
    """One thing that this system gives, or not.

    Attributes:
        name: as `Features` knows it.
        available: whether it is there and does what droppable relies on.
        value: a number (in the unit that the name ends in) or a word, for what is more than yes or no; else None.
        reason: why it is not available, or what could not be proven; else empty.
    """

    name: str
    available: bool
    value: int | str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Features:
    """All features in a fixed order: iterate, or take one by name, `features()["lazyfree"].available`."""

    items: tuple[Feature, ...]

    def __iter__(self) -> Iterator[Feature]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, name: str) -> Feature:
        for feature in self.items:
            if feature.name == name:
                return feature
        raise KeyError(f"there is no feature {name!r}; there are {', '.join(item.name for item in self.items)}")


def features() -> Features:
    """Finds out what this system gives.

    The kernel's abilities are tried out once in a process, on a few pages, by error number and by content; the rest is
    read each time. Needs no privilege, raises nothing, may be called from any thread and after a fork. The memory
    figures are true for the moment of the call.

    Returns:
        The features named kernel, lazyfree, map_droppable, page_out, cold, wipe_on_fork, signal, pagemap_scan,
        vdso_getrandom, lru, swap_bytes, cgroup, memory_limit_bytes, memory_left_bytes, page_size_bytes, overcommit,
        libc, python, free_threading and address_bits, in this order.
    """
    return Features((
        Feature("kernel", True, f"{KERNEL.sysname} {KERNEL.release} {KERNEL.machine}"),
        _probed("lazyfree", "lazyfree", "MADV_FREE", _why_no_lazyfree),
        _probed("map_droppable", "droppable", "MAP_DROPPABLE", _why_no_droppable),
        _probed("page_out", "page_out", "MADV_PAGEOUT", _since("5.4")),
        _probed("cold", "cold", "MADV_COLD", _since("5.4")),
        _probed("wipe_on_fork", "wipe_on_fork", "MADV_WIPEONFORK", _since("4.14")),
        _probed("signal", "signal", "userfaultfd", _why_no_signal),
        _probed("pagemap_scan", "exact_census", "PAGEMAP_SCAN", _since("6.7")),
        _vdso_getrandom(),
        _lru(),
        _swap(),
        *_memory(),
        Feature("page_size_bytes", True, page_size_bytes()),
        _overcommit(),
        _libc(),
        Feature("python", True, f"{sys.implementation.name} {sys.version.split()[0]}"),
        _free_threading(),
        Feature("address_bits", True, 64 if sys.maxsize > 2**32 else 32),
    ))  # fmt: skip


Probe = Literal["lazyfree", "droppable", "page_out", "cold", "wipe_on_fork", "exact_census", "signal"]


def _probed(name: str, probe_name: Probe, call: str, why: Callable[[int], str]) -> Feature:
    available, finding, error = probe(probe_name)
    if finding == "call_failed" and error == errno.EINVAL and _has_locked_memory():
        reason = f"{call}: the kernel takes no locked pages, and this process has called mlockall"
        return Feature(name, False, None, reason)
    reasons = {
        "works": "",
        "unproven": "accepted, but without MADV_PAGEOUT (Linux 5.4) its effect cannot be tried out",
        "call_failed": f"{call}: {_error_text(error)}; {why(error)}" if error else why(error),
        "lost_at_once": f"{call} is accepted, but the content is gone at once, as in some sandboxes",
        "never_dropped": f"{call} is accepted, but no page was dropped when the kernel was asked to",
        "no_fault": "system calls on a dropped page succeed, so nothing signals the drop",
    }
    return Feature(name, available, None, reasons[finding])


def _has_locked_memory() -> bool:
    with Mapping(page_size_bytes(), "plain"):  # without it nothing may be locked yet
        locked = re.search(r"^VmLck:\s*(\d+)", _read("/proc/self/status"), flags=re.MULTILINE)
    return locked is not None and int(locked[1]) > 0


def _error_text(error: int) -> str:
    return "ENOTSUPP" if error == ERRNO_ENOTSUPP else f"{errno.errorcode.get(error, error)} ({os.strerror(error)})"


def _since(version: str) -> Callable[[int], str]:
    def why(error: int) -> str:
        if _numbers(KERNEL.release) >= _numbers(version):
            return f"Linux has it since {version}, but here it is refused or hidden: a sandbox, or /proc is not there"
        return f"it came with Linux {version}, this is {KERNEL.release}"

    return why


def _numbers(release: str) -> tuple[int, ...]:
    """The first two numbers of "6.18.44-rc1"."""
    return tuple(int(number) for number in re.findall(r"\d+", release)[:2])


def _why_no_lazyfree(error: int) -> str:
    return f"it came with Linux 4.12, this is {KERNEL.release}; some sandboxes refuse it"


def _why_no_droppable(error: int) -> str:
    if error in (ERRNO_ENOTSUPP, errno.EOPNOTSUPP):
        return "32-bit kernels do not offer it"
    return f"it came with Linux 6.11, this is {KERNEL.release}"


def _why_no_signal(error: int) -> str:
    if error == errno.EPERM:
        return "it is refused: a container's seccomp filter, or vm.unprivileged_userfaultfd before Linux 5.11"
    return "the kernel must be built with userfaultfd, and have MADV_FREE and MADV_PAGEOUT"


def _vdso_getrandom() -> Feature:
    available, _, reason, _, _ = random_describe()
    return Feature("vdso_getrandom", available, None, reason)


def _lru() -> Feature:
    enabled = _read("/sys/kernel/mm/lru_gen/enabled").strip()
    return Feature("lru", True, "mglru" if enabled and int(enabled, 16) & 1 else "classic")


def _swap() -> Feature:
    total_bytes = _meminfo_bytes("SwapTotal")
    reason = "" if total_bytes else "none is configured; droppable memory never needs any"
    return Feature("swap_bytes", total_bytes > 0, total_bytes, reason)


def _memory() -> tuple[Feature, ...]:
    try:
        from droppable._cgroup import controller_version, current  # here: `import droppable` need not pay for it
    except (OSError, ImportError) as error:  # its file cannot be opened: no descriptors are left
        unknown = f"there may be one, and caches stay small: it cannot be read: {error}"
        names = ("cgroup", "memory_limit_bytes", "memory_left_bytes")
        return tuple(Feature(name, False, None, unknown) for name in names)

    version, limit = controller_version(), current()
    without_cgroup = f"no cgroup is tighter than the machine, which has {limit.limit_bytes} bytes"
    # A cache goes by the last limit that it could read, or the least, and by what it has (csrc/policy/headroom.c).
    unread = f"there may be a tighter one, and caches stay small: {limit.unread}" if limit.unread else ""
    return (
        Feature("cgroup", True, f"v{version}") if version else
        Feature("cgroup", False, None, "no cgroup file system with a memory controller is mounted"),
        Feature("memory_limit_bytes", not unread, limit.limit_bytes, unread) if limit.version or unread else
        Feature("memory_limit_bytes", False, None, without_cgroup),
        Feature("memory_left_bytes", not unread, limit.left_bytes, unread),
    )  # fmt: skip


def _overcommit() -> Feature:
    names = {"0": "heuristic", "1": "always", "2": "never"}
    mode = names.get(_read("/proc/sys/vm/overcommit_memory").strip())
    if mode is None:
        return Feature("overcommit", False, None, "vm.overcommit_memory cannot be read")
    reason = "lazyfree mappings count against the commit limit (vm.overcommit_memory = 2)" if mode == "never" else ""
    return Feature("overcommit", mode != "never", mode, reason)


def _libc() -> Feature:
    try:
        version = os.confstr("CS_GNU_LIBC_VERSION")
    except (ValueError, OSError):
        version = None
    if version is None:
        with suppress(OSError, ImportError):  # no descriptors are left for what it reads
            version = "musl" if "musl" in str(sysconfig.get_config_var("HOST_GNU_TYPE")) else None
    return Feature("libc", version is not None, version, "" if version else "neither glibc nor musl names itself")


def _free_threading() -> Feature:
    if "t" not in sys.abiflags:
        return Feature("free_threading", False, "GIL", "this Python is built with a GIL")
    if getattr(sys, "_is_gil_enabled", lambda: True)():
        return Feature("free_threading", False, "GIL switched on", "PYTHON_GIL, or an extension module, asked for it")
    return Feature("free_threading", True, "no GIL")


def _meminfo_bytes(name: str) -> int:
    for line in _read("/proc/meminfo").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _read(path: str) -> str:
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""
