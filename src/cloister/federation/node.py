"""The two ports between the federated engine and the parties: a site's node and the hub's node.

The engine's components hold no data, keys, budget or log. They ask the node of the party on whose machine
they run: a `SiteNode` trains, decides what may leave and answers challenges; a `HubNode` decides who takes
part, knows how much each site weighs and keeps the global weights.

Rules:
- a node raises `CloisterError` when it refuses; only the error's code ever leaves a site, never its message;
- nothing leaves a site but what `SiteNode.release` returned and the evidence of `SiteNode.quote`;
- a node is used by one job only. Its methods are called one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cloister.core.errors import CloisterError
from cloister.enclave.tensors import FloatArray
from cloister.federation.compile import JobFolder

Weights = Mapping[str, FloatArray]
"""Named tensors of a model, in the order of their names."""

Abort = Callable[[], bool]
"""Asked between batches; True means stop now."""


@dataclass(frozen=True)
class Challenge:
    """What a site's evidence must bind: a nonce of 32 bytes that is used once, the job and the policy."""

    nonce: bytes
    job_id: str
    policy_id: str


@dataclass(frozen=True)
class RoundTask:
    """One round's work at a site.

    Args:
        round: counted from 0.
        total_rounds: rounds of the job.
        weights: the site's own copies.
        hub_log: what the hub shows of its log, see `log_messages.HubLog`; the engine doesn't look at it.
    """

    round: int
    total_rounds: int
    weights: Weights
    hub_log: bytes = b""


@dataclass(frozen=True)
class ReleasedUpdate:
    """What the airlock let pass: fresh tensors, listed finite scalars, and the hash that the statement
    names. `site_log` is what the site shows of its log, in which that statement stands."""

    tensors: Weights
    sha256: str
    scalars: Mapping[str, float] = field(default_factory=dict)
    site_log: bytes = b""


@dataclass(frozen=True)
class Admission:
    """The hub's decision on one site. `reason` is a stable word when it is refused, else empty."""

    site: str
    admitted: bool
    reason: str = ""


@dataclass(frozen=True)
class SiteFailure:
    """A site is out for the rest of the job from `round` on (counted from 0)."""

    site: str
    round: int
    code: str


@dataclass(frozen=True)
class AggregatedRound:
    """One round as the hub saw it.

    Args:
        round: counted from 0.
        updates: what each site released, by site name.
        weights: each site's share before normalisation (its number of records), by site name.
        before: global weights that were sent out.
        after: global weights that resulted.
    """

    round: int
    updates: Mapping[str, ReleasedUpdate]
    weights: Mapping[str, float]
    before: Weights
    after: Weights


class SiteNode(Protocol):
    """A site's own side of a job."""

    @property
    def site(self) -> str:
        """The site's name, as in the job."""
        ...

    @property
    def job_sha256(self) -> str:
        """SHA-256 of the job that this site agreed to."""
        ...

    def accept_folder(self, folder: JobFolder) -> None:
        """Takes a look at the job folder that arrived; a back end asks before it builds anything from it.

        Raises:
            CloisterError: it is not the folder of the job that this site agreed to.
        """
        ...

    def quote(self, challenge: Challenge) -> bytes:
        """Signed evidence of the code that will run here, bound to the challenge."""
        ...

    def hub_log_seen(self) -> int:
        """How many entries of the hub's log this site has seen, so that the hub can prove what came since."""
        ...

    def train_round(self, task: RoundTask, abort: Abort) -> Mapping[str, object]:
        """Trains one round and returns the raw result, which has not passed the airlock yet.

        Raises:
            CloisterError: the site refuses the round (for one, because its budget does not cover it).
        """
        ...

    def release(self, round_number: int, update: Mapping[str, object]) -> ReleasedUpdate:
        """Rebuilds what may leave from a raw result.

        Raises:
            CloisterError: something in it must not leave; then nothing does.
        """
        ...

    def epsilon_spent(self) -> float | None:
        """Epsilon that this job has spent here so far; None where there is no accounting."""
        ...


class HubNode(Protocol):
    """The hub's side of a job."""

    def initial_weights(self) -> Weights:
        """Global weights to start from."""
        ...

    def challenge(self, site: str) -> Challenge:
        """A fresh challenge for a site."""
        ...

    def admit(self, site: str, challenge: Challenge, evidence: bytes | None) -> Admission:
        """Decides on a site's evidence (None: the site sent none). Never raises for bad evidence."""
        ...

    def site_has_seen(self, site: str, size: int) -> None:
        """An admitted site says how many entries of the hub's log it has seen."""
        ...

    def site_weight(self, site: str) -> float:
        """The site's public share in the average: its number of records."""
        ...

    def round_started(self, round_number: int, sites: tuple[str, ...]) -> bytes:
        """A round is about to be sent to these sites; what the hub shows of its log goes with it."""
        ...

    def site_answered(self, site: str, site_log: bytes) -> None:
        """A site's update came with what the site shows of its log.

        Raises:
            FederationError: the log isn't in order, and the update must not be used.
        """
        ...

    def site_failed(self, failure: SiteFailure) -> None:
        """A site is out for the rest of the job."""
        ...

    def failed(self, error: CloisterError) -> None:
        """The job cannot go on."""
        ...

    def aggregated(self, result: AggregatedRound) -> Mapping[str, float]:
        """Takes the new global weights; returns the round's metrics on public data (may be empty)."""
        ...
