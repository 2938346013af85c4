"""The operator's side of an inference: has a worker sealed, and carries messages that it can't read.

Rules kept here:

* A sealed package is checked here and opened by the worker, which asks the developer's keeper for its key.
* The worker is a sealed one. Queries and answers pass through as they are: of a query, its session, number
  and size are read, which are in the open; nothing of it is logged or kept. The log has events and counts.
* Card, welcome and what the machine seals into its evidence are composed here, from what is known here. A
  worker that says otherwise is dead; it can have the machine sign nothing.
* A client's session lives with its connection (`Line`): nobody asks in it over another, and nobody who
  connects ends it. There are as many as the worker takes; beyond that who comes is refused.
* A worker that is silent for too long, speaks out of turn or makes a call that it may not make is dead, and
  none takes its place: every further message is refused.
* What was used, and how the worker ended, is for the operator's log (`cloister.enclave.inference.metering`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from cloister.core.closing import Closing
from cloister.core.errors import CloisterError
from cloister.core.logging import get_logger
from cloister.enclave.errors import InferenceError, PackageError, SealedError
from cloister.enclave.inference.card import ModelCard, ModelDescription, card_of
from cloister.enclave.inference.line import Line
from cloister.enclave.inference.messages import (
    MAX_ANSWER_BYTES,
    TAG_BYTES,
    Answer,
    Hello,
    Query,
    Welcome,
    inference_binding,
    session_id,
)
from cloister.enclave.inference.network import count_weights
from cloister.enclave.inference.packaging import packaged_card, serving_scope
from cloister.enclave.inference.refusals import busy, malformed, refused, stopped
from cloister.enclave.inference.tally import Bill, Tally
from cloister.enclave.keyrelease.hpke import PUBLIC_BYTES
from cloister.enclave.keyrelease.messages import Ask
from cloister.enclave.keyrelease.request import Quote
from cloister.enclave.model_file import count_numbers
from cloister.enclave.package import check_package
from cloister.enclave.sealed.asking import carry_request
from cloister.enclave.sealed.destruction import Held
from cloister.enclave.sealed.frames import protocol_error
from cloister.enclave.sealed.host import SealedHost, WorkerLimits

if TYPE_CHECKING:
    from cloister.core.canonical import JSON
    from cloister.core.keys import PublicKey
    from cloister.enclave.keyrelease.wire import Keeper
    from cloister.enclave.sealed.claims import SealClaims, SealPolicy
    from cloister.enclave.sealed.destruction import DestructionRecord
    from cloister.enclave.sealed.worker import SealedWorker

TASK: Final = "inference"
WAIT_SECONDS: Final = 30.0
"""How long a message waits for the others before it is refused as one too many."""
ANSWER_SECONDS: Final = 60.0
WORKING_BYTES: Final = 4 * 1024**3
"""Address space beside the model: the libraries (about 1 GiB) and what one slice of rows needs."""
_MODEL_COPIES: Final = 8
"""Of what comes in: as it came, opened, decoded, encoded again to compare, and the model's own."""
_WEIGHT_BYTES: Final = 4
"""Behind the seal weights are float32, whatever they are in the file."""


def limits_for(size: int) -> WorkerLimits:
    """What a worker may use that serves what came in so many bytes; processor time doesn't end a service."""
    return WorkerLimits(
        memory_bytes=WORKING_BYTES + _MODEL_COPIES * size,
        cpu_seconds=10 * 365 * 24 * 3600,
        answer_seconds=ANSWER_SECONDS,
    )


def ignore_end() -> None:
    """For a caller that learns of the worker's end by the next error."""


class InferenceService(Closing):
    """A sealed worker that serves, and the way to it; made by `start`. Clients come by `connect`."""

    def __init__(self, worker: SealedWorker, card: ModelCard, quote: Quote, *, simulated: bool) -> None:
        self._worker, self._card, self._quote = worker, card, quote
        self.simulated = simulated
        self._lock = threading.Lock()
        self._tally = Tally()
        self._end: SealedError | None = None
        self.on_end: Callable[[], None] = ignore_end

    @classmethod
    def start(
        cls,
        host: SealedHost,
        description: ModelDescription,
        model: bytes,
        *,
        quote: Quote,
        simulated: bool,
        policy: SealPolicy | None = None,
    ) -> InferenceService:
        """Have a worker sealed, and give it a model.

        Args:
            host: the fork server; it has to outlive the service.
            description: what the weights belong to.
            model: the model file.
            quote: the machine's evidence for 64 bytes of report data.
            simulated: whether the machine is a simulation; stated with what was used.
            policy: which levels of sealing are acceptable; by default namespaces and a listener.

        Raises:
            SealedError: ``sealed.measure_missing`` and the others of `SealedHost.worker`.
            CloisterError: the model doesn't fit its description, or is no model file.
        """
        card = card_of(description.as_json(), model)
        worker = host.worker(TASK, policy=policy, limits=limits_for(len(model)))
        try:
            fields: dict[str, JSON] = {"description": description.as_json(), "seal": worker.claims.as_json()}
            _require_same(worker.request("load", fields, model).fields, card)
            weights = count_numbers(model)
        except BaseException:
            worker.kill()
            raise
        return cls._started(worker, card, weights, quote, simulated=simulated)

    @classmethod
    def start_package(
        cls,
        host: SealedHost,
        image: bytes,
        developer: PublicKey,
        *,
        keeper: Keeper,
        policy_id: str,
        quote: Quote,
        simulated: bool,
        policy: SealPolicy | None = None,
    ) -> InferenceService:
        """Check a developer's sealed package, have a worker sealed, and let it ask for the package's key.

        The package is opened by the worker. Nothing here can, and no weight of it passes through here.

        Args:
            host: the fork server; it has to outlive the service.
            image: the package.
            developer: the only key whose signature counts.
            keeper: the developer's; it releases the package's key, or doesn't.
            policy_id: the release policy to ask under.
            quote: the machine's evidence for 64 bytes of report data.
            simulated: whether the machine is a simulation; stated with what was used.
            policy: which levels of sealing are acceptable; by default namespaces and a listener.

        Raises:
            PackageError: as `cloister.enclave.package.check_package`; ``package.key`` where another key came.
            ReleaseError: ``release.refused``; the keeper's log says why.
            SealedError: ``sealed.measure_missing`` and the others of `SealedHost.worker`.
            CloisterError: what is in the package isn't the model that it is described as.
        """
        package = check_package(image, developer)
        card = packaged_card(package, developer)
        weights = count_weights(card)
        if _WEIGHT_BYTES * weights > package.manifest.sealed_bytes:
            raise PackageError("package.malformed", "The package is too small for the model it describes.")
        worker = host.worker(TASK, policy=policy, limits=limits_for(len(image)))
        try:
            ask = Ask(serving_scope(package.manifest), policy_id)
            reply = carry_request(worker, ask, keeper, quote)
            fields: dict[str, JSON] = {"developer": developer.pem, "reply": reply.decode("utf-8", "replace")}
            _require_same(worker.request("package", fields, image).fields, card)
        except BaseException:
            worker.kill()
            raise
        return cls._started(worker, card, weights, quote, simulated=simulated)

    @classmethod
    def _started(
        cls, worker: SealedWorker, card: ModelCard, weights: int, quote: Quote, *, simulated: bool
    ) -> InferenceService:
        # Named in the record of its end; what clients ask is in no locked buffer.
        worker.held = Held((card.artifact_sha256,), bytes=_WEIGHT_BYTES * weights)
        get_logger("enclave").info("inference.started", seal=worker.claims.level.value, simulated=simulated)
        return cls(worker, card, quote, simulated=simulated)

    @property
    def card(self) -> ModelCard:
        """Which model is served."""
        return self._card

    @property
    def seal(self) -> SealClaims:
        """What holds the worker."""
        return self._worker.claims

    def connect(self) -> Line:
        """A way to the worker for one client."""
        return Line(self._greet, self._carry, self._forget)

    def take_bill(self) -> Bill:
        """What was used since this was last asked.

        Raises:
            SealedError: the worker is dead, or was ended for counts that can't be true; what was used is
                lost, to the operator's cost.
        """
        with self._lock:
            said, _ = self._request("count", b"")
            tally, self._tally = self._tally, Tally()
            try:
                return tally.billed(said)
            except SealedError as error:
                raise self._ended(error) from None

    @property
    def end(self) -> SealedError | None:
        """What ended the worker, if something did."""
        return self._end

    def require_running(self) -> None:
        """Raise what ended the worker, if something did.

        Raises:
            SealedError: see `cloister.enclave.sealed.ends.error_of_end`.
        """
        if self._end is not None:
            raise self._end

    def close(self) -> DestructionRecord:
        """Have the worker wipe its weights, kill it, and wait for it; what was done and seen."""
        with self._lock:
            return self._worker.close()

    def _greet(self, message: bytes) -> tuple[bytes, bytes]:
        hello = Hello.decode(message)
        with self._turn():
            said, _ = self._request("hello", message)
            public = _public_key(said)
            if public is None:
                raise self._ended(protocol_error("a worker answers a hello with something else than a key"))
            self._tally.sessions += 1
        session = session_id(public)
        try:
            # Others are served meanwhile: a machine may take its time.
            binding = inference_binding(hello, public, self._card, self.seal)
            evidence = self._quote(binding.report_data())
            return Welcome(self._card, self.seal, public, evidence).encode(), session
        except BaseException:
            self._forget(session)
            raise

    def _carry(self, message: bytes, query: Query) -> bytes:
        if query.bucket > self._card.largest_bucket:
            raise malformed()
        with self._turn():
            try:
                said, answer = self._request("query", message, MAX_ANSWER_BYTES)
            except CloisterError:
                self._tally.refused += 1
                raise
            if said or not self._answers(answer, query):
                raise self._ended(protocol_error("a worker answers a query otherwise than was agreed"))
            self._tally.answered += 1
            self._tally.rows += self._card.rows_in(query.bucket)
            return answer

    def _answers(self, message: bytes, query: Query) -> bool:
        """Whether an answer has the number and the one size that it can have; its content is the client's."""
        try:
            answer = Answer.decode(message)
        except InferenceError:
            return False
        size = self._card.output_bytes(query.bucket) + TAG_BYTES
        return answer.sequence == query.sequence and len(answer.sealed) == size

    def _forget(self, session: bytes) -> None:
        with self._lock:
            if not self._worker.alive:
                return
            try:
                self._request("end", session)
            except CloisterError as error:
                get_logger("enclave").info("inference.refused", code=error.code)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=WAIT_SECONDS):
            raise busy()
        try:
            yield
        finally:
            self._lock.release()

    def _request(self, kind: str, message: bytes, most: int = 0) -> tuple[dict[str, JSON], bytes]:
        try:
            answer = self._worker.request(kind, payload=message, most=most)
        except CloisterError as error:
            if not self._worker.alive:
                raise self._ended(error) from None
            get_logger("enclave").info("inference.refused", code=error.code)
            raise (busy() if error.code == "inference.busy" else refused()) from None
        return answer.fields, bytes(answer.payload)

    def _ended(self, error: CloisterError) -> CloisterError:
        """Take note of the worker's end, once; the error to raise."""
        self._worker.kill()
        if self._end is None and isinstance(error, SealedError):
            self._end = error
            get_logger("enclave").warning("inference.worker-ended", code=error.code)
            self.on_end()
        return error if isinstance(error, SealedError) else stopped()


def _require_same(said: dict[str, JSON], card: ModelCard) -> None:
    if said != {"card": card.as_json()}:
        raise protocol_error("a worker shows another card than its model's")


def _public_key(said: dict[str, JSON]) -> bytes | None:
    text = said.get("public_key")
    if said.keys() != {"public_key"} or not isinstance(text, str) or len(text) != 2 * PUBLIC_BYTES:
        return None
    try:
        public = bytes.fromhex(text)
    except ValueError:
        return None
    return public if public.hex() == text else None
