"""Instructions of one get, set and decorator hit, counted by callgrind: a busy machine does not change them.

    python benchmarks/cache_instructions.py                         of the package installed for this Python
    python benchmarks/cache_instructions.py --against PYTHON        and the ratio to the one installed for another

Hits of methods whose identity was declared come last, and hits while the metrics are exported to Prometheus and to
`droppable top`, with the ratio to a function's hit. Those need prometheus_client.

Counted is what happens inside the binding's entry points (ENTRIES), less the looks at memory limits (LOOKS). Those come
by the clock, and a program under valgrind runs some fifty times as long: it would be charged fifty times as many. Nor
is the question which processor this is counted: the C library answers it with one load, but not under valgrind, where
it has no rseq and asks the kernel's page instead. Each figure is the difference between two runs, one of which does
COUNT operations more, divided by COUNT. It needs valgrind and a package that was not stripped.
"""

import argparse
import re
import shutil
import subprocess
import sys

COUNT = 20_000

ENTRIES = (
    "cache_object_get",
    "cache_object_set",
    "memo_call",
    "cache_object_get_many",
    "cache_object_touch",
    "cache_object_incr",
)
LOOKS = ("prim_headroom", "prim_headroom_again", "prim_resident", "prim_cpu")

SETUP = """
import sys
import droppable
import numpy
count = int(sys.argv[1])
cache = droppable.Cache()
small, page = bytes(range(1, 101)), bytes([7]) * 4096
array = numpy.ones(131072)
names = [f"name {i}" for i in range(1000)]
pages = [("page", i) for i in range(1000)]
cache.set("array", array)
@droppable.cache
def function(text):
    return small
for name, key in zip(names, pages):
    cache.set(name, small)
    cache.set(key, page)
    function(name)
"""

# A thousand keys each: what a single one costs depends on where its hash places it, which is keyed anew for each cache.
OPERATIONS = {
    "get, 100 B": "for i in range(count): cache.get(names[i % 1000])",
    "get, 4 KB": "for i in range(count): cache.get(pages[i % 1000])",
    "get, hot 1 MB array": "for _ in range(count): cache.get('array')",
    "get, absent": "for i in range(count): cache.get(i)",
    "set, 100 B": "for i in range(count): cache.set(i, small)",
    "set, 100 B, replaced": "for i in range(count): cache.set(names[i % 1000], small)",
    "set, 4 KB, replaced": "for i in range(count): cache.set(pages[i % 1000], page)",
    "decorator hit": "for i in range(count): function(names[i % 1000])",
    "touch": "for i in range(count): cache.touch(names[i % 1000], 3600)",
    "incr": "for i in range(count): cache.incr(i % 1000, initial=0)",
    # of each key; what 100 calls of get() cost beside, and a dict of theirs, is Python's and not counted
    "get_many, 100 x 100 B": "for i in range(0, count, 100): cache.get_many(names[i % 1000:i % 1000 + 100])",
}

METHODS_SETUP = """
class Model:
    def __init__(self, number):
        self.number = number
    @droppable.cache
    def by_value(self, text):
        return small
    @droppable.cache(self_key="number")
    def by_attribute(self, text):
        return small
    @droppable.cache(self_key=droppable.INSTANCE)
    def by_instance(self, text):
        return small
class Heir(Model):
    pass
models = [Model(i) for i in range(1000)]
heirs = [Heir(i) for i in range(1000)]
pickled = [Model(i) for i in range(1000)]  # whose attributes pickle moved to a dict, where each look-up takes longer
for model, heir, other, name in zip(models, heirs, pickled, names):
    model.by_attribute(name), model.by_instance(name), heir.by_attribute(name), other.by_value(name)
"""
METHODS = {
    "method hit, by attribute": "for i in range(count): models[i % 1000].by_attribute(names[i % 1000])",
    "method hit, of an heir": "for i in range(count): heirs[i % 1000].by_attribute(names[i % 1000])",
    "method hit, by instance": "for i in range(count): models[i % 1000].by_instance(names[i % 1000])",
    "method hit, by value": "for i in range(count): pickled[i % 1000].by_value(names[i % 1000])",
}

METRICS_SETUP = """
droppable.metrics.prometheus()
droppable.metrics.publish()
"""
METRICS = {"decorator hit, metrics on": OPERATIONS["decorator hit"]}


def collected(python: str, operation: str, count: int) -> int:
    """All instructions of a run with that many operations."""
    names = [spelled for name in (*ENTRIES, *LOOKS) for spelled in (name, f"{name}.lto_priv.*")]  # as the linker chose
    toggles = [f"--toggle-collect={name}" for name in names]
    valgrind = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *toggles]
    command = [*valgrind, python, "-c", SETUP + operation, str(count)]
    run = subprocess.run(command, capture_output=True, text=True, env={"PYTHONHASHSEED": "0"}, check=False)
    found = re.search(r"Collected : (\d+)", run.stderr)
    if "AttributeError" in run.stderr:
        raise AttributeError(operation)
    if run.returncode != 0 or found is None:
        sys.exit(f"callgrind did not run to its end:\n{run.stderr[-2000:]}")
    return int(found[1])


def per_operation(python: str, operation: str) -> float:
    base = collected(python, operation, COUNT)
    counted = (collected(python, operation, 2 * COUNT) - base) / COUNT
    if counted <= 0:
        sys.exit("no instruction of an entry point was counted: was the package stripped?")
    return counted


def main() -> None:
    parser = argparse.ArgumentParser(description="Instructions of a get, a set, a decorator hit.")
    parser.add_argument("--against", metavar="PYTHON", help="a Python with another version of the package")
    parser.add_argument("--only", default="", help="only operations whose name has this text")
    options = parser.parse_args()
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not there (Debian and Ubuntu: apt-get install valgrind)")
    print(f"{'operation':28}{'instructions':>14}" + (f"{'other':>10}{'ratio':>8}" if options.against else ""))
    for name, operation in OPERATIONS.items():
        if options.only not in name:
            continue
        here = per_operation(sys.executable, operation)
        line = f"{name:28}{here:14.0f}"
        if options.against:
            try:
                other = per_operation(options.against, operation)
                line += f"{other:10.0f}{here / other:8.3f}"
            except AttributeError:
                line += f"{'not there':>10}"
        print(line, flush=True)
    function = per_operation(sys.executable, OPERATIONS["decorator hit"])
    for name, operation in (*METHODS.items(), *METRICS.items()):
        if options.only in name:
            setup = METHODS_SETUP if name in METHODS else METRICS_SETUP
            here = per_operation(sys.executable, setup + operation)
            print(f"{name:28}{here:14.0f}{here / function:10.3f} of a function's hit", flush=True)


if __name__ == "__main__":
    main()
