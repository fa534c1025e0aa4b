"""Dask: results that tasks ask for again, in a cache of each worker, and workers that are not killed for having one.

Dask looks at the resident memory of its workers, ten times a second, and acts on shares of the worker's limit:

    0.7     it writes results to disk, until 0.6 is reached     the worker itself: WorkerPlugin
    0.8     it gives the worker no tasks                        the worker itself
    0.95    it ends the worker, whose tasks begin again         its nanny, another process: NannyPlugin

Resident memory counts pages that the kernel may take back at any moment. Both plugins let Dask see the rest instead:
_dask_memory.py says how. Each name that is registered is a worker plugin and a cache:

                             plugin               what it does
    register(client)         "droppable"          cache "dask:" \
    register(client, "b")    "droppable b"        cache "dask:b" -- the worker sees ordinary memory while one is there
    both                     "droppable nanny"    the nanny sees the same
"""

from __future__ import annotations

import functools
import inspect
import os
import pickle
import sys
from collections import defaultdict
from collections.abc import Callable
from contextvars import ContextVar
from datetime import timedelta
from types import FunctionType
from typing import Any, Final, Generic, ParamSpec, SupportsIndex, TypeVar, cast

from dask.base import tokenize
from distributed import Client, NannyPlugin, WorkerPlugin

import droppable
from droppable._memo_signature import is_coroutine_function, parameters_of, takes_any_keyword
from droppable.adapters._dask_arguments import arguments_part, function_part, is_sent_by_value
from droppable.adapters._dask_code import code_token
from droppable.adapters._dask_memory import OrdinaryMemory, ProcessFigures
from droppable.adapters._shared import cache_of

P = ParamSpec("P")
R = TypeVar("R")

_LIBRARY: Final = "dask"
_MEMORY_HOOK: Final = "get_process_memory"
"""What a worker asks its monitor for, to show it and to act on it. Dask's own tests replace it too."""

_OPTIONS: Final = inspect.signature(droppable.Cache).parameters

_GENERATORS: Final = (inspect.isgeneratorfunction, inspect.isasyncgenfunction)

_identifying: Final[ContextVar[bool]] = ContextVar("droppable_dask_identifying", default=False)
"""Whether a function is looked at, with whatever it refers to."""

_users: Final[defaultdict[str, set[str]]] = defaultdict(set)
"""By the name of a cache: which workers of this process have it. There are several with `processes=False`."""


def register(client: Client, name: str = "", **options: Any) -> Any:
    """Gives each worker a cache for `memoize`, and lets Dask see the memory that cannot be taken back.

    Workers that start later get it too. A second call that gives the same options, or none, changes nothing.

    Args:
        client: of the cluster.
        name: of the cache; `memoize` asks for it by this name.
        options: what `droppable.Cache` takes.

    Returns:
        None. Of an asynchronous client: what has to be awaited.

    Raises:
        TypeError, ValueError: an option that is none of `Cache`'s, or out of range; client or name of the wrong type.
            Nothing is registered then.
        ValueError: backing="droppable": the kernel does not tell cheaply how much of that memory a process has. Also
            where this name is registered with other options.
    """
    if not isinstance(client, Client):
        raise TypeError(f"client must be a distributed.Client, as Client(cluster) is one; you gave {client!r}")
    if not isinstance(name, str):
        raise TypeError(f"name must be a str; you gave {name!r}")
    plugin = DroppableWorkerPlugin(name, **options)
    droppable.Cache(**options).close()
    return cast("Any", client).sync(_register, client, plugin)


async def _register(client: Any, plugin: DroppableWorkerPlugin) -> None:
    def find(
        dask_scheduler: Any, name: str
    ) -> Any:  # within a function, so that a scheduler without droppable knows it
        return dask_scheduler.worker_plugins.get(name)

    found = await client.run_on_scheduler(find, name=plugin.name)
    if found is not None:
        pickle.loads(found).check_same(plugin)
    else:
        try:
            await client.register_plugin(plugin)
        except Exception:  # a worker could not make the cache; those that start later should not try
            await client.unregister_worker_plugin(plugin.name)
            raise
    await client.register_plugin(DroppableNannyPlugin())


class DroppableWorkerPlugin(WorkerPlugin):
    """In the worker: makes its cache, and lets it see its ordinary memory. See `register`."""

    idempotent = True

    def __init__(self, name: str = "", **options: Any) -> None:
        if options.get("backing") == "droppable":
            raise ValueError("backing must be 'lazyfree' or 'auto' in a Dask worker; you gave 'droppable'")
        self.name = f"droppable {name}".rstrip()
        self._cache_name = name
        self._options = options

    def check_same(self, other: DroppableWorkerPlugin) -> None:
        """Raises ValueError where the other one gives an option that this one, which is registered, does not have."""
        for option, value in other._options.items():
            has = self._options.get(option, _OPTIONS[option].default)
            if value != has and tokenize(value) != tokenize(has):  # objects may lack an equality
                raise ValueError(
                    f"the cache {self._cache_name!r} of this cluster is registered with {option}={has!r}; you gave "
                    f"{value!r}. To have another one in its place, empty at first, call "
                    f"client.unregister_worker_plugin({self.name!r}) before"
                )

    def setup(self, worker: Any) -> None:
        cache_of(_LIBRARY, self._cache_name, self._options)
        _users[self._cache_name].add(worker.id)
        if _mark_bytes(worker.memory_manager) is not None:
            memory = OrdinaryMemory(ProcessFigures(os.getpid()), 0)
            read_bytes = functools.partial(_read_bytes, worker.memory_manager, memory)
            vars(worker.monitor).setdefault(_MEMORY_HOOK, read_bytes)  # another cache may have brought it

    def teardown(self, worker: Any) -> None:
        if not any(isinstance(plugin, DroppableWorkerPlugin) for plugin in worker.plugins.values()):
            vars(worker.monitor).pop(_MEMORY_HOOK, None)
        users = _users[self._cache_name]
        if worker.id in users:  # else setup failed
            users.remove(worker.id)
            if not users:
                cache_of(_LIBRARY, self._cache_name, {}).close()


def _read_bytes(manager: Any, memory: OrdinaryMemory) -> int:
    """What the worker sees of its memory. Its limit and its shares may change while it runs."""
    mark_bytes = _mark_bytes(manager)
    memory.mark_bytes = sys.maxsize if mark_bytes is None else mark_bytes
    return memory.read_bytes()


def _mark_bytes(manager: Any) -> int | None:
    """The least that a worker acts on, or None where it has no limit or does nothing about it."""
    shares = (manager.memory_target_fraction, manager.memory_spill_fraction, manager.memory_pause_fraction)
    in_use = [share for share in shares if share is not False]
    return int(min(in_use) * manager.memory_limit) if in_use and manager.memory_limit else None


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
    _pid: int | None = None

    def _look(self, nanny: Any, dasks_own: Callable[[], None]) -> None:
        process = nanny.process and nanny.process.process
        pid = process and process.pid
        if pid is None:
            return
        manager = nanny.memory_manager
        if not manager.memory_limit or not manager.memory_terminate_fraction:
            return
        most_bytes = int(manager.memory_limit * manager.memory_terminate_fraction)
        if self._memory is None or self._pid != pid:
            self._memory = OrdinaryMemory(ProcessFigures(pid), most_bytes)
            self._pid = pid
        self._memory.mark_bytes = most_bytes  # the limit may have changed
        try:
            is_too_much = self._memory.read_bytes() > most_bytes
        except (FileNotFoundError, ProcessLookupError):
            return  # it has just ended
        if is_too_much:
            self._memory = None  # if the worker lives on, then only for what the next look says
            dasks_own()


class Memoized(Generic[P, R]):
    """A function whose results stay in the cache of the worker that computed them: what `memoize` makes."""

    def __init__(self, function: Callable[P, R], name: str, ttl: float | timedelta | None) -> None:
        functools.update_wrapper(self, function)
        self.__wrapped__ = function
        self._qualname = str(getattr(function, "__qualname__", ""))
        self._name = name
        self._ttl = ttl
        self._sent: Any = None  # what the function was when it was sent to a worker
        self._made: Any = self._part_of_name() or function_part(function)

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        """By name, as functions are, where a decorated one can be imported."""
        return self._qualname if self._is_named() else super().__reduce_ex__(protocol)

    def __getstate__(self) -> dict[str, Any]:
        """With what the function is at this moment, and without what is true of this process only."""
        state = vars(self).copy()
        state.pop("_keeps_order", None)
        state["_made"] = None
        state["_sent"] = self._part_to_send()
        return state

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        code = code_token(self.__wrapped__)
        key = (self._sent, self._made, code, arguments_part(args, kwargs, self._keeps_order))
        begun: list[bool] = []
        computed: list[R] = []

        @functools.wraps(self.__wrapped__)
        def compute() -> R:
            begun.append(True)
            computed.append(self.__wrapped__(*args, **kwargs))
            return computed[0]

        cache = self.cache
        try:
            return cast("R", cache.get_or_create(key, compute, self._ttl))
        except droppable.ClosedError:  # the plugin was unregistered meanwhile, or the function says so of another cache
            if not _is_closed(cache) or (begun and not computed):
                raise
            return computed[0] if computed else self.__wrapped__(*args, **kwargs)

    @property
    def cache(self) -> droppable.Cache[Any, Any]:
        """This process' cache of that name; in a worker, the one that `register` made."""
        return cache_of(_LIBRARY, self._name, {})

    @functools.cached_property
    def _keeps_order(self) -> bool:
        return takes_any_keyword(parameters_of(self.__wrapped__))

    def _is_named(self) -> bool:
        module_name = getattr(self, "__module__", None)
        if module_name is None or is_sent_by_value(module_name):
            return False
        return getattr(sys.modules.get(module_name), self._qualname, None) is self

    def _part_of_name(self) -> tuple[str, str] | None:
        """Where a decorator is at work the name is not given yet, and what the function refers to not yet there."""
        module_name = getattr(self, "__module__", None)
        is_plain = isinstance(self.__wrapped__, FunctionType) and self._qualname.isidentifier()
        if not is_plain or module_name is None or is_sent_by_value(module_name):
            return None
        return module_name, self._qualname

    def _part_to_send(self) -> Any:
        """What the function is now: globals and closures may have changed since it was made."""
        if self._sent is not None or _identifying.get():  # a function may refer to itself
            return self._sent
        mark = _identifying.set(True)
        try:
            return function_part(self.__wrapped__)
        finally:
            _identifying.reset(mark)

    def __dask_tokenize__(self) -> Any:
        mark = _identifying.set(True)
        try:
            function = self._qualname if self._is_named() else tokenize(self.__wrapped__)
        finally:
            _identifying.reset(mark)
        return type(self).__name__, function, code_token(self.__wrapped__), self._name


def _is_closed(cache: droppable.Cache[Any, Any]) -> bool:
    try:
        len(cache)
    except droppable.ClosedError:
        return True
    return False


def memoize(function: Callable[P, R], *, name: str = "", ttl: float | timedelta | None = None) -> Memoized[P, R]:
    """The function, with its results kept in the cache of each worker that runs it.

        load = memoize(load)
        futures = client.map(load, paths)

    A result is known by the function and by all arguments. The function is known by what Dask's own `tokenize` says of
    it at the moment when it is sent to a worker, by its code, and by the text of its module, as the worker has both.
    What it imports from other modules is no part of that. The arguments are known by their types and contents: arrays
    and frames are read for that. Two tasks of one worker that ask for the same at once compute once. Arrays come back
    read-only.

    Args:
        function: what is computed. No coroutine function, and no generator function.
        name: of the cache, as `register` was given it.
        ttl: as for `droppable.cache`.

    Raises:
        TypeError: function is a coroutine function, a generator function, or no function.
        dask.tokenize.TokenizationError: the function, or an argument of a call, has no token that stays the same.
    """
    if not callable(function):
        raise TypeError(f"function must be a function; you gave {function!r}")
    if is_coroutine_function(function):
        raise TypeError(
            "function must not be a coroutine function: its result is a coroutine, which cannot be kept; you gave "
            f"{function!r}. Give it to Dask as it is, or memoize a function that blocks: Dask runs those in threads"
        )
    if any(is_one(candidate) for is_one in _GENERATORS for candidate in (function, type(function).__call__)):
        raise TypeError(
            "function must not be a generator function: a generator can be gone through only once, so that there is "
            f"nothing to keep; you gave {function!r}. Return a list instead"
        )
    return Memoized(function, name, ttl)
