"""A key release (challenge, simulated quote, verdict, count, log, seal, open), and sealing of large data."""

from __future__ import annotations

import io
import os
import statistics
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from cloister.core.clock import format_time, system_clock
from cloister.core.keys import EphemeralKeyStore, FileWrappingKey
from cloister.core.sealing import open_stream, seal_stream
from cloister.enclave import AppraisalPolicy, Platforms, SimulatedVendor, TrustStore, Verifier
from cloister.enclave.attestation import Tee
from cloister.enclave.keyrelease import (
    DataKeyBook,
    KeyPurpose,
    KeyRequest,
    ReleasePolicy,
    ReleaseService,
    sign_release_policy,
)
from cloister.enclave.sealed.claims import MEASURES, Measure, SealClaims, SealLevel
from cloister.evidence.extract import log_origin
from cloister.evidence.log import EvidenceLog
from cloister.evidence.predicates import Role
from cloister.evidence.writer import StatementWriter
from enclave_parts._rows import rows

TARGETS = {
    "round trip, median ms": ("at most", 25.0),
    "sealing, MB/s": ("at least", 200.0),
    "opening, MB/s": ("at least", 200.0),
}
_JOB = "1b4e28ba-2fa1-4d2a-883f-0016d3cca427"
_MEASUREMENT = bytes(range(48))
_MEGABYTES = 128
_ROUNDS = 200


def measure() -> dict[str, float]:
    """Measure in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="release-") as scratch:
        return {**_release(Path(scratch), _ROUNDS), **_sealing(Path(scratch))}


def table(figures: dict[str, float]) -> str:
    """The figures beside their targets."""
    return rows(figures, TARGETS)


def _release(scratch: Path, rounds: int) -> dict[str, float]:
    clock, owner = system_clock, EphemeralKeyStore().generate("owner")
    vendor = SimulatedVendor.create(clock)
    platform = vendor.platform("north", _MEASUREMENT)
    wrapping = FileWrappingKey.create(scratch, "hospital")
    book = DataKeyBook.create(scratch / "keys.db")
    key = book.create_key("heart-disease", KeyPurpose.TEST_DATA, wrapping, clock())
    policy = ReleasePolicy(
        data_key=key.data_key,
        dataset=key.dataset,
        scope=_JOB,
        tees=(Tee.AMD_SEV_SNP,),
        appraisal=AppraisalPolicy(
            measurements=(_MEASUREMENT.hex(),),
            platforms=Platforms.HARDWARE_OR_SIMULATED,
            without_revocation=(Tee.AMD_SEV_SNP,),
        ),
        not_before=format_time(clock() - timedelta(hours=1)),
        expires_at=format_time(clock() + timedelta(hours=1)),
        releases=rounds,
    )
    book.admit(sign_release_policy(policy, owner), owner.public_key, clock())
    log = EvidenceLog.create(scratch / "log", origin=log_origin(Role.SITE, "north"), signer=owner)
    service = ReleaseService(
        verifier=Verifier(TrustStore.simulated(vendor.root_der), clock),
        book=book,
        unwrap=lambda one: book.unwrap(one, wrapping),
        owner=owner.public_key,
        log=StatementWriter(log, owner, "north", _JOB, clock),
        clock=clock,
    )
    seal = SealClaims(SealLevel.NAMESPACES, tuple(Measure(name, "held") for name in MEASURES), "")
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        asking = KeyRequest(_JOB, policy.sha256, seal)
        request = asking.answer(service.challenge(asking.ask()), platform.quote)
        asking.open(service.release(request), dataset="heart-disease")
        taken.append((time.perf_counter() - start) * 1000)
    taken.sort()
    return {
        "round trip, median ms": statistics.median(taken),
        "round trip, p99 ms": taken[int(len(taken) * 0.99) - 1],
    }


def _sealing(scratch: Path) -> dict[str, float]:
    key, plain, path = os.urandom(32), os.urandom(1 << 20) * _MEGABYTES, scratch / "records.sealed"
    start = time.perf_counter()
    with path.open("wb") as target:
        seal_stream(io.BytesIO(plain), target, key, length=len(plain), context="records")
    sealed = time.perf_counter()
    with path.open("rb") as source:
        for _ in open_stream(source, key, context="records"):
            pass
    opened = time.perf_counter()
    return {"sealing, MB/s": _MEGABYTES / (sealed - start), "opening, MB/s": _MEGABYTES / (opened - sealed)}
