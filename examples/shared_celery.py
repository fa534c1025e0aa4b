"""Celery: tasks of all worker processes share results in one cache of the host. Needs celery.

A real program has Redis or RabbitMQ as its broker; here it is a folder, so that nothing else has to run.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from celery import Celery

import droppable

folder = Path(os.environ.setdefault("FOLDER", tempfile.gettempdir()))
queue = {"data_folder_in": str(folder), "data_folder_out": str(folder)}
app = Celery("shared_celery", broker="filesystem://", backend=f"file://{folder}", broker_transport_options=queue)
cache = droppable.connect(folder / "cache.sock")  # a worker that is forked goes on with a connection of its own


@app.task
def report(year: int) -> Any:
    return cache.get_or_create(("report", year), lambda: f"{year}, computed by process {os.getpid()}", ttl=3600)


def main() -> None:
    serve = [sys.executable, "-m", "droppable", "serve", "--unix", str(folder / "cache.sock")]
    work = [sys.executable, "-m", "celery", "-A", "shared_celery", "worker", "-c", "2", "-l", "CRITICAL"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE) as server:
        server.stdout.readline()  # type: ignore[union-attr]  # it says where it listens once it does
        with subprocess.Popen(work, cwd=Path(__file__).parent) as worker:
            results = [report.delay(year % 3).get(timeout=60) for year in range(30)]
            worker.terminate()
        print(*sorted(set(results)), sep="\n")
        assert len(set(results)) == 3  # each report was computed once, whichever process was asked for it
        server.terminate()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        os.execve(sys.executable, [sys.executable, "-c", "import shared_celery; shared_celery.main()"],
                  {**os.environ, "FOLDER": made, "PYTHONPATH": str(Path(__file__).parent)})  # fmt: skip
