"""What a protection does with its folder while it runs, beside what the brain keeps: reach and audit.

A folder that can't be used now is looked at again the next time: nothing is raised here.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from cloister.core.errors import CloisterError
from cloister.immune.kept_state import EgressMemory, second_folder

if TYPE_CHECKING:
    from cloister.immune.acting.egress import EgressGuard
    from cloister.immune.keeping.store import StateStore
    from cloister.immune.kept_state import KeptState
    from cloister.immune.settings import StorageSettings


class FolderUpkeep:
    """Of one folder; without one it does nothing.

    Args:
        kept: what is kept there.
        storage: how long, and where else.
        guard: knows what functions reach for.
        store: has an alarm where what is kept isn't what was written.
    """

    def __init__(
        self, kept: KeptState, storage: StorageSettings, guard: EgressGuard, store: StateStore
    ) -> None:
        self._kept, self._storage, self._guard = kept, storage, guard
        self._memory = None if kept.folder is None else EgressMemory(kept.folder, kept.signer, store)

    def restore_egress(self) -> None:
        """Give the guard what was kept."""
        if self._memory is not None:
            self._memory.restore(self._guard)

    def save_egress(self) -> None:
        """Keep what the guard knows."""
        if self._memory is not None:
            with suppress(CloisterError):
                self._memory.save(self._guard)

    def take_approvals(self) -> None:
        """Take over which targets the operator approved since the last look."""
        if self._kept.approvals is None:
            return
        with suppress(CloisterError):
            for one in self._kept.approvals.news():
                self._guard.approve(one.function, one.operation, one.target)

    def tidy_audit(self) -> None:
        """Remove what is older than the audit is kept, once a day."""
        if self._kept.audit is not None and self._kept.trail is not None:
            from cloister.immune.audit_retention import AuditRetention

            with suppress(CloisterError):
                AuditRetention(
                    self._kept.audit,
                    self._kept.trail,
                    self._storage.audit_days,
                    second_folder(self._storage),
                ).tidy_once_a_day()
