"""The four messages of a key release, as bytes: ask, challenge, request, reply.

Each is one canonical JSON object with a schema, so that it goes through any frame, file or socket. Nothing is
accepted but the exact form; sizes are bounded before anything is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cloister.core.canonical import b64encode, canonicalize
from cloister.enclave.attestation.binding import KEY_RELEASE, NONCE_BYTES, Binding
from cloister.enclave.attestation.evidence import MAX_EVIDENCE_BYTES, Evidence
from cloister.enclave.errors import AttestationError, ReleaseError, SealedError
from cloister.enclave.fixed_form import FixedForm
from cloister.enclave.keyrelease.hpke import OVERHEAD_BYTES, PUBLIC_BYTES, enclave_key_id
from cloister.enclave.sealed.claims import SealClaims

MAX_SHORT_BYTES: Final = 4096
MAX_REQUEST_BYTES: Final = MAX_EVIDENCE_BYTES + 64 * 1024
_ASK: Final = "urn:cloister:key-release-ask:v1"
_CHALLENGE: Final = "urn:cloister:key-release-challenge:v1"
_REQUEST: Final = "urn:cloister:key-release-request:v2"
_REPLY: Final = "urn:cloister:key-release-reply:v1"


def malformed() -> ReleaseError:
    """The refusal of a message that isn't of its exact form."""
    return ReleaseError("release.malformed", "A message of the key release is not of its exact form.")


def refused() -> ReleaseError:
    """What who asks raises where the keeper refuses, whatever its reason."""
    return ReleaseError(
        "release.refused",
        "The keeper of the key refuses to release it.",
        "Ask the keeper: its log has the reason.",
    )


_FORM: Final = FixedForm(malformed)


@dataclass(frozen=True)
class Ask:
    """A worker asks for a challenge.

    Attributes:
        scope: the job or study it works for.
        policy_id: SHA-256 of the release policy that it asks under.
    """

    scope: str
    policy_id: str

    def encode(self) -> bytes:
        """The message."""
        return canonicalize({"schema": _ASK, "scope": self.scope, "policy_id": self.policy_id})

    @classmethod
    def decode(cls, data: bytes) -> Ask:
        """Read the message; ReleaseError ``release.malformed`` for anything else."""
        value = _FORM.fields(data, _ASK, {"scope", "policy_id"}, MAX_SHORT_BYTES)
        return cls(_FORM.name(value["scope"]), _FORM.sha256(value["policy_id"]))


@dataclass(frozen=True)
class Challenge:
    """The keeper's answer to an ask: 32 bytes to be sealed into evidence, once, within a minute."""

    nonce: bytes

    def encode(self) -> bytes:
        """The message."""
        return canonicalize({"schema": _CHALLENGE, "nonce": b64encode(self.nonce)})

    @classmethod
    def decode(cls, data: bytes) -> Challenge:
        """Read the message; ReleaseError ``release.malformed`` for anything else."""
        return cls(
            _FORM.data(_FORM.fields(data, _CHALLENGE, {"nonce"}, MAX_SHORT_BYTES)["nonce"], NONCE_BYTES)
        )


@dataclass(frozen=True)
class Request:
    """A worker shows its evidence and asks for the key.

    Attributes:
        ask: as it was asked.
        nonce: the challenge answered.
        public: the worker's public key, to which the answer is to be sealed.
        seal: what holds the worker.
        evidence: of the machine, with all of this bound.
    """

    ask: Ask
    nonce: bytes
    public: bytes
    seal: SealClaims
    evidence: Evidence

    @property
    def binding(self) -> Binding:
        """What the evidence must have sealed in."""
        return release_binding(self.ask, self.nonce, self.public, self.seal)

    def encode(self) -> bytes:
        """The message."""
        return canonicalize(
            {
                "schema": _REQUEST,
                "scope": self.ask.scope,
                "policy_id": self.ask.policy_id,
                "nonce": b64encode(self.nonce),
                "public_key": b64encode(self.public),
                "seal": self.seal.as_json(),
                "evidence": self.evidence.as_json(),
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Request:
        """Read the message; ReleaseError ``release.malformed`` for anything else."""
        fields = {"scope", "policy_id", "nonce", "public_key", "seal", "evidence"}
        value = _FORM.fields(data, _REQUEST, fields, MAX_REQUEST_BYTES)
        try:
            seal = SealClaims.from_json(value["seal"])
            evidence = Evidence.from_json(value["evidence"])
        except (AttestationError, SealedError):
            raise malformed() from None
        return cls(
            Ask(_FORM.name(value["scope"]), _FORM.sha256(value["policy_id"])),
            _FORM.data(value["nonce"], NONCE_BYTES),
            _FORM.data(value["public_key"], PUBLIC_BYTES),
            seal,
            evidence,
        )


@dataclass(frozen=True)
class Reply:
    """The keeper's last word: a sealed key, or nothing.

    Attributes:
        data_key: the key's id; "" where it is refused.
        dataset: what the key opens; "" where it is refused.
        sealed: the key, sealed to the attested public key; empty where it is refused.
    """

    data_key: str = ""
    dataset: str = ""
    sealed: bytes = b""

    def encode(self) -> bytes:
        """The message. Every refusal is the same bytes."""
        return canonicalize(
            {
                "schema": _REPLY,
                "data_key": self.data_key,
                "dataset": self.dataset,
                "sealed": b64encode(self.sealed),
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Reply:
        """Read the message.

        Raises:
            ReleaseError: ``release.refused`` for a refusal, ``release.malformed`` for anything else.
        """
        value = _FORM.fields(data, _REPLY, {"data_key", "dataset", "sealed"}, MAX_SHORT_BYTES)
        if value["sealed"] == "" and data == REFUSAL:
            raise refused()
        sealed = _FORM.data(value["sealed"], OVERHEAD_BYTES + 32)
        return cls(_FORM.name(value["data_key"]), _FORM.name(value["dataset"]), sealed)


REFUSAL: Final = Reply().encode()
"""What everybody hears who is refused, whatever the reason."""


def release_binding(ask: Ask, nonce: bytes, public: bytes, seal: SealClaims) -> Binding:
    """What evidence for a key release must have sealed in; what holds the worker stands beside the policy.

    Args:
        ask: for which job, under which policy.
        nonce: the challenge answered.
        public: the worker's public key.
        seal: what holds the worker.
    """
    return Binding(
        nonce=nonce,
        key_id=enclave_key_id(public),
        job_id=ask.scope,
        policy_id=f"{ask.policy_id},seal:{seal.sha256}",
        domain=KEY_RELEASE,
    )
