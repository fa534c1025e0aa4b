"""Fixtures for tests of caches: each test that takes them runs once with each backing."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable
from typing import Any, Literal

import pytest

from droppable import Cache, UnsupportedError


@pytest.fixture(params=["lazyfree", "droppable"])
def backing(request: pytest.FixtureRequest) -> Literal["lazyfree", "droppable"]:
    """Each backing that this kernel has."""
    try:
        Cache(backing=request.param).close()
    except UnsupportedError as error:
        pytest.skip(f"{request.param}: {error}")
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def make_cache(backing: Literal["lazyfree", "droppable"]) -> Callable[..., Cache]:
    """`make_cache(**options)` makes a cache with the test's backing."""

    def make(**options: Any) -> Cache:
        return Cache(backing=backing, **options)

    return make


@pytest.fixture
def cache(make_cache: Callable[..., Cache]) -> Cache:
    return make_cache()


@pytest.fixture
def numpy() -> Any:
    """The module, for tests that need it; they skip where it is not installed."""
    return pytest.importorskip("numpy", reason="NumPy is not installed")


@pytest.fixture
def numbers(numpy: Any) -> Any:
    """An array of many pages."""
    return numpy.arange(100_000, dtype="f8")


@pytest.fixture
def run_python() -> Callable[..., str]:
    """`run_python(code, *argv)` runs code in a process of its own, which must end well and quietly: its output."""

    def run(code: str, *argv: str) -> str:
        command = [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code), *argv]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert (result.returncode, result.stderr) == (0, "")
        return result.stdout

    return run
