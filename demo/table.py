"""The table at the end: the figures of the three runs, side by side. Called by demo.py."""

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from run import Run
from service import Experiment

TITLES = {
    "dict": "unbounded dict",
    "cachetools": "cachetools, sized by hand",
    "droppable": "droppable, no size",
}

Figures = dict[str, dict[str, str]]
"""Row by row, way by way."""


def figures(runs: Sequence[Run], experiment: Experiment, prices: Mapping[int, float]) -> Figures:
    """Words and numbers of the table, as shown."""
    calm = [phase for phase in experiment.phases if not phase.is_wave]
    wave = [phase for phase in experiment.phases if phase.is_wave]
    rows: Figures = {}
    for run in runs:
        column = {
            "requests served": f"{len(run.requests):,} of {len(experiment.stream):,}",
            "hit ratio": f"{run.hit_ratio(experiment.phases):.1%}",
            "  in calm": f"{run.hit_ratio(calm):.1%}",
            "  in waves": f"{run.hit_ratio(wave):.1%}",
            "rendering saved": f"{run.saved_seconds(experiment.stream, prices):.1f} s",
            "OOM kills": f"{run.oom_kills}" if experiment.has_cgroup else "no cgroup",
            "request, p50": f"{run.percentile_seconds(50) * 1e3:.3f} ms",
            "request, p99": f"{run.percentile_seconds(99) * 1e3:.0f} ms",
            "peak memory": "-" if run.peak_bytes is None else f"{run.peak_bytes / 1e6:.0f} MB",
            "size set": f"{experiment.sizes.hand_bytes / 1e6:.0f} MB" if run.way == "cachetools" else "none",
            "wrong documents": f"{run.wrong}",
        }
        for name, figure in column.items():
            rows.setdefault(name, {})[run.way] = figure
    return rows


def show(rows: Figures) -> None:
    """Prints the table."""
    table = Table()
    table.add_column("")
    for way in next(iter(rows.values())):
        table.add_column(TITLES[way], justify="right")
    for name, columns in rows.items():
        table.add_row(name, *columns.values())
    Console().print(table)
