"""Statements: one encoding, known kinds only, every party the same common fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.canonical import JSON, canonicalize, parse
from cloister.core.errors import CloisterError
from cloister.core.hashes import sha256_hex
from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.evidence.airlock_policy import constraints_of
from cloister.evidence.change_limit import ChangeLimit
from cloister.evidence.checkpoint import parse_checkpoint, sign_checkpoint
from cloister.evidence.envelope import sign_envelope, verify_envelope
from cloister.evidence.errors import EvidenceError
from cloister.evidence.predicates import (
    Holding,
    Predicate,
    Role,
    UpdateReleased,
    Violation,
    held_checkpoints,
    known_types,
    predicate_class,
)
from cloister.evidence.predicates.base import TYPE_PREFIX, known
from cloister.evidence.predicates.log import MAX_HELD_NOTE_CHARS, may_hold, to_be_held
from cloister.evidence.statement import (
    MAX_STATEMENT_BYTES,
    Statement,
    Subject,
    decode_statement,
    open_statement,
    sign_statement,
)
from tests.evidence.synthetic import JOB_ID, digest

SUBJECT = Subject("thing", sha256_hex(b"thing"))


def violation(detail: str = "refused") -> Statement:
    return Statement(
        (SUBJECT,),
        Violation(
            job_id=JOB_ID,
            party="north",
            sequence=0,
            previous=None,
            recorded_at="2026-11-21T14:00:00.000000Z",
            rule="airlock",
            detail=detail,
            artifact_sha256=None,
        ),
    )


@given(st.text(min_size=1, max_size=100).filter(lambda text: text.isprintable()))
def test_a_statement_comes_back_from_its_bytes(detail: str) -> None:
    assert decode_statement(violation(detail).encode()) == violation(detail)


def test_a_statement_is_signed_as_an_in_toto_payload(signer: Signer) -> None:
    envelope = sign_statement(violation(), signer)
    assert envelope.payload_type == "application/vnd.in-toto+json"
    assert decode_statement(verify_envelope(envelope, signer.public_key)) == open_statement(envelope)


def test_an_envelope_of_another_kind_holds_no_statement(signer: Signer) -> None:
    with pytest.raises(EvidenceError):
        open_statement(sign_envelope("text/plain", violation().encode(), signer))


@pytest.mark.parametrize(
    "kind", ["", "urn:cloister:predicate:violation:v2", "https://slsa.dev/provenance/v1"]
)
def test_an_unknown_kind_or_version_is_refused(kind: str) -> None:
    with pytest.raises(EvidenceError) as caught:
        decode_statement(violation().encode().replace(Violation.TYPE.encode(), kind.encode()))
    assert caught.value.code == "evidence.statement_unknown"


def test_another_version_of_the_statement_itself_is_refused() -> None:
    with pytest.raises(EvidenceError) as caught:
        decode_statement(violation().encode().replace(b"Statement/v1", b"Statement/v2"))
    assert caught.value.code == "evidence.statement_unknown"


Spoil = Callable[[dict[str, JSON]], object]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda predicate: predicate.update(extra=1),
        lambda predicate: predicate.pop("rule"),
        lambda predicate: predicate.update(sequence=True),
        lambda predicate: predicate.update(sequence="0"),
        lambda predicate: predicate.update(sequence=-1),
        lambda predicate: predicate.update(sequence=0.5),
        lambda predicate: predicate.update(party="../north"),
        lambda predicate: predicate.update(job_id=JOB_ID.upper().replace("1", "A")),
        lambda predicate: predicate.update(previous="0" * 63),
        lambda predicate: predicate.update(recorded_at="2026-11-21T14:00:00Z"),
        lambda predicate: predicate.update(detail=""),
    ],
)
def test_a_field_that_does_not_fit_is_refused_and_named(spoil: Spoil) -> None:
    value = parse(violation().encode())
    assert isinstance(value, dict)
    spoil(value["predicate"])  # type: ignore[arg-type]
    with pytest.raises(EvidenceError) as caught:
        decode_statement(canonicalize(value))
    assert caught.value.code == "evidence.statement_malformed"


@pytest.mark.parametrize(
    "subject",
    [
        [],
        {},
        [1],
        [{"name": "x"}],
        [{"name": "x", "digest": {"sha256": "0" * 63}}],
        [{"name": "x", "digest": {"sha256": "A" * 64}}],
        [{"name": "x", "digest": {"sha256": "0" * 64, "md5": ""}}],
        [{"name": "x", "digest": {"sha256": "0" * 64}, "uri": ""}],
    ],
)
def test_subjects_need_a_name_and_a_hash_and_nothing_else(subject: JSON) -> None:
    value = parse(violation().encode())
    assert isinstance(value, dict)
    value["subject"] = subject
    with pytest.raises(EvidenceError):
        decode_statement(canonicalize(value))


def test_a_second_spelling_is_refused() -> None:
    data = violation().encode()
    for spelling in (b" " + data, data.replace(b'"sequence":0', b'"sequence":0.0'), data + b"\n"):
        with pytest.raises(CloisterError):
            decode_statement(spelling)


@given(st.binary(max_size=300))
def test_bytes_from_a_stranger_raise_typed_errors_only(data: bytes) -> None:
    with pytest.raises(CloisterError):
        decode_statement(data)


def test_every_known_kind_names_its_version_and_who_may_state_it() -> None:
    assert len(known_types()) == 22
    for kind in known_types():
        model = predicate_class(kind)
        assert kind.startswith(TYPE_PREFIX)
        assert kind.rpartition(":")[2] in {"v1", "v2", "v3", "v4"}
        assert {Role.HUB, Role.SITE} >= model.ROLES
        assert model.ROLES
        assert set(model.model_fields) > {"job_id", "party", "sequence", "previous", "recorded_at"}


def test_a_kind_is_registered_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        known(Violation)


def test_a_predicate_refuses_numbers_json_has_no_word_for() -> None:
    fields = violation().predicate.model_dump()
    with pytest.raises(ValueError, match="finite"):
        predicate_class(TYPE_PREFIX + "budget-spend:v2").model_validate({**fields, "delta": float("nan")})


def released(note: str, tensors: int) -> Statement:
    """An update of so many tensors, with what its site holds of the hub's log."""
    head = parse_checkpoint(note)
    chain = violation().predicate.model_dump(include=set(Predicate.model_fields))
    predicate = UpdateReleased.model_validate(
        {
            **chain,
            "round": 2**53 - 1,
            "hub_log": to_be_held(head),
            "model_sha256": digest("model"),
            "update_sha256": digest("update"),
            "tensors": [
                {
                    "name": f"encoder.layers.{one:04d}.self_attn.weight",
                    "shape": [512, 512],
                    "dtype": "float32",
                }
                for one in range(tensors)
            ],
            "scalars": [],
            "bytes": 2**53 - 1,
            "airlock_policy_sha256": digest("policy"),
            "manifest_sha256": digest("manifest"),
            "attested_key_id": "sha256:" + digest("key"),
            "max_bytes": 2**53 - 1,
            "mantissa_bits": 23,
            "change": {"l2": 0.12345678901234567, "largest": 0.12345678901234567, "rounding": 1e-17},
            "bits": 96,
            "max_bits": None,
            "constraints": constraints_of(mantissa_bits=23, change=ChangeLimit(1.0, 1.0, 0.0)),
        }
    )
    return Statement((Subject("update", digest("update")),), predicate)


def test_the_longest_note_of_the_hubs_log_fits_beside_the_tensors_of_a_large_model() -> None:
    head = sign_checkpoint("hub/" + "h" * 150, 2**53 - 1, bytes(32), EphemeralKeyStore().generate("hub"))
    spare = MAX_HELD_NOTE_CHARS - len(head.encode())
    longest = replace(head, extensions=("\u2014" * (spare - 1),)).encode()
    assert len(longest) == MAX_HELD_NOTE_CHARS
    payload = released(longest, 450).encode()
    assert len(payload) < MAX_STATEMENT_BYTES
    assert decode_statement(payload).encode() == payload
    with pytest.raises(EvidenceError, match="longer than 1000 characters"):
        to_be_held(replace(head, extensions=("x" * spare,)))
    with pytest.raises(EvidenceError, match="of an empty log"):
        to_be_held(replace(head, size=0))


def test_what_a_statement_says_its_party_held_is_read_in_one_way() -> None:
    head = sign_checkpoint("cloister/hub/hub", 5, bytes(32), EphemeralKeyStore().generate("hub"))
    update = released(head.encode(), 1)
    assert held_checkpoints(update.predicate) == (to_be_held(head),)
    assert may_hold(update.encode())
    assert held_checkpoints(violation().predicate) == ()
    assert not may_hold(violation().encode())
    holding = {kind for kind in known_types() if issubclass(predicate_class(kind), Holding)}
    assert {kind.removeprefix(TYPE_PREFIX) for kind in holding} == {
        "checkpoint-held:v1",
        "update-released:v4",
    }
    for kind in known_types():
        fields = predicate_class(kind).model_fields.values()
        speaks = any("HeldCheckpoint" in str(one.annotation) for one in fields)
        assert speaks == (kind in holding), f"{kind} speaks of what is held, and isn't read"


def test_a_predicate_is_frozen() -> None:
    predicate: Predicate = violation().predicate
    with pytest.raises(ValueError, match="frozen"):
        predicate.party = "south"  # type: ignore[misc]
    assert UpdateReleased.model_config["frozen"]
