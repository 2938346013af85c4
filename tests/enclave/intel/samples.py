"""Genuine quotes and collateral: what is in the folders, as a verifier is given it."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from cloister.enclave import TrustStore
from cloister.enclave.attestation import (
    Claims,
    Collateral,
    CollateralDocument,
    CollateralKind,
    Evidence,
    Tee,
    authenticate,
)

SGX = ("v3-debug-occlum", "v3-debug-processorca", "v3-prod-confighardening")
TDX = (
    "v4-chain-only",
    "v4-debug",
    "v4-no-tcb-level",
    "v4-outofdate",
    "v4-outofdate-azure",
    "v4-trailing-bytes",
    "v4-uptodate",
    "v4-uptodate-ccel",
    "v5-no-tcb-level",
    "v5-no-tcb-level-2",
    "v5-servicetd",
)
NAMES = (*(f"sgx/{name}" for name in SGX), *(f"tdx/{name}" for name in TDX))


class Sample:
    """One sample folder: a quote and what is known about it."""

    def __init__(self, shared_data: Callable[[str], Path], name: str) -> None:
        self.root = shared_data(f"attestation/{name.partition('/')[0]}")
        folder = shared_data(f"attestation/{name}")
        self.known: dict[str, Any] = json.loads((folder / "expected.json").read_text())
        self.report = (folder / "quote.bin").read_bytes()
        self.tee = Tee(f"intel-{self.known['tee']}")
        self.at = datetime.fromisoformat(self.known["chain_verify_at"])
        log = folder / "ccel.bin"
        self.log = log.read_bytes() if log.exists() else None

    @property
    def evidence(self) -> Evidence:
        return Evidence(self.tee, self.report, extras={} if self.log is None else {"ccel": self.log})

    @property
    def trimmed(self) -> bytes:
        return self.report[: len(self.report) - self.known["expect"]["trailing_bytes"]]

    def collateral(self, name: str) -> Collateral:
        data = (self.root / name).read_bytes()
        return Collateral((CollateralDocument(CollateralKind.INTEL_DCAP, data),))

    def authenticate(self, report: bytes | None = None) -> Claims:
        """Without collateral, at a time at which the chain is valid."""
        evidence = self.evidence if report is None else Evidence(self.tee, report)
        return authenticate(evidence, TrustStore.production(), self.at)
