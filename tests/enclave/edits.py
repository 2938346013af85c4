"""Ways in which received bytes may be changed."""

from __future__ import annotations

from hypothesis import strategies as st


def flipped(data: bytes, bit: int) -> bytes:
    """The bytes with one bit changed."""
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def edits(data: bytes) -> st.SearchStrategy[bytes]:
    """Truncated, extended, something put in, taken out or overwritten; never the same bytes."""
    places = st.integers(0, len(data) - 1)
    return st.one_of(
        places.map(lambda end: data[:end]),
        st.binary(min_size=1, max_size=40).map(lambda more: data + more),
        st.tuples(places, st.binary(min_size=1, max_size=8)).map(
            lambda edit: data[: edit[0]] + edit[1] + data[edit[0] :]
        ),
        st.tuples(places, st.integers(1, 40)).map(lambda edit: data[: edit[0]] + data[edit[0] + edit[1] :]),
        st.tuples(places, st.binary(min_size=1, max_size=16)).map(
            lambda edit: data[: edit[0]] + edit[1] + data[edit[0] + len(edit[1]) :]
        ),
    ).filter(lambda changed: changed != data)
