"""Django with one cache for all processes of the host: what a forked worker stores the others find. Needs django."""

import json
import multiprocessing
import subprocess
import sys
import tempfile
from pathlib import Path

from django.conf import settings
from django.core.cache import cache

BACKEND = "droppable.adapters.django.SharedDroppableCache"


def work(number: int) -> dict[str, int]:
    cache.incr("visits")
    return cache.get_or_set(f"page-{number % 3}", lambda: {"computed by": number})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "cache.sock")
        command = [sys.executable, "-m", "droppable", "serve", "--unix", path]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
            assert server.stdout is not None
            server.stdout.readline()  # it says where it listens once it does
            try:
                # json is for dicts. With pickle, whoever can connect to the server could run code here.
                options = {"serializer": json}
                settings.configure(CACHES={"default": {"BACKEND": BACKEND, "LOCATION": path, "OPTIONS": options}})
                cache.set("visits", 0)
                with multiprocessing.get_context("fork").Pool(4) as pool:
                    pages = pool.map(work, range(100))
                print(f"{cache.get('visits')} visits, {len({str(page) for page in pages})} pages were computed")
                assert cache.get("visits") == 100
                assert all(page == cache.get(f"page-{number % 3}") for number, page in enumerate(pages))
            finally:
                server.terminate()
