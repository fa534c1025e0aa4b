"""Dask: results that tasks ask for again, in a cache of each worker, and workers that are not killed for having one.

Dask looks at the resident memory of its workers, ten times a second, and acts on shares of the worker's limit:

    0.7     it writes results to disk                           the worker itself: WorkerPlugin
    0.8     it gives the worker no tasks                        the worker itself
    0.95    it ends the worker, whose tasks begin again         its nanny, another process: NannyPlugin

Resident memory counts pages that the kernel may take back at any moment. Both plugins let Dask see the rest instead.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, Generic, ParamSpec, TypeVar, cast

from dask.base import tokenize
from distributed import Client, NannyPlugin, WorkerPlugin

import droppable
from droppable.adapters._shared import cache_of

P = ParamSpec("P")
R = TypeVar("R")

_LIBRARY: Final = "dask"
_WATCH_SHARE: Final = 0.5
"""Of a worker's limit: below it Dask does nothing, so that resident memory is good enough."""
_BUDGET: Final = 20
"""A look at the memory maps takes 20 ms a gigabyte. After one comes a pause of so many times what it took."""


def register(client: Client, name: str = "", **options: Any) -> None:
    """Gives each worker a cache for `memoize`, and lets Dask see the memory that cannot be taken back.

    Workers that start later get it too.

    Args:
        client: of the cluster.
        name: of the cache; `memoize` asks for it by this name.
        options: what `droppable.Cache` takes.

    Raises:
        ValueError: backing="droppable": the kernel does not tell cheaply how much of that memory a process has.
        TypeError, ValueError: an option that is none of `Cache`'s, or out of range; raised for the first worker.
    """
    client.register_plugin(DroppableWorkerPlugin(name, **options))
    client.register_plugin(DroppableNannyPlugin())


class DroppableWorkerPlugin(WorkerPlugin):
    """In the worker: makes its cache, and lets it see its ordinary memory. See `register`."""

    idempotent = True

    def __init__(self, name: str = "", **options: Any) -> None:
        if options.get("backing") == "droppable":
            raise ValueError("backing must be 'lazyfree' or 'auto' in a Dask worker; you gave 'droppable'")
        self.name = f"droppable {name}".rstrip()
        self._cache_name = name
        self._options = options

    def setup(self, worker: Any) -> None:
        cache_of(_LIBRARY, self._cache_name, self._options)
        limit_bytes = worker.memory_manager.memory_limit
        if limit_bytes is not None:
            memory = OrdinaryMemory(os.getpid(), int(_WATCH_SHARE * limit_bytes))
            worker.monitor.get_process_memory = memory.read_bytes

    def teardown(self, worker: Any) -> None:
        vars(worker.monitor).pop("get_process_memory", None)
        cache_of(_LIBRARY, self._cache_name, {}).close()


class DroppableNannyPlugin(NannyPlugin):
    """In the nanny: it ends a worker for its ordinary memory only. See `register`."""

    name = "droppable nanny"
    idempotent = True

    def setup(self, nanny: Any) -> None:
        monitor = nanny.periodic_callbacks.get("memory_monitor")
        if monitor is not None:  # else there is no limit, or nobody is to be ended for it
            monitor.callback = functools.partial(self._look, nanny, monitor.callback)

    def teardown(self, nanny: Any) -> None:
        monitor = nanny.periodic_callbacks.get("memory_monitor")
        ours = monitor and monitor.callback
        if isinstance(ours, functools.partial) and ours.func == self._look:
            monitor.callback = ours.args[1]

    _memory: OrdinaryMemory | None = None

    def _look(self, nanny: Any, dasks_own: Callable[[], None]) -> None:
        process = nanny.process and nanny.process.process
        pid = process and process.pid
        if pid is None:
            return
        manager = nanny.memory_manager
        most_bytes = int(manager.memory_limit * manager.memory_terminate_fraction)
        if self._memory is None or self._memory.pid != pid:
            self._memory = OrdinaryMemory(pid, most_bytes)
        try:
            is_too_much = self._memory.read_bytes() > most_bytes
        except (FileNotFoundError, ProcessLookupError):
            return  # it has just ended
        if is_too_much:
            dasks_own()


class OrdinaryMemory:
    """Resident bytes of a process without those that the kernel may take back.

    Looks at the memory maps only where the answer matters, and for no more than a twentieth of the time.
    """

    def __init__(self, pid: int, watch_bytes: int) -> None:
        self.pid = pid
        self._folder = Path(f"/proc/{pid}")
        self._watch_bytes = watch_bytes
        self._lazyfree_bytes = 0
        self._due = 0.0

    def read_bytes(self) -> int:
        """Raises FileNotFoundError or ProcessLookupError where the process has ended."""
        resident_bytes = int((self._folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        ordinary_bytes = resident_bytes - self._lazyfree_bytes
        if 0 <= ordinary_bytes < self._watch_bytes:
            return ordinary_bytes  # what is lazily freed may have grown since: then it is even less
        began = time.monotonic()
        if began >= self._due or ordinary_bytes < 0:
            lines = (self._folder / "smaps_rollup").read_text().splitlines()
            sizes = {name: int(size.split()[0]) << 10 for name, _, size in (line.partition(":") for line in lines[1:])}
            self._lazyfree_bytes = sizes["LazyFree"]
            self._due = began + _BUDGET * (time.monotonic() - began)
            return sizes["Rss"] - self._lazyfree_bytes
        return ordinary_bytes


class Memoized(Generic[P, R]):
    """A function whose results stay in the cache of the worker that computed them: what `memoize` makes."""

    def __init__(self, function: Callable[P, R], name: str, ttl: float | timedelta | None) -> None:
        functools.update_wrapper(self, function)
        self.__wrapped__ = function
        self._name = name
        self._ttl = ttl
        self._token: str = tokenize(function, ensure_deterministic=True)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        key = (self._token, tokenize(args, kwargs, ensure_deterministic=True))
        compute = functools.partial(self.__wrapped__, *args, **kwargs)
        return cast("R", self.cache.get_or_create(key, compute, self._ttl))

    @property
    def cache(self) -> droppable.Cache[Any, Any]:
        """This process' cache of that name; in a worker, the one that `register` made."""
        return cache_of(_LIBRARY, self._name, {})

    def __dask_tokenize__(self) -> Any:
        return type(self).__name__, self._token, self._name


def memoize(function: Callable[P, R], *, name: str = "", ttl: float | timedelta | None = None) -> Memoized[P, R]:
    """The function, with its results kept in the cache of each worker that runs it.

        load = memoize(load)
        futures = client.map(load, paths)

    What identifies a result is the function's code and all arguments, by Dask's own `tokenize`: arrays and frames by
    their contents, which are read for it. Two tasks of one worker that ask for the same at once compute once. Arrays
    come back read-only.

    Args:
        function: what is computed. It is looked at when it is decorated; what it reads from elsewhere is no part of it.
        name: of the cache, as `register` was given it.
        ttl: as for `droppable.cache`.

    Raises:
        dask.tokenize.TokenizationError: the function, or an argument of a call, has no token that stays the same.
    """
    return Memoized(function, name, ttl)
