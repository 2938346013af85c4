"""The compiled shortcut compares every call with known sizes and callers, and misses no unusual one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.immune import core
from cloister.immune.compiled_core import shortcut
from cloister.immune.generators import BENIGN, BUDGETED, TracedCall, TraceSensor
from cloister.immune.wrapping.build import build
from cloister.immune.wrapping.calls import CHANCE, Bounds
from cloister.immune.wrapping.entering import size_of
from cloister.immune.wrapping.gate import LEARN_ONE_IN, Gate
from cloister.immune.wrapping.sampling import Mode, Pace, Sampling, Ticks
from cloister.immune.wrapping.shortened import MOST_CALLERS
from tests.immune.wrapping.watching import Keeping

pytestmark = pytest.mark.skipif(
    core().kind != "compiled", reason=f"the compiled core is not used here: {core().why}"
)
HERE = f"{__name__}:"


def compared(
    function: Callable[..., Any], size: int, *callers: str, sparing: bool = False
) -> tuple[Callable[..., Any], Gate, Keeping]:
    """A function of 10 ms by its clock whose calls are compared; chance chooses none of the next million."""
    watched, gate = build(function)
    sensor = Keeping()
    gate.attach(sensor, Sampling(Mode.FIXED, rate=1e-7), Pace(0.02), Ticks(lambda: 0.5), lambda: 0.0)
    gate._costs.took(0.01)
    gate.expect(Bounds(size, frozenset(HERE + one for one in callers)), sparing=sparing)
    assert gate.checking
    return watched, gate, sensor


def ask(body: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    return body(*arguments, **named)


def ask_from_elsewhere(body: Callable[..., Any], *arguments: Any) -> Any:
    return body(*arguments)


def test_usual_calls_pass_straight_and_unusual_ones_are_judged() -> None:
    body, gate, sensor = compared(lambda text: text, 3, "ask")
    for _ in range(1000):
        ask(body, "abc")
    assert (gate.calls, sensor.entered) == (1000, [])
    assert ask(body, "abcd") == "abcd"
    assert ask_from_elsewhere(body, "ab") == "ab"
    assert [(one.size, one.caller, one.teaches) for one in sensor.entered] == [
        (4, HERE + "ask", False),
        (2, HERE + "ask_from_elsewhere", False),
    ]
    assert gate.calls == 1002
    gate.expect(None)
    ask_from_elsewhere(body, "abcd")
    assert len(sensor.entered) == 2
    assert gate.calls == 1003


def test_an_unusual_call_can_be_blocked_before_it_runs() -> None:
    ran = []
    body, _, sensor = compared(ran.append, 3, "ask")
    sensor.blocks = True
    with pytest.raises(Exception, match="blocked"):
        ask(body, "abcd")
    assert ran == []


@pytest.mark.parametrize(
    "calls",
    [
        lambda body: body("abc"),
        lambda body: body("abc", [1]),
        lambda body: body("abc", more=b"xy"),
        lambda body: body("abc", [1, 2], more=b"xy"),
        lambda body: body(first="abc"),
        lambda body: body(second=(), first="abc"),
        lambda body: body("abc", (1,), **{"".join(["mo", "re"]): {}}),
    ],
)
def test_a_default_counts_where_the_call_leaves_it_as_it_is(calls: Callable[[Any], Any]) -> None:
    def function(first: str, second: Any = (1, 2), *, more: Any = b"1234") -> tuple[object, ...]:
        return first, second, more

    exact, _ = build(function)
    size = size_of(calls(exact))
    body, gate, sensor = compared(function, size, calls.__qualname__)
    calls(body)
    calls(body)
    assert (sensor.entered, gate.calls) == ([], 2)
    gate.expect(Bounds(size - 1, gate.bounds.callers), sparing=False)  # type: ignore[union-attr]
    calls(body)
    assert [one.size for one in sensor.entered] == [size]


arguments = st.one_of(
    st.none(),
    st.integers(),
    st.text(max_size=5),
    st.binary(max_size=5),
    st.binary(max_size=5).map(bytearray),
    st.lists(st.none(), max_size=5),
    st.lists(st.none(), max_size=5).map(tuple),
    st.dictionaries(st.integers(), st.none(), max_size=5),
    st.sets(st.integers(), max_size=5),
    st.frozensets(st.integers(), max_size=5),
    st.text(max_size=5).map(type("Text", (str,), {})),
)


@given(
    st.lists(arguments, max_size=4), st.dictionaries(st.sampled_from("xyz"), arguments), st.integers(0, 30)
)
def test_a_size_is_counted_as_the_package_counts_it(
    given_: list[Any], named: dict[str, Any], most: int
) -> None:
    body, _, sensor = compared(lambda *_, **__: None, most, "ask")
    ask(body, *given_, **named)
    assert bool(sensor.entered) is (size_of((*given_, *named.values())) > most)


def test_what_doesnt_fit_is_counted_neither_as_a_call_nor_as_an_error() -> None:
    body, gate, sensor = compared(lambda text: text, 3, "ask")
    for wrong in ((), ("abcd", "abcd")):
        with pytest.raises(TypeError):
            ask(body, *wrong)
    assert (gate.calls, gate.errors, sensor.entered) == (0, 0, [])


def test_errors_of_unusual_calls_are_counted() -> None:
    def fails(_text: str) -> None:
        raise ValueError("no")

    body, gate, _ = compared(fails, 3, "ask")
    for text in ("abc", "abcd"):
        with pytest.raises(ValueError, match="no"):
            ask(body, text)
    assert (gate.calls, gate.errors) == (2, 2)


async def _waits(text: str) -> str:
    return text


def _yields(text: str) -> Iterator[str]:
    yield text


def test_coroutines_and_generators_are_compared_where_they_are_made() -> None:
    body, gate, sensor = compared(_waits, 3, "ask")
    with pytest.raises(StopIteration, match="abcd"):
        ask(body, "abcd").send(None)
    ask(body, "abc").close()
    assert [one.size for one in sensor.entered] == [4]
    assert gate.calls == 2
    each, _, sensor = compared(_yields, 3, "ask")
    assert list(ask(each, "abcd")) == ["abcd"]
    assert [one.size for one in sensor.entered] == [4]


def test_a_caller_that_is_new_and_stays_is_judged_as_often_as_is_paid_for() -> None:
    body, gate, sensor = compared(lambda text: text, 3, "ask", sparing=True)
    for _ in range(1000):
        ask_from_elsewhere(body, "abc")
    assert len(sensor.entered) == LEARN_ONE_IN
    assert gate.calls == 1000
    gate.learn(1e-5, 0.01, CHANCE, 1.0)
    for _ in range(1000):
        ask_from_elsewhere(body, "abc")
    assert len(sensor.entered) == 2 * LEARN_ONE_IN


def test_a_usual_call_takes_nothing_of_what_is_allowed_to_unusual_ones() -> None:
    body, _, sensor = compared(lambda text: text, 3, *(f"caller_{n}" for n in range(9)), sparing=True)
    spaces = []
    for number in range(9):
        space: dict[str, Any] = {"__name__": __name__}
        exec(f"def caller_{number}(body): return body('abc')", space)
        spaces.append(space[f"caller_{number}"])
    for _ in range(5):
        for caller in spaces:
            caller(body)
    assert sensor.entered == []
    for _ in range(20):
        ask(body, "abc")
    assert len(sensor.entered) == LEARN_ONE_IN


def test_of_many_callers_only_sizes_are_compared() -> None:
    callers = [f"caller_{number}" for number in range(MOST_CALLERS + 1)]
    body, _, sensor = compared(lambda text: text, 3, *callers, sparing=True)
    ask(body, "abc")
    assert sensor.entered == []
    ask(body, "abcd")
    assert len(sensor.entered) == 1


def test_a_caller_that_is_forgotten_is_judged_again() -> None:
    body, gate, sensor = compared(lambda text: text, 3, "ask")
    ask(body, "abc")
    gate.expect(Bounds(3, frozenset({HERE + "another"})), sparing=False)
    ask(body, "abc")
    assert len(sensor.entered) == 1


def test_calls_of_many_threads_are_counted_and_none_that_is_unusual_goes_by() -> None:
    body, gate, sensor = compared(lambda text: text, 3, "work")
    unusual = 200

    def work(number: int) -> None:
        for turn in range(5000):
            body("abcd" if turn % 25 == number else "abc")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    own = f"{HERE}test_calls_of_many_threads_are_counted_and_none_that_is_unusual_goes_by.<locals>.work"
    gate.expect(Bounds(3, frozenset({own})), sparing=False)
    assert gate.calls == 20_000
    assert sum(one.size == 4 for one in sensor.entered) == 4 * unusual


def test_an_entry_is_what_it_is_made_as() -> None:
    found = shortcut()
    assert found is not None
    entry = found.Entry()
    assert (entry.most, entry.allowance, entry.anyone) == (-1, 0, False)
    entry.know(ask.__code__)
    entry.forget()
    with pytest.raises(TypeError):
        found.Entry(1)
    for wrong in ("most", "allowance", "anyone"):
        with pytest.raises(TypeError):
            setattr(entry, wrong, "x")


def test_of_a_function_whose_calls_may_be_stopped_callers_are_compared_however_many_there_are() -> None:
    body, _, sensor = compared(lambda text: text, 3, "ask", *(f"caller_{n}" for n in range(20)))
    ask(body, "abc")
    for _ in range(5):
        ask_from_elsewhere(body, "abc")
    assert len(sensor.entered) == 5


def test_what_was_known_before_the_bounds_went_isnt_known_after() -> None:
    body, gate, sensor = compared(lambda text: text, 3, "ask")
    ask(body, "abc")
    gate.detach()
    gate.attach(sensor, Sampling(Mode.FIXED, rate=1e-7), Pace(0.02), Ticks(lambda: 0.5), lambda: 0.0)
    gate._costs.took(0.01)
    gate.expect(Bounds(3, frozenset({HERE + "another"})), sparing=False)
    ask(body, "abc")
    assert len(sensor.entered) == 1


def test_more_codes_of_one_name_than_are_told_apart_cost_no_more_than_is_allowed() -> None:
    body, gate, sensor = compared(lambda text: text, 3, "caller", sparing=True)
    callers = []
    for _ in range(40):
        space: dict[str, Any] = {"__name__": __name__}
        exec("def caller(body): return body('abc')", space)
        callers.append(space["caller"])
    for _ in range(10):
        for caller in callers:
            caller(body)
    assert (sensor.entered, gate.calls) == ([], 400)
    assert gate._entry is not None
    assert gate._entry.allowance == 0


def test_a_call_without_a_frame_beneath_it_is_of_nobody_known_and_goes_on() -> None:
    import _thread

    body, gate, sensor = compared(lambda *texts: done.extend(texts), 3, "ask")
    done: list[str] = []
    ended = threading.Event()
    sensor.on_leave = ended.set
    _thread.start_new_thread(body, ("abc",))
    assert ended.wait(10)
    assert done == ["abc"]
    assert [one.caller for one in sensor.entered] == [""]
    assert gate.calls == 1


def test_a_call_that_doesnt_fit_says_the_functions_name_whichever_way_it_went() -> None:
    def body(_text: str) -> None: ...

    watched, _, _ = compared(body, 3, "ask")
    words = []
    for function in (body, watched):
        with pytest.raises(TypeError) as caught:
            ask_from_elsewhere(function, "a", "b")
        words.append(str(caught.value))
    assert words[0] == words[1]


def _asking(name: str) -> Callable[..., Any]:
    """A caller of that name, whose code is its own."""
    space: dict[str, Any] = {"__name__": __name__}
    exec(f"def {name}(body, text): return body(text)", space)
    made: Callable[..., Any] = space[name]
    return made


CALLERS = {name: _asking(name) for name in ("one", "another", "stranger", "late")}


@given(st.lists(st.tuples(st.sampled_from(sorted(CALLERS)), st.integers(0, 5)), max_size=60), st.booleans())
def test_calls_of_a_trace_are_judged_where_this_shortcut_has_them_judged(
    calls: list[tuple[str, int]], sparing: bool
) -> None:
    """What figures are measured with chooses as what is shipped."""
    body, _, sensor = compared(lambda text: text, 3, "one", "another", sparing=sparing)
    shown = TraceSensor(replace(BUDGETED, sampling=Sampling(Mode.FIXED, rate=1e-7)))
    shown._gate._costs.took(0.01)
    shown._gate.expect(Bounds(3, frozenset({HERE + "one", HERE + "another"})), sparing=sparing)
    for name, size in calls:
        before = len(sensor.entered)
        CALLERS[name](body, "x" * size)
        looked = shown.look(TracedCall(0.0, 0.01, size, HERE + name, False, BENIGN))
        assert (looked is not None) == (len(sensor.entered) > before)
