"""``cloister enclave``: what this machine is, and a start that needs a proof, a rehearsal, or loud words."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from pathlib import Path
from typing import cast

import pytest

from cloister.core.clock import system_clock
from cloister.core.files import read_bounded
from cloister.enclave.attestation import CollateralKind, Gpus, SimulatedVendor, collect, trust
from cloister.enclave.attestation.evidence import Tee
from cloister.enclave.attestation.trust import TrustedRoot
from cloister.enclave.inference import InferenceListener, InferenceService
from cloister.enclave.launch import INSECURE_VARIABLES, SIMULATION_VARIABLES
from cloister.enclave.launch_file import load_launch_file
from cloister.enclave.measure import code_measurement
from cloister.enclave.model_file import decode_model, encode_model
from cloister.evidence.predicates import BudgetSpend, Incident, KeyRelease, WorkerSealed
from cloister.privacy.models import build_model, state_arrays
from cloister.workflow import attester
from tests.cli.conftest import Cloister, Ended
from tests.enclave import recorded_devices as recorded
from tests.enclave.recorded_devices import RecordedMachine, TsmMachine
from tests.system.example_job import ABSENT, EASY, FAST, SITES, Edits, ExampleJob, finished_jobs
from tests.system.reading import stated_in_log

ROOT = Path(__file__).resolve().parents[2]
HARDWARE = {**FAST, "attestation": "hardware"}
LOWEST = {"Milan": {"boot_loader": 4, "tee": 0, "snp": 24, "microcode": 219}}
MILAN: Edits = {**EASY, "attestation.amd_lines": ["Milan"], "attestation.minimum_tcb": LOWEST}
OF_PATIENTS: Edits = {
    **MILAN,
    "dataset_scope.contents": "records",
    "attestation.allow_simulated": False,
    "privacy_guardrails.allow_mock": False,
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*SIMULATION_VARIABLES, *INSECURE_VARIABLES, "COREASON_DATA_ROOT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual machine without anything, whatever these tests run on."""
    monkeypatch.setattr(collect, "LinuxDevice", RecordedMachine)
    monkeypatch.setattr(collect.Nvml, "open", recorded.no_gpus)


def lines(workspace: Path) -> list[dict[str, object]]:
    (path,) = (workspace / "logs").iterdir()
    return [json.loads(line) for line in path.read_text().splitlines()]


def folder(workspace: Path) -> Path:
    (found,) = finished_jobs(workspace)
    return workspace / "jobs" / found


# detect


@pytest.mark.usefixtures("plain")
def test_detect_says_that_a_plain_machine_is_none_and_why(cloister: Cloister) -> None:
    shown = cloister("enclave", "detect")
    assert shown.code == 0
    assert "not a trusted execution environment" in shown.out
    answer = cloister("enclave", "detect", "--json").json()
    assert answer["kind"] is None
    assert answer["reasons"]


def test_detect_looks_at_the_real_machine_without_an_error(cloister: Cloister) -> None:
    answer = cloister("enclave", "detect", "--json")
    assert answer.code == 0
    assert answer.json().keys() >= {"kind", "hints", "memory_encryption_only", "host_capabilities"}


def test_detect_tells_a_guest_and_that_it_proves_nothing(
    cloister: Cloister, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collect, "LinuxDevice", lambda: TsmMachine(provider="tdx_guest"))
    monkeypatch.setattr(collect.Nvml, "open", recorded.no_gpus)
    shown = cloister("enclave", "detect").out
    assert "looks like an Intel TDX guest" in shown
    assert "demands a signed proof" in shown


# start: refused


def refused(ended: Ended, code: str, workspace: Path) -> None:
    assert ended.code == 78
    assert f"[{code}]" in ended.err
    assert "hint: " in ended.err
    assert ended.out == ""
    assert finished_jobs(workspace) == []


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("asked", ["simulated", "hardware"])
def test_without_a_switch_an_unprotected_machine_starts_nothing(
    asked: str, cloister: Cloister, tmp_path: Path
) -> None:
    job = ExampleJob(job={**FAST, "attestation": asked}).write(tmp_path)
    ended = cloister("enclave", "start", job, "-w", tmp_path / "work")
    refused(ended, "launch.unprotected", tmp_path / "work")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize("name", [*SIMULATION_VARIABLES, *INSECURE_VARIABLES])
def test_a_variable_alone_aborts_the_start(
    name: str, cloister: Cloister, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "true")
    job = ExampleJob().write(tmp_path)
    ended = cloister("enclave", "start", job, "-w", tmp_path / "work")
    refused(ended, "launch.environment", tmp_path / "work")
    assert name in ended.err


def test_the_two_switches_exclude_each_other(cloister: Cloister, tmp_path: Path) -> None:
    ended = cloister("enclave", "start", tmp_path / "job.yaml", "--simulation", "--insecure")
    assert ended.code == 2
    assert "two different things" in ended.err


def test_a_job_for_hardware_is_not_rehearsed_and_not_run_otherwise(
    cloister: Cloister, tmp_path: Path
) -> None:
    job = ExampleJob(job=HARDWARE).write(tmp_path)
    rehearsed = cloister("enclave", "start", job, "-w", tmp_path / "work", "--simulation")
    refused(rehearsed, "launch.job_attestation", tmp_path / "work")
    refused(cloister("run", job, "-w", tmp_path / "work"), "launch.job_attestation", tmp_path / "work")


@pytest.mark.parametrize("options", [["a"], ["=b"], ["log_level=info", "log_level=debug"]])
def test_extra_options_of_another_form_are_refused(
    options: list[str], cloister: Cloister, tmp_path: Path
) -> None:
    ended = cloister("enclave", "start", tmp_path / "job.yaml", *options, "--simulation")
    assert (ended.code, "NAME=VALUE" in ended.err) == (2, True)


# start: rehearsed


def test_a_rehearsal_is_what_run_does_and_says_simulated(cloister: Cloister, tmp_path: Path) -> None:
    job, work = ExampleJob().write(tmp_path), tmp_path / "work"
    ended = cloister("enclave", "start", job, "log_level=debug", "-w", work, "--simulation", "--json")
    answer = ended.json()
    assert ended.code == 0
    assert (answer["protection"], answer["simulated"], answer["receipt_accepted"]) == (
        "SIMULATED",
        True,
        True,
    )
    assert {line["protection"] for line in lines(work)} == {"SIMULATED"}
    assert (folder(work) / "trust" / "tee-root" / "SIMULATED.pem").exists()


# start: insecure


def test_an_insecure_run_is_loud_and_everything_of_it_is_marked_and_refused(
    cloister: Cloister, tmp_path: Path
) -> None:
    job, work = ExampleJob().write(tmp_path), tmp_path / "work"
    ended = cloister("enclave", "start", job, "-w", work, "--insecure")
    assert ended.code == 1
    assert "INSECURE" in ended.err
    assert "No keys are released" in ended.err
    assert "INSECURE" in ended.out
    assert {line["protection"] for line in lines(work)} == {"INSECURE"}
    made = folder(work)
    assert made.name.startswith("INSECURE-")
    model = decode_model(read_bounded(made / "model.safetensors", 1 << 24))
    assert any("INSECURE" in name for name in model)
    assert "INSECURE" in (made / "report.html").read_text()
    assert (made / "trust" / "tee-root" / "INSECURE.pem").exists()
    checked = cloister("verify", made / "receipt.json", "--trust", made / "trust", "--json")
    assert checked.code == 1
    failed = [
        one for one in cast(list[dict[str, str]], checked.json()["checks"]) if one["outcome"] == "failed"
    ]
    told = {one["id"]: one["detail"] for one in failed}
    assert told.keys() == {"statements-complete", "attestation", "model-hash"}
    assert "not approved" in told["model-hash"]
    assert "other constraints" in told["model-hash"]
    assert told["attestation"] == "; ".join(
        f"{site}: INSECURE: its records went to its worker without a key" for site in SITES
    )
    assert "northgate: 0 releases of its data key" in told["statements-complete"]


def test_an_insecure_run_obtains_no_key_and_makes_none(cloister: Cloister, tmp_path: Path) -> None:
    job, work = ExampleJob().write(tmp_path), tmp_path / "work"
    cloister("enclave", "start", job, "-w", work, "--insecure", "--quiet")
    for site in SITES:
        kinds = [type(one) for one in stated_in_log(work, "site", site)]
        assert KeyRelease not in kinds
        assert kinds.index(WorkerSealed) < kinds.index(Incident) < kinds.index(BudgetSpend)
    assert [path for path in work.rglob("*") if path.name == "data-keys"] == []


@pytest.mark.parametrize("switch", ["--simulation", "--insecure"])
def test_patients_records_are_not_even_read_where_no_hardware_protects_them(
    switch: str, cloister: Cloister, tmp_path: Path
) -> None:
    tables = {**FAST, "with_data": None, "data.source": "csv"}
    job, work = ExampleJob(job=tables, manifest=OF_PATIENTS).write(tmp_path), tmp_path / "work"
    ended = cloister("enclave", "start", job, "-w", work, switch, "--data", tmp_path / "not to be read")
    refused(ended, "launch.real_records", work)
    assert "contents: test-data" in ended.err
    assert [path for path in work.rglob("*") if path.name == "data-keys"] == []


def test_records_whose_manifest_does_not_say_what_they_are_tell_a_newcomer_what_to_write(
    cloister: Cloister, tmp_path: Path
) -> None:
    job, work = ExampleJob(manifest={"dataset_scope.contents": ABSENT}).write(tmp_path), tmp_path / "work"
    ended = cloister("run", job, "-w", work)
    assert ended.code == 2
    assert "if these are public or made up, write contents: test-data under dataset_scope" in " ".join(
        ended.err.split()
    )
    assert finished_jobs(work) == []


def test_an_insecure_runs_answer_to_a_machine_is_marked_too(cloister: Cloister, tmp_path: Path) -> None:
    job = ExampleJob().write(tmp_path)
    ended = cloister("enclave", "start", job, "-w", tmp_path / "work", "--insecure", "--json", "--quiet")
    answer = ended.json()
    assert (ended.code, answer["protection"], answer["receipt_accepted"]) == (1, "INSECURE", False)
    assert "INSECURE" in ended.err


# The page


def test_the_configuration_on_the_page_is_one_and_the_page_names_what_there_is(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "how-to" / "run-in-a-confidential-vm.md").read_text()
    found = re.search(r"```toml\n(.*?)```", page, re.DOTALL)
    assert found is not None
    text = found[1].replace("<96 hex digits of the launch digest>", "ab" * 48)
    (tmp_path / "enclave.toml").write_text(text)
    for name in ("vcek.pem", "ask.pem", "ark.pem", "genoa.crl"):
        (tmp_path / name).write_bytes(b"any bytes")
    read = load_launch_file(tmp_path / "enclave.toml")
    assert read.terms.policy is not None
    assert read.terms.policy.gpus is Gpus.REQUIRED
    assert len(read.certificates) == 3
    for name in re.findall(r"`(ops/[\w./]+)`", page):
        assert (ROOT / name).exists(), name
    assert SIMULATION_VARIABLES[0] in page


# start: proved, by a machine whose vendor is taken for a pinned one


@pytest.fixture
def guest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An SNP guest behind configfs-tsm. Its chip is simulated; its root is taken for one pinned in code."""
    vendor = SimulatedVendor.create(system_clock)
    platform = vendor.platform("guest", code_measurement())
    machine = TsmMachine(
        answer=lambda data: platform.quote(data).report, table=recorded.snp_table(platform.chain)
    )
    (crl,) = vendor.collateral.of(CollateralKind.AMD_CRL)
    (tmp_path / "chips.crl").write_bytes(crl.data)
    (tmp_path / "enclave.toml").write_text('[[collateral]]\nkind = "amd-crl"\nfile = "chips.crl"\n')
    digest = hashlib.sha256(vendor.root_der).hexdigest()
    pinned = {
        **trust.VENDOR_ROOTS,
        digest: TrustedRoot(digest, frozenset({Tee.AMD_SEV_SNP}), simulated=False),
    }
    monkeypatch.setattr(trust, "VENDOR_ROOTS", pinned)
    monkeypatch.setattr(attester, "VENDOR_ROOTS", pinned)
    monkeypatch.setattr(collect, "LinuxDevice", lambda: machine)
    monkeypatch.setattr(collect.Nvml, "open", recorded.no_gpus)


@pytest.mark.usefixtures("guest")
def test_a_proven_machine_runs_a_job_whose_receipt_is_of_hardware(cloister: Cloister, tmp_path: Path) -> None:
    job, work = ExampleJob(job=HARDWARE, manifest=MILAN).write(tmp_path), tmp_path / "work"
    ended = cloister("enclave", "start", job, "-w", work, "-f", tmp_path, "--json")
    answer = ended.json()
    assert (ended.code, ended.err) == (0, "")
    assert (answer["protection"], answer["simulated"]) == ("PROTECTED", False)
    assert all("protection" not in line for line in lines(work))
    made = folder(work)
    assert made.name.startswith("tumour-")
    assert (made / "trust" / "tee-root" / "amd-sev-snp.pem").exists()
    checked = cloister("verify", made / "receipt.json", "--trust", made / "trust", "--production")
    assert checked.code == 0


@pytest.mark.usefixtures("guest")
def test_a_proven_machine_below_what_one_hospital_asks_of_firmware_takes_part_in_nothing(
    cloister: Cloister, tmp_path: Path
) -> None:
    newer = {**MILAN, "attestation.minimum_tcb": {"Milan": {**LOWEST["Milan"], "snp": 25}}}
    job, work = ExampleJob(job=HARDWARE, manifest=newer).write(tmp_path), tmp_path / "work"
    ended = cloister("enclave", "start", job, "-w", work, "-f", tmp_path)
    assert ended.code == 4
    assert "attestation.tcb_unacceptable" in ended.err
    assert finished_jobs(work) == []


@pytest.mark.usefixtures("guest")
def test_a_proven_machine_gets_the_keys_to_patients_records_and_their_purpose_is_stated(
    cloister: Cloister, tmp_path: Path
) -> None:
    job, work = ExampleJob(job=HARDWARE, manifest=OF_PATIENTS).write(tmp_path), tmp_path / "work"
    ended = cloister("enclave", "start", job, "-w", work, "-f", tmp_path, "--json")
    assert (ended.code, ended.err) == (0, "")
    for site in SITES:
        (given,) = [one for one in stated_in_log(work, "site", site) if isinstance(one, KeyRelease)]
        assert (given.outcome, given.purpose) == ("released", "records")
    checked = cloister(
        "verify", folder(work) / "receipt.json", "--trust", folder(work) / "trust", "--production"
    )
    assert checked.code == 0


@pytest.mark.usefixtures("guest")
def test_a_proven_machine_serves_predictions_to_a_client_who_asks_for_hardware(
    cloister: Cloister, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, rows, socket = tmp_path / "m.safetensors", tmp_path / "rows.csv", tmp_path / "socket"
    model.write_bytes(encode_model(state_arrays(build_model("logistic-regression", 4, 2, 7))))
    rows.write_text("0.1,0.2,0.3,0.4\n")
    policy = {"measurements": [code_measurement().hex()], "amd_lines": ["Milan"], "minimum_tcb": LOWEST}
    (tmp_path / "policy.json").write_text(json.dumps(policy))
    answers: list[Ended] = []
    shown: list[str] = []
    serve = InferenceListener.serve

    def asked_meanwhile(listener: InferenceListener, service: InferenceService) -> None:
        serving = threading.Thread(target=serve, args=(listener, service))
        serving.start()
        shown.append(capsys.readouterr().out)
        asked = ("infer", "--model", model, "--input", rows, "--endpoint", listener.address, "--json")
        right = ("--policy", tmp_path / "policy.json", "--collateral", tmp_path / "chips.crl")
        answers.extend((cloister(*asked, *right), cloister(*asked, *right[:2])))
        listener.close()
        serving.join()

    monkeypatch.setattr(InferenceListener, "serve", asked_meanwhile)
    words = ("serve-inference", "--model", model, "--job", ROOT / "examples" / "tumour" / "job.yaml")
    served = cloister(*words, "--features", "4", "--listen", socket, "-f", tmp_path, "--json")
    assert served.code == 0
    facts = json.loads(shown[0])
    assert (facts["measurement"], facts["seal"]) == (code_measurement().hex(), "namespaces")
    assert facts["platform"] == "AMD_SEV_SNP"
    predicted, unrevoked = answers
    assert (predicted.code, predicted.json()["simulated"]) == (0, False)
    assert (unrevoked.code, "attestation.revocation_unknown" in unrevoked.out) == (4, True)


@pytest.mark.usefixtures("guest")
def test_a_proven_machine_is_still_held_to_the_operators_configuration(
    cloister: Cloister, tmp_path: Path
) -> None:
    job, work = ExampleJob(job=HARDWARE).write(tmp_path), tmp_path / "work"
    refused(cloister("enclave", "start", job, "-w", work), "launch.unprotected", work)
    (tmp_path / "own.toml").write_text(
        f'[policy]\nmeasurements = ["{"00" * 48}"]\nwithout_revocation = ["amd-sev-snp"]\n'
        'amd_lines = ["Milan"]\nminimum_tcb.Milan = {boot_loader = 0, tee = 0, snp = 0, microcode = 0}\n'
    )
    other = cloister("enclave", "start", job, "-w", work, "-f", tmp_path, "-c", "own.toml")
    refused(other, "launch.unprotected", work)
    assert "measurement" in other.err


@pytest.mark.usefixtures("guest")
def test_a_proven_machine_does_not_run_a_job_that_says_simulated(cloister: Cloister, tmp_path: Path) -> None:
    job, work = ExampleJob().write(tmp_path), tmp_path / "work"
    ended = cloister("enclave", "start", job, "-w", work, "-f", tmp_path)
    refused(ended, "launch.job_attestation", work)
