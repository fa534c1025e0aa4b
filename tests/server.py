"""A server of one test, which may be killed, stopped and started anew: the fixture `server` of conftest.py."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from droppable.cli._serve import server_program
from tests.unit.test_serve import wait_until


class Server:
    """Listens at one path, whenever it is started."""

    def __init__(self, path: Path, *options: str) -> None:
        self.path = path
        self.start(*options)

    def start(self, *options: str) -> None:
        program = server_program()
        assert program is not None
        argv = [str(program), "--unix", str(self.path), *options]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"{self.path}\n"

    @contextmanager
    def stopped(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGSTOP)
        try:
            wait_until(lambda: Path(f"/proc/{self.process.pid}/stat").read_text().split(") ")[1][0] == "T")
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
