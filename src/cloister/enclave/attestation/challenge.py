"""Nonces: 32 random bytes, for one subject, answered once, within a minute.

A nonce is what makes evidence fresh. The hash of evidence is never used to recognise a replay, because one
report has several byte forms; the nonce is.

Rules kept here:

* A nonce holds its place until its time has passed, answered or not; none is given up for a newer one.
* There are places for 256 nonces of one subject and 16,384 in all. Where they are taken, no nonce is issued:
  whoever floods one subject delays that subject by a minute, and nobody else.
"""

import os
import threading
from collections import Counter, OrderedDict
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cloister.core.clock import Clock
from cloister.enclave.attestation.binding import NONCE_BYTES
from cloister.enclave.errors import AttestationError

LIFETIME: Final = timedelta(seconds=60)
MAX_PLACES: Final = 16_384
MAX_PLACES_OF_ONE: Final = 256


@dataclass(slots=True)
class _Issued:
    subject: str
    until: datetime
    redeemed: bool = False


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
        self._issued: OrderedDict[bytes, _Issued] = OrderedDict()
        self._places: Counter[str] = Counter()

    def issue(self, subject: str) -> bytes:
        """A fresh nonce for one subject, such as a site's name.

        Returns:
            32 bytes from the operating system's generator.

        Raises:
            AttestationError: attestation.busy where the places for this subject, or all, are taken.
        """
        nonce = os.urandom(NONCE_BYTES)
        with self._lock:
            now = self._clock()
            self._forget_what_expired(now)
            if self._places[subject] >= MAX_PLACES_OF_ONE or len(self._issued) >= MAX_PLACES:
                raise AttestationError(
                    "attestation.busy", "Too many challenges are open.", "Ask again in a minute."
                )
            self._issued[nonce] = _Issued(subject, now + self._lifetime)
            self._places[subject] += 1
        return nonce

    def redeem(self, nonce: bytes, subject: str) -> None:
        """Accept an answer to a nonce, once; after any attempt the nonce is used up.

        Args:
            nonce: what was answered.
            subject: who answered.

        Raises:
            AttestationError: attestation.replay if it was redeemed before, within its time; attestation.nonce
                if it was never issued, was issued to another subject, or its time has passed.
        """
        with self._lock:
            found = self._issued.get(nonce)
            if found is not None and found.redeemed:
                raise AttestationError("attestation.replay", "The nonce was answered before.")
            if found is not None:
                found.redeemed = True
            if found is None or found.subject != subject or self._clock() > found.until:
                raise AttestationError(
                    "attestation.nonce",
                    "The nonce was not issued to this subject, or its time has passed.",
                    "Ask for a new challenge.",
                )

    def _forget_what_expired(self, now: datetime) -> None:
        while self._issued:
            nonce, oldest = next(iter(self._issued.items()))
            if now <= oldest.until:
                return
            del self._issued[nonce]
            self._places[oldest.subject] -= 1
            if not self._places[oldest.subject]:
                del self._places[oldest.subject]
