"""Adapters of libraries for data over one cache for all processes (`shared=`), with a server of the test's own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

import droppable
from droppable.adapters._shared import _connected
from tests.adapters.test_data import BLOCK, CONTENT, RangeHandler
from tests.server import Server

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed: make adapters")
pytest.importorskip("aiohttp", reason="aiohttp is not installed: make adapters")

WAIT_SECONDS = 60
READ = """
import sys, zlib
import fsspec
from droppable.adapters.fsspec import register

url, path, block_bytes = sys.argv[1], sys.argv[2], int(sys.argv[3])
register()
with fsspec.filesystem("http", **eval(sys.argv[4])).open(
    url, block_size=block_bytes, cache_type="droppable", cache_options={"shared": path}
) as file:
    file.seek(0)
    print(zlib.crc32(file.read(file.size)), file.cache.hit_count, file.cache.miss_count)
"""


@pytest.fixture(autouse=True)
def connections() -> Iterator[None]:
    yield
    for _, cache in _connected.values():
        cache.close()
    _connected.clear()


@pytest.fixture
def site() -> Iterator[tuple[str, type[RangeHandler]]]:
    handler = type("Handler", (RangeHandler,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        Thread(target=made.serve_forever, args=(0.01,)).start()
        yield f"http://127.0.0.1:{made.server_port}/file", handler
        made.shutdown()


class TestFsspec:
    @pytest.fixture
    def open_file(self, server: Server, site: tuple[str, Any]) -> Callable[..., Any]:
        from droppable.adapters.fsspec import register

        register()

        def open_it(block_bytes: int = BLOCK, **options: Any) -> Any:
            return fsspec.filesystem("http", **options).open(
                site[0], block_size=block_bytes, cache_type="droppable",
                cache_options={"shared": str(server.path), "retry_seconds": 0.001},
            )  # fmt: skip

        return open_it

    @staticmethod
    def read_in_another_process(server: Server, url: str, options: str = "{}") -> list[int]:
        argv = [sys.executable, "-c", READ, url, str(server.path), str(BLOCK), options]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=WAIT_SECONDS, check=True)
        return [int(word) for word in done.stdout.split()]

    def test_another_process_finds_the_blocks(self, server: Server, site: Any, open_file: Any) -> None:
        import zlib

        with open_file() as file:
            assert file.read(250_000) == CONTENT[:250_000]
        assert site[1].asked == [(0, 300_000)]
        crc, hits, misses = self.read_in_another_process(server, site[0])
        assert (crc, hits, misses) == (zlib.crc32(CONTENT), 3, 8)
        assert site[1].asked == [(0, 300_000), (300_000, len(CONTENT))]
        with open_file() as file:
            file.seek(0)
            assert file.read(len(CONTENT)) == CONTENT
            assert (file.cache.hit_count, file.cache.miss_count) == (11, 0)

    def test_another_version_is_another_file(self, server: Server, site: Any, open_file: Any) -> None:
        with open_file() as file:
            file.read(1)
        site[1].tag = '"2"'
        assert self.read_in_another_process(server, site[0])[1] == 0

    def test_a_file_system_that_was_made_otherwise_is_another_one(
        self, server: Server, site: Any, open_file: Any
    ) -> None:
        with open_file() as file:
            file.read(1)
        assert self.read_in_another_process(server, site[0], "{'headers': {'Authorization': 'of somebody'}}")[1] == 0

    def test_a_file_without_a_version_is_not_shared(
        self, server: Server, site: Any, open_file: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(site[1], "tag", "")
        with open_file() as file:
            file.read(1)
        with open_file() as file:
            file.read(1)
            assert file.cache.hit_count == 0

    def test_options_that_cannot_be_written_down_are_not_shared(self, open_file: Any) -> None:
        from fsspec.implementations.http import get_client

        async def client(**options: Any) -> Any:
            return await get_client(**options)

        for _ in range(2):
            with open_file(get_client=client) as file:
                file.read(1)
                assert file.cache.hit_count == 0

    def test_a_server_that_dies_and_comes_back(self, server: Server, site: Any, open_file: Any) -> None:
        with open_file() as file:
            assert file.read(10) == CONTENT[:10]
            server.kill()
            file.seek(0)
            assert file.read(BLOCK + 10) == CONTENT[: BLOCK + 10]
            server.path.unlink(missing_ok=True)
            server.start()
            for _ in range(2):
                file.seek(0)
                assert file.read(len(CONTENT)) == CONTENT
        with open_file() as file:
            file.seek(0)
            assert file.read(len(CONTENT)) == CONTENT
            assert file.cache.miss_count == 0

    def test_a_block_that_is_too_large_for_the_server_is_read_and_not_kept(self, site: Any, open_file: Any) -> None:
        with open_file(block_bytes=2 << 20) as file:
            assert file.read(10) == CONTENT[:10]
        assert len(CONTENT) < 1 << 20  # the one block is smaller: it is kept
        with open_file(block_bytes=2 << 20) as file:
            assert file.read(10) == CONTENT[:10]
            assert file.cache.miss_count == 0

    def test_what_another_client_has_written_is_not_taken_for_a_block(
        self, server: Server, site: Any, open_file: Any
    ) -> None:
        """It can write wrong blocks, as docs/security.md says; not what is no block at all."""
        with open_file() as file:
            file.read(1)
            file.cache.cache.set((file.cache._file, 0), "text")
            file.seek(0)
            assert file.read(10) == CONTENT[:10]


class TestTorch:
    @pytest.fixture(autouse=True)
    def torch(self) -> Any:
        return pytest.importorskip("torch", reason="torch is not installed (requirements/torch.txt)")

    def test_workers_of_two_loaders_share_samples(self, server: Server, torch: Any) -> None:
        import numpy as np
        from torch.utils.data import DataLoader, Dataset

        from droppable.adapters.torch import CachedDataset

        class Counted(Dataset):  # type: ignore[type-arg]
            def __init__(self, path: str) -> None:
                self._cache = droppable.connect(path)

            def __getitem__(self, index: int) -> Any:
                self._cache.incr("made", initial=0)
                return np.full(1000, index)

            def __len__(self) -> int:
                return 20

        made = CachedDataset(Counted(str(server.path)), shared=str(server.path), name="numbers")
        for context in ("fork", "fork"):
            loader = DataLoader(made, num_workers=2, multiprocessing_context=context)
            assert [int(batch[0, 0]) for batch in loader] == list(range(20))
        with droppable.connect(server.path) as cache:
            assert cache["made"] == 20

    def test_what_the_name_is_for(self, server: Server) -> None:
        from droppable.adapters.torch import CachedDataset

        for options in ({"shared": str(server.path)}, {"name": "numbers"}):
            with pytest.raises(TypeError, match="shared and name go together"):
                CachedDataset([1, 2], **options)  # type: ignore[arg-type]
        ones = CachedDataset([b"1"], shared=str(server.path), name="ones")  # type: ignore[arg-type]
        twos = CachedDataset([b"2"], shared=str(server.path), name="twos")  # type: ignore[arg-type]
        assert (ones[0], twos[0], ones[0]) == (b"1", b"2", b"1")

    def test_a_tensor_needs_a_serializer(self, server: Server, torch: Any) -> None:
        import pickle

        from droppable.adapters.torch import CachedDataset

        with pytest.raises(TypeError, match="serializer"):
            CachedDataset([torch.ones(3)], shared=str(server.path), name="tensors")[0]  # type: ignore[arg-type]
        _connected.pop(str(server.path))[1].close()
        own = CachedDataset([torch.ones(3)], shared=str(server.path), name="tensors", serializer=pickle)  # type: ignore[arg-type]
        assert torch.equal(own[0], torch.ones(3))
        sent = {name: value for name, value in own.__getstate__().items() if name != "_options"}  # to a spawned worker
        other = CachedDataset.__new__(CachedDataset)
        other.__setstate__({**pickle.loads(pickle.dumps(sent)), "_options": {"serializer": pickle}})
        assert torch.equal(other[0], torch.ones(3))
