"""Attacks on the chain of exports: one that was made for somebody else shall not be hidden."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cloister.core.canonical import b64encode, canonicalize, parse
from cloister.core.hashes import sha256_hex
from cloister.evidence import EvidenceLog
from cloister.evidence.artifacts import Demands, verify_artifact
from cloister.evidence.checks import Check, CheckRegistry, Outcome
from cloister.evidence.custody import check_custody_chain, verify_bundle, verify_custody_chain
from cloister.evidence.custody import export as exporting
from cloister.evidence.custody.access import AccessRecord, own_backwards
from cloister.evidence.custody.bundle import ExportedEntry, asked_subject, exported_entry, signed_bytes
from cloister.evidence.custody.export import compose_bundle
from cloister.evidence.errors import AuditError
from cloister.evidence.extract import ProvenEntry, log_stream
from cloister.evidence.predicates import Access
from cloister.evidence.statement import Statement, open_statement, sign_statement
from tests.evidence.custody.house import AUDITOR, OTHER_JOB, House, export_id

NORTH = "cloister/site/north"


def failing(bundle: bytes, house: House) -> dict[str, str]:
    return {one.id: one.detail for one in verify_bundle(bundle, house.trust).failures}


def with_hidden(house: House, monkeypatch: pytest.MonkeyPatch, *, first: bool) -> tuple[bytes, bytes]:
    """An export, one kept from the auditor, and one that says that it follows the first, or is the first."""
    house.job(parties=("north",))
    house.job(OTHER_JOB, parties=("north",))
    shown = house.export(house.of_job(), "north", ())
    house.export(house.of_job(), "north", ())

    def lying(log: EvidenceLog, _: str, size: int) -> tuple[str | None, tuple[ExportedEntry, ...]]:
        entries = list(own_backwards(log))[::-1]  # asked, made, asked, made, asked
        kept = entries[4:] if first else [entries[1], entries[4]]
        own = [ProvenEntry(one.index, one.envelope, log.inclusion_proof(one.index, size)) for one in kept]
        return None if first else sha256_hex(shown), tuple(map(exported_entry, own))

    with monkeypatch.context() as patched:
        patched.setattr(exporting, "_own", lying)
        patched.setattr(AccessRecord, "state_export", lambda *_: None)
        return shown, house.export(house.of_job(OTHER_JOB), "north", ())


def test_an_export_hidden_between_two_breaks_the_logs_own_stream(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, third = with_hidden(house, monkeypatch, first=False)
    found = failing(third, house)
    assert set(found) == {"custody"}
    assert "of its own stream is missing" in found["custody"]
    verdict = verify_artifact(third, house.trust, Demands(previous=(first,)), CheckRegistry)
    assert {one.id for one in verdict.failures} == {"custody", "custody-chain"}


def test_an_export_that_is_not_the_first_can_not_be_said_to_be(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, third = with_hidden(house, monkeypatch, first=True)
    assert "isn't shown from the start" in failing(third, house)["custody"]


def changed(bundle: bytes, house: House, change: Callable[[dict], None]) -> bytes:
    """An export that its exporter changed, and signed again."""
    document = parse(bundle)
    assert isinstance(document, dict)
    change(document["body"]["logs"][NORTH])
    signature = house.keys["north"].sign(signed_bytes(document["body"]))
    document["signature"]["sig"] = b64encode(signature)
    return canonicalize(document)


@pytest.mark.parametrize("place", range(4))
def test_no_statement_of_a_logs_own_stream_can_be_left_out(house: House, place: int) -> None:
    house.job(parties=("north",))
    house.export(house.of_job(), "north", ())
    record = AccessRecord(house.logs["north"], house.keys["north"], house.clock)
    record.state_access(AUDITOR, "read", "the record of access")
    record.state_access(AUDITOR, "read", "the record of access")
    bundle = house.export(house.of_job(), "north", ())
    assert failing(bundle, house) == {}
    assert set(failing(changed(bundle, house, lambda log: log["own"].pop(place)), house)) == {"custody"}


def test_a_stream_shown_twice_over_or_empty_is_refused(house: House) -> None:
    house.job(parties=("north",))
    house.export(house.of_job(), "north", ())
    bundle = house.export(house.of_job(), "north", ())
    doubled = changed(bundle, house, lambda log: log["own"].insert(0, log["own"][0]))
    assert set(failing(doubled, house)) == {"custody"}
    assert set(failing(changed(bundle, house, lambda log: log.update(own=[])), house)) == {"custody"}


def test_the_statement_that_another_export_was_asked_for_does_not_serve(house: House) -> None:
    house.job(parties=("north",))
    bundle = house.export(house.of_job(), "north", ())
    document = parse(bundle)
    document["body"]["export_id"] = export_id(77)
    signature = house.keys["north"].sign(signed_bytes(document["body"]))
    document["signature"]["sig"] = b64encode(signature)
    found = failing(canonicalize(document), house)
    assert "asked for" in found["custody"]


def test_an_export_that_was_not_asked_for_is_not_made(house: House) -> None:
    house.job(parties=("north",))
    with pytest.raises(AuditError, match="doesn't state that this export was asked for"):
        compose_bundle(
            export_id=export_id(1),
            signer=house.keys["north"],
            clock=house.clock,
            recipient="auditor",
            selection=house.of_job(),
            exporter=house.logs["north"],
            credentials={},
        )


def test_two_exports_made_at_once_can_not_both_follow_the_same_one(house: House) -> None:
    house.job(parties=("north",))
    record = AccessRecord(house.logs["north"], house.keys["north"], house.clock)
    record.state_access(AUDITOR, "export", "job", export_id(50))
    slow = compose_bundle(
        export_id=export_id(50),
        signer=house.keys["north"],
        clock=house.clock,
        recipient="auditor",
        selection=house.of_job(),
        exporter=house.logs["north"],
        credentials={},
    )
    house.writers.clear()
    house.export(house.of_job(), "north", ())
    late = AccessRecord(house.logs["north"], house.keys["north"], house.clock)
    with pytest.raises(AuditError, match="meanwhile"):
        late.state_export(slow)


# A chain of nothing


def chained(*bundles: bytes) -> Check:
    return check_custody_chain(bundles)


def test_less_than_two_exports_are_no_chain(house: House) -> None:
    house.job(parties=("north",))
    bundle = house.export(house.of_job(), "north", ())
    assert chained().outcome is Outcome.NOT_RUN
    assert chained(bundle).outcome is Outcome.NOT_RUN


def test_exports_with_no_log_in_common_are_no_chain(house: House) -> None:
    house.job(parties=("north",))
    house.job(OTHER_JOB, parties=("south",))
    one = house.export(house.of_job(), "north", ())
    other = house.export(house.of_job(OTHER_JOB), "south", ())
    assert chained(one, other).outcome is Outcome.NOT_RUN
    verdict = verify_artifact(other, house.trust, Demands(previous=(one,)), CheckRegistry)
    (failure,) = verdict.failures
    assert (failure.id, failure.outcome) == ("custody-chain", Outcome.NOT_RUN)
    assert "no log in common" in failure.detail


def test_a_forged_export_is_no_link(house: House) -> None:
    house.job(parties=("north",))
    first, second = (house.export(house.of_job(), "north", ()) for _ in range(2))
    assert verify_custody_chain((first, second), house.trust).outcome is Outcome.PASSED
    document = parse(first)
    document["body"]["recipient"] = "somebody else"
    for chain in ((canonicalize(document), second), (second, canonicalize(document))):
        forged = verify_custody_chain(chain, house.trust)
        assert forged.outcome is Outcome.FAILED
        assert "refused: export-signature" in forged.detail


def test_a_stream_that_was_forked_to_hide_an_export_shows_it_in_an_export_of_the_period(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    for reader in ("log", "reading"):  # its owner has a program of its own
        monkeypatch.setattr(
            f"cloister.evidence.log.{reader}.lies_where_stated", lambda *_: True, raising=False
        )
    house.job(parties=("north",))
    house.export(house.of_job(), "north", ())
    log, key = house.logs["north"], house.keys["north"]
    (asked,) = (
        one for one in own_backwards(log) if isinstance(open_statement(one.envelope).predicate, Access)
    )
    hidden = asked_subject(export_id(9))
    update = {"sequence": 1, "previous": asked.envelope.payload_sha256, "recorded_at": house.moment(20)}
    fork = Statement((hidden,), open_statement(asked.envelope).predicate.model_copy(update=update))
    log.append(sign_statement(fork, key), stream=log_stream(log.origin), position=2)
    house.seconds = 100
    bundle = compose_bundle(
        export_id=export_id(9),
        signer=key,
        clock=house.clock,
        recipient="auditor",
        selection=house.of_period(-10, 90),
        exporter=log,
        credentials={},
    )
    found = failing(bundle, house)
    assert {"statement-chain", "custody"} <= set(found)
