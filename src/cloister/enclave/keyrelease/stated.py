"""The releases that a keeper's log states: what counts where the book of data keys is an older copy.

A log is append-only, and older copies of it are refused by who opens it; a book is a file that can be put
back. So a release counts if either has it.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import Final

from cloister.core.canonical import b64encode
from cloister.core.hashes import Sha256
from cloister.evidence.envelope import decode_envelope
from cloister.evidence.log import LogReader
from cloister.evidence.predicates import KeyRelease
from cloister.evidence.statement import open_statement


def _in_base64(text: bytes) -> tuple[bytes, bytes, bytes]:
    """How a text shows in the base64 of something that it is in, beginning at each of the three places."""
    first, second, third = (b64encode(bytes(shift) + text) for shift in range(3))
    whole = [4 * ((shift + len(text)) // 3) for shift in range(3)]
    return (
        first[: whole[0]].encode("ascii"),
        second[2 : whole[1]].encode("ascii"),
        third[3 : whole[2]].encode("ascii"),
    )


# Entries of other kinds are told by their bytes: to decode each takes three times as long as to read it.
_NAMES_ITS_TYPE: Final = _in_base64(KeyRelease.TYPE.encode("ascii"))


class StatedReleases:
    """The challenges of stated releases, by policy; safe to share between threads.

    The log is read from its beginning once, and then from where it was read to.

    Args:
        log: the keeper's own.
    """

    def __init__(self, log: LogReader) -> None:
        self._log = log
        self._lock = threading.Lock()
        self._read = 0
        self._nonces: defaultdict[str, set[Sha256]] = defaultdict(set)

    def under(self, policy_sha256: str) -> frozenset[Sha256]:
        """SHA-256 of the challenge of each release under a policy that is in the log by now.

        Raises:
            EvidenceError: ``evidence.log_mismatch`` where the log was altered.
            StorageError: it can't be read.
        """
        with self._lock:
            for entry in self._log.entries(self._read):
                self._read = entry.index + 1
                if not any(name in entry.data for name in _NAMES_ITS_TYPE):
                    continue
                stated = open_statement(decode_envelope(entry.data)).predicate
                if isinstance(stated, KeyRelease) and stated.outcome == "released":
                    self._nonces[stated.policy_sha256].add(Sha256(stated.nonce_sha256))
            return frozenset(self._nonces.get(policy_sha256, ()))
