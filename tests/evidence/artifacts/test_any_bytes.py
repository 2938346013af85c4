"""Whatever is handed in, and whatever it is said to be: there is a verdict, and it refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.evidence import Trust
from cloister.evidence.artifacts import ArtifactKind, Demands, verify_artifact
from cloister.evidence.checks import CheckRegistry

NOBODY = Trust([])
FORMS = (
    b'{"body":{"checkpoints":{}',
    b'{"body":{"claims_not_made":[',
    b'{"at":"2026-11-21T14:00:00.000000Z","kind":"open","n":1,',
    b"cloister/site/north\n7\nAAAA\n",
)
BYTES = st.one_of(
    st.binary(max_size=300), st.tuples(st.sampled_from(FORMS), st.binary(max_size=200)).map(b"".join)
)


@given(data=BYTES, kind=st.sampled_from([None, *ArtifactKind]))
def test_any_bytes_get_a_verdict_that_refuses_them(data: bytes, kind: ArtifactKind | None) -> None:
    verdict = verify_artifact(data, NOBODY, Demands(), CheckRegistry, kind=kind)
    assert verdict.checks
    assert not verdict.accepted
    assert all(check.detail.isprintable() for check in verdict.checks)


@pytest.mark.parametrize("kind", [*ArtifactKind])
@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"a":' * 100_000, b"9" * 100_000, b"\xff\xfe", b"\n" * 5])
def test_hostile_shapes_are_refused_whatever_they_are_said_to_be(kind: ArtifactKind, data: bytes) -> None:
    assert not verify_artifact(data, NOBODY, Demands(), CheckRegistry, kind=kind).accepted
