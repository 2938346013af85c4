"""Attestation results as tokens (EAR): a verdict that other programs read, signed by the verifier.

Form: draft-ietf-rats-ear-04 in JWT, a profile of EAT (RFC 9711); what each number of the vector means is from
draft-ietf-rats-ar4si.

Rules kept here:

* A token is made of a verdict and of nothing else; no caller states a status.
* ``affirming`` is hardware whose every check passed. A simulated platform is at best ``warning``, under a
  profile of its own, so that who knows only the profile for hardware refuses it. A verdict that isn't TRUSTED
  is ``contraindicated``.
* No status is better than the worst number of its vector; a token for which that doesn't hold is refused.
* The machine is the submodule ``cpu0``; its GPUs are ``gpu0`` and so on, each with its own evidence's hash.
* Reading is strict: one signature algorithm, every member known, times in order and not too far apart.

Vector: *hardware* 2 genuine and as current as the policy asks, 32 genuine but older, or simulated, 96
revoked, 97 not authentic; *executables* 3 an approved set, 33 not recognised; *configuration* 2 as asked, 32
not as asked, 36 unknown, 96 open to debugging; *runtime-opaque* 2 memory closed to the host, 96 open.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cloister.core.canonical import JSON
from cloister.core.clock import format_time
from cloister.core.keys import PublicKey, Signer
from cloister.enclave.attestation.binding import Binding
from cloister.enclave.attestation.checks import AttestationCheck, CheckOutcome
from cloister.enclave.attestation.claims import Claims, TcbStatus
from cloister.enclave.attestation.evidence import Evidence, Tee
from cloister.enclave.attestation.jws import malformed_token, sign, verified_payload
from cloister.enclave.attestation.trimming import evidence_sha256
from cloister.enclave.attestation.verdict import Status, Verdict
from cloister.enclave.errors import AttestationError

HARDWARE_PROFILE: Final = "urn:cloister:ear:v1"
SIMULATED_PROFILE: Final = "urn:cloister:ear:simulated:v1"
DEVELOPER: Final = "cloister"
LONGEST_LIFE: Final = timedelta(hours=24)
LEEWAY: Final = timedelta(seconds=60)
_CURRENT = frozenset({TcbStatus.UP_TO_DATE, TcbStatus.NOT_RATED, TcbStatus.SW_HARDENING_NEEDED})
_CODE_CHECKS = frozenset({"measurement", "driver-manifest", "vbios-manifest", "firmware-id"})
_TCB_CHECKS = frozenset({"minimum-version", "minimum-driver", "tcb-status", "tcb-evaluation"})
_WARNS_FROM, _CONTRAINDICATES_FROM = 32, 96
_YEAR_10000: Final = 253_402_300_800


class EarStatus(StrEnum):
    """What an attestation result comes to, best first."""

    AFFIRMING = "affirming"
    WARNING = "warning"
    CONTRAINDICATED = "contraindicated"


_ORDER: Final = tuple(EarStatus)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


_Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_Number = Annotated[int, Field(ge=0, le=127)]
_Text = Annotated[str, Field(max_length=500)]


class VerifierId(_Part):
    """Who wrote the verifier, and which build of it ran."""

    developer: Annotated[str, Field(min_length=1, max_length=100)]
    build: Annotated[str, Field(min_length=1, max_length=100)]


class TrustVector(_Part):
    """The AR4SI trustworthiness vector, as far as this verifier states it."""

    hardware: _Number
    executables: _Number
    configuration: _Number
    runtime_opaque: Annotated[_Number, Field(alias="runtime-opaque")]

    @property
    def worst(self) -> EarStatus:
        """The tier of its worst number."""
        worst = max(self.hardware, self.executables, self.configuration, self.runtime_opaque)
        if worst >= _CONTRAINDICATES_FROM:
            return EarStatus.CONTRAINDICATED
        return EarStatus.WARNING if worst >= _WARNS_FROM else EarStatus.AFFIRMING


class EarCheck(_Part):
    """One check of the verdict."""

    name: Annotated[str, Field(max_length=80)]
    outcome: Literal["passed", "failed", "not_run"]
    detail: _Text


class EarDates(_Part):
    """From when a document of the vendor is."""

    sha256: _Hex32
    what: Annotated[str, Field(max_length=100)]
    issued_at: Annotated[str, Field(max_length=40)]
    next_update: Annotated[str, Field(max_length=40)] | None = None


class AnnotatedEvidence(_Part):
    """What was judged and what it says, as the verifier read it.

    Attributes:
        tee: the kind of hardware, as evidence names it.
        evidence_sha256: hash of the evidence's canonical form, without bytes behind a quote's end.
        registers: every register that says what runs; none where nothing was authenticated.
        sealed_in: what was asked for, as the evidence holds it, in hex.
        simulated: whether it is simulated.
        debug: whether the host may look inside; None where that isn't known.
        revocation: what is known of revocation.
        tcb_status: how current the platform is.
        advisories: the vendor's, that apply.
        collateral: from when the vendor's documents are.
        checks: every check.
    """

    tee: Annotated[str, Field(max_length=40)]
    evidence_sha256: _Hex32
    registers: Annotated[
        dict[Annotated[str, Field(max_length=40)], Annotated[str, Field(max_length=130)]],
        Field(max_length=100),
    ]
    sealed_in: Annotated[str, Field(pattern=r"^([0-9a-f]{2}){0,1024}$")]
    simulated: bool
    debug: bool | None = None
    revocation: Annotated[str, Field(max_length=40)]
    tcb_status: Annotated[str, Field(max_length=40)]
    advisories: Annotated[list[Annotated[str, Field(max_length=40)]], Field(max_length=1000)]
    collateral: Annotated[list[EarDates], Field(max_length=100)]
    checks: Annotated[list[EarCheck], Field(max_length=200)]


class Submodule(_Part):
    """The result for the machine, or for one device of it."""

    status: Annotated[EarStatus, Field(alias="ear.status", strict=False)]
    vector: Annotated[TrustVector, Field(alias="ear.trustworthiness-vector")]
    policy_id: Annotated[_Hex32, Field(alias="ear.appraisal-policy-id")]
    evidence: Annotated[AnnotatedEvidence, Field(alias="ear.veraison.annotated-evidence")]

    @model_validator(mode="after")
    def _status_is_no_better_than_its_vector(self) -> Submodule:
        best = EarStatus.WARNING if self.evidence.simulated else EarStatus.AFFIRMING
        if _ORDER.index(self.status) < max(_ORDER.index(self.vector.worst), _ORDER.index(best)):
            raise ValueError("a status is better than what it stands on")
        return self


def _nonce_of(text: str) -> bytes:
    """The nonce that ``eat_nonce`` spells (RFC 9711 section 4.1: 8 to 88 characters in JSON)."""
    nonce = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _spelt(nonce) != text:
        raise ValueError("a nonce is not in its one spelling")
    return nonce


def _spelt(nonce: bytes) -> str:
    return base64.urlsafe_b64encode(nonce).rstrip(b"=").decode("ascii")


class Confirmation(_Part):
    """The key that the result is about (RFC 7800)."""

    kid: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]


class EarToken(_Part):
    """An attestation result whose signature was verified, or that is about to be signed.

    Attributes:
        eat_profile: for hardware, or for simulated platforms.
        iat: when the verdict was reached, in seconds.
        exp: until when a relying party may take it for granted, excluded.
        eat_nonce: base64url of the nonce that was answered.
        verifier: which verifier.
        confirmation: the key that was sealed in, where one was.
        job: the job that was sealed in, where one was.
        submods: results by submodule: ``cpu0`` and perhaps ``gpu0`` and so on.
    """

    eat_profile: Literal["urn:cloister:ear:v1", "urn:cloister:ear:simulated:v1"]
    iat: Annotated[int, Field(ge=0, lt=_YEAR_10000)]
    exp: Annotated[int, Field(ge=0, lt=_YEAR_10000)]
    eat_nonce: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{11,88}$")]
    verifier: Annotated[VerifierId, Field(alias="ear.verifier-id")]
    confirmation: Annotated[Confirmation | None, Field(alias="cnf")] = None
    job: Annotated[str | None, Field(max_length=200, alias="urn:cloister:job")] = None
    submods: dict[Annotated[str, Field(pattern=r"^(cpu0|gpu(0|[1-9][0-9]?))$")], Submodule]

    @model_validator(mode="after")
    def _is_of_one_piece(self) -> EarToken:
        _nonce_of(self.eat_nonce)
        devices = [f"gpu{number}" for number in range(len(self.submods) - 1)]
        if set(self.submods) != {"cpu0", *devices}:
            raise ValueError("names other submodules than a machine and its devices")
        if len({one.policy_id for one in self.submods.values()}) != 1:
            raise ValueError("names two policies")
        if not 0 < self.exp - self.iat <= LONGEST_LIFE.total_seconds():
            raise ValueError("lives for too long")
        if self.simulated != (self.eat_profile == SIMULATED_PROFILE):
            raise ValueError("is of another profile than its evidence")
        return self

    @property
    def simulated(self) -> bool:
        """Whether any of it is simulated."""
        return any(one.evidence.simulated for one in self.submods.values())

    @property
    def status(self) -> EarStatus:
        """The worst status of its submodules."""
        return max((one.status for one in self.submods.values()), key=_ORDER.index)

    @property
    def nonce(self) -> bytes:
        """The nonce that was answered."""
        return _nonce_of(self.eat_nonce)


def issue(
    verdict: Verdict,
    signer: Signer,
    *,
    asked: Binding | bytes,
    policy_id: str,
    build: str,
    lifetime: timedelta,
) -> str:
    """A verdict as a token.

    Args:
        verdict: what was concluded; ``iat`` is the time it was held against.
        signer: the verifier's ECDSA P-256 key.
        asked: what was asked for: a binding, or 8 to 64 bytes that stand for a nonce alone.
        policy_id: hash of the policy it was held against.
        build: the verifier's version.
        lifetime: how long a relying party may take it for granted, up to 24 hours.

    Returns:
        The compact JWT.

    Raises:
        AttestationError: attestation.alg for another kind of key; attestation.malformed for a lifetime or
            policy id that no token has.
    """
    try:
        token = EarToken(
            eat_profile=SIMULATED_PROFILE if verdict.simulated else HARDWARE_PROFILE,
            iat=int(verdict.evaluated_at.timestamp()),
            exp=int((verdict.evaluated_at + lifetime).timestamp()),
            eat_nonce=_spelt(asked if isinstance(asked, bytes) else asked.nonce),
            verifier=VerifierId(developer=DEVELOPER, build=build),
            confirmation=None if isinstance(asked, bytes) else Confirmation(kid=asked.key_id),
            job=None if isinstance(asked, bytes) else asked.job_id,
            submods={
                name: _submodule(part, verdict.status, policy_id) for name, part in _parts(verdict).items()
            },
        )
    except (ValidationError, OverflowError):
        raise malformed_token() from None
    payload: dict[str, JSON] = token.model_dump(mode="json", by_alias=True, exclude_none=True)
    return sign(payload, signer)


def read(token: str, key: PublicKey, now: datetime) -> EarToken:
    """Verify a token.

    Args:
        token: the compact JWT.
        key: the verifier's ECDSA P-256 key, from a source other than the token.
        now: the time it must be valid at; it may have been issued up to a minute later.

    Returns:
        What it says. Whether that will do is for the caller: a token is also made of a refusal.

    Raises:
        AttestationError: attestation.malformed, attestation.alg, attestation.signature,
            attestation.not_yet_valid or attestation.expired.
    """
    payload = verified_payload(token, key)
    try:
        # By alias alone: a token has one spelling.
        found = EarToken.model_validate(payload, by_alias=True, by_name=False)
    except ValidationError:
        raise malformed_token() from None
    if datetime.fromtimestamp(found.iat, UTC) - now > LEEWAY:
        raise AttestationError("attestation.not_yet_valid", "The token was issued later than now.")
    if now >= datetime.fromtimestamp(found.exp, UTC):
        raise AttestationError(
            "attestation.expired", "The token's time has passed.", "Attest again, with a fresh nonce."
        )
    return found


@dataclass(frozen=True)
class _Judged:
    """One machine or device of a verdict: its evidence, claims if authentic, and checks."""

    evidence: Evidence
    claims: Claims | None
    checks: tuple[AttestationCheck, ...]

    def failed(self, names: frozenset[str]) -> bool:
        return any(one.name in names and one.outcome is CheckOutcome.FAILED for one in self.checks)

    @property
    def any_failed(self) -> bool:
        return any(one.outcome is CheckOutcome.FAILED for one in self.checks)


def _parts(verdict: Verdict) -> Mapping[str, _Judged]:
    devices = iter(verdict.devices)
    own: dict[str, list[AttestationCheck]] = {}
    for check in verdict.checks:
        where, slash, name = check.name.partition("/")
        part = where if slash else "cpu0"
        own.setdefault(part, []).append(
            AttestationCheck(name if slash else check.name, check.outcome, check.detail)
        )
    parts = {"cpu0": _Judged(verdict.evidence, verdict.claims, tuple(own.get("cpu0", ())))}
    for number, evidence in enumerate(verdict.evidence.devices):
        checks = tuple(own.get(f"gpu{number}", ()))
        # A verdict has the claims of authentic devices only; of those, every finding was made.
        authentic = any(one.name == "platform" and one.outcome is not CheckOutcome.NOT_RUN for one in checks)
        parts[f"gpu{number}"] = _Judged(evidence, next(devices, None) if authentic else None, checks)
    return parts


def _submodule(part: _Judged, verdict: Status, policy_id: str) -> Submodule:
    vector = _vector(part)
    if verdict is not Status.TRUSTED and (part.any_failed or part.evidence.tee is not Tee.NVIDIA_GPU):
        status = EarStatus.CONTRAINDICATED
    else:
        simulated = part.claims is not None and part.claims.simulated
        own = EarStatus.WARNING if simulated else EarStatus.AFFIRMING
        status = max(own, vector.worst, key=_ORDER.index)
    return Submodule(status=status, vector=vector, policy_id=policy_id, evidence=_annotated(part))


def _vector(part: _Judged) -> TrustVector:
    claims = part.claims
    if claims is None:
        return TrustVector(hardware=97, executables=33, configuration=36, runtime_opaque=0)
    old = claims.tcb_status not in _CURRENT or part.failed(_TCB_CHECKS)
    hardware = 32 if old or claims.simulated else 2
    asked = part.failed(
        frozenset(one.name for one in part.checks) - _CODE_CHECKS - _TCB_CHECKS - {"platform"}
    )
    return TrustVector(
        hardware=96 if claims.tcb_status is TcbStatus.REVOKED else hardware,
        executables=33 if part.failed(_CODE_CHECKS) else 3,
        configuration=96 if claims.debug else 32 if asked else 2,
        runtime_opaque=96 if claims.debug else 2,
    )


def _annotated(part: _Judged) -> AnnotatedEvidence:
    claims = part.claims
    dates = () if claims is None else claims.collateral_dates
    return AnnotatedEvidence(
        tee=part.evidence.tee.value,
        evidence_sha256=evidence_sha256(part.evidence),
        registers={} if claims is None else dict(claims.registers),
        sealed_in="" if claims is None else claims.sealed_in.hex(),
        simulated=claims is not None and claims.simulated,
        debug=None if claims is None else claims.debug,
        revocation="unknown" if claims is None else claims.revocation.value,
        tcb_status=TcbStatus.UNKNOWN.value if claims is None else claims.tcb_status.value,
        advisories=[] if claims is None else [*claims.advisories],
        collateral=[
            EarDates(
                sha256=one.sha256,
                what=one.what,
                issued_at=format_time(one.issued_at),
                next_update=None if one.next_update is None else format_time(one.next_update),
            )
            for one in dates
        ],
        checks=[
            EarCheck(name=one.name, outcome=one.outcome.value, detail=one.detail[:500]) for one in part.checks
        ],
    )
