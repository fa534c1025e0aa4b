"""A new connection asks for the server's memory: its descriptor, and that of the board, come with the reply."""

from __future__ import annotations

import os
import socket
import time
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from droppable._connect.wire import MOST_LINE_BYTES, Refused, read_number, send, write
from droppable.lowlevel import Reader, UnsupportedError

if TYPE_CHECKING:
    from droppable._cache import Cache

_CLOCK_STEP_NS: Final = 1_000_000_000
"""The server's clock is a coarse one, which stands still between two steps: 10 ms, or longer where a virtual machine is
not run. No time namespace differs by so little."""
_SPACE: Final = socket.CMSG_SPACE(8 * array("i").itemsize)


class NotNow(Refused):
    """The server has passed its memory, and it could not be taken. Later it may be otherwise."""


def attach(
    connection: socket.socket,
    decode: Callable[[int, bytes, Any], Any],
    report: Callable[[int, list[bytes]], None],
    near: Cache[Any, Any] | None,
) -> Reader:
    """The reader of the server's memory. Its descriptors are closed on exec.

    Nothing else may be under way on the connection.

    An exception of a signal handler comes behind a call that has returned. So no call stands between the one that
    brings descriptors and the place from which they are closed, nor between that and the reader, which takes them over.

    Args:
        connection: to the server.
        decode: see `Reader`.
        report: see `Reader`.
        near: see `Reader`.

    Raises:
        Refused: the server says why there is none, or it is another version's. NotNow. OSError
    """
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    send(connection, [write((b"DROPPABLE.ATTACH",))])
    answer, came = b"", []
    try:
        while answer.count(b"\r\n") < (1 if answer[:1] in (b"", b"-") else 4) and len(answer) < MOST_LINE_BYTES:
            data, more, _, _ = connection.recvmsg(4096, _SPACE, socket.MSG_CMSG_CLOEXEC)
            came += more
            if not data:
                raise ConnectionResetError("the server has hung up")
            answer += data
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        lines = answer.split(b"\r\n")
        if answer.startswith(b"-"):
            raise Refused(lines[0][1:].decode(errors="replace"))
        numbers = [read_number(line[1:]) for line in lines[1:4]]
        if lines[0] != b"*3" or None in numbers:
            raise Refused(f"the server answers what this client does not understand: {answer[:80]!r}")
        _, board_bytes, now = numbers
        assert board_bytes is not None
        assert now is not None
        if not before - _CLOCK_STEP_NS <= now <= after:
            raise Refused("the server is in another time namespace: when a value expires, only its own clock can say")
        descriptors = _descriptors(came)
        if len(descriptors) != 2:
            raise NotNow(
                "this process has no descriptors left for the server's memory, or the server may pass no more of them: "
                "it is tried again"
            )
        memory, board = descriptors
        came = []
        return Reader(memory, board, board_bytes, decode, report, near)
    except MemoryError as error:
        raise NotNow(f"there is no memory left to read the server's: {error}") from error
    except (ValueError, UnsupportedError) as error:
        raise Refused(f"the server's memory cannot be read by this version: {error}") from error
    finally:
        for descriptor in _descriptors(came):
            os.close(descriptor)


def _descriptors(messages: list[tuple[int, int, bytes]]) -> list[int]:
    found = array("i")
    for level, kind, data in messages:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return found.tolist()
