"""The egress guard: a watched function that reaches for something new is stopped before it does.

Exfiltration has to leave: by a host, a file, a program or a library that the function never used. The guard
listens to the interpreter's audit events (PEP 578), looks for watched functions on the stack, and compares
what is reached for with what they were seen to reach for. In a function that learns, it is learned; in one
that is observed, reported; in one that enforces, refused with `EgressBlocked`, before it happens. Every
watched function on the stack is asked, not the innermost alone.

Rules this module keeps:

1. An error in here is counted, and the operation goes on. Only `EgressBlocked` reaches the application.
2. A target's name goes to the local report only. Exceptions and telemetry have a keyed hash of it.
3. One hook per process, for good (the interpreter can't remove one); with no guard armed it returns at once.
4. It is re-entrant (what a report does isn't judged), safe in threads, and goes on in a fork's child.
5. What the immune system itself writes, while it judges one watched function inside of another, isn't judged.
6. What a watched function changes in the immune system's own folder is never learned and never approved.

This is not a sandbox. What it doesn't see:

* C code and ctypes: a C library's own ``open`` raises no event. Loading a library (``ctypes.dlopen``) is one
  and is guarded, and so is importing a native module from elsewhere than where modules are looked for; a
  library that was loaded before isn't seen. SSL reads its certificates in C.
* SQL: SQLite opens and writes files of its own accord. ``sqlite3.connect`` and ``load_extension`` are
  guarded; ``ATTACH`` and ``VACUUM INTO`` on a connection that is open reach any file.
* Threads: a thread or an executor's worker has a stack of its own, without the function that started it, also
  under ``asyncio.to_thread``, and so has a task. `EgressGuard.carrying` hands work over with its owners. What
  a coroutine awaits itself is on the stack and is seen; asyncio looks names up in a worker, which isn't, and
  connects in the coroutine, which is.
* Links, and the other limits of `cloister.immune.acting.reach` and `cloister.immune.acting.programs`.
* Code that takes the guard apart, which any Python code in the process can. It is a tripwire for a service
  that is made to do what it never did, not a wall against whoever runs code of their own in it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from types import FrameType, FunctionType
from typing import Final, ParamSpec, TypedDict, TypeVar
from weakref import WeakSet

from cloister.immune.acting.reach import READERS, Operation, Places, Reach
from cloister.immune.acting.reached import GuardMode, Reached, ReachedState, damaged
from cloister.immune.acting.stack import WatchedCode, reads_code
from cloister.immune.errors import EgressBlocked
from cloister.immune.event_ids import EventIds

P = ParamSpec("P")
R = TypeVar("R")

STATE_VERSION: Final = 1

_REMEMBERED: Final = 4096
_OWN_FOLDER: Final = "it would change the immune system's own folder"


class EgressState(TypedDict):
    """What all functions reach for, as plain JSON, with names: for this machine's own files only."""

    version: int
    functions: dict[str, ReachedState]


@dataclass(frozen=True, slots=True)
class NewReach:
    """A watched function tried what it was never seen to do.

    Attributes:
        function: ``module:qualname``.
        operation: what it did.
        target: what with, by name; for the local report only.
        target_id: a keyed hash of it, for everything else.
        refused: whether it was stopped.
        times: how often this was tried; reported the first, second, fourth, eighth ... time.
        event_id: the decision's id.
        unguarded: whether this is the function's last report for the operation, because it has too many
        targets.
    """

    function: str
    operation: Operation
    target: str
    target_id: str
    refused: bool
    times: int
    event_id: str
    unguarded: bool = False


class _Busy(threading.local):
    now = False


def _to_nobody(_: NewReach) -> None:
    return None


def _not_thrown() -> bool:
    return False


def _never(_: str) -> bool:
    return False


class EgressGuard:
    """Watches what functions reach for, once armed.

    Args:
        report: told of new targets, on the thread of the operation and inside of it, so it has to be short.
            What it raises is counted.
        switched_off: whether the kill switch is thrown; asked only for new targets.
        event_ids: where decisions' ids are from.
        key: of the hashes of targets' names, 32 bytes; rotate it with the one of the telemetry.
        places: which files are told apart.
        refuses: whether the operator lets a function's operations be refused, learned or not: asked where it
            changes the immune system's own folder.
    """

    def __init__(
        self,
        report: Callable[[NewReach], None] = _to_nobody,
        *,
        switched_off: Callable[[], bool] = _not_thrown,
        event_ids: EventIds | None = None,
        key: bytes | None = None,
        places: Places | None = None,
        refuses: Callable[[str], bool] = _never,
    ) -> None:
        self._report = report
        self._switched_off = switched_off
        self._event_ids = event_ids or EventIds()
        self._key = key or os.urandom(32)
        self._places = places or Places.of_this_interpreter()
        self._kept = frozenset((Operation.WRITE, one[:-1]) for one in self._places.kept)
        self._refuses = refuses
        self._code = WatchedCode()
        self._files: dict[tuple[object, ...], tuple[Reach, ...]] = {}
        self._reached: dict[str, Reached] = {}
        self._busy = _Busy()
        self._lock = threading.RLock()
        self._failures = 0
        _IN_THIS_PROCESS.add(self)

    @property
    def failures(self) -> int:
        """How often the guard itself failed and let an operation through."""
        return self._failures

    @property
    def armed(self) -> bool:
        """Whether operations are looked at."""
        return self in _ARMED

    def register(self, function: FunctionType, name: str) -> None:
        """Watch a function.

        Args:
            function: itself, not what wraps it. A generator or coroutine is on the stack while it runs. What
                has no code object, such as a built-in, can't be watched.
            name: ``module:qualname``.
        """
        self._reached.setdefault(name, Reached())
        with self._lock:
            self._code.register(function, name)

    def set_mode(self, function: str, mode: GuardMode) -> None:
        """Say what is done about new targets of a function; a function starts with learning."""
        self._reached.setdefault(function, Reached()).mode = mode

    def mode(self, function: str) -> GuardMode:
        """What is done about new targets of a function."""
        one = self._reached.get(function)
        return GuardMode.LEARN if one is None else one.mode

    def approve(self, function: str, operation: Operation, target: str) -> None:
        """Let an operator make a target known: one, a folder ``/srv/reports/``, a network ``10.0.0.0/8``."""
        self._reached.setdefault(function, Reached()).approve(operation, target)

    def news(self, function: str) -> tuple[NewReach, ...]:
        """New targets of a function that nobody has approved, the most often tried first."""
        one = self._reached.get(function)
        if one is None:
            return ()
        refused = one.mode is GuardMode.ENFORCE
        return tuple(
            NewReach(function, *reach, self._target_id(reach), refused, times, "")
            for reach, times in one.news()
        )

    def arm(self) -> bool:
        """Begin to look at operations.

        Returns:
            Whether it works; not where another audit hook forbids new ones.
        """
        with self._lock:
            if self not in _ARMED:
                _ARMED.append(self)
            if not _HEARD:
                sys.addaudithook(_hook)
                sys.audit(_PROBE)
            if not _HEARD:
                self.disarm()
        return self.armed

    def disarm(self) -> None:
        """Stop looking at operations; what was learned stays."""
        with self._lock:
            if self in _ARMED:
                _ARMED.remove(self)

    def carrying(self, work: Callable[P, R]) -> Callable[P, R]:
        """Hand work to a thread, a task or an executor as the watched functions' that are on the stack now.

        Args:
            work: what runs elsewhere: ``executor.submit(guard.carrying(send), batch)``.

        Returns:
            It, with their names: what it reaches for is judged as theirs.
        """
        return self._code.carried(work, self._code.owners(sys._getframe(1)))

    def state(self) -> EgressState:
        """What is to be kept over a restart."""
        reached = dict(self._reached)
        return {
            "version": STATE_VERSION,
            "functions": {name: reached[name].state() for name in sorted(reached)},
        }

    def restore(self, state: object) -> None:
        """Take over what `state` gave; a function that had settled is observed until told to enforce.

        Raises:
            ImmuneError: ``immune.state_damaged``; nothing was taken over.
        """
        if not isinstance(state, Mapping) or set(state) != {"version", "functions"}:
            raise damaged()
        functions = state["functions"]
        if state["version"] != STATE_VERSION or not isinstance(functions, Mapping):
            raise damaged()
        restored = {str(name): Reached.restored(one) for name, one in functions.items()}
        for one in restored.values():
            one.learned -= self._kept
        self._reached.update(restored)

    def _hear(self, event: str, arguments: tuple[object, ...], frame: FrameType) -> None:
        refusal: EgressBlocked | None = None
        try:
            owners = self._code.owners(frame)
            if not owners or self._known(event, arguments, owners) or self._busy.now:
                return
            self._busy.now = True
            try:
                if reads_code(event, arguments[0], frame):
                    return
                for reach in self._reaches(event, arguments):
                    for function in owners:
                        refusal = self._judge(function, reach) or refusal
            finally:
                self._busy.now = False
        except Exception:
            self._failures += 1
        if refusal is not None:
            raise refusal

    def _known(self, event: str, arguments: tuple[object, ...], owners: tuple[str, ...]) -> bool:
        # The way of nearly every file that is opened: nothing is read, parsed or locked.
        reaches = self._files.get(arguments) if event == "open" else None
        if reaches is None:
            return False
        for function in owners:
            learned = self._reached[function].learned
            for reach in reaches:
                if reach not in learned:
                    return False
        return True

    def _reaches(self, event: str, arguments: tuple[object, ...]) -> Iterable[Reach]:
        reaches = tuple(READERS[event](arguments, self._places))
        path = arguments[0]
        # What a relative path means changes with the current folder.
        if event == "open" and isinstance(path, str) and path.startswith("/"):
            if len(self._files) >= _REMEMBERED:
                self._files.clear()
            self._files[arguments] = reaches
        return reaches

    def _judge(self, function: str, reach: Reach) -> EgressBlocked | None:
        one, own = self._reached[function], reach in self._kept
        if not own and self._is_usual(function, one, reach):
            return None
        if self._switched_off():
            return None
        refused = one.mode is GuardMode.ENFORCE or (own and self._refuses(function))
        with self._lock:
            times = one.new(reach)
        if times & (times - 1) == 0:
            event_id = self._tell(function, reach, refused=refused, times=times)
        else:
            event_id = self._event_ids.next()
        if not refused:
            return None
        reason = f"its first {reach[0]} of target {self._target_id(reach)}"
        return EgressBlocked(function, _OWN_FOLDER if own else reason, event_id)

    def _is_usual(self, function: str, one: Reached, reach: Reach) -> bool:
        if reach in one.learned:
            return True
        if one.mode is not GuardMode.LEARN:
            return one.knows(reach)
        if one.learn(reach):
            self._tell(function, reach, refused=False, times=1, unguarded=True)
        return True

    def _tell(
        self, function: str, reach: Reach, *, refused: bool, times: int, unguarded: bool = False
    ) -> str:
        event_id = self._event_ids.next()
        operation, target = reach
        told = NewReach(
            function, operation, target, self._target_id(reach), refused, times, event_id, unguarded
        )
        try:
            self._report(told)
        except Exception:
            self._failures += 1
        return event_id

    def _target_id(self, reach: Reach) -> str:
        name = f"{reach[0]}\0{reach[1]}".encode("utf-8", "surrogateescape")
        return blake2b(name, key=self._key, digest_size=8).hexdigest()


_ARMED: Final[list[EgressGuard]] = []
_HEARD: Final[list[bool]] = []
_PROBE: Final = "cloister.immune.probe"
_IN_THIS_PROCESS: WeakSet[EgressGuard] = WeakSet()


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if not _ARMED:
        return
    if event not in READERS:
        if event == _PROBE:
            _HEARD.append(True)
        return
    frame = sys._getframe(1)
    for guard in _ARMED:
        guard._hear(event, arguments, frame)


def _after_fork() -> None:
    for guard in list(_IN_THIS_PROCESS):
        guard._lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)
