"""Traps for a redactor: personal data written so that a simple rule misses it, and what only looks like it.

All values are made up or published for tests. A positive has its text, what must be gone, and its kind.
"""

from __future__ import annotations

from typing import NamedTuple

from cloister.core.redaction import Kind


class Positive(NamedTuple):
    text: str
    gone: str
    kind: Kind


POSITIVES: dict[str, Positive] = {
    "an email with a plus and dots": Positive(
        "to jane.q+lab@mail.example.org;", "jane.q+lab@mail", Kind.EMAIL
    ),
    "an email in a query": Positive("GET /u?to=jane.doe@example.org&n=1", "jane.doe@example.org", Kind.EMAIL),
    "an email with a percent escape": Positive("GET /u?to=jane.doe%40example.org", "jane.doe", Kind.EMAIL),
    "an email with a JSON escape": Positive('{"to":"jane.doe\\u0040example.org"}', "jane.doe", Kind.EMAIL),
    "an email with an HTML entity": Positive("jane.doe&#64;example.org", "jane.doe", Kind.EMAIL),
    "an email with a named entity": Positive("jane.doe&commat;example.org", "jane.doe", Kind.EMAIL),
    "an email with a full-width sign": Positive("jane.doe\uff20example.org", "jane.doe", Kind.EMAIL),
    "an email with a zero-width space": Positive("jane.d\u200boe@exam\u200bple.org", "jane.d", Kind.EMAIL),
    "an email with a soft hyphen": Positive("jane.doe@exam\u00adple.org", "jane.doe", Kind.EMAIL),
    "an email with letters of another script": Positive(
        "für jürgen.müller@bücher.example", "jürgen", Kind.EMAIL
    ),
    "an email whose local part is not Latin": Positive("用户@example.com wrote", "用户", Kind.EMAIL),
    "an email in brackets spelled out": Positive("jane.doe [at] example [dot] org", "jane.doe", Kind.EMAIL),
    "an email spelled out in words": Positive("jane.doe at example dot org", "jane.doe", Kind.EMAIL),
    "an email with spaces around its sign": Positive("jane.doe @ example.org", "jane.doe", Kind.EMAIL),
    "an email with a quoted local part": Positive('to "jane doe"@example.org', "jane doe", Kind.EMAIL),
    "an email whose domain is an address": Positive("root@[192.0.2.7] said", "192.0.2.7", Kind.EMAIL),
    "an email with every letter apart": Positive("j a n e @ e x a m p l e . o r g", "j a n e", Kind.EMAIL),
    "a US phone with brackets": Positive("at (415) 555-0132.", "415) 555", Kind.PHONE),
    "a US phone with dots": Positive("at 415.555.0132", "555.0132", Kind.PHONE),
    "a US phone with spaces": Positive("number 415 555 0132", "555 0132", Kind.PHONE),
    "a US phone with an extension": Positive("1-415-555-0132 ext. 77", "0132 ext. 77", Kind.PHONE),
    "a phone with no-break spaces": Positive("+44\u00a020\u00a07946\u00a00958", "7946", Kind.PHONE),
    "a phone with en dashes": Positive("415\u2013555\u20130132", "0132", Kind.PHONE),
    "a phone with a footnote": Positive("415-555-0132\u00b2 in the list", "0132", Kind.PHONE),
    "a phone in Arabic-Indic digits": Positive(
        "+٤٤ ٢٠ ٧٩٤٦ ٠٩٥٨",
        "٧٩٤٦",
        Kind.PHONE,
    ),
    "a phone with a trunk zero in brackets": Positive("+46 (0)8 928 571 38", "928 571", Kind.PHONE),
    "a phone after 00": Positive("0044 20 7946 0958", "7946", Kind.PHONE),
    "a British phone without a country": Positive("ring 020 7946 0958 now", "7946", Kind.PHONE),
    "a French phone without a country": Positive("au 01 84 17 61 18.", "84 17 61", Kind.PHONE),
    "a phone that its name tells": Positive("Phone: 88 165 40 96", "165 40", Kind.PHONE),
    "a phone of ten bare digits that its name tells": Positive("phone=4155550132", "4155550132", Kind.PHONE),
    "a phone of ten bare digits": Positive("reached 4155550132 twice", "4155550132", Kind.PHONE),
    "a phone with its digits apart": Positive("Cl me at 4 1 5 -5 5 5 -0 1 3 2 fr", "5 5 5", Kind.PHONE),
    "a phone after an escaped line end": Positive('"mobile\\n415-555-0132\\n"', "555-0132", Kind.PHONE),
    "a phone in words": Positive("four one five, five five five, oh one three two", "five five", Kind.PHONE),
    "a card in groups": Positive("4539 1488 0343 6467", "1488", Kind.CARD),
    "a card beside another number": Positive("4539 1488 0343 6467 456 paid", "0343 6467", Kind.CARD),
    "a card after another number": Positive("1234 4539 1488 0343 6467", "0343 6467", Kind.CARD),
    "an Amex card with dashes": Positive("3782-822463-10005", "822463", Kind.CARD),
    "a Mastercard of the 2-series": Positive("paid 2223003122003222", "2223003122003222", Kind.CARD),
    "a UnionPay card": Positive("paid 6200000000000005", "6200000000000005", Kind.CARD),
    "a Visa card of 19 digits": Positive("paid 4131034282458809939", "4131034282458809939", Kind.CARD),
    "a card in full-width digits": Positive(
        "４５３９１４８８０３４３６４６７",  # noqa: RUF001
        "１４８８",  # noqa: RUF001
        Kind.CARD,
    ),
    "a card glued to letters": Positive("card4539148803436467x", "4539148803436467", Kind.CARD),
    "a card behind an underscore": Positive("pan_4539148803436467", "4539148803436467", Kind.CARD),
    "a card read as a float": Positive("card 4539148803436467.0", "4539148803436467", Kind.CARD),
    "a card with every digit apart": Positive("is 4 5 3 9 1 4 8 8 0 3 4 3 6 4 6 7,", "8 8 0 3", Kind.CARD),
    "an SSN with dashes": Positive("SSN 078-05-1120.", "05-1120", Kind.SSN),
    "an SSN with spaces": Positive("it is 219 09 9999", "09 9999", Kind.SSN),
    "an SSN with minus signs": Positive("219\u221209\u22129999", "9999", Kind.SSN),
    "an SSN of bare digits that its name tells": Positive("ssn=219099999", "219099999", Kind.SSN),
    "an SSN in JSON": Positive('{"ssn": 219099999}', "219099999", Kind.SSN),
    "an SSN with its digits apart": Positive("my S SN is 0 7 8 -0 5 -1 1 2 0,", "1 1 2 0", Kind.SSN),
    "an SSN of bare digits": Positive("Verify 219099999 please", "219099999", Kind.SSN),
    "an IPv4 address with a port": Positive("peer 203.0.113.9:8443", "203.0.113.9", Kind.IP),
    "an IPv4 address in a name": Positive("http://203.0.113.9/x", "203.0.113.9", Kind.IP),
    "an IPv6 address in full": Positive("2001:0db8:0000:0000:0000:ff00:0042:8329", "ff00", Kind.IP),
    "an IPv6 address with a zone": Positive("on fe80::1ff:fe23:4567:890a%eth0", "fe23", Kind.IP),
    "an IPv6 address with a port": Positive("[2001:db8::8a2e:370:7334]:443", "8a2e", Kind.IP),
    "an IPv6 address that maps an IPv4 one": Positive("::ffff:203.0.113.9", "203.0.113.9", Kind.IP),
    "an IPv6 address behind a key": Positive("client:2001:db8::7334", "7334", Kind.IP),
    "an IBAN in groups": Positive("GB82 WEST 1234 5698 7654 32 paid", "1234 5698", Kind.IBAN),
    "an IBAN in small letters": Positive("to de89370400440532013000", "3704004405", Kind.IBAN),
    "an MRN": Positive("MRN: 00123456", "00123456", Kind.MRN),
    "an MRN in words": Positive("medical record no. 4-77-120-9 of", "4-77-120-9", Kind.MRN),
    "a patient's id in JSON": Positive('{"patient_id": "A-1142"}', "A-1142", Kind.MRN),
    "a password": Positive("user=j password=hunter2 ok", "hunter2", Kind.SECRET),
    "a password in JSON within JSON": Positive('"{\\"password\\": \\"hunter 2\\"}"', "hunter 2", Kind.SECRET),
    "a password in an address": Positive("postgresql://svc:hunter2@db/x", "hunter2", Kind.SECRET),
}

MISSED = frozenset(
    {
        "an email with every letter apart",
        "a phone of ten bare digits",
        "a phone in words",
        "an SSN of bare digits",
    }
)
"""Positives that aren't caught, known by name: bare digits are an option, the others have no rule."""

NEGATIVES: dict[str, str] = {
    "a UUID": "request 550e8400-e29b-41d4-a716-446655440000 done",
    "a UUID of digits only": "request 45391488-0343-4467-8555-453914880343 done",
    "a UUID that ends in a card's digits": "request 550e8400-e29b-41d4-a716-630427373398 done",
    "a SHA-256": "sha256:4539148803436467aa45391488034364671d4f5ae8b0c3deef0123456789abcd",
    "a commit": "at 1de43da4155550132a9b0c4d5e6f7a8b9c0d1e2f",
    "a hexadecimal number": "at 0x4539148803436467",
    "a version of four parts": "version 4.17.65.1 of it",
    "a version behind a v": "cloister v4.17.65.1",
    "a browser's version": "Chrome/120.0.0.0 Safari/537.36",
    "a package's file": "lib-4.17.65.1.tar.gz",
    "an object identifier": "1.3.6.1.4.1.11129.2.4.2",
    "a timestamp": "2026-11-22T10:11:35.123456Z",
    "a timestamp with spaces": "2026-11-22 10:11:35,123 1234567890",
    "nanoseconds since 1970": "t=1763806295123456789",
    "microseconds since 1970": "t=1763806295123456",
    "a date in the European order": "01.12.2026 10:15:00",
    "a float with a card's digits": "loss 0.4539148803436467",
    "a number of sixteen digits without its check digit": "order 4539148803436468",
    "ten bare digits": "offset 4155550132",
    "a social security number that can't be": "serial 000-12-3456 and 666-12-3456 and 923-12-3456",
    "octets that are too large": "999.10.10.10",
    "a line of an access log": '"GET /x HTTP/1.1" 404 212 1043',
    "a list of numbers": "404 212 1043 555 0132 20 7946",
    "a place in code": "cloister/core/hashes.py:31 in std::vector<a::b>",
    "a slice": "rows[::2] and rows[1::2]",
    "a MAC address": "00:1b:44:11:3a:b7",
    "a fingerprint": "ab:cd:ef:01:23:45:67:89:ab:cd:ef:01:23:45:67:89",
    "a decorator and a matrix product": "@property; y = x @ w.T",
    "a systemd unit": "user@1000.service started",
    "a picture for dense screens": "icon@2x.png",
    "an account number with a wrong check": "GB83WEST12345698765432",
    "one of a number of patients": "patient number 42 of 100; medical record is missing",
    "a password that isn't there": "password: required, password=None, password: ****",
    "a signed float": "+2.718281828459 -0.5772156649",
    "a diff": "@@ -1048,7 +1048576,9 @@ +1 -2",
    "one-hot rows": "1 0 0 1 0 1 1 0 0 1 0 1 0 1 1 0 0",
    "binary addresses of memory": "0x7f3a1c2b4d5e to 0x7f3a1c2b4fff",
}
