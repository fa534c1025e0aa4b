"""Puts one fault after the other into a copy of the C core, and sees whether its tests notice.

    make mutants      all of them: half an hour        make mutants ARGS="pin stamp": of those with such a word

Each fault in mutants.toml is a line of the core that a slip could have left out or turned round. The tests are run one
by one, the quick ones first, until one fails: a test that fails, hangs or is stopped by an assertion has caught the
fault. A fault that nothing catches is one that the tests would not notice: the exit status is 1 then. A fault whose
line is not there any more is named too, and wants to be written anew. Under build/mutants; a minute or two for each.
"""

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
LIMIT_SECONDS = 120
"""A test that takes longer hangs: the longest takes ten seconds."""
SLOW = ("bounds", "cache", "dirty", "faults", "fill", "forks", "limits", "region_faults", "recovery", "smaps")
"""Are run last."""


@dataclass(frozen=True)
class Fault:
    """One line of the core, and what is put in its place."""

    name: str
    file: str
    right: str
    wrong: str


FAULTS = Path(__file__).with_suffix(".toml")


def run(*command: str | Path, limit: float | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=TREE, capture_output=True, text=True, timeout=limit)


def fails(test: Path) -> bool:
    try:
        return run(test, limit=LIMIT_SECONDS).returncode != 0
    except subprocess.TimeoutExpired:
        return True


def caught_by(tests: list[Path]) -> str | None:
    return next((test.name for test in tests if fails(test)), None)


def prepare() -> list[Path]:
    """A copy of the core, built; and its tests, the quick ones first."""
    shutil.rmtree(TREE, ignore_errors=True)
    shutil.copytree(TOP / "csrc", TREE / "csrc")
    for name in ("meson.build", "meson.options"):
        shutil.copy(TOP / name, TREE)
    options = ("-Dpython=false", "-Dtests=true", "-Dwerror=false", "-Dbuildtype=debugoptimized")
    options += ("-Dc_args=-DCHECK_SLOW -DDRP_ASSERTIONS",)
    for command in (("meson", "setup", BUILD, *options), ("ninja", "-C", BUILD)):
        if (result := run(*command)).returncode != 0:
            sys.exit(f"{command[0]} failed:\n{result.stdout[-4000:]}{result.stderr}")
    tests = [path for path in (BUILD / "csrc" / "tests").glob("test_*") if path.is_file() and os.access(path, os.X_OK)]
    return sorted(tests, key=lambda path: (path.name.removeprefix("test_") in SLOW, path.name))


def main() -> int:
    faults = [Fault(**fault) for fault in tomllib.loads(FAULTS.read_text())["fault"]]
    chosen = [fault for fault in faults if not sys.argv[1:] or any(word in fault.name for word in sys.argv[1:])]
    tests = prepare()
    if (name := caught_by(tests)) is not None:
        sys.exit(f"{name} fails without any fault")
    wrong = 0
    for fault in chosen:
        path = TREE / "csrc" / fault.file
        source = path.read_text()
        if source.count(fault.right) != 1:
            print(f"NOT THERE    {fault.name}: {fault.file} has its line {source.count(fault.right)} times", flush=True)
            wrong += 1
            continue
        path.write_text(source.replace(fault.right, fault.wrong))
        built = run("ninja", "-C", BUILD)
        name = "the compiler" if built.returncode != 0 else caught_by(tests)
        print(
            f"{'NOT CAUGHT  ' if name is None else 'caught      '} {fault.name}{f': {name}' if name else ''}",
            flush=True,
        )
        wrong += name in (None, "the compiler")
        path.write_text(source)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
