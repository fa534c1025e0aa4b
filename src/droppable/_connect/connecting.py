"""`droppable.connect`, the function."""

from __future__ import annotations

import os
from typing import Any

from droppable._arguments import Seconds
from droppable._cache import Cache, Serializer
from droppable._connect.shared import SharedCache


def connect(
    path: str | os.PathLike[str],
    *,
    password: str | None = None,
    user: str | None = None,
    serializer: Serializer | None = None,
    timeout_seconds: Seconds = 1.0,
    retry_seconds: Seconds = 1.0,
    strict: bool = False,
    attach: bool = True,
    near: bool | Cache[Any, Any] = False,
) -> SharedCache:
    """The cache of the server at this unix socket, which all processes of the host share.

    The server is `droppable serve --unix PATH`. Where there is none yet, look-ups are misses until it is there; the
    logger `droppable` is told once.

    Args:
        path: of the server's unix socket.
        password: what the server's password file asks for.
        user: the name before the password, where that file has names.
        serializer: has dumps(value) -> bytes and loads(data), for values that are neither bytes, text, ints nor arrays.
            Whoever can connect to the server can write, and loads() gets what they wrote: pickle would run their code.
        timeout_seconds: for connecting, and for each answer of the server. Reads from its memory wait for nobody.
        retry_seconds: a server that did not answer is left alone for so long.
        strict: calls raise OSError where the server cannot be reached, and RefusedError where it has no memory, in the
            place of a miss.
        attach: False: every look-up asks the server. For comparisons.
        near: keeps values of 16 KiB and more in a cache of this process too, so that they are copied once: an array is
            given in place from then on. They are never older than what is in the server. True: in a cache of its own.
            A `Cache`: in that one, `droppable.Cache(max_bytes="256M")` say.

    Raises:
        PermissionError: the server is there, and refuses the password or asks for one; or its socket is closed to this
            user, as it is to all but the server's own unless `--mode` says otherwise. TypeError, ValueError: an
            argument is wrong. OSError: strict, and the server cannot be reached.
    """
    return SharedCache(
        path,
        password=password,
        user=user,
        serializer=serializer,
        timeout_seconds=timeout_seconds,
        retry_seconds=retry_seconds,
        strict=strict,
        attach=attach,
        near=near,
    )
