"""Keys in a PKCS#11 token: a hardware module, or SoftHSM standing in for one.

Rules this module keeps:

* Private keys are made inside the token, sensitive and not extractable; one that could leave it, or was
  brought into it, is not used.
* ECDSA P-256 is the default, since every token has it; Ed25519 and P-384 where the token can.
* The PIN comes from a function when the token is opened, and is kept nowhere.
* A token is opened once in a process: its login holds for the whole process (PKCS#11 v2.40 section 5.4). A
  process that was forked opens it for itself.

python-pkcs11 is loaded when the first token is opened.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from cloister.core.errors import CloisterError, KeyStoreError, SignatureInvalid
from cloister.core.interrupts import interruptible
from cloister.core.keys.public import ECDSA_P256, ECDSA_P384, ED25519, PublicKey
from cloister.core.keys.secrets import Secret, require_secret
from cloister.core.keys.store import NAME, Signer, check_name, exists, missing, unknown_algorithm

if TYPE_CHECKING:
    from pkcs11 import PrivateKey, SecretKey, Session
    from pkcs11 import PublicKey as TokenPublicKey

_OCTET_STRING: Final = 0x04
_PARAMETERS: Final = {
    ECDSA_P256: bytes.fromhex("06082a8648ce3d030107"),
    ECDSA_P384: bytes.fromhex("06052b81040022"),
    ED25519: bytes.fromhex("06032b6570"),
}
"""CKA_EC_PARAMS: the curve's object identifier in DER (RFC 5480 section 2.1.1.1, RFC 8410 section 3)."""

_SALT: Final = secrets.token_bytes(32)
_opening = threading.Lock()
_opened: dict[tuple[str, str], OpenToken] = {}


@dataclass(frozen=True)
class OpenToken:
    """A token with this process logged in to it; PKCS#11 sessions serve one thread at a time.

    Attributes:
        session: the session that is logged in.
        process: the process that opened it.
        pin_tag: tells whether a PIN is the one it was opened with.
        lock: held while it is used.
    """

    session: Session = field(repr=False)
    process: int
    pin_tag: bytes = field(repr=False)
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @interruptible
    def use(self) -> Iterator[Session]:
        """The session, for one thread at a time.

        Raises:
            KeyStoreError: ``key.hardware``, also in another process than the one that opened it.
        """
        if os.getpid() != self.process:
            raise unusable("it was opened before this process was forked; open the key store again")
        import pkcs11

        with self.lock:
            try:
                yield self.session
            except pkcs11.PKCS11Error as error:
                raise unusable(f"it answered {type(error).__name__}") from None


class Pkcs11KeyStore:
    """Keys in a token.

    Args:
        library: the PKCS#11 module, such as ``/usr/lib/softhsm/libsofthsm2.so``.
        token: the token's label.
        pin: answers the user's PIN.
        owner: stands before every key's label, so that several parties can share a token.

    Raises:
        KeyStoreError: ``key.hardware`` where module or token can't be used, ``key.pin`` for a wrong PIN.
    """

    def __init__(self, library: Path, token: str, pin: Secret, *, owner: str = "") -> None:
        self._token = open_token(str(library), token, pin)
        self._place = token
        self._prefix = f"{owner}:" if owner else ""

    def generate(self, name: str, algorithm: str = ECDSA_P256) -> Signer:
        """Make a new key inside the token.

        Raises:
            KeyStoreError: ``key.exists``, ``key.name``, ``key.algorithm`` or ``key.hardware``.
        """
        check_name(name)
        parameters = _PARAMETERS.get(algorithm)
        if parameters is None:
            raise unknown_algorithm()
        from pkcs11 import Attribute, KeyType, Mechanism

        edwards = algorithm == ED25519
        kind = KeyType.EC_EDWARDS if edwards else KeyType.EC
        mechanism = Mechanism.EC_EDWARDS_KEY_PAIR_GEN if edwards else Mechanism.EC_KEY_PAIR_GEN
        with self._token.use() as session:
            if self._private_keys(session, name):
                raise exists(name)
            label = self._prefix + name
            session.create_domain_parameters(
                kind, {Attribute.EC_PARAMS: parameters}, local=True
            ).generate_keypair(
                mechanism=mechanism,
                id=hashlib.sha256(label.encode()).digest()[:16],
                label=label,
                store=True,
                private_template={
                    Attribute.SENSITIVE: True,
                    Attribute.EXTRACTABLE: False,
                    Attribute.PRIVATE: True,
                },
            )
        return self.load(name)

    def load(self, name: str) -> Signer:
        """The key of this name.

        Raises:
            KeyStoreError: ``key.missing``, ``key.name``, ``key.malformed``, ``key.hardware``, or
                ``key.exportable`` for a key that could leave the token.
        """
        check_name(name)
        from pkcs11 import Attribute, ObjectClass

        with self._token.use() as session:
            private = self._private_keys(session, name)
            if not private:
                raise missing(name)
            label = self._prefix + name
            public = list(
                session.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY, Attribute.LABEL: label})
            )
            if len(private) != 1 or len(public) != 1:
                raise unusable(f"it holds more than one key, or half of one, named {name}")
            if not never_left(private[0]):
                raise KeyStoreError(
                    "key.exportable",
                    f"The key {name} could be, or once was, outside of the token {self._place}.",
                    "Make a new one here; keys are made inside the token and stay there.",
                )
            signer = _TokenSigner(self._token, private[0], _public_key(public[0]))
        _require_pair(signer)
        return signer

    def names(self) -> tuple[str, ...]:
        """The names of all keys of this owner, sorted."""
        from pkcs11 import Attribute, ObjectClass

        with self._token.use() as session:
            labels = [
                str(one[Attribute.LABEL])
                for one in session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY})
            ]
        own = {one.removeprefix(self._prefix) for one in labels if one.startswith(self._prefix)}
        return tuple(sorted(name for name in own if NAME.fullmatch(name)))

    def __repr__(self) -> str:
        return f"<keys in the token {self._place}>"

    def _private_keys(self, session: Session, name: str) -> list[PrivateKey]:
        from pkcs11 import Attribute, ObjectClass

        found = session.get_objects(
            {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: self._prefix + name}
        )
        return list(found)


class _TokenSigner:
    """A private key inside a token."""

    __slots__ = ("_private", "_public", "_token")

    def __init__(self, token: OpenToken, private: PrivateKey, public: PublicKey) -> None:
        self._token = token
        self._private = private
        self._public = public

    @property
    def public_key(self) -> PublicKey:
        return self._public

    def sign(self, message: bytes) -> bytes:
        """Sign a message.

        Raises:
            KeyStoreError: ``key.hardware`` where the token doesn't.
        """
        from pkcs11 import Mechanism

        with self._token.use():
            if self._public.algorithm == ED25519:
                return bytes(self._private.sign(message, mechanism=Mechanism.EDDSA))
            digest = hashlib.sha256 if self._public.algorithm == ECDSA_P256 else hashlib.sha384
            pair = bytes(self._private.sign(digest(message).digest(), mechanism=Mechanism.ECDSA))
        half = len(pair) // 2
        return encode_dss_signature(int.from_bytes(pair[:half], "big"), int.from_bytes(pair[half:], "big"))

    def __repr__(self) -> str:
        return f"<signer {self._public.key_id} in a token>"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a signer is never copied out of its process")


def open_token(library: str, token: str, pin: Secret) -> OpenToken:
    """Open a token, or find it open: its login holds for the whole process.

    Args:
        library: path of the PKCS#11 module.
        token: the token's label.
        pin: answers the user's PIN, which is compared where the token is open.

    Raises:
        KeyStoreError: ``key.hardware`` or ``key.pin``.
    """
    secret = require_secret(pin())
    tag = hmac.digest(_SALT, secret, "sha256")
    with _opening:
        found = _opened.get((library, token))
        if found is None or found.process != os.getpid():
            forked = found is not None
            found = OpenToken(_log_in(library, token, secret, forked=forked), os.getpid(), tag)
            _opened[library, token] = found
        elif not hmac.compare_digest(found.pin_tag, tag):
            raise _wrong_pin(token)
    return found


def _log_in(library: str, token: str, secret: bytes, *, forked: bool) -> Session:
    try:
        import pkcs11
    except ImportError:
        raise KeyStoreError(
            "key.hardware", "Keys in hardware need python-pkcs11.", "Install cloister[hardware]."
        ) from None
    try:
        module = pkcs11.lib(library)
        if forked:
            module.reinitialize()
        return module.get_token(token_label=token).open(rw=True, user_pin=secret.decode("utf-8"))
    except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange, pkcs11.PinLocked, UnicodeDecodeError):
        raise _wrong_pin(token) from None
    except pkcs11.NoSuchToken:
        raise unusable(f"the module has no token labelled {token}") from None
    except (pkcs11.PKCS11Error, RuntimeError) as error:
        raise unusable(f"opening it answered {type(error).__name__}") from None


def never_left(private: PrivateKey | SecretKey) -> bool:
    """Whether the token made the key itself and never could give it away (PKCS#11 v2.40 section 4.9)."""
    from pkcs11 import Attribute

    vouched = (
        Attribute.LOCAL,
        Attribute.SENSITIVE,
        Attribute.ALWAYS_SENSITIVE,
        Attribute.NEVER_EXTRACTABLE,
    )
    return not private[Attribute.EXTRACTABLE] and all(private[one] for one in vouched)


def _public_key(public: TokenPublicKey) -> PublicKey:
    """Read a public key's attributes (PKCS#11 v2.40 section 2.3.3: CKA_EC_POINT is a DER OCTET STRING)."""
    from pkcs11 import Attribute

    parameters, wrapped = bytes(public[Attribute.EC_PARAMS]), bytes(public[Attribute.EC_POINT])
    point = wrapped[2:]
    try:
        if wrapped[:2] != bytes([_OCTET_STRING, len(point)]):
            raise unusable("it gives a public key in an unknown form")
        if parameters == _PARAMETERS[ED25519]:
            return PublicKey.of(Ed25519PublicKey.from_public_bytes(point))
        if parameters == _PARAMETERS[ECDSA_P256]:
            return PublicKey.of(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point))
        if parameters == _PARAMETERS[ECDSA_P384]:
            return PublicKey.of(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), point))
    except ValueError:
        raise unusable("it gives a public key that is none") from None
    raise unusable("its key is of an algorithm that isn't used here")


def _require_pair(signer: Signer) -> None:
    """The two halves belong together: a token with another's public key in it is found before it signs."""
    probe = secrets.token_bytes(32)
    try:
        signer.public_key.verify(signer.sign(b"cloister key check " + probe), b"cloister key check " + probe)
    except SignatureInvalid:
        raise unusable("a private and a public key in it don't belong together") from None


def _wrong_pin(token: str) -> CloisterError:
    return KeyStoreError(
        "key.pin",
        f"The token {token} refuses the PIN.",
        "Check the PIN file; a token locks itself after some wrong PINs.",
    )


def unusable(reason: str) -> KeyStoreError:
    """The refusal of a token that can't be used."""
    return KeyStoreError(
        "key.hardware", f"The token can't be used: {reason}.", "Check pkcs11_library and pkcs11_token."
    )
