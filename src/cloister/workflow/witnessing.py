"""Witnesses that the settings name, asked to see the logs' heads before a receipt is composed over them.

Rules kept here:

1. Before anything is stated or spent, each witness cosigns each log's head as it is, and knows the key that
   signs the next ones. What would be refused at the end is refused then.
2. A witness that refuses a head at the end ends the job without a receipt: it saw another past meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from cloister.core.errors import CloisterError
from cloister.core.keys import open_key_store
from cloister.core.settings import Settings
from cloister.evidence import EvidenceLog, LogExtract
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import log_owner
from cloister.evidence.witness.continuation import Continuation
from cloister.evidence.witness.folder import open_witness
from cloister.evidence.witness.rules import rolled_back
from cloister.evidence.witness.witness import Witness


def open_witnesses(settings: Settings, logs: Iterable[EvidenceLog], at: datetime) -> tuple[Witness, ...]:
    """The witnesses that the settings name, each ready to cosign what the job adds to the logs.

    Args:
        settings: The process's settings.
        logs: The logs whose heads each of them has to cosign.
        at: The time.

    Raises:
        CloisterError: A folder holds no witness, or a witness won't cosign: it doesn't follow a log, doesn't
            know its key, has seen more of it or another past, or can't keep what it sees. The message says
            which witness and which logs, the hint what to do.
    """
    wanted = sorted(logs, key=lambda log: log.origin)
    found = []
    for folder in settings.witnesses:
        store = open_key_store(settings, folder / "keys", owner=f"witness/{folder.resolve().name}")
        witness = open_witness(folder, store)
        unknown = [log.origin for log in wanted if not witness.follows(log.origin, log.public_key)]
        if unknown:
            raise _unknown(witness, folder, unknown)
        try:
            witness.require_ready(at)
            for log in wanted:
                _show_head(witness, log, at)
        except CloisterError as error:
            raise type(error)(
                error.code,
                f"The witness {witness.name} in {folder} won't cosign: {error.message}",
                error.hint,
                details=error.details,
            ) from error
        found.append(witness)
    return tuple(found)


def _unknown(witness: Witness, folder: Path, logs: Sequence[str]) -> EvidenceError:
    role, party = log_owner(logs[0])
    return EvidenceError(
        "evidence.witness_refused",
        f"The witness {witness.name} doesn't follow {', '.join(logs)} by the key that signs it now.",
        f"Write that key:  cloister pki key --role {role.value} --party {party} --out FILE  and let it:  "
        f"cloister witness follow {folder} --log {logs[0]} --key FILE",
    )


def _show_head(witness: Witness, log: EvidenceLog, at: datetime) -> None:
    head, held = log.checkpoint(), witness.held_size(log.origin)
    if head.size:
        witness.add_checkpoint(_continuation(witness, log, head), at)
    elif held:
        raise rolled_back(log.origin, 0, held)


def show_head(witnesses: Sequence[Witness], log: EvidenceLog, at: datetime) -> None:
    """Have each witness cosign a log's head, so that setting the log back to before it is found out.

    Args:
        witnesses: Who is asked.
        log: The log, which proves its head to each of them.
        at: The time that the cosignatures state.

    Raises:
        EvidenceError: A witness has seen another past of the log, or a later head.
    """
    for witness in witnesses:
        _show_head(witness, log, at)


def _continuation(witness: Witness, log: EvidenceLog, head: Checkpoint) -> Continuation:
    held = witness.held_size(head.origin)
    proof = log.consistency_proof(held, head.size) if 0 < held <= head.size else ()
    return Continuation(held, proof, head)


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
        head = witness.add_checkpoint(_continuation(witness, log, head), at)
    return replace(extract, checkpoint=head)
