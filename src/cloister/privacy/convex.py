"""Regularised logistic regression, minimised to within a proven distance of the exact minimiser.

The objective is a sum, not a mean, so that its strong convexity doesn't depend on the number of records:

    F(w) = sum_i log(1 + exp(-y_i w.x_i)) + (regularisation / 2) |w|^2 + shift.w

Each term has a gradient of norm at most 1 and a curvature of at most 1/4, because rows are bounded by 1.
F is strongly convex, so ``|grad F(w)| <= g`` proves ``|w - w*| <= g / regularisation``: the certificate. What
float64 may hide of the gradient is bounded beforehand and added to it.

Sources: Chaudhuri, Monteleoni, Sarwate 2011 (JMLR 12); Higham 2002, section 3.1 (rounding of inner products);
Boyd and Vandenberghe 2004, section 9.5 (damped Newton).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from cloister.privacy.errors import PrivacyError

Vector = npt.NDArray[np.float64]
Matrix = npt.NDArray[np.float64]

CURVATURE: Final = 0.25
"""Largest second derivative of the logistic loss along a row of norm 1."""

LIPSCHITZ: Final = 1 + 1e-9
"""Largest gradient norm of one row's loss; a computed norm of 1 may hide a little more."""

MOST_FEATURES: Final = 2000
_MOST_TURNS: Final = 200
_ROUNDOFF: Final = 2.0**-53


@dataclass(frozen=True, slots=True)
class LogisticProblem:
    """Records of two classes, one row of each protected unit.

    Args:
        rows: float64 of shape [units, features], each row of norm at most 1 by declared bounds
            (:func:`scaled_rows`), never by the records' own.
        labels: int64 of shape [units], 0 or 1.
        units: Public number of units.
        regularisation: Strong convexity of the whole sum: a fixed number, e.g. ``1e-3 * units``.
        subjects: int64 of shape [units], whose row each is, where a unit is a subject: each only once.

    Raises:
        PrivacyError: ``privacy.data_invalid`` or ``privacy.plan_invalid``.
    """

    rows: Matrix
    labels: npt.NDArray[np.int64]
    units: int
    regularisation: float
    subjects: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        rows, labels = self.rows, self.labels
        if rows.ndim != 2 or labels.shape != rows.shape[:1] or not 1 <= rows.shape[1] <= MOST_FEATURES:
            raise PrivacyError("privacy.data_invalid", "Each row needs its label, and one to 2,000 features.")
        if rows.dtype != np.float64 or labels.dtype != np.int64 or not np.isin(labels, (0, 1)).all():
            raise PrivacyError("privacy.data_invalid", "Rows are float64; labels are int64, 0 or 1.")
        if not np.isfinite(rows).all() or (np.linalg.norm(rows, axis=1) > 1 + 1e-12).any():
            raise PrivacyError(
                "privacy.data_invalid",
                "A row is longer than 1, or not finite.",
                "Scale rows by the schema's declared bounds.",
            )
        if self.subjects is not None and len(np.unique(self.subjects)) != len(rows):
            raise PrivacyError(
                "privacy.data_invalid", "A subject has more than one row, or a row no subject."
            )
        if not 0 <= len(rows) <= self.units <= 10**6:
            raise PrivacyError("privacy.plan_invalid", "More units than declared, or more than a million.")
        if not (math.isfinite(self.regularisation) and 1e-3 <= self.regularisation <= 1e9):
            raise PrivacyError("privacy.plan_invalid", "The regularisation must lie between 1e-3 and 1e9.")

    @property
    def features(self) -> int:
        """Number of columns."""
        return int(self.rows.shape[1])

    def minimise(self, shift: Vector, largest_shift: float) -> tuple[Vector, float]:
        """Find the minimiser, and how far it may be off.

        Args:
            shift: float64 of shape [features], the linear term.
            largest_shift: Bound on its norm, fixed beforehand.

        Returns:
            The weights and a bound on their distance from the exact minimiser. The bound depends on the
            public figures alone.

        Raises:
            PrivacyError: ``privacy.not_minimised`` when the certificate isn't reached.
        """
        rounding = self._rounding(largest_shift)
        tolerance = max(1e-9, rounding)
        signed = self.rows * (2.0 * self.labels - 1.0)[:, None]
        weights = np.zeros(self.features)
        for _ in range(_MOST_TURNS):
            chance = _logistic(-(signed @ weights))
            gradient = self.regularisation * weights + shift - signed.T @ chance
            if float(np.linalg.norm(gradient)) <= tolerance:
                return weights, (tolerance + rounding) / self.regularisation
            curvature = (signed * (chance * (1 - chance))[:, None]).T @ signed
            curvature[np.diag_indices(self.features)] += self.regularisation
            newton = np.linalg.solve(curvature, gradient)
            weights = self._descend(signed, shift, weights, gradient, newton.astype(np.float64))
        raise PrivacyError(
            "privacy.not_minimised",
            "The exact minimiser was not reached, so its perturbation would promise nothing.",
            "Use a larger regularisation.",
        )

    def _descend(
        self, signed: Matrix, shift: Vector, weights: Vector, gradient: Vector, step: Vector
    ) -> Vector:
        def objective(at: Vector) -> float:
            loss = float(np.logaddexp(0.0, -(signed @ at)).sum())
            return loss + self.regularisation / 2 * float(at @ at) + float(shift @ at)

        before, slope, size = objective(weights), float(gradient @ step), 1.0
        # Near the minimum the objective's last bits say nothing; there Newton's full step is right.
        while size > 1e-9 and objective(weights - size * step) > before - 0.1 * size * slope + 1e-9 * abs(
            before
        ):
            size /= 2
        return weights - size * step

    def _rounding(self, largest_shift: float) -> float:
        """Bound on what float64 hides of a computed gradient: products of rows, the sum, the other terms."""
        most = self.units + 1
        # |w*| <= (units + |shift|) / regularisation, and no turn's weights that pass the check are longer.
        longest = (most + largest_shift + 1) / self.regularisation
        margins = most * (self.features + 8) * (longest + 1)
        sums = most * most
        others = 8 * (self.regularisation * longest + largest_shift)
        return 2 * _ROUNDOFF * (margins + sums + others)


def scaled_rows(features: npt.NDArray[np.float64], bounds: npt.NDArray[np.float64]) -> Matrix:
    """Scale features by declared bounds, and add a column for the intercept: no row is longer than 1.

    Args:
        features: float64 of shape [units, features].
        bounds: float64 of shape [features, 2], declared lowest and highest value of each feature.

    Returns:
        float64 of shape [units, features + 1].

    Raises:
        PrivacyError: ``privacy.data_invalid`` for values outside the bounds.
    """
    low, high = bounds[:, 0], bounds[:, 1]
    if not (np.isfinite(bounds).all() and (low < high).all()):
        raise PrivacyError("privacy.data_invalid", "Bounds must be finite, the lower one first.")
    if not ((features >= low) & (features <= high)).all():
        raise PrivacyError("privacy.data_invalid", "A value lies outside its declared bounds.")
    centred = 2 * (features - low) / (high - low) - 1
    rows: Matrix = np.column_stack([centred.clip(-1, 1), np.ones(len(features))])
    rows /= math.sqrt(rows.shape[1])
    return rows


def _logistic(values: Vector) -> Vector:
    return (0.5 * (1 + np.tanh(values / 2))).astype(np.float64)
