"""``cloister witness``: follow logs and cosign their checkpoints, with files as the only way in and out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.options import Debug, Json

if TYPE_CHECKING:
    from cloister.core.keys import KeyStore

Folder = Annotated[Path, typer.Argument(help="The witness's folder.")]


def attach(group: typer.Typer) -> None:
    """Attach the commands to their group."""
    group.command(
        "init",
        help="Make a witness with a new key; with --trust it follows the logs of all hubs and sites there.",
        epilog="Example:  cloister witness init east/ --name east --trust trust/",
    )(_init)
    group.command(
        "follow",
        help="Follow one more log, or know a log by one more key. Ask its owner whether the key is theirs.",
        epilog="Example:  cloister witness follow east/ --log cloister/site/north --key north.pem",
    )(_follow)
    group.command(
        "cosign",
        help="Cosign a log's checkpoint, if it continues all that the witness has seen of that log. REQUEST "
        "is what `cloister log proof --from SIZE` makes; SIZE is what `cloister witness show` tells.",
        epilog="Example:  cloister witness cosign east/ request.txt --out published/north.note",
    )(_cosign)
    group.command(
        "show",
        help="Show what a witness follows, how much it has seen, every contradiction it was shown, and heads "
        "that came without a proof, which prove nothing yet.",
        epilog="Example:  cloister witness show east/",
    )(_show)


def _init(
    folder: Folder,
    name: Annotated[str, typer.Option("--name", help="Its name, as in trust directories.")],
    trust: Annotated[
        Path | None, typer.Option("--trust", metavar="DIR", help="Follow the hubs and sites pinned here.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.evidence.extract import log_origin
    from cloister.evidence.predicates.base import Role
    from cloister.evidence.trust import Trust
    from cloister.evidence.witness.folder import PUBLIC_KEY_FILE, create_witness, follow

    pinned = Trust([]) if trust is None else Trust.load(trust)
    key = create_witness(folder, lambda: _store(folder), name)
    logs = []
    for role in (Role.HUB, Role.SITE):
        for party in pinned.parties(role):
            logs.append(log_origin(role, party))
            follow(folder, logs[-1], pinned.key(role, party))
    facts = {"name": name, "key_id": key.key_id, "public_key": str(folder / PUBLIC_KEY_FILE), "logs": logs}
    if as_json:
        print(json.dumps(facts, indent=2))
    else:
        print(f"witness {name} with key {key.key_id} follows {len(logs)} logs")
        print(f"who verifies pins {folder / PUBLIC_KEY_FILE} as witness/{name}.pem")
    return 0


def _follow(
    folder: Folder,
    log: Annotated[str, typer.Option("--log", metavar="LOG", help="Its name, such as cloister/site/north.")],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="Its owner's public key, PEM.")],
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.core.files import read_bounded
    from cloister.core.keys import PublicKey
    from cloister.evidence.witness.folder import follow

    public = PublicKey.from_pem(read_bounded(key, 64 * 1024))
    follow(folder, log, public)
    facts = {"log": log, "key_id": public.key_id}
    print(json.dumps(facts, indent=2) if as_json else f"follows {log}, signed by {public.key_id}")
    return 0


def _cosign(
    folder: Folder,
    request: Annotated[Path, typer.Argument(metavar="REQUEST", help="The checkpoint with its proof.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Where the cosigned checkpoint goes.")
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.core.clock import system_clock
    from cloister.core.files import read_bounded, require_place, write_atomic
    from cloister.evidence.witness.continuation import MAX_CONTINUATION_BYTES, parse_continuation
    from cloister.evidence.witness.folder import open_witness

    if out is not None:
        require_place(out)
    witness = open_witness(folder, _store(folder))
    text = read_bounded(request, 4 * MAX_CONTINUATION_BYTES).decode("utf-8", "replace")
    signed = witness.add_checkpoint(parse_continuation(text), system_clock())
    if out is not None:
        write_atomic(out, signed.encode().encode("utf-8"), mode=0o644)
    if as_json:
        facts = {"origin": signed.origin, "size": signed.size, "root": signed.root.hex()}
        print(json.dumps({**facts, "note": signed.encode()}, indent=2))
    elif out is None:
        print(signed.encode(), end="")
    else:
        print(f"{witness.name} cosigned {signed.origin} with {signed.size} entries: {out}")
    return 0


def _show(folder: Folder, as_json: Json = False, debug: Debug = False) -> int:
    from cloister.evidence.witness.book import CheckpointBook
    from cloister.evidence.witness.folder import followed, read_name

    name, book = read_name(folder), CheckpointBook(folder / "held")
    logs = [
        (
            log,
            held.size if (held := book.newest(log)) else 0,
            [key.key_id for key in keys],
            len(book.conflicts(log)),
            len(book.unproven(log)),
        )
        for log, keys in followed(folder).items()
    ]
    if as_json:
        names = ("log", "size", "keys", "contradictions", "unproven")
        print(
            json.dumps({"name": name, "logs": [dict(zip(names, one, strict=True)) for one in logs]}, indent=2)
        )
        return 0
    from rich.table import Table

    from cloister.cli.console import console

    table = Table(title=f"Witness {name}", title_justify="left", box=None, pad_edge=False, header_style="dim")
    for column in ("log", "entries seen", "keys", "contradictions", "unproven"):
        table.add_column(column, justify="left" if column == "log" else "right")
    for log, size, keys, contradictions, unproven in logs:
        table.add_row(log, str(size), str(len(keys)), str(contradictions), str(unproven))
    console().print(table)
    return 0


def _store(folder: Path) -> KeyStore:
    from cloister.core.keys import open_key_store
    from cloister.core.settings import load_settings

    return open_key_store(load_settings({}), folder / "keys", owner=f"witness/{folder.resolve().name}")
