"""Scopes: keys of one part of a cache, which nothing outside of that part finds."""

from __future__ import annotations

import os
from typing import Any

import pytest

from droppable import Cache
from droppable.lowlevel import EncodedKey, encode_key, new_scope

KEYS: tuple[Any, ...] = ("name", b"name", 1, 1.0, None, ("name", 1), frozenset({1, 2}), "k" * 300, 2**80, "k" * 9000)


def walk(cache: Cache, scope: bytes | None) -> list[Any]:
    cursor, found = 0, []
    while (batch := cache._walk(cursor, scope)) is not None:
        cursor, keys = batch
        found += keys
    return found


def test_a_scope_is_in_front_of_the_key() -> None:
    scope = new_scope()
    assert len(scope) == 8
    for key in KEYS:
        assert EncodedKey(key, scope) == b"@" + scope + encode_key(key)
        assert EncodedKey(EncodedKey(key), scope) == EncodedKey(key, scope=scope)
        assert encode_key(EncodedKey(key, scope)) == EncodedKey(key, scope)
        assert EncodedKey(EncodedKey(key, scope)) == EncodedKey(key, scope)
        assert EncodedKey(key, None) == EncodedKey(key) == encode_key(key)


def test_the_longest_key_stays_itself_behind_a_scope() -> None:
    longest = "k" * 4095
    for scopes in range(1, 4):
        encoded = EncodedKey(longest)
        for _ in range(scopes):
            encoded = EncodedKey(encoded, new_scope())
        assert encode_key(encoded) == encoded
        assert encoded.endswith(longest.encode())


def test_one_key_in_several_scopes_is_several_keys() -> None:
    with Cache() as cache:
        scopes = [None, *(new_scope() for _ in range(20))]
        for key in KEYS:
            for number, scope in enumerate(scopes):
                cache.set(EncodedKey(key, scope), number)
        for key in KEYS:
            assert [cache[EncodedKey(key, scope)] for scope in scopes] == list(range(21))
        assert len(cache) == 21 * len(KEYS)


def test_a_walk_gives_the_keys_of_one_scope() -> None:
    with Cache() as cache:
        one, other = new_scope(), new_scope()
        for number in range(1000):
            cache[f"own {number}"] = b""
            cache[EncodedKey(f"one {number}", one)] = b""
            cache[EncodedKey(EncodedKey(f"cell {number}", other), one)] = b""
        cache[EncodedKey("k" * 9000, one)] = b""
        assert sorted(cache) == sorted(walk(cache, None)) == sorted(f"own {number}" for number in range(1000))
        assert sorted(walk(cache, one)) == sorted(f"one {number}" for number in range(1000))
        assert walk(cache, other) == []


def test_a_scope_is_eight_bytes() -> None:
    for scope in (b"", b"1234567", b"123456789"):
        with pytest.raises(ValueError, match="scope must be 8 bytes, as"):
            EncodedKey("key", scope)
    with pytest.raises(TypeError, match="scope must be bytes that"):
        EncodedKey("key", 17)  # type: ignore[arg-type]
    with Cache() as cache, pytest.raises(ValueError, match="scope must be 8 bytes"):
        cache._walk(0, b"1")


def test_no_scope_comes_twice_also_in_a_forked_child() -> None:
    before = {new_scope() for _ in range(1000)}
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write_end, b"".join(new_scope() for _ in range(400)))
        os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        sent = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    in_child = {sent[at : at + 8] for at in range(0, len(sent), 8)}
    after = {new_scope() for _ in range(1000)}
    assert (len(before), len(in_child), len(after)) == (1000, 400, 1000)
    assert len(before | in_child | after) == 2400
