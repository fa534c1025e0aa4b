"""The walls of the code: the tree against the map in CONTRIBUTING.md, and the source checks that keep the layers."""

import ast
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "droppable"
SUFFIXES = {".c", ".h", ".py", ".pyi"}
MAPPED_FOLDERS = ("csrc", "binding", "src/droppable")
MAX_LINES = {".c": 800, ".h": 150, ".py": 400}
MAX_INIT_LINES = 60


@dataclass(frozen=True)
class Row:
    """One row of the map: the files of one noun."""

    line: int
    step: int
    patterns: tuple[str, ...]

    def files(self) -> list[Path]:
        return sorted(path for pattern in self.patterns for path in ROOT.glob(pattern))


def read_map() -> list[Row]:
    rows = []
    for number, line in enumerate((ROOT / "CONTRIBUTING.md").read_text().splitlines(), start=1):
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 3 and cells[1].isdigit():
            rows.append(Row(number, int(cells[1]), tuple(re.findall(r"`([^`]+)`", cells[2]))))
    return rows


ROWS = read_map()


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*") if path.suffix in SUFFIXES)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def row_of(path: Path) -> Row | None:
    return next((row for row in ROWS if path in row.files()), None)


def c_imports(path: Path) -> list[Path]:
    """The project's own files that a C file includes: beside it, in csrc/, or in csrc/include/."""
    found = []
    for name in re.findall(r'^\s*#\s*include\s*"([^"]+)"', path.read_text(), flags=re.MULTILINE):
        places = (path.parent / name, ROOT / "csrc" / name, ROOT / "csrc" / "include" / name)
        found.append(next((place.resolve() for place in places if place.exists()), path.parent / name))
    return found


def module_file(dotted: str) -> Path | None:
    """The file of a module of the package, or None where there is none of this name."""
    base = ROOT / "src" / Path(*dotted.split("."))
    candidates = (base.with_suffix(".py"), base / "__init__.py", base.with_suffix(".pyi"))
    return next((path for path in candidates if path.exists()), None)


def python_imports(path: Path) -> list[Path]:
    """The project's own modules that a Python file imports, wherever in the file it does so.

    What only type checkers read in the face loads nothing: it tells them of modules that are loaded when asked for.
    """
    package = ("droppable", *path.relative_to(PACKAGE).parts[:-1])
    names = []
    tree = ast.parse(path.read_text())
    if path == PACKAGE / "__init__.py":
        tree.body = [part for node in tree.body for part in (node.orelse if isinstance(node, ast.If) else [node])]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [(alias.name, None) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            dotted = ".".join(base + (node.module.split(".") if node.module else []))
            names += [(dotted, alias.name) for alias in node.names]
    found = []
    for dotted, attribute in names:
        if dotted.split(".")[0] == "droppable":
            # `from droppable import lowlevel` names a module, `from droppable import Cache` an attribute
            file = (attribute and module_file(f"{dotted}.{attribute}")) or module_file(dotted)
            assert file, f"{relative(path)} imports {dotted}, which is not there"
            found.append(file)
    return found


@pytest.mark.parametrize("path", sources(*MAPPED_FOLDERS), ids=relative)
def test_each_file_is_in_one_row(path: Path) -> None:
    lines = [row.line for row in ROWS if path in row.files()]
    assert lines, f"add {relative(path)} to the map in CONTRIBUTING.md: which noun, which step?"
    assert len(lines) == 1, f"{relative(path)} is in CONTRIBUTING.md more than once: lines {lines}"


def test_each_pattern_of_the_map_names_files() -> None:
    assert ROWS
    for row in ROWS:
        assert row.patterns, f"CONTRIBUTING.md:{row.line}: no file in back quotes"
        for pattern in row.patterns:
            assert list(ROOT.glob(pattern)), f"CONTRIBUTING.md:{row.line}: {pattern} names no file"


@pytest.mark.parametrize("path", sources(*MAPPED_FOLDERS), ids=relative)
def test_imports_go_to_lower_steps(path: Path) -> None:
    row = row_of(path)
    if row is None:
        pytest.fail(f"{relative(path)} is not in the map of CONTRIBUTING.md")
    for target in c_imports(path) if path.suffix in {".c", ".h"} else python_imports(path):
        other = row_of(target)
        assert other, f"{relative(path)} imports {target}, which is not in the map"
        assert other == row or other.step < row.step, (
            f"{relative(path)} (step {row.step}) imports {relative(target)} (step {other.step})"
        )


FLOORS = {
    "os": (),
    "log": ("os",),
    "store": ("os", "log"),
    "region": ("os", "log"),
    "random": ("os", "log"),
    "policy": ("os", "log", "store"),
    "cache": ("os", "log", "store", "policy"),
    "client": ("os", "log", "store", "policy", "cache"),
}
"""The folders of the core, and what each may know of."""


def test_a_file_of_the_core_includes_its_own_floor_and_those_below() -> None:
    wrong = set()
    for path in sources(*(f"csrc/{floor}" for floor in FLOORS)):
        floor = path.parent.name
        for target in c_imports(path):
            other = target.parent.name
            if other in FLOORS and other != floor and other not in FLOORS[floor]:
                wrong.add((f"{floor}/{path.name}", f"{other}/{target.name}"))
    assert wrong == set()


def test_a_function_of_the_core_calls_its_own_floor_and_those_below() -> None:
    objects = sorted((ROOT / "build" / "core" / "csrc" / "libdroppable_core.a.p").glob("*.c.o"))
    if not objects or shutil.which("nm") is None:
        pytest.skip("there are no objects to read, or no nm: make c-test-core builds them")
    defined: dict[str, str] = {}
    wanted: dict[str, set[str]] = {}
    for built in objects:
        file = built.name.removesuffix(".c.o").replace("_", "/", 1)
        if not (ROOT / "csrc" / f"{file}.c").exists():
            continue  # of an older tree
        symbols = subprocess.run(["nm", built], capture_output=True, text=True, check=True).stdout
        found = [line.split()[-2:] for line in symbols.splitlines()]
        wanted[file] = {name for kind, name in found if kind == "U"}
        defined |= {name: file for kind, name in found if kind in "TDBR"}
    wrong = set()
    for file, names in wanted.items():
        floor = file.split("/")[0]
        for name in names & defined.keys():
            other = defined[name].split("/")[0]
            if other != floor and other not in FLOORS[floor]:
                wrong.add((file, name))
    assert wrong == set()


@pytest.mark.parametrize("path", sources(*MAPPED_FOLDERS), ids=relative)
def test_files_are_small(path: Path) -> None:
    limit = MAX_INIT_LINES if path.name == "__init__.py" else MAX_LINES.get(path.suffix)
    if limit is not None and "tests" not in path.parts:
        assert len(path.read_text().splitlines()) < limit


def files_with(pattern: str, *folders: str) -> set[str]:
    """The files whose code, comments left out, has the pattern. Tests of the C core may do what they like."""
    found = set()
    for path in sources(*folders):
        if path.is_relative_to(ROOT / "csrc" / "tests"):
            continue
        text = path.read_text()
        if path.suffix in {".c", ".h"}:
            text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
        if re.search(pattern, text):
            found.add(relative(path))
    return found


def test_only_the_binding_names_python_h() -> None:
    assert all(name.startswith("binding/") for name in files_with(r"Python\.h", "csrc", "binding"))


def test_only_prim_linux_maps_memory() -> None:
    assert files_with(r"\b(mmap|munmap|mremap|madvise|ioctl)\s*\(", "csrc", "binding") == {
        "csrc/os/prim_linux.c",
        "csrc/os/prim_linux_self.c",
        "csrc/os/prim_linux_track.c",
    }


def test_no_status_of_the_system_is_thrown_away() -> None:
    """Of a call of prim.h that can fail the status is looked at, or given to prim_best_effort() with the reason."""
    headers = "".join(path.read_text() for path in (ROOT / "csrc" / "os").glob("prim*.h"))
    calls = "|".join(sorted(set(re.findall(r"^int (prim_\w+)\(", headers, flags=re.MULTILINE))))
    assert "prim_unmap" in calls
    thrown = re.compile(
        rf"^[ \t]*(?:\(void\)[ \t]*)?(?:{calls})\([^;=\n]*\);|\(void\)[ \t]*(?:{calls})\(", re.MULTILINE
    )
    found = [
        f"{relative(path)}: {match.group().strip()}"
        for path in sources("csrc", "binding")
        if "tests" not in path.parts
        for match in thrown.finditer(path.read_text())
    ]
    assert not found


RESULTS_THAT_NOBODY_NEEDS = {
    "arena_trim_whole": "whether there was something to give up",
    "atomic_load_explicit": "the page is touched",
    "change": "the cursor says whether the page is lost",
    "copy_clear": "tp_clear, which is 0",
    "cut": "how many were cut",
    "memo_clear": "tp_clear, which is 0",
    "small_segment": "the entry is touched, so that it is near when it is needed",
    "step": "how many were given back",
    "strsep": "a field that is not needed",
}
"""Functions that are called with (void) in front. None of them can fail."""


def test_no_failure_is_thrown_away() -> None:
    """A status goes to who can act on it, or to prim_best_effort() with the reason."""
    found = set()
    for path in sources("csrc", "binding"):
        if "tests" not in path.parts:
            found |= set(re.findall(r"\(void\)\s*(\w+)\(", without_comments(path.read_text()))) - {"sizeof"}
    assert found == set(RESULTS_THAT_NOBODY_NEEDS)


LOCKS_THAT_ARE_TAKEN_ONCE = {
    "src/droppable/_connect/wire.py": "its replies come in order, so it refuses a call of the thread that has it",
    "src/droppable/_flight/table.py": "it is one waiter's, who is woken by its release",
}


def test_whoever_has_a_lock_may_come_again() -> None:
    """A signal handler or a finaliser runs amid any call, and may make it again: with a plain Lock it never returns."""
    found = {relative(path) for path in sources("src") if "threading.Lock()" in path.read_text()}
    assert found == set(LOCKS_THAT_ARE_TAKEN_ONCE)


C_FUNCTION = re.compile(r"^(?:static )?[\w *]+?\b(\w+)\([^;{]*\)\n\{\n(.*?)^\}", re.MULTILINE | re.DOTALL)


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)


def untold_writes(text: str) -> list[str]:
    """The functions of index.c that write slots, or give pages of them back, and do not tell readers meanwhile."""
    found = []
    for name, body in C_FUNCTION.findall(without_comments(text)):
        telling = 0
        for call in re.findall(r"\b(begin_change|end_change|hide_directory|store|prim_purge)\(", body):
            if call in {"begin_change", "end_change"}:
                telling += 1 if call == "begin_change" else -1
            elif call == "hide_directory":
                telling += 1  # until it is told again, which index_clear() does at its end
            elif telling == 0:
                found.append(name)
        if telling != (1 if name == "index_clear" else 0):
            found.append(name)
    return found


def test_who_writes_slots_of_the_index_tells_readers_in_other_processes() -> None:
    """log/board.h: they go by counts that are odd while slots are written. put() is the usual way."""
    text = (ROOT / "csrc" / "store" / "index.c").read_text()
    assert untold_writes(text) == ["index_publish"]  # which hides the directory of an index that is empty still
    assert untold_writes(text.replace("put(index, number, slot,", "store(slot,")) == ["index_publish", "index_insert"]
    assert untold_writes(text.replace("	hide_directory(index);\n	doom", "	doom")) == ["index_publish"] + 2 * [
        "index_clear"
    ]
    # store() is the one that writes: rehome() fills pages under construction, which nobody knows of yet
    writers = [name for name, body in C_FUNCTION.findall(without_comments(text)) if SLOT_WRITTEN.search(body)]
    assert writers == ["store", "rehome"]
    assert len(re.findall(r"atomic_store_explicit\(\(_Atomic uint64_t \*\)", text)) == 1


SLOT_WRITTEN = re.compile(
    r"^\s*\*\(?(?:slot|(?:\w+(?:->|\.))+(?:slot|vacant|alike|bucket))\)? [|&^]?= |"
    r"^\s*(?:\w+(?:->|\.))*(?:slot|vacant|alike|bucket|page|old)\[[^\]\n]*\] [|&^]?= |"
    r"\b(?:atomic_(?:store|exchange|fetch|compare)\w*|memset|memcpy|memmove)\([^;,]*\b(?:slot|vacant|alike|bucket)\b",
    re.MULTILINE,
)
"""A slot, by the names that pointers to slots have, is written."""


def test_nobody_but_index_c_writes_slots_of_the_index() -> None:
    """Others have pointers to them in cursors and looks, to read them and to hand them to index.h's calls."""
    knowing = set()
    for path in sources("csrc/store", "csrc/policy", "csrc/cache", "csrc/client"):
        text = without_comments(path.read_text())
        knowing |= {relative(path)} if "index_page_address(" in text else set()
        assert path.name == "index.c" or not SLOT_WRITTEN.search(text), relative(path)
    assert knowing == {"csrc/store/index.c", "csrc/store/index_search.h", "csrc/store/index_home.h"}
    for written in (
        "	*cursor->slot = 0;",
        "	atomic_store(home->vacant, 1);",
        "	home.bucket[3] |= INDEX_HOT_BIT;",
    ):
        assert SLOT_WRITTEN.search(written)
