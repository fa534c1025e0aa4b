"""The line of `droppable doctor` about `droppable.connect`: a server is started, read and ended."""

import subprocess
import tempfile
from pathlib import Path

from droppable import DroppableError, Feature, connect
from droppable.cli._serve import PROGRAM, server_program

_NAME = "connect"
_WAIT_SECONDS = 10.0


def connect_feature() -> Feature:
    """Whether clients can read a server's memory here, in the place of asking it; with the reason where not."""
    program = server_program()
    if program is None:
        return Feature(_NAME, False, None, f"{PROGRAM} was not installed with this package")
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _try(program, Path(folder) / "socket")
    except (OSError, DroppableError, subprocess.SubprocessError) as error:
        return Feature(_NAME, False, None, f"a server could not be tried: {error}")


def _try(program: Path, path: Path) -> Feature:
    command = [str(program), "--unix", str(path), "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            if not server.stdout.readline():  # it says where it listens, or has ended
                _, said = server.communicate(timeout=_WAIT_SECONDS)
                return Feature(_NAME, False, None, f"the server does not start: {said.strip()}")
            return _read(path)
        finally:
            server.terminate()
            server.communicate(timeout=_WAIT_SECONDS)


def _read(path: Path) -> Feature:
    with connect(path, strict=True, timeout_seconds=_WAIT_SECONDS) as cache:
        cache.set("key", b"value")
        right = cache.get("key") == b"value"
        stats = cache.stats()
    if right and stats.hits_read == 1:
        return Feature(_NAME, True, "clients read the server's memory")
    return Feature(
        _NAME, False, None, f"clients ask the server: {stats.why_not_attached or 'what was stored is not found'}"
    )
