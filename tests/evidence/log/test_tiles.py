"""A log as static files: what is written is verified again with the key alone, and any change is found."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from cloister.core.errors import CloisterError
from cloister.core.keys import Signer
from cloister.evidence.errors import EvidenceError, LogError
from cloister.evidence.log import EvidenceLog, export_tiles, tile_reader, verify_tiles
from cloister.evidence.log.tile_layout import (
    MAX_BUNDLE_BYTES,
    bundle_path,
    decode_bundle,
    encode_bundle,
    tile_path,
)
from cloister.evidence.merkle import consistency_proof, inclusion_proof
from tests.evidence.log.places import ORIGIN, Place, edit, item


def grown(place: Place, signer: Signer, size: int) -> EvidenceLog:
    log = EvidenceLog.create(place, origin=ORIGIN, signer=signer)
    log.append_many([item(signer, number) for number in range(size)])
    return log


def files(folder: Path) -> dict[str, bytes]:
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}


def test_names_are_those_of_the_specification() -> None:
    # c2sp.org/tlog-tiles: "if N is 1234067, the path element is x001/x234/067"
    assert tile_path(0, 0) == "tile/0/000"
    assert tile_path(2, 1_234_067) == "tile/2/x001/x234/067"
    assert tile_path(1, 1000, 7) == "tile/1/x001/000.p/7"
    assert bundle_path(999, 256) == "tile/entries/999"
    assert decode_bundle(encode_bundle([b"", b"a" * 65_535, b"b"])) == (b"", b"a" * 65_535, b"b")


def test_a_bundle_of_millions_of_empty_entries_is_refused_at_its_257th() -> None:
    assert len(decode_bundle(bytes(2 * 256))) == 256
    for size in (2 * 257, MAX_BUNDLE_BYTES):
        with pytest.raises(EvidenceError) as caught:
            decode_bundle(bytes(size))
        assert caught.value.code == "evidence.tiles_invalid"


def test_a_log_has_the_files_that_the_specification_lists_for_its_size(
    tmp_path: Path, signer: Signer
) -> None:
    with grown(tmp_path / "log", signer, 1000) as log:
        export_tiles(log, tmp_path / "out")
    names = set(files(tmp_path / "out"))
    assert names == {
        "checkpoint",
        *(f"tile/{kind}/{number:03d}" for kind in ("0", "entries") for number in range(3)),
        "tile/0/003.p/232",
        "tile/entries/003.p/232",
        "tile/1/000.p/3",
    }


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 700])
def test_what_was_exported_is_verified_whole(place: Place, tmp_path: Path, signer: Signer, size: int) -> None:
    seen: list[tuple[int, bytes]] = []
    with grown(place, signer, size) as log:
        head = export_tiles(log, tmp_path / "out")
        found = verify_tiles(
            tmp_path / "out", [signer.public_key], origin=ORIGIN, visit=lambda *one: seen.append(one)
        )
        assert seen == [(one.index, one.data) for one in log.entries()]
    assert found.checkpoint == head
    assert found.entries == size


def test_exporting_again_adds_only_what_is_new(tmp_path: Path, signer: Signer) -> None:
    out = tmp_path / "out"
    with grown(tmp_path / "log", signer, 300) as log:
        export_tiles(log, out)
        before = {name: (out / name).stat().st_mtime_ns for name in files(out)}
        log.append_many([item(signer, number) for number in range(300, 600)])
        head = export_tiles(log, out)
    after = {name: (out / name).stat().st_mtime_ns for name in files(out)}
    changed = {name for name, time in before.items() if after[name] != time}
    assert changed == {"checkpoint"}
    assert {
        "tile/0/001",
        "tile/entries/001",
        "tile/0/002.p/88",
        "tile/1/000.p/2",
    } <= after.keys() - before.keys()
    assert verify_tiles(out, [signer.public_key]).checkpoint == head
    for partial in ("tile/0/001.p/44", "tile/entries/001.p/44"):
        assert partial in after
        (out / partial).unlink()
    assert verify_tiles(out, [signer.public_key]).entries == 600


def test_a_reader_of_an_older_checkpoint_is_served_by_the_tiles_it_grew_into(
    tmp_path: Path, signer: Signer
) -> None:
    out = tmp_path / "out"
    with grown(tmp_path / "log", signer, 300) as log:
        old = export_tiles(log, out)
        log.append_many([item(signer, number) for number in range(300, 600)])
        export_tiles(log, out)
        (out / "checkpoint").write_text(old.encode(), encoding="utf-8")
        for partial in ("tile/0/001.p/44", "tile/entries/001.p/44"):
            (out / partial).unlink()
        assert verify_tiles(out, [signer.public_key]).checkpoint == old


def test_proofs_are_read_from_tiles(tmp_path: Path, signer: Signer) -> None:
    with grown(tmp_path / "log", signer, 700) as log:
        export_tiles(log, tmp_path / "out")
        get = tile_reader(tmp_path / "out", 700)
        for index in (0, 255, 256, 511, 512, 699):
            assert inclusion_proof(index, 700, get) == log.inclusion_proof(index, 700)
        for old in (1, 255, 256, 300, 699):
            assert consistency_proof(old, 700, get) == log.consistency_proof(old, 700)


def test_another_logs_folder_is_not_written_over(
    tmp_path: Path, signer: Signer, other_signer: Signer
) -> None:
    out = tmp_path / "out"
    with grown(tmp_path / "a", signer, 20) as log:
        export_tiles(log, out)
        kept = files(out)
    with grown(tmp_path / "b", other_signer, 30) as other, pytest.raises(EvidenceError) as caught:
        export_tiles(other, out)
    assert caught.value.code == "evidence.tiles_invalid"
    (out / "checkpoint").write_text("no checkpoint")
    with EvidenceLog.open(tmp_path / "a", origin=ORIGIN, signer=signer) as log, pytest.raises(EvidenceError):
        export_tiles(log, out)
    assert files(out) == {**kept, "checkpoint": b"no checkpoint"}


def test_a_change_to_any_file_is_found(tmp_path: Path, signer: Signer, other_signer: Signer) -> None:
    out = tmp_path / "out"
    with grown(tmp_path / "log", signer, 520) as log:
        export_tiles(log, out)
    draw = random.Random(3)
    for name, data in sorted(files(out).items()):
        at = draw.randrange(len(data))
        changes = [
            data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :],
            data[:-1],
            data + b"\0",
            b"",
            b"\xff" * 70_000,
            None,
        ]
        for changed in changes:
            (out / name).unlink() if changed is None else (out / name).write_bytes(changed)
            with pytest.raises(CloisterError):
                verify_tiles(out, [signer.public_key], origin=ORIGIN)
            (out / name).write_bytes(data)
    assert verify_tiles(out, [signer.public_key], origin=ORIGIN).entries == 520
    for keys, origin in (
        ([other_signer.public_key], ORIGIN),
        ([signer.public_key], "cloister/site/x"),
        ([], None),
    ):
        with pytest.raises(EvidenceError) as caught:
            verify_tiles(out, keys, origin=origin)
        assert caught.value.code == "evidence.checkpoint_unsigned"


def test_verifying_tiles_loads_no_database() -> None:
    program = (
        "import sys; from cloister.evidence.log import verify_tiles\n"
        "assert not {'sqlalchemy', 'sqlite3', 'psycopg'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


@pytest.mark.parametrize("node", [2 * 100, 2 * 513, 511])
def test_a_broken_tree_is_never_published(path: Path, tmp_path: Path, signer: Signer, node: int) -> None:
    with grown(path, signer, 520) as log:
        edit(path, f"UPDATE evidence_nodes SET hash = x'{'07' * 32}' WHERE id = {node}")
        with pytest.raises(LogError) as caught:
            export_tiles(log, tmp_path / "out")
        assert caught.value.code == "evidence.log_mismatch"
        assert not (tmp_path / "out" / "checkpoint").exists()
