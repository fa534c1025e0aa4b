"""Tests that your program lives through the loss of its cache.

Needs pytest in the virtual environment of droppable. Run them: python -m pytest examples/test_survival.py
"""

import pytest

import droppable
from droppable import testing


class Thumbnails:
    """What is tested: it must give the right picture whatever is lost."""

    def __init__(self, cache: droppable.Cache[str, bytes]) -> None:
        self.cache = cache
        self.drawn = 0

    def _draw(self, name: str) -> bytes:
        self.drawn += 1
        return name.encode() * 1000

    def get(self, name: str) -> bytes:
        return self.cache.get_or_create(name, lambda: self._draw(name))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_pictures_are_right_whatever_is_lost(share: float) -> None:
    with droppable.Cache[str, bytes]() as cache:
        thumbnails = Thumbnails(cache)
        names = [f"picture {number}" for number in range(50)]
        for _ in range(2):
            assert [thumbnails.get(name) for name in names] == [name.encode() * 1000 for name in names]
            testing.drop(cache, fraction=share)
        assert thumbnails.drawn >= 50
        assert thumbnails.drawn == 50 or share > 0
