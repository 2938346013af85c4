"""How a worker behind its seal asks for a data key, and how its node carries that to a keeper and back.

Rules kept here:

1. The worker asks itself, once: it says what the machine's quote has to seal in, and opens the answer.
2. The request is composed by the node from what it knows: a worker that named the bytes could have the
   machine sign anything. One that wants something else quoted is killed.
3. What goes through the node is of no use to it: evidence and a key that is sealed to the worker.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from cloister.core.canonical import JSON
from cloister.core.hashes import Sha256Field
from cloister.enclave.errors import ReleaseError
from cloister.enclave.keyrelease.hpke import EnclaveKey
from cloister.enclave.keyrelease.messages import (
    MAX_SHORT_BYTES,
    REFUSAL,
    Ask,
    Challenge,
    Reply,
    Request,
    refused,
    release_binding,
)
from cloister.enclave.keyrelease.request import KeyRequest, Quote
from cloister.enclave.sealed.claims import SealClaims
from cloister.enclave.sealed.frames import protocol_error
from cloister.enclave.sealed.task import Answer

if TYPE_CHECKING:
    from cloister.enclave.keyrelease.wire import Keeper
    from cloister.enclave.sealed.worker import SealedWorker

ASK: Final = "ask"
_REPORT_DATA: Final = re.compile(r"[0-9a-f]{128}")
_Label = Annotated[str, Field(min_length=1, max_length=200)]


class AskRequest(BaseModel):
    """Fields of ``ask``: for which job or service, under which release policy, the keeper's challenge, and
    what holds this worker."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    scope: _Label
    policy_id: Sha256Field
    challenge: Annotated[str, Field(max_length=MAX_SHORT_BYTES)]
    seal: JsonValue


class KeyAsking:
    """The worker's side: its one request for a key.

    Args:
        key: the worker's, to which the data key is sealed; used up by the first request, or by `forgo`.
    """

    def __init__(self, key: EnclaveKey) -> None:
        self._key: EnclaveKey | None = key
        self._request: KeyRequest | None = None
        self._seal: SealClaims | None = None

    @property
    def seal(self) -> SealClaims | None:
        """What holds this worker, as it was told with the request; None before one."""
        return self._seal

    def forgo(self) -> bool:
        """Give the request up; False where one was made, or given up, before."""
        unused, self._key = self._key is not None, None
        return unused

    def ask(self, fields: dict[str, JSON]) -> Answer:
        """Answer ``ask``: what the machine's quote has to seal in.

        Raises:
            SealedError: ``sealed.protocol`` for another form, no challenge, or a second time.
        """
        try:
            asked = AskRequest.model_validate(fields)
        except ValidationError:
            raise protocol_error("a request has other fields than agreed") from None
        if self._key is None:
            raise protocol_error("a key is asked for once")
        key, self._key = self._key, None
        self._seal = SealClaims.from_json(asked.seal)
        self._request = KeyRequest(asked.scope, asked.policy_id, self._seal, key)
        try:
            report_data = self._request.bind(asked.challenge.encode())
        except ReleaseError:
            raise protocol_error("a challenge is not of its form") from None
        return Answer({"report_data": report_data.hex()})

    def taken(self) -> KeyRequest:
        """The request, once, to open its reply with.

        Raises:
            SealedError: ``sealed.protocol`` before a request was made, or after it was taken.
        """
        request, self._request = self._request, None
        if request is None:
            raise protocol_error("what a key opens comes once, after the key was asked for")
        return request


def let_ask(worker: SealedWorker, ask: Ask, challenge: bytes) -> bytes:
    """The node's side: let a worker ask for its key.

    Args:
        worker: asks.
        ask: for what, under which policy.
        challenge: what the key's keeper sent.

    Returns:
        What the machine's quote has to seal in: 64 bytes. All else of the request is public.

    Raises:
        SealedError: ``sealed.protocol`` for something that is no challenge, or a second time.
    """
    fields: dict[str, JSON] = {
        "scope": ask.scope,
        "policy_id": ask.policy_id,
        "challenge": challenge.decode("utf-8", "replace"),
        "seal": worker.claims.as_json(),
    }
    report_data = worker.request(ASK, fields).fields.get("report_data")
    if not isinstance(report_data, str) or not _REPORT_DATA.fullmatch(report_data):
        worker.kill()
        raise protocol_error("the worker does not say what is to be quoted")
    return bytes.fromhex(report_data)


def carry_request(worker: SealedWorker, ask: Ask, keeper: Keeper, quote: Quote) -> bytes:
    """The node's side: have a worker ask a keeper for its key.

    Args:
        worker: asks.
        ask: for what, under which policy.
        keeper: of the key, here or elsewhere.
        quote: the machine's attestation device.

    Returns:
        The keeper's reply, with the key sealed to the worker.

    Raises:
        ReleaseError: ``release.refused``; how the keeper can't be reached.
        SealedError: ``sealed.protocol`` where the worker wants something else quoted; it is dead.
        CloisterError: the machine gives no evidence.
    """
    challenge = keeper.challenge(ask.encode())
    if challenge == REFUSAL:
        raise refused()
    nonce = Challenge.decode(challenge).nonce
    named, public, seal = let_ask(worker, ask, challenge), worker.public_key, worker.claims
    report_data = release_binding(ask, nonce, public, seal).report_data()
    if named != report_data:
        worker.kill()
        raise protocol_error("a worker wants something else quoted than its request")
    reply = keeper.release(Request(ask, nonce, public, seal, quote(report_data)).encode())
    Reply.decode(reply)
    return reply
