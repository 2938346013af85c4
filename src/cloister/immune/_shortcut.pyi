from collections.abc import Callable
from types import CodeType

SOURCES: str

class Counter:
    cell_contents: int
    def __init__(self, value: int = 0) -> None: ...

class Entry:
    most: int
    allowance: int
    anyone: bool
    def __init__(self) -> None: ...
    def know(self, code: CodeType, /) -> None: ...
    def forget(self) -> None: ...

def shorten(
    wrapper: Callable[..., object],
    compared: Callable[..., object],
    function: Callable[..., object],
    left: Counter,
    errors: Counter,
    entry: Entry,
    counts_errors: bool,
    fits_exactly: bool,
    /,
) -> Callable[..., object]: ...
