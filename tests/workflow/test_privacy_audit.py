"""An audit is of the claim that the job makes: per the manifest's unit, by its ledger's accountant."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cloister.core.canonical import JSON
from cloister.core.documents import load_yaml
from cloister.evidence.transcript import epsilon, epsilon_pld
from cloister.federation.errors import JobError
from cloister.health import load_source
from cloister.privacy.audit.report import AuditReport
from cloister.workflow import privacy_audit
from cloister.workflow.jobfile import load_job
from cloister.workflow.privacy_audit import AuditRequest, Records, audit_job
from tests.system.example_job import edited
from tests.system.test_subjects import BATCH, job, without_the_declaration, write_tables


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    return write_tables(tmp_path / "tables")


@pytest.fixture(autouse=True)
def few_models(monkeypatch: pytest.MonkeyPatch) -> None:
    attack = privacy_audit.attack_training
    monkeypatch.setattr(
        privacy_audit,
        "attack_training",
        lambda name, train, records: attack(name, train, records, models=8, targets=4),
    )


def audited(folder: Path, tables: Path, unit: str, accounting: str, records: Records) -> AuditReport:
    path = job(folder, tables, unit)
    manifest = folder / "manifest.yaml"
    change: dict[str, JSON] = {"privacy_guardrails.accounting": accounting}
    manifest.write_text(json.dumps(edited(load_yaml(manifest), change)))
    spec = load_job(path, data_dir=tables)
    return audit_job(AuditRequest(spec=spec, data_dir=tables, site="west", records=records))


def test_where_subjects_are_protected_under_fixed_plans_the_claim_is_theirs_by_loss_distributions(
    tmp_path: Path, tables: Path
) -> None:
    report = audited(tmp_path / "job", tables, "subject", "fixed_plan", Records.CONFIDENTIAL)
    claim = report.claim
    assert (claim.unit, claim.units, claim.accountant) == ("subject", 25, "PLD")
    assert claim.plan.sampling_probability == BATCH / 25
    assert claim.epsilon == pytest.approx(epsilon_pld([claim.plan.event], claim.delta), abs=1e-9)
    assert claim.epsilon < epsilon([claim.plan.event], claim.delta)
    assert report.confidential
    # Eight models over 25 subjects, four of them attacked: a hundred coins, not four hundred.
    assert report.memberships[0].lira.spread == pytest.approx(0.058, abs=0.002)
    (_, own) = report.pictures
    subjects = load_source("csv", data_dir=tables).sites["west"].subjects
    assert subjects is not None
    assert len(own.originals) == 8


def test_where_records_are_protected_the_claim_is_theirs_whatever_is_declared(
    tmp_path: Path, tables: Path
) -> None:
    claim = audited(tmp_path / "job", tables, "record", "adaptive", Records.IF_PUBLIC).claim
    assert (claim.unit, claim.units, claim.accountant) == ("record", 100, "RDP")
    assert claim.plan.sampling_probability == BATCH / 100
    assert claim.epsilon == pytest.approx(epsilon([claim.plan.event], claim.delta), abs=1e-6)


def test_subjects_that_nothing_tells_apart_can_not_be_audited(tmp_path: Path, tables: Path) -> None:
    without_the_declaration(tables)
    with pytest.raises(JobError) as refused:
        audited(tmp_path / "job", tables, "subject", "adaptive", Records.IF_PUBLIC)
    assert refused.value.code == "federation.wrong_unit"
