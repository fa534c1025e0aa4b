"""Celery: the tasks of all worker processes share results in one cache of the host, `droppable.connect`.

Needs celery and a broker. Start both as the same user: droppable serve --unix /tmp/reports.sock
cd examples; CACHE=/tmp/reports.sock BROKER=redis://localhost celery -A celery_app worker --concurrency 4
"""

import os
from typing import Any

from celery import Celery

import droppable

broker = os.environ["BROKER"]
folder = os.environ.get("QUEUES")  # with BROKER=filesystem:// the queues are files: for tests, where nothing else runs
app = Celery("reports", broker=broker, backend=f"file://{folder}" if folder else broker)
if folder:
    app.conf.broker_transport_options = {"data_folder_in": folder, "data_folder_out": folder}
cache = droppable.connect(os.environ["CACHE"])  # a worker that is forked goes on with a connection of its own


@app.task
def report(year: int) -> Any:
    # One process computes it, and the others wait; in a real program: a query of the whole year
    return cache.get_or_create(("report", year), lambda: f"{year}, computed by process {os.getpid()}", ttl=3600)
