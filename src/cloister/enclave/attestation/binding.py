"""What evidence must have sealed in: whose answer it is, to which question, for which job and policy."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from cloister.core.canonical import JSON, b64encode, canonicalize
from cloister.enclave.attestation.evidence import malformed_evidence

TAKING_PART = b"urn:cloister:report-data:v1\x00"
KEY_RELEASE = b"urn:cloister:key-release:v1\x00"
INFERENCE = b"urn:cloister:inference:v1\x00"
SELF_TEST = b"urn:cloister:self-test:v1\x00"
NONCE_BYTES = 32
REPORT_DATA_BYTES = 64
_KEY_ID = re.compile(r"sha256:[0-9a-f]{64}")


def device_nonce(report_data: bytes) -> bytes:
    """The 32-byte nonce that a device of the machine answers: SHA-256("gpu" || report data).

    Args:
        report_data: the 64 bytes that the machine's own report has sealed in.
    """
    return hashlib.sha256(b"gpu" + report_data).digest()


@dataclass(frozen=True)
class AskedBytes:
    """What a report must have sealed in, where somebody else composed it."""

    data: bytes

    def report_data(self) -> bytes:
        """The bytes themselves."""
        return self.data

    def device_nonce(self) -> bytes:
        """The nonce a device of the machine must answer."""
        return device_nonce(self.data)


@dataclass(frozen=True)
class Binding:
    """What a report must have sealed in.

    Attributes:
        nonce: 32 bytes, issued by the verifier for one answer.
        key_id: the public key the answer speaks for, as "sha256:<hex of SHA-256 over its encoding>": a site's
            signing key as SubjectPublicKeyInfo, an enclave's key for encryption as the suite encodes it.
        job_id: the job.
        policy_id: hash of the policy that both sides agreed to.
        domain: what the answer is for, so that no answer serves another purpose.
    """

    nonce: bytes
    key_id: str
    job_id: str
    policy_id: str
    domain: bytes = TAKING_PART

    def report_data(self) -> bytes:
        """The report's 64-byte user data: SHA-512(domain || nonce || SHA-256(public key) || SHA-256(job,
        policy)).

        Job and policy are hashed as the RFC 8785 form of ``[job_id, policy_id]``.

        Raises:
            AttestationError: attestation.malformed for a nonce that isn't 32 bytes, or another key id.
        """
        if len(self.nonce) != NONCE_BYTES or not _KEY_ID.fullmatch(self.key_id):
            raise malformed_evidence()
        subject: list[JSON] = [self.job_id, self.policy_id]
        return hashlib.sha512(
            self.domain
            + self.nonce
            + bytes.fromhex(self.key_id.removeprefix("sha256:"))
            + hashlib.sha256(canonicalize(subject)).digest()
        ).digest()

    def device_nonce(self) -> bytes:
        """The 32-byte nonce a device of the machine must answer: SHA-256("gpu" || report data).

        The report data holds nonce and key, so a device's answer is bound to both.

        Raises:
            AttestationError: as ``report_data``.
        """
        return device_nonce(self.report_data())

    def as_json(self) -> dict[str, JSON]:
        """The binding as plain JSON values, the nonce in base64."""
        return {
            "nonce": b64encode(self.nonce),
            "key_id": self.key_id,
            "job_id": self.job_id,
            "policy_id": self.policy_id,
            "domain": self.domain.rstrip(b"\x00").decode("ascii"),
        }
