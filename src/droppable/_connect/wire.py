"""The conversation with a server: commands and replies of RESP over its unix socket, for any number of threads.

    call()     a command, and its reply            one at a time, under a lock
    notify()   a command that has no reply         left out where it would have to wait

After any error in the middle of a reply nobody can tell where the next one begins: the connection is given up, and the
next call makes another one. A forked child does the same: a connection is not shared.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

_MOST_REPLY_BYTES: Final = 1 << 31
_JOIN_BYTES: Final = 32 * 1024
"""Longer values are sent from where they lie."""

Word = bytes | memoryview


class Refused(Exception):
    """The server's answer is an error: its text."""


class Unreachable(OSError):
    """There is no server at the socket, or it does not answer in time."""


def write(words: Sequence[Word]) -> list[Word]:
    """A command as pieces to be sent one after the other; short ones are joined."""
    pieces: list[Word] = []
    head = b"*%d\r\n" % len(words)
    for word in words:
        head += b"$%d\r\n" % len(word)
        if len(word) > _JOIN_BYTES:
            pieces += [head, word]
            head = b""
        else:
            head += word
        head += b"\r\n"
    pieces.append(head)
    return pieces


class Wire:
    """One connection at a time. Made when it is first needed, and again after it was lost.

    Args:
        path: of the unix socket.
        login: the words after AUTH, or nothing.
        timeout_seconds: for connecting, and for each reply.
        retry_seconds: after a failure the server is left alone for so long.
        greet: is called with each new connection, before its first command: see `attach`.
    """

    def __init__(
        self,
        path: str,
        login: tuple[str, ...],
        timeout_seconds: float,
        retry_seconds: float,
        greet: Callable[[Any], None],
    ) -> None:
        self.path = path
        """Of the unix socket."""
        self._login = tuple(word.encode() for word in login)
        self._timeout_seconds = timeout_seconds
        self._retry_seconds = retry_seconds
        self._greet = greet
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._rest = (
            bytearray()
        )  # that has come, and is not read yet; a file object has a lock that a fork would leave locked
        self._down_until = 0.0
        self.connections = 0
        """That were made since the start."""
        _wires.add(self)

    @property
    def is_down(self) -> bool:
        """Whether a call would fail without trying."""
        return self._socket is None and time.monotonic() < self._down_until

    def call(self, *words: Word) -> Any:
        """The reply to a command.

        Raises:
            Refused: the server answers with an error. Unreachable.
        """
        [reply] = self.pipeline([words])
        if isinstance(reply, Refused):
            raise reply
        return reply

    def pipeline(self, commands: Iterable[Sequence[Word]]) -> list[Any]:
        """The replies to commands, in their order; an error is a `Refused` among them.

        Raises:
            Unreachable
        """
        pieces = [write(words) for words in commands]
        with self._lock:
            was_new = self._socket is None
            try:
                return self._converse(pieces)
            except OSError as error:
                self._drop()
                if was_new or isinstance(error, TimeoutError):
                    raise self._fail(error) from error
            try:  # the server may have been started anew since the last command
                return self._converse(pieces)
            except OSError as error:
                self._drop()
                raise self._fail(error) from error

    def notify(self, *words: Word) -> None:
        """Sends a command that the server answers nothing to, if that can be done at once; else it is left out."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._socket is None:
                return
            data = b"".join(write(words))
            try:
                if self._socket.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL) < len(data):
                    self._drop()  # half a command is with the server
            except BlockingIOError:
                pass
            except OSError:
                self._drop()
        finally:
            self._lock.release()

    def close(self) -> None:
        """Hangs up. The next call connects again."""
        with self._lock:
            self._drop()

    def forget(self) -> None:
        """In a forked child: the connection is the parent's, and so may be whoever held the lock."""
        self._lock = threading.Lock()
        self._drop()

    def _converse(self, pieces: list[list[Word]]) -> list[Any]:
        if self._socket is None:
            self._connect()
        assert self._socket is not None
        _send(self._socket, pieces)
        return [self._read() for _ in pieces]

    def _connect(self) -> None:
        if time.monotonic() < self._down_until:
            raise Unreachable(f"the server at {self.path} did not answer a moment ago")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)  # closed on exec, as all sockets of Python are
        try:
            connection.settimeout(self._timeout_seconds)
            connection.connect(self.path)
            if self._login:
                _send(connection, [write((b"AUTH", *self._login))])
                answer = connection.recv(4096)
                if not answer.startswith(b"+OK"):
                    raise PermissionError(
                        f"the server at {self.path} refuses this password: {answer.decode(errors='replace')}"
                    )
            self._greet(connection)
        except BaseException:
            connection.close()
            raise
        self._socket = connection
        self.connections += 1

    def _fail(self, error: OSError) -> OSError:
        self._down_until = time.monotonic() + self._retry_seconds
        if isinstance(error, PermissionError) and error.errno is not None:  # the kernel's: ours have a text alone
            advice = "start the server as this user, or with --mode and a group"
            return PermissionError(error.errno, f"the server's socket is closed to this user: {advice}", self.path)
        if isinstance(error, (Unreachable, PermissionError)):
            return error
        return Unreachable(f"the server at {self.path} cannot be reached: {error}")

    def _drop(self) -> None:
        opened, self._socket = self._socket, None
        self._rest = bytearray()
        if opened is not None:
            opened.close()

    def _read(self) -> Any:
        line = self._read_line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"-":
            return Refused(rest.decode(errors="replace"))
        count = int(rest) if kind in (b"$", b"*") else -2
        if count == -1:
            return None
        if kind == b"*" and count >= 0:
            return [self._read() for _ in range(count)]
        if count < 0 or count > _MOST_REPLY_BYTES:
            raise ConnectionResetError(f"the server answers what this client does not understand: {line[:40]!r}")
        data = self._read_bytes(count)
        self._read_bytes(2)
        return data

    def _read_line(self) -> bytes:
        while (end := self._rest.find(b"\r\n")) < 0:
            self._rest += self._receive()
        line = bytes(self._rest[:end])
        del self._rest[: end + 2]
        return line

    def _read_bytes(self, count: int) -> bytes:
        data = bytearray(self._rest[:count])
        del self._rest[:count]
        while len(data) < count:
            more = self._receive()
            missing = count - len(data)
            data += more[:missing]
            self._rest += more[missing:]
        return bytes(data)

    def _receive(self) -> bytes:
        assert self._socket is not None
        data = self._socket.recv(1 << 18)
        if not data:
            raise ConnectionResetError("the server has hung up")
        return data


def attach(connection: socket.socket) -> tuple[int, int, int, int]:
    """The layout, how long the board is, and the descriptors of the memory and of the board.

    The descriptors are closed on exec. Nothing else may be under way on the connection.

    Raises:
        Refused: the server says why there are none. OSError
    """
    _send(connection, [write((b"DROPPABLE.ATTACH",))])
    answer, came = b"", []
    try:
        while answer.count(b"\r\n") < (1 if answer[:1] in (b"", b"-") else 3):
            data, descriptors, _, _ = socket.recv_fds(connection, 4096, 8, socket.MSG_CMSG_CLOEXEC)
            came += list(descriptors)
            if not data:
                raise ConnectionResetError("the server has hung up")
            answer += data
        lines = answer.split(b"\r\n")
        if answer.startswith(b"-"):
            raise Refused(lines[0][1:].decode(errors="replace"))
        if lines[0] == b"*2" and len(came) != 2:
            raise Refused("this process has no descriptors left for the server's memory: raise its limit of open files")
        if lines[0] != b"*2":
            raise Refused(f"the server answers what this client does not understand: {answer[:80]!r}")
        return int(lines[1][1:]), int(lines[2][1:]), came.pop(0), came.pop(0)
    finally:
        for descriptor in came:
            os.close(descriptor)


def _send(connection: socket.socket, commands: list[list[Word]]) -> None:
    pieces = [piece for command in commands for piece in command]
    if all(len(piece) <= _JOIN_BYTES for piece in pieces):
        pieces = [b"".join(pieces)]
    for piece in pieces:
        connection.sendall(piece)


_wires: weakref.WeakSet[Wire] = weakref.WeakSet()


def _forget_all() -> None:
    for wire in list(_wires):
        wire.forget()


os.register_at_fork(after_in_child=_forget_all)
