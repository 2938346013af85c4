"""Whatever jobs do in whatever order, the ledger is never over a limit and never forgets."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
    run_state_machine_as_test,
)

from cloister.core.hashes import sha256_hex
from cloister.evidence.transcript import ADAPTIVE, FIXED_PLAN, Event, Gaussian, Mode, SampledGaussian
from cloister.privacy.budget import Limit, Scope
from cloister.privacy.errors import BudgetExceeded
from cloister.privacy.ledger import BudgetLedger, Purpose, Reservation
from cloister.privacy.ledger_entries import resize, size
from cloister.privacy.modes import epsilon_in, held_in
from tests.nightly import spread

DATASET = "wards"
RECORDS = sha256_hex(b"records")
DELTA = 1e-5
DATASET_LIMIT, JOB_LIMIT = 2.0, 1.2
LIMITS = [Limit("manifest", DATASET_LIMIT, Scope.DATASET), Limit("job", JOB_LIMIT, Scope.JOB)]

jobs = st.sampled_from(["a", "b", "c"])
events = st.one_of(
    st.builds(SampledGaussian, st.sampled_from([0.05, 0.2]), st.sampled_from([1.5, 3.0]), st.integers(1, 20)),
    st.builds(Gaussian, st.sampled_from([10.0, 30.0]), st.integers(1, 3)),
)


class Jobs(RuleBasedStateMachine):
    """Two openings of one file, used by three jobs; a plain list of what was done is the model."""

    MODE: ClassVar[Mode] = ADAPTIVE
    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "budget.sqlite"
        self.openings = [
            BudgetLedger.create(self.path, DATASET, DELTA, mode=self.MODE),
            BudgetLedger.open(self.path, DATASET),
        ]
        self.done: dict[str, tuple[str, Event | None]] = {}

    def of(self, job: str | None) -> list[Event]:
        return [event for owner, event in self.done.values() if event and job in (None, owner)]

    def epsilon(self, events: list[Event]) -> float:
        return epsilon_in(self.MODE, events, DELTA)

    @rule(target=held, job=jobs, event=events, opening=st.integers(0, 1))
    def reserve(self, job: str, event: Event, opening: int) -> Reservation | None:
        fits = (
            held_in(self.MODE, [*self.of(None), event], DELTA, DATASET_LIMIT) <= DATASET_LIMIT - 1e-6
            and held_in(self.MODE, [*self.of(job), event], DELTA, JOB_LIMIT) <= JOB_LIMIT - 1e-6
        )
        try:
            reservation = self.openings[opening].reserve(
                event,
                dataset_sha256=RECORDS,
                job_id=job,
                round_number=0,
                purpose=Purpose.TRAINING,
                limits=LIMITS,
            )
        except BudgetExceeded:
            assert not fits
            return None
        assert fits
        self.done[reservation.id] = (job, event)
        return reservation

    @rule(reservation=consumes(held), share=st.floats(0, 1), opening=st.integers(0, 1))
    def settle(self, reservation: Reservation | None, share: float, opening: int) -> None:
        if reservation is None:
            return
        executed = round(share * size(reservation.event))
        spent = self.openings[opening].settle(reservation, executed)
        kept = size(reservation.event) if self.MODE == FIXED_PLAN else executed
        assert spent == (resize(reservation.event, kept) if kept else None)
        self.done[reservation.id] = (reservation.job_id, spent)

    @rule(opening=st.integers(0, 1))
    def crash_and_open_again(self, opening: int) -> None:
        self.openings[opening].close()
        self.openings[opening] = BudgetLedger.open(self.path, DATASET)

    @invariant()
    def never_over_a_limit_and_never_forgetful(self) -> None:
        first, second = self.openings
        assert first.head == second.head
        assert first.events() == second.events()
        assert first.epsilon() == self.epsilon(self.of(None)) <= DATASET_LIMIT
        for job in ("a", "b", "c"):
            assert second.epsilon(job) == self.epsilon(self.of(job)) <= JOB_LIMIT

    def teardown(self) -> None:
        for opening in self.openings:
            opening.close()
        self.folder.cleanup()


class TestJobs(Jobs.TestCase):
    settings = settings(max_examples=12, stateful_step_count=15, deadline=None)


class FixedPlans(Jobs):
    """The same on a ledger of fixed plans, which gives nothing back."""

    MODE: ClassVar[Mode] = FIXED_PLAN


class TestFixedPlans(FixedPlans.TestCase):
    settings = settings(max_examples=3, stateful_step_count=10, deadline=None)


@pytest.mark.nightly
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_interleavings(record_property: Callable[[str, object], None]) -> None:
    """A case is 25 random histories of up to 40 acts: 1,000 interleavings of two openings and three jobs."""
    at_length = settings(max_examples=25, stateful_step_count=40, deadline=None, database=None)
    for _ in spread(range(100), record_property):
        run_state_machine_as_test(Jobs, settings=at_length)
