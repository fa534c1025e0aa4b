"""A new connection asks for the server's memory: its descriptor, and that of the board, come with the reply."""

from __future__ import annotations

import os
import socket
import time
from typing import Final

from droppable._connect.wire import MOST_LINE_BYTES, Refused, read_number, send, write

_CLOCK_STEP_NS: Final = 1_000_000_000
"""The server's clock is a coarse one, which stands still between two steps: 10 ms, or longer where a virtual machine is
not run. No time namespace differs by so little."""


class NoDescriptors(Refused):
    """The server has passed its memory, and the descriptors could not be taken. Later it may be otherwise."""


def attach(connection: socket.socket) -> tuple[int, int, int]:
    """How long the board is, and the descriptors of the memory and of the board.

    The descriptors are closed on exec. Nothing else may be under way on the connection.

    Raises:
        Refused: the server says why there are none. NoDescriptors. OSError
    """
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    send(connection, [write((b"DROPPABLE.ATTACH",))])
    answer, came = b"", []
    try:
        while answer.count(b"\r\n") < (1 if answer[:1] in (b"", b"-") else 4) and len(answer) < MOST_LINE_BYTES:
            data, descriptors, _, _ = socket.recv_fds(connection, 4096, 8, socket.MSG_CMSG_CLOEXEC)
            came += list(descriptors)
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
        if len(came) != 2:
            raise NoDescriptors(
                "this process has no descriptors left for the server's memory, or the server may pass no more of them: "
                "it is tried again"
            )
        return board_bytes, came.pop(0), came.pop(0)
    finally:
        for descriptor in came:
            os.close(descriptor)
