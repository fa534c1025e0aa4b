"""What `import droppable` gives is a promise: the names are frozen here, each documented and re-exported once."""

import ast
import importlib
import pydoc
import types
from collections import Counter
from pathlib import Path

import pytest

import droppable

# A new public name comes here with its tests in tests/typing; a name that goes is a breaking change.
EXPORTS = {
    "Backing",
    "Cache",
    "CacheInfo",
    "INSTANCE",
    "CacheStats",
    "ChunkedArray",
    "ChunkedArrayStats",
    "ClosedError",
    "Dropped",
    "DroppableError",
    "Feature",
    "Features",
    "Memo",
    "Namespace",
    "NEVER",
    "RefusedError",
    "Region",
    "RegionBlock",
    "RegionCensus",
    "Serializer",
    "SharedCache",
    "SharedCacheStats",
    "SharedNamespace",
    "TierStats",
    "UnpicklableError",
    "UnsupportedError",
    "ValueTooLargeError",
    "View",
    "cache",
    "caches",
    "connect",
    "features",
    "named",
    "register_reducer",
}
# Numbers, values and aliases of types, which have no docstring of their own
CONSTANTS = {"INSTANCE", "NEVER", "Backing"}
# Public modules, whether `import droppable` loads them or not
MODULES = {
    "adapters",
    "cli",
    "lowlevel",
    "metrics",
    "model",
    "random",
    "replay",
    "testing",
}
SOURCE = Path(__file__).parents[2] / "src" / "droppable" / "__init__.py"


def test_the_names_are_these() -> None:
    names = {name for name in vars(droppable) if name.isidentifier() and not name.startswith("_")}
    modules = {name for name in names if isinstance(getattr(droppable, name), types.ModuleType)}
    assert names - modules == EXPORTS == set(droppable.__all__)
    assert modules <= MODULES


def test_each_name_is_reexported_once() -> None:
    tree = ast.parse(SOURCE.read_text())
    aliases = [alias for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert all(alias.asname == alias.name for alias in aliases), "write `from x import Name as Name`"
    counts = Counter(alias.name for alias in aliases)
    assert all(count == 1 for count in counts.values())
    assert set(counts) >= EXPORTS


@pytest.mark.parametrize("name", ["droppable", *(f"droppable.{module}" for module in sorted(MODULES))])
def test_pydoc_shows_each_module(name: str) -> None:
    module = importlib.import_module(name)
    text = pydoc.render_doc(module, renderer=pydoc.plaintext)
    for public in vars(module).keys() & set(
        getattr(module, "__all__", ())
    ):  # others are loaded when they are asked for
        assert public in text, f"pydoc {name} does not show {public}"


def test_classes_say_their_module() -> None:
    assert droppable.Memo.__module__ == "droppable"
    assert all(isinstance(kind.__module__, str) for kind in vars(droppable.lowlevel).values() if isinstance(kind, type))

    class Shop:
        @droppable.cache(self_key=droppable.INSTANCE)
        def stock(self) -> int:
            return 1

    assert Shop().stock.__module__ == Shop.stock.__module__ == __name__


def test_the_face_holds_no_code() -> None:
    tree = ast.parse(SOURCE.read_text())
    assert isinstance(tree.body[0], ast.Expr), "the docstring comes first"
    for node in tree.body[1:]:
        for part in [*node.body, *node.orelse] if isinstance(node, ast.If) else [node]:
            is_export = isinstance(part, ast.ImportFrom | ast.Import | ast.Assign | ast.AnnAssign)
            assert is_export, f"line {part.lineno}: only re-exports"


def is_documentable(member: object) -> bool:
    return callable(member) or isinstance(member, property | types.GetSetDescriptorType)


@pytest.mark.parametrize("name", sorted(EXPORTS - CONSTANTS))
def test_each_name_is_documented(name: str) -> None:
    thing = getattr(droppable, name)
    members = vars(thing).items() if isinstance(thing, type) else ()
    public = {key: member for key, member in members if not key.startswith("_") and is_documentable(member)}
    for key, member in {name: thing, **public}.items():
        assert (member.__doc__ or "").strip(), f"{key} has no docstring"


def test_help_tells_what_each_count_means() -> None:
    text = droppable.CacheStats.__doc__ or ""
    for name in droppable.CacheStats.__slots__:
        assert f"        {name}: " in text, name
