"""What `import droppable` costs beyond what Python itself loads: processor time, and time on the clock.

    python benchmarks/import_time.py [RUNS]

Processor time is user and system time of a process that imports droppable, less that of a process that imports nothing;
the two take turns. It does not depend on what else the machine does, apart from shared caches. The time on the clock is
what Python tells of the import (`-X importtime`); on a busy machine only the least of it means something. A first run
of each leaves compiled files and a warm page cache behind.
"""

import re
import resource
import statistics
import subprocess
import sys

RUNS = 20


def children_ms() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1000


def cpu_ms(code: str) -> float:
    """User and system time of a process that runs it; no other child of this one runs meanwhile."""
    before = children_ms()
    subprocess.run([sys.executable, "-c", code], check=True)
    return children_ms() - before


def import_ms() -> float:
    command = [sys.executable, "-X", "importtime", "-c", "import droppable"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    line = re.search(r"\|\s*(\d+) \| droppable$", told, flags=re.MULTILINE)
    assert line, "Python told of no import of droppable"
    return int(line[1]) / 1000


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    import_ms()
    times = [import_ms() for _ in range(runs)]
    beyond = [cpu_ms("import droppable") - cpu_ms("pass") for _ in range(runs)]
    print(f"import droppable, of {runs} runs, beyond Python's own start:")
    print(f"processor time  median {statistics.median(beyond):.1f} ms, mean {statistics.mean(beyond):.1f} ms")
    print(f"on the clock    median {statistics.median(times):.1f} ms, least {min(times):.1f} ms")


if __name__ == "__main__":
    main()
