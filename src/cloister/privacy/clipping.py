"""The clipped sum of a batch: every unit's gradient cut to one length, added up.

Rules kept here:

1. One global norm per unit, over all trained parameters; a unit's factor is ``min(1, C / (norm + 1e-6))``, as
   in Opacus.
2. One forward and one backward pass per batch; no gradient per unit where a layer's rule can do without.
3. A unit whose gradient is not finite contributes exactly nothing.
4. A unit's clipped gradient is a function of the unit and the weights: not one bit of it depends on who else
   is computed with it (see ``blocks``). Only the sum over units rounds, in float64, and the slack counts it.
5. A layer that is called several times adds up its calls before the norm is taken. A weight that two layers
   share is refused, as are layers whose inputs or outputs are changed in place.

Source: Abadi et al. 2016 (arXiv:1607.00133), algorithm 1; the layers' own sources are in ``layer_rules``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import torch
from torch import nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from cloister.privacy.blocks import Block, blocks_to_try
from cloister.privacy.errors import ModelError
from cloister.privacy.feed_forward import FeedForward
from cloister.privacy.layer_rules import STRETCH, StoredShare
from cloister.privacy.layout import Layout
from cloister.privacy.passes import Pass, PassedLayer, clipped, shares_of
from cloister.privacy.trial import independent_of_place, with_made_up_weights
from cloister.privacy.units import Units

_EXACT: Final = {
    *(nn.Sequential, nn.Flatten, nn.Unflatten, nn.Identity, nn.Linear, nn.Conv1d, nn.Conv2d, nn.ReLU),
    *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
}


@dataclass(frozen=True, slots=True)
class Shape:
    """What the slack of float64 sums depends on.

    Args:
        parameters: Number of trained weights.
        positions: Most positions that one record takes in a layer.
        cancels: Whether a unit's positions can cancel in a layer that keeps no gradients.
    """

    parameters: int
    positions: int
    cancels: bool

    def summands(self, records: int) -> int:
        """Bound on the terms of a sum over so many records, times what a unit's terms may add up to."""
        return records * self.positions * (int(STRETCH) if self.cancels else 1)


@dataclass(slots=True)
class _Calls:
    """What went into a layer and came out of it, call by call."""

    inputs: list[torch.Tensor] = field(default_factory=list)
    outputs: list[torch.Tensor] = field(default_factory=list)
    versions: list[tuple[int, int]] = field(default_factory=list)


class BookKeeper:
    """Computes clipped sums of a model's gradients; a context, since it listens to the model's layers.

    Args:
        model: Takes float32 [records, features], returns logits [records, classes].
        max_grad_norm: The length gradients are cut to.
        channels_last: Whether 2-D convolutions may have a position's channels side by side; :meth:`shape`
            finds out whether the model bears it, and says so in the attribute of this name.

    ``block`` says which sizes passes have. :meth:`choose_block` finds one under which no record's gradient
    depends on its place.

    Raises:
        ModelError: ``model.layer_unsupported``.
    """

    def __init__(self, model: nn.Module, max_grad_norm: float, *, channels_last: bool = True) -> None:
        self._model = model
        self._clip = max_grad_norm
        self.channels_last = channels_last
        self.block = Block((64,))
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._layers = trained_layers(model)
        self._written_out = FeedForward.of(model)
        self._calls: dict[nn.Module, _Calls] = {}
        self._handles: list[RemovableHandle] = []
        self._layout = Layout()
        self._entered = False

    def __enter__(self) -> Self:
        if self._entered:
            raise RuntimeError("a BookKeeper listens to one model at a time")
        self._layout.move(self._model, self._written_out, channels_last=self.channels_last)
        self._entered = True
        self._listen_to_layers()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop_listening()
        if self._written_out is not None:
            self._written_out.forget()
        self._layout.put_back()
        self._entered = False

    def _listen_to_layers(self) -> None:
        if self._written_out is None:
            self._handles = [layer.register_forward_hook(self._listen) for layer in self._layers]

    def _stop_listening(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._calls.clear()

    def clipped_sum(self, features: torch.Tensor, labels: torch.Tensor, units: Units) -> list[torch.Tensor]:
        """Return the sum of the units' clipped gradients.

        Args:
            features: float32 [records, features], at least one record.
            labels: int64 [records].
            units: Whose records they are.

        Returns:
            One float64 tensor for each of ``parameters``, in its shape.
        """
        if units.of_record is not None:
            passes = [self._pass(*one) for one in self._split(features, labels)]
            with torch.no_grad():
                return clipped(passes, self.parameters, units, self._clip)
        total: list[torch.Tensor] = []
        for one in self._split(features, labels):
            passed = self._pass(*one)
            with torch.no_grad():
                part = clipped([passed], self.parameters, Units(len(one[1]), None), self._clip)
                total = [kept.add_(more) for kept, more in zip(total, part, strict=True)] if total else part
        return total

    def clipped_unit(self, parts: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> list[torch.Tensor]:
        """Return the clipped gradient of one unit with more records than fit into memory at once.

        Args:
            parts: The unit's features and labels, in parts.

        Returns:
            One float64 tensor for each of ``parameters``, in its shape; zeros when it is not finite.
        """
        total = [torch.zeros_like(parameter, dtype=torch.float64) for parameter in self.parameters]
        for features, labels in parts:
            found = self._plain_gradients(features, labels)
            total = [kept + gradient for kept, gradient in zip(total, found, strict=True)]
        norm = torch.linalg.vector_norm(torch.cat([one.flatten() for one in total]))
        if not bool(torch.isfinite(norm)):
            return [torch.zeros_like(one) for one in total]
        factor = min(1.0, self._clip / (float(norm) + 1e-6))
        return [one * factor for one in total]

    def shape(self, input_dim: int, *, grouped: bool) -> Shape:
        """Try the book-keeping on made-up rows.

        Args:
            input_dim: Number of features.
            grouped: Whether several records may belong to one unit.

        Returns:
            What the slack of sums depends on.

        Raises:
            ModelError: ``model.layer_unsupported`` when the layers don't account for the whole gradient: the
                model uses a weight other than by calling its layer.
        """
        rows = torch.cos(torch.arange(5 * input_dim, dtype=torch.float32).view(5, input_dim))
        self._require_layout(rows)
        for count in (5, 3):
            labels = torch.zeros(count, dtype=torch.int64)
            layers = self._gradients_of(rows[:count], labels)
            if any(len(one) != count for _, inputs, grads in layers for one in (*inputs, *grads)):
                raise ModelError(
                    "model.layer_unsupported",
                    "A layer's input or output doesn't count records along its first dimension.",
                    "Keep the batch first, such as with batch_first=True.",
                )
        with torch.no_grad():
            kept = clipped([Pass(layers, slice(3))], self.parameters, Units(3, None), torch.inf)
        plain = self._plain_gradients(rows[:3], labels)
        if not all(
            torch.allclose(a, b.double(), rtol=1e-3, atol=1e-4) for a, b in zip(kept, plain, strict=True)
        ):
            raise ModelError(
                "model.layer_unsupported",
                "The model's layers don't account for its whole gradient.",
                "Let the model use each weight only by calling the layer that holds it.",
            )
        positions = max(
            (
                sum(one[0].numel() // one.shape[-1] for one in grads)
                for layer, _, grads in layers
                if isinstance(layer, nn.Linear | nn.Embedding)
            ),
            default=1,
        )
        summed = any(isinstance(layer, nn.Embedding) for layer in self._layers)
        return Shape(
            sum(parameter.numel() for parameter in self.parameters),
            positions,
            cancels=grouped or summed or positions > 1,
        )

    def _require_layout(self, rows: torch.Tensor) -> None:
        """Go back to the usual layout where the model doesn't bear the other, as ``view`` doesn't."""
        if self._written_out is not None or not self.channels_last:
            return
        try:
            self._gradients_of(rows, torch.zeros(len(rows), dtype=torch.int64))
        except RuntimeError:
            self._layout.put_back()
            self.channels_last = False

    @property
    def exact(self) -> bool:
        """Whether all that the model does element by element is rounded alike wherever it is done."""
        return all(type(one) in _EXACT for one in self._model.modules())

    @property
    def written_out(self) -> bool:
        """Whether the passes are written out instead of taking autograd's way."""
        return self._written_out is not None

    def choose_block(self, input_dim: int, *, expected: float, most: int) -> Block:
        """Find the quickest sizes of passes under which a record's gradient doesn't depend on its place.

        Tried out on made-up rows and weights: a model's own weights, such as zeros, may hide a difference.

        Args:
            input_dim: Number of features.
            expected: Expected number of records in a batch, public.
            most: Largest number of rows at once.

        Returns:
            The block, which is also used from here on.

        Raises:
            ModelError: ``model.mixes_records`` when there is none: not even the same record alone gives the
                same gradient twice.
        """
        self._stop_listening()
        try:
            model = with_made_up_weights(self._model)
        finally:
            self._listen_to_layers()
        for block in blocks_to_try(expected, most, light=self.written_out, exact=self.exact):
            with BookKeeper(model, self._clip, channels_last=self.channels_last) as twin:
                twin.block = block
                if independent_of_place(twin, input_dim):
                    self.block = block
                    return block
        raise ModelError(
            "model.mixes_records",
            "The model's gradient for one record is not the same each time.",
            "Build the model from layers without randomness or state.",
        )

    def by_record(self, features: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
        """Return all that decides what records add to the sum: inputs, gradients, norms, a row for each.

        Args:
            features: float32 [records, features], at least one record.
            labels: int64 [records].
        """
        found = []
        for one in self._split(features, labels):
            passed = self._pass(*one)
            with torch.no_grad():
                shares = shares_of([passed], Units(len(one[1]), None))
                rows = [row for _, inputs, grads in passed.layers for row in (*inputs, *grads)]
                for share in shares:
                    rows.append(share.square_norms())
                    if isinstance(share, StoredShare):
                        rows.extend(stored.rows for stored in share.gradients)
                found.append([row.detach()[passed.taken] for row in rows])
        return [torch.cat(rows) for rows in zip(*found, strict=True)]

    def _split(
        self, features: torch.Tensor, labels: torch.Tensor
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, slice]]:
        missing = 0 if self._written_out is None else self._written_out.missing(features.shape[1])
        return self.block.split(features, labels, columns=missing)

    def _pass(self, features: torch.Tensor, labels: torch.Tensor, taken: slice) -> Pass:
        return Pass(self._gradients_of(features, labels), taken)

    def _plain_gradients(self, features: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.enable_grad():
            loss = functional.cross_entropy(self._model(features), labels, reduction="sum")
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        self._calls.clear()
        return tuple(
            torch.zeros_like(parameter) if gradient is None else gradient
            for parameter, gradient in zip(self.parameters, found, strict=True)
        )

    def _gradients_of(self, features: torch.Tensor, labels: torch.Tensor) -> list[PassedLayer]:
        """Each trained layer with its inputs and the summed loss's gradients at its outputs, call by call."""
        if self._written_out is not None:
            with torch.no_grad():
                return self._written_out.gradients(features, labels)
        self._calls.clear()
        with torch.enable_grad():
            loss = functional.cross_entropy(self._model(features), labels, reduction="sum")
        layers, self._calls = list(self._calls.items()), {}
        _refuse_changes_in_place(layers)
        outputs = [output for _, calls in layers for output in calls.outputs]
        grads = iter(
            torch.zeros_like(output) if grad is None else _dense(grad)
            for output, grad in zip(
                outputs, torch.autograd.grad(loss, outputs, allow_unused=True), strict=True
            )
        )
        return [(layer, calls.inputs, [next(grads) for _ in calls.outputs]) for layer, calls in layers]

    def _listen(self, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        calls = self._calls.setdefault(layer, _Calls())
        calls.inputs.append(inputs[0].detach())
        calls.outputs.append(output)
        calls.versions.append((inputs[0]._version, output._version))


def _dense(grad: torch.Tensor) -> torch.Tensor:
    """A gradient whose elements all stand in memory: sums over one repeated element are rounded otherwise."""
    return grad.clone() if 0 in grad.stride() else grad


def _refuse_changes_in_place(layers: Iterable[tuple[nn.Module, _Calls]]) -> None:
    for layer, calls in layers:
        for a, z, versions in zip(calls.inputs, calls.outputs, calls.versions, strict=True):
            if (a._version, z._version) != versions:
                raise ModelError(
                    "model.layer_unsupported",
                    f"{type(layer).__name__}: its input or output is changed in place.",
                    "Use the versions of layers and functions that return a new tensor.",
                )


def trained_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers that hold trained parameters, each once; Opacus's GRU lists its cells' too.

    Raises:
        ModelError: ``model.layer_unsupported`` when two layers share a weight.
    """
    layers: list[nn.Module] = []
    seen, taken = set[nn.Parameter](), set[int]()
    for layer in model.modules():
        own = {parameter for parameter in layer.parameters(recurse=False) if parameter.requires_grad}
        own -= {parameter for child in layer.children() for parameter in child.parameters()}
        places = {parameter.data_ptr() for parameter in own if parameter.numel()}
        if own & seen or places & taken:
            raise ModelError(
                "model.layer_unsupported",
                f"{type(layer).__name__}: it shares a weight with another layer.",
                "Call one layer twice instead: its calls are added up.",
            )
        seen |= own
        taken |= places
        if own:
            layers.append(layer)
    return layers
