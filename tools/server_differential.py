"""Asks `droppable serve` and a real memcached, or a Redis, the same random commands, and compares the answers.

    .venv/bin/python tools/server_differential.py memcached --commands 100000 --seed 7

The commands, and the differences that are meant, are those of tests/unit/test_serve_differential.py and
test_serve_redis_differential.py, which ask fewer. The first other difference ends it, with status 1 and the last
commands.
"""

import argparse
import contextlib
import importlib
import sys
from pathlib import Path

TOP = Path(__file__).parents[1]
sys.path[:0] = [str(TOP / "tests" / "suites"), str(TOP / "tests" / "unit")]

MODULES = {"memcached": "test_serve_differential", "redis": "test_serve_redis_differential"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=[*MODULES])
    parser.add_argument("--commands", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    running = importlib.import_module("servers").running
    compare = importlib.import_module(MODULES[arguments.peer]).compare
    with contextlib.ExitStack() as stack:
        theirs = stack.enter_context(running(arguments.peer, at_socket=True))
        ours = stack.enter_context(running("droppable"))
        try:
            compare(Path(theirs.path), Path(ours.path), arguments.seed, arguments.commands)
        except AssertionError as difference:
            print(difference)
            return 1
    print(f"{arguments.peer}: {arguments.commands} commands from seed {arguments.seed}: no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
