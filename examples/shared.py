"""Workers that have nothing in common but a path share one cache: what one of them computed the others read."""

import multiprocessing
import subprocess
import sys
import tempfile
from pathlib import Path

import droppable


def work(path: str, name: str) -> tuple[str, int]:
    with droppable.connect(path) as cache:
        for number in range(100):
            text = cache.get_or_create(number, lambda number=number: f"the square of {number} is {number * number}")
            assert text.endswith(f" {number * number}")
        return name, cache.stats().hits_read


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "cache.sock")
        command = [sys.executable, "-m", "droppable", "serve", "--unix", path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            server.stdout.readline()  # it says where it listens once it does
            try:
                with multiprocessing.get_context("spawn").Pool(1) as first:
                    first.apply(work, (path, "the first"))
                with multiprocessing.get_context("spawn").Pool(2) as others:
                    for name, hits in others.starmap(work, [(path, "another"), (path, "a third")]):
                        print(f"{name} worker found {hits} of 100 texts that the first had computed")
                        assert hits == 100
            finally:
                server.terminate()
