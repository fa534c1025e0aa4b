"""The exporters that dashboards read: redis_exporter itself if it is installed, and the names of memcached_exporter."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

WAIT_SECONDS = 20
# What memcached_exporter reads of `stats` and `stats settings`, but for what is of slabs, the LRU's parts, extstore and
# the proxy. It skips what is not there.
NAMES = """
    uptime time version rusage_user rusage_system bytes limit_maxbytes curr_items total_items bytes_read bytes_written
    curr_connections total_connections rejected_connections conn_yields listen_disabled_num evictions reclaimed
    store_too_large store_no_memory accepting_conns cmd_get cmd_set get_hits get_misses delete_hits delete_misses
    incr_hits incr_misses decr_hits decr_misses cas_hits cas_misses cas_badval touch_hits touch_misses cmd_flush
"""


@pytest.fixture
def ports(start_server: Callable[..., Any]) -> tuple[Path, int]:
    """The server's socket, and its port at the loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    return start_server("--listen", f"127.0.0.1:{port}").path, port


def read_metrics(url: str, process: subprocess.Popen[bytes]) -> dict[str, float]:
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            with urllib.request.urlopen(url, timeout=WAIT_SECONDS) as answer:
                text = answer.read().decode()
        except (urllib.error.URLError, ConnectionError):  # it has no way to tell that it is ready
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        else:
            return {name: float(value) for name, value in re.findall(r"^(redis_\S+) (\S+)$", text, flags=re.MULTILINE)}


def test_redis_exporter_tells_what_happened(ports: tuple[Path, int]) -> None:
    program = shutil.which("prometheus-redis-exporter")
    if program is None:
        pytest.skip("redis_exporter is not installed (Debian and Ubuntu: apt-get install prometheus-redis-exporter)")
    path, port = ports
    with redis.Redis(unix_socket_path=str(path)) as client:
        for number in range(10):
            client.set(f"key{number}", b"x" * 1000)
        assert client.mget("key1", "key2", "no") == [b"x" * 1000, b"x" * 1000, None]
        assert client.config_get("maxmemory").keys() == {"maxmemory"}
        assert client.config_get().keys() == {"databases", "maxclients", "maxmemory"}
        assert client.config_get("no") == {}
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [program, f"-redis.addr=redis://127.0.0.1:{port}", f"-web.listen-address={place}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            told = read_metrics(f"http://{place}/metrics", process)
        finally:
            process.terminate()
    assert told["redis_up"] == 1
    assert told['redis_exporter_last_scrape_error{err=""}'] == 0
    assert told['redis_db_keys{db="db0"}'] == 10
    assert 'redis_db_keys{db="db1"}' not in told
    assert told["redis_keyspace_hits_total"] == 2
    assert told["redis_keyspace_misses_total"] == 1
    assert told["redis_memory_used_bytes"] >= 10_000
    assert told["redis_memory_max_bytes"] > told["redis_memory_used_bytes"]
    assert told["redis_config_maxclients"] == 1024
    assert told["redis_connected_clients"] >= 1
    assert told["redis_commands_processed_total"] >= 11
    assert told["redis_net_input_bytes_total"] > 10_000
    for name in ("evicted_keys_total", "expired_keys_total", "rejected_connections_total", "memory_used_rss_bytes"):
        assert f"redis_{name}" in told


def test_memcached_exporter_finds_its_names(ports: tuple[Path, int]) -> None:
    _, port = ports
    told = {}
    with (
        socket.create_connection(("127.0.0.1", port), timeout=WAIT_SECONDS) as connection,
        connection.makefile() as lines,
    ):
        for command in ("stats", "stats settings", "stats slabs"):
            connection.sendall(f"{command}\r\n".encode())
            for line in iter(lines.readline, "END\n"):
                _, name, value = line.split(maxsplit=2)
                told[name] = value.strip()
    assert not {*NAMES.split(), "maxconns", "total_malloced"} - told.keys()
    for name in ("rusage_user", "rusage_system"):
        assert re.fullmatch(r"\d+\.\d{6}", told[name])  # it takes the digits behind the point as microseconds
