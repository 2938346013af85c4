"""Tables that their hospitals sealed beforehand: jobs train on them, and their node never holds a record."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from cloister.enclave.keyrelease import DataKeyBook
from cloister.health import load_source
from cloister.health.declaration import read_declaration
from cloister.health.encrypted_table import read_encrypted_table
from tests.cli.conftest import Cloister, cloister
from tests.cli.test_own_tables import HEADER, rows, write_job, write_tables
from tests.enclave.sealed.test_destruction import children, hits
from tests.system.example_job import finished_jobs

__all__ = ["cloister"]
SITES = ("east", "west")
CANARIES = {"east": (71.36482915374261, 183.52071946082637), "west": (52.91746380152947, 141.83306275914482)}


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """The hospitals' own folder, which no node sees."""
    pytest.importorskip("pyseccomp", reason="pyseccomp is not installed")
    return write_tables(tmp_path / "hospitals")


def sealed_for(cloister: Cloister, plain: Path, node: Path, work: Path, *sites: str) -> Path:
    """The node's folder: what is public, and the named sites' tables sealed; the others' in the clear."""
    node.mkdir()
    for name in ("schema.yaml", "test.csv"):
        shutil.copy(plain / name, node)
    for site in SITES:
        if site in sites:
            out = node / f"{site}.sealed"
            words = ("--contents", "test-data", "--workspace", work)
            assert cloister("table", "seal", plain / f"{site}.csv", "--out", out, *words).code == 0
        else:
            for ending in ("csv", "salt"):
                shutil.copy(plain / f"{site}.{ending}", node)
    return node


def test_a_job_over_a_sealed_and_a_readable_table_ends_with_an_accepted_receipt(
    plain: Path, cloister: Cloister, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    node = sealed_for(cloister, plain, tmp_path / "node", work, "east")
    job = write_job(tmp_path / "job", plain)
    shown = cloister("data", job, "--data", node, "--json").json()["sites"]
    assert shown == cloister("data", job, "--data", plain, "--json").json()["sites"]
    ended = cloister("run", job, "--data", node, "--workspace", work, "--json")
    assert ended.code == 0, ended.err
    (name,) = finished_jobs(work)
    folder = work / "jobs" / name
    checked = cloister("verify", folder / "receipt.json", "--trust", folder / "trust", "--json")
    assert (checked.code, checked.json()["accepted"]) == (0, True)
    assert not (node / "east.salt").exists()


def test_sealed_or_not_a_seeded_job_trains_the_same_model(
    plain: Path, cloister: Cloister, tmp_path: Path
) -> None:
    models = set()
    for sites in ((), SITES):
        name = f"{len(sites)}"
        work = tmp_path / f"work-{name}"
        node = sealed_for(cloister, plain, tmp_path / f"node-{name}", work, *sites)
        job = write_job(tmp_path / f"job-{name}", plain)
        # A seeded run's receipt fails for its noise; what it trained is in its folder all the same.
        cloister("run", job, "--data", node, "--workspace", work, "--quiet", "--test-seed", "5")
        (done,) = finished_jobs(work)
        models.add((work / "jobs" / done / "model.safetensors").read_bytes())
    assert len(models) == 1


def test_sealing_says_what_a_manifest_needs_and_nothing_of_a_record(
    plain: Path, cloister: Cloister, tmp_path: Path
) -> None:
    out = tmp_path / "east.sealed"
    ended = cloister(
        "table", "seal", plain / "east.csv", "--out", out, "--workspace", tmp_path / "w", "--json"
    )
    facts, truth = ended.json(), load_source("csv", data_dir=plain).sites["east"]
    assert (facts["dataset_sha256"], facts["records"]) == (truth.dataset_sha256, truth.records)
    assert facts["contents"] == "records"
    assert out.stat().st_mode & 0o777 == 0o600
    content = out.read_bytes()
    salt = bytes.fromhex((plain / "east.salt").read_text())
    for secret in (salt, salt.hex().encode(), truth.raw[:2].tobytes()):  # type: ignore[union-attr]
        assert secret not in content
    again = cloister("table", "seal", plain / "east.csv", "--out", out, "--workspace", tmp_path / "w")
    assert (again.code, "storage.exists" in again.err) == (5, True)


def test_a_key_that_is_to_be_wrapped_elsewhere_is_another_key(
    plain: Path, cloister: Cloister, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moto = pytest.importorskip("moto", reason="moto is not installed")
    boto3 = pytest.importorskip("boto3", reason="boto3 is not installed (cloister[kms])")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")

    def sealed(folder: str, *words: str) -> str:
        (tmp_path / folder).mkdir()
        out, work = tmp_path / folder / "east.sealed", tmp_path / "work"
        ended = cloister(
            "table", "seal", plain / "east.csv", "--out", out, "--workspace", work, "--json", *words
        )
        assert ended.code == 0, ended.err
        return str(ended.json()["data_key"])

    with moto.mock_aws():
        arn = boto3.client("kms", region_name="eu-central-1").create_key()["KeyMetadata"]["Arn"]
        made = [sealed("1"), sealed("2", "--kms-key", arn), sealed("3", "--kms-key", arn), sealed("4")]
    assert made[0] == made[3] != made[1] == made[2]
    keeper = tmp_path / "work" / "parties" / "hospital" / "east" / "data-keys"
    book = DataKeyBook.open(keeper / "keys.db")
    kinds = [book.key(one).wrapping_id.partition(":")[0] for one in made]
    book.close()
    assert kinds == ["file", "kms", "kms", "file"]


def refused(cloister: Cloister, job: Path, node: Path, work: Path) -> str:
    """The code of a run's refusal; nothing of it is left."""
    ended = cloister("run", job, "--data", node, "--workspace", work, "--json")
    assert ended.code != 0
    assert finished_jobs(work) == []
    code: str = json.loads(ended.out)["error"]["code"]
    return code


def test_a_table_sealed_with_another_workspaces_key_or_for_another_use_trains_nothing(
    plain: Path, cloister: Cloister, tmp_path: Path
) -> None:
    work, job = tmp_path / "work", write_job(tmp_path / "job", plain)
    node = sealed_for(cloister, plain, tmp_path / "node", tmp_path / "elsewhere", "east")
    assert refused(cloister, job, node, work) == "release.unknown"
    (node / "east.sealed").unlink()
    words = ("--workspace", work, "--contents", "records")
    out = node / "east.sealed"
    assert cloister("table", "seal", plain / "east.csv", "--out", out, *words).code == 0
    assert refused(cloister, job, node, work) == "release.wrong_key"


def test_a_sealed_table_whose_key_was_revoked_is_trained_on_no_more(
    plain: Path, cloister: Cloister, tmp_path: Path
) -> None:
    work, job = tmp_path / "work", write_job(tmp_path / "job", plain)
    node = sealed_for(cloister, plain, tmp_path / "node", work, "east")
    key = read_encrypted_table(node, "east.sealed").public.data_key
    keeper = work / "parties" / "hospital" / "east" / "data-keys"
    assert cloister("keys", "data-key", "revoke", keeper, key).code == 0
    assert refused(cloister, job, node, work) == "federation.quorum_lost"


def test_a_table_of_other_records_than_the_manifest_names_is_refused_by_its_hospital(
    plain: Path, cloister: Cloister, tmp_path: Path
) -> None:
    work, job = tmp_path / "work", write_job(tmp_path / "job", plain)
    (plain / "east.csv").write_text("\n".join([HEADER, *rows(41)]) + "\n")
    node = sealed_for(cloister, plain, tmp_path / "node", work, "east")
    assert refused(cloister, job, node, work) == "policy.refused"


def test_a_figure_and_an_audit_of_a_sealed_table_are_refused_by_name(
    plain: Path, cloister: Cloister, tmp_path: Path
) -> None:
    work, job = tmp_path / "work", write_job(tmp_path / "job", plain)
    node = sealed_for(cloister, plain, tmp_path / "node", work, "east")
    figure = ("privacy", "release", job, "--site", "east", "--column", "age", "--epsilon", "0.1")
    for words in (figure, ("privacy", "audit", job, "--site", "east", "--out", tmp_path / "report")):
        ended = cloister(*words, "--data", node, *(() if words[1] == "audit" else ("--workspace", work)))
        assert (ended.code, "health.sealed" in ended.err) == (2, True), ended.err


def test_a_sealed_table_does_not_go_beside_its_keys(plain: Path, cloister: Cloister, tmp_path: Path) -> None:
    work = tmp_path / "w"
    out = work / "parties" / "hospital" / "east" / "data-keys" / "east.sealed"
    ended = cloister("table", "seal", plain / "east.csv", "--out", out, "--workspace", work)
    assert (ended.code, "release.beside" in ended.err) == (4, True)


@contextmanager
def paused(job: Path, node: Path, work: Path) -> Iterator[subprocess.Popen[str]]:
    """A node's process after its first round, its workers alive."""
    words = [sys.executable, "-m", "tests.system.paused_job", str(job), str(node), str(work)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            assert process.stdout.readline() == "looking\n"
            yield process
            process.stdin.write("on\n")
            process.stdin.flush()
            assert process.stdout.readline() == "accepted\n"
        finally:
            process.stdin.close()
            process.kill()


def needles(plain: Path, canary: tuple[float, float]) -> dict[str, bytes]:
    """How a canary looks in a table's text, in its cells, and as a model's inputs."""
    scaled = read_declaration(plain, "schema.yaml").table.scale(np.array([canary]))
    return {
        "text": ",".join(map(str, canary)).encode(),
        "cells": struct.pack("<dd", *canary) * 2,
        "inputs": scaled.tobytes() * 2,
    }


def descendants(pid: int) -> list[int]:
    return [one for child in children(pid) for one in (child, *descendants(child))]


@pytest.mark.timeout(400)
def test_of_a_sealed_table_only_its_workers_memory_holds_a_record_while_a_job_trains_on_it(
    plain: Path, cloister: Cloister, tmp_path: Path
) -> None:
    if os.getuid() != 0:
        pytest.skip("an ordinary user can't read another process's memory")
    for site, canary in CANARIES.items():
        lines = [f"{canary[0]},{canary[1]},{label}" for label in ("no", "yes")] * 20
        (plain / f"{site}.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    work, job = tmp_path / "work", write_job(tmp_path / "job", plain)
    node = sealed_for(cloister, plain, tmp_path / "node", work, "east")
    sealed, readable = (needles(plain, CANARIES[site]) for site in SITES)
    with paused(job, node, work) as process:
        below = descendants(process.pid)
        # No process comes from a worker; the others are the node, the fork server and what started them.
        workers = [one for one in below if not children(one)]
        others = [process.pid, *(one for one in below if one not in workers)]
        in_workers = [hits(one, {"cells": sealed["cells"]})["cells"] > 0 for one in workers]
        elsewhere = [hits(one, sealed | {"readable": readable["cells"]}) for one in others]
    assert in_workers.count(True) == 1
    assert not any(found[kind] for found in elsewhere for kind in sealed)
    # The search finds what there is to find: a node that reads a table holds it.
    assert any(found["readable"] for found in elsewhere)
    for path in (*work.rglob("*"), *node.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        assert not any(needle in content for needle in sealed.values()), path
