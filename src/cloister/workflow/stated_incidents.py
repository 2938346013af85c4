"""Incidents become statements: a thread writes what the immune system noticed into the parties' logs.

Rules kept here:

1. A party states what was noticed once it has begun to state something in its job; until then, it is kept for
   it. A party that never begins states nothing: an incident alone is no part in a job.
2. One party that can't state keeps no other one from it, whatever the reason, a blocked signature included.
   It is tried again with the next incident, and when this is closed.
3. A watched call may hold the very lock that a statement needs: therefore a thread of its own.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from cloister.core.closing import Closing
from cloister.core.errors import CloisterError
from cloister.core.hashes import sha256_hex
from cloister.core.logging import get_logger
from cloister.evidence import StatementWriter, Subject
from cloister.evidence.predicates import Incident

if TYPE_CHECKING:
    from cloister.immune import ImmuneIncident

_LOOK_SECONDS: Final = 1.0
"""How long after a party has begun what was kept for it is stated, at the latest."""


class StatedIncidents(Closing):
    """A thread that states incidents; a context manager, to be closed before the parties' chains are.

    Args:
        waiting: where they come from; None ends it.
        writers: the parties' writers. One that has stated nothing yet in its job isn't begun by an incident.
    """

    def __init__(
        self, waiting: SimpleQueue[ImmuneIncident | None], writers: Sequence[StatementWriter]
    ) -> None:
        self._waiting = waiting
        self._parties = tuple(_Party(one) for one in writers)
        self._log = get_logger("immune")
        self._thread = threading.Thread(target=self._state_all, name="immune-incidents", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """State what still waits, and end. Again, it does nothing."""
        if self._thread.is_alive():
            self._waiting.put(None)
            self._thread.join()

    def _state_all(self) -> None:
        going_on = True
        while going_on:
            try:
                patience = _LOOK_SECONDS if any(one.is_awaited for one in self._parties) else None
                incident = self._waiting.get(timeout=patience)
            except Empty:
                for party in self._parties:
                    if party.is_awaited:
                        party.state()
                continue
            if incident is None:
                going_on = False
            else:
                self._log.warning(
                    "incident",
                    kind=incident.incident_class,
                    word=incident.severity,
                    place=incident.function,
                )
            for party in self._parties:
                if incident is not None:
                    party.keep(incident)
                party.state()


class _Party:
    """What one party has yet to state."""

    def __init__(self, writer: StatementWriter) -> None:
        self._writer = writer
        self._kept: deque[ImmuneIncident] = deque()
        self._failed = False

    @property
    def is_awaited(self) -> bool:
        """Whether something is kept until it begins."""
        return bool(self._kept) and not self._failed

    def keep(self, incident: ImmuneIncident) -> None:
        """Keep an incident for it."""
        self._kept.append(incident)

    def state(self) -> None:
        """State what is kept, if the party has begun; whatever fails is logged."""
        self._failed = False
        try:
            subject = self._subject() if self._kept else None
            while subject is not None and self._kept:
                self._writer.write(Incident, [subject], **self._kept[0].incident_fields())
                self._kept.popleft()
        except Exception as error:
            # A log that is closed stops the job by itself, and a blocked call is an incident of its own.
            self._failed = True
            get_logger("immune").error("incident_unstated", **_told_as(error))

    def _subject(self) -> Subject | None:
        """What its statements are about; None where it hasn't begun."""
        from cloister.evidence.extract import log_stream

        job, log = self._writer.job_id, self._writer.log
        if job == log_stream(log.origin):
            return Subject(f"log {log.origin}", sha256_hex(log.origin.encode("ascii")))
        if log.last(job) is None:
            return None
        return Subject(f"job {job}", sha256_hex(job.encode("ascii")))


def _told_as(error: Exception) -> dict[str, object]:
    """How a log names an error: never by its message, which may hold figures."""
    from cloister.immune.errors import CALL_BLOCKED, CallBlocked

    if isinstance(error, CallBlocked):
        return {"code": CALL_BLOCKED}
    return {"code": error.code} if isinstance(error, CloisterError) else {"error": error}
