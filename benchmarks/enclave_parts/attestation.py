"""How many pieces of genuine evidence one core verifies in a second, beside dcap-qvl.

A verification is a whole one: structure, chain to the pinned root, revocation where a list is at hand,
signature, and every question of an appraisal. "Cold" forgets before each verification what was remembered of
earlier ones; else the same machine is verified again, as in every round of a federation.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import _lru_cache_wrapper, partial
from gc import get_objects
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cloister.core.clock import fixed_clock
from cloister.enclave.attestation import (
    AppraisalPolicy,
    Binding,
    Collateral,
    CollateralDocument,
    CollateralKind,
    Evidence,
    Tee,
    TrustStore,
    Verifier,
)
from shared_data import data_folder

TARGETS = {"snp": 1200, "tdx": 1500, "sgx": 1500, "nitro_cold": 350, "nitro": 1000, "gpu": 350}
_TIMES = 300
_POLICY = AppraisalPolicy(measurements=("00" * 48,), without_revocation=tuple(Tee))
_BINDING = Binding(bytes(32), "sha256:" + "ab" * 32, "job", _POLICY.sha256)


@dataclass(frozen=True)
class Case:
    """One genuine piece of evidence and what it is verified with."""

    evidence: Evidence
    at: datetime
    collateral: Collateral

    def verifier(self) -> Verifier:
        """A verifier that remembers nothing yet."""
        return Verifier(TrustStore.production(), fixed_clock(self.at), self.collateral)

    def verify(self, verifier: Verifier) -> None:
        """Verify it once; it has to be authentic."""
        if verifier.verify(self.evidence, expected=_BINDING, policy=_POLICY).claims is None:
            raise RuntimeError("genuine evidence isn't found authentic")


def measure() -> dict[str, float]:
    """Verifications a second by the median, and the 99th percentile in milliseconds, of each kind."""
    figures: dict[str, float] = {}
    for name, case in _cases(data_folder("attestation")).items():
        rate, slow = _rate(partial(case.verify, case.verifier()))
        figures[name], figures[f"{name}_p99_ms"] = rate, slow
        rate, slow = _rate(lambda one=case: (_forget(), one.verify(one.verifier())))
        figures[f"{name}_cold"], figures[f"{name}_cold_p99_ms"] = rate, slow
    figures.update(_peer(data_folder("attestation")))
    return figures


def table(figures: dict[str, float]) -> str:
    """The figures beside their targets."""
    lines = ["| evidence | a second | p99, ms | cold | p99, ms | target |", "|---|---:|---:|---:|---:|---:|"]
    for name in ("snp", "tdx", "sgx", "nitro", "gpu"):
        wanted = f"{TARGETS[name]}" + (f", cold {TARGETS['nitro_cold']}" if name == "nitro" else "")
        rates = (
            f"{figures[name + cold]:.0f} | {figures[name + cold + '_p99_ms']:.1f}" for cold in ("", "_cold")
        )
        lines.append(f"| {name} | {' | '.join(rates)} | {wanted} |")
    if "dcap_qvl" in figures:
        ratio = figures["tdx"] / figures["dcap_qvl"]
        lines.append(
            f"\ndcap-qvl, same quote and collateral: {figures['dcap_qvl']:.0f}/s; ours {ratio:.2f} times"
        )
    return "\n".join(lines)


def _rate(verify: Callable[[], object]) -> tuple[float, float]:
    verify()
    seconds = []
    for _ in range(_TIMES):
        begin = time.perf_counter()
        verify()
        seconds.append(time.perf_counter() - begin)
    return 1 / statistics.median(seconds), 1000 * statistics.quantiles(seconds, n=100)[98]


def _forget() -> None:
    for cached in _CACHES or _find_caches():
        cached.cache_clear()


_CACHES: list[_lru_cache_wrapper[object]] = []


def _find_caches() -> list[_lru_cache_wrapper[object]]:
    found = [
        one
        for one in get_objects()
        if isinstance(one, _lru_cache_wrapper)
        and str(getattr(one, "__module__", "")).startswith("cloister.enclave.attestation.")
        and one.__name__ != "authenticator"
    ]
    _CACHES.extend(found)
    return _CACHES


def _cases(root: Path) -> dict[str, Case]:
    snp = root / "snp" / "milan-v3-vcek"
    known = json.loads((snp / "expected.json").read_text())
    issuers = x509.load_pem_x509_certificates((root / "snp" / known["trust_chain"]).read_bytes())
    chain = ((snp / "vek.der").read_bytes(), *(one.public_bytes(Encoding.DER) for one in issuers))
    nitro = root / "nitro" / "prod-2022-10"
    gpu = root / "nvgpu" / "hopper-550.90"
    certificates = x509.load_pem_x509_certificates((gpu / "cert_chain.pem").read_bytes())
    return {
        "snp": Case(
            Evidence(Tee.AMD_SEV_SNP, (snp / "report.bin").read_bytes(), chain),
            datetime.fromisoformat(known["verify_at"]),
            Collateral(),
        ),
        "tdx": _intel(root / "tdx", "v4-uptodate", Tee.INTEL_TDX),
        "sgx": _intel(root / "sgx", "v3-debug-occlum", Tee.INTEL_SGX),
        "nitro": Case(
            Evidence(Tee.AWS_NITRO, (nitro / "document.cbor").read_bytes()),
            datetime.fromtimestamp(
                json.loads((nitro / "expected.json").read_text())["verify_at_ms"] / 1000, UTC
            ),
            Collateral(),
        ),
        "gpu": Case(
            Evidence(
                Tee.NVIDIA_GPU,
                (gpu / "report.bin").read_bytes(),
                tuple(one.public_bytes(Encoding.DER) for one in certificates),
            ),
            datetime.fromisoformat(json.loads((gpu / "expected.json").read_text())["verify_at"]),
            Collateral(),
        ),
    }


def _intel(root: Path, sample: str, tee: Tee) -> Case:
    folder = root / sample
    appraisal = json.loads((folder / "expected.json").read_text())["appraisals"][0]
    document = CollateralDocument(CollateralKind.INTEL_DCAP, (root / appraisal["collateral"]).read_bytes())
    return Case(
        Evidence(tee, (folder / "quote.bin").read_bytes()),
        datetime.fromisoformat(appraisal["verify_at"]),
        Collateral((document,)),
    )


def _peer(root: Path) -> dict[str, float]:
    try:
        import dcap_qvl
    except ImportError:
        return {}
    folder = root / "tdx" / "v4-uptodate"
    appraisal = json.loads((folder / "expected.json").read_text())["appraisals"][0]
    collateral = dcap_qvl.QuoteCollateralV3.from_json((root / "tdx" / appraisal["collateral"]).read_text())
    quote = (folder / "quote.bin").read_bytes()
    at = int(datetime.fromisoformat(appraisal["verify_at"]).timestamp())
    rate, slow = _rate(lambda: dcap_qvl.verify(quote, collateral, at))
    return {"dcap_qvl": rate, "dcap_qvl_p99_ms": slow}
