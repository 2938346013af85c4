"""Context managers under an interrupt: whatever they hold is free, wherever it lands."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from cloister.core.interrupts import interruptible
from tests.interrupts import interrupts

FILES = ("contextlib.py", "core/interrupts.py", "test_interrupts.py")


class Room:
    """A lock that is taken, and a transaction that is begun and ended, in a generator."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.open = 0
        self.ended: list[str] = []

    def take(self) -> Iterator[int]:
        with self.lock:
            try:
                self.open += 1
                yield self.open
                self.ended.append("kept")
            except BaseException:
                self.ended.append("undone")
                raise
            finally:
                self.open = 0


def is_free(room: Room) -> bool:
    taken: list[bool] = []

    def look() -> None:
        taken.append(room.lock.acquire(blocking=False))
        if taken[0]:
            room.lock.release()

    other = threading.Thread(target=look)
    other.start()
    other.join()
    return taken[0] and not room.open


def entered(room: Room) -> None:
    with interruptible(room.take)() as number:
        assert number == 1


def entered_by_a_stack(room: Room) -> None:
    with ExitStack() as stack:
        assert stack.enter_context(interruptible(room.take)()) == 1


def test_what_it_holds_is_free_while_the_interrupt_is_on_its_way_wherever_it_landed() -> None:
    room, seen = Room(), 0
    for interrupt in interrupts(lambda: entered(room), *FILES):
        assert interrupt.__traceback__ is not None
        assert is_free(room)
        seen += 1
    assert seen > 50
    assert {"kept", "undone"} == set(room.ended)


def test_no_collection_swallows_an_interrupt_on_its_way() -> None:
    looked: list[str] = []

    def look(phase: str, _: object) -> None:
        looked.append(phase)

    thresholds = gc.get_threshold()
    gc.callbacks.append(look)
    gc.set_threshold(1)
    try:
        # Who swallows one ends the round as the last of its places and fails.
        seen = sum(1 for _ in interrupts(lambda: [[] for _ in range(50)], *FILES))
    finally:
        gc.set_threshold(*thresholds)
        gc.callbacks.remove(look)
    assert seen > 100
    assert looked
    assert gc.isenabled()


def test_an_interrupt_leaves_what_contextlib_makes_half_open_which_is_why_this_is_here() -> None:
    room, held = Room(), 0

    def run() -> None:
        with contextmanager(room.take)():
            pass

    for _ in interrupts(run, *FILES):
        held += not is_free(room)
    assert held


def test_a_block_that_raises_ends_it_as_undone_and_another_error_takes_the_place_of_its_own() -> None:
    room = Room()
    with pytest.raises(LookupError), interruptible(room.take)():
        raise LookupError
    assert room.ended == ["undone"]

    def other() -> Iterator[None]:
        try:
            yield
        except LookupError:
            raise ValueError from None

    with pytest.raises(ValueError, match=r"^$"), interruptible(other)():
        raise LookupError


def test_a_generator_may_keep_an_error_to_itself() -> None:
    def quiet() -> Iterator[None]:
        with suppress(LookupError):
            yield

    with interruptible(quiet)():
        raise LookupError


def test_what_the_generator_raises_before_it_yields_is_raised_on_the_way_in() -> None:
    def refuses() -> Iterator[None]:
        raise LookupError
        yield

    with pytest.raises(LookupError), interruptible(refuses)():
        raise AssertionError


@pytest.mark.parametrize("enter", [entered, entered_by_a_stack])
def test_it_is_entered_by_a_with_and_by_a_stack(enter: Callable[[Room], None]) -> None:
    room = Room()
    enter(room)
    assert room.ended == ["kept"]
    assert is_free(room)
