"""Arrays and data frames: a hit on a large array copies nothing, and what it gives is read-only."""

import time

import numpy
import pandas

import droppable


@droppable.cache
def smoothed(days: int) -> numpy.ndarray:
    noise = numpy.random.default_rng(days).normal(size=days * 1440)
    return numpy.convolve(noise, numpy.ones(1440) / 1440, mode="same")


@droppable.cache(copy=True)  # each caller may change what he gets
def by_month(year: int) -> pandas.DataFrame:
    days = pandas.date_range(f"{year}-01-01", f"{year}-12-31")
    frame = pandas.DataFrame({"day": days, "sold": range(len(days))})
    return frame.groupby(frame.day.dt.month, as_index=False)["sold"].sum()


for name in ("computed", "from the cache"):
    began = time.perf_counter()
    curve = smoothed(30)
    print(f"{curve.nbytes / 1e3:.0f} kB {name} in {1e6 * (time.perf_counter() - began):,.0f} us")
assert not curve.flags.writeable
frame = by_month(2026)
frame["sold"] *= 2
assert frame["sold"].sum() == 2 * by_month(2026)["sold"].sum()
