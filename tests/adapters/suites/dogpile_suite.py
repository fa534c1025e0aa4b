"""dogpile.cache's tests that all of its backends pass, with droppable's. Run by library_worker.py."""

from dogpile.testing import fixtures


class TestBackend(fixtures._GenericBackendTestSuite):
    backend = "droppable"
    backend_argument_names = ("max_bytes",)


class TestSerializer(fixtures._GenericSerializerTestSuite, TestBackend):
    pass
