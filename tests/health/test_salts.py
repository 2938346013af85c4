"""The secret beside each private table: made once, kept closed, and needed before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.core.errors import CloisterError
from cloister.health import HealthError, describe, load_source, prepare_source
from tests.health.test_csv_files import HEADER, SCHEMA


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two sites' tables, without salts."""
    (tmp_path / "schema.yaml").write_text(SCHEMA)
    for name in ("north", "south", "test"):
        (tmp_path / f"{name}.csv").write_text(HEADER + "50,none,120,well\n60,some,200,ill\n")
    return tmp_path


def hashes(folder: Path) -> dict[str, str]:
    sites = load_source("csv", data_dir=folder).sites
    return {name: site.dataset_sha256 for name, site in sites.items()}


def test_each_site_gets_a_salt_of_its_own_that_only_its_owner_reads(folder: Path) -> None:
    assert prepare_source("csv", data_dir=folder) == ("north.salt", "south.salt")
    salts = {(folder / f"{site}.salt").read_text() for site in ("north", "south")}
    assert len(salts) == 2
    assert all(len(bytes.fromhex(salt)) == 32 for salt in salts)
    assert all((folder / f"{site}.salt").stat().st_mode & 0o777 == 0o600 for site in ("north", "south"))
    assert not (folder / "test.salt").exists()


def test_a_salt_that_is_there_is_never_replaced(folder: Path) -> None:
    prepare_source("csv", data_dir=folder, sites=["north"])
    before = (folder / "north.salt").read_text()
    assert prepare_source("csv", data_dir=folder) == ("south.salt",)
    assert prepare_source("csv", data_dir=folder) == ()
    assert (folder / "north.salt").read_text() == before


def test_equal_tables_of_two_sites_can_not_be_seen_to_be_equal(folder: Path) -> None:
    prepare_source("csv", data_dir=folder)
    assert len(set(hashes(folder).values())) == 2


def test_a_commitment_lasts_as_long_as_its_salt(folder: Path) -> None:
    prepare_source("csv", data_dir=folder)
    before = hashes(folder)
    assert hashes(folder) == before
    (folder / "north.salt").unlink()
    prepare_source("csv", data_dir=folder)
    after = hashes(folder)
    assert after["north"] != before["north"]
    assert after["south"] == before["south"]


def test_the_public_test_set_has_a_hash_that_anyone_can_check(folder: Path) -> None:
    prepare_source("csv", data_dir=folder)
    before = load_source("csv", data_dir=folder).test.sha256
    for site in ("north", "south"):
        (folder / f"{site}.salt").unlink()
    prepare_source("csv", data_dir=folder)
    assert load_source("csv", data_dir=folder).test.sha256 == before


SPOILT: list[tuple[Callable[[Path], object], str]] = [
    (lambda salt: salt.unlink(), "health.salt_missing"),
    (lambda salt: salt.write_text(""), "health.salt_malformed"),
    (lambda salt: salt.write_text("ab" * 31), "health.salt_malformed"),
    (lambda salt: salt.write_text("ab" * 33), "health.salt_malformed"),
    (lambda salt: salt.write_text("AB" * 32), "health.salt_malformed"),
    (lambda salt: salt.write_text("ab" * 32 + "\n\n"), "health.salt_malformed"),
    (lambda salt: salt.write_bytes(b"\xff" * 32), "health.salt_malformed"),
    (lambda salt: salt.chmod(0o640), "health.salt_permissions"),
    (lambda salt: salt.chmod(0o604), "health.salt_permissions"),
]


@pytest.mark.parametrize(("spoil", "code"), SPOILT)
def test_a_table_without_a_proper_salt_is_not_loaded(
    folder: Path, spoil: Callable[[Path], object], code: str
) -> None:
    prepare_source("csv", data_dir=folder)
    salt = folder / "north.salt"
    content = salt.read_text().strip()
    spoil(salt)
    with pytest.raises(HealthError) as refused:
        load_source("csv", data_dir=folder)
    assert refused.value.code == code
    assert refused.value.exit_code == 2
    assert content not in str(refused.value.as_json())
    if code == "health.salt_missing":
        assert "cloister data" in refused.value.hint
        assert not salt.exists()


def test_a_salt_reached_through_a_link_is_refused_and_not_written_through(
    folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = tmp_path_factory.mktemp("outside") / "salt"
    (folder / "north.salt").symlink_to(outside)
    for act in (prepare_source, load_source):
        with pytest.raises(CloisterError) as refused:
            act("csv", data_dir=folder)
        assert refused.value.code == "input.path_escapes"
    assert not outside.exists()


def test_nothing_that_may_be_said_of_the_data_holds_a_salt(folder: Path) -> None:
    prepare_source("csv", data_dir=folder)
    data = load_source("csv", data_dir=folder)
    shown = describe(data).model_dump_json() + repr(data) + repr(vars(data.sites["north"]))
    for site in ("north", "south"):
        salt = (folder / f"{site}.salt").read_text().strip()
        assert salt not in shown
        assert repr(bytes.fromhex(salt)) not in shown


def test_public_records_need_no_salt() -> None:
    assert prepare_source("breast-cancer-wisconsin") == ()
    assert prepare_source("uci-heart-disease") == ()
