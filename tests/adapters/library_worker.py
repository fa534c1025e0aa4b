"""Runs one library's suite for its cache backends against droppable's adapter: `library_worker.py SUITE SOURCES`.

As tests/suites/worker.py, whose lines of JSON it writes. The libraries are those installed; of the sources only the
tests are used.
"""

import importlib
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS / "suites"))

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


DJANGO = {"BACKEND": "droppable.adapters.django.DroppableCache"}

SUITES: dict[str, Callable[[Path], None]] = {
    "BaseCacheTests": lambda sources: run_django(sources, DJANGO, "BaseCacheTests"),
    "PyMemcacheCacheTests": lambda sources: run_django_on_server(
        sources, "memcached.PyMemcacheCache", "unix:", "PyMemcacheCacheTests"
    ),
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
