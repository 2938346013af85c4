"""Whatever is changed in a finished job, `cloister verify` refuses it and names the check that caught it.

Each change is tried twice: as anyone could make it, and by a hub that signs the changed receipt with its
own real key.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

from cloister.cli.main import main
from cloister.core.canonical import JSON, b64decode, b64encode
from cloister.core.hashes import sha256_hex
from cloister.core.keys import Signer
from cloister.evidence import Predicate
from cloister.evidence.checkpoint import parse_checkpoint, sign_checkpoint
from cloister.evidence.envelope import envelope_from_json
from cloister.evidence.predicates import (
    AttestationVerdict,
    BudgetSpend,
    DataCommitment,
    Evaluation,
    JobClosed,
    JobOpened,
    KeyRelease,
    ManifestAccepted,
    Release,
    RequestDecided,
    RoundAggregated,
    UpdateReleased,
    WorkerSealed,
)
from cloister.policy import ProtocolManifest, sign_manifest
from cloister.policy.signing import decode_document
from tests.system.conftest import MainJob
from tests.system.tampering import (
    HUB_LOG,
    SITE_LOG,
    Body,
    edited_receipt,
    entries,
    failed,
    judge,
    parts,
    party_key,
    predicate_of,
)

# What is changed


def without_first(kind: type[Predicate]) -> Callable[[Body, Path, Signer], None]:
    def edit(body: Body, workspace: Path, stranger: Signer) -> None:
        listed = entries(body)
        listed.remove(next(entry for entry in listed if isinstance(predicate_of(entry), kind)))

    return edit


def swap_two_statements(body: Body, workspace: Path, stranger: Signer) -> None:
    listed = entries(body)
    first = next(number for number, entry in enumerate(listed) if entry["log"] == SITE_LOG)
    listed[first], listed[first + 1] = listed[first + 1], listed[first]


def reverse_statements(body: Body, workspace: Path, stranger: Signer) -> None:
    entries(body).reverse()


def swap_places_too(body: Body, workspace: Path, stranger: Signer) -> None:
    """The envelopes trade places, so that indices still rise."""
    listed = [entry for entry in entries(body) if entry["log"] == SITE_LOG]
    listed[1]["envelope"], listed[2]["envelope"] = listed[2]["envelope"], listed[1]["envelope"]


def halve_epsilon(field: str) -> Callable[[Body, Path, Signer], None]:
    def edit(body: Body, workspace: Path, stranger: Signer) -> None:
        figures = parts(parts(parts(body["summary"])["privacy"])["northgate"])
        figures[field] = cast(float, figures[field]) / 2

    return edit


def resign_checkpoint(origin: str) -> Callable[[Body, Path, Signer], None]:
    def edit(body: Body, workspace: Path, stranger: Signer) -> None:
        notes = parts(body["checkpoints"])
        head = parse_checkpoint(cast(str, notes[origin]))
        notes[origin] = sign_checkpoint(origin, head.size, head.root, stranger).encode()

    return edit


def manifest_of(body: Body, site: str) -> ProtocolManifest:
    envelope = envelope_from_json(parts(body["manifests"])[site])
    return decode_document(ProtocolManifest, envelope.payload, "manifest")


def exchange_manifests(body: Body, workspace: Path, stranger: Signer) -> None:
    manifests = parts(body["manifests"])
    manifests["northgate"], manifests["riverside"] = manifests["riverside"], manifests["northgate"]


def manifest_of_another_version(body: Body, workspace: Path, stranger: Signer) -> None:
    """Signed by the hospital itself, but not the one its site worked under."""
    lenient = manifest_of(body, "northgate").model_copy(update={"version": "2.0.0"})
    signed = sign_manifest(lenient, party_key(workspace, "hospital", "northgate"))
    parts(body["manifests"])["northgate"] = signed.as_json()


def manifest_by_a_stranger(body: Body, workspace: Path, stranger: Signer) -> None:
    manifest = manifest_of(body, "northgate")
    own = manifest.model_copy(
        update={"hospital": manifest.hospital.model_copy(update={"public_key": stranger.public_key.pem})}
    )
    parts(body["manifests"])["northgate"] = sign_manifest(own, stranger).as_json()


def better_result(body: Body, workspace: Path, stranger: Signer) -> None:
    parts(parts(body["summary"])["performance"])["value"] = 0.999


def softer_promise(body: Body, workspace: Path, stranger: Signer) -> None:
    cast(list[JSON], body["compliance"]).pop()


def flip_statement_signature(body: Body, workspace: Path, stranger: Signer) -> None:
    envelope = parts(next(entry for entry in entries(body) if entry["log"] == SITE_LOG)["envelope"])
    signature = parts(cast(list[JSON], envelope["signatures"])[0])
    raw = bytearray(b64decode(cast(str, signature["sig"])))
    raw[0] ^= 1
    signature["sig"] = b64encode(bytes(raw))


def lend_proof(body: Body, workspace: Path, stranger: Signer) -> None:
    listed = [entry for entry in entries(body) if entry["log"] == SITE_LOG]
    listed[3]["inclusion"] = listed[4]["inclusion"]


def other_job_seed(body: Body, workspace: Path, stranger: Signer) -> None:
    parts(body["job"])["seed"] = 8


Edit = Callable[[Body, Path, Signer], None]
KINDS: tuple[type[Predicate], ...] = (
    JobOpened,
    AttestationVerdict,
    ManifestAccepted,
    RequestDecided,
    DataCommitment,
    WorkerSealed,
    KeyRelease,
    BudgetSpend,
    UpdateReleased,
    RoundAggregated,
    Evaluation,
    Release,
    JobClosed,
)
CHANGES: dict[str, tuple[Edit, str]] = {
    **{f"{kind.__name__} removed": (without_first(kind), "statements-complete") for kind in KINDS},
    "two statements swapped": (swap_two_statements, "statement-order"),
    "statements reversed": (reverse_statements, "statement-order"),
    "two envelopes swapped": (swap_places_too, "statement-order"),
    "epsilon of the job halved": (halve_epsilon("epsilon"), "epsilon"),
    "epsilon of the dataset halved": (halve_epsilon("epsilon_dataset_total"), "epsilon"),
    "checkpoint of a site signed by another": (resign_checkpoint(SITE_LOG), "checkpoint-signature"),
    "checkpoint of the hub signed by another": (resign_checkpoint(HUB_LOG), "checkpoint-signature"),
    "manifests exchanged": (exchange_manifests, "manifest"),
    "manifest of another version": (manifest_of_another_version, "manifest"),
    "manifest signed by a stranger": (manifest_by_a_stranger, "manifest"),
    "accuracy raised in the summary": (better_result, "summary"),
    "compliance sentence dropped": (softer_promise, "compliance"),
    "statement's signature flipped": (flip_statement_signature, "statement-signature"),
    "another entry's proof": (lend_proof, "log-inclusion"),
    "job changed after consent": (other_job_seed, "request"),
}


@pytest.fixture
def stranger(new_signer: Callable[[str], Signer]) -> Signer:
    """Somebody whose key nobody pinned."""
    return new_signer("stranger")


@pytest.fixture
def job_copy(main_job: MainJob, tmp_path: Path) -> Path:
    """A copy of the finished job's folder that a test may spoil."""
    return Path(shutil.copytree(main_job.outcome.folder, tmp_path / "job"))


@dataclass(frozen=True)
class Answer:
    """What the command said."""

    code: int
    failed: Sequence[str]


def verify(folder: Path, capsys: pytest.CaptureFixture[str]) -> Answer:
    """Run `cloister verify` on a job folder."""
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(folder / "receipt.json"), "--trust", str(folder / "trust"), "--json"])
    checks = json.loads(capsys.readouterr().out)["checks"]
    return Answer(cast(int, ended.value.code), [one["id"] for one in checks if one["outcome"] != "passed"])


# Who changes it


def test_an_untouched_job_is_accepted(job_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(job_copy, capsys) == Answer(0, [])


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_receipt_is_refused_by_the_named_check(
    change: str, main_job: MainJob, job_copy: Path, stranger: Signer, capsys: pytest.CaptureFixture[str]
) -> None:
    edit, expected = CHANGES[change]
    receipt = edited_receipt(
        main_job.outcome.receipt.read_bytes(), lambda body: edit(body, main_job.workspace, stranger)
    )
    (job_copy / "receipt.json").write_bytes(receipt)
    answer = verify(job_copy, capsys)
    assert answer.code == 1
    assert {expected, "receipt-signature"} <= set(answer.failed)


@pytest.mark.parametrize("change", CHANGES)
def test_a_hub_that_signs_its_change_is_refused_by_the_named_check(
    change: str, main_job: MainJob, stranger: Signer
) -> None:
    edit, expected = CHANGES[change]
    receipt = edited_receipt(
        main_job.outcome.receipt.read_bytes(),
        lambda body: edit(body, main_job.workspace, stranger),
        party_key(main_job.workspace, "hub", "hub"),
    )
    found = failed(judge(main_job.outcome, receipt=receipt))
    assert expected in found
    assert "receipt-signature" not in found


def test_one_flipped_byte_of_the_model_is_refused_by_its_hash(
    job_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = job_copy / "model.safetensors"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    assert verify(job_copy, capsys) == Answer(1, ["model-hash"])


def test_a_hub_that_swaps_the_model_and_signs_its_hash_is_refused(main_job: MainJob) -> None:
    content = main_job.outcome.model.read_bytes()[:-1] + b"\x00"

    def name_the_other(body: Body) -> None:
        parts(body["model"])["sha256"] = sha256_hex(content)

    receipt = edited_receipt(
        main_job.outcome.receipt.read_bytes(), name_the_other, party_key(main_job.workspace, "hub", "hub")
    )
    assert failed(judge(main_job.outcome, receipt=receipt, model=content)) == ["model-hash"]


def test_a_receipt_written_less_plainly_is_refused_as_not_canonical(
    job_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    receipt = job_copy / "receipt.json"
    receipt.write_bytes(receipt.read_bytes().replace(b'{"body":', b'{"body": ', 1))
    answer = verify(job_copy, capsys)
    assert answer.code == 1
    assert answer.failed[0] == "canonical-form"


def test_a_site_whose_key_is_not_the_pinned_one_is_refused(
    job_copy: Path, stranger: Signer, capsys: pytest.CaptureFixture[str]
) -> None:
    (job_copy / "trust" / "site" / "northgate.pem").write_text(stranger.public_key.pem)
    answer = verify(job_copy, capsys)
    assert answer.code == 1
    assert {"checkpoint-signature", "statement-signature"} <= set(answer.failed)


def test_a_site_nobody_pinned_is_refused(job_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (job_copy / "trust" / "site" / "northgate.pem").unlink()
    answer = verify(job_copy, capsys)
    assert answer.code == 1
    assert "trust" in answer.failed


# Any byte at all


def flipped(content: bytes, place: int, draw: random.Random) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1 << draw.randrange(8)
    return bytes(changed)


def test_no_flipped_bit_of_the_receipt_passes(main_job: MainJob) -> None:
    draw = random.Random(20261121)
    receipt = main_job.outcome.receipt.read_bytes()
    for place in (0, len(receipt) - 1, *(draw.randrange(len(receipt)) for _ in range(24))):
        verdict = judge(main_job.outcome, receipt=flipped(receipt, place, draw))
        assert not verdict.accepted, f"byte {place}"
        assert verdict.failures


def test_no_flipped_bit_of_the_model_passes(main_job: MainJob) -> None:
    draw = random.Random(20261121)
    model = main_job.outcome.model.read_bytes()
    receipt = main_job.outcome.receipt.read_bytes()
    for place in (0, 8, len(model) - 1):
        verdict = judge(main_job.outcome, receipt=receipt, model=flipped(model, place, draw))
        assert failed(verdict) == ["model-hash"]
