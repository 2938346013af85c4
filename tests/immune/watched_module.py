"""A module that tests watch by name."""


def price(number: int) -> int:
    return 2 * number
