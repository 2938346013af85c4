"""The quick reading of an event takes exactly what the strict one takes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.core.canonical import JSON, canonicalize, parse_canonical
from cloister.core.errors import InputError
from cloister.evidence.segments import Cipher
from cloister.evidence.segments.events import EventForms
from cloister.evidence.segments.layout import MAX_EVENT_BYTES, MAX_EVENT_DEPTH
from tests.evidence.segments.test_properties import event

HEAD = b'{"at":"2026-11-21T14:00:00.000000Z","event":'


def strict(text: bytes) -> bool:
    try:
        return isinstance(parse_canonical(text, max_bytes=MAX_EVENT_BYTES, max_depth=MAX_EVENT_DEPTH), dict)
    except InputError:
        return False


def fits(forms: EventForms, text: bytes) -> bool:
    return forms.fits(HEAD + text + b',"kind":"entry","n":3', len(HEAD + text))


@settings(max_examples=300)
@given(known=st.lists(event, min_size=1, max_size=4), data=st.data())
def test_an_edited_event_of_a_known_shape_is_taken_where_the_strict_reader_takes_it(
    known: list[dict[str, JSON]], data: st.DataObject
) -> None:
    forms, texts = EventForms(Cipher.NONE), [canonicalize(one) for one in known]
    assert all(fits(forms, text) for text in texts)
    text = data.draw(st.sampled_from(texts))
    place = data.draw(st.integers(0, len(text)))
    put = data.draw(
        st.binary(max_size=3)
        | st.sampled_from(
            [b"0", b"00", b".0", b"-", b"1e5", b"9" * 17, b"\\u0041", b" ", b'"', b"null", b"true"]
        )
    )
    edited = text[:place] + put + text[place + data.draw(st.integers(0, 3)) :]
    assert fits(forms, edited) == strict(edited)


NUMBERS = """
0 -0 1 -1 01 1.0 1.5 -1.5 0.5 -0.5 .5 5. 1e3 1E3 1e-7 0.000001 0.0000001 -0.000001 -0.0000001 0.00000012
123456.12345678 1234567.5 0.123456789 0.1234567890123456 0.10 999999999999999 9007199254740991
9007199254740993 100000000000000000000 1e21 NaN Infinity +1 0x1 1_0
"""


@pytest.mark.parametrize("number", NUMBERS.split())
def test_a_number_is_taken_where_the_strict_reader_takes_it(number: str) -> None:
    forms = EventForms(Cipher.NONE)
    assert fits(forms, b'{"a":1}')
    text = b'{"a":%s}' % number.encode()
    assert fits(forms, text) == strict(text)
