"""The regulatory report as one HTML file that needs nothing else, on screen, on paper and read aloud."""

from __future__ import annotations

from importlib import resources
from typing import Final

import jinja2

from cloister.evidence.custody.bundle import EXPORT_CLAIMS_NOT_MADE
from cloister.evidence.regulation.assessment import Assessment, Standing

TEMPLATE: Final = "report.html.j2"
MAX_SHOWN: Final = 6
"""How many statements of a kind the page lists; the JSON report and the export have all of them."""

_STANDINGS: Final = {
    Standing.EVIDENCE: ("evidenced by", "evidence"),
    Standing.NO_EVIDENCE: ("no evidence", "none"),
    Standing.NOT_BY_SOFTWARE: ("software can't evidence this", "not-by-software"),
}


def render_report(assessment: Assessment) -> str:
    """Render a regulatory report.

    Args:
        assessment: what the export tells.

    Returns:
        A complete HTML document.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = resources.files("cloister.evidence.regulation").joinpath(TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(source).render(
        report=assessment,
        standings=_STANDINGS,
        counts={standing: assessment.standing_count(standing) for standing in Standing},
        max_shown=MAX_SHOWN,
        claims_not_made=EXPORT_CLAIMS_NOT_MADE,
    )
