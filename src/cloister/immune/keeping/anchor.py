"""Anchors: how a function behaved when somebody said that this is normal, signed.

No learner that adapts sees a change that is slow enough (a "boiling frog"): it takes each step for the new
normal. So the present level is compared with one that doesn't adapt. Rules kept here:

1. An anchor is a band for each feature: the lowest and highest level over the time it was taken, which is at
   least one full period of the load where that is known. Daily ups and downs then lie inside of it.
2. It is canonical JSON (RFC 8785), signed. What doesn't verify under the key that is trusted, or is of
   another function, isn't an anchor: that function is only observed.
3. An anchor names the decision (`Mark`) it was taken for, and a decision the anchor it was taken after, so
   neither can be used a second time, elsewhere or in another order.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, cast

from cloister.core.canonical import JSON, canonicalize
from cloister.immune.keeping.drift import Band
from cloister.immune.keeping.signed import count, open_signed, seconds, text

if TYPE_CHECKING:
    from cloister.core.keys import PublicKey

_ANCHOR: Final = "cloister.immune.anchor.v1"
_MARK: Final = "cloister.immune.mark.v1"

APPROVE: Final = "approve"
DEPLOY: Final = "deploy"


@dataclass(frozen=True, slots=True)
class Anchor:
    """What is normal for one function, because somebody approved it.

    Attributes:
        function: ``module:qualname``.
        sequence: 1 for its first, and one more each time.
        bands: for each feature, the approved levels.
        calls: observed calls that it was taken from.
        span: seconds over which they were observed.
        taken_at: seconds since 1970.
        mark: SHA-256 of the decision that it fulfils.
        approved_by: who decided.
    """

    function: str
    sequence: int
    bands: MappingProxyType[str, Band]
    calls: int
    span: float
    taken_at: float
    mark: str
    approved_by: str

    def document(self) -> bytes:
        """It as canonical JSON: what is signed."""
        bands: dict[str, JSON] = {name: [band.low, band.high] for name, band in self.bands.items()}
        return canonicalize(
            {
                "approved_by": self.approved_by,
                "bands": bands,
                "calls": self.calls,
                "function": self.function,
                "mark": self.mark,
                "sequence": self.sequence,
                "span": self.span,
                "taken_at": self.taken_at,
                "type": _ANCHOR,
            }
        )


@dataclass(frozen=True, slots=True)
class Mark:
    """A person's decision on what is normal for one function.

    Attributes:
        function: ``module:qualname``.
        kind: `APPROVE`, what it does from now on is normal; `DEPLOY`, it was changed, so nothing is for now.
        anchor: SHA-256 of the anchor in force; empty where there is none.
        by: who decided.
        at: seconds since 1970.
        calls: observed calls from which the new anchor is to be taken.
        span: least seconds over which it is to be taken: one period of the load, where that is known.
    """

    function: str
    kind: str
    anchor: str
    by: str
    at: float
    calls: int = 0
    span: float = 0.0

    def document(self) -> bytes:
        """It as canonical JSON: what is signed."""
        return canonicalize(
            {
                "anchor": self.anchor,
                "at": self.at,
                "by": self.by,
                "calls": self.calls,
                "function": self.function,
                "kind": self.kind,
                "span": self.span,
                "type": _MARK,
            }
        )


def sha256_of(document: bytes) -> str:
    """What an anchor or mark is named by in another one."""
    return hashlib.sha256(document).hexdigest()


def open_anchor(document: bytes, signature: bytes, function: str, trusted: PublicKey) -> Anchor:
    """Read a signed anchor of a function; see `open_signed`."""

    def read(members: dict[str, JSON]) -> Anchor:
        bands = {name: _band(pair) for name, pair in cast("dict[str, list[float]]", members["bands"]).items()}
        return Anchor(
            function,
            count(members["sequence"]),
            MappingProxyType(bands),
            count(members["calls"]),
            seconds(members["span"]),
            seconds(members["taken_at"]),
            text(members["mark"]),
            text(members["approved_by"]),
        )

    return open_signed(document, signature, trusted, read)


def open_mark(document: bytes, signature: bytes, function: str, trusted: PublicKey) -> Mark:
    """Read a signed decision about a function; see `open_signed`."""

    def read(members: dict[str, JSON]) -> Mark:
        if members["kind"] not in (APPROVE, DEPLOY):
            raise ValueError
        return Mark(
            function,
            text(members["kind"]),
            text(members["anchor"]),
            text(members["by"]),
            seconds(members["at"]),
            count(members["calls"]),
            seconds(members["span"]),
        )

    return open_signed(document, signature, trusted, read)


def _band(pair: list[float]) -> Band:
    low, high = (seconds(one) for one in pair)
    if not 0 <= low <= high:
        raise ValueError
    return Band(low, high)
