"""Suites that others wrote, run from their published sources: each failure has its reason, as docs/suites.md says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TOP = Path(__file__).parents[2]


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tools_suites", TOP / "tools" / "suites.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


suites: Any = load_tool()


@pytest.mark.parametrize(
    "suite", [suite for suite in suites.SUITES if suite.of is suites.OWN], ids=lambda suite: suite.name
)
def test_each_failure_has_its_reason(suite: Any) -> None:
    try:
        result = suites.run(suite)
    except suites.CannotBeHadError as error:
        pytest.skip(str(error))
    assert not suites.find_faults(result)
    page = suites.OWN.page.read_text()
    if f"{suite.project} {suite.version()}," in page:  # the page may be of another Python
        assert suites.row(result) in page, "docs/suites.md is older than this: make suites"
