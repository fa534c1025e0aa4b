"""Runs every benchmark in turn, and writes what came out to build/bench/*.json, docs/benchmarks.md and its pictures.

    make bench                                  all, about 20 minutes; installs the peers first
    make bench ARGS="--trace FILE ..."          with hit ratios for recorded traces; see cache_traces.py
    make bench ARGS=--quick                     three minutes, to see that all works: the page goes to build/bench-quick
    python benchmarks/run.py --only cache_latency regions
    python benchmarks/run.py --report           writes the page again from the JSON of earlier runs

Each benchmark is a script that runs alone too. One that fails, lacks its tools or takes too long does not stop the
others. The exit code is 0 also where a goal is not met: that is a finding, not an error of the run.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import plots
from measure import machine
from report import page

ROOT = Path(__file__).parents[1]
SECONDS = 900
"""No benchmark may take longer."""


@dataclass(frozen=True)
class Benchmark:
    """A script; `writes_json`: it takes --out, else what it prints is kept. `quick` None: not in a quick run."""

    name: str
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] | None = ()
    writes_json: bool = True


BENCHMARKS = (
    Benchmark("cache_latency", (), ("--rounds", "3")),
    Benchmark("cache_growth", (), ("--rounds", "3", "--entries", "1000000")),
    Benchmark("cache_threads", (), ("--rounds", "2", "--milliseconds", "60")),
    Benchmark("cache_storm", (), ("--reads", "2000000")),
    Benchmark("cache_pressure", (), ("--scale", "0.1")),
    Benchmark("cache_traces", (), ("--requests", "50000")),
    Benchmark("cache_cost", (), ("--scale", "0.3")),
    Benchmark("cache_recovery", (), ("--rounds", "1", "--miss-ms", "0", "--only", "wave")),
    Benchmark("cache_antagonist", (), ("--rounds", "1", "--waves", "2")),
    Benchmark("cache_objects", (), None, writes_json=False),
    Benchmark("random_speed", (), None),
    Benchmark("random_statistics", ("--suite", "rngtest", "--bytes", str(64 << 20)), None),
    Benchmark("regions", (), None, writes_json=False),
)


def run(benchmark: Benchmark, arguments: tuple[str, ...], directory: Path) -> bool:
    """Runs it, its output on the terminal as it comes; whether its JSON is there."""
    out = directory / f"{benchmark.name}.json"
    out.unlink(missing_ok=True)
    command = [sys.executable, "-u", str(Path(__file__).with_name(f"{benchmark.name}.py")), *arguments]
    if benchmark.writes_json:
        command += ["--out", str(out)]
    print(f"\n== {benchmark.name}", flush=True)
    start = time.monotonic()
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        late = threading.Timer(SECONDS, process.kill)
        late.start()
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
        process.wait()
        late.cancel()
    seconds = round(time.monotonic() - start, 1)
    report = {}
    if out.exists():
        report = json.loads(out.read_text())
    elif not process.returncode and not benchmark.writes_json:
        report = {"machine": machine()}
    if report:
        report |= {"printed": "".join(lines), "seconds": seconds}
        out.write_text(json.dumps(report, indent=1) + "\n")
        print(f"{benchmark.name}: {seconds:.0f} s")
    else:
        print(f"{benchmark.name} gave no figures (exit code {process.returncode})")
    return bool(report)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser.add_argument("--only", nargs="+", choices=names, help="these benchmarks; the others' JSON stays")
    parser.add_argument("--quick", action="store_true", help="few rounds, figures of no worth")
    parser.add_argument("--report", action="store_true", help="runs nothing")
    parser.add_argument("--trace", nargs="+", action="extend", default=[], metavar="[FORMAT:]FILE", help="to play")
    arguments = parser.parse_args()
    directory = ROOT / "build" / ("bench-quick" if arguments.quick else "bench")
    directory.mkdir(parents=True, exist_ok=True)
    for benchmark in () if arguments.report else BENCHMARKS:
        given = benchmark.quick if arguments.quick else benchmark.arguments
        if given is None or (arguments.only and benchmark.name not in arguments.only):
            continue
        if benchmark.name == "cache_traces":
            if not arguments.trace:
                print("\n== cache_traces\nSKIP: no trace is given (--trace FILE ...); what earlier runs wrote stays")
                continue
            given = (*given, "--trace", *arguments.trace)
        run(benchmark, given, directory)
    found = {path.stem: json.loads(path.read_text()) for path in sorted(directory.glob("*.json"))}
    if not found:
        print("no benchmark gave figures")
        return 1
    target = directory if arguments.quick else ROOT / "docs"
    pictures = plots.draw(found, target / "images")
    (target / "benchmarks.md").write_text(page(found, pictures))
    print(f"\nwritten: {os.path.relpath(target)}/benchmarks.md, {len(pictures)} pictures beside it, "
          f"{os.path.relpath(directory)}/*.json")  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
