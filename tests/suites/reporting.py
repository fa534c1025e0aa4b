"""What a worker tells of the tests that it runs: a line of JSON for each, at once."""

import json
import re
import sys
from typing import Any


def tell(test: str, outcome: str, error: str = "") -> None:
    record = {"test": test, "outcome": outcome, **({"error": error} if error else {})}
    assert sys.__stdout__ is not None
    sys.__stdout__.write(json.dumps(record) + "\n")  # at once: threads write too
    sys.__stdout__.flush()


class Reporter:
    """Tells of each test, as a plugin of pytest."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[str, str]] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        name = report.nodeid.split("::", 1)[-1]
        said = getattr(getattr(report.longrepr, "reprcrash", None), "message", str(report.longrepr))
        words = " ".join(str(said).split())[:200]
        if report.failed:
            self._told[name] = ("failed", words)
        elif report.skipped:
            self._told.setdefault(name, ("skipped", re.sub(r"^\(.*?, \d+, '(.*)'\)$", r"\1", words)))
        elif report.when == "call":
            self._told.setdefault(name, ("passed", ""))
        if report.when == "teardown":
            tell(name, *self._told[name])
