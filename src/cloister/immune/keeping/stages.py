"""Which functions are contained, kept over a restart: killing the process must not release an attacker.

Rules kept here:

1. One row for each function that is contained or was until shortly before: a canonical document, signed.
   What doesn't verify under the key that is trusted, or is of another function, restores nothing and is
   removed with an `Alarm`, under which nothing is blocked.
2. Times are seconds since 1970: the clock that calls are dated by begins anew with each process.
3. Processes of one service share the rows. One that never saw a containment doesn't end what another one
   keeps; the newest containment counts.
4. A row that was removed can't be told from none. Who may write to the state can release; not contain.
"""

from __future__ import annotations

import math
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cloister.core.canonical import JSON, canonicalize
from cloister.immune.errors import ImmuneError
from cloister.immune.keeping.events import Alarm, Happened, StateEvent
from cloister.immune.keeping.locks import ForkSafe
from cloister.immune.keeping.signed import count, open_signed, seconds, text

if TYPE_CHECKING:
    import sqlite3

    from cloister.core.keys import Signer
    from cloister.immune.keeping.store import StateStore

CONTAIN: Final = "contain"
HALF_OPEN: Final = "half-open"
RELEASE: Final = "release"

OPERATOR: Final = "operator"
"""Who keeps a release by hand: every process that contained the function before follows it."""

_TYPE: Final = "cloister.immune.stage.v1"
_MAX_BYTES: Final = 4096
_ROW: Final = "SELECT document, signature FROM stages WHERE function = ?"


@dataclass(frozen=True, slots=True)
class KeptStage:
    """A function's stage, as it is kept.

    Attributes:
        function: ``module:qualname``.
        stage: `CONTAIN`, `HALF_OPEN` or `RELEASE`; the others end with the process.
        began: when, seconds since 1970.
        seconds: length of the containment.
        calm_at: when it is forgotten, seconds since 1970; of `RELEASE` only.
        detector: number of the promoted detector that recognised what is going on; 0 where none did.
        keeper: which process's.
    """

    function: str
    stage: str
    began: float
    seconds: float
    calm_at: float
    detector: int
    keeper: str

    def document(self) -> bytes:
        """It as canonical JSON: what is signed."""
        return canonicalize(
            {
                "began": self.began,
                "calm_at": self.calm_at,
                "detector": self.detector,
                "function": self.function,
                "keeper": self.keeper,
                "seconds": self.seconds,
                "stage": self.stage,
                "type": _TYPE,
            }
        )

    def holds(self, now: float) -> bool:
        """Whether calls may still be stopped because of it, at a time in seconds since 1970."""
        lasts = {CONTAIN: 2 * self.seconds, HALF_OPEN: self.seconds}.get(self.stage, 0.0)
        return now < self.began + lasts


class StageKeeper(ForkSafe):
    """The kept stages of all functions.

    Args:
        store: where they are kept.
        signer: signs them; what another key signed isn't trusted.
    """

    def __init__(self, store: StateStore, signer: Signer) -> None:
        super().__init__()
        self._store, self._signer = store, signer
        self.keeper: str = secrets.token_hex(8)
        self._taken_over: dict[str, str] = {}

    def keep(self, function: str, stage: KeptStage | None, *, by_operator: bool = False) -> bool:
        """Keep a function's stage in place of the one before.

        Args:
            function: ``module:qualname``.
            stage: None for one that ends with the process.
            by_operator: whether a person decided: that counts for what other processes keep as well.

        Returns:
            Whether it is kept; not where another process's containment stays.

        Raises:
            ImmuneError: the store can't be used now.
        """
        now = self._store.clock()
        document = b"" if stage is None else stage.document()
        signature = self._signer.sign(document) if document else b""
        with self._store.writing() as connection:
            if not by_operator and (stage is None or not stage.holds(now)):
                earlier = self._earlier(connection, function)
                if earlier is not None and earlier.holds(now) and not self._is_mine(earlier):
                    return False
            if document:
                connection.execute(
                    "INSERT OR REPLACE INTO stages (function, document, signature, kept_at)"
                    " VALUES (?, ?, ?, ?)",
                    (function, document, signature, now),
                )
            else:
                connection.execute("DELETE FROM stages WHERE function = ?", (function,))
        return True

    def find(self, function: str) -> tuple[KeptStage | None, StateEvent | None]:
        """What is kept of a function, at its process's start.

        Returns:
            The stage, None where none is kept or what is there doesn't verify; and, in the latter case, what
            to write down. The store has an alarm then.

        Raises:
            ImmuneError: the store can't be used now.
        """
        with self._store.reading() as connection:
            row = connection.execute(_ROW, (function,)).fetchone()
        if row is None:
            return None, None
        found = self._open(row, function)
        if found is not None:
            with self._lock:
                self._taken_over[function] = found.keeper
            return found, None
        now = self._store.clock()
        self._store.raise_alarm(Alarm("stage_forged", "", now))
        with self._store.writing() as connection:
            connection.execute("DELETE FROM stages WHERE function = ?", (function,))
        reason = "its kept containment doesn't verify: it was removed, and nothing is blocked"
        return None, StateEvent(Happened.STAGE_INVALID, function, now, reason)

    def release(self, function: str) -> None:
        """Release a function by an operator's hand, in every process.

        Raises:
            ImmuneError: the store can't be used now.
        """
        now = self._store.clock()
        self.keep(function, KeptStage(function, RELEASE, now, 1.0, now, 0, OPERATOR), by_operator=True)

    def released_at(self, function: str) -> float | None:
        """When an operator last released a function, seconds since 1970; None where nothing says so.

        Raises:
            ImmuneError: the store can't be used now.
        """
        with self._store.reading() as connection:
            found = self._earlier(connection, function)
        return found.began if found is not None and found.keeper == OPERATOR else None

    def _is_mine(self, stage: KeptStage) -> bool:
        return stage.keeper in (self.keeper, self._taken_over.get(stage.function))

    def _earlier(self, connection: sqlite3.Connection, function: str) -> KeptStage | None:
        row = connection.execute(_ROW, (function,)).fetchone()
        return None if row is None else self._open(row, function)

    def _open(self, row: tuple[object, object], function: str) -> KeptStage | None:
        document, signature = row
        if not isinstance(document, bytes) or not isinstance(signature, bytes) or len(document) > _MAX_BYTES:
            return None
        try:
            found = open_signed(document, signature, self._signer.public_key, _read)
        except ImmuneError:
            return None
        return found if found.function == function else None


def _read(members: dict[str, JSON]) -> KeptStage:
    found = KeptStage(
        text(members["function"]),
        text(members["stage"]),
        seconds(members["began"]),
        seconds(members["seconds"]),
        seconds(members["calm_at"]),
        count(members["detector"]),
        text(members["keeper"]),
    )
    if found.stage not in (CONTAIN, HALF_OPEN, RELEASE) or not 0 < found.seconds < math.inf:
        raise ValueError
    return found


def forget_old_stages(connection: sqlite3.Connection, before: float) -> None:
    """Remove what nobody wrote since a time; seconds since 1970."""
    connection.execute("DELETE FROM stages WHERE kept_at < ?", (before,))
