"""Makes the pictures of docs/benchmarks.md from the JSON of the benchmarks: SVG, the same file for the same figures.

Called by run.py. Each picture is a function that gets the reports and a figure, and answers whether it drew.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

Reports = dict[str, Any]

COLOURS = {
    "droppable": "#1f77b4", "lru": "#7f8c8d", "s3fifo": "#e67e22", "wtinylfu": "#27ae60", "dict": "#c0392b",
}  # fmt: skip
MOST_SAMPLES = 300


def draw(reports: Reports, directory: Path) -> dict[str, str]:
    """Writes bench_NAME.svg for every picture that the reports have figures for; answers with NAME: file name."""
    drawn = {}
    for name, picture in PICTURES.items():
        if (figure := _figure(8, 3.6)) is None:
            return {}
        if picture(reports, figure):
            drawn[name] = _save(figure, directory / f"bench_{name}.svg").name
    return drawn


def draw_soak(report: dict[str, Any], directory: Path) -> list[Path]:
    """Writes soak_NAME.svg for each subject of soak.py: what was measured of it over time."""
    drawn = []
    for name, found in report["subjects"].items():
        if (figure := _figure(8, 7)) is None:
            return []
        soaked(found["samples"], report["limit_bytes"], figure)
        drawn.append(_save(figure, directory / f"soak_{name}.svg"))
    return drawn


def _figure(width: float, height: float) -> Any:
    """An empty one, in inches, or None where matplotlib is not there."""
    try:
        import matplotlib
    except ImportError as error:
        print(f"SKIP the pictures: {error}")
        return None
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    matplotlib.rcParams |= {"svg.hashsalt": "droppable", "svg.fonttype": "none", "font.size": 9,
                            "path.simplify_threshold": 0.5}  # fmt: skip
    return Figure(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    return path


def hits(reports: Reports, figure: Any) -> bool:
    """Hit ratios over those of an exact LRU, by size of a value, and by trace."""
    groups = []
    for row in reports.get("cache_pressure", {}).get("rows", ()):
        if row["backing"] == "lazyfree":
            groups.append((f"Zipf\n{_size(row['size_bytes'])}", row["hit_ratio"], row["against"]))
    for row in reports.get("cache_traces", {}).get("rows", ()):
        groups.append((f"{row['trace']}\n{row['share']:.0%}", row["hit_ratio"], row["against"]))
    if not groups:
        return False
    axes = figure.subplots()
    names = {"droppable": "droppable", "s3fifo": "S3-FIFO", "wtinylfu": "W-TinyLFU"}
    for place, (name, title) in enumerate(names.items()):
        points = [
            (at + 0.27 * (place - 1), (ours if name == "droppable" else against[name]) / against["lru"])
            for at, (_, ours, against) in enumerate(groups)
            if name == "droppable" or name in against
        ]
        axes.bar(*zip(*points, strict=True), width=0.25, color=COLOURS[name], label=title)
    axes.axhline(1, color="black", linewidth=1)
    axes.set_ylim(0.8)
    axes.set_xticks(range(len(groups)), [label for label, *_ in groups], fontsize=7)
    axes.set_ylabel("hits / exact LRU's hits")
    axes.legend(ncols=3, loc="upper left")
    return True


def latency(reports: Reports, figure: Any) -> bool:
    """Nanoseconds of a get and a set at each size, all peers."""
    sizes = reports.get("cache_latency", {}).get("sizes", {})
    if not sizes:
        return False
    all_axes = figure.subplots(1, len(sizes), sharey=True)
    figure.set_size_inches(10, 4)
    order = list(dict.fromkeys(one["name"] for ops in sizes.values() for one in (*ops["get"], *ops["set"])))[::-1]
    for axes, (size, operations) in zip(all_axes, sizes.items(), strict=True):
        for shift, operation, colour in ((0.2, "get", "#1f77b4"), (-0.2, "set", "#aec7e8")):
            found = {one["name"]: one["ns"] for one in operations[operation]}
            at = [place + shift for place, name in enumerate(order) if name in found]
            axes.barh(at, [found[name] for name in order if name in found], height=0.38, color=colour, label=operation)
        axes.set_xscale("log")
        axes.set_title(_size(int(size)))
        axes.set_xlabel("ns a call")
        axes.grid(axis="x", alpha=0.3)
    all_axes[0].set_yticks(range(len(order)), order)
    all_axes[0].legend()
    return True


def growth(reports: Reports, figure: Any) -> bool:
    """Nanoseconds of a get and a set by the number of entries, beside dict's."""
    times = reports.get("cache_growth", {}).get("times", {})
    if not times:
        return False
    for axes, (operation, by_size) in zip(figure.subplots(1, 2, sharey=True), times.items(), strict=True):
        sizes = [int(size) for size in by_size]
        for name in ("droppable", "dict"):
            axes.plot(sizes, [one[name]["ns"] for one in by_size.values()], "o-", color=COLOURS[name], label=name)
            axes.fill_between(
                sizes, [one[name]["low_ns"] for one in by_size.values()],
                [one[name]["high_ns"] for one in by_size.values()], color=COLOURS[name], alpha=0.2, linewidth=0,
            )  # fmt: skip
        axes.set_xscale("log")
        axes.set_title(operation)
        axes.set_xlabel("entries of 100 B")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.axes[0].set_ylabel("ns a call")
    figure.axes[0].set_ylim(bottom=0)
    return True


def antagonist(reports: Reports, figure: Any) -> bool:
    """Who holds how much of the cgroup over time, in the first round."""
    report = reports.get("cache_antagonist", {})
    ways = {"droppable": "droppable", "poll 0.1": "dict, polls every 100 ms", "fixed 0.5": "dict, half of the limit"}
    timeline = {way: report["timeline"][way] for way in ways if report.get("timeline", {}).get(way)}
    if not timeline:
        return False
    figure.set_size_inches(10, 3.4)
    end = max(samples[-1][0] for samples in timeline.values())
    all_axes = figure.subplots(1, len(timeline), sharey=True, squeeze=False)[0]
    for axes, (way, samples) in zip(all_axes, timeline.items(), strict=True):
        thinned = samples[:: -(-len(samples) // MOST_SAMPLES)]
        seconds = [one[0] for one in thinned]
        layers = [[one[place] / 1e6 for one in thinned] for place in (2, 1)]
        axes.stackplot(seconds, *layers, colors=["#f5b041", COLOURS["droppable" if way == "droppable" else "dict"]],
                       labels=["the antagonist's", "the cache's process"])  # fmt: skip
        axes.axhline(report["limit_bytes"] / 1e6, color="black", linestyle="--", linewidth=1)
        killed = next((row["killed"] for row in report["rows"] if row["way"] == way), "")
        if killed:
            axes.annotate(f"killed: {killed}", (seconds[-1], 0.5 * report["limit_bytes"] / 1e6), xytext=(5, 0),
                          textcoords="offset points")  # fmt: skip
        axes.set_xlim(0, end)
        axes.set_title(ways[way])
        axes.set_xlabel("s")
    all_axes[0].set_ylabel("resident, MB")
    figure.legend(*all_axes[0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return True


def soaked(samples: list[dict[str, Any]], limit_bytes: int, figure: Any) -> None:
    """Rates, memory and counts, from sample to sample."""
    minutes = [one["seconds"] / 60 for one in samples]
    pairs = list(pairwise(samples))

    def rates(name: str, per: str) -> list[float]:
        return [(late[name] - early[name]) / max(late[per] - early[per], 1e-3) for early, late in pairs]

    rows = figure.subplots(5, 1, sharex=True)
    rows[0].plot(minutes[1:], rates("requests", "processor_seconds"), label="each second of the processor")
    rows[0].plot(minutes[1:], rates("requests", "seconds"), label="each second", color="#7f8c8d", linewidth=0.8)
    rows[1].plot(minutes[1:], rates("hits", "requests"))
    for name, title in (("group_bytes", "the group"), ("resident_bytes", "the process"),
                        ("ordinary_bytes", "of it not droppable")):  # fmt: skip
        rows[2].plot(minutes, [one[name] / 1e6 for one in samples], label=title)
    rows[2].axhline(limit_bytes / 1e6, color="black", linestyle="--", linewidth=1)
    for name in ("mappings", "descriptors"):
        rows[3].plot(minutes, [one[name] for one in samples], label=name)
    rows[4].plot(minutes, [one["entries"] for one in samples])
    for axes, title in zip(rows, ("requests", "hits / requests", "MB", "number of", "entries"), strict=True):
        axes.set_ylim(bottom=0)
        axes.set_ylabel(title)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(loc="lower right", ncols=3, fontsize=7)
    rows[-1].set_xlabel("minutes")


def _size(size_bytes: int) -> str:
    step = 1000 if size_bytes % 1000 == 0 else 1024
    for unit, factor in (("MB", step**2), ("KB", step)):
        if size_bytes >= factor:
            return f"{round(size_bytes / factor)} {unit}"
    return f"{size_bytes} B"


PICTURES: dict[str, Callable[[Reports, Any], bool]] = {
    "latency": latency, "hits": hits, "growth": growth, "antagonist": antagonist,
}  # fmt: skip
