"""What a provider states in its log: what was used, at even intervals, and how the worker ended.

Rules kept here:

* Counts are taken at a fixed interval and at the end, never per request: a bill doesn't tell which client
  asked for how many rows, as long as several ask in one interval.
* What can't be stated isn't billed.
* At the end the service is closed: the weights are wiped, the worker is killed and waited for, and what was
  done and looked at is stated. So is what ended the worker, if it wasn't the provider.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Final, Self

from cloister.core.clock import Clock, format_time
from cloister.core.errors import CloisterError
from cloister.core.logging import get_logger
from cloister.enclave.errors import SealBroken, SealedError
from cloister.enclave.inference.service import InferenceService
from cloister.enclave.sealed.destruction import state_destruction
from cloister.evidence.predicates import Incident, InferenceMetered, Violation
from cloister.evidence.statement import Subject
from cloister.evidence.writer import StatementSink

INTERVAL_SECONDS: Final = 3600.0
LEAST_SECONDS: Final = 60.0
_RULE: Final = "sealed-worker"


class Metering:
    """Meters a service while it is open, and ends it; use it in a ``with`` block.

    Args:
        service: what is metered; closed at the end.
        log: the provider's own.
        clock: dates what is stated.
        seconds: the interval, at least a minute.
    """

    def __init__(
        self, service: InferenceService, log: StatementSink, clock: Clock, seconds: float = INTERVAL_SECONDS
    ) -> None:
        self._service, self._log, self._clock = service, log, clock
        self._seconds = max(LEAST_SECONDS, seconds)
        self._since = format_time(clock())
        self._subject = Subject("model", service.card.artifact_sha256)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="inference-metering", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        self._attempt()
        record = self._service.close()
        try:
            self._state_end()
        finally:
            state_destruction(self._log, record, self._subject)

    def meter(self) -> None:
        """State what was used since this was last done.

        Raises:
            SealedError: the worker is dead; what was used is lost, to the provider's cost.
            StorageError: it wasn't stated, and is lost likewise.
        """
        bill = self._service.take_bill()
        start, self._since = self._since, max(self._since, format_time(self._clock()))
        self._log.write(
            InferenceMetered,
            [self._subject],
            model_sha256=self._service.card.artifact_sha256,
            period_start=start,
            period_end=self._since,
            simulated=self._service.simulated,
            **bill.as_json(),
        )

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            self._attempt()

    def _attempt(self) -> None:
        try:
            self.meter()
        except CloisterError as error:
            get_logger("enclave").error("inference.unmetered", code=error.code)

    def _state_end(self) -> None:
        end = self._service.end
        if end is None or end.code == "sealed.code_changed":  # stated by who watches the code
            return
        detail = "; ".join(end.details) or end.message
        if _is_violation(end):
            self._log.write(Violation, [self._subject], rule=_RULE, detail=detail, artifact_sha256=None)
            return
        self._log.write(
            Incident,
            [self._subject],
            incident_class="inference-worker-ended",
            severity="high",
            detail=detail,
            detected_at=format_time(self._clock()),
            response="The service has stopped; nothing took the worker's place.",
        )


def _is_violation(end: SealedError) -> bool:
    return isinstance(end, SealBroken) or end.code == "sealed.protocol"
