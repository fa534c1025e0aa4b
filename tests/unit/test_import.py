"""What `import droppable` loads, and what it loads when somebody asks for it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import pytest

import droppable

# Each of these takes longer than droppable, or is of no use to a program that has one cache.
HEAVY = [
    "asyncio",
    "concurrent.futures",
    "droppable._flight.tasks",
    "droppable.random",
    "droppable.testing",
    "hashlib",
    "importlib.metadata",
    "logging",
    "multiprocessing",
    "numpy",
    "random",
    "socket",
    "ssl",
    "subprocess",
]


def test_an_import_loads_nothing_heavy(run_python: Callable[..., str]) -> None:
    loaded = run_python(
        """
        import sys
        before = set(sys.modules)
        import droppable
        cache = droppable.Cache()
        cache["k"] = [1]
        assert cache.get_or_create("k", list) == [1]
        assert cache.get_or_create("l", list) == []

        @droppable.cache
        def function(number):
            return [number]

        assert function(1) == function(1) == [1]
        print(*(set(sys.modules) - before), sep="\\n")
        """
    ).split()
    assert "droppable._cache" in loaded
    assert not set(HEAVY).intersection(loaded)


@pytest.mark.parametrize(
    "code",
    [
        "droppable.testing.drop(droppable.Cache())",
        "droppable.random.token_bytes(5)",
        "droppable.model.Machine",
        "droppable.replay",
        "droppable.__version__.split()",
        "from droppable import testing, random; testing.drop",
    ],
)
def test_modules_come_when_they_are_asked_for(run_python: Callable[..., str], code: str) -> None:
    assert run_python(f"import droppable; {code}; print('right')").strip() == "right"


def test_dir_shows_them(run_python: Callable[..., str]) -> None:
    assert {"Cache", "random", "testing", "__version__", "__all__"} <= set(dir(droppable))
    told = run_python("import droppable; print('testing' in dir(droppable), 'Cache' in dir(droppable))")
    assert told.split() == ["True", "True"]


def test_there_is_one_version() -> None:
    assert droppable.__version__ == version("droppable")


def test_other_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="module 'droppable' has no attribute 'Cahce'"):
        droppable.Cahce  # type: ignore[attr-defined]  # noqa: B018
    assert not hasattr(droppable, "cli_")


def test_a_star_gives_the_names_alone(run_python: Callable[..., str]) -> None:
    code = "import random; from droppable import *; print(random.__name__, Cache.__name__, NEVER)"
    assert run_python(code).split() == ["random", "Cache", "inf"]


def test_the_first_call_of_a_coroutine_function_opens_no_file(run_python: Callable[..., str]) -> None:
    """A server may have no file descriptor left by then."""
    told = run_python(
        """
        import asyncio, os, resource
        import droppable

        @droppable.cache
        async def function(number):
            return [number]

        loop = asyncio.new_event_loop()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        held = []
        try:
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        try:
            result = loop.run_until_complete(function(1))
        finally:
            for descriptor in held:
                os.close(descriptor)
        loop.close()
        print(result)
        """
    )
    assert told.strip() == "[1]"
