"""Runs test suites that others wrote against droppable, and writes what came of it to a page of docs.

`make suites` runs those of mappings and caches (docs/suites.md), `make adapters` those that libraries have for their
cache backends (docs/adapters-suites.md). The sources are fetched when the suites run, and lie under build/suites; none
of them is part of this tree. A failure needs a reason in the collection's reasons.toml. A failure without a reason is a
fault, and so is a reason whose test passes: the exit status is 1 then. A suite whose sources cannot be had is left out,
and the reason is printed.
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
FETCHED = TOP / "build" / "suites"

LIMIT_SECONDS = 120
"""A suite that takes longer hangs: each takes some seconds, TestLRU fifteen."""
CANNOT_BE_HAD = 3
NO_REASON = "**No reason is known: this is a fault.**"


@dataclass(frozen=True)
class Collection:
    """Suites that one page tells of."""

    worker: Path
    """Runs one suite in a process of its own, as tests/suites/worker.py says."""
    reasons: Path
    requirements: Path
    """Pins the projects."""
    page: Path
    introduction: str


OWN = Collection(
    worker=TOP / "tests" / "suites" / "worker.py",
    reasons=TOP / "tests" / "suites" / "reasons.toml",
    requirements=TOP / "requirements" / "suites.txt",
    page=TOP / "docs" / "suites.md",
    introduction="""\
# Test suites that others wrote

`make suites` fetches these suites from where their projects publish them, runs them against droppable, and writes this
page. They were written for a dict, for `functools.lru_cache` and for caches that are bounded in entries, so some of
their tests ask for what droppable does not promise. Each failure has its reason below. A failure without a reason, or a
reason whose test passes, makes `make suites` fail.
""",
)
ADAPTERS = Collection(
    worker=TOP / "tests" / "adapters" / "library_worker.py",
    reasons=TOP / "tests" / "adapters" / "reasons.toml",
    requirements=TOP / "requirements" / "adapters.txt",
    page=TOP / "docs" / "adapters-suites.md",
    introduction="""\
# The libraries' own tests of their backends

`make adapters` fetches the suites that these libraries have for their own cache backends, runs them with droppable's
[adapters](adapters.md), and writes this page. Each failure has its reason below. A failure without a reason, or a
reason whose test passes, makes `make adapters` fail.
""",
)


@dataclass(frozen=True)
class Suite:
    """One suite of somebody else's."""

    name: str
    project: str
    """As the collection's requirements have it; "CPython": of the Python that runs."""
    source: str
    """Where the suite is in the project's sources."""
    against: str
    of: Collection = OWN

    def version(self) -> str:
        if self.project == "CPython":
            return platform.python_version()
        pins = self.of.requirements
        pin = re.search(rf"^{self.project}==(\S+)$", pins.read_text(), flags=re.MULTILINE)
        assert pin is not None, f"{pins} does not pin {self.project}"
        return pin[1]


def of_library(project: str, source: str, against: dict[str, str]) -> list[Suite]:
    """The suites that one library's source has, each with what it runs against."""
    return [Suite(name, project, source, what, ADAPTERS) for name, what in against.items()]


SUITES = [
    Suite("BasicTestMappingProtocol", "CPython", "test/mapping_tests.py", "`Cache` as it is"),
    Suite("TestHashMappingProtocol", "CPython", "test/mapping_tests.py", "a `Cache` whose `==` compares entries"),
    Suite("TestLRU", "CPython", "test/test_functools.py", "`@droppable.cache`, whose `cache_info()` tells `maxsize`"),
    Suite("CacheTestMixin", "cachetools", "tests/__init__.py", "a `Cache` with `maxsize` and `currsize`"),
    Suite("utils_test", "zict", "zict/tests/utils_test.py", "`Cache` as it is"),
    *of_library(
        "Django",
        "tests/cache/tests.py",
        {
            "BaseCacheTests": "`DroppableCache`",
            "RedisCacheTests": "Django's own backend for Redis, with `droppable serve`",
            "PyMemcacheCacheTests": "Django's own backend for memcached, with `droppable serve`",
        },
    ),
    *of_library("cachelib", "tests/common.py, has.py, clear.py", {"cachelib": "`DroppableCache`"}),
    *of_library("Flask-Caching", "tests/test_backend_cache.py", {"Flask-Caching": "`DroppableCache`"}),
    *of_library("dogpile.cache", "dogpile/testing/fixtures.py", {"dogpile.cache": "`DroppableBackend`"}),
    *of_library("requests-cache", "tests/integration", {"requests-cache": "`DroppableCache`, `DroppableStorage`"}),
    *of_library("zarr", "zarr/testing/store.py", {"StoreTests": "`DroppableStore`"}),
    *of_library(
        "zarr",
        "tests/test_experimental/test_cache_store.py",
        {"TestCacheStore": "zarr's `CacheStore`, with a `DroppableStore` for each `MemoryStore`"},
    ),
    *of_library("aiocache", "tests/acceptance", {"aiocache": "`DroppableCache`"}),
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


def fetch_sources(collection: Collection) -> Path:
    """The folder with the unpacked sources of the collection's projects; fetched if they are not there yet."""
    fetched_for = [suite for suite in SUITES if suite.of is collection and suite.project != "CPython"]
    return fetch_pins(sorted({f"{suite.project}=={suite.version()}" for suite in fetched_for}))


def fetch_pins(pins: list[str]) -> Path:
    """The folder with the unpacked source distributions of these projects, `name==version` each."""
    folder = FETCHED / hashlib.sha256("\n".join(pins).encode()).hexdigest()[:16]
    if folder.exists():
        return folder
    archives = FETCHED / "archives"
    shutil.rmtree(archives, ignore_errors=True)
    # pip asks a source distribution for its metadata, which takes setuptools; nothing of it is installed.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
    fetched = subprocess.run(
        [*command, "--dest", str(archives), *pins],
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
    sources = fetch_sources(suite.of) if suite.project != "CPython" else TOP / "tests" / "suites"
    command = [sys.executable, str(suite.of.worker), suite.name, str(sources)]
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
    always = tomllib.loads(suite.of.reasons.read_text()).get(suite.name, {})
    by_chance = always.pop("by_chance", {})
    reasons: dict[str, str] = {}
    for reason, tests in [*always.items(), *by_chance.items()]:
        for test in tests:
            assert test not in reasons, f"{suite.of.reasons} has two reasons for {test}"
            reasons[test] = reason
    return reasons


def read_chances(suite: Suite) -> set[str]:
    """Tests that pass or fail by chance."""
    by_chance = tomllib.loads(suite.of.reasons.read_text()).get(suite.name, {}).get("by_chance", {})
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
    """The suite's row in the page's table."""
    suite = result.suite
    cells = [f"`{suite.name}`", f"{suite.project} {suite.version()}, `{suite.source}`", suite.against]
    return "| " + " | ".join([*cells, str(len(result.passed)), str(len(result.failed))]) + " |"


def details(result: Result) -> list[str]:
    """The lines of the page about the failures of one suite."""
    reasons = read_reasons(result.suite)
    lines = [f"## {result.suite.name}", ""]
    if result.failed:
        lines += ["| these fail | because |", "|---|---|"]
        lines += [
            f"| {tests} | {reason} |"
            for reason, tests in grouped({test: reasons.get(test, NO_REASON) for test in sorted(result.failed)})
        ]
    else:
        lines += ["Every test passes."]
    lines += [""]
    lines += [f"Left out by the suite itself: {tests}. It says: {said}\n" for said, tests in grouped(result.skipped)]
    return lines


def grouped(told: dict[str, str]) -> list[tuple[str, str]]:
    """Each thing that was told, and the tests of which it was told."""
    tests_of: dict[str, list[str]] = {}
    for test, what in told.items():
        tests_of.setdefault(what, []).append(f"`{test}`")
    return [(what, ", ".join(tests)) for what, tests in tests_of.items()]


def page(collection: Collection, results: list[Result], left_out: dict[str, str]) -> str:
    lines = [collection.introduction, "| suite | from | runs against | passed | failed |", "|---|---|---|---|---|"]
    lines += [row(result) for result in results]
    lines += ["", *(f"`{name}` was left out: {why}\n" for name, why in left_out.items())]
    for result in results:
        lines += details(result)
    return "\n".join(lines).rstrip("\n") + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", nargs="*", help="only these; the page is then left as it is")
    parser.add_argument("--adapters", action="store_true", help="the suites of `make adapters`")
    arguments = parser.parse_args()
    names, collection = arguments.suite, ADAPTERS if arguments.adapters else OWN
    results, left_out = [], {}
    for suite in SUITES:
        if suite.of is not collection or (names and suite.name not in names):
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
        collection.page.write_text(page(collection, results, left_out))
        print(f"written: {collection.page.relative_to(TOP)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
