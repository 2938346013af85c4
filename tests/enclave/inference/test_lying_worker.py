"""A worker whose code was taken over: it has its node sign, state and pass on nothing of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.clock import system_clock
from cloister.enclave import Evidence, SimulatedVendor
from cloister.enclave.errors import InferenceError, SealedError
from cloister.enclave.inference import (
    Hello,
    InferenceListener,
    InferenceService,
    Metering,
    ModelDescription,
    SocketEndpoint,
    Tally,
    Welcome,
    open_session,
)
from cloister.enclave.inference.messages import inference_binding
from cloister.enclave.sealed import SealedHost
from cloister.evidence.predicates import Destruction, Violation
from cloister.evidence.statement import open_statement
from tests.enclave.attestation_scene import MEASUREMENT
from tests.enclave.inference.hostile_server import COUNTS, LIES
from tests.enclave.inference.test_operator import MODEL, log_of, verifier
from tests.enclave.keyrelease.scene import appraisal
from tests.enclave.sealed.scene import started
from tests.enclave.wire import serving

ROWS = np.zeros((3, 8), np.float32)


@pytest.fixture(scope="module")
def vendor() -> SimulatedVendor:
    return SimulatedVendor.create(system_clock)


@pytest.fixture(scope="module")
def lying() -> Iterator[SealedHost]:
    with started("hostile_server", "inference") as (made, _):
        yield made


class Machine:
    """A machine that notes what it was asked to seal in."""

    def __init__(self, vendor: SimulatedVendor) -> None:
        self._quote, self.asked = vendor.platform("provider", MEASUREMENT).quote, list[bytes]()

    def quote(self, report_data: bytes) -> Evidence:
        self.asked.append(report_data)
        return self._quote(report_data)


def served(host: SealedHost, machine: Machine, lie: str) -> InferenceService:
    description = ModelDescription("logistic-regression", {"lie": lie}, 8)
    try:
        return InferenceService.start(host, description, MODEL, quote=machine.quote, simulated=True)
    except SealedError as error:
        if error.code == "sealed.measure_missing":
            pytest.skip(f"this kernel refuses: {', '.join(error.details)}")
        raise


def test_the_machine_seals_in_what_its_node_composed(lying: SealedHost, vendor: SimulatedVendor) -> None:
    machine = Machine(vendor)
    with served(lying, machine, "none") as service:
        session = open_session(service.connect(), verifier(vendor), appraisal())
        assert session.predict(ROWS).shape == (3, 2)
        hello = Hello(bytes(range(32)), "a" * 64)
        line = service.connect()
        public = Welcome.decode(line.hello(hello.encode())).public
        composed = inference_binding(hello, public, service.card, service.seal)
        assert machine.asked[1:] == [composed.report_data()]


@pytest.mark.parametrize("lie", LIES)
def test_a_worker_that_says_something_else_than_was_agreed_is_ended_and_that_is_stated(
    lying: SealedHost, vendor: SimulatedVendor, lie: str, tmp_path: Path
) -> None:
    machine = Machine(vendor)
    if lie == "other-card":
        with pytest.raises(SealedError) as caught:
            served(lying, machine, lie)
        assert (caught.value.code, machine.asked) == ("sealed.protocol", [])
        return
    with log_of(tmp_path) as (log, writer):
        service = served(lying, machine, lie)
        with Metering(service, writer, system_clock):
            if lie in COUNTS:
                open_session(service.connect(), verifier(vendor), appraisal()).predict(ROWS)
                with pytest.raises(SealedError) as caught:
                    service.take_bill()
            else:
                with pytest.raises(SealedError) as caught:
                    open_session(service.connect(), verifier(vendor), appraisal()).predict(ROWS)
                assert len(machine.asked) == (0 if "key" in lie or "report" in lie else 1)
            assert caught.value.code == "sealed.protocol"
            with pytest.raises(SealedError):
                service.connect().hello(Hello(bytes(32), "0" * 64).encode())
        violation, destroyed = (open_statement(log.entry(index)).predicate for index in range(log.size))
        assert "a record" not in f"{violation} {destroyed}"
    assert isinstance(violation, Violation)
    assert isinstance(destroyed, Destruction)


def test_every_client_of_a_worker_that_was_ended_hears_one_sentence_and_its_service_stops(
    lying: SealedHost, vendor: SimulatedVendor, tmp_path: Path
) -> None:
    with (
        served(lying, Machine(vendor), "longer-answer") as service,
        serving(InferenceListener(str(tmp_path / "socket")), service) as listener,
    ):
        service.on_end = listener.close
        endpoints = [SocketEndpoint(listener.address) for _ in range(2)]
        first, second = (open_session(one, verifier(vendor), appraisal()) for one in endpoints)
        with pytest.raises(InferenceError) as caught:
            first.predict(ROWS)
        assert str(caught.value) == "Nothing serves here any more: the worker has ended."
        with pytest.raises(InferenceError) as caught:
            second.predict(ROWS)
        assert caught.value.code == "inference.worker"
        for one in endpoints:
            one.close()


@given(
    st.integers(0, 50),
    st.integers(0, 10**6),
    st.dictionaries(
        st.sampled_from(["requests", "predictions", "x"]),
        st.one_of(st.integers(-2, 10**6), st.booleans(), st.text(), st.floats(), st.none()),
    ),
)
def test_a_bill_is_one_that_can_be_true_or_none(answered: int, rows: int, said: dict[str, int]) -> None:
    tally = Tally(sessions=1, answered=answered, rows=max(answered, rows), refused=2)
    try:
        bill = tally.billed(dict(said))
    except SealedError:
        return
    assert 0 <= bill.requests <= answered
    assert bill.requests <= bill.predictions <= tally.rows
    assert bill.requests + bill.refused == answered + 2
    assert {type(one) for one in bill.as_json().values()} == {int}
