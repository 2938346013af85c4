"""Whatever is wrong with what a person hands in: one clear error, its code, a hint, and nothing half-done."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.cli.conftest import Cloister, content
from tests.system.example_job import ABSENT, EASY, FAST, Edits, ExampleJob

Spoil = Callable[[Path], None]


def as_written(folder: Path) -> None:
    """Leave the files as they are."""


def replace_text(name: str, old: str, new: str) -> Spoil:
    def spoil(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new, 1))

    return spoil


def overwrite(name: str, content: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content) and None


def remove(name: str) -> Spoil:
    return lambda folder: (folder / name).unlink()


def turn_into_folder(name: str) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return spoil


@dataclass(frozen=True)
class Wrong:
    """One mistake and what is said to it.

    Attributes:
        code: The error's code.
        exit_code: The exit code.
        says: Words that the error shows.
    """

    code: str
    exit_code: int
    says: str
    job: Edits = field(default_factory=dict)
    manifest: Edits = field(default_factory=dict)
    request: Edits = field(default_factory=dict)
    spoil: Spoil = as_written


REQUESTED_MODEL = "model_specification.architecture"
OTHER_HASH = "0" * 64
PAST = {"validity.not_before": "2020-01-01T00:00:00Z", "validity.not_after": "2021-01-01T00:00:00Z"}
FUTURE = {"validity.not_before": "2090-01-01T00:00:00Z", "validity.not_after": "2091-01-01T00:00:00Z"}
HEART = {"data.source": "uci-heart-disease", "data.sites": ["cleveland", "va"], "federation.min_clients": 2}

FILES = {
    "job file is missing": Wrong("input.missing_file", 2, "no file", spoil=remove("job.yaml")),
    "manifest is missing": Wrong("input.missing_file", 2, "manifest.yaml", spoil=remove("manifest.yaml")),
    "request is missing": Wrong("input.missing_file", 2, "request.yaml", spoil=remove("request.yaml")),
    "job file is a folder": Wrong("input.unreadable", 2, "plain file", spoil=turn_into_folder("job.yaml")),
    "manifest is a folder": Wrong(
        "input.unreadable", 2, "plain file", spoil=turn_into_folder("manifest.yaml")
    ),
    "job file is empty": Wrong("input.schema", 2, "object", spoil=overwrite("job.yaml", b"")),
    "job file is no YAML": Wrong("input.syntax", 2, "YAML (line 1", spoil=overwrite("job.yaml", b"{a: [}")),
    "job file is binary": Wrong("input.syntax", 2, "UTF-8", spoil=overwrite("job.yaml", b"\xff\xfe\x00")),
    "job file is huge": Wrong("input.too_large", 2, "larger", spoil=overwrite("job.yaml", b"#" * 2_000_000)),
    "job file is another document": Wrong(
        "input.schema", 2, "missing", spoil=overwrite("job.yaml", b"a recipe: soup")
    ),
    "a key is given twice": Wrong(
        "input.duplicate_key", 2, "line 2", spoil=overwrite("job.yaml", b"name: a\nname: b\n")
    ),
}
FIELDS = {
    "unknown field in the job": Wrong("input.schema", 2, "colour: unknown field", job={"colour": "red"}),
    "unknown field in the manifest": Wrong(
        "input.schema",
        2,
        "privacy_guardrails.colour: unknown field",
        manifest={"privacy_guardrails.colour": 1},
    ),
    "unknown field in the request": Wrong(
        "input.schema", 2, "colour: unknown field", request={"colour": "red"}
    ),
    "missing field": Wrong("input.schema", 2, "model: missing", job={"model": ABSENT}),
    "text for a number": Wrong("input.schema", 2, "federation.rounds", job={"federation.rounds": "ten"}),
    "half a round": Wrong("input.schema", 2, "federation.rounds", job={"federation.rounds": 2.5}),
    "no round": Wrong("input.schema", 2, "federation.rounds", job={"federation.rounds": 0}),
    "too many rounds": Wrong("input.schema", 2, "federation.rounds", job={"federation.rounds": 10**9}),
    "NaN in the job": Wrong(
        "input.not_json",
        2,
        "NaN",
        spoil=replace_text("job.yaml", '"learning_rate": 2.0', '"learning_rate": .nan'),
    ),
    "infinity in the manifest": Wrong(
        "input.not_json",
        2,
        "infinite",
        spoil=replace_text("manifest.yaml", '"threshold": 0.01', '"threshold": .inf'),
    ),
    "job id that is none": Wrong("input.schema", 2, "job_id", job={"job_id": "seven"}),
    "name with a path in it": Wrong("input.schema", 2, "name", job={"name": "../../etc/passwd"}),
    "unknown back end": Wrong("input.schema", 2, "'local'", job={"federation.backend": "kubernetes"}),
    "attestation left out": Wrong("input.schema", 2, "'simulated'", job={"attestation": "none"}),
    "two ways to sample": Wrong("input.schema", 2, "sampling_probability", job={"training.batch_size": 20}),
}
PRIVACY = {
    "epsilon of zero in the job": Wrong(
        "input.schema",
        2,
        "privacy.target_epsilon: input should be greater than 0",
        job={"privacy.target_epsilon": 0.0},
    ),
    "epsilon of zero in the request": Wrong(
        "input.schema", 2, "privacy.epsilon", request={"privacy.epsilon": 0}
    ),
    "epsilon of zero in the manifest": Wrong(
        "input.schema", 2, "epsilon_budget", manifest={"privacy_guardrails.epsilon_budget": 0.0}
    ),
    "negative epsilon": Wrong("input.schema", 2, "target_epsilon", job={"privacy.target_epsilon": -1.0}),
    "epsilon that no noise reaches": Wrong(
        "privacy.unreachable_target", 2, "noise", job={"privacy.target_epsilon": 1e-7}
    ),
    "no noise": Wrong("privacy.plan_invalid", 2, "noise_multiplier", job={"privacy.noise_multiplier": 0.0}),
    "epsilon above the request": Wrong(
        "policy.refused", 3, "job-epsilon", job={"privacy.target_epsilon": 2.5}
    ),
    "epsilon above the manifest": Wrong(
        "policy.refused", 3, "epsilon-budget", request={"privacy.epsilon": 3.5}
    ),
    "delta above the manifest": Wrong("policy.refused", 3, "delta-budget", request={"privacy.delta": 0.01}),
    "delta above one over the records": Wrong(
        "policy.refused",
        3,
        "delta-records",
        manifest={"privacy_guardrails.delta_budget": 0.02},
        request={"privacy.delta": 0.02},
    ),
    "delta below the ledger's": Wrong("federation.wrong_delta", 2, "delta", job={"privacy.delta": 1e-9}),
    "noise too small for the job's own target": Wrong(
        "ledger.budget_exceeded", 3, "job target", job={"privacy.noise_multiplier": 0.1}
    ),
}
SITES = {
    "fewer sites than min_clients": Wrong(
        "input.schema", 2, "min_clients", job={"federation.min_clients": 4}
    ),
    "no site": Wrong("input.schema", 2, "data.sites", job={"data.sites": []}),
    "site named twice": Wrong("input.schema", 2, "twice", job={"data.sites": ["lakeview", "lakeview"]}),
    "site that the data hasn't": Wrong(
        "health.unknown_site",
        2,
        "unknown site: atlantis",
        job={"data.sites": ["lakeview", "atlantis"], "federation.min_clients": 2},
    ),
    "site that the manifest hasn't": Wrong(
        "policy.unknown_hospital", 3, "lakeview", manifest={"hospitals.2": ABSENT}
    ),
    "unknown data source": Wrong("health.unknown_source", 2, "csv", job={"data.source": "atlas"}),
    "data without its folder": Wrong("input.missing_file", 2, "--data", job=HEART),
    "site below the minimum group size": Wrong(
        "policy.refused", 3, "lakeview: group-size", manifest={"privacy_guardrails.minimum_group_size": 100}
    ),
    "another number of records": Wrong(
        "policy.refused", 3, "northgate: sample-size", manifest={"hospitals.0.sample_size": 191}
    ),
}
DOCUMENTS = {
    "manifest expired": Wrong("policy.refused", 3, "expired at 2021-01-01", manifest=PAST),
    "manifest not yet valid": Wrong("policy.refused", 3, "not valid before 2090-01-01", manifest=FUTURE),
    "request for another dataset": Wrong(
        "policy.refused", 3, "northgate: dataset-requested", request={"sites.0.dataset_sha256": OTHER_HASH}
    ),
    "manifest of another dataset": Wrong(
        "policy.refused",
        3,
        "northgate: dataset-unchanged",
        manifest={"hospitals.0.dataset_sha256": OTHER_HASH},
    ),
    "records split otherwise": Wrong("policy.refused", 3, "dataset-unchanged", job={"data.split_seed": 1}),
    "prohibited purpose": Wrong("policy.refused", 3, "purpose-prohibited", request={"purpose": "marketing"}),
    "output that may not leave": Wrong("input.schema", 2, "outputs.0", request={"outputs": ["raw-records"]}),
    "another test set": Wrong(
        "policy.refused", 3, "job-test-set", manifest={"success_metrics.evaluation_method.test_set": "other"}
    ),
    "more rounds than asked for": Wrong("policy.refused", 3, "job-rounds", job={"federation.rounds": 51}),
    "more steps than asked for": Wrong(
        "policy.refused", 3, "job-local-steps", job={"training.local_steps": 11}
    ),
}
MODELS = {
    "unknown model": Wrong(
        "model.unknown", 2, "logistic-regression",
        job={"model.architecture": "oracle"}, request={REQUESTED_MODEL: "oracle"},
    ),
    "model that wasn't asked for": Wrong(
        "policy.refused", 3, "job-architecture", job={"model.architecture": "mlp"}
    ),
    "model with batch norm": Wrong(
        "model.layer_refused", 2, "GroupNorm",
        job={"model.architecture": "with-batch-norm"}, request={REQUESTED_MODEL: "with-batch-norm"},
    ),
    "parameter the model hasn't": Wrong(
        "model.parameters_invalid", 2, "depth",
        job={"model.parameters": {"depth": 3}}, request={"model_specification.hyperparameters": {"depth": 3}},
    ),
    "strategy that can't run yet": Wrong(
        "federation.strategy_unavailable", 2, "FED_AVG",
        job={"federation.strategy": "SCAFFOLD"},
        request={"model_specification.training_config.strategy": "SCAFFOLD"},
    ),
}  # fmt: skip
CASES = FILES | FIELDS | PRIVACY | SITES | DOCUMENTS | MODELS


MIXING = '''"""A model that mixes the records of a batch."""

from torch import nn


def build(features, classes, parameters):
    return nn.Sequential(nn.Linear(features, 4), nn.BatchNorm1d(4), nn.Linear(4, classes))
'''


@pytest.fixture(scope="module", autouse=True)
def model_with_batch_norm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """An installed package that offers it: a sealed worker knows no other models."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "mixingnets.py").write_text(MIXING)
    installed = folder / "mixingnets-1.0.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: mixingnets\nVersion: 1.0.0\n")
    (installed / "entry_points.txt").write_text("[cloister.models]\nwith-batch-norm = mixingnets:build\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        importlib.invalidate_caches()
        yield


def write(wrong: Wrong, folder: Path) -> Path:
    example = ExampleJob(
        job={**FAST, **wrong.job}, manifest={**EASY, **wrong.manifest}, request=wrong.request
    )
    job = example.write(folder)
    wrong.spoil(folder)
    return job


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_named_and_leaves_everything_as_it_was(
    name: str, cloister: Cloister, lived_in: Path, tmp_path: Path
) -> None:
    wrong = CASES[name]
    before = content(lived_in / "jobs")
    ended = cloister("run", write(wrong, tmp_path), "--workspace", lived_in, "--quiet")
    first, *others = ended.err.splitlines()
    assert ended.code == wrong.exit_code
    assert first.startswith("cloister: ")
    assert first.endswith(f"[{wrong.code}]")
    assert others[-1].startswith("  hint: ")
    assert len(others[-1]) > len("  hint: ")
    assert all(line.startswith("  - ") for line in others[:-1])
    assert wrong.says in ended.err
    assert "Traceback" not in ended.err
    assert ended.out == ""
    assert content(lived_in / "jobs") == before


@pytest.mark.parametrize("name", CASES)
def test_a_machine_reads_the_same_mistake_as_one_object(
    name: str, cloister: Cloister, tmp_path: Path
) -> None:
    wrong = CASES[name]
    ended = cloister("run", write(wrong, tmp_path), "--workspace", tmp_path / "work", "--json")
    assert ended.code == wrong.exit_code
    assert ended.err == ""
    error = ended.json()["error"]
    assert isinstance(error, dict)
    assert error.keys() == {"code", "message", "hint", "details"}
    assert error["code"] == wrong.code
    assert error["hint"]
    assert list((tmp_path / "work").glob("jobs/*")) == []


def test_every_reason_of_a_refusal_is_listed_not_only_the_first(cloister: Cloister, tmp_path: Path) -> None:
    request = {"purpose": "marketing", "privacy.epsilon": 4.0, "sites.1.dataset_sha256": OTHER_HASH}
    job = ExampleJob(job={**FAST, "federation.rounds": 51}, manifest=PAST, request=request).write(tmp_path)
    ended = cloister("run", job, "--workspace", tmp_path / "work", "--quiet")
    assert ended.code == 3
    for site in ("lakeview", "northgate", "riverside"):
        for rule in (
            "manifest-validity",
            "purpose-allowed",
            "purpose-prohibited",
            "epsilon-budget",
            "job-rounds",
        ):
            assert f"  - {site}: {rule}: " in ended.err
    assert "riverside: dataset-requested" in ended.err


def test_a_refusal_is_written_into_the_sites_own_logs(cloister: Cloister, tmp_path: Path) -> None:
    from cloister.evidence.predicates import JobClosed, RequestDecided
    from tests.system.reading import stated_in_log

    job = ExampleJob(request={"purpose": "marketing"}).write(tmp_path)
    assert cloister("run", job, "--workspace", tmp_path / "work", "--quiet").code == 3
    made = stated_in_log(tmp_path / "work", "site", "lakeview")
    (decided,) = (one for one in made if isinstance(one, RequestDecided))
    assert not decided.approved
    assert len(decided.reasons) == 2
    assert isinstance(made[-1], JobClosed)
    assert made[-1].outcome == "refused"


def test_no_mistake_spends_any_budget(cloister: Cloister, lived_in: Path, tmp_path: Path) -> None:
    ledgers = content(lived_in / "parties" / "site")
    wrong = DOCUMENTS["manifest expired"]
    cloister("run", write(wrong, tmp_path), "--workspace", lived_in, "--quiet")
    after = content(lived_in / "parties" / "site")
    assert {name: after[name] for name in after if "/budget/" in name} == {
        name: ledgers[name] for name in ledgers if "/budget/" in name
    }
    assert any("/budget/" in name for name in ledgers)


def test_a_traceback_is_shown_only_when_asked_for(cloister: Cloister, tmp_path: Path) -> None:
    job = write(FIELDS["no round"], tmp_path)
    assert "Traceback" not in cloister("run", job, "--workspace", tmp_path / "work").err
    from cloister.cli.main import main
    from cloister.core.errors import InputError

    with pytest.raises(InputError):
        main(["run", str(job), "--workspace", str(tmp_path / "work"), "--debug"])


@pytest.mark.parametrize("command", ["compare", "data"])
def test_the_other_commands_name_mistakes_the_same_way(
    command: str, cloister: Cloister, tmp_path: Path
) -> None:
    ended = cloister(command, write(SITES["unknown data source"], tmp_path))
    assert ended.code == 2
    assert "Traceback" not in ended.err
    assert "hint: " in ended.err
    said = cloister(command, write(FIELDS["unknown field in the job"], tmp_path / "b"), "--json").json()
    assert isinstance(said["error"], dict)
    assert said["error"]["code"] == "input.schema"
