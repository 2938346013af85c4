"""No record's gradient depends, in one bit, on how many or which other records are computed with it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cloister.privacy.blocks import Block, blocks_to_try, largest_even_part
from cloister.privacy.clipping import BookKeeper
from cloister.privacy.errors import ModelError
from cloister.privacy.models import build_model
from cloister.privacy.noise import NORM_ERROR
from cloister.privacy.units import Units

WIDE, UNITS = 30, 64
ARCHITECTURES: dict[str, tuple[str, int, dict[str, object]]] = {
    "logistic-regression": ("logistic-regression", 30, {}),
    "logistic-regression, odd": ("logistic-regression", 13, {}),
    "mlp": ("mlp", 30, {"hidden": [64, 64]}),
    "mlp, odd": ("mlp", 13, {"hidden": [33, 17]}),
    "small-cnn": ("small-cnn", 30, {}),
    "small-cnn, image": ("small-cnn", 64, {"channels": 3, "image": [8, 8]}),
    "cnn-1d": ("cnn-1d", 64, {"leads": 2}),
    "gru": ("gru", 6, {}),
    "gru, odd": ("gru", 7, {"hidden": 5}),
    "transformer-encoder": ("transformer-encoder", 12, {}),
    "transformer-encoder, odd": ("transformer-encoder", 13, {"width": 6}),
}


@pytest.fixture(params=[1, 2], name="threads")
def _threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(name="one_thread")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows(count: int, features: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    features_of = torch.randn(count, features, generator=generator)
    return features_of, torch.randint(0, 3, (count,), generator=generator)


def kept(model: nn.Module, features: int, expected: float = 40) -> BookKeeper:
    """A keeper that has chosen its block."""
    keeper = BookKeeper(model, 1.0)
    with keeper:
        keeper.choose_block(features, expected=expected, most=128)
    return keeper


def vector(sums: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([one.flatten() for one in sums])


def on_the_kink(record: torch.Tensor) -> Iterator[nn.Sequential]:
    """Networks whose ReLU jumps for one record, wherever this machine rounds it differently by batch size.

    The weights are those that a hub can choose: the bias takes away what the product is in one of the sizes.
    """
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(UNITS, WIDE, generator=generator)
    products = {m: nn.functional.linear(record.repeat(m, 1), weight) for m in range(1, 8)}
    for unit in range(UNITS):
        values = {float(value) for one in products.values() for value in one[:, unit]}
        if len(values) < 2:
            continue
        first, last = nn.Linear(WIDE, UNITS), nn.Linear(UNITS, 2)
        model = nn.Sequential(first, nn.ReLU(), last)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.zero_()
            first.weight.copy_(weight)
            first.bias.fill_(-1e4)
            first.bias[unit] = -min(values)
            last.weight[0, unit], last.weight[1, unit] = 100.0, -100.0
        yield model


@pytest.mark.parametrize("way", ["written out", "by autograd"])
@pytest.mark.parametrize("subjects", [False, True])
def test_weights_on_a_kink_can_not_make_one_record_move_the_others(way: str, *, subjects: bool) -> None:
    """The attack: with passes as large as the batch, one record more moved the sum by 4.5 clip norms."""
    record = torch.rand(1, WIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for model in on_the_kink(record):
        if way == "by autograd":
            model[0].register_forward_hook(lambda *_: None)
        keeper = kept(model, WIDE)
        with keeper:
            sums = [
                vector(
                    keeper.clipped_sum(
                        record.repeat(count, 1),
                        torch.zeros(count, dtype=torch.int64),
                        Units(count, torch.arange(count) if subjects else None),
                    )
                )
                for count in range(1, 9)
            ]
        for less, more in pairwise(sums):
            assert float((more - less).norm()) <= 1 + NORM_ERROR


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_record_has_the_same_gradient_whoever_else_is_in_the_batch(name: str, threads: int) -> None:
    architecture, features, parameters = ARCHITECTURES[name]
    torch.manual_seed(2)
    model = build_model(architecture, features, 3, 1, parameters)  # type: ignore[arg-type]
    keeper = kept(model, features)
    record, label = rows(1, features, 99)
    with keeper:
        alone = keeper.by_record(record, label)

        @given(count=st.integers(1, 200), place=st.integers(0, 199), seed=st.integers(0, 9))
        def same(count: int, place: int, seed: int) -> None:
            others, labels = rows(count, features, seed)
            others[place % count], labels[place % count] = record[0], label[0]
            together = keeper.by_record(others, labels)
            for one, other in zip(alone, together, strict=True):
                assert torch.equal(one[0], other[place % count])

        same()
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("name", ["mlp, odd", "gru, odd", "cnn-1d", "transformer-encoder, odd"])
def test_a_subject_moves_the_sum_by_its_own_clipped_gradient_alone(name: str) -> None:
    """What is left is float64's rounding of the sum, far below the slack."""
    architecture, features, parameters = ARCHITECTURES[name]
    model = build_model(architecture, features, 3, 1, parameters)  # type: ignore[arg-type]
    sizes = [3, 1, 40, 2, 5, 9]
    table, labels = rows(sum(sizes), features, 4)
    owners = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    keeper = kept(model, features)

    def sum_of(chosen: list[int]) -> torch.Tensor:
        mine = torch.isin(owners, torch.tensor(chosen))
        of_record = torch.searchsorted(torch.tensor(chosen), owners[mine])
        return vector(keeper.clipped_sum(table[mine], labels[mine], Units(len(chosen), of_record)))

    with keeper:
        everyone = sum_of(list(range(len(sizes))))
        for subject in range(len(sizes)):
            rest = sum_of([one for one in range(len(sizes)) if one != subject])
            own = sum_of([subject])
            assert float((everyone - rest - own).norm()) < 1e-13
            assert float(own.norm()) <= 1 + NORM_ERROR


SMOOTH = {"sigmoid": nn.Sigmoid, "silu": nn.SiLU, "elu": nn.ELU, "softplus": nn.Softplus, "gelu": nn.GELU}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("activation", SMOOTH)
@pytest.mark.parametrize("width", [1, 2, 3, 5, 7, 10])
def test_no_element_is_left_to_the_end_of_a_vectorised_loop(activation: str, width: int) -> None:
    """What is left there goes through another sigmoid; a trial on few such elements mostly finds nothing."""
    heard = nn.Linear(12, width)
    heard.register_forward_hook(lambda *_: None)  # by autograd, also where it could be written out
    model = nn.Sequential(heard, SMOOTH[activation](), nn.Linear(width, 3))
    for expected in (1, 10, 40):
        with BookKeeper(model, 1.0) as keeper:
            block = keeper.choose_block(12, expected=expected, most=2048)
            if block.spacing == 1:
                assert all(size % 32 == 0 for size in block.sizes)
            for seed in range(6):
                record, label = rows(1, 12, seed)
                everywhere = keeper.by_record(record.repeat(70, 1), label.repeat(70))
                assert all(torch.equal(one, one[:1].expand_as(one)) for one in everywhere)


@pytest.mark.usefixtures("one_thread")
def test_weights_on_a_gated_networks_kink_can_not_make_one_record_move_the_others() -> None:
    """The attack: eight records in a pass of eight, nine in one of sixteen; the sum moved by 8 clip norms."""
    model = build_model("gru", 1, 2, 1, {"hidden": 2})
    gru, head = model.get_submodule("gru"), model.get_submodule("head")
    assert isinstance(head, nn.Linear)
    block = kept(model, 1, expected=10).block
    generator = torch.Generator().manual_seed(3)
    for _ in range(100):
        record = torch.randn(1, 1, generator=generator)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            states = {size: gru(record.repeat(size, 1).unsqueeze(2))[0][:, -1] for size in (8, 16, 32)}
        for unit in range(2):
            with torch.no_grad():
                head.weight.zero_()
                head.bias.zero_()
                head.weight[0, unit] = 2.0**32
                head.bias[0] = -(2.0**32) * states[8][0, unit]
            with BookKeeper(model, 1.0) as keeper:
                keeper.block = block
                less, more = (
                    vector(
                        keeper.clipped_sum(
                            record.repeat(n, 1), torch.ones(n, dtype=torch.int64), Units(n, None)
                        )
                    )
                    for n in (8, 9)
                )
            assert float((more - less).norm()) <= 1 + NORM_ERROR


class Nudges(nn.Module):
    """Adds a last bit to every second row, as a matrix library may."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        odd = torch.arange(len(batch)).view(-1, *[1] * (batch.dim() - 1)) % 2
        return batch + odd * batch.abs() * 2**-22


class Restless(nn.Module):
    """Never the same twice."""

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        return batch * (1 + torch.rand(()) * 2**-18)


def test_where_a_rows_place_matters_records_stand_apart() -> None:
    model = nn.Sequential(Nudges(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3))
    assert kept(model, 8).block == Block((64,), 4)


def test_a_model_that_is_never_the_same_is_refused() -> None:
    model = nn.Sequential(Restless(), nn.Linear(8, 3))
    with pytest.raises(ModelError) as refusal:
        kept(model, 8)
    assert refusal.value.code == "model.mixes_records"


def test_looking_for_a_block_leaves_the_model_as_it_is() -> None:
    model = build_model("mlp", 8, 3, 0)
    before = [one.detach().clone() for one in model.parameters()]
    kept(model, 8)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@given(
    expected=st.floats(0.001, 1e6),
    most=st.integers(1, 4096),
    light=st.booleans(),
    exact=st.booleans(),
)
def test_every_shape_holds_a_record_and_fits_into_memory(
    expected: float, most: int, *, light: bool, exact: bool
) -> None:
    shapes = blocks_to_try(expected, most, light=light, exact=exact)
    assert shapes[-1] == Block((1,))
    assert all(1 <= one.rows <= most and one.records >= 1 for one in shapes)
    step = 8 if light or exact else 32
    assert all(size % step == 0 for one in shapes[:-1] for size in one.sizes)
    assert all(list(one.sizes) == sorted(set(one.sizes)) for one in shapes)


@given(count=st.integers(1, 300), rows_of=st.integers(1, 70), spacing=st.integers(1, 5))
def test_every_record_is_in_one_pass_and_passes_have_the_size_asked_for(
    count: int, rows_of: int, spacing: int
) -> None:
    block = Block((max(rows_of, spacing),), spacing)
    table, labels = rows(count, 3, 0)
    found = []
    for features, answers, taken in block.split(table, labels):
        assert features.shape == (block.rows, 3)
        others = torch.ones(block.rows, dtype=torch.bool)
        others[taken] = False
        assert not features[others].any()
        assert not answers[others].any()
        found.append(features[taken])
    assert torch.equal(torch.cat(found)[:count], table)
    assert sum(map(len, found)) == count


@given(size=st.integers(1, 5000), most=st.integers(1, 500))
def test_parts_of_one_shape(size: int, most: int) -> None:
    part = largest_even_part(size, most)
    assert 1 <= part <= most
    assert size % part == 0
