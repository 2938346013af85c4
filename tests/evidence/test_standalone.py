"""The verifier stands alone: cryptography and pydantic suffice, nothing heavy is loaded, and it is quick."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloister.evidence.checks import Outcome, passed
from cloister.evidence.predicates import Role
from cloister.evidence.trust import TrustEntry, write_trust
from tests.evidence.synthetic import MODEL, SyntheticJob, verify

HEAVY = (
    "sqlalchemy",
    "numpy",
    "torch",
    "opacus",
    "nvflare",
    "sklearn",
    "scipy",
    "structlog",
    "yaml",
    "pydantic_settings",
    "typer",
    "rich",
    "safetensors",
)

SCRIPT = """
import json, sys
from pathlib import Path

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in set(sys.argv[4].split(",")):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
from cloister.evidence.checks import CheckRegistry, passed
from cloister.evidence.trust import Trust
from cloister.evidence.verifier import Verifier, model_artifact

registry = CheckRegistry()
for name in ("policy", "attestation"):
    registry.register(name, lambda context, name=name: passed(name, ""))
verdict = Verifier(Trust.load(Path(sys.argv[1])), registry).verify(
    Path(sys.argv[2]).read_bytes(), model_artifact(bytes.fromhex(sys.argv[3]))
)
print(json.dumps({"checks": {c.id: c.outcome.value for c in verdict.checks}, "modules": sorted(sys.modules)}))
"""


def run_alone(
    tmp_path: Path, job: SyntheticJob, receipt: bytes, absent: tuple[str, ...]
) -> dict[str, object]:
    """Verify in a fresh interpreter in which some libraries can't be imported."""
    trust = job.trust
    roles = (Role.HUB, Role.SITE, Role.HOSPITAL, Role.DEVELOPER)
    entries = [
        TrustEntry(role, party, trust.key(role, party).pem.encode())
        for role in roles
        for party in trust.parties(role)
    ]
    write_trust(tmp_path / "trust", entries)
    (tmp_path / "receipt.json").write_bytes(receipt)
    arguments = [
        str(tmp_path / "trust"),
        str(tmp_path / "receipt.json"),
        MODEL.hex(),
        ",".join(absent),
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


def test_with_cryptography_and_pydantic_alone_only_epsilon_is_not_run(
    tmp_path: Path, honest_job: SyntheticJob, honest_receipt: bytes
) -> None:
    answer = run_alone(tmp_path, honest_job, honest_receipt, (*HEAVY, "dp_accounting", "absl"))
    checks = answer["checks"]
    assert isinstance(checks, dict)
    assert {name: outcome for name, outcome in checks.items() if outcome != "passed"} == {
        "epsilon": "not_run"
    }
    modules = answer["modules"]
    assert isinstance(modules, list)
    assert {name.partition(".")[0] for name in modules} & set(HEAVY) == set()


def test_where_they_are_installed_the_heavy_libraries_are_still_not_loaded_for_a_bad_receipt(
    tmp_path: Path, honest_job: SyntheticJob
) -> None:
    modules = run_alone(tmp_path, honest_job, b"{}", ())["modules"]
    assert isinstance(modules, list)
    assert {name.partition(".")[0] for name in modules} & {*HEAVY, "dp_accounting"} == set()


def test_a_receipt_of_three_sites_and_ten_rounds_is_verified_in_150_ms_without_epsilon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloister.evidence import verifier

    job = SyntheticJob(tmp_path, sites=("east", "north", "south"), rounds=10).run()
    receipt = job.receipt()
    assert verify(job, receipt).accepted
    checks = {**verifier._CHECKS, "epsilon": lambda _: passed("epsilon", "left out of the measurement")}
    monkeypatch.setattr(verifier, "_CHECKS", checks)
    seconds = []
    for _ in range(5):
        began = time.process_time()
        verdict = verify(job, receipt)
        seconds.append(time.process_time() - began)
        assert all(one.outcome is Outcome.PASSED for one in verdict.checks)
    assert min(seconds) < 0.150
