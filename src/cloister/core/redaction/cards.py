"""Numbers of payment cards: which prefixes and lengths are issued, and the check digit.

Source: ISO/IEC 7812-1 (numbering, Luhn's check digit in annex B) and the ranges the networks publish.
"""

from __future__ import annotations

from functools import lru_cache

# Luhn's sum is of the digits' values: every second one doubled, and of two digits their sum.
_TWICE = bytes.maketrans(b"0123456789", bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)))
_SIXTEEN_UP = range(16, 20)
_RANGES: tuple[tuple[int, int, int, range | tuple[int, ...]], ...] = (
    # digits of the prefix, first, last, lengths
    (1, 4, 4, (13, 16, 19)),  # Visa
    (2, 51, 55, (16,)),  # Mastercard
    (4, 2221, 2720, (16,)),  # Mastercard, 2-series
    (2, 34, 34, (15,)),  # American Express
    (2, 37, 37, (15,)),
    (4, 6011, 6011, _SIXTEEN_UP),  # Discover
    (3, 644, 649, _SIXTEEN_UP),
    (2, 65, 65, _SIXTEEN_UP),
    (2, 62, 62, _SIXTEEN_UP),  # UnionPay
    (2, 81, 81, _SIXTEEN_UP),
    (4, 3528, 3589, _SIXTEEN_UP),  # JCB
    (4, 1800, 1800, (15,)),  # JCB, older
    (4, 2131, 2131, (15,)),
    (3, 300, 305, range(14, 20)),  # Diners Club
    (4, 3095, 3095, range(14, 20)),
    (2, 36, 36, range(14, 20)),
    (2, 38, 39, range(14, 20)),
    *(
        (4, prefix, prefix, range(12, 20))  # Maestro
        for prefix in (5018, 5020, 5038, 5893, 6304, 6759, 6761, 6762, 6763)
    ),
)


@lru_cache(maxsize=10_000)
def _lengths(prefix: str) -> frozenset[int]:
    """The lengths that are issued with these first four digits."""
    return frozenset(
        length
        for digits, first, last, lengths in _RANGES
        if first <= int(prefix[:digits]) <= last
        for length in lengths
    )


def is_issued(digits: str) -> bool:
    """Whether some network issues cards with this prefix and of this length."""
    return len(digits) in _lengths(digits[:4])


def has_check_digit(digits: str) -> bool:
    """Whether the last digit is the one that Luhn's algorithm gives for the others."""
    written = digits.encode("ascii")
    once = written[::-2]
    return (sum(once) - 48 * len(once) + sum(written[-2::-2].translate(_TWICE))) % 10 == 0


def is_card(digits: str) -> bool:
    """Whether these 12 to 19 ASCII digits are a card's number.

    Args:
        digits: the number without separators.
    """
    return is_issued(digits) and has_check_digit(digits)
