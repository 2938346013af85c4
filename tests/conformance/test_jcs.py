"""RFC 8785: the vectors of its reference implementation, and the RFC's own, which travel with the project."""

from __future__ import annotations

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from cloister.core.canonical import canonicalize, parse, parse_canonical
from cloister.core.errors import InputError

PUBLISHED_SHA256_OF_10000_NUMBERS = "b9f7a8e75ef22a835685a52ccba7f7d6bdc99e34b010992cbc5864cd12be6892"

# RFC 8785, appendix B: IEEE 754 bits and the text they have to become.
APPENDIX_B = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]


def double(bits: str) -> float:
    (value,) = struct.unpack(">d", bytes.fromhex(bits.zfill(16)))
    return float(value)


@pytest.mark.parametrize(("bits", "text"), APPENDIX_B)
def test_numbers_of_appendix_b_are_printed_as_the_rfc_says(bits: str, text: str) -> None:
    assert canonicalize(double(bits)) == text.encode()


@pytest.mark.parametrize("bits", ["7fffffffffffffff", "7ff0000000000000", "fff0000000000000"])
def test_nan_and_infinities_of_appendix_b_are_refused(bits: str) -> None:
    with pytest.raises(InputError) as refused:
        canonicalize(double(bits))
    assert refused.value.code == "input.not_json"


def test_the_sample_of_section_3_2_is_reproduced() -> None:
    sample = rb"""{
      "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
      "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
      "literals": [null, true, false]
    }"""
    expected = (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    assert canonicalize(parse(sample)) == expected.encode()


def test_keys_are_sorted_by_utf16_code_units_as_in_section_3_2_3() -> None:
    sample = {
        "\u20ac": "Euro Sign",
        "\r": "Carriage Return",
        "\ufb33": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\U0001f600": "Emoji: Grinning Face",
        "\u0080": "Control",
        "\u00f6": "Latin Small Letter O With Diaeresis",
    }
    order = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    read = parse(canonicalize(dict(sample)))
    assert isinstance(read, dict)
    assert list(read) == order


@pytest.mark.parametrize("name", ["arrays", "french", "structures"])
def test_documents_of_the_reference_implementation(name: str, shared_data: Callable[[str], Path]) -> None:
    folder = shared_data("crypto-vectors/jcs")
    canonical = canonicalize(parse((folder / "input" / f"{name}.json").read_bytes()))
    assert canonical == (folder / "output" / f"{name}.json").read_bytes()
    assert canonical == bytes.fromhex((folder / "outhex" / f"{name}.txt").read_text())
    assert canonicalize(parse_canonical(canonical)) == canonical


def test_ten_thousand_numbers_of_the_reference_implementation(shared_data: Callable[[str], Path]) -> None:
    packed = shared_data("crypto-vectors/jcs/es6numbers-first10000.csv.gz")
    lines = gzip.decompress(packed.read_bytes())
    assert hashlib.sha256(lines).hexdigest() == PUBLISHED_SHA256_OF_10000_NUMBERS
    tried = 0
    for line in lines.decode().splitlines():
        bits, expected = line.split(",")
        assert canonicalize(double(bits)).decode() == expected, bits
        assert canonicalize(parse_canonical(expected.encode())).decode() == expected, bits
        tried += 1
    assert tried == 10_000
