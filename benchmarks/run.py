"""Runs every benchmark in turn, and writes what came out to build/bench/*.json and docs/benchmarks.md.

    make bench                                  all, up to ten minutes; installs the peers first
    python benchmarks/run.py --only cache_latency regions
    python benchmarks/run.py --report           writes the page again from the JSON of earlier runs

Each benchmark is a script that runs alone too. One that fails or lacks its tools does not stop the others. The exit
code is 0 also where a goal is not met: that is a finding, not an error of the run.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from measure import machine
from report import page

HERE = Path(__file__).parent
JSON_DIRECTORY = HERE.parent / "build" / "bench"
PAGE = HERE.parent / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Benchmark:
    """A script; `writes_json`: it takes --out, else what it prints is kept."""

    name: str
    arguments: tuple[str, ...] = ()
    writes_json: bool = True


BENCHMARKS = (
    Benchmark("cache_latency"),
    Benchmark("cache_pressure"),
    Benchmark("random_speed"),
    Benchmark("random_statistics", ("--suite", "rngtest", "--bytes", str(64 << 20))),
    Benchmark("regions", writes_json=False),
    Benchmark("cache_objects", writes_json=False),
)


def run(benchmark: Benchmark) -> bool:
    """Runs it, its output on the terminal as it comes; whether its JSON is there."""
    out = JSON_DIRECTORY / f"{benchmark.name}.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-u", str(HERE / f"{benchmark.name}.py"), *benchmark.arguments]
    if benchmark.writes_json:
        command += ["--out", str(out)]
    print(f"\n== {benchmark.name}", flush=True)
    start = time.monotonic()
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    report = {}
    if out.exists():
        report = json.loads(out.read_text())
    elif not process.returncode and not benchmark.writes_json:
        report = {"machine": machine()}
    if report:
        report |= {"printed": "".join(lines), "seconds": round(time.monotonic() - start, 1)}
        out.write_text(json.dumps(report, indent=1) + "\n")
    else:
        print(f"{benchmark.name} gave no figures (exit code {process.returncode})")
    return bool(report)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser.add_argument("--only", nargs="+", choices=names, help="these benchmarks; the others' JSON stays")
    parser.add_argument("--report", action="store_true", help="runs nothing")
    arguments = parser.parse_args()
    JSON_DIRECTORY.mkdir(parents=True, exist_ok=True)
    if not arguments.report:
        for benchmark in BENCHMARKS:
            if not arguments.only or benchmark.name in arguments.only:
                run(benchmark)
    found = {path.stem: json.loads(path.read_text()) for path in sorted(JSON_DIRECTORY.glob("*.json"))}
    if not found:
        print("no benchmark gave figures")
        return 1
    PAGE.write_text(page(found))
    print(f"\nwritten: {os.path.relpath(PAGE)}, {os.path.relpath(JSON_DIRECTORY)}/*.json")
    return 0


if __name__ == "__main__":
    sys.exit(main())
