"""How a job uses the processor: one thread per site, and torch inside each on one thread."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def one_thread_per_site() -> Iterator[None]:
    """Keep torch from spreading small operations over cores that other sites' threads are using.

    Torch's waiting threads spin: on two busy cores that slowed plain training from 269,000 to 900 samples
    a second. What was set before is set again afterwards.
    """
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
