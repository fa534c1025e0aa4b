"""What `droppable replay` reads: lists, tables and access logs, packed or not, and what it says of other files."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from droppable.cli import main
from droppable.cli._replay_text import TraceError
from droppable.cli._replay_trace import Request, Trace, read_trace

AT = "[26/Nov/2026:10:00:00 +0000]"
ONE_KEY = Trace([Request("a", 5, 0.0)] * 2, 0, "a table")


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(content: str | bytes) -> Path:
        path = tmp_path / "trace"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write


def test_lists_of_requests(write: Any) -> None:
    assert read_trace(write("a\n\nb 2K\nc\t10   0.5 \n"), 7) == Trace(
        [Request("a", 7, 0.0), Request("b", 2048, 0.0), Request("c", 10, 0.5)], 0, "a list"
    )


def test_spaces_of_other_alphabets_belong_to_the_key(write: Any) -> None:
    trace = read_trace(write("/a\u00a0b 5\n/a\u2028c 5\n\u3000 5\n"), 7)
    assert [request.key for request in trace.requests] == ["/a\u00a0b", "/a\u2028c", "\u3000"]


def test_sizes_are_kept_as_they_are(write: Any) -> None:
    assert [request.size_bytes for request in read_trace(write("a 1T\nb 0\n"), 7).requests] == [1 << 40, 0]


def test_tables(write: Any) -> None:
    assert read_trace(write("Seconds, key,other,SIZE\n1.5,a,x,3\n,b,y,\n"), 7) == Trace(
        [Request("a", 3, 1.5), Request("b", 7, 0.0)], 0, "a table"
    )


@pytest.mark.parametrize(
    "text",
    [
        '"key","size"\n"a","5"\n"a","5"\n',
        'key,"size"\na,5\n"a",5\n',
        "'key','size'\na,5\na,5\n",
        '"KEY", "Size"\na,5\na,5\n',
        "key;size\na;5\na;5\n",
        '"key";"size"\r\n"a";"5"\r\n"a";"5"\r\n',
        "key\tsize\na\t5\na\t5\n",
        "\n\n  \nkey,size\n\na,5\na,5\n\n",
        "\n" * 300 + "key,size\na,5\na,5\n",
        "key,size\na,5\nkey,size\na,5\n",
        "\ufeffkey,size\na,5\n\ufeffkey,size\na,5\n",
        ",key,size\n0,a,5\n1,a,5.0\n",
    ],
)
def test_other_tables_of_the_same(write: Any, text: str) -> None:
    assert read_trace(write(text), 7) == ONE_KEY


def test_keys_of_tables_may_have_anything_in_quotes(write: Any) -> None:
    trace = read_trace(write('key,size\n"a,b",5\n"say ""a"" ",5\n"two\nlines",5\none two,5\nin"side,5\n'), 7)
    assert [one.key for one in trace.requests] == ["a,b", 'say "a"', "two\nlines", "one two", 'in"side']


def test_a_table_of_one_column_may_have_the_key_key(write: Any) -> None:
    assert [one.key for one in read_trace(write("key\na\nkey\n"), 7).requests] == ["a", "key"]


def test_access_logs(write: Any) -> None:
    lines = [
        f'::1 - ada {AT} "GET /a?b=1 HTTP/1.1" 200 5120 "-" "curl/8 (1.0)" 0.042',
        f'::1 - - {AT} "GET /b HTTP/1.1" 200 10',
        f'::1 - - {AT} "POST /b HTTP/1.1" 200 10',
        f'::1 - - {AT} "GET /b HTTP/1.1" 404 10',
        f'::1 - - {AT} "GET /b HTTP/1.1" 200 -',
        "something else",
    ]
    assert read_trace(write("\n".join(lines)), 7) == Trace(
        [Request("/a?b=1", 5120, 0.042), Request("/b", 10, 0.0), Request("/b", 0, 0.0)], 3, "an access log"
    )


@pytest.mark.parametrize(
    ("line", "request_or_none"),
    [
        (rf'::1 - - {AT} "\x16\x03\x01" 400 157 "-" "-"', None),
        (f'::1 - - {AT} "" 400 0 "-" "-"', None),
        (f'::1 - - {AT} "-" 408 -', None),
        ("2026/11/26 10:00:00 [notice] 1#1: signal process started", None),
        ("\0" * 30, None),
        ("key", None),
        (f'::1 - John Doe {AT} "GET /a HTTP/1.1" 200 5', Request("/a", 5, 0.0)),
        (f'::1 - [] {AT} "GET /a HTTP/1.1" 200 5', Request("/a", 5, 0.0)),
        ('::1 - - [2026-11-26T10:00:00+00:00] "GET /a HTTP/2.0" 200 5', Request("/a", 5, 0.0)),
        (f'::1 - - {AT} "GET /a" 200 5 " 200 7" "x" 0.5', Request("/a", 5, 0.5)),
        (rf'::1 - - {AT} "GET /a\"b HTTP/1.1" 200 5', Request(r"/a\"b", 5, 0.0)),
        (rf'::1 - - {AT} "GET /a b\" HTTP/1.1" 200 5', Request(r"/a b\"", 5, 0.0)),
        (f'::1 - - {AT} "GET /a HTTP/1.1" 200 5 "-" "agent 1.5"', Request("/a", 5, 0.0)),
        (f'::1 - - {AT} "GET /a HTTP/1.1" 200 5 0.25\r', Request("/a", 5, 0.25)),
        (f'::1 - - {AT} "GET /a HTTP/1.1" 200 5 {"9" * 400}.0', Request("/a", 5, 0.0)),
        (f'::1 - - {AT} "GET /a HTTP/1.1" 200 {"9" * 18}', Request("/a", 10**18 - 1, 0.0)),
        (f'::1 - - {AT} "GET /a HTTP/1.1" 200 {"9" * 19}', None),
        (f'::1 - - {AT} "GET /a HTTP/1.1" 200 {"9" * 5000}', None),
        (f'::1 - - {AT} "GET /a HTTP/1.1" 20\u0660 5', None),
    ],
)
def test_any_line_of_a_log_may_be_the_first(write: Any, line: str, request_or_none: Request | None) -> None:
    usual, found = f'::1 - - {AT} "GET /usual HTTP/1.1" 200 50', Request("/usual", 50, 0.0)
    mine = [] if request_or_none is None else [request_or_none]
    skipped = 1 - len(mine)
    if line != "key":  # as a first line it makes a table
        assert read_trace(write(f"{line}\n{usual}\n{usual}"), 7) == Trace(
            [*mine, found, found], skipped, "an access log"
        )
    assert read_trace(write(f"{usual}\n{usual}\n{line}"), 7) == Trace([found, found, *mine], skipped, "an access log")


@pytest.mark.parametrize("encoding", ["latin-1", "cp1251", "gbk", "utf-8"])
def test_keys_that_differ_stay_so_in_any_encoding(write: Any, encoding: str) -> None:
    word = "caf\u0439\u043a\u0448" if encoding in ("cp1251", "gbk") else "caf\u00e9\u00e8\u00ea"
    keys = [word[:3] + last for last in word[3:]]
    assert len({one.key for one in read_trace(write("\n".join(keys).encode(encoding)), 7).requests}) == 3
    lines = "\n".join(f'::1 - - {AT} "GET /{key} HTTP/1.1" 200 5' for key in keys)
    assert len({one.key for one in read_trace(write(lines.encode(encoding)), 7).requests}) == 3


def test_utf_8_and_marks_at_the_begin_and_lines_of_windows(write: Any) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        text = "key,size\r\n\u00e9,3\r\n".encode(encoding)
        assert read_trace(write(text), 7) == Trace([Request("\u00e9", 3, 0.0)], 0, "a table")
    assert read_trace(write("\ufeffa 3\r\nb\r\n"), 7).requests == [Request("a", 3, 0.0), Request("b", 7, 0.0)]
    assert read_trace(write("a 3\n".encode("utf-16") + b"b"), 7).requests[1].key == r"\x62"


def test_packed_files(write: Any) -> None:
    packed = gzip.compress(b"a 3\nb\n" * 1000)
    assert len(read_trace(write(packed), 7).requests) == 2000
    assert len(read_trace(write(packed + packed), 7).requests) == 4000
    assert read_trace(write(gzip.compress("\ufeffkey,size\na,5\na,5\n".encode())), 7) == ONE_KEY


@pytest.mark.parametrize("place", [2, 3, 9, 12, 40, -20, -8, -4, -1])
def test_packed_files_that_are_damaged(write: Any, place: int, capsys: pytest.CaptureFixture[str]) -> None:
    packed = gzip.compress("".join(f"key{number * 7919 % 1000} 5\n" for number in range(1000)).encode())
    spoiled = bytearray(packed)
    spoiled[place] ^= 0xFF
    for damaged in (packed[:place], bytes(spoiled), packed + b"rest"):
        path = write(damaged)
        if main(["replay", str(path), "--memory", "1M"]) == 1:
            said = capsys.readouterr().err
            wrong_line = damaged == spoiled and said.startswith("droppable replay: line ")
            assert wrong_line or said.startswith(f"droppable replay: {path} is packed by gzip, and damaged: ")
            assert said.count("\n") == 1
        else:
            assert (place, damaged) == (9, spoiled)  # it tells which system packed the file


@pytest.mark.parametrize(
    ("content", "program"),
    [
        (bz2.compress(b"a\n"), "bzcat"),
        (lzma.compress(b"a\n"), "xzcat"),
        (b"\x28\xb5\x2f\xfd\x04\x00", "zstdcat"),
        (b"\x04\x22\x4d\x18\x64", "lz4cat"),
        (b"PK\x03\x04\x14\x00", "unzip -p"),
        (gzip.compress(lzma.compress(b"a\n")), "xzcat"),
    ],
)
def test_what_other_programs_packed(write: Any, content: bytes, program: str) -> None:
    with pytest.raises(TraceError, match=f"packed, and not by gzip. Unpack it: {program} FILE | droppable"):
        read_trace(write(content), 7)
    assert read_trace(write("BZh 3\n"), 7).requests == [Request("BZh", 3, 0.0)]


@pytest.mark.parametrize("content", [b"a 5\na 5\n", gzip.compress(b"key,size\na,5\na,5\n"), b"k"])
def test_pipes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(content,))
    writer.start()
    got = read_trace(path, 7).requests
    writer.join()
    assert got == (ONE_KEY.requests if len(content) > 1 else [Request("k", 7, 0.0)])


LIST = "A line is KEY, KEY SIZE or KEY SIZE SECONDS. If keys have spaces, write a table with commas"
SIZE = "SIZE must be bytes, or a number with K, M, G or T, and less than 2**62 bytes; you gave "
SECONDS = "SECONDS must be a number from 0 to 9e9; you gave "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no request in it: it is empty"),
        ("\n \n", "has no request in it: it is empty"),
        ("key,size\n", "has no request in it"),
        (f'::1 - - {AT} "GET /a HTTP/1.1" 304 5', "but no GET answered with 200 in the common or the combined"),
        ("a\nb much\n", f"line 2: {SIZE}'much'. {LIST}"),
        ("a -5\n", f"line 1: {SIZE}'-5'. {LIST}"),
        ("a 5\u212a\n", f"line 1: {SIZE}'5\u212a'. {LIST}"),
        ("a 99999999T\n", f"line 1: {SIZE}'99999999T'"),
        (f"a {'9' * 400}.5\n", f"line 1: {SIZE}'{'9' * 57}...'"),
        (f"a {'9' * 5000}\n", f"line 1: {SIZE}'{'9' * 57}...'"),
        ("page one 200 0.1\n", f"line 1: these are 4 words, 'page one 200 0.1'. {LIST}"),
        ("a 1 long\n", f"line 1: {SECONDS}'long'. {LIST}"),
        ("a 1 -1\n", f"line 1: {SECONDS}'-1'"),
        ("a 1 inf\n", f"line 1: {SECONDS}'inf'"),
        ("a 1 nan\n", f"line 1: {SECONDS}'nan'"),
        ("a 5 1e308\n", f"line 1: {SECONDS}'1e308'"),
        ("a\0b 1\n", "line 1: the key has a byte 0 in it, 'a\\x00b'. Is this a text file?"),
        ("key,size\n,3\n", "line 2: the key is missing"),
        ("key,size\na,3\nb,x\n", f"line 3: {SIZE}'x'"),
        ('key,size\n"a\nb",5\nc,x\n', f"line 4: {SIZE}'x'"),
        ("key;seconds\na;0,5\n", f"line 2: {SECONDS}'0,5'"),
        ("key,size\na,5,9,9\n", "line 2: 4 values, but the first line names 2. Put quotes around a key that has a ','"),
        ("key\na,b\n", "line 2: 2 values, but the first line names 1"),
        ("key,key,size\na,b,5\n", "line 1: two columns are named 'key'; rename one of them"),
        ('key,size\na,1\n"a,5\nb,6\nc,7\n', "line 3: unexpected end of data. Is a quote missing that ends a value?"),
        ('key,size\n"a,5\n"b",6\n', "line 2: ',' expected after '\"'. Is a quote missing"),
        (f"key,size\n{'a' * 140_000},5\n", "line 2: field larger than field limit (131072). Is a quote missing"),
        ("sep=;\nkey;size\na;5\n", "line 2: this names the columns of a table; remove the lines before it"),
        ("# made by hand\nkey,size\na,5\n", "line 2: this names the columns of a table"),
        ("a" * (1 << 24), "line 1: more than 16777215 characters. Is this a text file?"),
    ],
)
def test_what_cannot_be_read(write: Any, text: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(text)
    with pytest.raises(TraceError) as raised:
        read_trace(path, 7)
    assert message in str(raised.value)
    assert main(["replay", str(path)]) == 1
    assert message in capsys.readouterr().err


def test_what_is_no_file_of_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path, message in (
        (tmp_path / "nothing", f"droppable replay: {tmp_path}/nothing cannot be read: No such file"),
        (tmp_path, f"droppable replay: {tmp_path} cannot be read: Is a directory"),
        ("/dev/zero", "text file"),
    ):
        assert main(["replay", str(path)]) == 1
        assert message in capsys.readouterr().err
