"""Reads the arguments of the command line, and calls the command that they name."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

from droppable._arguments import parse_size
from droppable.cli._doctor import doctor
from droppable.cli._replay import replay
from droppable.cli._run import FAILED, run
from droppable.cli._serve import serve
from droppable.cli._top import top
from droppable.lowlevel import page_size_bytes

_MEMORIES = "64M,128M,256M,512M"


class _CommandParser(argparse.ArgumentParser):
    """Wrong arguments of `run` end with 125, as those of timeout(1): its command may use any other status itself."""

    def error(self, message: str) -> NoReturn:
        if not self.prog.endswith(" run"):
            super().error(message)
        self.print_usage(sys.stderr)
        self.exit(FAILED, f"{self.prog}: error: {message}\n")


def _size(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _sizes(text: str) -> list[int]:
    try:
        sizes = sorted({_size(word) for word in text.split(",") if word})
    except argparse.ArgumentTypeError as error:
        if " " not in text.strip():
            raise
        raise argparse.ArgumentTypeError(f"{error}. Between sizes write commas, as in {_MEMORIES}") from None
    if not sizes:
        raise argparse.ArgumentTypeError(f"{text!r} is no list of sizes: write them as in {_MEMORIES}")
    if sizes[0] < page_size_bytes():
        raise argparse.ArgumentTypeError(
            f"{text!r} has a size of {sizes[0]} bytes, and the least is a page of {page_size_bytes()} bytes. "
            f"Write megabytes with an M, as in {_MEMORIES}"
        )
    return sizes


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status; wrong arguments raise SystemExit: 125 those of `run`, else 2.

    Args:
        argv: the arguments after the program's name; by default those of this process.
    """
    parser = argparse.ArgumentParser(prog="droppable", description="Memory that the kernel may take back.")
    parser.add_argument("--version", action="store_true", help="print droppable's version and exit")
    commands = parser.add_subparsers(dest="name", metavar="COMMAND", parser_class=_CommandParser)

    about = "what this kernel, cgroup and Python give, each with the reason where not"
    doctor_parser = commands.add_parser("doctor", help=about, description=f"Prints {about}.")
    doctor_parser.add_argument("--json", action="store_true", help="one JSON object, for programs")

    about = "a command in a memory cgroup of its own"
    run_parser = commands.add_parser(
        "run",
        help=f"run {about}",
        usage="droppable run [-h] --memory SIZE [--swap SIZE] [--] COMMAND ...",
        description=f"Runs {about}, and tells its peak memory, drops and OOM kills at the end, on standard error. "
        "Sizes are bytes, or numbers with K, M, G or T (powers of 1024).",
        epilog="Exit status: the command's own; 128 + N if signal N ended it; 125 if an argument is wrong or no "
        "cgroup can be made, 126 if the command cannot be run, 127 if there is no such command.",
    )
    run_parser.add_argument("--memory", type=_size, required=True, metavar="SIZE", help="the hard limit")
    run_parser.add_argument("--swap", type=_size, default=0, metavar="SIZE", help="swap beyond that (default: 0)")
    run_parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...", help="what to run")

    about = "what a cache would save, with more and more memory"
    replay_parser = commands.add_parser(
        "replay",
        help=f"{about}, of the requests in a file",
        description=f"Tells {about}: plays the requests in a file on a real cache, and on other policies.",
        epilog='The file has a request a line: "KEY", "KEY SIZE" or "KEY SIZE SECONDS", where SECONDS is what '
        "computing the value takes; or it is a table with the columns key, size and seconds, separated by commas, "
        "named in its first line; or an access log of Apache or nginx, whose lines may end with the request's seconds. "
        "It may be packed by gzip, and may be a pipe, as in: zcat access.log.*.gz | droppable replay -",
    )
    replay_parser.add_argument("trace", type=Path, metavar="TRACE", help="the file, or a pipe; -: standard input")
    replay_parser.add_argument(
        "--memory", type=_sizes, default=_sizes(_MEMORIES), metavar="SIZES", help=f"to try (default: {_MEMORIES})"
    )
    replay_parser.add_argument(
        "--size", type=_size, default=4096, metavar="SIZE", help="of a value whose size is not given (default: 4K)"
    )
    replay_parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it too (.svg, .png; needs matplotlib)")
    replay_parser.add_argument("--json", action="store_true", help="one JSON object, for programs")

    commands.add_parser("serve", help="one cache for all processes of this host, for clients of memcached and Redis")

    about = "which processes have memory that the kernel may take, and their caches"
    top_parser = commands.add_parser("top", help=about, description=f"Shows {about}.")
    top_parser.add_argument("pid", nargs="?", type=int, metavar="PID", help="this process alone")
    top_parser.add_argument("--once", action="store_true", help="one report as text, and no more")
    top_parser.add_argument("--json", action="store_true", help="with --once: one JSON object, for programs")
    top_parser.add_argument(
        "--interval", type=float, default=2.0, metavar="SECONDS", help="between two reports (default: 2)"
    )

    words = sys.argv[1:] if argv is None else argv
    if list(words[:1]) == ["serve"]:  # the server reads its options by itself
        return serve(words[1:])
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        whose = run_parser if arguments.name == "run" else parser
        whose.error(f"unrecognized arguments: {' '.join(unknown)}")
    if arguments.version:
        return _printed(lambda: print(f"droppable {version('droppable')}"))
    if arguments.name is None:
        parser.error("a COMMAND is missing: doctor, replay, run, serve or top")
    if arguments.name == "doctor":
        return _printed(lambda: doctor(as_json=arguments.json))
    if arguments.name == "replay":
        asked = arguments
        return _printed(lambda: replay(asked.trace, asked.memory, asked.size, asked.json, asked.plot))
    if arguments.name == "top":
        if arguments.pid is not None and arguments.pid < 1:
            top_parser.error(f"PID must be 1 or more; you gave {arguments.pid}")
        if arguments.json and not arguments.once:
            top_parser.error("--json goes with --once")
        if not 0 < arguments.interval <= 86400:
            top_parser.error(f"--interval must be more than 0, and a day at most; you gave {arguments.interval}")
        return _printed(lambda: top(arguments.pid, arguments.once, arguments.json, arguments.interval))
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    if not command:
        run_parser.error("a command to run is missing, as in: droppable run --memory 256M -- python3 program.py")
    if arguments.memory < page_size_bytes():
        run_parser.error(f"--memory must be more than 0, and at least one page: {page_size_bytes()} bytes")
    return run(arguments.memory, arguments.swap, command)


def _printed(call: Callable[[], object]) -> int:
    """call() prints on standard output. Its status, if it gives one; 1 if that cannot be written to, or a file read."""
    if sys.stdout is None:  # it was closed when we were started
        print("droppable: standard output cannot be written to: it is closed", file=sys.stderr)
        return 1
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding does not have
    try:
        status = call()
        sys.stdout.flush()
    except OSError as error:
        if error.filename is not None:  # not standard output: no descriptors are left to open this one
            print(f"droppable: {error.filename}: {error.strerror}", file=sys.stderr)
            return 1
        if not isinstance(error, BrokenPipeError):
            print(f"droppable: standard output cannot be written to: {error.strerror}", file=sys.stderr)
        # What is left in the buffer must not be tried again at the exit, which would fail as well and say so.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
        return 1
    return status if isinstance(status, int) else 0
