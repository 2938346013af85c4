"""What an operator does from any process: through the folder that the watched processes keep their state in.

The acts are signed or recorded where they are made; running processes see them within two seconds,
the kill switch within a quarter of a second.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Final

from cloister.core.canonical import JSON
from cloister.core.closing import Closing
from cloister.core.errors import CloisterError
from cloister.core.files import read_bounded, storage_error
from cloister.core.redaction import Redactor
from cloister.immune.acting import switch
from cloister.immune.acting.reach import Operation
from cloister.immune.acting.switch import KillSwitch
from cloister.immune.audit_event import AuditKind
from cloister.immune.audit_export import NOTHING_WRITTEN, AuditVerdict, export_audit
from cloister.immune.audit_folder import AuditFolder, open_audit
from cloister.immune.egress_approvals import EgressApproval, EgressApprovals, parse_target
from cloister.immune.errors import ImmuneError
from cloister.immune.keeping import (
    AnchorKeeper,
    Detector,
    DetectorRegistry,
    DetectorState,
    open_state,
    pattern_key,
)
from cloister.immune.keeping.approval import RELEARNING_CALLS
from cloister.immune.keeping.detector_rows import detectors_in
from cloister.immune.keeping.events import Happened, StateEvent
from cloister.immune.keeping.files import acknowledge_damaged, damaged_files
from cloister.immune.keeping.snapshots import Snapshot, roll_back, snapshots_of
from cloister.immune.keeping.stages import StageKeeper
from cloister.immune.keeping.store import NAME, StateStore
from cloister.immune.kept_state import AUDIT
from cloister.immune.notes import Notes
from cloister.immune.process_status import PROCESSES
from cloister.immune.supervisor import WATCHDOG, WatchdogStatus, read_status, request_reset
from cloister.immune.watchdog import Mode

_OTHERS_WRITE: Final = 0o022
_FUNCTION: Final = re.compile(r"[^:\s]{1,300}:[^:\s]{1,300}")
_WITH_FUNCTIONS: Final = ("learned", "traces", "baselines", "anchors", "marks", "detectors", "stages")
_MAX_STATUS: Final = 16 * 1024**2
_ID: Final = re.compile(r"[0-9a-f]{16}")
_PROCESS: Final = re.compile(r"[1-9][0-9]{0,9}\.json")


class Operator(Closing):
    """One folder's operator; close it, or use it in a ``with`` block.

    Who only looks makes nothing in the folder: keys and files are made when something is decided.

    Args:
        folder: ``storage.directory`` of the watched processes.
        by: the operator's name, for the record.
        days: after which a promoted detector ends.
        checkpoints: a second folder that holds the audit's checkpoints.
        reading: whether nothing will be decided; where there is no database, none is made.

    Raises:
        ImmuneError: ``immune.state_unusable``: there is no such folder, it is another user's, or others may
            write to it.
    """

    def __init__(
        self,
        folder: Path,
        by: str,
        *,
        days: float = 90.0,
        ratio: float = 1.5,
        checkpoints: Path | None = None,
        reading: bool = False,
    ) -> None:
        require_own_folder(folder)
        self.folder, self._by, self._days, self._ratio = folder, by, days, ratio
        self._redact = Redactor().clean
        self._checkpoints = checkpoints
        self._told = set(damaged_files(folder))
        self.store = StateStore(None) if reading and not (folder / NAME).exists() else open_state(folder)
        self._opened_notes: Notes | None = None

    @cached_property
    def audit(self) -> AuditFolder:
        """The folder's audit; its keys are made where there are none."""
        return AuditFolder(self.folder / AUDIT)

    @cached_property
    def anchors(self) -> AnchorKeeper:
        """What was approved."""
        return AnchorKeeper(self.store, self.audit.signer(), self._ratio)

    @cached_property
    def registry(self) -> DetectorRegistry:
        """Candidates and detectors, to be decided about."""
        return DetectorRegistry(self.store, pattern_key(self.folder), self._days, self._redact)

    @cached_property
    def _approvals(self) -> EgressApprovals:
        return EgressApprovals(self.folder, self.audit.signer())

    @property
    def _notes(self) -> Notes:
        if self._opened_notes is None:
            trail = open_audit(self.audit, checkpoints=self._checkpoints, redact=self._redact)
            self._opened_notes = Notes(trail, monotonic=time.monotonic)
        return self._opened_notes

    @property
    def alarms(self) -> tuple[str, ...]:
        """What is wrong with the folder's state, in words."""
        return tuple(one.reason for one in self.store.alarms)

    def require_known(self, function: str) -> None:
        """Refuse a function that neither a running process nor the state knows.

        Raises:
            ImmuneError: ``immune.setting_invalid`` for another form than ``module:qualname``;
                ``immune.function_unknown``.
        """
        if not _FUNCTION.fullmatch(function):
            raise ImmuneError(
                "immune.setting_invalid",
                "A function is named by its module and its name in it.",
                "Write module:qualname, as pic status shows it.",
            )
        for said in self.processes().values():
            shown = said.get("functions")
            if isinstance(shown, dict) and function in shown:
                return
        with self.store.reading() as connection:
            for table in _WITH_FUNCTIONS:
                query = f"SELECT 1 FROM {table} WHERE function = ? LIMIT 1"  # noqa: S608 - of this module
                if connection.execute(query, (function,)).fetchone() is not None:
                    return
        raise ImmuneError(
            "immune.function_unknown",
            f"No running process watches {function}, and nothing was learned of it.",
            "See which there are:  pic status; decide about one that is still to come:  --ahead",
        )

    def processes(self) -> dict[int, Mapping[str, JSON]]:
        """The last word of each process that is still there, by its number."""
        found: dict[int, Mapping[str, JSON]] = {}
        for path in sorted((self.folder / PROCESSES).glob("*.json")):
            if not _PROCESS.fullmatch(path.name) or not _is_there(int(path.stem)):
                continue
            with suppress(CloisterError, ValueError):
                said = json.loads(read_bounded(path, _MAX_STATUS))
                if isinstance(said, dict):
                    found[int(path.stem)] = said
        return found

    def switched_off(self) -> str:
        """What threw the kill switch: ``nothing`` where it isn't."""
        return KillSwitch(self.folder).thrown_by.value

    def detectors(self) -> tuple[Detector, ...]:
        """All candidates and detectors."""
        return detectors_in(self.store)

    def snapshots(self, function: str) -> tuple[Snapshot, ...]:
        """What a function's detectors can be rolled back to."""
        return snapshots_of(self.store, function)

    def promote(self, number: int) -> StateEvent:
        """See `DetectorRegistry.promote`."""
        return self._recorded(lambda: self.registry.promote(number, self._by))

    def promote_passed(self, function: str, feature: str | None = None) -> tuple[StateEvent, ...]:
        """Promote all candidates of a function that passed.

        Args:
            function: ``module:qualname``.
            feature: only those that name it.

        Raises:
            ImmuneError: ``immune.not_eligible``: there is none.
        """
        numbers = [
            one.id
            for one in detectors_in(self.store, function)
            if one.state is DetectorState.CANDIDATE
            and one.verdict is not None
            and one.verdict.passed
            and (feature is None or one.provenance.startswith(f"{feature} "))
        ]
        if not numbers:
            about = "" if feature is None else f" about its {feature}"
            raise ImmuneError(
                "immune.not_eligible",
                f"No candidate of {function}{about} passed its validation.",
                "See which there are:  pic detectors list",
            )
        return tuple(self.promote(number) for number in numbers)

    def retry(self, number: int) -> StateEvent:
        """See `DetectorRegistry.retry`."""
        return self._recorded(lambda: self.registry.retry(number, self._by))

    def reject(self, number: int, why: str) -> StateEvent:
        """See `DetectorRegistry.reject`."""
        return self._recorded(lambda: self.registry.reject(number, self._by, why))

    def roll_back(self, function: str, snapshot: int) -> StateEvent:
        """See `roll_back`."""
        return self._recorded(lambda: roll_back(self.store, function, snapshot, self._by))

    def acknowledge(self) -> tuple[str, ...]:
        """Say that what was put aside was looked at: it is kept, and no alarm any more.

        Returns:
            The names that the files had.

        Raises:
            StorageError: one can't be renamed.
        """
        try:
            found = acknowledge_damaged(self.folder)
        except OSError as error:
            raise storage_error(error, self.folder) from None
        for name in found:
            reason = f"{name} was looked at; by {self._by}"
            self._notes.note(AuditKind.STATE_CHANGE, "acknowledged", "", reason)
        self.store.look_for_damage()
        return found

    def watchdog(self) -> WatchdogStatus | None:
        """What the watchdog of a brain service is at; None where there is none."""
        return read_status(self.folder / WATCHDOG)

    def reset_watchdog(self) -> None:
        """Ask the watchdog to end safe mode, at its next look or start; it looks at the code first.

        Raises:
            ImmuneError: ``immune.state_unusable``: there is no watchdog, or it isn't in safe mode.
            StorageError: the request can't be written.
        """
        found = self.watchdog()
        if found is None or found.mode is Mode.WATCHING:
            raise ImmuneError(
                "immune.state_unusable",
                "There is no watchdog in safe mode here.",
                "See how it stands:  pic status",
            )
        request_reset(self.folder / WATCHDOG)
        self._notes.note(AuditKind.STATE_CHANGE, "watchdog-reset", "", f"by {self._by}")

    def approve(self, function: str, *, calls: int = RELEARNING_CALLS, span: float = 0.0) -> StateEvent:
        """See `AnchorKeeper.approve`."""
        return self._recorded(lambda: self.anchors.approve(function, self._by, calls=calls, span=span))

    def approve_target(self, function: str, target: str) -> StateEvent:
        """Approve what a function reaches for; running processes know it within two seconds.

        Args:
            function: ``module:qualname``.
            target: an operation and its target, ``connect 10.1.2.3``, or the id by which the audit and
                the error name one that was new.

        Raises:
            ImmuneError: ``immune.setting_invalid``: neither; ``immune.target_unknown``: no running process
                has a new target of this id.
        """
        operation, name = self._target_of(function, target) if _ID.fullmatch(target) else parse_target(target)
        approval = EgressApproval(function, operation, name, self._by, self.store.clock())

        def approve() -> StateEvent:
            self._approvals.add(approval)
            reason = f"{operation.value} of a target is approved, by approval {approval.name}"
            return StateEvent(Happened.EGRESS_APPROVED, function, approval.at, reason, by=self._by)

        return self._recorded(approve)

    def release(self, function: str) -> StateEvent:
        """End a function's containment in every process; they know it within two seconds."""

        def release() -> StateEvent:
            StageKeeper(self.store, self.audit.signer()).release(function)
            reason = "it was released by hand, whatever was held against it"
            return StateEvent(Happened.STAGE_RELEASED, function, self.store.clock(), reason, by=self._by)

        return self._recorded(release)

    def deploy(self, function: str) -> StateEvent:
        """See `AnchorKeeper.deploy`."""
        return self._recorded(lambda: self.anchors.deploy(function, self._by))

    def switch_off(self) -> None:
        """Throw the kill switch of every process of the folder."""
        switch.throw(self.folder)
        self._notes.note(AuditKind.KILL_SWITCH, "thrown", "", f"by {self._by}")

    def switch_on(self) -> None:
        """Take the kill switch back."""
        switch.restore(self.folder)
        self._notes.note(AuditKind.KILL_SWITCH, "restored", "", f"by {self._by}")

    def export(self, out: Path) -> AuditVerdict:
        """Verify the audit and write its entries as JSON Lines."""
        if not self._audit_was_written():
            return NOTHING_WRITTEN
        return export_audit(self.audit, out, outside=self._checkpoints)

    def close(self) -> None:
        """Write what waits and close."""
        # Whoever meets the damage first writes it down.
        for alarm in self.store.alarms:
            if alarm.put_aside and alarm.put_aside not in self._told:
                self._notes.happened(StateEvent(Happened.STATE_DAMAGED, "", alarm.at, alarm.reason))
        if self._opened_notes is not None:
            self._opened_notes.close()
        self.store.close()

    def _audit_was_written(self) -> bool:
        """Whether there is an audit, or something says that there was one."""
        kept = [(self.folder / AUDIT).glob("segments/*"), (self.folder / AUDIT).glob("checkpoints/*")]
        if self._checkpoints is not None:
            kept.append(self._checkpoints.glob("*"))
        if any(any(one) for one in kept):
            return True
        with self.store.reading() as connection:
            return connection.execute("SELECT 1 FROM marks LIMIT 1").fetchone() is not None

    def _target_of(self, function: str, number: str) -> tuple[Operation, str]:
        for one in self.processes().values():
            by_function = one.get("new_targets")
            found = by_function.get(function) if isinstance(by_function, dict) else None
            for target in found if isinstance(found, list) else ():
                if isinstance(target, dict) and target.get("id") == number:
                    return parse_target(f"{target.get('operation')} {target.get('target')}")
        raise ImmuneError(
            "immune.target_unknown",
            f"No running process has a new target {number} of {function}.",
            "See which there are:  pic status --json",
        )

    def _recorded(self, act: Callable[[], StateEvent]) -> StateEvent:
        event = act()
        self._notes.happened(event)
        return event


def require_own_folder(folder: Path) -> None:
    """Refuse a folder that isn't there, is another user's, or that others may write to.

    Raises:
        ImmuneError: ``immune.state_unusable``.
    """
    if not folder.is_dir():
        raise ImmuneError(
            "immune.state_unusable",
            f"There is no folder {folder}.",
            "Name the one of storage.directory:  --directory DIR",
        )
    found = folder.stat()
    if found.st_uid != os.geteuid():
        raise ImmuneError(
            "immune.state_unusable",
            f"The folder {folder} belongs to another user, whose service couldn't use what is made in it.",
            f"Run it as that user:  sudo -u '#{found.st_uid}' pic ...",
        )
    if found.st_mode & _OTHERS_WRITE:
        raise ImmuneError(
            "immune.state_unusable",
            f"Others may write to the folder {folder}.",
            f"Take it from them:  chmod 700 {folder}",
        )


def _is_there(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
