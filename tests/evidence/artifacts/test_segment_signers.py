"""Whose segments they are: pinned, rotated and certified keys, and the party that somebody demands."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from cloister.core.errors import InputError
from cloister.core.keys import EphemeralKeyStore, Signer
from cloister.evidence import Trust, TrustEntry
from cloister.evidence.artifacts import ArtifactKind, ArtifactVerdict, Demands, verify_artifact
from cloister.evidence.checks import CheckRegistry
from cloister.evidence.errors import DemandError, TrustError
from cloister.evidence.pki.issuing import Reason, Revocation
from cloister.evidence.predicates import Role
from cloister.evidence.segments import FileSink, OpeningKey, SegmentWriter
from cloister.evidence.trust import write_trust
from tests.conftest import START
from tests.evidence.pki.scene import DAY, Scene


class Site:
    """A site that signed its stream with one key after the other, an hour each."""

    def __init__(self, place: Path, keys: Sequence[Signer], at: datetime = START + DAY) -> None:
        self.folder, self.sink, now = place / "audit", place / "held.jsonl", [at]
        self.folder.mkdir()
        opening, sink = OpeningKey.generate(), FileSink(self.sink)
        writer = SegmentWriter(
            self.folder, "immune", keys[0], opening.sealing_key, sinks=[sink], clock=lambda: now[0]
        )
        for number, key in enumerate(keys):
            if number:
                writer.rotate(key)
            writer.append_durable({"call": number})
        writer.close()
        sink.close()

    def judge(self, trust: Trust, source: Path | None = None, **demands: object) -> ArtifactVerdict:
        wanted = Demands(held=(self.sink.read_bytes(),), **demands)  # type: ignore[arg-type]
        return verify_artifact(source or self.folder, trust, wanted, CheckRegistry, kind=ArtifactKind.SEGMENT)


def pinned(party: str, key: Signer, *, former: bool = False) -> TrustEntry:
    return TrustEntry(Role.SITE, party, key.public_key.pem.encode(), former=former)


def keys(count: int) -> list[Signer]:
    store = EphemeralKeyStore()
    return [store.generate(str(number)) for number in range(count)]


def refused(verdict: ArtifactVerdict) -> dict[str, str]:
    return {check.id: check.detail for check in verdict.failures}


def test_segments_from_before_a_rotation_are_verified_by_the_partys_former_keys(tmp_path: Path) -> None:
    made = keys(3)
    site = Site(tmp_path, made)
    *former, last = made
    assert "segment-signer" in refused(site.judge(Trust([pinned("north", last)])))
    kept = [pinned("north", last), *(pinned("north", one, former=True) for one in former)]
    verdict = site.judge(Trust(kept))
    assert verdict.accepted, verdict.failures
    assert verdict.facts["signed by"] == "site north"
    write_trust(tmp_path / "trust", kept)
    assert site.judge(Trust.load(tmp_path / "trust")).accepted


def test_a_former_key_is_one_partys_in_one_role(tmp_path: Path) -> None:
    now, before = keys(2)
    trust = Trust([pinned("north", now), pinned("north", before, former=True)])
    assert trust.keys(Role.SITE, "north", at=START) == (now.public_key, before.public_key)
    for entries in (
        [pinned("north", now), pinned("south", now, former=True)],
        [pinned("south", before, former=True), pinned("north", before)],
        [TrustEntry(Role.HUB, "hub", now.public_key.pem.encode()), pinned("north", now, former=True)],
        [TrustEntry(Role.TSA, "clock", now.public_key.pem.encode(), former=True)],
    ):
        with pytest.raises(TrustError):
            Trust(entries)


def test_certified_keys_sign_segments_while_their_certificates_hold(tmp_path: Path) -> None:
    scene = Scene()
    chain = scene.chain().encode()
    for name, at, accepted in (("then", START + DAY, True), ("late", START + 31 * DAY, False)):
        (tmp_path / name).mkdir()
        site = Site(tmp_path / name, [scene.site_key], at)
        verdict = site.judge(scene.trust(), certificates=(chain,))
        assert verdict.accepted is accepted, verdict.failures
        assert accepted or list(refused(verdict)) == ["segment-signer"]
        assert {"segment-marks", "segment-signer"} <= refused(site.judge(scene.trust())).keys()
        assert refused(site.judge(Trust([]), certificates=(chain,))).keys() == {"segment-signer"}
        late = site.judge(scene.trust(), certificates=(chain,), at=START + 40 * DAY)
        assert list(refused(late)) == ["segment-signer"]


def test_a_segment_signed_after_its_certificate_was_revoked_is_refused(tmp_path: Path) -> None:
    scene = Scene()
    site = Site(tmp_path, [scene.site_key], START + 3 * DAY)
    chain = scene.chain().encode()
    for days, accepted in ((4, True), (2, False)):
        revoked = Revocation(scene.site.x509.serial_number, START + days * DAY, Reason.SUPERSEDED)
        lists = [scene.crl(revoked, until=START + 20 * DAY), scene.root_crl(until=START + 20 * DAY)]
        assert site.judge(scene.trust(lists), certificates=(chain,)).accepted is accepted


def test_keys_certified_one_after_the_other_sign_one_stream(tmp_path: Path) -> None:
    scene, (following,) = Scene(), keys(1)
    site = Site(tmp_path, [scene.site_key, following])
    chains = (scene.chain().encode(), scene.chain(scene.issue("north", following), scene.ca).encode())
    assert site.judge(scene.trust(), certificates=chains).accepted
    assert not site.judge(scene.trust(), certificates=chains[:1]).accepted
    assert not site.judge(scene.trust(), certificates=chains[1:]).accepted


def test_a_pinned_partys_certificates_count_for_nothing(tmp_path: Path) -> None:
    scene, (other,) = Scene(), keys(1)
    site = Site(tmp_path, [scene.site_key])
    trust = Trust([pinned("north", other)], authorities=[])
    assert "segment-signer" in refused(site.judge(trust, certificates=(scene.chain().encode(),)))


def test_what_is_no_certificate_refuses_the_segments(tmp_path: Path) -> None:
    (key,) = keys(1)
    site = Site(tmp_path, [key])
    assert list(refused(site.judge(Trust([pinned("north", key)]), certificates=(b"nothing",)))) == [
        "segment-signer"
    ]


def test_who_demands_a_partys_segments_is_given_no_others(tmp_path: Path) -> None:
    (key,) = keys(1)
    site = Site(tmp_path, [key])
    trust = Trust([pinned("north", key)])
    (file,) = site.folder.iterdir()
    for source in (site.folder, file):
        assert site.judge(trust, source, party=(Role.SITE, "north")).accepted
        for party in ((Role.SITE, "south"), (Role.HUB, "north")):
            assert list(refused(site.judge(trust, source, party=party))) == ["segment-signer"]
        with pytest.raises(DemandError):
            site.judge(trust, source, party=(Role.AUDITOR, "north"))


def test_a_party_is_demanded_of_segments_only(tmp_path: Path) -> None:
    with pytest.raises(DemandError):
        verify_artifact(
            b"", Trust([]), Demands(party=(Role.SITE, "x")), CheckRegistry, kind=ArtifactKind.CHECKPOINT
        )


def test_the_command_takes_chains_and_a_party(tmp_path: Path) -> None:
    from cloister.cli.verify import VerifyOptions, verify_command

    scene = Scene()
    site = Site(tmp_path, [scene.site_key], START + timedelta(hours=1))
    (tmp_path / "chain.pem").write_text(scene.chain())
    root = tmp_path / "trust" / "authority" / "site"
    root.mkdir(parents=True)
    (root / "example.pem").write_text(scene.root.pem)

    def run(party: str) -> int:
        return verify_command(
            VerifyOptions(
                artifact=site.folder,
                trust=tmp_path / "trust",
                held=(site.sink,),
                certificates=(tmp_path / "chain.pem",),
                party=party,
                quiet=True,
            )
        )

    assert run("site/north") == 0
    assert run("site/south") == 1
    for wrong in ("north", "site/", "nobody/north", "site/a b", "site/north/x"):
        with pytest.raises(InputError):
            run(wrong)
