"""What would stop a job after its training, looked at before any budget is spent.

A spent budget doesn't come back. So the model as it starts, which has the form of the one that will be
released, is measured and held against the manifests' constraints first.
"""

from __future__ import annotations

from typing import Final

from cloister.core.errors import InputError
from cloister.enclave.model_file import encode_model
from cloister.evidence.receipt import MAX_RECEIPT_BYTES
from cloister.federation import FederationJob
from cloister.federation.hub import initial_weights
from cloister.health import TestSet
from cloister.workflow.release import Goal, hold_against, measure_model, require_satisfied
from cloister.workflow.scoring import CLASSES

SITE_ROUND_BYTES: Final = 8_000
"""About what a site's statements and proofs of one round take in a receipt; a test measures it."""
TENSOR_BYTES: Final = 250
"""And each tensor of its update."""


def require_releasable(job: FederationJob, test: TestSet, goal: Goal) -> None:
    """Refuse a job whose model couldn't be measured or released, however well it trains.

    Args:
        job: Names model and seed.
        test: The test set.
        goal: The hospitals' metric and constraints.

    Raises:
        InputError: The metric is undefined on this test set, or its labels are not two classes.
        ModelError: The job's model can't be built.
        PolicyError: ``policy.refused``: the model's form breaks a constraint.
    """
    start = initial_weights(job, test.features.shape[1], CLASSES)
    require_receipt_fits(len(job.clients), job.rounds, len(start))
    measure_model(job, start, test, goal)
    constraints = hold_against(encode_model(start), start, goal, job.privacy.mechanism)
    # A mock is known to be refused; the rest of its constraints are worth asking for.
    require_satisfied([one for one in constraints if one.name != "private-training"])


def require_receipt_fits(sites: int, rounds: int, tensors: int) -> None:
    """Refuse a job that would make more statements than one receipt holds.

    Args:
        sites: how many take part.
        rounds: how many rounds there are.
        tensors: how many an update has.

    Raises:
        InputError: ``input.too_large``.
    """
    expected = sites * rounds * (SITE_ROUND_BYTES + TENSOR_BYTES * tensors)
    if expected > MAX_RECEIPT_BYTES:
        raise InputError(
            "input.too_large",
            f"The receipt of {rounds} rounds at {sites} sites would have about {expected // 2**20} MiB; "
            f"at most {MAX_RECEIPT_BYTES // 2**20} MiB are verified.",
            "Ask for fewer rounds with more local steps, or go on from the model in a second job.",
        )
