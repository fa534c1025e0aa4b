"""`droppable.connect` on an unlucky night: interrupted calls, stopped servers, other servers, forks, serializers."""

from __future__ import annotations

import array
import builtins
import dis
import errno
import fcntl
import functools
import gc
import itertools
import json
import linecache
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import droppable
from droppable._connect import attaching
from droppable._connect import link as linking
from droppable._log import tell_once, told
from droppable.cli._serve import server_program
from tests.server import Server
from tests.unit.test_serve import wait_until

StartServer = Callable[..., Any]
WAIT_SECONDS = 20


class Stop(Exception):
    """Raised by a signal handler."""


@pytest.fixture(scope="module")
def path(start_server: StartServer) -> Path:
    found: Path = start_server("--threads", "2").path
    return found


@pytest.fixture
def shared(path: Path) -> Iterator[droppable.SharedCache]:
    with droppable.connect(path, strict=True) as cache:
        cache.clear()
        yield cache


@contextmanager
def at_alarm(handler: Callable[..., Any]) -> Iterator[None]:
    """The handler runs in 20 ms."""
    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def is_asleep(thread: threading.Thread) -> bool:
    """Whether it waits for another thread, ours not holding it up by the interpreter's lock."""
    time.sleep(0)
    path = Path(f"/proc/self/task/{thread.native_id}/stat")
    return thread.native_id is not None and path.read_text().rpartition(") ")[2][0] == "S"


def raising(*_: object) -> None:
    raise Stop


class TestInterrupted:
    def test_the_reply_of_an_interrupted_call_is_not_taken_for_the_next_ones(self, server: Server) -> None:
        with droppable.connect(server.path, attach=False, timeout_seconds=WAIT_SECONDS) as cache:
            cache.set_many({"a": b"A", "b": b"B"})
            for call in (lambda: cache.get("a"), lambda: "a" in cache, lambda: cache.set("c", b"C")):
                with server.stopped(), at_alarm(raising), pytest.raises(Stop):
                    call()
                assert (cache.get("b"), cache.get("a")) == (b"B", b"A")
                assert "entries" in cache.server_stats()

    @pytest.mark.parametrize("behind", [True, False], ids=["claimed", "not yet claimed"])
    def test_an_interrupted_call_leaves_no_claim(
        self, shared: droppable.SharedCache, path: Path, behind: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        ask = shared._link.ask

        def interrupted(*words: Any) -> Any:
            reply = ask(*words) if behind or words[0] != b"DROPPABLE.CLAIM" else None
            if words[0] == b"DROPPABLE.CLAIM":
                raise KeyboardInterrupt
            return reply

        monkeypatch.setattr(shared._link, "ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            shared.get_or_create("k", lambda: b"never")
        with droppable.connect(path, strict=True) as other:
            assert other._link.ask(b"DROPPABLE.CLAIM", droppable.lowlevel.shared_key("k")) > 0

    def test_a_signal_handler_may_use_the_cache_amid_a_call(self, server: Server) -> None:
        with droppable.connect(server.path, timeout_seconds=WAIT_SECONDS) as cache:
            cache.set("k", b"v")
            found: list[Any] = []

            def handler(*_: object) -> None:
                found.extend([cache.get("k"), cache.get("absent"), cache.set("l", b""), cache.stats().is_attached])
                found.append(cache.get_or_create("made", lambda: b"by the handler"))
                server.process.send_signal(signal.SIGCONT)

            with server.stopped(), at_alarm(handler):
                assert "k" in cache
            assert found == [b"v", None, False, True, b"by the handler"]
            assert cache.stats().connections == 1

    def test_a_signal_handler_may_close_the_cache_amid_a_call(self, server: Server) -> None:
        before = len(os.listdir("/proc/self/fd"))
        cache = droppable.connect(server.path, timeout_seconds=WAIT_SECONDS)
        with server.stopped(), at_alarm(lambda *_: cache.close()):
            assert cache.get("absent") is None
        with pytest.raises(droppable.ClosedError):
            cache.get("absent")
        assert len(os.listdir("/proc/self/fd")) == before


@functools.cache
def behind_calls(code: CodeType) -> frozenset[int]:
    """Where a signal handler may run: behind a call that has returned."""
    instructions = list(dis.get_instructions(code))
    return frozenset(after.offset for call, after in itertools.pairwise(instructions) if call.opname.startswith("CALL"))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="3.12.1 does not trace opcodes")
def test_an_interrupted_connect_leaves_no_descriptor(server: Server) -> None:
    """But for one that comes right behind the call that brings the descriptors: nobody has their numbers then."""
    traced = {attaching.attach.__code__, linking.Link.take.__code__}
    left_open = []
    for number in itertools.count(1):
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        steps = [True] + [None] * (number - 1)  # what is to happen at each of them
        places: list[str] = []

        def trace(frame: FrameType, event: str, argument: object, steps: Any = steps, places: Any = places) -> Any:
            frame.f_trace_opcodes = True
            code = frame.f_code
            if event == "opcode" and code in traced and frame.f_lasti in behind_calls(code) and steps.pop():
                places.append(linecache.getline(code.co_filename, frame.f_lineno).strip())
                sys.settrace(None)
                raise Stop
            return trace

        cache = droppable.connect(server.path, timeout_seconds=WAIT_SECONDS)
        cache._link.wire.close()
        sys.settrace(trace)
        with suppress(Stop):
            cache.get("absent")
        sys.settrace(None)
        assert cache.set("k", b"v")
        assert cache.get("k") == b"v"
        cache.close()
        del cache
        gc.collect()
        if not places:
            break
        if len(os.listdir("/proc/self/fd")) > before:
            left_open += places
    assert number > 15
    assert [place for place in left_open if ".recvmsg(" not in place] == []


class TestClosed:
    def test_amid_a_connect_of_another_thread(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        """The memory that came with the connection is not read any more."""
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        cache = droppable.connect(server.path, timeout_seconds=WAIT_SECONDS)
        cache["k"] = b"v"
        closer = threading.Thread(target=cache.close)

        def attach(*arguments: Any) -> Any:
            found = attaching.attach(*arguments)
            closer.start()
            wait_until(lambda: cache._link.read is linking._read_closed)
            return found

        monkeypatch.setattr(linking, "attach", attach)
        cache._link.wire.close()
        cache.get("absent")
        closer.join(WAIT_SECONDS)
        for call in (lambda: cache.get("k"), lambda: cache.get_many(["k"]), lambda: "k" in cache):
            with pytest.raises(droppable.ClosedError):
                call()
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before

    def test_before_a_thread_is_given_its_call(self, server: Server) -> None:
        class Leaving:
            """Whoever leaves the lock finds the cache closed then."""

            def __init__(self, cache: droppable.SharedCache) -> None:
                self.lock, self.cache, self.is_first = cache._link._lock, cache, True

            def __enter__(self) -> None:
                self.lock.acquire()

            def __exit__(self, *_: object) -> None:
                self.lock.release()
                is_first, self.is_first = self.is_first, False
                if is_first:
                    self.cache.close()

        cache = droppable.connect(server.path, timeout_seconds=WAIT_SECONDS)
        cache._link._lock = Leaving(cache)  # type: ignore[assignment]
        assert cache._link.in_thread(lambda: "called").result(WAIT_SECONDS) == "called"
        with pytest.raises(droppable.ClosedError):
            cache._link.in_thread(lambda: "called")

    def test_once_more_after_an_interrupt(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        gc.collect()
        before = len(os.listdir("/proc/self/fd"))
        cache = droppable.connect(server.path, timeout_seconds=WAIT_SECONDS)
        with monkeypatch.context() as patch:
            patch.setattr(cache._link.wire, "end", raising)
            with pytest.raises(Stop):
                cache.close()
        cache.close()
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) == before


class TestServers:
    def test_hits_wait_for_no_server(self, server: Server) -> None:
        """What is told of hits finds no room once the socket's buffer is full. Then it is left out."""
        with droppable.connect(server.path, timeout_seconds=5, strict=True) as cache:
            keys = [f"{number:0200}" for number in range(6000)]
            cache.set_many({key: b"v" for key in keys})
            with server.stopped():
                assert len(cache.get_many(keys)) == len(keys)
            assert "absent" not in cache
            assert cache.stats().connections == 1

    def test_a_socket_of_another_user(self, server: Server) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can become another user")
        server.path.parent.chmod(0o700)
        code = (
            "import os, sys, droppable; from droppable._connect import link; os.setgroups([]); os.setuid(61001)\n"
            "try: droppable.connect(sys.argv[1])\nexcept PermissionError as error: print(error)"
        )
        argv = [sys.executable, "-c", code, str(server.path)]
        result = subprocess.run(argv, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False)
        assert "the server's socket is closed to this user" in result.stdout, result.stderr
        assert str(server.path) in result.stdout

    def test_failures_leave_nothing_behind(self, server: Server) -> None:
        """Else descriptors of servers that are gone, and values, would stay until the garbage collector comes by."""
        with droppable.connect(server.path, retry_seconds=WAIT_SECONDS) as cache:
            assert cache.set("k", b"v")
            server.kill()
            assert cache.get("k") is None
            gc.collect()
            gc.disable()
            try:
                for _ in range(10):
                    assert cache.get_many(["k", "l"]) == {}
                    assert not cache.set("k", b"v")
                    assert cache.get_or_create("k", lambda: b"mine") == b"mine"
                assert gc.collect() == 0
            finally:
                gc.enable()

    def test_a_server_that_is_full_refuses_no_password(self, start_server: StartServer, tmp_path: Path) -> None:
        secret = tmp_path / "password"
        secret.write_text("word\n")
        path = start_server("--password-file", str(secret), "--connections", "1").path
        with droppable.connect(path, password="word", strict=True) as first:
            assert first.set("k", b"v")
            with droppable.connect(path, password="word") as second:
                assert second.get("k") is None
                assert second.stats().connections == 0
            with pytest.raises(OSError, match=r"Too many open connections|cannot be reached") as raised:
                droppable.connect(path, password="word", strict=True)
            assert not isinstance(raised.value, PermissionError)

    def test_a_server_that_asks_for_a_password_since_it_was_started_anew(self, server: Server, tmp_path: Path) -> None:
        secret = tmp_path / "password"
        secret.write_text("word\n")
        with droppable.connect(server.path, retry_seconds=0.001) as cache:
            assert cache.set("k", b"v")
            server.kill()
            server.start("--password-file", str(secret))
            assert cache.get("k") is None
            assert not cache.set("k", b"w")
            assert cache.get_or_create("k", lambda: b"mine") == b"mine"
            assert cache.stats().failures >= 3
        with pytest.raises(PermissionError, match=r"asks for a password"):
            droppable.connect(server.path)

    @pytest.mark.parametrize(
        "answer",
        [
            b"-ERR unknown command 'DROPPABLE.HAS'\r\n" * 2,
            b":one\r\n" * 2,
            b"*1\r\n" * 5000,
            b"*2\r\n:x\r\n:y\r\n$-5\r\n",
            b"$99999999999999999999\r\n",
            b"ERROR\r\n" * 3,
            b"x" * 100_000,
            b"\r\n" * 3,
            b"",
        ],
        ids=lambda answer: repr(answer[:20]),
    )
    def test_another_program_at_the_socket(self, tmp_path: Path, answer: bytes) -> None:
        """Whatever it answers is a miss. Only connect() tells of it by an exception."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(tmp_path / "socket"))
        listener.listen(50)
        ends = threading.Event()

        def serve() -> None:
            while True:
                connection = listener.accept()[0]
                with connection:
                    if ends.is_set():
                        return
                    try:
                        connection.recv(1 << 16)
                        connection.sendall(answer)
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(1 << 16):
                            pass
                    except OSError:
                        pass  # the client has hung up

        thread = threading.Thread(target=serve)
        thread.start()
        server = None
        try:
            with droppable.connect(tmp_path / "nobody", retry_seconds=0.001) as cache:
                cache._link.wire.path = str(tmp_path / "socket")
                for _ in range(3):
                    assert cache.get("k") is None
                    assert cache.get_many(["k"]) == {}
                    assert not cache.set("k", b"v")
                    assert cache.get_or_create("k", lambda: b"mine") == b"mine"
        finally:
            ends.set()
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(tmp_path / "socket"))
            thread.join(WAIT_SECONDS)
            listener.close()
        assert server is None

    def test_a_server_that_ends_leaves_the_socket_of_another_one(self, server: Server) -> None:
        server.path.unlink()
        other = Server(server.path)
        try:
            server.process.terminate()
            assert server.process.wait(WAIT_SECONDS) == 0
            with droppable.connect(server.path, strict=True) as cache:
                assert cache.set("k", b"v")
            other.process.terminate()
            assert other.process.wait(WAIT_SECONDS) == 0
            assert not server.path.exists()
        finally:
            other.kill()

    def test_of_servers_that_start_at_once_at_one_path_one_stays(self, tmp_path: Path) -> None:
        """One that has bound its socket and does not listen yet is not taken for one that was left behind."""
        program = server_program()
        assert program is not None
        path = tmp_path / "socket"
        folder = os.open(tmp_path, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)
        with socket.socket(socket.AF_UNIX) as first:
            first.bind(str(path))
            argv = [str(program), "--unix", str(path)]
            with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as second:
                wait_until(lambda: str(tmp_path) in links(second.pid) or not path.exists() or second.poll() is not None)
                first.listen(1)
                os.close(folder)
                try:
                    said = second.communicate(timeout=WAIT_SECONDS)[1]
                    assert said.strip().endswith(f"another server listens at {path}")
                finally:
                    second.kill()

    def test_whoever_holds_the_folder_keeps_no_server_from_starting(self, tmp_path: Path) -> None:
        folder = os.open(tmp_path, os.O_RDONLY)
        fcntl.flock(folder, fcntl.LOCK_EX)
        server = Server(tmp_path / "socket")
        os.close(folder)
        server.kill()

    def test_a_server_that_may_pass_no_more_descriptors_is_asked(self) -> None:
        """Other clients have asked for its memory and do not take it. What is on its way counts for its user."""
        if os.geteuid() != 0:
            pytest.skip("only root can start a process of another user, with a limit of its own")
        program = server_program()
        assert program is not None
        folder = Path(tempfile.mkdtemp(prefix="droppable-hostile-", dir="/tmp"))
        folder.chmod(0o755)
        os.chown(folder, 61_001, 61_001)
        ours = shutil.copy(program, folder / "droppable-server")
        argv = [str(ours), "--unix", str(folder / "socket"), "--mode", "0666"]
        user = {"user": 61_001, "group": 61_001, "extra_groups": []}
        limits: Any = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128)), **user}
        with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **limits) as server:
            hoarders: list[socket.socket] = []
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == f"{folder / 'socket'}\n"
                for _ in range(70):
                    hoarders.append(socket.socket(socket.AF_UNIX))
                    hoarders[-1].settimeout(WAIT_SECONDS)
                    hoarders[-1].connect(str(folder / "socket"))
                    hoarders[-1].sendall(b"*1\r\n$16\r\nDROPPABLE.ATTACH\r\n")
                    assert hoarders[-1].recv(1, socket.MSG_PEEK) == b"*"  # what came with it stays there
                with droppable.connect(folder / "socket", strict=True, retry_seconds=0.001) as cache:
                    assert cache.set("k", b"v")
                    assert cache["k"] == b"v"
                    assert "no descriptors left" in cache.stats().why_not_attached
                    for hoarder in hoarders:
                        hoarder.close()
                    wait_until(lambda: "absent" not in cache and cache.stats().is_attached)
                    assert cache.stats().connections == 1
            finally:
                server.kill()
                shutil.rmtree(folder)


class TestTurns:
    def test_a_thread_waits_no_longer_than_asked(self, shared: droppable.SharedCache) -> None:
        begun, ends = threading.Event(), threading.Event()

        def slow() -> bytes:
            begun.set()
            assert ends.wait(WAIT_SECONDS)
            return b"slow"

        found: list[bytes] = []
        thread = threading.Thread(target=lambda: found.append(shared.get_or_create("k", slow)))
        thread.start()
        assert begun.wait(WAIT_SECONDS)
        assert shared.get_or_create("k", lambda: b"mine", wait_seconds=0.01) == b"mine"
        assert shared["k"] == b"mine"
        ends.set()
        thread.join(WAIT_SECONDS)
        assert found == [b"slow"]
        assert shared["k"] == b"mine"

    def test_threads_that_wait_for_each_other_end(self, shared: droppable.SharedCache) -> None:
        both = threading.Barrier(2)

        def compute(own: str, other: str) -> bytes:
            def factory() -> bytes:
                both.wait(WAIT_SECONDS)
                return shared.get_or_create(other, lambda: b"inner", wait_seconds=0.05)

            return shared.get_or_create(own, factory)

        found: dict[str, bytes] = {}
        threads = [
            threading.Thread(target=lambda own=own, other=other: found.update({own: compute(own, other)}))
            for own, other in (("a", "b"), ("b", "a"))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_SECONDS)
        assert found == {"a": b"inner", "b": b"inner"}

    def test_a_value_is_computed_once_however_many_others_are(self, shared: droppable.SharedCache) -> None:
        begun, ends = threading.Event(), threading.Event()
        calls: list[int] = []

        def slow() -> bytes:
            calls.append(1)
            begun.set()
            assert ends.wait(10 * WAIT_SECONDS)  # ten thousand others take a while
            return b"slow"

        threads = [threading.Thread(target=lambda: shared.get_or_create("k", slow)) for _ in range(2)]
        threads[0].start()
        assert begun.wait(WAIT_SECONDS)
        for number in range(10_100):
            shared.get_or_create(number, lambda: b"")
        threads[1].start()
        wait_until(lambda: is_asleep(threads[1]))
        ends.set()
        for thread in threads:
            thread.join(WAIT_SECONDS)
        assert calls == [1]

    def test_who_waited_too_long_overwrites_nothing_newer(self, shared: droppable.SharedCache, path: Path) -> None:
        with droppable.connect(path, strict=True) as holder:
            assert holder._link.ask(b"DROPPABLE.CLAIM", droppable.lowlevel.shared_key("k")) > 0

            def older() -> bytes:
                assert holder.set("k", b"newer")
                return b"older"

            assert shared.get_or_create("k", older, wait_seconds=0.01) == b"older"
            assert shared["k"] == b"newer"

    def test_an_older_computation_of_this_process_does_not_pass_for_a_newer_one(
        self, shared: droppable.SharedCache, path: Path
    ) -> None:
        """Two threads, one after it has waited too long: both have a claim by the same connection."""
        begun, ends = threading.Event(), threading.Event()
        source = [b"old"]

        def compute() -> bytes:
            value = source[0]
            begun.set()
            assert ends.wait(WAIT_SECONDS)
            return value

        def change() -> bytes:
            source[0] = b"new"
            with droppable.connect(path, strict=True) as other:
                assert not other.delete("k")
            shared.get_or_create("k", newer, wait_seconds=0.01)
            return b""

        def newer() -> bytes:
            ends.set()
            thread.join(WAIT_SECONDS)
            assert shared.get("k") is None
            return source[0]

        thread = threading.Thread(target=lambda: shared.get_or_create("k", compute))
        thread.start()
        assert begun.wait(WAIT_SECONDS)
        change()
        assert shared["k"] == b"new"

    def test_times_are_checked_before_the_computation(self, shared: droppable.SharedCache) -> None:
        calls: list[int] = []
        with pytest.raises(ValueError, match=r"ttl must be more than 0 seconds; you gave -1"):
            shared.get_or_create("k", lambda: calls.append(1) or b"", ttl=-1)
        assert calls == []

    def test_what_cannot_be_read_is_computed_once(self, shared: droppable.SharedCache) -> None:
        calls: list[int] = []
        word = droppable.lowlevel.shared_key("k")
        assert shared._link.ask(b"DROPPABLE.SET", word, b"9", b"", b"no value", b"0") == b"OK"
        for _ in range(3):
            assert shared.get_or_create("k", lambda: calls.append(1) or b"right") == b"right"
        assert calls == [1]


class Dumping:
    """A serializer whose dumps() returns what it is given."""

    @staticmethod
    def dumps(value: Any) -> Any:
        return value[0]

    @staticmethod
    def loads(data: bytes) -> Any:
        return [data]


class TestSerializers:
    @pytest.mark.parametrize(
        ("dumped", "stored"),
        [
            ("text \u00e9", "text \u00e9".encode()),
            ("x" * 100_000, b"x" * 100_000),
            (bytearray(b"abc"), b"abc"),
            (array.array("i", range(9)), array.array("i", range(9)).tobytes()),
            (memoryview(array.array("q", range(20_000))), array.array("q", range(20_000)).tobytes()),
            (memoryview(b"abcdef")[::2], b"ace"),
            (b"", b""),
        ],
        ids=lambda value: f"{type(value).__name__} {len(value)}",
    )
    def test_whatever_they_make_is_one_value(self, path: Path, dumped: Any, stored: bytes) -> None:
        """Its length is that in bytes: else what follows it would be read as a command."""
        with droppable.connect(path, serializer=Dumping, strict=True) as cache:
            assert cache.set("k", [dumped])
            assert cache["k"] == [stored]
            assert cache.set("l", b"next")
            assert cache["l"] == b"next"

    def test_json_will_do(self, path: Path) -> None:
        with droppable.connect(path, serializer=json, strict=True) as cache:
            for value in ({"a": [1, None]}, ["x" * 100_000]):
                assert cache.set("k", value)
                assert cache["k"] == value

    @pytest.mark.parametrize("dumped", [None, 5, [1]])
    def test_what_is_neither_bytes_nor_text_is_told(self, path: Path, dumped: Any) -> None:
        with droppable.connect(path, serializer=Dumping, strict=True) as cache:
            with pytest.raises(TypeError, match=r"serializer.dumps\(\) must return bytes or str; yours has returned"):
                cache.set("k", [dumped])
            assert cache.set("l", b"next")

    def test_an_array_that_cannot_be_written_down(self, path: Path, numpy: Any) -> None:
        """Its dtype is too long for the server."""
        import pickle

        wide = numpy.zeros(2, [(f"field {number}", "i4") for number in range(300)])
        with droppable.connect(path) as plain, droppable.connect(path, serializer=pickle) as pickling:
            with pytest.raises(TypeError, match=r"you gave one of type ndarray and dtype \[\('field 0', '<i4'\)"):
                plain.set("k", wide)
            assert pickling.set("k", wide)
            assert pickling["k"].dtype == wide.dtype


class TestProcesses:
    def test_a_program_that_closes_all_descriptors(self, shared: droppable.SharedCache) -> None:
        """Nothing is written to what has got the connection's number since, and nobody closes it."""
        shared.set("k", b"v")
        number = next(int(name) for name in os.listdir("/proc/self/fd") if is_socket_to(int(name)))
        reader, writer = os.pipe()
        os.dup2(writer, number)
        os.close(writer)
        assert "k" in shared
        assert shared.stats().connections == 2
        os.write(number, b"ours")
        assert os.read(reader, 100) == b"ours"
        other = next(int(name) for name in os.listdir("/proc/self/fd") if is_socket_to(int(name)))
        os.close(other)
        assert "k" in shared
        assert shared.stats().connections == 3
        os.close(number)
        os.close(reader)

    def test_a_fork_amid_a_connect_keeps_no_connection(self, server: Server) -> None:
        """Else its parent's claims would live as long as the child."""
        with droppable.connect(server.path, timeout_seconds=WAIT_SECONDS) as cache:
            cache._link.wire.close()
            with server.stopped():
                thread = threading.Thread(target=lambda: "k" in cache)
                thread.start()
                wait_until(lambda: bool(sockets()))
                child = os.fork()
                if child == 0:
                    os._exit(len(sockets()))
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            thread.join(WAIT_SECONDS)
            assert cache.stats().connections == 2

    def test_what_cannot_be_told_for_want_of_descriptors_is_told_later(self, monkeypatch: pytest.MonkeyPatch) -> None:
        matter = "this test's matter"
        load = builtins.__import__

        def fail(name: str, *arguments: Any) -> Any:
            if name == "logging":
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return load(name, *arguments)

        with monkeypatch.context() as patch:
            patch.setattr(builtins, "__import__", fail)
            tell_once(matter, "never")
        assert matter not in told

    def test_without_descriptors_a_miss_is_a_miss(self, tmp_path: Path, run_python: Callable[..., str]) -> None:
        code = """
            import os, resource, sys, droppable
            from droppable._connect import computing
            import logging
            logging.getLogger("droppable").setLevel(logging.CRITICAL)
            taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(20)]
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(taken) + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
            cache = droppable.connect(sys.argv[1])
            assert cache.get("k", "miss") == "miss" and not cache.set("k", b"v")
            assert cache.get_or_create("k", lambda: b"mine") == b"mine"
            cache.close()
            print("fine")
        """
        assert run_python(code, str(tmp_path / "nobody")) == "fine\n"

    def test_arrays_of_other_caches_are_no_values(self, path: Path, numpy: Any) -> None:
        """Their form has a pickle in it, which this process may have read before, for a cache of its own."""
        import pickle

        mine = droppable.Cache()
        mine["k"] = numpy.zeros(3, "u1")
        assert mine["k"].tolist() == [0, 0, 0]
        meta = b"C\x01" + (3).to_bytes(8, sys.byteorder) + pickle.dumps(numpy.dtype("u1"), protocol=5)
        for attach in (True, False):
            with droppable.connect(path, strict=True, attach=attach) as cache:
                word = droppable.lowlevel.shared_key("k")
                assert cache._link.ask(b"DROPPABLE.SET", word, b"4", meta, b"abc", b"0") == b"OK"
                assert cache.get("k") is None


def links(pid: int) -> list[str]:
    """What the descriptors of a process lead to."""
    found = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(link))
        except OSError:
            pass  # closed meanwhile
    return found


def is_socket_to(number: int) -> str:
    """The name of the server that this descriptor is connected to by a unix socket, or ""."""
    try:
        with socket.socket(fileno=os.dup(number)) as found:
            return str(found.getpeername()) if found.family == socket.AF_UNIX else ""
    except OSError:
        return ""  # no socket, or connected to nobody


def sockets() -> list[str]:
    """The servers that this process is connected to."""
    return [name for number in os.listdir("/proc/self/fd") if (name := is_socket_to(int(number)))]
