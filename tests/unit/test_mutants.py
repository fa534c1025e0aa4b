"""The faults of tools/mutants.toml, without a run: each can be put in still, and docs/mutants.md lists them all."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

TOP = Path(__file__).parents[2]
TOOL = TOP / "tools" / "mutants.py"


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mutants", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["mutants"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


mutants = load()
FAULTS = mutants.read_faults()


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_the_fault_can_be_put_in_and_its_test_is_there(fault: object) -> None:
    source = (TOP / fault.file).read_text()  # type: ignore[attr-defined]
    assert fault.why_not(source) is None  # type: ignore[attr-defined]
    assert fault.would in mutants.HEADINGS  # type: ignore[attr-defined]
    test: str = fault.test  # type: ignore[attr-defined]
    if fault.is_c:  # type: ignore[attr-defined]
        name, _, case = test.partition(": ")
        assert re.search(rf"\bRUN\({case}\b", (TOP / f"csrc/tests/test_{name}.c").read_text())
    else:
        path, *_, case = test.split("::")
        assert f"def {case}(" in (TOP / path).read_text()


def test_no_fault_has_the_name_of_another() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)


def test_the_page_lists_each_fault() -> None:
    assert (TOP / "docs" / "mutants.md").read_text() == mutants.page(FAULTS), "make mutants writes docs/mutants.md"
