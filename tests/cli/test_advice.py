"""Every error comes with a hint, and with none that belongs to another kind of error."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import cloister
from cloister.cli.advice import ADVICE, advice_on
from cloister.core.errors import all_codes
from cloister.core.keys import EphemeralKeyStore
from tests.cli.conftest import Cloister

ROOMS_WITH_ONE_ADVICE = {
    "airlock",
    "attestation",
    "federation",
    "health",
    "input",
    "model",
    "policy",
    "privacy",
    "sealed",
}
"""Whatever goes wrong there is mended in one place, but for what has advice of its own."""
WHAT_IS_RESTORED = {
    "evidence.log_mismatch",
    "evidence.log_missing",
    "evidence.log_rolled_back",
    "evidence.tree_invalid",
    "health.salt_malformed",
    "health.salt_missing",
    "ledger.corrupt",
    "ledger.missing",
    "ledger.rolled_back",
    "storage.corrupt",
}
"""What a copy helps against: something that is damaged, gone, or older than it was."""


@pytest.fixture(scope="module")
def codes() -> list[str]:
    for room in Path(cloister.__file__).parent.glob("*/errors.py"):
        importlib.import_module(f"cloister.{room.parent.name}.errors")
    return [code for code in all_codes() if not code.startswith("test.")]


def test_every_code_has_advice(codes: list[str]) -> None:
    assert [code for code in codes if not advice_on(code)] == []


def test_no_advice_is_for_nothing(codes: list[str]) -> None:
    given = [advice_on(code) for code in [*codes, "internal.defect"]]
    assert [kind for kind, advice in ADVICE.items() if advice not in given] == []


def test_only_rooms_in_which_one_advice_fits_all_have_one() -> None:
    assert {kind for kind in ADVICE if "." not in kind} == ROOMS_WITH_ONE_ADVICE


def test_a_copy_is_restored_only_of_what_is_damaged_or_gone(codes: list[str]) -> None:
    assert {code for code in codes if "estore" in advice_on(code)} == WHAT_IS_RESTORED


@pytest.mark.parametrize("kind", ["certificate", "crl", "checkpoint", "segment", "witness", "trust"])
def test_advice_speaks_of_nothing_that_the_error_is_not_about(codes: list[str], kind: str) -> None:
    of_kind = [code for code in codes if code.startswith(f"evidence.{kind}_")]
    others = {advice_on(code) for code in codes if code not in of_kind}
    own = {advice_on(code) for code in of_kind}
    shared = {one for one in own & others if not one.startswith(("Get another copy", "This is a defect"))}
    assert shared == set()


def test_what_an_auditor_tried_is_answered_with_what_to_do(
    cloister: Cloister, lived_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("key.pem").write_text(EphemeralKeyStore().generate("key").public_key.pem)
    hub = ("--party", "hub/hub", "-w", lived_in)
    far = cloister("log", "proof", *hub, "--from", "99999")
    assert (far.code, "cloister log checkpoint" in far.err) == (1, True)
    named = cloister("witness", "init", "east", "--name", "a b")
    assert "Restore" not in named.err
    assert "--name" in named.err
    shown = cloister("pki", "show", "key.pem")
    assert "key.pem is no certificate, chain or revocation list" in shown.err
    assert "hint: " in shown.err

    assert cloister("witness", "init", "east", "--name", "east").code == 0
    follow = ("--log", "cloister/hub/hub", "--key", "key.pem")
    assert cloister("witness", "follow", "east", *follow).code == 0
    assert cloister("log", "proof", *hub, "--from", "0", "--out", "request").code == 0
    unknown = cloister("witness", "cosign", "east", "request")
    assert "[evidence.checkpoint_unsigned]" in unknown.err
    assert "changed its key" in unknown.err
    trust = next((lived_in / "jobs").iterdir()) / "trust"
    assert cloister("witness", "follow", "east", *follow[:3], trust / "hub" / "hub.pem").code == 0
    text = Path("request").read_text()
    at = text.rindex("\n", 0, -8) + 40
    Path("request").write_text(text[:at] + ("A" if text[at] != "A" else "B") + text[at + 1 :])
    changed = cloister("witness", "cosign", "east", "request")
    assert "[signature.invalid]" in changed.err
    assert "hint: " in changed.err
