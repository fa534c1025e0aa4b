"""Runs one suite that others wrote for memcached, Redis or their clients: `server_worker.py SUITE KIND SOURCES`.

KIND is the server that it runs against: `droppable`, `memcached` or `redis`. SOURCES is the folder with the suite's
unpacked sources. Writes lines of JSON as worker.py does; a suite that cannot be had here ends the process with status 3
and the reason on standard output.
"""

import contextlib
import functools
import io
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SUITES_FOLDER = Path(__file__).parent
sys.path[:0] = [str(SUITES_FOLDER), str(SUITES_FOLDER.parent / "adapters")]

from reporting import Reporter, tell  # noqa: E402
from servers import NotInstalledError, Server, program, running  # noqa: E402
from worker import CANNOT_BE_HAD  # noqa: E402

CHOSEN = tomllib.loads((SUITES_FOLDER / "chosen.toml").read_text())
FILES_AT_ONCE = 6
LIMIT_SECONDS = 90
"""Of one file of memcached's tests. The longest takes about fifteen."""


# memcached's own tests: Perl, each file starts its own servers


def run_memcached_file(file: str, folder: Path) -> None:
    """Each assertion is a test, named by the file and its number."""
    try:
        ran = subprocess.run(
            ["perl", "-It/lib", f"t/{file}"],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_SECONDS,
            check=False,
        )
        output, status = ran.stdout.decode(errors="replace"), ran.returncode
    except subprocess.TimeoutExpired as error:
        output, status = (error.stdout or b"").decode(errors="replace"), -1
    assertion = re.compile(r"^(not )?ok (\d+)(?: - (.*))?\n((?:#.*\n)*)", flags=re.MULTILINE)
    failures = 0
    for fails, number, name, said in assertion.findall(output):
        failures += bool(fails)
        words = " ".join(said.replace("#", " ").split())[:200]
        tell(f"{file} {number}", "failed" if fails else "passed", f"{name}: {words}" if fails else "")
    if re.search(r"^1\.\.0 # skip", output, flags=re.MULTILINE | re.IGNORECASE):
        tell(file, "skipped", output.strip()[:200])
    elif status != failures:  # it ends with the number of its failures, unless it did not get to its end
        tell(f"{file} to the end", "failed", f"status {status}: {output[-200:]}")


def run_memcached(kind: str, sources: Path) -> None:
    """SOURCES has t/, and memcached-debug, which is what the tests start."""
    del kind
    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:  # they mostly sleep
        for done in [pool.submit(run_memcached_file, name, sources) for name in CHOSEN["memcached_files"]]:
            done.result()


def run_memccapable(kind: str, sources: Path) -> None:
    del sources
    command = program("memccapable", "libmemcached-tools")
    with running(kind) as server:
        ran = subprocess.run(
            [command, "-h", "127.0.0.1", "-p", str(server.port), "-a", "-v"],
            capture_output=True,
            text=True,
            check=False,
        )
    said = " ".join(ran.stderr.split())
    for name, passed in re.findall(r"^.*?(ascii [a-z ]+?) *(\[pass\])?$", ran.stdout, flags=re.MULTILINE):
        tell(name, "passed" if passed else "failed", "" if passed else said)


# Tests of clients: pytest


def run_pytest(kind: str, sources: Path, tests: list[str], options: Callable[[Server], list[str]]) -> None:
    """These tests: files, or names of tests in them."""
    with running(kind) as server, contextlib.redirect_stdout(io.StringIO()):
        os.chdir(sources)
        argv = ["-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider", "-p", "no:randomly", "-W", "ignore"]
        pytest.main([*argv, *options(server), *tests], plugins=[Reporter()])


def source_of(sources: Path, project: str) -> Path:
    return next(path for path in sources.iterdir() if path.name.lower().startswith(project))


def run_pymemcache(kind: str, sources: Path) -> None:
    run_pytest(
        kind,
        source_of(sources, "pymemcache"),
        ["pymemcache/test/test_integration.py", "-k", "not tls"],
        lambda server: ["--server", "127.0.0.1", "--port", str(server.port)],
    )


def redis_options(server: Server) -> list[str]:
    return [
        "--redis-url",
        f"redis://127.0.0.1:{server.port}/0",
        "--redis-mod-url",
        f"redis://127.0.0.1:{server.port}/0",
    ]


def run_redis(kind: str, sources: Path, *, tests: list[str]) -> None:
    run_pytest(kind, source_of(sources, "redis"), tests, redis_options)


# Django's tests of its own backends


def run_django(kind: str, sources: Path, *, backend: str, scheme: str, name: str) -> None:
    from library_worker import run_django as run_cases

    with running(kind) as server:
        run_cases(
            sources,
            {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": f"{scheme}127.0.0.1:{server.port}"},
            name,
        )


SUITES: dict[str, Callable[[str, Path], None]] = {
    "t/*.t": run_memcached,
    "memccapable": run_memccapable,
    "test_integration": run_pymemcache,
    "TestRedisCommands": functools.partial(
        run_redis, tests=[f"tests/test_commands.py::TestRedisCommands::{name}" for name in CHOSEN["redis_tests"]]
    ),
    "test_pipeline": functools.partial(run_redis, tests=["tests/test_pipeline.py"]),
    "TestCache": functools.partial(run_redis, tests=["tests/test_cache.py::TestCache"]),
    "PyMemcacheCacheTests": functools.partial(
        run_django, backend="memcached.PyMemcacheCache", scheme="", name="PyMemcacheCacheTests"
    ),
    "PyLibMCCacheTests": functools.partial(
        run_django, backend="memcached.PyLibMCCache", scheme="", name="PyLibMCCacheTests"
    ),
    "RedisCacheTests": functools.partial(
        run_django, backend="redis.RedisCache", scheme="redis://", name="RedisCacheTests"
    ),
}


def main() -> None:
    name, kind, sources = sys.argv[1:]
    try:
        SUITES[name](kind, Path(sources))
    except (ModuleNotFoundError, NotInstalledError) as error:
        print(f"{error}")
        raise SystemExit(CANNOT_BE_HAD) from error


if __name__ == "__main__":
    main()
