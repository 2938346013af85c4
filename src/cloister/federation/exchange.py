"""What hub and sites show each other of their logs in each round, so that neither rewrites its past unseen.

The hub's task carries the newest checkpoint of the hub's log with a consistency proof from the one each site
holds; a site's answer carries the same of the site's log for the hub. Rules kept here:

1. A checkpoint is taken only with its log's signature and the proof that it continues the one held; it is on
   disk before anything is stated or done about it.
2. A party states which checkpoints it holds, with their notes: two sites' statements about the hub in one
   receipt reveal a hub that showed each of them another past.
3. A site whose own log is smaller than the hub says it holds takes no part: its log may be an older copy.
4. A message is bounded and has one spelling; what is in it counts only as far as it verifies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cloister.core.canonical import JSON, b64decode, b64encode, canonicalize, parse_canonical
from cloister.core.errors import InputError, SignatureInvalid
from cloister.core.hashes import Sha256
from cloister.core.keys import PublicKey
from cloister.evidence.checkpoint import Checkpoint, parse_checkpoint
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import log_origin
from cloister.evidence.log import EvidenceLog
from cloister.evidence.merkle import MAX_TREE_SIZE
from cloister.evidence.predicates import Role
from cloister.evidence.predicates.log import MAX_HELD, CheckpointHeld
from cloister.evidence.statement import Subject
from cloister.evidence.witness.book import CheckpointBook
from cloister.evidence.witness.continuation import MAX_CONTINUATION_HASHES, Continuation, parse_continuation
from cloister.evidence.witness.rules import rolled_back
from cloister.evidence.writer import StatementWriter
from cloister.federation.errors import FederationError

MAX_MESSAGE_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class HubLog:
    """What a task says about logs.

    Attributes:
        checkpoint: the hub's newest.
        proofs: consistency proofs to it, by the size of an older one that some site holds.
        held: how many entries of each site's log the hub holds; a site that isn't named, none.
    """

    checkpoint: Checkpoint
    proofs: Mapping[int, tuple[bytes, ...]]
    held: Mapping[str, int]

    def encode(self) -> bytes:
        """Its only spelling, canonical JSON."""
        return canonicalize(
            {
                "checkpoint": self.checkpoint.encode(),
                "held": dict(self.held),
                "proofs": {
                    str(size): [b64encode(one) for one in proof] for size, proof in self.proofs.items()
                },
            }
        )


def decode_hub_log(data: bytes) -> HubLog:
    """Read what a task says about logs, without judging it.

    Raises:
        FederationError: `federation.bad_task`.
    """
    try:
        value = parse_canonical(data, max_bytes=MAX_MESSAGE_BYTES)
        if not isinstance(value, dict) or value.keys() != {"checkpoint", "held", "proofs"}:
            raise _bad_task()
        note, held, proofs = value["checkpoint"], value["held"], value["proofs"]
        if not isinstance(note, str) or not isinstance(held, dict) or not isinstance(proofs, dict):
            raise _bad_task()
        return HubLog(
            parse_checkpoint(note),
            {_size(size): _proof(proof) for size, proof in proofs.items()},
            {site: _count(size) for site, size in held.items()},
        )
    except (InputError, EvidenceError) as error:
        raise _bad_task() from error


class SiteLogs:
    """A site's side of the exchange in one job.

    Args:
        log: the site's own.
        statements: the writer of the site's statements in this job.
        book: the checkpoints it holds.
        hub: the hub's log's name.
        hub_keys: the keys that log is known by.
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

    def hub_size(self) -> int:
        """How many entries of the hub's log this site has seen; 0 if none."""
        return _held_size(self._book, self._hub)

    def take(self, round_number: int, message: bytes) -> None:
        """Verify what a task says about logs, keep the hub's checkpoint and state it.

        Args:
            round_number: the round the task is for.
            message: as `HubLog.encode` wrote it.

        Raises:
            FederationError: `federation.bad_task` for no or an unreadable message.
            EvidenceError: ``evidence.log_inconsistent`` or ``evidence.log_rolled_back`` if the hub's log
                isn't proven to continue what this site has seen of it; both checkpoints are kept. Or if the
                hub has seen more of this site's log than there is.
            SignatureInvalid: the checkpoint isn't what the hub signed.
        """
        hub = decode_hub_log(message)
        claimed = hub.held.get(self._statements.party, 0)
        own = self._log.size
        if claimed > own:
            raise rolled_back(self._log.origin, own, claimed)
        if hub.checkpoint.origin != self._hub:
            raise EvidenceError("evidence.checkpoint_unsigned", "The checkpoint is another log's.")
        proof = hub.proofs.get(self.hub_size(), ())
        self._book.hold(hub.checkpoint, proof, *self._hub_keys)
        self._held_by_hub = claimed
        _state(self._statements, round_number, [hub.checkpoint])

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
        self._taken: dict[str, Checkpoint] = {}

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
        sizes = {self._seen_by.get(site, 0) for site in named}
        message = HubLog(
            head,
            {
                size: self._log.consistency_proof(size, head.size)
                for size in sorted(sizes)
                if 0 < size <= head.size
            },
            {site: _held_size(self._book, log_origin(Role.SITE, site)) for site in named},
        )
        self._seen_by.update(dict.fromkeys(named, head.size))
        return message.encode()

    def take(self, site: str, message: bytes) -> None:
        """Verify a site's checkpoint and keep it.

        Raises:
            FederationError: `federation.bad_log`, whatever is wrong with it; a contradiction is kept.
        """
        try:
            shown = _decode_continuation(message, log_origin(Role.SITE, site))
            self._book.hold(shown.checkpoint, shown.proof, *self._site_keys[site])
        except (EvidenceError, SignatureInvalid) as error:
            raise FederationError(
                "federation.bad_log",
                f"the log of {site} isn't proven to continue what the hub has seen of it: {error.message}",
                "the site has to restore the newest copy of its log",
            ) from error
        self._taken[site] = shown.checkpoint

    def state(self, round_number: int, sites: Iterable[str]) -> None:
        """State the checkpoints that these sites' answers brought in a round."""
        taken = [self._taken[site] for site in sites if site in self._taken]
        for start in range(0, len(taken), MAX_HELD):
            _state(self._statements, round_number, taken[start : start + MAX_HELD])


def _state(statements: StatementWriter, round_number: int, held: Sequence[Checkpoint]) -> None:
    statements.write(
        CheckpointHeld,
        [Subject(one.origin, Sha256(one.root.hex())) for one in held],
        round=round_number,
        held=[
            {"origin": one.origin, "size": one.size, "root": one.root.hex(), "note": one.encode()}
            for one in held
        ],
    )


def _held_size(book: CheckpointBook, origin: str) -> int:
    held = book.newest(origin)
    return held.size if held else 0


def _continuation(log: EvidenceLog, old_size: int) -> Continuation:
    head = log.checkpoint()
    return Continuation(old_size, log.consistency_proof(old_size, head.size) if old_size else (), head)


def _decode_continuation(data: bytes, origin: str) -> Continuation:
    try:
        shown = parse_continuation(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise EvidenceError("evidence.checkpoint_malformed", "It is not text.") from None
    if shown.checkpoint.origin != origin:
        raise EvidenceError("evidence.checkpoint_unsigned", "The checkpoint is another log's.")
    return shown


def _size(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 19 or str(int(text)) != text:
        raise _bad_task()
    return _count(int(text))


def _count(value: JSON) -> int:
    if type(value) is not int or not 0 <= value <= MAX_TREE_SIZE:
        raise _bad_task()
    return value


def _proof(value: JSON) -> tuple[bytes, ...]:
    if not isinstance(value, list) or len(value) > MAX_CONTINUATION_HASHES:
        raise _bad_task()
    texts = [one for one in value if isinstance(one, str)]
    if len(texts) != len(value):
        raise _bad_task()
    return tuple(b64decode(one) for one in texts)


def _bad_task() -> FederationError:
    return FederationError("federation.bad_task", "a task doesn't show the hub's log as it has to")
