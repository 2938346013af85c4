"""One parser under atheris, by itself: python -m tests.evidence.attacks.fuzzing NAME OPTIONS FOLDER

The folder holds the corpus; the options are libFuzzer's. Coverage of this project's code guides
the search. A CloisterError is what a parser is meant to raise; anything else ends the process as a finding.
"""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["cloister"]):
    from cloister.core.errors import CloisterError
    from tests.evidence.attacks.parsers import PARSERS


def main() -> None:
    """Fuzz the parser named on the command line until libFuzzer's options say to stop."""
    name, *options = sys.argv[1:]
    parser = PARSERS[name]

    def one(data: bytes) -> None:
        with contextlib.suppress(CloisterError):
            parser(data)

    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
