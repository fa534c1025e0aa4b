"""A class that holds a connection: what identifies the object is said, and what changed is forgotten."""

import sqlite3

import droppable


class Shop:
    def __init__(self, town: str) -> None:
        self.town = town
        self.db = sqlite3.connect(":memory:")  # cannot be pickled, so it cannot be part of a key
        self.db.execute("create table stock (fruit text, pieces integer)")
        self.db.executemany("insert into stock values (?, ?)", [("apples", 3), ("pears", 5)])
        self.looked = 0

    @droppable.cache(self_key="town")  # of self, only the town is part of the key
    def stock(self, fruit: str) -> list[tuple[int]]:
        self.looked += 1
        return self.db.execute("select pieces from stock where fruit = ?", [fruit]).fetchall()  # rows, not the cursor

    def sell(self, fruit: str) -> None:
        self.db.execute("update stock set pieces = pieces - 1 where fruit = ?", [fruit])
        self.stock.invalidate(fruit)  # also where somebody computes it at this moment


paris, rome = Shop("Paris"), Shop("Rome")
assert [paris.stock("apples") for _ in range(3)] == [[(3,)]] * 3
assert rome.stock("apples") == [(3,)]
paris.sell("apples")
assert paris.stock("apples") == [(2,)]
print(f"Paris looked {paris.looked} times, Rome {rome.looked} time")
assert (paris.looked, rome.looked) == (2, 1)
for shop in (paris, rome):
    shop.db.close()
