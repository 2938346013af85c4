"""A figure beside any job: decided by the manifest, paid from the ledger, stated before it is told."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cloister.core.errors import InputError
from cloister.evidence import EvidenceError, EvidenceLog
from cloister.evidence.predicates import (
    BudgetSpend,
    DataCommitment,
    Incident,
    JobClosed,
    ManifestAccepted,
    RequestDecided,
)
from cloister.evidence.transcript import event_to_json
from cloister.health import Column, ColumnKind, FederatedData, LabelColumn, SiteData, TableSchema, load_source
from cloister.immune import present
from cloister.immune.audit_event import AuditKind
from cloister.policy import PolicyError
from cloister.privacy import BudgetExceeded, BudgetLedger
from cloister.privacy.errors import PrivacyError
from cloister.privacy.leaving import may_leave
from cloister.privacy.release import Release, per_subject
from cloister.workflow import figures
from cloister.workflow.figures import (
    BoundedValues,
    Counts,
    Figure,
    FigureRequest,
    exact_figure,
    release_figure,
)
from cloister.workflow.jobfile import JobSpec
from cloister.workflow.workspace import open_workspace
from tests.system.example_job import ExampleJob, run
from tests.system.reading import stated_in_log
from tests.system.tampering import judge

SITE, WEIGHTS = "northgate", ["model-weights"]
SCHEMA = TableSchema(
    name="visits",
    columns=(
        Column(name="age", lower=0, upper=100),
        Column(name="ward", kind=ColumnKind.CATEGORY, categories=("a", "b", "c")),
        Column(name="smokes", kind=ColumnKind.BINARY),
    ),
    label=LabelColumn(name="ill", classes=("no", "yes")),
    basis="Made up.",
)


def release(job: ExampleJob, folder: Path, column: str = "diagnosis", epsilon: float = 0.5) -> Figure:
    with open_workspace(folder / "work") as workspace:
        return release_figure(job.spec(folder), workspace, FigureRequest(SITE, column, epsilon))


def spent(folder: Path) -> float:
    """Epsilon that the site's ledger says; 0 where there is none."""
    found = [*(folder / "work" / "parties" / "site" / SITE / "budget").glob("*.sqlite")]
    if not found:
        return 0.0
    with BudgetLedger.open(found[0], found[0].stem) as ledger:
        return ledger.epsilon()


def stated(folder: Path) -> list[object]:
    return list(stated_in_log(folder / "work", "site", SITE))


def test_what_the_immune_system_notices_during_a_figure_the_site_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    budget = "cloister.privacy.ledger:BudgetLedger.settle"
    seen = []
    load = figures.load_data

    def loads(spec: JobSpec, data_dir: Path | None) -> FederatedData:
        system = present()
        assert system is not None
        system.notes.note(AuditKind.DRIFT, "began", budget, "duration 41.7x median, p=3e-05")
        return load(spec, data_dir)

    def leaves(release: Release) -> None:
        system = present()
        assert system is not None
        functions = cast("dict[str, dict[str, int]]", system.status()["functions"])
        seen.append(functions[budget]["calls"])
        may_leave(release)

    monkeypatch.setattr(figures, "load_data", loads)
    monkeypatch.setattr(figures, "may_leave", leaves)
    release(ExampleJob(), tmp_path)
    assert present() is None
    assert seen == [1]
    *_, closed = stated(tmp_path)
    assert isinstance(closed, JobClosed)
    (incident,) = [one for one in stated(tmp_path) if isinstance(one, Incident)]
    assert (incident.incident_class, incident.detail.startswith(budget)) == ("behaviour-drift", True)
    assert "41.7" not in repr(stated(tmp_path))


def test_a_figure_is_decided_paid_and_stated(tmp_path: Path) -> None:
    figure = release(ExampleJob(), tmp_path)
    accepted, decided, committed, spend, closed = stated(tmp_path)
    assert isinstance(accepted, ManifestAccepted)
    assert isinstance(decided, RequestDecided)
    assert (decided.approved, decided.job_sha256) == (True, figure.request.sha256)
    assert (decided.facts["figure_column"], decided.facts["figure_epsilon"]) == ("diagnosis", 0.5)
    assert isinstance(committed, DataCommitment)
    assert isinstance(spend, BudgetSpend)
    assert (spend.purpose, spend.unit) == ("evaluation", "record")
    assert spend.event == event_to_json(figure.release.event)
    assert isinstance(closed, JobClosed)
    assert (closed.outcome, closed.statements) == ("completed", 5)
    assert {one.job_id for one in (accepted, decided, committed, spend, closed)} == {figure.job_id}
    assert 0.4 < figure.epsilon <= 0.5
    kept = tmp_path / "work" / "parties" / "site" / SITE / "figures" / f"{figure.job_id}.json"
    assert json.loads(kept.read_bytes()) == figure.as_json()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert spent(tmp_path) == pytest.approx(figure.epsilon_dataset)


def test_a_label_is_counted_and_a_number_averaged(tmp_path: Path) -> None:
    data = load_source("breast-cancer-wisconsin", sites=("northgate", "riverside", "lakeview"))
    table = data.sites[SITE]
    counted = release(ExampleJob(), tmp_path, epsilon=1.0).release
    assert counted.kind == "histogram"
    for name, exact in zip(data.schema.label.classes, np.bincount(table.labels), strict=True):
        assert counted.figures[name].value == pytest.approx(exact, abs=40)
    averaged = release(ExampleJob(), tmp_path, "radius (mean)", 1.0).release.only
    exact_mean = table.raw[:, data.schema.column_names.index("radius (mean)")].mean()
    assert averaged.low < exact_mean < averaged.high


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        (
            ExampleJob(manifest={"output_constraints.allowed_outputs": ["model-weights"]}),
            "outputs: the output",
        ),
        (ExampleJob(request={"outputs": ["model-weights"]}), "outputs: the request doesn't ask"),
        (ExampleJob(manifest={"privacy_guardrails.suppression_threshold": 500}), "suppression: "),
        (ExampleJob(manifest={"hospitals.0.dataset_sha256": "0" * 64}), "dataset-unchanged: "),
        (ExampleJob(request={"privacy.epsilon": 0.4}), "figure-epsilon: "),
        (ExampleJob(request={"privacy.delta": 1e-6}), "figure-delta: "),
        (ExampleJob(manifest={"privacy_guardrails.accounting": "fixed_plan"}), "figure-accounting: "),
        (ExampleJob(manifest={"attestation.allowed_measurements": ["0" * 96]}), "figure-measurement: "),
        (ExampleJob(manifest={"attestation.allow_simulated": False}), "figure-attestation: "),
    ],
    ids=[
        *("the manifest doesn't allow it", "the request doesn't ask for it", "too few", "other records"),
        *("more than was asked for", "at a larger delta", "plans fixed beforehand", "other code", "attested"),
    ],
)
def test_what_a_hospital_refuses_costs_nothing_and_stands_in_its_log(
    job: ExampleJob, reason: str, tmp_path: Path
) -> None:
    with pytest.raises(PolicyError) as refused:
        release(job, tmp_path)
    assert any(one.startswith(reason) for one in refused.value.details)
    *_, decided, closed = stated(tmp_path)
    assert isinstance(decided, RequestDecided)
    assert not decided.approved
    assert isinstance(closed, JobClosed)
    assert closed.outcome == "refused"
    assert spent(tmp_path) == 0


def test_a_figure_that_does_not_fit_the_budget_is_not_told(tmp_path: Path) -> None:
    job = ExampleJob(request={"privacy.epsilon": 3.0})
    release(job, tmp_path, epsilon=2.0)
    before = spent(tmp_path)
    with pytest.raises(BudgetExceeded):
        release(job, tmp_path, epsilon=2.9)
    assert spent(tmp_path) == before
    closed = stated(tmp_path)[-1]
    assert isinstance(closed, JobClosed)
    assert closed.outcome == "refused"


@pytest.mark.parametrize(
    "request_", [FigureRequest(SITE, "shoe size", 1.0), FigureRequest("nowhere", "diagnosis", 1.0)]
)
def test_what_is_not_there_is_refused_before_anything_is_stated(
    request_: FigureRequest, tmp_path: Path
) -> None:
    with open_workspace(tmp_path / "work") as workspace, pytest.raises(InputError):
        release_figure(ExampleJob().spec(tmp_path), workspace, request_)
    assert not (tmp_path / "work" / "parties" / "site").exists()


def test_a_count_that_looks_too_small_is_not_told(tmp_path: Path) -> None:
    job = ExampleJob(manifest={"privacy_guardrails.suppression_threshold": 100})
    figure = release(job, tmp_path, epsilon=2.0)
    assert set(figure.release.figures) == {"benign"}
    assert figure.suppressed == ("malignant",)
    assert figure.as_json()["suppressed"] == ["malignant"]


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_a_price_that_is_none_is_refused(epsilon: float) -> None:
    with pytest.raises(InputError):
        FigureRequest(SITE, "diagnosis", epsilon)


def test_every_witness_has_cosigned_the_spend_before_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where one won't, nothing is told of what was spent."""
    seen: list[int] = []

    def refuses(witnesses: object, log: EvidenceLog, at: object) -> None:
        seen.append(log.size)
        raise EvidenceError("evidence.witness_refused", "made to refuse")

    monkeypatch.setattr("cloister.workflow.figures.show_head", refuses)
    with pytest.raises(EvidenceError, match="made to refuse"):
        release(ExampleJob(), tmp_path)
    assert seen == [4]
    assert spent(tmp_path) > 0


def test_a_job_after_a_figure_composes_with_it_and_its_receipt_is_accepted(tmp_path: Path) -> None:
    figure = release(ExampleJob(), tmp_path, epsilon=0.5)
    outcome = run(ExampleJob().spec(tmp_path), tmp_path / "work")
    assert judge(outcome).accepted
    site = next(one for one in outcome.sites if one.site == SITE)
    assert site.epsilon_dataset > max(site.epsilon, figure.epsilon)


def test_a_failed_figure_closes_its_chain_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise PrivacyError("privacy.data_invalid", "made to fail")

    monkeypatch.setattr("cloister.workflow.figures.release_histogram", fails)
    with pytest.raises(PrivacyError, match="made to fail"):
        release(ExampleJob(), tmp_path)
    closed = stated(tmp_path)[-1]
    assert isinstance(closed, JobClosed)
    assert closed.outcome == "failed"


def table(rows: list[tuple[int, int, int, int]]) -> SiteData:
    """Records of (subject, age, ward, ill)."""
    subjects, age, ward, ill = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    raw = np.stack([age, ward, ill], axis=1).astype(np.float64)
    return SiteData("here", raw, SCHEMA.scale(raw), ill, SCHEMA.column_names, "0" * 64, subjects)


records = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 100), st.integers(0, 2), st.integers(0, 1)),
    min_size=2,
    max_size=30,
)


@given(records=records, column=st.sampled_from(["ward", "smokes", "ill", "age"]))
def test_one_subject_more_adds_one_to_one_count_or_one_value(
    records: list[tuple[int, int, int, int]], column: str
) -> None:
    """What the noise is made for: all of a subject's records together move the figure by one unit's share."""
    subject = records[0][0]
    others = [row for row in records if row[0] != subject]
    assume(others)
    with_it = exact_figure(SCHEMA, table(records), column, "subject")
    without = exact_figure(SCHEMA, table(others), column, "subject")
    if isinstance(with_it, Counts):
        assert isinstance(without, Counts)
        differences = [with_it.counts[name] - without.counts[name] for name in with_it.counts]
        assert sorted(differences) == [0] * (len(differences) - 1) + [1]
        return
    assert isinstance(with_it, BoundedValues)
    assert isinstance(without, BoundedValues)
    own = np.mean([row[1] for row in records if row[0] == subject])
    assert sorted([*without.values, own]) == pytest.approx(sorted(with_it.values))


@given(
    values=st.lists(st.floats(0.1, 0.3), min_size=1, max_size=40),
    subjects=st.integers(1, 4),
)
def test_a_subjects_mean_never_leaves_the_bounds(values: list[float], subjects: int) -> None:
    """Three times 0.1 is 0.30000000000000004: out of bounds by rounding alone, and refused for free."""
    whose = np.arange(len(values)) % subjects
    bounded = [min(0.1 if value < 0.2 else 0.3, value) for value in values]
    means = per_subject(np.array(bounded), whose)
    assert means.min() >= min(bounded)
    assert means.max() <= max(bounded)
    assert per_subject(np.full(3, 0.1), np.zeros(3, np.int64)).tolist() == [0.1]


def test_records_count_each_by_itself_where_they_are_the_unit() -> None:
    rows = [(0, 10, 1, 1), (0, 20, 1, 0), (1, 30, 2, 0)]
    assert exact_figure(SCHEMA, table(rows), "ward", "record") == Counts({"a": 0, "b": 2, "c": 1})
    assert exact_figure(SCHEMA, table(rows), "smokes", "record") == Counts({"0": 2, "1": 1})
    ages = exact_figure(SCHEMA, table(rows), "age", "record")
    assert isinstance(ages, BoundedValues)
    assert (ages.values.tolist(), ages.bounds) == ([10, 20, 30], (0, 100))
