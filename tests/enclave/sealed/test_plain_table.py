"""A table without a key, as an insecure run hands it over: the same training, and never beside a key."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

from cloister.core.canonical import canonicalize, parse_canonical
from cloister.enclave.errors import SealedError
from cloister.enclave.sealed import SealedHost, SealedTrainer
from cloister.enclave.sealed.plain_table import open_plain_table, plain_table
from cloister.health.errors import HealthError
from tests.enclave.sealed.scene import SCHEMA, a_setup, a_table, a_trainer, a_worker, encrypted, give


def proceed() -> bool:
    return False


def a_keyless_trainer(host: SealedHost) -> SealedTrainer:
    return SealedTrainer(a_worker(host, task="dp-training"), a_setup())


@pytest.mark.parametrize("subjects", [False, True])
def test_training_is_the_same_to_the_bit_with_a_key_and_without(
    sealed_host: SealedHost,
    subjects: bool,
) -> None:
    data, setup = a_table(subjects=subjects), a_setup(unit="subject" if subjects else "record")
    keyed = a_trainer(sealed_host, data, setup)
    keyless = SealedTrainer(a_worker(sealed_host, task="dp-training"), setup)
    with keyed.worker, keyless.worker:
        keyless.load_plain(plain_table(data, SCHEMA))
        keyless.prepare()
        one, other = (trainer.train(setup.start, proceed).params for trainer in (keyed, keyless))
    assert all(np.array_equal(one[name], other[name]) for name in setup.start)


def test_the_end_of_a_worker_without_a_key_names_the_dataset_by_its_salted_commitment(
    sealed_host: SealedHost,
) -> None:
    data, trainer = a_table(), a_keyless_trainer(sealed_host)
    trainer.load_plain(plain_table(data, SCHEMA))
    record = trainer.worker.close()
    assert record.artifacts[1:] == (data.dataset_sha256,)
    assert {one.name: one.outcome for one in record.checks}["record-buffers-wiped"] == "passed"


def test_a_worker_that_took_a_plain_table_asks_for_no_key_and_takes_no_second_one(
    sealed_host: SealedHost,
) -> None:
    key, data = os.urandom(32), a_table()
    trainer = a_keyless_trainer(sealed_host)
    with trainer.worker:
        trainer.load_plain(plain_table(data, SCHEMA))
        with pytest.raises(SealedError) as second:
            trainer.load_plain(plain_table(data, SCHEMA))
        with pytest.raises(SealedError) as asked:
            give(trainer, encrypted(data, key), key)
    assert (second.value.code, asked.value.code) == ("sealed.protocol", "sealed.protocol")


def test_a_worker_that_asked_for_a_key_takes_no_plain_table(sealed_host: SealedHost) -> None:
    key, data = os.urandom(32), a_table()
    trainer = a_keyless_trainer(sealed_host)
    with trainer.worker:
        give(trainer, encrypted(data, key), key)
        with pytest.raises(SealedError) as refused:
            trainer.load_plain(plain_table(data, SCHEMA))
    assert refused.value.code == "sealed.protocol"


def test_a_plain_table_of_another_form_or_size_is_refused(sealed_host: SealedHost) -> None:
    table = plain_table(a_table(), SCHEMA)
    other = encrypted(a_table(), bytes(32))
    for header, cells in (
        (table.header, table.cells[:-1]),
        (table.header, table.cells + b"x"),
        (table.header[:-1], table.cells),
        (b"{}", table.cells),
        (other.header, table.cells),
        (other.header, other.segments),
    ):
        trainer = a_keyless_trainer(sealed_host)
        with trainer.worker as worker, pytest.raises(SealedError) as refused:
            worker.request("plain-table", {"header_bytes": len(header)}, header + cells)
        assert refused.value.code == "sealed.dataset"


def test_plain_records_that_are_not_as_declared_are_refused_without_a_value(sealed_host: SealedHost) -> None:
    good = a_table()
    raw = good.raw.copy()
    raw[7, 3] = 4711.25
    trainer = a_keyless_trainer(sealed_host)
    with trainer.worker, pytest.raises(HealthError) as refused:
        trainer.load_plain(plain_table(replace(good, raw=raw), SCHEMA))
    assert refused.value.code == "health.out_of_range"
    assert "4711" not in str(refused.value.as_json())


def test_no_memory_is_taken_for_records_that_a_header_only_claims() -> None:
    table = plain_table(a_table(), SCHEMA)
    header = parse_canonical(table.header)
    assert isinstance(header, dict)
    header["records"] = 2**31
    with pytest.raises(SealedError) as refused:
        open_plain_table(canonicalize(header), len(table.cells), lambda _: pytest.fail("it was read"))
    assert refused.value.code == "sealed.dataset"
