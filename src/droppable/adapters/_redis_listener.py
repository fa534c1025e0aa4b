"""One connection of a near cache, at which a server tells what changes, and the thread that reads it.

redis.py has the states. The thread refers to the near cache weakly: one that nobody holds any more ends its threads
within a heartbeat. `close()` ends them at once.
"""

from __future__ import annotations

import socket
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import redis
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from droppable.adapters.redis import NearCache

_RETRY_SECONDS: Final = (0.05, 2.0)
"""First and longest pause between two attempts to connect."""
_OTHER_OPTIONS: Final = (
    "protocol", "decode_responses", "socket_timeout", "event_dispatcher", "maint_notifications_config",
)  # fmt: skip
"""Of a client's connections, which the one that listens has in another way, or not at all."""


class _GoneError(Exception):
    """Nobody holds the near cache any more."""


class Listener:
    """One server's connection for what it tells, and the thread that reads it."""

    def __init__(self, near: NearCache, name: str, client: redis.Redis) -> None:
        self.is_tracking = False
        self._near_reference = weakref.ref(near)  # a near cache that nobody holds any more ends its threads
        self._heartbeat_seconds = near.heartbeat_seconds
        self._name = name
        self._pool = client.connection_pool
        self._stops = threading.Event()
        self._connection: Any = None
        self._thread = threading.Thread(target=self._run, name=f"droppable-near {name}".rstrip(), daemon=True)
        self._thread.start()

    @property
    def _near(self) -> NearCache:
        near = self._near_reference()
        if near is None:
            raise _GoneError
        return near

    def stop(self) -> None:
        """Ends the thread, which may be waiting for what the server tells next."""
        self._stops.set()
        connected = getattr(self._connection, "_sock", None)
        if connected is not None:
            with suppress(OSError):  # closed already
                connected.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def _make(self) -> Any:
        options = dict(self._pool.connection_kwargs)
        for other in _OTHER_OPTIONS:
            options.pop(other, None)
        options |= {"protocol": 3, "decode_responses": False, "socket_timeout": self._heartbeat_seconds}
        kind: Any = self._pool.connection_class
        return kind(**options)

    def _run(self) -> None:
        pause_seconds = _RETRY_SECONDS[0]
        while not self._stops.is_set():
            connection = self._connection = self._make()
            try:
                self._begin(connection)
                pause_seconds = _RETRY_SECONDS[0]
                while not self._stops.is_set():
                    self._read(connection)
                    self._near  # noqa: B018  # is it still there?
            except (RedisError, OSError):
                pass  # told by is_tracking; it is tried again
            except _GoneError:
                return
            finally:
                self.is_tracking = False
                connection.disconnect()
            if (near := self._near_reference()) is None:
                return
            near._forget_all()
            del near  # the pause below must not keep it
            self._stops.wait(pause_seconds)
            pause_seconds = min(2 * pause_seconds, _RETRY_SECONDS[1])

    def _begin(self, connection: Any) -> None:
        connection.connect()
        connection._parser.set_invalidation_push_handler(self._told)
        prefixes = [word for prefix in self._near.prefixes for word in ("PREFIX", prefix)]
        connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", *prefixes)
        connection.read_response()
        self._near._forget_all()  # what was read before is not tracked
        self.is_tracking = True

    def _read(self, connection: Any) -> None:
        """One thing that the server tells. Where it tells nothing for a while, it is asked whether it is there."""
        if not connection.can_read(timeout=self._heartbeat_seconds):
            connection.send_command("PING", check_health=False)
            if not connection.can_read(timeout=self._heartbeat_seconds):
                raise redis.exceptions.TimeoutError("the server is silent")
        connection.read_response(push_request=True)

    def _told(self, message: list[Any]) -> None:
        keys = message[1]
        if keys is None:
            self._near._forget_all()
        else:
            self._near._forget(list(keys))
