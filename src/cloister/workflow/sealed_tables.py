"""A hospital seals its table beforehand: what a node then gets is a file that it carries and can't read.

Rules kept here:

1. The table is held against its declaration first, and committed to with its salt, as for any job. Who seals
   sees the records; who runs jobs with the sealed file doesn't.
2. Its data key is made in the hospital's own book, for exactly these records and what they are: patients', or
   test data. One that is there already will do, if it is wrapped by what a new one would be wrapped by.
3. Sealed tables don't lie beside their keys, and none is overwritten.
"""

from __future__ import annotations

from pathlib import Path

from cloister.core.clock import Clock
from cloister.core.errors import InputError
from cloister.core.files import write_new
from cloister.core.keys import WrappingKey
from cloister.core.sealing import wipe
from cloister.enclave.keyrelease.data_keys import DataKey
from cloister.enclave.keyrelease.folder import KeeperFolder
from cloister.enclave.keyrelease.policy import KeyPurpose, table_dataset
from cloister.enclave.sealed import encrypt_table
from cloister.health.declaration import TableDeclaration, read_declaration
from cloister.health.encrypted_table import MAX_FILE_BYTES, SUFFIX, TableHeader
from cloister.health.sources.csv_files import load_site
from cloister.health.sources.salts import make_salt
from cloister.workflow.keepers import open_folder
from cloister.workflow.workspace import Workspace


def seal_table(
    table: Path,
    out: Path,
    workspace: Workspace,
    *,
    schema: Path,
    purpose: KeyPurpose,
    kms_arn: str | None,
    clock: Clock,
) -> TableHeader:
    """Seal a site's table for jobs.

    Args:
        table: The plain table, named after its site; its salt lies beside it, or is made there.
        out: The file to write, named after the site too.
        workspace: Holds the hospital's keys.
        schema: The declaration.
        purpose: What its records are: patients', or test data.
        kms_arn: A key in AWS KMS that wraps the data key; None for what the settings choose.
        clock: Dates a new key.

    Returns:
        What the file says in public.

    Raises:
        HealthError: The table isn't as declared.
        InputError: A file is missing, malformed or too large, or another site's name.
        ReleaseError: ``release.beside``: the file would lie beside its key.
        StorageError: It can't be written, or ``storage.exists``.
        KeyStoreError: The hospital's keys can't be made or read.
    """
    declaration = read_declaration(schema.parent, schema.name)
    site = _site(table, out, declaration)
    make_salt(table.parent, site)
    data = load_site(table.parent, table.name, site, declaration)
    hospital = workspace.party("hospital", site)
    with open_folder(workspace, hospital) as folder:
        folder.require_apart(out)
        dataset = table_dataset(site, data.dataset_sha256)
        wrapping = folder.new_wrapping(kms_arn)
        data_key = _key(folder, dataset, purpose, wrapping) or folder.book.create_key(
            dataset, purpose, wrapping, clock()
        )
        key = folder.unwrap(data_key)
        try:
            sealed = encrypt_table(data, declaration.table, key, data_key=data_key.data_key)
        finally:
            wipe(key)
    content = sealed.encode()
    if len(content) > MAX_FILE_BYTES:
        raise InputError(
            "input.too_large", f"A sealed table has at most {MAX_FILE_BYTES} bytes.", "Split it over sites."
        )
    write_new(out, content)
    return sealed.public


def _site(table: Path, out: Path, declaration: TableDeclaration) -> str:
    site = table.stem
    if site not in declaration.sites or out.name != site + SUFFIX:
        raise InputError(
            "input.schema",
            "A table and its sealed file are named after a declared site.",
            f"Sites: {', '.join(declaration.sites)}. The sealed table of a site is SITE{SUFFIX}.",
        )
    return site


def _key(folder: KeeperFolder, dataset: str, purpose: KeyPurpose, wrapping: WrappingKey) -> DataKey | None:
    """The newest live key that the hospital has for these records, under this key-encryption key."""
    wanted = (dataset, purpose, wrapping.wrapping_id)
    known = (one for one in reversed(folder.book.all_keys()) if one.revoked_at is None)
    return next((one for one in known if (one.dataset, one.purpose, one.wrapping_id) == wanted), None)
