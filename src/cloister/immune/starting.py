"""The processes behind ``pic start``: the brain service, and the watchdog over it."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from math import nan
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from cloister.core.clock import format_time, system_clock
from cloister.core.errors import CloisterError
from cloister.core.files import read_bounded, write_atomic
from cloister.core.redaction import Redactor
from cloister.immune.audit_event import AuditEvent, AuditKind
from cloister.immune.audit_folder import AuditFolder, open_audit
from cloister.immune.audit_retention import AuditRetention
from cloister.immune.brain import Brain
from cloister.immune.errors import ImmuneError
from cloister.immune.kept_state import AUDIT, second_folder
from cloister.immune.notes import Notes
from cloister.immune.remote_brain import RemoteBrain
from cloister.immune.service import WatchdogState, serve
from cloister.immune.supervisor import (
    WATCHDOG,
    Supervisor,
    WatchdogStatus,
    WatchedCode,
    http_health,
    read_status,
)
from cloister.immune.watchdog import Mode

if TYPE_CHECKING:
    from cloister.immune.code_manifest import CodeTrust
    from cloister.immune.settings import ImmuneSettings

MANIFEST: Final = "code.json"
_STATES: Final = {Mode.WATCHING: WatchdogState.WATCHING, Mode.SAFE: WatchdogState.SAFE_MODE}


def serve_brain(settings: ImmuneSettings, announce: Callable[[str], object]) -> None:
    """Serve until SIGTERM or SIGINT; call it from the main thread.

    Args:
        settings: of the service.
        announce: told the service's URL.

    Raises:
        ImmuneError: the service would be unsafe, or no folder is named for its state.
    """
    folder = _folder(settings)
    redact = Redactor().clean
    with ExitStack() as ending:
        audit = AuditFolder(folder / AUDIT)
        storage = settings.storage
        checkpoints = second_folder(storage)
        trail = open_audit(audit, encrypted=storage.encrypted, checkpoints=checkpoints, redact=redact)
        with suppress(CloisterError):
            AuditRetention(audit, trail, storage.audit_days, checkpoints).tidy_once_a_day()
        notes = Notes(trail, monotonic=time.monotonic)
        ending.callback(notes.close)
        # What a process says decides nothing here: it would be somebody else's word.
        watched = settings.model_copy(
            update={"effector": settings.effector.model_copy(update={"enforcing": ()})}
        )
        brain = Brain(
            watched,
            audit.signer(),
            notes,
            redact=redact,
            switched_off=lambda: False,
            changed=lambda _: None,
            matured=lambda _name, _learned: None,
            monotonic=time.time,
            # The calls are of other processes, maybe of other machines: how slow this one is says nothing.
            stopwatch=lambda: nan,
        )
        ending.callback(brain.close)
        for number in (signal.SIGTERM, signal.SIGINT):
            ending.callback(signal.signal, number, signal.signal(number, _stop))
        # The server raises the signal that stopped it once more when it has ended.
        with suppress(_Stopped):
            remote = RemoteBrain(brain, lambda: _watchdog(folder), lambda: _code_trust(folder))
            serve(remote, settings.api, announce=announce)


@dataclass(frozen=True, slots=True)
class Release:
    """What a release says of its code.

    Attributes:
        manifest: the file with the signed list of its files (`cloister.immune.code_manifest`).
        key: the pinned release key, PEM. Its private half has no business on the machine of the service.
    """

    manifest: Path
    key: Path


def watch_over(
    settings: ImmuneSettings,
    command: Sequence[str],
    release: Release | None = None,
    announce: Callable[[WatchdogStatus], object] = lambda _: None,
) -> None:
    """Watch over a brain service until SIGTERM or SIGINT.

    Args:
        settings: of the service; its port has to be named.
        command: what starts it.
        release: what its code has to be; without it, the code is taken as it is found now.
        announce: told what the watchdog is at, at the start and whenever that changes.

    Raises:
        ImmuneError: ``immune.setting_invalid``: a port that can't be asked. ``immune.manifest_invalid``: the
            release's list doesn't verify under its key. Code that differs from a list that verifies is not
            raised: the watchdog says so, and starts nothing.
        InputError: one of the release's files can't be read.
    """
    if settings.api.port == 0:
        raise ImmuneError(
            "immune.setting_invalid", "A watched service listens at a port that is known.", "Name one."
        )
    folder, root = _folder(settings), Path(__file__).parents[1]
    audit = AuditFolder(folder / AUDIT)
    with closing(
        open_audit(audit, checkpoints=second_folder(settings.storage), redact=Redactor().clean)
    ) as trail:
        code = watched_code(root, folder / MANIFEST, audit, release)
        trail.record(_whose_word(code))
        over = threading.Event()

        def stop(_number: int, _frame: FrameType | None) -> None:
            over.set()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        Supervisor(
            command,
            health=http_health(settings.api.host, settings.api.port),
            status=folder / WATCHDOG,
            code=code,
            record=trail.record,
            announce=announce,
        ).run(over)


def watched_code(root: Path, made_here: Path, audit: AuditFolder, release: Release | None) -> WatchedCode:
    """What a service's code has to be.

    Args:
        root: the package's folder.
        made_here: where the list of the code as it is found is written, without a release.
        audit: whose key signs that one.
        release: what its code has to be.

    Raises:
        ImmuneError, InputError: as `watch_over`.
    """
    from cloister.core.keys import PublicKey
    from cloister.immune.code_manifest import MAX_KEY_BYTES, CodeTrust, read_code_manifest, sign_code

    if release is None:
        write_atomic(made_here, sign_code(root, audit.signer()))
        return WatchedCode(root, made_here, audit.public_keys())
    read_code_manifest(release.manifest, release.key)
    # The key is read once: who replaces its file later changes nothing.
    pinned = PublicKey.from_pem(read_bounded(release.key, MAX_KEY_BYTES))
    return WatchedCode(root, release.manifest, (pinned,), CodeTrust.RELEASE_KEY)


def _whose_word(code: WatchedCode) -> AuditEvent:
    from cloister.immune.code_manifest import CodeTrust

    if code.trust is CodeTrust.RELEASE_KEY:
        reason = f"the code is compared with the list that release key {code.keys[0].key_id} signed"
    else:
        reason = "no release key is named: the code is taken as it was found at this start"
    now = format_time(system_clock())
    return AuditEvent(now, AuditKind.STATE_CHANGE, code.trust.value, "", None, reason, "")


class _Stopped(BaseException):
    """Somebody asked the service to stop: what is open is closed on the way out."""


def _stop(_number: int, _frame: FrameType | None) -> None:
    raise _Stopped


def _folder(settings: ImmuneSettings) -> Path:
    if settings.storage.directory is None:
        raise ImmuneError(
            "immune.setting_invalid",
            "The service keeps what it learns in a folder, and none is named.",
            "Name it:  --directory DIR, or storage.directory in pic.yaml",
        )
    folder = Path(settings.storage.directory)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _watchdog(folder: Path) -> WatchdogState:
    found = read_status(folder / WATCHDOG)
    return WatchdogState.ABSENT if found is None else _STATES.get(found.mode, WatchdogState.SAFE_MODE)


def _code_trust(folder: Path) -> CodeTrust:
    from cloister.immune.code_manifest import CodeTrust

    found = read_status(folder / WATCHDOG)
    return CodeTrust.NOBODY if found is None else found.code_trust
