"""A release policy: what a hospital signs about a data key, before anybody may ask for it.

Rules kept here:

* Default deny. A policy names one key, one dataset, one job or study, kinds of hardware, acceptable code,
  levels of sealing, a time and a number. Debugging is always refused.
* It is signed by the hospital as a DSSE envelope and has one encoding. Its id, which evidence binds, is the
  hash of the signed bytes.
* That a simulated enclave will do is said twice: here, and by the key, which must be one of test data.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cloister.core.canonical import JSON, canonicalize, parse_canonical
from cloister.core.clock import format_time, parse_time
from cloister.core.errors import CloisterError, InputError
from cloister.core.hashes import Sha256, sha256_hex
from cloister.core.keys import PublicKey, Signer
from cloister.enclave.attestation.evidence import Tee
from cloister.enclave.attestation.policy import POLICY_SCHEMA, AppraisalPolicy, Platforms
from cloister.enclave.errors import ReleaseError
from cloister.enclave.sealed.claims import SealLevel
from cloister.evidence.attestation_terms import ManifestAttestation
from cloister.evidence.envelope import Envelope, sign_envelope, verify_envelope

SCHEMA: Final = "urn:cloister:release-policy:v2"
PAYLOAD_TYPE: Final = "application/vnd.cloister.release-policy+json"
MAX_POLICY_BYTES: Final = 256 * 1024
MAX_RELEASES: Final = 10_000
DATA_KEY_PATTERN: Final = r"^dk-[0-9a-f]{32}$"
SCOPE_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$"
DATASET_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._/:-]{0,199}$"

DataKeyId = Annotated[str, Field(pattern=DATA_KEY_PATTERN)]
Scope = Annotated[str, Field(pattern=SCOPE_PATTERN)]
DatasetName = Annotated[str, Field(pattern=DATASET_PATTERN)]


class KeyPurpose(StrEnum):
    """What a data key opens; sealed into its wrapping, so that no edit of a book changes it."""

    RECORDS = "records"
    PACKAGE = "package"
    TEST_DATA = "test-data"


class ReleasePolicy(BaseModel):
    """Under which conditions a data key is released.

    Attributes:
        data_key: the key's id.
        dataset: what the key opens.
        scope: the job (a UUID) or study it is released for; evidence binds it.
        tees: kinds of hardware that will do.
        appraisal: what else the evidence must show.
        seal_levels: levels of sealing of the worker that will do.
        not_before: from when it holds, UTC.
        expires_at: until when.
        releases: how many times the key may be released in all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data_key: DataKeyId
    dataset: DatasetName
    scope: Scope
    tees: Annotated[tuple[Tee, ...], Field(min_length=1, max_length=8)]
    appraisal: AppraisalPolicy
    seal_levels: Annotated[tuple[SealLevel, ...], Field(min_length=1, max_length=len(SealLevel))] = (
        SealLevel.NAMESPACES,
    )
    not_before: str
    expires_at: str
    releases: Annotated[int, Field(ge=1, le=MAX_RELEASES, strict=True)]

    @field_validator("tees")
    @classmethod
    def _machines(cls, tees: tuple[Tee, ...]) -> tuple[Tee, ...]:
        if Tee.NVIDIA_GPU in tees:
            raise ValueError("a GPU belongs to a machine and asks for nothing by itself")
        return tuple(sorted(set(tees)))

    @field_validator("seal_levels")
    @classmethod
    def _levels_in_their_order(cls, levels: tuple[SealLevel, ...]) -> tuple[SealLevel, ...]:
        return tuple(level for level in SealLevel if level in levels)

    @field_validator("not_before", "expires_at")
    @classmethod
    def _times(cls, text: str) -> str:
        try:
            return format_time(parse_time(text))
        except InputError as error:
            raise ValueError(error.message) from None

    @model_validator(mode="after")
    def _holds_some_time(self) -> ReleasePolicy:
        if self.not_before >= self.expires_at:
            raise ValueError("expires before it holds")
        return self

    @property
    def allows_simulated(self) -> bool:
        """Whether a simulated enclave will do, if the key is one of test data."""
        return self.appraisal.platforms is Platforms.HARDWARE_OR_SIMULATED

    def as_json(self) -> dict[str, JSON]:
        """The policy as plain JSON values."""
        return {
            "schema": SCHEMA,
            "data_key": self.data_key,
            "dataset": self.dataset,
            "scope": self.scope,
            "tees": [one.value for one in self.tees],
            "appraisal": self.appraisal.as_json(),
            "seal_levels": [one.value for one in self.seal_levels],
            "not_before": self.not_before,
            "expires_at": self.expires_at,
            "releases": self.releases,
        }

    def encode(self) -> bytes:
        """The RFC 8785 form: what is signed."""
        return canonicalize(self.as_json())

    @property
    def sha256(self) -> Sha256:
        """Its id in bindings and statements."""
        return sha256_hex(self.encode())

    def require_in_time(self, now: datetime) -> None:
        """Refuse it outside of its time.

        Raises:
            ReleaseError: ``release.not_yet`` or ``release.expired``.
        """
        if now < parse_time(self.not_before):
            raise ReleaseError("release.not_yet", f"The release policy holds from {self.not_before}.")
        if now >= parse_time(self.expires_at):
            raise ReleaseError("release.expired", f"The release policy held until {self.expires_at}.")


def table_dataset(site: str, dataset_sha256: str) -> str:
    """What release policies and wrapped keys call a site's table: the same records, the same name."""
    return f"table/{site}/{dataset_sha256}"


def policy_for_job(
    terms: ManifestAttestation,
    *,
    data_key: str,
    dataset: str,
    scope: str,
    holds: tuple[datetime, datetime],
    purpose: KeyPurpose,
) -> ReleasePolicy:
    """The one policy that a hospital's manifest implies for a job: its keeper signs it, a receipt derives it.

    Args:
        terms: the manifest's terms of attestation and sealing.
        data_key: the key's id.
        dataset: what the key opens.
        scope: the job.
        holds: the manifest's validity, the end excluded.
        purpose: the key's; simulated enclaves will do for test data only, whatever the manifest allows.

    Returns:
        A policy for one release.

    Raises:
        AttestationError: attestation.no_common_policy where the manifest allows no code.
        ValueError: its terms are not sound.
    """
    appraisal = AppraisalPolicy.agreed_by([terms])
    if purpose is not KeyPurpose.TEST_DATA:
        appraisal = appraisal.model_copy(update={"platforms": Platforms.HARDWARE_ONLY})
    not_before, expires_at = (format_time(one) for one in holds)
    return ReleasePolicy(
        data_key=data_key,
        dataset=dataset,
        scope=scope,
        tees=tuple(appraisal.kinds),
        appraisal=appraisal,
        seal_levels=tuple(map(SealLevel, terms.accepted_seal_levels)),
        not_before=not_before,
        expires_at=expires_at,
        releases=1,
    )


def sign_release_policy(policy: ReleasePolicy, signer: Signer) -> Envelope:
    """Sign a policy with the key of who owns the data.

    Args:
        policy: what is allowed.
        signer: the hospital's key.
    """
    return sign_envelope(PAYLOAD_TYPE, policy.encode(), signer)


def open_release_policy(envelope: Envelope, owner: PublicKey) -> ReleasePolicy:
    """The policy in an envelope, if its owner signed exactly these bytes.

    Args:
        envelope: what was signed.
        owner: the only key accepted.

    Raises:
        ReleaseError: ``release.policy``.
    """
    if envelope.payload_type != PAYLOAD_TYPE:
        raise _no_policy("the envelope holds something else")
    try:
        payload = verify_envelope(envelope, owner)
    except CloisterError:
        raise _no_policy("it is not signed by who owns the key") from None
    return decode_release_policy(payload)


def decode_release_policy(payload: bytes) -> ReleasePolicy:
    """Read a policy from its canonical bytes, without judging who signed it.

    Raises:
        ReleaseError: ``release.policy``.
    """
    try:
        value = parse_canonical(payload, max_bytes=MAX_POLICY_BYTES, max_depth=8)
    except InputError as error:
        raise _no_policy(error.message.rstrip(".")) from None
    if not isinstance(value, dict) or value.pop("schema", None) != SCHEMA:
        raise _no_policy("it is of another form or version")
    appraisal = value.get("appraisal")
    if not isinstance(appraisal, dict) or appraisal.pop("schema", None) != POLICY_SCHEMA:
        raise _no_policy("its appraisal policy is of another form or version")
    try:
        policy = ReleasePolicy.model_validate(value)
    except ValidationError as error:
        fields = sorted({".".join(map(str, one["loc"])) for one in error.errors(include_input=False)})
        raise _no_policy(f"these fields are wrong: {', '.join(fields)[:200]}") from None
    if policy.encode() != payload:
        raise _no_policy("it is not in its one form")
    return policy


def _no_policy(reason: str) -> ReleaseError:
    return ReleaseError(
        "release.policy", f"This is no release policy: {reason}.", "Let the owner of the key sign it anew."
    )
