"""What an operator approves that a function reaches for: signed, kept, and known to running processes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.immune.acting.reach import Operation
from cloister.immune.egress_approvals import FILE, EgressApproval, EgressApprovals, parse_target
from cloister.immune.errors import ImmuneError

APPROVAL = EgressApproval("shop:export", Operation.CONNECT, "10.1.2.3", "dana", 1_790_000_000.0)
OTHER = EgressApproval("shop:export", Operation.WRITE, "/srv/reports/", "dana", 1_790_000_001.0)


@pytest.fixture(scope="module")
def signer() -> Signer:
    return EphemeralKeyStore().generate("immune")


@pytest.fixture
def approvals(tmp_path: Path, signer: Signer) -> EgressApprovals:
    return EgressApprovals(tmp_path, signer)


def test_what_was_approved_is_read_in_its_order_by_any_process_of_the_folder(
    approvals: EgressApprovals, tmp_path: Path, signer: Signer
) -> None:
    assert approvals.read() == approvals.news() == ()
    approvals.add(APPROVAL)
    approvals.add(OTHER)
    assert EgressApprovals(tmp_path, signer).read() == (APPROVAL, OTHER)
    assert oct((tmp_path / FILE).stat().st_mode)[-3:] == "600"


def test_a_look_gives_them_only_after_the_file_has_changed(approvals: EgressApprovals) -> None:
    approvals.add(APPROVAL)
    assert approvals.news() == (APPROVAL,)
    assert approvals.news() == ()
    approvals.add(OTHER)
    assert approvals.news() == (APPROVAL, OTHER)


def test_what_another_key_signed_approves_nothing(approvals: EgressApprovals, tmp_path: Path) -> None:
    EgressApprovals(tmp_path, EphemeralKeyStore().generate("stranger")).add(OTHER)
    approvals.add(APPROVAL)
    assert approvals.read() == (APPROVAL,)


@settings(max_examples=150)
@given(place=st.integers(min_value=0), change=st.integers(min_value=1, max_value=255))
def test_a_line_that_was_changed_in_any_byte_approves_nothing_and_spoils_no_other(
    tmp_path_factory: pytest.TempPathFactory, signer: Signer, place: int, change: int
) -> None:
    folder = tmp_path_factory.mktemp("approvals")
    approvals = EgressApprovals(folder, signer)
    approvals.add(APPROVAL)
    kept = bytearray((folder / FILE).read_bytes())
    kept[place % (len(kept) - 1)] ^= change
    (folder / FILE).write_bytes(bytes(kept))
    approvals.add(OTHER)
    assert APPROVAL not in approvals.read()
    assert OTHER in approvals.read()


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"{}",
        b"not json",
        b'{"approval":1,"signature":2}',
        b'{"approval":"{}","signature":"zz"}',
        b"[" * 10_000,
    ],
    ids=["empty", "list", "object", "words", "numbers", "unsigned", "deep"],
)
def test_a_line_that_is_no_approval_is_passed_over(
    approvals: EgressApprovals, tmp_path: Path, line: bytes
) -> None:
    (tmp_path / FILE).write_bytes(line + b"\n")
    approvals.add(APPROVAL)
    assert approvals.read() == (APPROVAL,)


def test_another_document_of_the_same_key_isnt_taken_for_an_approval(
    approvals: EgressApprovals, tmp_path: Path, signer: Signer
) -> None:
    document = APPROVAL.document().replace(b"cloister-egress-approval", b"cloister-something-else")
    line = {"approval": document.decode(), "signature": signer.sign(document).hex()}
    (tmp_path / FILE).write_text(json.dumps(line, sort_keys=True, separators=(",", ":")) + "\n")
    assert approvals.read() == ()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("connect 10.1.2.3", (Operation.CONNECT, "10.1.2.3")),
        ("  write   /srv/our reports/ ", (Operation.WRITE, "/srv/our reports/")),
        ("run /usr/bin/git", (Operation.RUN, "/usr/bin/git")),
    ],
)
def test_a_target_is_an_operation_and_what_it_is_done_with(words: str, found: tuple[Operation, str]) -> None:
    assert parse_target(words) == found


@pytest.mark.parametrize(
    "words",
    ["", "connect", "connect ", "10.1.2.3", "send x", "write /a\x1b[2J", "run " + "x" * 5000],
    ids=["nothing", "alone", "space", "target", "unknown", "control", "long"],
)
def test_other_words_are_refused_with_an_example(words: str) -> None:
    with pytest.raises(ImmuneError) as caught:
        parse_target(words)
    assert caught.value.code == "immune.setting_invalid"
    assert "connect 10.1.2.3" in caught.value.hint
