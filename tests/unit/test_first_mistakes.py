"""What a newcomer writes first, out of habit from other caches: the error says what to write here."""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest

import droppable


@pytest.mark.parametrize(
    ("argument", "advice"),
    [
        ("maxsize", "Give max_bytes='64M'"),
        ("max_size", "Give max_bytes='64M'"),
        ("size_limit", "Give max_bytes='64M'"),
        ("timeout", "Give ttl= in seconds"),
        ("expire", "Give ttl= in seconds"),
        ("typed", "told apart by type and value"),
        ("directory", "give below="),
    ],
)
def test_names_of_other_caches(argument: str, advice: str) -> None:
    options: dict[str, Any] = {argument: 100}
    with pytest.raises(TypeError, match=rf"Cache\(\) has no argument {argument}=\. .*{advice}"):
        droppable.Cache(**options)
    with pytest.raises(TypeError, match=rf"@droppable\.cache has no argument {argument}=\. .*{advice}"):
        droppable.cache(**options)


@pytest.mark.parametrize("option", ["jitter", "stale", "keep", "key", "self_key", "normalize", "copy"])
def test_an_option_of_functions_given_to_a_cache(option: str) -> None:
    options: dict[str, Any] = {option: 1}
    for make in (lambda: droppable.Cache(**options), lambda: droppable.named("of a mistake", **options)):
        with pytest.raises(TypeError, match=rf"has no argument {option}=\. That is an option of @droppable\.cache"):
            make()


@pytest.mark.parametrize("option", ["below", "write"])
def test_a_lower_tier_given_to_a_function(option: str) -> None:
    options: dict[str, Any] = {option: {}}
    with pytest.raises(
        TypeError, match=rf"has no argument {option}=\. Call get_or_create\(\) of a Cache\(below=\.\.\.\)"
    ):
        droppable.cache(**options)


@pytest.mark.parametrize("length", ["1M", 4096.0, None, b"4096"])
def test_a_length_that_is_no_number_of_bytes(length: Any) -> None:
    with pytest.raises(TypeError, match=r"^length must be a number of bytes, as 1 << 20; you gave ") as raised:
        droppable.Region(length)
    assert str(raised.value).endswith(repr(length))


def test_a_name_for_a_cache() -> None:
    options: dict[str, Any] = {"name": "tiles"}
    with pytest.raises(TypeError, match=r"^Cache\(\) has no argument name=\. .* is made by droppable\.named\(\.\.\.\)"):
        droppable.Cache(**options)


@pytest.mark.parametrize("key", [[1], {}, (1, [2])])
def test_a_key_that_cannot_be_hashed(key: Any) -> None:
    with droppable.Cache[Any, int](max_bytes="1M") as cache:
        for call in (cache.get, cache.__getitem__, cache.__contains__, lambda key: cache.set(key, 1)):
            with pytest.raises(TypeError, match="unhashable") as raised:
                call(key)
            assert "a tuple in place of a list" in raised.value.__notes__[0]


def test_a_key_function_that_does_not_take_the_arguments() -> None:
    @droppable.cache(key=lambda numbers: tuple(numbers))
    def scaled(numbers: list[int], scale: int = 1) -> int:
        return sum(numbers) * scale

    @droppable.cache(key=tuple)
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    assert (scaled([1]), total([1])) == (1, 1)
    for call in (lambda: scaled([1], scale=2), lambda: total(numbers=[1])):
        with pytest.raises(TypeError) as raised:
            call()
        assert "is called with the arguments as the caller wrote them" in raised.value.__notes__[0]
        assert "key= of " in raised.value.__notes__[0]


@pytest.mark.parametrize("parameter", ["keep", "ttl"])
def test_a_function_of_the_result_that_does_not_take_it(parameter: str) -> None:
    options: dict[str, Any] = {parameter: lambda: 5}

    @droppable.cache(**options)
    def load(path: str) -> str:
        return path

    with pytest.raises(TypeError) as raised:
        load("index")
    assert raised.value.__notes__ == [
        f"{parameter}= of {__name__}.{load.__qualname__} is called with the result, and with nothing else"
    ]

    def fails(result: str) -> Any:
        return result + 1  # type: ignore[operator]

    @droppable.cache(**{parameter: fails})  # type: ignore[arg-type]
    def other(path: str) -> str:
        return path

    with pytest.raises(TypeError) as raised:
        other("index")
    assert not hasattr(raised.value, "__notes__")


def test_an_error_in_a_key_function_is_its_own() -> None:
    @droppable.cache(key=lambda numbers: tuple(numbers) + 1)
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    with pytest.raises(TypeError) as raised:
        total([1])
    assert not hasattr(raised.value, "__notes__")


def test_a_name_that_nobody_knows() -> None:
    options: dict[str, Any] = {"colour": 3}
    with pytest.raises(TypeError, match=r"^Cache\(\) has no argument colour=$"):
        droppable.Cache(**options)


def test_a_number_of_entries() -> None:
    decorate: Any = droppable.cache
    with pytest.raises(TypeError, match=r"takes no number of entries: .*max_bytes='64M'.*; you gave 128"):
        decorate(128)


def test_what_cachetools_takes_first() -> None:
    make: Any = droppable.Cache
    with pytest.raises(TypeError, match=r"options by name, .*and no number of entries: .*; you gave 1000, 600$"):
        make(1000, 600)


def test_a_count_that_is_not_there_says_how_to_begin() -> None:
    with droppable.Cache[str, int](max_bytes="1M") as cache:
        with pytest.raises(KeyError) as raised:
            cache.incr("count")
        assert raised.value.args == ("count",)
        assert "initial= says where to begin" in raised.value.__notes__[0]
        with pytest.raises(KeyError) as raised:
            cache.transform("count", abs)
        assert raised.value.args == ("count",)
        assert "default= says what to begin with" in raised.value.__notes__[0]


def test_a_closed_cache_says_what_to_do() -> None:
    cache = droppable.Cache[str, int]()
    cache.close()
    with pytest.raises(droppable.ClosedError, match=r"this cache is closed: .*close\(\) before; make another one"):
        cache.get("key")


@pytest.mark.parametrize("parameter", ["on_drop", "backing", "fork"])
@pytest.mark.parametrize("given", ["nothing of that", 3, [], None])
def test_choices_of_a_region(parameter: str, given: object) -> None:
    options: dict[str, Any] = {parameter: given}
    with pytest.raises(ValueError, match=rf"{parameter} must be '.*' or '.*'; you gave ") as raised:
        droppable.Region(4096, **options)
    assert str(raised.value).endswith(repr(given))


def test_a_coroutine_as_a_result() -> None:
    async def compute() -> int:
        return 1

    @droppable.cache
    def ask() -> Any:
        return compute()

    with pytest.raises(TypeError, match=r"gave a coroutine.*Decorate a function made by `async def`"):
        ask()


@droppable.cache
def double(number: int) -> int:
    return 2 * number


def test_a_decorated_function_says_which_it_is() -> None:
    assert repr(double) == f"<droppable.Memo of {__name__}.double>"
    info = double.cache_info()
    assert info._replace(hits=3, dropped=2) == (3, info.misses, info.maxsize, info.currsize)
    assert info._replace(dropped=2).dropped == 2
    assert pickle.loads(pickle.dumps(info._replace(dropped=5))).dropped == 5


def test_signatures_that_help_shows() -> None:
    names = ["without_name", "max_bytes", "ttl", "backing", "serializer"]  # the first stands for what is refused
    assert list(inspect.signature(droppable.Cache).parameters)[:5] == names
    assert list(inspect.signature(droppable.Region).parameters) == ["length", "on_drop", "backing", "fork", "name"]


def test_a_derived_class_gives_its_lower_tier_itself() -> None:
    class Mine(droppable.Cache[str, str]):
        def __init__(self) -> None:
            super().__init__(below={"key": "below"})

    with Mine() as cache:
        assert cache.get("key") == "below"
        assert isinstance(cache, Mine)
