"""How a site's records come into its sealed worker: under a released key, or in an insecure run without one.

Rules kept here:

1. What holds the worker is stated before it gets anything, whichever way that is.
2. A run without protection asks for no key. That its worker had none is stated as an incident before the
   records go, and no verifier accepts a receipt of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from cloister.core.clock import Clock, format_time
from cloister.core.hashes import Sha256, sha256_hex
from cloister.enclave.keyrelease import enclave_key_id
from cloister.enclave.protection import RECORDS_WITHOUT_KEY
from cloister.enclave.sealed import SealedTrainer, SealedWorker
from cloister.enclave.sealed.plain_table import plain_table
from cloister.evidence.predicates import Incident, WorkerSealed
from cloister.evidence.statement import Subject
from cloister.evidence.writer import StatementSink
from cloister.health import SiteRecords, require_readable
from cloister.health.schema import TableSchema

_INSECURE: Final = {
    "incident_class": RECORDS_WITHOUT_KEY,
    "severity": "high",
    "detail": "INSECURE: started without protection, so the records went to the worker without a key.",
    "response": "No key was asked for. No verifier accepts the receipt, and the model is not released.",
}


class Handover(Protocol):
    """Brings a site's records into its worker."""

    def state_seal(self, worker: SealedWorker) -> None:
        """State what holds a worker, before it gets anything.

        Raises:
            EvidenceError: it can't be stated.
        """
        ...

    def give(self, trainer: SealedTrainer, job_id: str, data: SiteRecords, schema: TableSchema) -> None:
        """Bring the records into a worker.

        Args:
            trainer: of the worker.
            job_id: what it works for.
            data: the site's records.
            schema: what is declared of them.

        Raises:
            ReleaseError: ``release.refused``: the keeper refuses its key. Nothing was handed over.
            CloisterError: a key can't be made or read, or the worker refused the table.
        """
        ...


def state_worker_sealed(worker: SealedWorker, log: StatementSink) -> None:
    """State what holds a worker.

    Raises:
        EvidenceError: it can't be stated.
    """
    key_id = enclave_key_id(worker.public_key)
    subject = Subject("sealed worker", Sha256(key_id.removeprefix("sha256:")))
    log.write(WorkerSealed, [subject], enclave_key=key_id, **worker.claims.as_json())


@dataclass(frozen=True)
class HandoverWithoutKey:
    """What a run without protection has in place of a keeper.

    Attributes:
        log: states that the worker had no key, before it gets the records.
        clock: the time.
    """

    log: StatementSink
    clock: Clock

    def state_seal(self, worker: SealedWorker) -> None:
        """See `Handover.state_seal`."""
        state_worker_sealed(worker, self.log)

    def give(self, trainer: SealedTrainer, job_id: str, data: SiteRecords, schema: TableSchema) -> None:
        """See `Handover.give`.

        Raises:
            HealthError: ``health.sealed``: without a key nobody opens a sealed table.
        """
        readable = require_readable(data, "A run without protection")
        subject = Subject(f"job {job_id}", sha256_hex(job_id.encode("ascii")))
        self.log.write(Incident, [subject], **_INSECURE, detected_at=format_time(self.clock()))
        trainer.load_plain(plain_table(readable, schema))
