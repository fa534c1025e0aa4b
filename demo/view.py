"""The view: what is seen while it runs. A live one in a terminal (rich), plain lines elsewhere. Called by demo.py."""

import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from run import RECENT_REQUESTS, Run
from service import Experiment
from ways import WAYS

_BARS = " ▁▂▃▄▅▆▇█"
_REDRAW_SECONDS = 0.1


class View(ABC):
    """What demo.py tells whoever watches."""

    def prepare(self, experiment: Experiment) -> None:
        self.experiment = experiment

    @abstractmethod
    def say(self, text: str) -> None: ...

    @abstractmethod
    def begin(self, way: str) -> None: ...

    @abstractmethod
    def update(self, run: Run) -> None:
        """After each sample, so `run` has one."""

    @abstractmethod
    def end(self, run: Run) -> None: ...


def recent_hit_ratio(run: Run) -> float:
    recent = run.requests[-RECENT_REQUESTS:]
    return sum(request.hit for request in recent) / len(recent) if recent else 0.0


def overall_hit_ratio(run: Run) -> float:
    return sum(request.hit for request in run.requests) / len(run.requests) if run.requests else 0.0


def resident(run: Run) -> str:
    """The cache's memory."""
    return megabytes(run.samples[-1].resident_bytes) if run.samples else "-"


def dropped(run: Run) -> str:
    """Entries found dropped, and of the documents ever put in those no longer resident; only droppable loses any so."""
    if run.way != "droppable" or not run.samples:
        return "-"
    last = run.samples[-1]
    gone = "" if last.resident_bytes is None else f" ({megabytes(max(0, last.stored_bytes - last.resident_bytes))})"
    return f"{run.requests[-1].dropped:,}{gone}"


def state(run: Run) -> str:
    if run.victim:
        return f"OOM-killed: {run.victim}, at request {len(run.requests):,}"
    return f"{run.seconds:.0f} s"


def megabytes(bytes_: int | None) -> str:
    return "-" if bytes_ is None else f"{bytes_ / 1e6:.0f} MB"


class PlainView(View):
    """One line whenever a phase ends."""

    def say(self, text: str) -> None:
        print(text, flush=True)

    def begin(self, way: str) -> None:
        self._phase = 0

    def update(self, run: Run) -> None:
        phases = self.experiment.phases
        while self._phase < len(phases) and len(run.requests) >= phases[self._phase].stop:
            self._phase += 1
            self._line(run)

    def end(self, run: Run) -> None:
        self.say(f"{run.way:<10} {state(run)}")

    def _line(self, run: Run) -> None:
        wave = megabytes(run.samples[-1].wave_bytes if run.samples else 0)
        self.say(
            f"{run.way:<10} {len(run.requests):>7,}/{len(self.experiment.stream):,} requests, hits "
            f"{recent_hit_ratio(run):5.1%} now {overall_hit_ratio(run):5.1%} in all, "
            f"cache {resident(run):>6}, dropped {dropped(run)}, wave {wave}"
        )


class TerminalView(View):
    """A table of the three with their progress, and of the present one the last minute as bars."""

    def __init__(self, live: Live) -> None:
        self._live = live
        self._runs: dict[str, Run] = {}
        self._drawn_seconds = 0.0

    def say(self, text: str) -> None:
        self._live.console.print(text, highlight=False)

    def begin(self, way: str) -> None:
        self._runs[way] = Run(way)

    def update(self, run: Run) -> None:
        self._runs[run.way] = run
        if time.monotonic() - self._drawn_seconds >= _REDRAW_SECONDS:
            self._draw(run)

    def end(self, run: Run) -> None:
        self._runs[run.way] = run
        self._draw(run)

    def _draw(self, run: Run) -> None:
        self._drawn_seconds = time.monotonic()
        self._live.update(Group(self._table(), *self._history(run)), refresh=True)

    def _table(self) -> Table:
        table = Table(box=None, padding=(0, 1), expand=True)
        for heading in ("", "progress", "hits now", "in all", "cache", "dropped", "wave", ""):
            table.add_column(heading, justify="left" if heading in ("", "progress") else "right", no_wrap=True)
        table.columns[1].ratio = 1
        for way in WAYS:
            run = self._runs.get(way, Run(way))
            bar: RenderableType = ProgressBar(total=len(self.experiment.stream), completed=len(run.requests))
            if not run.requests:
                table.add_row(way, bar)
                continue
            table.add_row(
                way,
                bar,
                f"{recent_hit_ratio(run):.0%}",
                f"{overall_hit_ratio(run):.1%}",
                resident(run),
                dropped(run),
                megabytes(run.samples[-1].wave_bytes if run.samples else 0),
                Text(state(run), style="bold red") if run.victim else state(run) if run.seconds else "",
            )
        return table

    def _history(self, run: Run) -> list[Text]:
        """Three lines of bars over the run so far: hit ratio of 0 to 1, cache and wave of 0 to what they share."""
        width = max(10, self._live.console.width - 12)
        shared_bytes = self.experiment.sizes.shared_bytes
        samples = run.samples[:: max(1, -(-len(run.samples) // width))]
        ratios = run.recent_hit_ratios()
        return [
            Text(""),
            Text("hits now  " + bars([ratios[sample.index] for sample in samples]), style="green"),
            Text(
                "cache     " + bars([(sample.resident_bytes or 0) / shared_bytes for sample in samples]), style="cyan"
            ),
            Text("wave      " + bars([sample.wave_bytes / shared_bytes for sample in samples]), style="blue"),
        ]


def bars(parts: list[float]) -> str:
    """One character for each part of 1."""
    return "".join(_BARS[max(0, min(len(_BARS) - 1, round(part * (len(_BARS) - 1))))] for part in parts)


@contextmanager
def open_view() -> Iterator[View]:
    """The view that fits standard output."""
    if not sys.stdout.isatty():
        yield PlainView()
        return
    with Live(console=Console(), auto_refresh=False) as live:
        yield TerminalView(live)
