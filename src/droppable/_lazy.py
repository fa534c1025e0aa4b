"""What `import droppable` does not load until somebody asks: its modules, and its version.

`droppable.testing.drop(cache)` and `droppable.random.token_bytes()` work without a second import.
"""

from __future__ import annotations

import sys
from typing import Any, Final

_MODULES: Final = frozenset({"metrics", "model", "random", "replay", "testing"})
_NAMES: Final = frozenset({*_MODULES, "__version__"})


def __getattr__(name: str) -> Any:  # the package's own
    if name in _MODULES:
        from importlib import import_module

        return import_module(f"droppable.{name}")  # which makes it an attribute of the package
    if name == "__version__":
        from importlib.metadata import version  # which takes as long as all the rest

        return version("droppable")
    raise AttributeError(f"module 'droppable' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(_NAMES.union(vars(sys.modules["droppable"])))
