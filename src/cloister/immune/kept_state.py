"""What a protection keeps in its folder, opened whatever is wrong with it.

A broken immune system never stops a service. Rules kept here:

1. Keys or a folder that can't be used leave everything in memory, with an alarm, under which nothing is
   blocked. They are left as they are: a key that others may read is for a person to judge.
2. Any other file that isn't what was written is put aside under another name, with an alarm, and begun anew.
3. What functions reach for is signed: who writes the file without the key approves nothing.

Settings are no state: a wrong one is an error where the service starts.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloister.core.canonical import canonicalize, parse_canonical
from cloister.core.errors import CloisterError
from cloister.core.files import read_bounded, write_atomic
from cloister.immune.keeping.events import Alarm

if TYPE_CHECKING:
    from cloister.core.keys import Signer
    from cloister.immune.acting.egress import EgressGuard
    from cloister.immune.audit import AuditTrail
    from cloister.immune.audit_folder import AuditFolder
    from cloister.immune.egress_approvals import EgressApprovals
    from cloister.immune.keeping.store import StateStore
    from cloister.immune.settings import StorageSettings

AUDIT: Final = "audit"
EGRESS: Final = "egress.json"
_EGRESS_TYPE: Final = "cloister.immune.egress.v1"
_MOST_BYTES: Final = 8 * 1024**2
_LOG: Final = logging.getLogger("cloister.immune")


@dataclass(frozen=True, slots=True)
class KeptState:
    """What a protection has of its folder.

    Attributes:
        folder: where its state is kept; None where that is in memory.
        signer: signs what is kept.
        trail: the audit; None keeps none.
        approvals: what the operator approved that functions reach for.
        audit: where the audit is kept.
        alarms: what is wrong with the folder.
    """

    folder: Path | None
    signer: Signer
    trail: AuditTrail | None = None
    approvals: EgressApprovals | None = None
    audit: AuditFolder | None = None
    alarms: tuple[Alarm, ...] = ()


def open_kept_state(storage: StorageSettings, redact: Callable[[str], str]) -> KeptState:
    """Open the folder that the settings name; nothing is raised, whatever is wrong with it.

    Args:
        storage: names the folder, or none.
        redact: for what the audit says in words.
    """
    from cloister.core.keys import EphemeralKeyStore

    alarms: tuple[Alarm, ...] = ()
    if storage.directory is not None:
        try:
            return _opened(Path(storage.directory), storage, redact)
        except Exception as error:
            why = error.code if isinstance(error, CloisterError) else type(error).__name__
            alarms = (Alarm("folder_unusable", "", time.time(), why),)
            _LOG.error("immune: %s", alarms[0].reason)
    return KeptState(None, EphemeralKeyStore().generate("immune"), alarms=alarms)


def _opened(folder: Path, storage: StorageSettings, redact: Callable[[str], str]) -> KeptState:
    from cloister.immune.audit_folder import AuditFolder, open_audit
    from cloister.immune.egress_approvals import EgressApprovals

    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    audit = AuditFolder(folder / AUDIT)
    signer = audit.signer()
    trail = open_audit(audit, encrypted=storage.encrypted, checkpoints=second_folder(storage), redact=redact)
    return KeptState(folder, signer, trail, EgressApprovals(folder, signer), audit)


def second_folder(storage: StorageSettings) -> Path | None:
    """Where else the audit's checkpoints are held."""
    return None if storage.checkpoint_directory is None else Path(storage.checkpoint_directory)


class EgressMemory:
    """What functions reach for, over a restart: names, in its owner's file, signed.

    Args:
        folder: where it is kept.
        signer: signs it; what another key signed isn't trusted.
        store: has an alarm where what is kept isn't what was written.
    """

    def __init__(self, folder: Path, signer: Signer, store: StateStore) -> None:
        self._path, self._signer, self._store = folder / EGRESS, signer, store
        self._saved = b""

    def save(self, guard: EgressGuard) -> None:
        """Keep what a guard knows, if it is something else than before.

        Raises:
            StorageError: it can't be written.
        """
        state = guard.state()
        functions = {
            name: {
                "settled": one["settled"],
                "learned": _named(one["learned"]),
                "approved": _named(one["approved"]),
                "unguarded": list(one["unguarded"]),
            }
            for name, one in state["functions"].items()
        }
        document = canonicalize(
            {"functions": functions, "type": _EGRESS_TYPE, "version": state["version"]}  # type: ignore[dict-item]
        )
        if document != self._saved:
            signature = self._signer.sign(document).hex()
            write_atomic(self._path, canonicalize({"signature": signature, "state": document.decode()}))
            self._saved = document

    def restore(self, guard: EgressGuard) -> None:
        """Give a guard what was kept; what isn't what was written is put aside, and learned anew."""
        if not os.path.lexists(self._path):
            return
        try:
            guard.restore(self._read())
        except Exception:
            self._store.put_aside(self._path)

    def _read(self) -> dict[str, object]:
        match parse_canonical(read_bounded(self._path, _MOST_BYTES), max_bytes=_MOST_BYTES):
            case {"signature": str(signature), "state": str(state)}:
                document = state.encode()
            case _:
                raise ValueError
        self._signer.public_key.verify(bytes.fromhex(signature), document)
        found = parse_canonical(document, max_bytes=_MOST_BYTES, max_members=_MOST_BYTES)
        if not isinstance(found, dict) or found.pop("type", None) != _EGRESS_TYPE:
            raise ValueError
        return dict(found)


def _named(by_operation: dict[str, list[str]]) -> dict[str, list[str]]:
    """Names as JSON can carry them: one that no text holds is learned anew after a restart."""
    return {
        operation: [one for one in targets if _is_text(one)] for operation, targets in by_operation.items()
    }


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
