"""A hospital that keeps a key, a simulated machine that asks for it, and everything between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from cloister.core.clock import format_time
from cloister.core.keys import EphemeralKeyStore, FileWrappingKey, Signer, WrappingKey
from cloister.enclave import AppraisalPolicy, Platforms, SimulatedPlatform, TrustStore, Verifier
from cloister.enclave.attestation import GuestSettings, Tee
from cloister.enclave.errors import ReleaseError
from cloister.enclave.keyrelease import (
    DataKey,
    DataKeyBook,
    KeyPurpose,
    KeyRequest,
    ReleaseLog,
    ReleasePolicy,
    ReleaseService,
    sign_release_policy,
)
from cloister.enclave.sealed.claims import MEASURES, Measure, SealClaims, SealLevel
from cloister.evidence.extract import log_origin
from cloister.evidence.log import EvidenceLog
from cloister.evidence.predicates import KeyRelease, Predicate, Role
from cloister.evidence.statement import Subject, open_statement
from cloister.evidence.writer import StatementWriter
from tests.enclave.attestation_scene import JOB, MEASUREMENT, NOW, vendor

DATASET = "heart-disease"
SEAL = SealClaims(SealLevel.NAMESPACES, tuple(Measure(name, "held") for name in MEASURES), "6.18")


@dataclass
class SettableClock:
    """A clock that a test sets."""

    now: datetime = NOW

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by)


@dataclass
class Hospital:
    """A keeper of one key of test data, with everything that a test may want to change."""

    folder: Path
    clock: SettableClock = field(default_factory=SettableClock)
    purpose: KeyPurpose = KeyPurpose.TEST_DATA
    trust: TrustStore = field(default_factory=lambda: TrustStore.simulated(vendor().root_der))
    owner: Signer = field(default_factory=lambda: EphemeralKeyStore().generate("owner"))
    platform: SimulatedPlatform = field(default_factory=lambda: vendor().platform("north", MEASUREMENT))
    seal: SealClaims = SEAL

    def __post_init__(self) -> None:
        self.wrapping: WrappingKey = FileWrappingKey.create(self.folder, "hospital")
        self.book = DataKeyBook.create(self.folder / "keys.db")
        self.key: DataKey = self.book.create_key(DATASET, self.purpose, self.wrapping, self.clock())
        self.log = EvidenceLog.create(
            self.folder / "log", origin=log_origin(Role.SITE, "north"), signer=self.owner
        )
        self.writer = StatementWriter(self.log, self.owner, "north", JOB, self.clock)
        self.service = self.new_service()

    def new_service(self, log: ReleaseLog | None = None) -> ReleaseService:
        """The service as it is after a start."""
        return ReleaseService(
            verifier=Verifier(self.trust, self.clock),
            book=self.book,
            unwrap=lambda key: self.book.unwrap(key, self.wrapping),
            owner=self.owner.public_key,
            log=log or self.writer,
            clock=self.clock,
        )

    def policy(self, **changes: object) -> ReleasePolicy:
        fields: dict[str, object] = {
            "data_key": self.key.data_key,
            "dataset": DATASET,
            "scope": JOB,
            "tees": (Tee.AMD_SEV_SNP,),
            "appraisal": appraisal(),
            "not_before": format_time(NOW),
            "expires_at": format_time(NOW + timedelta(days=30)),
            "releases": 3,
        }
        return ReleasePolicy.model_validate({**fields, **changes})

    def admitted(self, **changes: object) -> str:
        """Admit a policy; its id."""
        envelope = sign_release_policy(self.policy(**changes), self.owner)
        return self.book.admit(envelope, self.owner.public_key, self.clock()).sha256

    def data_key(self) -> bytes:
        return bytes(self.book.unwrap(self.key, self.wrapping))

    def request(self, policy_id: str, scope: str = JOB) -> tuple[KeyRequest, bytes]:
        """An enclave's request, up to the message that goes to the keeper."""
        asking = KeyRequest(scope, policy_id, self.seal)
        challenge = self.service.challenge(asking.ask())
        return asking, asking.answer(challenge, self.platform.quote)

    def ask_for_key(self, policy_id: str, scope: str = JOB) -> bytes:
        """The whole exchange; the data key, or ReleaseError."""
        asking, request = self.request(policy_id, scope)
        return bytes(asking.open(self.service.release(request), dataset=DATASET))

    def statements(self) -> list[KeyRelease]:
        """What the keeper's log says, oldest first."""
        found = [open_statement(self.log.entry(index)).predicate for index in range(self.log.size)]
        return [one for one in found if isinstance(one, KeyRelease)]

    def refusal(self, use: Callable[[], object]) -> str | None:
        """The code in the keeper's log for something that a peer hears as the one refusal."""
        before = self.log.size
        with pytest.raises(ReleaseError) as heard:
            use()
        assert heard.value.code == "release.refused"
        added = self.statements()[before:]
        assert len(added) == 1
        assert added[0].outcome == "refused"
        assert added[0].number == 0
        return added[0].code


class FailingLog:
    """A log whose disk is full."""

    def __init__(self, log: EvidenceLog, error: Exception) -> None:
        self.log = log
        self.error = error

    def write(
        self, predicate_class: type[Predicate], subjects: Sequence[Subject], **fields: object
    ) -> object:
        raise self.error


def appraisal(**changes: object) -> AppraisalPolicy:
    fields: dict[str, object] = {
        "measurements": (MEASUREMENT.hex(),),
        "platforms": Platforms.HARDWARE_OR_SIMULATED,
        "without_revocation": (Tee.AMD_SEV_SNP,),
    }
    return AppraisalPolicy.model_validate({**fields, **changes})


def guest(settings: GuestSettings, measurement: bytes = MEASUREMENT) -> SimulatedPlatform:
    return vendor().platform("north", measurement, settings)
