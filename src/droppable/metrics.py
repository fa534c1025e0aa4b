"""Metrics of all caches of this process, for Prometheus, OpenTelemetry and `droppable top`.

    droppable.metrics.prometheus()          # pip install prometheus_client
    droppable.metrics.opentelemetry()       # pip install opentelemetry-api
    droppable.metrics.publish()             # for `droppable top` of the same user

The caches are read when somebody collects, and at no other time: a look-up costs the same with metrics and without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from droppable import _stats_page
from droppable._live import caches
from droppable._metrics import FAMILIES as FAMILIES
from droppable._metrics import Family as Family
from droppable._metrics import Reader

if TYPE_CHECKING:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

__all__ = ["FAMILIES", "Family", "opentelemetry", "prometheus", "publish"]


class Collector:
    """What prometheus_client asks at each scrape. `prometheus()` makes and registers one."""

    def __init__(self) -> None:
        self._reader = Reader(caches)

    def describe(self) -> Iterator[Metric]:
        """The metrics without samples: what a registry compares to find names that are there already."""
        return self._metrics({})

    def collect(self) -> Iterator[Metric]:
        """The metrics with a sample for each name of a cache, and for each cause."""
        return self._metrics(self._reader.read())

    def _metrics(self, counts: dict[str, dict[str, float]]) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for family in FAMILIES:
            labels = ["cache", "cause"] if family.counts[0][0] else ["cache"]
            make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = make(family.prometheus, family.text, labels=labels)
            for name, fields in counts.items():
                for cause, field in family.counts:
                    metric.add_metric([name, cause] if cause else [name], fields[field])
            yield metric


def prometheus(registry: CollectorRegistry | None = None) -> Collector:
    """Lets prometheus_client export the metrics of all caches of this process, those made later included.

    Threads: any may call it, and any may scrape. Fork: a child that exports has a process's own counts, those of its
    caches. Call it once in each process that is scraped.

    Args:
        registry: where to register; None: prometheus_client's default one, which its servers and WSGI apps export.

    Returns:
        The collector, for `registry.unregister()`.

    Raises:
        ModuleNotFoundError: prometheus_client is not installed. TypeError: registry is no registry.
        ValueError: the registry has metrics of these names already: it was called before.
    """
    try:
        from prometheus_client import REGISTRY
    except ModuleNotFoundError as error:
        raise _missing(error, "prometheus_client") from None
    if registry is not None and not hasattr(registry, "register"):
        raise TypeError(
            f"registry must be a prometheus_client.CollectorRegistry, or None; you gave {registry!r}. One call tells "
            "of all caches of the process"
        )
    collector = Collector()
    try:
        (REGISTRY if registry is None else registry).register(collector)  # type: ignore[arg-type, unused-ignore]
    except ValueError as error:
        error.add_note("droppable.metrics.prometheus() is called once for each registry, in each process")
        raise
    return collector


def opentelemetry(meter: Meter | None = None) -> None:
    """Makes an observable instrument of OpenTelemetry for each metric of the caches of this process.

    Its reader asks when it collects. Threads and forks: as `prometheus()`.

    Args:
        meter: None: that of the global provider, by the name "droppable".

    Raises:
        ModuleNotFoundError: opentelemetry-api is not installed. TypeError: meter is no meter.
    """
    try:
        from opentelemetry.metrics import get_meter
    except ModuleNotFoundError as error:
        raise _missing(error, "opentelemetry-api") from None
    if meter is not None and not hasattr(meter, "create_observable_counter"):
        raise TypeError(
            f"meter must be an opentelemetry.metrics.Meter, or None; you gave {meter!r}. One call tells of all caches "
            "of the process"
        )
    meter = get_meter("droppable") if meter is None else meter
    reader = Reader(caches)
    for family in FAMILIES:
        make: Callable[..., Any] = (
            meter.create_observable_counter if family.kind == "counter" else meter.create_observable_gauge
        )
        make(family.opentelemetry, [partial(_observe, reader, family)], unit=family.unit, description=family.text)


def _observe(reader: Reader, family: Family, options: CallbackOptions) -> Iterable[Observation]:
    from opentelemetry.metrics import Observation

    return [
        Observation(fields[field], {"cache": name, "cause": cause} if cause else {"cache": name})
        for name, fields in reader.read().items()
        for cause, field in family.counts
    ]


def publish() -> Path:
    """Lets `droppable top` of the same user read the counts of this process's caches, by their names.

    A thread waits at a unix socket that only this user can open (mode 0600), and does nothing until somebody asks.
    DROPPABLE_STATS=1 in the environment does the same when the first cache is made. Calling it again changes nothing.
    A forked child gets a socket of its own. The file goes when the process ends in the usual way; that of a process
    that was killed is removed by `droppable top`, or by the next process that publishes.

    Returns:
        The path of the socket.

    Raises:
        OSError: there is no place for it: its folder belongs to somebody else, say.
    """
    return _stats_page.publish(caches)


def _missing(error: ModuleNotFoundError, library: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(f"{library} is not installed: pip install {library} ({error})", name=error.name)
