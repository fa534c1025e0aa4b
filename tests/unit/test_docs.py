"""The examples of README and of the pages in docs/ run in their order, as the pages say; what a page names is there."""

import code
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import droppable

TOP = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "docs/cache.md",
    "docs/changes.md",
    "docs/chunked-arrays.md",
    "docs/faq.md",
    "docs/howto-code.md",
    "docs/howto-data.md",
    "docs/howto-web.md",
    "docs/index.md",
    "docs/metrics.md",
    "docs/migration.md",
    "docs/model.md",
    "docs/random.md",
    "docs/regions.md",
    "docs/replay.md",
    "docs/tiers.md",
    "docs/tutorial.md",
]

ALL_PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in TOP.glob("docs/*.md"))]
NO_CGROUP = 125  # the status of `droppable run`
COUNT = r"`(?:stats\(\)\.)?((?:misses|window|yielded|pinned|stored|mapped)_\w+)`"


def python_blocks(page: str) -> list[str]:
    blocks = re.findall(r"^```python\n(.*?)^```", (TOP / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    assert blocks
    return blocks


@pytest.mark.parametrize("page", PAGES)
def test_the_examples_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (TOP / page).read_text()
    blocks = python_blocks(page)
    if page == "docs/regions.md" and droppable.lowlevel.page_size_bytes() != 4096:
        blocks = blocks[:1]  # the others spell pages of 4096 bytes out
    if "numpy" in text:
        pytest.importorskip("numpy", reason="NumPy is not installed")
    if "import pandas" in text:
        pytest.importorskip("pandas", reason="pandas is not installed")
    if page == "docs/metrics.md":
        pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
        pytest.importorskip("opentelemetry.metrics", reason="opentelemetry-api is not installed")
    module = ModuleType("page_of_documentation")  # as a script, so that pickle finds the classes of the examples
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for block in blocks:
        exec(compile(block, page, "exec"), module.__dict__)


COMMANDS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in sorted(TOP.glob("docs/*.md"))
    for number, block in enumerate(re.findall(r"^```sh\n(.*?)^```", page.read_text(), flags=re.DOTALL | re.MULTILINE))
]


@pytest.mark.parametrize("commands", COMMANDS)
def test_the_commands_run(commands: str) -> None:
    folder = Path(sys.executable).parent
    if shutil.which("droppable", path=str(folder)) is None:
        pytest.skip(f"the command droppable is not in {folder}")
    environment = {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        ["sh", "-ec", commands], cwd=TOP, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    if ran.returncode == NO_CGROUP and "droppable run" in commands:
        pytest.skip(ran.stderr.strip().splitlines()[-1])
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout


class Typist(code.InteractiveConsole):
    """Python's prompt, whose errors are those of the test."""

    def showtraceback(self) -> None:
        raise

    def showsyntaxerror(self, filename: str | None = None, **more: object) -> None:
        raise


def test_the_tutorial_can_be_typed_at_the_prompt() -> None:
    pytest.importorskip("numpy", reason="NumPy is not installed")
    typist = Typist({"__name__": "__main__"})
    for block in python_blocks("docs/tutorial.md"):
        for line in [*block.splitlines(), ""]:
            is_incomplete = typist.push(line)
        assert not is_incomplete, f"the prompt waits for more after {block}"


def test_an_adapter_of_ones_own_keeps_the_contract(tmp_path: Path) -> None:
    text = (TOP / "docs" / "adapters.md").read_text().partition("## An adapter of your own")[2]
    adapter, tests = re.findall(r"^```python[^\n]*\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    (tmp_path / "mylibrary_droppable.py").write_text(adapter)
    (tmp_path / "test_backend.py").write_text(tests)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    chosen = "not here_and_there and not threads"  # those take seconds, and their subject is the cache
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", chosen, "test_backend.py"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stdout
    assert " passed" in ran.stdout


@pytest.mark.parametrize("page", ALL_PAGES)
def test_each_file_that_a_page_links_to_is_there(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", (TOP / page).read_text())
    files = [link for link in links if "://" not in link]
    missing = [link for link in files if not (TOP / page).parent.joinpath(link).exists()]
    assert not missing, f"{page} links to {missing}"


def test_the_reference_has_every_public_name() -> None:
    text = (TOP / "docs" / "reference.md").read_text()
    written = re.findall(r"^\.\. auto(?:class|function|exception|data):: (\w+)$", text, flags=re.MULTILINE)
    public = {
        name
        for name, thing in vars(droppable).items()
        if not name.startswith("_") and not isinstance(thing, ModuleType)
    }
    assert set(written) == public, "docs/reference.md lists each public name, by autoclass, autofunction, ..."
    assert len(written) == len(public), "docs/reference.md has a name twice"


def test_each_method_that_the_migration_page_names_is_there() -> None:
    rows = re.findall(r"^\|.*\|$", (TOP / "docs" / "migration.md").read_text(), flags=re.MULTILINE)
    ours = "".join(row.split("|")[-2] for row in rows)  # of each row, what stands for it here
    for owner, name in re.findall(r"\b(cache|f)\.(\w+)", ours):
        assert hasattr(droppable.Cache if owner == "cache" else droppable.Memo, name) or name == "__wrapped__"


@pytest.mark.parametrize("page", ["docs/cache.md", "docs/changes.md"])
def test_each_count_that_a_page_names_is_there(page: str) -> None:
    names = set(re.findall(COUNT, (TOP / page).read_text()))
    assert names
    assert names <= {*droppable.CacheStats.__slots__, "misses"}


def test_each_test_that_a_promise_names_is_there() -> None:
    text = (TOP / "docs" / "promises.md").read_text()
    names = {
        name
        for words in re.findall(r"`([^`]+)`", text)
        for name in re.findall(r"\b(test_\w+|a_\w+|absent_\w+)$", words)
    }
    assert len(names) > 15
    sources = "".join(
        path.read_text()
        for folder in ("tests/unit", "tests/pressure", "tests/property", "csrc/tests")
        for path in (TOP / folder).iterdir()
        if path.suffix in {".py", ".c"}
    )
    for name in names:
        assert re.search(rf"\b{name}\(", sources), f"docs/promises.md names {name}, which is not there"
