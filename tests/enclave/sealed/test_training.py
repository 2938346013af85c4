"""Training behind the seal: equal to the bit to training outside, and nothing but what was asked for."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from cloister.core.errors import CloisterError
from cloister.enclave.errors import SealedError
from cloister.enclave.keyrelease.policy import table_dataset
from cloister.enclave.sealed import (
    OsStreams,
    SealedHost,
    SealedTrainer,
)
from cloister.enclave.sealed.table import table_cells, table_shape
from cloister.evidence.terms import MOCK_MECHANISM
from cloister.health.data import SiteData
from cloister.health.encrypted_table import TABLE_SCHEMA, EncryptedTable, TableHeader
from cloister.health.errors import HealthError
from cloister.health.schema import LabelColumn
from cloister.privacy.errors import ModelError, PrivacyError
from cloister.privacy.models import build_model, load_arrays, state_arrays
from cloister.privacy.testing import SeededTestRandom
from cloister.privacy.trainer import DPTrainer, TrainingData
from tests.enclave.sealed.scene import (
    COLUMNS,
    DATA_KEY,
    SCHEMA,
    SEED,
    a_setup,
    a_table,
    a_trainer,
    a_worker,
    dataset_of,
    encrypted,
    give,
)

FAMILIES = ("logistic-regression", "mlp", "small-cnn", "cnn-1d", "gru", "transformer-encoder")


def proceed() -> bool:
    return False


@pytest.mark.parametrize("unit", ["record", "subject"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_seeded_job_gives_the_same_weights_sealed_or_not_to_the_bit(
    sealed_host: SealedHost, family: str, unit: str
) -> None:
    setup, data = a_setup(family, unit=unit), a_table(subjects=True)
    outside = DPTrainer(
        setup.plan,
        noise=SeededTestRandom(SEED, "north", "noise"),
        sampling=SeededTestRandom(SEED, "north", "sampling"),
    )
    model = build_model(family, COLUMNS, 2, 3, {})
    subjects = data.subjects.copy() if unit == "subject" and data.subjects is not None else None
    records = TrainingData(data.features.copy(), data.labels.copy(), subjects)
    weights = state_arrays(model)
    trainer = a_trainer(sealed_host, data, setup)
    with trainer.worker:
        for _ in range(3):
            sealed = trainer.train(weights, proceed)
            load_arrays(model, weights)
            outside.fit(model, records)
            weights = state_arrays(model)
            assert sealed.executed_steps == setup.plan.steps
            assert sealed.params.keys() == weights.keys()
            assert all(np.array_equal(sealed.params[name], weights[name]) for name in weights)
    assert trainer.noise_generator == outside.noise_generator == "seeded-test"


def test_without_a_seed_two_workers_train_to_different_weights(
    host_and_violations: tuple[SealedHost, object],
) -> None:
    host, _ = host_and_violations
    setup = a_setup(streams=OsStreams("north", "job"))
    results = []
    for _ in range(2):
        trainer = a_trainer(host, a_table(), setup)
        with trainer.worker:
            results.append(trainer.train(setup.start, proceed).params)
    assert trainer.noise_generator == "aes-256-ctr/os-entropy"
    assert not any(np.array_equal(results[0][name], results[1][name]) for name in results[0])


def test_a_round_is_stopped_between_two_batches_and_tells_the_steps_it_took(sealed_host: SealedHost) -> None:
    setup = a_setup(steps=100_000)
    trainer = a_trainer(sealed_host, a_table(), setup)
    asked = iter([False, False])
    with trainer.worker:
        stopped = trainer.train(setup.start, lambda: next(asked, True))
        assert stopped.aborted
        assert 0 < stopped.executed_steps < 100_000
        assert stopped.params == {}
        again = trainer.train(setup.start, iter([True]).__next__)
        assert again.aborted


def test_a_stop_that_comes_too_late_is_not_taken_for_the_next_rounds(sealed_host: SealedHost) -> None:
    setup = a_setup(steps=1)
    trainer = a_trainer(sealed_host, a_table(), setup)
    with trainer.worker as worker:
        trainer.train(setup.start, proceed)
        from cloister.enclave.sealed.frames import Frame

        worker._end.send(Frame("abort", worker._seq), float("inf"), lambda: None)
        assert not trainer.train(setup.start, proceed).aborted


def test_a_key_for_another_worker_site_job_or_table_opens_nothing(sealed_host: SealedHost) -> None:
    data, setup, key = a_table(), a_setup(), os.urandom(32)
    table, other = encrypted(data, key), encrypted(a_table(seed=6), key)
    with a_worker(sealed_host) as elsewhere:
        foreign = elsewhere.public_key
    named = table.public.dataset_sha256
    wrong: tuple[dict[str, object], ...] = (
        {"public": foreign},
        {"scope": "another"},
        {"dataset": table_dataset("south", named)},
        {"dataset": dataset_of(other)},
    )
    for one in wrong:
        trainer = SealedTrainer(a_worker(sealed_host, task="dp-training"), setup)
        with trainer.worker, pytest.raises(SealedError) as refused:
            give(trainer, table, key, **one)  # type: ignore[arg-type]
        assert refused.value.code == "sealed.dataset"


def test_a_worker_asks_for_one_key_and_takes_no_table_without(sealed_host: SealedHost) -> None:
    key = os.urandom(32)
    table = encrypted(a_table(), key)
    trainer = SealedTrainer(a_worker(sealed_host, task="dp-training"), a_setup())
    with trainer.worker:
        with pytest.raises(SealedError) as refused:
            trainer.load(table, b"{}")
        assert refused.value.code == "sealed.protocol"
        give(trainer, table, key)
        with pytest.raises(SealedError) as refused:
            give(trainer, table, key)
        assert refused.value.code == "sealed.protocol"


def test_a_table_that_was_changed_cut_or_swapped_does_not_open(sealed_host: SealedHost) -> None:
    data, setup, key = a_table(), a_setup(), os.urandom(32)
    table = encrypted(data, key)
    flipped = bytearray(table.segments)
    flipped[100] ^= 1
    renamed = table.header.replace(b'"site":"north"', b'"site":"south"')
    for changed, code in (
        (replace(table, segments=bytes(flipped)), "sealed.dataset"),
        (replace(table, segments=table.segments[:-1]), "sealed.dataset"),
        (replace(table, segments=table.segments + b"x"), "sealed.dataset"),
        (replace(table, header=renamed), "sealed.dataset"),
        (replace(table, header=table.header[:-1]), "health.encrypted_table"),
        (replace(table, header=b"{}"), "health.encrypted_table"),
    ):
        trainer = SealedTrainer(a_worker(sealed_host, task="dp-training"), setup)
        with trainer.worker, pytest.raises(CloisterError) as refused:
            give(trainer, changed, key, dataset=dataset_of(table))
        assert refused.value.code == code


def lying(data: SiteData, key: bytes, **says: object) -> EncryptedTable:
    """A table whose header, sealed with the right key, says something else than its records are."""
    header = TableHeader(
        **(table_shape(data, SCHEMA).model_dump() | says),
        format=TABLE_SCHEMA,
        data_key=DATA_KEY,
        salt="0" * 64,
    )
    written = header.encode()
    cipher = AESGCM(HKDF(SHA256(), 32, bytes(32), TABLE_SCHEMA.encode()).derive(key))
    nonce, plain = bytes(11) + b"\1", table_cells(data)
    return EncryptedTable(written, cipher.encrypt(nonce, plain, hashlib.sha256(written).digest()))


def test_a_header_that_was_sealed_with_the_right_key_and_lies_of_its_records_opens_nothing(
    sealed_host: SealedHost,
) -> None:
    key, salt = os.urandom(32), b"s" * 32
    data = a_table(subjects=True, salt=salt)
    lies: tuple[dict[str, object], ...] = (
        {"dataset_sha256": "0" * 64},
        {"dataset_sha256": a_table(subjects=True).dataset_sha256},
        {"subjects": 21},
        {"subject": "patient"},
        {"declared": SCHEMA.model_copy(update={"label": LabelColumn(name="y", classes=("a", "b"))})},
    )
    for says in ({}, *lies):
        table = lying(data, key, **says)
        trainer = SealedTrainer(a_worker(sealed_host, task="dp-training"), a_setup(unit="subject"))
        with trainer.worker:
            if not says:
                give(trainer, table, key)
                continue
            with pytest.raises(SealedError) as refused:
                give(trainer, table, key)
            assert refused.value.code == "sealed.dataset"


def test_persons_that_are_not_numbered_by_their_first_record_are_refused(sealed_host: SealedHost) -> None:
    data = a_table(subjects=True)
    assert data.subjects is not None
    with pytest.raises(HealthError) as refused:
        a_trainer(sealed_host, replace(data, subjects=data.subjects + 1), a_setup(unit="subject"))
    assert refused.value.code == "health.shape"


def test_records_that_are_not_as_declared_are_refused_without_a_value(sealed_host: SealedHost) -> None:
    good = a_table()
    raw = good.raw.copy()
    raw[7, 3] = 4711.25
    with pytest.raises(HealthError) as refused:
        a_trainer(sealed_host, replace(good, raw=raw), a_setup())
    assert refused.value.code == "health.out_of_range"
    assert "4711" not in str(refused.value.as_json())


def test_a_model_that_cannot_be_trained_privately_is_refused_by_its_own_code(sealed_host: SealedHost) -> None:
    with pytest.raises(ModelError) as unknown:
        a_trainer(sealed_host, a_table(), replace(a_setup(), architecture="no-such-model"))
    assert unknown.value.code == "model.unknown"
    with pytest.raises(ModelError) as wrong:
        a_trainer(sealed_host, a_table(), replace(a_setup(), parameters={"hidden": [0]}))
    assert wrong.value.code == "model.parameters_invalid"


def test_weights_of_another_model_do_not_even_cross(sealed_host: SealedHost) -> None:
    setup = a_setup()
    trainer = a_trainer(sealed_host, a_table(), setup)
    with trainer.worker, pytest.raises(SealedError):
        trainer.train({name: array[..., :1] for name, array in setup.start.items()}, proceed)


def test_a_mock_needs_the_machines_consent_and_is_named_one(
    sealed_host: SealedHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = replace(a_setup(), mechanism=MOCK_MECHANISM)
    monkeypatch.delenv("MOCK_DP", raising=False)
    with pytest.raises(PrivacyError) as refused:
        a_trainer(sealed_host, a_table(), setup)
    assert refused.value.code == "privacy.mock_refused"
    monkeypatch.setenv("MOCK_DP", "1")
    trainer = a_trainer(sealed_host, a_table(), setup)
    with trainer.worker:
        trainer.train(setup.start, proceed)
    assert trainer.noise_generator == "mock/no-noise"


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("round", {}),
        ("plan", {}),
        ("table", {}),
        ("begin", {"task": "dp-training"}),
        ("explode", {}),
        (
            "table",
            {"header_bytes": 10**9, "job_id": "j", "site": "s", "table_sha256": "0" * 64, "sealed_key": "00"},
        ),
    ],
)
def test_a_request_out_of_turn_or_form_is_refused_and_the_worker_goes_on(
    sealed_host: SealedHost, kind: str, fields: dict[str, object]
) -> None:
    with a_worker(sealed_host, task="dp-training") as worker:
        for _ in range(2):
            with pytest.raises(CloisterError) as refused:
                worker.request(kind, fields, b"some payload")  # type: ignore[arg-type]
            assert refused.value.code == "sealed.protocol"


def test_the_answers_of_a_worker_are_held_against_what_it_was_asked(sealed_host: SealedHost) -> None:
    setup = a_setup()
    honest = a_trainer(sealed_host, a_table(), setup)
    claimed = replace(setup, plan=replace(setup.plan, steps=setup.plan.steps + 1))
    with honest.worker as worker, pytest.raises(SealedError) as fewer:
        SealedTrainer(worker, claimed).train(setup.start, proceed)
    assert fewer.value.code == "sealed.protocol"
    honest = a_trainer(sealed_host, a_table(), setup)
    with honest.worker as worker, pytest.raises(SealedError) as other:
        SealedTrainer(worker, replace(setup, streams=OsStreams("north", "job"))).train(setup.start, proceed)
    assert other.value.code == "sealed.protocol"
    honest = a_trainer(sealed_host, a_table(), setup)
    with honest.worker as worker, pytest.raises(SealedError) as redefined:
        SealedTrainer(worker, replace(setup, parameters={"width": 7})).train(setup.start, proceed)
    assert redefined.value.code == "sealed.protocol"
