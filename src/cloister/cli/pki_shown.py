"""How certificates, revocation lists and authorities look: lines for people, one object for machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cloister.evidence.pki import Certificate, RevocationList
    from cloister.evidence.pki.book import AuthorityBook
    from cloister.evidence.pki.issuing import Revocation


def certificate_facts(certificate: Certificate) -> dict[str, object]:
    """What a certificate says, and whom it binds or what it may issue."""
    from cloister.core.clock import format_time
    from cloister.evidence.errors import CertificateError
    from cloister.evidence.pki.issuing import roles_of

    shown: dict[str, object] = {
        "subject": certificate.x509.subject.rfc4514_string(),
        "serial": certificate.serial,
        "key_id": certificate.key.key_id,
        "algorithm": certificate.key.algorithm,
        "not_before": format_time(certificate.x509.not_valid_before_utc),
        "not_after": format_time(certificate.x509.not_valid_after_utc),
    }
    try:
        role, party = certificate.bound_to
    except CertificateError:
        return {**shown, "may_issue_for": [role.value for role in roles_of(certificate)]}
    return {**shown, "role": role.value, "party": party}


def list_facts(found: RevocationList) -> dict[str, object]:
    """Whose revocation list it is, how long it may be used, and the serial numbers in it."""
    from cloister.core.clock import format_time

    return {
        "issuer": found.x509.issuer.rfc4514_string(),
        "this_update": format_time(found.this_update),
        "next_update": format_time(found.next_update),
        "revoked": [f"{one.serial_number:x}" for one in found.x509],
    }


def revocation_facts(revoked: Revocation) -> dict[str, object]:
    """Which certificate was revoked, when and why."""
    from cloister.core.clock import format_time

    return {
        "serial": f"{revoked.serial:x}",
        "revoked_at": format_time(revoked.revoked_at),
        "reason": revoked.reason.value,
    }


def authority_facts(folder: Path, book: AuthorityBook) -> dict[str, object]:
    """An authority's certificate and all that its book holds.

    Args:
        folder: where the book lies.
        book: what was issued and revoked.
    """
    return {
        **certificate_facts(book.certificate),
        "root": book.root.x509.subject.rfc4514_string(),
        "folder": str(folder),
        "issued": [certificate_facts(one) for one in book.issued()],
        "revoked": [revocation_facts(one) for one in book.revoked()],
    }


def show(facts: dict[str, object], *, as_json: bool) -> None:
    """Print facts as JSON, or as lines with a title each."""
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    for line in _lines(facts, ""):
        print(line)


def _lines(facts: dict[str, object], margin: str) -> list[str]:
    from cloister.cli.text import printable

    lines: list[str] = []
    for name, value in facts.items():
        title = name.replace("_", " ")
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines.append(f"{margin}{title}")
            for one in value:
                lines += [*_lines(one, margin + "  "), ""]
        else:
            text = ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
            lines.append(f"{margin}{title:<14}{printable(text)}")
    return lines
