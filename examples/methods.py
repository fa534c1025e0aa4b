"""A class whose methods are cached: what identifies the object is said, and what changed is forgotten."""

import droppable


class Shop:
    """Reads a table; in a real program, one of a database."""

    def __init__(self, town: str) -> None:
        self.town = town
        self.stock = {"apples": 3, "pears": 5}
        self.looked = 0

    @droppable.cache(self_key="town")  # of self, only the town is part of the key
    def count(self, fruit: str) -> int:
        self.looked += 1
        return self.stock[fruit]

    def sell(self, fruit: str) -> None:
        self.stock[fruit] -= 1
        self.count.invalidate(fruit)  # also where somebody computes it at this moment


paris, rome = Shop("Paris"), Shop("Rome")
assert [paris.count("apples") for _ in range(3)] == [3, 3, 3]
assert rome.count("apples") == 3
paris.sell("apples")
assert paris.count("apples") == 2
print(f"Paris looked {paris.looked} times, Rome {rome.looked} time")
assert (paris.looked, rome.looked) == (2, 1)
