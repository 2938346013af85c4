"""What an operator approved that functions reach for: signed, in the folder that its processes share.

Rules this module keeps:

1. An approval is a line of its own, signed with the folder's key; what doesn't verify approves nothing.
2. Lines are only added. Processes look every two seconds, and read what has changed.
3. Names of hosts and folders stay in this file, which only its owner reads: the audit names an approval by
   its hash.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloister.core.canonical import JSON, canonicalize, parse_canonical
from cloister.core.errors import CloisterError
from cloister.core.files import read_bounded, storage_error
from cloister.immune.acting.reach import Operation
from cloister.immune.errors import ImmuneError
from cloister.immune.keeping.signed import open_signed, seconds, text

if TYPE_CHECKING:
    from cloister.core.keys import PublicKey, Signer

FILE: Final = "egress-approved.jsonl"
_TYPE: Final = "cloister-egress-approval"
_MOST_BYTES: Final = 4 * 1024**2
_MOST_LINE: Final = 16 * 1024
_MOST_TARGET: Final = 4096


@dataclass(frozen=True, slots=True)
class EgressApproval:
    """One target that a function may reach for.

    Attributes:
        function: ``module:qualname``.
        operation: what it does with the target.
        target: a host, folder, program or library; a folder with all below it (``/srv/reports/``), or a
            network (``10.0.0.0/8``).
        by: who approved it.
        at: seconds since 1970.
    """

    function: str
    operation: Operation
    target: str
    by: str
    at: float

    def document(self) -> bytes:
        """It as canonical JSON: what is signed."""
        return canonicalize(
            {
                "at": self.at,
                "by": self.by,
                "function": self.function,
                "operation": self.operation.value,
                "target": self.target,
                "type": _TYPE,
            }
        )

    @property
    def name(self) -> str:
        """What the audit names it by: the first 16 digits of its SHA-256."""
        return sha256(self.document()).hexdigest()[:16]


def parse_target(words: str) -> tuple[Operation, str]:
    """Read an operation and its target, as in ``connect 10.1.2.3``.

    Raises:
        ImmuneError: ``immune.setting_invalid``.
    """
    operation, _, target = words.strip().partition(" ")
    target = target.strip()
    if operation not in set(Operation) or not target.isprintable() or not 0 < len(target) <= _MOST_TARGET:
        raise ImmuneError(
            "immune.setting_invalid",
            "A target is an operation and what it is done with.",
            f'Write "connect 10.1.2.3" or "write /srv/reports/"; operations: {", ".join(Operation)}.',
        )
    return Operation(operation), target


class EgressApprovals:
    """The approvals of one folder.

    Args:
        folder: ``storage.directory``.
        signer: signs new ones; what another key signed isn't trusted.
    """

    def __init__(self, folder: Path, signer: Signer) -> None:
        self._path, self._signer = folder / FILE, signer
        self._seen: tuple[int, int] | None = None

    def add(self, approval: EgressApproval) -> None:
        """Keep an approval.

        Raises:
            StorageError: it can't be written.
        """
        document = approval.document()
        line = canonicalize({"approval": document.decode(), "signature": self._signer.sign(document).hex()})
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise storage_error(error, self._path) from None

    def news(self) -> tuple[EgressApproval, ...]:
        """All that verify, where the file has changed since this was last asked; otherwise none."""
        try:
            found = self._path.stat()
        except OSError:
            return ()
        seen = found.st_mtime_ns, found.st_size
        if seen == self._seen:
            return ()
        approvals = self.read()
        self._seen = seen
        return approvals

    def read(self) -> tuple[EgressApproval, ...]:
        """All that verify, in the order in which they were made.

        Raises:
            CloisterError: the file is too large, or can't be read.
        """
        if not self._path.exists():
            return ()
        found = []
        for line in read_bounded(self._path, _MOST_BYTES).splitlines():
            with suppress(CloisterError, ValueError, TypeError, KeyError):
                found.append(_opened(line, self._signer.public_key))
        return tuple(found)


def _opened(line: bytes, trusted: PublicKey) -> EgressApproval:
    signed = parse_canonical(line, max_bytes=_MOST_LINE)
    if not isinstance(signed, dict):
        raise TypeError

    def read(members: dict[str, JSON]) -> EgressApproval:
        return EgressApproval(
            text(members["function"]),
            Operation(text(members["operation"])),
            text(members["target"]),
            text(members["by"]),
            seconds(members["at"]),
        )

    document, signature = text(signed["approval"]).encode(), bytes.fromhex(text(signed["signature"]))
    return open_signed(document, signature, trusted, read)
