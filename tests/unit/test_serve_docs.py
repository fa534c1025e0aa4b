"""The configurations that docs/server.md gives for other programs are what those programs take."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pymemcache.client.base import Client
from pymemcache.exceptions import MemcacheError

from droppable.cli._serve import server_program

PAGE = (Path(__file__).parents[2] / "docs" / "server.md").read_text()
WAIT_SECONDS = 20


def block(language: str, begins: str) -> str:
    """The block of the page in that language that begins so."""
    found = re.search(rf"^```{language}\n({re.escape(begins)}.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    analyze, program = shutil.which("systemd-analyze"), server_program()
    if analyze is None:
        pytest.skip("systemd-analyze is not installed (Debian and Ubuntu: apt-get install systemd)")
    names = ["droppable.socket", "droppable.service"]
    for name in names:
        text = block("ini", f"# {name}\n")
        (tmp_path / name).write_text(text.replace("/usr/bin/droppable-server", str(program)))
    ran = subprocess.run(
        [analyze, "verify", *(str(tmp_path / name) for name in names)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "droppable" not in ran.stderr  # it complains of units of the host too


def test_kubernetes_gets_two_containers_that_share_a_socket() -> None:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (`make docs` installs it)")
    spec = yaml.safe_load(block("yaml", "spec:\n"))["spec"]
    shared = {volume["name"] for volume in spec["volumes"]}
    assert len(spec["containers"]) == 2
    for container in spec["containers"]:
        assert {mount["name"] for mount in container["volumeMounts"]} == shared


@pytest.mark.parametrize("dead", [None, 1])
def test_twemproxy_spreads_keys_over_servers(
    start_server: Callable[..., Any], tmp_path: Path, dead: int | None
) -> None:
    program = shutil.which("nutcracker")
    if program is None:
        pytest.skip("twemproxy is not installed (Debian and Ubuntu: apt-get install nutcracker)")
    ports = [free_port() for _ in range(3)]
    servers = [start_server("--listen", f"127.0.0.1:{port}") for port in ports]
    proxy_port = free_port()
    text = block("yaml", "cache:\n").replace("127.0.0.1:22121", f"127.0.0.1:{proxy_port}")
    for number, port in enumerate(ports, 1):
        text = text.replace(f"10.0.0.{number}:11211", f"127.0.0.1:{port}")
    (tmp_path / "proxy.yml").write_text(text)
    command = [program, "-c", str(tmp_path / "proxy.yml"), "-s", str(free_port()), "-a", "127.0.0.1"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as proxy:
        try:
            deadline = time.monotonic() + WAIT_SECONDS
            while True:
                try:
                    socket.create_connection(("127.0.0.1", proxy_port), timeout=1).close()
                    break
                except OSError:
                    assert proxy.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(0.01)
            client = Client(("127.0.0.1", proxy_port), timeout=WAIT_SECONDS)
            keys = [
                hashlib.sha256(bytes([number])).hexdigest() for number in range(200)
            ]  # its hash keeps like near like
            if dead is not None:
                assert servers[dead].stop() == 0
                for key in keys:  # the first that ask the dead one get an error: then it is left out
                    with contextlib.suppress(MemcacheError, OSError):
                        client.set(key, b"", noreply=False)
            for key in keys:
                assert client.set(key, key.encode(), noreply=False)
            assert [client.get(key) for key in keys] == [key.encode() for key in keys]
            client.close()
            for number, port in enumerate(ports):
                if number != dead:
                    direct = Client(("127.0.0.1", port), timeout=WAIT_SECONDS)
                    assert 0 < len(direct.get_many(keys)) < len(keys)
                    direct.close()
        finally:
            proxy.terminate()
