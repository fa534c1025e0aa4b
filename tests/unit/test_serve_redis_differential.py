"""The server beside a real Redis: the same commands, chosen at random, must get the same answers.

Differences that are meant, and so not asked about here:

- what needs more than strings and their expiry;
- the words of some errors: only their first word is compared (ERR, NOAUTH, EXECABORT);
- what a server says of itself (INFO, HELLO, COMMAND), and DBSIZE, which there counts what has expired;
- more than 292 years of time to live, which are so many here.
"""

from __future__ import annotations

import random
import re
import shutil
import socket
import subprocess
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

ROUNDS = 3000
LARGEST, TOO_LARGE = b"9223372036854775807", b"9223372036854775808"
KEYS = [b"a", b"b", b"", b"n", b"k\r\n\0", b"k" * 300]
VALUES = [b"", b"x", b"hello", b"7", b"-12", LARGEST, TOO_LARGE, b"12 ", b"007", b"+8", b"y" * 5000]
NUMBERS = [b"0", b"1", b"-5", b"100", LARGEST, b"-9223372036854775808", TOO_LARGE, b"x", b"", b"1.5"]
TIMES = [b"100000", b"500000", b"0", b"-1", b"x", b"999999999"]
OPTIONS = """
    |||EX 100|px 50000|NX|XX|GET|KEEPTTL|XX GET|EX 100 NX|EXAT 9999999999|PXAT 9999999999999|NX XX|EX|WHAT|EX 10 PX 10
    |EX 10 KEEPTTL|EXAT 1|NX GET|GET KEEPTTL XX|EX 0|EX x|PX -1"""


def end_of_reply(data: bytes, at: int) -> int:
    """Where the reply that begins there ends; -1 if it is not whole."""
    end = data.find(b"\r\n", at) + 2 if at >= 0 else 1
    if end < 2:
        return -1
    kind, number = data[at : at + 1], data[at + 1 : end - 2]
    if kind == b"$" and number != b"-1":
        end += int(number) + 2
        return end if end <= len(data) else -1
    for _ in range(int(number) if kind == b"*" and number != b"-1" else 0):
        end = end_of_reply(data, end)
    return end


class Peer:
    """One connection."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(str(path))

    def close(self) -> None:
        self._socket.close()

    def ask(self, command: bytes) -> bytes:
        self._socket.sendall(command + b"*2\r\n$4\r\nECHO\r\n$8\r\nsentinel\r\n")
        answer = b""
        while (end := end_of_reply(answer, end_of_reply(answer, 0))) < 0:  # two replies
            got = self._socket.recv(1 << 16)
            assert got, f"the server hung up after {command[:200]!r}"
            answer += got
        assert end == len(answer)
        return re.sub(rb"^-(\w+) [^\r]*", rb"-\1", answer, flags=re.MULTILINE)


def encoded(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def one_command(chance: random.Random) -> list[bytes]:
    key, value = chance.choice(KEYS), chance.choice(VALUES)
    kind = chance.randrange(22)
    if kind < 5:
        options = chance.choice(OPTIONS.split("|")).encode().split()
        return [b"SET", key, value, *options]
    commands: list[list[bytes]] = [
        [b"GET", key],
        [b"get", key],
        [b"MGET", *chance.choices(KEYS, k=chance.randrange(1, 5))],
        [b"MSET", *chance.choices(KEYS[:4], k=2), *chance.choices(VALUES, k=chance.choice([0, 1, 2]))],
        [chance.choice([b"INCR", b"DECR"]), key],
        [chance.choice([b"INCRBY", b"DECRBY"]), key, chance.choice(NUMBERS)],
        [chance.choice([b"DEL", b"UNLINK", b"EXISTS", b"TOUCH"]), *chance.choices(KEYS, k=chance.randrange(1, 4))],
        [chance.choice([b"EXPIRE", b"PEXPIRE"]), key, chance.choice([b"100000", b"-1", b"x", b"0"])],
        [b"EXPIRE", key, b"%d" % chance.randrange(10**6), chance.choice([b"NX", b"XX", b"GT", b"LT", b"WHAT"])],
        [b"EXPIREAT", key, chance.choice([b"9999999999", b"1"])],
        [chance.choice([b"PERSIST", b"TYPE", b"STRLEN", b"GETDEL", b"EXPIRETIME"]), key],
        [b"TTL", key],
        [chance.choice([b"APPEND", b"GETSET", b"SETNX"]), key, value],
        [chance.choice([b"SETEX", b"PSETEX"]), key, chance.choice(TIMES), value],
        [b"GETEX", key, *chance.choice([[], [b"PERSIST"], [b"EX", b"100"], [b"EX"], [b"EX", b"0"], [b"WHAT"]])],
        [chance.choice([b"PING", b"MULTI", b"EXEC", b"DISCARD", b"NOPE", b"GET", b"SET", b"SELECT"])],
        [b"PING", value],
    ]
    return chance.choice(commands)


@pytest.fixture(scope="module")
def redis_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed (Debian and Ubuntu: apt-get install redis-server)")
    folder = tmp_path_factory.mktemp("redis")
    path = folder / "socket"
    process = subprocess.Popen(
        [program, "--port", "0", "--unixsocket", str(path), "--save", "", "--dir", str(folder)],
        stdout=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 20
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)  # it has no way to tell that it is ready
    yield path
    process.terminate()
    process.wait(20)


def is_a_second_apart(expected: bytes, answer: bytes) -> bool:
    """Are they equal but for numbers that differ by one?"""
    ours, theirs = answer.split(b"\r\n"), expected.split(b"\r\n")
    return len(ours) == len(theirs) and all(
        a == b or (a[:1] == b[:1] == b":" and abs(int(a[1:]) - int(b[1:])) == 1)
        for a, b in zip(ours, theirs, strict=True)
    )


def compare(redis_server: Path, ours: Path, seed: int, rounds: int) -> None:
    """Asks both servers the same, so often, and compares: for the test, and for tools/server_differential.py."""
    chance = random.Random(seed)
    peers = Peer(redis_server), Peer(ours)
    for peer in peers:
        peer.ask(encoded(b"FLUSHDB"))
    log: deque[list[bytes]] = deque(maxlen=14)
    try:
        for _ in range(rounds):
            log.append(one_command(chance))
            command = encoded(*log[-1])
            expected, answer = (peer.ask(command) for peer in peers)
            history = "\n".join(repr([word[:40] for word in words]) for words in log)
            if log[-1][0] in (b"TTL", b"EXPIRETIME"):  # the two may be asked on both sides of a whole second
                expected, answer = expected[:2], answer[:2]
            elif log[-1][0] == b"EXEC" and is_a_second_apart(expected, answer):  # TTL may be in it
                continue
            assert answer == expected, f"after\n{history}\nRedis: {expected[:500]!r}\nwe: {answer[:500]!r}"
    finally:
        for peer in peers:
            peer.close()


@pytest.mark.parametrize("seed", range(4))
def test_answers_are_those_of_redis(redis_socket: Path, server_socket: Path, seed: int) -> None:
    compare(redis_socket, server_socket, seed, ROUNDS)
