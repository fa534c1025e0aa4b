"""Runs test suites that others wrote for memcached, Redis and their clients against `droppable serve`.

`make server-suites` runs each of them twice, against droppable and against the server that it was written for, and
writes one table to docs/server-suites.md. The sources are fetched when the suites run, and lie under build/; none of
them is part of this tree. A test that fails with droppable and passes with the other server needs a reason in
tests/suites/server_reasons.toml. A failure without a reason is a fault, and so is a reason whose test passes: the exit
status is 1 then. What cannot be had is left out, and the reason is printed.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

from suites import (
    CANNOT_BE_HAD,
    FETCHED,
    NO_REASON,
    TOP,
    CannotBeHadError,
    Collection,
    Result,
    Suite,
    fetch_pins,
    grouped,
)
from suites import read as read_lines

PAGE = TOP / "docs" / "server-suites.md"
SERVER = Collection(
    worker=TOP / "tests" / "suites" / "server_worker.py",
    reasons=TOP / "tests" / "suites" / "server_reasons.toml",
    requirements=TOP / "requirements" / "server-suites.txt",
    page=PAGE,
    introduction="""\
# Test suites of memcached, Redis and their clients

`make server-suites` fetches these suites from where their projects publish them, runs them against `droppable serve`
and against a real memcached or Redis, and writes this page. A failure that the real server does not have needs its
reason below. A failure without a reason, or a reason whose test passes, makes `make server-suites` fail.

Of memcached's own tests those run that ask a server from outside, and each assertion counts. Of redis-py's tests of
commands those run whose commands the server has. `tests/suites/chosen.toml` lists both.
""",
)
LIMIT_SECONDS = 900
"""Of one suite with one server. memcached's own takes minutes: it waits a second for each server that it starts."""


@dataclass(frozen=True)
class Pair:
    """One suite, and the server that it was written for."""

    suite: Suite
    peer: str
    """A kind, as tests/suites/servers.py has them."""


def of_client(name: str, project: str, source: str, peer: str) -> Pair:
    return Pair(Suite(name, project, source, peer, SERVER), peer)


PAIRS = [
    of_client("t/*.t", "memcached", "t/", "memcached"),
    of_client("memccapable", "libmemcached-tools", "`-a`", "memcached"),
    of_client("test_integration", "pymemcache", "pymemcache/test/test_integration.py", "memcached"),
    of_client("PyMemcacheCacheTests", "Django", "tests/cache/tests.py", "memcached"),
    of_client("PyLibMCCacheTests", "Django", "tests/cache/tests.py", "memcached"),
    of_client("RedisCacheTests", "Django", "tests/cache/tests.py", "redis"),
    of_client("TestRedisCommands", "redis", "tests/test_commands.py", "redis"),
    of_client("test_pipeline", "redis", "tests/test_pipeline.py", "redis"),
    of_client("TestCache", "redis", "tests/test_cache.py", "redis"),
]

# memcached's own tests, from Debian's source package


def run_in(folder: Path, log: Path, *command: str) -> None:
    """Runs a command there; what it says is added to the log.

    Raises:
        CannotBeHadError: it failed.
    """
    with log.open("a") as out:
        ended = subprocess.run(command, cwd=folder, stdout=out, stderr=out, check=False)
    if ended.returncode != 0:
        raise CannotBeHadError(f"`{' '.join(command[:3])}` failed: {log} says why")


def fetch_debian_source(package: str, folder: Path) -> Path:
    """The unpacked upstream source of a Debian package."""
    folder.mkdir(parents=True, exist_ok=True)
    if not list(folder.glob(f"{package}_*.orig.tar.*")):
        release = dict(re.findall(r'^(\w+)="?(.*?)"?$', Path("/etc/os-release").read_text(), flags=re.MULTILINE))
        if release.get("ID") != "debian" or shutil.which("apt-get") is None:
            raise CannotBeHadError("Debian's source packages are fetched with Debian's apt-get, which is not here")
        for name in ("lists/partial", "cache", "parts"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        key_ring = "/usr/share/keyrings/debian-archive-keyring.gpg"
        (folder / "parts" / "source.sources").write_text(
            "Types: deb-src\nURIs: http://deb.debian.org/debian\n"
            f"Suites: {release['VERSION_CODENAME']}\nComponents: main\nSigned-By: {key_ring}\n"
        )
        places = {
            "Dir::Etc::SourceList": "/dev/null",
            "Dir::Etc::SourceParts": folder / "parts",
            "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder / "cache",
        }
        options = [word for name, place in places.items() for word in ("-o", f"{name}={place}")]
        run_in(folder, folder / "fetch.log", "apt-get", *options, "update")
        run_in(folder, folder / "fetch.log", "apt-get", *options, "source", "--download-only", package)
    archive = next(folder.glob(f"{package}_*.orig.tar.*"))
    tree = folder / archive.name.split(".orig.")[0].replace("_", "-")
    if not tree.exists():
        run_in(folder, folder / "fetch.log", "tar", "-xf", archive.name)
    return tree


def prepare_memcached(kind: str) -> Path:
    """A folder with memcached's tests, and as memcached-debug the server that they start."""
    tree = fetch_debian_source("memcached", FETCHED / "memcached")
    log = FETCHED / "memcached" / "build.log"
    if not (tree / "timedrun").exists():
        run_in(tree, log, os.environ.get("CC", "cc"), "-o", "timedrun", "timedrun.c")
    if kind == "memcached":
        if not (tree / "memcached-debug").exists():  # with the commands that only their tests use: no package has it
            run_in(tree, log, "./configure", "--quiet", "--disable-docs", "--disable-dependency-tracking")
            run_in(tree, log, "make", "-s", "memcached-debug")
        return tree
    ours = FETCHED / "memcached" / "droppable"
    ours.mkdir(exist_ok=True)
    for name in ("t", "timedrun"):
        if not (ours / name).exists():
            (ours / name).symlink_to(tree / name)
    shutil.copy(TOP / "tools" / "memcached_shim.py", ours / "memcached-debug")
    (ours / "memcached-debug").chmod(0o755)
    return ours


def version_of(suite: Suite) -> str:
    if suite.project == "memcached":
        return fetch_debian_source("memcached", FETCHED / "memcached").name.removeprefix("memcached-")
    if suite.project == "libmemcached-tools":
        asked = subprocess.run(
            ["dpkg-query", "-W", "-f", "${source:Upstream-Version}", suite.project],
            capture_output=True,
            text=True,
            check=False,
        )
        return asked.stdout
    return suite.version()


def sources_of(suite: Suite, kind: str) -> Path:
    if suite.project == "memcached":
        return prepare_memcached(kind)
    if suite.project == "libmemcached-tools":
        return TOP
    pinned = sorted({pair.suite.project for pair in PAIRS} - {"memcached", "libmemcached-tools"})
    pins = SERVER.requirements.read_text()
    return fetch_pins(
        [f"{name}=={version}" for name, version in re.findall(r"^(\w+)==(\S+)$", pins, re.MULTILINE) if name in pinned]
    )


def run(suite: Suite, kind: str) -> Result:
    """Runs the suite against that server, in a process of its own.

    Raises:
        CannotBeHadError: the suite or the server is not to be had here.
    """
    command = [sys.executable, str(SERVER.worker), suite.name, kind, str(sources_of(suite, kind))]
    environment = {**os.environ, "DROPPABLE_SERVER": str(Path(sys.executable).parent / "droppable-server")}
    try:
        ran = subprocess.run(
            command, capture_output=True, text=True, env=environment, timeout=LIMIT_SECONDS, check=False
        )
        output, status = ran.stdout, ran.returncode
        ended = f"the process ended with status {status}: {ran.stderr[-300:]}"
    except subprocess.TimeoutExpired as error:
        output, status = (error.stdout or b"").decode(), -1
        ended = f"it was not done after {LIMIT_SECONDS} seconds"
    if status == CANNOT_BE_HAD:
        raise CannotBeHadError(output.strip())
    result = read_lines(suite, output, ended, is_whole=status == 0)
    if status == 0 and result.skipped and not result.passed:
        result.failed.pop("the suite as a whole", None)  # it left all of its tests out, and says why
    return result


def read_reasons(suite: Suite) -> dict[str, str]:
    """Test: why it fails by nature."""
    reasons = tomllib.loads(SERVER.reasons.read_text()).get(suite.name, {})
    return {test: reason for reason, tests in reasons.items() for test in tests}


def find_faults(ours: Result, theirs: Result | None) -> list[str]:
    """What is wrong, a line each."""
    name, reasons = ours.suite.name, read_reasons(ours.suite)
    excused = {*reasons, *(theirs.failed if theirs is not None else ())}
    faults = [f"{name}: {test} fails: {said}" for test, said in ours.failed.items() if test not in excused]
    known = {*ours.failed, *ours.skipped}
    faults += [f"{name}: {test} has a reason to fail, and does not" for test in reasons if test not in known]
    return faults


def row(ours: Result, theirs: Result | None, peer: str) -> str:
    suite = ours.suite
    cells = [
        f"`{suite.name}`",
        f"{suite.project} {version_of(suite)}, {suite.source if '`' in suite.source else f'`{suite.source}`'}",
        f"{len(ours.passed)} / {len(ours.failed)}",
        f"{len(theirs.passed)} / {len(theirs.failed)} ({peer})" if theirs is not None else f"{peer} was left out",
    ]
    return "| " + " | ".join(cells) + " |"


def details(ours: Result, theirs: Result | None) -> list[str]:
    """The lines of the page about what fails."""
    reasons = read_reasons(ours.suite)
    both = set(theirs.failed if theirs is not None else ())
    why = {
        test: "It fails with the real server too." if test in both else reasons.get(test, NO_REASON)
        for test in sorted(ours.failed)
    }
    lines = [f"## {ours.suite.name}", ""]
    if why:
        lines += ["| these fail | because |", "|---|---|"]
        lines += [f"| {tests} | {reason} |" for reason, tests in grouped(why)]
    else:
        lines += ["Every test passes."]
    lines += [""]
    lines += [f"Left out by the suite itself: {tests}. It says: {said}\n" for said, tests in grouped(ours.skipped)]
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", nargs="*", help="only these; the page is then left as it is")
    names = parser.parse_args().suite
    rows, sections, left_out, faults = [], [], [], []
    for pair in PAIRS:
        if names and pair.suite.name not in names:
            continue
        results: dict[str, Result] = {}
        for kind in ("droppable", pair.peer):
            try:
                results[kind] = run(pair.suite, kind)
            except CannotBeHadError as error:
                print(f"SKIP {pair.suite.name} with {kind}: {error}")
                left_out.append(f"`{pair.suite.name}` with {kind} was left out: {error}\n")
                continue
            told = results[kind]
            print(f"{pair.suite.name} with {kind}: {len(told.passed)} passed, {len(told.failed)} failed", flush=True)
        ours, theirs = results.get("droppable"), results.get(pair.peer)
        if ours is None:
            continue
        faults += find_faults(ours, theirs)
        rows.append(row(ours, theirs, pair.peer))
        sections += details(ours, theirs)
    print(*faults, sep="\n", end="\n" if faults else "")
    if not names:
        head = ["| suite | from | droppable: passed / failed | the real server: passed / failed |", "|---|---|---|---|"]
        PAGE.write_text("\n".join([SERVER.introduction, *head, *rows, "", *left_out, *sections]).rstrip("\n") + "\n")
        print(f"written: {PAGE.relative_to(TOP)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
