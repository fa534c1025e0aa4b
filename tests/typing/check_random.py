"""Types a user may rely on, checked by mypy --strict and never run: droppable.random."""

import random
import uuid
from typing import assert_type

import droppable
from droppable import random as secrets


def the_names_of_secrets() -> None:
    assert_type(secrets.token_bytes(), bytes)
    assert_type(secrets.token_bytes(16), bytes)
    assert_type(secrets.token_hex(nbytes=16), str)
    assert_type(secrets.token_urlsafe(None), str)
    assert_type(secrets.randbelow(10), int)
    assert_type(secrets.randbits(10), int)
    assert_type(secrets.choice(["a", "b"]), str)
    assert_type(secrets.compare_digest(b"a", b"b"), bool)


def what_secrets_has_not() -> None:
    assert_type(droppable.random.random(), float)
    assert_type(droppable.random.uniform(0, 1), float)
    assert_type(droppable.random.randbytes(3), bytes)
    assert_type(droppable.random.uuid4(), uuid.UUID)
    droppable.random.fill(bytearray(10))
    droppable.random.shuffle([1, 2])
    assert_type(droppable.random.source().vdso, bool)


def a_system_random_is_a_random() -> None:
    system: random.Random = droppable.random.SystemRandom()
    assert_type(system.random(), float)
    assert_type(droppable.random.SystemRandom().getrandbits(3), int)
    assert_type(droppable.random.SystemRandom().sample(range(3), 2), list[int])
