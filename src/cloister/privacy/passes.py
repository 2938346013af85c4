"""What passes over blocks give, clipped by unit and added up.

Rules kept here:

1. Whatever is computed for each record is computed in its pass, whose size was tried out.
2. A unit's norm is over all its layers' shares. A unit whose norm is not finite, and rows that only fill a
   block, add exactly nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, cast

import torch
from torch import nn

from cloister.privacy.layer_rules import (
    EmbeddingShare,
    LinearShare,
    Share,
    StoredShare,
    convolution_share,
    group_norm_share,
    layer_norm_share,
    opacus_share,
)
from cloister.privacy.units import Units

Tensors = Sequence[torch.Tensor]
PassedLayer = tuple[nn.Module, Tensors, Tensors]
Rule = Callable[[nn.Module, Tensors, Tensors, Units], Share]

_RULES: Final[dict[type[nn.Module], Rule]] = cast(
    "dict[type[nn.Module], Rule]",
    {
        nn.Linear: LinearShare,
        nn.Embedding: EmbeddingShare,
        nn.Conv1d: convolution_share,
        nn.Conv2d: convolution_share,
        nn.GroupNorm: group_norm_share,
        nn.LayerNorm: layer_norm_share,
    },
)


@dataclass(frozen=True, slots=True)
class Pass:
    """What one pass over a block gave.

    Args:
        layers: Each trained layer with its inputs and the loss's gradients at its outputs, call by call.
        taken: Which rows are records; the others fill the block.
    """

    layers: Sequence[PassedLayer]
    taken: slice


def clipped(
    passes: Sequence[Pass],
    parameters: Sequence[nn.Parameter],
    units: Units,
    max_grad_norm: float,
) -> list[torch.Tensor]:
    """Clip what passes gave and add it up.

    Args:
        passes: One pass where records are units, else those of whole units.
        parameters: Which sums are wanted.
        units: Which record is of which unit.
        max_grad_norm: The length that each unit's gradient is cut to.

    Returns:
        The sums in the parameters' shapes and order, float64.
    """
    shares = shares_of(passes, units)
    squared = shares[0].square_norms()
    for share in shares[1:]:
        squared = squared + share.square_norms()
    factors = (max_grad_norm / (squared.sqrt() + 1e-6)).clamp_(max=1.0)
    if units.of_record is None:
        factors = _only(factors, passes[0].taken)
    if not math.isfinite(float(squared.sum())):
        finite = torch.isfinite(squared)
        factors = torch.where(finite, factors, 0.0)
        shares = shares_of(_without(passes, units, finite), units)
    sums = {id(parameter): total for share in shares for parameter, total in share.weighted(factors)}
    found = [sums.get(id(parameter)) for parameter in parameters]
    return [
        torch.zeros_like(parameter, dtype=torch.float64) if total is None else total
        for parameter, total in zip(parameters, found, strict=True)
    ]


def shares_of(passes: Sequence[Pass], units: Units) -> list[Share]:
    """Each layer's share. Whatever is computed for each record is computed in its pass."""
    if units.of_record is None:
        return [rule_of(layer)(layer, a, g, units) for layer, a, g in passes[0].layers]
    return [_share_of_passes(position, passes, units) for position in range(len(passes[0].layers))]


def _share_of_passes(position: int, passes: Sequence[Pass], units: Units) -> Share:
    layer = passes[0].layers[position][0]
    rule, parts = rule_of(layer), [(one.layers[position], one.taken) for one in passes]
    if isinstance(layer, nn.Linear | nn.Embedding):
        return rule(
            layer,
            _joined([(a, taken) for (_, a, _), taken in parts]),
            _joined([(g, taken) for (_, _, g), taken in parts]),
            units,
        )
    kept = []
    for (_, a, g), taken in parts:
        share = cast("StoredShare", rule(layer, a, g, Units(len(g[0]), None)))
        kept.append([replace(stored, rows=stored.rows[taken]) for stored in share.gradients])
    joined = [
        replace(same[0], rows=torch.cat([stored.rows for stored in same])) for same in zip(*kept, strict=True)
    ]
    return StoredShare(joined, units)


def _joined(parts: Sequence[tuple[Tensors, slice]]) -> list[torch.Tensor]:
    """The records of all passes together, call by call."""
    return [
        torch.cat(rows)
        for rows in zip(*([one[taken] for one in calls] for calls, taken in parts), strict=True)
    ]


def _only(factors: torch.Tensor, taken: slice) -> torch.Tensor:
    """Factors of the rows that are records, zeros for those that fill the block."""
    if taken == slice(0, len(factors), 1):
        return factors
    if taken.step == 1:
        factors[taken.stop :] = 0.0
        return factors
    kept = torch.zeros_like(factors)
    kept[taken] = factors[taken]
    return kept


def _without(passes: Sequence[Pass], units: Units, finite: torch.Tensor) -> list[Pass]:
    """The passes with zeros in place of units that aren't finite, and in rows that fill a block."""
    result, first = [], 0
    for one in passes:
        rows = len(one.layers[0][2][0])
        keep = finite
        if units.of_record is not None:
            count = len(range(*one.taken.indices(rows)))
            keep = torch.zeros(rows, dtype=torch.bool)
            keep[one.taken] = units.spread(finite)[first : first + count]
            first += count
        layers = [
            (layer, [_kept(row, keep) for row in a], [_kept(row, keep) for row in g])
            for layer, a, g in one.layers
        ]
        result.append(Pass(layers, one.taken))
    return result


def _kept(rows: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    return torch.where(keep.view(-1, *[1] * (rows.dim() - 1)), rows, torch.zeros((), dtype=rows.dtype))


def rule_of(layer: nn.Module) -> Rule:
    """Return how a layer's gradients are book-kept; Opacus's function for layers without a rule of ours."""
    rule = _RULES.get(type(layer))
    if rule is None and isinstance(layer, nn.Linear):
        return _RULES[nn.Linear]
    return rule or opacus_share
