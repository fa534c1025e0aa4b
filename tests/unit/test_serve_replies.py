"""Replies of the server that clients seldom see: commands of operators, mistakes, and refusals, word for word."""

from __future__ import annotations

import base64
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from droppable.cli._serve import server_program
from tests.unit.test_serve import WAIT_SECONDS, ask

StartServer = Callable[..., Any]
MARK = b"the-mark-of-the-end"


def answer(path: Path, sent: bytes, mark: bytes) -> bytes:
    """What is replied to that, until the reply to a mark, which is left out."""
    return ask(path, sent, mark).removesuffix(mark)


def classic(path: Path, *lines: bytes) -> bytes:
    return answer(path, b"".join(line + b"\r\n" for line in (*lines, b"mn")), b"MN\r\n")


def resp(path: Path, *commands: bytes) -> bytes:
    """Each command is words that are divided by spaces."""
    mark = b"$%d\r\n%s\r\n" % (len(MARK), MARK)
    return answer(path, b"".join(map(words, (*commands, b"ECHO " + MARK))), mark)


def words(command: bytes) -> bytes:
    parts = command.split(b" ")
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


@pytest.mark.parametrize(
    "line, reply",
    [
        (b"stats sizes", b"STAT sizes_status disabled\r\nEND\r\n"),
        (b"stats detail", b"CLIENT_ERROR usage: stats detail on|off|dump\r\n"),
        (b"stats detail on", b"OK\r\n"),
        (b"stats detail dump", b"END\r\n"),
        (b"stats cachedump 1", b"CLIENT_ERROR bad command line\r\n"),
        (b"stats cachedump 1 1", b"END\r\n"),
        (b"stats nothing", b"ERROR\r\n"),
        (b"verbosity loud", b"CLIENT_ERROR bad command line format\r\n"),
        (b"verbosity 1", b"OK\r\n"),
        (b"verbosity 1 2 3", b"ERROR\r\n"),
        (b"cache_memlimit 100", b"OK\r\n"),
        (b"cache_memlimit much", b"ERROR\r\n"),
        (b"shutdown", b"ERROR: shutdown not enabled\r\n"),
        (b"flush_all soon", b"CLIENT_ERROR invalid exptime argument\r\n"),
        (b"touch nothing 100", b"NOT_FOUND\r\n"),
        (b"me nothing", b"EN\r\n"),
        (b"me", b"CLIENT_ERROR bad command line format\r\n"),
        (b"ma nothing", b"NF\r\n"),
    ],
)
def test_classic_and_meta(server_socket: Path, line: bytes, reply: bytes) -> None:
    assert classic(server_socket, line) == reply


def test_what_operators_ask_of_one_item(server_socket: Path) -> None:
    classic(server_socket, b"flush_all")
    assert classic(server_socket, b"stats items") == b"END\r\n"
    replies = classic(server_socket, b"set one 5 0 3", b"abc", b"set two 0 100 3", b"def", b"me one", b"me two")
    stored, one, two = replies[:16], *replies[16:].splitlines()
    assert stored == b"STORED\r\nSTORED\r\n"
    assert one.startswith(b"ME one exp=-1 la=0 cas=")
    assert one.endswith(b" fetch=no cls=1 size=6")
    assert two.split()[2] in (b"exp=-100", b"exp=-99")
    items = dict(line.split()[1:] for line in classic(server_socket, b"stats items").splitlines()[:-1])
    assert items[b"items:1:number"] == b"2"
    assert int(items[b"items:1:mem_requested"]) > 0


def test_counts_begin_anew_on_request(server_socket: Path) -> None:
    for again in (lambda: classic(server_socket, b"stats reset"), lambda: resp(server_socket, b"CONFIG RESETSTAT")):
        classic(server_socket, b"get nothing")
        assert again() in (b"RESET\r\n", b"+OK\r\n")
        told = dict(line.split()[1:3] for line in classic(server_socket, b"stats").splitlines()[:-1])
        assert (told[b"cmd_get"], told[b"get_misses"]) == (b"0", b"0")
        assert int(told[b"total_connections"]) <= 1


def test_keys_in_base64_come_back_as_they_came(server_socket: Path) -> None:
    for key in (b"a", b"ab", b"abc", bytes(range(150))):
        text = base64.b64encode(key)
        assert classic(server_socket, b"ms %s 2 b" % text, b"hi") == b"HD\r\n"
        assert classic(server_socket, b"mg %s b k v" % text) == b"VA 2 k%s b\r\nhi\r\n" % text
    assert classic(server_socket, b"mg abc k v") == b"VA 2 kabc\r\nhi\r\n"
    assert classic(server_socket, b"mg a=b b v") == b"CLIENT_ERROR error decoding key\r\n"


@pytest.mark.parametrize(
    "command, reply",
    [
        (b"COMMAND COUNT", b":0\r\n"),
        (b"COMMAND DOCS", b"*0\r\n"),
        (b"COMMAND", b"*0\r\n"),
        (b"QUIT", b"+OK\r\n"),
        (b"CLIENT GETNAME", b"$-1\r\n"),
        (b"CLIENT SETNAME " + 64 * b"n", b"-ERR Client names have at most 63 bytes\r\n"),
        (b"CLIENT SETNAME \xff", b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"),
        (b"CLIENT TRACKING", b"-ERR syntax error\r\n"),
        (b"CLIENT TRACKING ON PREFIX a", b"-ERR PREFIX option requires BCAST mode to be enabled\r\n"),
        (b"CLIENT TRACKING ON BCAST", b"-ERR CLIENT TRACKING needs version 3 of the protocol: send HELLO 3 before\r\n"),
        (
            b"CLIENT TRACKING ON OPTIN",
            b"-ERR CLIENT TRACKING takes BCAST, PREFIX and NOLOOP here. REDIRECT, OPTIN and OPTOUT are not there\r\n",
        ),
        (b"CLIENT TRACKING ON BCAST" + 40 * b" PREFIX a", b"-ERR too many prefixes\r\n"),
        (b"CLIENT PAUSE", b"-ERR unknown subcommand of CLIENT, or one that this server does not have\r\n"),
        (b"HELLO 4", b"-NOPROTO unsupported protocol version\r\n"),
        (b"HELLO 3 SETNAME", b"-ERR Syntax error in HELLO option\r\n"),
        (b"HELLO 3 SETNAME \x01", b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"),
        (
            b"AUTH secret",
            b"-ERR AUTH <password> called without any password configured. Did you mean HELLO?\r\n",
        ),
        (b"SELECT 1", b"-ERR DB index is out of range: there is one key space, number 0\r\n"),
        (b"CONFIG SET maxmemory 1", b"-ERR the server is configured by its command line alone\r\n"),
        (b"CONFIG GET nothing", b"*0\r\n"),
        (b"CONFIG GET maxclients", b"*2\r\n$10\r\nmaxclients\r\n$4\r\n1024\r\n"),
    ],
)
def test_resp(server_socket: Path, command: bytes, reply: bytes) -> None:
    assert resp(server_socket, command) == reply


def test_hello_gives_the_client_its_name(server_socket: Path) -> None:
    assert resp(server_socket, b"HELLO 3 SETNAME somebody", b"CLIENT GETNAME").endswith(b"$8\r\nsomebody\r\n")


def test_who_goes_back_to_version_2_is_tracked_no_more(server_socket: Path) -> None:
    """It could not be told of a change amid other replies."""
    commands = words(b"HELLO 3") + words(b"CLIENT TRACKING ON BCAST") + words(b"SET tracked 1")
    assert b">2\r\n$10\r\ninvalidate\r\n" in answer(server_socket, commands, b"$7\r\ntracked\r\n")
    told = resp(server_socket, b"HELLO 3", b"CLIENT TRACKING ON BCAST", b"HELLO 2", b"SET tracked 2")
    assert b"invalidate" not in told


@pytest.mark.parametrize("command", [b"INCR %s", b"APPEND %s a", b"GETSET %s a", b"SET %s a"])
def test_keys_that_are_too_long_are_refused(server_socket: Path, command: bytes) -> None:
    reply = resp(server_socket, command % (b"k" * 16385), b"PING")
    assert reply == b"-ERR keys have at most 16384 bytes\r\n+PONG\r\n"


def test_keys_that_are_too_long_are_not_there(server_socket: Path) -> None:
    key = b"k" * 16385
    commands = (b"EXPIRE %s 10", b"GET %s", b"GETEX %s", b"GETDEL %s", b"TTL %s", b"STRLEN %s", b"PERSIST %s")
    replies = (b":0", b"$-1", b"$-1", b"$-1", b":-2", b":0", b":0")
    assert resp(server_socket, *(command % key for command in commands)).splitlines() == list(replies)


def test_all_settings_are_told(server_socket: Path) -> None:
    told = resp(server_socket, b"CONFIG GET *").split(b"\r\n")
    pairs = dict(zip(told[2::4], told[4::4], strict=False))
    assert pairs[b"maxclients"] == b"1024"
    assert int(pairs[b"maxmemory"]) > 0


def test_nobody_may_empty_it(start_server: StartServer) -> None:
    path = start_server("--no-flush").path
    assert classic(path, b"set a 0 0 1", b"1", b"flush_all") == b"STORED\r\nCLIENT_ERROR flush_all not allowed\r\n"
    for command in (b"FLUSHALL", b"FLUSHDB"):
        assert resp(path, command, b"GET a") == b"-ERR the server was started with --no-flush\r\n$1\r\n1\r\n"


def test_a_way_to_stop_that_there_is_not(start_server: StartServer) -> None:
    path = start_server("--allow-shutdown").path
    assert classic(path, b"shutdown at-once") == b"CLIENT_ERROR invalid shutdown mode\r\n"


def test_passwords_in_the_classic_protocol(start_server: StartServer, tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text("user:secret")  # without a newline at its end
    path = start_server("--password-file", str(file)).path
    assert answer(path, b"get a\r\n", b"\n").startswith(b"CLIENT_ERROR unauthenticated")
    assert answer(path, b"set a 0 0 3\r\nabc\r\n", b"\n").startswith(b"CLIENT_ERROR authentication failure")
    good = b"set auth 0 0 11\r\nuser secret\r\n"
    assert answer(path, good + b"get a\r\n", b"END\r\n") == b"STORED\r\n"
    assert answer(path, b"set auth 0 0 11\r\nuser\tsecret\r\n", b"\n").startswith(
        b"CLIENT_ERROR authentication failure"
    )


# How it starts


def fails(*options: str, status: int = 1, **how: Any) -> str:
    """What the server says that does not start."""
    program = server_program()
    assert program
    ran = subprocess.run([program, *options], capture_output=True, text=True, timeout=WAIT_SECONDS, check=False, **how)
    assert ran.returncode == status, ran.stderr
    return ran.stderr


@pytest.mark.parametrize(
    "content, words",
    [
        (b"", "the first line of the password file {} must be a password, or user:password"),
        (b"\nsecond\n", "the first line of the password file {} must be a password, or user:password"),
        (b"x" * 70_000, "the password file {} is longer than 64 KB"),
    ],
    ids=["empty", "empty line", "long"],
)
def test_password_files_that_are_none(tmp_path: Path, content: bytes, words: str) -> None:
    file = tmp_path / "passwords"
    file.write_bytes(content)
    assert words.format(file) in fails("--unix", str(tmp_path / "socket"), "--password-file", str(file))


def test_a_password_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert f"the password file {tmp_path} " in fails("--unix", str(tmp_path / "s"), "--password-file", str(tmp_path))
    missing = tmp_path / "missing"
    assert f"the password file {missing} cannot be read: No such file" in fails("--password-file", str(missing))


def test_places_where_it_cannot_listen(tmp_path: Path) -> None:
    assert "cannot be bound: No such file or directory" in fails("--unix", str(tmp_path / "nowhere" / "socket"))
    plain = tmp_path / "file"
    plain.write_text("")
    assert f"{plain} is there, and is not a socket" in fails("--unix", str(plain))
    assert "is no address to listen at" in fails("--listen", "127.0.0.1:no-port")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert f"{address} cannot be listened at: Address already in use" in fails("--listen", address)


def test_a_folder_by_default_that_is_none_of_ours(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 200) / ("y" * 200)
    deep.mkdir(parents=True)
    assert "XDG_RUNTIME_DIR is too long a path: choose one with --unix" in fails(env={"XDG_RUNTIME_DIR": str(deep)})
    ours = tmp_path / "droppable"
    ours.write_text("")
    assert f"{ours} is there, but is not a folder of yours" in fails(env={"XDG_RUNTIME_DIR": str(tmp_path)})


def test_a_socket_that_was_handed_over_and_does_not_listen() -> None:
    code = """
import os, socket, sys
one = socket.socket(socket.AF_UNIX)
os.dup2(one.fileno(), 3)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
os.execv(sys.argv[1], sys.argv[1:])
"""
    program = server_program()
    ran = subprocess.run(
        [sys.executable, "-c", code, str(program)], capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
    )
    assert ran.returncode == 1
    assert "descriptor 3, which was handed over, is no socket that listens" in ran.stderr


def test_the_options_are_listed() -> None:
    program = server_program()
    assert program
    told = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=WAIT_SECONDS, check=True)
    assert told.stderr == ""
    for option in ("--unix", "--listen", "--threads", "--password-file", "--ready-fd", "--no-flush"):
        assert option in told.stdout


@pytest.mark.parametrize(
    "options, words",
    [
        (["--ready-fd", "x"], "the number of an open descriptor"),
        (["--threads", "0"], "--threads"),
        (["--connections", "0"], "1 to 1000000"),
        (17 * ["--listen", "127.0.0.1:0"], "16 times at most"),
    ],
)
def test_options_that_are_wrong(options: list[str], words: str) -> None:
    assert words in fails(*options, status=2)
