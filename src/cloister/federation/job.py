"""What the parties agree to run: one frozen `FederationJob`, free of any engine.

Rules:
- every field is bounded, unknown fields are refused, and numbers are never read from text;
- `seed` is public: it chooses the initial weights and nothing else, never noise and never a batch;
- equal jobs have equal canonical bytes (RFC 8785), so that a signature or a hash covers the whole job.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cloister.core.canonical import canonicalize
from cloister.core.hashes import sha256_hex
from cloister.evidence.extract import LOG_STREAM_VERSION

_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

SiteName = Annotated[str, Field(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$")]
Positive = Annotated[float, Field(gt=0, strict=True)]
Probability = Annotated[float, Field(gt=0, le=1, strict=True)]
Scalar = (
    Annotated[bool, Field(strict=True)]
    | Annotated[int, Field(strict=True)]
    | Annotated[float, Field(strict=True)]
    | Annotated[str, Field(strict=True, max_length=200)]
)

Parameter = Scalar | Annotated[tuple[Scalar, ...], Field(max_length=50)]

RESERVED_SITE_NAMES = frozenset({"server", "admin", "hub"})


class AggregationStrategy(StrEnum):
    """How the hub combines the sites' weights."""

    FED_AVG = "FED_AVG"
    """McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017."""
    FED_PROX = "FED_PROX"
    """Li et al., "Federated Optimization in Heterogeneous Networks", 2020."""
    SCAFFOLD = "SCAFFOLD"
    """Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", 2020."""


class PrivacyConfig(BaseModel):
    """The protection each training step must have.

    `MOCK` trains without noise, to try a job out: only where every site's machine says `MOCK_DP=1` too, and
    what comes of it is marked in every artifact, released by nobody and refused by every verifier.

    `noise_multiplier` is the Gaussian's standard deviation over the clipping norm; None asks each site for
    the smallest noise with which the whole job stays within `target_epsilon` at `delta`.
    """

    model_config = _FROZEN

    mechanism: Literal["DP_SGD", "MOCK"] = "DP_SGD"
    noise_multiplier: Annotated[float, Field(ge=0, le=1000, strict=True)] | None = 1.0
    max_grad_norm: Annotated[Positive, Field(ge=1e-6, le=1e6)] = 1.0
    target_epsilon: Annotated[Positive, Field(le=1e6)] = 3.0
    delta: Annotated[float, Field(gt=0, lt=1, strict=True)] = 1e-5


class TrainingConfig(BaseModel):
    """One site's part of a round: Poisson-sampled steps of plain SGD.

    Exactly one of `sampling_probability` and `batch_size` is given. A batch size is the expected one: a site
    with n records (or subjects) samples each with probability batch_size / n.
    """

    model_config = _FROZEN

    sampling_probability: Probability | None = None
    batch_size: Annotated[int, Field(ge=1, le=1_000_000, strict=True)] | None = None
    local_steps: Annotated[int, Field(ge=1, le=100_000, strict=True)] = 1
    learning_rate: Annotated[Positive, Field(le=1000)] = 0.1

    @model_validator(mode="after")
    def _one_way_to_sample(self) -> Self:
        if (self.sampling_probability is None) == (self.batch_size is None):
            raise ValueError("give either sampling_probability or batch_size")
        return self

    def sampling_probability_for(self, units: int) -> float:
        """The probability with which each of a site's records or subjects enters a batch; above 1 where the
        batch is larger than the dataset."""
        if self.sampling_probability is not None:
            return self.sampling_probability
        assert self.batch_size is not None
        return self.batch_size / units


class ModelSpec(BaseModel):
    """A model by its registered name; the parameters are those its builder takes."""

    model_config = _FROZEN

    architecture: Annotated[str, Field(min_length=1, max_length=100)]
    parameters: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,49}$")], Parameter] = Field(
        default_factory=dict, max_length=50
    )


class FederationJob(BaseModel):
    """A whole federated job.

    `round_timeout_seconds` is how long the hub waits for a site in one round; a site that is late is out for
    the rest of the job. `min_clients` sites must be admitted, and must answer in every round.
    """

    model_config = _FROZEN

    job_id: str
    clients: Annotated[tuple[SiteName, ...], Field(min_length=1, max_length=1000)]
    min_clients: Annotated[int, Field(ge=1, strict=True)] = 2
    rounds: Annotated[int, Field(ge=1, le=10_000, strict=True)] = 50
    strategy: AggregationStrategy = AggregationStrategy.FED_AVG
    proximal_mu: Annotated[float, Field(ge=0, le=1000, strict=True)] = 0.01
    privacy: PrivacyConfig = PrivacyConfig()
    training: TrainingConfig
    model: ModelSpec
    dataset_id: Annotated[str, Field(min_length=1, max_length=200)]
    seed: Annotated[int, Field(ge=0, le=2**53 - 1, strict=True)] = 0
    round_timeout_seconds: Annotated[int, Field(ge=1, le=86_400, strict=True)] = 600
    user_context: dict[Annotated[str, Field(max_length=100)], Annotated[str, Field(max_length=1000)]] = Field(
        default_factory=dict, max_length=50
    )

    @field_validator("job_id")
    @classmethod
    def _a_uuid(cls, value: str) -> str:
        if str(UUID(value)) != value:
            raise ValueError("job_id must be a UUID in its lower-case hyphenated form")
        if UUID(value).version == LOG_STREAM_VERSION:
            raise ValueError("job_id must not be a UUID of version 5, which may stand for a log itself")
        return value

    @field_validator("clients")
    @classmethod
    def _distinct_sites(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(value)) != len(value):
            raise ValueError("clients must be unique")
        if reserved := RESERVED_SITE_NAMES.intersection(value):
            raise ValueError(f"a site cannot be named {sorted(reserved)[0]}")
        return value

    @model_validator(mode="after")
    def _quorum_is_reachable(self) -> Self:
        if self.min_clients > len(self.clients):
            raise ValueError("min_clients is larger than the number of clients")
        return self

    def canonical(self) -> bytes:
        """The job's canonical JSON bytes (RFC 8785)."""
        return canonicalize(self.model_dump(mode="json"))

    @property
    def sha256(self) -> str:
        """SHA-256 of `canonical()`, in lower-case hex."""
        return str(sha256_hex(self.canonical()))
