"""New random state after a fork: what was copied from the server is thrown away.

torch's, numpy's and Python's own generators are copied by a fork, so that two workers would draw the same.
They protect nobody (noise and batches come from `cloister.privacy.randomness`, whose sources a worker makes
itself, keyed by the kernel), yet nothing equal may be drawn in two workers at all.
"""

from __future__ import annotations

import os
import random
import sys


def draw_afresh() -> str:
    """Seed every generator that a library of this process keeps from the kernel's entropy.

    Returns:
        The names of the generators.
    """
    random.seed(os.getrandom(32))
    seeded = ["random"]
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        words = os.getrandom(32)
        numpy.random.seed([int.from_bytes(words[at : at + 4], "little") for at in range(0, 32, 4)])
        seeded.append("numpy")
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.default_generator.manual_seed(int.from_bytes(os.getrandom(8), "little") >> 1)
        seeded.append("torch")
    return ", ".join(seeded)
