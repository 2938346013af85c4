"""What a command says and answers where something unexpected comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest

from cloister.cli.failure import guarded


def _defect() -> int:
    raise RuntimeError("record 17")


def _interrupt() -> int:
    raise KeyboardInterrupt


def _closed_badly() -> int:
    try:
        return _interrupt()
    finally:
        _defect()


def _turned_by_a_library() -> int:
    try:
        return _interrupt()
    except KeyboardInterrupt as stop:
        raise ImportError("record 17") from stop


@pytest.mark.parametrize("action", [_closed_badly, _turned_by_a_library])
def test_an_error_that_an_interrupt_led_to_ends_as_interrupted_and_is_named_by_its_type(
    action: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert guarded(action, as_json=False, debug=False) == 130
    shown = capsys.readouterr().err
    assert "interrupted" in shown
    assert "Error came up while it ended" in shown
    assert "17" not in shown


def test_an_error_of_its_own_is_a_defect(capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded(_defect, as_json=False, debug=False) == 70
    assert "17" not in capsys.readouterr().err


def test_an_error_after_an_interrupt_that_was_dealt_with_is_a_defect() -> None:
    def action() -> int:
        with suppress(KeyboardInterrupt):
            _interrupt()
        return _defect()

    assert guarded(action, as_json=False, debug=False) == 70
