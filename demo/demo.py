"""The main job: one stream of requests under memory pressure, answered through three caches, one after the other.

Run by `make demo`. The map of this directory:

    demo.py     arguments, the order of things
    corpus.py   which files             stream.py     which file a request asks for    waves.py  when memory is taken
    sizing.py   how much memory         ways.py       the three caches
    service.py  one run                 parts.py      its processes                    run.py    what happened in it
    worker.py   a process: serves       neighbour.py  a process: takes memory, returns it
    view.py     while it runs           table.py      at the end                       plot.py   at the end: a picture
"""

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

import corpus
import plot
import sizing
import stream
import table
import view
import waves
from run import Run, prices_seconds
from service import Experiment, rehearse, serve
from ways import WAYS

from droppable._cgroup import CgroupUnavailableError

REQUESTS_PER_FILE = 2
"""Without --requests."""

SEED = 1


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="demo.py", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--input", type=Path, metavar="DIR", help="the files to render (default: Python's own standard library)")
    add("--suffix", default=".py", help="of the files to render (default: %(default)s)")
    add(
        "--output",
        type=Path,
        metavar="DIR",
        default=Path("build/demo"),
        help="for demo.png and demo.json (%(default)s)",
    )
    add("--requests", type=positive, metavar="N", help=f"in the stream (default: {REQUESTS_PER_FILE} a file)")
    add("--seconds", type=positive, default=110, help="for the three runs; they are cut there (default: %(default)s)")
    add(
        "--memory",
        type=megabytes,
        metavar="64M",
        help="what cache and neighbours share, beside what the programs need (default: by the size of the input)",
    )
    add("--no-cgroup", action="store_true", help="as where no cgroup can be made: pages are dropped by request")
    return parser.parse_args(arguments)


def positive(text: str) -> int:
    number = int(text)
    if number <= 0:
        raise ValueError(text)
    return number


def megabytes(text: str) -> int:
    return positive(text.upper().removesuffix("B").removesuffix("I").removesuffix("M")) << 20


def prepare(options: argparse.Namespace, show: view.View) -> Experiment:
    """Finds the files, measures what the programs need, and sizes everything else by that."""
    chosen = corpus.collect(options.input or corpus.standard_library(), options.suffix, SEED)
    show.say(f"{len(chosen.files):,} files, {chosen.total_bytes / 1e6:.1f} MB, below {chosen.directory}")
    chosen.warm()
    has_cgroup = not options.no_cgroup
    try:
        rehearsal = rehearse(chosen, options.output, has_cgroup)
    except CgroupUnavailableError as error:
        show.say(str(error))
        has_cgroup = False
        rehearsal = rehearse(chosen, options.output, has_cgroup)
    if not has_cgroup:
        show.say(
            "No cgroup: nothing limits the three caches, and no OOM killer comes: the dict keeps all.\n"
            "In place of pressure pages of droppable's cache are dropped on request (MADV_PAGEOUT), down to\n"
            "the room that a wave would leave. They are drawn at random, which loses far more documents than\n"
            "pressure does, where the coldest go first."
        )
    html_bytes = int(chosen.total_bytes * rehearsal.html_per_source)
    sizes = sizing.Sizes(rehearsal.baseline_bytes, options.memory or sizing.shared_bytes(html_bytes))
    requests = options.requests or REQUESTS_PER_FILE * len(chosen.files)
    mb = view.megabytes
    show.say(
        f"{requests:,} requests for about {mb(html_bytes)} of HTML. The programs need {mb(sizes.baseline_bytes)};\n"
        f"{mb(sizes.shared_bytes)} more are for the cache, and for neighbours that take up to {mb(sizes.wave_bytes)}.\n"
        f"The cache sized by hand to survive that: {mb(sizes.hand_bytes)}."
    )
    requests_stream = stream.zipf(len(chosen.files), requests, SEED)
    return Experiment(chosen, requests_stream, waves.schedule(requests), sizes, has_cgroup, options.output)


def run_all(experiment: Experiment, seconds: float, show: view.View) -> list[Run]:
    """The three runs. What one is cut to for time, the next is not asked for more."""
    deadline_seconds = time.monotonic() + seconds
    requests = len(experiment.stream)
    runs: list[Run] = []
    for position, way in enumerate(WAYS):
        now_seconds = time.monotonic()
        share_seconds = (deadline_seconds - now_seconds) / (len(WAYS) - position)
        show.begin(way)
        run = serve(experiment, way, requests, now_seconds + share_seconds, show.update)
        show.end(run)
        if not run.victim:
            requests = len(run.requests)
        runs.append(run)
    return runs


def main(arguments: list[str] | None = None) -> int:
    options = parse(sys.argv[1:] if arguments is None else arguments)
    with view.open_view() as show:
        try:
            experiment = prepare(options, show)
        except FileNotFoundError as error:
            print(f"demo: {error}", file=sys.stderr)
            return 2
        show.prepare(experiment)
        runs = run_all(experiment, options.seconds, show)
    prices = prices_seconds(runs, experiment.stream)
    figures = table.figures(runs, experiment, prices)
    picture = options.output / "demo.png"
    plot.draw(runs, experiment, prices, picture)
    data = {"sizes": asdict(experiment.sizes), "figures": figures, "runs": [asdict(run) for run in runs]}
    (options.output / "demo.json").write_text(json.dumps(data))
    table.show(figures)
    print(f"The three over time: {picture}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
