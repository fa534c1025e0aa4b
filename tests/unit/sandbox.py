"""Starts a program as Docker does by default: under its filter of system calls, without the right to trace others."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import pytest

_NAMES = Path(__file__).with_name("docker_seccomp.txt")

# argv: the errno of a call that is not allowed, the allowed names, and the program with its arguments.
_CONFINE = """
import ctypes, errno, os, sys
failure, names, *argv = sys.argv[1:]
libc = ctypes.CDLL(None)
libc.prctl(24, 19, 0, 0, 0)  # CAP_SYS_PTRACE leaves the bounding set; who is not root has it not anyway
library = ctypes.CDLL("libseccomp.so.2")
library.seccomp_init.restype = ctypes.c_void_p
context = ctypes.c_void_p(library.seccomp_init(0x00050000 | int(failure)))
for name in names.split():
    number = library.seccomp_syscall_resolve_name(name.encode())
    if number >= 0:  # others are no calls of this machine
        assert library.seccomp_rule_add(context, 0x7FFF0000, number, 0) == 0
clone3 = library.seccomp_syscall_resolve_name(b"clone3")
assert library.seccomp_rule_add(context, 0x00050000 | errno.ENOSYS, clone3, 0) in (0, -errno.EACCES)  # as others
assert library.seccomp_load(context) == 0
os.execv(argv[0], argv)
"""


def confined(argv: list[str], failure: int) -> list[str]:
    """The command that runs argv so.

    failure: the errno of a call that is not allowed, but for clone3(): that one does not exist, so that the C library
    goes on with clone().
    """
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp is not there: install libseccomp2")
    lines = _NAMES.read_text().splitlines()
    names = " ".join(line for line in lines if not line.startswith("#"))
    return [sys.executable, "-c", _CONFINE, str(failure), names, *argv]
