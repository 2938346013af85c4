"""A detector as a value: how far it is, how it is written, and what is no detector."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from enum import StrEnum

from cloister.immune.errors import ImmuneError
from cloister.immune.keeping.snapshots import COLUMNS
from cloister.immune.keeping.validation import Verdict


class DetectorState(StrEnum):
    """How far a detector is."""

    CANDIDATE = "candidate"
    ACTIVE = "active"
    REJECTED = "rejected"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Detector:
    """One detector, as it is stored.

    Attributes:
        id: its number; never used twice.
        function_name: ``module:qualname``.
        threshold: score above which a call of its pattern is flagged.
        signature_hash: keyed hash of its pattern.
        provenance: where it comes from: the audit log's id of the call that made it.
        created_at: seconds since 1970.
        expires_at: seconds since 1970.
        version: 1, and one more with every change.
        state: how far it is.
        reason: why it is so, in words of this package or of who decided, redacted.
        verdict: of its last validation; None before it, and after a change that makes it void.
        retry_at: when another trial was asked for, seconds since 1970; None where nobody did.
    """

    id: int
    function_name: str
    threshold: float
    signature_hash: str
    provenance: str
    created_at: float
    expires_at: float
    version: int
    state: DetectorState
    reason: str
    verdict: Verdict | None
    retry_at: float | None = None

    @property
    def waits(self) -> bool:
        """Whether it is a candidate that is still to be tried, or to be tried again."""
        tried = self.verdict is not None and self.retry_at is None
        return self.state is DetectorState.CANDIDATE and not tried

    def to_json(self) -> str:
        """It as one line of JSON, with the columns' names: what a command prints."""
        verdict = None if self.verdict is None else self.verdict.to_json()
        values = (
            self.id,
            self.function_name,
            self.threshold,
            self.signature_hash,
            self.provenance,
            self.created_at,
            self.expires_at,
            int(self.state is DetectorState.ACTIVE),
            self.version,
            self.state.value,
            self.reason,
            verdict,
            self.retry_at,
        )
        return json.dumps(dict(zip(COLUMNS, values, strict=True)), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Detector:
        """Read what `to_json` writes.

        Raises:
            ImmuneError: ``immune.state_damaged``.
        """
        try:
            members = json.loads(text)
            found = detector_of(tuple(members[name] for name in COLUMNS))
        except (ValueError, TypeError, KeyError):
            found = None
        if found is None:
            raise ImmuneError("immune.state_damaged", "This isn't a detector.")
        return found

    def is_active(self, now: float) -> bool:
        """Whether it is promoted and its time isn't up."""
        return self.state is DetectorState.ACTIVE and now < self.expires_at

    def is_over(self, now: float) -> bool:
        """Whether its time is up, whether or not anybody has swept it up yet."""
        return self.state is DetectorState.EXPIRED or now >= self.expires_at


def detector_of(row: tuple[object, ...]) -> Detector | None:
    """A detector of a row, in the order of `COLUMNS`; None for a row that isn't one."""
    (
        number,
        function,
        threshold,
        signature,
        provenance,
        created,
        expires,
        _,
        version,
        state,
        reason,
        verdict,
        retry_at,
    ) = row
    try:
        numbers = [float(one) for one in (threshold, created, expires) if isinstance(one, int | float)]
        if len(numbers) != 3 or not all(map(math.isfinite, numbers)) or not 0 <= numbers[0] <= 100:
            return None
        if retry_at is not None and not (isinstance(retry_at, int | float) and math.isfinite(retry_at)):
            return None
        return Detector(
            int(str(number)),
            str(function),
            numbers[0],
            str(signature),
            str(provenance),
            numbers[1],
            numbers[2],
            int(str(version)),
            DetectorState(str(state)),
            str(reason),
            None if verdict is None else Verdict.from_json(str(verdict)),
            None if retry_at is None else float(retry_at),
        )
    except (ValueError, ImmuneError):
        return None
