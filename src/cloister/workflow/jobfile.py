"""The file a person writes to describe one job, parsed once into frozen values.

Rules kept here:

- A path in the file is relative to the file's own folder and never leaves it upwards without
  being written out (``../heart/job.yaml`` is a choice somebody made in plain sight).
- What is simulated has to be named: ``attestation: simulated`` is a word in the file, not a default. A job
  with ``attestation: hardware`` is started by the launcher only, on a machine that has proved itself.
- Noise has no seed. ``federation.seed`` initialises the model and is public.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, Field, field_validator

from cloister.core.documents import load_yaml
from cloister.core.errors import InputError
from cloister.core.parsing import parse_model
from cloister.evidence.extract import LOG_STREAM_VERSION
from cloister.federation.job import (
    AggregationStrategy,
    FederationJob,
    ModelSpec,
    PrivacyConfig,
    TrainingConfig,
)

SiteName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,62}$")]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSection(_Section):
    """Where each site's records come from.

    Attributes:
        source: Name of a registered source, such as ``breast-cancer-wisconsin``.
        sites: The hospitals, in any order.
        split_seed: Public seed of a source that splits one collection over sites.
    """

    source: str
    sites: tuple[SiteName, ...] = Field(min_length=1, max_length=1000)
    split_seed: int = Field(default=0, ge=0, le=2**53 - 1)


class FederationSection(_Section):
    """How the sites work together (CE-6.a, CE-6.c, CE-X1)."""

    backend: Literal["local"]
    rounds: int = Field(default=50, ge=1, le=10_000)
    min_clients: int = Field(default=2, ge=1)
    strategy: AggregationStrategy = AggregationStrategy.FED_AVG
    seed: int = Field(default=0, ge=0, le=2**53 - 1)
    round_timeout_seconds: int = Field(default=600, ge=1, le=86_400)


class JobFile(_Section):
    """The whole of ``job.yaml``."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,40}$")]
    job_id: UUID | None = None
    manifest: str
    request: str
    with_data: str | None = None
    data: DataSection
    attestation: Literal["simulated", "hardware"]
    federation: FederationSection
    model: ModelSpec
    training: TrainingConfig
    privacy: PrivacyConfig

    @field_validator("job_id")
    @classmethod
    def _belongs_to_no_log(cls, job_id: UUID | None) -> UUID | None:
        if job_id is not None and job_id.version == LOG_STREAM_VERSION:
            raise ValueError(
                "a UUID of version 5 may stand for a log itself; leave job_id out to have a fresh one"
            )
        return job_id


@dataclass(frozen=True)
class JobSpec:
    """A parsed job file with the paths it names resolved."""

    path: Path
    file: JobFile
    manifest_path: Path
    request_path: Path

    def federation_job(self) -> FederationJob:
        """Return the job as the federation runs it, with a fresh id if the file names none.

        Raises:
            InputError: The parts don't fit each other, such as more ``min_clients`` than sites.
        """
        file = self.file
        return parse_model(
            FederationJob,
            {
                "job_id": str(file.job_id or uuid4()),
                "clients": [*sorted(file.data.sites)],
                "min_clients": file.federation.min_clients,
                "rounds": file.federation.rounds,
                "strategy": file.federation.strategy.value,
                "privacy": file.privacy.model_dump(mode="json"),
                "training": file.training.model_dump(mode="json"),
                "model": file.model.model_dump(mode="json"),
                "dataset_id": file.data.source,
                "seed": file.federation.seed,
                "round_timeout_seconds": file.federation.round_timeout_seconds,
            },
            f"job file {self.path.name}",
        )


def load_job(path: Path, *, data_dir: Path | None = None) -> JobSpec:
    """Read a job file, and the variant it names if data of one's own was given.

    Args:
        path: The job file.
        data_dir: Folder given with ``--data``; if set and the file has ``with_data``, that job is read.

    Returns:
        The parsed job.

    Raises:
        InputError: The file is missing, isn't YAML, or has unknown or wrong fields.
    """
    spec = _read(path)
    if data_dir is not None and spec.file.with_data is not None:
        return _read(path.parent / spec.file.with_data)
    return spec


def _read(path: Path) -> JobSpec:
    file = parse_model(JobFile, load_yaml(path), f"job file {path.name}")
    if len(set(file.data.sites)) != len(file.data.sites):
        raise InputError(
            "input.schema",
            f"job file {path.name} names a site twice",
            "List each hospital once under data.sites.",
        )
    return JobSpec(
        path=path,
        file=file,
        manifest_path=path.parent / file.manifest,
        request_path=path.parent / file.request,
    )
