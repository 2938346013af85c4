"""``cloister collateral``: bringing vendors' documents in, and seeing until when they hold."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cloister.cli.main import main
from cloister.core.clock import fixed_clock, system_clock
from cloister.enclave.attestation.simulated.intel import SimulatedIntel
from cloister.enclave.attestation.simulated.intel_collateral import Published, publish
from cloister.enclave.attestation.simulated.nitro import EnclaveImage, SimulatedNitro
from tests.cli.conftest import Cloister


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a simulated root and sets of collateral of the present."""
    monkeypatch.chdir(tmp_path)
    now = datetime.now(UTC)
    vendor = SimulatedIntel.create(fixed_clock(now - timedelta(days=90)))
    (tmp_path / "root.der").write_bytes(vendor.root_der)
    sets = {
        "now.json": publish(vendor, now - timedelta(days=1)),
        "soon.json": publish(vendor, now - timedelta(days=27), Published(fmspc="00806f050000")),
        "past.json": publish(vendor, now - timedelta(days=60)),
        "older.json": publish(vendor, now - timedelta(days=2)),
    }
    for name, document in sets.items():
        (tmp_path / name).write_bytes(document.data)
    return tmp_path


ROOT = ("--simulated-root", "root.der")


def test_documents_that_hold_are_taken_in_and_shown(cloister: Cloister, files: Path) -> None:
    ended = cloister("collateral", "import", "now.json", "soon.json", "--into", "held", *ROOT, "--json")
    assert ended.code == 0
    assert [one["outcome"] for one in ended.json()["documents"]] == ["added", "added"]
    shown = cloister("collateral", "show", "held", *ROOT, "--json").json()
    assert {one["state"] for one in shown["documents"]} == {"holds"}
    assert {one["signature"] for one in shown["documents"]} == {"verified"}
    assert all(one["simulated"] and len(one["parts"]) == 4 for one in shown["documents"])
    table = cloister("collateral", "show", "held", *ROOT)
    assert "SIMULATED" in table.out
    assert "holds" in table.out
    assert "ends soon" in table.out


def test_a_folder_of_documents_is_taken_in_and_what_is_refused_is_named_with_its_reason(
    cloister: Cloister, files: Path
) -> None:
    ended = cloister("collateral", "import", files, "--into", "held", *ROOT, "--json")
    assert ended.code == 4
    told = ended.json()
    reasons = {Path(one["file"]).name: one["code"] for one in told["refused"]}
    assert reasons == {
        "older.json": "attestation.collateral_older",
        "past.json": "attestation.collateral_expired",
        "root.der": "attestation.collateral",
    }
    assert {Path(one["file"]).name for one in told["documents"]} == {"now.json", "soon.json"}


def test_an_older_document_is_taken_in_where_that_is_meant(cloister: Cloister, files: Path) -> None:
    assert cloister("collateral", "import", "now.json", "--into", "held", *ROOT).code == 0
    refused = cloister("collateral", "import", "older.json", "--into", "held", *ROOT)
    assert refused.code == 4
    assert "--allow-older" in refused.out
    assert cloister("collateral", "import", "older.json", "--into", "held", "--allow-older", *ROOT).code == 0


def test_a_list_is_taken_in_with_its_issuers_certificates_and_not_without(
    cloister: Cloister, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cloud = SimulatedNitro.create(system_clock)
    document = cloud.module("north", EnclaveImage.of(b"application"), system_clock).quote(bytes(64))
    (tmp_path / "root.der").write_bytes(cloud.root_der)
    (tmp_path / "document.cbor").write_bytes(document.report)
    (tmp_path / "evidence.json").write_bytes(document.encode())
    (tmp_path / "root.crl").write_bytes(cloud.collateral.documents[0].data)
    line = ("collateral", "import", "root.crl", "--into")
    alone = cloister(*line, "alone", "--issuer", "document.cbor", "--json")
    assert alone.code == 4
    assert [one["code"] for one in alone.json()["refused"]] == ["attestation.collateral"]
    for name in ("document.cbor", "evidence.json", "root.der"):
        ended = cloister(*line, name.partition(".")[0], "--issuer", name, *ROOT, "--json")
        assert ended.code == 0
        (told,) = ended.json()["documents"]
        assert (told["kind"], told["signature"], told["simulated"]) == ("aws-crl", "verified", True)
    shown = cloister("collateral", "show", "root", "--json").json()["documents"]
    assert [one["signature"] for one in shown] == ["checked-when-used"]
    assert cloister(*line, "none", "--issuer", "root.crl").code == 2


def test_simulated_collateral_is_refused_where_no_simulated_root_is_named(
    cloister: Cloister, files: Path
) -> None:
    ended = cloister("collateral", "import", "now.json", "--into", "held", "--json")
    assert ended.code == 4
    assert ended.json()["refused"][0]["code"] == "attestation.untrusted_root"
    assert not (files / "held").exists()


def test_a_document_of_another_kind_than_was_said_is_refused(cloister: Cloister, files: Path) -> None:
    ended = cloister("collateral", "import", "now.json", "--kind", "amd-crl", "--into", "held", *ROOT)
    assert ended.code == 4


def test_what_is_out_of_date_stands_out(
    cloister: Cloister, files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cloister("collateral", "import", "now.json", "--into", "held", *ROOT).code == 0
    later = fixed_clock(datetime.now(UTC) + timedelta(days=40))
    monkeypatch.setattr("cloister.core.clock.system_clock", later)
    assert "expired" in cloister("collateral", "show", "held", *ROOT).out
    shown = cloister("collateral", "show", "held", *ROOT, "--json").json()
    assert shown["documents"][0]["state"] == "expired"


def test_the_workspaces_folder_is_the_one_that_is_meant_if_none_is_named(
    cloister: Cloister, files: Path
) -> None:
    (files / "work").mkdir()
    assert cloister("collateral", "import", "now.json", "-w", "work", *ROOT).code == 0
    assert len(list((files / "work" / "collateral").iterdir())) == 1
    assert "No document is held" in cloister("collateral", "show", "elsewhere").out


def test_a_file_that_is_not_there_is_named(cloister: Cloister, files: Path) -> None:
    ended = cloister("collateral", "import", "nowhere.json", "--into", "held", "--json")
    assert ended.code == 2
    assert ended.json()["refused"][0]["code"] == "input.missing_file"


def test_a_set_that_cannot_be_verified_any_more_is_shown_as_unsound(
    cloister: Cloister, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cloister("collateral", "import", "now.json", "--into", "held", *ROOT).code == 0
    with pytest.raises(SystemExit):
        main(["collateral", "show", "held", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["documents"] == []
    assert shown["unsound"][0]["code"] == "attestation.untrusted_root"
    assert "unsound" in cloister("collateral", "show", "held").out
