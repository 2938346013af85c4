"""What a verifying party demands of an artifact, and what it is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from cloister.evidence.artifacts.kinds import ArtifactKind
from cloister.evidence.checks import Check, Checked
from cloister.evidence.errors import DemandError
from cloister.evidence.verification.acceptance import TestRandomness, TimestampRule, VerificationPolicy

if TYPE_CHECKING:
    from cloister.evidence.context import ModelArtifact
    from cloister.evidence.predicates.base import Role
    from cloister.evidence.segments.secrets import SecretsOpener


class Simulation(Enum):
    """Whether attestation by a simulated platform will do; its verdict says so in either case."""

    ACCEPT = "accept"
    REFUSE = "refuse"


class OwnersWord(Enum):
    """Whether the word of a log's owner will do for what lies outside a period; its verdict says so."""

    ACCEPT = "accept"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Demands:
    """What has to hold beyond the artifact's own checks. None stands for what is not demanded.

    Attributes:
        model: the model file at hand, for a receipt.
        measurement: SHA-384 in hex of the only code that will do, for a receipt.
        simulation: whether a receipt may rest on a simulated platform.
        test_randomness: whether a receipt may rest on seeded noise.
        timestamp: whether a receipt needs a time-stamping authority's word.
        witnesses: how many of the pinned witnesses must have cosigned each head of a log.
        held: checkpoints that the verifying party kept, each a file's bytes, which the artifact may not
            contradict: notes of a log, or lines of a segment's sink.
        previous: the exports that the same party made before this one, oldest first.
        owners_word: whether the period of an export may be bounded by nothing but its logs' owners' word.
        now: the verifying party's time, than which no export may be later.
        certificates: chains in PEM that came with a log's head or with segments, for a signer whose key isn't
            pinned.
        at: for which time such a chain has to hold; for a segment besides the times that it says itself.
        party: whose segments they have to be.
        collateral: hardware vendors' documents of today, for a receipt; the check that reads them is plugged
            in by a room above.
        segment_secrets: who opens the secrets of segments, so that their tags are computed again.
    """

    model: ModelArtifact | None = None
    measurement: str | None = None
    simulation: Simulation | None = None
    test_randomness: TestRandomness | None = None
    timestamp: TimestampRule | None = None
    witnesses: int | None = None
    held: tuple[bytes, ...] = ()
    previous: tuple[bytes, ...] = ()
    segment_secrets: SecretsOpener | None = None
    certificates: tuple[bytes, ...] = ()
    at: datetime | None = None
    party: tuple[Role, str] | None = None
    owners_word: OwnersWord | None = None
    now: datetime | None = None
    collateral: tuple[bytes, ...] = ()

    @property
    def policy(self) -> VerificationPolicy:
        """The part that the receipt verifier decides by."""
        return VerificationPolicy(
            test_randomness=self.test_randomness or TestRandomness.REFUSE,
            witnesses=self.witnesses or 0,
            timestamp=self.timestamp or TimestampRule.OPTIONAL,
        )

    def refuse_foreign(self, kind: ArtifactKind) -> None:
        """Refuse what can't be demanded of this kind of artifact.

        Raises:
            DemandError: ``evidence.demand_foreign``, naming each such demand.
        """
        given = [name for name in self.__slots__ if getattr(self, name) not in (None, ())]
        foreign = [_NAMES[name] for name in given if kind not in _APPLIES[name]]
        if foreign:
            raise DemandError(
                "evidence.demand_foreign",
                f"A {kind.value} can't be held to: {', '.join(foreign)}.",
                "Leave that out, or name the artifact that it is meant for.",
            )


_OF_ONE_SIGNER: Final = frozenset({ArtifactKind.CHECKPOINT, ArtifactKind.LOG, ArtifactKind.SEGMENT})

_APPLIES: Final[Mapping[str, frozenset[ArtifactKind]]] = MappingProxyType(
    {
        "model": frozenset({ArtifactKind.RECEIPT}),
        "measurement": frozenset({ArtifactKind.RECEIPT}),
        "collateral": frozenset({ArtifactKind.RECEIPT}),
        "simulation": frozenset({ArtifactKind.RECEIPT}),
        "test_randomness": frozenset({ArtifactKind.RECEIPT}),
        "timestamp": frozenset({ArtifactKind.RECEIPT}),
        "witnesses": frozenset(ArtifactKind) - {ArtifactKind.SEGMENT},
        "held": frozenset(ArtifactKind),
        "certificates": _OF_ONE_SIGNER,
        "at": _OF_ONE_SIGNER,
        "party": frozenset({ArtifactKind.SEGMENT}),
        "segment_secrets": frozenset({ArtifactKind.SEGMENT}),
        "previous": frozenset({ArtifactKind.EXPORT}),
        "owners_word": frozenset({ArtifactKind.EXPORT}),
        "now": frozenset({ArtifactKind.EXPORT}),
    }
)

_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "model": "a model file",
        "measurement": "a measurement of code",
        "collateral": "vendors' documents of today",
        "simulation": "simulated or real platforms",
        "test_randomness": "the source of noise",
        "timestamp": "a timestamp",
        "witnesses": "a number of witnesses",
        "held": "checkpoints held from before",
        "previous": "earlier exports",
        "owners_word": "its owner's word",
        "now": "the time it is now",
        "certificates": "certificates beside it",
        "at": "a time",
        "party": "a party whose it has to be",
        "segment_secrets": "a key to secrets of segments",
    }
)


@dataclass(frozen=True, slots=True)
class ArtifactVerdict(Checked):
    """What was found.

    Attributes:
        kind: what the artifact is, None if it is nothing known.
        checks: every check, in order.
        facts: what the artifact speaks of, by name; only what its checks cover once it is accepted.
        measurements: SHA-384 of the code each platform attested, for an accepted receipt.
        simulated: whether any attestation was of a simulated platform.
        test_randomness: whether any noise came from a seeded test generator.
        owners_word: whether the period of an export is bounded by a log's owner's word alone, as accepted.
    """

    kind: ArtifactKind | None
    checks: tuple[Check, ...]
    facts: Mapping[str, str] = field(default_factory=dict)
    measurements: tuple[str, ...] = ()
    simulated: bool = False
    test_randomness: bool = False
    owners_word: bool = False
