r"""The lines of a text file, or of a pipe, also where gzip has packed it. Called by `_replay_trace`.

    bytes  ->  unpacked, if they begin as those of gzip do  ->  UTF-8, or UTF-16 with its mark  ->  lines

A byte that is no UTF-8 becomes its number, as in "\xe9", so that two keys in Latin-1 stay two.
"""

import codecs
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final, cast

_GZIP: Final = b"\x1f\x8b"
_OTHERS: Final = {
    rb"BZh[1-9]1AY&": "bzcat",
    rb"\xfd7zXZ\x00": "xzcat",
    rb"\x28\xb5\x2f\xfd": "zstdcat",
    rb"\x04\x22\x4d\x18": "lz4cat",
    rb"PK\x03\x04": "unzip -p",
}
"""What files begin with that other programs packed (expressions of re), and what unpacks them."""
_LONGEST: Final = 1 << 24
"""Characters of a line: a file without line ends, as /dev/zero, must not fill the memory."""


class TraceError(ValueError):
    """What cannot be read; the message has the line's number, where there is one, and what to do."""


@contextmanager
def text_lines(path: Path) -> Iterator[Iterator[str]]:
    """The lines of a file, with their ends. The file is opened once; what is a pipe is kept whole while it is read.

    Raises:
        TraceError: it is packed and damaged, or packed in another way than by gzip, or has a line of 16 MB. The
            iterator raises it too.
        OSError: it cannot be read.
    """
    with path.open("rb") as opened:
        file: IO[bytes] = opened if opened.seekable() else io.BytesIO(opened.read())
        begin = file.read(8)
        file.seek(0)
        packed = begin.startswith(_GZIP)
        if packed:
            import gzip

            file = cast("IO[bytes]", gzip.GzipFile(fileobj=file))
            try:
                begin = file.read(8)
                file.seek(0)
            except (EOFError, OSError, zlib.error) as error:
                raise _damaged(path, error) from None
        for magic, program in _OTHERS.items():
            if re.match(magic, begin):
                raise TraceError(
                    f"{path} is packed, and not by gzip. Unpack it: {program} FILE | droppable replay /dev/stdin"
                )
        is_wide = begin.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        encoding = "utf-16" if is_wide else "utf-8-sig"  # without the mark that some programs begin a file with
        with io.TextIOWrapper(file, encoding, errors="backslashreplace", newline="") as text:
            yield _lines(path, text, packed)


def _lines(path: Path, text: IO[str], packed: bool) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        try:
            line = text.readline(_LONGEST)
        except (EOFError, OSError, zlib.error) as error:
            if not packed:
                raise
            raise _damaged(path, error) from None
        if not line:
            return
        if len(line) == _LONGEST:
            raise TraceError(f"line {number}: more than {_LONGEST - 1} characters. Is this a text file?")
        yield line


def _damaged(path: Path, error: Exception) -> TraceError:
    return TraceError(
        f"{path} is packed by gzip, and damaged: {error}. "
        "To use what can still be unpacked: gzip -dc FILE | droppable replay /dev/stdin"
    )
