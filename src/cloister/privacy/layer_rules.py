"""How each kind of layer yields the norms of its units' gradients, and their weighted sum, by book-keeping.

Rules kept here:

1. A rule is given a layer's inputs ``a`` and the loss's gradients ``g`` at its outputs, both of which
   ordinary backpropagation has anyway. It answers with each unit's squared gradient norm, and then with the
   sum of the units' gradients under given weights.
2. No unit's gradient of a Linear or Embedding layer ever exists: for one position it has the norm
   ``|a| |g|``, for several positions or records of a unit the norm comes from the Gram matrices of ``a`` and
   ``g``.
3. Where positions may cancel, a unit's norm is raised by ``2**-28`` of the sum of its positions' norms
   (squared), so that rounding can't make a unit's share of the sum longer than the clip norm; the raised
   norm bounds that sum by ``STRETCH`` clip norms, which the noise's slack counts with.
4. A unit's figures are computed in shapes that were tried out (``blocks``), or in its own.
5. Sums are taken in float64, and norms so that their relative error stays below ``noise.NORM_ERROR``.
6. Small layers (convolutions, normalisations) keep one gradient per unit. Any other layer that Opacus knows
   uses Opacus's own function for it.

Sources: Goodfellow 2015 (arXiv:1510.01799: norms without gradients); Li et al. 2022 (arXiv:2110.05679: Gram
matrices for sequences); Bu et al. 2023 (arXiv:2210.00038: book-keeping, one backward pass).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import torch
from torch import nn
from torch.nn import functional

from cloister.privacy.blocks import largest_even_part
from cloister.privacy.errors import ModelError
from cloister.privacy.units import Units

STRETCH: Final = 2.0**14
"""How many clip norms the positions of one unit may add up to before they cancel."""

_RAISE: Final = STRETCH**-2
_GRAM_ENTRIES: Final = 2**20
_CONVOLUTION_ROWS: Final = 64
_NORM_TERMS: Final = 256

Weighted = list[tuple[torch.Tensor, torch.Tensor]]
"""Parameters with their share of the sum, float64, in the parameter's shape."""


class Share(Protocol):
    """One layer's part in a batch's clipped sum."""

    def square_norms(self) -> torch.Tensor:
        """Return each unit's squared gradient norm, float64 of shape [units]."""
        ...

    def weighted(self, weights: torch.Tensor) -> Weighted:
        """Return the sum of the units' gradients times their weights, float64 of shape [units]."""
        ...


class LinearShare:
    """``nn.Linear``: ``y = a W' + b``, at one or several positions per unit."""

    def __init__(
        self, layer: nn.Linear, inputs: Sequence[torch.Tensor], grads: Sequence[torch.Tensor], units: Units
    ) -> None:
        self._weight, self._bias, self._units = layer.weight, layer.bias, units
        self._trains = (self._weight.requires_grad, self._bias is not None and self._bias.requires_grad)
        self._flat = units.of_record is None and len(inputs) == 1 and inputs[0].dim() == 2
        if self._flat:
            self._a, self._g = inputs[0].double(), grads[0].double()
        else:
            self._a, self._g = _positions(inputs), _positions(grads)

    def square_norms(self) -> torch.Tensor:
        """See :class:`Share`."""
        weight, bias = self._trains
        if self._flat:
            of_g: torch.Tensor = torch.linalg.vector_norm(self._g, dim=1).square_()
            if not weight:
                return of_g
            of_a: torch.Tensor = torch.linalg.vector_norm(self._a, dim=1).square_()
            return of_a.add_(1.0).mul_(of_g) if bias else of_a.mul_(of_g)
        a = self._a if weight else self._a.new_zeros((*self._a.shape[:2], 1))
        offset = 1.0 if bias else 0.0
        return torch.cat([_gram_norms(one_a, one_g, offset) for one_a, one_g in self._units.each(a, self._g)])

    def weighted(self, weights: torch.Tensor) -> Weighted:
        """See :class:`Share`."""
        weight, bias = self._trains
        per_record = self._units.spread(weights)
        a, g = self._a, self._g
        if not self._flat:
            per_record = per_record.repeat_interleave(a.shape[1])
            a, g = a.flatten(0, 1), g.flatten(0, 1)
        result: Weighted = []
        if bias:
            result.append((self._bias, per_record @ g))
        if weight:
            # The narrower takes the weights, in place (nothing else is asked of it), and comes first.
            if a.shape[1] < g.shape[1]:
                result.append((self._weight, (a.mul_(per_record.unsqueeze(1)).T @ g).T))
            else:
                result.append((self._weight, g.mul_(per_record.unsqueeze(1)).T @ a))
        return result


class EmbeddingShare:
    """``nn.Embedding``: a gradient row for every token that occurs."""

    def __init__(
        self, layer: nn.Embedding, inputs: Sequence[torch.Tensor], grads: Sequence[torch.Tensor], units: Units
    ) -> None:
        self._layer, self._units = layer, units
        self._tokens = torch.cat([one.flatten(1) for one in inputs], dim=1)
        self._g = torch.cat([one.double().flatten(1, -2) for one in grads], dim=1)
        if layer.padding_idx is not None:
            self._g = self._g.masked_fill((self._tokens == layer.padding_idx).unsqueeze(-1), 0.0)

    def square_norms(self) -> torch.Tensor:
        """See :class:`Share`."""
        each = self._units.each(self._tokens.unsqueeze(-1), self._g)
        return torch.cat([_token_norms(tokens.squeeze(-1), g) for tokens, g in each])

    def weighted(self, weights: torch.Tensor) -> Weighted:
        """See :class:`Share`."""
        rows = self._g * self._units.spread(weights).view(-1, 1, 1)
        total = rows.new_zeros(self._layer.weight.shape)
        return [(self._layer.weight, total.index_add_(0, self._tokens.flatten(), rows.flatten(0, 1)))]


@dataclass(frozen=True, slots=True)
class Stored:
    """Gradients that are kept, one for each record or unit.

    Args:
        parameter: Whose gradients.
        rows: Of shape [records, weights], in whatever order of weights is quickest.
        shape: What a row is as an array; None for the parameter's own.
        order: Its axes in the parameter's order.
    """

    parameter: torch.Tensor
    rows: torch.Tensor
    shape: tuple[int, ...] | None = None
    order: tuple[int, ...] = ()

    def placed(self, total: torch.Tensor) -> torch.Tensor:
        """Return a sum of rows in the parameter's shape."""
        if self.shape is not None:
            total = total.view(self.shape).permute(self.order)
        return total.reshape(self.parameter.shape)


class StoredShare:
    """Layers small enough to keep a gradient for each unit.

    Args:
        gradients: For each parameter one row per record.
        units: Whose rows they are.
    """

    def __init__(self, gradients: Sequence[Stored], units: Units) -> None:
        self.gradients = [replace(one, rows=units.gather(one.rows)) for one in gradients]

    def square_norms(self) -> torch.Tensor:
        """See :class:`Share`."""
        total = _row_norms(self.gradients[0].rows)
        for one in self.gradients[1:]:
            total += _row_norms(one.rows)
        return total

    def weighted(self, weights: torch.Tensor) -> Weighted:
        """See :class:`Share`."""
        return [(one.parameter, one.placed(_rows_times(weights, one.rows))) for one in self.gradients]


def convolution_share(
    layer: nn.Conv1d | nn.Conv2d,
    inputs: Sequence[torch.Tensor],
    grads: Sequence[torch.Tensor],
    units: Units,
) -> Share:
    """``nn.Conv1d`` and ``nn.Conv2d`` of any geometry and groups: patches times gradients."""
    result: list[Stored] = []
    if layer.weight.requires_grad:
        result.append(_convolution_gradients(layer, inputs, grads))
    if layer.bias is not None and layer.bias.requires_grad:
        result.append(Stored(layer.bias, _added_up([g.flatten(2).sum(2) for g in grads])))
    return StoredShare(result, units)


def group_norm_share(
    layer: nn.GroupNorm, inputs: Sequence[torch.Tensor], grads: Sequence[torch.Tensor], units: Units
) -> Share:
    """``nn.GroupNorm``: scale and shift of each channel."""
    scaled = [
        (functional.group_norm(a, layer.num_groups, eps=layer.eps) * g).flatten(2).sum(2)
        for a, g in zip(inputs, grads, strict=True)
    ]
    shifted = [g.flatten(2).sum(2) for g in grads]
    return _affine_share(layer, _added_up(scaled), _added_up(shifted), units)


def layer_norm_share(
    layer: nn.LayerNorm, inputs: Sequence[torch.Tensor], grads: Sequence[torch.Tensor], units: Units
) -> Share:
    """``nn.LayerNorm``: scale and shift of each normalised element."""
    shape = tuple(layer.normalized_shape)

    def over_positions(rows: torch.Tensor) -> torch.Tensor:
        return rows.reshape(len(rows), -1, *shape).sum(1)

    scaled = [
        over_positions(functional.layer_norm(a, shape, eps=layer.eps) * g)
        for a, g in zip(inputs, grads, strict=True)
    ]
    shifted = [over_positions(g) for g in grads]
    return _affine_share(layer, _added_up(scaled), _added_up(shifted), units)


def opacus_share(
    layer: nn.Module, inputs: Sequence[torch.Tensor], grads: Sequence[torch.Tensor], units: Units
) -> Share:
    """Any layer that Opacus has a per-record gradient for.

    Raises:
        ModelError: ``model.layer_unsupported``.
    """
    from opacus.grad_sample import GradSampleModule

    sampler = GradSampleModule.GRAD_SAMPLERS.get(type(layer))
    if sampler is None:
        raise ModelError(
            "model.layer_unsupported", f"{type(layer).__name__}: no per-record gradient is known for it."
        )
    total: dict[torch.Tensor, torch.Tensor] = {}
    for a, g in zip(inputs, grads, strict=True):
        for parameter, rows in sampler(layer, [a], g).items():
            total[parameter] = total[parameter] + rows if parameter in total else rows
    return StoredShare([Stored(parameter, rows.flatten(1)) for parameter, rows in total.items()], units)


def _affine_share(
    layer: nn.GroupNorm | nn.LayerNorm, scaled: torch.Tensor, shifted: torch.Tensor, units: Units
) -> Share:
    pairs = [(layer.weight, scaled), (layer.bias, shifted)]
    return StoredShare(
        [Stored(p, rows.flatten(1)) for p, rows in pairs if p is not None and p.requires_grad], units
    )


def _added_up(calls: Sequence[torch.Tensor]) -> torch.Tensor:
    total = calls[0]
    for one in calls[1:]:
        total = total + one
    return total


def _positions(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """All positions of all calls: float64 of shape [records, positions, features]."""
    flat = [(one.unsqueeze(1) if one.dim() == 2 else one.flatten(1, -2)) for one in parts]
    return (flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)).double()


def _token_norms(tokens: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Squared norms of the sums of each token's gradients, for each unit, raised by rule 3."""
    rows = largest_even_part(len(g), max(1, _GRAM_ENTRIES // max(1, tokens.shape[1] ** 2)))
    parts = [
        ((t.unsqueeze(1) == t.unsqueeze(2)) * (one @ one.mT)).sum(dim=(1, 2))
        for t, one in zip(_blocks(tokens, rows), _blocks(g, rows), strict=True)
    ]
    lengths: torch.Tensor = torch.linalg.vector_norm(g, dim=2)
    return torch.cat(parts) + _RAISE * lengths.sum(1).square()


def _gram_norms(a: torch.Tensor, g: torch.Tensor, offset: float) -> torch.Tensor:
    """``sum over t, s of (a_t . a_s + offset) (g_t . g_s)`` for each unit, raised by rule 3."""
    length = a.shape[1]
    units_at_once = largest_even_part(len(a), max(1, _GRAM_ENTRIES // max(1, length * length)))
    rows_at_once = max(1, _GRAM_ENTRIES // max(1, length))
    norms = []
    for one_a, one_g in zip(_blocks(a, units_at_once), _blocks(g, units_at_once), strict=True):
        total = one_a.new_zeros(len(one_a))
        for row_a, row_g in zip(
            _blocks(one_a, rows_at_once, 1), _blocks(one_g, rows_at_once, 1), strict=True
        ):
            total += ((row_a @ one_a.mT).add_(offset) * (row_g @ one_g.mT)).sum(dim=(1, 2))
        norms.append(total)
    lengths: torch.Tensor = (a.square().sum(2) + offset).sqrt() * torch.linalg.vector_norm(g, dim=2)
    return torch.cat(norms).clamp_(min=0.0) + _RAISE * lengths.sum(1).square()


def _convolution_gradients(
    layer: nn.Conv1d | nn.Conv2d, inputs: Sequence[torch.Tensor], grads: Sequence[torch.Tensor]
) -> Stored:
    """Each record's weight gradient, all calls added up.

    A patch's channels are neighbours in memory, so that patches are copied in long pieces. The narrower of
    patches and gradients comes first in the product, which is where matrix libraries lose least by it.
    """
    groups, kernel = layer.groups, (1, *layer.kernel_size)[-2:]
    channels, answers = layer.in_channels // groups, layer.out_channels // groups
    patches_first = channels * kernel[0] * kernel[1] < answers
    rows = _added_up(
        [_rows_of_call(layer, a, g, patches_first=patches_first) for a, g in zip(inputs, grads, strict=True)]
    )
    if patches_first:
        return Stored(layer.weight, rows, (groups, *kernel, channels, answers), (0, 4, 3, 1, 2))
    return Stored(layer.weight, rows, (groups, answers, *kernel, channels), (0, 1, 4, 2, 3))


def _rows_of_call(
    layer: nn.Conv1d | nn.Conv2d, inputs: torch.Tensor, grads: torch.Tensor, *, patches_first: bool
) -> torch.Tensor:
    windows = _windows(layer, inputs, grads.shape[2:])
    by_place = grads.flatten(2).mT if grads.dim() == 3 else grads.permute(0, 2, 3, 1).flatten(1, 2)
    by_group = by_place.reshape(len(grads), -1, layer.groups, layer.out_channels // layer.groups)
    rows = grads.new_empty((len(grads), layer.weight.numel()))
    # Patches take many times an input's room: some records at a time.
    size = largest_even_part(len(grads), _CONVOLUTION_ROWS)
    for start in range(0, len(grads), size):
        block = slice(start, start + size)
        patches = windows[block].contiguous().flatten(4).flatten(2, 3)
        g = by_group[block].transpose(1, 2)
        rows[block] = (patches.mT @ g if patches_first else g.mT @ patches).flatten(1)
    return rows


def _windows(layer: nn.Conv1d | nn.Conv2d, inputs: torch.Tensor, places: tuple[int, ...]) -> torch.Tensor:
    """What each answer is made of: a view of shape [records, groups, *places, *kernel, channels], in 2-D."""
    kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    padded = inputs
    if any(layer._reversed_padding_repeated_twice):
        mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        padded = functional.pad(inputs, tuple(layer._reversed_padding_repeated_twice), mode=mode)
    if isinstance(layer, nn.Conv1d):
        padded, places = padded.unsqueeze(2), (1, *places)
        kernel, stride, dilation = (1, *kernel), (1, *stride), (1, *dilation)
    by_place = padded.permute(0, 2, 3, 1).contiguous()
    _, lines, columns, all_channels = by_place.shape
    channels = all_channels // layer.groups
    of_line, of_column = columns * all_channels, all_channels
    return by_place.as_strided(
        (len(by_place), layer.groups, *places, *kernel, channels),
        (
            lines * of_line,
            channels,
            of_line * stride[0],
            of_column * stride[1],
            of_line * dilation[0],
            of_column * dilation[1],
            1,
        ),
    )


def _row_norms(rows: torch.Tensor) -> torch.Tensor:
    """Squared norms of rows in float64; of float32 rows, 256 squares at a time are added up in float32."""
    if rows.dtype == torch.float64:
        exact: torch.Tensor = torch.linalg.vector_norm(rows, dim=1).square_()
        return exact
    whole = rows.shape[1] // _NORM_TERMS * _NORM_TERMS
    parts = [torch.linalg.vector_norm(rows[:, whole:], dim=1, keepdim=True)]
    if whole:
        parts.append(torch.linalg.vector_norm(rows[:, :whole].view(len(rows), -1, _NORM_TERMS), dim=2))
    total: torch.Tensor = torch.cat(parts, dim=1).double().square_().sum(1)
    return total


def _rows_times(weights: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """``weights @ rows`` in float64, converting a block of rows at a time."""
    if rows.dtype == torch.float64:
        return weights @ rows
    total = weights.new_zeros(rows.shape[1])
    for w, block in zip(_blocks(weights, _CONVOLUTION_ROWS), _blocks(rows, _CONVOLUTION_ROWS), strict=True):
        total += w @ block.double()
    return total


def _blocks(rows: torch.Tensor, size: int, dim: int = 0) -> tuple[torch.Tensor, ...]:
    return torch.split(rows, size, dim)
