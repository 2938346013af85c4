"""What hub and sites show each other of their logs in each round, so that neither rewrites its past unseen.

The hub's task carries the newest checkpoint of the hub's log with a consistency proof from the one each site
holds; a site's answer carries the same of the site's log for the hub. Rules kept here:

1. A checkpoint is taken only with its log's signature and the proof that it continues the one held; it is on
   disk before anything is stated or done about it.
2. A party states which checkpoints it holds, with their notes: two sites' statements in one receipt reveal a
   hub that showed each of them another past. The hub states those of all sites' logs in one statement per
   round. A site has no statement for it alone: that of the update it releases names the hub's checkpoint of
   that round, and without having taken that checkpoint the site has nothing to name, and releases nothing.
3. The hub shows each site the newest checkpoint it holds of that site's log, as the site signed it. A site
   whose log isn't proven to continue it takes no part: its log may be an older copy. A note that the site
   didn't sign says something about the hub alone.
4. What a party's own log states it holds is held, whatever became of its folder of checkpoints. What a site
   took in a round in which it released nothing is in its folder only.
5. At the job's end the hub closes first and shows each site its closing statement, proven to be in its log.
   Each site verifies and states it before it closes, so that there is one ending the sites agree on.
6. What a message says (``log_messages``) counts only as far as it verifies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from cloister.core.errors import SignatureInvalid
from cloister.core.hashes import Sha256
from cloister.core.keys import PublicKey
from cloister.evidence.checkpoint import Checkpoint
from cloister.evidence.envelope import Envelope, verify_envelope
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import LogExtract, log_origin, log_owner, verify_entry
from cloister.evidence.log import EvidenceLog
from cloister.evidence.predicates import HubEnding, JobClosed, Role
from cloister.evidence.predicates.log import MAX_HELD, CheckpointHeld, HeldCheckpoint, to_be_held
from cloister.evidence.statement import Subject, open_statement
from cloister.evidence.witness.book import CheckpointBook
from cloister.evidence.witness.continuation import Continuation
from cloister.evidence.witness.recall import require_recalled
from cloister.evidence.witness.rollback import require_newest
from cloister.evidence.writer import StatementWriter
from cloister.federation.errors import FederationError
from cloister.federation.log_messages import (
    HubLog,
    ShownEnding,
    decode_continuation,
    decode_ending,
    decode_hub_log,
)


class SiteLogs:
    """A site's side of the exchange in one job.

    Args:
        log: the site's own.
        statements: the writer of the site's statements in this job.
        book: the checkpoints it holds.
        hub: the hub's log's name.
        hub_keys: the keys that log is known by.

    Raises:
        EvidenceError: ``evidence.log_inconsistent`` if the book contradicts what the site's log states.
        StorageError: the book lacks what the log states, and can't be written.
    """

    def __init__(
        self,
        log: EvidenceLog,
        statements: StatementWriter,
        book: CheckpointBook,
        hub: str,
        hub_keys: Sequence[PublicKey],
    ) -> None:
        self._log = log
        self._statements = statements
        self._book = book
        self._hub = hub
        self._hub_keys = tuple(hub_keys)
        self._held_by_hub = 0
        self._taken: tuple[int, HeldCheckpoint] | None = None
        require_recalled(book, log, [hub])

    def hub_size(self) -> int:
        """How many entries of the hub's log this site has seen; 0 if none."""
        return _held_size(self._book, self._hub)

    def take(self, round_number: int, message: bytes) -> None:
        """Verify what a task says about logs and keep the hub's checkpoint; `taken` gives it to be stated.

        Args:
            round_number: the round the task is for.
            message: as `HubLog.encode` wrote it.

        Raises:
            FederationError: `federation.bad_task` for no or an unreadable message.
            EvidenceError: ``evidence.log_inconsistent`` or ``evidence.log_rolled_back`` if the hub's log
                isn't proven to continue what this site has seen of it; both checkpoints are kept. Or if this
                site signed a later or another head of its log than there is, as the hub proves by showing it.
                ``evidence.checkpoint_malformed`` if the hub's is one that can't be stated.
            SignatureInvalid: the checkpoint isn't what the hub signed, or the one shown as this site's isn't
                what this site signed.
        """
        self._taken = None
        hub = decode_hub_log(message)
        held = hub.held.get(self._statements.party)
        if held is not None:
            require_newest(self._log.checkpoint(), self._log.consistency_proof, [held], *self._log.keys)
        stated = to_be_held(hub.checkpoint)
        self._hold(hub.checkpoint, hub.proofs)
        self._held_by_hub = held.size if held else 0
        self._taken = (round_number, stated)

    def taken(self, round_number: int) -> HeldCheckpoint:
        """The hub's checkpoint that was taken in a round, as a statement names it.

        Raises:
            FederationError: `federation.bad_task` if none was taken in that round.
        """
        if self._taken is None or self._taken[0] != round_number:
            raise FederationError(
                "federation.bad_task", "a round's update is asked for before the hub's log of that round came"
            )
        return self._taken[1]

    def take_ending(self, message: bytes) -> HubEnding:
        """Verify how the hub says it ended the job, and keep the hub's checkpoint.

        Args:
            message: as `ShownEnding.encode` wrote it.

        Returns:
            What this site states of it when it closes.

        Raises:
            FederationError: `federation.bad_task` for an unreadable message.
            EvidenceError: the hub's log isn't proven to continue what this site has seen of it, or the
                statement isn't in it, or isn't the hub's closing of this job.
            SignatureInvalid: the checkpoint or the statement isn't what the hub signed.
        """
        shown = decode_ending(message)
        head, entries = shown.extract.checkpoint, shown.extract.entries
        if shown.extract.origin != self._hub or len(entries) != 1:
            raise EvidenceError("evidence.checkpoint_unsigned", "The ending shown is not in the hub's log.")
        self._hold(head, shown.proofs)
        (closing,) = entries
        verify_entry(closing, head)
        self._require_signed_by_hub(closing.envelope)
        closed = open_statement(closing.envelope).predicate
        _, hub = log_owner(self._hub)
        if not isinstance(closed, JobClosed) or (closed.job_id, closed.party) != (
            self._statements.job_id,
            hub,
        ):
            raise EvidenceError(
                "evidence.statement_refused", "The ending shown is not the hub's of this job."
            )
        return HubEnding(
            statement_sha256=closing.envelope.payload_sha256,
            origin=head.origin,
            size=head.size,
            root=Sha256(head.root.hex()),
        )

    def _hold(self, checkpoint: Checkpoint, proofs: Mapping[int, tuple[bytes, ...]]) -> None:
        if checkpoint.origin != self._hub:
            raise EvidenceError("evidence.checkpoint_unsigned", "The checkpoint is another log's.")
        self._book.hold(checkpoint, proofs.get(self.hub_size(), ()), *self._hub_keys)

    def _require_signed_by_hub(self, envelope: Envelope) -> None:
        named = envelope.signatures[0].key_id if envelope.signatures else ""
        signers = [key for key in self._hub_keys if key.key_id == named]
        verify_envelope(envelope, signers[0] if signers else self._hub_keys[0])

    def show(self) -> bytes:
        """This site's newest checkpoint with the proof from the one the hub holds."""
        return _continuation(self._log, self._held_by_hub).encode().encode("utf-8")


class HubLogs:
    """The hub's side of the exchange in one job.

    Args:
        log: the hub's own.
        statements: the writer of the hub's statements in this job.
        book: the checkpoints it holds.
        site_keys: the keys that each site's log is known by.

    Raises:
        EvidenceError: ``evidence.log_inconsistent`` if the book contradicts what the hub's log states.
        StorageError: the book lacks what the log states, and can't be written.
    """

    def __init__(
        self,
        log: EvidenceLog,
        statements: StatementWriter,
        book: CheckpointBook,
        site_keys: Mapping[str, Sequence[PublicKey]],
    ) -> None:
        self._log = log
        self._statements = statements
        self._book = book
        self._site_keys = {site: tuple(keys) for site, keys in site_keys.items()}
        self._seen_by: dict[str, int] = {}
        self._taken: dict[str, HeldCheckpoint] = {}
        require_recalled(book, log, [log_origin(Role.SITE, site) for site in site_keys])

    def site_has_seen(self, site: str, size: int) -> None:
        """Note how many entries of the hub's log a site says it has seen.

        A site that claims more than there is gets no proof. If it holds such a checkpoint, it will refuse the
        hub's older log and keep the proof; a mere claim changes nothing here.
        """
        self._seen_by[site] = size

    def show(self, sites: Iterable[str]) -> bytes:
        """The hub's newest checkpoint for a round's task, with a proof for each of these sites."""
        named = list(sites)
        head = self._log.checkpoint()
        held = {site: self._book.newest(log_origin(Role.SITE, site)) for site in named}
        message = HubLog(
            head, self._proofs(head, named), {site: one for site, one in held.items() if one is not None}
        )
        self._seen_by.update(dict.fromkeys(named, head.size))
        return message.encode()

    def show_ending(self, sites: Iterable[str]) -> bytes:
        """The hub's closing statement in its newest log, with a proof for each of these sites.

        Raises:
            EvidenceError: ``evidence.statement_refused`` if the hub hasn't closed the job.
        """
        head = self._log.checkpoint()
        last = self._log.last(self._statements.job_id)
        if last is None or not isinstance(open_statement(last.envelope).predicate, JobClosed):
            raise EvidenceError("evidence.statement_refused", "The hub hasn't closed the job.")
        entries = self._log.proven(head, last.index, last.index + 1)
        return ShownEnding(LogExtract(self._log.origin, head, entries), self._proofs(head, sites)).encode()

    def _proofs(self, head: Checkpoint, sites: Iterable[str]) -> dict[int, tuple[bytes, ...]]:
        sizes = {self._seen_by.get(site, 0) for site in sites}
        return {
            size: self._log.consistency_proof(size, head.size)
            for size in sorted(sizes)
            if 0 < size <= head.size
        }

    def take(self, site: str, message: bytes) -> None:
        """Verify a site's checkpoint and keep it.

        Raises:
            FederationError: `federation.bad_log`, whatever is wrong with it; a contradiction is kept.
        """
        try:
            shown = decode_continuation(message, log_origin(Role.SITE, site))
            stated = to_be_held(shown.checkpoint)
            self._book.hold(shown.checkpoint, shown.proof, *self._site_keys[site])
        except (EvidenceError, SignatureInvalid) as error:
            raise FederationError(
                "federation.bad_log",
                f"the log of {site} isn't proven to continue what the hub has seen of it: {error.message}",
                "the site has to restore the newest copy of its log",
            ) from error
        self._taken[site] = stated

    def state(self, round_number: int, sites: Iterable[str]) -> None:
        """State the checkpoints that these sites' answers brought in a round."""
        taken = [self._taken[site] for site in sites if site in self._taken]
        for start in range(0, len(taken), MAX_HELD):
            held = taken[start : start + MAX_HELD]
            subjects = [Subject(one.origin, Sha256(one.root)) for one in held]
            self._statements.write(CheckpointHeld, subjects, round=round_number, held=held)


def _held_size(book: CheckpointBook, origin: str) -> int:
    held = book.newest(origin)
    return held.size if held else 0


def _continuation(log: EvidenceLog, old_size: int) -> Continuation:
    head = log.checkpoint()
    return Continuation(old_size, log.consistency_proof(old_size, head.size) if old_size else (), head)
