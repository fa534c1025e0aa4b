"""Which lines and branches of the C sources the tests run, as docs/coverage.md. `make coverage` calls it.

    python tools/coverage.py FOLDER ...      each folder has the counts of one build

gcovr reads the counts. The same file is compiled more than once: for tests on the double of the kernel, for those on
the kernel, and for Python, each with other macros. A line counts as run when one of them ran it. Its branches are those
of one build, and a branch counts as taken when a build in which the line has as many branches took it.

Of what was not run, tools/coverage.toml says why. It has groups, each with a reason and with patterns: of files, of
functions, and of the text of lines. The first group that fits is the line's.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
REASONS = ROOT / "tools" / "coverage.toml"
PAGE = ROOT / "docs" / "coverage.md"
LISTED = ROOT / "build" / "coverage.txt"
GOAL_LINES, GOAL_BRANCHES = 95.0, 85.0
NOT_BRANCHES = r".*\b(DRP_ASSERT|Py_VISIT|Py_CLEAR|Py_RETURN_\w+)\b"
"""Lines whose branches belong to a macro: an assertion that never fails, and what Python's own macros ask."""


@dataclass
class Line:
    """One line of the source that has code. branches: for each number of them in a build, how often each was taken."""

    function: str
    count: int = 0
    branches: dict[int, list[int]] = field(default_factory=dict)

    def add(self, count: int, branches: Sequence[int]) -> None:
        self.count += count
        if branches:
            old = self.branches.get(len(branches), [0] * len(branches))
            self.branches[len(branches)] = [a + b for a, b in zip(old, branches, strict=True)]

    def taken(self) -> tuple[int, int]:
        """Branches that were taken, and all of them, in the build that took the largest share."""
        pairs = [(sum(map(bool, counts)), len(counts)) for counts in self.branches.values()]
        return max(pairs, key=lambda pair: (pair[0] / pair[1], pair[1]), default=(0, 0))


Lines = dict[str, dict[int, Line]]
"""By file, and by number."""


def read_counts(folder: Path) -> Any:
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "counts.json"
        subprocess.run(
            [
                Path(sys.executable).with_name("gcovr"), "--root", ROOT, "--filter", "csrc/", "--filter", "binding/",
                "--exclude", "csrc/tests/", "--exclude-branches-by-pattern", NOT_BRANCHES, "--exclude-function-lines",
                "--merge-mode-functions=separate", "--gcov-suspicious-hits-threshold", "0",
                # A process that ends amid a branch of another thread counts half of it: it counts as not taken.
                "--gcov-ignore-parse-errors=negative_hits.warn", "--json", out, folder,
            ],
            check=True, cwd=ROOT, stderr=subprocess.PIPE,
        )  # fmt: skip
        return json.loads(out.read_text())


def merge(folders: Sequence[Path]) -> Lines:
    lines: Lines = defaultdict(dict)
    for folder in folders:
        for file in read_counts(folder)["files"]:
            own: dict[int, Line] = {}
            for one in file["lines"]:
                if one.get("gcovr/excluded") or one.get("gcovr/noncode"):
                    continue
                counts = [branch["count"] for branch in one["branches"] if not branch.get("gcovr/excluded")]
                line = own.setdefault(one["line_number"], Line(one.get("function_name", "")))
                line.add(one["count"], counts)
            for number, line in own.items():
                to = lines[file["file"]].setdefault(number, Line(line.function))
                to.count += line.count
                for counts in line.branches.values():
                    to.add(0, counts)
    return dict(sorted(lines.items()))


@dataclass(frozen=True)
class Missed:
    """A line that was not run, or of whose branches some were not taken."""

    file: str
    number: int
    function: str
    text: str
    is_line: bool
    branches: int


def missed(lines: Lines) -> Iterator[Missed]:
    for file, by_number in lines.items():
        source = (ROOT / file).read_text().splitlines()
        for number, line in sorted(by_number.items()):
            taken, there = line.taken()
            if line.count == 0 or taken < there:
                text = source[number - 1].strip()
                yield Missed(file, number, line.function, text, line.count == 0, there - taken)


def share(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "none"


@dataclass
class Sum:
    """Lines and branches of a file, or of all."""

    lines: int = 0
    run: int = 0
    branches: int = 0
    taken: int = 0

    def add(self, line: Line) -> None:
        taken, there = line.taken()
        self.lines += 1
        self.run += line.count > 0
        self.branches += there
        self.taken += taken

    def row(self, name: str) -> str:
        return (f"| {name} | {self.lines} | {share(self.run, self.lines)} | {self.branches} "
                f"| {share(self.taken, self.branches)} |")  # fmt: skip


def sums(lines: Lines) -> tuple[dict[str, Sum], Sum]:
    of_all, by_file = Sum(), {}
    for file, by_number in lines.items():
        by_file[file] = Sum()
        for line in by_number.values():
            by_file[file].add(line)
            of_all.add(line)
    return by_file, of_all


@dataclass(frozen=True)
class Place:
    """Lines with that text, in these files and functions. All three are patterns."""

    files: re.Pattern[str]
    functions: re.Pattern[str]
    text: re.Pattern[str]

    def has(self, one: Missed) -> bool:
        return bool(
            self.files.search(one.file) and self.functions.fullmatch(one.function) and self.text.search(one.text)
        )


@dataclass(frozen=True)
class Group:
    """What was not run for one reason."""

    reason: str
    places: tuple[Place, ...]

    def has(self, one: Missed) -> bool:
        return any(place.has(one) for place in self.places)


def read_groups() -> list[Group]:
    read = tomllib.loads(REASONS.read_text())["group"]
    return [
        Group(
            one["reason"],
            tuple(
                Place(*(re.compile(place.get(what, ".*")) for what in ("files", "functions", "text")))
                for place in one["places"]
            ),
        )
        for one in read
    ]


NO_REASON = "No test runs these yet"
HEAD = """# What the tests run of the C code

`make coverage` builds `csrc` and `binding` for gcov, runs the C tests and the Python tests (`tests/unit`,
`tests/property`, `tests/torture`), and writes this page. It takes a quarter of an hour. `tools/coverage.sh` has the
commands, and `tools/coverage.py` counts:

- The same file is compiled for the tests on the double of the kernel, for those on the kernel, and for Python. A line
  counts as run when one of these builds ran it. The branches of a line are those of the build that took the largest
  share of them.
- Branches do not count where they belong to a macro: `DRP_ASSERT`, whose condition is never false, and `Py_VISIT`,
  `Py_CLEAR` and `Py_RETURN_...` of Python.
- gcc counts each `&&`, `||` and `?:` as a branch of two ways.
- The builds are not optimised. The C tests do the part of their work that they do under sanitizers too. A process that
  ends by SIGKILL tells nothing.
- Some Python tests are left out. They look at standard error where no file can be opened, and gcov complains there.

"""


def report(lines: Lines, groups: Sequence[Group]) -> str:
    by_file, of_all = sums(lines)
    by_group: dict[str, list[Missed]] = {group.reason: [] for group in groups} | {NO_REASON: []}
    for one in missed(lines):
        if one.is_line:
            by_group[next((group.reason for group in groups if group.has(one)), NO_REASON)].append(one)
    head = ["| | lines | run | branches | taken |", "|---|---:|---:|---:|---:|"]
    text = [HEAD, *head, of_all.row("**all**"), f"| goal | | {GOAL_LINES:.0f} % | | {GOAL_BRANCHES:.0f} % |", ""]
    text += ["## Lines that no test runs, and why", ""]
    text += [
        "The reasons are in `tools/coverage.toml`. `make coverage` tells `file:line` of each: `build/coverage.txt`.",
        "",
    ]
    text += ["| why | lines | where |", "|---|---:|---|"]
    for reason, ones in by_group.items():
        if ones:
            names = ", ".join(f"`{name}`" for name in dict.fromkeys(map(where, ones)))
            text.append(f"| {reason} | {len(ones)} | {names} |")
    text += ["", "## By file", "", *head, *(of_file.row(f"`{name}`") for name, of_file in by_file.items()), ""]
    return "\n".join(text)


def where(one: Missed) -> str:
    return f"{Path(one.file).name}: {one.function}" if one.function else Path(one.file).name


def listed(lines: Lines) -> str:
    """Each line that was not run, or has branches that were not taken, with its source."""
    text = ""
    for one in missed(lines):
        what = "line" if one.is_line else f"{one.branches} branches"
        text += f"{one.file}:{one.number}: {what}: {one.text}\n"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    arguments = parser.parse_args()
    lines = merge(arguments.folders)
    LISTED.write_text(listed(lines))
    PAGE.write_text(report(lines, read_groups()))
    _, of_all = sums(lines)
    print(f"{share(of_all.run, of_all.lines)} of {of_all.lines:,} lines, {share(of_all.taken, of_all.branches)} of "
          f"{of_all.branches:,} branches: docs/coverage.md")  # fmt: skip
    met = 100 * of_all.run >= GOAL_LINES * of_all.lines and 100 * of_all.taken >= GOAL_BRANCHES * of_all.branches
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
