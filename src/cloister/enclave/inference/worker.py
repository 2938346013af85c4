"""Inside the enclave: a model, its sessions, and predictions that only who asked can read.

Pure functions on bytes: what carries the messages, and how the machine's evidence is got, is given from
outside.

Rules kept here:

* Each hello gets a key of its own, made here, of which the private half is never shown.
* A session takes rising sequence numbers only, and lives an hour or until it is ended. There is a bounded
  number of them; when all are taken a new one is refused, and none makes way for another.
* Whether an input was of the right shape is said inside the sealed answer. Outside, an accepted and a refused
  input of one bucket look alike.
* However slow a model is, one query holds the others up for a bounded time.
* Input, output and answer key are wiped when the answer is made, as far as buffers are ours.
* What is counted is counts.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from cloister.core.sealing import wipe
from cloister.enclave.attestation.binding import Binding
from cloister.enclave.errors import InferenceError, ReleaseError
from cloister.enclave.inference.card import INPUT_HEAD, OUTPUT_HEAD, ModelCard
from cloister.enclave.inference.messages import (
    ANSWER_KEY_BYTES,
    MAX_SESSIONS,
    Answer,
    Hello,
    Query,
    inference_binding,
    session_id,
)
from cloister.enclave.inference.refusals import busy, malformed
from cloister.enclave.keyrelease.hpke import EnclaveKey, sealing_info
from cloister.enclave.sealed.claims import SealClaims

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

SESSION_SECONDS: Final = 3600.0
PREDICTION_SECONDS: Final = 20.0
FAST_SECONDS: Final = 0.05
ACCEPTED: Final = 0
WRONG_INPUT: Final = 1
TOO_LONG: Final = 2
LITTLE_ENDIAN: Final = np.dtype("<f4")

Predictor = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]
"""Takes rows, float32 [n, features]; answers with probabilities, float32 [n, classes]."""


@dataclass(frozen=True)
class Counts:
    """What was used since the counts were last taken.

    Attributes:
        requests: answered with a prediction.
        predictions: rows in them.
    """

    requests: int = 0
    predictions: int = 0

    def as_json(self) -> dict[str, JSON]:
        """The counts as plain JSON values."""
        return {"requests": self.requests, "predictions": self.predictions}


@dataclass
class _Session:
    key: EnclaveKey
    binding: Binding
    opened_at: float
    last: int = -1


class InferenceWorker:
    """Serves one model to many clients, one message at a time.

    Args:
        card: which model it is.
        seal: what holds the process that this is in.
        predict: the model.
        monotonic: seconds that never run backwards; the machine's wall clock isn't believed here.
    """

    def __init__(
        self,
        card: ModelCard,
        seal: SealClaims,
        predict: Predictor,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._card = card
        self._seal = seal
        self._predict = predict
        self._monotonic = monotonic
        self._sessions: dict[bytes, _Session] = {}
        self._counts = Counts()

    @property
    def card(self) -> ModelCard:
        """Which model is served."""
        return self._card

    def try_out(self) -> None:
        """Have the model answer a row of zeros.

        Raises:
            InferenceError: ``inference.worker`` where it doesn't, or in another shape than its card says.
        """
        try:
            answered = self._predict(np.zeros((1, self._card.features), np.float32))
        except Exception:
            raise _useless() from None
        if answered.shape != (1, self._card.classes):
            raise _useless()

    def hello(self, message: bytes) -> bytes:
        """Open a session.

        Args:
            message: a client's hello, at most 4 KiB.

        Returns:
            The session's public key. What the machine has to seal into its evidence is `inference_binding` of
            it; whoever asks the machine computes that by itself.

        Raises:
            InferenceError: ``inference.malformed``; ``inference.busy`` where as many sessions are open as
                there may be.
        """
        hello = Hello.decode(message)
        self._drop_outlived()
        if len(self._sessions) >= MAX_SESSIONS:
            raise busy()
        key = EnclaveKey()
        binding = inference_binding(hello, key.public_bytes, self._card, self._seal)
        self._sessions[session_id(key.public_bytes)] = _Session(key, binding, self._monotonic())
        return key.public_bytes

    def end(self, session: bytes) -> None:
        """Forget a session, if there is one of this id."""
        self._sessions.pop(session, None)

    def query(self, message: bytes) -> bytes:
        """Predict.

        Args:
            message: a client's query.

        Returns:
            The answer. A wrong input is said in it, sealed.

        Raises:
            InferenceError: ``inference.malformed``, ``inference.session``, ``inference.replay`` or
                ``inference.sealed``: what can't be answered under the client's key.
        """
        query = Query.decode(message)
        if query.bucket > self._card.largest_bucket:
            raise malformed()
        return self._answered(query, self._session(query), hashlib.sha256(message).digest())

    def take_counts(self) -> Counts:
        """What was used since this was last asked."""
        taken, self._counts = self._counts, Counts()
        return taken

    def _answered(self, query: Query, session: _Session, asked: bytes) -> bytes:
        info = sealing_info(session.binding, "query", str(query.sequence))
        try:
            plain = session.key.open(query.sealed, info)
        except ReleaseError:
            raise InferenceError(
                "inference.sealed", "A query doesn't open: it was sealed to another, or changed."
            ) from None
        # Only what opens moves the session on: bytes that anybody makes up use no number up.
        session.last = query.sequence
        output = bytearray(self._card.output_bytes(query.bucket))
        try:
            self._fill(output, plain)
            nonce = os.urandom(12)
            sealed = AESGCM(memoryview(plain)[:ANSWER_KEY_BYTES]).encrypt(nonce, output, asked)
        finally:
            wipe(plain)
            wipe(output)
        return Answer(query.sequence, nonce, sealed).encode()

    def _session(self, query: Query) -> _Session:
        self._drop_outlived()
        session = self._sessions.get(query.session)
        if session is None:
            raise InferenceError("inference.session", "The session is unknown, or its time has passed.")
        if query.sequence <= session.last:
            raise InferenceError("inference.replay", "A query came again, or out of its order.")
        return session

    def _drop_outlived(self) -> None:
        oldest = self._monotonic() - SESSION_SECONDS
        for name in [name for name, one in self._sessions.items() if one.opened_at < oldest]:
            del self._sessions[name]

    def _fill(self, output: bytearray, plain: bytearray) -> None:
        rows = _rows(plain, self._card)
        if rows is None:
            OUTPUT_HEAD.pack_into(output, 0, WRONG_INPUT, 0, 0)
            return
        found = np.empty((len(rows), self._card.classes), LITTLE_ENDIAN)
        outcome = self._predicted(rows, found)
        if outcome != ACCEPTED:
            OUTPUT_HEAD.pack_into(output, 0, outcome, 0, 0)
            return
        OUTPUT_HEAD.pack_into(output, 0, ACCEPTED, *found.shape)
        memoryview(output)[OUTPUT_HEAD.size : OUTPUT_HEAD.size + found.nbytes] = found.data.cast("B")
        found.fill(0)
        self._counts = Counts(self._counts.requests + 1, self._counts.predictions + len(rows))

    def _predicted(self, rows: npt.NDArray[np.float32], found: npt.NDArray[np.float32]) -> int:
        """Have the model answer a few rows at a time, ever more while that is fast; what came of it."""
        deadline, done, slice_rows = self._monotonic() + PREDICTION_SECONDS, 0, 1
        while done < len(rows):
            began = self._monotonic()
            if began > deadline:
                return TOO_LONG
            part = rows[done : done + slice_rows]
            try:
                answered = self._predict(part)
            except Exception:
                # A model that chokes on an input must neither stop the others nor say anything of it outside.
                return WRONG_INPUT
            if answered.shape != (len(part), self._card.classes):
                raise _useless()
            found[done : done + len(part)] = answered
            done += len(part)
            if self._monotonic() - began < FAST_SECONDS:
                slice_rows *= 4
        return ACCEPTED


def _useless() -> InferenceError:
    return InferenceError("inference.worker", "The model doesn't answer a row as its card says it does.")


def _rows(plain: bytearray, card: ModelCard) -> npt.NDArray[np.float32] | None:
    """The rows of an opened input, in place, or None where it isn't of the one form that the card allows."""
    _, count, features = INPUT_HEAD.unpack_from(plain)
    size = count * features * LITTLE_ENDIAN.itemsize
    body = memoryview(plain)[INPUT_HEAD.size :]
    if features != card.features or not 0 < count <= card.rows_in(len(plain)) or size > len(body):
        return None
    if np.frombuffer(body[size:], np.uint8).any():
        return None
    rows = np.ascontiguousarray(np.frombuffer(body[:size], LITTLE_ENDIAN), np.float32).reshape(
        count, features
    )
    return rows if np.isfinite(rows).all() else None
