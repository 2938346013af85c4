"""Writing statements: one party's chain of statements in one job, each signed and logged before it counts.

Rules kept here:

1. The writer fills in job, party, sequence, predecessor and time; a caller can't get them wrong.
2. A party makes only statements its role may make, with its own key, into its own log.
3. A writer made anew continues the chain found in the log, once it has compared for every entry of the log
   that it lies where it states: none of the job's can be hidden under another label. After `close` nothing
   more is written.
4. Times never run backwards, in a chain or over the whole log, even where the machine's clock is set back.
   Only entries that queue together may stand in another order than they were dated, by as long as they
   queued. Where the log is a day or more ahead of the clock, nothing is written: one of them is wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal, Protocol

from pydantic import ValidationError

from cloister.core.clock import Clock, format_time, parse_time
from cloister.core.hashes import Sha256, sha256_hex
from cloister.core.keys import Signer
from cloister.evidence.envelope import Envelope
from cloister.evidence.errors import EvidenceError, LogError
from cloister.evidence.extract import log_owner, log_stream
from cloister.evidence.log import EvidenceLog, LogEntry, LogReader
from cloister.evidence.predicates import HubEnding, JobClosed, Predicate, Role
from cloister.evidence.statement import Statement, Subject, open_statement, require_subjects, sign_statement

MAX_AHEAD: Final = timedelta(days=1)
"""By how much a log's newest entry may be later than the clock."""


@dataclass(frozen=True, slots=True)
class WrittenStatement:
    """A statement that is signed and durably logged.

    Attributes:
        statement: what was stated.
        envelope: the signed form.
        entry: where it is in the log.
        sha256: SHA-256 of the statement's payload, by which the next one names it.
    """

    statement: Statement
    envelope: Envelope
    entry: LogEntry
    sha256: Sha256


class StatementSink(Protocol):
    """Where statements go before they count; `StatementWriter` is one."""

    def write(
        self, predicate_class: type[Predicate], subjects: Sequence[Subject], **fields: object
    ) -> object:
        """Sign and log a statement; it is durable when this returns."""
        ...


class StatementWriter:
    """Writes one party's statements of one job.

    Args:
        log: the party's log; its origin says which party and role.
        signer: the party's key, which is also the log's.
        party: the party's name as in the trust directory.
        job_id: the job, a UUID.
        clock: gives the time.

    Raises:
        EvidenceError: ``evidence.statement_refused`` if log, key and party don't belong together.
    """

    def __init__(self, log: EvidenceLog, signer: Signer, party: str, job_id: str, clock: Clock) -> None:
        role, owner = log_owner(log.origin)
        if owner != party or log.public_key.key_id != signer.public_key.key_id:
            raise EvidenceError(
                "evidence.statement_refused", "A party writes into its own log with its own key."
            )
        self._log = log
        self._signer = signer
        self._role = role
        self._party = party
        self._job_id = job_id
        self._clock = clock
        self._lock = threading.Lock()
        self._log_at = (0, "")
        self._follow_the_log()

    @property
    def party(self) -> str:
        """The party that writes."""
        return self._party

    @property
    def job_id(self) -> str:
        """The job written about."""
        return self._job_id

    @property
    def log(self) -> LogReader:
        """The log that is written into."""
        return self._log

    def write(
        self, predicate_class: type[Predicate], subjects: Sequence[Subject], **fields: object
    ) -> WrittenStatement:
        """State something; it is signed, logged and durable when this returns.

        Args:
            predicate_class: the kind of statement.
            subjects: what it is about, at least one.
            fields: the predicate's own fields; the ones every predicate has are filled in.

        Returns:
            The statement as written.

        Raises:
            EvidenceError: ``evidence.statement_refused`` if the fields don't fit or its role may not say it;
                ``evidence.job_closed`` after `close`.
            StorageError: if it can't be logged; then it wasn't made.
        """
        if predicate_class is JobClosed:
            raise EvidenceError("evidence.statement_refused", "A job is closed with close().")
        with self._lock:
            self._catch_up()
            return self._write(predicate_class, subjects, fields)

    def close(
        self, outcome: Literal["completed", "refused", "failed"], *, hub_ending: HubEnding | None = None
    ) -> WrittenStatement:
        """Make the party's last statement in this job, which counts all of them.

        Args:
            outcome: how the job ended for this party.
            hub_ending: how the hub ended it, as a site has verified it; None where it hasn't, and for a hub.

        Returns:
            The statement as written.

        Raises:
            EvidenceError: ``evidence.statement_refused`` in the stream of the log's own statements, which go
                on after every job, or if a hub names another's ending; ``evidence.job_closed`` if it is.
            StorageError: if it can't be logged; then it wasn't made.
        """
        if self._job_id == log_stream(self._log.origin):
            raise EvidenceError(
                "evidence.statement_refused",
                "The statements of a log itself, which belong to no job, don't end.",
            )
        if hub_ending is not None and self._role is Role.HUB:
            raise EvidenceError(
                "evidence.statement_refused", "A hub's own closing is how the hub ends a job."
            )
        with self._lock:
            self._catch_up()
            subject = Subject(f"job {self._job_id}", sha256_hex(self._job_id.encode("ascii")))
            fields: dict[str, object] = {
                "statements": self._sequence + 1,
                "outcome": outcome,
                "hub_ending": hub_ending,
            }
            return self._write(JobClosed, (subject,), fields)

    def _catch_up(self) -> None:
        # An interrupt can fall between the log's answer and ours; then only the log knows.
        if not self._in_step:
            self._follow_the_log()

    def _follow_the_log(self) -> None:
        """Take the chain up where the log has it: what is logged counts, told or not."""
        self._sequence = 0
        self._previous: Sha256 | None = None
        self._closed = False
        self._recorded_at = ""
        self._log.check_places()
        last = self._log.last(self._job_id)
        if last is not None:
            newest = open_statement(last.envelope).predicate
            self._sequence = newest.sequence + 1
            self._previous = last.envelope.payload_sha256
            self._closed = isinstance(newest, JobClosed)
            self._recorded_at = newest.recorded_at
        if self._sequence != self._log.length(self._job_id):
            raise LogError(
                "evidence.log_mismatch",
                f"The newest statement of job {self._job_id} doesn't have the place it states.",
                "Somebody edited the log's database; restore a copy.",
            )
        self._in_step = True

    def _write(
        self, predicate_class: type[Predicate], subjects: Sequence[Subject], fields: dict[str, object]
    ) -> WrittenStatement:
        if self._closed:
            raise EvidenceError("evidence.job_closed", f"{self._party} has closed job {self._job_id}.")
        if self._role not in predicate_class.ROLES:
            raise EvidenceError(
                "evidence.statement_refused", f"A {self._role.value} may not state {predicate_class.TYPE}."
            )
        chain = {
            "job_id": self._job_id,
            "party": self._party,
            "sequence": self._sequence,
            "previous": self._previous,
            "recorded_at": self._now(),
        }
        try:
            predicate = predicate_class.model_validate({**fields, **chain})
        except ValidationError as error:
            wrong = [
                f"{'.'.join(str(part) for part in one['loc'])}: {one['msg']}"
                for one in error.errors(include_input=False, include_url=False)
            ]
            raise EvidenceError(
                "evidence.statement_refused",
                f"The fields don't make a {predicate_class.TYPE}.",
                details=wrong,
            ) from None
        statement = Statement(require_subjects(subjects), predicate)
        envelope = sign_statement(statement, self._signer)
        self._in_step = False
        entry = self._log.append(envelope, stream=self._job_id, position=self._sequence)
        written = WrittenStatement(statement, envelope, entry, envelope.payload_sha256)
        self._sequence += 1
        self._previous = written.sha256
        self._recorded_at = predicate.recorded_at
        self._log_at = (entry.index + 1, predicate.recorded_at)
        self._closed = predicate_class is JobClosed
        self._in_step = True
        return written

    def _now(self) -> str:
        """The clock's time, or that of the newest entry in chain or log where the clock is behind."""
        moment = self._clock()
        newest = max(self._recorded_at, self._newest_in_log())
        if newest and parse_time(newest) > moment + MAX_AHEAD:
            raise EvidenceError(
                "evidence.statement_refused",
                f"The newest statement in {self._log.origin} is dated {newest}, and the clock here says "
                f"{format_time(moment)}.",
                "Set the clock. If that statement was dated wrongly, its time has to come first.",
            )
        return max(format_time(moment), newest)

    def _newest_in_log(self) -> str:
        size = self._log.size
        if size != self._log_at[0]:
            self._log_at = (size, open_statement(self._log.entry(size - 1)).predicate.recorded_at)
        return self._log_at[1]
