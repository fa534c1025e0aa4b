"""A web server on loopback that has one file, for tests of what reads remote files in parts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any


class WebFile(BaseHTTPRequestHandler):
    """Serves `content`, whole or in part, under the version `tag`; `asked` has each range."""

    content: bytes
    asked: list[tuple[int, int]]
    tag: str | None = '"1"'

    def head(self, status: int, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        if self.tag is not None:
            self.send_header("ETag", self.tag)

    def do_HEAD(self) -> None:
        self.head(200, len(self.content))
        self.end_headers()

    def do_GET(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers["Range"])
        assert wanted is not None
        start, stop = int(wanted[1]), min(int(wanted[2]) + 1, len(self.content))
        self.asked.append((start, stop))
        self.head(206, stop - start)
        self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(self.content)}")
        self.end_headers()
        self.wfile.write(self.content[start:stop])

    def log_message(self, *words: Any) -> None:
        pass


@contextmanager
def web_file(content: bytes) -> Iterator[tuple[str, type[WebFile]]]:
    """The address of the file, and the class whose attributes say what it is at the moment."""
    handler = type("Handler", (WebFile,), {"content": content, "asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        Thread(target=site.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{site.server_port}/file", handler
        site.shutdown()
