"""The counts of this process's caches, for `droppable top` of the same user: a unix socket that tells them.

    a connection ---accept---> the thread ---> one JSON object: {"pid": ..., "caches": [{"name": ..., "hits": ...}]}

A process makes it when asked to: by DROPPABLE_STATS=1 or `droppable.metrics.publish()`. A file that is written each
second would be older than what is asked for, and would wake the process while nobody looks.

The folder is $XDG_RUNTIME_DIR/droppable, else /tmp/droppable-UID: mode 0700, and it must be this user's. The socket is
stats-PID.sock, mode 0600.

Fork: the child closes what it inherited, or its copy would keep the parent's socket alive, and opens its own. Crash:
the file stays, a connection to it is refused, and who looks removes it, or who publishes next.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from droppable._log import tell_once
from droppable._stats import COUNTS
from droppable.lowlevel import ClosedError

if TYPE_CHECKING:
    import socket

_ASK_SECONDS: Final = 0.5
_MOST_BYTES: Final = 1 << 22


class _Page:
    """The socket of this process, once it was asked for."""

    lock = threading.RLock()  # of those who open it; a signal handler may, amid that
    listener: socket.socket | None = None
    path: Path | None = None
    caches: Callable[[], Iterable[Any]] | None = None


def _renew_lock() -> None:
    _Page.lock = threading.RLock()  # another thread of the parent may have held it


os.register_at_fork(after_in_child=_renew_lock)  # before publish() adds _renew(), which takes it


def folder() -> Path:
    """Where sockets of this user are. It need not be there."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime, "droppable") if runtime else Path(f"/tmp/droppable-{os.getuid()}")


def publish(caches: Callable[[], Iterable[Any]]) -> Path:
    """Opens the socket, unless it is open: see `droppable.metrics.publish`."""
    with _Page.lock:
        return _open(caches) if _Page.path is None else _Page.path


def _open(caches: Callable[[], Iterable[Any]]) -> Path:
    import atexit
    import socket

    place = folder()
    place.mkdir(mode=0o700, exist_ok=True)
    about = place.lstat()
    if not stat.S_ISDIR(about.st_mode) or about.st_uid != os.getuid() or about.st_mode & 0o022:
        raise OSError(errno.EPERM, "this folder must be yours, and nobody else may write to it", str(place))
    sweep(place)
    path = place / f"stats-{os.getpid()}.sock"
    unborn = path.with_suffix(".new")  # who finds the name below finds that somebody listens
    unborn.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(str(unborn))
        unborn.chmod(0o600)
        listener.listen()
        unborn.rename(path)  # also over what a process left that had this number before
    except BaseException:
        listener.close()
        raise
    if _Page.caches is None:
        os.register_at_fork(after_in_child=_renew)
        atexit.register(_remove)
    _Page.listener, _Page.path, _Page.caches = listener, path, caches
    threading.Thread(target=_serve, args=(listener, caches), name="droppable stats", daemon=True).start()
    return path


def publish_or_tell(caches: Callable[[], Iterable[Any]]) -> None:
    """As `publish()`. Where it fails, for want of descriptors, say, the program goes on, and the log tells of it."""
    try:
        publish(caches)
    except (OSError, RuntimeError) as error:
        tell_once("droppable top", "droppable top cannot read the counts of this process: %s", error)


def _serve(listener: socket.socket, caches: Callable[[], Iterable[Any]]) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                time.sleep(_ASK_SECONDS)  # it comes again at once until there is a descriptor
            elif listener.fileno() < 0:
                return
            continue
        with connection:
            try:
                connection.settimeout(_ASK_SECONDS)
                connection.sendall(json.dumps({"pid": os.getpid(), "caches": _counts(caches)}).encode())
            except (OSError, MemoryError):
                pass  # who asked is gone


def _counts(caches: Callable[[], Iterable[Any]]) -> list[dict[str, Any]]:
    counts = []
    for cache in caches():
        try:
            stats = cache.stats()
        except ClosedError:  # between the list and here
            continue
        row = {"name": cache.name, "max_bytes": cache.max_bytes}
        counts.append({**row, **{count.field: getattr(stats, count.field) for count in COUNTS}})
    return counts


def _renew() -> None:
    caches = _Page.caches
    if _Page.listener is not None:
        _Page.listener.close()
    _Page.listener = _Page.path = None
    if caches is not None:
        publish_or_tell(caches)


def _remove() -> None:
    path = _Page.path
    if path is not None and path.name == f"stats-{os.getpid()}.sock":
        path.unlink(missing_ok=True)


def sweep(place: Path) -> None:
    """Removes the files of processes that were killed."""
    try:
        paths = list(place.glob("stats-*.sock"))
    except OSError:
        return
    for path in paths:
        number = path.name.removeprefix("stats-").removesuffix(".sock")
        if number.isdecimal() and not os.path.exists(f"/proc/{number}"):
            ask(int(number), place)


def ask(pid: int, place: Path) -> dict[str, Any] | None:
    """What a process tells whose socket is in that folder; None: it publishes nothing, or does not answer now.

    The file of a process that is gone is removed.
    """
    import socket

    path = place / f"stats-{pid}.sock"
    answer = bytearray()
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_ASK_SECONDS)
            connection.connect(str(path))
            for piece in pieces(connection, _ASK_SECONDS):
                answer += piece
                if len(answer) > _MOST_BYTES:
                    return None
        told = json.loads(answer)
    except ConnectionRefusedError:  # nobody listens any more
        try:
            if path.lstat().st_uid == os.getuid():
                path.unlink(missing_ok=True)
        except OSError:
            pass  # somebody else has removed it
        return None
    except (OSError, ValueError, RecursionError):  # the last one: a list in a list in a list ...
        return None
    return told if isinstance(told, dict) and told.get("pid") == pid else None


def pieces(connection: socket.socket, seconds: float) -> Iterator[bytes]:
    """What comes until the other side ends. TimeoutError after so many seconds, however little comes at a time."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        connection.settimeout(left)
        piece = connection.recv(1 << 16)
        if not piece:
            return
        yield piece
    raise TimeoutError
