"""How well and how fast personal data is redacted, beside six simple patterns.

Run with: ``.venv/bin/python benchmarks/redaction.py`` [--section accuracy] [--json]

* ``accuracy``: recall and precision by type on presidio-research's two labelled sets, and how many sentences
  of the DLP benchmark are changed; needs the data set ``pii``. A label counts as found where its whole span
  is replaced by its own kind, and what was replaced counts as right where it overlaps a label of its kind.
  People, places and organisations are apart: no rule reaches them.
* ``speed``: MB a second on made-up log lines, 15 % of them with personal data; processor time, best of five.
* ``worst``: the slowest of 100 KB of shapes that are made to be slow.
"""

from __future__ import annotations

from sections import measure_sections

if __name__ == "__main__":
    measure_sections("redaction_parts", ("accuracy", "speed", "worst"), __doc__)
