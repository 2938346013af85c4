"""Inside the enclave: asking for a data key, and opening it.

Pure functions on bytes with bounded sizes. No file and no network is needed: the messages go out and come in
through whatever pipe the worker has, and who carries them can read none of what matters and change nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from cloister.core.sealing import wipe
from cloister.core.symmetric import AES_KEY_BYTES
from cloister.enclave.attestation.binding import Binding
from cloister.enclave.attestation.evidence import Evidence
from cloister.enclave.errors import ReleaseError
from cloister.enclave.keyrelease.hpke import EnclaveKey, sealing_info
from cloister.enclave.keyrelease.messages import Ask, Challenge, Reply, Request, malformed, release_binding
from cloister.enclave.sealed.claims import SealClaims

Quote = Callable[[bytes], Evidence]
"""Takes 64 bytes of report data and answers with evidence that has them sealed in."""


class KeyRequest:
    """One request for one key: `ask`, `answer`, `open`, in this order, each once.

    Where the machine's quote is taken by somebody else, as for a worker that can reach no device, `bind` says
    what it has to seal in, and `Request` puts the rest together: all of that is public.

    Args:
        scope: the job or study that this worker was started for.
        policy_id: SHA-256 of the release policy to ask under.
        seal: what holds this worker, as its server has found it.
        key: the enclave's key, where it has one already; it is used up by this request.
    """

    def __init__(self, scope: str, policy_id: str, seal: SealClaims, key: EnclaveKey | None = None) -> None:
        self._ask = Ask(scope, policy_id)
        self._seal = seal
        self._key: EnclaveKey | None = key or EnclaveKey()
        self._binding: Binding | None = None
        self._nonce = b""

    def ask(self) -> bytes:
        """The first message, to the keeper."""
        return self._ask.encode()

    def answer(self, challenge: bytes, quote: Quote) -> bytes:
        """The second message, to the keeper.

        Args:
            challenge: what the keeper sent.
            quote: the machine, which seals report data into evidence.

        Raises:
            ReleaseError: ``release.malformed``, also where a challenge was answered before.
        """
        report_data = self.bind(challenge)
        if self._key is None:
            raise malformed()
        public, evidence = self._key.public_bytes, quote(report_data)
        return Request(self._ask, self._nonce, public, self._seal, evidence).encode()

    def bind(self, challenge: bytes) -> bytes:
        """What the machine's quote has to have sealed in to answer a challenge: 64 bytes.

        Args:
            challenge: what the keeper sent.

        Raises:
            ReleaseError: ``release.malformed``, also where a challenge was answered before.
        """
        if self._key is None or self._binding is not None:
            raise malformed()
        self._nonce = Challenge.decode(challenge).nonce
        self._binding = release_binding(self._ask, self._nonce, self._key.public_bytes, self._seal)
        return self._binding.report_data()

    def open(self, reply: bytes, *, dataset: str) -> bytearray:
        """The data key, in a buffer to be wiped with `cloister.core.sealing.wipe`; the request is used up.

        Args:
            reply: what the keeper sent.
            dataset: what the key must be for.

        Raises:
            ReleaseError: ``release.refused``, ``release.malformed``, or ``release.sealed`` where the key was
                sealed to another enclave, for another job, policy or dataset, or changed on its way.
        """
        if self._key is None or self._binding is None:
            raise malformed()
        private, self._key = self._key, None
        found = Reply.decode(reply)
        key = private.open(found.sealed, sealing_info(self._binding, found.data_key, found.dataset))
        if found.dataset != dataset or len(key) != AES_KEY_BYTES:
            wipe(key)
            raise ReleaseError("release.sealed", "The key that came is for another dataset.")
        return key
