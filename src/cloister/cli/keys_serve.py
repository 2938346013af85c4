"""``cloister keys serve``: a keeper's data keys for attested workers elsewhere, over a socket.

The keeper verifies what each worker's machine shows by itself. Every release, and refusals as their kinds
come, are stated in the keeper's own log, which lies in its folder.
"""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Final

import typer

from cloister.cli.options import Debug, Json, SimulatedRoots, VendorDocuments
from cloister.cli.services import asked_to_stop, own_log

LOG: Final = "log"


def attach(group: typer.Typer) -> None:
    """Attach the command to its group."""
    group.command(
        "serve",
        help="Release data keys to workers whose machines prove themselves, under the policies in the book. "
        "Who is refused learns nothing; the log in the keeper's folder has every release, and why others "
        "were refused. Ctrl-C or SIGTERM stop it: what is being answered is answered.",
        epilog="Examples:  cloister keys serve keeper/ --listen 0.0.0.0:8471 --collateral crl/   ·   "
        "cloister keys serve keeper/ --listen ./keys.sock --simulated-root vendor/root.pem",
    )(_serve)


def _serve(
    folder: Annotated[Path, typer.Argument(help="The keeper's folder, with data keys and policies.")],
    listen: Annotated[
        str, typer.Option("--listen", help="host:port, or a path for a socket; port 0 takes a free one.")
    ] = "127.0.0.1:8471",
    name: Annotated[str, typer.Option("--name", help="The keeper's name in its log.")] = "keeper",
    collateral: VendorDocuments = None,
    root: SimulatedRoots = None,
    as_json: Json = False,
    debug: Debug = False,
) -> int:
    from cloister.cli.appraisal_files import trust_in
    from cloister.cli.enclave_files import collateral_in
    from cloister.core.clock import system_clock
    from cloister.core.errors import StorageError
    from cloister.core.settings import load_settings
    from cloister.enclave.attestation import Verifier
    from cloister.enclave.keyrelease import KeyDesk, KeyServiceListener, ReleaseService
    from cloister.enclave.keyrelease.folder import BOOK, KeeperFolder
    from cloister.evidence import Role
    from cloister.workflow.immunity import immunity

    if not (folder / BOOK).is_file():
        raise StorageError(
            "storage.failed",
            f"There is no book of data keys in {folder}.",
            "Make it with its first key:  cloister keys data-key create",
        )
    verifier = Verifier(trust_in(root or []), system_clock, collateral_in(collateral or []))
    settings = load_settings({})
    keeper = KeeperFolder(folder, settings)
    owner = keeper.signer().public_key
    # What is entered last ends first. A stop before anything is served unwinds like Ctrl-C.
    with ExitStack() as running:
        running.callback(keeper.book.close)
        running.enter_context(asked_to_stop(signal.default_int_handler))
        listener = running.enter_context(KeyServiceListener(listen))
        writer = running.enter_context(own_log(folder / LOG, Role.SITE, name))
        noticing = running.enter_context(immunity(settings, folder))
        running.enter_context(noticing.stated_by([writer]))
        service = ReleaseService(
            verifier=verifier,
            book=keeper.book,
            unwrap=keeper.unwrap,
            owner=owner,
            log=writer,
            clock=system_clock,
        )
        running.enter_context(asked_to_stop(lambda *_: listener.close()))
        facts = {
            "listening": listener.address,
            "owner": owner.key_id,
            "log": writer.log.origin,
            "platforms": "SIMULATED - NOT HARDWARE" if root else "hardware",
        }
        shown = "\n".join(f"{one:14} {value}" for one, value in facts.items())
        print(json.dumps(facts) if as_json else shown, flush=True)
        listener.serve(KeyDesk(service))
    return 0
