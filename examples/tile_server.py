"""A web server that draws tiles, one thread a request. Each tile is drawn once, however many ask for it meanwhile.

Run it, and open http://127.0.0.1:8000/3/4/5 in a browser: python examples/tile_server.py 8000
"""

import hashlib
import sys
import threading
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import droppable

tiles = droppable.named("tiles", ttl=3600)


def draw(path: str) -> bytes:
    colour = hashlib.sha256(path.encode()).hexdigest()[:6]  # in a real program: a map
    return f'<svg xmlns="http://www.w3.org/2000/svg"><rect width="256" height="256" fill="#{colour}"/></svg>'.encode()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        tile = tiles.get_or_create(self.path, lambda: draw(self.path))
        self.send_response(200)
        self.send_header("Content-Type", "image/svg+xml")
        self.end_headers()
        self.wfile.write(tile)

    def log_message(self, *words: object) -> None:
        """Nothing."""


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1]) if sys.argv[1:] else 0), Handler)
threading.Thread(target=server.serve_forever, daemon=not sys.argv[1:]).start()
print(f"http://127.0.0.1:{server.server_port}/", flush=True)
for _ in range(5):
    urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/3/4/5").read()
assert (tiles.stats().misses, tiles.stats().hits) == (1, 4)
