"""cloister's own immune system: its functions that touch records, keys, budgets or the network are watched.

Rules kept here:

1. Nothing is blocked unless an operator names it, in ``pic.yaml`` of the folder where the immune system keeps
   what it learned. That file alone rules: a ``PIC_*`` variable, meant for another program, sets nothing here.
   The kill switch works by the environment too (``PIC_DISABLED``), for all it does is to let calls through.
2. One is on in a process. Jobs that overlap share the one of the first; an application that runs jobs and is
   protected itself keeps its own.
3. What is noticed becomes a signed statement of every party that begins to state something, and a line in the
   run's log (`cloister.workflow.stated_incidents`). It says which function and what was done. Figures stay in
   the immune system's own audit, for how long a round took and how much it was given depend on records. No
   collector and no brain service gets them: a file that names one is refused.
4. A statement names an entry of the audit. Therefore only those are told whose folder has that audit.
5. A folder that can't be used stops no job: the state is in memory then, and nothing is blocked.
"""

from __future__ import annotations

import os.path
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from cloister.core.logging import get_logger
from cloister.evidence import StatementWriter
from cloister.workflow.stated_incidents import StatedIncidents

if TYPE_CHECKING:
    from cloister.core.settings import Settings
    from cloister.immune import ImmuneIncident, ImmuneSettings, Protection

STATE: Final = "immune"
"""The folder of its state, in a workspace or in a service's own folder."""
RULES: Final = "pic.yaml"

WATCHED: Final = (
    # records
    "cloister.health.sentry:read_table",
    "cloister.health.sources.breast_cancer:load",
    "cloister.health.sources.csv_files:load",
    "cloister.health.sources.csv_files:load_site",
    "cloister.health.sources.heart_disease:load",
    "cloister.federation.site_training:_SealedRounds.train",
    # what crosses a site's border
    "cloister.federation.site:SiteRuntime.accept_folder",
    "cloister.federation.site:SiteRuntime.quote",
    "cloister.federation.site:SiteRuntime.train_round",
    "cloister.federation.site:SiteRuntime.release",
    "cloister.federation.hub:HubRuntime.admit",
    "cloister.federation.hub:HubRuntime.aggregated",
    # budgets
    "cloister.privacy.ledger:BudgetLedger.reserve",
    "cloister.privacy.ledger:BudgetLedger.reserve_all",
    "cloister.privacy.ledger:BudgetLedger.settle",
    # keys
    "cloister.core.keys.files:FileKeyStore.generate",
    "cloister.core.keys.files:FileKeyStore.load",
    "cloister.core.keys.wrapping:FileWrappingKey.unwrap",
    "cloister.core.keys.wrapping_kms:KmsWrappingKey.unwrap",
    "cloister.core.keys.wrapping_token:TokenWrappingKey.unwrap",
    "cloister.core.keys.pkcs11:Pkcs11KeyStore.load",
    "cloister.core.keys.pkcs11:_TokenSigner.sign",
    "cloister.enclave.keyrelease.service:ReleaseService.challenge",
    "cloister.enclave.keyrelease.service:ReleaseService.release",
    # network
    "cloister.enclave.wire.address:Address.connect",
    "cloister.enclave.wire.endpoint:WireEndpoint.exchange",
    "cloister.enclave.inference.line:Line.hello",
    "cloister.enclave.inference.line:Line.query",
)
"""What is watched, as ``module:qualname``; a module that isn't imported yet, as soon as it is."""


class Immunity:
    """What the immune system noticed while one job or service ran, and who states it.

    Args:
        folder: where the job's workspace or the service keeps its things; None for nowhere.

    Attributes:
        watching: whether cloister's immune system is on.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.watching = False
        self.folder = None if folder is None else folder.resolve()
        self._noticed: list[ImmuneIncident] = []
        self._waiting: SimpleQueue[ImmuneIncident | None] = SimpleQueue()

    @property
    def noticed(self) -> tuple[ImmuneIncident, ...]:
        """All incidents so far that the immune system of its folder has in its audit."""
        return tuple(self._noticed)

    def take(self, incident: ImmuneIncident) -> None:
        """Take note of an incident; short, and safe inside any call."""
        self._noticed.append(incident)
        self._waiting.put(incident)

    def stated_by(self, writers: Sequence[StatementWriter]) -> StatedIncidents:
        """Have these parties state what was and is noticed, until that is closed."""
        return StatedIncidents(self._waiting, writers)


class _Shared:
    """The one immune system of this process, for as long as anybody uses it."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.protection: Protection | None = None
        self.folder: Path | None = None
        self.users: list[Immunity] = []

    def tell(self, incident: ImmuneIncident) -> None:
        told = [one for one in tuple(self.users) if one.folder == self.folder]
        for one in told:
            one.take(incident)
        if not told:
            # Whose audit it is in has ended, and somebody else still uses it.
            get_logger("immune").warning(
                "incident_elsewhere", kind=incident.incident_class, place=incident.function
            )


_SHARED: Final = _Shared()


@contextmanager
def immunity(settings: Settings, folder: Path | None) -> Iterator[Immunity]:
    """Have cloister's own functions watched while this is open.

    Args:
        settings: of this process; its ``immune`` switches it off.
        folder: where a workspace or a service keeps its things; the state goes into a folder in there. None
            keeps nothing, so that everything is learned anew each time.

    Yields:
        What is noticed. Of an application's own immune system it is nothing, and so it is of one that was
        opened before in this process, with another folder.

    Raises:
        ImmuneError: ``immune.setting_invalid``: nothing is watched.
        InputError: the rules can't be read.
    """
    found = Immunity(folder)
    with ExitStack() as ending:
        with _SHARED.lock:
            if settings.immune:
                # Before it is on: what it finds damaged, it says when it starts.
                _SHARED.users.append(found)
                ending.callback(_leave, found)
                found.watching = _watch(found.folder)
        yield found


def _leave(one: Immunity) -> None:
    """Take one who uses it off the list; the last one switches it off."""
    with _SHARED.lock:
        _SHARED.users.remove(one)
        if not _SHARED.users and _SHARED.protection is not None:
            protection, _SHARED.protection = _SHARED.protection, None
            try:
                protection.close()
            except Exception as fault:
                # Calls are let go by then, and what a job came to is not for its watchman to say.
                get_logger("immune").error("immune_unclosed", error=fault)


def _watch(folder: Path | None) -> bool:
    """Switch on what isn't; False where an application's own is on."""
    if _SHARED.protection is not None:
        if _SHARED.folder != folder:
            get_logger("immune").info("watched_elsewhere")
        return True
    from cloister.immune import Protection, present

    if present() is not None:
        return False
    rules = _rules(None if folder is None else folder / STATE)
    _SHARED.folder = folder
    protection = Protection(rules, on_incident=_SHARED.tell)
    _SHARED.protection = protection.start(WATCHED)
    for alarm in protection.brain.alarms:
        get_logger("immune").warning("alarm", kind=alarm.kind)
    return True


def _rules(state: Path | None) -> ImmuneSettings:
    """What the operator set, in the one file that rules here."""
    from cloister.immune import ImmuneError, load_immune_settings

    # A folder that can't be looked into has no rules: it is unusable, and nothing is blocked.
    file = state / RULES if state is not None and os.path.lexists(state / RULES) else None
    arguments = {"storage.directory": None if state is None else str(state)}
    settings = load_immune_settings(arguments, environment={}, file=file)
    if settings.api.url is not None:
        raise ImmuneError(
            "immune.setting_invalid",
            f"api.url in {file} would send figures of cloister's calls away, and they depend on records.",
            "Remove it. They stay on this machine:  pic status --directory DIR, pic logs export",
        )
    return settings
