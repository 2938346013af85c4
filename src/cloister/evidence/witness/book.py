"""A book of checkpoints: for each log the newest checkpoint its holder has verified, on disk.

::

    <directory>/<log>.note                       the newest checkpoint held of a log
    <directory>/conflicts/<log>/<size>-<hash>/   two heads over as many entries: the log showed two pasts
    <directory>/unproven/<log>/<size>-<hash>/    a head that came without a proof, and the one held then

Rules kept here:

1. A checkpoint is held once its signature is good and it continues the one held before, and not otherwise.
2. What is held is on disk, whole, before anybody is told so; it is never replaced by something older, whoever
   else works with the same book.
3. Two signed heads over as many entries with different roots contradict each other by themselves: they are
   kept, up to a bound, as proof that the log has shown two pasts.
4. A checkpoint that merely came without a proof that holds proves nothing against anybody: whoever has two
   heads of an honest log can send it so. It is kept apart, for a person to ask for the proof, never counts as
   a contradiction, and takes no contradiction's place.
5. A file that isn't a checkpoint of the log it is named for is an error, never an empty book.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

from cloister.core.errors import InputError
from cloister.core.files import read_bounded, storage_error, sync_directory, write_atomic
from cloister.core.hashes import sha256_hex
from cloister.core.interrupts import interruptible
from cloister.core.keys import PublicKey
from cloister.evidence.checkpoint import MAX_CHECKPOINT_CHARS, Checkpoint, parse_checkpoint, verify_checkpoint
from cloister.evidence.errors import EvidenceError
from cloister.evidence.witness.rules import require_successor

NOTE_SUFFIX: Final = ".note"
MAX_NOTE_BYTES: Final = 4 * MAX_CHECKPOINT_CHARS
MAX_CONFLICTS: Final = 16
"""How many pairs of a kind are kept per log; the first contradictions prove as much as any number."""
_CONFLICTS: Final = "conflicts"
_UNPROVEN: Final = "unproven"
_PAIRS: Final = "[!.]*-*"


class CheckpointBook:
    """The checkpoints of other parties' logs that one holder keeps.

    Args:
        directory: an own folder; made with the first checkpoint.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def newest(self, origin: str) -> Checkpoint | None:
        """The newest checkpoint held of a log; None if none is.

        Raises:
            EvidenceError: ``evidence.checkpoint_malformed`` if the file is no checkpoint of that log.
            InputError: the file can't be read.
        """
        path = self._directory / f"{file_name(origin)}{NOTE_SUFFIX}"
        try:
            found = read_note(path)
        except InputError as error:
            if error.code == "input.missing_file":
                return None
            raise
        if found.origin != origin:
            raise EvidenceError(
                "evidence.checkpoint_malformed", f"{path} holds a checkpoint of another log, {found.origin}."
            )
        return found

    def logs(self) -> tuple[str, ...]:
        """The logs of which a checkpoint is held, sorted."""
        return tuple(sorted(note.origin for note in read_notes(self._directory)))

    def hold(self, offered: Checkpoint, proof: Sequence[bytes], *keys: PublicKey) -> None:
        """Verify a checkpoint and keep it; it is durable when this returns.

        Args:
            offered: the checkpoint that came.
            proof: the consistency proof from the one held.
            keys: the log's pinned keys.

        Raises:
            EvidenceError: ``evidence.checkpoint_unsigned``; ``evidence.log_rolled_back`` where it is older
                than the one held; ``evidence.log_inconsistent`` where it contradicts that one, or isn't
                proven to continue it, and then both are kept, see `conflicts` and `unproven`.
            SignatureInvalid: it isn't what the log signed.
            StorageError: it can't be written.
        """
        verify_checkpoint(offered, offered.origin, *keys)
        with self._alone():
            held = self.newest(offered.origin)
            try:
                require_successor(held, offered, proof)
            except EvidenceError as error:
                if held is not None and error.code == "evidence.log_inconsistent":
                    self._keep_both(_UNPROVEN if held.size < offered.size else _CONFLICTS, held, offered)
                raise
            if held is None or held.size < offered.size:
                write_atomic(self._directory / f"{file_name(offered.origin)}{NOTE_SUFFIX}", _bytes(offered))

    def require_writable(self) -> None:
        """Make sure that something can be held.

        Raises:
            StorageError: it can't.
        """
        with self._alone():
            pass

    def bring_back(self, stated: Checkpoint) -> None:
        """Take back a checkpoint that the holder's own log states is held, if it is missing or was set back.

        Args:
            stated: as the holder stated it, its signature verified then.

        Raises:
            EvidenceError: ``evidence.log_inconsistent`` if a checkpoint is held that contradicts it.
            StorageError: it can't be written.
        """
        with self._alone():
            held = self.newest(stated.origin)
            if held is None or held.size < stated.size:
                write_atomic(self._directory / f"{file_name(stated.origin)}{NOTE_SUFFIX}", _bytes(stated))
            elif _contradict(held, stated):
                raise EvidenceError(
                    "evidence.log_inconsistent",
                    f"{self._directory} holds another head of {stated.origin} over {held.size} entries than "
                    "the holder's own log states.",
                    "Somebody edited the folder; bring back the checkpoint that was there.",
                )

    def conflicts(self, origin: str) -> tuple[tuple[Checkpoint, Checkpoint], ...]:
        """Each pair of a checkpoint held and one that contradicts it: as many entries, another root.

        Raises:
            EvidenceError: ``evidence.checkpoint_malformed``, naming the file.
            InputError: a file can't be read.
        """
        return tuple(pair for pair in self._pairs(_CONFLICTS, origin) if _contradict(*pair))

    def unproven(self, origin: str) -> tuple[tuple[Checkpoint, Checkpoint], ...]:
        """Each pair of a checkpoint held and a later one that came without a proof that holds.

        It takes the log's owner to tell whether anything joins them.

        Raises:
            EvidenceError: ``evidence.checkpoint_malformed``, naming the file.
            InputError: a file can't be read.
        """
        return self._pairs(_UNPROVEN, origin)

    @interruptible
    def _alone(self) -> Iterator[None]:
        """Let no other thread or process change the book meanwhile."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(self._directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise storage_error(error, self._directory / ".lock") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _pairs(self, kind: str, origin: str) -> tuple[tuple[Checkpoint, Checkpoint], ...]:
        folder = self._directory / kind / file_name(origin)
        return tuple(
            (read_note(pair / "held.note"), read_note(pair / "offered.note"))
            for pair in sorted(folder.glob(_PAIRS))
        )

    def _keep_both(self, kind: str, held: Checkpoint, offered: Checkpoint) -> None:
        """Keep a pair whole or not at all: it is built under a hidden name, which no reader looks at."""
        if kind == _CONFLICTS and not _contradict(held, offered):
            return
        folder = self._directory / kind / file_name(offered.origin)
        digest = sha256_hex((held.note() + offered.note()).encode("utf-8"))[:16]
        pair, draft = folder / f"{offered.size}-{digest}", folder / ".unfinished"
        if pair.exists() or len(list(folder.glob(_PAIRS))) >= MAX_CONFLICTS:
            return
        try:
            shutil.rmtree(draft, ignore_errors=True)
            draft.mkdir(mode=0o700, parents=True)
            write_atomic(draft / "held.note", _bytes(held))
            write_atomic(draft / "offered.note", _bytes(offered))
            draft.rename(pair)
            sync_directory(folder)
        except OSError as error:
            raise storage_error(error, pair) from None


def _contradict(held: Checkpoint, offered: Checkpoint) -> bool:
    return held.size == offered.size and held.root != offered.root


def read_notes(directory: Path) -> tuple[Checkpoint, ...]:
    """Every checkpoint that lies in a folder as ``*.note``, in the order of the file names.

    Args:
        directory: the folder; one that isn't there holds nothing.

    Raises:
        EvidenceError: ``evidence.checkpoint_malformed``, naming the file.
        InputError: a file can't be read.
    """
    return tuple(read_note(path) for path in sorted(directory.glob(f"[!.]*{NOTE_SUFFIX}")))


def read_note(path: Path) -> Checkpoint:
    """The checkpoint in a file.

    Raises:
        EvidenceError: ``evidence.checkpoint_malformed``, naming the file.
        InputError: it can't be read.
    """
    data = read_bounded(path, MAX_NOTE_BYTES)
    try:
        return parse_checkpoint(data.decode("utf-8"))
    except (UnicodeDecodeError, EvidenceError):
        raise EvidenceError(
            "evidence.checkpoint_malformed",
            f"{path} is not a checkpoint.",
            "Bring back the checkpoint that was there.",
        ) from None


def _bytes(checkpoint: Checkpoint) -> bytes:
    return checkpoint.encode().encode("utf-8")


def file_name(origin: str) -> str:
    """A log's name as the name of a file, percent-encoded and never hidden."""
    return quote(origin, safe="") if not origin.startswith(".") else "%2E" + quote(origin[1:], safe="")
