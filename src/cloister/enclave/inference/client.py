"""The client of an enclave that predicts: verify first, then seal the input to the verified key.

Rules kept here:

* The evidence must be genuine, acceptable to the client's own policy, and have sealed in the client's nonce,
  the session's key, the model's card, and what seals the worker. Nothing is sent before.
* More rows than one query holds are asked for in several, in their order; all of them are answered, or none.
* Each query has a fresh answer key, sealed inside it; only who opened the query can have made the answer.
* The carrier is believed nothing.
"""

from __future__ import annotations

import hashlib
import os
from typing import Final, Protocol

import numpy as np
import numpy.typing as npt
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.core.sealing import wipe
from cloister.enclave.attestation.binding import NONCE_BYTES, Binding
from cloister.enclave.attestation.policy import AppraisalPolicy
from cloister.enclave.attestation.verdict import Verdict
from cloister.enclave.attestation.verifier import Verifier
from cloister.enclave.errors import InferenceError
from cloister.enclave.inference.card import INPUT_HEAD, OUTPUT_HEAD, ModelCard, padded_size
from cloister.enclave.inference.messages import (
    ANSWER_KEY_BYTES,
    TAG_BYTES,
    Answer,
    Hello,
    Query,
    Welcome,
    inference_binding,
    session_id,
)
from cloister.enclave.inference.refusals import malformed
from cloister.enclave.keyrelease.hpke import seal_to, sealing_info
from cloister.enclave.sealed.claims import SealClaims, SealPolicy

_FLOATS: Final = np.dtype("<f4")
_ACCEPTED: Final = 0
_TOO_LONG: Final = 2


class Endpoint(Protocol):
    """Whatever carries messages to an enclave and back."""

    def hello(self, message: bytes) -> bytes:
        """Carry a hello; the welcome."""
        ...

    def query(self, message: bytes) -> bytes:
        """Carry a query; the answer."""
        ...


class InferenceSession:
    """A session with a verified enclave; made by `open_session`. Not for several threads at once."""

    def __init__(self, endpoint: Endpoint, welcome: Welcome, binding: Binding, verdict: Verdict) -> None:
        self._endpoint = endpoint
        self._welcome = welcome
        self._binding = binding
        self._verdict = verdict
        self._sequence = 0

    @property
    def card(self) -> ModelCard:
        """Which model the enclave serves, as its evidence says."""
        return self._welcome.card

    @property
    def seal(self) -> SealClaims:
        """What holds the worker, as its machine's evidence says."""
        return self._welcome.seal

    @property
    def verdict(self) -> Verdict:
        """What was concluded of its evidence; TRUSTED."""
        return self._verdict

    def predict(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Ask for a prediction, in as many queries as the rows need.

        Args:
            rows: numbers that are finite in 32 bits, [n, features], scaled as the model was trained.

        Returns:
            Probabilities, float32 [n, classes].

        Raises:
            InferenceError: ``inference.input`` for rows of another shape, or too many for a slow model;
                ``inference.sealed`` or ``inference.malformed`` for an answer that isn't the enclave's;
                what the endpoint raises.
        """
        if rows.ndim != 2 or not len(rows) or rows.shape[1] != self.card.features:
            raise _wrong_input(self.card)
        with np.errstate(over="ignore"):
            body = np.ascontiguousarray(rows, dtype=_FLOATS)
        if not np.isfinite(body).all():
            raise InferenceError("inference.input", "The input holds something else than finite numbers.")
        most = self.card.most_rows
        return np.concatenate([self._asked(body[at : at + most]) for at in range(0, len(body), most)])

    def _asked(self, rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        answer_key = bytearray(os.urandom(ANSWER_KEY_BYTES))
        try:
            query = self._sealed(rows, answer_key)
            message = query.encode()
            answer = Answer.decode(self._endpoint.query(message))
            return self._opened(answer, query, hashlib.sha256(message).digest(), answer_key, len(rows))
        finally:
            wipe(answer_key)

    def _sealed(self, rows: npt.NDArray[np.float32], answer_key: bytearray) -> Query:
        plain = bytearray(padded_size(INPUT_HEAD.size + rows.nbytes))
        INPUT_HEAD.pack_into(plain, 0, bytes(answer_key), *rows.shape)
        memoryview(plain)[INPUT_HEAD.size : INPUT_HEAD.size + rows.nbytes] = rows.data.cast("B")
        sequence, self._sequence = self._sequence, self._sequence + 1
        info = sealing_info(self._binding, "query", str(sequence))
        try:
            sealed = seal_to(self._welcome.public, plain, info)
        finally:
            wipe(plain)
        return Query(session_id(self._welcome.public), sequence, sealed)

    def _opened(
        self, answer: Answer, query: Query, asked: bytes, answer_key: bytearray, rows: int
    ) -> npt.NDArray[np.float32]:
        size = self.card.output_bytes(query.bucket)
        if answer.sequence != query.sequence or len(answer.sealed) != size + TAG_BYTES:
            raise malformed()
        plain = bytearray(size)
        try:
            AESGCM(answer_key).decrypt_into(answer.nonce, answer.sealed, asked, plain)
        except InvalidTag:
            raise InferenceError(
                "inference.sealed", "An answer doesn't open: it was sealed to another, or changed."
            ) from None
        outcome, count, classes = OUTPUT_HEAD.unpack_from(plain)
        if outcome == _TOO_LONG:
            raise InferenceError(
                "inference.input", "The model takes too long for so many rows.", "Ask for fewer at a time."
            )
        if outcome != _ACCEPTED:
            raise _wrong_input(self.card)
        if (count, classes) != (rows, self.card.classes):
            raise malformed()
        body = memoryview(plain)[OUTPUT_HEAD.size : OUTPUT_HEAD.size + count * classes * _FLOATS.itemsize]
        return np.frombuffer(body, _FLOATS).astype(np.float32).reshape(count, classes)


def open_session(
    endpoint: Endpoint,
    verifier: Verifier,
    policy: AppraisalPolicy,
    *,
    model_sha256: str | None = None,
    package_sha256: str | None = None,
    developer: str | None = None,
    seal: SealPolicy | None = None,
) -> InferenceSession:
    """Verify an enclave and open a session with it.

    Args:
        endpoint: carries the messages.
        verifier: with the roots and collateral that the client trusts.
        policy: what the client accepts.
        model_sha256: SHA-256 of the only model file that will do; None for whichever the enclave serves.
        package_sha256: SHA-256 of the only sealed package that will do, likewise.
        developer: id of the only key by which a sealed package may be signed, likewise.
        seal: which levels of sealing the client accepts; by default namespaces and a listener.

    Raises:
        AttestationError: the evidence proves less than the policy asks.
        SealedError: ``sealed.measure_missing`` where the worker is sealed otherwise.
        InferenceError: ``inference.other_model``, ``inference.malformed``; what the endpoint raises.
    """
    hello = Hello(os.urandom(NONCE_BYTES), policy.sha256)
    welcome = Welcome.decode(endpoint.hello(hello.encode()))
    binding = inference_binding(hello, welcome.public, welcome.card, welcome.seal)
    verdict = verifier.verify(welcome.evidence, expected=binding, policy=policy).require()
    (seal or SealPolicy()).require(welcome.seal)
    package = welcome.card.package
    if (
        model_sha256 not in (None, welcome.card.model_sha256)
        or package_sha256 not in (None, package and package.image_sha256)
        or developer not in (None, package and package.developer)
    ):
        raise InferenceError(
            "inference.other_model", "The enclave serves another model than the one asked for."
        )
    return InferenceSession(endpoint, welcome, binding, verdict)


def _wrong_input(card: ModelCard) -> InferenceError:
    return InferenceError(
        "inference.input", f"The model takes rows of {card.features} finite numbers, at least one."
    )
