"""The federated average, as in the paper and in one fixed order.

Floating-point addition is not associative, so a sum in order of arrival differs from run to run. This one
adds in sorted site order, in float64, and rounds once at the end: equal updates give equal bytes.

Source: McMahan et al. 2017, algorithm 1: w <- sum_k (n_k / n) w_k.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from cloister.federation.errors import FederationError
from cloister.federation.node import Weights


def weighted_mean(updates: Mapping[str, Weights], shares: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Averages the sites' weights.

    Args:
        updates: weights by site name; all of one set of names, shapes and dtypes. Not empty.
        shares: positive share of each site (its number of records), normalised here.

    Returns:
        Tensors of the updates' names, shapes and dtypes, in the order of their names.

    Raises:
        FederationError: `federation.bad_update` when there is nothing to average or a share is not positive.
    """
    sites = sorted(updates)
    if not sites or any(not (math.isfinite(shares[site]) and shares[site] > 0) for site in sites):
        raise FederationError("federation.bad_update", "an average needs updates, each with a positive share")
    total = math.fsum(shares[site] for site in sites)
    mean: dict[str, np.ndarray] = {}
    for name in sorted(updates[sites[0]]):
        first = updates[sites[0]][name]
        accumulated = np.zeros(first.shape, dtype=np.float64)
        for site in sites:
            accumulated += updates[site][name].astype(np.float64) * (shares[site] / total)
        mean[name] = accumulated.astype(first.dtype)
    return mean


def require_same_form(update: Weights, model: Weights) -> None:
    """Refuses an update whose names, shapes, dtypes or values do not fit the model.

    The hub's own check: it does not rely on the sites' airlocks.

    Raises:
        FederationError: `federation.bad_update`.
    """
    fits = set(update) == set(model) and all(
        isinstance(update[name], np.ndarray)
        and update[name].shape == model[name].shape
        and update[name].dtype == model[name].dtype
        and bool(np.isfinite(update[name]).all())
        for name in model
    )
    if not fits:
        raise FederationError("federation.bad_update", "an update does not have the form of the global model")
