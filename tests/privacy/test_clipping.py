"""The clipped sum equals Opacus's hooks on every architecture, and one unit at a time."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from opacus.grad_sample import GradSampleHooks
from opacus.optimizers import DPOptimizer
from torch import nn

from cloister.core.canonical import JSON
from cloister.privacy import clipping
from cloister.privacy.clipping import BookKeeper, Shape
from cloister.privacy.errors import ModelError
from cloister.privacy.feed_forward import FeedForward
from cloister.privacy.models import build_model, model_names
from cloister.privacy.noise import NORM_ERROR
from cloister.privacy.units import Units

FEATURES, CLASSES, RECORDS = 24, 3, 10


class Tokens(nn.Module):
    """Words by number, averaged."""

    def __init__(self, padding: int | None) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 5, padding_idx=padding)
        self.head = nn.Linear(5, CLASSES)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.head(self.words((rows.abs() * 3).long() % 7).mean(dim=1))


class Twice(nn.Module):
    """One layer, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, FEATURES)
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.head(torch.tanh(self.layer(torch.tanh(self.layer(rows)))))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (4, 2, 3)),
        nn.Conv2d(4, 6, (2, 3), stride=(1, 2), padding=(1, 2), dilation=(1, 2), groups=2),
        nn.GroupNorm(3, 6),
        nn.Tanh(),
        nn.Conv2d(6, 6, 2, padding=1, groups=6, bias=False),
        nn.Flatten(2),
        nn.Conv1d(6, 4, 3, padding="same", dilation=2),
        nn.LayerNorm((4, 12)),
        nn.Flatten(),
        nn.Linear(48, CLASSES),
    )


def frozen() -> nn.Module:
    model = nn.Sequential(
        nn.Linear(FEATURES, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, CLASSES)
    )
    model[0].weight.requires_grad = False
    model[2].bias.requires_grad = False
    return model


def named(name: str) -> Callable[[], nn.Module]:
    return lambda: build_model(name, FEATURES, CLASSES, seed=1)


MODELS: dict[str, Callable[[], nn.Module]] = {
    **{name: named(name) for name in model_names()},
    "convolutions": convolutions,
    "circular": lambda: nn.Sequential(
        nn.Unflatten(1, (2, 12)),
        nn.Conv1d(2, 3, 3, padding=1, padding_mode="circular"),
        nn.Flatten(),
        nn.Linear(36, CLASSES),
    ),
    "tokens": lambda: Tokens(None),
    "padded tokens": lambda: Tokens(0),
    "twice": Twice,
    "without bias": lambda: nn.Sequential(nn.Linear(FEATURES, CLASSES, bias=False)),
    "sequence": lambda: nn.Sequential(
        nn.Unflatten(1, (6, 4)),
        nn.Linear(4, 5),
        nn.LayerNorm(5),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(30, CLASSES),
    ),
    "by Opacus's own rule": lambda: nn.Sequential(
        nn.Linear(FEATURES, 8), nn.RMSNorm(8), nn.Linear(8, CLASSES)
    ),
}
SUBJECTS = torch.tensor([0, 0, 0, 1, 2, 2, 3, 4, 4, 4])


@pytest.fixture(params=MODELS, name="model")
def _model(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(3)
    return MODELS[request.param]()


def batch(records: int = RECORDS) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(records, FEATURES, generator=generator), torch.arange(records) % CLASSES


def ours(
    model: nn.Module,
    clip: float,
    units: Units | None = None,
    rows: tuple[torch.Tensor, torch.Tensor] = batch(),
) -> list[torch.Tensor]:
    with BookKeeper(model, clip) as keeper:
        return keeper.clipped_sum(*rows, units or Units(len(rows[0]), None))


def opacus_hooks(model: nn.Module, clip: float) -> list[torch.Tensor]:
    features, labels = batch()
    hooks = GradSampleHooks(model, loss_reduction="sum")
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = DPOptimizer(
        torch.optim.SGD(parameters, 0.1), noise_multiplier=0, max_grad_norm=clip, expected_batch_size=1
    )
    nn.functional.cross_entropy(model(features), labels, reduction="sum").backward()
    optimizer.clip_and_accumulate()
    sums = [p.summed_grad for p in parameters]
    hooks.cleanup()
    return sums


def one_at_a_time(model: nn.Module, clip: float, of_record: torch.Tensor) -> list[torch.Tensor]:
    features, labels = batch()
    parameters = [p for p in model.parameters() if p.requires_grad]
    total = [torch.zeros_like(p, dtype=torch.float64) for p in parameters]
    for unit in of_record.unique():
        mine = of_record == unit
        loss = nn.functional.cross_entropy(model(features[mine]), labels[mine], reduction="sum")
        gradients = torch.autograd.grad(loss, parameters)
        norm = torch.cat([g.double().flatten() for g in gradients]).norm()
        factor = min(1.0, clip / (float(norm) + 1e-6))
        total = [kept + factor * g for kept, g in zip(total, gradients, strict=True)]
    return total


def apart(one: list[torch.Tensor], other: list[torch.Tensor]) -> float:
    return max(float((a.double() - b.double()).abs().max()) for a, b in zip(one, other, strict=True))


def skip_unless_opacus_can(request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["model"] in {"circular", "padded tokens"}:
        pytest.skip("Opacus's hooks have no circular padding and count padded words")


@pytest.mark.parametrize("clip", [0.05, 1.0, 100.0])
def test_clipped_sums_equal_opacus_hooks(
    model: nn.Module, clip: float, request: pytest.FixtureRequest
) -> None:
    skip_unless_opacus_can(request)
    assert apart(ours(model, clip), opacus_hooks(model, clip)) < 1e-5


@pytest.mark.parametrize("clip", [0.05, 1.0, 100.0])
def test_clipped_sums_equal_one_record_at_a_time(model: nn.Module, clip: float) -> None:
    assert apart(ours(model, clip), one_at_a_time(model, clip, torch.arange(RECORDS))) < 1e-5


@pytest.mark.parametrize("clip", [0.05, 1.0, 100.0])
def test_a_subjects_records_are_summed_and_clipped_once(model: nn.Module, clip: float) -> None:
    assert apart(ours(model, clip, Units(5, SUBJECTS)), one_at_a_time(model, clip, SUBJECTS)) < 1e-5


@pytest.mark.parametrize("size", [1.0, 1e6, 1e18])
@pytest.mark.parametrize("subjects", [False, True])
def test_one_unit_never_moves_the_sum_by_more_than_the_bound(
    model: nn.Module, size: float, subjects: bool
) -> None:
    units = Units(1, torch.zeros(4, dtype=torch.int64)) if subjects else Units(1, None)
    rows = torch.full((4 if subjects else 1, FEATURES), size)
    sums = ours(model, 0.7, units, (rows, torch.zeros(len(rows), dtype=torch.int64)))
    assert float(torch.cat([one.flatten() for one in sums]).norm()) <= 0.7 * (1 + NORM_ERROR)


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan, 3e38])
def test_a_record_with_a_non_finite_gradient_is_not_visible(model: nn.Module, value: float) -> None:
    features, labels = batch()
    rest = ours(model, 1.0, rows=(features[1:], labels[1:]))
    features[0] = value
    together = ours(model, 1.0, rows=(features, labels))
    assert all(bool(torch.isfinite(one).all()) for one in together)
    moved = torch.cat([(a - b).flatten() for a, b in zip(together, rest, strict=True)]).norm()
    assert float(moved) <= 1.0 + 1e-5
    if not torch.isfinite(torch.tensor(value)) and not isinstance(model, Tokens):
        assert float(moved) < 1e-6


def test_a_subject_with_a_non_finite_record_contributes_nothing_at_all() -> None:
    model = MODELS["mlp"]()
    features, labels = batch()
    rest = ours(model, 1.0, Units(4, SUBJECTS[3:] - 1), (features[3:], labels[3:]))
    features[1] = torch.nan
    assert apart(ours(model, 1.0, Units(5, SUBJECTS), (features, labels)), rest) < 1e-6


def test_positions_that_cancel_do_not_outgrow_the_clip_norm_by_rounding() -> None:
    # Two positions of 1e12 with opposite gradients leave a norm near 1 that float32 can't see.
    layer = nn.Linear(4, 5)
    from cloister.privacy.layer_rules import LinearShare

    a = torch.full((1, 2, 4), 1e6)
    g = torch.ones(1, 2, 5) * torch.tensor([1e6, -1e6]).view(1, 2, 1)
    a[0, 0, 0] += 0.5
    share = LinearShare(layer, [a], [g], Units(1, None))
    norm = share.square_norms().sqrt()
    factor = (1 / (norm + 1e-6)).clamp(max=1)
    lengths = float((a[0].double().norm(dim=1) * g[0].double().norm(dim=1)).sum())
    assert float(factor) * lengths <= 2.0**14
    sums = share.weighted(factor)
    assert float(torch.cat([one.flatten() for _, one in sums]).norm()) <= 1


def test_no_gradient_of_a_linear_layer_is_made_per_record(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = (nn.Linear(FEATURES, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, CLASSES))
    model = nn.Sequential(*layers)
    sizes: list[int] = []

    class Sizes(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                sizes.append(result.numel())
            return result

    with Sizes():
        ours(model, 1.0)
    # Nothing is larger than one weight of the widest layer, with widths filled up to sixteen floats.
    assert max(sizes) <= 304 * 304


class UsesAWeightDirectly(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(FEATURES, CLASSES)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.head(rows) + rows @ self.head.weight.T


class TimeFirst(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.head = nn.Linear(1, 2), nn.Linear(2 * FEATURES, CLASSES)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(rows.T.unsqueeze(2)).transpose(0, 1).flatten(1))


@pytest.mark.parametrize("model", [UsesAWeightDirectly(), TimeFirst()])
def test_a_model_whose_layers_do_not_account_for_its_gradient_is_refused(model: nn.Module) -> None:
    with BookKeeper(model, 1.0) as keeper, pytest.raises(ModelError) as refusal:
        keeper.shape(FEATURES, grouped=False)
    assert refusal.value.code == "model.layer_unsupported"


def test_the_shape_counts_weights_and_positions() -> None:
    def shape(name: str, *, grouped: bool = False) -> Shape:
        with BookKeeper(MODELS[name](), 1.0) as keeper:
            return keeper.shape(FEATURES, grouped=grouped)

    assert shape("logistic-regression") == Shape(25 * CLASSES, 1, cancels=False)
    assert shape("logistic-regression", grouped=True) == Shape(25 * CLASSES, 1, cancels=True)
    assert shape("sequence").positions == 6
    assert shape("twice") == Shape(25 * (24 + CLASSES), 2, cancels=True)
    assert shape("gru").positions == FEATURES
    assert not shape("convolutions").cancels
    assert shape("tokens").cancels


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Identity])
@pytest.mark.parametrize("clip", [0.1, 100.0])
def test_written_out_passes_equal_autograds(activation: type[nn.Module], clip: float) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(
        nn.Sequential(nn.Linear(FEATURES, 9), activation()), nn.Linear(9, 9), nn.Linear(9, CLASSES)
    )
    assert FeedForward.of(plain) is not None
    written = ours(plain, clip)
    handle = plain[1].register_forward_hook(lambda *_: None)
    assert FeedForward.of(plain) is None
    assert apart(written, ours(plain, clip)) < 1e-6
    handle.remove()


def test_a_unit_larger_than_memory_is_summed_in_parts_and_clipped_once() -> None:
    model = MODELS["mlp"]()
    features, labels = batch()
    for clip in (0.05, 100.0):
        with BookKeeper(model, clip) as keeper:
            parts = [(features[i : i + 3], labels[i : i + 3]) for i in range(0, RECORDS, 3)]
            whole = keeper.clipped_unit(iter(parts))
            assert apart(whole, one_at_a_time(model, clip, torch.zeros(RECORDS))) < 1e-5
            features_with_nan = features.clone()
            features_with_nan[4] = torch.nan
            assert all(not bool(one.any()) for one in keeper.clipped_unit([(features_with_nan, labels)]))


def test_listening_ends_with_the_context() -> None:
    model = MODELS["gru"]()
    ours(model, 1.0)
    assert not any(module._forward_hooks for module in model.modules())


class Borrows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(FEATURES, CLASSES), nn.Linear(FEATURES, CLASSES)
        self.other.weight = self.one.weight

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return self.one(rows) + self.other(rows)


@pytest.mark.parametrize(
    "model",
    [
        Borrows(),
        nn.Sequential(nn.Linear(FEATURES, 5), nn.SiLU(inplace=True), nn.Linear(5, CLASSES)),
        nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES)),
    ],
)
def test_layers_whose_gradients_would_be_wrong_are_refused(model: nn.Module) -> None:
    with pytest.raises(ModelError) as refusal:
        ours(model, 1.0)
    assert refusal.value.code == "model.layer_unsupported"


class Views(nn.Module):
    """The most common way to write a convolutional network."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4 * 6 * 6, 3)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        planes = torch.relu(self.convolution(rows.view(-1, 1, 8, 8)))
        answer: torch.Tensor = self.head(planes.view(planes.size(0), -1))
        return answer


def test_a_model_that_bears_one_layout_only_is_clipped_in_that() -> None:
    model = Views()
    rows = torch.randn(6, 64, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    with BookKeeper(model, 0.5) as keeper:
        keeper.shape(64, grouped=False)
        assert not keeper.channels_last
        keeper.choose_block(64, expected=6, most=64)
        sums = keeper.clipped_sum(rows, labels, Units(6, None))
    expected = [torch.zeros_like(one, dtype=torch.float64) for one in model.parameters()]
    for row in range(6):
        loss = nn.functional.cross_entropy(model(rows[row : row + 1]), labels[row : row + 1])
        gradient = [one.double() for one in torch.autograd.grad(loss, list(model.parameters()))]
        factor = min(1.0, 0.5 / float(torch.cat([one.flatten() for one in gradient]).norm()))
        expected = [total + factor * one for total, one in zip(expected, gradient, strict=True)]
    for one, other in zip(sums, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "features", "parameters"),
    [("mlp", 13, {}), ("small-cnn", 64, {"channels": 3, "image": [8, 8]})],
)
def test_weights_are_where_they_were_once_nobody_listens(
    architecture: str, features: int, parameters: dict[str, JSON], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever holds a tensor of the model goes on holding it, whatever went wrong in between."""
    model = build_model(architecture, features, 3, 0, parameters)
    state = model.state_dict()

    def places() -> list[tuple[int, tuple[int, ...]]]:
        return [(one.data_ptr(), one.stride()) for one in model.parameters()]

    before = places()
    with BookKeeper(model, 1.0) as keeper, torch.no_grad():
        assert places() != before
        next(model.parameters()).add_(1.0)
        with pytest.raises(RuntimeError, match="one model at a time"), keeper:
            pass
    assert places() == before
    assert all(torch.equal(state[name], one) for name, one in model.named_parameters())

    def no_memory(*_: object, **__: object) -> torch.Tensor:
        raise MemoryError

    keeper = BookKeeper(model, 1.0)
    monkeypatch.setattr(torch.Tensor, "new_full" if architecture == "mlp" else "clone", no_memory)
    with pytest.raises(MemoryError), keeper:
        pass
    assert places() == before


def test_the_trials_copy_of_a_model_has_no_ears(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copied hook would keep every pass of the trial alive."""
    copies: list[nn.Module] = []

    def copied(model: nn.Module) -> nn.Module:
        copies.append(deepcopy(model))
        return copies[0]

    monkeypatch.setattr(clipping, "with_made_up_weights", copied)
    model = build_model("small-cnn", 16, 3, 0)
    with BookKeeper(model, 1.0) as keeper:
        keeper.choose_block(16, expected=8, most=64)
        assert any(one._forward_hooks for one in model.modules())
    assert not any(one._forward_hooks for one in (*model.modules(), *copies[0].modules()))


def test_two_parameters_on_one_piece_of_memory_are_one_weight() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = nn.Parameter(first.weight.data)
    with pytest.raises(ModelError) as refusal:
        BookKeeper(nn.Sequential(first, second), 1.0)
    assert refusal.value.code == "model.layer_unsupported"


class SumsPlaces(nn.Module):
    """Its gradients are one value in every place: torch doesn't write them out."""

    def forward(self, planes: torch.Tensor) -> torch.Tensor:
        return planes.sum(2)


def test_a_record_that_is_not_finite_changes_no_bit_of_the_others() -> None:
    model = nn.Sequential(nn.Unflatten(1, (3, 20)), nn.Conv1d(3, 8, 3), SumsPlaces(), nn.Linear(8, 3))
    rows = torch.randn(64, 60, generator=torch.Generator().manual_seed(1))
    rows[-1] = torch.inf
    labels = torch.arange(64) % 3
    with BookKeeper(model, 1.0) as keeper:
        keeper.choose_block(60, expected=60, most=64)
        without = keeper.clipped_sum(rows[:-1], labels[:-1], Units(63, None))
        with_it = keeper.clipped_sum(rows, labels, Units(64, None))
    assert all(torch.equal(one, other) for one, other in zip(without, with_it, strict=True))
