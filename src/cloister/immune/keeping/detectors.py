"""Detectors: candidates, and those that a person or a policy promoted.

Rules kept here:

1. A call above the threshold makes a candidate. Only an active detector lets the effector contain a function,
   and only `promote` makes one active, with a verdict that passed and was found after its last change.
2. Of a pattern only its keyed hash is stored, once. A pattern that is known makes no second candidate; one
   whose time is up may be found anew. Of one feature of a function one candidate waits, the weakest: it
   recognises what the stronger ones would, and is one decision for the operator, not seven.
3. Every change raises the version by one, and gives a `StateEvent` for the audit log.
4. A detector ends at its time, whether or not anybody has swept it up yet.
5. A row that can't be read is no detector: it never blocks.
6. Before a promotion a snapshot of the function's detectors is taken (`snapshots`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from cloister.immune.errors import ImmuneError
from cloister.immune.keeping.detector import Detector, DetectorState, detector_of
from cloister.immune.keeping.events import Happened, StateEvent
from cloister.immune.keeping.locks import ForkSafe
from cloister.immune.keeping.pattern import hash_pattern, patterns_of_feature, patterns_within
from cloister.immune.keeping.snapshots import COLUMNS, take_snapshot
from cloister.immune.keeping.store import StateStore
from cloister.immune.keeping.validation import Redact, Scorer, Verdict, is_candidate, validate
from cloister.immune.observation import Observed, Score

POLICY: Final = "policy"
"""Who promoted, where nobody did by hand."""

_LONGEST: Final = 500
_SELECT: Final = f"SELECT {', '.join(COLUMNS)} FROM detectors"  # noqa: S608 - names of this package


class DetectorRegistry(ForkSafe):
    """The detectors of all functions.

    Args:
        store: where they are kept.
        key: of `pattern_key`.
        days: after which a candidate or a promoted detector ends.
        redact: for whatever text comes from a person or is a name of code.
    """

    def __init__(self, store: StateStore, key: bytes, days: float, redact: Redact) -> None:
        super().__init__()
        self._store, self._key, self._redact = store, key, redact
        self._seconds = days * 86_400
        self._copy: tuple[tuple[int, int, int], dict[str, tuple[Detector, ...]]] | None = None

    def store_detector(
        self, function: str, pattern: bytes, threshold: float, provenance: str
    ) -> tuple[Detector, StateEvent | None]:
        """Keep a candidate.

        Args:
            function: ``module:qualname``.
            pattern: what it recognises (`pattern_of`); only its hash is stored.
            threshold: score above which a call is flagged, 0 to 100.
            provenance: the audit log's id of the call that made it.

        Returns:
            The detector of this pattern, or one that recognises it already, and what to write down where it
            is new.

        Raises:
            ImmuneError: ``immune.setting_invalid`` for a threshold that isn't one; the store can't be used.
        """
        if not 0 <= threshold <= 100:
            raise ImmuneError(
                "immune.setting_invalid",
                "A detector's threshold is a score from 0 to 100.",
                "Set anomaly.candidate_score_threshold to one.",
            )
        signature, now = hash_pattern(self._key, pattern), self._store.clock()
        weaker, stronger = (self._hashes(some) for some in patterns_of_feature(pattern))
        # An attack repeats one pattern: most times there is nothing to write.
        with self._store.reading() as connection:
            enough = _recognising(connection, signature, weaker, now)
        if enough is not None:
            return enough, None
        with self._store.writing() as connection:
            enough = _recognising(connection, signature, weaker, now)
            if enough is not None:
                return enough, None
            known = _one(connection, "signature_hash = ?", signature)
            values = (function, threshold, self._clean(provenance), now, now + self._seconds)
            if known is None:
                connection.execute(
                    "INSERT OR REPLACE INTO detectors (function, threshold, provenance, created_at,"
                    " expires_at, signature_hash, is_active, version, state, reason)"
                    " VALUES (?, ?, ?, ?, ?, ?, 0, 1, 'candidate', 'found')",
                    (*values, signature),
                )
            else:
                connection.execute(
                    "UPDATE detectors SET function = ?, threshold = ?, provenance = ?, created_at = ?,"
                    " expires_at = ?, is_active = 0, version = version + 1, state = 'candidate',"
                    " reason = 'found anew', verdict_json = NULL WHERE id = ?",
                    (*values, known.id),
                )
            made = _one(connection, "signature_hash = ?", signature)
            if made is None:
                raise ImmuneError("immune.state_damaged", "A detector can't be read after it was stored.")
            replaced = _replace(connection, stronger, made.id)
        reason = f"scores above {threshold:g}"
        if replaced:
            reason += f"; in place of {', '.join(map(str, replaced))}, which would recognise less"
        return made, self._event(Happened.CANDIDATE_MADE, made, reason)

    def detector(self, number: int) -> Detector:
        """A detector by its number.

        Raises:
            ImmuneError: ``immune.detector_unknown``; the store can't be used now.
        """
        with self._store.reading() as connection:
            return _known(connection, number)

    def detectors(self, function: str | None = None) -> tuple[Detector, ...]:
        """All that can be read, in order of their numbers; of one function where it is named.

        Raises:
            ImmuneError: the store can't be used now.
        """
        return detectors_in(self._store, function)

    def get_active_detectors(self, function: str) -> tuple[Detector, ...]:
        """The promoted detectors of a function whose time isn't up; from memory where nothing was written.

        Raises:
            ImmuneError: the store can't be used now.
        """
        generation = self._store.generation()
        with self._lock:
            if self._copy is None or self._copy[0] != generation:
                active: dict[str, tuple[Detector, ...]] = {}
                for one in self.detectors():
                    if one.state is DetectorState.ACTIVE:
                        active[one.function_name] = (*active.get(one.function_name, ()), one)
                self._copy = generation, active
            found = self._copy[1].get(function, ())
        now = self._store.clock()
        return tuple(one for one in found if one.is_active(now))

    def matching(self, function: str, score: Score) -> Detector | None:
        """The promoted detector that recognises a call: its pattern at the call's size or weaker.

        Args:
            function: ``module:qualname``.
            score: the call's.

        Raises:
            ImmuneError: the store can't be used now.
        """
        active = [one for one in self.get_active_detectors(function) if is_candidate(score, one.threshold)]
        if not active:
            return None
        hashes = {hash_pattern(self._key, pattern) for pattern in patterns_within(function, score)}
        return next((one for one in active if one.signature_hash in hashes), None)

    def validate(
        self, number: int, ordinary: Sequence[Observed], scorer: Scorer
    ) -> tuple[Verdict, StateEvent]:
        """Try a candidate on the newest ordinary calls of its function, and keep the verdict.

        Args:
            number: the detector's.
            ordinary: of the trace store, newest first.
            scorer: the detector's own, on a copy that doesn't learn.

        Returns:
            The verdict, and what to write down.

        Raises:
            ImmuneError: ``immune.detector_unknown``; ``immune.not_eligible`` where it isn't a candidate.
        """
        found = self.detector(number)
        verdict = validate(ordinary, scorer, found.threshold, self._store.clock(), self._redact)
        with self._store.writing() as connection:
            now_found = _known(connection, number)
            if now_found.state is not DetectorState.CANDIDATE or now_found.version != found.version:
                raise _not_eligible("it isn't a candidate")
            connection.execute(
                "UPDATE detectors SET version = version + 1, reason = ?, verdict_json = ? WHERE id = ?",
                (verdict.reason, verdict.to_json(), number),
            )
        said = f"{verdict.reason}: {'may be promoted' if verdict.passed else 'not eligible'}"
        return verdict, self._event(Happened.DETECTOR_VALIDATED, now_found, said)

    def promote(self, number: int, by: str) -> StateEvent:
        """Make a candidate active, for its full time from now, after a snapshot.

        Args:
            number: the detector's.
            by: who decides.

        Returns:
            What to write down.

        Raises:
            ImmuneError: ``immune.detector_unknown``; ``immune.not_eligible`` without a verdict that passed.
        """
        now = self._store.clock()
        with self._store.deciding() as connection:
            found = _known(connection, number)
            if found.state is not DetectorState.CANDIDATE or now >= found.expires_at:
                raise _not_eligible("it isn't a candidate")
            if found.verdict is None or not found.verdict.passed:
                raise _not_eligible("it was not validated" if found.verdict is None else found.verdict.reason)
            snapshot = take_snapshot(connection, found.function_name, now, f"promotion of detector {number}")
            connection.execute(
                "UPDATE detectors SET version = version + 1, state = 'active', is_active = 1,"
                " expires_at = ?, reason = ? WHERE id = ?",
                (now + self._seconds, f"promoted by {self._clean(by)}", number),
            )
        return self._event(
            Happened.DETECTOR_PROMOTED, found, f"{found.verdict.reason}; snapshot {snapshot}", by
        )

    def promote_passed(self, by: str = POLICY, function: str | None = None) -> tuple[StateEvent, ...]:
        """Promote every candidate whose verdict passed.

        Args:
            by: who decides.
            function: whose; None for all functions.

        Returns:
            What to write down, one entry each.

        Raises:
            ImmuneError: the store can't be used now.
        """
        now = self._store.clock()
        ready = [
            one
            for one in self.detectors(function)
            if one.state is DetectorState.CANDIDATE
            and now < one.expires_at
            and one.verdict is not None
            and one.verdict.passed
        ]
        return tuple(self.promote(one.id, by) for one in ready)

    def reject(self, number: int, by: str, why: str) -> StateEvent:
        """Refuse a candidate, or switch a promoted detector off, until its time is up.

        Args:
            number: the detector's.
            by: who decides.
            why: their reason; redacted before it is kept.

        Returns:
            What to write down.

        Raises:
            ImmuneError: ``immune.detector_unknown``; ``immune.setting_invalid`` without a reason.
        """
        reason = self._clean(why)
        if not reason:
            raise ImmuneError("immune.setting_invalid", "A detector is rejected with a reason.", "Say why.")
        with self._store.deciding() as connection:
            found = _known(connection, number)
            connection.execute(
                "UPDATE detectors SET version = version + 1, state = 'rejected', is_active = 0,"
                " reason = ?, verdict_json = NULL WHERE id = ?",
                (reason, number),
            )
        return self._event(Happened.DETECTOR_REJECTED, found, reason, by)

    def expire_old_detectors(self) -> tuple[StateEvent, ...]:
        """End all whose time is up.

        Returns:
            What to write down, one entry each; none the second time.

        Raises:
            ImmuneError: the store can't be used now.
        """
        now = self._store.clock()
        with self._store.reading() as connection:
            due = connection.execute(_DUE, (now,)).fetchall()
        if not due:
            return ()
        with self._store.writing() as connection:
            due = connection.execute(
                f"{_SELECT} WHERE state <> 'expired' AND expires_at <= ?", (now,)
            ).fetchall()
            connection.execute(
                "UPDATE detectors SET version = version + 1, state = 'expired', is_active = 0,"
                " reason = 'its time is up', verdict_json = NULL"
                " WHERE state <> 'expired' AND expires_at <= ?",
                (now,),
            )
        ended = [one for row in due if (one := detector_of(row)) is not None]
        return tuple(
            self._event(Happened.DETECTOR_EXPIRED, one, f"its time is up; it was {one.state}")
            for one in ended
        )

    def _hashes(self, patterns: Sequence[bytes]) -> list[str]:
        return [hash_pattern(self._key, one) for one in patterns]

    def _clean(self, text: str) -> str:
        return self._redact(" ".join(text.split()))[:_LONGEST]

    def _event(self, kind: Happened, detector: Detector, reason: str, by: str = "") -> StateEvent:
        return StateEvent(
            kind, detector.function_name, self._store.clock(), reason, detector.id, self._clean(by)
        )


_DUE: Final = "SELECT 1 FROM detectors WHERE state <> 'expired' AND expires_at <= ? LIMIT 1"


def forget_old_detectors(connection: sqlite3.Connection, before: float) -> int:
    """Remove detectors that ended before a time, and snapshots taken before it.

    Args:
        connection: of a writing transaction.
        before: seconds since 1970.

    Returns:
        How many rows.
    """
    gone = connection.execute(
        "DELETE FROM detectors WHERE state = 'expired' AND expires_at < ?", (before,)
    ).rowcount
    return gone + connection.execute("DELETE FROM snapshots WHERE taken_at < ?", (before,)).rowcount


def _recognising(
    connection: sqlite3.Connection, signature: str, weaker: Sequence[str], now: float
) -> Detector | None:
    """The detector of a pattern, whatever became of it, or one of a weaker pattern that waits or applies."""
    known = _one(connection, "signature_hash = ?", signature)
    if known is not None and not _is_over(known, now):
        return known
    rows = connection.execute(
        f"{_SELECT} WHERE state IN ('candidate', 'active') AND signature_hash IN ({_marks(weaker)})"
        " ORDER BY id",
        weaker,
    ).fetchall()
    found = (one for row in rows if (one := detector_of(row)) is not None)
    return next((one for one in found if not _is_over(one, now)), None)


def _replace(connection: sqlite3.Connection, stronger: Sequence[str], by: int) -> list[int]:
    """End the candidates of stronger patterns; their numbers."""
    condition = f" WHERE state = 'candidate' AND signature_hash IN ({_marks(stronger)}) ORDER BY id"
    numbers = [int(row[0]) for row in connection.execute(_SELECT + condition, stronger)]
    connection.executemany(
        "UPDATE detectors SET version = version + 1, state = 'expired', reason = ?, verdict_json = NULL"
        " WHERE id = ?",
        [(f"detector {by} recognises what it would", one) for one in numbers],
    )
    return numbers


def _marks(values: Sequence[str]) -> str:
    return ", ".join("?" * len(values))


def _is_over(detector: Detector, now: float) -> bool:
    return detector.state is DetectorState.EXPIRED or now >= detector.expires_at


def _known(connection: sqlite3.Connection, number: int) -> Detector:
    found = _one(connection, "id = ?", number)
    if found is None:
        raise ImmuneError(
            "immune.detector_unknown", f"There is no detector {number}.", "See: pic detectors list"
        )
    return found


def _one(connection: sqlite3.Connection, condition: str, value: str | int) -> Detector | None:
    row = connection.execute(f"{_SELECT} WHERE {condition}", (value,)).fetchone()
    return None if row is None else detector_of(row)


def _not_eligible(why: str) -> ImmuneError:
    return ImmuneError(
        "immune.not_eligible",
        f"The detector isn't promoted or validated: {why}.",
        "It is tried once, on 100 ordinary calls; what came of it says:  pic detectors list",
    )


def detectors_in(store: StateStore, function: str | None = None) -> tuple[Detector, ...]:
    """See `DetectorRegistry.detectors`; for who has no key of patterns."""
    where, values = ("", ()) if function is None else (" WHERE function = ?", (function,))
    with store.reading() as connection:
        rows = connection.execute(f"{_SELECT}{where} ORDER BY id", values).fetchall()
    return tuple(one for row in rows if (one := detector_of(row)) is not None)
