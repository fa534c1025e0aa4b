"""`droppable.connect` under Docker's default filter of system calls: the server, its clients, and what doctor says."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from droppable.cli._serve import server_program
from tests.unit.sandbox import confined
from tests.unit.test_serve_attach import running

CLIENT = """
import os, sys
import droppable
with droppable.connect(sys.argv[1], strict=True, near=True) as cache:
    for key, value in (("short", b"v" * 100), ("long", b"v" * 100_000)):
        assert cache.set(key, value)
        assert cache.get(key) == cache.get(key) == value
    assert cache.get_or_create("made", lambda: "once") == cache["made"] == "once"
    assert cache.namespace("part").add("k", b"") and cache.namespace("part")["k"] == b""
    child = os.fork()
    if child == 0:
        os._exit(0 if cache["short"] == b"v" * 100 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    stats = cache.stats()
    print(stats.is_attached, stats.why_not_attached or "-", stats.hits_read >= 5, stats.hits_near, stats.failures)
"""


@pytest.fixture(params=[errno.EPERM, errno.ENOSYS], ids=errno.errorcode.get)
def failure(request: pytest.FixtureRequest) -> int:
    """What a call that is not allowed fails with: EPERM with Docker, ENOSYS with Podman."""
    found: int = request.param
    return found


def run(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_the_filter_is_in_force(failure: int) -> None:
    code = """
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.mount(None, None, None, 0, None) == -1
        print(ctypes.get_errno(), [line for line in open("/proc/self/status") if line.startswith("Seccomp:")])
    """
    code = "\n".join(line.strip() for line in code.splitlines())
    assert run(confined([sys.executable, "-c", code], failure)) == f"{failure} ['Seccomp:\\t2\\n']\n"


@pytest.mark.parametrize("who", ["both", "the client alone"])
def test_clients_read_the_servers_memory(failure: int, who: str, tmp_path: Path) -> None:
    program = server_program()
    assert program is not None
    path = tmp_path / "socket"
    argv = [str(program), "--unix", str(path)]
    with running(confined(argv, failure) if who == "both" else argv, told=str(path)):
        assert run(confined([sys.executable, "-c", CLIENT, str(path)], failure)) == "True - True 1 0\n"


def test_doctor_says_so(failure: int) -> None:
    told = run(confined([sys.executable, "-m", "droppable", "doctor"], failure))
    [line] = [line for line in told.splitlines() if line.split()[:1] == ["connect"]]
    assert "clients read the server's memory" in line
