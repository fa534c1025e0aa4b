"""Metrics: one table feeds `CacheStats`, Prometheus, OpenTelemetry, the documentation and the dashboard."""

from __future__ import annotations

import gc
import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import droppable
from droppable._metrics import Reader
from droppable._stats import COUNTS
from droppable.metrics import FAMILIES

prometheus = pytest.importorskip("prometheus_client", reason="prometheus_client is not installed")
prometheus_parser = pytest.importorskip("prometheus_client.parser", reason="prometheus_client is not installed")
opentelemetry = pytest.importorskip("opentelemetry.sdk.metrics", reason="opentelemetry-sdk is not installed")
opentelemetry_export = pytest.importorskip(
    "opentelemetry.sdk.metrics.export", reason="opentelemetry-sdk is not installed"
)

DOCS = Path(__file__).parents[2] / "docs"
DASHBOARD = DOCS / "dashboards" / "droppable.json"


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> list[droppable.Cache]:
    """The caches that are read: those in this list, and not what other tests have left."""
    listed: list[droppable.Cache] = []
    monkeypatch.setattr("droppable.metrics.caches", lambda: list(listed))
    return listed


@pytest.fixture
def tiles() -> Iterator[droppable.Cache[Any, Any]]:
    with droppable.named("tiles of test_metrics") as cache:
        yield cache


def samples(registry: Any) -> dict[tuple[str, str, str], float]:
    """Name, cache and cause, and the value, as a scrape reads them."""
    text = prometheus.generate_latest(registry).decode()
    return {
        (sample.name, sample.labels["cache"], sample.labels.get("cause", "")): sample.value
        for family in prometheus_parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def names() -> set[str]:
    return {family.prometheus for family in FAMILIES}


def test_each_field_of_the_statistics_is_in_one_row_and_in_one_metric() -> None:
    assert [row.field for row in COUNTS] == list(droppable.CacheStats.__slots__)
    shown = [field for family in FAMILIES for _, field in family.counts]
    assert sorted(shown) == sorted(droppable.CacheStats.__slots__)


def test_names_end_in_their_unit_as_prometheus_has_it() -> None:
    units = {"By": "_bytes", "s": "_seconds", "{page}": "_pages", "1": ""}
    for family in FAMILIES:
        assert family.prometheus.endswith(units[family.unit] + ("_total" if family.kind == "counter" else "")), family
        assert re.fullmatch(r"droppable_cache_[a-z_]+", family.prometheus)
        assert re.fullmatch(r"[A-Z].*\.", family.text), family
    assert len(names()) == len(FAMILIES)


def test_prometheus_reads_what_stats_tells(only: list[droppable.Cache], tiles: droppable.Cache[Any, Any]) -> None:
    only.append(tiles)
    registry = prometheus.CollectorRegistry()
    droppable.metrics.prometheus(registry)
    tiles["a"] = b"value"
    assert tiles["a"] == b"value"
    assert tiles.get("b") is None
    del tiles["a"]
    stats = tiles.stats()
    expected = {
        (family.prometheus, "tiles of test_metrics", cause): getattr(stats, field)
        for family in FAMILIES
        for cause, field in family.counts
    }
    assert samples(registry) == expected
    assert expected["droppable_cache_misses_total", "tiles of test_metrics", "absent"] == 1
    assert expected["droppable_cache_removed_total", "tiles of test_metrics", "deleted"] == 1


def test_a_registry_takes_the_metrics_once_and_gives_them_back(only: list[droppable.Cache]) -> None:
    registry = prometheus.CollectorRegistry()
    collector = droppable.metrics.prometheus(registry)
    with pytest.raises(ValueError, match="droppable_cache_hits"):
        droppable.metrics.prometheus(registry)
    registry.unregister(collector)
    assert prometheus.generate_latest(registry) == b""


def test_opentelemetry_reads_what_stats_tells(only: list[droppable.Cache], tiles: droppable.Cache[Any, Any]) -> None:
    only.append(tiles)
    reader = opentelemetry_export.InMemoryMetricReader()
    provider = opentelemetry.MeterProvider([reader], shutdown_on_exit=False)
    droppable.metrics.opentelemetry(provider.get_meter("test"))
    tiles["a"] = bytes(10_000)
    assert tiles.get("b") is None
    data = reader.get_metrics_data()
    assert data is not None
    metrics = {metric.name: metric for metric in data.resource_metrics[0].scope_metrics[0].metrics}
    assert metrics.keys() == {family.opentelemetry for family in FAMILIES}
    stats = tiles.stats()
    for family in FAMILIES:
        metric = metrics[family.opentelemetry]
        assert metric.unit == family.unit
        assert isinstance(metric.data, opentelemetry_export.Sum) == (family.kind == "counter")
        read = {point.attributes.get("cause", ""): point.value for point in metric.data.data_points}  # type: ignore[union-attr]
        assert read == {cause: getattr(stats, field) for cause, field in family.counts}
    provider.shutdown()


def test_caches_of_one_name_are_one_sum_and_those_without_a_name_are_another(only: list[droppable.Cache]) -> None:
    def function(number: int) -> int:
        return number

    twins = [droppable.cache(name="twin")(function) for _ in "ab"]
    nameless = [droppable.Cache(), droppable.Cache()]
    only += [twin.cache for twin in twins] + nameless
    for cache in nameless:
        cache["k"] = 1
    for twin in twins:
        assert twin(1) == twin(1) == 1
    sums = Reader(lambda: list(only)).read()
    assert {name: (counts["hits"], counts["sets"]) for name, counts in sums.items()} == {
        twins[0].cache.name: (2, 2),
        "unnamed": (0, 2),
    }


def test_no_counter_falls_when_a_cache_goes() -> None:
    listed = [droppable.Cache(), droppable.Cache()]
    reader = Reader(lambda: list(listed))
    for cache in listed:
        cache["k"] = 1
    assert reader.read()["unnamed"]["sets"] == 2
    listed.pop().close()
    del cache
    gc.collect()
    for _ in range(2):
        counts = reader.read()["unnamed"]
        assert (counts["sets"], counts["entries"]) == (2, 1)
    closed = listed[0]
    closed.close()  # but in the list still
    counts = reader.read()["unnamed"]
    assert (counts["sets"], counts["entries"]) == (2, 0)


def test_reads_of_many_threads_lose_nothing_of_what_is_gone() -> None:
    listed = [droppable.Cache() for _ in range(8)]
    for cache in listed:
        cache["k"] = 1
    reader = Reader(lambda: list(listed))
    assert reader.read()["unnamed"]["sets"] == 8
    listed.clear()
    threads = [threading.Thread(target=reader.read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reader.read()["unnamed"]["sets"] == 8


def test_a_read_within_a_read_gives_what_was_read_last() -> None:
    """As a signal handler does, or a finaliser that a collection runs then: here, whoever lists the caches."""
    cache = droppable.Cache()
    cache["k"] = 1
    listed = [cache]
    inner: list[dict[str, Any]] = []

    def caches() -> list[droppable.Cache]:
        found = list(listed)
        if inner:
            inner.append(reader.read())
        return found

    reader = Reader(caches)
    assert reader.read()["unnamed"]["sets"] == 1
    inner.append({})
    cache["k"] = 2
    outer: list[dict[str, Any]] = []
    thread = threading.Thread(target=lambda: outer.append(reader.read()), daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive(), "it waits for itself"
    assert outer[0]["unnamed"]["sets"] == 2
    assert inner[1]["unnamed"]["sets"] == 1
    listed.clear()
    assert reader.read()["unnamed"]["sets"] == 2
    assert reader.read()["unnamed"]["sets"] == 2


def test_a_child_that_was_forked_during_a_read_can_read() -> None:
    cache = droppable.Cache(fork="share")
    cache["k"] = 1
    reader = Reader(lambda: [cache])
    with reader._lock:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = 0 if reader.read()["unnamed"]["sets"] == 1 else 2
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


class TestSeconds:
    """What hits saved, and what was computed again."""

    @pytest.fixture
    def cache(self, make_cache: Callable[..., droppable.Cache]) -> droppable.Cache:
        return make_cache()

    def test_each_hit_saves_the_cost_of_its_value(self, cache: droppable.Cache) -> None:
        cache.set("small", b"x", cost=2)
        cache.set("large", bytes(100_000), cost=3.5)
        cache.set("free", b"x")
        assert cache.stats().saved_seconds == 0
        for key in ("small", "large", "free", "absent", "small"):
            cache.get(key)
        assert cache.stats().saved_seconds == 2 + 3.5 + 2
        assert len(cache.get_many(["small", "large", "free"])) == 3
        assert cache.stats().saved_seconds == 2 * (2 + 3.5) + 2
        assert cache.stats().lost_seconds == 0

    def test_a_value_that_cannot_be_loaded_saved_nothing(self, cache: droppable.Cache) -> None:
        broken = droppable.Cache(serializer=BrokenSerializer())
        broken.set("k", ["value"], cost=5)
        assert broken.get("k") is None
        assert (broken.stats().saved_seconds, broken.stats().misses_unloadable) == (0, 1)

    def test_who_computes_saves_nothing(self, cache: droppable.Cache) -> None:
        np = pytest.importorskip("numpy", reason="NumPy is not installed")
        cache.get_or_create("array", lambda: np.ones(100_000))  # comes back from the cache, in place
        assert cache.stats().saved_seconds == 0
        cache.get("array")
        assert cache.stats().saved_seconds > 0

    def test_what_was_evicted_and_computed_again_was_lost(self) -> None:
        cache: droppable.Cache[int, bytes] = droppable.Cache(max_bytes=1 << 20)
        for number in range(400):
            cache.set(number, bytes(10_000), cost=1)
        assert cache.stats().lost_seconds == 0
        for number in range(400):
            before = cache.stats().misses_evicted
            if cache.get(number) is None and cache.stats().misses_evicted > before:
                cache.set(number, b"", cost=2)
                cache.set(number, b"", cost=2)  # not missed in between
        stats = cache.stats()
        assert stats.misses_evicted > 0
        assert stats.lost_seconds == 2 * stats.misses_evicted

    def test_what_was_dropped_and_computed_again_was_lost(self, cache: droppable.Cache) -> None:
        for number in range(64):
            cache.set(number, b"x" * 100_000, cost=1)
        droppable.testing.drop(cache, fraction=0.5, seed=1)
        for number in range(64):
            before = cache.stats().misses_dropped
            if cache.get(number) is None and cache.stats().misses_dropped > before:
                cache.set(number, b"x" * 100_000, cost=2)
        stats = cache.stats()
        assert stats.misses_dropped > 0
        assert stats.lost_seconds == 2 * stats.misses_dropped


class BrokenSerializer:
    """Stores what it cannot load."""

    def dumps(self, value: Any, /) -> bytes:
        return b"data"

    def loads(self, data: bytes, /) -> Any:
        raise LookupError("this cannot be loaded")


@pytest.mark.parametrize(
    "call, library, package",
    [("prometheus", "prometheus_client", "prometheus_client"), ("opentelemetry", "opentelemetry", "opentelemetry-api")],
)
def test_a_library_that_is_missing_is_named_as_it_is_installed(
    call: str, library: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ModuleNotFoundError, match=f"pip install {package} "):
        getattr(droppable.metrics, call)()


def test_metrics_load_no_library_before_they_are_asked_for(run_python: Callable[..., str]) -> None:
    loaded = run_python(
        """
        import sys
        import droppable
        droppable.metrics.FAMILIES
        print(*sys.modules, sep="\\n")
        """
    ).split()
    assert "droppable.metrics" in loaded
    assert not {"prometheus_client", "opentelemetry", "socket", "asyncio"}.intersection(loaded)


def queries(board: Any) -> Iterator[str]:
    for key, value in board.items() if isinstance(board, dict) else enumerate(board):
        if key in ("expr", "query") and isinstance(value, str):
            yield value
        elif isinstance(value, dict | list):
            yield from queries(value)


def test_the_dashboard_asks_for_what_is_exported() -> None:
    asked = [query for query in queries(json.loads(DASHBOARD.read_text())) if query != "prometheus"]
    assert len(asked) > 10
    used = {name for query in asked for name in re.findall(r"\bdroppable_\w+", query)}
    assert used <= names()
    assert {"droppable_cache_lost_seconds_total", "droppable_cache_misses_total"} <= used
    for query in asked:
        labels = {label for words in re.findall(r"by \(([^)]*)\)", query) for label in re.split(r",\s*", words)}
        labels |= set(re.findall(r"[{,]\s*(\w+)\s*=", query))
        assert labels <= {"cache", "cause"}, query
        for name in re.findall(r"\bdroppable_\w+", query):
            assert name.endswith("_total") == ("rate(" in query or "label_values(" in query), query
            if "cause" in labels:
                assert next(family for family in FAMILIES if family.prometheus == name).counts[0][0], query


def documented() -> dict[str, str]:
    items = [
        f"- `{family.prometheus}` ({family.kind}): {family.text} "
        f"In OpenTelemetry: `{family.opentelemetry}`, unit `{family.unit}`."
        for family in FAMILIES
    ]
    texts = {row.field: row.text for row in COUNTS}
    tables = [
        f"The causes of `{family.prometheus}`:\n\n| cause | in `stats()` | what it counts |\n|---|---|---|\n"
        + "\n".join(f"| `{cause}` | `{field}` | {texts[field]} |" for cause, field in family.counts)
        for family in FAMILIES
        if len(family.counts) > 1
    ]
    return {"LIST": "\n".join(items), "CAUSES": "\n\n".join(tables)}


@pytest.mark.parametrize("part", ["LIST", "CAUSES"])
def test_the_page_has_the_table(part: str) -> None:
    text = documented()[part]
    assert text in (DOCS / "metrics.md").read_text(), f"docs/metrics.md must have this:\n{text}"


def test_the_page_names_no_other_metric() -> None:
    text = (DOCS / "metrics.md").read_text()
    assert set(re.findall(r"\bdroppable_cache_\w+", text)) <= names()


@pytest.mark.parametrize(("call", "parameter"), [("prometheus", "registry"), ("opentelemetry", "meter")])
def test_the_name_of_a_cache_is_no_place_for_metrics(call: str, parameter: str) -> None:
    with pytest.raises(TypeError, match=f"^{parameter} must be .*, or None; you gave 'tiles'. One call tells of all"):
        getattr(droppable.metrics, call)("tiles")


def test_a_second_time_says_that_once_is_enough() -> None:
    registry = prometheus.CollectorRegistry()
    droppable.metrics.prometheus(registry)
    with pytest.raises(ValueError, match="Duplicated timeseries") as raised:
        droppable.metrics.prometheus(registry)
    assert "called once for each registry" in raised.value.__notes__[0]
