"""The errors of the house: every boundary raises a `CloisterError`, and nothing else.

Rules this module keeps:

* An error has a stable ``code`` (``room.reason``), one sentence, a hint that says what to do, and details.
* The codes a class may raise are declared on the class with their meaning; any other code is a defect and
  refused, so the catalogue and the program cannot drift apart.
* An error never carries a record's content. Names of fields, files and sites are allowed; values are not.
* ``exit_code`` is what a command ends with: 0 ok; 1 verification failed or threshold missed; 2 bad input or
  usage; 3 refused by policy, budget or airlock; 4 attestation refused; 5 environment; 70 internal defect;
  78 the launcher refuses to start on an unprotected machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, TypedDict

EXIT_MEANINGS: Mapping[int, str] = MappingProxyType(
    {
        0: "done",
        1: "verification failed, or the success threshold was missed",
        2: "bad input or usage",
        3: "refused by policy, budget or airlock",
        4: "attestation refused",
        5: "the machine: disk, permission, something in use",
        70: "an internal defect",
        78: "the launcher refuses to start: nothing proves that the machine is protected",
        130: "interrupted",
    }
)

_CODE = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")


class ErrorRecord(TypedDict):
    """What `CloisterError.as_json` returns: the error as plain JSON."""

    code: str
    message: str
    hint: str
    details: list[str]
    exit_code: int


class CloisterError(Exception):
    """The base of every error that crosses a boundary.

    Args:
        code: one of the codes declared in ``CODES``, as ``room.reason``.
        message: one sentence that says what is wrong, without any record's content.
        hint: what the reader can do about it; may be empty.
        details: further findings, one line each (every reason of a refusal, every wrong field).

    Raises:
        ValueError: the class does not declare this code; a defect of the caller.
    """

    CODES: ClassVar[Mapping[str, str]] = MappingProxyType({})
    exit_code: ClassVar[int] = 70

    code: str
    message: str
    hint: str
    details: tuple[str, ...]

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for code in cls.CODES:
            if not _CODE.fullmatch(code):
                raise ValueError(f"{cls.__name__}: {code!r} is not of the form room.reason")
        if cls.exit_code not in EXIT_MEANINGS:
            raise ValueError(f"{cls.__name__}: {cls.exit_code} is not an exit code of this program")

    def __init__(self, code: str, message: str, hint: str = "", *, details: Sequence[str] = ()) -> None:
        if code not in self.CODES:
            raise ValueError(f"{type(self).__name__} does not declare the code {code!r}")
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint
        self.details = tuple(details)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.code, self.message, self.hint, self.details)

    def as_json(self) -> ErrorRecord:
        """The error as plain JSON, for ``--json`` and for the log."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "details": list(self.details),
            "exit_code": self.exit_code,
        }


def _rebuild(
    kind: type[CloisterError], code: str, message: str, hint: str, details: tuple[str, ...]
) -> CloisterError:
    return kind(code, message, hint, details=details)


class InputError(CloisterError):
    """Something handed in from outside cannot be used."""

    exit_code = 2
    CODES = MappingProxyType(
        {
            "input.missing_file": "A file that is needed is not there.",
            "input.unreadable": "A file is there but cannot be read: no permission, or not a plain file.",
            "input.too_large": "An input is larger or nested deeper than its bound.",
            "input.syntax": "An input is not well-formed: JSON, YAML, base64, PEM or a time.",
            "input.schema": "An input is well-formed, but fields are missing, unknown or of a wrong kind.",
            "input.not_canonical": "A document is valid JSON, but not its one canonical encoding (RFC 8785).",
            "input.duplicate_key": "An object names the same key twice.",
            "input.not_json": "A value that JSON cannot carry exactly: NaN, infinity, an integer past "
            "2**53-1, a lone surrogate, or another type.",
            "input.path_escapes": "A path leaves the folder it has to stay in, or passes through a link.",
            "input.sealed": "Bytes are not data that was sealed, or not all of it.",
        }
    )


class StorageError(CloisterError):
    """The machine could not keep what it was given."""

    exit_code = 5
    CODES = MappingProxyType(
        {
            "storage.no_space": "The disk, the quota or the file-size limit is exhausted.",
            "storage.permission": "The operating system denies writing there.",
            "storage.exists": "Something is already there and is not overwritten.",
            "storage.in_use": "Another process holds the file.",
            "storage.corrupt": "A database file is damaged or is not a database.",
            "storage.failed": "The operating system reported another failure.",
            "storage.uncertain": "A commit got no answer: what was written may be there, or not.",
            "storage.forked": "A database was used in a child of the process that opened it.",
        }
    )


class KeyStoreError(CloisterError):
    """A private or public key cannot be used."""

    exit_code = 2
    CODES = MappingProxyType(
        {
            "key.missing": "There is no key of this name.",
            "key.exists": "A key of this name exists and is never overwritten.",
            "key.malformed": "These bytes are no key of a kind this program uses.",
            "key.permissions": "Others than the owner could read or replace the private key.",
            "key.name": "A key's name has characters that are not allowed.",
            "key.algorithm": "The key store makes no keys for this signature algorithm.",
            "key.secret": "A passphrase or PIN is not there, empty or too long.",
            "key.passphrase": "A key is not encrypted with the passphrase that was given.",
            "key.settings": "The settings don't name one key store.",
            "key.hardware": "The PKCS#11 module or its token can't be used.",
            "key.pin": "The token refuses the PIN.",
            "key.exportable": "A key in a token could leave it, and is therefore not used.",
            "key.wrapped": "A wrapped key doesn't open under this key, or was wrapped for something else.",
            "key.service": "The key management service can't be reached, or refuses.",
        }
    )


class SignatureInvalid(CloisterError):  # noqa: N818 - the field's own word
    """A signature does not belong to this message and key."""

    exit_code = 1
    CODES = MappingProxyType(
        {
            "signature.invalid": "The signature does not verify under the given key.",
            "signature.tag": "An authentication tag does not verify under the given secret key.",
        }
    )


def _subclasses(kind: type[CloisterError]) -> Iterator[type[CloisterError]]:
    for child in kind.__subclasses__():
        yield child
        yield from _subclasses(child)


def _declarations() -> dict[str, tuple[type[CloisterError], str]]:
    found: dict[str, tuple[type[CloisterError], str]] = {}
    for kind in _subclasses(CloisterError):
        for code, meaning in vars(kind).get("CODES", {}).items():
            earlier = found.get(code)
            if earlier is not None and not issubclass(kind, earlier[0]):
                raise ValueError(f"{code} is declared by {earlier[0].__name__} and by {kind.__name__}")
            found[code] = (kind, meaning)
    return found


def all_codes() -> dict[str, str]:
    """Every code of the rooms loaded so far, with its meaning, sorted.

    Raises:
        ValueError: two unrelated classes declare one code.
    """
    return {code: meaning for code, (_, meaning) in sorted(_declarations().items())}


def error_of(code: str) -> CloisterError | None:
    """The error that a code stands for, where nothing but the code came across a border.

    Args:
        code: as it came.

    Returns:
        An error with the catalogue's meaning for a message; None where no room that is loaded declares it.
    """
    found = _declarations().get(code)
    return None if found is None else found[0](code, found[1])


def render_catalogue() -> str:
    """The catalogue of all error codes of the rooms loaded so far, as a Markdown page.

    A caller that wants the whole catalogue imports the ``errors`` module of every room first.
    """
    lines = [
        "# Errors and exit codes",
        "",
        "Every error has a stable code, one sentence, and a hint. Commands end with these exit codes:",
        "",
        "| exit code | meaning |",
        "|---:|---|",
        *(f"| {number} | {meaning} |" for number, meaning in EXIT_MEANINGS.items()),
        "",
        "| code | meaning | error class | exit code |",
        "|---|---|---|---:|",
    ]
    for code, (kind, meaning) in sorted(_declarations().items()):
        lines.append(f"| `{code}` | {meaning} | `{kind.__module__}.{kind.__name__}` | {kind.exit_code} |")
    return "\n".join(lines) + "\n"
