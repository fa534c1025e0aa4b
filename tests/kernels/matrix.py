"""Judges the rows of the kernel matrix and writes the table.

usage: matrix.py TABLE ROW_DIRECTORY...

A row directory holds what one boot left behind: `verdict` (the second serial port: see init.c), `console`, and `swap`
where the row had a swap disk (see search_swap.sh). Only the verdict decides: exits 1 if any row lacks its word, so
silence is a failure. The console tells the cases of each test, as TAP or by pytest's closing line.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten

SUCCESS = "success"
TAP_CASE = re.compile(r"(not )?ok \d+ - ([^#]*?)\s*(?:# SKIP (.*))?$")
PYTEST_END = re.compile(r"=+ (.*) in [\d.]+s.*=+$")
PYTEST_SKIP = re.compile(r"SKIPPED \[(\d+)\] \S+ (.*)$")
SECONDS = re.compile(r".* (\d+)s$")
REASON_LENGTH = 120


@dataclass(frozen=True)
class Test:
    """What one executable did in one row."""

    outcome: str
    passed: int
    failed: int
    skips: Counter[str]

    def cell(self) -> str:
        skipped = self.skips.total()
        if self.outcome != "passed" or self.passed + self.failed + skipped == 0:
            return f"**{self.outcome}**" if self.outcome == "failed" else self.outcome
        return f"{self.passed} passed" + (f", {skipped} skipped" if skipped else "")


@dataclass(frozen=True)
class Row:
    name: str
    kernel: str
    tests: dict[str, Test]
    swap: list[str]
    seconds: int
    """what the tests took, by the guest's clock; its boot takes half a minute at most"""
    ok: bool

    @classmethod
    def read(cls, directory: Path) -> Row:
        verdict, console, swap = (_lines(directory / name) for name in ("verdict", "console", "swap"))
        tests = {}
        seconds = 0
        for line in verdict:
            word, _, rest = line.partition(" ")
            name = rest.split(" ")[0]
            if word in ("passed", "skipped", "failed") and rest:
                tests[name] = _test(word, console, name)
                seconds += int(took[1]) if (took := SECONDS.match(rest)) else 0
        kernel = next((line.removeprefix("kernel ") for line in verdict if line.startswith("kernel ")), "did not start")
        searched = not (directory / "swap").exists() or swap[-1:] == [SUCCESS]
        return cls(directory.name, kernel, tests, swap, seconds, verdict[-1:] == [SUCCESS] and searched)

    def count(self, word: str) -> int:
        if word == "skipped":
            return sum(test.skips.total() for test in self.tests.values())
        return sum(test.passed if word == "passed" else test.failed for test in self.tests.values())

    def skips(self) -> Counter[str]:
        return sum((test.skips for test in self.tests.values()), Counter())


def _lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [line.rstrip() for line in path.read_text(errors="replace").replace("\r", "").split("\n") if line.rstrip()]


def _test(outcome: str, console: list[str], name: str) -> Test:
    start = f"init: run {name}"
    own = console[console.index(start) + 1 :] if start in console else []
    passed = failed = 0
    skips: Counter[str] = Counter()
    for line in own:
        if line.startswith("init: "):
            break
        if case := TAP_CASE.match(line):
            passed += not case[1] and not case[3]
            failed += bool(case[1])
            if case[3]:
                skips[case[3]] += 1
        elif skip := PYTEST_SKIP.match(line):
            skips[shorten(skip[2], REASON_LENGTH, placeholder=" ...")] += int(skip[1])
        elif end := PYTEST_END.match(line):
            counts = dict(reversed(part.split(" ", 1)) for part in end[1].split(", "))
            passed, failed = int(counts.get("passed", 0)), int(counts.get("failed", 0))
    return Test(outcome, passed, failed, skips)


def table(rows: list[Row]) -> str:
    out = ["| row | kernel | cases passed | skipped | failed | minutes | |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        counts = " | ".join(str(row.count(word)) for word in ("passed", "skipped", "failed"))
        word = "success" if row.ok else "**no success**"
        out.append(f"| {row.name} | {row.kernel} | {counts} | {row.seconds / 60:.1f} | {word} |")
    out += ["", "| test | " + " | ".join(row.name for row in rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for name in sorted({name for row in rows for name in row.tests}):
        cells = (row.tests[name].cell() if name in row.tests else "-" for row in rows)
        out.append(f"| {name} | " + " | ".join(cells) + " |")
    out += ["", "What was skipped, and why:", ""]
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for reason, count in row.skips().items():
            reasons.setdefault(reason, []).append(f"{row.name} ({count})")
    out += [f"- {reason}: {', '.join(where)}" for reason, where in sorted(reasons.items())]
    for row in rows:
        if row.swap:
            out += ["", f"Swap disk of {row.name}, searched after the machine was off:", ""]
            out += [f"- {line}" for line in row.swap if line != SUCCESS]
    return "\n".join(out) + "\n"


def main(arguments: list[str]) -> int:
    rows = [Row.read(Path(argument)) for argument in arguments[1:]]
    text = table(rows)
    minutes = sum(row.seconds for row in rows) / 60
    Path(arguments[0]).write_text(
        "# The kernel matrix\n\nWritten by `make -C tests/kernels docs`. Each row is one boot of a Debian kernel under "
        "QEMU, in software emulation;\n`-` means that the row did not run the test. Minutes are those of the tests, by "
        f"the guest's clock: {minutes:.0f} in all,\ntwo boots at a time.\n\n" + text
    )
    print(text)
    for row in rows:
        if not row.ok:
            console = Path(arguments[1]).parent / row.name / "console"
            print(f"row {row.name}: no word of success; its console ends in {console}")
    good = sum(row.ok for row in rows)
    print(f"{good} passed, {len(rows) - good} failed")
    return 0 if good == len(rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
