"""The server beside a real memcached: the same commands, chosen at random, must get the same answers.

Differences that are meant, and so not asked about here:

- the version, and what the server says of its own memory (`stats`, `me`, `slabs`, `lru`, `watch`);
- the numbers that versions have (`gets`, the flag `c`), and when a value was last read (flags `h` and `l`);
- `flush_all` there leaves what was stored in the same second, and one with a delay brings back what another took;
- how memcached reads a number of 2^63 or more depends on the bytes behind it;
- a number that became shorter has spaces behind it there unless somebody holds it at that moment, here always; one
  that became longer loses there the expiry that came with it, and that it was stale;
- `gat` there touches the keys before one that is too long, and we touch none;
- what has expired by a negative T shows the flag t as 0;
- modes may be small letters, as in newer versions of memcached;
- an opaque of more than 32 bytes is an error in both; memcached does what was asked all the same, and we do not.
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
WORDS = [b"a", b"b", b"longer_key", b"k" * 250]
COUNTERS = [b"n1", b"n2"]
KEYS = [*WORDS, *COUNTERS]
VALUES = [
    b"",
    b"x",
    b"hello",
    b"7",
    b"999999999999999999",
    b"12 ",
    b" 5",
    b"-3",
    b"with\r\nend",
    b"y" * 5000,
    b"007",
    b"+8",
]
NUMBERS = [
    b"0",
    b"1",
    b"5",
    b"999999999999",
    b"18446744073709551616",
    b"-1",
    b"x",
    b"",
    b"1x",
    b"+2",
    b"99999999999999",
]
TIMES = [b"0", b"1000", b"500", b"-1", b"2678400", b"4294967295", b"x", b"99999999999999999999", b"1.5"]
FLAGS = [b"0", b"1", b"4294967295", b"4294967296", b"-1", b"x", b"65535"]

ODD = [b"\r\n", b"x\r\n", b"foo bar\r\n", b"GET a\r\n", b"get\r\n", b"set\r\n", b"quit\r\n", b"mx a\r\n", b"mg\r\n"]
ODD += [b"\0\r\n", b"\xff\xfe a\r\n", b"stats foo\r\n", b"stats detail off\r\n"]


class Peer:
    """One connection, with the versions that its server told for each key."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.versions: dict[bytes, bytes] = {}
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(20)
        self._socket.connect(str(self._path))

    def close(self) -> None:
        self._socket.close()

    def ask(self, command: bytes) -> bytes:
        """The answer, up to that of a command sent behind it; ends in <closed> where the server hung up."""
        for key, version in self.versions.items():
            command = command.replace(b"{" + key + b"}", version)
        command = re.sub(rb"\{\w+\}", b"18446744073709551000", command)
        self._socket.sendall(command + b"mn\r\n")
        answer = b""
        while not answer.endswith(b"MN\r\n"):
            got = self._socket.recv(1 << 16)
            if not got:
                self._socket.close()
                self._connect()
                return answer + b"<closed>"
            answer += got
        for key, version in re.findall(rb"^VALUE (\S+) \d+ \d+ (\d+)\r$", answer, flags=re.MULTILINE):
            self.versions[key] = version
        answer = re.sub(rb"^(VALUE \S+ \d+ \d+) \d+\r", rb"\1 #\r", answer, flags=re.MULTILINE)
        answer = re.sub(rb"^(VALUE n\d \d+ )\d+( #)?\r\n(.*?) *\r$", rb"\1#\2\r\n\3\r", answer, flags=re.MULTILINE)
        answer = re.sub(rb"^((?:VA|HD|EN)\b.*) c\d+", rb"\1 c#", answer, flags=re.MULTILINE)
        answer = re.sub(rb"^((?:NF|EX|NS)\b.*) c[1-9]\d*", rb"\1 c#", answer, flags=re.MULTILINE)
        return re.sub(rb"^((?:VA|HD)\b.*) t(\d\d+)\b", rb"\1 t~", answer, flags=re.MULTILINE)


def write(chance: random.Random) -> bytes:
    verb = chance.choice([b"set", b"set", b"set", b"add", b"replace", b"append", b"prepend", b"cas"])
    key, value = chance.choice(WORDS if verb in (b"append", b"prepend") else KEYS), chance.choice(VALUES)
    count = b"%d" % len(value)
    odd = chance.random()
    if odd < 0.03 and value:  # memcached reads what lies behind a value of spaces alone
        count = chance.choice([b"-1", b"x", b"4294967296", b"99999999999999999999", b"%d" % (len(value) + 1), b"2"])
    words = [
        verb,
        key,
        chance.choice(FLAGS[:2] if odd < 0.9 else FLAGS),
        chance.choice(TIMES[:2] if odd < 0.8 else TIMES),
        count,
    ]
    if verb == b"cas":
        words.append(chance.choice([b"{" + key + b"}", b"{" + key + b"}", b"1", b"0", b"x"]))
    if chance.random() < 0.1:
        words.append(b"noreply")
    if chance.random() < 0.03:
        del words[chance.randrange(1, len(words))]
    end = b"\r\n" if count == b"%d" % len(value) else b"\r\n\r\n"  # so that the next command is never part of the value
    return b" ".join(words) + b"\r\n" + value + end


def read(chance: random.Random) -> bytes:
    verb = chance.choice([b"get", b"get", b"gets", b"gat", b"gats"])
    words = [verb] + [chance.choice(KEYS) for _ in range(chance.randrange(0, 5))]
    if verb.startswith(b"gat"):
        words.insert(1, chance.choice(TIMES))
    elif chance.random() < 0.03:
        words.append(b"k" * 251)
    return (b"  " if chance.random() < 0.1 else b" ").join(words) + chance.choice([b"\r\n", b"\r\n", b"\n", b" \r\n"])


def small(chance: random.Random) -> bytes:
    verb = chance.choice([b"incr", b"decr", b"touch", b"delete", b"flush_all", b"verbosity", b"odd"])
    key = chance.choice(COUNTERS if verb in (b"incr", b"decr") else KEYS)
    if verb in (b"incr", b"decr"):
        words = [verb, key, chance.choice(NUMBERS)]
    elif verb == b"touch":
        words = [verb, key, chance.choice(TIMES)]
    elif verb == b"delete":
        words = [verb, key] + ([chance.choice([b"0", b"5", b"noreply"])] if chance.random() < 0.3 else [])
    elif verb == b"flush_all":
        words = [verb, b"x"]
    elif verb == b"verbosity":
        words = [verb, b"1"]
    else:
        return chance.choice(ODD)
    if chance.random() < 0.1:
        words.append(b"noreply")
    return b" ".join(words) + b"\r\n"


def meta_flags(chance: random.Random, key: bytes, letters: str) -> list[bytes]:
    flags = []
    for letter in chance.sample(letters, chance.randrange(0, min(6, len(letters)))):
        tail = {
            "T": lambda: chance.choice([b"0", b"1000", b"500", b"x"]),
            "N": lambda: chance.choice(TIMES[:3]),
            "R": lambda: chance.choice([b"10", b"700", b"x"]),
            "C": lambda: chance.choice([b"{" + key + b"}", b"7", b"0", b"x"]),
            "F": lambda: chance.choice(FLAGS),
            "D": lambda: chance.choice(NUMBERS),
            "J": lambda: chance.choice(NUMBERS),
            "O": lambda: chance.choice([b"123", b"", b"o" * 31]),
        }.get(letter, lambda: b"")()
        flags.append(letter.encode() + tail)
    if chance.random() < 0.03:
        flags.append(chance.choice([b"w", b"k", b"k", b"!", b"\xff"]))
    return flags


def meta(chance: random.Random) -> bytes:
    verb = chance.choice([b"mg", b"mg", b"ms", b"ms", b"md", b"ma"])
    key = chance.choice(COUNTERS if verb == b"ma" else [*WORDS[:3], *COUNTERS])
    if verb == b"mg":
        words = [verb, key, *meta_flags(chance, key, "fckqtTOu" if key in COUNTERS else "vfcksqtTNROu")]
    elif verb == b"md":
        words = [verb, key, *meta_flags(chance, key, "CTqkO" if key in COUNTERS else "CITqkO")]
    elif verb == b"ma":
        words = [verb, key, *meta_flags(chance, key, "NJDqtcvOkC")]
        if chance.random() < 0.3:
            words.append(chance.choice([b"MI", b"M+", b"MD", b"M-", b"MX", b"M"]))
    else:
        value = chance.choice(VALUES)
        flags = meta_flags(chance, key, "CFTqkOc" if key in COUNTERS else "CFTIqkOc")
        if chance.random() < 0.3:
            flags.append(
                chance.choice([b"MS", b"ME", b"MR", b"MX", b"M", *([] if key in COUNTERS else [b"MA", b"MP"])])
            )
        count = b"%d" % len(value) if chance.random() < 0.97 else chance.choice([b"x", b"-1", b"%d" % (len(value) + 1)])
        end = b"\r\n" if count == b"%d" % len(value) else b"\r\n\r\n"
        return b" ".join([verb, key, count, *flags]) + b"\r\n" + value + end
    return b" ".join(words) + b"\r\n"


def command(chance: random.Random) -> bytes:
    kind = chance.random()
    return (
        write(chance) if kind < 0.35 else read(chance) if kind < 0.6 else small(chance) if kind < 0.75 else meta(chance)
    )


@pytest.fixture(scope="module")
def memcached(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    program = shutil.which("memcached")
    if program is None:
        pytest.skip("memcached is not installed (Debian and Ubuntu: apt-get install memcached)")
    path = tmp_path_factory.mktemp("memcached") / "socket"
    process = subprocess.Popen([program, "-s", str(path), "-u", "root", "-t", "1", "-m", "64"])
    deadline = time.monotonic() + 20
    while not path.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)  # it has no way to tell that it is ready
    yield path
    process.terminate()
    process.wait(20)


def compare(memcached: Path, ours: Path, seed: int, rounds: int) -> None:
    """Asks both servers the same, so often, and compares: for the test, and for tools/server_differential.py."""
    chance = random.Random(seed)
    peers = Peer(memcached), Peer(ours)
    for peer in peers:
        peer.ask(b"set a 0 0 1\r\na\r\n" * 10 + b"flush_all\r\n")  # so that no version is 7 or less any more
    log: deque[bytes] = deque(maxlen=12)
    try:
        for _ in range(rounds):
            log.append(command(chance))
            expected, answer = (peer.ask(log[-1]) for peer in peers)
            history = "\n".join(repr(one[:200]) for one in log)
            assert answer == expected, f"after\n{history}\nmemcached: {expected[:500]!r}\nwe: {answer[:500]!r}"
    finally:
        for peer in peers:
            peer.close()


@pytest.mark.parametrize("seed", range(4))
def test_answers_are_those_of_memcached(memcached: Path, server_socket: Path, seed: int) -> None:
    compare(memcached, server_socket, seed, ROUNDS)
