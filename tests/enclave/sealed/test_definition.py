"""A worker trains the model that the job defines, and says so in every answer."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cloister.enclave.sealed.definition import definition_sha256, structure_sha256
from cloister.privacy.models import build_model
from cloister.privacy.trainer import DPTrainer, TrainingData, TrainingPlan
from tests.enclave.sealed.scene import COLUMNS, a_table


def a_model() -> nn.Module:
    return build_model("mlp", COLUMNS, 2, 3, {})


def retyped(model: nn.Module) -> None:
    model.double()


def layer_replaced(model: nn.Module) -> None:
    name, layer = next((n, one) for n, one in model.named_modules() if isinstance(one, nn.Linear))
    parent = model.get_submodule(name.rpartition(".")[0])
    setattr(parent, name.rpartition(".")[2], nn.Linear(layer.in_features, layer.out_features, bias=False))


def layer_added(model: nn.Module) -> None:
    model.add_module("tap", nn.Identity())


def forward_replaced(model: nn.Module) -> None:
    model.forward = lambda x: x  # type: ignore[method-assign,assignment]


def frozen(model: nn.Module) -> None:
    next(iter(model.parameters())).requires_grad = False


def kept(model: nn.Module) -> None:
    model.register_buffer("memory", torch.zeros(1))


@pytest.mark.parametrize("change", [retyped, layer_replaced, layer_added, forward_replaced, frozen, kept])
def test_a_model_that_was_altered_has_another_hash(change: object) -> None:
    model = a_model()
    before = structure_sha256(model)
    change(model)  # type: ignore[operator]
    assert structure_sha256(model) != before


def test_training_a_model_leaves_its_hash_as_it_is() -> None:
    from cloister.privacy.testing import SeededTestRandom

    model, data = a_model(), a_table()
    before = structure_sha256(model)
    assert before == structure_sha256(a_model())
    trainer = DPTrainer(
        TrainingPlan(0.3, 1.0, 1.0, 2, 0.5),
        noise=SeededTestRandom(1, "noise"),
        sampling=SeededTestRandom(1, "sampling"),
    )
    trainer.fit(model, TrainingData(data.features.copy(), data.labels.copy(), None))
    assert structure_sha256(model) == before


def test_a_definition_is_named_by_architecture_seed_and_parameters() -> None:
    one = definition_sha256("mlp", 3, {"width": 8})
    assert one == definition_sha256("mlp", 3, {"width": 8.0})
    others = (
        definition_sha256("cnn-1d", 3, {"width": 8}),
        definition_sha256("mlp", 4, {"width": 8}),
        definition_sha256("mlp", 3, {"width": 9}),
    )
    assert len({one, *others}) == 4
