"""Reads what was asked for, in which order: from a list of keys, a table, or an access log. Called by `_replay`.

    KEY [SIZE [SECONDS]]                                        a list: one request a line, words with space between
    key,size,seconds                                            a table: comma-separated, its first line names columns
    1.2.3.4 - - [26/Nov/2026:10:00:00 +0000] "GET /a HTTP/1.1" 200 5120 ... 0.042      an access log (Apache, nginx)

SECONDS is what computing the value takes. Of an access log, answered GETs count (status 200), and the last word of a
line is the time of the request where it is a number with a point in it, as with nginx' $request_time at the end.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from droppable._arguments import parse_size

_LOG_LINE: Final = re.compile(r'\S+ \S+ \S+ \[[^\]]*\] "(\S+) (\S+)[^"]*" (\d{3}) (\d+|-)(.*)')
_LAST_SECONDS: Final = re.compile(r"\s(\d+\.\d+)\s*$")
_GZIP_MAGIC: Final = b"\x1f\x8b"
_COLUMNS: Final = ("key", "size", "seconds")
LARGEST_BYTES: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class Request:
    """One request: for which key, how many bytes its value has, and how long it takes to compute it."""

    key: str
    size_bytes: int
    seconds: float


class TraceError(ValueError):
    """A line that cannot be read; the message has its number and what was expected."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The requests of a file in their order. skipped: lines of an access log that are no answered GET."""

    requests: list[Request]
    skipped: int

    @property
    def has_seconds(self) -> bool:
        """Whether the file says what computing takes."""
        return any(request.seconds for request in self.requests)


def read_trace(path: Path, size_bytes: int) -> Trace:
    """The requests of a file.

    Args:
        path: of the file.
        size_bytes: of values whose size the file does not say.

    Raises:
        TraceError: a line cannot be read, or there is none. OSError, EOFError: the file cannot be read.
    """
    with _open(path) as lines:
        first = next((line for line in lines if line.strip()), "")
        lines.seek(0)
        if _LOG_LINE.match(first):
            found = [_of_log(line) for line in lines if line.strip()]
            requests = [request for request in found if request is not None]
            trace = Trace(requests, len(found) - len(requests))
        elif "key" in [name.strip().lower() for name in first.split(",")]:
            trace = Trace(list(_of_table(lines, size_bytes)), 0)
        else:
            trace = Trace(list(_of_list(lines, size_bytes)), 0)
    if not trace.requests:
        raise TraceError(f"{path} has no request in it")
    return trace


def _open(path: Path) -> IO[str]:
    """The file's text, also where gzip has packed it, as logs are after a day."""
    with path.open("rb") as file:
        is_packed = file.read(2) == _GZIP_MAGIC
    encoding = "utf-8-sig"  # without the mark that some programs begin a file with
    if is_packed:
        import gzip

        return gzip.open(path, "rt", encoding=encoding, errors="replace", newline="")
    return path.open(encoding=encoding, errors="replace", newline="")


def _of_log(line: str) -> Request | None:
    match = _LOG_LINE.match(line)
    if match is None or match[1] != "GET" or match[3] != "200" or match[4] == "-":
        return None
    took = _LAST_SECONDS.search(match[5])
    return Request(match[2], min(int(match[4]), LARGEST_BYTES), float(took[1]) if took else 0.0)


def _of_table(lines: Iterable[str], size_bytes: int) -> Iterator[Request]:
    reader = csv.DictReader(lines)
    reader.fieldnames = [name.strip().lower() for name in reader.fieldnames or ()]
    for number, row in enumerate(reader, 2):
        words = [(row.get(name) or "").strip() for name in _COLUMNS]
        yield _request(number, words, size_bytes)


def _of_list(lines: Iterable[str], size_bytes: int) -> Iterator[Request]:
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield _request(number, [*line.split(), "", ""], size_bytes)


def _request(number: int, words: list[str], default_bytes: int) -> Request:
    key, size, seconds = words[:3]
    given = " ".join(words).strip()
    try:
        size_bytes = parse_size(size) if size else default_bytes
        spent = float(seconds) if seconds else 0.0
    except ValueError:
        raise TraceError(f"line {number}: a line is KEY [SIZE [SECONDS]]; you gave {given!r}") from None
    if not key or not 0 <= spent < float("inf"):
        raise TraceError(f"line {number}: a key, and seconds of 0 or more, are missing in {given!r}")
    return Request(key, min(size_bytes, LARGEST_BYTES), spent)
