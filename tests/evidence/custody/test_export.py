"""An export holds all that was asked for, and whoever has the public keys can tell."""

from __future__ import annotations

import pytest

from cloister.core.canonical import b64encode, canonicalize, parse
from cloister.core.hashes import sha256_hex
from cloister.core.keys import EphemeralKeyStore
from cloister.evidence import EvidenceError, Role, Statement, Subject, Trust, TrustEntry
from cloister.evidence.checks import Outcome
from cloister.evidence.custody import EXPORT_CHECK_IDS, check_custody_chain, decode_bundle, verify_bundle
from cloister.evidence.custody.access import accesses
from cloister.evidence.custody.bundle import signed_bytes
from cloister.evidence.predicates import Access, Export, JobClosed, RoundAggregated, Violation
from cloister.evidence.statement import sign_statement
from tests.evidence.custody.house import JOB, OTHER_JOB, House


def refused(bundle: bytes, house: House) -> set[str]:
    """The checks that a bundle doesn't pass."""
    return {one.id for one in verify_bundle(bundle, house.trust).failures}


def test_a_job_is_exported_whole_and_verifies_with_public_keys_alone(house: House) -> None:
    house.job()
    house.job(OTHER_JOB, ("hub", "south"))
    bundle = house.export(house.of_job())
    verdict = verify_bundle(bundle, house.trust)
    assert verdict.accepted, verdict.failures
    assert [one.id for one in verdict.checks] == list(EXPORT_CHECK_IDS)
    assert verdict.record is not None
    assert set(verdict.record.statements) == {"cloister/hub/hub", "cloister/site/north"}
    assert [type(one.predicate) for one in verdict.record.statements["cloister/site/north"]] == [
        Violation,
        Violation,
        Violation,
        JobClosed,
    ]


def test_a_period_is_exported_with_a_neighbour_on_either_side(house: House) -> None:
    house.job()
    bundle = house.export(house.of_period(3, 6))
    verdict = verify_bundle(bundle, house.trust)
    assert verdict.accepted, verdict.failures
    assert verdict.record is not None
    shown = [one.entry.index for one in verdict.record.statements["cloister/hub/hub"]]
    asked = [one.entry.index for one in verdict.record.selected if one.owner == "hub"]
    assert (shown, asked) == ([0, 1, 2, 3, 4], [1, 2])


@pytest.mark.parametrize(("start", "end"), [(-50, -40), (2.2, 2.8), (-50, 1000)])
def test_a_period_before_between_or_over_everything_is_provable(
    house: House, start: float, end: float
) -> None:
    house.job()
    house.seconds = 2000
    verdict = verify_bundle(house.export(house.of_period(start, end)), house.trust)
    assert verdict.accepted, verdict.failures


def test_an_empty_log_can_be_exported(house: House) -> None:
    verdict = verify_bundle(house.export(house.of_period(-2, 0), "south", ()), house.trust)
    assert verdict.accepted, verdict.failures


def test_a_refused_job_exports_its_violation(house: House) -> None:
    house.state("north", detail="the request asked for a purpose that the manifest prohibits")
    house.close("north", outcome="refused")
    verdict = verify_bundle(house.export(house.of_job(), "north", ()), house.trust)
    assert verdict.accepted
    assert verdict.record is not None
    first, last = (one.predicate for one in verdict.record.selected)
    assert isinstance(first, Violation)
    assert first.rule == "max-bytes"
    assert isinstance(last, JobClosed)
    assert last.outcome == "refused"


def test_an_open_job_is_exported_but_not_as_complete(house: House) -> None:
    house.state("hub")
    assert refused(house.export(house.of_job(), "hub", ()), house) == {"completeness"}


def test_a_job_nobody_knows_is_refused(house: House) -> None:
    house.job()
    with pytest.raises(EvidenceError, match="No log here") as error:
        house.export(house.of_job(OTHER_JOB))
    assert error.value.code == "evidence.export_refused"
    assert error.value.exit_code == 2


def test_a_period_that_has_not_ended_is_refused(house: House) -> None:
    with pytest.raises(EvidenceError, match="hasn't ended"):
        house.export(house.of_period(0, 5000))


def test_small_steps_back_of_the_clock_within_a_log_are_borne(house: House) -> None:
    house.state("hub")
    house.forge("hub", -30, OTHER_JOB)
    house.seconds += 100
    verdict = verify_bundle(house.export(house.of_period(-50, 60)), house.trust)
    assert verdict.accepted, verdict.failures


def test_a_clock_set_back_far_shows(house: House) -> None:
    house.seconds = 10_000
    house.state("hub")
    house.forge("hub", 1, OTHER_JOB)
    house.seconds = 20_000
    assert "statement-order" in refused(house.export(house.of_period(-5, 15_000)), house)


# Custody


def test_each_export_is_stated_before_it_is_handed_over_with_who_and_why(house: House) -> None:
    house.job()
    bundle = house.export(house.of_job())
    for party in ("hub", "north", "south"):
        if party == "south":
            assert accesses(house.logs[party]) == ()
            continue
        access, export = (one.statement for one in accesses(house.logs[party]))
        assert isinstance(access, Access)
        assert (access.actor, access.role, access.purpose) == ("os:auditor", "auditor", "yearly audit")
        assert isinstance(export, Export)
        assert export.bundle_sha256 == sha256_hex(bundle)
        assert export.recipient == "auditor"


def test_exports_form_a_chain_that_later_ones_hold_too(house: House) -> None:
    house.job()
    bundles = [house.export(house.of_job()), house.export(house.of_job(), "north", ())]
    bundles += [house.export(house.of_period(0, 10)), house.export(house.of_period(0, house.seconds))]
    for bundle in bundles:
        assert verify_bundle(bundle, house.trust).accepted
    chain = check_custody_chain(bundles)
    assert chain.outcome is Outcome.PASSED, chain.detail


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_an_export_that_is_missing_from_the_chain_is_located(house: House, gone: int) -> None:
    house.job()
    bundles = [house.export(house.of_job(), "north", ()) for _ in range(5)]
    after = decode_bundle(bundles[gone + 1]).body.export_id
    before = decode_bundle(bundles[gone - 1]).body.export_id
    chain = check_custody_chain(bundles[:gone] + bundles[gone + 1 :])
    assert chain.outcome is Outcome.FAILED
    assert f"export {after} doesn't follow {before}" in chain.detail


def test_a_predecessor_that_the_log_does_not_state_is_refused(house: House) -> None:
    house.job()
    house.export(house.of_job())
    body = parse(house.export(house.of_job()))
    assert isinstance(body, dict)
    bundle = resigned(body, house, lambda logs: logs["cloister/hub/hub"].update(previous="0" * 64))
    assert refused(bundle, house) == {"custody"}


def resigned(document, house: House, change) -> bytes:
    """What a dishonest exporter hands over: changed, and signed again."""
    from cloister.core.canonical import b64encode
    from cloister.evidence.custody.bundle import signed_bytes

    body = document["body"]
    change(body["logs"])
    signature = house.keys[body["exporter"]].sign(signed_bytes(body))
    return canonicalize({"body": body, "signature": {**document["signature"], "sig": b64encode(signature)}})


# Dishonest exporters


@pytest.mark.parametrize("dropped", [0, 1, 2, 3])
def test_no_statement_of_a_job_can_be_left_out(house: House, dropped: int) -> None:
    house.job()
    document = parse(house.export(house.of_job()))
    bundle = resigned(document, house, lambda logs: logs["cloister/site/north"]["entries"].pop(dropped))
    assert refused(bundle, house) & {"completeness", "statement-chain"}


def without_its_own(bundle: bytes, house: House, exporter: str) -> bytes:
    """An export of a job from which its exporter took all that it stated itself, and that it signed again."""
    document = parse(bundle)
    role = "hub" if exporter == "hub" else "site"
    document["body"]["logs"][f"cloister/{role}/{exporter}"]["entries"].clear()
    document["signature"]["sig"] = b64encode(house.keys[exporter].sign(signed_bytes(document["body"])))
    return canonicalize(document)


def test_a_hub_can_not_leave_out_all_that_it_stated_about_a_job(house: House) -> None:
    house.job()
    bundle = house.export(house.of_job())
    assert verify_bundle(bundle, house.trust).accepted
    assert refused(without_its_own(bundle, house, "hub"), house) == {"completeness"}


def test_a_site_whose_update_was_used_can_not_leave_out_all_that_it_stated(house: House) -> None:
    update = {"updates": {"north": sha256_hex(b"update")}, "weights": {"north": 1.0}, "absent": {}}
    models = {f"model_sha256_{one}": sha256_hex(one.encode()) for one in ("before", "after")}
    subjects = [Subject("model", models["model_sha256_after"])]
    house.writer("hub").write(RoundAggregated, subjects, round=0, strategy="FED_AVG", **update, **models)
    house.job()
    bundle = house.export(house.of_job(), "north", ("hub",))
    assert verify_bundle(bundle, house.trust).accepted, verify_bundle(bundle, house.trust).failures
    assert refused(without_its_own(bundle, house, "north"), house) == {"completeness"}


def test_a_site_that_had_no_part_in_a_job_can_export_what_the_hub_stated(house: House) -> None:
    house.job()
    assert verify_bundle(house.export(house.of_job(), "south", ("hub", "north")), house.trust).accepted


@pytest.mark.parametrize("dropped", range(6))
def test_no_entry_of_a_period_can_be_left_out(house: House, dropped: int) -> None:
    house.job()
    house.job(OTHER_JOB)
    document = parse(house.export(house.of_period(3, 11)))
    bundle = resigned(document, house, lambda logs: logs["cloister/hub/hub"]["entries"].pop(dropped))
    assert "completeness" in refused(bundle, house)


def test_a_period_can_not_be_narrowed(house: House) -> None:
    house.job()
    document = parse(house.export(house.of_period(0, 8)))

    def narrow(logs) -> None:
        log = logs["cloister/hub/hub"]
        log["span"]["start"] += 2

    assert refused(resigned(document, house, narrow), house) == {"completeness"}


def test_a_log_can_not_be_left_out_by_naming_none(house: House) -> None:
    house.job()
    document = parse(house.export(house.of_job()))
    bundle = resigned(document, house, lambda logs: logs.pop("cloister/hub/hub"))
    assert "trust" in refused(bundle, house)


def test_entries_of_another_log_do_not_serve(house: House) -> None:
    house.job()
    document = parse(house.export(house.of_job()))

    def swap(logs) -> None:
        logs["cloister/site/north"]["entries"] = logs["cloister/hub/hub"]["entries"]

    assert {"log-inclusion", "statement-signature"} <= refused(resigned(document, house, swap), house)


def test_an_export_signed_by_another_party_is_refused(house: House) -> None:
    house.job()
    bundle = house.export(house.of_job())
    stranger = EphemeralKeyStore().generate("stranger").public_key
    trust = Trust(
        [
            TrustEntry(Role.HUB, "hub", stranger.pem.encode()),
            TrustEntry(Role.SITE, "north", house.keys["north"].public_key.pem.encode()),
        ]
    )
    failures = {one.id for one in verify_bundle(bundle, trust).failures}
    assert {"export-signature", "checkpoint-signature", "statement-signature"} <= failures


def test_an_export_verifies_for_nobody_who_pins_no_key(house: House) -> None:
    house.job()
    failures = {one.id for one in verify_bundle(house.export(house.of_job()), Trust([])).failures}
    assert {"export-signature", "trust", "checkpoint-signature", "statement-signature"} <= failures


def test_the_sentences_about_what_is_not_proven_stand_word_for_word(house: House) -> None:
    house.job()
    document = parse(house.export(house.of_job()))
    document["body"]["claims_not_made"].pop()
    assert refused(resigned(document, house, lambda _: None), house) == {"claims"}


# Other spellings


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'{"body":', b'{ "body":'),
        (b'"schema":"urn:cloister:audit-export:v2"', b'"schema":"urn:cloister:audit-export:v1"'),
        (b'"recipient":"auditor"', b'"recipient":7'),
        (b'"index":0', b'"index":0.0'),
        (b'"index":1', b'"index":true'),
    ],
)
def test_another_spelling_or_schema_is_refused(house: House, old: bytes, new: bytes) -> None:
    house.job()
    bundle = house.export(house.of_job())
    assert old in bundle
    verdict = verify_bundle(bundle.replace(old, new, 1), house.trust)
    assert not verdict.accepted
    assert verdict.record is None


def test_any_flipped_byte_refuses_an_export(house: House) -> None:
    house.job(parties=("north",))
    bundle = bytearray(house.export(house.of_job(), "north", ()))
    for place in range(0, len(bundle), 97):
        bundle[place] ^= 1
        assert not verify_bundle(bytes(bundle), house.trust).accepted, place
        bundle[place] ^= 1


def test_a_closing_statement_that_counts_others_than_are_there_is_refused(house: House) -> None:
    house.state("north")
    envelope = house.logs["north"].envelopes()[0]
    closing = JobClosed(
        job_id=JOB,
        party="north",
        sequence=1,
        previous=envelope.payload_sha256,
        recorded_at=house.moment(50),
        statements=7,
        outcome="completed",
        hub_ending=None,
    )
    statement = Statement((Subject("job", sha256_hex(b"job")),), closing)
    house.logs["north"].append(sign_statement(statement, house.keys["north"]), stream=JOB, position=1)
    house.seconds = 60
    assert refused(house.export(house.of_job(), "north", ()), house) == {"completeness"}
