"""What holds a sealed worker, measure by measure: what was tried, what came of it, and what is asked for.

Rules kept here:

1. Each measure is tried by itself and has an outcome of its own. A measure that was not tried, or is missing
   from the list, does not hold.
2. A level is a named set of measures. A worker is at a level if every measure of it holds; which levels are
   acceptable is the policy's word, in its order, and no other level is ever used.
3. What the kernel shows of a worker from outside (`Observation`) comes before what the worker says of itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cloister.core.canonical import JSON, canonicalize
from cloister.core.hashes import Sha256, sha256_hex
from cloister.enclave.errors import SealedError

Outcome = Literal["held", "failed", "not_tried"]
_Said = Annotated[str, Field(max_length=200)]

NAMESPACE_MEASURES: Final = (
    "user-namespace",
    "mount-namespace",
    "network-namespace",
    "pid-namespace",
    "ipc-namespace",
    "uts-namespace",
    "empty-root",
)
COMMON_MEASURES: Final = (
    "ordinary-user",
    "no-new-privileges",
    "landlock",
    "no-capabilities",
    "no-core-file",
    "no-file-writing",
    "no-processes",
    "open-file-limit",
    "memory-limit",
    "processor-limit",
    "dies-with-server",
    "not-dumpable",
    "only-its-pipes",
    "one-thread",
    "fresh-randomness",
    "call-filter",
)
LISTENER: Final = "call-listener"
SWAP_OFF: Final = "swap-off"
MEASURES: Final = (*NAMESPACE_MEASURES, *COMMON_MEASURES, LISTENER, SWAP_OFF)


class SealLevel(StrEnum):
    """How much holds a worker; `UNREPORTED`: the kernel kills it, and nobody learns for which call."""

    NAMESPACES = "namespaces"
    NO_NAMESPACES = "no-namespaces"
    NAMESPACES_UNREPORTED = "namespaces-unreported"
    NO_NAMESPACES_UNREPORTED = "no-namespaces-unreported"

    @property
    def isolated(self) -> bool:
        """Whether the worker has namespaces and a root of its own."""
        return self in (SealLevel.NAMESPACES, SealLevel.NAMESPACES_UNREPORTED)

    @property
    def reported(self) -> bool:
        """Whether the kernel tells which forbidden call was made."""
        return self in (SealLevel.NAMESPACES, SealLevel.NO_NAMESPACES)

    @property
    def measures(self) -> tuple[str, ...]:
        """What has to hold."""
        isolation = NAMESPACE_MEASURES if self.isolated else ()
        return (*isolation, *COMMON_MEASURES, *((LISTENER,) if self.reported else ()))


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure: its name, what came of it, and the kernel's word on it (an errno's name, a version)."""

    name: str
    outcome: Outcome
    detail: str = ""


@dataclass(frozen=True, slots=True)
class SealClaims:
    """What holds one worker, for the attestation's claims and the receipt.

    Attributes:
        level: the level at which it was started.
        measures: every measure that there is, in the order of `MEASURES`.
        kernel: the kernel's release.
    """

    level: SealLevel
    measures: tuple[Measure, ...]
    kernel: str

    @property
    def missing(self) -> tuple[Measure, ...]:
        """Measures of the level that do not hold; empty for a worker that may be used."""
        return self.lacking(self.level.measures)

    def lacking(self, names: tuple[str, ...]) -> tuple[Measure, ...]:
        """Those of the named measures that do not hold."""
        known = {one.name: one for one in self.measures}
        asked = (known.get(name, Measure(name, "not_tried")) for name in names)
        return tuple(one for one in asked if one.outcome != "held")

    @property
    def sha256(self) -> Sha256:
        """SHA-256 of the claims' RFC 8785 form, for evidence to bind."""
        return sha256_hex(canonicalize(self.as_json()))

    @classmethod
    def from_json(cls, value: JSON) -> SealClaims:
        """Read what ``as_json`` gave.

        Raises:
            SealedError: ``sealed.protocol`` for anything else; nothing of it is shown.
        """
        try:
            said = _Claims.model_validate(value)
        except ValidationError:
            raise _no_claims() from None
        if tuple(one.name for one in said.measures) != MEASURES:
            raise _no_claims()
        measures = tuple(Measure(one.name, one.outcome, one.detail) for one in said.measures)
        return cls(said.level, measures, said.kernel)

    def as_json(self) -> dict[str, JSON]:
        """The claims as plain JSON values."""
        return {
            "level": self.level.value,
            "kernel": self.kernel,
            "measures": [
                {"name": one.name, "outcome": one.outcome, "detail": one.detail} for one in self.measures
            ],
        }


class _Measure(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    outcome: Outcome
    detail: _Said


class _Claims(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    level: SealLevel
    kernel: _Said
    measures: Annotated[tuple[_Measure, ...], Field(max_length=len(MEASURES))]


def _no_claims() -> SealedError:
    return SealedError("sealed.protocol", "What is said to hold a sealed worker is not of its exact form.")


@dataclass(frozen=True, slots=True)
class SealPolicy:
    """Which levels are acceptable, the preferred one first, and what has to hold beside.

    Attributes:
        accepts: levels in the order in which they are tried; one that is not listed is never used.
        also: further measures, as `SWAP_OFF`.

    Raises:
        SealedError: ``sealed.measure_missing`` for no level, or a measure that does not exist.
    """

    accepts: tuple[SealLevel, ...] = (SealLevel.NAMESPACES,)
    also: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.accepts or not set(self.also) <= set(MEASURES):
            raise SealedError(
                "sealed.measure_missing",
                "The policy accepts no level of sealing, or names a measure that there is not.",
                f"Levels: {', '.join(SealLevel)}.",
            )

    def require(self, claims: SealClaims) -> None:
        """Refuse a worker that was sealed otherwise than this.

        Raises:
            SealedError: ``sealed.measure_missing``, with every measure that does not hold.
        """
        lacking = claims.lacking((*claims.level.measures, *self.also))
        if claims.level not in self.accepts or lacking:
            raise SealedError(
                "sealed.measure_missing",
                f"The worker is sealed at level {claims.level.value}, {len(lacking)} measures do not hold; "
                f"accepted is {', '.join(self.accepts)}.",
                "Ask for one that is sealed as you need it, or accept its level by name.",
                details=[f"{one.name}: {one.outcome}" for one in lacking],
            )


@dataclass(frozen=True, slots=True)
class SealViolation:
    """A forbidden call, as the kernel reported it to the server; the worker had no part in the report.

    Attributes:
        worker: the worker's number at its host.
        call: the call, in the words of `cloister.enclave.sealed.calls`.
        word: one more on it, from the same list; often none.
        at: when, in RFC 3339.
        reaped_after_ms: milliseconds from the kernel's notice to the reaped worker.
    """

    worker: int
    call: str
    word: str
    at: str
    reaped_after_ms: float

    @property
    def sentence(self) -> str:
        """One line for a statement; nothing in it is the worker's own word."""
        return f"a sealed worker called {self.call}({self.word}) and was killed"


@dataclass(frozen=True, slots=True)
class Observation:
    """What ``/proc/PID/status`` shows of a worker from outside."""

    seccomp: int
    no_new_privs: bool
    capabilities: int
    uids: frozenset[int]
    threads: int

    def against(self, measures: dict[str, Measure], server_uid: int) -> None:
        """Overrule what the worker says of itself where the kernel shows otherwise."""
        shown = {
            "call-filter": self.seccomp == 2,
            "no-new-privileges": self.no_new_privs,
            "no-capabilities": self.capabilities == 0,
            "ordinary-user": 0 not in self.uids and (server_uid != 0 or server_uid not in self.uids),
            "one-thread": self.threads == 1,
        }
        for name, holds in shown.items():
            if not holds:
                measures[name] = Measure(name, "failed", "seen from outside")
