"""The models hold what they claim in small configurations, and each seeded bug is found. `make models` does more."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from . import suite
from .machine import Code, Model, Op, Order, PageKind, check, claim, do, fence, load, lock, mark, store, unlock, wait

TOP = Path(__file__).parents[2]
PAGE = TOP / "docs" / "models.md"
MODELS = list(suite.small())
SEEDED = list(suite.seeded())
SLOW_STATES = 100_000  # none of these models has so many


@pytest.mark.parametrize("model", MODELS, ids=[model.name for model in MODELS])
def test_the_protocol_holds(model: Model) -> None:
    result = check(model, SLOW_STATES)
    assert not result.wrong, "\n".join([result.wrong, *result.trace])
    assert result.states > 1000


@pytest.mark.parametrize("seeded", SEEDED, ids=[f"{each.protocol}-{each.bug}" for each in SEEDED])
def test_the_seeded_bug_is_found(seeded: suite.Seeded) -> None:
    result = check(seeded.model, SLOW_STATES)
    assert result.wrong
    assert result.trace


def test_the_page_names_each_seeded_bug_and_what_it_is() -> None:
    text = PAGE.read_text()
    missing = [each.what for each in SEEDED if f"| {each.what} |" not in text]
    assert not missing, f"docs/models.md lacks {missing}"


@pytest.mark.parametrize("seeded", SEEDED, ids=[f"{each.protocol}-{each.bug}" for each in SEEDED])
def test_each_function_that_a_bug_is_seeded_in_is_in_the_core(seeded: suite.Seeded) -> None:
    source = "".join(path.read_text() for path in (TOP / "csrc").rglob("*.[ch]") if "tests" not in path.parts)
    names = re.findall(r"(\w+)\(\)", seeded.what)
    missing = [name for name in names if not re.search(rf"\b{name}\(", source)]
    assert not missing, f"tests/models/{seeded.protocol}.py names {missing}"


# The checker itself, on programs whose outcomes are known


def is_torn(order: Order, first: list[Op], second: list[Op], **bounds: int) -> bool:
    """A message: can the second thread see the flag without the data?"""

    def writer() -> Code:
        yield from first

    def reader() -> Code:
        seen = []
        for op in second:
            seen.append((yield op))
        values = [each for each in seen if each is not None]
        yield claim(values != [1, 0], "the flag without the data")

    pages = [PageKind("data", "plain", (0,)), PageKind("flag", "plain", (0,))]
    model = Model("message", pages, {"writer": [writer], "reader": [reader]}, order=order, **bounds)  # type: ignore[arg-type]
    return bool(check(model).wrong)


@pytest.mark.parametrize("order", Order)
def test_a_message_needs_both_fences(order: Order) -> None:
    data, flag = store("data", 0, 1), store("flag", 0, 1)
    released, acquired = [data, fence("release"), flag], [load("flag"), fence("acquire"), load("data")]
    assert not is_torn(order, released, acquired)
    assert is_torn(order, [data, flag], acquired)
    assert is_torn(order, released, [load("flag"), load("data")])
    assert not is_torn(order, [data, store("flag", 0, 1, "release")], [load("flag", 0, "acquire"), load("data")])
    assert not is_torn(order, [data, flag], [load("flag"), load("data")], waiting=0, early=0)


@pytest.mark.parametrize(
    "kind, is_marked, may_go", [("lazyfree", False, False), ("lazyfree", True, True), ("droppable", False, True)]
)
def test_what_is_written_goes_as_its_backing_allows(kind: str, is_marked: bool, may_go: bool) -> None:
    def program() -> Code:
        yield store("page", 0, 1)
        yield fence("full")
        if is_marked:
            yield mark("page")
        yield claim((yield load("page")) == 1, "it is gone")

    model = Model("backing", [PageKind("page", kind, (0,))], {"program": [program]}, drops=1)
    assert bool(check(model).wrong) == may_go


def test_who_is_never_told_hangs() -> None:
    def program() -> Code:
        yield lock()
        yield do(lambda shared: (shared, None))
        yield wait()
        yield unlock()

    result = check(Model("hang", [], {"program": [program]}, drops=0))
    assert result.wrong == "nobody can go on: a hang"
    assert result.trace[-1] == "  program: program waits to be told"


def test_a_call_that_goes_on_for_ever_is_found() -> None:
    def program() -> Code:
        while (yield load("flag")) == 0:
            pass

    result = check(Model("spin", [PageKind("flag", "plain", (0,))], {"program": [program]}, drops=0, early=0))
    assert result.wrong == "program does not end"
