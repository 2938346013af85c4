"""Attacks by a hub on what it alone states, and on the logs that others gave it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from cloister.core.canonical import JSON, canonicalize, parse
from cloister.core.hashes import sha256_hex
from cloister.evidence import Envelope, EvidenceLog, StatementWriter, Subject, sign_envelope
from cloister.evidence.compliance import CLAIMS_NOT_MADE
from cloister.evidence.errors import EvidenceError
from cloister.evidence.extract import log_origin
from cloister.evidence.predicates import (
    RELEASE_CONSTRAINTS,
    Evaluation,
    JobOpened,
    Release,
    Role,
    RoundAggregated,
    UpdateReleased,
)
from cloister.evidence.receipt import ModelFile
from cloister.evidence.scoring import improvement_score
from cloister.evidence.terms import MANIFEST_TYPE
from cloister.evidence.weights import model_file_weights
from tests.evidence import synthetic
from tests.evidence.attacks.edits import detail, step
from tests.evidence.synthetic import (
    ACCURACY,
    BASELINE,
    HUB,
    JOB_ID,
    MODEL,
    Fields,
    Step,
    SyntheticJob,
    digest,
    failing,
    model_file,
    resealed,
    ticking,
    verify,
)

Lie = Callable[[list[Step]], None]


# A site that spent can't be erased


@pytest.fixture(scope="module")
def three_sites(tmp_path_factory: pytest.TempPathFactory) -> SyntheticJob:
    return SyntheticJob(tmp_path_factory.mktemp("three"), sites=("north", "south", "west")).run()


def without_west(steps: list[Step]) -> None:
    """The hub's log, rewritten as if west had never answered: two of three sites are enough."""
    for kind, fields in steps:
        if kind is RoundAggregated:
            fields["updates"].pop("west")  # type: ignore[attr-defined]
            fields["weights"] = {"north": 0.4, "south": 0.6}
            fields["absent"] = {"west": "no answer"}
        if kind is Evaluation:
            fields["sites"] = [one for one in fields["sites"] if one["site"] != "west"]  # type: ignore[attr-defined]


def test_a_site_called_absent_has_its_log_in_the_receipt_or_there_is_none(three_sites: SyntheticJob) -> None:
    told = three_sites.told_otherwise(without_west)
    with pytest.raises(EvidenceError) as refused:
        three_sites.receipt(extracts=[told["north"], told["south"], told[HUB]])
    assert refused.value.details == ("west: no extract of its log",)


def test_a_hub_that_drops_the_log_of_a_site_called_absent_is_refused(three_sites: SyntheticJob) -> None:
    whole = three_sites.lying_hub(without_west)

    def drop(body: dict[str, Any]) -> None:
        log = log_origin(Role.SITE, "west")
        body["statements"] = [one for one in body["statements"] if one["log"] != log]
        for part in (body["checkpoints"], body["summary"]["logs"]):
            del part[log]
        for part in (body["summary"]["data"], body["summary"]["privacy"], body["summary"]["cost"]["sites"]):
            part.pop("west")
        kept = [one for one in body["summary"]["destruction"] if one["party"] != "west"]
        body["summary"]["destruction"] = kept

    verdict = verify(three_sites, resealed(whole, three_sites.keys["hub"], drop))
    assert failing(verdict) == {"statements-complete", "log-consistency"}
    assert "west: no extract of its log" in detail(verdict, "statements-complete")


def test_a_site_that_spent_was_attested_even_if_its_updates_are_not_used(three_sites: SyntheticJob) -> None:
    def lie(steps: list[Step]) -> None:
        without_west(steps)
        steps[:] = [one for one in steps if one[1].get("site") != "west"]

    with pytest.raises(EvidenceError) as refused:
        three_sites.lying_hub(lie)
    assert refused.value.details == ("hub-one: 0 attestation verdicts that trust west",)


def test_a_site_that_left_early_closes_its_log_as_failed_and_the_others_get_their_receipt(
    tmp_path: Path,
) -> None:
    job = SyntheticJob(tmp_path, sites=("north", "south", "west"))
    of_sites, of_hub = {site: job.site_steps(site) for site in job.sites}, job.hub_steps()
    begun = next(place for place, one in enumerate(of_sites["west"]) if one[0] is UpdateReleased)
    del of_sites["west"][begun + 1 : -1]
    last = step(of_hub, RoundAggregated, 1)
    last["updates"].pop("west")
    last.update(weights={"north": 0.4, "south": 0.6}, absent={"west": "federation.site_lost in round 1"})
    extracts = job.play(of_sites, of_hub, failed=("west",))
    assert verify(job, job.receipt(extracts=list(extracts.values()))).accepted


def test_a_manifest_of_a_site_that_took_no_part_is_needed_too(three_sites: SyntheticJob) -> None:
    receipt = three_sites.receipt()
    hostile = resealed(receipt, three_sites.keys["hub"], lambda body: body["manifests"].pop("west"))
    assert {"manifest", "statements-complete"} <= failing(verify(three_sites, hostile))


# The evaluation


def scored(value: float, baseline: float, **more: object) -> Fields:
    return {
        "value": value,
        "baseline_value": baseline,
        "improvement_score": improvement_score(value, baseline),
        "passed": value >= 0.8,
        **more,
    }


@pytest.mark.parametrize(
    ("figures", "sign"),
    [
        ({"test_set_sha256": digest("an easier one")}, "by name, hash and records"),
        (scored(1.0, 0.5, records=2), "by name, hash and records"),
        (scored(0.93, BASELINE), "the accuracy is no whole number of 171 records"),
        (scored(ACCURACY, 0.6), "the baseline is no whole number"),
        (scored(ACCURACY, 17 / 171), "at least half the time"),
        (scored(ACCURACY, 0.4, metric="auroc"), "AUROC of 0.5"),
        ({"sites": [{"site": "west", "metric": "auroc", "value": 1.0, "reason": ""}]}, "no site of the job"),
        ({"sites": [{"site": "north", "metric": "auroc", "value": 1.0, "reason": ""}] * 2}, "given twice"),
        ({"sites": [{"site": "north", "metric": "auroc", "value": None, "reason": ""}]}, "nor a reason"),
    ],
)
def test_an_evaluation_that_no_measurement_on_the_pinned_test_set_gives(
    honest_job: SyntheticJob, figures: Fields, sign: str
) -> None:
    verdict = verify(honest_job, honest_job.lying_hub(lambda s: step(s, Evaluation).update(figures)))
    assert failing(verdict) == {"evaluation"}
    assert sign in detail(verdict, "evaluation")


@pytest.mark.parametrize(
    "figures",
    [
        {"records": 0},
        {"baseline_name": "my-old-model"},
        {"value": 1.01},
        {"sites": [{"site": "north", "metric": "auroc", "value": 7.0, "reason": ""}]},
    ],
)
def test_an_evaluation_that_cannot_be_stated(honest_job: SyntheticJob, figures: Fields) -> None:
    with pytest.raises(EvidenceError) as refused:
        honest_job.lying_hub(lambda steps: step(steps, Evaluation).update(figures))
    assert refused.value.code == "evidence.statement_refused"


# The model and its release


def released(job: SyntheticJob, model: bytes) -> bytes:
    """The receipt of a hub that releases another model and calls its weights the last round's."""
    weights = model_file_weights(model).sha256

    def swap(steps: list[Step]) -> None:
        step(steps, RoundAggregated, -1).update(model_sha256_after=weights)
        step(steps, Release).update(
            model_sha256=sha256_hex(model), model_bytes=len(model), weights_sha256=weights
        )

    return job.lying_hub(swap, model=ModelFile("model.safetensors", sha256_hex(model), len(model)))


def test_a_model_of_another_form_than_what_the_sites_trained(honest_job: SyntheticJob) -> None:
    same_form, another = model_file(9.0, 9.0, 9.0), model_file(9.0, 9.0, 9.0, 9.0)
    assert verify(honest_job, released(honest_job, same_form), model=same_form).accepted
    verdict = verify(honest_job, released(honest_job, another), model=another)
    assert failing(verdict) == {"model-hash"}
    assert "other tensors than the sites trained" in detail(verdict, "model-hash")


def test_a_model_with_its_tensors_renamed(honest_job: SyntheticJob) -> None:
    renamed = MODEL.replace(b"weight", b"height")
    assert failing(verify(honest_job, released(honest_job, renamed), model=renamed)) == {"model-hash"}


CONSTRAINTS = [{"name": name, "satisfied": True, "detail": ""} for name in RELEASE_CONSTRAINTS]


@pytest.mark.parametrize(
    "constraints",
    [
        CONSTRAINTS[:2],
        [*CONSTRAINTS, CONSTRAINTS[0]],
        [*CONSTRAINTS[:2], {"name": "looks-fine", "satisfied": True, "detail": ""}],
        [*CONSTRAINTS, {"name": "looks-fine", "satisfied": True, "detail": ""}],
    ],
)
def test_a_release_is_held_against_the_agreed_constraints_and_no_others(
    honest_job: SyntheticJob, constraints: list[object]
) -> None:
    receipt = honest_job.lying_hub(lambda steps: step(steps, Release).update(constraints=constraints))
    assert failing(verify(honest_job, receipt)) == {"model-hash"}


class Stingy(SyntheticJob):
    """A job whose hospitals' manifests have other output constraints."""

    outputs: ClassVar[dict[str, JSON]] = {}

    def manifest(self, site: str, **guardrails: JSON) -> Envelope:
        document: Any = parse(super().manifest(site, **guardrails).payload)
        if site == "south":
            document["output_constraints"].update(self.outputs)
        return sign_envelope(MANIFEST_TYPE, canonicalize(document), self.keys[f"hospital-{site}"])


@pytest.mark.parametrize(
    ("outputs", "sign"),
    [
        ({"allowed_outputs": ["dp-scalars", "single-class-flag"]}, "manifest of south lets no weights out"),
        ({"max_model_bytes": len(MODEL) - 1}, "larger than the manifest of south allows"),
    ],
)
def test_a_model_that_one_manifest_does_not_let_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outputs: dict[str, JSON], sign: str
) -> None:
    monkeypatch.setattr(Stingy, "outputs", outputs)
    job = Stingy(tmp_path).run()
    verdict = verify(job, job.receipt())
    assert failing(verdict) == {"model-hash"}
    assert sign in detail(verdict, "model-hash")


# What nobody used to check


def test_a_hub_that_runs_code_no_manifest_allows(honest_job: SyntheticJob) -> None:
    receipt = honest_job.lying_hub(lambda s: step(s, JobOpened).update(code_measurement="cd" * 48))
    verdict = verify(honest_job, receipt)
    assert failing(verdict) == {"manifest"}
    assert "the hub runs code that the manifest doesn't allow" in detail(verdict, "manifest")


@pytest.mark.parametrize("time", ["2026-02-30T14:00:00.000000Z", "2026-11-21T24:00:00.000000Z"])
def test_a_date_that_does_not_exist(honest_job: SyntheticJob, honest_receipt: bytes, time: str) -> None:
    hostile = resealed(honest_receipt, honest_job.keys["hub"], lambda body: body.update(issued_at=time))
    assert "schema" in failing(verify(honest_job, hostile))


def test_a_receipt_dated_long_before_a_site_closed_the_job(tmp_path: Path, honest_job: SyntheticJob) -> None:
    late = SyntheticJob(tmp_path, keys=honest_job.keys)
    moments = iter(synthetic.START + timedelta(hours=2, seconds=second) for second in range(1000))
    signer = honest_job.keys["site-north"]
    origin = log_origin(Role.SITE, "north")
    with EvidenceLog.create(tmp_path / "late", origin=origin, signer=signer) as log:
        writer = StatementWriter(log, signer, "north", JOB_ID, lambda: next(moments))
        for kind, fields in late.site_steps("north"):
            writer.write(kind, [Subject("job", late.job_sha256)], **fields)
        writer.close("completed", hub_ending=honest_job.shown)
        extract = log.extract(JOB_ID)
    receipt = honest_job.receipt(extracts=[extract, honest_job.extracts["south"], honest_job.extracts[HUB]])
    verdict = verify(honest_job, receipt)
    assert failing(verdict) == {"statement-order", "log-consistency", "airlock"}
    assert "dated before north closed the job" in detail(verdict, "statement-order")


def test_a_statement_about_something_it_does_not_name(tmp_path: Path, honest_job: SyntheticJob) -> None:
    other = Subject("the model in use", digest("a model of somebody else"))
    signer = honest_job.keys["hub"]
    with EvidenceLog.create(tmp_path / "hub", origin=log_origin(Role.HUB, HUB), signer=signer) as log:
        writer = StatementWriter(log, signer, HUB, JOB_ID, ticking())
        for kind, fields in honest_job.hub_steps():
            subjects = [Subject("job", honest_job.job_sha256)]
            writer.write(kind, [*subjects, other] if kind is Release else subjects, **fields)
        writer.close("completed")
        extract = log.extract(JOB_ID)
    receipt = honest_job.careless_receipt(
        extracts=[*(honest_job.extracts[site] for site in honest_job.sites), extract]
    )
    verdict = verify(honest_job, receipt)
    assert failing(verdict) == {"statement-chain", "statements-complete", "log-consistency"}
    assert "about something else" in detail(verdict, "statement-chain")


def test_what_the_receipt_cannot_show_is_said_in_it() -> None:
    said = " ".join(CLAIMS_NOT_MADE)
    assert "added the noise it states" in said
    assert "a release somebody reviewed" in said
