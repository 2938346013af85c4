"""Decorators of methods, properties, partials and caches stand in any order with ``@monitor``."""

from __future__ import annotations

import functools
from types import MethodType

import pytest

from cloister.immune.errors import CallBlocked, ImmuneError
from cloister.immune.wrapping import monitor
from tests.immune.wrapping.watching import KeepingWatcher


class Ward:
    """Every descriptor, wrapped from outside and from inside."""

    beds = 3

    def __init__(self, factor: int) -> None:
        self.factor = factor
        self.made = 0

    @monitor
    def plain(self, number: int) -> int:
        return self.factor * number

    @monitor
    @staticmethod
    def static_outside(number: int) -> int:
        return number

    @staticmethod
    @monitor
    def static_inside(number: int) -> int:
        return number

    @monitor
    @classmethod
    def class_outside(cls, number: int) -> int:
        return cls.beds * number

    @classmethod
    @monitor
    def class_inside(cls, number: int) -> int:
        return cls.beds * number

    @monitor
    @property
    def property_outside(self) -> int:
        """How many."""
        return self.factor

    @property_outside.setter
    def property_outside(self, value: int) -> None:
        self.factor = value

    @property
    @monitor
    def property_inside(self) -> int:
        return self.factor

    @monitor
    @functools.cached_property
    def cached_outside(self) -> int:
        self.made += 1
        return self.made

    @functools.cached_property
    @monitor
    def cached_inside(self) -> int:
        self.made += 1
        return self.made

    twice = monitor(functools.partialmethod(plain, 2))

    @monitor
    def __call__(self, number: int) -> int:
        return -number


class Wing(Ward):
    beds = 5

    @monitor
    def plain(self, number: int) -> int:
        return super().plain(number) + 1


def _watched(watcher: KeepingWatcher, name: str) -> int:
    return len(watcher.sensor(name).left)


def test_methods_and_super_work_wrapped(watcher: KeepingWatcher) -> None:
    assert Ward(2).plain(3) == 6
    assert Wing(2).plain(3) == 7
    assert Ward.plain(Ward(4), 3) == 12
    assert Ward(2).twice() == 4
    assert Ward(2)(3) == -3
    assert _watched(watcher, "__call__") == 1


def test_static_methods_work_in_either_order(watcher: KeepingWatcher) -> None:
    assert Ward.static_outside(1) == Ward(2).static_outside(1) == 1
    assert Ward.static_inside(1) == Ward(2).static_inside(1) == 1
    assert (_watched(watcher, "static_outside"), _watched(watcher, "static_inside")) == (2, 2)
    assert isinstance(vars(Ward)["static_outside"], staticmethod)


def test_class_methods_work_in_either_order(watcher: KeepingWatcher) -> None:
    assert (Ward.class_outside(1), Wing.class_outside(1)) == (3, 5)
    assert (Ward.class_inside(1), Wing(1).class_inside(1)) == (3, 5)
    assert (_watched(watcher, "class_outside"), _watched(watcher, "class_inside")) == (2, 2)
    assert isinstance(vars(Ward)["class_outside"], classmethod)


def test_properties_work_in_either_order(watcher: KeepingWatcher) -> None:
    ward = Ward(2)
    ward.property_outside = 7
    assert ward.property_outside == ward.property_inside == 7
    assert (_watched(watcher, "property_outside"), _watched(watcher, "property_inside")) == (1, 1)
    assert Ward.property_outside.__doc__ == "How many."


def test_a_cached_property_is_computed_once_in_either_order(watcher: KeepingWatcher) -> None:
    ward = Ward(2)
    assert (ward.cached_outside, ward.cached_outside) == (1, 1)
    assert (ward.cached_inside, ward.cached_inside) == (2, 2)
    assert (_watched(watcher, "cached_outside"), _watched(watcher, "cached_inside")) == (1, 1)


def test_a_cache_caches_in_either_order(watcher: KeepingWatcher) -> None:
    ran = []

    @monitor
    @functools.lru_cache
    def outside(number: int) -> int:
        ran.append(number)
        return number

    @functools.lru_cache
    @monitor
    def inside(number: int) -> int:
        ran.append(number)
        return number

    assert [outside(1), outside(1), inside(1), inside(1)] == [1, 1, 1, 1]
    assert ran == [1, 1]
    assert (_watched(watcher, "outside"), _watched(watcher, "inside")) == (2, 1)
    assert outside.cache_info().hits == inside.cache_info().hits == 1
    outside.cache_clear()
    assert outside.cache_info().currsize == 0


def test_a_partial_stays_a_partial(watcher: KeepingWatcher) -> None:
    def body(one: int, *, two: int) -> int:
        return one + two

    wrapped = monitor(functools.partial(body, two=2))
    assert isinstance(wrapped, functools.partial)
    assert wrapped(1) == 3
    assert _watched(watcher, "body") == 1


def test_a_bound_method_stays_bound(watcher: KeepingWatcher) -> None:
    class Till:
        def pay(self, amount: int) -> int:
            return amount

    wrapped = monitor(Till().pay)
    assert isinstance(wrapped, MethodType)
    assert wrapped(4) == 4
    assert _watched(watcher, "pay") == 1


def test_double_decoration_changes_nothing_through_other_wraps_as_well(watcher: KeepingWatcher) -> None:
    @monitor
    def body() -> int:
        return 1

    @functools.wraps(body)
    def other() -> int:
        return body()

    assert monitor(body) is body
    assert monitor(other) is other
    for made in (staticmethod(body), classmethod(body), property(body), functools.partial(body)):
        assert monitor(made) is made
    assert other() == 1
    assert _watched(watcher, "body") == 1


def test_a_blocked_method_runs_no_line_of_its_body(watcher: KeepingWatcher) -> None:
    ward = Ward(2)
    for sensor in watcher.sensors.values():
        sensor.blocks = True
    for act in (
        lambda: Wing(2).plain(1),
        lambda: ward.property_inside,
        lambda: Ward.class_outside(1),
        lambda: ward.static_outside(1),
        lambda: ward.cached_inside,
    ):
        with pytest.raises(CallBlocked):
            act()
    assert ward.made == 0


@pytest.mark.parametrize("one", [Ward, 3, "name", None])
def test_a_class_or_what_cannot_be_called_is_refused(one: object) -> None:
    with pytest.raises(ImmuneError) as refused:
        monitor(one)
    assert refused.value.code == "immune.target_unknown"


class Chart:
    """A generic method below ``@monitor`` and above it, with implementations registered in every way."""

    @monitor
    @functools.singledispatchmethod
    def outside(self, value: object) -> str:
        return f"object {value}"

    @outside.register
    def _(self, value: int) -> str:
        return f"int {value}"

    @outside.register(str)
    @staticmethod
    def _of_text(value: str) -> str:
        return f"str {value}"

    def _of_number(self, value: float) -> str:
        return f"float {value}"

    outside.register(float, _of_number)

    @functools.singledispatchmethod
    @monitor
    def inside(self, value: object) -> str:
        return f"object {value}"


def test_a_generic_method_is_watched_in_either_order_with_what_is_registered_later(
    watcher: KeepingWatcher,
) -> None:
    chart = Chart()
    assert [chart.outside(one) for one in ((), 1, "a", 2.5)] == ["object ()", "int 1", "str a", "float 2.5"]
    assert chart.inside(()) == "object ()"
    for name in ("outside", "_", "_of_text", "_of_number", "inside"):
        assert len(watcher.sensor(name).left) == 1
    generic = vars(Chart)["outside"]
    assert type(generic) is functools.singledispatchmethod
    assert monitor(generic) is generic

    def plain(_: object, value: object) -> str:
        return f"other {value}"

    made = functools.singledispatchmethod(plain)

    def of_bytes(_: object, value: bytes) -> str:
        return f"bytes {value.hex()}"

    made.register(bytes, of_bytes)
    wrapped = monitor(made)
    assert wrapped is not made
    assert made.func is plain
    assert wrapped.__get__(chart, Chart)(b"\1") == "bytes 01"
