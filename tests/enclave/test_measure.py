"""The code measurement: every file counts, caches don't, and it takes no time worth speaking of."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from cloister.enclave import code_measurement
from cloister.enclave.measure import (
    MEASURED_DISTRIBUTIONS,
    installed_versions,
    measure,
    measured_packages,
)
from tests.timing import processor_seconds, shortest

VERSIONS = {"torch": "2.13.0"}


@pytest.fixture
def package(tmp_path: Path) -> Path:
    (tmp_path / "inner").mkdir()
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "inner" / "train.py").write_text("step = 1\n")
    (tmp_path / "inner" / "__pycache__").mkdir()
    (tmp_path / "inner" / "__pycache__" / "train.pyc").write_bytes(b"old")
    return tmp_path


def test_it_is_what_its_description_says(package: Path) -> None:
    empty = hashlib.sha384(b"").hexdigest()
    train = hashlib.sha384(b"step = 1\n").hexdigest()
    document = (
        f'{{"distributions":[["torch","2.13.0"]],"files":[["p/__init__.py","{empty}"],'
        f'["p/inner/train.py","{train}"]],"schema":"urn:cloister:measurement:v1"}}'
    )
    assert measure({"p": package}, VERSIONS) == hashlib.sha384(document.encode()).digest()


def test_byte_code_caches_do_not_count(package: Path) -> None:
    before = measure({"p": package}, VERSIONS)
    (package / "inner" / "__pycache__" / "train.pyc").write_bytes(b"new")
    assert measure({"p": package}, VERSIONS) == before


def test_a_changed_added_removed_or_renamed_file_and_another_library_version_count(package: Path) -> None:
    train = package / "inner" / "train.py"
    seen = {measure({"p": package}, VERSIONS), measure({"q": package}, VERSIONS), measure({"p": package}, {})}
    seen.add(measure({"p": package}, {"torch": "2.13.1"}))
    train.write_text("step = 2\n")
    seen.add(measure({"p": package}, VERSIONS))
    (package / "inner" / "extra.so").write_bytes(b"")
    seen.add(measure({"p": package}, VERSIONS))
    train.rename(package / "inner" / "moved.py")
    seen.add(measure({"p": package}, VERSIONS))
    (package / "inner" / "moved.py").unlink()
    seen.add(measure({"p": package}, VERSIONS))
    assert len(seen) == 8


def test_a_module_of_one_file_is_measured_too(package: Path) -> None:
    module = package / "inner" / "train.py"
    before = measure({"train": module}, VERSIONS)
    module.write_text("step = 2\n")
    assert measure({"train": module}, VERSIONS) != before


def test_this_package_is_measured_and_the_answer_stays_the_same() -> None:
    assert (measured_packages()["cloister"] / "enclave" / "measure.py").is_file()
    assert len(code_measurement()) == 48
    assert code_measurement() == measure(measured_packages(), installed_versions(MEASURED_DISTRIBUTIONS))


def test_a_library_that_is_not_installed_is_stated_as_absent() -> None:
    assert installed_versions(("no-such-library-here",)) == {"no-such-library-here": "absent"}


@pytest.mark.timed
def test_it_takes_less_than_a_tenth_of_a_second() -> None:
    def once() -> object:
        return measure(measured_packages(), installed_versions(MEASURED_DISTRIBUTIONS))

    assert shortest(lambda: processor_seconds(once), 0.1, least=2) < 0.1
