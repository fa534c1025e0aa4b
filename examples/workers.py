"""Workers that are forked after the cache was filled, as with `gunicorn --preload` or a data loader, read from it."""

import multiprocessing
import os

import droppable

cache = droppable.Cache[int, bytes](fork="share")


def sample(number: int) -> bytes:
    return cache.get_or_create(number, lambda: number.to_bytes(4, "big") * 5000)  # in a real program: read and decode


def work(numbers: list[int]) -> tuple[int, int]:
    before = cache.stats().hits
    for number in numbers:
        assert sample(number)[:4] == number.to_bytes(4, "big")
    return os.getpid(), cache.stats().hits - before


if __name__ == "__main__":
    for number in range(100):
        sample(number)  # before the fork: all workers find it, and it takes memory once
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for pid, hits in pool.imap_unordered(work, [list(range(100))] * 4):
            print(f"worker {pid} found {hits} of 100 samples")
            assert hits == 100
