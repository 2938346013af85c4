"""Key release: a data key goes to an attested enclave, under a policy that the key's owner signed, and to no
other.

The keeper's side is `ReleaseService` with its `DataKeyBook`; the enclave's side is `KeyRequest`. Between them
go bytes, over whatever carries them; `wire` is a way over a socket. The flow is that of RFC 9334's
background-check model with a challenge, as Trustee's key broker has it.
"""

from typing import TYPE_CHECKING

from cloister.core.first_use import on_first_use

if TYPE_CHECKING:
    from cloister.enclave.keyrelease.book import AdmittedPolicy, DataKeyBook
    from cloister.enclave.keyrelease.data_keys import DataKey
    from cloister.enclave.keyrelease.hpke import EnclaveKey, enclave_key_id, seal_to, sealing_info
    from cloister.enclave.keyrelease.messages import REFUSAL, Ask, Challenge, Reply, Request
    from cloister.enclave.keyrelease.policy import (
        KeyPurpose,
        ReleasePolicy,
        decode_release_policy,
        open_release_policy,
        sign_release_policy,
    )
    from cloister.enclave.keyrelease.request import KeyRequest, Quote
    from cloister.enclave.keyrelease.service import ReleaseLog, ReleaseService
    from cloister.enclave.keyrelease.wire import (
        Keeper,
        KeyDesk,
        KeyServiceEndpoint,
        KeyServiceListener,
    )

_HOMES = {
    "AdmittedPolicy": "book",
    "Ask": "messages",
    "Challenge": "messages",
    "DataKey": "data_keys",
    "DataKeyBook": "book",
    "EnclaveKey": "hpke",
    "Keeper": "wire",
    "KeyDesk": "wire",
    "KeyPurpose": "policy",
    "KeyRequest": "request",
    "KeyServiceEndpoint": "wire",
    "KeyServiceListener": "wire",
    "Quote": "request",
    "REFUSAL": "messages",
    "ReleaseLog": "service",
    "ReleasePolicy": "policy",
    "ReleaseService": "service",
    "Reply": "messages",
    "Request": "messages",
    "decode_release_policy": "policy",
    "enclave_key_id": "hpke",
    "open_release_policy": "policy",
    "seal_to": "hpke",
    "sealing_info": "hpke",
    "sign_release_policy": "policy",
}

__all__ = [
    "REFUSAL",
    "AdmittedPolicy",
    "Ask",
    "Challenge",
    "DataKey",
    "DataKeyBook",
    "EnclaveKey",
    "Keeper",
    "KeyDesk",
    "KeyPurpose",
    "KeyRequest",
    "KeyServiceEndpoint",
    "KeyServiceListener",
    "Quote",
    "ReleaseLog",
    "ReleasePolicy",
    "ReleaseService",
    "Reply",
    "Request",
    "decode_release_policy",
    "enclave_key_id",
    "open_release_policy",
    "seal_to",
    "sealing_info",
    "sign_release_policy",
]

__getattr__ = on_first_use(__name__, _HOMES)
