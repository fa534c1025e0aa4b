"""Runs test suites that others wrote against droppable, and writes what came of it to docs/suites.md: `make suites`.

The sources are fetched when the suites run, and lie under build/suites; none of them is part of this tree. A failure
needs a reason in tests/suites/reasons.toml. A failure without a reason is a fault, and so is a reason whose test
passes: the exit status is 1 then. A suite whose sources cannot be had is left out, and the reason is printed.
"""

import argparse
import hashlib
import json
import platform
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

TOP = Path(__file__).parents[1]
WORKER = TOP / "tests" / "suites" / "worker.py"
REASONS = TOP / "tests" / "suites" / "reasons.toml"
REQUIREMENTS = TOP / "requirements" / "suites.txt"
FETCHED = TOP / "build" / "suites"
PAGE = TOP / "docs" / "suites.md"

LIMIT_SECONDS = 120
"""A suite that takes longer hangs: each takes some seconds, TestLRU fifteen."""
CANNOT_BE_HAD = 3
NO_REASON = "**No reason is known: this is a fault.**"


@dataclass(frozen=True)
class Suite:
    """One suite of somebody else's."""

    name: str
    project: str
    """As in requirements/suites.txt; "CPython": of the Python that runs."""
    source: str
    """Where the suite is in the project's sources."""
    against: str

    def version(self) -> str:
        if self.project == "CPython":
            return platform.python_version()
        pin = re.search(rf"^{self.project}==(\S+)$", REQUIREMENTS.read_text(), flags=re.MULTILINE)
        assert pin is not None, f"{REQUIREMENTS} does not pin {self.project}"
        return pin[1]


SUITES = [
    Suite("BasicTestMappingProtocol", "CPython", "test/mapping_tests.py", "`Cache` as it is"),
    Suite("TestHashMappingProtocol", "CPython", "test/mapping_tests.py", "a `Cache` whose `==` compares entries"),
    Suite("TestLRU", "CPython", "test/test_functools.py", "`@droppable.cache`, whose `cache_info()` tells `maxsize`"),
    Suite("CacheTestMixin", "cachetools", "tests/__init__.py", "a `Cache` with `maxsize` and `currsize`"),
    Suite("utils_test", "zict", "zict/tests/utils_test.py", "`Cache` as it is"),
]


class CannotBeHadError(Exception):
    """The sources of a suite are not to be had here; the text says why."""


@dataclass
class Result:
    """What came of one suite."""

    suite: Suite
    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    """Test: what it said."""
    skipped: dict[str, str] = field(default_factory=dict)


def fetch_sources() -> Path:
    """The folder with the unpacked sources of what requirements/suites.txt pins; fetched if they are not there yet."""
    folder = FETCHED / hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:16]
    if folder.exists():
        return folder
    archives = FETCHED / "archives"
    shutil.rmtree(archives, ignore_errors=True)
    # pip asks a source distribution for its metadata, which takes setuptools; nothing of it is installed.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    fetched = subprocess.run(
        [*command, "--dest", str(archives), "--requirement", str(REQUIREMENTS)],
        capture_output=True,
        text=True,
        check=False,
    )
    if fetched.returncode != 0:
        lines = [line for line in fetched.stderr.splitlines() if "ERROR" in line] or fetched.stderr.splitlines()
        raise CannotBeHadError(f"pip cannot fetch the sources: {lines[-1] if lines else 'it does not say why'}")
    unpacked = FETCHED / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    unpacked.mkdir()
    for archive in archives.iterdir():
        subprocess.run(["tar", "-xf", str(archive), "-C", str(unpacked)], check=True)
    unpacked.rename(folder)  # last, so that a folder that is there is whole
    return folder


def run(suite: Suite) -> Result:
    """Runs suite in a process of its own. A test during which the process ends, or never ends, has failed.

    Raises:
        CannotBeHadError: the sources of the suite are not to be had here.
    """
    sources = fetch_sources() if suite.project != "CPython" else TOP / "tests" / "suites"
    command = [sys.executable, str(WORKER), suite.name, str(sources)]
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = worker.communicate(timeout=LIMIT_SECONDS)
        ended = f"the process ended with status {worker.returncode}: {errors[-300:]}"
    except subprocess.TimeoutExpired:
        worker.kill()
        output, errors = worker.communicate()
        ended = f"it was not done after {LIMIT_SECONDS} seconds"
    if worker.returncode == CANNOT_BE_HAD:
        raise CannotBeHadError(output.strip())
    return read(suite, output, ended, is_whole=worker.returncode == 0)


def read(suite: Suite, output: str, ended: str, is_whole: bool) -> Result:
    """What the worker's lines say."""
    result = Result(suite)
    chances = read_chances(suite)
    running = "the suite as a whole"
    for line in output.splitlines():
        record = json.loads(line)
        running = record["test"]
        match record["outcome"]:
            case "passed" if running in chances:
                result.failed[running] = "it passed this time"
            case "passed":
                result.passed.append(running)
            case "failed":
                result.failed[running] = record["error"]
            case "skipped":
                result.skipped[running] = record["error"]
    if not is_whole:
        result.failed[running] = ended
    if not result.passed and not result.failed:
        result.failed["the suite as a whole"] = "no test ran"
    return result


def read_reasons(suite: Suite) -> dict[str, str]:
    """Test: why it fails by nature. The file lists the tests of each reason."""
    always = tomllib.loads(REASONS.read_text()).get(suite.name, {})
    by_chance = always.pop("by_chance", {})
    reasons: dict[str, str] = {}
    for reason, tests in [*always.items(), *by_chance.items()]:
        for test in tests:
            assert test not in reasons, f"{REASONS} has two reasons for {test}"
            reasons[test] = reason
    return reasons


def read_chances(suite: Suite) -> set[str]:
    """Tests that pass or fail by chance."""
    by_chance = tomllib.loads(REASONS.read_text()).get(suite.name, {}).get("by_chance", {})
    return {test for tests in by_chance.values() for test in tests}


def find_faults(result: Result) -> list[str]:
    """What is wrong, a line each: failures without a reason, and reasons that are none."""
    reasons = read_reasons(result.suite)
    name = result.suite.name
    faults = [f"{name}.{test} fails: {said}" for test, said in result.failed.items() if test not in reasons]
    faults += [f"{name}.{test} passes, and has a reason to fail" for test in result.passed if test in reasons]
    if result.suite.project != "CPython":  # its tests differ from version to version; the others are pinned
        known = {*result.passed, *result.failed, *result.skipped}
        faults += [f"{name}.{test} has a reason to fail, and is not there" for test in reasons if test not in known]
    return faults


def row(result: Result) -> str:
    """The suite's row in the table of docs/suites.md."""
    suite = result.suite
    cells = [f"`{suite.name}`", f"{suite.project} {suite.version()}, `{suite.source}`", suite.against]
    return "| " + " | ".join([*cells, str(len(result.passed)), str(len(result.failed))]) + " |"


def details(result: Result) -> list[str]:
    """The lines of docs/suites.md about the failures of one suite."""
    if not result.failed and not result.skipped:
        return [f"## {result.suite.name}", "", "Every test passes.", ""]
    reasons = read_reasons(result.suite)
    tests_of: dict[str, list[str]] = {}
    for test in sorted(result.failed):
        tests_of.setdefault(reasons.get(test, NO_REASON), []).append(f"`{test}`")
    lines = [f"## {result.suite.name}", "", "| these fail | because |", "|---|---|"]
    lines += [f"| {', '.join(tests)} | {reason} |" for reason, tests in tests_of.items()]
    lines += ["", *(f"`{test}` skips itself: {said}" for test, said in result.skipped.items())]
    return [*lines, *([""] if result.skipped else [])]


INTRODUCTION = """\
# Test suites that others wrote

`make suites` fetches these suites from where their projects publish them, runs them against droppable, and writes this
page. They were written for a dict, for `functools.lru_cache` and for caches that are bounded in entries, so some of
their tests ask for what droppable does not promise. Each failure has its reason below. A failure without a reason, or a
reason whose test passes, makes `make suites` fail.
"""


def page(results: list[Result], left_out: dict[str, str]) -> str:
    lines = [INTRODUCTION, "| suite | from | runs against | passed | failed |", "|---|---|---|---|---|"]
    lines += [row(result) for result in results]
    lines += ["", *(f"`{name}` was left out: {why}\n" for name, why in left_out.items())]
    for result in results:
        lines += details(result)
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", nargs="*", help="only these; docs/suites.md is then left as it is")
    names = parser.parse_args().suite
    results, left_out = [], {}
    for suite in SUITES:
        if names and suite.name not in names:
            continue
        try:
            results.append(run(suite))
        except CannotBeHadError as error:
            print(f"SKIP {suite.name}: {error}")
            left_out[suite.name] = str(error)
            continue
        print(f"{suite.name}: {len(results[-1].passed)} passed, {len(results[-1].failed)} failed")
    faults = [fault for result in results for fault in find_faults(result)]
    print(*faults, sep="\n", end="\n" if faults else "")
    if not names:
        PAGE.write_text(page(results, left_out))
        print(f"written: {PAGE.relative_to(TOP)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
