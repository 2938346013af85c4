"""How a run is protected: by hardware that proved it, by none and saying so, or by none at all.

Rules kept here:

* Only the launcher says PROTECTED, and only after a verified self-quote; no caller turns one state into
  another.
* A run that isn't protected carries its mark on everything it writes.
* Keys are released to a PROTECTED run; to a SIMULATED one those of test data alone, which the hospital's
  manifest and the release policy have to say; to an INSECURE one none. Who asks for keys calls
  ``require_keys_may_be_asked_for``; who holds them verifies evidence, and doesn't rely on it.
* Patients' records are for PROTECTED runs. A run of another kind is refused before it reads them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from cloister.enclave.errors import LaunchError
from cloister.evidence.terms import TEST_DATA

RECORDS_WITHOUT_KEY: Final = "records-without-key"
"""The class of the incident that a site of an INSECURE run states when its worker gets the records."""


class Protection(StrEnum):
    """The protection of one run, fixed when it starts."""

    PROTECTED = "PROTECTED"
    SIMULATED = "SIMULATED"
    INSECURE = "INSECURE"

    @property
    def mark(self) -> str:
        """What everything of the run carries; empty for a protected one."""
        return "" if self is Protection.PROTECTED else self.value


def require_keys_may_be_asked_for(protection: Protection) -> None:
    """Refuse to ask for released keys in a run that may have none.

    Args:
        protection: the run's.

    Raises:
        LaunchError: launch.keys_refused.
    """
    if protection is Protection.INSECURE:
        raise LaunchError(
            "launch.keys_refused",
            "A run started with --insecure gets no released keys.",
            "Start it on hardware that attests itself, without --insecure.",
        )


def require_records_may_be_read(protection: Protection, contents: str) -> None:
    """Refuse a run without hardware on anything but test data.

    Args:
        protection: the run's.
        contents: what the dataset holds, in the words of the manifest that the hospitals sign.

    Raises:
        LaunchError: launch.real_records.
    """
    if protection is not Protection.PROTECTED and contents != TEST_DATA:
        raise LaunchError(
            "launch.real_records",
            "The manifest says that these are patients' records, and no hardware protects this run.",
            f"If they are public or made up, the manifest has to say `contents: {TEST_DATA}` under "
            "dataset_scope and `allow_simulated: true` under attestation; else start the job on hardware "
            "that attests itself:  cloister enclave start JOB",
        )
