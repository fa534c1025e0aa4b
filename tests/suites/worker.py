"""Runs one suite that others wrote against droppable, in a process of its own: `worker.py SUITE SOURCES`.

SOURCES is the folder with the unpacked sources that tools/suites.py fetched. Each test that begins and each that ends
writes one line of JSON, so that the caller knows which test was running if the process has to be ended. A suite that
cannot be had here ends the process with status 3 and the reason on standard output.
"""

import functools
import importlib
import inspect
import json
import sys
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import droppable

CANNOT_BE_HAD = 3


class ComparedByContent(droppable.Cache):
    """A cache whose == compares entries, as a dict's does. Without it most tests would stop at their first line."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        try:
            return dict(self.items()) == dict(other.items())  # type: ignore[attr-defined]
        except AttributeError:
            return NotImplemented


class NamedAsInCachetools(droppable.Cache):
    """Takes the arguments of cachetools' caches. It bounds nothing: droppable's bounds are in bytes."""

    def __init__(self, maxsize: float, getsizeof: Callable[[Any], int] | None = None) -> None:
        super().__init__()
        self.maxsize = maxsize

    @property
    def currsize(self) -> int:
        return len(self)


def lru_cache(maxsize: Any = 128, typed: bool = False) -> Any:
    """`functools.lru_cache` as its tests call it, by `droppable.cache`.

    maxsize bounds nothing: droppable's bounds are in bytes. But cache_info() tells it, so that tests which look at the
    other counts alone can pass.
    """
    if callable(maxsize):
        return lru_cache()(maxsize)

    def decorate(function: Callable[..., Any]) -> Any:
        cached: Any = droppable.cache(function)
        told = cached.cache_info

        def cache_info() -> functools._CacheInfo:
            info = told()
            return functools._CacheInfo(info.hits, info.misses, maxsize, info.currsize)

        cached.cache_info = cache_info
        return cached

    return decorate


@droppable.cache
def cached_func(x: int, y: int) -> int:
    return 3 * x + y


class CachedMethods:
    """What the classes of `test_functools` that run TestLRU define beside it."""

    cached_func = (cached_func,)

    @droppable.cache
    def cached_meth(self, x: int, y: int) -> int:
        return 3 * x + y

    @staticmethod
    @droppable.cache
    def cached_staticmeth(x: int, y: int) -> int:
        return 3 * x + y


def import_test_module(name: str) -> ModuleType:
    """A module of CPython's `test` package. Distributions often leave these out of their Python."""
    try:
        return importlib.import_module(f"test.{name}")
    except ImportError as error:
        print(f"this Python has no test.{name} (Debian and Ubuntu: apt-get install libpython3-testsuite): {error}")
        raise SystemExit(CANNOT_BE_HAD) from error


def load_mapping(base: str, mapping: type) -> unittest.TestSuite:
    protocol = getattr(import_test_module("mapping_tests"), base)
    case = type(base, (protocol,), {"type2test": mapping})
    return unittest.defaultTestLoader.loadTestsFromTestCase(case)


def load_functools() -> unittest.TestSuite:
    tests = import_test_module("test_functools")
    module = SimpleNamespace(
        lru_cache=lru_cache,
        cache=droppable.cache,
        partial=functools.partial,
        WRAPPER_ASSIGNMENTS=functools.WRAPPER_ASSIGNMENTS,
        _CacheInfo=functools._CacheInfo,
    )

    case = type("TestLRU", (tests.TestLRU, CachedMethods, unittest.TestCase), {"module": module})
    return unittest.defaultTestLoader.loadTestsFromTestCase(case)


def load_cachetools() -> unittest.TestSuite:
    mixin = importlib.import_module("tests").CacheTestMixin
    case = type("CacheTestMixin", (unittest.TestCase, mixin), {"Cache": NamedAsInCachetools})
    return unittest.defaultTestLoader.loadTestsFromTestCase(case)


def load_zict() -> unittest.TestSuite:
    """The checks of zict are functions that take an empty mapping."""
    module = importlib.import_module("zict.tests.utils_test")
    suite = unittest.TestSuite()
    for name, check in inspect.getmembers(module, inspect.isfunction):
        parameters = [*inspect.signature(check).parameters]
        if check.__module__ == module.__name__ and parameters[:1] == ["z"] and name != "check_items":

            def run(check: Callable[[Any], None] = check) -> None:
                check(droppable.Cache())

            run.__name__ = name
            suite.addTest(unittest.FunctionTestCase(run))
    return suite


SUITES = {
    "BasicTestMappingProtocol": lambda: load_mapping("BasicTestMappingProtocol", droppable.Cache),
    "TestHashMappingProtocol": lambda: load_mapping("TestHashMappingProtocol", ComparedByContent),
    "TestLRU": load_functools,
    "CacheTestMixin": load_cachetools,
    "utils_test": load_zict,
}


class Reporting(unittest.TestResult):
    """Writes each outcome at once."""

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self.outcome: dict[str, Any] = {"outcome": "passed"}
        self._write(test, {"outcome": "running"})

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self._write(test, self.outcome)

    def addError(self, test: unittest.TestCase, error: Any) -> None:
        self._fail(error)

    def addFailure(self, test: unittest.TestCase, error: Any) -> None:
        self._fail(error)

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, error: Any) -> None:
        if error is not None:
            self._fail(error)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self.outcome = {"outcome": "skipped", "error": reason}

    def _fail(self, error: Any) -> None:
        line = error[2]
        while line.tb_next is not None:
            line = line.tb_next
        said = " ".join(str(error[1]).split())[:200]
        where = f"{Path(line.tb_frame.f_code.co_filename).name}:{line.tb_lineno}"
        self.outcome = {"outcome": "failed", "error": f"{error[0].__name__}: {said} ({where})"}

    def _write(self, test: unittest.TestCase, record: dict[str, Any]) -> None:
        name = getattr(test, "_testMethodName", "")
        if isinstance(test, unittest.FunctionTestCase):
            name = test._testFunc.__name__  # type: ignore[attr-defined]
        print(json.dumps({"test": name, **record}), flush=True)


def tests_of(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from tests_of(test)
        else:
            yield test


def main() -> None:
    name, sources = sys.argv[1:]
    folders = [path for path in sorted(Path(sources).iterdir()) if path.is_dir()]
    sys.path[:0] = [str(path) for folder in folders for path in (folder, folder / "src")]
    result = Reporting()
    for test in tests_of(SUITES[name]()):
        test.run(result)


if __name__ == "__main__":
    main()
