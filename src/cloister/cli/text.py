"""Text from outside on its way to a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """Replace whatever could steer a terminal or hide in it: control, format and bidirectional characters.

    Args:
        text: Anything, such as a detail that quotes a receipt.

    Returns:
        One line of visible characters.
    """
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
