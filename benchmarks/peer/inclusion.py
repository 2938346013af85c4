"""Times pymerkle and sigstore-python on inclusion proofs that come in as JSON; runs in .venv-peers.

Each is given what its own verifier takes, made ready beforehand. What is timed is the public check of one
entry's bytes: hashing the leaf, walking the proof, comparing the root. For sigstore this is the function its
verifier calls for a log entry, on a stand-in with the entry's fields.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from base64 import b64decode
from collections.abc import Callable
from types import SimpleNamespace

from pymerkle import InclusionProof, verify_inclusion
from pymerkle.core import _inclusion_path_layout
from pymerkle.hasher import MerkleHasher
from sigstore._internal.merkle import verify_merkle_inclusion


def median_us(check: Callable[[int], object], count: int) -> float:
    """The median of how many microseconds a check takes."""
    taken = []
    for number in range(count):
        started = time.perf_counter()
        check(number)
        taken.append((time.perf_counter() - started) * 1e6)
    return statistics.median(taken)


def main() -> None:
    """Prints a JSON object: microseconds of each."""
    given = json.load(sys.stdin)
    size, root = given["size"], b64decode(given["root"])
    indexes = given["indexes"]
    entries = [b64decode(one) for one in given["entries"]]
    proofs = [[b64decode(one) for one in proof] for proof in given["proofs"]]
    hasher = MerkleHasher("sha256", security=True)
    numbers = range(len(entries))
    theirs = [
        InclusionProof(
            "sha256",
            True,
            size,
            indexes[at] + 1,
            _inclusion_path_layout(indexes[at] + 1, size)[0],
            [hasher.hash_buff(entries[at]), *proofs[at]],
        )
        for at in numbers
    ]
    logged = [
        SimpleNamespace(
            _inner=SimpleNamespace(
                canonicalized_body=entries[at],
                inclusion_proof=SimpleNamespace(
                    log_index=indexes[at], tree_size=size, hashes=proofs[at], root_hash=root
                ),
            )
        )
        for at in numbers
    ]

    def pymerkle(at: int) -> None:
        leaf = hasher.hash_buff(entries[at])
        verify_inclusion(leaf, root, theirs[at], index=indexes[at] + 1, size=size)

    def sigstore(at: int) -> None:
        verify_merkle_inclusion(logged[at])

    print(
        json.dumps(
            {"pymerkle": median_us(pymerkle, len(numbers)), "sigstore": median_us(sigstore, len(numbers))}
        )
    )


if __name__ == "__main__":
    main()
