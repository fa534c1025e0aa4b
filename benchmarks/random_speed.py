"""Times droppable.random against os.urandom, secrets, random.SystemRandom and uuid, in one interleaved run.

    python benchmarks/random_speed.py                                        prints the tables, half a minute
    python benchmarks/random_speed.py --out speed.json --plot docs/images/random_speed.png

Method: each pair is timed in rounds. A round times a batch of calls of one contender and then of the other, and the
next round the other way round, so that whatever else the machine does falls on both. Reported are the median time of a
call over all rounds, and the median of the rounds' ratios with the range that holds the middle half of them. A batch is
as many calls as take about half a millisecond. The time is the thread's processor time, in user space and the kernel,
so that waiting for a busy processor is not counted; it includes Python's loop and call, the same for both.

Bias: written by those who wrote droppable.random. Bytes of up to 512 come from Python's small-object allocator in both;
from 128 KiB on both meet the C library's mmap at every call.
"""

import argparse
import json
import os
import platform
import random
import secrets
import statistics
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import repeat
from pathlib import Path

from droppable import random as ours

BATCH_SECONDS = 0.0005
SIZES_BYTES = tuple(1 << power for power in range(21))
GOALS = {"token_bytes(16)": 4.0, "uuid4()": 3.0}


@dataclass(frozen=True)
class Pair:
    """One comparison: medians in nanoseconds a call, and how many times as fast ours is."""

    name: str
    peer: str
    ours_ns: float
    peer_ns: float
    ratio: float
    ratio_low: float
    ratio_high: float


def batch_ns(call: Callable[..., object], arguments: tuple[object, ...], count: int) -> float:
    """Mean processor time of a call over one batch."""
    start = time.thread_time_ns()
    for _ in repeat(None, count):
        call(*arguments)
    return (time.thread_time_ns() - start) / count


def compare(
    name: str, ours_call: Callable[..., object], peer: str, peer_call: Callable[..., object],
    arguments: tuple[object, ...], rounds: int,
) -> Pair:  # fmt: skip
    calls = (ours_call, peer_call)
    counts = []
    for call in calls:
        batch_ns(call, arguments, 3)  # what only the first calls do
        rough_count = max(3, int(BATCH_SECONDS * 1e8 / batch_ns(call, arguments, 3)))
        counts.append(max(1, int(BATCH_SECONDS * 1e9 / batch_ns(call, arguments, rough_count))))
    times: tuple[list[float], list[float]] = ([], [])
    for number in range(rounds):
        for which in (0, 1) if number % 2 else (1, 0):
            times[which].append(batch_ns(calls[which], arguments, counts[which]))
    ratios = [peer_time / our_time for our_time, peer_time in zip(*times, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    medians = [statistics.median(one) for one in times]
    return Pair(name, peer, medians[0], medians[1], middle, low, high)


def compare_all(rounds: int) -> tuple[list[Pair], list[Pair]]:
    sizes = [
        compare(f"token_bytes({size})", ours.token_bytes, f"os.urandom({size})", os.urandom, (size,), rounds)
        for size in SIZES_BYTES
    ]
    their_system, our_system = random.SystemRandom(), ours.SystemRandom()
    letters = tuple("abcdefghijklmnopqrstuvwxyz")
    named: list[tuple[str, Callable[..., object], str, Callable[..., object], tuple[object, ...]]] = [
        ("uuid4()", ours.uuid4, "uuid.uuid4()", uuid.uuid4, ()),
        ("token_bytes()", ours.token_bytes, "secrets.token_bytes()", secrets.token_bytes, ()),
        ("token_hex()", ours.token_hex, "secrets.token_hex()", secrets.token_hex, ()),
        ("token_urlsafe()", ours.token_urlsafe, "secrets.token_urlsafe()", secrets.token_urlsafe, ()),
        ("randbits(64)", ours.randbits, "secrets.randbits(64)", secrets.randbits, (64,)),
        ("randbelow(1000)", ours.randbelow, "secrets.randbelow(1000)", secrets.randbelow, (1000,)),
        ("choice(26 letters)", ours.choice, "secrets.choice(...)", secrets.choice, (letters,)),
        ("SystemRandom().random()", our_system.random, "random.SystemRandom().random()", their_system.random, ()),
        ("SystemRandom().gauss()", our_system.gauss, "random.SystemRandom().gauss()", their_system.gauss, (0, 1)),
        ("SystemRandom().random(), against the seeded one", our_system.random, "random.Random().random()",
         random.Random().random, ()),
    ]  # fmt: skip
    others = [compare(*one, rounds) for one in named]
    try:
        import numpy
    except ImportError:
        print("SKIP the NumPy rows: NumPy is not installed")
    else:
        our_rng = numpy.random.Generator(ours.BitGenerator())
        their_rng = numpy.random.default_rng()
        bytes_ns: Callable[[int], object] = lambda count: numpy.frombuffer(os.urandom(8 * count), "u8")  # noqa: E731
        others += [
            compare("Generator(BitGenerator()).integers, 10^5 of 64 bits",
                    lambda count: our_rng.integers(0, 1 << 64, count, "u8"), "numpy.frombuffer(os.urandom(800000))",
                    bytes_ns, (100_000,), rounds),
            compare("Generator(BitGenerator()).random(10^5)", our_rng.random, "numpy.random.default_rng().random(10^5)",
                    their_rng.random, (100_000,), rounds),
            compare("Generator(BitGenerator()).normal(10^5)", lambda count: our_rng.normal(size=count),
                    "numpy.random.default_rng().normal(10^5)", lambda count: their_rng.normal(size=count), (100_000,),
                    rounds),
        ]  # fmt: skip
    return sizes, others


def print_table(pairs: list[Pair]) -> None:
    print(f"{'ours':<52}{'ns':>12}   {'peer':<42}{'ns':>12}   times as fast (middle half)")
    for pair in pairs:
        print(
            f"{pair.name:<52}{pair.ours_ns:>12,.0f}   {pair.peer:<42}{pair.peer_ns:>12,.0f}   "
            f"{pair.ratio:.2f} ({pair.ratio_low:.2f} to {pair.ratio_high:.2f})"
        )


def draw_plot(pairs: list[Pair], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (times, ratios) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    times.loglog(SIZES_BYTES, [pair.peer_ns for pair in pairs], "s--", label="os.urandom")
    times.loglog(SIZES_BYTES, [pair.ours_ns for pair in pairs], "o-", label="droppable.random.token_bytes")
    times.set(xlabel="bytes", ylabel="ns a call, median", title="Time of one call")
    times.legend()
    ratios.semilogx(SIZES_BYTES, [pair.ratio for pair in pairs], "o-", color="C1")
    ratios.fill_between(
        SIZES_BYTES, [pair.ratio_low for pair in pairs], [pair.ratio_high for pair in pairs], color="C1", alpha=0.25
    )
    ratios.axhline(1.0, color="gray", linewidth=0.8)
    ratios.set(xlabel="bytes", ylabel="times as fast as os.urandom", title="Ratio, with the middle half of the rounds")
    ratios.set_ylim(bottom=0)
    for axes in (times, ratios):
        axes.grid(True, alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=101)
    parser.add_argument("--out", type=Path, help="where the JSON goes")
    parser.add_argument("--plot", type=Path, help="where the PNG goes")
    arguments = parser.parse_args()
    sizes, others = compare_all(arguments.rounds)
    print_table(sizes)
    print()
    print_table(others)
    by_name = {pair.name: pair for pair in sizes + others}
    verdicts = {name: by_name[name].ratio >= goal for name, goal in GOALS.items()}
    # Without the vDSO both make the same system call and come out equal: a twentieth is noise.
    verdicts["never slower, 1 B to 1 MiB"] = all(pair.ratio >= 0.95 for pair in sizes)
    print()
    for name, met in verdicts.items():
        goal = f"at least {GOALS[name]:g} times as fast: " if name in GOALS else ""
        print(f"{name}: {goal}{'met' if met else 'NOT MET'}")
    print(ours.source())
    if arguments.out:
        report = {
            "kernel": platform.release(), "python": platform.python_version(), "machine": platform.machine(),
            "processors": os.cpu_count(), "rounds": arguments.rounds, "source": asdict(ours.source()),
            "sizes": [asdict(pair) for pair in sizes], "others": [asdict(pair) for pair in others], "goals": verdicts,
        }  # fmt: skip
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.plot:
        draw_plot(sizes, arguments.plot)
    return 0 if all(verdicts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
