"""The messages between a client and an enclave that predicts: hello, welcome, query, answer.

Who carries them sees the model's public card, sizes in few steps, and when. Rules kept here:

* Hello and welcome are canonical JSON; query and answer are binary, their content sealed.
* Sizes tell neither how many rows there are nor whether they were accepted; `inference.card` has them.
* Every message is bounded before it is read, and has one form.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from cloister.core.canonical import b64encode, canonicalize
from cloister.enclave.attestation.binding import INFERENCE, NONCE_BYTES, Binding
from cloister.enclave.attestation.evidence import MAX_EVIDENCE_BYTES, Evidence
from cloister.enclave.errors import AttestationError, SealedError
from cloister.enclave.fixed_form import FixedForm
from cloister.enclave.inference.card import LARGEST_BUCKET, MAX_OUTPUT_BYTES, ModelCard, padded_size
from cloister.enclave.inference.refusals import malformed
from cloister.enclave.keyrelease.hpke import OVERHEAD_BYTES, PUBLIC_BYTES, enclave_key_id
from cloister.enclave.sealed.claims import SealClaims

MAX_SESSIONS: Final = 64
MAX_HELLO_BYTES: Final = 4096
MAX_WELCOME_BYTES: Final = MAX_EVIDENCE_BYTES + 64 * 1024
ANSWER_KEY_BYTES: Final = 32
SESSION_BYTES: Final = 32
QUERY_HEAD: Final = struct.Struct(">8s32sQ")
ANSWER_HEAD: Final = struct.Struct(">8sQ12s")
MAX_QUERY_BYTES: Final = QUERY_HEAD.size + OVERHEAD_BYTES + LARGEST_BUCKET
TAG_BYTES: Final = 16
MAX_ANSWER_BYTES: Final = ANSWER_HEAD.size + MAX_OUTPUT_BYTES + TAG_BYTES
_QUERY: Final = b"CLINFQ1\n"
_ANSWER: Final = b"CLINFA1\n"
_HELLO: Final = "urn:cloister:inference-hello:v1"
_WELCOME: Final = "urn:cloister:inference-welcome:v1"
_FORM: Final = FixedForm(malformed)


@dataclass(frozen=True)
class Hello:
    """A client asks who is there.

    Attributes:
        nonce: 32 bytes that the evidence must have sealed in.
        policy_id: SHA-256 of the appraisal policy that the client will hold it against.
    """

    nonce: bytes
    policy_id: str

    def encode(self) -> bytes:
        """The message."""
        return canonicalize({"schema": _HELLO, "nonce": b64encode(self.nonce), "policy_id": self.policy_id})

    @classmethod
    def decode(cls, data: bytes) -> Hello:
        """Read the message; InferenceError ``inference.malformed`` for anything else."""
        value = _FORM.fields(data, _HELLO, {"nonce", "policy_id"}, MAX_HELLO_BYTES)
        return cls(_FORM.data(value["nonce"], NONCE_BYTES), _FORM.sha256(value["policy_id"]))


@dataclass(frozen=True)
class Welcome:
    """An enclave says who it is.

    Attributes:
        card: which model it serves.
        seal: what holds the worker.
        public: its public key of this session.
        evidence: of the machine, with nonce, key, card and seal bound.
    """

    card: ModelCard
    seal: SealClaims
    public: bytes
    evidence: Evidence

    def encode(self) -> bytes:
        """The message."""
        return canonicalize(
            {
                "schema": _WELCOME,
                "card": self.card.as_json(),
                "seal": self.seal.as_json(),
                "public_key": b64encode(self.public),
                "evidence": self.evidence.as_json(),
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Welcome:
        """Read the message; InferenceError ``inference.malformed`` for anything else."""
        value = _FORM.fields(data, _WELCOME, {"card", "seal", "public_key", "evidence"}, MAX_WELCOME_BYTES)
        try:
            seal = SealClaims.from_json(value["seal"])
            evidence = Evidence.from_json(value["evidence"])
        except (AttestationError, SealedError):
            raise malformed() from None
        public = _FORM.data(value["public_key"], PUBLIC_BYTES)
        return cls(ModelCard.from_json(value["card"]), seal, public, evidence)


@dataclass(frozen=True)
class Query:
    """A sealed input.

    Attributes:
        session: SHA-256 of the session's public key.
        sequence: larger than that of every query before in this session.
        sealed: to the session's key.
    """

    session: bytes
    sequence: int
    sealed: bytes

    def encode(self) -> bytes:
        """The message."""
        return QUERY_HEAD.pack(_QUERY, self.session, self.sequence) + self.sealed

    @classmethod
    def decode(cls, data: bytes) -> Query:
        """Read the message; InferenceError ``inference.malformed`` for anything else."""
        if not QUERY_HEAD.size < len(data) <= MAX_QUERY_BYTES:
            raise malformed()
        magic, session, sequence = QUERY_HEAD.unpack_from(data)
        query = cls(session, sequence, data[QUERY_HEAD.size :])
        if magic != _QUERY or query.bucket != padded_size(query.bucket):
            raise malformed()
        return query

    @property
    def bucket(self) -> int:
        """Size of the padded plaintext."""
        return len(self.sealed) - OVERHEAD_BYTES


@dataclass(frozen=True)
class Answer:
    """A sealed output.

    Attributes:
        sequence: of the query answered.
        nonce: 12 random bytes.
        sealed: under the answer key that was in the query.
    """

    sequence: int
    nonce: bytes
    sealed: bytes

    def encode(self) -> bytes:
        """The message."""
        return ANSWER_HEAD.pack(_ANSWER, self.sequence, self.nonce) + self.sealed

    @classmethod
    def decode(cls, data: bytes) -> Answer:
        """Read the message; InferenceError ``inference.malformed`` for anything else."""
        if not ANSWER_HEAD.size + TAG_BYTES < len(data) <= MAX_ANSWER_BYTES:
            raise malformed()
        magic, sequence, nonce = ANSWER_HEAD.unpack_from(data)
        if magic != _ANSWER:
            raise malformed()
        return cls(sequence, nonce, data[ANSWER_HEAD.size :])


def session_id(public: bytes) -> bytes:
    """How a query names its session: SHA-256 of the session's public key."""
    return hashlib.sha256(public).digest()


def inference_binding(hello: Hello, public: bytes, card: ModelCard, seal: SealClaims) -> Binding:
    """What evidence for an inference must have sealed in; card and seal stand in the place of a job."""
    return Binding(
        nonce=hello.nonce,
        key_id=enclave_key_id(public),
        job_id=f"model-card:{card.sha256},seal:{seal.sha256}",
        policy_id=hello.policy_id,
        domain=INFERENCE,
    )
