"""Group commit: who comes meanwhile shares the next commit, and each gets its own answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from cloister.core.errors import StorageError
from cloister.evidence.log.group import GroupCommit, LogEntry, PendingEntry, Ticket

DONE = (LogEntry(0, b"leaf"),)


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
        thread = threading.Thread(target=submit, args=(name,))
        thread.start()
        threads.append(thread)
        assert backend.begun.wait(20)
        while len(threads) > 1 and own not in backend.group._waiting and thread.is_alive():
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


class Interrupted(Ticket):
    """A ticket whose owner is interrupted while it waits."""

    def __init__(self, name: str, when: Callable[[], bool]) -> None:
        super().__init__(ticket(name).entries)
        self._when = when
        self._struck = False

    def wait(self) -> None:
        if self._struck:
            return super().wait()
        while not self._when():
            time.sleep(0.001)
        self._struck = True
        raise KeyboardInterrupt


def test_a_waiter_that_is_interrupted_withdraws_and_logs_nothing() -> None:
    backend = Backend()
    ended = run(backend, {"a": ticket("a"), "b": Interrupted("b", lambda: True), "c": ticket("c")})
    assert backend.groups == [["a"], ["c"]]
    assert isinstance(ended["b"], KeyboardInterrupt)


def test_a_waiter_that_is_interrupted_when_it_was_given_the_lead_passes_it_on() -> None:
    backend = Backend()
    led = Interrupted("b", lambda: backend.go_on.is_set() and led not in backend.group._waiting)
    ended = run(backend, {"a": ticket("a"), "b": led, "c": ticket("c")})
    assert backend.groups == [["a"], ["c"]]
    assert isinstance(ended["b"], KeyboardInterrupt)
    backend.group.submit(ticket("later"))
    assert backend.groups[-1] == ["later"]


def test_the_answered_wake_each_other_also_past_one_who_is_interrupted() -> None:
    backend = Backend()
    struck = Interrupted("c", lambda: len(backend.groups) == 2)
    ended = run(backend, {"a": ticket("a"), "b": ticket("b"), "c": struck, "d": ticket("d")})
    assert backend.groups == [["a"], ["b", "c", "d"]]
    assert isinstance(ended["c"], KeyboardInterrupt)
    assert [ended[name] for name in "abd"] == [None, None, None]


def test_a_ticket_whose_bell_has_rung_is_waited_for_no_more() -> None:
    one = ticket("a")
    one.ring()
    one.wait()
    one.wait()
