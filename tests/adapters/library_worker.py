"""Runs one library's suite for its cache backends against droppable's adapter: `library_worker.py SUITE SOURCES`.

As tests/suites/worker.py, whose lines of JSON it writes. The libraries are those installed; of the sources only the
tests are used.
"""

import contextlib
import importlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
OURS = TESTS / "adapters" / "suites"
sys.path.insert(0, str(TESTS / "suites"))

from reporting import Reporter  # noqa: E402
from worker import CANNOT_BE_HAD, Reporting  # noqa: E402


def source_of(sources: Path, project: str) -> Path:
    """The folder of a project's sources, whatever its version."""
    return next(path for path in sources.iterdir() if path.name.lower().startswith(project))


def run_cases(case: type[unittest.TestCase]) -> None:
    unittest.defaultTestLoader.loadTestsFromTestCase(case).run(Reporting())  # with the fixtures of the class


def import_django_tests(sources: Path, cache: dict[str, Any]) -> ModuleType:
    """Django's module of tests of caches, once Django has settings like those of its tests/runtests.py."""
    import django
    from django.conf import settings

    tests = source_of(sources, "django") / "tests"
    sys.path.insert(0, str(tests))
    settings.configure(
        INSTALLED_APPS=[
            "django.contrib.contenttypes",
            "django.contrib.auth",
            "django.contrib.sites",
            "django.contrib.sessions",
            "django.contrib.messages",
            "cache",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        CACHES={"default": cache},
        DATABASES={name: {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"} for name in ("default", "other")},
        MIGRATION_MODULES={"auth": None, "contenttypes": None, "sessions": None, "sites": None},
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [tests / "templates"]}],
        ROOT_URLCONF="urls",
        SECRET_KEY="of a test",
        SITE_ID=1,
        DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    )
    django.setup()
    return importlib.import_module("cache.tests")


def run_django(sources: Path, cache: dict[str, Any], name: str) -> None:
    """Django's tests of one of its backends, or those that all of them have, with a backend with these settings."""
    from django.test.runner import DiscoverRunner

    theirs = import_django_tests(sources, cache)
    case = getattr(theirs, name)
    if not issubclass(case, unittest.TestCase):
        caches = theirs.caches_setting_for_tests(cache, exclude=theirs.memcached_excluded_caches)
        case = theirs.override_settings(CACHES=caches)(type(name, (case, theirs.TestCase), {}))
    runner = DiscoverRunner(verbosity=0)
    runner.setup_test_environment()
    databases = runner.setup_databases()
    run_cases(case)
    runner.teardown_databases(databases)


def run_django_on_server(sources: Path, backend: str, scheme: str, name: str) -> None:
    """Django's tests of its own backend for another server, with droppable's."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "droppable", "serve", "--unix", f"{folder}/socket", "--threads", "1"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            server.stdout.readline()  # where it listens
            cache = {"BACKEND": f"django.core.cache.backends.{backend}", "LOCATION": f"{scheme}{folder}/socket"}
            run_django(sources, cache, name)
            server.terminate()


def run_pytest(folder: Path, tests: list[str], *options: str) -> None:
    """These tests, with the library's own folder of tests as the working directory and first in the path."""
    os.chdir(folder)
    sys.path.insert(0, str(folder))
    argv = ["-c", os.devnull, "--rootdir", str(folder), "-p", "no:cacheprovider", "-p", "no:randomly", "-W", "ignore"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        status = pytest.main([*argv, *options, *tests], plugins=[Reporter()])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        sys.exit(f"pytest ended with {status!r}: {said.getvalue()[-2000:]}")


def run_requests_cache(sources: Path) -> None:
    os.environ["USE_PYTEST_HTTPBIN"] = "true"  # a web server in the process, in the place of one at port 8080
    run_ours(sources, "requests_cache", ".", "-p", "tests.conftest")


def run_ours(sources: Path, project: str, folder: str = "tests", *options: str) -> None:
    """Our few lines, which derive from the classes of tests that the library has for its backends."""
    with tempfile.TemporaryDirectory() as apart:  # from this project's conftest.py, whose name the library's has too
        ours = shutil.copy(OURS / f"{project}_suite.py", apart)
        run_pytest(source_of(sources, project) / folder, [str(ours)], *options)


OF_MEMORY = "not redis and not memcached"


def run_aiocache(sources: Path) -> None:
    """Aiocache's acceptance tests choose a cache by a fixture, which is replaced in a copy of them."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(source_of(sources, "aiocache") / "tests", f"{folder}/tests")
        conftest = Path(folder, "tests", "acceptance", "conftest.py")
        conftest.write_text(conftest.read_text() + (OURS / "aiocache_conftest.py").read_text())
        run_pytest(Path(folder), ["tests/acceptance"], "-o", "asyncio_mode=auto", "-m", OF_MEMORY, "-k", OF_MEMORY)


def run_zarr_above(sources: Path) -> None:
    """Zarr's tests of its CacheStore, with droppable's store in the place of each MemoryStore."""
    import zarr.storage

    from droppable.adapters.zarr import DroppableStore

    zarr.storage.MemoryStore = DroppableStore  # type: ignore[misc, assignment]
    run_pytest(
        source_of(sources, "zarr") / "tests", ["test_experimental/test_cache_store.py"], "-o", "asyncio_mode=auto"
    )


DJANGO = {"BACKEND": "droppable.adapters.django.DroppableCache"}

SUITES: dict[str, Callable[[Path], None]] = {
    "BaseCacheTests": lambda sources: run_django(sources, DJANGO, "BaseCacheTests"),
    "PyMemcacheCacheTests": lambda sources: run_django_on_server(
        sources, "memcached.PyMemcacheCache", "unix:", "PyMemcacheCacheTests"
    ),
    "cachelib": lambda sources: run_ours(sources, "cachelib"),
    "Flask-Caching": lambda sources: run_ours(sources, "flask_caching"),
    "dogpile.cache": lambda sources: run_ours(sources, "dogpile"),
    "requests-cache": run_requests_cache,
    "aiocache": run_aiocache,
    "StoreTests": lambda sources: run_ours(sources, "zarr", "tests", "-o", "asyncio_mode=auto"),
    "TestCacheStore": run_zarr_above,
    "RedisCacheTests": lambda sources: run_django_on_server(sources, "redis.RedisCache", "unix://", "RedisCacheTests"),
}


def main() -> None:
    name, sources = sys.argv[1:]
    try:
        SUITES[name](Path(sources))
    except ModuleNotFoundError as error:
        print(f"{error}: `make adapters` installs it")
        raise SystemExit(CANNOT_BE_HAD) from error


if __name__ == "__main__":
    main()
