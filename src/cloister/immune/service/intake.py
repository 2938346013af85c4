"""The way of a batch into the brain: one check after the other, the cheap ones first.

1. It is said to be JSON, not compressed (415).
2. There is room for at least one event (429), before anything is read.
3. It is of bounded size and comes in bounded time (413, 408).
4. Where there is a secret, it is signed with it (401), fresh (401) and new (409).
5. It is JSON (400) of the form (422) with so many events at most (413), none of them of the future (422): a
   clock may be ahead by as much as a signature's.
6. Of its events those are taken for which there is room; where there is for none, it is refused (429).
7. The brain takes them, or the sender tries again (503).

A batch that is refused after step 4 isn't remembered, so that it may come again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from cloister.immune.errors import ImmuneError
from cloister.immune.service.requests import Refused, read_body, require_json
from cloister.immune.service.signing import (
    WINDOW_SECONDS,
    Freshness,
    NonceBook,
    Proof,
    is_authentic,
    read_proof,
)
from cloister.immune.service.telemetry_form import (
    BatchForm,
    BatchRefused,
    TelemetryForm,
    read_batch,
    require_past,
)

if TYPE_CHECKING:
    from starlette.requests import Request

    from cloister.immune.service.brain_port import BrainPort
    from cloister.immune.service.limiter import EventLimiter
    from cloister.immune.service.metrics import ServiceMetrics

BODY_SECONDS: Final = 10.0
_STATUS: Final = {"syntax": 400, "schema": 422, "length": 413}


@dataclass(frozen=True, slots=True)
class Taken:
    """What is answered of a batch that came in.

    Attributes:
        taken: events that the brain took.
        limited: events that were left out because there were too many.
    """

    taken: int
    limited: int


class Intake:
    """Takes batches from requests.

    Args:
        brain: where they go.
        limiter: how many.
        metrics: what is counted of them.
        secret: what batches are signed with; None asks for no signature.
        nonces: what came in the last minutes.
        wall_clock: Unix time, seconds.
        max_events: of one batch.
        max_bytes: of one batch.
        body_seconds: that a body may take to come.
        brain_turn: lets one thread at a time use the brain.
    """

    def __init__(
        self,
        brain: BrainPort,
        limiter: EventLimiter,
        metrics: ServiceMetrics,
        *,
        secret: bytes | None,
        nonces: NonceBook,
        wall_clock: Callable[[], float],
        max_events: int,
        max_bytes: int,
        brain_turn: anyio.CapacityLimiter,
        body_seconds: float = BODY_SECONDS,
    ) -> None:
        self._brain, self._limiter, self._metrics = brain, limiter, metrics
        self._secret, self._nonces, self._wall_clock = secret, nonces, wall_clock
        self._max_events, self._max_bytes, self._body_seconds = max_events, max_bytes, body_seconds
        self._turn = brain_turn

    async def take(self, request: Request) -> Taken:
        """Take a batch in.

        Raises:
            Refused: with the status that says why.
            ClientDisconnect: the sender went away.
        """
        require_json(request)
        wait = self._limiter.retry_after()
        if wait > 0.0:
            raise self._flood(wait)
        body = await read_body(request, self._max_bytes, self._body_seconds)
        proof = self._require_proof(request, body)
        try:
            return await self._take_in(body)
        except BaseException:
            if proof is not None:
                self._nonces.release(proof)
            raise

    def _require_proof(self, request: Request, body: bytes) -> Proof | None:
        if self._secret is None:
            return None
        proof = read_proof(request.headers.get("authorization", ""))
        if proof is None or not is_authentic(self._secret, body, proof):
            raise _unproven("The batch isn't signed with this service's secret.")
        match self._nonces.claim(proof, self._wall_clock()):
            case Freshness.REPLAYED:
                raise Refused(409, ImmuneError("immune.telemetry_replayed", "This batch came before."))
            case Freshness.STALE:
                raise _unproven("The batch was signed too long ago, or by a clock that is ahead.")
            case Freshness.FULL:
                raise self._flood(1.0)
            case _:
                return proof

    async def _take_in(self, body: bytes) -> Taken:
        batch = self._read(body)
        admitted = self._limiter.admit([event.function_name for event in batch.events])
        events = [event for event, may in zip(batch.events, admitted, strict=True) if may]
        limited = len(batch.events) - len(events)
        self._metrics.limited(limited)
        if not events:
            raise self._flood(self._limiter.retry_after(len(batch.events)))
        await self._hand_over(events)
        self._metrics.taken(events)
        self._metrics.lost_by_sender(batch.dropped)
        return Taken(len(events), limited)

    def _read(self, body: bytes) -> BatchForm:
        try:
            batch = read_batch(body, self._max_events)
            require_past(batch, self._wall_clock() + WINDOW_SECONDS)
        except BatchRefused as refused:
            raise Refused(_STATUS[refused.fault], refused) from None
        return batch

    async def _hand_over(self, events: list[TelemetryForm]) -> None:
        try:
            await anyio.to_thread.run_sync(self._brain.take, events, limiter=self._turn)
        except Exception as error:
            raise Refused(
                503,
                ImmuneError(
                    "immune.state_unusable", f"The brain couldn't take the batch ({type(error).__name__})."
                ),
                retry_after=1.0,
            ) from error

    def _flood(self, wait: float) -> Refused:
        return Refused(
            429,
            ImmuneError("immune.telemetry_flood", "More events come than this service takes."),
            retry_after=wait,
        )


def _unproven(message: str) -> Refused:
    return Refused(401, ImmuneError("immune.telemetry_unproven", message))
