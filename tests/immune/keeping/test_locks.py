"""Locks across a fork and an interrupt: they are free, whoever held them."""

from __future__ import annotations

import multiprocessing
import threading

from cloister.immune.keeping import TraceStore
from cloister.immune.keeping.locks import ForkSafe
from tests.immune.keeping.conftest import FUNCTION, call
from tests.interrupts import interrupts

FORK = multiprocessing.get_context("fork")


def test_a_lock_that_another_thread_holds_is_free_in_a_forked_child_and_still_held_in_the_parent() -> None:
    owner, held, done = ForkSafe(), threading.Event(), threading.Event()

    def hold() -> None:
        with owner._lock:
            held.set()
            done.wait(60)

    def take() -> None:
        with owner._lock:
            pass

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(60)
    child = FORK.Process(target=take)
    child.start()
    child.join(30)
    taken = child.exitcode
    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    taker.join(0.2)
    assert taker.is_alive()
    done.set()
    thread.join()
    taker.join(30)
    assert not taker.is_alive()
    if child.is_alive():
        child.kill()
    assert taken == 0


def test_calls_are_kept_on_in_a_child_that_was_forked_while_threads_kept_them() -> None:
    traces, done = TraceStore(), threading.Event()

    def keep_on() -> None:
        while not done.is_set():
            traces.add(FUNCTION, call(), ordinary=True)

    def keep_one() -> None:
        before = traces.added(FUNCTION)[0]
        for _ in range(50):
            traces.add(FUNCTION, call(), ordinary=True)
        assert traces.added(FUNCTION)[0] == before + 50

    threads = [threading.Thread(target=keep_on) for _ in range(2)]
    for thread in threads:
        thread.start()
    children = [FORK.Process(target=keep_one) for _ in range(5)]
    try:
        for child in children:
            child.start()
        for child in children:
            child.join(30)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert [child.exitcode for child in children] == [0] * 5


def test_an_interrupt_leaves_no_lock_held_wherever_it_lands() -> None:
    traces, seen = TraceStore(), 0

    def keep_one() -> None:
        traces.add(FUNCTION, call(), ordinary=True)

    for _ in interrupts(keep_one, "traces.py", "locks.py", "test_locks.py"):
        other = threading.Thread(target=traces.added, args=(FUNCTION,), daemon=True)
        other.start()
        other.join(10)
        assert not other.is_alive()
        seen += 1
    assert seen > 20
