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
7. A candidate is tried once, and once more for each time that an operator asked for it after it failed
   (`retries`). Until then what its last trial found stands, so that it can't be promoted meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from math import inf
from typing import Final

from cloister.immune.errors import ImmuneError
from cloister.immune.keeping.detector import Detector, DetectorState
from cloister.immune.keeping.detector_rows import (
    detector_by_hash,
    detector_by_number,
    detectors_in,
    expire_before,
    is_any_due,
    recognising,
    replace_stronger,
)
from cloister.immune.keeping.events import Happened, StateEvent
from cloister.immune.keeping.locks import ForkSafe
from cloister.immune.keeping.pattern import hash_pattern, patterns_of_feature, patterns_within
from cloister.immune.keeping.retries import require_failed
from cloister.immune.keeping.snapshots import take_snapshot
from cloister.immune.keeping.store import StateStore
from cloister.immune.keeping.validation import EVENTS, Redact, Scorer, Verdict, is_candidate, validate
from cloister.immune.observation import Observed, Score

POLICY: Final = "policy"
"""Who promoted, where nobody did by hand."""

_LONGEST: Final = 500


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
            enough = recognising(connection, signature, weaker, now)
        if enough is not None:
            return enough, None
        with self._store.writing() as connection:
            enough = recognising(connection, signature, weaker, now)
            if enough is not None:
                return enough, None
            known = detector_by_hash(connection, signature)
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
                    " reason = 'found anew', verdict_json = NULL, retry_at = NULL WHERE id = ?",
                    (*values, known.id),
                )
            made = detector_by_hash(connection, signature)
            if made is None:
                raise ImmuneError("immune.state_damaged", "A detector can't be read after it was stored.")
            replaced = replace_stronger(connection, stronger, made.id)
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
            return detector_by_number(connection, number)

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
        now = self._store.clock()
        return tuple(one for one in self._of_use(function) if one.is_active(now))

    def to_try(self, function: str) -> tuple[tuple[int, float], ...]:
        """The candidates of a function that wait for a trial, whichever process found them.

        From memory where nothing was written.

        Returns:
            The number of each, and how many seconds ago an operator asked for another trial; infinitely many
            of one that was never tried.

        Raises:
            ImmuneError: the store can't be used now.
        """
        now = self._store.clock()
        return tuple(
            (one.id, inf if one.retry_at is None else max(now - one.retry_at, 0.0))
            for one in self._of_use(function)
            if one.waits and not one.is_over(now)
        )

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
        """Try a candidate that waits for it on its function's newest ordinary calls, and keep the verdict.

        Args:
            number: the detector's.
            ordinary: of the trace store, newest first.
            scorer: the detector's own, on a copy that doesn't learn.

        Returns:
            The verdict, and what to write down.

        Raises:
            ImmuneError: ``immune.detector_unknown``; ``immune.not_eligible`` where it isn't a candidate, or
                was tried and nobody asked for another trial: of two processes the first one's counts.
        """
        found = self.detector(number)
        verdict = validate(ordinary, scorer, found.threshold, self._store.clock(), self._redact)
        with self._store.writing() as connection:
            now_found = detector_by_number(connection, number)
            if not now_found.waits or now_found != found:
                raise _not_eligible("it isn't a candidate that waits for a trial")
            connection.execute(
                "UPDATE detectors SET version = version + 1, reason = ?, verdict_json = ?, retry_at = NULL"
                " WHERE id = ?",
                (verdict.reason, verdict.to_json(), number),
            )
        said = f"{verdict.reason}: {'may be promoted' if verdict.passed else 'not eligible'}"
        return verdict, self._event(Happened.DETECTOR_VALIDATED, now_found, said)

    def retry(self, number: int, by: str) -> StateEvent:
        """Ask for another trial of a candidate that failed, on 100 ordinary calls from now on.

        The trial is made by the first process that watches the function and saw so many, not by who asks: the
        state beside it holds some of its calls and what was learned up to a minute ago, which is neither what
        calls are scored by nor all that it was ordinary to do. And calls that come from now on are none of
        those that it failed on: who asks often enough on the same ones would have chance pass it.

        Its time goes on, and it stays what it is meanwhile: a candidate that failed.

        Args:
            number: the detector's.
            by: who decides.

        Returns:
            What to write down.

        Raises:
            ImmuneError: ``immune.detector_unknown``; ``immune.not_failed`` where it isn't a candidate whose
                trial failed, or another one was asked for already.
        """
        now = self._store.clock()
        with self._store.deciding() as connection:
            found = detector_by_number(connection, number)
            verdict = require_failed(found, now)
            connection.execute(
                "UPDATE detectors SET version = version + 1, reason = ?, retry_at = ? WHERE id = ?",
                (f"another trial was asked for by {self._clean(by)}", now, number),
            )
        said = f"{verdict.reason}: it is tried again on {EVENTS} from now on"
        return self._event(Happened.RETRY_ASKED, found, said, by)

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
            found = detector_by_number(connection, number)
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
            found = detector_by_number(connection, number)
            connection.execute(
                "UPDATE detectors SET version = version + 1, state = 'rejected', is_active = 0,"
                " reason = ?, verdict_json = NULL, retry_at = NULL WHERE id = ?",
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
            if not is_any_due(connection, now):
                return ()
        with self._store.writing() as connection:
            ended = expire_before(connection, now)
        return tuple(
            self._event(Happened.DETECTOR_EXPIRED, one, f"its time is up; it was {one.state}")
            for one in ended
        )

    def _of_use(self, function: str) -> tuple[Detector, ...]:
        """A function's detectors that are promoted or to be tried; read where anybody wrote since."""
        generation = self._store.generation()
        with self._lock:
            if self._copy is None or self._copy[0] != generation:
                found: dict[str, tuple[Detector, ...]] = {}
                for one in self.detectors():
                    if one.state is DetectorState.ACTIVE or one.waits:
                        found[one.function_name] = (*found.get(one.function_name, ()), one)
                self._copy = generation, found
            return self._copy[1].get(function, ())

    def _hashes(self, patterns: Sequence[bytes]) -> list[str]:
        return [hash_pattern(self._key, one) for one in patterns]

    def _clean(self, text: str) -> str:
        return self._redact(" ".join(text.split()))[:_LONGEST]

    def _event(self, kind: Happened, detector: Detector, reason: str, by: str = "") -> StateEvent:
        return StateEvent(
            kind, detector.function_name, self._store.clock(), reason, detector.id, self._clean(by)
        )


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


def _not_eligible(why: str) -> ImmuneError:
    return ImmuneError(
        "immune.not_eligible",
        f"The detector isn't promoted or validated: {why}.",
        "What came of its trial says:  pic detectors list; after a failed one:  pic detectors retry N",
    )
