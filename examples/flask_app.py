"""Flask under gunicorn. Each worker has a cache of its own.

Needs flask and gunicorn. Run it: gunicorn --chdir examples --workers 2 flask_app:app
Or so that the workers find what was cached before they were forked:
PRELOADED=1 gunicorn --preload --chdir examples --workers 2 flask_app:app
"""

import os

from flask import Flask, Response, jsonify

import droppable

app = Flask(__name__)
cache = droppable.Cache[str, str](fork="share")  # what is there before the fork, all workers read; later, each its own


def render(name: str) -> str:
    return f"<h1>{name}</h1>" * 1000  # in a real program: a template and a database


@app.get("/page/<name>")
def page(name: str) -> str:
    return cache.get_or_create(name, lambda: render(name))


@app.get("/stats")
def stats() -> Response:
    return jsonify(pid=os.getpid(), hits=cache.stats().hits, misses=cache.stats().misses)


if os.environ.get("PRELOADED"):
    for name in ("index", "about"):
        page(name)
