"""Workers that load samples, as those of PyTorch's DataLoader do, share one cache: each sample is made once."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy

import droppable


def begin(path: str) -> None:  # in each worker: a connected cache is not sent to other processes, but its path is
    global cache
    cache = droppable.connect(path)


def load(index: int) -> int:
    sample = cache.get_or_create(("pictures 1", index), lambda: numpy.full(10_000, os.getpid()))
    return int(sample[0])  # the process that made it


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "cache.sock")
        command = [sys.executable, "-m", "droppable", "serve", "--unix", path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            server.stdout.readline()  # it says where it listens once it does
            try:
                epochs = []
                for method in ("fork", "spawn"):  # other workers in each epoch
                    with multiprocessing.get_context(method).Pool(2, begin, (path,)) as workers:
                        epochs.append(workers.map(load, range(100)))
                print(f"{len(set(epochs[0]))} workers made the samples, and those of the second epoch found them")
                assert epochs[0] == epochs[1]
            finally:
                server.terminate()
