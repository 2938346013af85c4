"""Whatever leaves a site was stated before, bound to key, manifest and verdict; else nothing leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nvflare.apis.dxo import from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContextManager
from nvflare.apis.shareable import ReservedHeaderKey, Shareable, make_reply
from nvflare.app_common.app_constant import AppConstants

from cloister.core.clock import Clock
from cloister.core.errors import StorageError
from cloister.core.hashes import sha256_hex
from cloister.enclave.tensors import tensors_sha256
from cloister.evidence.change_limit import Descent, change_limit
from cloister.evidence.predicates import Predicate, UpdateReleased, Violation
from cloister.federation import SiteRuntime
from cloister.federation.flare.filter import AirlockFilter
from cloister.federation.flare.messages import (
    ERROR_CODE,
    RAW_RESULT,
    SCALARS,
    SITE_LOG,
    SITE_NODE,
    UPDATE_SHA256,
)
from cloister.federation.hub import initial_weights
from cloister.policy.manifest import AirlockTerms, NormBound
from tests.federation.nodes import a_job
from tests.federation.parties import CLASSES, FEATURES, RECORDS, Federation

JOB = a_job(
    clients=("north", "south"),
    min_clients=1,
    rounds=3,
    privacy={"noise_multiplier": 2.0, "target_epsilon": 100.0, "delta": 1e-3},
    training={"sampling_probability": 0.25, "local_steps": 3, "learning_rate": 0.5},
)
START = initial_weights(JOB, FEATURES, CLASSES)
TERMS = AirlockTerms(max_update_bytes=1000, norm_bound=NormBound.FROM_CLIPPING, mantissa_bits=12)


@pytest.fixture
def parties(tmp_path: Path, clock: Clock) -> Iterator[Federation]:
    made = Federation(JOB, tmp_path, clock, airlock=TERMS)
    yield made
    made.close()


def never() -> bool:
    return False


def sent(site: SiteRuntime, round_number: int, raw: object) -> Shareable:
    """What leaves when a task's raw result reaches the last filter of the site."""
    manager = FLContextManager(
        engine=None, identity_name="north", job_id=JOB.job_id, private_stickers={SITE_NODE: site}
    )
    reply = make_reply(ReturnCode.OK)
    reply.set_header(AppConstants.CURRENT_ROUND, round_number)
    reply[RAW_RESULT] = raw
    reply["records"] = "whatever else stood in the message"
    return AirlockFilter().process(reply, manager.new_context())


def said(parties: Federation) -> list[Predicate]:
    return [statement.predicate for statement in parties.acts("north")]


def require_stated(parties: Federation, message: Shareable, before: int) -> None:
    """The rule: a message with weights has its statement in the log; one without has no weights."""
    added = said(parties)[before:]
    if message.get_return_code() != ReturnCode.OK:
        assert not [one for one in added if isinstance(one, UpdateReleased)]
        assert set(message) <= {ReservedHeaderKey.HEADERS, "__headers__"}
        assert ERROR_CODE in message["__headers__"]
        return
    (stated,) = added
    assert isinstance(stated, UpdateReleased)
    left = from_shareable(message)
    assert tensors_sha256(left.data) == stated.update_sha256 == left.meta[UPDATE_SHA256]
    assert left.meta[SCALARS] == {}
    assert {one for one in left.meta if one.startswith("cloister.")} == {UPDATE_SHA256, SCALARS, SITE_LOG}
    assert "records" not in message
    assert stated.manifest_sha256 == sha256_hex(b"manifest of north")
    assert stated.attested_key_id == parties.signers["north"].public_key.key_id
    assert stated.max_bytes == 1000
    assert stated.mantissa_bits == 12
    assert "bounded-change" in stated.constraints
    assert all(not (one.view(np.uint32) & np.uint32(2**11 - 1)).any() for one in left.data.values())


def test_a_trained_update_leaves_with_its_statement(parties: Federation) -> None:
    site = parties.site("north")
    raw = site.train_round(parties.task(0, START), never)
    before = len(said(parties))
    message = sent(site, 0, raw)
    assert message.get_return_code() == ReturnCode.OK
    require_stated(parties, message, before)
    stated = said(parties)[-1]
    assert isinstance(stated, UpdateReleased)
    limit = change_limit(
        Descent(
            clip_norm=1.0,
            noise_multiplier=2.0,
            sampling_probability=0.25,
            units=RECORDS["north"],
            steps=3,
            learning_rate=0.5,
            parameters=sum(one.size for one in START.values()),
        )
    )
    assert stated.change is not None
    assert stated.change.l2 == limit.rounded_to(stated.mantissa_bits).l2


def smuggled(kind: str, weights: dict[str, np.ndarray], random: np.random.Generator) -> object:
    name = sorted(weights)[0]
    if kind == "honest":
        return {"params": weights}
    if kind == "another tensor":
        return {"params": weights | {"records": random.normal(size=9).astype(np.float32)}}
    if kind == "a metric":
        return {"params": weights, "metrics": {"loss": float(random.normal())}}
    if kind == "records at full scale":
        return {"params": weights | {name: random.normal(size=weights[name].shape).astype(np.float32) * 300}}
    if kind == "another type":
        return {"params": weights | {name: weights[name].astype(np.float64)}}
    if kind == "a section":
        return {"params": weights, "meta": {"pii": "x"}}
    if kind == "nothing":
        return {"params": {}}
    return [weights]


KINDS = (
    "honest",
    "another tensor",
    "a metric",
    "records at full scale",
    "another type",
    "a section",
    "nothing",
    "another thing",
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(KINDS), number=st.integers(0, 2), seed=st.integers(0, 2**32))
def test_nothing_leaves_without_an_airlocks_statement(
    trained: tuple[Federation, SiteRuntime], kind: str, number: int, seed: int
) -> None:
    parties, site = trained
    random = np.random.default_rng(seed)
    before = len(said(parties))
    weights = {name: (value + np.float32(0.01)).copy() for name, value in START.items()}
    message = sent(site, number, smuggled(kind, weights, random))
    assert (message.get_return_code() == ReturnCode.OK) is (kind == "honest" and number == 0)
    require_stated(parties, message, before)
    if kind not in ("honest", "another thing") and number == 0:
        assert isinstance(said(parties)[-1], Violation)


@pytest.fixture
def trained(parties: Federation) -> tuple[Federation, SiteRuntime]:
    site = parties.site("north")
    site.train_round(parties.task(0, START), never)
    return parties, site


def test_where_the_statement_cannot_be_written_nothing_leaves(
    parties: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = parties.site("north")
    raw = site.train_round(parties.task(0, START), never)
    write: Callable[..., object] = parties.writers["north"].write

    def full(kind: type[Predicate], *rest: object, **fields: object) -> object:
        if kind is UpdateReleased:
            raise StorageError("storage.no_space", "There is no space left.")
        return write(kind, *rest, **fields)

    monkeypatch.setattr(parties.writers["north"], "write", full)
    message = sent(site, 0, raw)
    assert message.get_return_code() == ReturnCode.EXECUTION_RESULT_ERROR
    assert message.get_header(ERROR_CODE) == "storage.no_space"
    assert not [one for one in said(parties) if isinstance(one, UpdateReleased)]


def test_a_whole_job_moves_only_what_was_stated(parties: Federation) -> None:
    result = parties.run()
    stated = {
        (site, one.round): one
        for site in JOB.clients
        for one in (statement.predicate for statement in parties.acts(site))
        if isinstance(one, UpdateReleased)
    }
    assert set(stated) == {(site, number) for site in JOB.clients for number in range(JOB.rounds)}
    assert len(result.rounds) == JOB.rounds


def test_an_update_is_measured_from_what_this_round_received(parties: Federation) -> None:
    """Weights that were fine in one round are too far in the next, which began elsewhere."""
    site = parties.site("north")
    first = site.train_round(parties.task(0, START), never)
    site.release(0, first)
    far = {name: value + np.float32(500) for name, value in START.items()}
    site.train_round(parties.task(1, far), never)
    message = sent(site, 1, first)
    assert message.get_header(ERROR_CODE) == "airlock.refused"
    assert isinstance(said(parties)[-1], Violation)
