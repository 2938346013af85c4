"""Models by name, and the checks that a model treats every record on its own.

Rules kept here:

1. A model is built from a name, its public parameters and a public seed; equal arguments give equal weights,
   and torch's global generator is left as it was.
2. Only layers on an allow-list are trained privately. Batch normalisation is refused: it mixes records, so
   that no per-record bound holds; :func:`suggest_fix` replaces it.
3. The allow-list can't see what a model's own ``forward`` does, so a probe compares a batch's outputs with
   single-row outputs.
4. Weights travel as float32 arrays under the model's own names, each weight once.

Packages add models through the entry-point group ``cloister.models``: each entry point is a builder.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from copy import deepcopy
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Annotated, Final

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import nn

from cloister.privacy.errors import ModelError

if TYPE_CHECKING:
    from cloister.core.canonical import JSON

ENTRY_POINT_GROUP: Final = "cloister.models"

Builder = Callable[[int, int, "Mapping[str, JSON]"], nn.Module]
"""Takes number of features, number of classes and public parameters; returns a model that maps float32
[batch, features] to logits [batch, classes]."""

_BUILDERS: dict[str, Builder] = {}
_GLOBAL_GENERATOR = threading.Lock()

_PER_RECORD_LAYERS: Final = frozenset(
    {
        *(nn.Linear, nn.Conv1d, nn.Conv2d, nn.GroupNorm, nn.LayerNorm),
        *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Identity),
        *(nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
        *(nn.Flatten, nn.Unflatten, nn.Embedding, nn.RMSNorm),
    }
)
# Named, not imported: they live in Opacus, which only the models that use them should load.
_PER_RECORD_LAYERS_BY_NAME: Final = frozenset(
    {"opacus.layers.dp_rnn.RNNLinear", "opacus.layers.dp_rnn.DPGRUCell", "opacus.layers.dp_rnn.DPGRU"}
)


def register_model(name: str, builder: Builder) -> None:
    """Make a model available under a name.

    Raises:
        ModelError: ``model.already_registered``.
    """
    if name in _BUILDERS:
        raise ModelError("model.already_registered", f"A model named {name!r} is registered already.")
    _BUILDERS[name] = builder


def model_names() -> tuple[str, ...]:
    """Return the names of all models that can be built, sorted."""
    return tuple(sorted({*_BUILDERS, *(point.name for point in entry_points(group=ENTRY_POINT_GROUP))}))


def build_model(
    name: str, input_dim: int, classes: int, seed: int, parameters: Mapping[str, JSON] | None = None
) -> nn.Module:
    """Build a model with weights that depend on the arguments alone.

    Args:
        name: One of :func:`model_names`.
        input_dim: Number of features, at least 1.
        classes: Number of classes, at least 2.
        seed: Public seed of the weights, 0 or more.
        parameters: The architecture's own public parameters.

    Raises:
        ModelError: ``model.unknown`` or ``model.parameters_invalid``.
    """
    builder = _BUILDERS.get(name)
    if builder is None:
        found = {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP)}
        if name not in found:
            raise ModelError(
                "model.unknown", "No model has this name.", f"Known: {', '.join(model_names())}."
            )
        builder = found[name].load()
    if input_dim < 1 or classes < 2 or not 0 <= seed < 2**63:
        raise ModelError(
            "model.parameters_invalid", "A model needs 1 feature, 2 classes and a seed of 0 or more."
        )
    # The initialisers draw from torch's global generator; the lock and the fork keep that invisible outside.
    with _GLOBAL_GENERATOR, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        try:
            return builder(input_dim, classes, parameters or {})
        except ValidationError as error:
            names = sorted({str(problem["loc"][0]) for problem in error.errors() if problem["loc"]})
            raise ModelError(
                "model.parameters_invalid", f"The parameters of model {name!r} are not valid.", details=names
            ) from None


def check_model(model: nn.Module, input_dim: int) -> int:
    """Refuse a model whose output for one record depends on other records.

    Args:
        model: Any module over float32 [batch, input_dim].
        input_dim: Number of features.

    Returns:
        The number of classes the model answers with.

    Raises:
        ModelError: ``model.layer_refused``, ``model.layer_unsupported`` or ``model.mixes_records``.
    """
    for name, module in model.named_modules():
        _check_layer(name or "the model", module)
    rows = torch.sin(torch.arange(3 * input_dim, dtype=torch.float32).view(3, input_dim))
    was_training = model.training
    model.train()
    try:
        with torch.no_grad():
            together = model(rows)
            apart = torch.cat([model(rows[i : i + 1]) for i in range(len(rows))])
    except (RuntimeError, ValueError, IndexError, TypeError):
        raise ModelError(
            "model.mixes_records", f"The model does not answer row by row for {input_dim} features."
        ) from None
    finally:
        model.train(was_training)
    if together.dim() != 2 or together.shape != apart.shape:
        raise ModelError(
            "model.mixes_records", "The model does not answer with one row of logits per record."
        )
    if not torch.allclose(together, apart, rtol=1e-3, atol=1e-4):
        raise ModelError(
            "model.mixes_records",
            "The model's output for a record changes with the rest of the batch.",
            "Remove statistics over the batch from its forward pass.",
        )
    return int(together.shape[1])


def suggest_fix(model: nn.Module) -> nn.Module:
    """Return a copy in which layers that can't be trained privately are replaced where that is known.

    Batch normalisation becomes group normalisation, with groups of two channels or more, so that plain
    features work too; attention and recurrent layers become Opacus's, as its validator does it; dropout is
    left out; activations return a new tensor. Nothing is trained or checked: :func:`check_model` has the
    last word.

    Args:
        model: Any module; it is left as it is.
    """
    from opacus.validators import ModuleValidator

    holder = nn.ModuleDict({"model": deepcopy(model)})
    for module in list(holder.modules()):
        if getattr(module, "inplace", False) is True:
            vars(module)["inplace"] = False
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                channels = child.num_features
                most = max(1, min(32, channels // 2))
                groups = next(count for count in range(most, 0, -1) if channels % count == 0)
                setattr(module, name, nn.GroupNorm(groups, channels))
            elif isinstance(child, nn.Dropout | nn.Dropout1d | nn.Dropout2d):
                setattr(module, name, nn.Identity())
    fixed: nn.Module = ModuleValidator.fix(holder["model"])
    return fixed.train(model.training)


def _check_layer(name: str, module: nn.Module) -> None:
    kind = type(module)
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        raise ModelError(
            "model.layer_refused",
            f"{name}: {kind.__name__} mixes the records of a batch.",
            "Use torch.nn.GroupNorm in its place, two channels or more to a group; suggest_fix(model) does.",
        )
    if isinstance(module, nn.Embedding) and (
        module.max_norm is not None or module.scale_grad_by_freq or module.sparse
    ):
        raise ModelError(
            "model.layer_refused",
            f"{name}: an embedding with max_norm, scale_grad_by_freq or sparse mixes the records of a batch.",
            "Leave these options out.",
        )
    if kind in _PER_RECORD_LAYERS or f"{kind.__module__}.{kind.__qualname__}" in _PER_RECORD_LAYERS_BY_NAME:
        return
    has_children = next(module.children(), None) is not None
    holds_state = next(module.parameters(recurse=False), None) is not None or any(
        True for _ in module.buffers(recurse=False)
    )
    if not has_children or holds_state:
        raise ModelError(
            "model.layer_unsupported",
            f"{name}: {kind.__name__} is not on the list of layers known to treat records separately.",
            "Build the model from Linear, Conv, Embedding, GroupNorm, LayerNorm, pooling and element-wise"
            " layers; suggest_fix(model) may know a replacement.",
        )


def state_arrays(model: nn.Module) -> dict[str, npt.NDArray[np.float32]]:
    """Return copies of the model's weights, float32, sorted by name; each once, under its first name.

    Weights are parameters: a model with other state is refused by :func:`check_model`. A state dictionary
    would list a weight that two layers hold, such as the recurrent ones of ``gru``, under each of its names.
    """
    state = dict(model.named_parameters())
    return {name: state[name].detach().to(torch.float32).numpy().copy() for name in sorted(state)}


def load_arrays(model: nn.Module, arrays: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Put weights into the model.

    Raises:
        ModelError: ``model.weights_mismatch`` unless names, shapes and types are exactly the model's and all
            values are finite. The model is unchanged then.
    """
    state = dict(model.named_parameters())
    if set(state) != set(arrays):
        raise ModelError("model.weights_mismatch", "The weights' names are not the model's.")
    for name, tensor in state.items():
        array = arrays[name]
        if array.dtype != np.float32 or tuple(array.shape) != tuple(tensor.shape):
            raise ModelError("model.weights_mismatch", f"The weights of {name} have another shape or type.")
        if not np.isfinite(array).all():
            raise ModelError("model.weights_mismatch", f"The weights of {name} are not finite.")
    with torch.no_grad():
        for name, tensor in state.items():
            tensor.copy_(torch.from_numpy(np.array(arrays[name])))


class _Parameters(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


_Width = Annotated[int, Field(strict=True, ge=1, le=4096)]


class _MlpParameters(_Parameters):
    hidden: Annotated[tuple[_Width, ...], Field(min_length=1, max_length=8)] = (32,)


class _CnnParameters(_Parameters):
    channels: _Width = 8
    image: tuple[_Width, _Width] | None = None


class _GruParameters(_Parameters):
    hidden: _Width = 16


class _Cnn1dParameters(_Parameters):
    channels: _Width = 16
    leads: _Width = 1


class _TransformerParameters(_Parameters):
    patch: _Width = 1
    width: _Width = 16
    heads: Annotated[int, Field(strict=True, ge=1, le=64)] = 2
    layers: Annotated[int, Field(strict=True, ge=1, le=8)] = 1


def _logistic_regression(input_dim: int, classes: int, parameters: Mapping[str, JSON]) -> nn.Module:
    _Parameters.model_validate(dict(parameters))
    return nn.Sequential(nn.Linear(input_dim, classes))


def _mlp(input_dim: int, classes: int, parameters: Mapping[str, JSON]) -> nn.Module:
    hidden = _MlpParameters.model_validate(dict(parameters)).hidden
    layers: list[nn.Module] = []
    width = input_dim
    for size in hidden:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return nn.Sequential(*layers, nn.Linear(width, classes))


def _small_cnn(input_dim: int, classes: int, parameters: Mapping[str, JSON]) -> nn.Module:
    chosen = _CnnParameters.model_validate(dict(parameters))
    channels = chosen.channels
    if chosen.image is None:
        return nn.Sequential(
            nn.Unflatten(1, (1, input_dim)),
            nn.Conv1d(1, channels, 5, padding=2),
            nn.ReLU(),
            nn.Conv1d(channels, 2 * channels, 5, padding=2),
            nn.ReLU(),
            nn.AdaptiveAvgPool1d(min(8, input_dim)),
            nn.Flatten(),
            nn.Linear(2 * channels * min(8, input_dim), classes),
        )
    if math.prod(chosen.image) != input_dim:
        raise ModelError(
            "model.parameters_invalid", "The image's height times width is not the number of features."
        )
    return nn.Sequential(
        nn.Unflatten(1, (1, *chosen.image)),
        nn.Conv2d(1, channels, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(2 * channels * 16, classes),
    )


def _gru(input_dim: int, classes: int, parameters: Mapping[str, JSON]) -> nn.Module:
    from cloister.privacy.recurrent import SequenceClassifier

    del input_dim
    return SequenceClassifier(_GruParameters.model_validate(dict(parameters)).hidden, classes)


def _cnn_1d(input_dim: int, classes: int, parameters: Mapping[str, JSON]) -> nn.Module:
    chosen = _Cnn1dParameters.model_validate(dict(parameters))
    if input_dim % chosen.leads:
        raise ModelError("model.parameters_invalid", "The number of leads doesn't divide that of features.")
    width = chosen.channels
    return nn.Sequential(
        nn.Unflatten(1, (chosen.leads, input_dim // chosen.leads)),
        nn.Conv1d(chosen.leads, width, 7, stride=2, padding=3),
        nn.GroupNorm(1, width),
        nn.ReLU(),
        nn.Conv1d(width, 2 * width, 5, stride=2, padding=2),
        nn.GroupNorm(1, 2 * width),
        nn.ReLU(),
        nn.Conv1d(2 * width, 2 * width, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(8),
        nn.Flatten(),
        nn.Linear(16 * width, classes),
    )


def _transformer_encoder(input_dim: int, classes: int, parameters: Mapping[str, JSON]) -> nn.Module:
    from cloister.privacy.attention import TransformerClassifier

    chosen = _TransformerParameters.model_validate(dict(parameters))
    if input_dim % chosen.patch or chosen.width % 2 or chosen.width % chosen.heads:
        raise ModelError(
            "model.parameters_invalid",
            "A transformer needs a patch that divides the features and an even width that its heads divide.",
        )
    return TransformerClassifier(input_dim, chosen.patch, chosen.width, chosen.heads, chosen.layers, classes)


register_model("logistic-regression", _logistic_regression)
register_model("mlp", _mlp)
register_model("small-cnn", _small_cnn)
register_model("gru", _gru)
register_model("cnn-1d", _cnn_1d)
register_model("transformer-encoder", _transformer_encoder)
