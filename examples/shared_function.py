"""A function whose results all processes share: one computes each of them, whichever is asked first."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import droppable

PATH = os.environ.setdefault("SQUARES", str(Path(tempfile.gettempdir()) / f"squares-{os.getpid()}.sock"))
MINE = __name__ == "__main__"
if MINE:  # in a real deployment the server runs for itself
    command = [sys.executable, "-m", "droppable", "serve", "--unix", PATH]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    server.stdout.readline()  # it says where it listens once it does

cache = droppable.connect(PATH)


@droppable.cache(cache=cache, ttl=3600)
def square(number: int) -> str:
    return f"{number * number}, computed by process {os.getpid()}"


def work(numbers: list[int]) -> list[str]:
    return [square(number) for number in numbers]


if MINE:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        first, *others = pool.map(work, [list(range(100))] * 6)
    assert all(found == first == work(list(range(100))) for found in others)
    print(f"the square of 7 is {square(7)}, as all others found it")
    cache.close()
    server.terminate()
    server.communicate()
