"""Pramaan property 15: whatever was stated in whichever order, an audit request gets what verifies, whole.

Random streams of events over three parties and three jobs, with a clock that sometimes stands still or steps
back a little; then a random job or period is exported, and a dishonest exporter tampers with it.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st

from cloister.core.canonical import JSON, b64encode, canonicalize, parse
from cloister.core.hashes import sha256_hex
from cloister.evidence.checks import Outcome
from cloister.evidence.custody import Outside, check_custody_chain, verify_bundle
from cloister.evidence.custody.access import accesses
from cloister.evidence.custody.bundle import signed_bytes
from cloister.evidence.predicates import Export
from tests.evidence.custody.house import JOB, OTHER_JOB, House
from tests.nightly import nightly_seed

THIRD_JOB = "77777777-2222-4333-8444-555555555555"
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
QUIET = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
EXAMPLES = settings(max_examples=200, deadline=None, suppress_health_check=QUIET)
FEWER = settings(EXAMPLES, max_examples=60)
PARTS = 4
A_PART = settings(EXAMPLES, max_examples=EXAMPLES.max_examples // PARTS)

Event = tuple[str, str, str, float]

parties = st.sampled_from(["hub", "north", "south"])
events = st.tuples(
    parties,
    st.sampled_from([JOB, OTHER_JOB, THIRD_JOB]),
    st.sampled_from(["state", "state", "state", "close"]),
    st.sampled_from([-20.0, -1.0, 0.0, 0.0, 5.0]),
)
streams = st.lists(events, min_size=1, max_size=14)


@dataclass
class Told:
    """How many statements each party made about each job, and about which it closed."""

    counts: dict[tuple[str, str], int]
    closed: set[tuple[str, str]]


def tell(house: House, stream: list[Event]) -> Told:
    """Let the parties state a stream of events; what comes after a closing is left out."""
    told = Told({}, set())
    for party, job, kind, step in stream:
        if (party, job) in told.closed:
            continue
        house.seconds = max(0, house.seconds + step)
        if kind == "close":
            house.close(party, job)
            told.closed.add((party, job))
        else:
            house.state(party, job, f"event of {party}")
        told.counts[party, job] = told.counts.get((party, job), 0) + 1
    house.seconds += 100
    return told


@EXAMPLES
@given(stream=streams, job=st.sampled_from([JOB, OTHER_JOB, THIRD_JOB]), exporter=parties)
def test_every_job_of_a_random_stream_is_exported_whole(stream: list[Event], job: str, exporter: str) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, House(Path(folder)) as house:
        told = tell(house, stream)
        spoke = {party for party, about in told.counts if about == job}
        assume(spoke)
        bundle = house.export(house.of_job(job), exporter, ("hub", "north", "south"))
        verdict = verify_bundle(bundle, house.trust)
        assert verdict.record is not None
        found = {origin: len(group) for origin, group in verdict.record.statements.items() if group}
        assert sum(found.values()) == sum(told.counts[party, job] for party in spoke)
        whole = all((party, job) in told.closed for party in spoke)
        whole = whole and (exporter != "hub" or "hub" in spoke)
        assert {one.id for one in verdict.failures} == (set() if whole else {"completeness"})


@EXAMPLES
@given(stream=streams, start=st.floats(-30, 60), length=st.floats(0.001, 90), exporter=parties)
def test_every_period_of_a_random_stream_is_exported_whole(
    stream: list[Event], start: float, length: float, exporter: str
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, House(Path(folder)) as house:
        tell(house, stream)
        house.seconds += 100
        selection = house.of_period(start, start + length)
        bundle = house.export(selection, exporter, ("hub", "north", "south"))
        verdict = verify_bundle(bundle, house.trust, Outside(owners_word=True))
        assert verdict.accepted, verdict.failures
        assert verify_bundle(bundle, house.trust).accepted != verdict.owners_word
        assert verdict.record is not None
        shown = {(one.origin, one.entry.index) for one in verdict.record.selected}
        for log in house.logs.values():
            for index, envelope in enumerate(log.envelopes()):
                when = cast(str, parse(envelope.payload)["predicate"]["recorded_at"])
                if cast(str, selection.start) <= when < cast(str, selection.end):
                    assert (log.origin, index) in shown


TAMPERINGS = ("edit", "drop", "duplicate", "swap", "truncate", "renumber", "redate")


@FEWER
@given(data=st.data())
def test_no_exporter_can_tamper_with_what_it_exports_and_signs(data: st.DataObject) -> None:
    tampered_and_refused(data)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_no_exporter_can_tamper_in_any_of_two_hundred_ways(part: int) -> None:
    seed(nightly_seed() * PARTS + part)(A_PART(given(data=st.data())(tampered_and_refused)))()


def tampered_and_refused(data: st.DataObject) -> None:
    """Draw an export, let its exporter change and sign it, and see it refused."""
    stream = data.draw(st.lists(events, min_size=3, max_size=10), "stream")
    of_job = data.draw(st.booleans(), "of a job")
    how = data.draw(st.sampled_from(TAMPERINGS), "how")
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, House(Path(folder)) as house:
        for party in ("hub", "north", "south"):
            house.state(party)
        tell(house, [(party, JOB, "state", 0.0) for party, *_ in stream])
        for party in ("hub", "north", "south"):
            house.close(party)
        house.seconds += 100
        selection = house.of_job() if of_job else house.of_period(-1, house.seconds - 50)
        document = parse(house.export(selection))
        origin = data.draw(st.sampled_from(sorted(document["body"]["logs"])))
        entries = document["body"]["logs"][origin]["entries"]
        place = data.draw(st.integers(0, len(entries) - 1))
        tamper(entries, place, how)
        signature = house.keys["hub"].sign(signed_bytes(document["body"]))
        document["signature"]["sig"] = b64encode(signature)
        verdict = verify_bundle(canonicalize(document), house.trust)
        assert not verdict.accepted


def tamper(entries: list[JSON], place: int, how: str) -> None:
    """Change what an export says in one of the ways that leave it readable."""
    entry = entries[place]
    match how:
        case "edit":
            payload = bytearray(payload_of(entry))
            at = payload.index(b'"sequence":')
            payload[at + len(b'"sequence":')] ^= 1
            entry["envelope"]["payload"] = b64encode(bytes(payload))
        case "drop":
            del entries[place]
        case "duplicate":
            entries.insert(place, entry)
        case "swap":
            other = place - 1 if place else len(entries) - 1
            assume(other != place)
            entries[place], entries[other] = entries[other], entries[place]
        case "truncate":
            del entries[place:]
        case "renumber":
            entry["index"] += 1
        case "redate":
            payload = payload_of(entry).replace(b'"recorded_at":"2026', b'"recorded_at":"2025')
            entry["envelope"]["payload"] = b64encode(payload)


def payload_of(entry: JSON) -> bytes:
    """The payload of an exported entry."""
    import base64

    return base64.b64decode(entry["envelope"]["payload"])


def expected(exporters: list[str], gone: list[int]) -> Outcome:
    """What a chain of exports comes to, of which some are missing."""
    for place in gone:
        if exporters[place] in exporters[:place] and exporters[place] in exporters[place + 1 :]:
            return Outcome.FAILED
    rest = [one for place, one in enumerate(exporters) if place not in gone]
    alone = len(rest) < 2 or any(rest[place] not in rest[:place] for place in range(1, len(rest)))
    return Outcome.NOT_RUN if alone else Outcome.PASSED


@FEWER
@given(data=st.data())
def test_a_missing_export_is_noticed_whoever_exported(data: st.DataObject) -> None:
    missed_and_noticed(data)


@pytest.mark.nightly
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_a_missing_export_is_noticed_in_each_of_two_hundred_chains(part: int) -> None:
    seed(nightly_seed() * PARTS + part)(A_PART(given(data=st.data())(missed_and_noticed)))()


def missed_and_noticed(data: st.DataObject) -> None:
    """Draw a chain of exports, take one out, and see it missed where it can be."""
    exporters = data.draw(st.lists(parties, min_size=2, max_size=4), "exporters")
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder, House(Path(folder)) as house:
        house.job(parties=("hub", "north", "south"))
        bundles = [house.export(house.of_job(), exporter, ()) for exporter in exporters]
        assert check_custody_chain(bundles).outcome is expected(exporters, [])
        gone = data.draw(st.integers(0, len(bundles) - 2))
        rest = [*bundles[:gone], *bundles[gone + 1 :]]
        assert check_custody_chain(rest).outcome is expected(exporters, [gone])
        stated = {
            one.statement.bundle_sha256
            for log in house.logs.values()
            for one in accesses(log)
            if isinstance(one.statement, Export)
        }
        assert stated == {sha256_hex(bundle) for bundle in bundles}
