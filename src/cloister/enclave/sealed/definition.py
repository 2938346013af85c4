"""A model's definition, by hashes that node and worker hold against each other in every round.

The definition is what the job names: architecture, seed, parameters; the job's hash, which is stated, covers
it. What the worker built from it is hashed as well, module by module, and compared before each round.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cloister.core.canonical import JSON, canonicalize
from cloister.core.hashes import Sha256, sha256_hex

if TYPE_CHECKING:
    from torch import nn


def definition_sha256(architecture: str, seed: int, parameters: Mapping[str, JSON]) -> Sha256:
    """SHA-256 over the RFC 8785 form of a definition.

    Args:
        architecture: the model's name.
        seed: public seed of its weights.
        parameters: its public parameters.
    """
    return sha256_hex(
        canonicalize({"architecture": architecture, "seed": seed, "parameters": dict(parameters)})
    )


def structure_sha256(model: nn.Module) -> Sha256:
    """SHA-256 over what a model consists of; the weights' values are no part of it.

    Args:
        model: each of its modules counts with place, class, settings and whether its forward pass was
            replaced; each weight with name, shape, type and whether it is trained.
    """
    modules: list[JSON] = [
        [name, f"{type(one).__module__}.{type(one).__qualname__}", one.extra_repr(), "forward" in vars(one)]
        for name, one in model.named_modules()
    ]
    weights: list[JSON] = [
        [name, list(one.shape), str(one.dtype), one.requires_grad] for name, one in model.named_parameters()
    ]
    kept: list[JSON] = [[name, list(one.shape), str(one.dtype)] for name, one in model.named_buffers()]
    return sha256_hex(canonicalize({"modules": modules, "weights": weights, "kept": kept}))
