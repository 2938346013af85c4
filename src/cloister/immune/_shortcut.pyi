from collections.abc import Callable

SOURCES: str

class Counter:
    cell_contents: int
    def __init__(self, value: int = 0) -> None: ...

def shorten(
    wrapper: Callable[..., object],
    function: Callable[..., object],
    left: Counter,
    errors: Counter,
    counts_errors: bool,
    fits_exactly: bool,
    /,
) -> Callable[..., object]: ...
