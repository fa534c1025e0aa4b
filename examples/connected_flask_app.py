"""Flask under gunicorn with one cache for all workers, which read it without a message: `droppable.connect`.

Needs flask and gunicorn. Start both as the same user: droppable serve --unix /tmp/pages.sock
CACHE=/tmp/pages.sock gunicorn --chdir examples --workers 4 connected_flask_app:app
With --preload the workers are forked after this line has connected; each makes a connection of its own.
"""

import os

from flask import Flask

import droppable

app = Flask(__name__)
cache = droppable.connect(os.environ["CACHE"])


@droppable.cache(cache=cache, ttl=60)
def render(name: str) -> str:
    return f"<h1>{name}</h1> computed by {os.getpid()}"  # in a real program: a database


@app.get("/page/<name>")
def page(name: str) -> str:
    return render(name)


@app.get("/worker")
def worker() -> str:
    return str(os.getpid())
