"""pyright says of check_decorator.py what mypy says: no error without a mark, and no mark without an error."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKED = Path(__file__).with_name("check_decorator.py")


def test_pyright_agrees(tmp_path: Path) -> None:
    pyright = shutil.which("pyright", path=f"{Path(sys.executable).parent}") or shutil.which("pyright")
    if pyright is None:
        pytest.skip("pyright is not installed (pip install pyright; it needs Node.js)")
    settings = {
        "include": [CHECKED.name],
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": "error",
        "reportUnusedCoroutine": "none",
    }
    shutil.copy(CHECKED, tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [pyright, "--project", str(tmp_path), "--pythonpath", sys.executable, "--outputjson"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    try:
        report = json.loads(run.stdout)
    except json.JSONDecodeError:
        pytest.skip(f"pyright does not run here: {run.stderr[-300:] or run.stdout[-300:]}")
    found = [
        f"line {finding['range']['start']['line'] + 1}: {finding['message']}"
        for finding in report["generalDiagnostics"]
        if finding["severity"] == "error"
    ]
    assert report["summary"]["filesAnalyzed"] == 1
    assert found == []
