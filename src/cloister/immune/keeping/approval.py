"""Who may say what is normal: the state of each function's anchor, and what it allows.

A function is in one of five standings. Rules kept here:

1. Unapproved: nobody said what is normal, or it was deployed anew. It learns, and is only observed.
2. Relearning: somebody approved what it does from now on. It learns, and is only observed, until the anchor
   is taken: by default 200 observed calls, of which the first half is left for the level to settle. In
   the second, calls of a function under suspicion and as many after them don't count, and no unusual call
   widens it.
3. Approved: its level is compared with the anchor on every observed call.
4. Drifted: its level left the anchor and stayed away for `LASTING` observed calls, longer than a burst of
   load. The alarm is told once. From the first of these calls on, a function that may block learns nothing
   until the level comes back or it is approved anew; one that can't block learns on.
5. Invalid: the newest anchor doesn't verify. It is only observed until it is approved anew.

When the store was damaged and put aside, every function is unapproved at once.

The standing follows from the newest anchor and the last decision after it, both in the store and signed. So
it survives a restart, and a decision made by another process is seen at the next `refresh`.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cloister.immune.errors import ImmuneError
from cloister.immune.keeping.anchor import APPROVE, DEPLOY, Anchor, Mark, open_anchor, open_mark, sha256_of
from cloister.immune.keeping.drift import Band, DriftAlarm, Limits, drift_of, limits_of, within
from cloister.immune.keeping.events import Happened, StateEvent
from cloister.immune.keeping.locks import ForkSafe
from cloister.immune.keeping.store import StateStore

if TYPE_CHECKING:
    from cloister.core.keys import Signer

RELEARNING_CALLS: Final = 200
LASTING: Final = 32
SETTLING: Final = 50
"""Most calls after a suspicion, one for each of it, before an anchor is taken further."""
_RETRY_CALLS: Final = 20
_NEWEST: Final = "SELECT document, signature FROM anchors WHERE function = ? ORDER BY id DESC LIMIT 1"
_MARKS: Final = "SELECT document, signature FROM marks WHERE function = ? ORDER BY id DESC LIMIT 20"


class Standing(StrEnum):
    """What is approved of a function."""

    UNAPPROVED = "unapproved"
    RELEARNING = "relearning"
    APPROVED = "approved"
    DRIFTED = "drifted"
    INVALID = "invalid"


_NOTHING: Final = sha256_of(b"")


@dataclass(slots=True)
class _Watch:
    """One function; its fields change under the keeper's lock."""

    standing: Standing = Standing.UNAPPROVED
    anchor: Anchor | None = None
    mark: Mark | None = None
    seen: tuple[str, str] = (_NOTHING, "")
    alarm: DriftAlarm | None = None
    limits: Limits = ()
    beyond: int = 0
    calls: int = 0
    settling: int = 0
    has_settled: bool = False
    since: float = 0.0
    bands: dict[str, Band] = field(default_factory=dict)


class AnchorKeeper(ForkSafe):
    """The anchors of all functions.

    Args:
        store: where they are kept.
        signer: signs anchors and decisions; what another key signed isn't trusted.
        ratio: how many times beyond its band a level may be.
    """

    def __init__(self, store: StateStore, signer: Signer, ratio: float) -> None:
        super().__init__()
        self._store, self._signer, self._ratio = store, signer, ratio
        self._watches: dict[str, _Watch] = {}
        self._alarms = len(store.alarms)

    def standing(self, function: str) -> Standing:
        """A function's standing, as far as this process knows."""
        watch = self._watch(function)
        return Standing.UNAPPROVED if watch is None else watch.standing

    def alarm(self, function: str) -> DriftAlarm | None:
        """The drift that a function is in; None in every other standing."""
        watch = self._watch(function)
        return None if watch is None else watch.alarm

    def anchor(self, function: str) -> Anchor | None:
        """The anchor in force; None where there is none that verifies."""
        watch = self._watch(function)
        return None if watch is None else watch.anchor

    def may_block(self, function: str) -> bool:
        """Whether what is known of a function is good enough to block its calls."""
        return self.standing(function) in (Standing.APPROVED, Standing.DRIFTED)

    def may_learn(self, function: str, *, blocks: bool) -> bool:
        """Whether a function's baseline may move.

        Args:
            function: ``module:qualname``.
            blocks: whether its calls may be blocked by the operator's settings.
        """
        watch = self._watch(function)
        return not blocks or watch is None or (watch.standing is not Standing.DRIFTED and not watch.beyond)

    def check(
        self,
        function: str,
        levels: Mapping[str, float],
        at: float,
        *,
        calm: bool = True,
        unusual: bool = False,
    ) -> StateEvent | None:
        """Compare a function's levels with its anchor after an observed call; take the anchor when it is due.

        Args:
            function: ``module:qualname``.
            levels: the present level of each feature.
            at: time of the call, monotonic seconds.
            calm: whether the function is in no suspicion.
            unusual: whether the call is. What isn't ordinary says nothing of what was approved.

        Returns:
            What to write down: a drift that began or ended, an anchor that was signed.

        Raises:
            ImmuneError: an anchor is due and the store can't be used now; it is tried again later.
        """
        watch = self._watch(function)
        if watch is None or watch.standing in (Standing.UNAPPROVED, Standing.INVALID):
            return None
        if watch.standing is Standing.APPROVED and within(levels, watch.limits):
            watch.beyond = 0
            return None
        with self._lock:
            if watch.standing is Standing.RELEARNING and watch.mark is not None:
                return self._relearn(watch, watch.mark, levels, at, calm=calm, unusual=unusual)
            if watch.anchor is not None:
                return self._compare(watch, watch.anchor, levels)
        return None

    def has_settled(self, function: str) -> bool:
        """Whether the time for settling has ended since this was last asked: what comes is the normal."""
        watch = self._watch(function)
        if watch is None or not watch.has_settled:
            return False
        watch.has_settled = False
        return True

    def approve(
        self, function: str, by: str, *, calls: int = RELEARNING_CALLS, span: float = 0.0
    ) -> StateEvent:
        """Decide that what a function does from now on is normal.

        Args:
            function: ``module:qualname``.
            by: who decides.
            calls: observed calls from which the anchor is taken.
            span: least seconds over which it is taken: one period of the load, where that is known.

        Returns:
            What to write down.

        Raises:
            ImmuneError: ``immune.setting_invalid`` for numbers that make no sense; the store can't be used.
        """
        if not (calls >= 2 and 0 <= span < math.inf):
            raise ImmuneError(
                "immune.setting_invalid",
                "An anchor is taken from two calls or more, over a time.",
                "Name at least two calls and no negative hours:  pic approve FUNCTION --calls 200 --hours 24",
            )
        self._decide(function, APPROVE, by, calls, span)
        over = f" and {span:.0f} s" if span else ""
        reason = f"what it does over the next {calls} observed calls{over} is normal"
        return StateEvent(Happened.ANCHOR_APPROVED, function, self._store.clock(), reason, by=by)

    def deploy(self, function: str, by: str) -> StateEvent:
        """Say that a function was changed: it is only observed until it is approved anew.

        Returns:
            What to write down.

        Raises:
            ImmuneError: the store can't be used now.
        """
        self._decide(function, DEPLOY, by, 0, 0.0)
        reason = "it was deployed anew and is only observed"
        return StateEvent(Happened.DEPLOYED, function, self._store.clock(), reason, by=by)

    def refresh(self, function: str) -> StateEvent | None:
        """Take over what is in the store: at the start, and to see decisions of other processes.

        Returns:
            What to write down where the newest anchor doesn't verify, once.

        Raises:
            ImmuneError: the store can't be used now; nothing is changed.
        """
        with self._store.reading() as connection:
            document, signature, mark, mark_name = self._read(connection, function)
        seen = sha256_of(document + signature)
        with self._lock:
            watch = self._watches.setdefault(function, _Watch())
            if watch.seen == (seen, mark_name):
                return None
            watch.seen = (seen, mark_name)
            watch.alarm = watch.anchor = None
            invalid = False
            if document:
                try:
                    watch.anchor = open_anchor(document, signature, function, self._signer.public_key)
                except ImmuneError:
                    invalid = True
            self._settle(watch, mark, invalid=invalid)
        if not invalid:
            return None
        reason = "its newest anchor doesn't verify: it is only observed"
        return StateEvent(Happened.ANCHOR_INVALID, function, self._store.clock(), reason)

    def _watch(self, function: str) -> _Watch | None:
        alarms = len(self._store.alarms)
        if alarms != self._alarms:
            # What was put aside took every approval with it.
            with self._lock:
                self._watches.clear()
                self._alarms = alarms
        return self._watches.get(function)

    def _settle(self, watch: _Watch, mark: Mark | None, *, invalid: bool) -> None:
        watch.mark = mark
        watch.calls, watch.since, watch.bands, watch.beyond = 0, 0.0, {}, 0
        if mark is not None:
            watch.standing = Standing.RELEARNING if mark.kind == APPROVE else Standing.UNAPPROVED
        elif invalid:
            watch.standing = Standing.INVALID
        else:
            watch.standing = Standing.UNAPPROVED if watch.anchor is None else Standing.APPROVED
        watch.limits = () if watch.anchor is None else limits_of(watch.anchor.bands, self._ratio)

    def _read(self, connection: sqlite3.Connection, function: str) -> tuple[bytes, bytes, Mark | None, str]:
        """Newest anchor as it lies there, and the last decision that was made after it and verifies."""
        document, signature = _bytes_of(connection.execute(_NEWEST, (function,)).fetchone())
        name = sha256_of(document) if document else ""
        for row in connection.execute(_MARKS, (function,)):
            mark_document, mark_signature = _bytes_of(row)
            try:
                mark = open_mark(mark_document, mark_signature, function, self._signer.public_key)
            except ImmuneError:
                continue
            if mark.anchor == name:
                return document, signature, mark, sha256_of(mark_document)
        return document, signature, None, ""

    def _decide(self, function: str, kind: str, by: str, calls: int, span: float) -> None:
        with self._store.deciding() as connection:
            document, _ = _bytes_of(connection.execute(_NEWEST, (function,)).fetchone())
            name = sha256_of(document) if document else ""
            now = self._store.clock()
            decided = Mark(function, kind, name, by, now, calls, span).document()
            connection.execute(
                "INSERT INTO marks (function, document, signature, kept_at) VALUES (?, ?, ?, ?)",
                (function, decided, self._signer.sign(decided), now),
            )
        self.refresh(function)

    def _compare(self, watch: _Watch, anchor: Anchor, levels: Mapping[str, float]) -> StateEvent | None:
        drifted = watch.standing is Standing.DRIFTED
        # A level at the border would begin and end a drift with every call.
        found = drift_of(
            anchor.function, levels, anchor.bands, math.sqrt(self._ratio) if drifted else self._ratio
        )
        watch.beyond = 0 if found is None else watch.beyond + 1
        if (found is not None) == drifted or 0 < watch.beyond < LASTING:
            watch.alarm = found if drifted else None
            return None
        watch.alarm = found
        watch.standing = Standing.APPROVED if found is None else Standing.DRIFTED
        kind = Happened.DRIFT_ENDED if found is None else Happened.DRIFT_BEGAN
        reason = "its level is within what was approved" if found is None else found.reason
        return StateEvent(kind, anchor.function, self._store.clock(), reason)

    def _relearn(
        self,
        watch: _Watch,
        mark: Mark,
        levels: Mapping[str, float],
        at: float,
        *,
        calm: bool,
        unusual: bool,
    ) -> StateEvent | None:
        # The level still has something of a suspicion's calls in it for as many calls as those were.
        settled = calm and not watch.settling
        watch.settling = max(watch.settling - 1, 0) if calm else min(watch.settling + 1, SETTLING)
        if watch.calls < mark.calls // 2:
            watch.calls += 1
            watch.since = at
            if watch.calls == mark.calls // 2:
                watch.settling, watch.has_settled = 0, True
            return None
        if not settled:
            return None
        watch.calls += 1
        if unusual:
            levels = {}
        for feature, level in levels.items():
            if math.isfinite(level) and level >= 0:
                band = watch.bands.get(feature)
                if band is None:
                    watch.bands[feature] = Band(level, level)
                elif not band.low <= level <= band.high:
                    watch.bands[feature] = Band(min(band.low, level), max(band.high, level))
        over = watch.calls - mark.calls
        if over < 0 or over % _RETRY_CALLS or _seconds(watch, at) < mark.span or not watch.bands:
            return None
        return self._take(watch, mark, at)

    def _take(self, watch: _Watch, mark: Mark, at: float) -> StateEvent | None:
        now = self._store.clock()
        sequence = 1 if watch.anchor is None else watch.anchor.sequence + 1
        bands = MappingProxyType(dict(watch.bands))
        taken = watch.calls - mark.calls // 2
        anchor = Anchor(
            mark.function, sequence, bands, taken, _seconds(watch, at), now, watch.seen[1], mark.by
        )
        document = anchor.document()
        with self._store.writing() as connection:
            newest, _ = _bytes_of(connection.execute(_NEWEST, (mark.function,)).fetchone())
            first = (sha256_of(newest) if newest else "") == mark.anchor
            if first:
                connection.execute(
                    "INSERT INTO anchors (function, document, signature, kept_at) VALUES (?, ?, ?, ?)",
                    (mark.function, document, self._signer.sign(document), now),
                )
        self.refresh(mark.function)
        if not first:
            return None
        described = ", ".join(f"{name} {band.low:.3g} to {band.high:.3g}" for name, band in bands.items())
        return StateEvent(Happened.ANCHOR_SIGNED, mark.function, now, described, by=mark.by)


def _seconds(watch: _Watch, at: float) -> float:
    """Over which the anchor is being taken; none where the clock went backwards."""
    return max(at - watch.since, 0.0)


def _bytes_of(row: tuple[object, object] | None) -> tuple[bytes, bytes]:
    """Document and signature of a row; bytes that verify nothing where it holds something else."""
    if row is None:
        return b"", b""
    document, signature = row
    if isinstance(document, bytes) and isinstance(signature, bytes) and document:
        return document, signature
    return b"\0", b""


def forget_old_marks(connection: sqlite3.Connection, before: float) -> int:
    """Remove decisions made before a time that are no function's last.

    Args:
        connection: of a writing transaction.
        before: seconds since 1970.

    Returns:
        How many.
    """
    return connection.execute(
        "DELETE FROM marks WHERE kept_at < ?"
        " AND id < (SELECT max(newer.id) FROM marks newer WHERE newer.function = marks.function)",
        (before,),
    ).rowcount
