"""``cloister-verify``: the verifier alone, for whoever holds public keys and an artifact and nothing else.

It needs the base installation only: no database, no network, no machine learning, no command-line library.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Never

_KINDS: Final = ("receipt", "checkpoint", "log", "segment", "export")
_MANY_OBJECTS: Final = 200_000
_EPILOG: Final = """\
examples:
  cloister-verify receipt.json --trust trust/                  a receipt, and the model file beside it
  cloister-verify receipt.json --trust trust/ --production     no simulated attestation
  cloister-verify north.note --trust trust/ --witnesses 2      a log's checkpoint, cosigned by two
  cloister-verify audit/ --trust trust/ --held sink.jsonl      segments, and what was kept outside of them
  cloister-verify may.json --trust trust/ --previous april.json   an audit export, and the one before it
  cloister-verify tiles/ --trust trust/ --held old.note        a log, and that it still holds what it held

exit codes:
  0 accepted; 1 refused; 2 wrong usage or an unreadable file; 5 the machine; 70 a defect; 130 interrupted

A check that could not run counts as failed. Nothing is fetched from anywhere.
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Verify what the command line names, and exit with the code of the outcome.

    Args:
        arguments: What was typed after the command; by default the process's own.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in words
    # A short life with few cycles: looking for them while models are built costs a tenth of the time.
    gc.set_threshold(_MANY_OBJECTS)
    # Nothing that happens to be installed beside the verifier has a say in how it reads.
    os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
    from cloister.cli.failure import guarded

    sys.exit(guarded(lambda: _run(words), as_json=as_json, debug="--debug" in words))


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints look like every other error."""

    as_json = False

    def error(self, message: str) -> Never:
        """Show what was wrong with the command line and leave."""
        from cloister.cli.failure import EXIT_USAGE, show_error

        show_error("usage.wrong", message, f"See: {self.prog} --help", as_json=self.as_json)
        sys.exit(EXIT_USAGE)


def _run(words: list[str]) -> int:
    parser = _parser()
    parser.as_json = "--json" in words
    typed = parser.parse_args(words)
    from cloister.cli.verify import VerifyOptions, kind_named, verify_command

    return verify_command(
        VerifyOptions(
            artifact=typed.artifact,
            trust=typed.trust,
            kind=kind_named(typed.kind),
            model=typed.model,
            measurement=typed.measurement,
            production=typed.production,
            accept_test_randomness=typed.accept_test_randomness,
            require_timestamp=typed.require_timestamp,
            witnesses=typed.witnesses,
            held=tuple(typed.held),
            previous=tuple(typed.previous),
            collateral=tuple(typed.collateral),
            segment_key=typed.segment_key,
            certificates=tuple(typed.certificates),
            at=typed.at,
            party=typed.party,
            accept_owners_word=typed.accept_owners_word,
            as_json=typed.as_json,
            quiet=typed.quiet,
        )
    )


def _parser() -> _Parser:
    parser = _Parser(
        prog="cloister-verify",
        description="Check evidence offline, with public keys alone.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("artifact", type=Path, metavar="ARTIFACT", help="the file, or a folder of tiles or segments")
    add("--trust", type=Path, required=True, metavar="DIR", help="folder of pinned public keys")
    add("--kind", choices=_KINDS, help="what it has to be; by default what its content says")
    add("--model", type=Path, metavar="FILE", help="the model file; by default the one beside the receipt")
    add("--measurement", metavar="HEX", help="SHA-384 of the only code that will do, 96 hex digits")
    add("--production", action="store_true", help="accept no simulated attestation")
    add("--accept-test-randomness", action="store_true", help="accept noise that was seeded for a test")
    add(
        "--require-timestamp",
        action="store_true",
        help="refuse a receipt without an RFC 3161 timestamp of soon after its date",
    )
    add("--witnesses", type=_count, metavar="K", help="pinned witnesses that must have cosigned each log")
    add(
        "--held",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="checkpoints that you kept, of a log or of segments; may be given again",
    )
    add(
        "--previous",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="an export made before this one, oldest first; may be given again",
    )
    add(
        "--accept-owners-word",
        action="store_true",
        help="accept that a log's owner alone says what lies outside an export's period",
    )
    add(
        "--collateral",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="hardware vendors' documents of today, to judge a receipt's machines by; may be given again",
    )
    add(
        "--segment-key",
        type=Path,
        metavar="FILE",
        help="the private key that segments are sealed to, or a folder",
    )
    add(
        "--certificates",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a certificate chain that came with a log's head or segments; may be given again",
    )
    add("--at", metavar="TIME", help="when that chain has to have held, such as 2026-11-21T14:00:00Z")
    add("--party", metavar="ROLE/NAME", help="whose segments they have to be, such as site/lakeview")
    add("--json", action="store_true", dest="as_json", help="print one JSON object and nothing else")
    add("--quiet", "-q", action="store_true", help="print nothing; the exit code tells")
    add("--debug", action="store_true", help="show tracebacks")
    add("--version", action="version", version=_version())
    return parser


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 64:
        raise argparse.ArgumentTypeError("a number from 0 to 64 is wanted")
    return int(text)


def _version() -> str:
    from cloister import __version__

    return __version__


if __name__ == "__main__":
    main()
