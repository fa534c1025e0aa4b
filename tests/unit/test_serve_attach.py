"""The server passes a descriptor of its memory: who gets it, and that it is the right to read and no more."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from droppable.cli._serve import server_program
from tests.unit.sandbox import confined

StartServer = Callable[..., Any]
WAIT_SECONDS = 20
OWNER, STRANGER = 61_001, 61_002
"""Users that have no name: any number does."""

# What a client tries, as an ordinary user. Prints a line for each: what it is, and the error's name or "ok".
TRIES = """
import ctypes, errno, os, socket, sys
path, pid, at, user = sys.argv[1], *map(int, sys.argv[2:])
libc = ctypes.CDLL(None, use_errno=True)
os.setgroups([])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
head, rights = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
assert libc.capget(head, rights) == 0
for i in range(3):
    rights[i] &= ~(1 << 19)  # CAP_SYS_PTRACE, which root has
assert libc.capset(head, rights) == 0
libc.prctl(4, 1, 0, 0, 0)  # a change of user made this process not dumpable: as if it had been started like that
class Part(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]

def say(what, call):
    ctypes.set_errno(0)
    try:
        result = call()
        failed = errno.errorcode[ctypes.get_errno()] if result == -1 else None
    except OSError as error:
        failed = errno.errorcode[error.errno]
    print(what, failed or "ok")

def vm(call):
    buffer = ctypes.create_string_buffer(16)
    here, there = Part(ctypes.addressof(buffer), 16), Part(at, 16)
    return call(pid, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)

with socket.socket(socket.AF_UNIX) as connection:
    connection.settimeout(20)
    connection.connect(path)
    connection.sendall(b"*1\\r\\n$16\\r\\ndroppable.attach\\r\\n")
    reply, descriptors, _, _ = socket.recv_fds(connection, 4096, 4)
memory = descriptors[0]
say("read", lambda: os.pread(memory, 16, at))
say("write", lambda: os.pwrite(memory, b"x", at))
say("reopen to write", lambda: os.open(f"/proc/self/fd/{memory}", os.O_RDWR))
say("reopen to read", lambda: os.open(f"/proc/self/fd/{memory}", os.O_RDONLY))
say("open to write", lambda: os.open(f"/proc/{pid}/mem", os.O_RDWR))
say("open to read", lambda: os.open(f"/proc/{pid}/mem", os.O_RDONLY))
say("attach", lambda: libc.ptrace(16, pid, 0, 0))
say("seize", lambda: libc.ptrace(0x4206, pid, 0, 0))
say("vm read", lambda: vm(libc.process_vm_readv))
say("vm write", lambda: vm(libc.process_vm_writev))
"""
REFUSED = {
    "write": "EBADF",
    "reopen to write": "EACCES",
    "reopen to read": "EACCES",
    "open to write": "EACCES",
    "open to read": "EACCES",
    "attach": "EPERM",
    "seize": "EPERM",
    "vm read": "EPERM",
    "vm write": "EPERM",
}


def ask(path: Path | tuple[str, int], *commands: bytes) -> tuple[list[bytes], list[int]]:
    """The first line of each reply, and the descriptors that came with them, closed."""
    family = socket.AF_INET if isinstance(path, tuple) else socket.AF_UNIX
    lines, descriptors = [], []
    with socket.socket(family) as connection:
        connection.settimeout(WAIT_SECONDS)
        connection.connect(path if isinstance(path, tuple) else str(path))
        for command in commands:
            words = command.split()
            connection.sendall(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words))
            if isinstance(path, tuple):
                reply, came = connection.recv(4096), []
            else:
                reply, came, _, _ = socket.recv_fds(connection, 4096, 8)
            lines.append(reply.split(b"\r\n")[0])
            descriptors += came
    for descriptor in descriptors:
        os.close(descriptor)
    return lines, descriptors


def mapped_at(pid: int) -> int:
    """Where the process's first writable mapping lies. Only root may look, once it is not dumpable."""
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.split()[1].startswith("rw"):
            return int(line.split("-")[0], 16)
    raise AssertionError("a process without a writable mapping")


@contextmanager
def running(argv: list[str], told: str | None = None, **user: Any) -> Iterator[subprocess.Popen[str]]:
    """A server from the moment on when it has told where it listens, killed at the end if it is there still."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd="/", **user) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == f"{told or argv[2]}\n"
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def owner() -> Iterator[tuple[Path, subprocess.Popen[str]]]:
    """A server of an ordinary user, whose socket everybody may connect to, and its process."""
    if os.geteuid() != 0:
        pytest.skip("only root can start processes of two other users")
    program = server_program()
    assert program is not None
    folder = Path(tempfile.mkdtemp(prefix="droppable-attach-", dir="/tmp"))
    try:
        folder.chmod(0o755)
        os.chown(folder, OWNER, OWNER)
        ours = shutil.copy(program, folder / "droppable-server")  # the checkout may be closed to others
        argv = [ours, "--unix", str(folder / "socket"), "--mode", "0666"]
        with running(argv, user=OWNER, group=OWNER, extra_groups=[]) as process:
            yield folder / "socket", process
            process.terminate()
            assert process.wait(WAIT_SECONDS) == 0
    finally:
        shutil.rmtree(folder)


def what_is_refused(path: Path, pid: int, user: int, failure: int | None = None) -> dict[str, str]:
    """What a client without CAP_SYS_PTRACE tries, and the error. failure: under Docker's filter with this one."""
    tries = [sys.executable, "-c", TRIES, str(path), str(pid), str(mapped_at(pid)), str(user)]
    argv = tries if failure is None else confined(tries, failure)
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    tried = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert tried.pop("read") == "ok"
    return tried


@pytest.fixture
def yama(request: pytest.FixtureRequest) -> Iterator[None]:
    """Yama's ptrace_scope: 0 is as without it, 1 lets parents alone trace, 2 nobody without CAP_SYS_PTRACE."""
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    if request.param is None:
        yield
        return
    if not scope.exists():
        pytest.skip("this kernel has no Yama: the kernel matrix boots one that has")
    before = scope.read_text()
    scope.write_text(request.param)
    yield
    scope.write_text(before)


@pytest.mark.parametrize("yama", [None, "0", "1", "2"], indirect=True, ids="Yama {}".format)
@pytest.mark.parametrize("user", [OWNER, STRANGER], ids=["same user", "another user"])
@pytest.mark.usefixtures("yama")
def test_a_client_can_read_and_neither_write_nor_trace(owner: tuple[Path, subprocess.Popen[str]], user: int) -> None:
    path, process = owner
    assert what_is_refused(path, process.pid, user) == REFUSED


@pytest.mark.parametrize("failure", [errno.EPERM, errno.ENOSYS], ids=errno.errorcode.get)
@pytest.mark.parametrize("user", [OWNER, STRANGER], ids=["same user", "another user"])
def test_the_same_under_dockers_filter(owner: tuple[Path, subprocess.Popen[str]], user: int, failure: int) -> None:
    path, process = owner
    refused = REFUSED | dict.fromkeys(("vm read", "vm write"), errno.errorcode[failure])
    assert what_is_refused(path, process.pid, user, failure) == refused


@pytest.mark.parametrize("failure", [None, errno.EPERM], ids=["without a filter", "Docker"])
def test_roots_server_in_a_container(tmp_path: Path, failure: int | None) -> None:
    """Both are root, and neither has CAP_SYS_PTRACE: so Docker starts programs."""
    if os.geteuid() != 0:
        pytest.skip("only root can start processes of root")
    argv = [str(server_program()), "--unix", str(tmp_path / "socket")]
    with running(confined(argv, errno.EPERM), told=argv[2]) as process:
        assert what_is_refused(tmp_path / "socket", process.pid, 0, failure) == REFUSED


def open_files(pid: int) -> set[str]:
    """What a process has open, but for what it closes while this looks."""
    links = set()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            links.add(os.readlink(path))
    return links


def test_the_server_counts_its_pages_as_before(owner: tuple[Path, subprocess.Popen[str]]) -> None:
    """It keeps its pagemap open: an ordinary user's process that is not dumpable could not open it any more."""
    _, process = owner
    links = open_files(process.pid)
    assert {f"/proc/{process.pid}/mem", f"/proc/{process.pid}/pagemap"} <= links


def test_the_layout_comes_with_the_descriptors(start_server: StartServer) -> None:
    lines, descriptors = ask(start_server().path, b"droppable.attach", b"PING")
    assert lines == [b"*3", b"+PONG"]
    assert len(descriptors) >= 1
    assert len(set(descriptors)) == len(descriptors)


def test_not_before_the_password(start_server: StartServer, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("word\n")
    path = start_server("--password-file", str(secret)).path
    lines, descriptors = ask(path, b"droppable.attach")
    assert (lines, descriptors) == ([b"-NOAUTH Authentication required."], [])
    lines, descriptors = ask(path, b"AUTH word", b"droppable.attach")
    assert lines == [b"+OK", b"*3"]
    assert descriptors


def test_not_over_tcp(start_server: StartServer) -> None:
    server = start_server("--listen", "127.0.0.1:0")
    assert server.process.stdout is not None
    names = [server.process.stdout.readline().strip() for _ in range(2)]
    host, port = names[1].rsplit(":", 1)
    lines, descriptors = ask((host, int(port)), b"droppable.attach")
    assert (lines, descriptors) == ([b"-ERR descriptors are passed over a unix socket alone"], [])


def test_not_where_the_server_was_told_not_to(start_server: StartServer) -> None:
    server = start_server("--no-attach")
    lines, descriptors = ask(server.path, b"droppable.attach")
    assert (lines, descriptors) == ([b"-ERR the server was started with --no-attach"], [])
    assert not any(link.endswith("/mem") for link in open_files(server.process.pid))


def test_replies_behind_it_come_whole_and_without_descriptors(start_server: StartServer) -> None:
    """Many commands at once: the descriptors come with the reply's bytes, once, and nothing is lost around them."""
    path = start_server().path
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(WAIT_SECONDS)
        connection.connect(str(path))
        ping, attach = b"*1\r\n$4\r\nPING\r\n", b"*1\r\n$16\r\nDROPPABLE.ATTACH\r\n"
        connection.sendall(ping * 100 + attach + ping * 100)
        got, came = b"", 0
        while got.count(b"+PONG\r\n") < 200:
            piece, descriptors, _, _ = socket.recv_fds(connection, 1 << 16, 8)
            assert piece, got[-100:]
            got += piece
            came += bool(descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
    assert came == 1
    assert re.fullmatch(rb"(\+PONG\r\n){100}\*3\r\n:\d+\r\n:\d+\r\n:\d+\r\n(\+PONG\r\n){100}", got)


def test_a_client_that_attaches_and_goes_leaves_nothing(start_server: StartServer) -> None:
    server = start_server()
    ask(server.path, b"droppable.attach")
    before = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    for _ in range(200):
        _, descriptors = ask(server.path, b"droppable.attach")
        assert descriptors
    ask(server.path, b"PING")
    deadline = before + 8  # connections that are just being closed
    assert len(os.listdir(f"/proc/{server.process.pid}/fd")) <= deadline


def test_a_dead_server_reads_as_nothing() -> None:
    """What a client relies on to notice that the server is gone: a read of its memory gives no bytes, and no error."""
    program = server_program()
    assert program is not None
    with tempfile.TemporaryDirectory(prefix="droppable-attach-") as folder:
        path = Path(folder) / "socket"
        with running([str(program), "--unix", str(path)]) as process:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(WAIT_SECONDS)
                connection.connect(str(path))
                connection.sendall(b"*1\r\n$16\r\ndroppable.attach\r\n")
                _, descriptors, _, _ = socket.recv_fds(connection, 4096, 8)
            try:
                at = 0
                if (
                    os.geteuid() == 0
                ):  # others may not look where anything lies: they read at 0, which fails while it lives
                    at = mapped_at(process.pid)
                    assert len(os.pread(descriptors[0], 16, at)) == 16
                process.kill()
                process.wait(WAIT_SECONDS)
                assert os.pread(descriptors[0], 16, at) == b""
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)


def test_this_process_is_dumpable_itself() -> None:
    """Else the tests above would refuse to the wrong process."""
    assert ctypes.CDLL(None).prctl(3, 0, 0, 0, 0) == 1


def test_top_shows_a_server_that_it_may_not_look_into(owner: tuple[Path, subprocess.Popen[str]]) -> None:
    path, process = owner
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(WAIT_SECONDS)
        connection.connect(str(path))
        connection.sendall(b"set k 0 0 500000\r\n" + b"v" * 500_000 + b"\r\n")
        assert connection.recv(100) == b"STORED\r\n"
    as_owner = f"""
        import os, sys
        from droppable.cli import _main, _top, _top_group, _top_memory, _top_text, _top_told
        os.setgroups([])
        os.setresgid({OWNER}, {OWNER}, {OWNER})
        os.setresuid({OWNER}, {OWNER}, {OWNER})
        sys.exit(_main.main(["top", "--once", "--json", "{process.pid}"]))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(as_owner)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    [told] = json.loads(done.stdout)["processes"]
    assert told["servers"][0]["socket"] == str(path)
    assert told["servers"][0]["entries"] == 1
    assert told["resident_bytes"] >= told["lazyfree_bytes"] >= 500_000
    assert told["mappings"] == []
