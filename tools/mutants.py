"""Puts one fault after the other into a copy of the source, and sees whether the test that should catch it does.

    make mutants                    all of them: half an hour, and docs/mutants.md is written
    make mutants ARGS="pin stamp"   those with such a word in their name
    make mutants ARGS="--any pin"   where the named test does not catch it: which of the C tests does?

Each fault in mutants.toml is a line of the source that a slip could have left out or turned round, and names its test.
A test that fails, hangs or is stopped by an assertion has caught the fault. What is not caught is told, and so is a
fault whose line is not there any more: the exit status is 1 then. All of it happens in copies under build/mutants.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

TOP = Path(__file__).parents[1]
TREE = TOP / "build" / "mutants"
BUILD = TREE / "build"
PACKAGE = TREE / "python"
FAULTS = Path(__file__).with_suffix(".toml")
PAGE = TOP / "docs" / "mutants.md"
LIMIT_SECONDS = 300
"""What takes longer hangs: the longest case takes half a minute, and several times that beside other work."""
HEADINGS = {
    "wrong bytes": "Wrong bytes",
    "stale": "Values that are out of date",
    "hang": "Calls that never return",
    "memory": "Memory that nobody gets back",
    "counts": "Counts that drift",
    "crash": "Crashes",
}
HEAD = """# Seeded faults: do the tests notice?

A test that was never seen to fail proves little. So `make mutants` copies the source, changes one line of the copy,
and runs the test that has to fail then. It does that for each change in `tools/mutants.toml`, which takes half an
hour. Each change is a mistake that a programmer could make: a line is missing, or a condition is turned round.

The tables below have each such fault with the test that catches it, ordered by what a user would see. A name like
`faults: drop_at_every_step` is a case of `csrc/tests/test_faults.c`; the others are tests of pytest. At the end of
a run in which every fault was caught, `tools/mutants.py` writes this page. A unit test sees to it that each fault
can still be put in and stands on this page.

A new fault goes into `tools/mutants.toml`, with its test. `make mutants ARGS="memory"` tries only the faults whose
name has that word in it. With `ARGS="--any memory"` it runs all C tests on a fault that its own test does not
catch, and tells which of them fails. If none fails, a test is missing.
"""


@dataclass(frozen=True)
class Fault:
    """A line of the source, what is put in its place, what would come of it, and the test that has to notice."""

    name: str
    would: str
    test: str
    file: str
    right: str
    wrong: str

    @property
    def is_c(self) -> bool:
        """Whether it is in the C core."""
        return self.file.startswith("csrc/")

    @property
    def place(self) -> Path:
        """Its file in the copy."""
        return TREE / self.file if self.is_c else PACKAGE / self.file.removeprefix("src/")

    def why_not(self, source: str) -> str | None:
        """Why it cannot be put into its file; None: it can."""
        count = source.count(self.right)
        return None if count == 1 else f"{self.file} has its line {count} times"


def read_faults() -> list[Fault]:
    """All of mutants.toml."""
    return [Fault(**fault) for fault in tomllib.loads(FAULTS.read_text())["fault"]]


def page(faults: list[Fault]) -> str:
    """docs/mutants.md."""
    text = HEAD
    for would, heading in HEADINGS.items():
        text += f"\n## {heading}\n\n| Fault | Caught by |\n|---|---|\n"
        for fault in faults:
            if fault.would == would:
                text += f"| {fault.name} | `{fault.test.removeprefix('tests/')}` |\n"
    return text


def run(
    *command: str | Path, where: Path = TREE, limit: float | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, **environment}
    return subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=limit, env=environ)


def program(test: str) -> Path:
    """The program of a test of the C core."""
    return BUILD / "csrc" / "tests" / f"test_{test.partition(':')[0]}"


def run_test(test: str) -> str | None:
    """How the test failed; None: it passed."""
    is_c = test.partition(":")[1] == ":" and not test.startswith("tests/")
    try:
        if is_c:
            result = run(program(test), limit=LIMIT_SECONDS, CHECK_ONLY=test.partition(": ")[2], CHECK_STOP="1")
        else:
            command = (sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test)
            result = run(*command, where=TOP, limit=LIMIT_SECONDS, PYTHONPATH=str(PACKAGE))
    except subprocess.TimeoutExpired:
        return "hangs"
    if result.returncode != 0:
        return "is stopped" if result.returncode < 0 else "fails"
    case = test.partition(": ")[2]
    if is_c and f" - {case}(" not in result.stdout:
        sys.exit(f"{test}: there is no such case")
    return None


def build(test: str | None = None) -> str | None:
    """Why it cannot be built; None: it was. test: only what this one needs."""
    targets = [str(program(test).relative_to(BUILD))] if test else []
    result = run("ninja", "-C", BUILD, *targets)
    return result.stdout[-2000:] if result.returncode != 0 else None


def prepare() -> None:
    """A copy of the core, built, and of the package as it is installed."""
    shutil.rmtree(TREE, ignore_errors=True)
    shutil.copytree(TOP / "csrc", TREE / "csrc")
    for name in ("meson.build", "meson.options"):
        shutil.copy(TOP / name, TREE)
    options = ("-Dpython=false", "-Dtests=true", "-Dwerror=false", "-Dbuildtype=debugoptimized")
    options += ("-Dc_args=-DDRP_ASSERTIONS",)
    if (result := run("meson", "setup", BUILD, *options)).returncode != 0:
        sys.exit(f"meson failed:\n{result.stdout[-4000:]}{result.stderr}")
    if (why := build()) is not None:
        sys.exit(why)
    installed = run(sys.executable, "-c", "import droppable; print(droppable.__path__[0])", where=TOP).stdout.strip()
    shutil.copytree(installed, PACKAGE / "droppable", ignore=shutil.ignore_patterns("__pycache__"))


def caught_by_any() -> str | None:
    if build() is not None:
        return None
    for path in sorted((BUILD / "csrc" / "tests").glob("test_*")):
        if path.is_file() and os.access(path, os.X_OK):
            try:
                result = run(path, limit=LIMIT_SECONDS, CHECK_STOP="1")
            except subprocess.TimeoutExpired:
                return f"{path.name} hangs"
            if result.returncode != 0:
                failed = [line for line in result.stdout.splitlines() if line.startswith("not ok")]
                return f"{path.name} {failed[:1] or 'is stopped'}"
    return None


def try_fault(fault: Fault, ask_all: bool) -> str | None:
    """How the fault was caught; None: it was not."""
    source = fault.place.read_text()
    if (why := fault.why_not(source)) is not None:
        print(f"NOT THERE    {fault.name}: {why}", flush=True)
        return None
    fault.place.write_text(source.replace(fault.right, fault.wrong))
    why = build(fault.test) if fault.is_c else None
    how = run_test(fault.test) if why is None else None
    if why is not None:
        print(f"NOT BUILT    {fault.name}:\n{why}", flush=True)
    elif how is None:
        by = f"; {caught_by_any() or 'nor by any other'}" if ask_all and fault.is_c else ""
        print(f"NOT CAUGHT   {fault.name}: not by {fault.test}{by}", flush=True)
    else:
        print(f"caught       {fault.name}: {fault.test} {how}", flush=True)
    fault.place.write_text(source)
    return how


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--any", action="store_true", help="where the named test does not catch it: which C test does?")
    parser.add_argument("words", nargs="*", help="only faults with one of them in their name")
    arguments = parser.parse_args()
    faults = read_faults()
    chosen = [fault for fault in faults if not arguments.words or any(word in fault.name for word in arguments.words)]
    prepare()
    for test in sorted({fault.test for fault in chosen}):
        if (how := run_test(test)) is not None:
            sys.exit(f"{test} {how} without any fault")
    caught = [fault for fault in chosen if try_fault(fault, arguments.any) is not None]
    print(f"{len(caught)} of {len(chosen)} faults were caught")
    if caught == faults:
        PAGE.write_text(page(faults))
    return 0 if caught == chosen else 1


if __name__ == "__main__":
    sys.exit(main())
