"""A log that was set back to an older copy is not written on: whoever has seen it later tells."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cloister.core.clock import Clock
from cloister.core.errors import CloisterError, KeyStoreError
from cloister.core.hashes import sha256_hex
from cloister.core.keys import ED25519, EphemeralKeyStore, Signer
from cloister.core.settings import Settings
from cloister.evidence import Role, StatementWriter, Subject, TrustEntry, write_trust
from cloister.evidence.checkpoint import Checkpoint, cosign, sign_checkpoint
from cloister.evidence.merkle import EMPTY_ROOT
from cloister.evidence.predicates import Violation
from cloister.policy import UnwitnessedLog
from cloister.workflow.jobfile import load_job
from cloister.workflow.ledgers import LedgerTerms
from cloister.workflow.parties import open_parties
from cloister.workflow.party import Party
from cloister.workflow.party_keys import current_key, rotate_key
from cloister.workflow.workspace import Workspace, open_workspace
from tests.system.example_job import TUMOUR

JOB = load_job(TUMOUR).federation_job()
STREAM = "6f2a7c1e-90d4-4c56-8a41-0d2b7e4f9c11"
EAST = EphemeralKeyStore().generate("east")
AT = datetime(2026, 11, 21, tzinfo=UTC)


def settings_in(folder: Path) -> Settings:
    pinned = folder / "pinned"
    if not pinned.exists():
        write_trust(pinned, [TrustEntry(Role.WITNESS, "east", EAST.public_key.pem.encode())])
        (folder / "outside").mkdir()
    return Settings(held_checkpoints=folder / "outside", pinned_witnesses=pinned)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(tmp_path / "work", settings=settings_in(tmp_path)) as opened:
        yield opened


@pytest.fixture
def site(workspace: Workspace) -> Party:
    return workspace.party("site", "north")


def state(site: Party, clock: Clock, times: int = 1, detail: str = "seen") -> Checkpoint:
    with site.open_log() as log:
        writer = StatementWriter(log, site.signer, site.name, STREAM, clock)
        for _ in range(times):
            writer.write(
                Violation, [Subject("job", sha256_hex(b"job"))], rule="r", detail=detail, artifact_sha256=None
            )
        return log.checkpoint()


def publish(site: Party, checkpoint: Checkpoint, name: str = "seen.note") -> None:
    put(site, cosign(checkpoint, "east", EAST, AT), name)


def put(site: Party, checkpoint: Checkpoint, name: str = "seen.note") -> None:
    assert site.places.outside is not None
    (site.places.outside / name).write_text(checkpoint.encode())


def refusal(site: Party) -> CloisterError:
    with pytest.raises(CloisterError) as caught:
        site.open_log()
    return caught.value


def set_back(site: Party, backup: Path) -> None:
    for file in site.folder.glob("log.sqlite*"):
        file.unlink()
    shutil.copy(backup, site.folder / "log.sqlite")


def backed_up(site: Party, to: Path) -> Path:
    return Path(shutil.copy(site.folder / "log.sqlite", to / "backup"))


def test_an_older_copy_is_refused_by_what_is_held_outside_and_both_sizes_are_named(
    site: Party, clock: Clock, tmp_path: Path
) -> None:
    publish(site, state(site, clock, 3))
    backup = backed_up(site, tmp_path)
    publish(site, state(site, clock, 4), "later.note")
    set_back(site, backup)
    error = refusal(site)
    assert (error.code, error.exit_code) == ("evidence.log_rolled_back", 5)
    assert "has 3 entries" in error.message
    assert "has 7" in error.message


def test_an_older_copy_that_was_written_on_is_refused_too(site: Party, clock: Clock, tmp_path: Path) -> None:
    publish(site, state(site, clock, 3))
    backup = backed_up(site, tmp_path)
    seen = state(site, clock, 2)
    set_back(site, backup)
    state(site, clock, 5, "something else")
    publish(site, seen, "later.note")
    error = refusal(site)
    assert (error.code, error.exit_code) == ("evidence.log_rolled_back", 5)
    assert "has 8 entries" in error.message
    assert "first 5" in error.message


def test_the_newest_copy_is_opened(site: Party, clock: Clock) -> None:
    for _ in range(3):
        publish(site, state(site, clock))
    site.open_log().close()


def test_what_another_witness_added_to_a_checkpoint_does_not_disturb(site: Party, clock: Clock) -> None:
    other = EphemeralKeyStore().generate("west")
    publish(site, cosign(state(site, clock), "west", other, AT))
    site.open_log().close()


def test_a_note_that_the_log_alone_signed_was_seen_by_nobody_outside(site: Party, clock: Clock) -> None:
    """Its owner can put it there; so can whoever restores the owner's disk."""
    put(site, sign_checkpoint(site.origin, 0, EMPTY_ROOT, site.signer), "empty.note")
    put(site, cosign(sign_checkpoint(site.origin, 0, EMPTY_ROOT, site.signer), "east", EAST, AT), "none.note")
    head = state(site, clock, 3)
    put(site, head, "own.note")
    put(site, cosign(head, "west", EphemeralKeyStore().generate("west"), AT), "unpinned.note")
    assert refusal(site).code == "evidence.log_unwitnessed"
    publish(site, head)
    site.open_log().close()


def test_a_cosignature_that_was_made_up_is_an_error(site: Party, clock: Clock) -> None:
    head = cosign(state(site, clock), "east", EAST, AT)
    *others, last = head.signatures
    made_up = replace(last, sig=last.sig[:-1] + bytes([last.sig[-1] ^ 1]))
    put(site, replace(head, signatures=(*others, made_up)))
    assert refusal(site).code in {"signature.invalid", "evidence.cosignature_missing"}


def test_a_log_is_held_against_notes_that_do_not_count_too(site: Party, clock: Clock, tmp_path: Path) -> None:
    site.agree_on_log(UnwitnessedLog.ALLOW)
    state(site, clock)
    backup = backed_up(site, tmp_path)
    put(site, state(site, clock))
    set_back(site, backup)
    assert refusal(site).code == "evidence.log_rolled_back"


def test_a_folder_that_offers_less_than_it_did_is_refused(site: Party, clock: Clock) -> None:
    first = state(site, clock)
    publish(site, first)
    publish(site, state(site, clock, 4))
    site.open_log().close()
    for offered in (first, None):
        if offered is None:
            assert site.places.outside is not None
            (site.places.outside / "seen.note").unlink()
        else:
            publish(site, offered)
        assert refusal(site).code == "evidence.log_unwitnessed"
        site.agree_on_log(UnwitnessedLog.ALLOW)
        assert refusal(site).code == "evidence.log_unwitnessed"
        site.agree_on_log(UnwitnessedLog.REFUSE)
    with site.open_log_to_show() as log:
        publish(site, log.checkpoint())
    site.open_log().close()


def test_what_the_folder_has_offered_is_remembered_where_it_and_the_log_were_set_back(
    site: Party, clock: Clock, tmp_path: Path
) -> None:
    first = state(site, clock)
    publish(site, first)
    backup = backed_up(site, tmp_path)
    publish(site, state(site, clock))
    site.open_log().close()
    publish(site, first)
    set_back(site, backup)
    assert refusal(site).code == "evidence.log_rolled_back"


def test_a_folder_that_is_named_and_not_there_is_an_error_whatever_is_allowed(
    site: Party, clock: Clock
) -> None:
    """A share that isn't mounted is not a folder in which nobody has published anything."""
    site.agree_on_log(UnwitnessedLog.ALLOW)
    state(site, clock)
    assert site.places.outside is not None
    site.places.outside.rmdir()
    assert refusal(site).code == "input.missing_file"


@pytest.mark.parametrize("trace", ["budget/wards.begun", "held/cloister%2Fhub%2Fhub.note", "jobs"])
@pytest.mark.parametrize("begun", [True, False])
def test_a_party_that_has_stated_something_does_not_begin_with_an_empty_log(
    site: Party, workspace: Workspace, clock: Clock, tmp_path: Path, trace: str, begun: bool
) -> None:
    site.open_log().close()
    backup = backed_up(site, tmp_path)
    state(site, clock, 5)
    left = site.folder / trace if trace != "jobs" else workspace.root / "jobs/one/trust/site/north.pem"
    left.parent.mkdir(parents=True)
    left.write_text("")
    set_back(site, backup)
    if not begun:
        (site.folder / "log.begun").unlink()
        (site.folder / "log.sqlite").unlink()
    for allowed in UnwitnessedLog:
        site.agree_on_log(allowed)
        error = refusal(site)
        assert error.code == "evidence.log_missing"
        assert left.name in error.message


def test_what_another_party_left_does_not_keep_one_from_beginning(
    site: Party, workspace: Workspace, clock: Clock
) -> None:
    state(workspace.party("site", "south"), clock)
    for left in ("jobs/one/trust/site/south.pem", "jobs/one/trust/hospital/north.pem"):
        (workspace.root / left).parent.mkdir(parents=True)
        (workspace.root / left).write_text("")
    site.open_log().close()


def test_a_log_that_nobody_outside_has_seen_is_shown_so_that_somebody_can(site: Party, clock: Clock) -> None:
    state(site, clock, 3)
    assert refusal(site).code == "evidence.log_unwitnessed"
    with site.open_log_to_show() as log:
        publish(site, log.checkpoint())
    site.open_log().close()


def test_an_older_copy_is_not_even_shown(site: Party, clock: Clock, tmp_path: Path) -> None:
    state(site, clock)
    backup = backed_up(site, tmp_path)
    with site.open_log_to_show() as log:
        publish(site, log.checkpoint())
    publish(site, state(site, clock))
    set_back(site, backup)
    with pytest.raises(CloisterError) as caught:
        site.open_log_to_show()
    assert caught.value.code == "evidence.log_rolled_back"


# Keys that were changed


def test_a_party_with_a_new_key_goes_on_with_its_log(
    site: Party, workspace: Workspace, clock: Clock, tmp_path: Path
) -> None:
    publish(site, state(site, clock, 2), "first.note")
    backup = backed_up(site, tmp_path)
    publish(site, state(site, clock, 2), "second.note")
    former = site.signer.public_key
    for _ in range(2):
        site = workspace.rotate_key(site)
    assert workspace.party("site", "north").signer.public_key == site.signer.public_key != former
    assert len(site.keys) == 3
    site = workspace.party("site", "north")
    assert len(site.keys) == 3
    with site.open_log() as log:
        assert log.size == 4
    publish(site, state(site, clock), "third.note")
    site.open_log().close()
    # What it signed with its former keys still tells an older copy.
    set_back(site, backup)
    assert refusal(site).code == "evidence.log_rolled_back"


def test_another_key_in_the_place_of_a_partys_own_does_not_open_its_log(
    site: Party, workspace: Workspace, clock: Clock
) -> None:
    site.agree_on_log(UnwitnessedLog.ALLOW)
    state(site, clock)
    (site.folder / "keys" / "site.pem").unlink()
    assert refusal(workspace.party("site", "north")).code == "evidence.log_mismatch"


def test_a_new_key_that_could_not_be_made_changes_nothing(site: Party, clock: Clock) -> None:
    class TokenThatIsGone(EphemeralKeyStore):
        def generate(self, name: str, algorithm: str = ED25519) -> Signer:
            raise KeyStoreError("key.missing", "The token is gone.")

    site.agree_on_log(UnwitnessedLog.ALLOW)
    state(site, clock)
    with pytest.raises(KeyStoreError):
        rotate_key("site", site.folder, site.signer.public_key, TokenThatIsGone())
    assert site.keys == (site.signer.public_key,)
    site.open_log().close()


def test_the_newest_of_a_partys_keys_is_the_one_with_the_highest_number() -> None:
    names = ["hub-12", "site", "site-10", "site-9", "site-x", "site-010"]
    assert current_key("site", names) == "site-10"
    assert current_key("hub", ["site", "hub"]) == "hub"
    assert current_key("hub", ["site"]) is None


def test_a_log_that_nobody_outside_has_seen_is_refused_unless_that_is_agreed(
    site: Party, clock: Clock
) -> None:
    state(site, clock)
    error = refusal(site)
    assert (error.code, error.exit_code) == ("evidence.log_unwitnessed", 5)
    assert "without_outside_checkpoint" in error.hint
    site.agree_on_log(UnwitnessedLog.ALLOW)
    site.open_log().close()
    site.agree_on_log(UnwitnessedLog.REFUSE)
    assert refusal(site).code == "evidence.log_unwitnessed"


def test_what_others_hold_outside_of_other_logs_does_not_count(
    site: Party, workspace: Workspace, clock: Clock
) -> None:
    publish(site, state(workspace.party("site", "south"), clock))
    state(site, clock)
    assert refusal(site).code == "evidence.log_unwitnessed"


def test_an_agreement_never_excuses_an_older_copy(site: Party, clock: Clock, tmp_path: Path) -> None:
    site.agree_on_log(UnwitnessedLog.ALLOW)
    state(site, clock)
    backup = backed_up(site, tmp_path)
    publish(site, state(site, clock))
    set_back(site, backup)
    assert refusal(site).code == "evidence.log_rolled_back"


def test_the_books_of_the_parties_on_the_same_machine_are_asked_too(
    site: Party, workspace: Workspace, clock: Clock, tmp_path: Path
) -> None:
    site.agree_on_log(UnwitnessedLog.ALLOW)
    state(site, clock)
    backup = backed_up(site, tmp_path)
    seen = state(site, clock)
    workspace.party("hub", "hub").book.hold(seen, (), site.signer.public_key)
    site.open_log().close()
    set_back(site, backup)
    assert refusal(site).code == "evidence.log_rolled_back"


def test_the_books_on_the_same_machine_are_not_outside_of_it(
    site: Party, workspace: Workspace, clock: Clock
) -> None:
    workspace.party("hub", "hub").book.hold(state(site, clock), (), site.signer.public_key)
    assert refusal(site).code == "evidence.log_unwitnessed"


def test_a_log_is_not_begun_where_somebody_has_seen_it_before(site: Party) -> None:
    publish(site, sign_checkpoint(site.origin, 9, bytes(range(32)), site.signer))
    assert refusal(site).code == "evidence.log_rolled_back"
    assert not (site.folder / "log.sqlite").exists()


def test_a_note_that_claims_to_be_of_this_log_and_is_not_signed_by_it_is_an_error(
    site: Party, clock: Clock
) -> None:
    head = state(site, clock)
    publish(site, sign_checkpoint(head.origin, head.size, head.root, EphemeralKeyStore().generate("other")))
    assert refusal(site).code == "evidence.checkpoint_unsigned"
    put(site, replace(head, size=head.size + 1))
    assert refusal(site).code == "signature.invalid"


def test_a_broken_note_is_an_error_and_not_an_absent_one(site: Party, clock: Clock) -> None:
    publish(site, state(site, clock))
    assert site.places.outside is not None
    (site.places.outside / "other.note").write_text("torn")
    assert refusal(site).code == "evidence.checkpoint_malformed"


def test_an_unreadable_rule_is_the_strict_one(site: Party, clock: Clock) -> None:
    state(site, clock)
    (site.folder / "log.rule").write_text("whatever")
    assert refusal(site).code == "evidence.log_unwitnessed"


def test_the_first_job_under_the_strict_rule_runs_and_the_second_needs_a_checkpoint(
    workspace: Workspace, clock: Clock
) -> None:
    strict = dict.fromkeys(JOB.clients, UnwitnessedLog.REFUSE)
    with open_parties(workspace, JOB, strict, clock=clock) as parties:
        for seat in parties.seats:
            seat.writer.write(
                Violation, [Subject("job", sha256_hex(b"job"))], rule="r", detail="d", artifact_sha256=None
            )
            workspace.ledger(seat.party, "wards", LedgerTerms(delta=1e-4), log=seat.log).close()
        parties.close("completed")
        heads = [(seat.party, seat.log.checkpoint()) for seat in parties.seats]
    again = JOB.model_copy(update={"job_id": "00000000-0000-4000-8000-000000000002"})
    with pytest.raises(CloisterError) as caught, open_parties(workspace, again, strict, clock=clock):
        pass
    assert caught.value.code == "evidence.log_unwitnessed"
    for party, head in heads:
        publish(party, head, f"{party.name}.note")
    with open_parties(workspace, again, strict, clock=clock):
        pass


def test_one_strict_manifest_is_enough_for_the_hubs_log(workspace: Workspace, clock: Clock) -> None:
    hub = workspace.party("hub", "hub")
    state(hub, clock)
    rules = dict.fromkeys(JOB.clients, UnwitnessedLog.ALLOW) | {JOB.clients[0]: UnwitnessedLog.REFUSE}
    with pytest.raises(CloisterError) as caught, open_parties(workspace, JOB, rules, clock=clock):
        pass
    assert caught.value.code == "evidence.log_unwitnessed"
    assert "cloister/hub/hub" in caught.value.message
