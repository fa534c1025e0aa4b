"""The web application of connect_workers.py: a page is made of fragments, each of which takes 5 ms to compute.

WAY and SOCKET in the environment say where fragments are kept: "shared" (droppable.connect), "private" (a
droppable.Cache in each worker), "memcached" (pymemcache). GET /KEY,KEY,... answers a line of text for each key: its
checksum, and whether it was computed for this request.
"""

import os
import time
import zlib
from collections.abc import Callable, Iterable
from typing import Any

FRAGMENT_BYTES = 16384
COMPUTING_SECONDS = 0.005
_FILLER = bytes(range(1, 251)) * (FRAGMENT_BYTES // 250 + 1)


def fragment(key: str) -> bytes:
    """What belongs to a key, without the time that it takes."""
    name = key.encode()
    return name + _FILLER[: FRAGMENT_BYTES - 2 * len(name)] + name


def connect() -> Callable[[str, Callable[[], bytes]], bytes]:
    """Something that brings what is kept for a key, or computes and keeps it."""
    way, path = os.environ["WAY"], os.environ["SOCKET"]
    if way == "memcached":
        from pymemcache.client.base import Client

        client = Client(f"unix:{path}")

        def look(key: str, compute: Callable[[], bytes]) -> bytes:
            found: bytes | None = client.get(key)
            if found is None:
                found = compute()
                client.set(key, found)
            return found

        return look
    import droppable

    cache: Any = droppable.connect(path) if way == "shared" else droppable.Cache()
    get_or_create: Callable[[str, Callable[[], bytes]], bytes] = cache.get_or_create
    return get_or_create


_look: list[Callable[[str, Callable[[], bytes]], bytes]] = []


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """WSGI."""
    if not _look:
        _look.append(connect())  # after the fork: each worker its own
    lines = []
    for key in environ["PATH_INFO"].lstrip("/").split(","):
        was_computed = 0

        def compute(key: str = key) -> bytes:
            nonlocal was_computed
            was_computed = 1
            time.sleep(COMPUTING_SECONDS)
            return fragment(key)

        value = _look[0](key, compute)
        lines.append(f"{zlib.crc32(value)} {was_computed}\n")
    body = "".join(lines).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
