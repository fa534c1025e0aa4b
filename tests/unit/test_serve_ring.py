"""Three servers and pymemcache's ring, as docs/server.md shows it; one server is killed in the middle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pymemcache.client.hash import HashClient


def test_one_of_three_servers_dies_and_the_others_take_over(start_server: Callable[..., Any]) -> None:
    servers = [start_server("--allow-shutdown") for _ in range(3)]
    client = HashClient(
        [str(server.path) for server in servers], ignore_exc=True, retry_attempts=0, dead_timeout=300, timeout=20
    )
    keys = [f"key{number}" for number in range(300)]
    assert client.set_many({key: key for key in keys}) == []
    assert client.get_many(keys) == {key: key.encode() for key in keys}

    servers[1].process.terminate()
    assert servers[1].process.wait(20) == 0
    found = client.get_many(keys)
    assert 100 < len(found) < 300  # those of the others are there still
    assert all(value == key.encode() for key, value in found.items())
    for key in keys:  # what is a miss is computed and stored anew
        if client.get(key) is None:
            client.set(key, key)
    assert client.get_many(keys) == {key: key.encode() for key in keys}
    client.close()
