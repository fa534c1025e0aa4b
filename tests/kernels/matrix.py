"""Judges the rows of the kernel matrix and writes the table.

usage: matrix.py TABLE ROW_DIRECTORY...

A row directory holds what one boot left behind: `verdict` (the second serial port: see init.c), `console`, and `swap`
where the row had a swap disk (see search_swap.sh). Exits 1 if any row lacks its word, so silence is a failure.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

SUCCESS = "success"


@dataclass(frozen=True)
class Row:
    name: str
    kernel: str
    outcomes: dict[str, str]
    swap: list[str]
    ok: bool

    @classmethod
    def read(cls, directory: Path) -> Row:
        lines = cls._lines(directory / "verdict")
        swap = cls._lines(directory / "swap")
        outcomes = {}
        for line in lines:
            word, _, rest = line.partition(" ")
            if word in ("passed", "skipped", "failed"):
                outcomes[rest.split(" ")[0]] = word
        kernel = next((line.removeprefix("kernel ") for line in lines if line.startswith("kernel ")), "did not start")
        said = lines[-1:] == [SUCCESS]
        searched = not (directory / "swap").exists() or swap[-1:] == [SUCCESS]
        return cls(directory.name, kernel, outcomes, swap, said and searched)

    @staticmethod
    def _lines(path: Path) -> list[str]:
        if not path.exists():
            return []
        return path.read_text(errors="replace").replace("\r", "").splitlines()

    def count(self, word: str) -> int:
        return sum(outcome == word for outcome in self.outcomes.values())


def table(rows: list[Row]) -> str:
    tests = sorted({test for row in rows for test in row.outcomes})
    out = ["| row | kernel | passed | skipped | failed | |", "|---|---|---|---|---|---|"]
    for row in rows:
        counts = " | ".join(str(row.count(word)) for word in ("passed", "skipped", "failed"))
        out.append(f"| {row.name} | {row.kernel} | {counts} | {'success' if row.ok else '**no success**'} |")
    out += ["", "| test | " + " | ".join(row.name for row in rows) + " |", "|---" * (len(rows) + 1) + "|"]
    for test in tests:
        out.append(f"| {test} | " + " | ".join(row.outcomes.get(test, "-") for row in rows) + " |")
    for row in rows:
        if row.swap:
            out += ["", f"Swap disk of {row.name}, searched after the machine was off:", ""]
            out += [f"- {line}" for line in row.swap if line != SUCCESS]
    return "\n".join(out) + "\n"


def main(arguments: list[str]) -> int:
    rows = [Row.read(Path(argument)) for argument in arguments[1:]]
    text = table(rows)
    Path(arguments[0]).write_text(
        "# The kernel matrix\n\nWritten by `make -C tests/kernels docs`. Each row is one boot of a Debian kernel under "
        "QEMU;\n`-` means that the row did not run the test. Skips say their reason on the row's console.\n\n" + text
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
