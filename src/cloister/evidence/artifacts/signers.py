"""Whose segments they are: the keys that may sign them, and the check that one was a party's at that time.

Rules kept here:

1. A segment names its key, and a key is one party's: pinned, pinned as a former key, or certified. A pinned
   party's certificates count for nothing.
2. A certified key has to have been certified when the segment was opened and when it was last signed, and for
   the time that is demanded besides. Both are the signer's word, which what is held outside bounds.
3. Who demands a party's segments gets no others'.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cloister.core.clock import parse_time
from cloister.core.errors import CloisterError
from cloister.core.keys import PublicKey
from cloister.evidence.artifacts.verdict import Demands
from cloister.evidence.checks import Check, failed, not_run, passed
from cloister.evidence.errors import DemandError, TrustError
from cloister.evidence.pki.chains import read_chain
from cloister.evidence.predicates.base import Role
from cloister.evidence.segments.verdict import SegmentVerdict
from cloister.evidence.trust import Trust

WRITERS: Final = (Role.HUB, Role.SITE, Role.ENCLAVE)
"""Who runs processes that write segments."""


@dataclass(frozen=True, slots=True)
class Signer:
    """A key, and whose it is.

    Attributes:
        role: whom it speaks for.
        party: the party's name.
        key: the key.
        how: how that is known.
    """

    role: Role
    party: str
    key: PublicKey
    how: str

    def __str__(self) -> str:
        return f"{self.role.value} {self.party}"


class Signers:
    """The keys that may sign segments.

    Args:
        trust: the pinned keys.
        demands: the chains that came with the segments, and whose they have to be.

    Raises:
        DemandError: ``evidence.demand_foreign`` if a party is demanded that writes no segments.
        TrustError: a chain can't be read, or stands for a key that is another's.
    """

    def __init__(self, trust: Trust, demands: Demands) -> None:
        if demands.party is not None and demands.party[0] not in WRITERS:
            raise DemandError(
                "evidence.demand_foreign",
                f"A {demands.party[0].value} writes no segments.",
                f"Name one of: {', '.join(role.value for role in WRITERS)}.",
            )
        self._trust = trust.with_credentials(demands.certificates)
        self._demands = demands
        self._by_id: dict[str, Signer] = {}
        for role in WRITERS:
            for party in trust.parties(role):
                self._add(Signer(role, party, trust.key(role, party), "its pinned key"))
            for party, former in trust.former(role).items():
                for key in former:
                    self._add(Signer(role, party, key, "a key that it used before"))
        for chain in map(read_chain, demands.certificates):
            if chain.role in WRITERS and chain.party not in trust.parties(chain.role):
                self._add(Signer(chain.role, chain.party, chain.key, _CERTIFIED))

    @property
    def keys(self) -> tuple[PublicKey, ...]:
        """All of them; which one signed, and when, is for `check`."""
        return tuple(one.key for one in self._by_id.values())

    def names(self, segments: Mapping[str, SegmentVerdict]) -> tuple[str, ...]:
        """Whose segments these are, as far as it is known, sorted."""
        named = (self._by_id.get(one.header.key) for one in segments.values() if one.header is not None)
        return tuple(sorted({str(one) for one in named if one is not None}))

    def check(self, segment: SegmentVerdict) -> Check:
        """The check ``segment-signer``."""
        if segment.header is None or segment.opened is None:
            return not_run("segment-signer", "there is no header")
        signer = self._by_id.get(segment.header.key)
        if signer is None:
            return failed("segment-signer", f"it names a key that is nobody's here: {segment.header.key}")
        if self._demands.party not in (None, (signer.role, signer.party)):
            return failed("segment-signer", f"it is of {signer}, and another party's is demanded")
        if signer.how == _CERTIFIED:
            if segment.last is None:
                return not_run("segment-signer", "no mark signs the segment")
            try:
                self._certified(signer, segment.opened, segment.last.at)
            except CloisterError as error:
                return failed("segment-signer", error.message)
        return passed("segment-signer", f"{signer}, by {signer.how}")

    def _add(self, signer: Signer) -> None:
        self._by_id.setdefault(signer.key.key_id, signer)

    def _certified(self, signer: Signer, *said: str) -> None:
        moments = [parse_time(at) for at in said]
        if self._demands.at is not None:
            moments.append(self._demands.at)
        for at in moments:
            found = self._trust.key(signer.role, signer.party, key_id=signer.key.key_id, at=at)
            if found.key_id != signer.key.key_id:
                raise TrustError("evidence.trust_conflict", f"Another key stands for {signer}.")


_CERTIFIED: Final = "a certified key"
