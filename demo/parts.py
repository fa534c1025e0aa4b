"""The parts: worker and neighbours as processes, in one memory cgroup where one can be made. Called by service.py.

service --+-- worker        pipe: requests served, stops      |
          +-- neighbour 1   pipe: bytes to hold, bytes held   |  all in one memory cgroup, a new one for each run
          +-- neighbour 2                                     |
"""

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from droppable._cgroup import MemoryCgroup

NEIGHBOURS = 2
MOMENT_SECONDS = 5.0
"""A wave is shared among so many processes, so that the OOM killer, which takes the biggest, has a plain choice."""

_HERE = Path(__file__).parent


class Parts:
    """The programs, from `with` to the end of its block; then they are gone, and the cgroup with them."""

    def __init__(self, task: dict[str, Any], directory: Path, limit_bytes: int | None, wave_bytes: int) -> None:
        """Starts them.

        Args:
            task: what the worker is told (see worker.py).
            directory: where that is written down.
            limit_bytes: of the cgroup; None: no cgroup.
            wave_bytes: the most that the neighbours will be asked to hold.

        Raises:
            CgroupUnavailableError: no cgroup can be made here.
        """
        self.group: MemoryCgroup | None = None
        with ExitStack() as stack:
            if limit_bytes is not None:
                self.group = stack.enter_context(MemoryCgroup.create(limit_bytes))
            directory.mkdir(parents=True, exist_ok=True)
            task_file = directory / "task.json"
            task_file.write_text(json.dumps(task))
            share_bytes = wave_bytes // NEIGHBOURS
            self._neighbours = [self._start(stack, "neighbour.py", str(share_bytes)) for _ in range(NEIGHBOURS)]
            self._worker = self._start(stack, "worker.py", str(task_file))
            self._stack = stack.pop_all()

    def _start(self, stack: ExitStack, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(_HERE / arguments[0]), *arguments[1:]]
        start = self.group.popen if self.group else subprocess.Popen
        part: subprocess.Popen[str] = start(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(_stop, part)
        return part

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def event(self) -> list[Any] | None:
        """What the worker says next; None when it is gone."""
        line = _answer(self._worker)
        return list(json.loads(line)) if line else None

    def go(self, room_bytes: int) -> None:
        """Lets the worker go on after a stop, with so much room for its cache."""
        _tell(self._worker, room_bytes)

    def worker_has_ended(self) -> bool:
        """Whether it is gone, or goes within a moment: whoever was killed first may be the last to be seen gone."""
        try:
            self._worker.wait(MOMENT_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        return True

    def hold(self, wave_bytes: int) -> bool:
        """Has the neighbours hold so much in all; returns when they do, or False when one of them is gone."""
        for neighbour in self._neighbours:
            _tell(neighbour, wave_bytes // NEIGHBOURS)
        return all([_answer(neighbour) for neighbour in self._neighbours])


def _tell(part: subprocess.Popen[str], number: int) -> None:
    assert part.stdin
    try:
        part.stdin.write(f"{number}\n")
        part.stdin.flush()
    except BrokenPipeError:
        pass  # it is gone; the one who waits for its answer will see


def _answer(part: subprocess.Popen[str]) -> str:
    """A whole line, or nothing when the part is gone, also in the middle of a line."""
    assert part.stdout
    line = part.stdout.readline()
    return line if line.endswith("\n") else ""


def _stop(part: subprocess.Popen[str]) -> None:
    part.kill()
    for pipe in (part.stdin, part.stdout):
        try:
            if pipe:
                pipe.close()
        except BrokenPipeError:
            pass  # what it did not read any more
    part.wait()
