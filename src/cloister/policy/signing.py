"""How a policy document becomes bytes, a hash and a signed envelope, and comes back.

Rules kept here:

- The bytes are the RFC 8785 canonical JSON of the document's fields; the hash is SHA-256 over them. The
  document holds neither its hash nor its signature, so that nothing has to be left out when hashing.
- Coming back, the bytes must be the canonical encoding of what was parsed from them: two readers can't
  see two documents, and one changed byte is another document.
- The signer has to be the one that the document names.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

from pydantic import ValidationError

from cloister.core.canonical import canonicalize, parse
from cloister.core.errors import SignatureInvalid
from cloister.core.hashes import Sha256, sha256_hex
from cloister.core.keys import PublicKey, Signer
from cloister.core.parsing import schema_error
from cloister.evidence.envelope import Envelope, sign_envelope, verify_envelope
from cloister.evidence.errors import EvidenceError
from cloister.policy.errors import PolicyError
from cloister.policy.fields import Section

LARGEST_DOCUMENT = 1024 * 1024


class SignedDocument(Section):
    """A document that one party signs."""

    @property
    @abstractmethod
    def signing_pem(self) -> str:
        """The public key of the party that signs, in PEM."""

    @property
    def key(self) -> PublicKey:
        """The public key of the party that signs."""
        return PublicKey.from_pem(self.signing_pem)

    def canonical(self) -> bytes:
        """Return the bytes that are hashed and signed."""
        return canonicalize(self.model_dump(mode="json"))

    @property
    def sha256(self) -> Sha256:
        """The hash of the canonical bytes."""
        return sha256_hex(self.canonical())


DocumentT = TypeVar("DocumentT", bound=SignedDocument)


def decode_document(model: type[DocumentT], payload: bytes, what: str) -> DocumentT:
    """Parse canonical bytes into a document.

    Args:
        model: The document's type.
        payload: RFC 8785 JSON.
        what: What to call it in a message.

    Raises:
        InputError: Not JSON, or a field is missing, unknown or wrong.
        PolicyError: ``policy.not_canonical``.
    """
    try:
        document = model.model_validate(parse(payload, max_bytes=LARGEST_DOCUMENT))
    except ValidationError as error:
        raise schema_error(error, f"the {what}") from None
    if document.canonical() != payload:
        raise PolicyError(
            "policy.not_canonical",
            f"the {what} isn't the canonical encoding of its own content",
            "Ask the signer for the file as it was signed; it was re-written on the way.",
        )
    return document


def sign_document(document: SignedDocument, signer: Signer, payload_type: str, what: str) -> Envelope:
    """Sign a document as the party that it names.

    Raises:
        PolicyError: ``policy.wrong_key`` if the signer is another party.
    """
    if signer.public_key.key_id != document.key.key_id:
        raise PolicyError(
            "policy.wrong_key",
            f"the {what} names another public key than the one it would be signed with",
            "Write the signer's own public key into the document, or sign with the key it names.",
        )
    return sign_envelope(payload_type, document.canonical(), signer)


def open_document(
    model: type[DocumentT], envelope: Envelope, key: PublicKey, payload_type: str, what: str
) -> DocumentT:
    """Verify an envelope and return the document in it.

    Args:
        model: The document's type.
        envelope: The signed envelope.
        key: The key by which the signer is known, from a source other than the envelope.
        payload_type: The kind of document expected.
        what: What to call it in a message.

    Raises:
        PolicyError: Another key signed it, it names another key, it is another kind of document or it
            isn't canonical.
        InputError: The content doesn't fit the document's type.
    """
    if envelope.payload_type != payload_type:
        raise PolicyError(
            "policy.wrong_type",
            f"the envelope doesn't hold a {what}",
            f"Give the file that was signed as a {what}.",
        )
    try:
        payload = verify_envelope(envelope, key)
    except (SignatureInvalid, EvidenceError) as error:
        raise PolicyError(
            "policy.wrong_key",
            f"the {what} isn't signed by the key expected of its signer",
            "Check that the trusted key is the signer's, and that the file wasn't changed after signing.",
        ) from error
    document = decode_document(model, payload, what)
    if document.key.key_id != key.key_id:
        raise PolicyError(
            "policy.wrong_key",
            f"the {what} names another public key than the one that signed it",
            "Ask the signer for a document that names the key it is signed with.",
        )
    return document
