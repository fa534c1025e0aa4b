"""`make models`: goes through all models, then sees to it that each seeded bug is found.

ARGS="--small" takes the configurations that pytest runs; ARGS="readers" takes what has this word in its name;
ARGS="--traces" prints the way to each seeded bug, step by step.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor

from . import suite
from .machine import Result, check

WIDTH = 62


def check_number(is_small: bool, number: int) -> Result:
    """Models hold functions that do not travel between processes: their numbers do."""
    return check(list(suite.small() if is_small else suite.every())[number])


def check_seeded(number: int) -> Result:
    return check(list(suite.seeded())[number].model)


def main() -> int:
    parser = argparse.ArgumentParser(prog="make models")
    parser.add_argument("word", nargs="*", help="only what has these words in its name")
    parser.add_argument("--small", action="store_true", help="the configurations that pytest runs")
    parser.add_argument("--traces", action="store_true", help="print the way to each seeded bug")
    asked = parser.parse_args()
    word = " ".join(asked.word)
    models = list(suite.small() if asked.small else suite.every())
    numbers = [i for i, model in enumerate(models) if word in model.name]
    bugs = list(suite.seeded())
    bug_numbers = [i for i, bug in enumerate(bugs) if word in f"{bug.protocol} {bug.bug}"]
    failed = 0
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        proofs = [pool.submit(check_number, asked.small, i) for i in numbers]
        hunts = [pool.submit(check_seeded, i) for i in bug_numbers]
        print(f"{'configuration':{WIDTH}} {'states':>9} {'steps':>9} {'longest call':>12} {'CPU s':>7}", flush=True)
        for future in proofs:
            result = future.result()
            print(f"{result.model:{WIDTH}} {result.states:9,} {result.steps:9,}", end=" ")
            print(f"{result.longest:12} {result.seconds:7.1f}", flush=True)
            if result.wrong:
                failed += 1
                print(f"WRONG: {result.wrong}", *result.trace, sep="\n")
        print(f"\n{'seeded bug':{WIDTH}} {'states':>9} {'CPU s':>7}")
        for i, future in zip(bug_numbers, hunts, strict=True):
            result, bug = future.result(), bugs[i]
            print(f"{bug.protocol + ': ' + bug.bug:{WIDTH}} {result.states:9,} {result.seconds:7.1f}  ", end="")
            print(result.wrong or "NOT FOUND", flush=True)
            failed += not result.wrong
            if asked.traces:
                print(f"  {bug.what}", *result.trace, "", sep="\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
