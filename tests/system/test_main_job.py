"""The main job, walked once to its end: what it leaves, in which order things happened, and what it tells."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import cast
from uuid import UUID

import numpy as np
import pytest

from cloister.core.canonical import JSON, parse
from cloister.core.clock import parse_time
from cloister.core.hashes import sha256_file
from cloister.core.loggable import WITHHELD, shown
from cloister.enclave.model_file import decode_model, model_mark
from cloister.evidence import Statement, decode_statement
from cloister.evidence.checks import Outcome
from cloister.evidence.envelope import envelope_from_json
from cloister.evidence.predicates import (
    AttestationVerdict,
    BudgetSpend,
    DataCommitment,
    JobOpened,
    RequestDecided,
    RoundAggregated,
    UpdateReleased,
)
from cloister.evidence.verifier import CHECK_IDS
from cloister.federation.events import RoundFinished, SiteAdmitted, SiteRoundFinished
from cloister.health import load_source
from cloister.workflow.watching import Stage
from tests.system.conftest import MainJob
from tests.system.example_job import SITES
from tests.system.tampering import judge

ROUNDS = 10
LOCAL_STEPS = 2


def statements(job: MainJob) -> list[Statement]:
    document = cast(dict[str, JSON], parse(job.outcome.receipt.read_bytes()))
    body = cast(dict[str, JSON], document["body"])
    entries = cast(list[dict[str, JSON]], body["statements"])
    return [decode_statement(envelope_from_json(entry["envelope"]).payload) for entry in entries]


def log_lines(job: MainJob) -> list[str]:
    return (job.workspace / "logs" / f"{job.outcome.job_id}.jsonl").read_text().splitlines()


# What it leaves


def test_the_receipt_is_accepted_from_its_files_alone(main_job: MainJob) -> None:
    verdict = judge(main_job.outcome)
    assert verdict.accepted
    assert tuple(check.id for check in verdict.checks) == CHECK_IDS
    assert {check.outcome for check in verdict.checks} == {Outcome.PASSED}


def test_the_verdict_says_that_attestation_was_simulated_and_noise_was_not(main_job: MainJob) -> None:
    verdict = judge(main_job.outcome)
    assert verdict.simulated
    assert not verdict.test_randomness
    assert main_job.outcome.randomness == "aes-256-ctr/os-entropy"


def test_the_job_folder_holds_what_is_documented_and_nothing_else(main_job: MainJob) -> None:
    outcome = main_job.outcome
    trusted = {f"trust/{role}/{site}.pem" for role in ("site", "hospital") for site in SITES}
    compiled = {
        "job/meta.json",
        *(f"job/app/config/{name}.json" for name in ("config_fed_server", "config_fed_client")),
        "job/app/config/cloister_job.json",
    }
    assert outcome.folder == main_job.workspace / "jobs" / f"tumour-{outcome.job_id}"
    assert {
        str(path.relative_to(outcome.folder)) for path in outcome.folder.rglob("*") if path.is_file()
    } == {
        "model.safetensors",
        "receipt.json",
        "report.html",
        "trust/hub/hub.pem",
        "trust/developer/open-diagnostics.pem",
        "trust/tee-root/SIMULATED.pem",
        *trusted,
        *compiled,
    }


def test_no_private_key_is_in_the_job_folder(main_job: MainJob) -> None:
    for path in main_job.outcome.folder.rglob("*"):
        assert not path.is_file() or b"PRIVATE KEY" not in path.read_bytes()


def test_private_keys_and_ledgers_are_the_owners_to_read(main_job: MainJob) -> None:
    secret = [
        *main_job.workspace.glob("parties/*/*/keys/*.pem"),
        *main_job.workspace.glob("parties/site/*/budget/*.sqlite"),
        *main_job.workspace.glob("simulated-vendor/*.pem"),
    ]
    assert len(secret) == 1 + 1 + 3 * len(SITES) + 1
    assert {path.stat().st_mode & 0o077 for path in secret} == {0}


def test_nothing_is_left_behind_outside_the_documented_folders(main_job: MainJob) -> None:
    assert {path.name for path in main_job.workspace.iterdir()} == {
        ".lock",
        "immune",
        "jobs",
        "logs",
        "open",
        "parties",
        "simulated-vendor",
    }
    assert [path.name for path in (main_job.workspace / "jobs").iterdir()] == [main_job.outcome.folder.name]
    assert not list((main_job.workspace / "open").iterdir())


def test_no_thread_outlives_the_job_but_the_one_that_listens_to_the_fork_server(main_job: MainJob) -> None:
    assert set(main_job.threads_left) <= {"sealed-host"}


def test_every_site_states_the_end_of_its_sealed_worker_and_the_receipt_shows_it(main_job: MainJob) -> None:
    receipt = json.loads(main_job.outcome.receipt.read_bytes())
    shown = list(destructions(receipt))
    assert sorted(one["party"] for one in shown) == ["lakeview", "northgate", "riverside"]
    assert all(one["what"] == "worker-memory" and one["verified"] for one in shown)


def destructions(document: object) -> Iterator[dict[str, object]]:
    if isinstance(document, dict):
        yield from document.get("destruction", [])
        document = list(document.values())
    for one in document if isinstance(document, list) else ():
        yield from destructions(one)


def test_the_model_file_holds_finite_weights_of_the_named_architecture(main_job: MainJob) -> None:
    weights = decode_model(main_job.outcome.model.read_bytes())
    features = load_source("breast-cancer-wisconsin").test.features.shape[1]
    assert {name: tensor.shape for name, tensor in weights.items()} == {
        "0.weight": (2, features),
        "0.bias": (2,),
    }
    assert all(tensor.dtype == np.float32 and np.isfinite(tensor).all() for tensor in weights.values())


def test_the_model_file_says_that_the_machines_were_simulated(main_job: MainJob) -> None:
    assert model_mark(main_job.outcome.model.read_bytes()) == "SIMULATED"


def test_the_model_predicts_better_than_the_best_constant(main_job: MainJob) -> None:
    outcome = main_job.outcome
    assert outcome.test_set == "wisconsin-holdout"
    assert outcome.value > outcome.baseline
    assert outcome.improvement == pytest.approx((outcome.value - outcome.baseline) / (1 - outcome.baseline))
    assert outcome.passed == (outcome.value >= outcome.threshold)


def test_each_site_spends_within_the_target_and_says_how_much(main_job: MainJob) -> None:
    for site in main_job.outcome.sites:
        assert 0 < site.epsilon <= site.epsilon_limit == 2.0
        assert site.epsilon_dataset == site.epsilon
        assert site.steps == ROUNDS * LOCAL_STEPS
    assert [site.site for site in main_job.outcome.sites] == sorted(SITES)


def test_the_watcher_hears_every_round_of_every_site_in_turn(main_job: MainJob) -> None:
    events = main_job.events
    assert isinstance(events[0], Stage)
    assert sorted(event.site for event in events if isinstance(event, SiteAdmitted)) == sorted(SITES)
    assert [event.round for event in events if isinstance(event, RoundFinished)] == list(range(ROUNDS))
    assert len([event for event in events if isinstance(event, SiteRoundFinished)]) == ROUNDS * len(SITES)
    for site in SITES:
        spent = [
            event.epsilon for event in events if isinstance(event, SiteRoundFinished) and event.site == site
        ]
        assert all(earlier < later for earlier, later in pairwise(cast(list[float], spent)))


# In which order


def test_each_site_is_attested_before_it_trains_and_trains_before_the_hub_averages(main_job: MainJob) -> None:
    made = [statement.predicate for statement in statements(main_job)]
    (opened,) = (one for one in made if isinstance(one, JobOpened))
    for site in SITES:
        own = [one for one in made if one.party == site]
        (decided,) = (one for one in own if isinstance(one, RequestDecided))
        (committed,) = (one for one in own if isinstance(one, DataCommitment))
        (attested,) = (one for one in made if isinstance(one, AttestationVerdict) and one.site == site)
        assert attested.status == "TRUSTED"
        spends = [one for one in own if isinstance(one, BudgetSpend)]
        updates = [one for one in own if isinstance(one, UpdateReleased)]
        averages = [one for one in made if isinstance(one, RoundAggregated)]
        assert [one.round for one in spends] == [one.round for one in updates] == list(range(ROUNDS))
        moments = [decided, committed, opened, attested]
        for spend, update, average in zip(spends, updates, averages, strict=True):
            moments += [spend, update, average]
        times = [parse_time(one.recorded_at) for one in moments]
        assert times == sorted(times)


def test_what_the_hub_averaged_is_what_each_site_released(main_job: MainJob) -> None:
    made = [statement.predicate for statement in statements(main_job)]
    released = {(one.party, one.round): one.update_sha256 for one in made if isinstance(one, UpdateReleased)}
    averaged = {
        (site, one.round): digest
        for one in made
        if isinstance(one, RoundAggregated)
        for site, digest in one.updates.items()
    }
    assert averaged == released


def test_normalisation_is_stated_to_come_from_public_bounds(main_job: MainJob) -> None:
    stated = {
        one.predicate.normalisation
        for one in statements(main_job)
        if isinstance(one.predicate, DataCommitment)
    }
    assert len(stated) == 1
    assert stated.pop().replace("-", " ").startswith("declared public bounds")
    assert "no statistic of the training records" in main_job.outcome.normalisation


# What it tells


def test_every_log_line_is_json_with_the_experiment_and_the_time(main_job: MainJob) -> None:
    lines = [json.loads(line) for line in log_lines(main_job)]
    assert {line["event"] for line in lines} >= {"job_started", "job_finished"}
    for line in lines:
        assert UUID(line["experiment_id"]) == UUID(main_job.outcome.job_id)
        assert line["correlation_id"]
        assert parse_time(line["timestamp"]).tzinfo is not None


def test_no_log_line_holds_anything_but_what_is_known_to_be_no_records(main_job: MainJob) -> None:
    for line in log_lines(main_job):
        for name, value in json.loads(line).items():
            assert value == WITHHELD or name == "timestamp" or shown(name, value) == value


def test_no_log_line_holds_a_training_value(main_job: MainJob) -> None:
    data = load_source("breast-cancer-wisconsin", sites=SITES)
    telling = {str(value) for site in data.sites.values() for value in site.raw.flat if len(str(value)) > 4}
    for line in log_lines(main_job):
        assert not telling & set(re.findall(r"\d+\.\d+", line))


def test_no_part_of_a_record_is_in_any_file_that_leaves(main_job: MainJob) -> None:
    data = load_source("breast-cancer-wisconsin", sites=SITES)
    files = [path.read_bytes() for path in main_job.outcome.folder.rglob("*") if path.is_file()]
    for site in data.sites.values():
        for raw, features in zip(site.raw, site.features, strict=True):
            for fragment in (raw[:3].tobytes(), raw[:3].astype(np.float32).tobytes(), features[:3].tobytes()):
                assert not any(fragment in content for content in files)


FETCHED = {"src", "srcset", "href", "xlink:href", "data", "action", "poster", "background"}


class Loads(HTMLParser):
    """Everything in a page that a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.plots = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.plots += tag == "svg"
        if tag in {"script", "link", "iframe", "object", "embed", "base", "form"}:
            self.found.append(tag)
        for name, value in attrs:
            fetches = name in {
                "src",
                "srcset",
                "href",
                "xlink:href",
                "data",
                "action",
                "poster",
                "background",
            }
            if (fetches and not (value or "").startswith("#")) or name.startswith("on"):
                self.found.append(f"{tag} {name}")


def test_the_report_needs_nothing_but_itself(main_job: MainJob) -> None:
    page = main_job.outcome.report.read_text()
    loads = Loads()
    loads.feed(page)
    assert loads.found == []
    assert loads.plots == 2
    assert "@import" not in page
    assert set(re.findall(r"url\(\s*(.)", page)) <= {"#"}


def test_the_report_says_simulated_and_lists_every_check(main_job: MainJob) -> None:
    page = main_job.outcome.report.read_text()
    assert "SIMULATED attestation" in page
    assert "TEST RANDOMNESS" not in page
    for check in CHECK_IDS:
        assert f"<td>{check}</td>" in page
    for site in SITES:
        assert f"<td>{site}</td>" in page


def test_the_receipt_names_the_model_file_by_its_hash(main_job: MainJob) -> None:
    document = cast(dict[str, JSON], parse(main_job.outcome.receipt.read_bytes()))
    body = cast(dict[str, JSON], document["body"])
    assert body["model"] == {
        "name": main_job.outcome.model.name,
        "sha256": sha256_file(main_job.outcome.model),
        "bytes": Path(main_job.outcome.model).stat().st_size,
    }
