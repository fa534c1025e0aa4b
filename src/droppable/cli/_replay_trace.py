"""Reads what was asked for, in which order: from a list of keys, a table, or an access log. Called by `_replay`.

    KEY [SIZE [SECONDS]]                                        a list: one request a line, words with space between
    key,size,seconds                                            a table: its first line names the columns
    1.2.3.4 - - [26/Nov/2026:10:00:00 +0000] "GET /a HTTP/1.1" 200 5120 ... 0.042      an access log (Apache, nginx)

SECONDS is what computing the value takes. Of an access log, answered GETs count (status 200), and the last word of a
line is the time of the request where it is a number with a point in it, as with nginx' $request_time at the end.

The first lines decide which of the three a file is: a table begins with the names of its columns, and an access log has
a line with a time in brackets before a quote among its first hundred (the first line of a log can be anything that a
client sent). Everything else is a list.
"""

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from droppable._arguments import parse_size
from droppable.cli._replay_text import TraceError, text_lines

_LOG_MARK: Final = re.compile(r'\S+ .*\[[^\[\]]+\] "')
_LOG_LINE: Final = re.compile(
    r"\S+ (?:\S+ \S+|- .+?) \[[^\[\]]*\] "  # the address, two names, of which the second may have spaces, and the time
    r'"(\S+) ((?:[^"\\]|\\.)+?)(?: HTTP/[0-9.]+)?" '  # the request; Apache writes a quote in it with a backslash
    r"([0-9]{3}) ([0-9]{1,18}|-)(?:\s(.*)|$)"
)
_LOG_SECONDS: Final = re.compile(r"[0-9]{1,9}\.[0-9]+")
_SEPARATORS: Final = ",;\t"
_COLUMNS: Final = ("key", "size", "seconds")
_LEADING: Final = 100
_MOST_SECONDS: Final = 9e9
"""285 years, as the most of all times of the package."""
_MOST_SHOWN: Final = 60
_HINT: Final = (
    "A line is KEY, KEY SIZE or KEY SIZE SECONDS. If keys have spaces, write a table with commas, whose first line is "
    "key,size,seconds. Or give an access log in the common or the combined format"
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request: for which key, how many bytes its value has, and how long it takes to compute it."""

    key: str
    size_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Trace:
    """The requests of a file in their order.

    skipped: lines of an access log that are no answered GET. form: what the file was read as: "a list", "a table", "an
    access log".
    """

    requests: list[Request]
    skipped: int
    form: str

    @property
    def has_seconds(self) -> bool:
        """Whether the file says what computing takes."""
        return any(request.seconds for request in self.requests)


def read_trace(path: Path, size_bytes: int) -> Trace:
    """The requests of a file.

    Args:
        path: of the file; it is opened once, and may be a pipe.
        size_bytes: of values whose size the file does not say.

    Raises:
        TraceError: a line cannot be read, or there is none, or the file is packed and damaged.
        OSError: the file cannot be read.
    """
    with text_lines(path) as lines:
        leading = []
        for line in lines:
            leading += [line]
            if line.strip() and len(leading) >= _LEADING:
                break
        separator = _separator_of_table(leading)
        is_log = separator is None and any(map(_LOG_MARK.match, leading))
        lines = chain(leading, lines)
        if separator is not None:
            trace = Trace(list(_of_table(lines, separator, size_bytes)), 0, "a table")
        elif is_log:
            found = [_of_log(line) for line in lines if line.strip()]
            requests = [request for request in found if request is not None]
            trace = Trace(requests, len(found) - len(requests), "an access log")
        else:
            trace = Trace(list(_of_list(lines, size_bytes)), 0, "a list")
    if not trace.requests:
        why = "it has lines of an access log, but no GET answered with 200 in the common or the combined format"
        raise TraceError(f"{path} has no request in it: {why if is_log else 'it is empty'}")
    return trace


def _separator_of_table(leading: list[str]) -> str | None:
    """What stands between the columns, if the first line that is not blank names them.

    Raises:
        TraceError: it is a later line that names them.
    """
    full = ((number, line) for number, line in enumerate(leading, 1) if line.strip())
    for place, (number, line) in enumerate(full):
        for separator in _SEPARATORS:
            ours = set(_COLUMNS).intersection(_names(line, separator))
            if "key" in ours and place == 0:
                return separator
            if "key" in ours and len(ours) > 1:
                raise TraceError(f"line {number}: this names the columns of a table; remove the lines before it")
    return None


def _names(line: str, separator: str) -> list[str]:
    """The names of columns that a line has, if it is one of a table."""
    try:
        row = next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])
    except csv.Error:
        return []
    return list(map(_name, row))


def _name(word: str) -> str:
    """The name of a column, without what may stand around it: other quotes than those of csv, the mark of UTF-8."""
    return word.strip(" \t'`\ufeff").lower()


def _of_log(line: str) -> Request | None:
    match = _LOG_LINE.match(line)
    if match is None or match[1] != "GET" or match[3] != "200":
        return None
    took = _LOG_SECONDS.fullmatch(((match[5] or "").split() or [""])[-1])
    return Request(match[2], 0 if match[4] == "-" else int(match[4]), float(took[0]) if took else 0.0)


def _of_table(lines: Iterator[str], separator: str, size_bytes: int) -> Iterator[Request]:
    rows = csv.reader(lines, delimiter=separator, skipinitialspace=True, strict=True)
    names: list[str] = []
    places: list[int] = []
    while True:
        number = rows.line_num + 1
        try:
            row = [word.strip(" \t") for word in next(rows)]
        except StopIteration:
            return
        except csv.Error as error:
            raise TraceError(f"line {number}: {error}. Is a quote missing that ends a value?") from None
        if row in ([], [""]):
            continue
        if len(names) > 1 and list(map(_name, row)) == names:
            continue  # of a file that was joined to this one
        if not names:
            names = list(map(_name, row))
            twice = [name for name in _COLUMNS if names.count(name) > 1]
            if twice:
                raise TraceError(f"line {number}: two columns are named {twice[0]!r}; rename one of them")
            places = [names.index(name) if name in names else len(names) for name in _COLUMNS]
            continue
        if len(row) > len(names):
            raise TraceError(
                f"line {number}: {len(row)} values, but the first line names {len(names)}. "
                f"Put quotes around a key that has a {separator!r} in it"
            )
        row += [""] * (len(names) + 1 - len(row))
        key, size, seconds = (row[place] for place in places)
        yield _request(number, key, size, seconds, size_bytes)


def _of_list(lines: Iterator[str], size_bytes: int) -> Iterator[Request]:
    for number, line in enumerate(lines, 1):
        words = re.split("[ \t]+", line.strip(" \t\r\n\f\v"))
        if words == [""]:
            continue
        if len(words) > len(_COLUMNS):
            raise TraceError(f"line {number}: these are {len(words)} words, {_shown(line.strip())}. {_HINT}")
        try:
            key, size, seconds = [*words, "", ""][: len(_COLUMNS)]
            yield _request(number, key, size, seconds, size_bytes)
        except TraceError as error:
            raise TraceError(f"{error}. {_HINT}") from None


def _request(number: int, key: str, size: str, seconds: str, default_bytes: int) -> Request:
    if not key:
        raise TraceError(f"line {number}: the key is missing")
    if "\0" in key:
        raise TraceError(f"line {number}: the key has a byte 0 in it, {_shown(key)}. Is this a text file?")
    try:
        size_bytes = parse_size(size) if size else default_bytes
    except ValueError:
        must_be = "must be bytes, or a number with K, M, G or T, and less than 2**62 bytes"
        raise TraceError(f"line {number}: SIZE {must_be}; you gave {_shown(size)}") from None
    try:
        spent = float(seconds) if seconds else 0.0
    except ValueError:
        spent = -1.0
    if not 0 <= spent <= _MOST_SECONDS:
        raise TraceError(f"line {number}: SECONDS must be a number from 0 to 9e9; you gave {_shown(seconds)}")
    return Request(key, size_bytes, spent)


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "...")
