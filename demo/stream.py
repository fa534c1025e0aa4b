"""The stream of requests: which file each request asks for. The same for every way of caching."""

import random
from itertools import accumulate

ALPHA = 1.1
"""How steep popularity falls: the file of rank r is asked for in proportion to r ** -ALPHA, as pages of a site are."""


def zipf(files: int, requests: int, seed: int = 1, alpha: float = ALPHA) -> list[int]:
    """Returns one file index a request. Which files are popular is drawn by the seed, not by name or size."""
    draw = random.Random(seed)
    ranked = list(range(files))
    draw.shuffle(ranked)
    weights = list(accumulate((rank + 1) ** -alpha for rank in range(files)))
    return draw.choices(ranked, cum_weights=weights, k=requests)
