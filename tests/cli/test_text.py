"""What comes from outside can't steer the terminal it is shown on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.cli.failure import show_error
from cloister.cli.text import printable


@pytest.mark.parametrize("hostile", ["\x1b[2J", "\x00", "\u202e", "\u200b", "\r\n", "\x9b2J"])
def test_control_format_and_direction_characters_are_replaced(hostile: str) -> None:
    assert printable(f"a{hostile[0]}b") == "a\N{REPLACEMENT CHARACTER}b"


@given(st.text())
def test_whatever_comes_in_a_line_of_visible_characters_goes_out(text: str) -> None:
    assert printable(text).isprintable()
    assert len(printable(text)) == len(text)


def test_an_error_that_quotes_an_escape_shows_none(capsys: pytest.CaptureFixture[str]) -> None:
    show_error("input.schema", "a field \x1b[1;1H is wrong", "hint \x07", ["path\u202e: no"])
    shown = capsys.readouterr().err
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert "\u202e" not in shown
