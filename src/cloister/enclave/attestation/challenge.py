"""Nonces: 32 random bytes, for one subject, answered once, within a minute.

A nonce is what makes evidence fresh. The hash of evidence is never used to recognise a replay, because one
report has several byte forms; the nonce is.
"""

import os
import threading
from collections import OrderedDict
from datetime import datetime, timedelta

from cloister.core.clock import Clock
from cloister.enclave.attestation.model import NONCE_BYTES
from cloister.enclave.errors import AttestationError

LIFETIME = timedelta(seconds=60)
MAX_OPEN = 4096


class NonceBook:
    """Issues nonces and redeems each at most once; safe to share between threads.

    Args:
        clock: the time.
        lifetime: how long a nonce may be answered.
    """

    def __init__(self, clock: Clock, lifetime: timedelta = LIFETIME) -> None:
        self._clock = clock
        self._lifetime = lifetime
        self._lock = threading.Lock()
        self._open: OrderedDict[bytes, tuple[str, datetime]] = OrderedDict()
        self._redeemed: OrderedDict[bytes, None] = OrderedDict()

    def issue(self, subject: str) -> bytes:
        """A fresh nonce for one subject, such as a site's name.

        Returns:
            32 bytes from the operating system's generator.
        """
        nonce = os.urandom(NONCE_BYTES)
        with self._lock:
            self._open[nonce] = (subject, self._clock() + self._lifetime)
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        return nonce

    def redeem(self, nonce: bytes, subject: str) -> None:
        """Accept an answer to a nonce, once; after any attempt the nonce is used up.

        Args:
            nonce: what was answered.
            subject: who answered.

        Raises:
            AttestationError: attestation.replay if it was redeemed before; attestation.nonce if it was never
                issued, was issued to another subject, or its time has passed.
        """
        with self._lock:
            if nonce in self._redeemed:
                raise AttestationError("attestation.replay", "The nonce was answered before.")
            found = self._open.pop(nonce, None)
            if found is not None:
                self._redeemed[nonce] = None
                while len(self._redeemed) > MAX_OPEN:
                    self._redeemed.popitem(last=False)
            if found is None or found[0] != subject or self._clock() > found[1]:
                raise AttestationError(
                    "attestation.nonce",
                    "The nonce was not issued to this subject, or its time has passed.",
                    "Ask for a new challenge.",
                )
