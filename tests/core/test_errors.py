"""Errors: stable codes, one sentence, a hint, and a catalogue that cannot drift from the program."""

from __future__ import annotations

import pickle
import re

import pytest

from cloister.core.errors import (
    EXIT_MEANINGS,
    CloisterError,
    InputError,
    KeyStoreError,
    SignatureInvalid,
    StorageError,
    all_codes,
    render_catalogue,
)

CORE = [InputError, StorageError, KeyStoreError, SignatureInvalid]


def test_an_error_says_its_sentence_and_carries_code_hint_and_details() -> None:
    error = InputError(
        "input.schema", "Two fields are wrong.", "Correct them.", details=["a: missing", "b: unknown"]
    )
    assert str(error) == "Two fields are wrong."
    assert error.as_json() == {
        "code": "input.schema",
        "message": "Two fields are wrong.",
        "hint": "Correct them.",
        "details": ["a: missing", "b: unknown"],
        "exit_code": 2,
    }


def test_a_code_the_class_does_not_declare_is_a_defect() -> None:
    with pytest.raises(ValueError, match=r"does not declare .*storage\.no_space"):
        InputError("storage.no_space", "x")


@pytest.mark.parametrize(
    "code", ["nodot", "Room.reason", "room.Reason", "room.reason.more", "room.", "room.a b"]
)
def test_a_class_with_a_code_of_another_form_cannot_be_made(code: str) -> None:
    with pytest.raises(ValueError, match=r"room\.reason"):
        type("BrokenError", (CloisterError,), {"CODES": {code: "x"}})


def test_a_class_with_an_unknown_exit_code_cannot_be_made() -> None:
    with pytest.raises(ValueError, match="exit code"):
        type("BrokenError", (CloisterError,), {"exit_code": 42})


@pytest.mark.parametrize("kind", CORE)
def test_each_class_ends_a_command_with_the_exit_code_it_is_meant_to(kind: type[CloisterError]) -> None:
    expected = {"InputError": 2, "StorageError": 5, "KeyStoreError": 2, "SignatureInvalid": 1}
    assert kind.exit_code == expected[kind.__name__]


@pytest.mark.parametrize("kind", CORE)
def test_each_code_of_each_class_can_be_raised_and_crosses_processes(kind: type[CloisterError]) -> None:
    assert kind.CODES
    for code in kind.CODES:
        error = kind(code, "A sentence.", "A hint.", details=["one"])
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is kind
        assert copy.as_json() == error.as_json()


def test_the_catalogue_lists_each_code_once_with_its_exit_code() -> None:
    page = render_catalogue()
    for code, meaning in all_codes().items():
        assert (
            len(re.findall(rf"^\| `{re.escape(code)}` \| {re.escape(meaning)} \|", page, re.MULTILINE)) == 1
        )
    for number, meaning in EXIT_MEANINGS.items():
        assert f"| {number} | {meaning} |" in page
    assert "| `input.syntax` |" in page
    assert "`cloister.core.errors.InputError` | 2 |" in page


def test_one_code_declared_by_two_unrelated_classes_is_refused() -> None:
    other = type("OtherError", (CloisterError,), {"CODES": {"input.syntax": "another meaning"}})
    try:
        with pytest.raises(ValueError, match="OtherError"):
            all_codes()
    finally:
        # A class is forgotten when nothing refers to it; codes it can no longer clash with are left behind.
        other.CODES = {}


def test_a_subclass_may_narrow_a_code_of_its_parent() -> None:
    narrower = type("NarrowError", (InputError,), {"CODES": {"input.syntax": "Narrower."}, "exit_code": 3})
    try:
        assert all_codes()["input.syntax"] == "Narrower."
        assert "| `input.syntax` | Narrower. |" in render_catalogue()
    finally:
        narrower.CODES = {}
