"""`droppable serve`: one cache for all processes of a host. The server itself is the C program droppable-server.

This process becomes that program, so that signals, descriptors and the exit status are its own. With --memory it runs
it in a memory cgroup, as `droppable run` does.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from droppable._arguments import parse_size
from droppable.cli._run import NOT_FOUND, run

PROGRAM = "droppable-server"


def server_program() -> Path | None:
    """Where the program was installed with this package; None if it was not."""
    try:
        installed = files("droppable") or []
    except PackageNotFoundError:
        installed = []
    paths = [Path(str(file.locate())) for file in installed if file.name == PROGRAM]
    paths += [Path(folder) / PROGRAM for folder in (*os.get_exec_path(), str(Path(sys.executable).parent))]
    return next((path.resolve() for path in paths if os.access(path, os.X_OK)), None)


def serve(argv: Sequence[str]) -> int:
    """Becomes the server; returns only where there is none, or with --memory at its end.

    Args:
        argv: the server's options, and --memory SIZE.
    """
    parser = argparse.ArgumentParser(prog="droppable serve", add_help=False, allow_abbrev=False)
    parser.add_argument("--memory")
    parser.add_argument("--ready-fd")
    arguments, options = parser.parse_known_args(argv)
    if arguments.ready_fd is not None:
        options += ["--ready-fd", arguments.ready_fd]
    program = server_program()
    if program is None:
        print(f"droppable serve: {PROGRAM} was not installed with this package", file=sys.stderr)
        return NOT_FOUND
    if "--help" in options:
        print("droppable serve: --memory SIZE runs the server in a memory cgroup of that size. Its own options:\n")
        sys.stdout.flush()
    if arguments.memory is None:
        os.execv(program, [PROGRAM, *options])
    try:
        memory_bytes = parse_size(arguments.memory)
    except ValueError as error:
        parser.error(f"argument --memory: {error}")
    if memory_bytes == 0:
        parser.error("--memory must be more than 0")
    ready = arguments.ready_fd or ""
    is_open = ready.isdecimal() and os.path.exists(f"/proc/self/fd/{ready}")
    return run(memory_bytes, 0, [str(program), *options], [int(ready)] if is_open else ())
