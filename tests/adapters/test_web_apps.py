"""The web applications in examples/: FastAPI, and Flask under gunicorn with and without --preload."""

from __future__ import annotations

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


@pytest.fixture(params=[False, True], ids=["each its own", "--preload"])
def gunicorn(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, bool]]:
    pytest.importorskip("gunicorn", reason="gunicorn is not installed: make adapters")
    pytest.importorskip("flask", reason="flask is not installed: make adapters")
    path, log = tmp_path / "socket", tmp_path / "log"
    command = [sys.executable, "-m", "gunicorn", "--chdir", str(EXAMPLES), "--workers", "2", "--bind", f"unix:{path}"]
    command += [*(["--preload"] if request.param else []), "--no-control-socket", "flask_app:app"]
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **({"PRELOADED": "1"} if request.param else {})}
    with log.open("wb") as said, subprocess.Popen(command, env=environment, stdout=said, stderr=said) as process:
        deadline = time.monotonic() + WAIT_SECONDS
        while not path.exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield path, request.param
        process.terminate()


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
