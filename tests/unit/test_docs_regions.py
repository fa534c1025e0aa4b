"""The examples of docs/regions.md run in their order, as the page says."""

import re
from pathlib import Path

import droppable

PAGE = Path(__file__).parents[2] / "docs" / "regions.md"
PROMISES = PAGE.with_name("promises.md")


def test_the_examples_run() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 6
    if droppable.lowlevel.page_size_bytes() != 4096:
        blocks = blocks[:1]  # the others spell pages of 4096 bytes out
    namespace: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), namespace)


def test_each_test_that_a_promise_names_is_there() -> None:
    text = PROMISES.read_text()
    names = {
        name
        for words in re.findall(r"`([^`]+)`", text)
        for name in re.findall(r"\b(test_\w+|a_\w+|absent_\w+)$", words)
    }
    assert len(names) > 15
    sources = "".join(
        path.read_text()
        for folder in ("tests/unit", "tests/pressure", "tests/property", "csrc/tests")
        for path in (PAGE.parents[1] / folder).iterdir()
        if path.suffix in {".py", ".c"}
    )
    for name in names:
        assert re.search(rf"\b{name}\(", sources), f"docs/promises.md names {name}, which is not there"
