"""Inference behind the seal: a model in, then hello after hello and query after query.

Requests: ``load`` (once), or ``ask`` and then ``package`` (once each); after that ``hello``, ``query``,
``end`` and ``count`` in any order. Rules kept here:

1. Weights come in as a payload, or in a developer's sealed package, whose key this worker has asked for and
   alone can open. Whose they are is said beside them; file or package is hashed here, a package's signature
   is checked here too, and the model answers a row before anything is served.
2. A hello is answered with the session's public key. Who composes the welcome, and asks the machine for the
   evidence in it, is outside: a worker has no way to the machine's device, and no say in what it seals in.
3. Nothing goes out but the model's card, public keys, answers sealed to who asked, and counts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from cloister.core.canonical import JSON
from cloister.core.errors import KeyStoreError
from cloister.core.keys import PublicKey
from cloister.core.sealing import wipe
from cloister.enclave.errors import PackageError, ReleaseError
from cloister.enclave.inference.card import ModelCard, card_of
from cloister.enclave.inference.messages import MAX_HELLO_BYTES, MAX_QUERY_BYTES, SESSION_BYTES
from cloister.enclave.inference.network import Network, load_network
from cloister.enclave.inference.packaging import model_in, packaged_card
from cloister.enclave.inference.worker import InferenceWorker
from cloister.enclave.keyrelease.hpke import EnclaveKey
from cloister.enclave.model_file import DEFAULT_MAX_BYTES
from cloister.enclave.package import MAX_IMAGE_BYTES, check_package
from cloister.enclave.sealed.asking import KeyAsking
from cloister.enclave.sealed.claims import SealClaims
from cloister.enclave.sealed.frames import protocol_error
from cloister.enclave.sealed.task import Answer, Payload


class InferenceTask:
    """Serves one model.

    Args:
        private_key: the worker's, to which a package's key is sealed; each session has a key of its own.
    """

    NAME: ClassVar[str] = "inference"

    def __init__(self, private_key: EnclaveKey) -> None:
        self._asking = KeyAsking(private_key)
        self._network: Network | None = None
        self._worker: InferenceWorker | None = None

    def handle(
        self, kind: str, fields: dict[str, JSON], payload: Payload, aborted: Callable[[], bool]
    ) -> Answer:
        """See `SealedTask.handle`."""
        del aborted
        match kind:
            case "load":
                return self._load(fields, payload)
            case "ask":
                return self._asking.ask(fields)
            case "package":
                return self._open(fields, payload)
        worker = self._worker
        if worker is None or fields:
            raise protocol_error("a model comes first, and nothing beside a message")
        match kind:
            case "hello":
                return Answer({"public_key": worker.hello(bytes(payload.whole(MAX_HELLO_BYTES))).hex()})
            case "query":
                return Answer(payload=worker.query(bytes(payload.whole(MAX_QUERY_BYTES))))
            case "end":
                worker.end(bytes(payload.whole(SESSION_BYTES)))
                return Answer()
            case "count":
                return Answer(worker.take_counts().as_json())
        raise protocol_error("an unknown request came")

    def wipe(self) -> tuple[int, int]:
        """See `SealedTask.wipe`: the weights. Sessions' keys are a library's, and end with the process."""
        self._worker = None
        return (0, 0) if self._network is None else self._network.wipe()

    def _load(self, fields: dict[str, JSON], payload: Payload) -> Answer:
        if not self._asking.forgo() or fields.keys() != {"description", "seal"}:
            raise protocol_error("a model comes once, with its description and what holds the worker")
        model = bytes(payload.whole(DEFAULT_MAX_BYTES))
        return self._serve(card_of(fields["description"], model), SealClaims.from_json(fields["seal"]), model)

    def _open(self, fields: dict[str, JSON], payload: Payload) -> Answer:
        asked, seal = self._asking.taken(), self._asking.seal
        pem, reply = fields.get("developer"), fields.get("reply")
        if seal is None or len(fields) != 2 or not isinstance(pem, str) or not isinstance(reply, str):
            raise protocol_error("a package comes with its developer's key and the keeper's reply")
        try:
            developer = PublicKey.from_pem(pem)
        except KeyStoreError:
            raise protocol_error("a package comes with its developer's key") from None
        package = check_package(bytes(payload.whole(MAX_IMAGE_BYTES)), developer)
        card = packaged_card(package, developer)
        try:
            key = asked.open(reply.encode(), dataset=package.manifest.dataset)
        except ReleaseError:
            raise PackageError("package.key", "The key is not for this worker and package.") from None
        try:
            model = model_in(package, key)
        finally:
            wipe(key)
        return self._serve(card, seal, model)

    def _serve(self, card: ModelCard, seal: SealClaims, model: bytes) -> Answer:
        self._network = load_network(card, model)
        worker = InferenceWorker(card, seal, self._network)
        worker.try_out()
        self._worker = worker
        return Answer({"card": card.as_json()})
