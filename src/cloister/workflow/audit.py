"""Audits of a workspace's parties: exports, regulatory reports, and who read or exported what.

Rules kept here:

1. What is handed over was stated before, in the log of each party it comes from: who asks and why, before it
   is made; which bundle it is, once that is safely kept.
2. Several parties' logs may lie on one machine; one of them exports and signs, and each states it for itself.
3. A report rests on an export that was made for it, or that somebody handed in, and that verified.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from uuid import uuid4

from cloister.core.clock import Clock, format_time
from cloister.core.errors import InputError
from cloister.core.files import read_bounded
from cloister.evidence import EvidenceLog, Role, Trust, TrustEntry
from cloister.evidence.checkpoint import MAX_CHECKPOINT_CHARS, Checkpoint, parse_checkpoint
from cloister.evidence.custody.access import Accessed, AccessRecord, Action, Actor, accesses
from cloister.evidence.custody.export import compose_bundle, logs_to_export
from cloister.evidence.errors import AuditError
from cloister.evidence.predicates import ExportSelection
from cloister.workflow.credentials import credentials_of
from cloister.workflow.party import Party
from cloister.workflow.workspace import Workspace

KEEPERS: Final = (Role.HUB, Role.SITE)
"""The roles that keep a log."""
BEGINNING: Final = "1970-01-01T00:00:00.000000Z"


@dataclass(frozen=True)
class AuditRequest:
    """What an auditor asks for.

    Attributes:
        selection: One job, or a span of time.
        party: The only party to export from, as ``(role, name)``; None for all in the workspace.
        recipient: For whom the export is made.
        notes: Heads of the logs that witnesses cosigned, beside those that the parties know to be held.
    """

    selection: ExportSelection
    party: tuple[Role, str] | None
    recipient: str
    notes: tuple[Checkpoint, ...] = ()


def read_head(path: Path) -> Checkpoint:
    """A head of a log that somebody kept as a file.

    Raises:
        InputError: It can't be read.
        EvidenceError: It isn't one.
    """
    return parse_checkpoint(read_bounded(path, 4 * MAX_CHECKPOINT_CHARS).decode("utf-8", "replace"))


def operating_system_user() -> str:
    """The account this process runs under, which nobody can choose on the command line."""
    number = os.getuid()
    try:
        return f"{pwd.getpwuid(number).pw_name} (uid {number})"
    except KeyError:
        return f"uid {number}"


def job_selection(job_id: str) -> ExportSelection:
    """Select one job.

    Raises:
        InputError: The id isn't a UUID.
    """
    try:
        return ExportSelection(job_id=job_id.lower(), start=None, end=None)
    except ValueError:
        raise InputError(
            "input.syntax",
            "A job's id is a UUID, 32 hex digits in five groups.",
            "Look it up in the receipt or the job's report.",
        ) from None


def period_selection(start: str | None, end: str | None, clock: Clock) -> ExportSelection:
    """Select what was logged from ``start`` on, up to but without ``end``.

    Args:
        start: A date, or a time with its zone; None for the beginning.
        end: Likewise; None for now.
        clock: Says what now is.

    Raises:
        InputError: One of them is no date or time, or they don't make a period.
    """
    begin = BEGINNING if start is None else _moment(start)
    stop = format_time(clock()) if end is None else _moment(end)
    if begin >= stop:
        raise InputError(
            "input.syntax", "The period ends before it begins.", "A period lasts up to but without its end."
        )
    return ExportSelection(job_id=None, start=begin, end=stop)


def _moment(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None and len(text) <= len("2026-11-21"):
            moment = moment.replace(tzinfo=UTC)
        return format_time(moment)
    except (ValueError, OverflowError):
        raise InputError(
            "input.syntax",
            "A period's bound is not a date or time.",
            "Write 2026-11-21, which is midnight UTC, or 2026-11-21T14:00:00Z.",
        ) from None


def log_keepers(workspace: Workspace) -> tuple[Party, ...]:
    """The parties in a workspace that have begun a log: hubs, then sites, by name."""
    return tuple(
        workspace.party(role.value, begun.parent.name)
        for role in KEEPERS
        for begun in sorted((workspace.root / "parties" / role.value).glob("*/log.begun"))
    )


def named_party(text: str) -> tuple[Role, str]:
    """Read ``<role>/<name>``.

    Raises:
        InputError: It is something else, or of a role that keeps no log.
    """
    role, _, name = text.partition("/")
    if role not in KEEPERS or not name:
        raise InputError("input.syntax", "A party is named as hub/<name> or site/<name>.")
    return Role(role), name


def own_trust(workspace: Workspace) -> Trust:
    """The keys of the workspace's own parties, former ones too: for one's own logs, not for outsiders."""
    return Trust(
        TrustEntry(Role(one.role), one.name, key.pem.encode(), former=key != one.signer.public_key)
        for one in log_keepers(workspace)
        for key in one.keys
    )


def keeper(workspace: Workspace, party: tuple[Role, str]) -> Party:
    """The party of this role and name.

    Raises:
        AuditError: There is none with a log in the workspace.
    """
    for one in log_keepers(workspace):
        if (one.role, one.name) == party:
            return one
    raise AuditError(
        "evidence.export_refused",
        f"There is no log of {party[0].value}/{party[1]} in this workspace.",
        "Name another party, or its workspace.",
    )


def export_audit(
    workspace: Workspace,
    request: AuditRequest,
    actor: Actor,
    clock: Clock,
    keep: Callable[[bytes], None],
    action: Action = "export",
) -> bytes:
    """Make an export and state it in each log it comes from. It may be handed over when this returns.

    Args:
        workspace: Holds the logs.
        request: What is asked for.
        actor: Who asks, and why.
        clock: Gives the time.
        keep: Keeps the bundle where it won't be lost; called before the logs state that it was made.
        action: What the export is made for, as the logs will state it.

    Returns:
        The bundle.

    Raises:
        AuditError: Nothing here fits the request, or it isn't clear who exports; nothing is stated then.
        EvidenceError: A log doesn't hold together.
        StorageError: It can't be kept or stated; then nothing is handed over.
    """
    exporter, others = _exporter(workspace, request)
    parties = (exporter, *others)
    export_id = str(uuid4())
    with _opened(parties) as logs:
        chosen = logs_to_export(request.selection, logs[0], logs[1:], clock)
        records = [
            AccessRecord(log, party.signer, clock)
            for party, log in zip(parties, logs, strict=True)
            if log in chosen
        ]
        for record in records:
            record.state_access(actor, action, describe(request.selection), export_id)
        bundle = compose_bundle(
            export_id=export_id,
            signer=exporter.signer,
            clock=clock,
            recipient=request.recipient,
            selection=request.selection,
            exporter=logs[0],
            others=logs[1:],
            credentials=credentials_of(parties),
            notes=[*request.notes, *(note for party in parties for note in party.held_checkpoints())],
        )
        keep(bundle)
        for record in records:
            record.state_export(bundle)
    return bundle


def read_accesses(
    workspace: Workspace, party: tuple[Role, str] | None, actor: Actor, clock: Clock
) -> tuple[Accessed, ...]:
    """Who read or exported what of a party's log, or of all; this reading is stated first and is in it.

    Args:
        workspace: Holds the logs.
        party: The only party to ask; None for all.
        actor: Who reads, and why.
        clock: Gives the time.

    Returns:
        Every access stated, by log, oldest first.
    """
    chosen = log_keepers(workspace) if party is None else (keeper(workspace, party),)
    found: list[Accessed] = []
    with _opened(chosen) as logs:
        for one, log in zip(chosen, logs, strict=True):
            AccessRecord(log, one.signer, clock).state_access(actor, "read", "the record of access")
            found.extend(accesses(log))
    return tuple(found)


def describe(selection: ExportSelection) -> str:
    """A selection in words."""
    if selection.job_id is not None:
        return f"job {selection.job_id}"
    return f"entries from {selection.start} up to {selection.end}"


def _exporter(workspace: Workspace, request: AuditRequest) -> tuple[Party, tuple[Party, ...]]:
    if request.party is not None:
        return keeper(workspace, request.party), ()
    parties = log_keepers(workspace)
    hubs = [one for one in parties if one.role == Role.HUB]
    signing = hubs if hubs else list(parties)
    if len(signing) != 1:
        raise AuditError(
            "evidence.export_refused",
            "It isn't clear which party exports." if parties else "No party in this workspace has a log.",
            "Name it with --party." if parties else "Name the workspace in which the job ran.",
        )
    return signing[0], tuple(one for one in parties if one is not signing[0])


@contextmanager
def _opened(parties: tuple[Party, ...]) -> Iterator[tuple[EvidenceLog, ...]]:
    with ExitStack() as stack:
        logs: list[EvidenceLog] = []
        for party in parties:
            log = party.open_log_to_show()
            stack.callback(log.close)
            logs.append(log)
        yield tuple(logs)


def require_workspace(root: Path) -> Path:
    """An audit makes no workspace.

    Raises:
        InputError: There is none.
    """
    if not (root / "parties").is_dir():
        raise InputError(
            "input.missing_file", f"There is no workspace at {root}.", "Name it with --workspace."
        )
    return root
