"""One connection of a near cache, at which a server tells what changes, and the thread that reads it.

redis.py has the states. The thread refers to the near cache weakly: one that nobody holds any more ends its threads
within a heartbeat. `close()` ends them at once, but for one that is just connecting.
"""

from __future__ import annotations

import logging
import socket
import threading
import weakref
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError, ResponseError
from redis.retry import Retry

if TYPE_CHECKING:
    from droppable.adapters.redis import NearCache

_logger: Final = logging.getLogger("droppable")
_RETRY_SECONDS: Final = (0.05, 2.0)
"""First and longest pause between two attempts to connect."""
_OTHER_OPTIONS: Final = (
    "protocol", "decode_responses", "socket_timeout", "event_dispatcher", "maint_notifications_config", "retry",
    "retry_on_timeout", "retry_on_error",
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
        self._is_error_told = False
        self._told_error: Exception | None = None  # set while a message is read, raised after it
        self._pause_seconds = _RETRY_SECONDS[0]  # before the next attempt to connect
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
        options |= {
            "protocol": 3,
            "decode_responses": False,
            "socket_timeout": self._heartbeat_seconds,
            "socket_connect_timeout": self._heartbeat_seconds,
            "retry": Retry(NoBackoff(), 0),  # it is tried again here, where close() is looked for
        }
        kind: Any = self._pool.connection_class
        return kind(**options)

    def _run(self) -> None:
        while not self._stops.is_set():
            try:
                self._listen()
            except _GoneError:
                return
            except Exception as error:  # of a credential provider, for one: the next attempt may go well
                self._tell(error)
            self._stops.wait(self._pause_seconds)
            self._pause_seconds = min(2 * self._pause_seconds, _RETRY_SECONDS[1])

    def _listen(self) -> None:
        """One connection, until it is lost or the thread shall end."""
        connection = self._connection = self._make()
        try:
            self._begin(connection)
            self._pause_seconds = _RETRY_SECONDS[0]
            while not self._stops.is_set():
                self._read(connection)
                self._near  # noqa: B018  # is it still there?
        finally:
            near = self._near_reference()
            if near is not None and self.is_tracking:  # an attempt that failed leaves what others keep
                near._forget_all(lost=self)
            connection.disconnect()

    def _begin(self, connection: Any) -> None:
        connection.connect()
        connection._parser.set_invalidation_push_handler(self._told)
        prefixes = [word for prefix in self._near.prefixes for word in ("PREFIX", prefix)]
        connection.send_command("CLIENT", "TRACKING", "ON", "BCAST", *prefixes)
        connection.read_response()
        self._near._forget_all()  # what was read before is not tracked
        self.is_tracking = True

    def _tell(self, error: Exception) -> None:
        """On the logger, once. A server that is away is told by is_tracking alone."""
        is_away = isinstance(error, (RedisError, OSError)) and not isinstance(error, ResponseError)
        if not is_away and not self._is_error_told:
            self._is_error_told = True
            _logger.warning(
                "droppable: the server cannot be listened to, so that nothing is kept; it is tried again: %s: %s",
                type(error).__name__,
                error,
            )

    def _read(self, connection: Any) -> None:
        """One thing that the server tells. Where it tells nothing for a while, it is asked whether it is there."""
        if not connection.can_read(timeout=self._heartbeat_seconds):
            connection.send_command("PING", check_health=False)
            if not connection.can_read(timeout=self._heartbeat_seconds):
                raise redis.exceptions.TimeoutError("the server is silent")
        try:
            connection.read_response(push_request=True)
        except NoPermissionError:
            pass  # to ping; it is there

        if self._told_error is not None:
            error, self._told_error = self._told_error, None
            raise error

    def _told(self, message: list[Any]) -> None:
        """What the server says. Must not raise: redis-py would only log it, and an old value would stay."""
        near = self._near_reference()
        if near is None:
            return  # the thread sees it after this message
        try:
            keys = message[1]
            if keys is None:
                near._forget_all()
            else:
                near._forget(list(keys))
        except Exception as error:
            self._told_error = error
