"""Where a site's data key comes from: its hospital's own keeper, which gives it to an attested worker alone.

Rules kept here:

1. There is one key for a site's records, wrapped in the hospital's book. Unwrapped it is in the keeper, the
   worker, and here for as long as a table that the node has read is being encrypted. A table that came
   sealed is carried as it is: here is neither its key nor a record of it.
2. Each job has a release policy of its own, for one release: what the hospital's manifest implies and nothing
   else, signed by the hospital.
3. What holds the worker is stated before it asks, is sealed into the quote, and has to be what the manifest
   accepts. The keeper's verdict is stated before it answers. A run that was started as insecure asks for
   nothing: there is no keeper for it.
4. The worker's request, the machine's quote and the keeper's reply go through here as bytes. None of them is
   of use to whoever carries them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cloister.core.clock import Clock
from cloister.core.keys import Signer, WrappingKey
from cloister.core.sealing import wipe
from cloister.enclave.attestation.verifier import Verifier
from cloister.enclave.errors import ReleaseError
from cloister.enclave.keyrelease import (
    Ask,
    DataKey,
    DataKeyBook,
    KeyPurpose,
    Quote,
    ReleaseLog,
    ReleasePolicy,
    ReleaseService,
    sign_release_policy,
)
from cloister.enclave.keyrelease.policy import policy_for_job, table_dataset
from cloister.enclave.protection import Protection, require_keys_may_be_asked_for
from cloister.enclave.sealed import SealedTrainer, SealedWorker, encrypt_table
from cloister.enclave.sealed.asking import carry_request
from cloister.evidence.attestation_terms import ManifestAttestation
from cloister.federation.handover import state_worker_sealed
from cloister.health import EncryptedTable, SealedSite, SiteData, SiteRecords
from cloister.health.schema import TableSchema


@dataclass(frozen=True)
class KeyTerms:
    """What a hospital's manifest says of who may have the key to its records.

    Attributes:
        attestation: its terms of attestation, and of what holds a worker.
        holds: its validity, the end excluded.
        purpose: what it says that the dataset holds; only the key to test data is ever released to simulated
            machines.
    """

    attestation: ManifestAttestation
    holds: tuple[datetime, datetime]
    purpose: KeyPurpose


@dataclass(frozen=True)
class SiteKeeper:
    """A hospital's keeper, and the machine that its worker runs on.

    Attributes:
        book: the hospital's data keys.
        wrapping: its key-encryption key.
        owner: signs release policies.
        terms: of its manifest.
        verifier: judges the worker's evidence.
        log: states every release and refusal, before it happens.
        quote: the machine's attestation device.
        clock: the time.
        protection: the run's.

    Raises:
        LaunchError: ``launch.keys_refused`` for a run without protection.
    """

    book: DataKeyBook
    wrapping: WrappingKey
    owner: Signer
    terms: KeyTerms
    verifier: Verifier
    log: ReleaseLog
    quote: Quote
    clock: Clock
    protection: Protection

    def __post_init__(self) -> None:
        require_keys_may_be_asked_for(self.protection)

    def state_seal(self, worker: SealedWorker) -> None:
        """See `Handover.state_seal`."""
        state_worker_sealed(worker, self.log)

    def give(self, trainer: SealedTrainer, job_id: str, data: SiteRecords, schema: TableSchema) -> None:
        """Let a worker ask for the key to a site's records, and hand it both if it gets it.

        Args:
            trainer: of the worker.
            job_id: what it works for.
            data: the site's records; sealed ones go through as they are.
            schema: what is declared of them.

        Raises:
            ReleaseError: ``release.refused``: the keeper's log says why. Nothing was handed over.
                ``release.wrong_key`` for a sealed table whose key is for something else.
            CloisterError: a key can't be made or read, or the worker refused the table.
        """
        dataset = table_dataset(data.name, data.dataset_sha256)
        key = self._key_of(data.table, dataset) if isinstance(data, SealedSite) else self._key(dataset)
        policy = self._allow(key, job_id)
        reply = self._ask(trainer, Ask(job_id, policy.sha256))
        if isinstance(data, SealedSite):
            trainer.load(data.table, reply)
        else:
            trainer.load(self._encrypted(key, data, schema), reply)

    def _key(self, dataset: str) -> DataKey:
        known = [
            one for one in self.book.all_keys() if (one.dataset, one.purpose) == (dataset, self.terms.purpose)
        ]
        live = [one for one in known if one.revoked_at is None]
        for one in live:
            if one.wrapping_id == self.wrapping.wrapping_id:
                return one
        if len(live) < len(known):
            raise ReleaseError(
                "release.revoked",
                "A key to these records was revoked, and no other is wrapped where the settings say.",
                "Let the hospital make another, if its records are to be used again.",
            )
        return self.book.create_key(dataset, self.terms.purpose, self.wrapping, self.clock())

    def _key_of(self, table: EncryptedTable, dataset: str) -> DataKey:
        key = self.book.key(table.public.data_key)
        if (key.dataset, key.purpose) != (dataset, self.terms.purpose):
            raise ReleaseError(
                "release.wrong_key",
                f"The sealed table's key is for {key.purpose.value}, and for other records or another use.",
                "Let the hospital seal its table again, for what its manifest says that the records are.",
            )
        return key

    def _allow(self, key: DataKey, job_id: str) -> ReleasePolicy:
        policy = policy_for_job(
            self.terms.attestation,
            data_key=key.data_key,
            dataset=key.dataset,
            scope=job_id,
            holds=self.terms.holds,
            purpose=key.purpose,
        )
        envelope = sign_release_policy(policy, self.owner)
        return self.book.admit(envelope, self.owner.public_key, self.clock())

    def _ask(self, trainer: SealedTrainer, ask: Ask) -> bytes:
        service = ReleaseService(
            verifier=self.verifier,
            book=self.book,
            unwrap=lambda key: self.book.unwrap(key, self.wrapping),
            owner=self.owner.public_key,
            log=self.log,
            clock=self.clock,
        )
        return carry_request(trainer.worker, ask, service, self.quote)

    def _encrypted(self, key: DataKey, data: SiteData, schema: TableSchema) -> EncryptedTable:
        opened = self.book.unwrap(key, self.wrapping)
        try:
            return encrypt_table(data, schema, opened, data_key=key.data_key)
        finally:
            wipe(opened)
