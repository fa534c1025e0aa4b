"""The web applications in examples/: FastAPI, and Flask under gunicorn with and without --preload."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.server import Server

EXAMPLES = Path(__file__).parents[2] / "examples"
WAIT_SECONDS = 60
PAGE = "<h1>index</h1>" * 1000


@pytest.fixture
def fastapi_app() -> Any:
    pytest.importorskip("fastapi", reason="fastapi is not installed: make adapters")
    pytest.importorskip("httpx", reason="httpx is not installed: make adapters")
    spec = importlib.util.spec_from_file_location("fastapi_app", EXAMPLES / "fastapi_app.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    module.forecast.cache.close()


@pytest.mark.filterwarnings("default")
def test_fastapi(fastapi_app: Any) -> None:
    from fastapi.testclient import TestClient

    with TestClient(fastapi_app.app) as client:
        assert [client.get("/forecast/Rome").json() for _ in range(3)] == [{"temperature": 24.0}] * 3
        assert (fastapi_app.forecast.cache_info().hits, fastapi_app.forecast.cache_info().misses) == (2, 1)
        assert client.delete("/forecast/Rome").status_code == 204
        assert client.get("/forecast/Rome").json() == {"temperature": 24.0}
        assert fastapi_app.forecast.cache_info().misses == 2


class OverUnixSocket(http.client.HTTPConnection):
    """To a server on a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=WAIT_SECONDS)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


def get(path: Path, target: str) -> str:
    connection = OverUnixSocket(path)
    connection.request("GET", target)
    text = connection.getresponse().read().decode()
    connection.close()
    return text


@contextlib.contextmanager
def gunicorn_of(app: str, folder: Path, *options: str, **variables: str) -> Iterator[Path]:
    """Two workers that serve this application. Gives the path of their socket."""
    pytest.importorskip("gunicorn", reason="gunicorn is not installed: make adapters")
    pytest.importorskip("flask", reason="flask is not installed: make adapters")
    path, log = folder / "socket", folder / "log"
    command = [sys.executable, "-m", "gunicorn", "--chdir", str(EXAMPLES), "--workers", "2", "--bind", f"unix:{path}"]
    command += [*options, "--no-control-socket", f"{app}:app"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables}
    with log.open("wb") as said, subprocess.Popen(command, env=environment, stdout=said, stderr=said) as process:
        deadline = time.monotonic() + WAIT_SECONDS
        while not path.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        try:
            yield path
        finally:
            process.terminate()


@pytest.fixture(params=[False, True], ids=["each its own", "--preload"])
def gunicorn(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, bool]]:
    options, variables = (["--preload"], {"PRELOADED": "1"}) if request.param else ([], {})
    with gunicorn_of("flask_app", tmp_path, *options, **variables) as path:
        yield path, request.param


def test_flask_under_gunicorn(gunicorn: tuple[Path, bool]) -> None:
    path, is_preloaded = gunicorn
    workers: dict[int, tuple[int, int]] = {}
    deadline = time.monotonic() + WAIT_SECONDS
    while len(workers) < 2:  # which of them answers, nobody knows
        assert time.monotonic() < deadline
        assert get(path, "/page/index") == PAGE
        stats = json.loads(get(path, "/stats"))
        workers[stats["pid"]] = (stats["hits"], stats["misses"])
    if is_preloaded:
        assert all(misses == 2 for _, misses in workers.values()), "the two before the fork"
    else:
        assert all(misses <= 1 for _, misses in workers.values())


def test_one_cache_for_all_workers(tmp_path: Path) -> None:
    client = pytest.importorskip("pymemcache.client.base", reason="pymemcache is not installed: make build").Client
    server_path = str(tmp_path / "cache")
    command = [sys.executable, "-m", "droppable", "serve", "--unix", server_path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline().strip() == server_path
            with gunicorn_of("shared_flask_app", tmp_path, CACHE=server_path) as path:
                first = json.loads(get(path, "/page/about%20us"))
                assert first["page"] == "<h1>about us</h1>"
                assert all(json.loads(get(path, "/page/about%20us")) == first for _ in range(40))
                with contextlib.closing(client(server_path)) as asker:
                    counts = asker.stats()
                assert (counts[b"cmd_set"], counts[b"get_hits"]) == (1, 40)
                server.terminate()
                server.wait()
                assert json.loads(get(path, "/page/index"))["page"] == "<h1>index</h1>"
        finally:
            server.terminate()


@pytest.mark.parametrize("options", [(), ("--preload",)], ids=["each its own", "--preload"])
def test_workers_read_one_cache(options: tuple[str, ...], server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "web"  # not where the server's socket is
    folder.mkdir()
    with gunicorn_of("connected_flask_app", folder, *options, CACHE=str(server.path)) as path:
        first = get(path, "/page/index")
        workers: set[str] = set()
        deadline = time.monotonic() + WAIT_SECONDS
        while len(workers) < 2:  # which of them answers, nobody knows
            assert time.monotonic() < deadline
            workers.add(get(path, "/worker"))
            assert get(path, "/page/index") == first
        assert first.split()[-1] in workers
        server.kill()
        assert get(path, "/page/index").startswith("<h1>index</h1>")


def test_tasks_of_celery_share_one_cache(tmp_path: Path) -> None:
    pytest.importorskip("celery", reason="celery is not installed: make adapters")
    cache, queues = str(tmp_path / "cache"), tmp_path / "queues"
    queues.mkdir()
    environment = {**os.environ, "CACHE": cache, "BROKER": "filesystem://", "QUEUES": str(queues)}
    ask = "from celery_app import report; answers = {report.delay(year % 3).get(timeout=60) for year in range(30)}; "
    ask += "print(*answers, sep='\\n')"
    serve = [sys.executable, "-m", "droppable", "serve", "--unix", cache]
    work = [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "--concurrency", "2", "-l", "CRITICAL"]
    with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            assert server.stdout.readline().strip() == cache
            with subprocess.Popen(
                work, cwd=EXAMPLES, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as worker:
                try:
                    answers = subprocess.check_output(
                        [sys.executable, "-B", "-c", ask],
                        cwd=EXAMPLES,
                        env=environment,
                        text=True,
                        timeout=WAIT_SECONDS,
                    ).split("\n")
                finally:
                    worker.terminate()
        finally:
            server.terminate()
    assert sorted(answer[:12] for answer in answers) == ["", "0, computed ", "1, computed ", "2, computed "]
