"""The commands and their options; each hands over to the module that does the work."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Annotated, Final

import typer

from cloister.cli import infer, serve_inference
from cloister.cli.options import Data, Debug, Json, PinnedKeys, Workspace

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no tables.")]
JobPath = Annotated[
    Path, typer.Argument(metavar="JOB", help="The job file, such as examples/tumour/job.yaml.")
]


GROUPS: Final = {
    "audit": (
        "audit",
        "Export logs, report on them, and see who read them.",
        "cloister audit export --job ID --recipient 'Dr Roy' --out export.json",
    ),
    "budget": (
        "budget",
        "Show what was spent of each dataset's privacy budget, by which jobs, and what is left.",
        "cloister budget show",
    ),
    "collateral": (
        "collateral",
        "Documents of hardware vendors: revocation lists, TCB information, reference values.",
        "cloister collateral import FILE...",
    ),
    "enclave": (
        "enclave_app",
        "Machines that prove what runs on them: see what this one is, verify others, start jobs on it.",
        "cloister enclave detect",
    ),
    "keys": (
        "keys",
        "Keys that a hospital keeps, and releases to attested enclaves only.",
        "cloister keys data-key create keeper/ --dataset heart-disease",
    ),
    "log": (
        "log",
        "Show a log's head, prove that it only grew, publish it; change the key that signs it.",
        "cloister log checkpoint --party hub/hub",
    ),
    "package": (
        "package",
        "A developer's model as a sealed package: everybody can check it, only an attested worker reads it.",
        "cloister package seal model.safetensors --help",
    ),
    "pki": (
        "pki",
        "Certificates that bind a key to a party and its role: make, issue, revoke, show.",
        "cloister pki root root/ --name 'Example root'",
    ),
    "privacy": (
        "privacy",
        "Put a claim of privacy to the test; release a figure about records, with noise and at a price.",
        "cloister privacy audit examples/tumour/job.yaml",
    ),
    "table": (
        "table",
        "Check one table (.csv, .safetensors or .pt) against its declared columns, bounds and classes.",
        "cloister table check DIR/clinic.csv",
    ),
    "witness": (
        "witness",
        "Watch other parties' logs and cosign their checkpoints: who shows two pasts is found out.",
        "cloister witness init east/ --name east --trust trust/",
    ),
}
"""By name: the module that attaches the commands, what is said of them, and the one to start with."""


def attach(app: typer.Typer, word: str | None) -> None:
    """Attach every command to the application; of groups that aren't asked for, no more than their names.

    Args:
        app: the application.
        word: the command or group that was typed, if any.
    """
    app.command(
        "run",
        help="Run a job: admit, attest, train, evaluate, release, and write model, receipt and report.",
        epilog="Examples:  cloister run examples/tumour/job.yaml   ·   cloister run JOB --data DIR --json",
    )(_run)
    app.command(
        "verify",
        help="Check a receipt, checkpoint, log, segment or audit export offline, with public keys alone.",
        epilog="Example:  cloister verify receipt.json --trust trust/   (the model beside it is checked too)",
    )(_verify)
    app.command(
        "compare",
        help="Compute pooled, local-only and non-private baselines on public demonstration data.",
        epilog="Example:  cloister compare examples/tumour/job.yaml",
    )(_compare)
    app.command(
        "data",
        help="Check the sites' data against its schema and print what a manifest needs: sizes and hashes.",
        epilog="Example:  cloister data examples/heart/job.yaml --data DIR",
    )(_data)
    infer.attach(app)
    serve_inference.attach(app)
    for name, (module, says, start) in GROUPS.items():
        group = typer.Typer(help=says, no_args_is_help=True, epilog=f"Start with:  {start}")
        if name == word:
            import_module(f"cloister.cli.{module}").attach(group)
        app.add_typer(group, name=name)
    app.callback()(_version)


def _print_version(wanted: bool) -> None:
    if wanted:
        from cloister import __version__

        typer.echo(__version__)
        raise typer.Exit


def _version(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and leave."
        ),
    ] = False,
) -> None:
    """Options that stand before any command."""


def _run(
    job: JobPath,
    workspace: Workspace = None,
    data: Data = None,
    as_json: Json = False,
    quiet: Quiet = False,
    test_seed: Annotated[
        int | None,
        typer.Option(
            help="TEST ONLY: seeded noise, repeatable and not private. The receipt says so and fails."
        ),
    ] = None,
    debug: Debug = False,
) -> int:
    from cloister.cli.run import run_command

    return run_command(job, workspace, data, test_seed, as_json=as_json, quiet=quiet)


def _verify(
    artifact: Annotated[
        Path,
        typer.Argument(help="A receipt, checkpoint, segment or export; or a folder of tiles or segments."),
    ],
    trust: PinnedKeys,
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="What it has to be; by default what its content says."),
    ] = None,
    model: Annotated[
        Path | None, typer.Option("--model", help="The model file; by default the one beside the receipt.")
    ] = None,
    measurement: Annotated[
        str | None,
        typer.Option("--measurement", help="SHA-384 of the only code that will do, 96 hex digits."),
    ] = None,
    production: Annotated[
        bool, typer.Option("--production", help="Accept no simulated attestation.")
    ] = False,
    accept_test_randomness: Annotated[
        bool, typer.Option("--accept-test-randomness", help="Accept a run whose noise was seeded for a test.")
    ] = False,
    require_timestamp: Annotated[
        bool,
        typer.Option(
            "--require-timestamp",
            help="Refuse a receipt without an RFC 3161 timestamp of soon after its date.",
        ),
    ] = False,
    witnesses: Annotated[
        int | None,
        typer.Option(
            "--witnesses", min=0, max=64, help="Pinned witnesses that must have cosigned each log's head."
        ),
    ] = None,
    held: Annotated[
        list[Path] | None,
        typer.Option("--held", help="Checkpoints that you kept, of a log or segments; may be given again."),
    ] = None,
    previous: Annotated[
        list[Path] | None,
        typer.Option("--previous", help="An export made before this one; oldest first, may be given again."),
    ] = None,
    accept_owners_word: Annotated[
        bool,
        typer.Option(
            "--accept-owners-word",
            help="Accept that a log's owner alone says what lies outside an export's period.",
        ),
    ] = False,
    certificates: Annotated[
        list[Path] | None,
        typer.Option("--certificates", help="A chain that came with a head or segments; may be given again."),
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", help="When that chain has to have held: 2026-11-21T14:00:00Z.")
    ] = None,
    party: Annotated[
        str | None, typer.Option("--party", help="Whose segments they have to be: site/lakeview.")
    ] = None,
    collateral: Annotated[
        list[Path] | None,
        typer.Option(
            "--collateral",
            help="Hardware vendors' documents of today: a receipt's machines are judged by them besides.",
        ),
    ] = None,
    segment_key: Annotated[
        Path | None,
        typer.Option("--segment-key", help="File or folder of the private keys that segments are sealed to."),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.verify import VerifyOptions, kind_named, verify_command

    return verify_command(
        VerifyOptions(
            artifact=artifact,
            trust=trust,
            kind=kind_named(kind),
            model=model,
            measurement=measurement,
            production=production,
            accept_test_randomness=accept_test_randomness,
            require_timestamp=require_timestamp,
            witnesses=witnesses,
            held=tuple(held or ()),
            previous=tuple(previous or ()),
            collateral=tuple(collateral or ()),
            segment_key=segment_key,
            certificates=tuple(certificates or ()),
            at=at,
            party=party,
            accept_owners_word=accept_owners_word,
            as_json=as_json,
            quiet=quiet,
        )
    )


def _compare(
    job: JobPath,
    data: Data = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.compare import compare_command

    return compare_command(job, data, as_json=as_json)


def _data(
    job: JobPath,
    data: Data = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.data import data_command

    return data_command(job, data, as_json=as_json)
