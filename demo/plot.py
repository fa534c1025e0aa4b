"""The picture at the end: the three runs over the same stream. Called by demo.py."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from run import RECENT_REQUESTS, Run
from service import Experiment
from table import TITLES

matplotlib.use("Agg")

_COLOURS = {"dict": "#c0392b", "cachetools": "#7f8c8d", "droppable": "#1f77b4"}


def draw(runs: Sequence[Run], experiment: Experiment, prices: Mapping[int, float], path: Path) -> None:
    """Writes a PNG: hit ratio, memory, and rendering done, over the requests, with the waves behind them."""
    figure = Figure(figsize=(10, 8.5), dpi=110, layout="constrained")
    hits, memory, seconds = figure.subplots(3, 1, sharex=True)
    for axes in (hits, memory, seconds):
        _waves(axes, experiment)
        axes.grid(alpha=0.3)
        axes.set_xlim(0, len(experiment.stream))
    for run in runs:
        # While nothing is lost the dict and droppable are the same line: the first to be drawn is the broader one.
        style = {"color": _COLOURS[run.way], "label": TITLES[run.way], "linewidth": 3.0 if run.way == "dict" else 1.3}
        ratios = run.recent_hit_ratios()
        hits.plot(range(len(ratios)), ratios, **style)
        samples = [sample for sample in run.samples if sample.usage_bytes is not None]
        memory.plot(
            [sample.index for sample in samples], [(sample.usage_bytes or 0) / 1e6 for sample in samples], **style
        )
        spent = run.spent_seconds(experiment.stream, prices)
        seconds.plot(range(len(spent)), spent, **style)
    hits.set_ylabel(f"hit ratio, last {RECENT_REQUESTS}")
    hits.set_ylim(0.3, 1)
    memory.set_ylabel("memory of the cgroup, MB" if experiment.has_cgroup else "no cgroup: the wave alone, MB")
    if experiment.has_cgroup:
        memory.axhline(experiment.sizes.limit_bytes / 1e6, color="black", linestyle="--", linewidth=1)
        memory.annotate(" limit", (0, experiment.sizes.limit_bytes / 1e6), va="top")
    wave = [(phase.start, phase.stop, phase.height * experiment.sizes.wave_bytes / 1e6) for phase in experiment.phases]
    memory.stairs(
        [height for *_, height in wave],
        [start for start, *_ in wave] + [wave[-1][1]],
        fill=True,
        color="#f5b041",
        alpha=0.5,
        label="taken by the neighbours",
    )
    memory.set_ylim(bottom=0)
    seconds.set_ylabel("rendering done so far, s")
    seconds.set_ylim(bottom=0)
    seconds.set_xlabel("request")
    hits.set_title(
        f"One stream, three caches: {experiment.sizes.shared_bytes / 1e6:.0f} MB for the cache and its neighbours"
    )
    for run in (run for run in runs if run.victim and run.samples):
        _kill(hits, run, run.recent_hit_ratios()[-1], f"OOM-killed at request {len(run.requests):,}")
        _kill(memory, run, (run.samples[-1].usage_bytes or 0) / 1e6)
        _kill(seconds, run, run.spent_seconds(experiment.stream, prices)[-1])
    figure.legend(*memory.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _waves(axes: Axes, experiment: Experiment) -> None:
    for phase in experiment.phases:
        if phase.is_wave:
            axes.axvspan(phase.start, phase.stop, color="#f5b041", alpha=0.12 * phase.height, linewidth=0)


def _kill(axes: Axes, run: Run, height: float, words: str = "") -> None:
    """A cross where the line ends, and a dotted line down from it."""
    index, colour = len(run.requests), _COLOURS[run.way]
    bottom, _ = axes.get_ylim()
    axes.plot([index], [height], marker="X", markersize=10, color=colour, clip_on=False)
    axes.plot([index, index], [bottom, height], color=colour, linestyle=":", linewidth=1)
    late = index > axes.get_xlim()[1] / 2
    axes.text(index, bottom, f" {words} ", color=colour, va="bottom", ha="right" if late else "left")
