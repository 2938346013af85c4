"""Models by name; models that mix records are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from cloister.privacy.errors import ModelError
from cloister.privacy.models import (
    build_model,
    check_model,
    load_arrays,
    model_names,
    register_model,
    state_arrays,
    suggest_fix,
)

NAMES = ["logistic-regression", "mlp", "small-cnn", "gru", "cnn-1d", "transformer-encoder"]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_depends_on_its_seed_alone(name: str) -> None:
    before = torch.get_rng_state()
    one, two, other = (state_arrays(build_model(name, 12, 3, seed)) for seed in (5, 5, 6))
    assert torch.equal(before, torch.get_rng_state())
    assert list(one) == sorted(one)
    assert all(array.dtype == np.float32 for array in one.values())
    assert all(np.array_equal(one[key], two[key]) for key in one)
    assert any(not np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", NAMES)
def test_a_registered_model_treats_records_separately(name: str) -> None:
    assert check_model(build_model(name, 12, 3, seed=0), 12) == 3


def test_a_cnn_over_images_is_built_from_the_images_shape() -> None:
    assert check_model(build_model("small-cnn", 28 * 28, 10, 0, {"image": [28, 28]}), 28 * 28) == 10
    with pytest.raises(ModelError, match="height"):
        build_model("small-cnn", 28 * 28, 10, 0, {"image": [28, 27]})


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("cnn-1d", {"leads": 5}), ("transformer-encoder", {"patch": 5}), ("transformer-encoder", {"heads": 3})],
)
def test_parameters_that_do_not_fit_each_other_are_refused(name: str, parameters: dict[str, int]) -> None:
    with pytest.raises(ModelError) as refusal:
        build_model(name, 12, 3, 0, parameters)  # type: ignore[arg-type]
    assert refusal.value.code == "model.parameters_invalid"


def test_an_unknown_model_is_refused_with_the_names_that_exist() -> None:
    with pytest.raises(ModelError) as refusal:
        build_model("transformer-of-dreams", 3, 2, 0)
    assert refusal.value.code == "model.unknown"
    assert all(name in refusal.value.hint for name in NAMES)
    assert set(NAMES) <= set(model_names())


@pytest.mark.parametrize(
    ("name", "parameters", "field"),
    [
        ("mlp", {"hidden": []}, "hidden"),
        ("mlp", {"hidden": [0]}, "hidden"),
        ("mlp", {"hidden": [True]}, "hidden"),
        ("mlp", {"hiden": [3]}, "hiden"),
        ("logistic-regression", {"hidden": [3]}, "hidden"),
        ("small-cnn", {"channels": 2.5}, "channels"),
        ("gru", {"hidden": -1}, "hidden"),
        ("cnn-1d", {"leads": 0}, "leads"),
        ("transformer-encoder", {"heads": 65}, "heads"),
    ],
)
def test_unknown_or_impossible_parameters_are_refused_by_name(
    name: str, parameters: dict[str, object], field: str
) -> None:
    with pytest.raises(ModelError) as refusal:
        build_model(name, 3, 2, 0, parameters)  # type: ignore[arg-type]
    assert refusal.value.code == "model.parameters_invalid"
    assert refusal.value.details == (field,)


@pytest.mark.parametrize(("features", "classes", "seed"), [(0, 2, 0), (3, 1, 0), (3, 2, -1)])
def test_impossible_sizes_are_refused(features: int, classes: int, seed: int) -> None:
    with pytest.raises(ModelError):
        build_model("mlp", features, classes, seed)


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ModelError, match="already"):
        register_model("mlp", lambda features, classes, _: nn.Linear(features, classes))


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm1d(4), nn.BatchNorm1d(4, track_running_stats=False), nn.SyncBatchNorm(4)]
)
def test_batch_normalisation_is_refused_and_the_fix_is_named(norm: nn.Module) -> None:
    with pytest.raises(ModelError) as refusal:
        check_model(nn.Sequential(nn.Linear(3, 4), norm, nn.Linear(4, 2)), 3)
    assert refusal.value.code == "model.layer_refused"
    assert "GroupNorm" in refusal.value.hint


@pytest.mark.parametrize(
    "broken",
    [
        nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)),
        nn.Sequential(
            nn.Unflatten(1, (1, 3)), nn.Conv1d(1, 4, 2), nn.BatchNorm1d(4), nn.Flatten(), nn.Linear(8, 2)
        ),
        nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Linear(4, 2)),
    ],
)
def test_a_fix_is_offered_that_passes_the_check_and_leaves_the_model_alone(broken: nn.Module) -> None:
    with pytest.raises(ModelError):
        check_model(broken, 3)
    assert check_model(suggest_fix(broken), 3) == 2
    with pytest.raises(ModelError):
        check_model(broken, 3)


def test_a_fixed_activation_no_longer_works_in_place() -> None:
    fixed = suggest_fix(nn.Sequential(nn.Linear(3, 2), nn.SiLU(inplace=True)))
    assert fixed[1].inplace is False  # type: ignore[index, union-attr]


@pytest.mark.parametrize("option", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"sparse": True}])
def test_embeddings_whose_gradient_depends_on_the_batch_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ModelError) as refusal:
        check_model(nn.Sequential(nn.Embedding(3, 2, **option)), 3)  # type: ignore[arg-type]
    assert refusal.value.code == "model.layer_refused"


@pytest.mark.parametrize("layer", [nn.Dropout(0.5), nn.LSTM(4, 4), nn.Bilinear(2, 2, 2)])
def test_a_layer_that_is_not_on_the_list_is_refused(layer: nn.Module) -> None:
    with pytest.raises(ModelError) as refusal:
        check_model(nn.Sequential(nn.Linear(3, 4), layer), 3)
    assert refusal.value.code == "model.layer_unsupported"


class CentresOnTheBatch(nn.Module):
    """Looks harmless to any list of layers."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.head(rows - rows.mean(dim=0))


class HoldsABuffer(CentresOnTheBatch):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))


def test_a_forward_pass_that_mixes_records_is_found_by_the_probe() -> None:
    with pytest.raises(ModelError) as refusal:
        check_model(CentresOnTheBatch(), 3)
    assert refusal.value.code == "model.mixes_records"


def test_state_outside_the_listed_layers_is_refused() -> None:
    with pytest.raises(ModelError) as refusal:
        check_model(HoldsABuffer(), 3)
    assert refusal.value.code == "model.layer_unsupported"


def test_a_model_for_another_number_of_features_is_refused() -> None:
    with pytest.raises(ModelError):
        check_model(build_model("mlp", 4, 2, 0), 3)


@pytest.mark.parametrize("name", NAMES)
def test_weights_travel_as_arrays(name: str) -> None:
    source, target = build_model(name, 5, 2, seed=1), build_model(name, 5, 2, seed=2)
    load_arrays(target, state_arrays(source))
    rows = torch.randn(4, 5)
    assert torch.equal(source(rows), target(rows))
    copies = state_arrays(source)
    next(iter(copies.values()))[...] = 9
    assert not np.array_equal(next(iter(copies.values())), next(iter(state_arrays(source).values())))


@pytest.mark.parametrize("name", NAMES)
def test_no_weight_travels_twice(name: str) -> None:
    model = build_model(name, 5, 2, seed=1)
    weights = sum(parameter.numel() for parameter in model.parameters())
    assert sum(array.size for array in state_arrays(model).values()) == weights


def test_weights_that_layers_share_travel_once_and_stay_shared() -> None:
    first = nn.Linear(3, 3)
    model = nn.Sequential(first, nn.ReLU(), first)
    arrays = state_arrays(model)
    assert sorted(arrays) == ["0.bias", "0.weight"]
    load_arrays(model, {name: array + 1 for name, array in arrays.items()})
    assert model[0] is model[2]
    assert all(np.array_equal(state_arrays(model)[name], array + 1) for name, array in arrays.items())


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays: {**arrays, "extra": np.zeros(1, np.float32)},
        lambda arrays: dict(list(arrays.items())[1:]),
        lambda arrays: {name: array[None] for name, array in arrays.items()},
        lambda arrays: {name: array.astype(np.float64) for name, array in arrays.items()},
        lambda arrays: {name: array * np.float32("nan") for name, array in arrays.items()},
    ],
)
def test_weights_that_are_not_the_models_are_refused_and_nothing_changes(change: object) -> None:
    model = build_model("mlp", 5, 2, seed=1)
    before = state_arrays(model)
    with pytest.raises(ModelError) as refusal:
        load_arrays(model, change(before))  # type: ignore[operator]
    assert refusal.value.code == "model.weights_mismatch"
    assert all(np.array_equal(before[name], array) for name, array in state_arrays(model).items())
