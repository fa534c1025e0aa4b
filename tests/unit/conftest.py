"""Fixtures for tests of caches: each test that takes them runs once with each backing."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from droppable import Cache, SharedCache, UnsupportedError, connect


@dataclass(frozen=True)
class Server:
    """A running droppable-server."""

    path: Path
    process: subprocess.Popen[str]

    def stop(self) -> int:
        """Asks it to stop; its exit status."""
        self.process.terminate()
        status = self.process.wait(30)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return status


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


@pytest.fixture(scope="module")
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """`start_server(*options)` starts a server on a unix socket of its own. At the end each must stop, with 0."""
    started: list[Server] = []

    def start(*options: str) -> Server:
        path = tmp_path_factory.mktemp("server") / "socket"
        reader, writer = os.pipe()
        argv = ["serve", "--unix", str(path), "--ready-fd", str(writer), "--threads", "2", *options]
        process = subprocess.Popen(
            [sys.executable, "-m", "droppable", *argv], pass_fds=[writer], stdout=subprocess.PIPE, text=True
        )
        os.close(writer)
        started.append(Server(path, process))
        with os.fdopen(reader, "rb") as ready:
            assert ready.read() == b"\n", "the server did not start"
        return started[-1]

    yield start
    for server in started:
        assert server.stop() == 0


@pytest.fixture(scope="module")
def server_socket(start_server: Callable[..., Server]) -> Path:
    return start_server().path


@pytest.fixture(params=["memory", "socket"])
def shared(server_socket: Path, request: pytest.FixtureRequest) -> Iterator[SharedCache]:
    """An empty cache of the module's server: once read from its memory, and once asked for."""
    with connect(server_socket, strict=True, attach=request.param == "memory") as cache:
        cache.clear()
        yield cache
