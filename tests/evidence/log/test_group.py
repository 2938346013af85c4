"""Group commit: who comes meanwhile shares the next commit, and each gets its own answer."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

import pytest

from cloister.core.errors import StorageError
from cloister.evidence.log.group import GroupCommit, LogEntry, PendingEntry, Ticket, _Group

DONE = (LogEntry(0, b"leaf"),)


INTERRUPTS = Path(__file__).with_name("interrupts.py")


def ticket(name: str) -> Ticket:
    return Ticket((PendingEntry(name.encode(), b"leaf", name, 0),))


def names(tickets: Sequence[Ticket]) -> list[str]:
    return [one.entries[0].stream for one in tickets]


class Backend:
    """Records the groups; the first commit waits until it is told to go on."""

    def __init__(self, commit: Callable[[int, Sequence[Ticket]], None] | None = None) -> None:
        self.groups: list[list[str]] = []
        self.uncertain: list[str] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self._commit = commit
        self.group = GroupCommit(self.commit)

    def commit(self, tickets: Sequence[Ticket]) -> None:
        self.groups.append(names(tickets))
        self.uncertain += names([one for one in tickets if one.uncertain])
        if len(self.groups) == 1:
            self.begun.set()
            assert self.go_on.wait(20)
        if self._commit is not None:
            self._commit(len(self.groups), tickets)
        for one in tickets:
            if not one.settled:
                one.settle(DONE)


def run(backend: Backend, tickets: dict[str, Ticket]) -> dict[str, BaseException | None]:
    """Submit the first ticket, and the others while it is being committed."""
    ended: dict[str, BaseException | None] = {}

    def submit(name: str) -> None:
        try:
            backend.group.submit(tickets[name])
            ended[name] = None
        except BaseException as error:
            ended[name] = error

    threads = []
    for name, own in tickets.items():
        thread = threading.Thread(target=submit, args=(name,), name=name)
        thread.start()
        threads.append(thread)
        assert backend.begun.wait(20)
        while len(threads) > 1 and own not in backend.group._gathering.tickets and thread.is_alive():
            time.sleep(0.001)
    backend.go_on.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return ended


def test_those_who_come_during_a_commit_share_the_next() -> None:
    backend = Backend()
    ended = run(backend, {name: ticket(name) for name in "abcd"})
    assert backend.groups == [["a"], ["b", "c", "d"]]
    assert set(ended.values()) == {None}
    backend.group.submit(ticket("alone"))
    assert backend.groups[-1] == ["alone"]


def test_an_error_given_to_a_ticket_is_its_own() -> None:
    def refuse_c(_: int, tickets: Sequence[Ticket]) -> None:
        for one in tickets:
            if names([one]) == ["c"]:
                one.settle(StorageError("storage.failed", "c"))

    ended = run(Backend(refuse_c), {name: ticket(name) for name in "abcd"})
    assert [name for name, error in ended.items() if error is not None] == ["c"]


def test_what_strikes_the_leader_is_not_the_others_and_they_are_tried_again() -> None:
    def strike_b(number: int, _: Sequence[Ticket]) -> None:
        if number == 2:
            raise KeyboardInterrupt

    backend = Backend(strike_b)
    ended = run(backend, {name: ticket(name) for name in "abcd"})
    assert backend.groups == [["a"], ["b", "c", "d"], ["c", "d"]]
    assert backend.uncertain == ["c", "d"]
    assert isinstance(ended["b"], KeyboardInterrupt)
    assert [ended[name] for name in "acd"] == [None, None, None]


class Struck:
    """A lock at which one thread is interrupted, as by a signal while it waits for the lock."""

    def __init__(self, lock: threading.Lock, name: str, when: Callable[[], bool], times: int = 1) -> None:
        self._lock = lock
        self._name = name
        self._when = when
        self._left = times

    def __enter__(self) -> None:
        if threading.current_thread().name == self._name and self._left:
            while not self._when():
                time.sleep(0.001)
            self._left -= 1
            raise KeyboardInterrupt
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()


def struck_at_gate(backend: Backend, name: str, when: Callable[[], bool], times: int = 1) -> None:
    """Interrupt one thread at the gate of whatever group it joins."""
    join = backend.group._join

    def joined(own: Ticket) -> _Group:
        group = join(own)
        if threading.current_thread().name == name:
            group.gate = Struck(group.gate, name, when, times)  # type: ignore[assignment]
        return group

    backend.group._join = joined  # type: ignore[method-assign, assignment]


def still_serves(backend: Backend) -> bool:
    """Whether another thread can still append."""
    late = threading.Thread(target=backend.group.submit, args=(ticket("late"),), daemon=True)
    late.start()
    late.join(5)
    return not late.is_alive() and backend.groups[-1] == ["late"]


def test_a_waiter_that_is_interrupted_before_its_ticket_is_taken_logs_nothing() -> None:
    backend = Backend()
    struck_at_gate(backend, "c", lambda: True)
    ended = run(backend, {name: ticket(name) for name in "abcd"})
    assert backend.groups == [["a"], ["b", "d"]]
    assert isinstance(ended["c"], KeyboardInterrupt)
    assert [ended[name] for name in "abd"] == [None, None, None]
    assert still_serves(backend)


def test_a_waiter_that_is_interrupted_while_its_ticket_is_committed_leaves_after_the_commit() -> None:
    held, left = threading.Event(), threading.Event()

    def hold(number: int, _: Sequence[Ticket]) -> None:
        if number == 2:
            held.set()
            assert not left.wait(0.3)

    backend = Backend(hold)
    struck_at_gate(backend, "c", held.is_set)
    tickets = {name: ticket(name) for name in "abcd"}
    ended = run(backend, tickets)
    left.set()
    assert backend.groups == [["a"], ["b", "c", "d"]]
    assert isinstance(ended["c"], KeyboardInterrupt)
    assert tickets["c"].settled
    assert still_serves(backend)


def test_a_waiter_that_is_interrupted_again_while_its_ticket_is_committed_holds_up_nobody() -> None:
    held, left = threading.Event(), threading.Event()

    def hold(number: int, _: Sequence[Ticket]) -> None:
        if number == 2:
            held.set()
            assert left.wait(20)

    backend = Backend(hold)
    struck_at_gate(backend, "c", held.is_set)

    def now() -> bool:
        left.set()
        return True

    again = Struck(backend.group._turn, "c", now)
    backend.group._turn = again  # type: ignore[assignment]
    ended = run(backend, {name: ticket(name) for name in "abcd"})
    assert isinstance(ended["c"], KeyboardInterrupt)
    assert [ended[name] for name in "abd"] == [None, None, None]
    assert still_serves(backend)


@pytest.mark.parametrize("times", [1, 2])
def test_a_leader_that_is_interrupted_while_it_waits_for_its_turn_leaves_the_lead_to_the_next(
    times: int,
) -> None:
    backend = Backend()
    backend.group._turn = Struck(backend.group._turn, "b", lambda: True, times)  # type: ignore[assignment]
    ended = run(backend, {name: ticket(name) for name in "abcd"})
    assert [name for group in backend.groups for name in group] == ["a", "c", "d"]
    assert isinstance(ended["b"], KeyboardInterrupt)
    assert [ended[name] for name in "acd"] == [None, None, None]
    assert still_serves(backend)


def test_a_leader_that_is_interrupted_after_its_commit_costs_the_others_nothing() -> None:
    def strike_b(number: int, tickets: Sequence[Ticket]) -> None:
        if number == 2:
            for one in tickets:
                one.settle(DONE)
            raise KeyboardInterrupt

    backend = Backend(strike_b)
    ended = run(backend, {name: ticket(name) for name in "abcd"})
    assert backend.groups == [["a"], ["b", "c", "d"]]
    assert [ended[name] for name in "acd"] == [None, None, None]
    assert still_serves(backend)


def test_a_group_takes_no_more_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloister.evidence.log.group.MAX_GROUP", 2)
    backend = Backend()
    ended = run(backend, {name: ticket(name) for name in "abcdef"})
    assert set(ended.values()) == {None}
    assert sorted(len(group) for group in backend.groups) == [1, 1, 2, 2]


@pytest.mark.parametrize("seconds", [4, pytest.param(60, marks=pytest.mark.nightly)])
def test_a_storm_of_interrupts_stops_no_thread_and_loses_no_answer(tmp_path: Path, seconds: int) -> None:
    ended = subprocess.run(
        [sys.executable, str(INTERRUPTS), str(tmp_path / "log.sqlite"), str(seconds)],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "interrupted" in ended.stdout
