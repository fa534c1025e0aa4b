"""How long `import droppable` takes beyond what Python itself has loaded, in several processes.

    python benchmarks/import_time.py [RUNS]

Python tells it (`-X importtime`), after a first run that leaves compiled files and a warm page cache behind.
"""

import re
import statistics
import subprocess
import sys

RUNS = 20


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
    print(f"import droppable, of {runs} runs: median {statistics.median(times):.1f} ms, least {min(times):.1f} ms")


if __name__ == "__main__":
    main()
