"""What may leave a site, by kind. A gate for whoever releases; a job's updates pass the enclave's airlock.

No job asks it: what leaves a job is weights, screened by :mod:`cloister.enclave.airlock`. Figures beside a
job (:mod:`cloister.workflow.figures`) pass it. Whoever makes releases, perturbed models or tunings by the
functions of this room asks it before handing them on.

Rules kept here:

1. Five kinds may leave: weights that private training made (:class:`TrainedWeights`), figures released with
   noise (:class:`cloister.privacy.release.Release`) or as a bucket that randomised response chose
   (:class:`cloister.privacy.buckets.BucketRelease`), perturbed convex models
   (:class:`cloister.privacy.perturbation.PerturbedModel`), and figures on a named set of records that are
   public or whose subjects consented (:class:`PublicFigure`). Each says why it may.
2. Final weights of DP-SGD are post-processing of its noisy sums: they carry the training's guarantee as they
   are. Adding noise to them again buys nothing, and is not offered.
3. Raw metrics, losses, gradients, activations, optimizer states and modules are refused, whatever they are
   wrapped in.
4. What was made with any other generator than the private path's (seeded tests, training without noise) is
   refused, unless test randomness is asked for by name.

Source: Dwork and Roth 2014, Proposition 2.1 (post-processing).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt

from cloister.evidence.transcript import Event, event_to_json
from cloister.privacy.buckets import BucketRelease
from cloister.privacy.errors import PrivacyError
from cloister.privacy.perturbation import PerturbedModel
from cloister.privacy.randomness import OS_GENERATOR
from cloister.privacy.release import Release
from cloister.privacy.testing import SEEDED_GENERATOR

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

Arrays = Mapping[str, npt.NDArray[np.float32]]

POST_PROCESSING: Final = (
    "These weights were made from noisy sums alone: they are post-processing and carry the training's "
    "guarantee. No noise was added to them again."
)


@dataclass(frozen=True, slots=True)
class TrainedWeights:
    """Weights as private training left them.

    Args:
        arrays: float32, by the model's names; finite.
        events: What the training cost, as the ledger settled it; at least one.
        noise_generator: Name of the generator that made the noise.

    Raises:
        PrivacyError: ``privacy.release_refused``.
    """

    arrays: Arrays
    events: tuple[Event, ...]
    noise_generator: str

    def __post_init__(self) -> None:
        if not self.events:
            raise _refused("Weights leave only with the events that made them private.")
        for array in self.arrays.values():
            if not isinstance(array, np.ndarray) or array.dtype != np.float32 or not np.isfinite(array).all():
                raise _refused("Weights leave as finite float32 arrays only.")


@dataclass(frozen=True, slots=True)
class PublicFigure:
    """A figure on records that need no budget.

    Args:
        name: What it is, e.g. ``accuracy``.
        value: Finite.
        dataset: Name of the set of records.
        basis: Why its records may be used without a budget.

    Raises:
        PrivacyError: ``privacy.release_refused``.
    """

    name: str
    value: float
    dataset: str
    basis: Literal["public", "consented"]

    def __post_init__(self) -> None:
        if not (self.dataset.strip() and math.isfinite(self.value)) or self.basis not in {
            "public",
            "consented",
        }:
            raise _refused("A figure without noise needs the name of its public or consented records.")


def may_leave(item: object, *, accept_test_randomness: bool = False) -> dict[str, JSON]:
    """Refuse whatever isn't private or public; say of the rest why it may leave.

    Args:
        item: What is about to leave.
        accept_test_randomness: Whether seeded test noise will do, for rehearsals.

    Returns:
        ``kind``, ``why``, and the ``events`` that paid for it.

    Raises:
        PrivacyError: ``privacy.release_refused``.
    """
    # Exact types: a subclass could hold more than its kind allows.
    if type(item) is PublicFigure:
        return {"kind": "public_figure", "why": f"{item.basis} records: {item.dataset}", "events": []}
    if type(item) is TrainedWeights:
        kind, why, events = "trained_weights", POST_PROCESSING, item.events
    elif type(item) is Release:
        kind, why, events = f"dp_{item.kind}", "released with noise, paid for in the ledger", (item.event,)
    elif type(item) is BucketRelease:
        kind, why, events = (
            "dp_bucket",
            "chosen by randomised response, paid for in the ledger",
            (item.event,),
        )
    elif type(item) is PerturbedModel:
        kind, why, events = (
            "perturbed_model",
            "perturbed before release, paid for in the ledger",
            (item.event,),
        )
    else:
        raise _refused("Only private releases and figures on public records may leave.")
    generator = item.noise_generator
    if generator != OS_GENERATOR and not (accept_test_randomness and generator == SEEDED_GENERATOR):
        raise _refused(f"Its noise was made by {generator}, which protects nobody.")
    return {"kind": kind, "why": why, "events": [event_to_json(event) for event in events]}


def _refused(message: str) -> PrivacyError:
    return PrivacyError(
        "privacy.release_refused",
        message,
        "Release it through a noisy figure that the ledger pays for, or name the public records.",
    )
