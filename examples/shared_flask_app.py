"""Flask under gunicorn with one cache for all workers: `droppable serve`, and a client of memcached.

Needs flask, gunicorn and pymemcache. Start both as the same user: droppable serve --unix /tmp/pages.sock
CACHE=/tmp/pages.sock gunicorn --chdir examples --workers 4 shared_flask_app:app
"""

import contextlib
import json
import os
from typing import Any
from urllib.parse import quote

from flask import Flask
from pymemcache.client.base import PooledClient
from pymemcache.exceptions import MemcacheError


class Json:
    """Without a serde, pymemcache stores str(value): a dict would come back as the bytes b"{'page': ...}"."""

    def serialize(self, key: str, value: Any) -> tuple[bytes, int]:
        return json.dumps(value).encode(), 0

    def deserialize(self, key: str, value: bytes, flags: int) -> Any:
        return json.loads(value)


app = Flask(__name__)
cache = PooledClient(os.environ["CACHE"], serde=Json(), ignore_exc=True, connect_timeout=1, timeout=1)


@app.get("/page/<name>")
def page(name: str) -> dict[str, Any]:
    key = "page:" + quote(name)  # a key is at most 250 bytes, without spaces
    answer: dict[str, Any] | None = cache.get(key)  # None too if no server is there: ignore_exc
    if answer is None:
        answer = {"page": f"<h1>{name}</h1>", "computed_by": os.getpid()}  # in a real program: a database
        with contextlib.suppress(OSError, MemcacheError):  # ignore_exc is for get alone
            cache.set(key, answer, expire=60)
    return answer
