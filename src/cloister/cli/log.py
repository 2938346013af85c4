"""``cloister log``: what a party's log shows to the outside: its head, consistency proofs, static tiles.

Heads and proofs are public and tell nothing of what was stated, so asking for them is not logged; reading or
writing out the entries is, and moving them to a new log is stated in that one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cloister.cli.options import ActorName, ActorRole, Debug, Json, Purpose, Workspace

if TYPE_CHECKING:
    from cloister.evidence import EvidenceLog
    from cloister.evidence.custody.access import Action

Party = Annotated[str, typer.Option("--party", metavar="ROLE/NAME", help="Whose log: hub/NAME or site/NAME.")]
OutFile = Annotated[Path | None, typer.Option("--out", help="Write it here; by default it is printed.")]


def attach(group: typer.Typer) -> None:
    """Attach the commands to their group."""
    group.command(
        "checkpoint",
        help="Show the log's newest signed head, a C2SP checkpoint. It is public: this is not logged.",
        epilog="Example:  cloister log checkpoint --party hub/hub --out hub.note",
    )(_checkpoint)
    group.command(
        "proof",
        help="Show the newest head with the proof that the log begins as it was at an earlier size: "
        "what a witness asks for. It is public: this is not logged.",
        epilog="Example:  cloister log proof --party site/north --from 120 --out north.request",
    )(_proof)
    group.command(
        "tiles",
        help="Write the whole log as static tiles that a plain web server can offer. Its log states that.",
        epilog="Example:  cloister log tiles --party hub/hub --out public/ --purpose 'public mirror'",
    )(_tiles)
    group.command(
        "verify",
        help="Hash every entry again and compare all that is stored with the head. The log states that.",
        epilog="Example:  cloister log verify --party site/north --purpose 'monthly check'",
    )(_verify)
    group.command(
        "rotate-key",
        help="Give a party a new key. Its log stays its own; let witnesses and verifiers know the new one.",
        epilog="Example:  cloister log rotate-key --party site/north",
    )(_rotate_key)
    group.command(
        "recover",
        help="Find how far a log that was refused still leads to a checkpoint that somebody holds of it, and "
        "move that part to a new log, which states that. The old one is only read.",
        epilog="Example:  cloister log recover --party site/north --held north.note --to recovered.sqlite",
    )(_recover)


def _checkpoint(
    party: Party,
    out: OutFile = None,
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    with _log_to_show(party, workspace) as log:
        head = log.checkpoint()
    facts: dict[str, object] = {"origin": head.origin, "size": head.size, "root": head.root.hex()}
    _hand_over(head.encode(), {**facts, "note": head.encode()}, out, as_json=as_json)
    return 0


def _proof(
    party: Party,
    old_size: Annotated[
        int, typer.Option("--from", metavar="SIZE", min=0, help="The earlier size; 0 if none is known.")
    ],
    out: OutFile = None,
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.evidence.witness.continuation import Continuation

    with _log_to_show(party, workspace) as log:
        head = log.checkpoint()
        hashes = log.consistency_proof(old_size, head.size) if old_size else ()
    request = Continuation(old_size, hashes, head).encode()
    facts: dict[str, object] = {"origin": head.origin, "from": old_size, "to": head.size}
    _hand_over(request, {**facts, "request": request}, out, as_json=as_json)
    return 0


@contextmanager
def _opened(
    party: Party,
    action: Action,
    what: str,
    actor: str | None,
    role: str,
    purpose: str,
    workspace: Path | None,
) -> Iterator[EvidenceLog]:
    """Open a party's log for somebody to look at, which it states first."""
    from cloister.cli.asking import acting, existing_workspace
    from cloister.core.clock import system_clock
    from cloister.evidence.custody.access import AccessRecord
    from cloister.workflow.audit import keeper, named_party

    with existing_workspace(workspace) as opened:
        owner = keeper(opened, named_party(party))
        with owner.open_log_to_show() as log:
            AccessRecord(log, owner.signer, system_clock).state_access(
                acting(actor, role, purpose), action, what
            )
            yield log


def _tiles(
    party: Party,
    out: Annotated[Path, typer.Option("--out", help="The folder; a later export adds only what is new.")],
    actor: ActorName = None,
    role: ActorRole = "operator",
    purpose: Purpose = "not stated",
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.evidence.log.tiles import export_tiles

    with _opened(party, "export", "the whole log, as static tiles", actor, role, purpose, workspace) as log:
        head = export_tiles(log, out)
    facts = {"origin": head.origin, "size": head.size, "root": head.root.hex(), "folder": str(out)}
    print(json.dumps(facts, indent=2) if as_json else f"{head.size} entries of {head.origin} are in {out}")
    return 0


def _verify(
    party: Party,
    actor: ActorName = None,
    role: ActorRole = "operator",
    purpose: Purpose = "not stated",
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    with _opened(party, "verify", "the whole log", actor, role, purpose, workspace) as log:
        head = log.verify()
    facts = {"origin": head.origin, "size": head.size, "root": head.root.hex()}
    print(json.dumps(facts, indent=2) if as_json else f"{head.origin}: all {head.size} entries hold")
    return 0


def _rotate_key(
    party: Party, workspace: Workspace = None, as_json: Json = False, debug: Debug = False
) -> int:
    from cloister.cli.asking import existing_workspace
    from cloister.workflow.audit import keeper, named_party

    with existing_workspace(workspace) as opened:
        owner = keeper(opened, named_party(party))
        owner.open_log_to_show().close()
        renewed = opened.rotate_key(owner)
        renewed.open_log_to_show().close()
    former, key = owner.signer.public_key, renewed.signer.public_key
    facts = {"log": owner.origin, "key_id": key.key_id, "former_key_id": former.key_id}
    if as_json:
        print(json.dumps({**facts, "public_key": key.pem}, indent=2))
        return 0
    print(f"{owner.origin} is signed by {key.key_id} from now on, and was by {former.key_id}")
    print(key.pem, end="")
    place = f"{owner.role}/{owner.name}"
    print(
        f"Give it to whoever pins {place}: their trust directory keeps the former key's file as\n"
        f"former/{place}/NAME.pem, for what that key signed; witnesses follow the log by both keys."
    )
    return 0


def _recover(
    party: Party,
    held: Annotated[
        list[Path] | None,
        typer.Option("--held", metavar="NOTE", help="A checkpoint that somebody holds of it; repeatable."),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option("--to", metavar="FILE", help="Where the new log is begun; or a PostgreSQL URL."),
    ] = None,
    actor: ActorName = None,
    role: ActorRole = "operator",
    purpose: Purpose = "not stated",
    workspace: Workspace = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.asking import acting, existing_workspace
    from cloister.core.clock import system_clock
    from cloister.workflow.audit import keeper, named_party
    from cloister.workflow.recovery import recover

    asking = acting(actor, role, purpose)
    with existing_workspace(workspace) as opened:
        found = recover(keeper(opened, named_party(party)), held or [], target, asking, system_clock)
    facts = {"origin": found.origin, "held": found.held, "good": found.good, "to": found.moved_to}
    if as_json:
        print(json.dumps(facts, indent=2))
        return 0
    print(f"{found.origin}: the first {found.good} entries lead to a checkpoint that is held.")
    if found.good < found.held:
        print(f"A checkpoint of {found.held} entries is held too; who holds it will see that some are lost.")
    if found.moved_to is not None:
        print(f"They are in {found.moved_to}. Keep the old log; put this one in its place if none is better.")
    return 0


@contextmanager
def _log_to_show(party: str, workspace: Path | None) -> Iterator[EvidenceLog]:
    from cloister.cli.asking import existing_workspace
    from cloister.workflow.audit import keeper, named_party

    with (
        existing_workspace(workspace) as opened,
        keeper(opened, named_party(party)).open_log_to_show() as log,
    ):
        yield log


def _hand_over(text: str, facts: dict[str, object], out: Path | None, *, as_json: bool) -> None:
    from cloister.core.files import write_atomic

    if out is not None:
        write_atomic(out, text.encode(), mode=0o644)
    if as_json:
        print(json.dumps(facts, indent=2))
    elif out is None:
        print(text, end="")
    else:
        print(f"written to {out}")
