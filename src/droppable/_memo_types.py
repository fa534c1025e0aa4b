"""What `@droppable.cache` makes, as type checkers see it, and `CacheInfo`."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, Generic, NamedTuple, ParamSpec, Self, TypeVar, overload

from droppable._cache import Cache
from droppable.lowlevel import CoreBoundMemo, CoreMemo

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R", covariant=True)
S = TypeVar("S")


class _FourFields(NamedTuple):
    hits: int
    misses: int
    maxsize: int | None
    currsize: int


class CacheInfo(_FourFields):
    """As functools' cache_info(): `hits, misses, maxsize, currsize`; and `dropped`, which is no field of the tuple.

    hits and misses: calls of this function since it was decorated or cleared; each call is one of the two.
    maxsize: the bound of its cache in bytes, or None. currsize: entries, those included that were dropped and not
    looked for since. dropped: entries that the kernel took, as far as anybody has looked; of a cache that several
    functions share, those of all.
    """

    dropped: int

    def __new__(cls, hits: int, misses: int, maxsize: int | None, currsize: int, dropped: int = 0) -> Self:
        self = super().__new__(cls, hits, misses, maxsize, currsize)
        self.dropped = dropped
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:  # for copies and pickles
        return (*self, self.dropped)

    def _replace(self, /, **fields: Any) -> Self:
        dropped = fields.pop("dropped", self.dropped)
        hits, misses, maxsize, currsize = super()._replace(**fields)
        return type(self)(hits, misses, maxsize, currsize, dropped)

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, dropped={self.dropped})"


if TYPE_CHECKING:

    class BoundMemo(Generic[P, R]):
        # The face of binding/memo_bound.c.
        __self__: Any
        __func__: Any
        __wrapped__: Any
        __name__: str
        __qualname__: str

        @property
        def cache(self) -> Cache: ...
        def cache_info(self) -> CacheInfo: ...
        def cache_clear(self) -> None: ...
        def cache_parameters(self) -> dict[str, Any]: ...
        def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> object: ...
        def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool: ...
        def discard(self, *args: P.args, **kwargs: P.kwargs) -> bool: ...
        def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

    class Memo(Generic[P, R]):
        # The face of binding/memo.c, where the docstrings are, with the types that are not known there.
        __wrapped__: Callable[P, R]
        __name__: str
        __qualname__: str

        @property
        def cache(self) -> Cache: ...
        def cache_info(self) -> CacheInfo: ...
        def cache_clear(self) -> None: ...
        def cache_parameters(self) -> dict[str, Any]: ...
        def cache_key(self, *args: P.args, **kwargs: P.kwargs) -> object: ...
        def invalidate(self, *args: P.args, **kwargs: P.kwargs) -> bool: ...
        def discard(self, *args: P.args, **kwargs: P.kwargs) -> bool: ...
        def refresh(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...
        @overload
        def __get__(self, instance: None, owner: type, /) -> Self: ...
        @overload
        def __get__(
            self: "Memo[Concatenate[S, Q], R]", instance: S, owner: type | None = None, /
        ) -> BoundMemo[Q, R]: ...
        @overload  # below @staticmethod, for checkers that compare the first parameter with the instance: pyright
        def __get__(self, instance: object, owner: type | None = None, /) -> Self: ...
        def __get__(self, instance: Any, owner: type | None = None, /) -> Any: ...

    class ClassMemo(Memo[Concatenate[type[S], Q], R], Generic[S, Q, R]):
        # Of a function whose first parameter is a class: below or above @classmethod, as a rule.
        def __get__(self, instance: object, owner: type | None = None, /) -> BoundMemo[Q, R]: ...  # type: ignore[override]

    class StaticMethodMemo(Generic[P, R]):
        # What it makes above @staticmethod.
        def __get__(self, instance: object, owner: type | None = None, /) -> Memo[P, R]: ...
        def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R: ...

else:
    Memo = CoreMemo
    BoundMemo = CoreBoundMemo
