"""The checks of a verdict: each has a name, an outcome and a sentence; none is left out of the list.

Authentication runs through *steps*, in an order, and stops at the first that fails. Appraisal makes
*findings*, all of them, so that a verdict names everything that is unacceptable.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from cloister.enclave.attestation.collateral import CollateralDocument
from cloister.enclave.errors import AttestationError


class CheckOutcome(StrEnum):
    """How one check of a verdict ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_RUN = "not_run"


@dataclass(frozen=True)
class AttestationCheck:
    """One check of a verdict."""

    name: str
    outcome: CheckOutcome
    detail: str


@dataclass(frozen=True)
class Finding:
    """One question of an appraisal, answered.

    Attributes:
        name: the check's name.
        code: the error code it stands for where it fails.
        right: the answer.
        detail: what was held against what; nothing of unauthenticated bytes.
    """

    name: str
    code: str
    right: bool
    detail: str

    @property
    def check(self) -> AttestationCheck:
        """The finding as a verdict lists it."""
        outcome = CheckOutcome.PASSED if self.right else CheckOutcome.FAILED
        return AttestationCheck(self.name, outcome, self.detail)


class Steps:
    """The steps of one authentication as they are taken.

    Args:
        names: all steps in their order.
    """

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._made: dict[str, AttestationCheck] = {}
        self._documents: tuple[CollateralDocument, ...] = ()

    @contextmanager
    def step(self, name: str, detail: str = "as it must be") -> Iterator[None]:
        """Take one step; an error within it is the step's failure.

        Args:
            name: one of the names.
            detail: what a verdict says where it passes.

        Raises:
            AttestationError: what was raised within.
        """
        try:
            yield
        except AttestationError as error:
            self._made[name] = AttestationCheck(name, CheckOutcome.FAILED, error.message)
            raise
        self._made[name] = AttestationCheck(name, CheckOutcome.PASSED, detail)

    def found(self, name: str, detail: str) -> None:
        """Say what a step that passed came upon."""
        self._made[name] = AttestationCheck(name, CheckOutcome.PASSED, detail)

    def skipped(self, name: str, why: str) -> None:
        """Note that a step couldn't be taken; whether that will do is for the appraisal to say."""
        self._made[name] = AttestationCheck(name, CheckOutcome.NOT_RUN, why)

    def uses(self, documents: tuple[CollateralDocument, ...]) -> None:
        """Note which documents the steps are taken with, so that a refusal can be judged again too."""
        self._documents = documents

    @property
    def documents(self) -> tuple[CollateralDocument, ...]:
        """The documents that were noted."""
        return self._documents

    @property
    def checks(self) -> tuple[AttestationCheck, ...]:
        """Every step in its order; those after a failure weren't run."""
        missing = "not run: an earlier check failed"
        return tuple(
            self._made.get(name, AttestationCheck(name, CheckOutcome.NOT_RUN, missing))
            for name in self._names
        )
