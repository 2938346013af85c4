"""Documents people write: what is read, what is refused, and that no error shows what was written."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from pathlib import Path
from uuid import UUID

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator

from cloister.core.canonical import JSON
from cloister.core.documents import load_yaml
from cloister.core.errors import InputError
from cloister.core.parsing import parse_model

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc", "Co", "Cn")))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | TEXT,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(TEXT.filter(lambda k: k != "<<"), inner, max_size=4)
    ),
    max_leaves=12,
)


class Kind(StrEnum):
    ACCURACY = "accuracy"
    F1 = "f1"


class Privacy(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    epsilon: float = Field(gt=0, le=5)
    delta: float = Field(gt=0, lt=1)


class Job(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    job_id: UUID
    rounds: int = Field(ge=1)
    clients: tuple[str, ...]
    metric: Kind = Kind.F1
    privacy: Privacy
    starts: datetime | None = None

    @field_validator("clients")
    @classmethod
    def _unique(cls, clients: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(clients)) != len(clients):
            raise ValueError("Each client is named once.")
        return clients


GOOD: dict[str, JSON] = {
    "job_id": "3d6f4f8e-7a51-4a1f-9d6b-0f4a3a1c2b10",
    "rounds": 10,
    "clients": ["a", "b"],
    "metric": "accuracy",
    "privacy": {"epsilon": 3, "delta": 1e-5},
}


def test_a_document_is_read_as_plain_values(tmp_path: Path) -> None:
    text = b"""
# a comment
rounds: 10
delta: 1e-5          # YAML 1.1 would read text here
ratio: [0.5, .5, 5., -1.25e+3, 1E6]
answer: yes
zip: 02134
country: NO
date: 2026-11-21
time: 12:30:00
nothing: [null, ~, ]
empty:
on: true
"text": "10"
multi: |
  one
  two
hex: 0x10
"""
    expected = {
        "rounds": 10,
        "delta": 1e-5,
        "ratio": [0.5, 0.5, 5.0, -1250.0, 1e6],
        "answer": "yes",
        "zip": "02134",
        "country": "NO",
        "date": "2026-11-21",
        "time": "12:30:00",
        "nothing": [None, None],
        "empty": None,
        "on": True,
        "text": "10",
        "multi": "one\ntwo\n",
        "hex": "0x10",
    }
    assert load_yaml(text) == expected
    (tmp_path / "file.yaml").write_bytes(b"\xef\xbb\xbf" + text)
    assert load_yaml(tmp_path / "file.yaml") == expected


@given(VALUES)
def test_what_another_writer_wrote_reads_back(value: JSON) -> None:
    written = yaml.safe_dump(value, allow_unicode=True, default_style='"' if isinstance(value, str) else None)
    read = load_yaml(written.encode())
    assert read == value
    assert type(read) is type(value)


def test_an_empty_document_is_null() -> None:
    assert load_yaml(b"") is None
    assert load_yaml(b"# nothing\n") is None


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"a: 1\na: 2", "input.duplicate_key"),
        (b"{a: 1, 'a': 2}", "input.duplicate_key"),
        (b"x: {y: {z: 1, z: 1}}", "input.duplicate_key"),
        (b"a: &x [1]\nb: *x", "input.syntax"),
        (b"base: {a: 1}\nb: {<<: {a: 1}}", "input.syntax"),
        (b"1: a", "input.syntax"),
        (b"null: a", "input.syntax"),
        (b"true: a", "input.syntax"),
        (b"[a]: b", "input.syntax"),
        (b"? {a: 1}\n: b", "input.syntax"),
        (b"!!python/object/apply:os.system ['true']", "input.syntax"),
        (b"!custom {a: 1}", "input.syntax"),
        (b"a: !!binary aGk=", "input.syntax"),
        (b"a: !!timestamp 2026-01-01", "input.syntax"),
        (b"a: !!set {b, c}", "input.syntax"),
        (b"a: !!int abc", "input.not_json"),
        (b"a: !!bool maybe", "input.syntax"),
        (b"a: !!float abc", "input.not_json"),
        (b"a: .inf", "input.not_json"),
        (b"a: -.Inf", "input.not_json"),
        (b"a: .nan", "input.not_json"),
        (b"a: 1e999", "input.not_json"),
        (b"a: 9007199254740992", "input.not_json"),
        (b"a: " + b"1" * 5000, "input.not_json"),
        (b"a: b: c", "input.syntax"),
        (b"a: [1", "input.syntax"),
        (b"\ta: 1", "input.syntax"),
        (b"a: 'x", "input.syntax"),
        (b"--- a\n--- b", "input.syntax"),
        (b"a: \xff", "input.syntax"),
        (b"a: \x00", "input.syntax"),
        ("a: 1".encode("utf-16"), "input.syntax"),
        (b"[" * 33 + b"]" * 33, "input.too_large"),
        (b"[" * 100_000, "input.too_large"),
        (b"{a: " * 5000, "input.too_large"),
        (b"- " * 5000 + b"a", "input.too_large"),
        (b"a: " + b"x" * (1024 * 1024), "input.too_large"),
    ],
    ids=lambda part: repr(part)[:28],
)
def test_what_has_no_place_in_a_document_is_refused(data: bytes, code: str) -> None:
    with pytest.raises(InputError) as refused:
        load_yaml(data)
    assert refused.value.code == code


def test_a_billion_laughs_are_refused_at_once() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    with pytest.raises(InputError) as refused:
        load_yaml("\n".join(lines).encode())
    assert "alias" in str(refused.value)


def test_an_error_names_file_and_line_and_shows_nothing(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("a: 1\nsecretkey: secret1\nsecretkey: secret2\n")
    with pytest.raises(InputError) as refused:
        load_yaml(path)
    assert str(refused.value) == f"{path}: a key is given twice (line 3)."
    path.write_text("a: 1\nb: secret: secret\n")
    with pytest.raises(InputError) as refused:
        load_yaml(path)
    assert "line 2" in str(refused.value)
    assert "secret" not in str(refused.value.as_json())


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refused:
        load_yaml(tmp_path / "absent.yaml")
    assert refused.value.code == "input.missing_file"


def test_plain_values_become_a_typed_model() -> None:
    job = parse_model(Job, GOOD, "the job file")
    assert job.job_id == UUID("3d6f4f8e-7a51-4a1f-9d6b-0f4a3a1c2b10")
    assert job.clients == ("a", "b")
    assert job.metric is Kind.ACCURACY
    assert job.privacy.epsilon == 3.0


def test_every_wrong_field_is_named_with_its_reason() -> None:
    wrong: dict[str, JSON] = {
        **GOOD,
        "rounds": "10",
        "clients": ["a", "a"],
        "metric": "beauty",
        "privacy": {"epsilon": 0, "epsilonn": 1},
        "extra": 1,
    }
    with pytest.raises(InputError) as refused:
        parse_model(Job, wrong, "the job file")
    error = refused.value
    assert error.code == "input.schema"
    assert str(error).startswith("The job file is not valid: ")
    assert "\n" not in str(error)
    assert error.details == (
        "rounds: input should be a valid integer",
        "clients: each client is named once",
        "metric: input should be 'accuracy' or 'f1'",
        "privacy.epsilon: input should be greater than 0",
        "privacy.delta: missing",
        "privacy.epsilonn: unknown field",
        "extra: unknown field",
    )


@pytest.mark.parametrize("value", [None, [], "x", 1, True])
def test_a_value_that_is_no_mapping_is_refused(value: JSON) -> None:
    with pytest.raises(InputError) as refused:
        parse_model(Job, value, "the job file")
    assert refused.value.code == "input.schema"


def test_a_fraction_is_no_integer_and_nan_is_no_number() -> None:
    with pytest.raises(InputError) as refused:
        parse_model(Job, {**GOOD, "rounds": 10.5}, "the job file")
    assert refused.value.details[0].startswith("rounds: ")
    with pytest.raises(InputError) as refused:
        parse_model(Job, {**GOOD, "rounds": float("nan")}, "the job file")
    assert refused.value.code == "input.not_json"


def test_what_was_written_is_never_shown() -> None:
    secret = "Mrs Example, born 1950"
    wrong: dict[str, JSON] = {
        "job_id": secret,
        "rounds": secret,
        "clients": secret,
        "metric": secret,
        "privacy": secret,
        "starts": secret,
        secret: secret,
    }
    with pytest.raises(InputError) as refused:
        parse_model(Job, wrong, "the job file")
    assert "Example" not in str(refused.value.as_json())
    assert len(refused.value.details) == 7


class Careless(BaseModel):
    note: str

    @field_validator("note")
    @classmethod
    def _refuse(cls, note: str) -> str:
        raise ValueError(f"{note} is not a note")


def test_a_validator_that_repeats_the_value_is_not_repeated() -> None:
    with pytest.raises(InputError) as refused:
        parse_model(Careless, {"note": "Mrs Example"}, "the note")
    assert refused.value.details == ("note: not an acceptable value (value_error)",)
