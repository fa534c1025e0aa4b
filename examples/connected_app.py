"""A web application under gunicorn whose workers read one cache without asking: `droppable.connect`.

Needs gunicorn. Start both as the same user: droppable serve --unix /tmp/pages.sock
CACHE=/tmp/pages.sock gunicorn --chdir examples --workers 4 connected_app:app
With --preload too: each worker that is forked goes on with a connection of its own.
"""

import os
from collections.abc import Callable, Iterable
from typing import Any

import droppable

cache = droppable.connect(os.environ["CACHE"])


@droppable.cache(cache=cache, ttl=60, name="page-2")  # another name when what it gives changes
def page(name: str) -> str:
    return f"<h1>{name}</h1><!-- rendered by {os.getpid()} -->"  # in a real program: a database, a template


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    body = page(environ["PATH_INFO"].lstrip("/")).encode()
    start_response("200 OK", [("Content-Type", "text/html"), ("Content-Length", str(len(body)))])
    return [body]
