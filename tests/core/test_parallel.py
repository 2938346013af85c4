"""Work spread over cores: the same answers in the same order, and the error of whoever failed."""

from __future__ import annotations

import threading

import pytest

from cloister.core import parallel
from cloister.core.parallel import LEAST_SHARE, in_parallel


@pytest.mark.parametrize("count", [0, 1, LEAST_SHARE, 2 * LEAST_SHARE, 2 * LEAST_SHARE + 1, 1000])
@pytest.mark.parametrize("cores", [1, 2, 3, 64])
def test_results_stand_in_the_order_of_the_items(
    count: int, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "cores", lambda: cores)
    assert in_parallel(lambda one: one * one, range(count)) == [one * one for one in range(count)]


def test_many_items_are_worked_on_by_several_threads_and_few_by_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "cores", lambda: 3)

    def who(_: int) -> threading.Thread:
        return threading.current_thread()

    assert len(set(in_parallel(who, range(3 * LEAST_SHARE)))) == 3
    assert set(in_parallel(who, range(LEAST_SHARE))) == {threading.current_thread()}


@pytest.mark.parametrize("place", [0, 1, 63])
def test_an_error_in_any_thread_is_raised_after_all_have_ended(
    place: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "cores", lambda: 2)
    before = threading.active_count()

    def work(one: int) -> int:
        if one == place:
            raise KeyError(one)
        return one

    with pytest.raises(KeyError, match=str(place)):
        in_parallel(work, range(64))
    assert threading.active_count() == before
