"""The server as its clients see it: memcached's protocol, limits, hostile clients, the way it starts and stops."""

from __future__ import annotations

import os
import re
import resource
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheServerError

import droppable
from droppable.cli._serve import server_program

StartServer = Callable[..., Any]
AS_SYSTEMD = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.argv[2], sys.argv[2:])
"""
WAIT_SECONDS = 20


NAMES_OF_MEMCACHED = """
    pid uptime time version pointer_size curr_connections total_connections max_connections cmd_get cmd_set cmd_flush
    cmd_touch get_hits get_misses get_expired delete_hits delete_misses incr_hits incr_misses decr_hits decr_misses
    cas_hits cas_misses cas_badval touch_hits touch_misses auth_cmds auth_errors bytes_read bytes_written limit_maxbytes
    accepting_conns threads curr_items total_items bytes evictions reclaimed rusage_user rusage_system
    listen_disabled_num dropped refused yielded_bytes
"""


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(WAIT_SECONDS)
    connection.connect(str(path))
    return connection


def receive(connection: socket.socket, end: bytes) -> bytes:
    """What comes up to that end, or until the server hangs up."""
    got = bytearray()
    while not got.endswith(end):
        piece = connection.recv(1 << 16)
        if not piece:
            break
        got += piece
    return bytes(got)


def ask(path: Path, command: bytes, end: bytes = b"\r\n") -> bytes:
    with connect(path) as connection:
        connection.sendall(command)
        return receive(connection, end)


def lets_in(path: Path) -> bool:
    """Is there room for one more? The server closes a connection too many, maybe before it is asked anything."""
    try:
        return ask(path, b"mn\r\n") == b"MN\r\n"
    except (BrokenPipeError, ConnectionResetError):
        return False


def stats(path: Path) -> dict[str, str]:
    lines = ask(path, b"stats\r\n", b"END\r\n").decode().splitlines()[:-1]
    return dict(line.removeprefix("STAT ").split(" ", 1) for line in lines)


def wait_until(holds: Callable[[], bool]) -> None:
    """Asks again and again: for what the server does by itself, a moment later."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def client(server_socket: Path) -> Iterator[Client]:
    client = Client(str(server_socket), timeout=WAIT_SECONDS)
    client.flush_all()
    yield client
    client.close()


def test_values_come_back(client: Client) -> None:
    values = {f"key{size}": os.urandom(size) for size in (0, 1, 100, 4000, 4096, 32_768, 65_536, 500_000, 1 << 20)}
    assert client.set_many(values) == []
    assert client.get_many(list(values)) == values
    for key, value in values.items():
        assert client.get(key) == value
    assert client.delete("key100")
    assert client.get("key100") is None


def test_the_commands_of_memcached(client: Client) -> None:
    assert client.set("a", "1")
    assert client.add("a", "2", noreply=False) is False
    assert client.replace("b", "2", noreply=False) is False
    assert client.append("a", "0", noreply=False)
    assert client.prepend("a", "2", noreply=False)
    assert client.get("a") == b"210"
    assert client.incr("a", 5) == 215
    assert client.decr("a", 1000) == 0
    _, version = client.gets("a")
    assert client.cas("a", "new", version)
    assert client.cas("a", "newer", version) is False
    assert client.touch("a", 100, noreply=False)
    assert client.get("a") == b"new"
    assert client.set("gone", "x", expire=-1)
    assert client.get("gone") is None
    assert client.flush_all(noreply=False)
    assert client.get("a") is None


def test_what_expires_is_gone(start_server: StartServer) -> None:
    path = start_server("--allow-clock").path
    with connect(path) as connection:
        connection.sendall(b"set a 0 100 1\r\na\r\nset b 0 1000 1\r\nb\r\ndebugtime 101\r\nget a b\r\n")
        assert receive(connection, b"END\r\n") == b"STORED\r\nSTORED\r\nOK\r\nVALUE b 0 1\r\nb\r\nEND\r\n"
        connection.sendall(b"flush_all 50\r\nget b\r\ndebugtime 51\r\nget b\r\nmn\r\n")
        assert receive(connection, b"MN\r\n") == b"OK\r\nVALUE b 0 1\r\nb\r\nEND\r\nOK\r\nEND\r\nMN\r\n"


def test_an_idle_server_forgets_what_expired(start_server: StartServer) -> None:
    path = start_server("--allow-clock").path
    for number in range(100):
        assert ask(path, b"set k%d 0 100 1\r\na\r\n" % number) == b"STORED\r\n"
    assert ask(path, b"debugtime 5000\r\n") == b"OK\r\n"
    wait_until(lambda: stats(path)["curr_items"] == "0")


def test_one_connection_after_the_other_leaves_nothing_behind(server_socket: Path) -> None:
    before = stats(server_socket)
    for _ in range(300):
        assert ask(server_socket, b"version\r\n").startswith(b"VERSION ")
    wait_until(lambda: stats(server_socket)["curr_connections"] == "1")
    assert int(stats(server_socket)["buffer_bytes"]) <= int(before["buffer_bytes"])


def test_stats_have_the_names_that_exporters_read(server_socket: Path) -> None:
    ask(server_socket, b"set a 0 0 1\r\na\r\n")
    found = stats(server_socket)
    for name in NAMES_OF_MEMCACHED.split():
        assert name in found
        float(found[name].replace(".", "", 1).split()[0].replace(".", ""))
    assert int(found["limit_maxbytes"]) > 0
    assert int(found["curr_items"]) >= 1


def test_a_connection_too_many_is_told_and_closed(start_server: StartServer) -> None:
    path = start_server("--connections", "5").path
    kept = [connect(path) for _ in range(5)]
    for connection in kept:
        connection.sendall(b"mn\r\n")
        assert receive(connection, b"\r\n") == b"MN\r\n"
    with connect(path) as refused:
        assert receive(refused, b"nothing") == b"ERROR Too many open connections\r\n"
    kept.pop().close()
    wait_until(lambda: lets_in(path))
    for connection in kept:
        connection.close()


def test_a_thousand_idle_connections_take_little(start_server: StartServer) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 3000:
        pytest.skip(f"the limit of open files is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 3000), hard))
    server = start_server("--connections", "1100")
    assert ask(server.path, b"mn\r\n") == b"MN\r\n"
    before = resident_bytes(server.process.pid)
    kept = [connect(server.path) for _ in range(1000)]
    for connection in kept:
        connection.sendall(b"mn\r\n")
    for connection in kept:
        assert receive(connection, b"\r\n") == b"MN\r\n"
    assert resident_bytes(server.process.pid) - before < 4 << 20
    for connection in kept:
        connection.close()


def resident_bytes(pid: int) -> int:
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def test_a_connection_that_says_nothing_is_closed(start_server: StartServer) -> None:
    path = start_server("--idle-seconds", "1").path
    with connect(path) as connection:
        assert receive(connection, b"nothing") == b""


def test_half_a_value_is_waited_for_only_so_long(start_server: StartServer) -> None:
    path = start_server("--stall-seconds", "1").path
    with connect(path) as connection, connect(path) as idle:
        connection.sendall(b"set a 0 0 1000\r\nabc")
        assert receive(connection, b"nothing") == b""
        idle.sendall(b"get a\r\n")
        assert receive(idle, b"END\r\n") == b"END\r\n"


def test_a_client_that_vanishes_in_the_middle_of_a_value_leaves_nothing(server_socket: Path) -> None:
    ask(server_socket, b"delete vanished\r\n")
    for sent in (0, 1, 1000, 300_000):
        with connect(server_socket) as connection:
            connection.sendall(b"set vanished 0 0 400000\r\n" + b"x" * sent)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert ask(server_socket, b"get vanished\r\n") == b"END\r\n"
    wait_until(lambda: stats(server_socket)["curr_connections"] == "1")


def test_a_slow_reader_waits_for_itself_alone(start_server: StartServer) -> None:
    path = start_server("--buffers", "8M").path
    value = b"v" * 900_000
    assert ask(path, b"set big 0 0 %d\r\n%s\r\n" % (len(value), value)) == b"STORED\r\n"
    with connect(path) as slow:
        slow.sendall(b"get " + b"big " * 30 + b"\r\n")
        for _ in range(50):
            assert ask(path, b"mn\r\n") == b"MN\r\n"
        assert int(stats(path)["buffer_bytes"]) < 8 << 20
        expected = (b"VALUE big 0 %d\r\n" % len(value) + value + b"\r\n") * 30 + b"END\r\n"
        assert receive(slow, b"END\r\n") == expected


def test_buffers_are_bounded_all_together(start_server: StartServer) -> None:
    path = start_server("--buffers", "3M").path
    half_sent = [connect(path) for _ in range(10)]
    for connection in half_sent:
        connection.sendall(b"set a 0 0 1000000\r\n" + b"x" * 100)
    wait_until(lambda: stats(path)["buffers_refused"] != "0")
    assert int(stats(path)["buffer_bytes"]) <= int(stats(path)["buffer_limit_bytes"])
    answers = []
    for connection in half_sent:
        connection.sendall(b"x" * 999_900 + b"\r\n")
        answers.append(receive(connection, b"\r\n"))
        connection.close()
    assert set(answers) == {b"STORED\r\n", b"SERVER_ERROR out of memory storing object\r\n"}
    assert ask(path, b"mn\r\n") == b"MN\r\n"


def test_values_that_are_too_large_are_refused_and_the_next_command_is_found(start_server: StartServer) -> None:
    path = start_server("--max-value", "10K").path
    value = b"x" * 10_241
    with connect(path) as connection:
        connection.sendall(
            b"set a 0 0 1\r\na\r\nset a 0 0 10241\r\n"
            + value
            + b"\r\nget a\r\nset a 0 0 10240\r\n"
            + value[1:]
            + b"\r\n"
        )
        connection.sendall(b"append a 0 0 1\r\na\r\nmn\r\n")
        answer = receive(connection, b"MN\r\n")
    too_large = b"SERVER_ERROR object too large for cache\r\n"
    assert answer == b"STORED\r\n" + too_large + b"END\r\nSTORED\r\n" + too_large + b"MN\r\n"


def test_no_descriptors_left(tmp_path: Path) -> None:
    path, program = tmp_path / "socket", server_program()
    assert program is not None
    argv = [str(program), "--unix", str(path), "--threads", "1"]
    limits = (40, 40)
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    )
    assert process.stdout is not None
    assert process.stdout.readline() == str(path).encode() + b"\n"
    kept = [connect(path) for _ in range(60)]
    told = receive(kept[-1], b"\r\n")
    assert told == b"ERROR Too many open connections\r\n"
    kept[0].sendall(b"mn\r\n")
    assert receive(kept[0], b"\r\n") == b"MN\r\n"
    for connection in kept:
        connection.close()
    wait_until(lambda: lets_in(path))
    process.terminate()
    assert process.wait(WAIT_SECONDS) == 0
    process.stdout.close()


def test_stopping_answers_what_is_under_way(start_server: StartServer) -> None:
    server = start_server()
    with connect(server.path) as idle, connect(server.path) as busy:
        busy.sendall(b"mn\r\nset a 0 0 100\r\nabc")
        assert receive(busy, b"MN\r\n") == b"MN\r\n"
        server.process.send_signal(signal.SIGTERM)
        assert receive(idle, b"nothing") == b""  # it had nothing under way
        busy.sendall(b"x" * 97 + b"\r\n")
        assert receive(busy, b"nothing") == b"STORED\r\n"
    assert server.process.wait(WAIT_SECONDS) == 0
    assert not server.path.exists()


def test_a_client_can_stop_it_only_if_that_is_allowed(start_server: StartServer) -> None:
    assert ask(start_server().path, b"shutdown\r\n") == b"ERROR: shutdown not enabled\r\n"
    server = start_server("--allow-shutdown")
    assert ask(server.path, b"shutdown\r\n") == b""
    assert server.process.wait(WAIT_SECONDS) == 0


def test_the_socket_is_private(start_server: StartServer) -> None:
    assert stat.S_IMODE(start_server().path.stat().st_mode) == 0o600
    assert stat.S_IMODE(start_server("--mode", "0660").path.stat().st_mode) == 0o660


def test_passwords(start_server: StartServer, tmp_path: Path) -> None:
    (tmp_path / "words").write_text("hello:world\nsecret\n")
    path = start_server("--password-file", str(tmp_path / "words")).path
    assert ask(path, b"get a\r\n") == b"CLIENT_ERROR unauthenticated\r\n"
    for shown in (b"hello world", b"any secret", b"secret"):
        with connect(path) as connection:
            connection.sendall(b"set x 0 0 %d\r\n%s\r\nget x\r\n" % (len(shown), shown))
            assert receive(connection, b"END\r\n") == b"STORED\r\nEND\r\n"
    for shown in (b"hello secre", b"world", b"hello worl", b"", b"x" * 10_000):
        answer = ask(path, b"set x 0 0 %d\r\n%s\r\n" % (len(shown), shown))
        assert answer == b"CLIENT_ERROR authentication failure\r\n"


def test_it_listens_at_tcp_too() -> None:
    program = server_program()
    assert program is not None
    process = subprocess.Popen(
        [program, "--listen", "127.0.0.1:0", "--listen", ":0"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(2):
        host, port = process.stdout.readline().strip().rsplit(":", 1)
        assert host == "127.0.0.1"
        client = Client((host, int(port)), timeout=WAIT_SECONDS)
        value = os.urandom(300_000)
        assert client.set("tcp", value)
        assert client.get("tcp") == value
        client.close()
    process.terminate()
    assert process.wait(WAIT_SECONDS) == 0
    process.stdout.close()


def test_sockets_of_systemd_are_taken_over(tmp_path: Path) -> None:
    program = server_program()
    assert program is not None
    with socket.socket(socket.AF_UNIX) as listening, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        listening.bind(str(tmp_path / "socket"))
        listening.listen()
        told.bind(str(tmp_path / "notify"))
        told.settimeout(WAIT_SECONDS)
        process = subprocess.Popen(
            [sys.executable, "-c", AS_SYSTEMD, str(listening.fileno()), program],
            pass_fds=[listening.fileno()], stdout=subprocess.PIPE,
            env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
        )  # fmt: skip
        assert told.recv(100) == b"READY=1"
        assert ask(tmp_path / "socket", b"mn\r\n") == b"MN\r\n"
        process.terminate()
        assert told.recv(100) == b"STOPPING=1"
        assert process.wait(WAIT_SECONDS) == 0
        assert process.stdout is not None
        process.stdout.close()
    assert (tmp_path / "socket").exists()  # it is not ours to remove


@pytest.mark.parametrize(
    "options, words",
    [
        (["--frobnicate"], "unrecognized option"),
        (["--threads", "0"], "--threads must be 1 to 64; you gave '0'"),
        (["--max-value", "1X"], "--max-value must be a size"),
        (["--listen", "11211"], "HOST:PORT"),
        (["--listen", "0.0.0.0:0"], "--public"),
        (["--public"], "--password-file"),
        (["--password-file", "/nowhere"], "cannot be read"),
        (["--mode", "9"], "octal"),
        (["extra"], "there is no argument 'extra'"),
        (["--unix", "/" + "x" * 200], "107 bytes"),
    ],
)
def test_wrong_options_are_told(options: list[str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "droppable", "serve", *options], capture_output=True, text=True, timeout=WAIT_SECONDS
    )
    assert done.returncode in (1, 2)
    assert words in done.stderr


def test_one_path_has_one_server(start_server: StartServer, tmp_path: Path) -> None:
    program = server_program()
    assert program is not None
    path = start_server().path
    second = subprocess.run([program, "--unix", path], capture_output=True, text=True, timeout=WAIT_SECONDS)
    assert second.returncode == 1
    assert "another server listens" in second.stderr
    left_behind = tmp_path / "left"
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(left_behind))
    (tmp_path / "file").write_text("precious")
    refused = subprocess.run(
        [program, "--unix", tmp_path / "file"], capture_output=True, text=True, timeout=WAIT_SECONDS
    )
    assert refused.returncode == 1
    assert (tmp_path / "file").read_text() == "precious"
    process = subprocess.Popen([program, "--unix", left_behind], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline()
    assert ask(left_behind, b"mn\r\n") == b"MN\r\n"
    process.terminate()
    assert process.wait(WAIT_SECONDS) == 0
    process.stdout.close()


def test_its_place_by_default_is_private(tmp_path: Path) -> None:
    program = server_program()
    assert program is not None
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    process = subprocess.Popen([program], stdout=subprocess.PIPE, env=environment, text=True)
    assert process.stdout is not None
    path = Path(process.stdout.readline().strip())
    assert path == tmp_path / "droppable" / "server.sock"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    process.terminate()
    assert process.wait(WAIT_SECONDS) == 0
    process.stdout.close()


def test_many_threads_count_rightly(server_socket: Path) -> None:
    """Incr from several connections at once: no sum is lost."""
    ask(server_socket, b"set sum 0 0 1\r\n0\r\n")
    clients = [connect(server_socket) for _ in range(8)]
    for connection in clients:
        connection.sendall(b"incr sum 1\r\n" * 500 + b"mn\r\n")
    for connection in clients:
        receive(connection, b"MN\r\n")
        connection.close()
    assert ask(server_socket, b"incr sum 0\r\n") == b"4000\r\n"


def test_errors_reach_pymemcache(client: Client) -> None:
    with pytest.raises(MemcacheServerError, match="too large"):
        client.set("large", b"x" * ((1 << 20) + 1), noreply=False)
    assert client.get("large") is None


def test_the_version_is_the_packages(server_socket: Path) -> None:
    assert stats(server_socket)["droppable_version"] == droppable.__version__
    program = server_program()
    assert program is not None
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert told == f"droppable-server {droppable.__version__}\n"


@pytest.mark.parametrize("limit, buffers_mb", [("64M", 8), ("16M", 4)])
def test_buffers_are_a_share_of_the_memory_limit(
    start_server: StartServer, memory_cgroup: Callable[[int], Any], limit: str, buffers_mb: int
) -> None:
    memory_cgroup(16 << 20)  # skips where there can be none
    told = ask(start_server("--memory", limit).path, b"stats settings\r\n", b"END\r\n")
    found = re.search(rb"STAT buffers (\d+)\r\n", told)
    assert found is not None
    assert buffers_mb << 20 <= int(found[1]) < (buffers_mb + 1) << 20
