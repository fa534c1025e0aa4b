"""@droppable.cache on methods: what of `self` identifies it, bound methods, class methods and static methods."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import logging
import pickle
import threading
import weakref
from typing import Any

import pytest

import droppable
from droppable import INSTANCE


class Model:
    def __init__(self, number: Any, weights: int = 0) -> None:
        self.number = number
        self.weights = bytearray(weights)
        self.lock = threading.Lock()  # which cannot be pickled
        self.calls = 0

    @droppable.cache(self_key="number")
    def by_attribute(self, a: int, b: int = 0) -> str:
        """Says it."""
        self.calls += 1
        return f"{type(self).__name__} {self.number} {a} {b}"

    @droppable.cache(self_key=lambda self: (self.number, "x"))
    def by_function(self, a: int) -> str:
        self.calls += 1
        return f"{self.number} {a}"

    @droppable.cache(self_key=INSTANCE)
    def by_instance(self, *args: Any, **kwargs: Any) -> str:
        self.calls += 1
        return f"{self.number} {args} {kwargs}"

    @droppable.cache(self_key="number", normalize=True)
    def normal(self, a: int, b: int = 2) -> int:
        self.calls += 1
        return a + b

    @droppable.cache(self_key=INSTANCE, normalize=True)
    def normal_instance(self, a: int, b: int = 2) -> int:
        self.calls += 1
        return a + b

    @droppable.cache(self_key="number")
    async def fetch(self, a: int) -> str:
        self.calls += 1
        return f"{self.number} {a}"

    @droppable.cache(self_key=INSTANCE)
    @classmethod
    def below(cls, a: int) -> str:
        return f"{cls.__name__} {a}"

    @classmethod
    @droppable.cache
    def above(cls, a: int) -> str:
        return f"{cls.__name__} {a}"

    @droppable.cache
    @staticmethod
    def static_below(a: int) -> int:
        return a + 1

    @staticmethod
    @droppable.cache
    def static_above(a: int) -> int:
        return a + 1


class Heir(Model):
    pass


class TestByAttribute:
    def test_instances_of_one_identity_share_results(self) -> None:
        one, same, other = Model("a"), Model("a"), Model("b")
        assert one.by_attribute(1) == same.by_attribute(1) == "Model a 1 0"
        assert other.by_attribute(1) == "Model b 1 0"
        assert (one.calls, same.calls, other.calls) == (1, 0, 1)
        one.number = "changed"
        assert one.by_attribute(1) == "Model changed 1 0"

    def test_an_heir_has_results_of_its_own(self) -> None:
        assert Model("heir").by_attribute(1) == "Model heir 1 0"
        assert Heir("heir").by_attribute(1) == Heir("heir").by_attribute(1) == "Heir heir 1 0"
        assert Model("heir").by_attribute(1) == "Model heir 1 0"

        heirs = [type(f"Heir{number}", (Model,), {}) for number in range(100)]
        expected = [f"Heir{number} x 5 0" for number in range(100)]
        assert [heir("x").by_attribute(5) for heir in heirs] == expected
        assert [heir("x").by_attribute(5) for heir in heirs] == expected

    def test_keys_do_not_meet(self) -> None:
        # The number of an heir's class and of arguments are in one place of the key.
        heir = Heir(0)
        seen = {Model.by_attribute.cache_key(heir, *args) for args in ((), (1,), (1, 2))}
        assert len(seen | {Model.by_attribute.cache_key(Model(0), *args) for args in ((), (1,), (1, 2))}) == 6
        assert Model.by_instance.cache_key(heir, "a", 1) != Model.by_instance.cache_key(heir, a=1)

    def test_nothing_of_self_is_pickled(self) -> None:
        large = Model("large", weights=64 << 20)
        assert large.by_function(1) == large.by_function(1) == "large 1"
        assert large.calls == 1

    @pytest.mark.parametrize("count", [0, 1, 2, 6, 7, 8, 9, 20])
    @pytest.mark.parametrize("named", [0, 1, 7, 8, 20])
    def test_any_number_of_arguments(self, count: int, named: int) -> None:
        class Any_:
            calls = 0
            id = 5

            @droppable.cache(self_key="id")
            def attribute(self, *args: Any, **kwargs: Any) -> Any:
                Any_.calls += 1
                return [args, kwargs]

            @droppable.cache(self_key=INSTANCE)
            def instance(self, *args: Any, **kwargs: Any) -> Any:
                Any_.calls += 1
                return [args, kwargs]

        args, kwargs = tuple(range(count)), {f"name{number}": number for number in range(named)}
        thing = Any_()
        for method in (thing.attribute, thing.instance):
            assert method(*args, **kwargs) == method(*args, **kwargs) == [args, kwargs]
            assert method.cache_key(*args, **kwargs) in method.cache
        assert thing.attribute(*args, **kwargs) == Any_.attribute(thing, *args, **kwargs) == [args, kwargs]
        assert Any_.calls == 2

    def test_normalized(self) -> None:
        for method in ("normal", "normal_instance"):
            model = Model("n")
            call = getattr(model, method)
            assert call(1) == call(1, 2) == call(1, b=2) == call(b=2, a=1) == 3
            assert model.calls == 1
            with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'"):
                call()

    def test_coroutines(self) -> None:
        async def main() -> None:
            model = Model("co")
            assert await asyncio.gather(*(model.fetch(1) for _ in range(5))) == ["co 1"] * 5
            assert await Model("co").fetch(1) == "co 1"
            assert model.calls == 1

        asyncio.run(main())
        assert Model.fetch.cache_info()[:2] == (1, 5)

    def test_an_attribute_that_is_not_there(self) -> None:
        class Bare:
            @droppable.cache(self_key="id")
            def method(self) -> int:
                return 1

        with pytest.raises(AttributeError, match="no attribute 'id'"):
            Bare().method()
        with pytest.raises(TypeError, match="self by position"):
            Bare.method()
        with pytest.raises(TypeError, match="self by position"):
            Bare.method(self=Bare())

    def test_an_identity_that_cannot_be_a_key_is_named(self) -> None:
        with pytest.raises(
            TypeError, match=r"argument 'self' of .*Model.by_attribute, .*unhashable type: 'list'.*self_key="
        ):
            Model([1]).by_attribute(1)


class TestByInstance:
    def test_each_has_its_own(self) -> None:
        one, same = Model("a"), Model("a")
        assert one.by_instance(1) == same.by_instance(1) == one.by_instance(1) == "a (1,) {}"
        assert (one.calls, same.calls) == (1, 1)
        one.number = "changed"
        assert one.by_instance(1) == "a (1,) {}"  # as it was said: whatever is in it

    def test_equal_instances_are_two(self) -> None:
        class Equal:
            def __init__(self, name: str) -> None:
                self.name = name

            def __eq__(self, other: object) -> bool:
                return True

            __hash__ = None  # type: ignore[assignment]

            @droppable.cache(self_key=INSTANCE)
            def say(self) -> str:
                return self.name

        one, two = Equal("one"), Equal("two")
        assert (one.say(), two.say(), one.say()) == ("one", "two", "one")

    def test_a_copy_is_another_instance(self) -> None:
        class Point:
            def __init__(self, x: int) -> None:
                self.x = x

            @droppable.cache(self_key=INSTANCE)
            def double(self) -> int:
                return 2 * self.x

        point = Point(1)
        assert point.double() == 2
        moved = copy.copy(point)
        moved.x = 5
        assert (moved.double(), point.double()) == (10, 2)

    def test_it_keeps_no_instance_alive_and_no_number_comes_twice(self) -> None:
        class Thing:
            def __init__(self, name: int) -> None:
                self.name = name

            @droppable.cache(self_key=INSTANCE)
            def say(self) -> int:
                return self.name

        addresses = set()
        for name in range(5000):  # each lies where the one before lay
            thing = Thing(name)
            addresses.add(id(thing))
            assert thing.say() == thing.say() == name
            gone = weakref.ref(thing)
            del thing
            assert gone() is None
        assert len(addresses) < 5000
        assert Thing.say.cache_info()[:2] == (5000, 5000)

    def test_instances_in_circles(self) -> None:
        class Node:
            def __init__(self, name: int) -> None:
                self.name = name
                self.itself = self

            @droppable.cache(self_key=INSTANCE)
            def say(self) -> int:
                return self.name

        for name in range(300):
            assert [Node(name).say(), Node(-name).say()] == [name, -name]
            if name % 100 == 0:
                gc.collect()

    def test_many_that_come_and_go(self) -> None:
        class Thing:
            @droppable.cache(self_key=INSTANCE)
            def say(self) -> int:
                return id(self)

        things = [Thing() for _ in range(3000)]
        for _ in range(3):
            assert [thing.say() for thing in things] == [id(thing) for thing in things]
            del things[::3]
            things += [Thing() for _ in range(500)]
        assert [thing.say() for thing in things] == [id(thing) for thing in things]

    def test_threads_agree_on_the_number(self) -> None:
        class Thing:
            @droppable.cache(self_key=INSTANCE)
            def say(self) -> int:
                return 1

        start = threading.Barrier(4)
        found: list[list[object]] = []
        things = [Thing() for _ in range(300)]

        def ask() -> None:
            start.wait()
            found.append([thing.say.cache_key() for thing in things])

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 4
        assert all(keys == found[0] for keys in found)
        assert len(set(found[0])) == 300

    def test_what_cannot_be_referenced_weakly_is_told(self) -> None:
        class Slotted:
            __slots__ = ()

            @droppable.cache(self_key=INSTANCE)
            def method(self) -> int:
                return 1

        with pytest.raises(TypeError, match=r"instance of Slotted cannot be referenced weakly.*__weakref__"):
            Slotted().method()

    def test_a_finaliser_that_brings_it_back(self) -> None:
        kept = []

        class Phoenix:
            name = 1

            def __del__(self) -> None:
                kept.append(self)

            @droppable.cache(self_key=INSTANCE)
            def say(self) -> int:
                return self.name

        assert Phoenix().say() == 1
        kept[0].name = 2
        assert kept[0].say() in (1, 2)  # it is the same instance still
        assert Phoenix().say() == 1


class TestBoundMethods:
    def test_as_of_a_function(self) -> None:
        model = Model("bound")
        method: Any = model.by_attribute
        assert method(1, b=2) == model.by_attribute(1, b=2) == "Model bound 1 2"
        assert (method.__self__, method.__func__) == (model, Model.by_attribute)
        assert (method.__name__, method.__qualname__) == ("by_attribute", "Model.by_attribute")
        assert (method.__doc__, method.__module__) == ("Says it.", __name__)
        assert str(inspect.signature(method)) == "(a: 'int', b: 'int' = 0) -> 'str'"
        assert method == model.by_attribute
        assert hash(method) == hash(model.by_attribute)
        assert method != Model("bound").by_attribute
        assert method != model.by_function
        assert method.cache_info() == Model.by_attribute.cache_info()
        assert repr(method).startswith("<droppable.Memo Model.by_attribute of <")
        assert inspect.isroutine(method)
        with pytest.raises(AttributeError, match="nothing"):
            method.nothing  # noqa: B018
        with pytest.raises(AttributeError):
            method.note = 1
        with pytest.raises(TypeError):
            type(method)(5, model)
        assert type(method)(Model.by_attribute, model) == method

    def test_it_can_be_kept_weakly_and_pickled(self) -> None:
        model = Model("weak")
        reference = weakref.WeakMethod(model.by_attribute)  # type: ignore[arg-type]
        method: Any = reference()
        assert method is not None
        assert method(1) == "Model weak 1 0"
        again = pickle.loads(pickle.dumps(Plain().method))
        assert again.__func__ is Plain.method
        assert again(2) == 4
        assert copy.copy(model.by_attribute) == model.by_attribute

    def test_the_rest_knows_self(self) -> None:
        one, two = Model("k1"), Model("k2")
        for model in (one, two):
            model.by_attribute(7)
        assert one.by_attribute.cache_key(7) != two.by_attribute.cache_key(7)
        assert one.by_attribute.cache_key(7) == Model.by_attribute.cache_key(one, 7)
        assert one.by_attribute.cache_key(7) in Model.by_attribute.cache
        assert one.by_attribute.invalidate(7) is True
        assert one.by_attribute.invalidate(7) is False
        assert one.by_attribute.cache_key(7) not in Model.by_attribute.cache
        assert two.by_attribute.discard(7) is True
        assert two.by_attribute.refresh(7) == "Model k2 7 0"
        assert two.by_attribute.cache_key(7) in Model.by_attribute.cache
        assert Model.by_attribute.invalidate(two, 7) is True

    def test_references_are_given_back(self) -> None:
        import sys

        model = Model("refs")

        def use() -> None:
            for _ in range(20):
                method = model.by_attribute
                method(*range(1, 3))
                method.cache_key(1)
                method.refresh(1)
                method.invalidate(1)
                model.by_instance(*range(20))
                model.normal(1)
                with pytest.raises(AttributeError):
                    method.nothing  # noqa: B018  # type: ignore[attr-defined]

        use()
        gc.collect()
        watched = (model, Model, Model.by_attribute, Model.by_instance, model.number)
        before = [sys.getrefcount(thing) for thing in watched]
        use()
        gc.collect()
        assert [sys.getrefcount(thing) for thing in watched] == before


class TestClassAndStaticMethods:
    def test_in_both_orders(self) -> None:
        for _ in range(2):
            assert (Model.above(1), Heir.above(1), Model("x").above(1)) == ("Model 1", "Heir 1", "Model 1")
            assert (Model.below(1), Heir.below(1), Model("x").below(1)) == ("Model 1", "Heir 1", "Model 1")
            assert Model.static_below(1) == Model("x").static_below(1) == 2
            assert Model.static_above(1) == Model("x").static_above(1) == 2
        assert Model.below.cache_info()[:2] == (4, 2)
        assert Model.static_below.cache_info()[:2] == (3, 1)
        assert Heir.above.cache_key(1) != Model.above.cache_key(1)
        assert Model.above.invalidate(1) is True
        assert Heir.above.cache_key(1) in Heir.above.cache

    def test_a_property_above(self) -> None:
        class Circle:
            calls = 0
            radius = 2

            @property
            @droppable.cache(self_key="radius")
            def area(self) -> float:
                Circle.calls += 1
                return 3.14 * self.radius**2

        assert Circle().area == Circle().area == 12.56
        assert Circle.calls == 1


class Plain:
    value = 2

    @droppable.cache
    def method(self, factor: int) -> int:
        return self.value * factor


class Heavy:
    def __init__(self, weight: int) -> None:
        self.weights = bytes(weight)

    @droppable.cache
    def method(self, data: bytes = b"") -> int:
        return len(self.weights) + len(data)

    @droppable.cache
    def other(self) -> int:
        return 1


class TestAHeavySelf:
    def test_it_is_told_once_a_function(self, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.WARNING, logger="droppable"):
            Heavy(1000).method()
            Heavy(60_000).method(bytes(1 << 20))  # the argument is heavy, self is not
            assert caplog.records == []
            for _ in range(3):
                assert Heavy(70_000).method() == 70_000
                assert Heavy(90_000).method() == 90_000
            [record] = caplog.records
            assert "Heavy.method: self (of type Heavy)" in record.getMessage()
            assert "self_key=" in record.getMessage()
            Heavy(70_000).other()
            assert len(caplog.records) == 2

    def test_functions_are_not_told_of(self, caplog: pytest.LogCaptureFixture) -> None:
        @droppable.cache
        def length(data: bytes) -> int:
            return len(data)

        with caplog.at_level(logging.WARNING, logger="droppable"):
            assert length(bytes(1 << 20)) == 1 << 20
        assert caplog.records == []


class TestOptions:
    def test_what_self_key_may_be(self) -> None:
        def decorate(self_key: Any) -> None:
            droppable.cache(self_key=self_key)(Plain.method.__wrapped__)

        with pytest.raises(ValueError, match=r"must not be id.*droppable\.INSTANCE"):
            decorate(id)
        with pytest.raises(ValueError, match="name of an attribute of self; you gave 'a b'"):
            decorate("a b")
        with pytest.raises(TypeError, match=r"self_key must be .* you gave 5"):
            decorate(5)
        with pytest.raises(TypeError, match="give key= or self_key="):
            droppable.cache(self_key="a", key=str)(Plain.method.__wrapped__)  # type: ignore[call-overload]
        with pytest.raises(TypeError, match="give key= or normalize=True"):
            droppable.cache(normalize=True, key=str)(len)  # type: ignore[arg-type]
        assert repr(INSTANCE) == "droppable.INSTANCE"
