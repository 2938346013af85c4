"""Reading what a run left in its workspace: the statements in a party's own log."""

from __future__ import annotations

from pathlib import Path

from cloister.evidence import EvidenceLog, Predicate, Role, log_origin, open_statement
from tests.system.tampering import party_key


def stated_in_log(workspace: Path, role: str, name: str) -> list[Predicate]:
    """Every statement in a party's log, of all its jobs, in the log's order."""
    log = EvidenceLog.open(
        workspace / "parties" / role / name / "log.sqlite",
        origin=log_origin(Role(role), name),
        signer=party_key(workspace, role, name),
    )
    try:
        return [open_statement(log.entry(index)).predicate for index in range(log.size)]
    finally:
        log.close()
