"""Gates: all who wait get through, also past one who is interrupted."""

from __future__ import annotations

import threading

from cloister.evidence.segments.gate import Gate, open_all


class InterruptedLock:
    """A lock whose first taking is interrupted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()
        self._struck = False
        self.release = self._lock.release

    def acquire(self) -> bool:
        if not self._struck:
            self._struck = True
            raise KeyboardInterrupt
        return self._lock.acquire()


def through(gates: list[Gate]) -> list[type[BaseException] | None]:
    """Wait at all the gates, open them, and tell how each wait ended."""
    ended: dict[int, type[BaseException] | None] = {}

    def wait(number: int) -> None:
        try:
            gates[number].wait()
            ended[number] = None
        except BaseException as error:
            ended[number] = type(error)

    threads = [threading.Thread(target=wait, args=(number,), daemon=True) for number in range(len(gates))]
    for thread in threads:
        thread.start()
    open_all(gates)
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    return [ended[number] for number in range(len(gates))]


def test_all_who_wait_get_through() -> None:
    assert through([Gate() for _ in range(64)]) == [None] * 64
    assert through([Gate()]) == [None]
    open_all([])


def test_who_is_interrupted_still_lets_the_others_through() -> None:
    gates = [Gate() for _ in range(4)]
    gates[1]._lock = InterruptedLock()  # type: ignore[assignment]
    assert through(gates) == [None, KeyboardInterrupt, None, None]


def test_a_gate_opened_before_anybody_came_is_open() -> None:
    gate = Gate()
    gate.open()
    gate.wait()
