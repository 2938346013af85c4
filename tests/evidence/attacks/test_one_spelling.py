"""A canonical form is the only form: no receipt, envelope, statement or checkpoint has a second spelling."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.core.canonical import JSON, canonicalize, parse, parse_canonical
from cloister.core.errors import CloisterError
from cloister.evidence.checkpoint import parse_checkpoint
from cloister.evidence.envelope import decode_envelope
from cloister.evidence.receipt import receipt_from_json, signed_bytes, signed_part
from cloister.evidence.statement import decode_statement
from tests.evidence.attacks.edits import Body
from tests.evidence.synthetic import HUB, SyntheticJob, edited, failing, resealed, verify

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def stray_bits(text: str) -> str:
    """The same base64 bytes, spelled with bits set that decode to nothing."""
    padding = len(text) - len(text.rstrip("="))
    assert padding
    last = text[-padding - 1]
    return text[: -padding - 1] + ALPHABET[ALPHABET.index(last) + 1] + "=" * padding


RESPELLINGS: dict[str, Callable[[bytes], bytes]] = {
    "space before": lambda data: b" " + data,
    "line break after": lambda data: data + b"\n",
    "space after a comma": lambda data: data.replace(b",", b", ", 1),
    "byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "escaped letter": lambda data: data.replace(b'"', b'"\\u0062', 1).replace(b"\\u0062b", b"\\u0062", 1),
    "escaped slash": lambda data: data.replace(b"/", b"\\/", 1),
    "duplicate key": lambda data: b'{"body":1,' + data[1:],
    "keys the other way round": lambda data: json.dumps(
        dict(reversed(cast(dict[str, JSON], parse(data)).items())), separators=(",", ":"), ensure_ascii=False
    ).encode(),
    "indented": lambda data: json.dumps(parse(data), indent=1, ensure_ascii=False).encode(),
    "two documents": lambda data: data + data,
    "UTF-16": lambda data: data.decode().encode("utf-16"),
}


@pytest.mark.parametrize("how", RESPELLINGS)
def test_a_receipt_spelled_otherwise_is_refused_before_anything_else(
    honest_job: SyntheticJob, honest_receipt: bytes, how: str
) -> None:
    respelled = RESPELLINGS[how](honest_receipt)
    assert respelled != honest_receipt
    verdict = verify(honest_job, respelled)
    assert "canonical-form" in failing(verdict)


@pytest.mark.parametrize("how", RESPELLINGS)
def test_an_envelope_or_a_statement_spelled_otherwise_is_refused(honest_job: SyntheticJob, how: str) -> None:
    envelope = honest_job.extracts[HUB].entries[0].envelope
    for data, decode in ((envelope.encode(), decode_envelope), (envelope.payload, decode_statement)):
        assert decode(data)
        respelled = RESPELLINGS[how](data)
        with pytest.raises(CloisterError):
            decode(respelled)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"rounds":2', b'"rounds":2.0'),
        (b'"rounds":2', b'"rounds":2e0'),
        (b'"rounds":2', b'"rounds":+2'),
        (b'"rounds":2', b'"rounds":02'),
        (b'"threshold":0.8', b'"threshold":0.80'),
        (b'"threshold":0.8', b'"threshold":8e-1'),
        (b'"threshold":0.8', b'"threshold":.8'),
        (b'"delta":0.00001', b'"delta":1e-5'),
    ],
)
def test_a_number_spelled_otherwise_is_refused(
    honest_job: SyntheticJob, honest_receipt: bytes, old: bytes, new: bytes
) -> None:
    assert old in honest_receipt
    assert failing(verify(honest_job, honest_receipt.replace(old, new, 1))) >= {"canonical-form"}


COERCED: dict[str, Callable[[Body], None]] = {
    "a number as text": lambda body: body["summary"].update(rounds="2"),
    "truth as a number": lambda body: body["summary"]["policy"].update(purpose_compliance=1),
    "a number as truth": lambda body: body["summary"].update(rounds=True),
    "text as a number": lambda body: body.update(issuer=1),
    "a list as an object": lambda body: body.update(compliance={}),
    "an unknown field": lambda body: body.update(note="read me"),
    "a field left out": lambda body: body.pop("consistency"),
    "nothing": lambda body: body.update(issuer=None),
    "a number out of range": lambda body: body["statements"][0].update(index=-1),
}


@pytest.mark.parametrize("how", COERCED)
def test_a_value_of_another_type_is_refused_not_coerced(
    honest_job: SyntheticJob, honest_receipt: bytes, how: str
) -> None:
    hostile = resealed(honest_receipt, honest_job.keys["hub"], COERCED[how])
    assert "schema" in failing(verify(honest_job, hostile))


def test_stray_bits_in_any_base64_are_refused(honest_job: SyntheticJob, honest_receipt: bytes) -> None:
    document = cast(dict[str, dict[str, str]], parse(honest_receipt))
    signature = {**document["signature"], "sig": stray_bits(document["signature"]["sig"])}
    whole = canonicalize({**document, "signature": signature})  # type: ignore[dict-item]
    assert "receipt-signature" in failing(verify(honest_job, whole))

    def payload(body: Body) -> None:
        one = body["statements"][0]["envelope"]["signatures"][0]
        one["sig"] = stray_bits(one["sig"])

    def proof(body: Body) -> None:
        one = body["statements"][0]["inclusion"]
        one[0] = stray_bits(one[0])

    def root(body: Body) -> None:
        log = next(iter(body["checkpoints"]))
        lines = body["checkpoints"][log].split("\n")
        body["checkpoints"][log] = "\n".join([*lines[:2], stray_bits(lines[2]), *lines[3:]])

    for edit in (payload, proof, root):
        assert "schema" in failing(verify(honest_job, resealed(honest_receipt, honest_job.keys["hub"], edit)))


def test_a_checkpoint_spelled_otherwise_is_refused(honest_job: SyntheticJob) -> None:
    note = honest_job.extracts[HUB].checkpoint.encode()
    origin, size, root, empty, line, end = note.split("\n")
    wrong = [
        note + "\n",
        note.replace("\n", "\r\n"),
        "\n".join([origin, "0" + size, root, empty, line, end]),
        "\n".join([origin, "+" + size, root, empty, line, end]),
        "\n".join([origin, size, stray_bits(root), empty, line, end]),
        "\n".join([origin, size, root + " ", empty, line, end]),
        "\n".join([origin, size, root, empty, empty, line, end]),
        "\n".join([origin, size, root, empty, line.replace("\u2014", "-"), end]),
        "\n".join([origin, size, root, empty, line + "=", end]),
        "\n".join([origin, size, root, empty, line]),
    ]
    for text in wrong:
        with pytest.raises(CloisterError):
            parse_checkpoint(text)


def test_the_signed_part_of_a_receipt_is_the_encoding_of_its_body(honest_receipt: bytes) -> None:
    document = cast(dict[str, JSON], parse(honest_receipt))
    receipt = receipt_from_json(document, honest_receipt)
    assert signed_part(receipt, honest_receipt) == signed_bytes(document["body"])


@given(st.data())
def test_what_is_read_as_a_receipt_encodes_to_the_same_bytes(
    honest_receipt: bytes, data: st.DataObject
) -> None:
    """Values put anywhere into a receipt are refused, or kept exactly: nothing is coerced on the way in."""
    values = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(0, 9), st.text(max_size=5))
    value, choose = data.draw(values), data.draw(st.integers(0, 10**6))

    def put(body: Body) -> None:
        part: object = body
        rest = choose
        while isinstance(part, dict | list) and part:
            keys = list(part) if isinstance(part, dict) else list(range(len(part)))
            key = keys[rest % len(keys)]
            rest //= len(keys)
            inner = part[key]
            if not isinstance(inner, dict | list) or rest == 0:
                part[key] = value
                return
            part = inner

    changed = edited(honest_receipt, put)
    try:
        receipt = receipt_from_json(parse_canonical(changed), changed)
    except CloisterError:
        return
    assert canonicalize(cast(JSON, receipt.model_dump(mode="json", by_alias=True))) == changed
