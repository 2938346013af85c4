"""TLS between sender and service: version 1.3, and certificates on both sides (RFC 8446 section 4.4.2).

Rules this module keeps:

1. Both sides take certificates of the pinned authorities only; the system's own aren't asked.
2. The service's certificate has to be for the host that the sender asked for.
3. Certificate, key and authorities go together: two of them are a mistake and refused. A key that others
   could read is refused too.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.core.keys.secrets import require_private
from cloister.immune.errors import ImmuneError

if TYPE_CHECKING:
    from cloister.immune.settings import ApiSettings


def server_context(settings: ApiSettings) -> ssl.SSLContext | None:
    """The service's side; None where no certificates are set.

    Raises:
        ImmuneError: ``immune.setting_invalid``.
        KeyStoreError: ``key.permissions``.
    """
    return _context(settings, ssl.PROTOCOL_TLS_SERVER)


def client_context(settings: ApiSettings) -> ssl.SSLContext | None:
    """The sender's side; None where no certificates are set.

    Raises:
        ImmuneError: ``immune.setting_invalid``.
        KeyStoreError: ``key.permissions``.
    """
    return _context(settings, ssl.PROTOCOL_TLS_CLIENT)


def _context(settings: ApiSettings, side: ssl._SSLMethod) -> ssl.SSLContext | None:
    certificate, key, authority = settings.certificate_file, settings.key_file, settings.authority_file
    if certificate is None and key is None and authority is None:
        return None
    if certificate is None or key is None or authority is None:
        raise ImmuneError(
            "immune.setting_invalid",
            "api.certificate_file, api.key_file and api.authority_file go together.",
            "Set all three, or none.",
        )
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_COMPRESSION
    try:
        require_private(Path(key).stat(), Path(key))
        # An encrypted key would make OpenSSL ask a terminal that a service doesn't have.
        context.load_cert_chain(certificate, key, password=b"")
        context.load_verify_locations(cafile=authority)
    except (OSError, ssl.SSLError) as error:
        raise ImmuneError(
            "immune.setting_invalid",
            f"The certificates of the service can't be used ({type(error).__name__}).",
            "Name PEM files: a certificate, its unencrypted key, and the authorities of the other side.",
        ) from None
    return context
