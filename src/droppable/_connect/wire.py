"""The conversation with a server: commands and replies of RESP over its unix socket, for any number of threads.

    call()     a command, and its reply            one at a time, under a lock
    notify()   a command that has no reply         left out where it would have to wait

After any error in the middle of a reply nobody can tell where the next one begins: the connection is given up, and the
next call makes another one. An exception of a signal handler, such as KeyboardInterrupt, is such an error. A forked
child does the same: a connection is not shared.
"""

from __future__ import annotations

import math
import os
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

_MOST_REPLY_BYTES: Final = 1 << 31
_MOST_REPLY_DEPTH: Final = 2
"""Of arrays in arrays."""
MOST_LINE_BYTES: Final = 1 << 16
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


_ADDRESS: Final = re.compile(r"[a-z]+:/?/?/|[^/]*:[0-9]+$")
"""What other clients take for a server: unix:/path, redis://host, host:port."""


def _refuse_address(path: str | bytes) -> None:
    """Raises ValueError for an address. Without that all calls would miss, and only the log would say why."""
    text = os.fsdecode(path)
    if _ADDRESS.match(text) and not os.path.exists(text):
        raise ValueError(
            f"path must be that of the server's unix socket, as '/run/droppable.sock'; you gave {text!r}. There is no "
            "TCP here, and no unix: before the path"
        )


class Wire:
    """One connection at a time. Made when it is first needed, and again after it was lost.

    Args:
        path: of the unix socket.
        login: the words after AUTH, or nothing.
        timeout_seconds: for connecting, and for each reply.
        retry_seconds: after a failure the server is left alone for so long.
        greet: is called with each new connection, before its first command: see `attach`. False: it is to be called
            again after retry_seconds, between two commands.
    """

    def __init__(
        self,
        path: str,
        login: tuple[str, ...],
        timeout_seconds: float,
        retry_seconds: float,
        greet: Callable[[Any], bool],
    ) -> None:
        _refuse_address(path)
        self.path = path
        """Of the unix socket."""
        self._login = tuple(word.encode() for word in login)
        self._timeout_seconds = timeout_seconds
        self._retry_seconds = retry_seconds
        self._greet = greet
        self._lock = threading.Lock()
        self._speaker = 0
        """The thread that holds the lock, by its number. It is set and cleared without a call in between. So a signal
        handler, which runs between two calls, never finds the lock held by its own thread and another number here."""
        self._socket: socket.socket | None = None
        self._file: tuple[int, int] | None = None
        """By which the socket is known, should the program close it and use its number."""
        self._is_amid = False
        """A command was sent, and not all of its replies were read."""
        self._rest = (
            bytearray()
        )  # that has come, and is not read yet; a file object has a lock that a fork would leave locked
        self._is_ended = False
        self._down_until = 0.0
        self._greet_at = math.inf
        """When the connection is to be greeted once more."""
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

    def pipeline(self, commands: Iterable[Sequence[Word]], once: bool = False) -> list[Any]:
        """The replies to commands, in their order; an error is a `Refused` among them.

        Args:
            commands: to be sent before the first reply is read.
            once: where the connection is lost amid them they are not sent again: the server may have done them.

        Raises:
            Unreachable
        """
        pieces = [write(words) for words in commands]
        me = threading.get_ident()
        if self._speaker == me:
            raise Unreachable(
                f"this thread is amid another call to the server at {self.path}: a signal handler or a destructor has "
                "begun this one"
            )
        with self._lock:
            self._speaker = me
            try:
                return self._converse_again(pieces, once)
            except (Unreachable, PermissionError):  # raised from itself it would keep itself alive, and its frames
                self._pause()
                raise
            except OSError as error:
                self._pause()
                raise Unreachable(f"the server at {self.path} cannot be reached: {error}") from error
            finally:
                self._speaker = 0

    def notify(self, *words: Word) -> None:
        """Sends a command that the server answers nothing to, if that can be done at once; else it is left out."""
        me = threading.get_ident()
        if self._lock.locked():
            return
        # Not acquire(): an exception of a signal handler right behind it would leave the lock locked for good.
        with self._lock:
            self._speaker = me
            try:
                self._notify(write(words))
            finally:
                self._speaker = 0

    def close(self) -> None:
        """Hangs up. The next call connects again."""
        me = threading.get_ident()
        if self._speaker == me:  # amid another call, which finds out
            self._drop()
            return
        with self._lock:
            self._speaker = me
            try:
                self._drop()
            finally:
                self._speaker = 0

    def end(self) -> None:
        """Hangs up, and connects no more."""
        self._is_ended = True
        self.close()

    def forget(self) -> None:
        """In a forked child: the connection is the parent's, and so may be whoever held the lock."""
        self._lock = threading.Lock()
        self._speaker = 0
        self._drop()

    def _notify(self, pieces: list[Word]) -> None:
        connection = self._socket
        if connection is None or self._is_amid or not self._is_open():
            return
        data = b"".join(pieces)
        try:
            connection.settimeout(0)  # with a time to wait, send() waits first, whatever its flags say
            if connection.send(data, socket.MSG_NOSIGNAL) < len(data):
                self._drop()  # half a command is with the server
            else:
                connection.settimeout(self._timeout_seconds)
        except BlockingIOError:
            connection.settimeout(self._timeout_seconds)
        except OSError:
            self._drop()

    def _converse_again(self, pieces: list[list[Word]], once: bool) -> list[Any]:
        if once and self._has_hung_up():
            self._drop()
        was_new = once or self._socket is None
        try:
            return self._converse(pieces)
        except TimeoutError:
            raise
        except OSError:
            if was_new:
                raise
        return self._converse(pieces)  # the server may have been started anew since the last command

    def _has_hung_up(self) -> bool:
        """Whether the server has, before anything was sent to it: one that was started anew since the last command."""
        if self._socket is None or self._is_amid or not self._is_open():
            return False
        self._socket.settimeout(0)  # with a time to wait, recv() waits first, whatever its flags say
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self._socket.settimeout(self._timeout_seconds)

    def _converse(self, pieces: list[list[Word]]) -> list[Any]:
        if self._is_amid or not self._is_open():
            self._drop()
        try:
            connection = self._socket or self._connect()
            if time.monotonic() >= self._greet_at:
                self._meet(connection)
            self._is_amid = True
            send(connection, pieces)
            replies = [self._read() for _ in pieces]
        except BaseException:
            self._drop()
            raise
        self._is_amid = False
        return replies

    def _connect(self) -> socket.socket:
        if self._is_ended:
            raise Unreachable("this SharedCache was closed during the call")
        if time.monotonic() < self._down_until:
            raise Unreachable(f"the server at {self.path} did not answer a moment ago")
        # Closed on exec, as all sockets of Python are. Kept from the start, so that a child that is forked closes it.
        connection = self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._file = _file_of(connection)
        connection.settimeout(self._timeout_seconds)
        try:
            connection.connect(self.path)
        except PermissionError as error:
            advice = "start the server as this user, or with --mode and a group"
            told = f"the server's socket is closed to this user: {advice}"
            raise PermissionError(error.errno, told, self.path) from error
        if self._login:
            send(connection, [write((b"AUTH", *self._login))])
            answer = self._read()
            if isinstance(answer, Refused) and not str(answer).startswith("OOM"):
                raise PermissionError(f"the server at {self.path} refuses this password: {answer}")
            if answer != b"OK":
                raise ConnectionResetError(f"the server answers {answer!r} to a password")
        self._meet(connection)
        self.connections += 1
        return connection

    def _meet(self, connection: socket.socket) -> None:
        self._greet_at = math.inf if self._greet(connection) else time.monotonic() + self._retry_seconds

    def _pause(self) -> None:
        self._down_until = time.monotonic() + self._retry_seconds

    def _drop(self) -> None:
        opened, self._socket = self._socket, None
        self._is_amid = False
        self._rest = bytearray()
        if opened is not None and _file_of(opened) != self._file:
            opened.detach()  # closed by the program, and the number is another file's now, or nobody's
        elif opened is not None:
            opened.close()

    def _is_open(self) -> bool:
        """Whether the connection is one still: a program that becomes a daemon closes what it does not know."""
        return self._socket is not None and _file_of(self._socket) == self._file

    def _read(self, depth: int = 0) -> Any:
        line = self._read_line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            return Refused(rest.decode(errors="replace"))
        number = read_number(rest) if kind in (b":", b"$", b"*") else None
        if kind == b":" and number is not None:
            return number
        if number == -1:
            return None
        if number is None or number < 0 or number > _MOST_REPLY_BYTES or depth > _MOST_REPLY_DEPTH:
            raise ConnectionResetError(f"the server answers what this client does not understand: {line[:40]!r}")
        if kind == b"*":
            return [self._read(depth + 1) for _ in range(number)]
        data = self._read_bytes(number)
        self._read_bytes(2)
        return data

    def _read_line(self) -> bytes:
        while (end := self._rest.find(b"\r\n")) < 0:
            if len(self._rest) > MOST_LINE_BYTES:
                raise ConnectionResetError("the server answers a line without an end")
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


def _file_of(connection: socket.socket) -> tuple[int, int] | None:
    """The device and the number of what the descriptor leads to; None: to nothing."""
    try:
        about = os.fstat(connection.fileno())
    except OSError:
        return None
    return about.st_dev, about.st_ino


def read_number(digits: bytes) -> int | None:
    """None: they are no digits."""
    try:
        return int(digits)
    except ValueError:
        return None


def send(connection: socket.socket, commands: list[list[Word]]) -> None:
    """Commands, each as `write` has made it."""
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
