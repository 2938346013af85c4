"""Each hospital's keeper of data keys in a job: its book and key-encryption key, in the hospital's folder.

Rules kept here:

1. A hospital's keys are below its own folder, made on first use. What a job encrypts with them is nowhere on
   a disk; a table that was sealed beforehand lies elsewhere, and names its key.
2. Its release policies are signed with the key that signs its manifests.
3. What a key is for is what the hospital's signed manifest says of its records, however a run was started.
   What the key to test data has encrypted, that to records doesn't open.
4. A run that was started as insecure has no keeper: nothing of the hospital's keys is opened or made for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from cloister.core.clock import parse_time
from cloister.core.keys import WrappingKey
from cloister.enclave.attestation import Verifier
from cloister.enclave.errors import ReleaseError
from cloister.enclave.keyrelease import KeyPurpose
from cloister.enclave.keyrelease.folder import KeeperFolder
from cloister.enclave.protection import Protection
from cloister.federation.handover import Handover, HandoverWithoutKey
from cloister.federation.site import Platform
from cloister.federation.site_keys import KeyTerms, SiteKeeper
from cloister.health import SealedSite, SiteRecords
from cloister.workflow.case import Case
from cloister.workflow.party import Party
from cloister.workflow.workspace import Workspace

_FOLDER = "data-keys"


@contextmanager
def open_folder(workspace: Workspace, hospital: Party) -> Iterator[KeeperFolder]:
    """Open the folder of a hospital's data keys; made on first use.

    Args:
        workspace: Says where keys are kept.
        hospital: Whose keys.

    Raises:
        KeyStoreError: its keys can't be made or read.
        StorageError: its book can't.
        ReleaseError: ``release.book``.
    """
    owner = f"{hospital.role}/{hospital.name}"
    folder = KeeperFolder(hospital.folder / _FOLDER, workspace.settings, owner=owner)
    with closing(folder.book):
        yield folder


@contextmanager
def open_handover(case: Case, site: str, platform: Platform) -> Iterator[Handover]:
    """Open a hospital's keeper for a job, or what an insecure run has in place of one.

    Args:
        case: the job.
        site: the hospital.
        platform: the attestation device of the site's machine.

    Raises:
        KeyStoreError: its keys can't be made or read.
        StorageError: its book can't.
        ReleaseError: ``release.book``, or ``release.unknown`` for a sealed table of another's key.
    """
    writer = case.parties.sites[site].writer
    if case.attester.protection is Protection.INSECURE:
        yield HandoverWithoutKey(writer, case.clock)
        return
    hospital, manifest = case.workspace.party("hospital", site), case.agreement.manifests[site]
    validity = manifest.validity
    with open_folder(case.workspace, hospital) as folder:
        yield SiteKeeper(
            book=folder.book,
            wrapping=_wrapping(folder, case.data.sites[site]),
            owner=hospital.signer,
            terms=KeyTerms(
                manifest.attestation,
                (parse_time(validity.not_before), parse_time(validity.not_after)),
                KeyPurpose(manifest.dataset_scope.contents),
            ),
            verifier=Verifier(case.attester.trust, case.clock, case.attester.collateral),
            log=writer,
            quote=platform.quote,
            clock=case.clock,
            protection=case.attester.protection,
        )


def _wrapping(folder: KeeperFolder, records: SiteRecords) -> WrappingKey:
    """The key-encryption key that a site's data key is wrapped with."""
    if not isinstance(records, SealedSite):
        return folder.new_wrapping(None)
    try:
        key = folder.book.key(records.table.public.data_key)
    except ReleaseError:
        raise ReleaseError(
            "release.unknown",
            f"The hospital's book has no key of the sealed table of {records.name}.",
            "Use the table that was sealed with this workspace's keys, or the workspace it was sealed in.",
        ) from None
    return folder.wrapping(key.wrapping_id)
