"""Witnesses that the settings name, asked to see the logs' heads before a receipt is composed over them.

Rules kept here:

1. Whether each witness follows each log is asked before anything is trained, not after.
2. A witness that refuses a head ends the job without a receipt: it has seen another past of that log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from cloister.core.keys import open_key_store
from cloister.core.settings import Settings
from cloister.evidence import EvidenceLog, LogExtract
from cloister.evidence.errors import EvidenceError
from cloister.evidence.witness.continuation import Continuation
from cloister.evidence.witness.folder import open_witness
from cloister.evidence.witness.witness import Witness


def open_witnesses(settings: Settings, logs: Iterable[str]) -> tuple[Witness, ...]:
    """The witnesses that the settings name.

    Args:
        settings: The process's settings.
        logs: The names of the logs that each of them has to follow.

    Raises:
        EvidenceError: ``evidence.witness_refused`` if a folder holds no witness, or one doesn't follow a log.
        KeyStoreError: A witness's key can't be used.
    """
    wanted = sorted(logs)
    found = []
    for folder in settings.witnesses:
        store = open_key_store(settings, folder / "keys", owner=f"witness/{folder.resolve().name}")
        witness = open_witness(folder, store)
        missing = [log for log in wanted if not witness.follows(log)]
        if missing:
            raise EvidenceError(
                "evidence.witness_refused",
                f"The witness {witness.name} doesn't follow {', '.join(missing)}.",
                f"Let it:  cloister witness follow {folder} --log {missing[0]} --key FILE",
            )
        found.append(witness)
    return tuple(found)


def witnessed(
    extract: LogExtract, log: EvidenceLog, witnesses: Sequence[Witness], at: datetime
) -> LogExtract:
    """An extract whose head each witness has cosigned.

    Args:
        extract: What the log holds about a job.
        log: The log, which proves its head to each witness.
        witnesses: Who is asked.
        at: The time that the cosignatures state.

    Raises:
        EvidenceError: A witness has seen another past of the log, or a later head.
    """
    head = extract.checkpoint
    for witness in witnesses:
        held = witness.held_size(head.origin)
        proof = log.consistency_proof(held, head.size) if 0 < held <= head.size else ()
        head = witness.add_checkpoint(Continuation(held, proof, head), at)
    return replace(extract, checkpoint=head)
