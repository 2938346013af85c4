"""``pic code``: the signed list of the files that the code consists of, made and checked apart from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from cloister.cli.options import Debug, Json

Root = Annotated[
    Path | None,
    typer.Option(
        "--root", metavar="DIR", show_default="the package that this command is of", help="The code."
    ),
]
_DIFFERS = 1
_SHOWN = 20


def group() -> typer.Typer:
    """The group of commands."""
    app = typer.Typer(
        no_args_is_help=True,
        help="Sign what the code is when it is released, and check an installation against that.",
        epilog="Start with:  pic code sign --help",
    )
    app.command(
        "sign",
        help="List the installed code's files with their hashes, signed by a release key. Do it where the "
        "code is built, with a key that never comes to the machine it runs on.",
        epilog="Example:  pic code sign --keys release-keys/ --out code.json --public-key release.pem",
    )(_sign)
    app.command(
        "check",
        help="Compare an installation with its list. Whoever can change the code can change this command "
        "with it: check from another installation.",
        epilog="Example:  pic code check code.json --release-key release.pem --root /opt/pic/cloister",
    )(_check)
    return app


def installed_code() -> Path:
    """The folder of the package that this command is of."""
    return Path(__file__).parents[1]


def _sign(
    keys: Annotated[
        Path, typer.Option("--keys", metavar="DIR", help="The folder of release keys; made on first use.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The list; nothing is overwritten.")],
    public_key: Annotated[
        Path, typer.Option("--public-key", metavar="FILE", help="Where the public half goes: what is pinned.")
    ],
    name: Annotated[str, typer.Option("--key", metavar="NAME", help="Which key of the folder.")] = "release",
    root: Root = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.core.files import write_atomic, write_new
    from cloister.core.keys import open_key_store
    from cloister.core.settings import load_settings
    from cloister.immune.code_manifest import open_code_manifest, sign_code

    store = open_key_store(load_settings({}), keys, owner="release")
    signer = store.load(name) if name in store.names() else store.generate(name)
    made = sign_code(root or installed_code(), signer)
    write_new(out, made, mode=0o644)
    write_atomic(public_key, signer.public_key.pem.encode(), mode=0o644)
    files = len(open_code_manifest(made, [signer.public_key]).files)
    if as_json:
        print(json.dumps({"files": files, "key": signer.public_key.key_id, "written": str(out)}))
    else:
        print(f"{files} files, signed by {signer.public_key.key_id}. Pin {public_key} where the code runs.")
    return 0


def _check(
    manifest: Annotated[Path, typer.Argument(metavar="FILE", help="What `pic code sign` wrote.")],
    release_key: Annotated[
        Path, typer.Option("--release-key", metavar="KEY", help="The release key's public half, PEM.")
    ],
    root: Root = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.immune.code_manifest import read_code_manifest

    found = read_code_manifest(manifest, release_key)
    differing = found.differences(root or installed_code())
    if as_json:
        print(json.dumps({"key": found.key, "made_at": found.made_at, "differing": list(differing)}))
    elif differing:
        for one in differing[:_SHOWN]:
            print(ascii(one)[1:-1])
        print(f"{len(differing)} files are not as they were signed at {found.made_at}.")
    else:
        print(f"All {len(found.files)} files are as {found.key} signed them at {found.made_at}.")
    return _DIFFERS if differing else 0
