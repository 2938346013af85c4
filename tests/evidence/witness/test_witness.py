"""Books and witnesses: what is held is never older, never another past, and never lost."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.errors import CloisterError, SignatureInvalid, StorageError
from cloister.core.keys import EphemeralKeyStore
from cloister.evidence.checkpoint import parse_checkpoint, sign_checkpoint, verify_cosignature
from cloister.evidence.errors import EvidenceError
from cloister.evidence.witness.book import MAX_CONFLICTS, CheckpointBook, read_notes
from cloister.evidence.witness.continuation import MAX_CONTINUATION_BYTES, Continuation, parse_continuation
from cloister.evidence.witness.witness import Witness
from tests.evidence.witness.forest import AT, ORIGIN, Tree

TREE = Tree()
KEY = TREE.signer.public_key
EAST = EphemeralKeyStore().generate("east")


@pytest.fixture
def book(tmp_path: Path) -> CheckpointBook:
    return CheckpointBook(tmp_path / "book")


@pytest.fixture
def witness(book: CheckpointBook) -> Witness:
    return Witness("east", EAST, book, {ORIGIN: [KEY]})


def refusal(call: object, *arguments: object) -> str:
    with pytest.raises(CloisterError) as caught:
        call(*arguments)  # type: ignore[operator]
    return caught.value.code


def test_a_growing_log_is_cosigned_at_each_step(witness: Witness) -> None:
    for old, new in ((0, 3), (3, 8), (8, 8), (8, 40)):
        signed = witness.add_checkpoint(TREE.request(old, new), AT)
        assert verify_cosignature(signed, "east", EAST.public_key) == AT
        assert witness.held_size(ORIGIN) == new


def test_a_book_is_read_again_by_whoever_comes_next(book: CheckpointBook, tmp_path: Path) -> None:
    book.hold(TREE.head(5), (), KEY)
    again = CheckpointBook(tmp_path / "book")
    assert again.newest(ORIGIN) == TREE.head(5)
    assert again.logs() == (ORIGIN,)
    assert [one.stat().st_mode & 0o777 for one in (tmp_path / "book").glob("*.note")] == [0o600]


@pytest.mark.parametrize("size", [1, 7, 8])
def test_an_older_checkpoint_is_never_signed(witness: Witness, size: int) -> None:
    witness.add_checkpoint(TREE.request(0, 9), AT)
    assert refusal(witness.add_checkpoint, TREE.request(0, size), AT) == "evidence.log_rolled_back"
    assert witness.held_size(ORIGIN) == 9


@pytest.mark.parametrize("size", [9, 10, 16, 40])
def test_another_past_is_never_signed_and_both_are_kept(
    witness: Witness, book: CheckpointBook, size: int
) -> None:
    witness.add_checkpoint(TREE.request(0, 9), AT)
    fork = TREE.forked(4)
    assert refusal(witness.add_checkpoint, fork.request(9, size), AT) == "evidence.log_inconsistent"
    kept = ((TREE.head(9), fork.head(size)),)
    assert (book.conflicts(ORIGIN), book.unproven(ORIGIN)) == ((kept, ()) if size == 9 else ((), kept))
    assert book.newest(ORIGIN) == TREE.head(9)


def test_an_honest_log_is_not_accused_by_whoever_sends_its_heads_without_proof(
    witness: Witness, book: CheckpointBook
) -> None:
    witness.add_checkpoint(TREE.request(0, 2), AT)
    for size in range(3, 4 + MAX_CONFLICTS):
        junk = Continuation(2, (bytes(32),), TREE.head(size))
        assert refusal(witness.add_checkpoint, junk, AT) == "evidence.log_inconsistent"
    assert book.conflicts(ORIGIN) == ()
    assert len(book.unproven(ORIGIN)) == MAX_CONFLICTS
    # However many there are, a real proof of two pasts has its place.
    fork = TREE.forked(0).head(2)
    assert refusal(witness.add_checkpoint, Continuation(2, (), fork), AT) == "evidence.log_inconsistent"
    assert book.conflicts(ORIGIN) == ((TREE.head(2), fork),)


def test_a_pair_that_was_not_kept_whole_disturbs_nobody(
    witness: Witness, book: CheckpointBook, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness.add_checkpoint(TREE.request(0, 9), AT)
    fork = TREE.forked(4)

    def torn(path: Path, data: bytes, **_: object) -> None:
        if path.name == "offered.note":
            raise KeyboardInterrupt
        path.write_bytes(data)

    with monkeypatch.context() as patched:
        patched.setattr("cloister.evidence.witness.book.write_atomic", torn)
        with pytest.raises(KeyboardInterrupt):
            witness.add_checkpoint(fork.request(9, 9), AT)
    assert book.conflicts(ORIGIN) == ()
    assert refusal(witness.add_checkpoint, fork.request(9, 9), AT) == "evidence.log_inconsistent"
    assert book.conflicts(ORIGIN) == ((TREE.head(9), fork.head(9)),)


def test_a_fork_after_what_is_held_can_go_on_once_but_only_on_one_side(witness: Witness) -> None:
    witness.add_checkpoint(TREE.request(0, 9), AT)
    fork = TREE.forked(12)
    witness.add_checkpoint(fork.request(9, 20), AT)
    assert refusal(witness.add_checkpoint, TREE.request(20, 30), AT) == "evidence.log_inconsistent"


def test_the_proofs_of_contradictions_are_bounded(book: CheckpointBook) -> None:
    book.hold(TREE.head(2), (), KEY)
    for at in range(MAX_CONFLICTS + 5):
        other = sign_checkpoint(ORIGIN, 2, bytes([at]) * 32, TREE.signer)
        for _ in range(2):
            assert refusal(book.hold, other, (), KEY) == "evidence.log_inconsistent"
    assert len(book.conflicts(ORIGIN)) == MAX_CONFLICTS


def test_a_request_that_starts_elsewhere_is_told_where_to_start(witness: Witness) -> None:
    witness.add_checkpoint(TREE.request(0, 9), AT)
    with pytest.raises(EvidenceError) as caught:
        witness.add_checkpoint(TREE.request(8, 12), AT)
    assert caught.value.code == "evidence.witness_stale"
    assert "from size 9" in caught.value.hint


def test_a_log_that_is_not_followed_is_refused(witness: Witness) -> None:
    other = Tree(origin="cloister/site/south")
    assert refusal(witness.add_checkpoint, other.request(0, 3), AT) == "evidence.witness_refused"


def test_a_checkpoint_of_another_key_is_refused_and_not_held(witness: Witness, book: CheckpointBook) -> None:
    forged = Tree(signer=EphemeralKeyStore().generate("forger"))
    assert refusal(witness.add_checkpoint, forged.request(0, 3), AT) == "evidence.checkpoint_unsigned"
    assert book.newest(ORIGIN) is None


def test_a_checkpoint_that_was_changed_is_refused(witness: Witness) -> None:
    head = TREE.head(3)
    changed = parse_checkpoint(head.encode().replace("\n3\n", "\n4\n", 1))
    with pytest.raises(SignatureInvalid):
        witness.add_checkpoint(Continuation(0, (), changed), AT)


def test_an_empty_log_is_not_held(book: CheckpointBook) -> None:
    empty = sign_checkpoint(ORIGIN, 0, bytes(32), TREE.signer)
    assert refusal(book.hold, empty, (), KEY) == "evidence.log_inconsistent"


def test_a_proof_where_nothing_is_held_is_refused(book: CheckpointBook) -> None:
    assert refusal(book.hold, TREE.head(4), TREE.proof(2, 4), KEY) == "evidence.log_inconsistent"


@pytest.mark.parametrize(
    "content", [b"", b"not a checkpoint", b"\xff\xfe", TREE.head(3).encode()[:-1].encode()]
)
def test_a_broken_note_is_an_error_and_not_an_empty_book(
    book: CheckpointBook, tmp_path: Path, content: bytes
) -> None:
    book.hold(TREE.head(3), (), KEY)
    next((tmp_path / "book").glob("*.note")).write_bytes(content)
    assert refusal(book.newest, ORIGIN) == "evidence.checkpoint_malformed"
    assert refusal(book.hold, TREE.head(3), (), KEY) == "evidence.checkpoint_malformed"
    assert refusal(read_notes, tmp_path / "book") == "evidence.checkpoint_malformed"


def test_a_note_of_another_log_under_this_logs_name_is_an_error(book: CheckpointBook, tmp_path: Path) -> None:
    book.hold(TREE.head(3), (), KEY)
    other = Tree(origin="cloister/site/south")
    next((tmp_path / "book").glob("*.note")).write_text(other.head(3).encode())
    assert refusal(book.newest, ORIGIN) == "evidence.checkpoint_malformed"


def test_what_cannot_be_kept_is_not_signed(tmp_path: Path) -> None:
    (tmp_path / "book").write_text("a file where the folder should be")
    witness = Witness("east", EAST, CheckpointBook(tmp_path / "book" / "deeper"), {ORIGIN: [KEY]})
    with pytest.raises(CloisterError) as caught:
        witness.add_checkpoint(TREE.request(0, 3), AT)
    assert isinstance(caught.value, StorageError)


def test_of_two_pasts_shown_at_once_only_one_is_signed(tmp_path: Path) -> None:
    sides = [TREE.forked(2).request(0, 5), TREE.forked(3).request(0, 5)]
    signed: list[object] = []
    refused: list[str] = []
    barrier = threading.Barrier(8)

    def ask(number: int) -> None:
        witness = Witness("east", EAST, CheckpointBook(tmp_path), {ORIGIN: [KEY]})
        barrier.wait()
        try:
            signed.append(witness.add_checkpoint(sides[number % 2], AT).root)
        except EvidenceError as error:
            refused.append(error.code)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(signed)) == 1
    assert set(refused) <= {"evidence.log_inconsistent", "evidence.witness_stale"}
    assert len(signed) + len(refused) == 8


def test_a_kill_while_a_checkpoint_is_kept_leaves_the_old_or_the_new_one(tmp_path: Path) -> None:
    notes = tmp_path / "heads"
    notes.mkdir()
    for size in range(1, 41):
        (notes / f"{size}").write_text(TREE.request(max(size - 1, 0), size).encode())
    (tmp_path / "key.pem").write_text(KEY.pem)
    script = (
        "import sys, pathlib\n"
        "from cloister.core.keys import PublicKey\n"
        "from cloister.evidence.witness.book import CheckpointBook\n"
        "from cloister.evidence.witness.continuation import parse_continuation\n"
        "root = pathlib.Path(sys.argv[1]); key = PublicKey.from_pem((root / 'key.pem').read_text())\n"
        "book = CheckpointBook(root / 'book')\n"
        "for size in range(1, 41):\n"
        "    one = parse_continuation((root / 'heads' / str(size)).read_text())\n"
        "    book.hold(one.checkpoint, one.proof, key); print(size, flush=True)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    told = 0
    for line in child.stdout:
        told = int(line)
        if told == 12:
            break
    child.kill()
    child.wait()
    child.stdout.close()
    held = CheckpointBook(tmp_path / "book").newest(ORIGIN)
    assert held is not None
    assert held.size >= told
    assert held == TREE.head(held.size)


@given(st.integers(0, 40), st.integers(1, 40))
def test_a_request_comes_back_as_it_was(old: int, new: int) -> None:
    request = TREE.request(min(old, new), new)
    assert parse_continuation(request.encode()) == request
    assert request.encode() == parse_continuation(request.encode()).encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "old 3\n",
        "old 03\n\n" + TREE.head(3).encode(),
        "old -1\n\n" + TREE.head(3).encode(),
        "old 3 \n\n" + TREE.head(3).encode(),
        "old 3\nAAAA\n\n" + TREE.head(3).encode(),
        "old 3\n\n\n" + TREE.head(3).encode(),
        "old 0\n" + "A" * 43 + "=\n" * 64 + "\n" + TREE.head(3).encode(),
        "old 0\n\n" + "x" * MAX_CONTINUATION_BYTES,
    ],
)
def test_a_request_with_another_spelling_is_refused(text: str) -> None:
    assert refusal(parse_continuation, text) == "evidence.checkpoint_malformed"
