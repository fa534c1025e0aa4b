"""A program survives that its memory is taken: the cache grows into what is free, and another part needs it then.

In a container, or here: droppable run --memory 128M -- python examples/pressure.py
"""

import droppable

cache = droppable.Cache[int, bytes]()
for number in range(1000):  # 64 MB
    cache[number] = number.to_bytes(4, "big") * 16_384
kept = sum(number in cache for number in range(1000))
print(f"{kept} of 1000 values are there, {cache.stats().stored_bytes >> 20} MB")

ordinary = [bytearray(b"x" * (1 << 20)) for _ in range(60)]  # another part of the program, which knows of no cache
left = [number for number in range(1000) if number in cache]
wrong = [number for number in left if (value := cache.get(number)) and value[:4] != number.to_bytes(4, "big")]
print(f"{len(left)} are left beside {len(ordinary)} MB of ordinary memory, {len(wrong)} of them wrong")
assert not wrong
assert kept == 1000 or len(left) <= kept
