"""Programs of the C core that are measured from outside, built as it ships. Called by cache_threads and cache_storm."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def core_program(name: str, directory: Path) -> Path | None:
    """csrc/tests/NAME.c, built; None: it cannot be built here, and why is printed. `directory`: for the log."""
    meson = Path(sys.executable).with_name("meson")
    build = ROOT / "build" / "bench-core"
    log = directory / "log"
    with log.open("w") as file:
        for command in (
            [meson, "setup", build, ROOT, "-Dpython=false", "-Dtests=true"] if not build.exists() else None,
            [meson, "compile", "-C", build, name],
        ):
            if command is None:
                continue
            environment = os.environ | {"PATH": f"{meson.parent}:{os.environ['PATH']}"}
            try:
                done = subprocess.run(command, cwd=ROOT, stdout=file, stderr=file, env=environment, check=False)
            except OSError as error:
                print(f"SKIP the C core: {error}")
                return None
            if done.returncode:
                print(f"SKIP the C core: it does not build here\n{log.read_text()[-2000:]}")
                return None
    return build / "csrc" / "tests" / name
