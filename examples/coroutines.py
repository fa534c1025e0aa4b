"""A service with asyncio: a hundred tasks ask for ten prices, and each price is fetched once."""

import asyncio

import droppable

fetched: list[str] = []


@droppable.cache(ttl=60, stale=600, jitter=0.1)
async def price_of(item: str) -> float:
    """Good for a minute. For ten more the old price is given while one task fetches the new one."""
    fetched.append(item)
    await asyncio.sleep(0.01)  # in a real program: a request to another service
    return 9.99 + len(fetched)


async def main() -> None:
    prices = await asyncio.gather(*(price_of(f"item {number % 10}") for number in range(100)))
    print(f"{len(prices)} prices, {len(fetched)} requests")
    assert len(fetched) == 10
    await price_of.refresh("item 3")  # somebody changed it: fetch it now
    assert len(fetched) == 11


asyncio.run(main())
