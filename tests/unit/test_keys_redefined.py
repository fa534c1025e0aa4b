"""Functions and classes that are defined anew under the same name, as cells of a notebook are run again."""

import gc
import os
import pickle
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest

import droppable
from droppable import Cache
from droppable.lowlevel import EncodedKey


@pytest.fixture
def module() -> Iterator[Any]:
    made = types.ModuleType("keys_redefined")
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def define(module: Any, text: str) -> None:
    exec(text, vars(module))


def test_a_function_that_is_defined_anew_is_another_argument(module: Any) -> None:
    @droppable.cache
    def apply(function: Any, number: int) -> int:
        return int(function(number))

    for addend in (1, 2, 1):
        define(module, f"def add(number): return number + {addend}")
        for _ in range(2):
            assert apply(module.add, 1) == 1 + addend
    assert apply.cache_info()[:2] == (3, 3)


def test_code_that_is_replaced_in_place_is_another_one(module: Any) -> None:
    """As `%autoreload` of IPython does."""
    define(module, "def one(): return 1\ndef two(): return 2")
    first = EncodedKey(module.one)
    module.one.__code__ = module.two.__code__
    assert EncodedKey(module.one) != first


def test_classes_and_what_is_made_of_them(module: Any) -> None:
    text = "class Point:\n    def __init__(self, x): self.x = x\n"
    define(module, text)
    old_class, old = module.Point, module.Point(1)
    kept = [EncodedKey(module.Point), EncodedKey(old), EncodedKey((1, old))]
    assert kept == [EncodedKey(module.Point), EncodedKey(module.Point(1)), EncodedKey((1, module.Point(1)))]
    define(module, text)
    new = [EncodedKey(module.Point), EncodedKey(module.Point(1)), EncodedKey((1, module.Point(1)))]
    assert all(one != other for one, other in zip(kept, new, strict=True))
    with pytest.raises(droppable.UnpicklableError, match="another object by now"):
        EncodedKey(old)
    module.Point = old_class  # the first one again: at worst a miss
    assert EncodedKey(old) not in new
    del old_class, old
    gc.collect()
    define(module, text)
    assert EncodedKey(module.Point(1)) not in [*kept, *new]


def test_an_iteration_leaves_out_keys_of_what_was_defined_before(module: Any) -> None:
    cache: Any = Cache()
    define(module, "class Name: pass")
    cache[module.Name] = 1
    assert list(cache) == [module.Name]
    define(module, "class Name: pass")
    cache[module.Name] = 2
    assert list(cache) == [module.Name]
    assert cache[module.Name] == 2
    cache.close()


def test_what_was_never_defined_anew_keeps_its_key_in_other_processes(module: Any) -> None:
    """Caches of a server are read by processes that have defined a class once, each for itself."""
    define(module, "class Once: pass")
    key = bytes(EncodedKey(module.Once))
    assert key.endswith(b"keys_redefined:Once")
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(write, pickle.dumps(bytes(EncodedKey(module.Once)) == key))
        os._exit(0)
    os.waitpid(pid, 0)
    assert pickle.loads(os.read(read, 100))
    os.close(read)
    os.close(write)
