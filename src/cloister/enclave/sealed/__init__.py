"""The sealed worker: a process that alone sees plaintext records, and can do nothing but compute.

A node starts one fork server (`SealedHost`), has workers forked and sealed by it, hands each an encrypted
table and the key that was sealed to it (`SealedTrainer`), and gets weights back; at the end it gets a record
of what was destroyed. See `sealing` for what holds a worker, `filter` for the calls it may make, `frames`
for what crosses its border.
"""

from typing import TYPE_CHECKING

from cloister.core.first_use import on_first_use

if TYPE_CHECKING:
    from cloister.enclave.sealed.claims import Measure, SealClaims, SealLevel, SealPolicy, SealViolation
    from cloister.enclave.sealed.destruction import DestructionRecord
    from cloister.enclave.sealed.fingerprint import WatchedFiles
    from cloister.enclave.sealed.host import SealedHost, WorkerLimits
    from cloister.enclave.sealed.integrity import CodeChange, IntegrityMonitor
    from cloister.enclave.sealed.measured import MeasuredHost, start_measured
    from cloister.enclave.sealed.table import encrypt_table
    from cloister.enclave.sealed.trainer import OsStreams, SealedTrainer, SeededTestStreams, TrainingSetup
    from cloister.enclave.sealed.worker import SealedWorker

_HOMES = {
    "CodeChange": "integrity",
    "DestructionRecord": "destruction",
    "IntegrityMonitor": "integrity",
    "Measure": "claims",
    "MeasuredHost": "measured",
    "OsStreams": "trainer",
    "SealClaims": "claims",
    "SealLevel": "claims",
    "SealPolicy": "claims",
    "SealViolation": "claims",
    "SealedHost": "host",
    "SealedTrainer": "trainer",
    "SealedWorker": "worker",
    "SeededTestStreams": "trainer",
    "TrainingSetup": "trainer",
    "WatchedFiles": "fingerprint",
    "WorkerLimits": "host",
    "encrypt_table": "table",
    "start_measured": "measured",
}

__all__ = [
    "CodeChange",
    "DestructionRecord",
    "IntegrityMonitor",
    "Measure",
    "MeasuredHost",
    "OsStreams",
    "SealClaims",
    "SealLevel",
    "SealPolicy",
    "SealViolation",
    "SealedHost",
    "SealedTrainer",
    "SealedWorker",
    "SeededTestStreams",
    "TrainingSetup",
    "WatchedFiles",
    "WorkerLimits",
    "encrypt_table",
    "start_measured",
]

__getattr__ = on_first_use(__name__, _HOMES)
